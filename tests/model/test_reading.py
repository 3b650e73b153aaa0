"""Readings are the codes of the stock cloning call, whatever the order of the texts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import fakes
from voxadapt.errors import UserError
from voxadapt.model.reading import Reading, batch_seed, read_aloud

TEXTS = ["one two three", "hi", "four five"]
SAMPLING = {"temperature": 0.8, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.1}
FRAMES_PER_S = 12.5
SECONDS_PER_TOKEN = 0.05


def read(tts: Any, texts: list[str], vector: torch.Tensor, **fields: Any) -> list[Reading]:
    values: dict[str, Any] = {
        **SAMPLING, "seed": 3, "batch_size": 2, "max_seconds_per_token": SECONDS_PER_TOKEN,
        "frames_per_s": FRAMES_PER_S,
    }  # fmt: skip
    return read_aloud(tts, texts, vector, fields.pop("language", "english"), **{**values, **fields})


@pytest.fixture
def vector() -> torch.Tensor:
    return torch.randn(fakes.HIDDEN, generator=torch.Generator().manual_seed(5))


def stock(
    tts: Any, texts: list[str], vector: torch.Tensor, language: str, limit: int,
    monkeypatch: pytest.MonkeyPatch,
) -> list[torch.Tensor]:  # fmt: skip
    """The codes that the stock call hands to the codec."""
    from qwen_tts.inference.qwen3_tts_model import VoiceClonePromptItem

    given: list[torch.Tensor] = []
    codec = tts.model.speech_tokenizer
    decode = codec.decode

    def spy(items: list[dict[str, torch.Tensor]]) -> Any:
        given.extend(item["audio_codes"] for item in items)
        return decode(items)

    with monkeypatch.context() as patch:
        patch.setattr(codec, "decode", spy)
        torch.manual_seed(batch_seed(3, texts))
        tts.generate_voice_clone(
            text=texts, language=language, non_streaming_mode=True, max_new_tokens=limit,
            voice_clone_prompt=[VoiceClonePromptItem(None, vector, True, False)],
            do_sample=True, subtalker_dosample=True, subtalker_temperature=0.8,
            subtalker_top_k=20, subtalker_top_p=0.95, **SAMPLING,
        )  # fmt: skip
    return given


@pytest.mark.parametrize("language", ["English", "auto"])
def test_codes_equal_the_stock_call(
    tts: Any, vector: torch.Tensor, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = read(tts, TEXTS, vector, language=language)
    limits = [math.ceil((SECONDS_PER_TOKEN * n + 4.0) * FRAMES_PER_S) + 1 for n in (9, 13)]
    short = stock(tts, ["hi", "four five"], vector, language, limits[0], monkeypatch)
    (long,) = stock(tts, ["one two three"], vector, language, limits[1], monkeypatch)
    for reading, codes in zip(readings, [long, *short], strict=True):
        assert reading.codes is not None
        assert reading.codes.dtype == torch.int64 and not reading.codes.is_inference()
        assert torch.equal(reading.codes, codes)
        assert reading.codes.shape[1] == fakes.NUM_CODEBOOKS
        assert int(reading.codes.max()) < fakes.CODEBOOK_SIZE  # no end-of-speech frame


def test_order_of_texts_does_not_matter(tts: Any, vector: torch.Tensor) -> None:
    once, turned = read(tts, TEXTS, vector), read(tts, TEXTS[::-1], vector)
    for a, b in zip(once, turned[::-1], strict=True):
        assert a.codes is not None and b.codes is not None
        assert torch.equal(a.codes, b.codes) and a.ended == b.ended


def test_seeds_and_voices_matter(tts: Any, vector: torch.Tensor) -> None:
    def frames(**fields: Any) -> list[list[list[int]]]:
        given = fields.pop("vector", vector)
        readings = read(tts, TEXTS, given, **fields)
        return [r.codes.tolist() for r in readings if r.codes is not None]

    assert frames() == frames()
    assert frames() != frames(seed=4)
    assert frames() != frames(vector=-vector)
    assert frames() != frames(language="german")


def end_after(tts: Any, frames: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stock call return so many frames a text, and note the limits that it is given."""

    def generate(*, input_ids: list[torch.Tensor], max_new_tokens: int, **_: Any) -> Any:
        texts = [tts.processor.tokenizer.decode(ids[0, 3:-5]) for ids in input_ids]
        counts = [min(frames[text], max_new_tokens - 1) for text in texts]
        return [torch.zeros(n, fakes.NUM_CODEBOOKS, dtype=torch.int64) for n in counts], None

    monkeypatch.setattr(tts.model, "generate", generate)


def test_runaways_and_empty_readings(
    tts: Any, vector: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_after(tts, {"one two three": 10_000, "hi": 0, "four five": 7}, monkeypatch)
    runaway, empty, sound = read(tts, TEXTS, vector)
    assert runaway.codes is not None and not runaway.ended
    assert empty.codes is None and empty.ended
    assert sound.codes is not None and sound.codes.shape == (7, fakes.NUM_CODEBOOKS)
    assert sound.ended


def test_no_texts(tts: Any, vector: torch.Tensor) -> None:
    assert read(tts, [], vector) == []


def test_unknown_language(tts: Any, vector: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"auto, english, german.*'klingon'"):
        read(tts, TEXTS, vector, language="klingon")
