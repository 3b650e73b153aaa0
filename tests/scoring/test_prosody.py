"""Melody and pace against the speaker's recordings."""

from __future__ import annotations

import numpy as np
import pytest

from rows import make_row
from voxadapt.core.params import SelectParams
from voxadapt.scoring.prosody import (
    articulation_rate,
    compare,
    is_measurable,
    is_question,
    prosody,
)
from voxadapt.scoring.rows import ScoreRow

PARAMS = SelectParams(num_bootstrap=500)
NUM_TEXTS = 20


def spoken(
    candidate: str, seed: int, *, range_: float = 1.0, shift: float = 0.0, takes: int = 3
) -> list[ScoreRow]:
    """Simulate clips whose F0 range varies by 15 % and whose median by 0.5 semitones."""
    of_text, of_clip = np.random.default_rng(0), np.random.default_rng(seed)
    rows = []
    for text in range(NUM_TEXTS):
        level, span = 88.0 + 0.5 * of_text.normal(), 4.0 + 0.8 * of_text.normal()
        for take in range(takes):
            rows.append(
                make_row(
                    candidate,
                    f"t{text:02d}",
                    take,
                    text="Is it so?" if text % 4 == 0 else "It is so.",
                    f0_median_hz=2 ** ((level + shift + 0.5 * of_clip.normal()) / 12),
                    f0_range_st=span * range_ * (1 + 0.15 * of_clip.normal()),
                    f0_final_st=1.5 if text % 4 == 0 else -1.5,
                    num_pauses=1.0,
                    pause_s=0.25,
                )
            )
    return rows


REAL = spoken("real", 1, takes=1)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Is it?", True), ("Is it.", False), ("真的吗？", True), ("هل هذا؟", True),
        ("Είναι;", True), ("Stop; go.", False), ('He said "why?"', True), ("", False),
    ],
)  # fmt: skip
def test_questions(text: str, question: bool) -> None:
    assert is_question(text) == question


@pytest.mark.slow
def test_planted_changes_are_found_and_none_is_not() -> None:
    found = {"flat": 0, "moved": 0, "same": 0}
    for seed in range(2, 42):
        flat = compare(spoken("a", seed, range_=0.55), REAL, "f0_range_st", PARAMS)
        moved = compare(spoken("a", seed, shift=2.0), REAL, "f0_median_st", PARAMS)
        same = compare(spoken("a", seed), REAL, "f0_range_st", PARAMS)
        assert flat is not None and moved is not None and same is not None
        assert flat.high is not None and moved.low is not None and same.high is not None
        assert same.low is not None
        found["flat"] += flat.high < 1.0
        found["moved"] += moved.low > 0.0
        found["same"] += not same.low <= 1.0 <= same.high
    assert found["flat"] == found["moved"] == 40 and found["same"] <= 6


def test_the_record_compares_what_was_recorded() -> None:
    rows = spoken("base", 3, range_=0.5)
    found = prosody(rows, REAL[:10], PARAMS)
    assert found["f0_range_st"]["value"]["n"] == NUM_TEXTS
    assert found["f0_range_st"]["vs_real"]["n"] == 10
    assert found["f0_range_st"]["vs_real"]["high"] < 0.7
    assert found["f0_final_statement_st"]["value"]["point"] == pytest.approx(-1.5)
    assert found["f0_final_question_st"]["value"]["point"] == pytest.approx(1.5)
    assert found["pause_s"]["vs_real"]["point"] == 0.0
    assert prosody(rows, (), PARAMS)["f0_range_st"]["vs_real"] is None
    assert prosody([make_row()], REAL, PARAMS) == {}


def test_articulation_leaves_out_silence() -> None:
    row = make_row(pause_s=0.35, num_pauses=1.0)
    assert articulation_rate(row) == pytest.approx(39 / (3.0 - 0.05 - 0.1 - 0.35))
    assert articulation_rate(make_row(pause_s=0.0, flags=("rate_low",))) is None
    assert articulation_rate(make_row()) is None


@pytest.mark.parametrize(
    ("lead", "trail", "rate"), [(0.5, 0.25, 20.0), (None, 0.25, 15.0), (0.5, None, 120 / 7)]
)
def test_characters_a_second_are_of_speech_alone(
    lead: float | None, trail: float | None, rate: float
) -> None:
    row = make_row(ref_chars=30, duration_s=2.5, lead_silence_s=lead, trail_silence_s=trail,
                   pause_s=0.25)  # fmt: skip
    assert articulation_rate(row) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("voiced", "range_", "shift", "kept"),
    [(20, 1.0, 0.0, True), (10, 1.0, 0.0, True), (9, 1.0, 0.0, False), (20, 0.8, 0.0, True),
     (20, 0.6, 0.0, False), (20, 1.0, 1.7, True), (20, 1.0, 3.0, False)],
)  # fmt: skip
def test_a_codec_keeps_the_f0_of_half_the_recordings_its_level_and_its_range(
    voiced: int, range_: float, shift: float, kept: bool
) -> None:
    lost = {"f0_median_hz": None, "f0_range_st": None}
    codec = [
        row if index < voiced else row.model_copy(update=lost)
        for index, row in enumerate(spoken("codec", 2, range_=range_, shift=shift, takes=1))
    ]
    assert is_measurable(REAL, codec) is kept
    assert is_measurable(REAL, [])
