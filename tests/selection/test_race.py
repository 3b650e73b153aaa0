"""The rule's error rates, by simulation with the code that writes the calibration page."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import make_system
from voxadapt.core.params import SelectParams
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.statistics import Array, Ratio, p_better, sign_flips
from voxadapt.selection import confirm, race
from voxadapt.selection.select import select

SCRIPT = Path(__file__).parents[2] / "docs" / "make_calibration.py"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The script of the calibration page, whose simulation the tests share."""
    spec = importlib.util.spec_from_file_location("make_calibration", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def rate(
    page: ModuleType, name: str, key: str, num_texts: int = 20, repetitions: int = 200
) -> float:
    """Return how often something comes of a case, of three epochs."""
    case = next(case for case in page.CASES if case.name == name)
    return float(page.play(case, num_texts, 3, repetitions, 1)[key] / repetitions)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["null", "null, by error, WER 45 %", "null, two speakers"])
def test_equal_epochs_leave_the_base_in_place(page: ModuleType, name: str) -> None:
    assert rate(page, name, "chosen") <= 0.05


@pytest.mark.slow
def test_a_rule_by_the_point_would_choose_by_luck(
    page: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule broken on purpose: whoever lies above the start by a hair is `shown` better."""

    def by_the_point(values: Array, control: int, flipped_means: Array) -> Array:
        return np.where(values.mean(axis=0) > values[:, control].mean(), 0.0, 1.0)

    monkeypatch.setattr(race, "p_better", by_the_point)
    assert rate(page, "null", "chosen") > 0.5


@pytest.mark.slow
def test_a_better_epoch_is_chosen_and_words_are_not_lost_unseen(page: ModuleType) -> None:
    assert rate(page, "similarity +.05", "chosen") >= 0.97
    assert rate(page, "WER 3 -> 6 %, similarity +.05", "confirmed", 50) <= 0.01


@pytest.mark.slow
def test_a_verdict_by_the_point_would_confirm_lost_words(
    page: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict broken on purpose: the point of the cost in place of its upper bound."""
    monkeypatch.setattr(
        confirm.Cost, "state",
        property(lambda cost: "shown" if cost.worse <= cost.margin else "not_excluded"),
    )  # fmt: skip
    assert rate(page, "WER 3 -> 6 %, similarity +.05", "confirmed", 50) > 0.01


@pytest.mark.slow
def test_the_simulation_chooses_as_select_does(page: ModuleType) -> None:
    params = SelectParams(num_bootstrap=400)
    for seed in range(12):
        sims = {"base": 0.80, "epoch-1": 0.81, "epoch-2": 0.815, "epoch-3": 0.812}
        rows = {name: make_system(name, sim=sim, seed=seed) for name, sim in sims.items()}
        samples = [Sample(found, "wer", None) for found in rows.values()]
        spoken = page.Spoken(
            [[sample.error for sample in samples]],
            [[sample.sim for sample in samples]],
            [[sample.failure_rate for sample in samples]],
            [[sample.usable_error for sample in samples]],
        )
        chosen = page.choose(page.Case("", params=params), spoken)
        assert select(rows, params)["chosen"] == list(sims)[chosen]


@pytest.mark.slow
def test_the_probability_of_being_best_is_not_too_sure(page: ModuleType) -> None:
    said = [pair for size in (20, 100) for pair in page.reliability(size, 6, 60)]
    sure = [(share, best) for share, best in said if share >= 0.6]
    assert len(sure) > 30
    assert abs(np.mean([s for s, _ in sure]) - np.mean([b for _, b in sure])) < 0.08


# --- the tests -----------------------------------------------------------------------------------


def every_flip(num_texts: int) -> Array:
    """Return all combinations of signs, [2 ** T, T]."""
    bits = np.arange(2**num_texts)[:, None] >> np.arange(num_texts)
    return np.asarray(1.0 - 2.0 * (bits % 2))


def test_the_p_value_of_one_candidate_is_that_of_all_sign_flips() -> None:
    difference = np.array([0.4, -0.1, 0.3, 0.2, 0.25, 0.05, -0.02, 0.1])
    values = np.stack([np.zeros(8), difference], axis=1)
    at_least = np.mean((every_flip(8) @ difference) >= difference.sum() - 1e-12)
    means = every_flip(8) @ values / 8
    found = p_better(values, 0, means)
    assert found[0] == 1.0 and found[1] == pytest.approx(at_least, abs=1 / 256)
    assert p_better(values, 1, means)[0] > 0.9  # the other way round


def test_few_sentences_show_nothing_and_equal_ones_are_no_better() -> None:
    values = np.stack([np.zeros(4), np.ones(4), np.zeros(4)], axis=1)
    found = p_better(values, 0, sign_flips(4, 1000, 0) @ values / 4)
    assert found[1] > 0.025 and found[2] == 1.0


@given(seed=st.integers(0, 10_000), size=st.integers(2, 6), num_texts=st.integers(6, 30))
def test_many_candidates_make_each_harder_to_show(seed: int, size: int, num_texts: int) -> None:
    values = np.random.default_rng(seed).standard_normal((num_texts, size))

    def tested(values: Array, control: int = 0) -> Array:
        return p_better(values, control, sign_flips(num_texts, 200, 1) @ values / num_texts)

    together = tested(values)
    for index in range(1, size):
        assert tested(values[:, [0, index]])[1] <= together[index] + 1e-12
    order = np.random.default_rng(seed + 1).permutation(size)
    shuffled = tested(values[:, order], int(np.argmax(order == 0)))
    assert np.allclose(shuffled, together[order])
    shifted = tested(values + np.arange(num_texts)[:, None])
    assert np.allclose(shifted, together)  # what a sentence gives to all decides nothing


@pytest.mark.parametrize(("p", "shown"), [(0.025, True), (0.0251, False)])
def test_a_candidate_is_shown_from_half_the_error_on(
    p: float, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race.Candidates, "p_better", lambda *_: np.array([1.0, p]))
    statistics = {name: race.single_measure({"m": Ratio(np.full(8, value), np.ones(8))}, True)["m"]
                  for name, value in (("base", 0.5), ("epoch-1", 0.6))}  # fmt: skip
    found = race.run_race(statistics, list(statistics), "base", SelectParams(num_bootstrap=200))
    assert found.shown == (("epoch-1",) if shown else ()) and found.p_values == {"epoch-1": p}
    assert found.chosen == ("epoch-1" if shown else "base")


@pytest.mark.slow
def test_the_set_holds_the_best_as_often_as_it_says() -> None:
    generator, params = np.random.default_rng(3), SelectParams(num_bootstrap=400)
    kept = beaten = 0
    for _ in range(200):
        values = generator.standard_normal((30, 5)) + np.array([0.0, 0.0, 0.1, 0.2, -1.5])
        ratios = {str(index): Ratio(values[:, index], np.ones(30)) for index in range(5)}
        found = race._remaining(
            list(ratios), race.single_measure(ratios, higher=True), params, 1.0, 0.0
        )
        kept += "3" in found
        beaten += "4" not in found
    assert kept >= 150 and beaten == 200
