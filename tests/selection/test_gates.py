"""Each gate at its limit, just inside and just outside; several speakers; which is the worst."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import make_row, make_system
from voxadapt.core.params import SelectParams
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.speakers import SpeakerScores
from voxadapt.scoring.statistics import Interval
from voxadapt.selection.gates import (
    STATES,
    Gate,
    _guard_gate,
    all_gates,
    error_margin,
    f0_range_gate,
    guard_gates,
    margin_state,
    worst_gates,
)

PARAMS = SelectParams(num_bootstrap=400)
HIGHER_IS_BETTER = ("similarity", "coverage", "kept_voice", "f0_range")


def held(
    rows: list[ScoreRow],
    params: SelectParams = PARAMS,
    real: float | None = None,
    kept: tuple[str, ...] = (),
    base: list[ScoreRow] | None = None,
) -> dict[str | None, dict[str, Gate]]:
    """Return the gates of a candidate by speaker and name."""
    start = base or [row.model_copy(update={"candidate": "base"}) for row in make_clean()]
    scores = SpeakerScores({"base": start, "epoch-1": rows}, None, params)
    found = all_gates(scores, "epoch-1", "base", params, real, kept)
    return {speaker: {gate.name: gate for gate in gates} for speaker, gates in found.items()}


def make_clean(**fields: object) -> list[ScoreRow]:
    """Return forty clips without any fault."""
    return [make_row("epoch-1", f"t{number:02d}", **fields) for number in range(40)]


def states(rows: list[ScoreRow], **options: object) -> dict[str, str]:
    return {name: gate.state for name, gate in held(rows, **options)[None].items()}  # type: ignore[arg-type]


def test_a_candidate_like_the_start_passes_every_gate() -> None:
    names = ["coverage", "failure_rate", "error", "duration_ratio", "wrong_language"]
    assert states(make_clean()) == dict.fromkeys(names, "passed")
    gate = held(make_clean())[None]["duration_ratio"].as_dict()
    assert gate["limit"] == [0.8, 1.25] and gate["value"] == 1.0
    assert held(make_clean())[None]["error"].as_dict()["limit"] == 0.02


def test_one_clip_that_could_not_be_measured_fails_the_coverage() -> None:
    rows = make_clean()
    rows[3] = rows[3].model_copy(update={"status": "failed"})
    gate = held(rows)[None]["coverage"]
    assert (gate.state, gate.measured.point, gate.limit) == ("failed", 39 / 40, 1.0)
    assert gate.text == "39 of 40 clips exist and could be measured."


@pytest.mark.parametrize(
    ("ratio", "state"),
    [(0.8, "passed"), (0.79, "failed"), (1.25, "passed"), (1.26, "failed"), (None, "failed")],
)
def test_the_band_of_durations_holds_its_ends(ratio: float | None, state: str) -> None:
    assert states(make_clean(dur_ratio=ratio))["duration_ratio"] == state


@pytest.mark.parametrize(
    ("wrong", "real", "state"),
    [(2, None, "passed"), (3, None, "failed"), (2, 0.06, "undecided"), (3, 0.06, "undecided"),
     (3, 0.05, "failed"), (2, 0.05, "passed")],
)  # fmt: skip
def test_a_language_is_judged_by_a_recogniser_that_knows_it(
    wrong: int, real: float | None, state: str
) -> None:
    """Two clips of forty are at the limit of 5 %."""
    rows = make_clean()
    for number in range(wrong):
        rows[number] = rows[number].model_copy(update={"flags": ("wrong_language",)})
    assert states(rows, real=real)["wrong_language"] == state


@pytest.mark.parametrize(
    ("failed", "state"), [(0, "passed"), (1, "undecided"), (2, "failed"), (9, "failed")]
)
def test_failed_clips_are_held_against_the_margin(failed: int, state: str) -> None:
    """Of twenty: one is .05 above the start, within a margin of .06 that few clips cannot show."""
    rows = make_clean()[:20]
    for number in range(failed):
        rows[number] = rows[number].model_copy(update={"flags": ("rate_high",)})
    base = [row.model_copy(update={"candidate": "base"}) for row in make_clean()[:20]]
    found = held(rows, SelectParams(num_bootstrap=400, failure_margin=0.06), base=base)[None]
    assert found["failure_rate"].state == state
    assert found["failure_rate"].measured.point == pytest.approx(failed / 20)
    assert found["error"].state == "passed", "a failed clip has its own gate"


@pytest.mark.parametrize(("lost", "state"), [(0.0, "passed"), (0.029, "passed"), (0.05, "failed")])
def test_similarity_may_fall_by_its_margin(lost: float, state: str) -> None:
    params = SelectParams(num_bootstrap=400, similarity_margin=0.03)
    gate = held(make_clean(sim=0.8 - lost), params)[None]["similarity"]
    assert gate.state == state and gate.limit == -0.03
    assert gate.measured.point == pytest.approx(-lost)


def test_without_an_interval_the_value_itself_is_the_bound() -> None:
    """One sentence: all that is known is the difference."""
    params = SelectParams(num_bootstrap=200, similarity_margin=0.03, error_margin=0.15)
    base = [make_row("base", "t00")]
    for wrong, lost, error, similarity in (
        (1, 0.02, "passed", "passed"),
        (2, 0.04, *["failed"] * 2),
    ):
        fields = {"word_hits": 10 - wrong, "word_substitutions": wrong, "sim": 0.8 - lost}
        found = held([make_row("epoch-1", "t00", **fields)], params, base=base)[None]
        assert (found["error"].state, found["similarity"].state) == (error, similarity)


@given(worse=st.floats(-1, 1), reach=st.floats(0, 1), margin=st.floats(0.001, 0.5))
def test_a_margin_is_passed_when_shown_and_failed_when_exceeded(
    worse: float, reach: float, margin: float
) -> None:
    state = margin_state(worse, worse + reach, margin)
    if worse > margin:
        assert state == "failed"
    else:
        assert state == ("passed" if worse + reach <= margin else "undecided")
    assert margin_state(margin, margin + 0.1, margin) == "undecided"
    assert margin_state(margin, margin, margin) == "passed"


@pytest.mark.parametrize(("error", "margin"), [(0.0, 0.02), (0.2, 0.02), (0.3, 0.03), (1.0, 0.1)])
def test_the_margin_of_errors_is_absolute_or_a_part_of_the_starts_own(
    error: float, margin: float
) -> None:
    assert error_margin(PARAMS, error) == pytest.approx(margin)


def two(candidate: str, aria: float, bo: float) -> list[ScoreRow]:
    """Return rows of two speakers with their similarities."""
    pairs = itertools.product(range(20), (("Aria", 0, aria), ("Bo", 1, bo)))
    return [
        make_row(candidate, f"t{n:02d}", take, speaker=name, sim=sim + 0.01 * (n % 3))
        for n, (name, take, sim) in pairs
    ]


@pytest.mark.parametrize(
    ("sim", "state"), [(0.8, "passed"), (0.796, "passed"), (0.79, "failed"), (0.9, "passed")]
)
def test_a_voice_that_was_there_is_kept(sim: float, state: str) -> None:
    found = held(two("epoch-1", sim, 0.5), kept=("Aria",), base=two("base", 0.8, 0.8))
    assert found["Aria"]["kept_voice"].state == state
    assert found["Aria"]["kept_voice"].limit == -PARAMS.similarity_tie
    new = found["Bo"]["kept_voice"]
    assert new.state == "passed" and new.measured.n == 0, "a new voice has nothing to lose"
    assert "kept_voice" not in held(two("epoch-1", sim, 0.5), base=two("base", 0.8, 0.8))["Aria"]


def test_a_loss_within_the_interval_is_undecided() -> None:
    """Half of the sentences are less alike, half more: on average by a little less."""
    rows = [
        row.model_copy(update={"sim": row.sim + (0.1 if index % 4 < 2 else -0.12)})  # type: ignore[operator]
        for index, row in enumerate(two("epoch-1", 0.8, 0.8))
    ]
    gate = held(rows, kept=("Aria",), base=two("base", 0.8, 0.8))["Aria"]["kept_voice"]
    assert gate.state == "undecided" and gate.measured.point == pytest.approx(-0.01)


def make_gate(name: str, state: str, value: float | None) -> Gate:
    return Gate(name, state, Interval(value, None, None, 9), 0.1, "Said.")  # type: ignore[arg-type]


@given(st.data())
def test_the_worst_gate_is_of_the_worst_state_and_then_value(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["error", "duration_ratio", *HIGHER_IS_BETTER]))
    value = st.one_of(st.none(), st.floats(0.01, 4))
    one, other = (
        make_gate(name, data.draw(st.sampled_from(STATES)), data.draw(value)) for _ in "ab"
    )

    def harm(gate: Gate) -> tuple[int, float]:
        point = gate.measured.point
        if point is None:
            return STATES.index(gate.state), -math.inf
        if name == "duration_ratio":
            return STATES.index(gate.state), abs(math.log(point))
        return STATES.index(gate.state), -point if name in HIGHER_IS_BETTER else point

    [worst] = worst_gates({"Aria": [one], "Bo": [other]})
    speaker, gate = ("Aria", one) if harm(one) >= harm(other) else ("Bo", other)
    assert worst.text == f"{speaker}: Said." and worst.state == gate.state
    assert worst.measured == gate.measured
    assert worst_gates({None: [one]}) == [one]


def test_a_ratio_of_nothing_is_the_worst() -> None:
    zero, double = (
        make_gate("duration_ratio", "failed", 0.0),
        make_gate("duration_ratio", "failed", 2.0),
    )
    assert zero.badness > double.badness > make_gate("duration_ratio", "failed", 0.6).badness


def test_speakers_have_their_gates_in_the_same_order() -> None:
    system = [*make_system("epoch-1", takes=1, speaker="Bo"),
              *make_system("epoch-1", takes=1, speaker="Aria")]  # fmt: skip
    base = [row.model_copy(update={"candidate": "base"}) for row in system]
    found = held(system, base=base)
    assert list(found) == ["Aria", "Bo"]
    assert list(found["Aria"]) == list(found["Bo"])


@pytest.mark.parametrize(("high", "state"), [(0.0, "undecided"), (-1e-9, "failed")])
def test_an_interval_that_ends_at_nothing_lost_shows_no_loss(
    high: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Interval(-0.01, -0.02, high, 20)
    monkeypatch.setattr(SpeakerScores, "difference", lambda *_: lost)
    found = held(two("epoch-1", 0.8, 0.8), kept=("Aria",), base=two("base", 0.8, 0.8))
    assert found["Aria"]["kept_voice"].state == state


@pytest.mark.parametrize(
    ("point", "low", "high", "state"),
    [
        (0.0, -0.01, 0.02, "passed"),
        (0.0, -0.01, 0.021, "undecided"),
        (0.03, 0.02, 0.04, "undecided"),
        (0.03, 0.021, 0.04, "failed"),
        (0.02, None, None, "passed"),
        (0.021, None, None, "undecided"),
    ],
)
def test_a_guard_is_held_to_the_whole_interval(
    point: float, low: float | None, high: float | None, state: str
) -> None:
    gate = _guard_gate("short_error", "short", "WER", Interval(point, low, high, 9), 0.02)
    assert (gate.name, gate.state, gate.limit) == ("short_error", state, 0.02)


@pytest.mark.parametrize(("share", "state"), [(0.71, "passed"), (0.69, "failed")])
def test_of_one_sentence_the_value_itself_is_held_against_the_limit(
    share: float, state: str
) -> None:
    real, codec = ([make_row(name, "t0", f0_range_st=4.0, f0_median_hz=170.0)]
                   for name in ("real", "codec"))  # fmt: skip
    row = make_row("epoch-1", "t0", f0_range_st=4.0 * share, f0_median_hz=170.0)
    gate = f0_range_gate([row], real, codec, 0.7, PARAMS)
    assert gate.state == state and gate.measured.low is None and gate.limit == 0.7


def test_only_sets_that_were_spoken_guard() -> None:
    rows = {name: [make_row(name, f"t{i}", slice=part) for i in range(8) for part in parts]
            for parts in (("ranked", "short"),) for name in ("base", "epoch-1")}  # fmt: skip
    found = guard_gates(rows, "base", None, SelectParams(num_bootstrap=200))
    [gates] = found["epoch-1"].values()
    assert [gate.name for gate in gates] == ["short_failure_rate", "short_error"]
