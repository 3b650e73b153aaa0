"""Each defect is planted and must be seen; the clean clip must pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sounds import RATE_HZ, Wave, make_voice, silence
from voxadapt.asr.transcript import Transcript
from voxadapt.core.params import ScoreParams
from voxadapt.scoring.flags import (
    FLAGS,
    clip_flags,
    has_repeats,
    longest_repeat,
    measure_shape,
    missing_tail,
    retranscribed_flags,
)

TEXT = "the quick brown fox jumps over the lazy dog today"
PARAMS = ScoreParams()
# A voice that falls silent before the clip ends, as speech does.
VOICE = np.concatenate([make_voice(3.0), silence(0.04)])


def flags_of(wave: Wave = VOICE, **fields: Any) -> tuple[str, ...]:
    transcript: dict[str, Any] = {
        "text": "",
        "lid": "en",
        "lid_p": 0.9,
        "avg_logprob": -0.3,
        "compression_ratio": 1.1,
        "no_speech_prob": 0.01,
        "num_windows": 1,
    }
    clip: dict[str, Any] = {
        "hyp_norm": TEXT,
        "text_norm": TEXT,
        "lang": "en",
        "dur_ratio": 1.0,
        "speech_s": 2.8,
        "hit_max_tokens": False,
    }
    for key, value in fields.items():
        (transcript if key in transcript else clip)[key] = value
    return clip_flags(PARAMS, measure_shape(wave, RATE_HZ), Transcript(**transcript), **clip)


def test_a_clean_clip_has_no_flag() -> None:
    assert flags_of() == ()


CASES: list[tuple[str, dict[str, Any]]] = [
    ("hit_max_tokens", {"hit_max_tokens": True}),
    ("wrong_language", {"lid": "ms", "lid_p": 0.8}),
    ("rate_low", {"dur_ratio": 0.5}),
    ("rate_high", {"dur_ratio": 1.8}),
    ("leading_silence", {"wave": np.concatenate([silence(1.2), VOICE])}),
    ("trailing_silence", {"wave": np.concatenate([VOICE, silence(1.2)])}),
    ("internal_silence", {"wave": np.concatenate([VOICE, silence(1.2), VOICE])}),
    ("abrupt_end", {"wave": VOICE[: round(1.45 * RATE_HZ)]}),
    ("clipping", {"wave": np.clip(VOICE * 4, -1, 1)}),
    ("repeated_ngram", {"hyp_norm": f"{TEXT} today today"}),
    ("repeated_ngram", {"hyp_norm": "the quick the quick the quick brown fox jumps over the lazy "
                                    "dog today"}),
    ("truncated_tail", {"hyp_norm": "the quick brown fox jumps over"}),
    ("too_little_speech", {"speech_s": 0.4}),
    ("high_compression", {"compression_ratio": 2.6}),
    ("low_logprob", {"avg_logprob": -1.2}),
    ("no_speech", {"no_speech_prob": 0.7}),
    ("long_clip", {"num_windows": 2}),
    ("other_voice", {"voice": ("other_voice",)}),
    ("pitch_jump", {"voice": ("pitch_jump",)}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("flag", "defect"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)]
)
def test_a_planted_defect_is_seen_alone(flag: str, defect: dict[str, Any]) -> None:
    assert flags_of(**defect) == (flag,)


def test_an_empty_transcript_is_seen() -> None:
    assert flags_of(hyp_norm="") == ("empty_transcript", "truncated_tail")


def test_silence_and_noise_are_all_silence_or_all_sound() -> None:
    assert measure_shape(silence(2.0), RATE_HZ).spoken_s == 0.0
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
    assert measure_shape(noise, RATE_HZ).spoken_s == pytest.approx(2.0, abs=0.05)
    assert measure_shape(silence(0.001), RATE_HZ).duration_s < 0.002


def test_planted_silence_is_measured() -> None:
    wave = np.concatenate([silence(0.4), VOICE, silence(0.6), VOICE, silence(0.5)])
    shape = measure_shape(wave, RATE_HZ)
    assert shape.lead_silence_s == pytest.approx(0.4, abs=0.05)
    assert shape.max_internal_silence_s == pytest.approx(0.6, abs=0.1)
    assert shape.trail_silence_s == pytest.approx(0.5, abs=0.05)
    assert shape.clipped_share == 0.0


def test_uncertain_language_has_no_opinion() -> None:
    assert flags_of(lid="ms", lid_p=0.4) == () and flags_of(lid=None, lid_p=None) == ()


@pytest.mark.parametrize(
    ("text", "count"), [("a b c", 1), ("a a a", 3), ("a b a b a b a b", 4), ("", 0), ("x y y z", 2)]
)
def test_longest_repeat(text: str, count: int) -> None:
    assert longest_repeat(text.split()) == count


def test_repeats_that_the_text_has_are_no_defect() -> None:
    assert not has_repeats("no no no said he", "no no no said he")
    assert has_repeats("no no said he", "no no no no said he")
    assert has_repeats("\u4f60\u597d\u5417", "\u4f60\u597d\u597d\u597d\u597d\u5417")


def test_missing_tail_counts_units_of_the_script() -> None:
    assert missing_tail("one two three four", "one two") == 2
    assert missing_tail("one two three four", "two three four") == 0
    assert missing_tail("\u4f60\u597d\u5417", "\u4f60") == 2
    assert missing_tail("one two", "") == 2


def test_the_vocabulary_is_complete() -> None:
    assert {flag for flag, _ in CASES} | {"empty_transcript"} == set(FLAGS)


def test_another_recogniser_replaces_its_own_flags_only() -> None:
    other = Transcript("", -1.5, 1.0, 0.0, "ms", 0.9, 1)
    found = retranscribed_flags(
        ("clipping", "long_clip"), other, hyp_norm="", text_norm=TEXT, lang="en"
    )
    assert found == (
        "empty_transcript", "wrong_language", "clipping", "truncated_tail", "low_logprob",
    )  # fmt: skip
