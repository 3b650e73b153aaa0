"""Systems held against each other on the texts that all of them spoke.

Differences are paired by text and share their resamples; their intervals hold for all pairs at
once, so that looking at many pairs does not find a difference by luck.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked
from voxadapt.scoring.statistics import (
    Array,
    Ratio,
    all_pairs_critical,
    paired_difference,
    probability_best,
    resample_weights,
    rounded,
    standard_error,
)
from voxadapt.selection import wording

LOWER_IS_BETTER = {"error": True, "sim": False, "failure_rate": True}


def compare_systems(
    rows: Mapping[str, Sequence[ScoreRow]],
    params: SelectParams,
    *,
    floor: float | None = None,
    with_similarity: bool = True,
) -> Record | None:
    """Compare every pair of systems on what all of them spoke.

    Sentences with digits take no part; a clip without a similarity has that of other voices.

    Returns:
        None for a single system. `pairs` is empty, and `text` says why, where the systems share
        fewer than two texts. Each pair holds, for `error`, `sim` and `failure_rate`, the paired
        `difference` (second minus first), its simultaneous interval and by that which of the two
        is `better`, or None.
    """
    names = sorted(rows)
    if len(names) < 2:
        return None
    evaluator_id(row for name in names for row in rows[name])
    kept = {name: ranked(rows[name]) for name in names}
    spoken = {name: {row.text_id for row in kept[name]} for name in names}
    shared = set.intersection(*spoken.values())
    record: Record = {
        "num_texts": len(shared),
        "left_out": {name: len(spoken[name] - shared) for name in names},
        "confidence": params.confidence,
        "error_metric": params.error_metric,
        "pairs": [],
        "p_best": {},
    }
    if len(shared) < 2:
        return record | {
            "text": f"The systems share {len(shared)} of their texts, too few to compare them: "
            "let them speak the same sentences."
        }
    samples = {
        name: Sample(
            [row for row in kept[name] if row.text_id in shared], params.error_metric, floor
        )
        for name in names
    }
    weights = resample_weights(len(shared), params.num_bootstrap, params.seed)
    measures = [name for name in LOWER_IS_BETTER if with_similarity or name != "sim"]
    pairs: dict[tuple[str, str], Record] = {pair: {} for pair in combinations(names, 2)}
    for measure in measures:
        ratios: dict[str, Ratio] = {name: getattr(samples[name], measure) for name in names}
        draws = np.stack([ratios[name].draws(weights) for name in names], axis=1)
        points = np.array([ratios[name].point for name in names])
        critical = all_pairs_critical(draws, points, len(shared), params.confidence)
        best = probability_best(np.round(draws, 9), not LOWER_IS_BETTER[measure])
        record["p_best"][measure] = {
            name: rounded(float(share)) for name, share in zip(names, best, strict=True)
        }
        for first, second in pairs:
            both = ratios[first], ratios[second]
            found = _compare(*both, weights, critical, params.confidence)
            if found["simultaneous_low"] > 0 or found["simultaneous_high"] < 0:
                is_first = (found["simultaneous_low"] > 0) == LOWER_IS_BETTER[measure]
                found["better"] = first if is_first else second
            pairs[first, second][measure] = found
    record["pairs"] = [
        {"first": first, "second": second, **found} for (first, second), found in pairs.items()
    ]
    return record | {"text": wording.say("comparison", record)}


def _compare(
    first: Ratio, second: Ratio, weights: Array, critical: float, confidence: float
) -> Record:
    """Return the second minus the first, with an interval that holds for all pairs at once."""
    found, differences = paired_difference(second, first, weights, confidence)
    assert found.point is not None
    se = standard_error(differences, weights.shape[1])
    reach = critical * (se if np.isfinite(se) else 0.0)
    return {
        "difference": found.as_dict(with_se=True),
        "simultaneous_low": rounded(found.point - reach),
        "simultaneous_high": rounded(found.point + reach),
        "better": None,
    }
