"""Training of the miniature codec, a small stock ``Qwen3TTSTokenizerV2Model``.

The library's code is inference-only. Training runs this module's forward over the library's
modules with its own quantiser, whose codebooks are written into both sides at export.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miniature.grammar import spoken
from miniature.recipe import HOP, SAMPLE_RATE, CodecRecipe
from miniature.speech import Corpus, stable_seed
from voxadapt.core.compat import import_qwen_tts

LETTERS = " abcdefghijklmnopqrstuvwxyz"


def codec_config(recipe: CodecRecipe) -> Any:
    """Return the stock configuration of the codec."""
    import_qwen_tts()
    from qwen_tts.core import Qwen3TTSTokenizerV2Config

    half = recipe.codebook_dim // 2
    return Qwen3TTSTokenizerV2Config(
        encoder_config={
            "sampling_rate": SAMPLE_RATE,
            "num_filters": recipe.encoder_filters,
            "hidden_size": recipe.encoder_hidden,
            "num_hidden_layers": recipe.layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "intermediate_size": 2 * recipe.encoder_hidden,
            "upsampling_ratios": [8, 6, 5, 4],
            "codebook_size": recipe.codebook_size,
            "codebook_dim": half,
            "vector_quantization_hidden_dimension": half,
            "num_quantizers": recipe.quantizers,
            "upsample_groups": recipe.encoder_hidden,
            "layer_scale_initial_scale": 0.3,
        },
        decoder_config={
            "codebook_size": recipe.codebook_size,
            "codebook_dim": recipe.codebook_dim,
            "num_quantizers": recipe.quantizers,
            "hidden_size": recipe.latent,
            "latent_dim": recipe.latent,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": recipe.latent // 4,
            "intermediate_size": 2 * recipe.latent,
            "num_hidden_layers": recipe.layers,
            "decoder_dim": recipe.decoder_dim,
            "upsample_rates": [4, 4, 5, 6],
            "upsampling_ratios": [2, 2],
            "layer_scale_initial_scale": 0.3,
        },
        encoder_valid_num_quantizers=recipe.quantizers,
    )


def new_codec(recipe: CodecRecipe) -> Any:
    """Return an initialised, untrained codec.

    Every layer starts at unit gain; with the library's own initialisation the latents explode
    or vanish and training never leaves the mean spectrum.
    """
    import_qwen_tts()
    from qwen_tts.core import Qwen3TTSTokenizerV2Model

    torch.manual_seed(recipe.seed)
    model = Qwen3TTSTokenizerV2Model(codec_config(recipe))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                fan = float(module.weight[0].numel())
                module.weight.normal_(0, fan**-0.5)
            elif isinstance(module, nn.ConvTranspose1d):
                fan = module.weight.shape[0] * module.kernel_size[0] / module.stride[0]
                module.weight.normal_(0, fan**-0.5)
            if getattr(module, "bias", None) is not None and not isinstance(module, nn.LayerNorm):
                module.bias.zero_()
            kind = type(module).__name__
            if kind.endswith("LayerScale"):
                module.scale.fill_(0.3)
            elif kind.endswith("ConvNeXtBlock"):
                module.gamma.fill_(0.3)
            elif kind.endswith("DecoderResidualUnit"):
                module.conv2.conv.weight.mul_(0.3)
            elif kind == "MimiResnetBlock":
                module.block[-1].conv.weight.mul_(0.3)
        # Speech has a standard deviation near .1; the first layer lifts it to 1.
        model.encoder.encoder.layers[0].conv.weight.mul_(8.0)
    return model


class ResidualQuantizer(nn.Module):
    """Residual quantiser with moving-average codebooks and a straight-through gradient."""

    embed: Tensor
    usage: Tensor
    total: Tensor

    def __init__(self, levels: int, size: int, dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("embed", torch.zeros(levels, size, dim))
        self.register_buffer("usage", torch.ones(levels, size))
        self.register_buffer("total", torch.zeros(levels, size, dim))

    @torch.no_grad()
    def fit(self, frames: Tensor, generator: torch.Generator, rounds: int = 12) -> None:
        """Initialise the codebooks with k-means, residual by residual."""
        residual = frames
        for level in range(self.embed.shape[0]):
            size = self.embed.shape[1]
            pick = torch.randperm(len(residual), generator=generator)[:size]
            centres = residual[pick].clone()
            for _ in range(rounds):
                nearest = torch.cdist(residual, centres).argmin(1)
                count = torch.bincount(nearest, minlength=size).clamp(min=1)
                total = torch.zeros_like(centres).index_add_(0, nearest, residual)
                seen = torch.bincount(nearest, minlength=size) > 0
                centres = torch.where(seen[:, None], total / count[:, None], centres)
            nearest = torch.cdist(residual, centres).argmin(1)
            count = torch.bincount(nearest, minlength=size).float()
            self.embed[level] = centres
            self.usage[level] = count.clamp(min=0.5)
            self.total[level] = centres * self.usage[level][:, None]
            residual = residual - centres[nearest]

    def forward(
        self, z: Tensor, valid: Tensor, keep: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise, and move the codebooks when training.

        Args:
            z: Latents, batch x time x dim.
            valid: Frames that count, batch x time.
            keep: Levels used by each item, batch.
            generator: Source of randomness for dead codes.

        Returns:
            Quantised latents with a straight-through gradient, commitment loss, codes.
        """
        residual, out, codes = z.detach(), torch.zeros_like(z), []
        commit = z.new_zeros(())
        for level in range(self.embed.shape[0]):
            table = self.embed[level]
            used = valid & (keep > level)[:, None]
            flat = residual.reshape(-1, residual.shape[-1])
            nearest = torch.cdist(flat, table).argmin(1)
            chosen = table[nearest].view_as(z)
            if self.training:
                self._move(level, flat[used.reshape(-1)], nearest[used.reshape(-1)], generator)
            out = out + chosen * used[..., None]
            residual = residual - chosen
            codes.append(nearest.view(z.shape[:-1]))
            gap = (z - out.detach()).pow(2).mean(-1)
            commit = commit + (gap * used).sum() / used.sum().clamp(min=1)
        return z + (out - z).detach(), commit / len(codes), torch.stack(codes, -1)

    @torch.no_grad()
    def _move(self, level: int, x: Tensor, nearest: Tensor, generator: torch.Generator) -> None:
        size = self.embed.shape[1]
        count = torch.bincount(nearest, minlength=size).float()
        total = torch.zeros_like(self.total[level]).index_add_(0, nearest, x)
        self.usage[level].mul_(self.decay).add_(count, alpha=1 - self.decay)
        self.total[level].mul_(self.decay).add_(total, alpha=1 - self.decay)
        dead = self.usage[level] < 0.03
        if bool(dead.any()) and len(x):
            pick = torch.randint(len(x), (int(dead.sum()),), generator=generator)
            self.total[level][dead] = x[pick] * 0.3
            self.usage[level][dead] = 0.3
        self.embed[level] = self.total[level] / self.usage[level][:, None]


class SpectralLoss(nn.Module):
    """L1 of log-mel, and of mel, its power and magnitudes (relative), at several resolutions."""

    def __init__(self, sizes: tuple[int, ...] = (2048, 1024, 512, 256)) -> None:
        super().__init__()
        import librosa

        self.sizes = sizes
        for size in sizes:
            mels = {2048: 100, 1024: 80, 512: 48, 256: 24}.get(size, 40)
            bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=size, n_mels=mels, norm=None)
            self.register_buffer(f"bank{size}", torch.from_numpy(bank), persistent=False)
            self.register_buffer(f"window{size}", torch.hann_window(size), persistent=False)

    def _magnitude(self, wave: Tensor, size: int) -> Tensor:
        window = getattr(self, f"window{size}")
        spec = torch.stft(wave, size, size // 4, window=window, return_complex=True)
        spec = torch.view_as_real(spec)
        return (spec.pow(2).sum(-1) + 1e-9).sqrt() * (2 / size**0.5)

    def forward(self, guess: Tensor, truth: Tensor) -> Tensor:
        """Compare two batches of waves."""
        loss = guess.new_zeros(())
        for size in self.sizes:
            bank = getattr(self, f"bank{size}")
            with torch.no_grad():
                t = self._magnitude(truth, size)
                t_mel = bank @ t
            g = self._magnitude(guess, size)
            g_mel = bank @ g
            loss = loss + (torch.log(g_mel + 1e-2) - torch.log(t_mel + 1e-2)).abs().mean()
            # Linear bands: the loud parts of a voice, which tell speakers apart.
            loss = loss + 0.5 * (g_mel - t_mel).abs().mean() / (t_mel.mean() + 1e-3)
            power = t_mel.pow(2)
            loss = loss + 0.25 * (g_mel.pow(2) - power).abs().mean() / (power.mean() + 1e-4)
            loss = loss + 0.5 * (g - t).abs().mean() / (t.mean() + 1e-3)
        return loss / len(self.sizes)


class ReadingHead(nn.Module):
    """Reads letters off the first codebook, so that it carries what is said.

    The full-size codec distils a speech model into its first codebook; here the transcripts,
    which are known exactly, take that place (CTC).
    """

    def __init__(self, dim: int, width: int = 96, steps: int = 4) -> None:
        super().__init__()
        self.steps = steps
        self.body = nn.Sequential(
            nn.Conv1d(dim, width, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(width, width, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(width, steps * (len(LETTERS) + 1), 1),
        )

    def forward(self, z: Tensor, lengths: Tensor, texts: list[str]) -> Tensor:
        """Return the CTC loss of reading the texts off the latents (batch x time x dim)."""
        scores = self.body(z.transpose(1, 2))
        batch, _, time_ = scores.shape
        scores = scores.view(batch, self.steps, -1, time_).permute(3, 1, 0, 2)
        scores = scores.reshape(time_ * self.steps, batch, -1).log_softmax(-1)
        clean = ["".join(c for c in t.lower() if c in LETTERS) for t in texts]
        targets = torch.tensor([LETTERS.index(c) + 1 for t in clean for c in t])
        sizes = torch.tensor([len(t) for t in clean])
        loss = F.ctc_loss(
            scores, targets, lengths * self.steps, sizes, reduction="none", zero_infinity=True
        )
        return (loss / sizes).mean()


def _causal(conv: nn.Conv1d, x: Tensor) -> Tensor:
    pad = (conv.kernel_size[0] - 1) * conv.dilation[0] + 1 - conv.stride[0]
    return _convolve(conv, F.pad(x, (pad, 0)))


def _convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Convolve by the route that is fastest on a CPU; the result is that of ``conv(x)``."""
    if conv._forward_hooks:
        return conv(x)
    stride = conv.stride[0]
    if stride > 1 and conv.kernel_size[0] == 2 * stride:  # a block of samples becomes channels
        batch, channels, length = x.shape
        blocks = x.view(batch, channels, length // stride, stride).transpose(2, 3)
        weight = conv.weight.view(-1, channels, 2, stride).transpose(2, 3)
        return F.conv1d(
            blocks.reshape(batch, channels * stride, -1),
            weight.reshape(-1, channels * stride, 2),
            conv.bias,
        )
    if conv.out_channels > 12 or conv.kernel_size[0] == 1 or conv.in_channels < 8:
        return conv(x)
    last = torch.channels_last
    y = F.conv2d(
        x.unsqueeze(2).contiguous(memory_format=last),
        conv.weight.unsqueeze(2).contiguous(memory_format=last),
        conv.bias,
        stride=(1, stride),
        dilation=(1, conv.dilation[0]),
    )
    return y.squeeze(2)


@dataclass
class CodecBatch:
    """Whole clips with decoding windows.

    Attributes:
        wave: Clips, padded, clips x samples.
        lengths: Frames of each clip.
        rows: Clip of each window.
        starts: First frame of each window.
        texts: What is said in each clip, in words.
    """

    wave: Tensor
    lengths: Tensor
    rows: Tensor
    starts: Tensor
    texts: list[str]


class SpectrumHead(nn.Module):
    """Reads the log-mel spectrum off the decoder's latents with one linear map.

    Without it the wave decoder learns a constant spectrum first, shuts its input out and needs
    hundreds of steps to open it again.
    """

    bank: Tensor
    window: Tensor

    def __init__(self, channels: int, mels: int = 64, steps: int = 4) -> None:
        super().__init__()
        import librosa

        self.steps = steps
        self.map = nn.Conv1d(channels, mels * steps, 1)
        bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=1024, n_mels=mels, norm=None)
        self.register_buffer("bank", torch.from_numpy(bank), persistent=False)
        self.register_buffer("window", torch.hann_window(1024), persistent=False)

    def forward(self, hidden: Tensor, wave: Tensor, valid: Tensor) -> Tensor:
        """Return the mean absolute error over the frames that count."""
        hop = HOP // self.steps
        spec = torch.stft(wave, 1024, hop, window=self.window, return_complex=True)
        spec = torch.view_as_real(spec).pow(2).sum(-1).add(1e-9).sqrt() / 16
        target = torch.log(self.bank @ spec + 1e-2)[..., : valid.shape[1] * self.steps]
        guess = self.map(hidden)
        batch, _, frames = guess.shape
        guess = guess.view(batch, -1, self.steps, frames)
        target = target.view(batch, -1, frames, self.steps).transpose(2, 3)
        return (guess - target).abs().mean((1, 2))[valid].mean()


@torch.no_grad()
def balance(trainer: CodecTrainer, wave: Tensor) -> None:
    """Scale the layers on the signal path until their outputs have unit deviation.

    Args:
        trainer: Freshly initialised modules.
        wave: Some speech.
    """
    model = trainer.model
    quantizer = model.encoder.quantizer
    path: list[tuple[nn.Module, float]] = []
    for layer in model.encoder.encoder.layers:
        if hasattr(layer, "block"):
            path.append((layer.block[-1], 0.3))
        elif hasattr(layer, "conv"):
            path.append((layer, 1.0))
    path.append((model.encoder.downsample, 1.0))
    path.append((quantizer.semantic_residual_vector_quantizer.input_proj, 1.0))
    path.append((quantizer.acoustic_residual_vector_quantizer.input_proj, 1.0))
    path += [(model.decoder.pre_conv, 1.0), (model.decoder.pre_transformer.output_proj, 1.0)]
    path += [(blocks[0], 1.0) for blocks in model.decoder.upsample]
    path.append((model.decoder.decoder[0], 1.0))
    for block in model.decoder.decoder:
        if hasattr(block, "block"):
            path.append((block.block[1], 1.0))
            path += [(unit.conv2, 0.3) for unit in block.block[2:]]
    path.append((model.decoder.decoder[-1], 1.0))
    seen: dict[str, Tensor] = {}
    for module, want in path:
        inner: Any = module.conv if hasattr(module, "conv") else module
        hook = inner.register_forward_hook(lambda m, a, y: seen.__setitem__("y", y))
        first, rest = trainer.latents(wave)
        trainer.lower(trainer.upper(first, rest)[..., :16])
        hook.remove()
        inner.weight.mul_(want / seen.pop("y").std())


class CodecTrainer(nn.Module):
    """The training forward over the stock modules."""

    def __init__(self, recipe: CodecRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.model: Any = new_codec(recipe)
        half = recipe.codebook_dim // 2
        self.first = ResidualQuantizer(1, recipe.codebook_size, half, recipe.decay)
        self.rest = ResidualQuantizer(
            recipe.quantizers - 1, recipe.codebook_size, half, recipe.decay
        )
        self.reader = ReadingHead(half)
        self.spectrum = SpectrumHead(recipe.latent)
        self.spectral = SpectralLoss()
        self.quantize = False

    def features(self, wave: Tensor) -> Tensor:
        """Run the encoder's convolutions on whole frames, without the stock length arithmetic."""
        hidden = wave[:, None]
        for layer in self.model.encoder.encoder.layers:
            if isinstance(layer, nn.ELU):
                hidden = layer(hidden)
            elif hasattr(layer, "block"):
                inner = hidden
                for part in layer.block:
                    inner = part(inner) if isinstance(part, nn.ELU) else _causal(part.conv, inner)
                hidden = hidden + inner
            else:
                hidden = _causal(layer.conv, hidden)
        return hidden

    def latents(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of both quantisers, batch x time x dim."""
        encoder = self.model.encoder
        hidden = self.features(wave)
        hidden = encoder.encoder_transformer(hidden.transpose(1, 2), return_dict=True)[0]
        hidden = encoder.downsample(hidden.transpose(1, 2))
        quantizer = encoder.quantizer
        first = quantizer.semantic_residual_vector_quantizer.input_proj(hidden)
        rest = quantizer.acoustic_residual_vector_quantizer.input_proj(hidden)
        return first.transpose(1, 2), rest.transpose(1, 2)

    def upper(self, first: Tensor, rest: Tensor) -> Tensor:
        """Return the decoder's latents at the frame rate, batch x channels x time."""
        decoder = self.model.decoder
        hidden = decoder.quantizer.rvq_first.output_proj(first.transpose(1, 2))
        hidden = hidden + decoder.quantizer.rvq_rest.output_proj(rest.transpose(1, 2))
        hidden = decoder.pre_conv(hidden).transpose(1, 2)
        return decoder.pre_transformer(inputs_embeds=hidden).last_hidden_state.transpose(1, 2)

    def lower(self, hidden: Tensor) -> Tensor:
        """Return the wave of decoder latents."""
        for blocks in self.model.decoder.upsample:
            for block in blocks:
                hidden = block(hidden)
        for block in self.model.decoder.decoder:
            for part in getattr(block, "block", [block]):
                if hasattr(part, "conv1"):
                    inner = _causal(part.conv1.conv, part.act1(hidden))
                    hidden = hidden + _causal(part.conv2.conv, part.act2(inner))
                else:
                    hidden = part(hidden)
        return hidden[:, 0] * self.recipe.output_scale

    def forward(
        self, batch: CodecBatch, generator: torch.Generator, settling: bool = False
    ) -> dict[str, Tensor]:
        """Return the loss and its parts.

        Args:
            batch: Clips and windows.
            generator: Source of randomness.
            settling: Train the reading heads alone, not the codec through them.
        """
        r = self.recipe
        first, rest = self.latents(batch.wave)
        frames = torch.arange(first.shape[1])
        valid = frames[None] < batch.lengths[:, None]
        shape = first.new_zeros(())
        for z in (first, rest):
            used = z[valid]
            shape = shape + (used.std(0) - 1).pow(2).mean() + used.mean(0).pow(2).mean()
        parts = {"shape": shape}
        if self.quantize:
            size = len(batch.texts)
            everything = torch.full((size,), 99)
            drop = torch.rand(size, generator=generator) < r.quantizer_dropout
            fewer = torch.randint(1, r.quantizers, (size,), generator=generator)
            keep = torch.where(drop, fewer, everything)
            first, commit1, _ = self.first(first, valid, everything, generator)
            rest, commit2, _ = self.rest(rest, valid, keep, generator)
            parts["commit"] = commit1 + commit2
        hidden = self.upper(first, rest)
        # New heads on a trained codec learn alone first, or their errors would undo it.
        read, seen = (first.detach(), hidden.detach()) if settling else (first, hidden)
        parts["read"] = self.reader(read * valid[..., None], batch.lengths, batch.texts)
        parts["mel"] = self.spectrum(seen, batch.wave, valid)
        window = batch.starts[:, None] + torch.arange(-1, r.window)[None]
        index = window.clamp(min=0)[:, None].expand(-1, hidden.shape[1], -1)
        guess = self.lower(hidden[batch.rows].gather(2, index))[:, HOP:]
        sample = (batch.starts * HOP)[:, None] + torch.arange(r.window * HOP)[None]
        truth = batch.wave[batch.rows].gather(1, sample)
        parts["spectral"] = self.spectral(guess, truth)
        parts["energy"] = (guess.detach().std() / truth.std()).detach()
        total = parts["spectral"] + r.shape_weight * shape + r.read_weight * parts["read"]
        total = total + r.mel_weight * parts["mel"]
        if "commit" in parts:
            total = total + r.commit_weight * parts["commit"]
        parts["total"] = total
        return parts


def batches(
    corpus: Corpus, indices: list[int], recipe: CodecRecipe, start: int = 0
) -> Iterator[CodecBatch]:
    """Yield training batches of clips of similar length, for ever, the same for a seed.

    Long clips are fewer in a batch and have several decoding windows each.
    """
    step = start
    lengths = np.array([corpus.frames(i) for i in indices])
    buckets = [
        np.flatnonzero((lengths <= high) & (lengths > low))
        for low, high in itertools.pairwise((0, *recipe.buckets))
    ]
    share = np.array([len(b) for b in buckets], dtype=np.float64)
    while True:
        rng = np.random.default_rng(stable_seed(recipe.seed, "codec", step))
        which = int(rng.choice(len(buckets), p=share / share.sum()))
        longest = recipe.buckets[which]
        size = min(recipe.batch, max(1, recipe.frames // longest))
        chosen = rng.choice(buckets[which], size=size, replace=False)
        wave = np.zeros((size, longest * HOP), dtype=np.float32)
        for row, c in enumerate(chosen):
            clip = corpus.clip(indices[c])
            wave[row, : len(clip)] = clip * 10 ** rng.uniform(-0.3, 0.0)
        rows = np.arange(recipe.batch) % size
        starts = rng.integers(0, np.maximum(1, lengths[chosen[rows]] - recipe.window + 1))
        yield CodecBatch(
            torch.from_numpy(wave),
            torch.from_numpy(lengths[chosen].astype(np.int64)),
            torch.from_numpy(rows),
            torch.from_numpy(starts),
            [spoken(corpus.utterances[indices[c]].text) for c in chosen],
        )
        step += 1


def one_cycle(step: int, total: int, peak: float, warm: float = 0.08) -> float:
    """Return the learning rate of a one-cycle schedule."""
    at = step / total
    if at < warm:
        return peak * (0.05 + 0.95 * at / warm)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (at - warm) / (1 - warm))))


def plateau(step: int, total: int, peak: float, warm: int = 300, cool: float = 0.25) -> float:
    """Return the learning rate of a schedule that stays at its peak and falls at the end.

    Unlike a cosine it can be prolonged while it runs.
    """
    if step < warm:
        return peak * (0.05 + 0.95 * step / warm)
    left = (total - step) / (cool * total)
    return peak * min(1.0, 0.01 + 0.99 * left)


def export(trainer: CodecTrainer, folder: Path, half: bool = True) -> None:
    """Write the codec as a stock model folder.

    Args:
        trainer: Trained modules and codebooks.
        folder: Where to write.
        half: Store float16.
    """
    from transformers import EncodecFeatureExtractor

    model = trainer.model
    quantizer = model.encoder.quantizer
    encoder = [
        *quantizer.semantic_residual_vector_quantizer.layers,
        *quantizer.acoustic_residual_vector_quantizer.layers,
    ]
    decoder = [
        *model.decoder.quantizer.rvq_first.vq.layers,
        *model.decoder.quantizer.rvq_rest.vq.layers,
    ]
    tables = [*trainer.first.embed, *trainer.rest.embed]
    last = model.decoder.decoder[-1].conv
    with torch.no_grad():
        for table, e, d in zip(tables, encoder, decoder, strict=True):
            e.codebook.embed_sum.copy_(table)
            e.codebook.cluster_usage.fill_(1)
            e.codebook._embed = None
            d._codebook.embedding_sum.copy_(table)
            d._codebook.cluster_usage.fill_(1)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    scaled = {id(last.weight), id(last.bias)}
    state = {}
    for key, value in model.state_dict(keep_vars=True).items():
        # Training scales the output; the stock decoder has the scale in its last layer.
        scale = trainer.recipe.output_scale if id(value) in scaled else 1.0
        state[key] = (value.detach() * scale).to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(folder, state_dict=state)
    EncodecFeatureExtractor(
        feature_size=1, sampling_rate=SAMPLE_RATE, padding_value=0.0
    ).save_pretrained(folder)


class Curve:
    """Writes the learning curve: means over some steps, one JSON line each."""

    def __init__(self, path: Path, every: int) -> None:
        """Continue a curve.

        Args:
            path: File to append to.
            every: Steps a line.
        """
        self.path, self.every = path, every
        self.sums: dict[str, float] = {}
        self.count, self.began = 0, time.time()

    def add(self, step: int, parts: Mapping[str, Tensor]) -> None:
        """Count the figures of a step; write a line where it is due."""
        self.count += 1
        for key, value in parts.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value.detach())
        if step % self.every:
            return
        means = {key: round(value / self.count, 4) for key, value in self.sums.items()}
        seconds = (time.time() - self.began) / self.count
        row = {"step": step, "time": round(time.time()), "step_s": round(seconds, 3), **means}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as sink:
            sink.write(json.dumps(row) + "\n")
        self.sums, self.count, self.began = {}, 0, time.time()


def save_state(path: Path, **state: Any) -> None:
    """Write a checkpoint in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_export(trainer: CodecTrainer, folder: Path) -> None:
    """Start from a codec that :func:`export` has written.

    Args:
        trainer: Modules of the same shapes.
        folder: The stock model folder.
    """
    from safetensors.torch import load_file

    model = trainer.model
    model.load_state_dict(load_file(folder / "model.safetensors"))
    quantizer = model.encoder.quantizer
    semantic = quantizer.semantic_residual_vector_quantizer.layers
    acoustic = quantizer.acoustic_residual_vector_quantizer.layers
    last = model.decoder.decoder[-1].conv
    with torch.no_grad():
        for side, layers in ((trainer.first, semantic), (trainer.rest, acoustic)):
            side.embed.copy_(torch.stack([layer.codebook.embed_sum for layer in layers]))
            side.total.copy_(side.embed)
        last.weight.div_(trainer.recipe.output_scale)
        last.bias.div_(trainer.recipe.output_scale)
    trainer.quantize = True


def train_codec(
    corpus: Corpus,
    indices: list[int],
    recipe: CodecRecipe,
    work: Path,
    start: Path | None = None,
    compiled: bool = True,
) -> CodecTrainer:
    """Train the codec, from its last checkpoint where there is one.

    Args:
        corpus: All clips.
        indices: Clips to learn from.
        recipe: Sizes and schedule.
        work: Folder of checkpoints.
        start: Exported codec of the same shapes to start from.
        compiled: Compile the wave decoder.

    Returns:
        The trainer with the final weights.
    """
    trainer = CodecTrainer(recipe).train()
    params = list(trainer.parameters())
    optimizer = torch.optim.AdamW(params, lr=recipe.lr, betas=(0.8, 0.99), weight_decay=1e-3)
    path, first_step = work / "codec" / "state.pt", 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        trainer.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first_step, trainer.quantize = state["step"], state["quantize"]
    elif start is not None:
        load_export(trainer, start)
    else:
        balance(trainer, next(batches(corpus, indices, recipe, 10**6)).wave[:4])
    if compiled:
        # Only the decoder: torch 2.13's fused padding kernel of the encoder reads past its end.
        trainer.lower = torch.compile(trainer.lower, dynamic=False)  # type: ignore[method-assign]
        trainer.spectral.compile(dynamic=False)
    source = batches(corpus, indices, recipe, first_step)
    curve = Curve(work / "codec" / "curve.jsonl", 25)
    for step in range(first_step, recipe.steps):
        generator = torch.Generator().manual_seed(stable_seed(recipe.seed, "q", step) % 2**62)
        if step == recipe.warm_steps and not trainer.quantize:
            _fit(trainer, corpus, indices, recipe, generator)
        for group in optimizer.param_groups:
            group["lr"] = plateau(step, recipe.steps, recipe.lr)
        settling = start is not None and step < recipe.settle_steps
        parts = trainer(next(source), generator, settling)
        optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        nn.utils.clip_grad_norm_(params, 5.0)
        optimizer.step()
        curve.add(step + 1, parts)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            save_state(path, model=trainer.state_dict(), optimizer=optimizer.state_dict(),
                       step=step + 1, quantize=trainer.quantize, recipe=asdict(recipe))  # fmt: skip
    return trainer.eval()


@torch.no_grad()
def _fit(
    trainer: CodecTrainer,
    corpus: Corpus,
    indices: list[int],
    recipe: CodecRecipe,
    generator: torch.Generator,
) -> None:
    first, rest, count = [], [], 0
    for batch in batches(corpus, indices, recipe, 10**6):
        a, b = trainer.latents(batch.wave)
        valid = torch.arange(a.shape[1])[None] < batch.lengths[:, None]
        first.append(a[valid])
        rest.append(b[valid])
        count += int(valid.sum())
        if count >= recipe.fit_frames:
            break
    trainer.first.fit(torch.cat(first), generator)
    trainer.rest.fit(torch.cat(rest), generator)
    trainer.quantize = True
