"""Training of the miniature Base, a small stock ``Qwen3TTSForConditionalGeneration``."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miniature.alignment import letter_places, stray_cost
from miniature.codec import Curve, one_cycle, save_state
from miniature.recipe import SAMPLE_RATE, TalkerRecipe
from miniature.speech import Corpus, alike, hard_twice, one_after_the_other, stable_seed
from miniature.tokenizer import special_ids
from voxadapt.core.compat import import_qwen_tts

NEAR, WIDTH = 2, 4  # of stray_cost, in frames
JOINED_FRAMES = 110  # the most that clips said one after the other have
#: Offsets of the codec's special ids behind the codebook, those of the full-size model.
OFFSETS = {
    "english": 2,
    "pad": 100,
    "bos": 101,
    "eos": 102,
    "think": 106,
    "nothink": 107,
    "think_bos": 108,
    "think_eos": 109,
}


def codec_ids(codebook_size: int) -> dict[str, int]:
    """Return the ids of the codec's special tokens."""
    return {name: codebook_size + offset for name, offset in OFFSETS.items()}


def base_config(recipe: TalkerRecipe, tokenizer: Path) -> Any:
    """Return the stock configuration of the Base.

    Args:
        recipe: Sizes.
        tokenizer: Folder of the text tokenizer.
    """
    import_qwen_tts()
    from qwen_tts.core.models import Qwen3TTSConfig

    text, codec = special_ids(tokenizer), codec_ids(recipe.codebook_size)
    return Qwen3TTSConfig(
        talker_config={
            "vocab_size": recipe.codebook_size + 1024,
            "hidden_size": recipe.hidden,
            "intermediate_size": 3 * recipe.hidden,
            "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.hidden // 64,
            "num_key_value_heads": recipe.hidden // 128,
            "head_dim": 64,
            "rope_theta": 10_000,
            "rope_scaling": {
                "type": "default",
                "rope_type": "default",
                "mrope_section": [12, 10, 10],
                "interleaved": True,
            },
            "max_position_embeddings": 2048,
            "num_code_groups": recipe.quantizers,
            "text_hidden_size": recipe.text_hidden,
            "text_vocab_size": -(-text["size"] // 8) * 8,
            "codec_eos_token_id": codec["eos"],
            "codec_think_id": codec["think"],
            "codec_nothink_id": codec["nothink"],
            "codec_think_bos_id": codec["think_bos"],
            "codec_think_eos_id": codec["think_eos"],
            "codec_pad_id": codec["pad"],
            "codec_bos_id": codec["bos"],
            "spk_id": {},
            "spk_is_dialect": {},
            "codec_language_id": {"english": codec["english"]},
            "code_predictor_config": {
                "vocab_size": recipe.codebook_size,
                "hidden_size": recipe.predictor_hidden,
                "intermediate_size": 3 * recipe.predictor_hidden,
                "num_hidden_layers": recipe.predictor_layers,
                "num_attention_heads": recipe.predictor_hidden // 64,
                "num_key_value_heads": recipe.predictor_hidden // 64,
                "head_dim": 64,
                "max_position_embeddings": 2048,
                "num_code_groups": recipe.quantizers,
            },
        },
        speaker_encoder_config={
            "enc_dim": recipe.hidden,
            "enc_channels": [64, 64, 64, 64, 192],
            "enc_attention_channels": 32,
            "enc_se_channels": 32,
            "enc_res2net_scale": 4,
        },
        tokenizer_type="qwen3_tts_tokenizer_12hz",
        tts_model_size="miniature",
        tts_model_type="base",
        im_start_token_id=text["<|im_start|>"],
        im_end_token_id=text["<|im_end|>"],
        tts_pad_token_id=text["<|tts_pad|>"],
        tts_bos_token_id=text["<|tts_bos|>"],
        tts_eos_token_id=text["<|tts_eos|>"],
    )


def new_base(recipe: TalkerRecipe, tokenizer: Path) -> Any:
    """Return an initialised, untrained Base.

    Rows of the codec embedding that no token uses stay near zero, as they are in the full-size
    model, where a free row is told by its norm.
    """
    import_qwen_tts()
    from qwen_tts.core.models import Qwen3TTSForConditionalGeneration

    torch.manual_seed(recipe.seed)
    model = Qwen3TTSForConditionalGeneration(base_config(recipe, tokenizer))
    talker = model.talker
    depth = (2 * recipe.layers) ** -0.5
    with torch.no_grad():
        for name, module in talker.named_modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5)
                if name.endswith(("o_proj", "down_proj")):
                    module.weight.mul_(depth)
                if module.bias is not None:
                    module.bias.zero_()
        talker.model.text_embedding.weight.normal_(0, 0.5)
        for table in talker.code_predictor.get_input_embeddings():
            table.weight.normal_(0, 0.1)
        table = talker.model.codec_embedding.weight
        table.normal_(0, 5e-4)
        table[: recipe.codebook_size].normal_(0, 0.1)
        table[list(codec_ids(recipe.codebook_size).values())] = (
            torch.randn(len(OFFSETS), recipe.hidden) * 0.2
        )
    return model


@torch.no_grad()
def load_base(model: Any, tokenizer: Path, folder: Path) -> None:
    """Start from an exported Base of the same widths, whose tokenizer may be another one.

    Args:
        model: Freshly initialised Base.
        tokenizer: Folder of its text tokenizer.
        folder: The exported Base.
    """
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    state = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
    old = state.pop("talker.model.text_embedding.weight")
    model.load_state_dict(state, strict=False)
    before = AutoTokenizer.from_pretrained(folder).get_vocab()
    for token, row in AutoTokenizer.from_pretrained(tokenizer).get_vocab().items():
        if token in before:
            model.talker.model.text_embedding.weight[row] = old[before[token]]


@dataclass
class TalkerBatch:
    """Sequences in the stock layout, padded on the right.

    Attributes:
        text: Text ids, batch x length.
        codec: Codec ids, batch x length; -1 where there is none.
        speaker: Position of the speaker vector, batch.
        first: Position of the row that predicts frame 0, batch.
        frames: Frames of each row, batch.
        codes: Codes, batch x frames x codebooks, padded with 0.
        keep: Frames whose code embeddings the talker sees, batch x frames.
        mels: Log-mel features of another clip of the same voice, batch x time x mel.
        place: Frame at which the text of a position is about said, batch x length; NaN where
            there is none.
    """

    text: Tensor
    codec: Tensor
    speaker: Tensor
    first: Tensor
    frames: Tensor
    codes: Tensor
    keep: Tensor
    mels: Tensor
    place: Tensor


def layout(
    text: Sequence[int], frames: int, ids: dict[str, int], tagged: bool, streaming: bool
) -> tuple[list[int], list[int], int, int]:
    """Lay one utterance out as stock inference does.

    Args:
        text: All ids of a sentence wrapped by :func:`assistant_text`.
        frames: Number of audio frames.
        ids: Ids of the codec and text special tokens.
        tagged: Whether the prefix names the language.
        streaming: Whether text runs along the frames.

    Returns:
        Text ids, codec ids (-1: none; -2: speaker; -3: frame), the position of the speaker
        vector, and the position that predicts frame 0.
    """
    role, body = list(text[:3]), list(text[3:-5])
    pad, bos, eos = ids["tts_pad"], ids["tts_bos"], ids["tts_eos"]
    if tagged:
        prefix = [ids["think"], ids["think_bos"], ids["english"], ids["think_eos"]]
    else:
        prefix = [ids["nothink"], ids["think_bos"], ids["think_eos"]]
    texts = [*role, *[pad] * (len(prefix) + 1), bos]
    codecs = [-1, -1, -1, *prefix, -2, ids["pad"]]
    speaker = 3 + len(prefix)
    if streaming:
        along = [*body, eos]
        along = (along + [pad] * (frames + 1))[: frames + 1]
        first = len(texts)
        texts += along
        codecs += [ids["bos"], *[-3] * frames]
    else:
        texts += [*body, eos]
        codecs += [ids["pad"]] * (len(body) + 1)
        first = len(texts)
        texts += [pad] * (frames + 1)
        codecs += [ids["bos"], *[-3] * frames]
    return texts, codecs, speaker, first


class MelFeatures(nn.Module):
    """The speaker encoder's features, those of the stock ``mel_spectrogram``."""

    bank: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        import librosa

        bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=1024, n_mels=128, fmin=0, fmax=12000)
        self.register_buffer("bank", torch.from_numpy(bank).float())
        self.register_buffer("window", torch.hann_window(1024))

    def forward(self, wave: Tensor) -> Tensor:
        """Return batch x time x mel of batch x samples."""
        wave = F.pad(wave[:, None], (384, 384), mode="reflect")[:, 0]
        spec = torch.stft(wave, 1024, 256, 1024, self.window, center=False, return_complex=True)
        spec = (torch.view_as_real(spec).pow(2).sum(-1) + 1e-9).sqrt()
        return torch.log((self.bank @ spec).clamp(min=1e-5)).transpose(1, 2)


class TalkerTrainer(nn.Module):
    """The training forward over the stock modules."""

    def __init__(self, recipe: TalkerRecipe, tokenizer: Path) -> None:
        super().__init__()
        self.recipe = recipe
        self.model: Any = new_base(recipe, tokenizer)
        text = special_ids(tokenizer)
        self.ids = {
            **codec_ids(recipe.codebook_size),
            "tts_pad": text["<|tts_pad|>"],
            "tts_bos": text["<|tts_bos|>"],
            "tts_eos": text["<|tts_eos|>"],
        }

    def embed(self, batch: TalkerBatch) -> Tensor:
        """Return the talker's input embeddings."""
        talker = self.model.talker
        x = talker.text_projection(talker.model.text_embedding(batch.text)).float()
        named = talker.model.codec_embedding(batch.codec.clamp(min=0))
        x = x + named * (batch.codec >= 0)[..., None]
        rows = torch.arange(len(x))
        speakers = self.model.speaker_encoder(batch.mels).float()
        x = x.index_put((rows, batch.speaker), speakers, accumulate=True)
        tables = [talker.model.codec_embedding, *talker.code_predictor.get_input_embeddings()]
        heard = sum(table(batch.codes[..., k]) for k, table in enumerate(tables))
        count = torch.arange(batch.codes.shape[1])[None]
        valid = count < batch.frames[:, None]
        at = batch.first[:, None] + 1 + count
        where = rows[:, None].expand_as(at)[valid]
        return x.index_put(
            (where, at[valid]), (heard * batch.keep[..., None])[valid], accumulate=True
        )

    def forward(self, batch: TalkerBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss and its parts, with correct targets for both talkers."""
        talker = self.model.talker
        x = self.embed(batch)
        length = x.shape[1]
        depth = len(talker.model.layers)  # the first head of the middle ones is led to the text
        guided = [y.self_attn for y in talker.model.layers[depth // 4 : depth * 3 // 4 + 1]]
        inputs: list[tuple[Tensor, Any]] = []

        def note(_: Any, __: Any, given: Any) -> None:
            inputs.append((given["hidden_states"], given["position_embeddings"]))

        hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in guided]
        hidden = talker.model(
            inputs_embeds=x,
            position_ids=torch.arange(length)[None].expand(len(x), -1),
            use_cache=False,
        ).last_hidden_state
        for hook in hooks:
            hook.remove()
        count = torch.arange(batch.codes.shape[1] + 1)[None]
        at = (batch.first[:, None] + count).clamp(max=length - 1)
        states = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))
        target = F.pad(batch.codes[..., 0], (0, 1))
        target = torch.where(count == batch.frames[:, None], self.ids["eos"], target)
        used = count <= batch.frames[:, None]
        first = F.cross_entropy(talker.codec_head(states[used]).float(), target[used])
        valid = used[:, :-1] & (count[:, :-1] < batch.frames[:, None])
        lucky = torch.rand(valid.shape, generator=generator) < self.recipe.predictor_share
        picked = valid & lucky
        codes, past = batch.codes[picked], states[:, :-1][picked]
        rest = self.predict(codes, past)
        sub = F.cross_entropy(rest.flatten(0, 1).float(), codes[:, 1:].flatten())
        cost = stray_cost(batch.place[:, None], count[..., None], NEAR, WIDTH)
        heard = count < batch.frames[:, None]
        stray = torch.stack([
            (first_head(module, *given, at) * cost).sum(-1)[heard].mean()
            for module, given in zip(guided, inputs, strict=True)
        ]).mean()  # fmt: skip
        total = first + self.recipe.sub_weight * sub + self.recipe.guide_weight * stray
        return {"c0": first, "sub": sub, "stray": stray, "total": total}

    def predict(self, codes: Tensor, past: Tensor) -> Tensor:
        """Return the predictor's logits, frames x (codebooks - 1) x codes."""
        talker = self.model.talker
        predictor = talker.code_predictor
        inputs = [past[:, None], talker.model.codec_embedding(codes[:, :1])]
        for k, table in enumerate(predictor.get_input_embeddings()):
            if k + 2 < codes.shape[1]:
                inputs.append(table(codes[:, k + 1 : k + 2]))
        x = predictor.small_to_mtp_projection(torch.cat(inputs, 1))
        # Position k + 1 has seen the state and codebooks 0..k; its head predicts k + 1.
        out = predictor.model(inputs_embeds=x, use_cache=False).last_hidden_state
        return torch.stack([head(out[:, k + 1]) for k, head in enumerate(predictor.lm_head)], 1)


def first_head(attention: Any, x: Tensor, rotation: tuple[Tensor, Tensor], at: Tensor) -> Tensor:
    """Return the weights of a talker's first attention head, batch x queries x length.

    Args:
        attention: A stock attention of the talker.
        x: What it is given, batch x length x width.
        rotation: Its rotary embeddings.
        at: Positions of the queries, batch x queries.
    """
    from qwen_tts.core.models.modeling_qwen3_tts import apply_multimodal_rotary_pos_emb

    size, scaling = attention.head_dim, attention.rope_scaling
    q, k = apply_multimodal_rotary_pos_emb(
        attention.q_norm(F.linear(x, attention.q_proj.weight[:size]))[:, None],
        attention.k_norm(F.linear(x, attention.k_proj.weight[:size]))[:, None],
        *rotation,
        scaling["mrope_section"],
        scaling["interleaved"],
    )
    q = q[:, 0].gather(1, at[..., None].expand(-1, -1, size))
    scores = (q @ k[:, 0].transpose(1, 2)).float() * attention.scaling
    later = torch.arange(x.shape[1]) > at[..., None]
    return scores.masked_fill(later, float("-inf")).softmax(-1)


class TalkerData:
    """Draws training batches; the same for a seed and a step."""

    def __init__(
        self,
        corpus: Corpus,
        indices: Sequence[int],
        codes: dict[int, np.ndarray],
        tokenizer: Path,
        recipe: TalkerRecipe,
        ids: dict[str, int],
    ) -> None:
        from transformers import AutoTokenizer

        self.corpus, self.indices, self.codes = corpus, hard_twice(corpus, indices), codes
        self.recipe, self.ids = recipe, ids
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        self.by_voice: dict[str, list[int]] = {}
        for i in self.indices:
            self.by_voice.setdefault(corpus.utterances[i].voice, []).append(i)
        self.mel = MelFeatures()

    def batch(self, step: int) -> TalkerBatch:
        """Return the batch of a step."""
        r = self.recipe
        rng = np.random.default_rng(stable_seed(r.seed, "talker", step))
        if rng.random() < r.joined_share:
            voices, size = list(self.by_voice.values()), max(1, r.batch * 3 // 8)
            groups = one_after_the_other(rng, voices, self.frames, size, JOINED_FRAMES)
        else:
            groups = [[i] for i in alike(rng, self.indices, self.frames, r.batch)]
        rows = []
        for group in groups:
            tagged = bool(rng.random() < r.tagged_share)
            streaming = bool(rng.random() < r.streaming_share)
            own = np.concatenate([self.codes[i] for i in group])
            said, places = self.said(group)
            laid = layout(said, len(own), self.ids, tagged, streaming)
            begin = laid[3] - (0 if streaming else len(places))
            rows.append((group[0], *laid, own, begin, places))
        width = max(len(row[1]) for row in rows)
        longest = max(len(row[5]) for row in rows)
        size = len(rows)
        text = np.full((size, width), self.ids["tts_pad"])
        codec = np.full((size, width), -1)
        codes = np.zeros((size, longest, r.quantizers), dtype=np.int64)
        keep = np.zeros((size, longest), dtype=np.float32)
        crop = int(SAMPLE_RATE * rng.uniform(1.2, 2.4))
        waves = np.zeros((size, crop), dtype=np.float32)
        place = np.full((size, width), np.nan, dtype=np.float32)
        for k, (i, texts, codecs, _, _, own, begin, places) in enumerate(rows):
            text[k, : len(texts)], codec[k, : len(codecs)] = texts, codecs
            place[k, begin : begin + len(places)] = places[: width - begin]
            codes[k, : len(own)] = own
            share = rng.uniform(0, r.mask_share) if rng.random() < r.mask_chance else 0.0
            keep[k, : len(own)] = rng.random(len(own)) >= share
            voice = self.by_voice[self.corpus.utterances[i].voice]
            other = int(rng.choice(voice))
            while other == i and len(voice) > 1:
                other = int(rng.choice(voice))
            clip = self.corpus.clip(other)
            if len(clip) < crop:
                clip = np.tile(clip, -(-crop // len(clip)))
            start = int(rng.integers(0, len(clip) - crop + 1))
            waves[k] = clip[start : start + crop] * 10 ** rng.uniform(-0.3, 0.0)
        with torch.no_grad():
            mels = self.mel(torch.from_numpy(waves))
        return TalkerBatch(
            text=torch.from_numpy(text),
            codec=torch.from_numpy(codec),
            speaker=torch.tensor([row[3] for row in rows]),
            first=torch.tensor([row[4] for row in rows]),
            frames=torch.tensor([len(row[5]) for row in rows]),
            codes=torch.from_numpy(codes),
            keep=torch.from_numpy(keep),
            mels=mels,
            place=torch.from_numpy(place),
        )

    def frames(self, index: int) -> int:
        """Return the length of one clip in codec frames."""
        return len(self.codes[index])

    def said(self, group: Sequence[int]) -> tuple[list[int], list[float]]:
        """Return the wrapped ids of clips said one after the other, and each body token's frame.

        The last frame is that of the end of the text, which the layout puts behind the body.
        """
        ends = np.cumsum([len(self.codes[i]) for i in group]).tolist()
        texts = [self.corpus.utterances[i].text for i in group]
        letters = letter_places(list(zip(texts, [0, *ends[:-1]], ends, strict=True)))
        wrapped = self.tokenizer(assistant_text(" ".join(texts)), return_offsets_mapping=True)
        before = assistant_text("").index("<|im_end|>")
        places = [float(np.mean(letters[a - before : b - before]))
                  for a, b in wrapped.offset_mapping[3:-5]]  # fmt: skip
        return wrapped.input_ids, [*places, float(ends[-1])]


def assistant_text(text: str) -> str:
    """Wrap a sentence as stock inference does."""
    return f"<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n"


def train_talker(
    data: TalkerData,
    trainer: TalkerTrainer,
    work: Path,
    evaluate: Callable[[TalkerTrainer, int], float] | None = None,
) -> TalkerTrainer:
    """Train the Base, from its last checkpoint where there is one.

    Args:
        data: Training batches.
        trainer: Freshly initialised modules.
        work: Folder of checkpoints.
        evaluate: Called every ``eval_every`` steps with the trainer and the step; returns a
            score, lower is better. The best weights are kept in ``best.pt``.

    Returns:
        The trainer with the best weights.
    """
    recipe = trainer.recipe
    trainer.train()
    params = list(trainer.parameters())
    optimizer = torch.optim.AdamW(params, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.02)
    path, best_path = work / "talker" / "state.pt", work / "talker" / "best.pt"
    first_step, best = 0, float("inf")
    if path.exists():
        state = torch.load(path, weights_only=True)
        trainer.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first_step, best = state["step"], state["best"]
    curve = Curve(work / "talker" / "curve.jsonl", 25)
    for step in range(first_step, recipe.steps):
        generator = torch.Generator().manual_seed(stable_seed(recipe.seed, "t", step) % 2**62)
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, recipe.steps, recipe.lr)
        batch = data.batch(step)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.autocast):
            parts = trainer(batch, generator)
        optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        curve.add(step + 1, parts)
        last = step + 1 == recipe.steps
        if evaluate is not None and ((step + 1) % recipe.eval_every == 0 or last):
            trainer.eval()
            score = evaluate(trainer, step + 1)
            trainer.train()
            if score <= best:
                best = score
                save_state(best_path, model=trainer.state_dict(), step=step + 1, score=score)
        if (step + 1) % recipe.save_every == 0 or last:
            save_state(path, model=trainer.state_dict(), optimizer=optimizer.state_dict(),
                       step=step + 1, best=best, recipe=asdict(recipe))  # fmt: skip
    if best_path.exists():
        trainer.load_state_dict(torch.load(best_path, weights_only=True)["model"])
    return trainer.eval()


def export_base(
    model: Any, tokenizer: Path, codec: Path, folder: Path, recipe: TalkerRecipe
) -> None:
    """Write the Base as a stock model folder.

    Args:
        model: The Base.
        tokenizer: Folder of the text tokenizer.
        codec: Folder of the codec.
        folder: Where to write.
        recipe: Generation defaults.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().to(torch.float16) for k, v in model.state_dict().items()}
    model.config.dtype = torch.float16
    model.save_pretrained(folder, state_dict=state)
    written = json.loads((folder / "config.json").read_text())
    accepted = inspect.signature(type(model.config.speaker_encoder_config).__init__).parameters
    encoder = written["speaker_encoder_config"]
    written["speaker_encoder_config"] = {k: v for k, v in encoder.items() if k in accepted}
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
                 "special_tokens_map.json", "added_tokens.json"):  # fmt: skip
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
    shutil.copytree(codec, folder / "speech_tokenizer", dirs_exist_ok=True)
    generation = {
        "do_sample": True,
        "temperature": recipe.temperature,
        "top_k": recipe.top_k,
        "top_p": 1.0,
        "repetition_penalty": 1.05,
        "subtalker_dosample": True,
        "subtalker_temperature": recipe.temperature,
        "subtalker_top_k": recipe.top_k,
        "subtalker_top_p": 1.0,
        "max_new_tokens": recipe.max_new_tokens,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
