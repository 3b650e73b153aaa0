"""Each defect is planted and must be seen; the clean clip must pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sounds import RATE_HZ, Wave, make_voice, silence
from voxadapt.asr.transcript import Transcript
from voxadapt.core.params import ScoreParams
from voxadapt.scoring.flags import (
    FLAGS,
    Shape,
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
    quiet = measure_shape(silence(2.0), RATE_HZ)
    assert (quiet.lead_silence_s, quiet.trail_silence_s, quiet.spoken_s) == (2.0, 0.0, 0.0)
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


# --- each limit, and each number -----------------------------------------------------------------

LIMITS = [
    ("rate_low", "dur_ratio", PARAMS.rate_ratio[0], -1),
    ("rate_high", "dur_ratio", PARAMS.rate_ratio[1], 1),
    ("too_little_speech", "speech_s", PARAMS.min_speech_s, -1),
    ("high_compression", "compression_ratio", 2.4, 1),
    ("low_logprob", "avg_logprob", -1.0, -1),
    ("no_speech", "no_speech_prob", 0.6, 1),
]


@pytest.mark.parametrize(("flag", "field", "limit", "side"), LIMITS)
def test_a_value_at_its_limit_is_fine_and_one_beyond_is_not(
    flag: str, field: str, limit: float, side: int
) -> None:
    assert flags_of(**{field: limit}) == ()
    assert flags_of(**{field: limit - side * 1e-6}) == ()
    assert flags_of(**{field: limit + side * 1e-6}) == (flag,)


@pytest.mark.parametrize(
    ("flag", "field", "limit"),
    [
        ("leading_silence", "lead_silence_s", PARAMS.max_silence_s),
        ("trailing_silence", "trail_silence_s", PARAMS.max_silence_s),
        ("internal_silence", "max_internal_silence_s", PARAMS.max_silence_s),
        ("clipping", "clipped_share", 0.001),
        ("abrupt_end", "end_db", -15.0),
    ],
)
def test_an_outline_at_its_limit_is_fine(flag: str, field: str, limit: float) -> None:
    transcript = Transcript(TEXT, -0.3, 1.1, 0.01, "en", 0.9, 1)
    for value, expected in ((limit, ()), (limit + 1e-6, (flag,))):
        values: dict[str, Any] = {
            "duration_s": 3.0, "lead_silence_s": 0.1, "trail_silence_s": 0.1,
            "max_internal_silence_s": 0.1, "clipped_share": 0.0, "end_db": -40.0, field: value,
        }  # fmt: skip
        found = clip_flags(
            PARAMS, Shape(**values), transcript, hyp_norm=TEXT, text_norm=TEXT, lang="en",
            dur_ratio=None, speech_s=2.0, hit_max_tokens=False,
        )  # fmt: skip
        assert found == expected


def test_a_language_is_another_from_a_probability_of_a_half() -> None:
    assert flags_of(lid="ms", lid_p=0.5) == ("wrong_language",)
    assert flags_of(lid="ms", lid_p=0.499) == flags_of(lid="ms", lid_p=None) == ()


@pytest.mark.parametrize(
    ("num_words", "lost", "flagged"),
    [(5, 1, False), (5, 2, True), (10, 2, True), (11, 2, False), (15, 3, True), (16, 3, False)],
)
def test_an_ending_is_lost_from_two_words_and_a_fifth_of_the_text(
    num_words: int, lost: int, flagged: bool
) -> None:
    words = [f"word{chr(97 + index)}" for index in range(num_words)]
    found = flags_of(text_norm=" ".join(words), hyp_norm=" ".join(words[:-lost]))
    assert found == (("truncated_tail",) if flagged else ())


@pytest.mark.parametrize("rate_hz", [8000, 22050, 24000])
def test_an_outline_is_measured_to_the_frame(rate_hz: int) -> None:
    """Loud and silent frames of 20 ms: what is where is known exactly."""
    step = round(0.02 * rate_hz)
    runs = [(3, 0.0), (10, 0.5), (7, 0.0), (4, 0.5), (8, 0.0), (5, 0.25), (9, 1e-5)]
    wave = np.repeat([level for _, level in runs], [n * step for n, _ in runs]).astype(np.float32)
    wave[3 * step : 3 * step + 46] = -1.0  # of 46 frames, at full scale
    shape = measure_shape(wave, rate_hz)
    assert shape.duration_s == pytest.approx(len(wave) / rate_hz)
    assert shape.lead_silence_s == pytest.approx(0.06)
    assert shape.trail_silence_s == pytest.approx(len(wave) / rate_hz - 37 * 0.02)
    assert shape.max_internal_silence_s == pytest.approx(0.16)
    assert (shape.num_pauses, shape.pause_s) == (1, pytest.approx(0.16)), "seven frames are short"
    assert shape.clipped_share == pytest.approx(1 / step)
    assert shape.end_db == pytest.approx(-94.0, abs=0.3)
    spoken = len(wave) / rate_hz - shape.lead_silence_s - shape.trail_silence_s
    assert shape.spoken_s == pytest.approx(spoken)
    assert measure_shape(wave[: 37 * step], rate_hz).end_db == pytest.approx(-6.0, abs=0.3)


def test_a_frame_is_silent_40_db_below_the_loud_or_at_60_db_below_full_scale() -> None:
    step = round(0.02 * RATE_HZ)
    for loud, quiet, sounds in (
        (0.5, 0.0051, True), (0.5, 0.0049, False), (0.05, 0.00101, True), (0.05, 0.00099, False),
    ):  # fmt: skip
        wave = np.repeat([loud, quiet], [5 * step, 3 * step]).astype(np.float32)
        assert (measure_shape(wave, RATE_HZ).trail_silence_s < 0.01) == sounds
    short = measure_shape(np.full(step - 1, 0.5, np.float32), RATE_HZ)
    assert short.lead_silence_s == short.duration_s and short.end_db is None
    assert measure_shape(np.full(step, 0.5, np.float32), RATE_HZ).spoken_s == pytest.approx(0.02)
    assert measure_shape(np.zeros(0, np.float32), RATE_HZ).clipped_share == 0.0
    assert measure_shape(np.full(9, 0.9995, np.float32), RATE_HZ).clipped_share == 1.0
    assert measure_shape(np.full(9, 0.9985, np.float32), RATE_HZ).clipped_share == 0.0
    assert measure_shape(np.full(9, 0.999, np.float32), RATE_HZ).clipped_share == 1.0


@pytest.mark.slow
@given(st.lists(st.sampled_from("ab"), max_size=14), st.integers(1, 7))
def test_the_longest_repeat_is_the_longest(units: list[str], max_length: int) -> None:
    def follows(position: int, length: int, count: int) -> bool:
        part = units[position : position + length * count]
        return len(part) == length * count and part == part[:length] * count

    best = max(
        (count for length in range(1, max_length + 1) for position in range(len(units))
         for count in range(1, len(units) + 1) if follows(position, length, count)),
        default=0,
    )  # fmt: skip
    assert longest_repeat(units, max_length) == best


def test_how_often_is_too_often() -> None:
    assert longest_repeat("a b c d e f a b c d e f".split()) == 2
    assert longest_repeat("a b c d e f g a b c d e f g".split()) == 1, "of six words at most"
    assert not has_repeats("one two", "one one two") and has_repeats("one two", "one one one two")
    assert not has_repeats("go go go now", "go go go now")
    assert has_repeats("go go go now", "go go go go now")
    assert not has_repeats("\u4f60\u597d", "\u4f60\u597d\u597d\u597d")
    assert has_repeats("\u4f60\u597d", "\u4f60\u597d\u597d\u597d\u597d")
    same = "\u597d\u597d\u597d\u597d\u597d"
    assert not has_repeats(same, same) and has_repeats(same, same + "\u597d")


def test_lost_characters_are_those_at_the_very_end() -> None:
    assert missing_tail("\u4f60\u597d\u5417", "") == 3
    assert missing_tail("\u4f60\u597d\u5417", "\u4f60\u5417") == 0
    assert missing_tail("one two three", "one two three four") == 0
    assert missing_tail("one two three", "one") == 2
