"""Speech codes of a batch of texts: the token loop of `generate`, without what makes it slow.

The stock call builds the prompt, then runs Hugging Face's `generate` once for the talker and, in
every frame, once more for the code predictor. Here the prompt stays the stock one; the loop is
written out over the stock weights with caches that are allocated once. Greedy codes are those of
the stock loop; sampled codes follow the same distribution.

Three things differ on purpose. Each row draws from a random stream of its own, so that what is
said does not depend on the company in its batch, and two checkpoints meet the same numbers. Each
row has its own limit of frames. And a row that has ended leaves the batch.

Shape legend: B rows, T new positions, L cached positions, D width, H heads, K codebooks, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

VERSION = 2  # of what a seed says: enters every key under which generated speech is kept
SHRINK_AT = 0.75  # rows that have ended are taken out when this share, or fewer, still speak


@dataclass(frozen=True)
class Ending:
    """How a row of the last batch ended.

    Attributes:
        num_frames: Frames of codes.
        ended: The model chose the end; False where the limit cut it off.
    """

    num_frames: int
    ended: bool


class Decoding:
    """Let the stock calls of a model use the loop of this module, within a `with` block.

        with Decoding(tts.model, seeds=[1, 2], max_new_tokens=[90, 120]) as decoding:
            wavs, _ = tts.generate_custom_voice(text=[…, …], …)
        decoding.endings

    Args:
        model: Stock `Qwen3TTSForConditionalGeneration`.
        seeds: Of each row's random stream.
        max_new_tokens: Where each row stops; one more than the frames it can give.

    Attributes:
        endings: One a row, once the call has returned.
    """

    def __init__(self, model: Any, seeds: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        assert len(seeds) == len(max_new_tokens)
        self.endings: list[Ending] = []
        self._talker = model.talker
        self._seeds, self._limits = list(seeds), list(max_new_tokens)

    def __enter__(self) -> Decoding:
        self._talker.generate = self._generate
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._talker.generate

    def _generate(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        trailing_text_hidden: Tensor,
        tts_pad_embed: Tensor,
        **options: Any,
    ) -> SimpleNamespace:
        """Answer as `talker.generate` would, as far as the stock call reads the answer."""
        made = generate_codes(
            self._talker,
            inputs_embeds,
            attention_mask,
            trailing_text_hidden,
            tts_pad_embed,
            seeds=self._seeds,
            limits=self._limits,
            options=options,
        )
        codes_BNK, hidden_BND = made[0].clone(), made[1].clone()  # ordinary tensors again
        self.endings = made[2]
        steps: list[tuple[tuple[Tensor, ...], Tensor | None]] = [((hidden_BND[:, :1],), None)]
        for frame in range(codes_BNK.shape[1]):
            steps.append(((hidden_BND[:, frame + 1 : frame + 2],), codes_BNK[:, frame]))
        return SimpleNamespace(hidden_states=steps)


@torch.inference_mode()
def generate_codes(
    talker: Any,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    trailing_text_hidden: Tensor,
    tts_pad_embed: Tensor,
    *,
    seeds: Sequence[int],
    limits: Sequence[int],
    options: dict[str, Any],
) -> tuple[Tensor, Tensor, list[Ending]]:
    """Generate frames until every row has ended or reached its limit.

    Args:
        talker: Stock `Qwen3TTSTalkerForConditionalGeneration`.
        inputs_embeds: Prompts `[B, T, D]`, padded on the left.
        attention_mask: `[B, T]`, 0 on padding.
        trailing_text_hidden: `[B, S, D]`: what is added to the frames, first to last; after them
            `tts_pad_embed`.
        tts_pad_embed: `[1, 1, D]`.
        seeds: Of each row's random stream.
        limits: Tokens of codebook 0 a row may have; the last of them gives no frame.
        options: What the stock call passes to `talker.generate`: sampling of talker and
            sub-talker, `eos_token_id`, `suppress_tokens`, `min_new_tokens`.

    Returns:
        Codes `[B, N, K]`, with the end-of-speech id in codebook 0 after a row's end; the talker's
        hidden states `[B, N + 1, D]`, the prompt's last first; how each row ended.
    """
    device, eos = inputs_embeds.device, int(options["eos_token_id"])
    rows, prompt_length = attention_mask.shape
    num_codes, longest = talker.config.num_code_groups, max(limits)
    assert longest >= 2, "a limit below two tokens leaves no frame"
    stack = _Stack(talker.model, rows, prompt_length + longest)
    predictor = _Predictor(talker, rows, _Sampler.sub_talker(options))
    sampler = _Sampler.talker(options, str(device))
    uniform_BNK = torch.stack([_uniform(seed, longest, num_codes) for seed in seeds]).to(device)
    limit_B = torch.tensor(limits, device=device)
    too_early = int(options.get("min_new_tokens") or 0)

    codes_BNK = torch.zeros(rows, longest, num_codes, dtype=torch.long, device=device)
    codes_BNK[:, :, 0] = eos
    hidden_BND = inputs_embeds.new_zeros(rows, longest + 1, inputs_embeds.shape[-1])
    num_frames_B = torch.zeros_like(limit_B)
    ended_B = torch.zeros(rows, dtype=torch.bool, device=device)

    # Rows of the batch that are still computed, and which of them still speak.
    active = torch.arange(rows, device=device)
    speaks = torch.ones_like(ended_B)
    last_BD = stack.prompt(inputs_embeds, attention_mask)
    hidden_BND[:, 0] = last_BD
    for frame in range(longest):
        logits_BV = talker.codec_head(last_BD).float()
        if frame < too_early:
            logits_BV[:, eos] = -torch.inf
        c0_B = sampler(codes_BNK[active, :frame, 0], logits_BV, uniform_BNK[active, frame, 0])
        ended_B[active] |= speaks & (c0_B == eos)
        speaks = speaks & (c0_B != eos) & (frame + 1 < limit_B[active])
        num_frames_B[active] += speaks
        num_speaking = int(speaks.sum())
        if num_speaking == 0:
            break
        if num_speaking <= SHRINK_AT * len(active):
            kept = torch.nonzero(speaks).squeeze(-1)
            active, speaks, c0_B, last_BD = active[kept], speaks[kept], c0_B[kept], last_BD[kept]
            stack.keep(kept)
        codes_BK = predictor(last_BD, c0_B, uniform_BNK[active, frame, 1:])
        codes_BNK[active[speaks], frame] = codes_BK[speaks]
        embedded_BD = predictor.embed(codes_BK)
        if frame < trailing_text_hidden.shape[1]:
            embedded_BD = embedded_BD + trailing_text_hidden[active, frame]
        else:
            embedded_BD = embedded_BD + tts_pad_embed[:, 0]
        last_BD = stack.step(embedded_BD)
        hidden_BND[active, frame + 1] = last_BD
    count = int(num_frames_B.max())
    endings = [Ending(*item) for item in zip(num_frames_B.tolist(), ended_B.tolist(), strict=True)]
    return codes_BNK[:, :count], hidden_BND[:, : count + 1], endings


def _uniform(seed: int, num_tokens: int, num_codes: int) -> Tensor:
    """Draw the random numbers of one row, `[N, K]`, the same on every device.

    The first frames' numbers do not depend on how many are drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_tokens, num_codes, generator=generator)


class _Sampler:
    """From logits to codes, with the processors of Hugging Face's `generate` in its order.

    Args:
        sample: Draw; otherwise take the likeliest.
        suppress: Codes that are never chosen.
        repetition_penalty: Divides the logits of codes that the row has had already.
        temperature: Divides the logits.
        top_k: Likeliest codes that are drawn from; 0 or None: all.
        top_p: Probability mass that is drawn from.
        device: Of the logits.
    """

    def __init__(
        self,
        sample: bool,
        temperature: float | None,
        top_k: int | None,
        top_p: float | None,
        repetition_penalty: float | None = None,
        suppress: Sequence[int] = (),
        device: str = "cpu",
    ) -> None:
        self._sample = sample
        self._process = LogitsProcessorList()
        if repetition_penalty not in (None, 1.0):
            self._process.append(RepetitionPenaltyLogitsProcessor(repetition_penalty))
        if suppress:
            self._process.append(SuppressTokensLogitsProcessor(list(suppress), device))
        if sample and temperature not in (None, 1.0):
            self._process.append(TemperatureLogitsWarper(temperature))
        if sample and top_k:
            self._process.append(TopKLogitsWarper(top_k))
        if sample and top_p is not None and top_p < 1.0:
            self._process.append(TopPLogitsWarper(top_p))

    @classmethod
    def talker(cls, options: dict[str, Any], device: str) -> _Sampler:
        """Return codebook 0's."""
        return cls(
            options["do_sample"],
            options["temperature"],
            options["top_k"],
            options["top_p"],
            options["repetition_penalty"],
            options["suppress_tokens"],
            device,
        )

    @classmethod
    def sub_talker(cls, options: dict[str, Any]) -> _Sampler:
        """Return that of the other codebooks."""
        names = ("dosample", "temperature", "top_k", "top_p")
        return cls(*(options[f"subtalker_{name}"] for name in names))

    def __call__(self, history_BN: Tensor | None, logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
        """Choose a code a row: the one whose stretch of the cumulated probability holds the draw.

        Args:
            history_BN: Codes that the row has had.
            logits_BV: float32.
            uniform_B: Draws in [0, 1).
        """
        scores_BV = self._process(history_BN, logits_BV)  # type: ignore[arg-type]
        if not self._sample:
            return scores_BV.argmax(dim=-1)
        cumulated_BV = scores_BV.softmax(dim=-1).cumsum(dim=-1)
        total_B1 = cumulated_BV[:, -1:]
        below = torch.nextafter(total_B1, torch.zeros_like(total_B1))
        wanted_B1 = torch.minimum(uniform_B[:, None] * total_B1, below)
        return torch.searchsorted(cumulated_BV, wanted_B1, right=True).squeeze(-1)


class _Predictor:
    """The code predictor: codebooks 1 … K-1 of a frame, from the talker's state and codebook 0.

    Args:
        talker: Stock talker, which holds the predictor and the table of codebook 0.
        rows: Of the batch.
        sampler: Chooses the codes.
    """

    def __init__(self, talker: Any, rows: int, sampler: _Sampler) -> None:
        predictor = talker.code_predictor
        self._heads = predictor.get_output_embeddings()
        self._tables = [talker.get_input_embeddings(), *predictor.get_input_embeddings()]
        self._project = predictor.small_to_mtp_projection
        self._stack = _Stack(predictor.model, rows, len(self._tables))
        self._sampler = sampler

    def __call__(self, hidden_BD: Tensor, c0_B: Tensor, uniform_BK: Tensor) -> Tensor:
        """Return the codes of one frame, `[B, K]`."""
        codes = [c0_B]
        first_B2D = torch.stack([hidden_BD, self._tables[0](c0_B)], dim=1)
        last_BD = self._stack.start(self._project(first_B2D))
        for index, head in enumerate(self._heads):
            if index:
                last_BD = self._stack.step(self._project(self._tables[index](codes[-1])))
            codes.append(self._sampler(None, head(last_BD).float(), uniform_BK[:, index]))
        return torch.stack(codes, dim=1)

    def embed(self, codes_BK: Tensor) -> Tensor:
        """Sum the embeddings of a frame, `[B, D]`."""
        tables = zip(self._tables, codes_BK.unbind(dim=1), strict=True)
        return torch.stack([table(codes_B) for table, codes_B in tables], dim=1).sum(dim=1)


class _Stack:
    """Stock decoder layers over a cache of fixed size.

    The three position grids of the talker's rotary embedding are equal for speech, so one serves.

    Args:
        model: Stock talker or code predictor model.
        rows: Of the batch.
        length: Positions a row can have.
    """

    def __init__(self, model: Any, rows: int, length: int) -> None:
        weight = model.norm.weight
        self._norm = model.norm
        self._layers = [_Layer(layer, rows, length) for layer in model.layers]
        angles = (
            torch.arange(length, device=weight.device)[:, None].float()
            * (model.rotary_emb.inv_freq.float()[None, :])
        )
        angles = torch.cat([angles, angles], dim=-1)
        scaling = model.rotary_emb.attention_scaling
        sign = torch.ones_like(angles)
        sign[:, : angles.shape[1] // 2] = -1.0
        self._cos_LE = (angles.cos() * scaling).to(weight.dtype)
        self._sin_LE = (angles.sin() * scaling * sign).to(weight.dtype)
        self._length = 0  # positions in the cache
        self._mask_BL: Tensor | None = None  # added to attention scores; None without padding
        self._padding_B: Tensor | None = None

    def start(self, inputs_BTD: Tensor) -> Tensor:
        """Forget everything, read unpadded positions and return the last one's state `[B, D]`."""
        self._length, self._mask_BL, self._padding_B = 0, None, None
        return self._read(inputs_BTD)

    def prompt(self, inputs_BTD: Tensor, attention_mask: Tensor) -> Tensor:
        """Read prompts that are padded on the left and return their last states `[B, D]`."""
        padding_B = (attention_mask == 0).sum(dim=1)
        if int(padding_B.max()) == 0:
            return self.start(inputs_BTD)
        self._length, self._padding_B = 0, padding_B
        length = self._cos_LE.shape[0]
        hidden = torch.arange(length, device=padding_B.device) < padding_B[:, None]
        self._mask_BL = torch.zeros(hidden.shape, dtype=inputs_BTD.dtype, device=hidden.device)
        self._mask_BL.masked_fill_(hidden, torch.finfo(inputs_BTD.dtype).min)
        return self._read(inputs_BTD)

    def step(self, inputs_BD: Tensor) -> Tensor:
        """Read one more position of every row and return its state `[B, D]`."""
        return self._read(inputs_BD[:, None])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        for layer in self._layers:
            layer.keep(rows, self._length)
        if self._padding_B is not None and self._mask_BL is not None:
            self._padding_B, self._mask_BL = self._padding_B[rows], self._mask_BL[rows]

    def _read(self, inputs_BTD: Tensor) -> Tensor:
        start, end = self._length, self._length + inputs_BTD.shape[1]
        if self._padding_B is None:
            cos, sin = self._cos_LE[None, start:end, None], self._sin_LE[None, start:end, None]
        else:
            places = torch.arange(start, end, device=inputs_BTD.device) - self._padding_B[:, None]
            places = places.clamp(min=0)
            cos, sin = self._cos_LE[places][:, :, None], self._sin_LE[places][:, :, None]
        mask = self._mask(start, end, inputs_BTD)
        states_BTD = inputs_BTD
        for layer in self._layers:
            states_BTD = layer(states_BTD, cos, sin, start, mask)
        self._length = end
        return self._norm(states_BTD[:, -1])

    def _mask(self, start: int, end: int, inputs_BTD: Tensor) -> Tensor | None:
        """Return what is added to attention scores, `[B or 1, 1, T, L]`; None for nothing."""
        padding = None if self._mask_BL is None else self._mask_BL[:, None, None, :end]
        if end - start == 1:
            return padding
        lowest = torch.finfo(inputs_BTD.dtype).min
        later = torch.full((end - start, end), lowest, device=inputs_BTD.device).triu(start + 1)
        later = later.to(inputs_BTD.dtype)[None, None]
        return later if padding is None else torch.minimum(later, padding)


class _Layer:
    """One stock decoder layer and its cache.

    Query, key and value are one product, as are gate and up: small models spend their time
    between the products.
    """

    def __init__(self, layer: Any, rows: int, length: int) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._size = attention.head_dim
        self._key_heads = attention.k_proj.out_features // self._size
        self._query_heads = attention.q_proj.out_features // self._size
        self._scale = attention.scaling
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._qkv = torch.cat([item.weight for item in projections])
        biases = [item.bias for item in projections]
        self._qkv_bias = None if biases[0] is None else torch.cat(biases)
        self._gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        self._qk_weight = torch.cat(
            [
                attention.q_norm.weight.expand(self._query_heads, -1),
                attention.k_norm.weight.expand(self._key_heads, -1),
            ]
        )
        self._eps = attention.q_norm.variance_epsilon
        self._layer = layer
        shape = (rows, self._key_heads, length, self._size)
        self._keys = self._qkv.new_zeros(shape)
        self._values = self._qkv.new_zeros(shape)

    def __call__(
        self, states_BTD: Tensor, cos: Tensor, sin: Tensor, start: int, mask: Tensor | None
    ) -> Tensor:
        layer, rows, count = self._layer, states_BTD.shape[0], states_BTD.shape[1]
        inner = F.linear(layer.input_layernorm(states_BTD), self._qkv, self._qkv_bias)
        inner = inner.view(rows, count, -1, self._size)
        both = self._query_heads + self._key_heads
        qk = _unit(inner[:, :, :both], self._eps) * self._qk_weight
        qk = qk * cos + qk.roll(self._size // 2, -1) * sin
        end = start + count
        self._keys[:rows, :, start:end] = qk[:, :, self._query_heads :].transpose(1, 2)
        self._values[:rows, :, start:end] = inner[:, :, both:].transpose(1, 2)
        # The queries of a key's group are read as further positions of one head.
        group = self._query_heads // self._key_heads
        queries = qk[:, :, : self._query_heads].view(rows, count, self._key_heads, group, -1)
        queries = queries.permute(0, 2, 1, 3, 4).reshape(rows, self._key_heads, count * group, -1)
        if mask is not None and group > 1 and count > 1:
            mask = mask.repeat_interleave(group, dim=2)
        mixed = F.scaled_dot_product_attention(
            queries,
            self._keys[:rows, :, :end],
            self._values[:rows, :, :end],
            attn_mask=mask,
            scale=self._scale,
        )
        mixed = mixed.view(rows, self._key_heads, count, group, -1).permute(0, 2, 1, 3, 4)
        states_BTD = states_BTD + layer.self_attn.o_proj(mixed.reshape(rows, count, -1))
        gate, up = F.linear(layer.post_attention_layernorm(states_BTD), self._gate_up).chunk(2, -1)
        return states_BTD + layer.mlp.down_proj(layer.mlp.act_fn(gate) * up)

    def keep(self, rows: Tensor, length: int) -> None:
        """Move the kept rows to the front of the cache."""
        for cache in (self._keys, self._values):
            cache[: len(rows), :, :length] = cache[rows, :, :length]


def _unit(values: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square of the last dimension, as the stock norm does."""
    wide = values.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(values.dtype)
