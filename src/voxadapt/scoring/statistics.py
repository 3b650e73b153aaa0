"""Paired cluster bootstrap by text: intervals, differences, simultaneous bands, P(best), power.

The block is a text with all its takes, because takes of one sentence share its difficulty. Every
candidate sees the same resamples (common random numbers), so differences are paired. Statistics
are ratios of sums over texts: a corpus error is edits over reference units, a mean similarity is
the sum of cosines over the number of clips.

Shapes: T texts, B resamples, C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, nctdtr, nctdtrinc, ndtr, ndtri, stdtrit

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record

Array = NDArray[np.float64]
CAUTION = 1.3  # P(best) with a wider bootstrap: curves are not quite as modelled (calibration.md)
CACHED = 2**19  # numbers of an intermediate array that stay in a processor's cache
DIGITS = 6  # what is published is rounded, so that equal inputs give equal bytes everywhere


@dataclass(frozen=True, slots=True)
class Ratio:
    """A statistic as sums per text: of the clips (`numerator`) and of their weights, [T] each."""

    numerator: Array
    denominator: Array

    @property
    def point(self) -> float:
        """The statistic over all texts; nan when nothing was measured."""
        total = self.denominator.sum()
        return float(self.numerator.sum() / total) if total else float("nan")

    def draws(self, weights: Array) -> Array:
        """Return the statistic of each resample, [B]; weights as of `resample_weights`, [B, T]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ self.numerator) / (weights @ self.denominator))

    def left_out(self) -> Array:
        """Return the statistic without each text in turn, [T]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            left = self.denominator.sum() - self.denominator
            return np.asarray((self.numerator.sum() - self.numerator) / left)


class Statistic(Protocol):
    """What is estimated from resampled texts: a `Ratio`, or the worst of several."""

    @property
    def point(self) -> float:
        """The statistic over all texts."""

    def draws(self, weights: Array) -> Array:
        """Return the statistic of each resample, [B]."""

    def left_out(self) -> Array:
        """Return the statistic without each text in turn, [T]."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with its interval and bootstrap standard error; n clips (of a difference: texts)."""

    point: float | None
    low: float | None
    high: float | None
    n: int
    se: float | None = None

    def as_dict(self, with_se: bool = False) -> Record:
        """Return JSON-ready values, rounded."""
        ends = {name: rounded(getattr(self, name)) for name in ("point", "low", "high")}
        return {**ends, "n": self.n, **({"se": rounded(self.se)} if with_se else {})}


NOTHING = Interval(None, None, None, 0)


def rounded(value: float | None) -> float | None:
    """Round for publication; nan and None become None."""
    if value is None or not np.isfinite(value):
        return None
    return round(float(value), DIGITS) + 0.0  # no -0.0


def ratio_by_text(
    text_ids: Sequence[str],
    keys: Sequence[str],
    numerators: Sequence[float],
    denominators: Sequence[float] | None = None,
) -> Ratio:
    """Sum a quantity of clips per text.

    Texts are in the order of the resampling weights; of each clip its text, its quantity and its
    weight (1 when absent) are given.
    """
    position = {text_id: index for index, text_id in enumerate(text_ids)}
    index = np.array([position[key] for key in keys], dtype=np.intp)
    weight = np.ones(len(keys)) if denominators is None else np.asarray(denominators, float)
    numerator = np.bincount(index, np.asarray(numerators, float), len(text_ids))
    denominator = np.bincount(index, weight, len(text_ids))
    return Ratio(numerator.astype(np.float64), denominator.astype(np.float64))


@lru_cache(maxsize=4)
def resample_weights(num_texts: int, num_bootstrap: int, seed: int) -> Array:
    """Draw how often each text enters each resample, [B, T]; rows sum to T."""
    generator = np.random.default_rng(seed)
    share = np.full(num_texts, 1.0 / num_texts)
    weights = generator.multinomial(num_texts, share, size=num_bootstrap).astype(np.float64)
    weights.flags.writeable = False
    return weights


def _small_sample_factor(num_blocks: int, confidence: float) -> float:
    """Ratio by which percentile intervals of few blocks are too narrow.

    The bootstrap's variance lacks a factor n/(n-1) and its tails are normal where Student's are
    due (Hesterberg 2015, doi:10.1080/00031305.2015.1089789, "expanded percentile interval").
    """
    if num_blocks < 2:
        return float("inf")
    tail = (1.0 + confidence) / 2.0
    correction = np.sqrt(num_blocks / (num_blocks - 1.0))
    return float(correction * stdtrit(num_blocks - 1, tail) / ndtri(tail))


def interval(
    point: float,
    draws: Array,
    num_blocks: int,
    n: int,
    confidence: float,
    left_out: Array | None = None,
) -> Interval:
    """Return the bias-corrected, accelerated and expanded percentile interval of a statistic.

    Error rates of few sentences are skewed; the plain percentile interval then covers less than it
    says (BCa: Efron 1987, doi:10.2307/2289144). `draws`, [B], are nan where the statistic was not
    defined; without `left_out`, [T], nothing is corrected for bias and skewness (medians, which
    have no smooth influence).
    """
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(point) or not len(draws):
        return Interval(None, None, None, n)
    if num_blocks < 2:
        return Interval(point, None, None, n)
    reach = ndtri((1.0 + confidence) / 2.0) * _small_sample_factor(num_blocks, confidence)
    sides = np.array([-reach, reach])
    if left_out is not None and np.ptp(draws) > 0:
        centred = np.nanmean(left_out) - left_out[np.isfinite(left_out)]
        scale = np.sum(centred**2) ** 1.5
        acceleration = float(np.sum(centred**3) / (6.0 * scale)) if scale > 0 else 0.0
        below = 0.5 * float(np.mean(draws < point) + np.mean(draws <= point))
        bias = ndtri(np.clip(below, 1.0 / len(draws), 1.0 - 1.0 / len(draws)))
        shifted = bias + sides
        sides = bias + shifted / np.maximum(1.0 - acceleration * shifted, 0.1)
    low, high = np.quantile(draws, ndtr(sides))
    se = standard_error(draws, num_blocks)
    return Interval(point, min(float(low), point), max(float(high), point), n, se)


def student_interval(point: float, draws: Array, num_texts: int, confidence: float) -> Interval:
    """Return Student's interval about a difference, from its bootstrap standard error.

    Runaways make a difference heavy-tailed, not skewed: there it covers what it says, and the
    bias-corrected interval, which takes the few runaways of a set for skewness, does not.
    """
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(point) or not len(draws):
        return Interval(None, None, None, num_texts)
    if num_texts < 2:
        return Interval(point, None, None, num_texts)
    se = standard_error(draws, num_texts)
    reach = float(stdtrit(num_texts - 1, (1.0 + confidence) / 2.0)) * se
    return Interval(point, point - reach, point + reach, num_texts, se)


def standard_error(draws: Array, num_blocks: int) -> float:
    """Return the bootstrap standard error with its n/(n-1) correction."""
    if len(draws) < 2 or num_blocks < 2:
        return float("nan")
    return float(np.std(draws, ddof=1) * np.sqrt(num_blocks / (num_blocks - 1.0)))


def ratio_interval(ratio: Statistic, weights: Array, n: int, confidence: float) -> Interval:
    """Return a ratio statistic with its interval."""
    draws, num_texts = ratio.draws(weights), weights.shape[1]
    return interval(ratio.point, draws, num_texts, n, confidence, ratio.left_out())


def rate_interval(ratio: Ratio, weights: Array, n: int, confidence: float) -> Interval:
    """Return a share of clips with its interval, also where no clip, or every clip, has the trait.

    There the bootstrap sees no variation; the exact bound of as many independent trials as there
    are texts stands in (the rule of three, at 95 %).
    """
    found = ratio_interval(ratio, weights, n, confidence)
    num_texts = weights.shape[1]
    bound = 1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / num_texts)
    if found.point == 0.0:
        return Interval(0.0, 0.0, bound, n, found.se)
    if found.point == 1.0:
        return Interval(1.0, 1.0 - bound, 1.0, n, found.se)
    return found


def error_interval(
    usable: Ratio, failed: Ratio, failures: Ratio, weights: Array, n: int, confidence: float
) -> Interval:
    """Return an error rate with its interval, which allows for failed clips that were not seen.

    A failed clip outweighs many words; a bootstrap of sentences of which none happens to fail does
    not know of any. What usable clips add has the interval of `ratio_interval`, the share of failed
    clips Jeffreys' (of fewer trials where failures come together in a sentence), and both are
    joined as independent parts (Zou and Donner 2008, doi:10.1002/sim.3095). Errors, of usable and
    of failed clips, are over the units of all clips, `failures` over all n clips.
    """
    heard = ratio_interval(usable, weights, n, confidence)
    if heard.point is None or heard.low is None or heard.high is None:
        return heard if heard.point is None else replace(heard, point=heard.point + failed.point)
    share, num_clips = failures.point, float(failures.denominator.sum())
    each = failed.point / share if share else 1.0  # what it would add if all clips failed
    spread = failures.numerator - share * failures.denominator
    variance = float(np.var(spread, ddof=1)) * len(spread) / num_clips**2
    independent = share * (1.0 - share) / num_clips
    trials = num_clips / max(1.0, variance / independent if independent else 1.0)
    count, tail = share * trials, (1.0 - confidence) / 2.0
    low = betaincinv(count + 0.5, trials - count + 0.5, tail) if share else 0.0
    high = betaincinv(count + 0.5, trials - count + 0.5, 1.0 - tail) if share < 1.0 else 1.0
    point = heard.point + failed.point
    below = float(np.hypot(heard.point - heard.low, each * (share - low)))
    above = float(np.hypot(heard.high - heard.point, each * (high - share)))
    return Interval(point, max(0.0, point - below), min(1.0, point + above), n)


def mean_interval(
    found: Sequence[tuple[str, float]], params: SelectParams, rate: bool = False
) -> Interval:
    """Average (text, value) pairs of clips with an interval that resamples the texts.

    A `rate` is of clips that have a trait (1) or not (0), see `rate_interval`.
    """
    if not found:
        return NOTHING
    keys, values = zip(*found, strict=True)
    text_ids = sorted(set(keys))
    weights = resample_weights(len(text_ids), params.num_bootstrap, params.seed)
    interval_of = rate_interval if rate else ratio_interval
    ratio = ratio_by_text(text_ids, keys, values)
    return interval_of(ratio, weights, len(found), params.confidence)


def median_interval(
    text_ids: Sequence[str],
    keys: Sequence[str],
    values: Sequence[float],
    weights: Array,
    confidence: float,
) -> Interval:
    """Return the median over clips, one value each, with its interval, clustered by text."""
    if not len(values):
        return NOTHING
    position = {text_id: index for index, text_id in enumerate(text_ids)}
    order = np.argsort(np.asarray(values, float), kind="stable")
    ordered = np.asarray(values, float)[order]
    texts = np.array([position[key] for key in keys], dtype=np.intp)[order]
    draws = []
    for part in np.array_split(weights, 1 + weights.shape[0] * len(texts) // CACHED):
        reached = np.cumsum(part[:, texts], axis=1)  # how many clips are at most so large
        total = reached[:, -1:]
        first = np.argmax(2.0 * reached >= total, axis=1)
        draws.append(np.where(total[:, 0] > 0, ordered[first], np.nan))
    point = float(np.median(values))
    return interval(point, np.concatenate(draws), len(text_ids), len(values), confidence)


def paired_difference(
    ours: Statistic, theirs: Statistic, weights: Array, confidence: float
) -> tuple[Interval, Array]:
    """Return ours minus theirs on the same resamples, and the difference in each of them, [B]."""
    draws = ours.draws(weights) - theirs.draws(weights)
    return student_interval(ours.point - theirs.point, draws, weights.shape[1], confidence), draws


def all_pairs_critical(draws: Array, points: Array, num_blocks: int, confidence: float) -> float:
    """Return c such that +- c * se covers the differences of every pair of candidates at once.

    It serves the differences against whichever candidate the same data show to be the best; the
    critical value for a reference that was fixed beforehand would be too small for that. Candidates
    that do not differ at all take no part. Draws are the candidates' statistics in each resample,
    [B, C], points the statistics themselves, [C].
    """
    first, second = np.triu_indices(len(points), k=1)
    differences, true = draws[:, first] - draws[:, second], points[first] - points[second]
    spread = np.std(differences, axis=0, ddof=1)
    varies = spread > 1e-12
    if not varies.any():
        return 0.0
    largest = np.max(np.abs(differences[:, varies] - true[varies]) / spread[varies], axis=1)
    factor = _small_sample_factor(num_blocks, confidence)
    quantile = float(np.quantile(largest, confidence))
    return quantile * factor / float(np.sqrt(num_blocks / (num_blocks - 1.0)))


@lru_cache(maxsize=4)
def sign_flips(num_texts: int, num_flips: int, seed: int) -> Array:
    """Draw the signs of the texts' differences in each resample of a test, [B, T]."""
    bits = np.random.default_rng(seed).integers(0, 2, (num_flips, num_texts))
    signs = np.asarray(2.0 * bits - 1.0, dtype=np.float64)
    signs.flags.writeable = False
    return signs


def text_values(statistic: Statistic) -> Array:
    """Return what each text says of a statistic, [T]: its jackknife pseudo-values.

    Where every text weighs the same they are the texts' own values. Their mean is the statistic.
    """
    left_out = statistic.left_out()
    return np.asarray(len(left_out) * statistic.point - (len(left_out) - 1.0) * left_out)


def p_better(values: Array, control: int, flipped_means: Array) -> Array:
    """Test of each candidate whether it is better than a control, all candidates at once.

    The studentised sign-flip test of the texts' paired differences: where candidate and control are
    alike a difference could as well have had the other sign, whatever its distribution, so that the
    test holds its level with few texts and with heavy tails. One sign serves a text's differences
    of all candidates, which keeps their correlation; the p-values, [C] and 1 for the control
    itself, are one-sided and adjusted by the step-down maximum (Westfall and Young 1993; Romano and
    Wolf 2005, doi:10.1198/016214504000000539): the chance of calling any candidate better that is
    not is at most the level. Values are what each text says of each candidate, higher is better,
    [T, C]; flipped means are theirs under each of B sign flips, [B, C].
    """
    others = np.delete(np.arange(values.shape[1]), control)
    differences = values[:, others] - values[:, [control]]
    squares = np.mean(differences**2, axis=0)
    varies = squares > 1e-18

    def studentised(means: Array) -> Array:
        spread = np.sqrt(np.maximum(squares - means**2, 1e-6 * squares + 1e-300))
        return np.where(varies, means / spread, 0.0)  # what does not differ is not better

    measured = studentised(differences.mean(axis=0))
    flipped = studentised(flipped_means[:, others] - flipped_means[:, [control]])
    found, order = np.ones(values.shape[1]), np.argsort(measured, kind="stable")
    largest = np.full(len(flipped), -np.inf)
    for index in order:  # from the least: each is held against the largest of those not above it
        largest = np.maximum(largest, flipped[:, index])
        reached = np.count_nonzero(largest >= measured[index] - 1e-9)
        found[others[index]] = (1.0 + reached) / (1.0 + len(flipped))
    found[others[order]] = np.maximum.accumulate(found[others[order]][::-1])[::-1]
    return found


def probability_best(
    draws: Array, higher_is_better: bool, apart: Sequence[int] = (), ordered: bool = False
) -> Array:
    """Return the probability that each candidate is the best; ties are split.

    A share of resamples, [B, C], alone is too sure of the leader, which leads partly by luck
    (winner's curse). The candidates are therefore taken for a sample of a normal population, or for
    points of a smooth curve where they are `ordered`, steps of one training, with unknown spread
    (half-Cauchy); this draws them together as far as their differences could be chance: a
    hierarchical model on top of the bootstrap's covariance, averaged over spreads and kinds by how
    well they explain the figures. Candidates at the positions `apart`, such as the untrained Base,
    are no members of that population.
    """
    values = (draws if higher_is_better else -draws).astype(np.float64)
    alike = [index for index in range(values.shape[1]) if index not in apart]
    if len(alike) > 1:
        values = _drawn_together(values, alike, ordered)
    values = np.round(values, 9)  # equal but for the last bits of a sum is equal
    winners = values == values.max(axis=1, keepdims=True)
    return np.asarray((winners / winners.sum(axis=1, keepdims=True)).mean(axis=0))


def _drawn_together(draws: Array, alike: Sequence[int], ordered: bool) -> Array:
    """Draw the posterior of values whose `alike` columns come of one population, [B, C]."""
    size, mean = len(alike), draws.mean(axis=0)
    draws = mean + CAUTION * (draws - mean)
    # Orthonormal contrasts over the columns of `alike`: their common level is left alone.
    contrasts = np.zeros((draws.shape[1], size - 1))
    contrasts[alike] = np.linalg.svd(np.eye(size) - 1.0 / size)[0][:, : size - 1]
    steps = np.subtract.outer(np.arange(size), np.arange(size))
    kinds = [np.eye(size)]
    if ordered:
        kinds += [np.exp(-0.5 * (steps / (size * reach)) ** 2) for reach in (0.3, 1.0)]
    covariance = np.cov(draws, rowvar=False)
    between = contrasts.T @ covariance @ contrasts
    unit = float(np.sqrt(max(0.0, np.trace(between) / (size - 1))))
    if unit < 1e-9:  # one and the same candidate
        return draws
    found = mean @ contrasts
    scales = np.geomspace(0.1, 100.0, 24)
    priors, weights = [], []
    for kind in kinds:
        shape = contrasts[alike].T @ kind @ contrasts[alike]
        shape *= (size - 1) / np.trace(shape)
        for scale in scales:
            prior = (unit * scale) ** 2 * (shape + 1e-6 * np.eye(size - 1))
            _, log_determinant = np.linalg.slogdet(between + prior)
            distance = found @ np.linalg.solve(between + prior, found)
            # Half-Cauchy with the standard error as its scale; the grid is logarithmic.
            weights.append(-0.5 * (log_determinant + distance) + np.log(scale / (1.0 + scale**2)))
            priors.append(prior)
    posterior = np.exp(np.array(weights) - max(weights))
    generator = np.random.default_rng(0)
    picked = generator.choice(len(priors), len(draws), p=posterior / posterior.sum())
    noise = generator.standard_normal((len(draws), size - 1))
    shrunk = draws.copy()
    for index in np.unique(picked):
        rows, prior = picked == index, priors[index]
        gain = np.linalg.solve(between + prior, contrasts.T @ covariance)
        deviations = noise[rows] @ np.linalg.cholesky(prior).T
        shrunk[rows] -= (draws[rows] @ contrasts + deviations) @ gain
    return shrunk


def pareto_members(error: Array, similarity: Array) -> NDArray[np.bool_]:
    """Tell which candidates no other one beats on both objectives.

    One is beaten, [..., C], when another is at least as good on both and better on one of error
    (lower is better, [..., C]) and similarity (higher is better, [..., C]).
    """
    worse = error[..., :, None] - error[..., None, :]  # than each other one
    less = similarity[..., None, :] - similarity[..., :, None]
    beaten = (worse >= 0) & (less >= 0) & ((worse > 0) | (less > 0))
    return np.asarray(~np.any(beaten, axis=-1))


@cache
def standard_errors_to_show(num_texts: int, confidence: float = 0.95, power: float = 0.8) -> float:
    """Return how many standard errors a true difference must measure to be found so often.

    Found: the two-sided interval of that confidence does not contain 0; few texts, at least 2,
    need more (Student's t).
    """
    freedom = num_texts - 1
    critical = float(stdtrit(freedom, (1.0 + confidence) / 2.0))
    return float(nctdtrinc(freedom, 1.0 - power, critical))


def power_to_show(difference: float, se: float, num_texts: int, confidence: float = 0.95) -> float:
    """Return how often a true difference is found whose standard error is `se`."""
    critical = float(stdtrit(num_texts - 1, (1.0 + confidence) / 2.0))
    return float(1.0 - nctdtr(num_texts - 1, difference / se, critical))


def detectable_difference(
    se: float, num_texts: int, confidence: float = 0.95, power: float = 0.8
) -> float:
    """Return the true difference that texts find with that power; `se` is its standard error."""
    return standard_errors_to_show(num_texts, confidence, power) * se


def texts_needed(
    difference: float, se: float, num_texts: int, confidence: float = 0.95, power: float = 0.8
) -> int:
    """Return how many texts find a true difference above 0, where `num_texts` gave it this `se`."""
    spread = se * np.sqrt(num_texts)
    normal = ndtri((1.0 + confidence) / 2.0) + ndtri(power)
    needed = max(2, int(np.ceil((normal * spread / difference) ** 2)))
    while detectable_difference(spread / np.sqrt(needed), needed, confidence, power) > difference:
        needed += 1  # the normal figure is at most a few texts short
    return needed
