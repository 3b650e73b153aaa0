"""Whether a second recogniser hears what the first one heard.

One recogniser's taste can carry an error rate. At confirmation, where a claim is made about two
candidates, another model transcribes the same clips: its difference is measured like the first
one's, on the same sentences with the same resamples.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from voxadapt.core.params import SelectParams
from voxadapt.core.problems import user_error
from voxadapt.core.records import Record
from voxadapt.scoring.measures import Sample, error_rates
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked, sort_rows
from voxadapt.scoring.statistics import paired_difference, resample_weights, rounded
from voxadapt.scoring.wording import side
from voxadapt.selection import wording
from voxadapt.selection.pairing import BASE


def second_opinion(
    first: Mapping[str, Sequence[ScoreRow]],
    second: Mapping[str, Sequence[ScoreRow]],
    params: SelectParams,
    *,
    chosen: str,
) -> Record:
    """Compare the Base and the candidate that is kept by two recognisers that heard the same clips.

    Returns:
        JSON-ready values, `second_asr` of `confirm.json`: `asr_id` and `first_asr_id`, `metric`,
        the second recogniser's `base`, `chosen` and paired `difference` with intervals,
        `first_difference`, the `verdict` of each on the difference (better, worse, undecided: by
        the interval), `agrees` when both verdicts are the same, `correlation` of the clips'
        errors (None where one of the two never varies), and a `sentence`.
    """
    names = list(dict.fromkeys((BASE, chosen)))
    ours, theirs = (
        [row for name in names for row in sort_rows(ranked(rows[name]))] for rows in (first, second)
    )
    identities = [evaluator_id(rows)["asr_id"] for rows in (ours, theirs)]
    _refuse(ours, theirs, identities)
    difference = []
    for rows in (first, second):
        mine, other = (
            Sample(ranked(rows[name]), params.error_metric, None).error for name in (chosen, BASE)
        )
        weights = resample_weights(len(mine.numerator), params.num_bootstrap, params.seed)
        found, _ = paired_difference(mine, other, weights, params.confidence)
        difference.append(found.as_dict(with_se=True))
    verdicts = [("undecided", "worse", "better")[side(found)] for found in difference]
    metric = params.error_metric
    errors = [np.array([getattr(row, metric) for row in rows]) for rows in (ours, theirs)]
    record = {
        "asr_id": identities[1],
        "first_asr_id": identities[0],
        "metric": metric,
        "base": error_rates(ranked(second[BASE]), params)[metric],
        "chosen": error_rates(ranked(second[chosen]), params)[metric],
        "difference": difference[1],
        "first_difference": difference[0],
        "verdict": verdicts[1],
        "first_verdict": verdicts[0],
        "agrees": verdicts[0] == verdicts[1],
        "correlation": _correlation(*errors),
        "num_clips": len(ours),
    }
    return record | {"sentence": wording.say("second_opinion", record, chosen, BASE)}


def _refuse(
    ours: Sequence[ScoreRow], theirs: Sequence[ScoreRow], identities: Sequence[str]
) -> None:
    """Refuse one recogniser twice, or other clips."""
    if identities[0] == identities[1]:
        raise user_error("selection.same_recogniser", "asr.second", found=identities[1])
    clips = [[(row.candidate, *row.key, row.wav_sha256) for row in rows] for rows in (ours, theirs)]
    if clips[0] != clips[1]:
        differing = len(set(clips[0]) ^ set(clips[1]))
        raise user_error("selection.other_heard", "asr.second", count=differing)


def _correlation(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """Return Pearson's correlation, or None where one side never varies."""
    if len(ours) < 2 or not np.ptp(ours) or not np.ptp(theirs):
        return None
    return rounded(float(np.corrcoef(ours, theirs)[0, 1]))
