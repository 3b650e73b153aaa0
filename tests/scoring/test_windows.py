"""Voice and words along a clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gumbel_l

from rows import make_row
from voxadapt.core.params import SelectParams
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.windows import MIN_CLIPS, VoiceLimits, by_window, lowest_stretch, voice_limits

PARAMS = SelectParams(num_bootstrap=200)
LIMITS = VoiceLimits(
    stretch_sim=0.7, stretch_sd=0.03, f0_jump_st=3.0, f0_jump_sd=0.4, num_windows=3, n=50
)


def measured(number: int, sims: tuple[float, ...] | None, **fields: object) -> ScoreRow:
    return make_row(text_id=f"t{number:03d}", window_sims=sims, **fields)


@pytest.mark.parametrize(
    ("sims", "jump", "flags"),
    [
        ((0.9, 0.8, 0.85), 1.0, ()),
        ((0.4, 0.8, 0.85), 1.0, ("other_voice",)),
        ((0.8, 0.7, 0.5), 4.0, ("other_voice", "pitch_jump")),
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
    assert limits is not None and limits.stretch_sim is not None and limits.f0_jump_st is not None
    assert 0.78 < limits.stretch_sim < 0.82 and 2.0 < limits.f0_jump_st < 2.8
    flagged = [limits.flags(row.window_sims, row.f0_jump_st) for row in rows]
    assert sum(map(bool, flagged)) <= 2


def test_long_clips_may_go_a_little_further() -> None:
    short, long = (0.69,) * 3, (0.69,) * 120
    assert LIMITS.flags(short, 3.1) == ("other_voice", "pitch_jump")
    assert LIMITS.flags(long, 3.1) == ()
    assert LIMITS.flags((0.9,) * 117 + (0.55,) * 3, 5.0) == ("other_voice", "pitch_jump")


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


# --- limits and stretches by hand ----------------------------------------------------------------


def test_a_limit_is_three_deviations_beyond_the_mean() -> None:
    sims = [(0.8 + 0.01 * (n % 5), 0.9, 0.85) for n in range(20)]
    jumps = [1.0 + 0.1 * (n % 4) for n in range(20)]
    rows = [measured(n, sims[n], f0_jump_st=jumps[n]) for n in range(20)]
    limits = voice_limits(rows)
    assert limits is not None and (limits.n, limits.num_windows) == (20, 3)
    lowest = [np.mean(found) for found in sims]
    assert limits.stretch_sim == pytest.approx(
        np.mean(lowest) - 3 * np.std(lowest, ddof=1), abs=1e-6
    )
    assert limits.f0_jump_st == pytest.approx(np.mean(jumps) + 3 * np.std(jumps, ddof=1), abs=1e-6)
    assert limits.stretch_sd == pytest.approx(np.std(lowest), abs=1e-6)
    assert limits.f0_jump_sd == pytest.approx(np.std(jumps), abs=1e-6)
    assert voice_limits(rows[:19]) is None
    unvoiced = [measured(n, sims[n % 20]) for n in range(20, 41)]
    kept = voice_limits([*rows, *unvoiced])  # of 41, twenty have a jump: half at least
    lost = voice_limits([*rows, *unvoiced, measured(50, sims[0])])
    assert kept is not None and kept.f0_jump_st == limits.f0_jump_st
    assert lost is not None and lost.f0_jump_st is None and lost.f0_jump_sd == 0.0


def test_a_limit_gives_way_as_extremes_do() -> None:
    wider = np.log(12 / 3) / gumbel_l.std()
    edge = 0.7 - wider * 0.03
    for beyond, flags in ((1e-6, ()), (-1e-6, ("other_voice",))):
        assert LIMITS.flags((0.9,) * 9 + (edge + beyond,) * 3, None) == flags
    jump = 3.0 + wider * 0.4
    assert LIMITS.flags((0.9,) * 12, jump - 1e-6) == ()
    assert LIMITS.flags((0.9,) * 12, jump + 1e-6) == ("pitch_jump",)
    assert LIMITS.flags((0.7,), 3.0) == () and LIMITS.flags((0.69,), None) == ("other_voice",)
    unknown = VoiceLimits(None, 0.0, None, 0.0, 3, 50)
    assert unknown.flags((0.0,), 99.0) == ()


@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=40))
def test_a_stretch_is_three_windows_or_all(sims: list[float]) -> None:
    means = [np.mean(sims[i : i + 3]) for i in range(max(1, len(sims) - 2))]
    assert lowest_stretch(sims) == pytest.approx(min(means))


@pytest.mark.slow
def test_clean_clips_of_any_length_are_hardly_ever_flagged() -> None:
    generator = np.random.default_rng(1)

    def clip(windows: int) -> tuple[float, ...]:  # skewed to low values, neighbours overlap
        noise = -generator.gumbel(size=windows + 1)
        return tuple(0.87 + 0.02 * (noise[1:] + noise[:-1]))

    lengths, flagged = (3, 12, 36, 120), {}
    for _ in range(10):
        limits = voice_limits([measured(n, clip(3 + n % 3)) for n in range(100)])
        assert limits is not None
        for windows in lengths:
            found = sum(bool(limits.flags(clip(windows), None)) for _ in range(300))
            flagged[windows] = flagged.get(windows, 0) + found
    assert max(flagged.values()) <= 0.015 * 3000


def test_the_first_second_the_rest_and_the_last() -> None:
    rows = [
        measured(1, (0.5, 0.6, 0.7, 0.9)),
        measured(2, (0.6, 0.9, 0.8), flags=("other_voice",)),
        measured(3, (0.1, 0.2)),
        measured(4, None, flags=("pitch_jump",)),
    ]
    found = by_window(rows, PARAMS)
    assert found["onset"]["point"] == pytest.approx(0.55) and found["onset"]["n"] == 2
    assert found["rest"]["point"] == pytest.approx(0.8) and found["last"]["point"] == pytest.approx(
        0.85
    )
    assert found["onset_minus_rest"]["point"] == pytest.approx(-0.25)
    assert found["drift"]["point"] == pytest.approx(0.3)
    assert found["other_voice"]["point"] == found["pitch_jump"]["point"] == 0.25


@pytest.mark.parametrize(
    ("heard", "errors"),
    [
        # words of 2 letters in 10 s that sound: their middles are at 1, 3, 5, 7 and 9 s
        ("aa bb cc dd ee", [(1.0, 0.0), (5.0, 0.0)]),
        ("xx bb cc dd ee", [(1.0, 0.5), (5.0, 0.0)]),
        ("aa bb xx dd xx", [(1.0, 0.0), (5.0, 2 / 3)]),
        ("aa bb cc", [(1.0, 0.0), (5.0, 2 / 3)]),
        ("aa new more bb cc dd ee", [(1.0, 0.5), (5.0, 0.0)]),  # put down to what follows, once
        ("aa bb cc dd ee new", [(1.0, 0.0), (5.0, 1 / 3)]),  # after the end: to the last one
    ],
)
def test_an_error_is_where_its_word_is(heard: str, errors: list[tuple[float, float]]) -> None:
    row = make_row(
        text_norm="aa bb cc dd ee", hyp_norm=heard, duration_s=11.5, lead_silence_s=0.5,
        trail_silence_s=1.0,
    )  # fmt: skip
    found = by_window([row], PARAMS)["errors"]
    assert [(part["from_s"], pytest.approx(part["point"], abs=1e-6)) for part in found] == errors
    assert [part["to_s"] for part in found] == [5.0, 10.0]
    longer = by_window([row.model_copy(update={"duration_s": 51.5})], PARAMS)["errors"]
    assert [part["from_s"] for part in longer] == [5.0, 10.0, 20.0] and longer[-1]["to_s"] is None
    lost = by_window([make_row(text_norm="aa bb", hyp_norm="", duration_s=None)], PARAMS)["errors"]
    assert [(part["from_s"], part["point"]) for part in lost] == [(0.0, 1.0)]


def test_without_a_known_lead_words_begin_with_the_clip() -> None:
    text = "one two six ten"
    fields = {"text": text, "text_norm": text, "hyp_norm": text, "duration_s": 4.0}
    fields |= {"lead_silence_s": None, "trail_silence_s": None}
    first, rest = by_window([measured(0, None, **fields)], PARAMS)["errors"]
    assert (first["from_s"], rest["from_s"]) == (0.0, 1.0)
