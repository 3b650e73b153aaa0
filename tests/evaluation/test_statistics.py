"""Intervals cover what they say, pairs are paired, and few texts are not overrated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from voxadapt.evaluation.statistics import (
    Ratio,
    coverage,
    detectable_difference,
    max_t_critical,
    median_interval,
    paired_difference,
    pareto_members,
    probability_best,
    rate_interval,
    ratio_by_text,
    ratio_interval,
    resample_weights,
    texts_needed,
)

Simulation = Callable[[np.random.Generator], tuple[Ratio, float]]


def error_corpus(num_texts: int, mean: float) -> Simulation:
    """Simulate word errors: log-normal difficulty per text, three takes that share it."""

    def draw(generator: np.random.Generator, size: int) -> Ratio:
        words = generator.integers(4, 12, size)
        share = np.clip(mean * np.exp(0.6 * generator.standard_normal(size) - 0.18), 0, 1)
        edits = generator.binomial(np.repeat(words[:, None], 3, axis=1), share[:, None]).sum(axis=1)
        return Ratio(edits.astype(float), 3.0 * words)

    truth = draw(np.random.default_rng(0), 400_000).point
    return lambda generator: (draw(generator, num_texts), truth)


def similarity_corpus(num_texts: int) -> Simulation:
    """Simulate similarities: a text effect and take noise."""

    def draw(generator: np.random.Generator) -> tuple[Ratio, float]:
        text = 0.05 * generator.standard_normal((num_texts, 1))
        values = 0.8 + text + 0.04 * generator.standard_normal((num_texts, 3))
        return Ratio(values.sum(axis=1), np.full(num_texts, 3.0)), 0.8

    return draw


@pytest.mark.parametrize(
    "simulation",
    [similarity_corpus(30), error_corpus(60, 0.1), error_corpus(30, 0.3)],
    ids=["similarity-30", "error-10%-60", "error-30%-30"],
)
def test_intervals_cover_the_truth(simulation: Simulation) -> None:
    assert 0.93 <= coverage(simulation, 1500, 1000, 0.95, seed=11) <= 0.97


def test_paired_differences_cover_the_truth() -> None:
    generator = np.random.default_rng(5)
    num_texts, hits, trials = 30, 0, 1000
    weights = resample_weights(num_texts, 1000, 0)
    for _ in range(trials):
        text = 0.06 * generator.standard_normal((num_texts, 1))
        ours, theirs = (
            Ratio((text + gain + 0.03 * generator.standard_normal((num_texts, 3))).sum(axis=1),
                  np.full(num_texts, 3.0))
            for gain in (0.02, 0.0)
        )  # fmt: skip
        found, _ = paired_difference(ours, theirs, weights, 0.95)
        hits += found.low <= 0.02 <= found.high  # type: ignore[operator]
    assert 0.93 <= hits / trials <= 0.97


def test_simultaneous_intervals_cover_all_differences_at_once() -> None:
    generator = np.random.default_rng(6)
    num_texts, trials, hits = 30, 400, 0
    weights = resample_weights(num_texts, 1000, 0)
    for _ in range(trials):
        values = generator.standard_normal((5, num_texts))
        ratios = [Ratio(row, np.ones(num_texts)) for row in values]
        draws = np.stack([r.draws(weights) - ratios[0].draws(weights) for r in ratios], axis=1)
        points = np.array([r.point - ratios[0].point for r in ratios])
        critical = max_t_critical(draws, points, num_texts, 0.95)
        reach = critical * draws.std(axis=0, ddof=1) * np.sqrt(num_texts / (num_texts - 1))
        hits += bool((np.abs(points) <= reach + 1e-12).all())
    assert 0.92 <= hits / trials <= 0.98


def test_pairing_removes_the_texts_difficulty() -> None:
    generator = np.random.default_rng(1)
    text = generator.standard_normal(40)
    ours, theirs = (Ratio(text + shift, np.ones(40)) for shift in (0.1, 0.0))
    weights = resample_weights(40, 500, 3)
    found, _ = paired_difference(ours, theirs, weights, 0.95)
    assert found.low == pytest.approx(0.1) and found.high == pytest.approx(0.1)
    alone = ratio_interval(ours, weights, 40, 0.95)
    assert alone.high - alone.low > 0.5  # type: ignore[operator]


def test_takes_of_a_text_are_resampled_together() -> None:
    generator = np.random.default_rng(2)
    text = generator.standard_normal(20)
    ids = [f"t{i}" for i in range(20)]
    weights = resample_weights(20, 800, 0)
    one = ratio_interval(ratio_by_text(ids, ids, text.tolist()), weights, 20, 0.95)
    five = ratio_interval(ratio_by_text(ids, ids * 5, text.tolist() * 5), weights, 100, 0.95)
    assert (one.low, one.high) == pytest.approx((five.low, five.high))


def test_the_seed_decides_and_order_does_not() -> None:
    assert (resample_weights(9, 50, 4) == resample_weights(9, 50, 4)).all()
    assert (resample_weights(9, 50, 4) != resample_weights(9, 50, 5)).any()
    assert (resample_weights(9, 50, 4).sum(axis=1) == 9).all()


def test_a_rate_of_zero_still_has_an_upper_bound() -> None:
    weights = resample_weights(30, 300, 0)
    none = rate_interval(Ratio(np.zeros(30), np.ones(30)), weights, 30, 0.95)
    assert none.point == 0.0 and none.high == pytest.approx(1 - 0.025 ** (1 / 30))
    every = rate_interval(Ratio(np.ones(30), np.ones(30)), weights, 30, 0.95)
    assert every.high == 1.0 and every.low == pytest.approx(0.025 ** (1 / 30))


def test_median_interval_contains_the_median() -> None:
    ids = [f"t{i:02d}" for i in range(25)]
    values = np.linspace(0.5, 1.5, 25)
    found = median_interval(ids, ids, values.tolist(), resample_weights(25, 500, 0), 0.95)
    assert found.point == pytest.approx(1.0)
    assert 0.6 < found.low < 1.0 < found.high < 1.4  # type: ignore[operator]


def test_one_text_gives_a_number_without_interval() -> None:
    found = ratio_interval(Ratio(np.ones(1), np.ones(1)), resample_weights(1, 20, 0), 3, 0.95)
    assert (found.point, found.low, found.high) == (1.0, None, None)
    nothing = ratio_interval(Ratio(np.zeros(5), np.zeros(5)), resample_weights(5, 20, 0), 0, 0.95)
    assert nothing.point is None


def test_ties_split_the_probability_of_being_best() -> None:
    draws = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    assert probability_best(draws, True).tolist() == [0.25, 0.75, 0.0]
    assert probability_best(draws, False).tolist() == [0.5, 0.0, 0.5]


def test_pareto_members() -> None:
    error, similarity = np.array([0.1, 0.2, 0.2, 0.1]), np.array([0.7, 0.8, 0.75, 0.7])
    assert pareto_members(error, similarity).tolist() == [True, True, False, True]


def test_power_agrees_with_itself() -> None:
    smallest = detectable_difference(0.01)
    assert smallest == pytest.approx(0.028, abs=0.001)
    assert texts_needed(smallest, 0.01, 50) in (50, 51)
    assert texts_needed(smallest / 2, 0.01, 50) in (200, 201)


def test_no_torch_behind_statistics_and_selection() -> None:
    code = (
        "import sys; import voxadapt.evaluation.selection, voxadapt.evaluation.results, "
        "voxadapt.evaluation.metrics, voxadapt.evaluation.normalise; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
