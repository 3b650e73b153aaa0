"""Intervals cover what they say, pairs are paired, and few texts are not overrated."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, bootstrap, nct, norm, t

from voxadapt.core.params import SelectParams
from voxadapt.scoring import statistics
from voxadapt.scoring.statistics import (
    Interval,
    Ratio,
    all_pairs_critical,
    detectable_difference,
    error_interval,
    interval,
    mean_interval,
    median_interval,
    p_better,
    paired_difference,
    pareto_members,
    power_to_show,
    probability_best,
    rate_interval,
    ratio_by_text,
    ratio_interval,
    resample_weights,
    rounded,
    sign_flips,
    standard_error,
    standard_errors_to_show,
    student_interval,
    text_values,
    texts_needed,
)


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert (every.point, every.high) == (1.0, 1.0) and every.low == pytest.approx(0.025 ** (1 / 30))


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


@pytest.mark.slow
def test_statistics_and_selection_import_no_heavy_library() -> None:
    code = (
        "import sys; import voxadapt.selection.confirm, voxadapt.selection.stage2, "
        "voxadapt.scoring.rows, voxadapt.scoring.flags, voxadapt.scoring.planning; "
        "heavy = {'torch', 'librosa', 'whisper', 'pandas', 'scipy.stats', 'scipy.optimize'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- held against formulas written another way ---------------------------------------------------

NORMAL = norm.ppf((np.arange(40_000) + 0.5) / 40_000)  # draws without chance


@pytest.mark.parametrize(("num_texts", "confidence"), [(5, 0.95), (12, 0.9), (200, 0.99)])
def test_a_percentile_interval_is_widened_to_students(num_texts: int, confidence: float) -> None:
    found = interval(0.1, 0.1 + 2.0 * NORMAL, num_texts, 7, confidence)
    reach = t.ppf(0.5 + confidence / 2, num_texts - 1) * np.sqrt(num_texts / (num_texts - 1))
    at_most = norm.ppf(1 - 0.5 / 40_000)  # the draws end somewhere
    assert found.high == pytest.approx(0.1 + 2.0 * min(reach, at_most), rel=0.01)
    assert found.low == pytest.approx(0.1 - 2.0 * min(reach, at_most), rel=0.01)
    assert found.n == 7
    assert found.se == pytest.approx(2.0 * np.sqrt(num_texts / (num_texts - 1)), rel=1e-3)


def test_bias_and_skewness_move_the_ends_as_efron_writes() -> None:
    values = np.random.default_rng(0).gamma(0.7, 1.0, 12)
    left_out = np.array([np.delete(values, index).mean() for index in range(12)])
    draws = values.mean() + 0.3 * NORMAL + 0.02  # biased upwards
    found = interval(values.mean(), draws, 12, 12, 0.9, left_out)
    influence = left_out.mean() - left_out
    skewness = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    bias = norm.ppf((draws < values.mean()).mean())
    for end, side in ((found.low, -1), (found.high, 1)):
        z = bias + side * t.ppf(0.95, 11) * np.sqrt(12 / 11)
        share = norm.cdf(bias + z / (1 - skewness * z))
        assert end == pytest.approx(np.quantile(draws, share), abs=1e-9)


def test_an_interval_holds_its_point_and_leaves_out_what_is_not_defined() -> None:
    far = interval(3.0, np.array([0.0, 1.0, np.nan]), 9, 9, 0.95)
    assert (far.point, far.high) == (3.0, 3.0) and far.low is not None and far.low < 1.0
    near = interval(-1.0, np.array([0.0, 1.0, np.inf]), 9, 9, 0.95)
    assert (near.point, near.low) == (-1.0, -1.0)
    for point, draws in ((np.nan, [1.0]), (1.0, [np.nan]), (1.0, [])):
        assert interval(point, np.array(draws), 9, 9, 0.95).point is None
        assert student_interval(point, np.array(draws), 9, 0.95) == Interval(None, None, None, 9)
    same = interval(0.5, np.full(50, 0.5), 9, 9, 0.95, np.full(9, 0.5))
    assert (same.low, same.high) == (0.5, 0.5)
    assert interval(0.5, NORMAL, 2, 9, 0.95).low is not None
    assert interval(0.5, NORMAL, 1, 9, 0.95) == Interval(0.5, None, None, 9)


def test_a_difference_has_students_interval() -> None:
    draws = np.append(0.2 + 0.1 * NORMAL, np.nan)
    found = student_interval(0.25, draws, 8, 0.9)
    reach = t.ppf(0.95, 7) * 0.1 * np.sqrt(8 / 7)
    assert (found.low, found.high) == pytest.approx((0.25 - reach, 0.25 + reach), rel=1e-3)
    assert found.point == 0.25 and found.n == 8
    assert student_interval(0.25, draws, 2, 0.9).low is not None
    assert student_interval(0.25, draws, 1, 0.9) == Interval(0.25, None, None, 1)
    assert standard_error(np.array([1.0, 3.0]), 2) == pytest.approx(2.0)
    assert np.isnan(standard_error(np.array([1.0]), 9)) and np.isnan(standard_error(draws, 1))


@pytest.mark.parametrize("lost", [[0] * 20, [2] + [0] * 19, [1, 1, *[0] * 18], [3] * 20])
def test_an_error_rate_joins_what_was_heard_with_jeffreys_share_of_what_was_not(
    lost: list[int],
) -> None:
    """Zou and Donner's way, with the trials that clips of one sentence are worth."""
    failures = np.array(lost, float)
    units, clips, weights = np.full(20, 30.0), np.full(20, 3.0), resample_weights(20, 400, 0)
    generator = np.random.default_rng(4)
    usable = Ratio(generator.binomial(30 - 10 * failures.astype(int), 0.1).astype(float), units)
    failed, missing = Ratio(8.0 * failures, units), Ratio(failures, clips)
    found = error_interval(usable, failed, missing, weights, 60, 0.9)
    heard = ratio_interval(usable, weights, 60, 0.9)
    share = failures.sum() / 60
    spread = failures - share * 3.0
    clumped = 20 * spread.var(ddof=1) / 60**2
    trials = 60 / max(1.0, clumped / (share * (1 - share) / 60)) if 0 < share < 1 else 60
    ends = beta.ppf([0.05, 0.95], share * trials + 0.5, (1 - share) * trials + 0.5)
    low, high = ends[0] if share else 0.0, ends[1] if share < 1 else 1.0
    each = 8 * failures.sum() / 600 / share if share else 1.0
    point = heard.point + 8 * failures.sum() / 600
    assert found.point == pytest.approx(point) and found.n == 60
    below = np.hypot(heard.point - heard.low, each * (share - low))
    above = np.hypot(heard.high - heard.point, each * (high - share))
    assert found.low == pytest.approx(max(0.0, point - below))
    assert found.high == pytest.approx(min(1.0, point + above))


def test_an_error_of_one_sentence_or_none_has_no_interval() -> None:
    one, weights = np.ones(1), resample_weights(1, 200, 0)
    found = error_interval(
        Ratio(one, 10 * one), Ratio(2 * one, 10 * one), Ratio(one, one), weights, 2, 0.95
    )
    assert (found.point, found.low) == (pytest.approx(0.3), None)
    nothing = Ratio(0 * one, 0 * one)
    assert error_interval(nothing, nothing, nothing, weights, 0, 0.95).point is None


@pytest.mark.slow
@given(
    seed=st.integers(0, 999), num_texts=st.integers(1, 9), cached=st.sampled_from([1, 40, 2**19])
)
def test_the_median_of_a_resample_is_that_of_the_clips_it_draws(
    seed: int, num_texts: int, cached: int
) -> None:
    generator = np.random.default_rng(seed)
    ids = [f"t{index}" for index in range(num_texts + 1)]  # one of them has no clip
    keys = generator.choice(ids[:-1], 14).tolist()
    values = generator.integers(0, 6, 14).astype(float).tolist()
    weights = resample_weights(num_texts + 1, 40, seed)
    draws = []
    for row in weights.astype(int):
        drawn = sorted(
            v for key, v in zip(keys, values, strict=True) for _ in range(row[ids.index(key)])
        )
        draws.append(drawn[(len(drawn) + 1) // 2 - 1] if drawn else np.nan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "CACHED", cached)
        found = median_interval(ids, keys, values, weights, 0.95)
    assert found == interval(float(np.median(values)), np.array(draws), num_texts + 1, 14, 0.95)
    assert median_interval(ids, [], [], weights, 0.95) == Interval(None, None, None, 0)


def test_means_of_clips_resample_their_sentences() -> None:
    params = SelectParams(num_bootstrap=300, confidence=0.9, seed=5)
    pairs = [("b", 1.0), ("a", 0.0), ("b", 0.0), ("c", 1.0)]
    weights = resample_weights(3, 300, 5)
    ratio = Ratio(np.array([0.0, 1.0, 1.0]), np.array([1.0, 2.0, 1.0]))
    assert mean_interval(pairs, params) == ratio_interval(ratio, weights, 4, 0.9)
    assert mean_interval(pairs, params, rate=True) == rate_interval(ratio, weights, 4, 0.9)
    zero = [("a", 0.0), ("b", 0.0)]
    assert mean_interval(zero, params).high == 0.0
    assert mean_interval(zero, params, rate=True).high == pytest.approx(1 - 0.05**0.5)
    assert mean_interval([], params).n == 0


def test_all_pairs_are_held_to_the_largest_of_their_differences() -> None:
    generator = np.random.default_rng(3)
    draws, points = (
        generator.standard_normal((500, 4)) * [1, 2, 3, 4],
        np.array([0.1, 0.2, 0.0, 0.4]),
    )
    draws[:, 3] = draws[:, 2] + 0.4  # a pair that does not vary takes no part
    largest = np.zeros(500)
    for first in range(4):
        for second in range(first):
            difference = draws[:, first] - draws[:, second]
            if difference.std() > 1e-9:
                off = difference - (points[first] - points[second])
                largest = np.maximum(largest, np.abs(off) / difference.std(ddof=1))
    students = t.ppf(0.975, 14) / norm.ppf(0.975)  # the factors n/(n-1) cancel
    wanted = np.quantile(largest, 0.95) * students
    assert all_pairs_critical(draws, points, 15, 0.95) == pytest.approx(wanted)


@pytest.mark.slow
@given(seed=st.integers(0, 999), size=st.integers(2, 5), control=st.integers(0, 4))
def test_p_values_step_down_from_the_best(seed: int, size: int, control: int) -> None:
    """Romano and Wolf's algorithm, from the top: each is held against those that are no better."""
    control %= size
    values = np.random.default_rng(seed).standard_normal((7, size)) + np.arange(size) * 0.3
    signs = sign_flips(7, 60, 1)
    assert signs.shape == (60, 7) and set(np.unique(signs)) == {-1.0, 1.0}
    found = p_better(values, control, signs @ values / 7)

    def scores(differences: np.ndarray) -> np.ndarray:
        return differences.mean(axis=0) / differences.std(axis=0)

    others = [index for index in range(size) if index != control]
    differences = values[:, others] - values[:, [control]]
    measured = scores(differences)
    flipped = np.array([scores(differences * row[:, None]) for row in signs])
    wanted, so_far = np.ones(size), 0.0
    for index in np.argsort(-measured):
        rivals = measured <= measured[index]
        reached = np.sum(flipped[:, rivals].max(axis=1) >= measured[index] - 1e-9)
        so_far = max(so_far, (1 + reached) / 61)
        wanted[others[index]] = so_far
    assert found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("lead", "higher"), [(0.5, True), (2.0, True), (2.0, False), (0.0, True)])
def test_the_probability_of_being_best_is_the_hierarchical_models(
    lead: float, higher: bool
) -> None:
    """Two epochs: the integral over the spread of the population, on the same grid of spreads."""
    generator = np.random.default_rng(2)
    draws = 0.5 + 0.1 * generator.standard_normal((40_000, 2))
    draws += 0.3 * generator.standard_normal((40_000, 1))  # what both have in common
    gap = draws[:, 0] - draws[:, 1]
    draws[:, 0] += lead * gap.std() - gap.mean()
    variance = 1.3**2 * gap.var(ddof=1) / 2  # of the contrast, cautiously
    mean = lead * gap.std() / np.sqrt(2)
    scales = np.geomspace(0.1, 100.0, 24)
    priors = variance * scales**2
    weight = norm.pdf(mean, 0, np.sqrt(variance + priors)) * scales / (1 + scales**2)
    centre, spread = (
        mean * priors / (variance + priors),
        np.sqrt(variance * priors / (variance + priors)),
    )
    best = float((weight * norm.cdf(centre / spread)).sum() / weight.sum())
    found = probability_best(draws, higher)
    assert found.sum() == pytest.approx(1.0)
    assert found[0 if higher else 1] == pytest.approx(best, abs=0.01)


def test_steps_of_one_training_support_their_neighbours() -> None:
    draws = np.random.default_rng(1).standard_normal((20_000, 5)) * 0.1
    draws += [-0.3, 0.2, 0.3, 0.25, -0.3]
    alone, ordered = (probability_best(draws, True, ordered=order) for order in (False, True))
    assert ordered[2] > alone[2] + 0.02 and ordered[[0, 4]].max() < 0.01
    shuffled = probability_best(draws[:, [3, 1, 4, 0, 2]], True)
    assert shuffled == pytest.approx(alone[[3, 1, 4, 0, 2]], abs=0.015), "no order is no order"
    with_base = probability_best(np.c_[np.full(20_000, 0.3), draws], True, apart=(0,))
    assert with_base[0] > 0.1 and with_base.sum() == pytest.approx(1.0)
    same = probability_best(np.tile(draws[:, :1], 3), True)
    assert same == pytest.approx([1 / 3] * 3)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6))
def test_nobody_on_the_front_is_beaten(points: list[tuple[int, int]]) -> None:
    error, similarity = np.array(points, float).T
    for member, (ours, alike) in zip(pareto_members(error, similarity), points, strict=True):
        beaten = any(e <= ours and s >= alike and (e, s) != (ours, alike) for e, s in points)
        assert member == (not beaten)


def test_a_ratio_without_each_text_in_turn() -> None:
    ratio = ratio_by_text(["a", "b", "c"], ["c", "a", "c"], [4.0, 1.0, 2.0], [5.0, 2.0, 3.0])
    assert ratio.numerator.tolist() == [1.0, 0.0, 6.0]
    assert ratio.denominator.tolist() == [2.0, 0.0, 8.0]
    assert ratio.point == 0.7 and ratio.left_out().tolist() == [0.75, 0.7, 0.5]
    assert ratio.draws(np.array([[0.0, 3.0, 1.0], [2.0, 1.0, 0.0]])).tolist() == [0.75, 0.5]
    even = Ratio(np.array([1.0, 4.0, 7.0]), np.ones(3))
    assert text_values(even) == pytest.approx([1.0, 4.0, 7.0])
    assert text_values(ratio).mean() == pytest.approx(3 * 0.7 - 2 * (0.75 + 0.7 + 0.5) / 3)
    assert np.isnan(Ratio(np.zeros(2), np.zeros(2)).point)


def test_power_is_the_chance_that_students_test_finds_it() -> None:
    for distance in (0.5, 2.0, 4.0):
        exact = nct.sf(t.ppf(0.95, 9), 9, distance)
        assert power_to_show(distance * 0.3, 0.3, 10, 0.9) == pytest.approx(exact)
    assert power_to_show(detectable_difference(0.01, 20), 0.01, 20) == pytest.approx(0.8)
    assert detectable_difference(0.02, 20, 0.9, 0.5) == 0.02 * standard_errors_to_show(20, 0.9, 0.5)


def test_what_is_published_is_rounded() -> None:
    assert rounded(0.12345649) == 0.123456 and str(rounded(-1e-9)) == "0.0"
    assert rounded(None) is rounded(float("nan")) is rounded(float("inf")) is None
    found = Interval(0.12345649, None, 1.0, 3, 0.5)
    assert found.as_dict() == {"point": 0.123456, "low": None, "high": 1.0, "n": 3}
    assert found.as_dict(with_se=True)["se"] == 0.5


@pytest.mark.parametrize("beyond", [-1.0, 1.0])
def test_a_point_beyond_every_resample_still_has_an_interval(beyond: float) -> None:
    """Efron's correction for bias would be infinite; it stops one resample short of that."""
    draws, left_out = np.linspace(-0.5, 0.5, 100), np.array([-0.2, 0.2, -0.2, 0.2])
    bias = beyond * norm.ppf(1 - 1 / 100)
    reach = np.sqrt(4 / 3) * t.ppf(0.975, 3)
    low, high = np.quantile(draws, norm.cdf(2 * bias + np.array([-reach, reach])))
    found = interval(beyond, draws, 4, 4, 0.95, left_out)
    assert found.low == pytest.approx(min(low, beyond)) and found.high == pytest.approx(
        max(high, beyond)
    )
