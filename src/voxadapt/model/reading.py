"""Readings: the codes that a frozen Base gives when it reads texts aloud.

The stock cloning call decodes its codes to audio and returns only that. Training needs the codes
themselves, so the same prompt goes to the same stock `generate` here, without the codec.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxadapt.errors import Problem, UserError
from voxadapt.progress import Progress

SPARE_S = 4.0  # added to the limit, for short texts


@dataclass(frozen=True)
class Reading:
    """One text as the model read it.

    Attributes:
        codes: `[N, K]` int64 on the CPU, without the end-of-speech frame; None when the model
            ended at once.
        ended: The model chose the end. False for a reading as long as the limit allows: the stock
            call does not tell whether the end was chosen in the very last step.
    """

    codes: Tensor | None
    ended: bool


def read_aloud(
    tts: Any,
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
) -> list[Reading]:
    """Let a Base model read texts, as `generate_voice_clone` does with a speaker vector alone.

    Texts of similar length share a batch. A batch draws from one random stream, whose seed
    depends on `seed` and the texts in it.

    Args:
        tts: Stock `Qwen3TTSModel` of a Base model.
        texts: What to read.
        vector: Speaker vector `[D]`.
        language: A language that the model lists, or auto.
        temperature: Of talker and sub-talker, as the other sampling arguments.
        top_k: Most likely codes that are sampled from.
        top_p: Probability mass that is sampled from.
        repetition_penalty: Of the talker.
        seed: Of all batches.
        batch_size: Texts read together.
        max_seconds_per_token: Where reading stops, for each text token.
        frames_per_s: Of the codec.

    Returns:
        One reading a text, in the order of the texts.

    Raises:
        UserError: When the model does not list the language.
    """
    known = sorted(tts.get_supported_languages() or [])
    if known and language.lower() not in known:
        raise UserError(
            Problem(
                "language.source.language",
                f"one of {', '.join(known)}",
                repr(language),
                "Name a language that the Base knows.",
            )
        )
    ids = [tts._tokenize_texts([tts._build_assistant_text(text)])[0] for text in texts]
    order = sorted(range(len(texts)), key=lambda i: (ids[i].shape[1], texts[i], i))
    generation = tts.model.talker.generation_config
    if generation.pad_token_id is None:  # what `generate` would choose, warning for every batch
        generation.pad_token_id = tts.model.config.talker_config.codec_eos_token_id
    progress = Progress("Reading", len(texts), "texts")
    readings: dict[int, Reading] = {}
    for start in range(0, len(order), batch_size):
        group = order[start : start + batch_size]
        seconds = max_seconds_per_token * text_tokens(tts, texts[group[-1]]) + SPARE_S
        max_new_tokens = math.ceil(seconds * frames_per_s) + 1
        torch.manual_seed(batch_seed(seed, [texts[i] for i in group]))
        codes, _ = tts.model.generate(
            input_ids=[ids[i] for i in group],
            ref_ids=[None] * len(group),
            voice_clone_prompt=_prompt(vector, len(group)),
            languages=[language] * len(group),
            non_streaming_mode=True,
            max_new_tokens=max_new_tokens,
            do_sample=True,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            subtalker_dosample=True,
            subtalker_temperature=temperature,
            subtalker_top_k=top_k,
            subtalker_top_p=top_p,
        )
        for i, frames in zip(group, codes, strict=True):
            kept = frames.detach().to("cpu", torch.int64, copy=True) if len(frames) else None
            readings[i] = Reading(kept, ended=len(frames) < max_new_tokens - 1)
        progress.advance(len(group))
    return [readings[i] for i in range(len(texts))]


def batch_seed(seed: int, texts: Sequence[str]) -> int:
    """Return the seed of a batch's random stream, below 2^31."""
    digest = hashlib.sha256("\0".join([str(seed), *texts]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _prompt(vector: Tensor, count: int) -> dict[str, list[Any]]:
    """Return what the stock call makes of cloning prompts without codes and text."""
    return {
        "ref_code": [None] * count,
        "ref_spk_embedding": [vector] * count,
        "x_vector_only_mode": [True] * count,
        "icl_mode": [False] * count,
    }


def text_tokens(tts: Any, text: str) -> int:
    """Count the text tokens of a sentence."""
    return len(tts.processor(text=[text])["input_ids"][0])
