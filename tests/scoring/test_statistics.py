"""Intervals cover what they say, pairs are paired, and few texts are not overrated."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, nct, norm, t

from voxadapt.scoring.statistics import (
    Ratio,
    all_pairs_critical,
    detectable_difference,
    error_interval,
    median_interval,
    paired_difference,
    pareto_members,
    probability_best,
    rate_interval,
    ratio_by_text,
    ratio_interval,
    resample_weights,
    standard_errors_to_show,
    texts_needed,
)


@pytest.mark.parametrize("kind", ["mean", "corpus error"])
def test_intervals_agree_with_another_implementation(kind: str) -> None:
    """scipy's BCa on the same data, before our allowance for few sentences."""
    generator = np.random.default_rng(4)
    num_texts = 400  # so many that the allowance is small
    weight = generator.integers(4, 12, num_texts).astype(float)
    if kind == "mean":
        weight = np.ones(num_texts)
    value = weight * generator.gamma(0.5, 0.2, num_texts)  # skewed, as errors are

    def statistic(numerator: np.ndarray, denominator: np.ndarray, axis: int = -1) -> np.ndarray:
        return numerator.sum(axis=axis) / denominator.sum(axis=axis)

    theirs = bootstrap(
        (value, weight), statistic, paired=True, vectorized=True, n_resamples=20_000,
        batch=500, method="BCa", rng=np.random.default_rng(1),
    )  # fmt: skip
    weights = resample_weights(num_texts, 20_000, 0)
    ours = ratio_interval(Ratio(value, weight), weights, num_texts, 0.95)
    span = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * span)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.03 * span)
    assert ours.se == pytest.approx(theirs.standard_error, rel=0.03)


def test_every_pair_needs_a_larger_critical_value_than_one() -> None:
    generator = np.random.default_rng(6)
    ratios = [Ratio(row, np.ones(30)) for row in generator.standard_normal((6, 30))]
    weights = resample_weights(30, 2000, 0)
    draws = np.stack([ratio.draws(weights) for ratio in ratios], axis=1)
    points = np.array([ratio.point for ratio in ratios])
    pair = all_pairs_critical(draws[:, :2], points[:2], 30, 0.95)
    every = all_pairs_critical(draws, points, 30, 0.95)
    assert 2.0 < pair < every < 3.6  # Student's t, Tukey
    assert all_pairs_critical(draws[:, :1], points[:1], 30, 0.95) == 0.0


@pytest.mark.parametrize("num_texts", [20, 100])
def test_an_error_rate_allows_for_failures_that_were_not_seen(num_texts: int) -> None:
    """Clips of 10 words that lose a word in 25, and all of them in one clip of 50."""
    generator, held, plain, num_sets = np.random.default_rng(8), 0, 0, 400
    weights = resample_weights(num_texts, 500, 0)
    units, clips, truth = np.full(num_texts, 30.0), np.full(num_texts, 3.0), 0.04 * 0.98 + 0.02
    for _ in range(num_sets):
        lost = generator.binomial(3, 0.02, num_texts).astype(float)
        usable = Ratio(generator.binomial(30 - 10 * lost.astype(int), 0.04).astype(float), units)
        failed = Ratio(10.0 * lost, units)
        found = error_interval(usable, failed, Ratio(lost, clips), weights, 0, 0.95)
        both = Ratio(usable.numerator + failed.numerator, units)
        other = ratio_interval(both, weights, 0, 0.95)
        assert found.point == pytest.approx(both.point)
        held += found.low <= truth <= found.high  # type: ignore[operator]
        plain += other.low <= truth <= other.high  # type: ignore[operator]
    assert 0.92 * num_sets <= held <= 0.985 * num_sets
    assert num_texts > 20 or plain < 0.9 * num_sets


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
    assert probability_best(draws, True, apart=(0, 1, 2)).tolist() == [0.25, 0.75, 0.0]
    assert probability_best(draws, False, apart=(0, 1, 2)).tolist() == [0.5, 0.0, 0.5]


def test_pareto_members() -> None:
    error, similarity = np.array([0.1, 0.2, 0.2, 0.1]), np.array([0.7, 0.8, 0.75, 0.7])
    assert pareto_members(error, similarity).tolist() == [True, True, False, True]


def test_power_agrees_with_students_test() -> None:
    """The exact power of a paired t-test, and the normal figure where texts are many."""
    assert standard_errors_to_show(100_000) == pytest.approx(norm.ppf(0.975) + norm.ppf(0.8), 1e-3)
    for num_texts in (3, 10, 50):
        distance = standard_errors_to_show(num_texts)
        critical = t.ppf(0.975, num_texts - 1)
        assert nct.sf(critical, num_texts - 1, distance) == pytest.approx(0.8)
    smallest = detectable_difference(0.01, 50)
    assert smallest == pytest.approx(0.0286, abs=0.0002)
    assert texts_needed(smallest, 0.01, 50) in (50, 51)
    assert 190 < texts_needed(smallest / 2, 0.01, 50) < 200  # t is wider at 50 than at 200
    assert texts_needed(1.0, 0.01, 50) == 2


@given(difference=st.floats(0.002, 0.5), se=st.floats(0.001, 0.1), num_texts=st.integers(2, 300))
def test_the_texts_needed_are_just_enough(difference: float, se: float, num_texts: int) -> None:
    needed = texts_needed(difference, se, num_texts)

    def seen(count: int) -> float:
        return detectable_difference(se * np.sqrt(num_texts / count), count)

    assert seen(needed) <= difference * (1 + 1e-9)
    assert needed == 2 or seen(needed - 1) > difference


def test_statistics_and_selection_import_no_heavy_library() -> None:
    code = (
        "import sys; import voxadapt.selection.confirm, voxadapt.selection.stage2, "
        "voxadapt.scoring.rows, voxadapt.scoring.flags, voxadapt.scoring.planning; "
        "heavy = {'torch', 'librosa', 'whisper', 'pandas', 'scipy.stats', 'scipy.optimize'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
