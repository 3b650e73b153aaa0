"""Voice and words along a clip."""

from __future__ import annotations

import numpy as np
import pytest

from rows import make_row
from voxadapt.core.params import SelectParams
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.windows import MIN_CLIPS, VoiceLimits, by_window, voice_limits

PARAMS = SelectParams(num_bootstrap=200)
LIMITS = VoiceLimits(
    window_sim=0.7, window_sd=0.03, f0_jump_st=3.0, f0_jump_sd=0.4, num_windows=3, n=50
)


def measured(number: int, sims: tuple[float, ...] | None, **fields: object) -> ScoreRow:
    return make_row(text_id=f"t{number:03d}", window_sims=sims, **fields)


@pytest.mark.parametrize(
    ("sims", "jump", "flags"),
    [
        ((0.9, 0.8, 0.85), 1.0, ()),
        ((0.5, 0.8, 0.85), 1.0, ("other_voice",)),
        ((0.9, 0.8, 0.6), 4.0, ("other_voice", "pitch_jump")),
        ((0.9, 0.9, 0.9), 3.5, ("pitch_jump",)),
        ((), None, ()),
        (None, None, ()),
    ],
)
def test_flags(sims: tuple[float, ...] | None, jump: float | None, flags: tuple[str, ...]) -> None:
    assert LIMITS.flags(sims, jump) == flags


def test_limits_come_from_the_speaker() -> None:
    generator = np.random.default_rng(0)
    rows = [
        measured(
            i, tuple(generator.normal(0.85, 0.03, 3)), f0_jump_st=1.5 + 0.3 * generator.normal()
        )
        for i in range(200)
    ]
    limits = voice_limits(rows)
    assert limits is not None and limits.window_sim is not None and limits.f0_jump_st is not None
    assert 0.70 < limits.window_sim < 0.79 and 2.0 < limits.f0_jump_st < 2.8
    flagged = [limits.flags(row.window_sims, row.f0_jump_st) for row in rows]
    assert sum(map(bool, flagged)) <= 2


def test_long_clips_may_go_a_little_further() -> None:
    short, long = (0.69,) * 3, (0.69,) * 120
    assert LIMITS.flags(short, 3.1) == ("other_voice", "pitch_jump")
    assert LIMITS.flags(long, 3.1) == ()
    assert LIMITS.flags((0.9,) * 119 + (0.55,), 5.0) == ("other_voice", "pitch_jump")


def test_few_clips_set_no_limits_and_unvoiced_ones_none_of_f0() -> None:
    assert voice_limits([measured(i, (0.8, 0.8)) for i in range(MIN_CLIPS - 1)]) is None
    limits = voice_limits([measured(i, (0.8, 0.8 + 0.001 * i)) for i in range(60)])
    assert limits is not None and limits.f0_jump_st is None
    assert limits.flags((0.9,), 12.0) == ()


def test_an_onset_that_an_average_hides_is_seen() -> None:
    rows = [
        measured(i, (0.5 + 0.002 * i, 0.7, 0.9, 0.9, 0.9), flags=("other_voice",))
        for i in range(30)
    ]
    found = by_window(rows, PARAMS)
    assert found["onset_minus_rest"]["high"] < -0.3
    assert found["drift"]["low"] > 0.3
    assert found["other_voice"]["point"] == 1.0 and found["pitch_jump"]["point"] == 0.0
    assert found["pitch_jump"]["high"] > 0.0, "what no clip shows is not excluded"


def test_clips_of_a_second_have_no_rest() -> None:
    found = by_window([measured(i, (0.8,)) for i in range(5)], PARAMS)
    assert found["onset"] == {"point": None, "low": None, "high": None, "n": 0}


def test_errors_are_placed_in_time() -> None:
    words = "one two three four five six seven eight nine ten"
    late = {"hyp_norm": "one two three four five six seven eight", "duration_s": 10.15}
    first = {"hyp_norm": "zero two three four five six seven eight nine ten", "duration_s": 10.15}
    for fields, wrong in ((late, 5.0), (first, 0.0)):
        found = by_window([measured(i, None, text_norm=words, **fields) for i in range(4)], PARAMS)
        shares = {item["from_s"]: item["point"] for item in found["errors"]}
        assert shares[wrong] > 0 and sum(value > 0 for value in shares.values()) == 1
    failed = measured(0, None, status="failed", hyp_norm="", duration_s=None)
    [only] = by_window([failed], PARAMS)["errors"]
    assert only["from_s"] == 0.0 and only["point"] == 1.0


def test_unspaced_scripts_are_counted_by_character() -> None:
    text = "\u4f60\u597d\u5417\u4f60\u597d\u5417"
    fields = {"text": text, "text_norm": text, "hyp_norm": text[:-1], "duration_s": 0.9}
    [only] = by_window([measured(0, None, **fields)], PARAMS)["errors"]
    assert only["point"] == pytest.approx(1 / 6, abs=1e-5)
