"""Training of the miniature speech recogniser, a small openai-whisper model."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miniature.alignment import letter_places, stray_cost
from miniature.codec import Curve, one_cycle, save_state
from miniature.grammar import spoken
from miniature.recipe import SAMPLE_RATE, WhisperRecipe
from miniature.speech import Corpus, alike, hard_twice, one_after_the_other, stable_seed

LANGUAGES = {"english": "en", "malay": "ms"}
RATE = 16_000
POSITION = SAMPLE_RATE // 50  # samples of a clip that an encoder position stands for
LETTERS = " abcdefghijklmnopqrstuvwxyz"  # that the encoder spells
NEAR, WIDTH = 10, 15  # of stray_cost, in encoder positions of 20 ms
JOINED_FRAMES = 150  # the most that clips said one after the other have, without pauses


#: Text, language, and text, first and last encoder position of each clip it consists of.
Item = tuple[str, str, list[tuple[str, float, float]]]


def resample(wave: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Resample a clip to Whisper's 16 kHz."""
    import soxr

    return soxr.resample(wave.astype(np.float32), rate, RATE)


def prompt_and_text(text: str, language: str) -> tuple[list[int], list[int]]:
    """Return the four prompt tokens and the text tokens with the end token."""
    from whisper.tokenizer import get_tokenizer

    tokenizer = get_tokenizer(True, language=LANGUAGES[language], task="transcribe")
    prompt = list(tokenizer.sot_sequence_including_notimestamps)
    return prompt, [*tokenizer.encode(" " + text), tokenizer.eot]


def token_places(
    tokens: Sequence[int], text: str, spans: Sequence[tuple[str, float, float]]
) -> list[float]:
    """Return the encoder position at which each text token, the end token last, is about said."""
    from whisper.tokenizer import get_tokenizer

    letters = zip(" " + text, [spans[0][1], *letter_places(spans)], strict=True)
    by_byte = [place for letter, place in letters for _ in letter.encode()]
    encoding, places, at = get_tokenizer(True).encoding, [], 0
    for token in tokens[:-1]:
        size = len(encoding.decode_single_token_bytes(token))
        places.append(float(np.mean(by_byte[at : at + size])))
        at += size
    return [*places, spans[-1][2]]


def new_whisper(recipe: WhisperRecipe) -> Any:
    """Return an initialised, untrained Whisper."""
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(recipe.seed)
    model = Whisper(
        ModelDimensions(
            n_mels=80,
            n_audio_ctx=recipe.audio_ctx,
            n_audio_state=recipe.state,
            n_audio_head=recipe.heads,
            n_audio_layer=recipe.audio_layers,
            n_vocab=51_865,
            n_text_ctx=recipe.text_ctx,
            n_text_state=recipe.state,
            n_text_head=recipe.heads,
            n_text_layer=recipe.text_layers,
        )
    )
    nn.init.normal_(model.decoder.positional_embedding, std=0.02)  # is uninitialised memory
    nn.init.zeros_(model.decoder.token_embedding.weight)
    return model


class WhisperTrainer(nn.Module):
    """Trains the vocabulary rows that occur; all others stay zero.

    The softmax counts every unused row at its logit of 0, so that greedy decoding over the full
    vocabulary never picks one.
    """

    def __init__(self, recipe: WhisperRecipe, texts: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.recipe = recipe
        self.model: Any = new_whisper(recipe)
        used: set[int] = set()
        for text, language in texts:
            prompt, tokens = prompt_and_text(text, language)
            used.update(prompt, tokens)
        self.used = sorted(used)
        self.slot = {token: i for i, token in enumerate(self.used)}
        self.rows = nn.Parameter(torch.randn(len(self.used), recipe.state) * 0.05)
        self.letters = nn.Linear(recipe.state, 1 + len(LETTERS))
        self.unused = 51_865 - len(self.used)

    @torch.no_grad()
    def load_export(self, path: Path) -> None:
        """Start from an exported Whisper of the same widths; its contexts may be shorter."""
        state = torch.load(path, weights_only=True)["model_state_dict"]
        table = state.pop("decoder.token_embedding.weight").float()[self.used]
        known = table.abs().sum(1) > 0
        self.rows[known] = table[known]
        state.pop("encoder.positional_embedding")
        places = state.pop("decoder.positional_embedding").float()
        self.model.decoder.positional_embedding[: len(places)] = places
        self.model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)

    def encode(self, mel: Tensor) -> Tensor:
        """Run the audio encoder at any length up to its context."""
        encoder = self.model.encoder
        x = F.gelu(encoder.conv1(mel))
        x = F.gelu(encoder.conv2(x)).permute(0, 2, 1)
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x = block(x)
        return encoder.ln_post(x)

    def forward(self, mel: Tensor, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return the loss and its parts: of tokens, of letters by the encoder, of attention."""
        rows, labels, places = [], [], []
        for text, language, spans in items:
            prompt, tokens = prompt_and_text(text, language)
            rows.append([self.slot[t] for t in (*prompt, *tokens[:-1])])
            labels.append([self.slot[prompt[1]], -100, -100] + [self.slot[t] for t in tokens])
            places.append([np.nan] * 3 + token_places(tokens, text, spans))
        width = max(map(len, rows))
        ids = torch.tensor([r + [0] * (width - len(r)) for r in rows])
        target = torch.tensor([r + [-100] * (width - len(r)) for r in labels])
        place = torch.tensor([r + [np.nan] * (width - len(r)) for r in places])
        decoder = self.model.decoder
        x = self.rows[ids] + decoder.positional_embedding[:width]
        audio = self.encode(mel)
        cost = stray_cost(place[..., None], torch.arange(audio.shape[1]), NEAR, WIDTH)
        said, stray = ~place.isnan(), audio.new_zeros(())
        for block in decoder.blocks:
            x = x + block.attn(block.attn_ln(x), mask=decoder.mask)[0]
            heard, weights = attend(block.cross_attn, block.cross_attn_ln(x), audio)
            led = weights[:, : weights.shape[1] // 2].mean(1)
            stray = stray + (led * cost).sum(-1)[said].mean() / len(decoder.blocks)
            x = x + heard
            x = x + block.mlp(block.mlp_ln(x))
        logits = decoder.ln(x) @ self.rows.T
        rest = logits.new_full((*logits.shape[:-1], 1), float(np.log(self.unused)))
        logits = torch.cat([logits, rest], -1)
        smooth = self.recipe.smoothing
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=smooth)
        letters = self.spelled(audio[:, ::2], [text for text, _, _ in items])
        total = loss + self.recipe.letters_weight * letters + self.recipe.guide_weight * stray
        return {"loss": loss, "letters": letters, "stray": stray, "total": total}

    def spelled(self, audio: Tensor, texts: Sequence[str]) -> Tensor:
        """Return the CTC loss of the texts' letters."""
        rows = [[1 + LETTERS.index(c) for c in words(text) if c in LETTERS] for text in texts]
        return F.ctc_loss(
            self.letters(audio).log_softmax(-1).transpose(0, 1),
            torch.tensor([slot for row in rows for slot in row]),
            torch.full((len(texts),), audio.shape[1]),
            torch.tensor([len(row) for row in rows]),
            zero_infinity=True,
        )

    def finish(self) -> Any:
        """Write the trained rows into the model and return it."""
        with torch.no_grad():
            table = self.model.decoder.token_embedding.weight
            table.zero_()
            table[torch.tensor(self.used)] = self.rows
        return self.model


def attend(attention: Any, x: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Return what stock cross-attention does, and its weights by head, token and position."""

    def heads(y: Tensor) -> Tensor:
        return y.unflatten(-1, (attention.n_head, -1)).transpose(1, 2)

    q, k, v = (heads(y) for y in (attention.query(x), attention.key(audio), attention.value(audio)))
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    return attention.out((weights @ v).transpose(1, 2).flatten(2)), weights


def features(waves: Sequence[np.ndarray], samples: int) -> Tensor:
    """Return log-mel features of 16 kHz clips padded to a length."""
    from whisper.audio import log_mel_spectrogram, pad_or_trim

    return torch.stack([log_mel_spectrogram(pad_or_trim(torch.from_numpy(w), samples))
                        for w in waves])  # fmt: skip


def _augment(wave: np.ndarray, rng: np.random.Generator, room: int) -> tuple[np.ndarray, int]:
    """Return a clip after silence, louder or softer, often noisy, and the silence's samples."""
    lead = int(rng.integers(0, max(1, min(room, RATE // 3))))
    out = np.concatenate([np.zeros(lead, np.float32), wave]) * 10 ** rng.uniform(-0.5, 0.0)
    if rng.random() < 0.15:
        level = np.sqrt(np.mean(wave**2)) * 10 ** (-rng.uniform(25, 45) / 20)
        out = out + rng.normal(0, level, len(out))
    return out.astype(np.float32), lead


def train_whisper(
    corpus: Corpus,
    indices: list[int],
    recipe: WhisperRecipe,
    work: Path,
    name: str = "whisper",
    copies: Mapping[int, np.ndarray] | None = None,
    start: Path | None = None,
) -> WhisperTrainer:
    """Train the recogniser, from its last checkpoint where there is one.

    Args:
        corpus: All clips.
        indices: Clips to learn from.
        recipe: Sizes and schedule.
        work: Folder of checkpoints.
        name: Name of the checkpoint folder.
        copies: The codec's 24 kHz copies of some clips; a share of each batch is drawn from them.
        start: Checkpoint, or exported Whisper of the same widths, to start from.

    Returns:
        The trainer with the final weights.
    """
    texts = [(u.text, u.language) for u in corpus.utterances]
    trainer = WhisperTrainer(recipe, texts).train()
    params = [p for n, p in trainer.named_parameters() if "token_embedding" not in n]
    optimizer = torch.optim.AdamW(params, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.01)
    path, first_step = work / name / "state.pt", 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        trainer.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first_step = state["step"]
    elif start is not None and start.suffix == ".pt" and start.name == path.name:
        trainer.load_state_dict(torch.load(start, weights_only=True)["model"])
    elif start is not None:
        trainer.load_export(start)
    copies = copies or {}
    indices, copied = hard_twice(corpus, indices), hard_twice(corpus, sorted(copies))

    def by_language(pool: Sequence[int]) -> list[list[int]]:
        own = [[i for i in pool if texts[i][1] == language] for language in LANGUAGES]
        return [clips for clips in own if clips]

    languages = {False: by_language(indices), True: by_language(copied)}
    curve = Curve(work / name / "curve.jsonl", 50)
    for step in range(first_step, recipe.steps):
        rng = np.random.default_rng(stable_seed(recipe.seed, name, step))
        full = rng.random() < recipe.full_share
        size = max(1, recipe.batch // 4) if full else recipe.batch
        of_copies = bool(copied) and rng.random() < recipe.copied_share
        sound = copies.__getitem__ if of_copies else corpus.clip
        if rng.random() < recipe.joined_share:
            groups = one_after_the_other(
                rng, languages[of_copies], corpus.frames, max(1, size // 2), JOINED_FRAMES
            )
        else:
            pool = copied if of_copies else indices
            groups = [[i] for i in alike(rng, pool, corpus.frames, size)]
        waves, items = [], []
        for group in groups:
            sounds: list[np.ndarray] = []
            spans = []
            spare = recipe.audio_ctx * POSITION - sum(len(sound(i)) for i in group)
            for i in group:
                longest_gap = 2 * SAMPLE_RATE if rng.random() < 0.2 else SAMPLE_RATE // 4
                gap = int(rng.integers(0, 1 + max(0, min(spare, longest_gap)))) if sounds else 0
                spare -= gap
                sounds += [np.zeros(gap, np.float32), sound(i)]
                end = sum(map(len, sounds))
                spans.append((texts[i][0], end - len(sounds[-1]), end))
            wave = resample(np.concatenate(sounds))
            wave, lead = _augment(wave, rng, recipe.audio_ctx * 320 - len(wave))
            late = lead * SAMPLE_RATE // RATE
            places = [
                (t, (late + a) / POSITION + 2, (late + b) / POSITION - 4) for t, a, b in spans
            ]
            waves.append(wave)
            items.append((" ".join(texts[i][0] for i in group), texts[group[0]][1], places))
        longest = max(map(len, waves))
        context = -(-longest // 320) + int(rng.integers(0, 20))
        if full:
            context = recipe.audio_ctx
        mel = features(waves, min(context, recipe.audio_ctx) * 320)
        for row in range(len(mel)):
            for _ in range(int(rng.integers(0, 2))):
                low, width = int(rng.integers(0, 80)), int(rng.integers(1, 10))
                mel[row, low : low + width] = mel[row].mean()
        parts = trainer(mel, items)
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, recipe.steps, recipe.lr)
        optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        curve.add(step + 1, parts)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            save_state(path, model=trainer.state_dict(), optimizer=optimizer.state_dict(),
                       step=step + 1, recipe=asdict(recipe))  # fmt: skip
    return trainer.eval()


def export_whisper(trainer: WhisperTrainer, path: Path) -> None:
    """Write a checkpoint that ``whisper.load_model(path)`` reads.

    It is float16, and compressed: nearly all vocabulary rows are zero.

    Args:
        trainer: Trained model.
        path: Where to write.
    """
    model = trainer.finish()
    state = {k: v.detach().to(torch.float16) for k, v in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    raw, part = path.with_suffix(".raw"), path.with_suffix(".part")
    torch.save({"dims": asdict(model.dims), "model_state_dict": state}, raw)
    with zipfile.ZipFile(raw) as source, zipfile.ZipFile(part, "w") as sink:
        for entry in source.infolist():
            info = zipfile.ZipInfo(entry.filename, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            sink.writestr(info, source.read(entry.filename), compresslevel=9)
    raw.unlink()
    os.replace(part, path)


@torch.inference_mode()
def transcribe(
    model: Any, waves: Sequence[np.ndarray], languages: Sequence[str], batch: int = 48
) -> list[str]:
    """Transcribe 16 kHz clips with stock decoding, language forced.

    Args:
        model: A Whisper model in float32.
        waves: Clips.
        languages: ``english`` or ``malay`` for each clip.
        batch: Clips decoded at a time.

    Returns:
        The transcripts.
    """
    from whisper.decoding import DecodingOptions, decode

    out: dict[int, str] = {}
    for language in set(languages):
        rows = [i for i, name in enumerate(languages) if name == language]
        for at in range(0, len(rows), batch):
            chunk = rows[at : at + batch]
            mel = features([waves[i] for i in chunk], model.dims.n_audio_ctx * 320)
            options = DecodingOptions(
                language=LANGUAGES[language], temperature=0.0, without_timestamps=True,
                fp16=False,
            )  # fmt: skip
            for i, result in zip(chunk, decode(model, mel, options), strict=True):
                out[i] = result.text
    return [out[i] for i in range(len(waves))]


def words(text: str) -> str:
    """Reduce a text to its lower-case words as they are said, numbers among them."""
    said = spoken(text).lower().replace("-", " ")
    return " ".join("".join(c for c in said if c.isalpha() or c == " ").split())


def word_error(references: Sequence[str], guesses: Sequence[str]) -> float:
    """Return the word error rate over all clips, insertions counted."""
    import jiwer

    return float(jiwer.wer([words(r) for r in references], [words(g) for g in guesses]))
