"""What the curves over the epochs say of more training: still rising, flat, turned, or not shown.

A trend is the slope over the last half of the epochs, paired by text and with an interval, so that
a last epoch that leads by luck is no advice to train on. Where similarity chooses, the error is
looked at as well: a voice may be learnt while the words still get clearer.
"""

from collections.abc import Mapping

import numpy as np

from voxadapt.core.params import SelectParams, epoch_number
from voxadapt.core.records import Record
from voxadapt.scoring.speakers import Worst
from voxadapt.scoring.statistics import Array, student_interval
from voxadapt.selection import wording
from voxadapt.selection.race import Candidates

FLAT_ERROR = 0.01  # of error rates: a change of a point an epoch is not worth another one


def find_outlook(
    measures: Mapping[str, Mapping[str, Worst]],
    weights: Array,
    params: SelectParams,
    setting: str | None,
) -> Record | None:
    """Read the trend of `sim` and `error`, or the error alone, over epochs in their order.

    `setting` is the parameter that says how many are trained; None: they are no epochs.

    Returns:
        `trends` by measure, each with `trend`, `slope` an epoch with its interval over `epochs`,
        and `best`; the `trend` of all together; and a `sentence`. *turned*: an earlier epoch is
        shown better than the last one, or the slope leads downhill; *flat*: the slope is shown to
        be too small to matter; *rising*: it is shown to lead uphill and the last epoch is the
        best; *undecided* otherwise. None for fewer than two epochs or sentences.
    """
    num_epochs = len(next(iter(measures.values())))
    if setting is None or num_epochs < 2 or weights.shape[1] < 2:
        return None
    trends = {key: _trend(found, weights, params) for key, found in measures.items()}
    kinds = [found["trend"] for found in trends.values()]
    order = ("turned", "rising", "undecided", "flat")  # what decides where measures differ
    together = min(kinds, key=order.index)
    names = list(next(iter(measures.values())))
    record: Record = {"trend": together, "trends": trends, "setting": setting}
    return record | {"sentence": wording.say("outlook", record, epoch_number(names[-1]), params)}


def _trend(primary: Mapping[str, Worst], weights: Array, params: SelectParams) -> Record:
    """Read the trend of one measure."""
    names, num_texts = list(primary), weights.shape[1]
    higher = next(iter(primary.values())).higher
    sign, flat = (1.0, params.similarity_tie) if higher else (-1.0, FLAT_ERROR)
    window = names[-max(2, (len(names) + 1) // 2) :]
    steps = np.array([epoch_number(name) for name in window], dtype=float)
    steps -= steps.mean()
    steps /= np.sum(steps**2)
    point = float(sum(step * primary[name].point for step, name in zip(steps, window, strict=True)))
    draws = np.stack([primary[name].draws(weights) for name in window], axis=1) @ steps
    slope = student_interval(point, draws, num_texts, params.confidence)
    assert slope.low is not None and slope.high is not None
    low, high = sorted((sign * slope.low, sign * slope.high))
    points = [round(sign * primary[name].point, 9) for name in names]
    best = names[int(np.argmax(points))]
    level = (1.0 - params.confidence) / 2.0
    beaten = Candidates.of(list(primary.values()), params).p_better(len(names) - 1).min() <= level
    trend = "undecided"
    if (beaten and points[-1] < max(points) - flat) or high < 0.0:
        trend = "turned"
    elif -flat <= low and high <= flat:
        trend = "flat"
    elif low > 0.0 and best == names[-1]:
        trend = "rising"
    return {"trend": trend, "epochs": window, "slope": slope.as_dict(with_se=True), "best": best}
