"""Readings are the codes of the stock cloning call, whatever the order of the texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import fakes
from voxadapt.core.errors import UserError
from voxadapt.generation import readings as reading
from voxadapt.generation.decoding import Decoding, Ending, stream_seed, token_limit
from voxadapt.generation.readings import Reading, read_aloud

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
    tts: Any, texts: list[str], vector: torch.Tensor, language: str, limits: list[int],
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
        with Decoding(tts.model, [stream_seed(3, text) for text in texts], limits):
            tts.generate_voice_clone(
                text=texts, language=language, non_streaming_mode=True,
                voice_clone_prompt=[VoiceClonePromptItem(None, vector, True, False)],
                do_sample=True, subtalker_dosample=True, subtalker_temperature=0.8,
                subtalker_top_k=20, subtalker_top_p=0.95, **SAMPLING,
            )  # fmt: skip
    return given


@pytest.mark.slow
@pytest.mark.parametrize("language", ["English", "auto"])
def test_codes_equal_the_stock_call(
    tts: Any, vector: torch.Tensor, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = read(tts, TEXTS, vector, language=language)
    sizes = {"hi": 2, "four five": 9, "one two three": 13}  # text tokens
    limits = [token_limit(sizes[text], SECONDS_PER_TOKEN, FRAMES_PER_S) for text in TEXTS]
    assert limits == [math.ceil((SECONDS_PER_TOKEN * sizes[text] + 4.0) * FRAMES_PER_S) + 1
                      for text in TEXTS]  # fmt: skip
    long, *short = stock(tts, TEXTS, vector, language, limits, monkeypatch)
    for found, codes in zip(readings, [long, *short], strict=True):
        assert found.codes is not None
        assert found.codes.dtype == torch.int64 and not found.codes.is_inference()
        assert torch.equal(found.codes, codes)
        assert found.codes.shape[1] == fakes.NUM_CODEBOOKS
        assert int(found.codes.max()) < fakes.CODEBOOK_SIZE  # no end-of-speech frame


@pytest.mark.slow
def test_order_of_texts_does_not_matter(tts: Any, vector: torch.Tensor) -> None:
    once, turned = read(tts, TEXTS, vector), read(tts, TEXTS[::-1], vector)
    for a, b in zip(once, turned[::-1], strict=True):
        assert a.codes is not None and b.codes is not None
        assert torch.equal(a.codes, b.codes) and a.ended == b.ended


@pytest.mark.slow
def test_seeds_and_voices_matter(tts: Any, vector: torch.Tensor) -> None:
    def frames(**fields: Any) -> list[list[list[int]]]:
        given = fields.pop("vector", vector)
        readings = read(tts, TEXTS, given, **fields)
        return [r.codes.tolist() for r in readings if r.codes is not None]

    assert frames() == frames()
    assert frames() != frames(seed=4)
    assert frames() != frames(vector=-vector)
    assert frames() != frames(language="german")


def test_runaways_and_empty_readings(
    tts: Any, vector: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = {"one two three": 90, "hi": 0, "four five": 7}

    class Ended(Decoding):
        """Lets the call of a batch end after so many frames a text."""

        def __init__(self, model: Any, seeds: Sequence[int], limits: Sequence[int]) -> None:
            super().__init__(model, seeds, limits)
            self.limits = limits

    def generate(*, input_ids: list[torch.Tensor], **_: Any) -> Any:
        texts = [tts.processor.tokenizer.decode(ids[0, 3:-5]) for ids in input_ids]
        (context,) = contexts[-1:]
        counts = [min(frames[t], n - 1) for t, n in zip(texts, context.limits, strict=True)]
        context.endings = [
            Ending(count, ended=count == frames[text])
            for text, count in zip(texts, counts, strict=True)
        ]
        return [torch.zeros(n, fakes.NUM_CODEBOOKS, dtype=torch.int64) for n in counts], None

    contexts: list[Ended] = []

    def entered(*args: Any) -> Ended:
        contexts.append(Ended(*args))
        return contexts[-1]

    monkeypatch.setattr(reading, "Decoding", entered)
    monkeypatch.setattr(tts.model, "generate", generate)
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
