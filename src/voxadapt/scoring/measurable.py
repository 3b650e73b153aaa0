"""Whether anything can be measured: does the recogniser hear, does the reference tell voices apart?

Every gate and decision answers, whatever it is fed. So it is asked first of recordings whose words
and voice are known: what the recogniser mishears of them, as recorded and after the codec, and how
often a coded recording is more like the speaker's others than a stranger's clip is.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from voxadapt.core.params import MeasurableParams
from voxadapt.core.records import Record
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow, ranked
from voxadapt.scoring.statistics import rounded
from voxadapt.scoring.wording import say


def measurable(
    recordings: Mapping[str, Sequence[ScoreRow]],
    separation: float | None,
    metric: Literal["wer", "cer"],
    limits: MeasurableParams,
) -> Record:
    """Judge recogniser and reference by rows of the speaker's recordings, `real` and `codec`.

    Empty ones judge nothing; nor does a separation of None, without other voices.

    Returns:
        `measurable`; `recogniser` and `reference`, each with its figures, its limit and `fine`
        (None where it is unknown); what is wrong and what to do as `sentence`, empty where all is
        well. Errors are shares of the reference units, capped at 1 a clip.
    """
    rows = {name: ranked(found) for name, found in recordings.items()}
    errors = {
        name: Sample(found, metric, None).error.point for name, found in rows.items() if found
    }
    deaf = [name for name, error in errors.items() if error > limits.max_error]
    told = [row.lid != row.lang for row in rows.get("real", ()) if row.lid is not None]
    other = sum(told) / len(told) if told else None  # share that is heard as another language
    apart = None if separation is None else separation >= limits.min_separation
    sentence = say("cannot_be_measured", errors, deaf, metric, other, apart, separation, limits)
    return {
        "measurable": not sentence,
        "recogniser": {
            "metric": metric,
            **{name: rounded(errors.get(name)) for name in ("real", "codec")},
            "n": {name: len(found) for name, found in rows.items()},
            "heard_as_other_language": rounded(other),
            "limit": limits.max_error,
            "fine": not deaf if errors else None,
        },
        "reference": {
            "separation": rounded(separation),
            "limit": limits.min_separation,
            "fine": apart,
        },
        "sentence": sentence,
    }
