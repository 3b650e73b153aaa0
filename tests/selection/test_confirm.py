"""What unseen sentences make of a gain and of its cost, at every limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import make_system
from voxadapt.core.errors import UserError
from voxadapt.core.params import SelectParams
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.statistics import Interval, texts_needed
from voxadapt.selection.confirm import Cost, confirm, read_cost, read_verdict
from voxadapt.selection.race import Candidates
from voxadapt.selection.select import select

PARAMS = SelectParams(num_bootstrap=400)
UNSEEN: dict[str, Any] = {"split": "confirmation"}


@pytest.mark.parametrize(
    ("at_least", "at_most", "state"),
    [
        (-0.01, 0.02, "shown"),
        (-0.01, 0.0201, "not_excluded"),
        (0.02, 0.05, "not_excluded"),
        (0.0201, 0.05, "exceeded"),
    ],
)
def test_a_cost_is_shown_exceeded_or_not_excluded(
    at_least: float, at_most: float, state: str
) -> None:
    cost = Cost("wer", (at_least + at_most) / 2, at_least, at_most, 0.02, None)
    assert cost.state == cost.as_dict()["state"] == state
    assert cost.as_dict()["margin"] == 0.02


@given(st.floats(-0.5, 0.5), st.floats(0, 0.3), st.floats(0, 0.3), st.sampled_from([1, -1]))
def test_a_cost_is_how_much_worse_it_is_whichever_way_is_worse(
    point: float, below: float, above: float, sign: int
) -> None:
    difference = Interval(point, point - below, point + above, 30, 0.01)
    cost = read_cost("sim", difference, 0.02, sign, 0.95)
    assert cost.worse == sign * point
    ends = (point - below, point + above) if sign > 0 else (-point - above, -point + below)
    assert (cost.at_least, cost.at_most) == ends
    assert cost.margin == 0.02 and cost.measure == "sim"
    if 0.02 - cost.worse > 0.0005:
        assert cost.num_texts_needed == texts_needed(0.02 - cost.worse, 0.01, 30, 0.95)
    else:
        assert cost.num_texts_needed is None


def test_a_cost_without_an_interval_excludes_nothing_and_one_without_spread_is_known() -> None:
    alone = read_cost("wer", Interval(0.01, None, None, 1), 0.02, 1, 0.95)
    assert (alone.at_least, alone.at_most, alone.state) == (-np.inf, np.inf, "not_excluded")
    same = read_cost("wer", Interval(-0.01, -0.01, -0.01, 9, 0.0), 0.02, -1, 0.95)
    assert (same.at_least, same.at_most, same.state) == (0.01, 0.01, "shown")
    assert alone.num_texts_needed is same.num_texts_needed is None


BETTER, WORSE, OPEN = (0.01, 0.03), (-0.03, -0.01), (-0.01, 0.03)
COSTS = {"shown": (-0.01, 0.01), "not_excluded": (0.0, 0.05), "exceeded": (0.03, 0.05)}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("gain", "cost", "verdict"),
    [
        (BETTER, None, "confirmed"),
        (BETTER, "shown", "confirmed"),
        (BETTER, "not_excluded", "cost_not_excluded"),
        (BETTER, "exceeded", "contradicted"),
        (OPEN, None, "not_confirmed"),
        (OPEN, "shown", "not_confirmed"),
        (OPEN, "not_excluded", "not_confirmed"),
        (OPEN, "exceeded", "contradicted"),
        (WORSE, None, "contradicted"),
        (WORSE, "shown", "contradicted"),
        ((0.0, 0.03), None, "not_confirmed"),
        ((-0.03, 0.0), None, "not_confirmed"),
        ((None, None), None, "not_confirmed"),
    ],
)
def test_the_verdict(
    gain: tuple[float | None, float | None], cost: str | None, verdict: str, sign: int
) -> None:
    ends = sorted(sign * end for end in gain if end is not None) or [None, None]
    found = None if cost is None else Cost("wer", 0.0, *COSTS[cost], 0.02, None)
    assert read_verdict(Interval(0.0, *ends, 30), sign, found) == verdict


def pair(sim: float, error: float, **fields: Any) -> tuple[list[ScoreRow], list[ScoreRow]]:
    base = make_system("base", 60, error=0.1, **fields)
    return base, make_system("epoch-1", 60, sim=sim, error=error, **fields)


@pytest.mark.slow
def test_the_margin_of_the_cost_is_of_the_bases_own_error() -> None:
    record = confirm(*pair(0.85, 0.1, **UNSEEN), PARAMS)
    assert record["cost"]["measure"] == "wer" and record["num_texts"] == 60 and record["takes"] == 3
    base = record["measures"]["wer"]["base"]["point"]
    assert record["cost"]["margin"] == pytest.approx(max(0.02, 0.1 * base), abs=1e-6)
    difference = record["measures"]["wer"]["difference"]["point"]
    assert record["cost"]["worse"] == pytest.approx(difference, abs=1e-6)
    high = make_system("base", 60, error=0.5, **UNSEEN)
    assert confirm(high, pair(0.85, 0.5, **UNSEEN)[1], PARAMS)["cost"]["margin"] == pytest.approx(
        0.1 * confirm(high, high, PARAMS)["measures"]["wer"]["base"]["point"], abs=1e-6
    )


def test_by_errors_the_voice_is_the_cost_where_it_is_limited() -> None:
    by_error = PARAMS.model_copy(update={"primary": "error"})
    rows = pair(0.7, 0.05, **UNSEEN)
    assert confirm(*rows, by_error)["cost"] is None
    limited = by_error.model_copy(update={"similarity_margin": 0.02})
    record = confirm(*rows, limited)
    assert (record["cost"]["measure"], record["cost"]["margin"]) == ("sim", 0.02)
    assert record["cost"]["worse"] == pytest.approx(0.1, abs=0.01)
    assert record["cost"]["state"] == "exceeded" and record["verdict"] == "contradicted"


def test_a_kept_base_is_compared_with_itself() -> None:
    base, _ = pair(0.8, 0.1, **UNSEEN)
    record = confirm(base, base, PARAMS)
    assert record["verdict"] == "base_kept" and record["gain"] is record["cost"] is None
    assert record["measures"]["sim"]["difference"]["point"] == 0.0


def test_measures_have_the_differences_that_their_kind_allows() -> None:
    scale = {"sim_id": "sim", "ceiling": {"point": 0.95}, "codec_ceiling": {"point": 0.9},
             "floor": {"point": 0.5}}  # fmt: skip
    found = confirm(*pair(0.85, 0.1, **UNSEEN), PARAMS, scale=scale)["measures"]
    assert found["duration_ratio"]["difference"] is None
    for key in ("wer_raw", "cer_raw"):
        difference = found[key]["difference"]
        assert difference["low"] is None and difference["n"] == 60
        gap = found[key]["chosen"]["point"] - found[key]["base"]["point"]
        assert difference["point"] == pytest.approx(gap, abs=1e-5)
    wide, plain = found["sim_norm"]["difference"], found["sim"]["difference"]
    for key in ("point", "low", "high", "se"):
        assert wide[key] == pytest.approx(plain[key] / 0.4, abs=1e-5), "no floor is taken off"
    with pytest.raises(UserError, match=r"similarity\.json"):
        confirm(*pair(0.85, 0.1, **UNSEEN), PARAMS, scale=scale | {"sim_id": "other"})


@pytest.mark.slow
def test_the_differences_on_selection_stand_beside() -> None:
    seen = dict(zip(("base", "epoch-1"), pair(0.85, 0.1), strict=True))
    other = make_system("epoch-0", 60, sim=0.7, error=0.3)  # an earlier one, which was not chosen
    chose = select({"base": seen["base"], "epoch-0": other, "epoch-1": seen["epoch-1"]}, PARAMS)
    found = confirm(*pair(0.85, 0.1, **UNSEEN), PARAMS, selection=chose)["measures"]
    item = next(item for item in chose["candidates"] if item["name"] == "epoch-1")
    assert found["sim"]["selection_difference"] == item["vs_base"]["sim"]
    assert found["wer"]["selection_difference"] == item["vs_base"]["error"]
    assert found["cer"]["selection_difference"] is None
    absent = confirm(*pair(0.85, 0.1, **UNSEEN), PARAMS)["measures"]
    assert absent["sim"]["selection_difference"] is None
    with pytest.raises(UserError, match="voxadapt select"):
        confirm(*pair(0.85, 0.1, **UNSEEN), PARAMS, selection=chose | {"schema": "old"})


def test_of_a_single_sentence_nothing_is_said_of_more() -> None:
    rows = {name: make_system(name, 1, 1, sim=sim, **UNSEEN)
            for name, sim in (("base", 0.7), ("epoch-1", 0.9))}  # fmt: skip
    record = confirm(rows["base"], rows["epoch-1"], PARAMS)
    assert record["sentence"].endswith("margin of 2.0 points (a single sentence has no interval).")


@pytest.mark.parametrize(
    ("sims", "verdict"), [((0.9, 0.9), "cost_not_excluded"), ((0.9, 0.801), "not_confirmed")]
)
def test_of_several_speakers_none_is_left_behind(sims: tuple[float, float], verdict: str) -> None:
    """The worst speaker decides, and a test that does not take for granted who that is."""

    def spoken(candidate: str, both: tuple[float, float]) -> list[ScoreRow]:
        return [
            row.model_copy(update={"take": take, "speaker": name})
            for take, (name, sim) in enumerate(zip(("Aria", "Bo"), both, strict=True))
            for row in make_system(candidate, 40, takes=1, sim=sim, seed=take, **UNSEEN)
        ]  # fmt: skip

    record = confirm(spoken("base", (0.8, 0.8)), spoken("epoch-1", sims), PARAMS)
    assert record["verdict"] == verdict
    assert set(record["speakers"]) == {"Aria", "Bo"}
    assert record["takes"] == 1
    aria = record["speakers"]["Aria"]["sim"]
    assert aria["chosen"]["point"] - aria["base"]["point"] == pytest.approx(0.1, abs=0.02)
    assert aria["difference"]["point"] == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(("p", "verdict"), [(0.024, "confirmed"), (0.026, "not_confirmed")])
def test_of_several_speakers_the_test_that_does_not_know_the_worst_decides(
    monkeypatch: pytest.MonkeyPatch, p: float, verdict: str
) -> None:
    monkeypatch.setattr(Candidates, "p_better", lambda self, control: np.array([1.0, p]))
    base, chosen = (
        [row.model_copy(update={"speaker": who, "take": take})
         for take, who in enumerate(("Aria", "Bo"))
         for row in make_system(name, 60, 1, sim=sim, error=0.05, **UNSEEN)]
        for name, sim in (("base", 0.7), ("epoch-1", 0.85))
    )  # fmt: skip
    rule = PARAMS.model_copy(update={"error_margin": 0.1})
    assert confirm(base, chosen, rule)["verdict"] == verdict
