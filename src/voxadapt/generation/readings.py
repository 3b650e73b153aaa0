"""Codes that a frozen Base generates for texts, as targets for training.

The stock cloning call decodes its codes to audio and returns only that. Training needs the codes
themselves, so the same prompt goes to the same stock `generate` here, without the codec.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxadapt.core.executor import LOCAL, Executor, as_it_is
from voxadapt.core.files import TORN, replacing
from voxadapt.core.problems import user_error
from voxadapt.core.progress import Progress
from voxadapt.generation.decoding import Decoding, forget, stream_seed, text_tokens, token_limit
from voxadapt.model.stock import Tts


@dataclass(frozen=True)
class Reading:
    """One text as the model read it."""

    #: `[N, K]` int64 on the CPU, without the end-of-speech frame; None when the model ended at
    #: once.
    codes: Tensor | None
    ended: bool  # the model chose the end; False where the limit cut the reading off


@dataclass(frozen=True)
class _Manner:
    """How texts are read: what is common to all batches."""

    vector: Tensor  # speaker vector `[D]`
    language: str  # a language that the model lists, or auto
    options: Mapping[str, float]  # sampling arguments of the stock call


@dataclass(frozen=True)
class _Batch:
    """Texts that are read together."""

    texts: tuple[str, ...]  # in their fixed order
    seeds: tuple[int, ...]  # of each text's random stream
    limits: tuple[int, ...]  # where each text stops, in frames


def read_aloud(
    tts: Tts,
    texts: Sequence[str],
    vector: Tensor,
    language: str,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    repetition_penalty: float,
    seed: int,
    batch_size: int,
    max_seconds_per_token: float,
    frames_per_s: float,
    work_dir: Path | None = None,
    executor: Executor = LOCAL,
    load: Callable[[], Tts] | None = None,
) -> list[Reading]:
    """Let a Base model read texts, as `generate_voice_clone` does with a speaker vector alone.

    Texts of similar length share a batch. Each text draws from a random stream of its own, whose
    seed depends on `seed` and the text.

    Args:
        tts: Stock `Qwen3TTSModel` of a Base model.
        texts: What to read.
        vector: Speaker vector `[D]`.
        language: A language that the model lists, or auto.
        temperature: Of talker and sub-talker, as the other sampling arguments.
        top_k: Most likely codes that are sampled from.
        top_p: Probability mass that is sampled from.
        repetition_penalty: Of the talker.
        seed: Common to all texts.
        batch_size: Texts read together.
        max_seconds_per_token: Where reading stops, for each text token.
        frames_per_s: Of the codec.
        work_dir: Folder of this set of texts for finished batches; a run that was stopped goes
            on from there. None keeps none.
        executor: Where batches are read.
        load: How a worker elsewhere loads the model; None sends `tts`.

    Raises:
        UserError: When the model does not list the language.
    """
    known = sorted(tts.get_supported_languages() or [])
    if known and language.lower() not in known:
        facts = {"known": ", ".join(known), "found": repr(language)}
        raise user_error("generation.unread_language", "language.source.language", **facts)
    lengths = [_token_ids(tts, text).shape[1] for text in texts]
    order = sorted(range(len(texts)), key=lambda i: (lengths[i], texts[i], i))
    progress = Progress("Reading", len(texts), "texts")
    readings: dict[int, Reading] = {}
    waiting: list[tuple[list[int], Path | None]] = []
    for start in range(0, len(order), batch_size):
        group = order[start : start + batch_size]
        path = None if work_dir is None else work_dir / f"{start}-{len(group)}.npz"
        stored = None if path is None else _load(path, len(group))
        if stored is None:
            waiting.append((group, path))
        else:
            readings.update(zip(group, stored, strict=True))
            progress.advance(len(group))
    shards = [
        _Batch(
            tuple(texts[i] for i in group),
            tuple(stream_seed(seed, texts[i]) for i in group),
            tuple(
                token_limit(text_tokens(tts, texts[i]), max_seconds_per_token, frames_per_s)
                for i in group
            ),
        )
        for group, _ in waiting
    ]
    options = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "subtalker_temperature": temperature,
        "subtalker_top_k": top_k,
        "subtalker_top_p": top_p,
    }
    work = partial(_read_batch, manner=_Manner(vector, language, options))
    for number, found in executor.run(shards, as_it_is, work, tts, load):
        group, path = waiting[number]
        readings.update(zip(group, found, strict=True))
        if path is not None:
            _store(path, found)
        progress.advance(len(group))
    forget()
    return [readings[i] for i in range(len(texts))]


def _token_ids(tts: Tts, text: str) -> Tensor:
    """Return what the model takes of a text, `[1, T]`."""
    return tts._tokenize_texts([tts._build_assistant_text(text)])[0]


def _read_batch(tts: Tts, batch: _Batch, manner: _Manner) -> list[Reading]:
    """Read one batch."""
    count = len(batch.texts)
    with Decoding(tts.model, batch.seeds, batch.limits) as decoding:
        codes, _ = tts.model.generate(
            input_ids=[_token_ids(tts, text) for text in batch.texts],
            ref_ids=[None] * count,
            voice_clone_prompt=_prompt(manner.vector, count),
            languages=[manner.language] * count,
            non_streaming_mode=True,
            do_sample=True,
            subtalker_dosample=True,
            **manner.options,
        )
    found = []
    for frames, ending in zip(codes, decoding.endings, strict=True):
        kept = frames.detach().to("cpu", torch.int64, copy=True) if len(frames) else None
        found.append(Reading(kept, ended=ending.ended))
    return found


def _store(path: Path, readings: Sequence[Reading]) -> None:
    arrays = {
        f"codes{n}": reading.codes.numpy()
        for n, reading in enumerate(readings)
        if reading.codes is not None
    }
    arrays["ended"] = np.array([reading.ended for reading in readings])
    with replacing(path) as part, open(part, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _load(path: Path, count: int) -> list[Reading] | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            ended = stored["ended"]
            codes = [stored[key] if (key := f"codes{n}") in stored else None for n in range(count)]
    except TORN:
        return None  # absent, or torn: read again
    return [
        Reading(None if array is None else torch.from_numpy(array), ended=bool(end))
        for array, end in zip(codes, ended, strict=True)
    ]


def _prompt(vector: Tensor, count: int) -> dict[str, list[object]]:
    """Return what the stock call makes of cloning prompts without codes and text."""
    return {
        "ref_code": [None] * count,
        "ref_spk_embedding": [vector] * count,
        "x_vector_only_mode": [True] * count,
        "icl_mode": [False] * count,
    }
