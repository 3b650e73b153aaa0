"""Who is chosen, from what each sentence says of each candidate; every step is a test of a level.

1. *Shown better*: a candidate may replace the start only when it passed the gates and is shown to
   be better by the primary measure, held against the start together with all other candidates.
2. *Unbeaten*: of these remain those that no other of them is shown to be better than, and those
   that nobody can tell from the best (`similarity_tie`); for several speakers, by their worst
   speaker and then by the mean of all.
3. *The clearest, then the earliest*: where similarity chooses, those remain that no other of them
   is shown to be understood better than; the first epoch of them is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxadapt.core.params import SelectParams
from voxadapt.scoring.speakers import Worst
from voxadapt.scoring.statistics import Array, Ratio, p_better, sign_flips, text_values

SET_LEVEL = 0.25  # the set of step 2 holds the best in three of four runs at least


@dataclass(frozen=True, slots=True)
class Race:
    """What the comparison of the candidates came to."""

    chosen: str  # the one to take; the start where none is shown to be better
    best: str  # first by the primary measure among those shown better, or among the eligible
    runner_up: str | None  # first of the others that are eligible
    shown: tuple[str, ...]  # those that are eligible and shown to be better than the start
    tied: tuple[str, ...]  # those of them that remain after step 2
    #: Of these the one with the lowest error; None where the error is the primary.
    clearest: str | None
    #: Of being better than the start, family-wise, by candidate; without the start.
    p_values: Mapping[str, float]


def run_race(
    primary: Mapping[str, Worst],
    eligible: Collection[str],
    start: str,
    params: SelectParams,
    *,
    means: Mapping[str, Ratio] | None = None,
    errors: Mapping[str, Ratio] | None = None,
) -> Race:
    """Choose a candidate.

    `primary` is what candidates are ranked by, in the order in which the earlier is preferred;
    `start` is kept when nothing is shown to be better. `means` are the primary measure of several
    speakers together, `errors` the error rates where they are not the primary measure.
    """
    sign = 1.0 if params.primary == "similarity" else -1.0
    names = list(primary)
    candidates = Candidates.of([primary[name] for name in names], params)
    found = candidates.p_better(names.index(start))
    p_values = {name: float(p) for name, p in zip(names, found, strict=True) if name != start}
    level = (1.0 - params.confidence) / 2.0
    shown = tuple(name for name in names if name in eligible and p_values.get(name, 1.0) <= level)
    # Equal to what is published: a difference in the last bits of a sum is none.
    gains = {name: round(sign * primary[name].point, 9) for name in names}
    runners = [name for name in names if name in eligible] or [start]
    best = max(shown or runners, key=gains.__getitem__)  # the earliest of equals
    tied, clearest, chosen = shown, None, start
    if shown:
        tie = params.similarity_tie if params.primary == "similarity" else 0.0
        tied = _remaining(shown, primary, params, sign, tie)
        if means is not None:
            tied = _remaining(tied, single_measure(means, sign > 0), params, sign, tie)
        remaining = tied
        if errors is not None:
            clearest = min(tied, key=lambda name: round(errors[name].point, 9))
            remaining = _remaining(tied, single_measure(errors, higher=False), params, -1.0, 0.0)
        chosen = remaining[0]
    others = [name for name in runners if name != chosen]
    runner_up = max(others, key=gains.__getitem__) if others else None
    return Race(chosen, best, runner_up, shown, tied, clearest, p_values)


def single_measure(ratios: Mapping[str, Ratio], higher: bool) -> dict[str, Worst]:
    """Take a measure of all speakers together for that of a single one."""
    return {name: Worst((ratio,), (0.0,), higher) for name, ratio in ratios.items()}


def _remaining(
    names: Sequence[str],
    statistics: Mapping[str, Worst],
    params: SelectParams,
    sign: float,
    tie: float,
) -> tuple[str, ...]:
    """Keep those that no other one is shown to be better than, or that are as good as the best.

    The truly best one leaves only by a false verdict of the test with itself as the control, so
    that it stays with probability of at least 1 - SET_LEVEL (multiple comparisons with the best:
    Hsu 1984, doi:10.1214/aos/1176346732).
    """
    candidates = Candidates.of([statistics[name] for name in names], params)
    points = np.round([sign * statistics[name].point for name in names], 9)
    return tuple(
        name
        for index, name in enumerate(names)
        if points[index] >= points.max() - tie or candidates.p_better(index).min() > SET_LEVEL
    )


@dataclass(frozen=True, slots=True)
class Candidates:
    """What each text says of each of S speakers of each candidate, and its means under sign flips.

    Higher is better; columns by candidate and then by speaker, [T, C * S] and [B, C * S].
    """

    values: Array
    flipped_means: Array
    num_speakers: int

    @classmethod
    def of(cls, statistics: Sequence[Worst], params: SelectParams) -> Candidates:
        """Collect the values of candidates that are ranked by their worst speaker."""
        columns = [
            (1.0 if found.higher else -1.0) * (text_values(part) - level)
            for found in statistics
            for part, level in zip(found.parts, found.levels, strict=True)
        ]
        values = np.stack(columns, axis=1)
        flips = sign_flips(len(values), params.num_bootstrap, params.seed)
        return cls(values, flips @ values / len(values), len(statistics[0].parts))

    def p_better(self, control: int) -> Array:
        """Test of each candidate whether its worst speaker is better than the control's.

        It is if all of its speakers are better than some speaker of the control's: the largest
        p-value over its own speakers, the smallest over the control's times their number. A test
        of the worst speakers as measured would take the control's for worse than it is, as it was
        picked for being low. The p-values, [C], are adjusted for all candidates; 1 for the control.
        """
        size, columns = self.num_speakers, np.arange(self.values.shape[1])
        own = columns // size == control
        found = np.ones(len(columns) // size)
        for column in columns[own]:
            kept = columns[~own | (columns == column)]
            p_values = np.ones(len(columns))
            position = int(np.flatnonzero(kept == column)[0])
            p_values[kept] = p_better(self.values[:, kept], position, self.flipped_means[:, kept])
            found = np.minimum(found, size * p_values.reshape(-1, size).max(axis=1))
        found[control] = 1.0
        return found
