"""Power before training: which differences a set of sentences can show, and how many it takes.

Nothing has been trained or spoken yet, so the spread of a comparison is planned from the speaker's
held-out recordings and their codec round trip, which are measured as every candidate will be:

- *Between two epochs*. A clip's similarity is assumed to spread as among the recordings; a clip's
  error with error rate p as sqrt(p (1 - p)) times what the recordings and round trips show, with p
  that of the round trips, below which no candidate comes. A share of that variance belongs to the
  sentence and is common to all candidates (it cancels), a share to a candidate's way with a
  sentence, and the rest to the single take (further takes average it out).
- *Against the Base*. Two unlike systems on the same sentences: the spread of the paired
  difference between recording and round trip, which takes are not assumed to narrow; never less
  than between two epochs.

A verdict of *confirmed* needs the cost in words shown to be within its margin: how many sentences
that takes at equal words, with how many takes, is planned as well. There a candidate's way with a
sentence counts for more, as two unlike systems differ in it (.25, as measured on the miniature).

The shares are assumptions and are published with the plan; `selection.json` has the power that was
measured in the end.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow, ranked
from voxadapt.scoring.statistics import (
    Ratio,
    detectable_difference,
    power_to_show,
    rounded,
    texts_needed,
)
from voxadapt.scoring.wording import say

POWER = 0.8
SHARED = 0.25  # of a clip's variance: the sentence, whoever speaks it
INTERACTION = 0.05  # a candidate and a sentence, in every take
INTERACTION_BASE = 0.25  # the same of a trained model beside the untrained one
CONFIRMED_POWER = 0.9
PLANNED_TAKES = (1, 3, 5, 10)
EPOCHS, BASE = "between_epochs", "against_base"
DIFFERENCES = {"sim": (0.005, 0.01, 0.02), "wer": (0.01, 0.02, 0.05), "cer": (0.01, 0.02, 0.05)}
COMPARISONS = {"selection": (EPOCHS, BASE), "confirmation": (BASE,)}
LABELS = {"sim": "SIM-resemblyzer", "wer": "WER", "cer": "CER"}
Measure = Literal["sim", "wer", "cer"]


def plan_power(
    real: Sequence[ScoreRow],
    codec: Sequence[ScoreRow],
    num_texts: Mapping[str, int],
    takes: int,
    params: SelectParams,
) -> Record:
    """Say which differences the selection and confirmation sentences can show.

    Rows are of the held-out recordings and of their codec round trip, of all splits; `num_texts`
    are the sentences that will be ranked, by split, each at least 1.

    Returns:
        The JSON-ready content of `planning.json`. Similarities are cosines, errors shares of the
        reference units; a `detectable_difference` is found in 80 % of cases, and is None for a
        single sentence or where nothing was measured to plan from.
    """
    real, codec = ranked(real), ranked(codec)
    measures: tuple[Measure, ...] = ("sim", params.error_metric)
    spreads = {measure: _spreads(measure, real, codec, takes) for measure in measures}
    primary = "sim" if params.primary == "similarity" else params.error_metric
    splits: dict[str, Record] = {}
    for split, count in num_texts.items():
        splits[split] = {"num_texts": count, "takes": takes}
        for comparison in COMPARISONS[split]:
            splits[split][comparison] = {
                measure: _power(measure, found[comparison], count, params.confidence)
                for measure, found in spreads.items()
            }
    cost = None
    if params.primary == "similarity" and "confirmation" in splits:
        cost = _plan_cost(spreads[params.error_metric], splits["confirmation"], params)
    return {
        "schema": "voxadapt-planning/1",
        "cost": cost,
        "confidence": params.confidence,
        "power": POWER,
        "primary": primary,
        "measured": {
            measure: {key: rounded(value) for key, value in found.items()}
            for measure, found in spreads.items()
        },
        "n": {"real": len(real), "codec": len(codec)},
        "assumptions": {
            "shared": SHARED,
            "interaction": INTERACTION,
            "take": rounded(1.0 - SHARED - INTERACTION),
            "text": say(
                "assumptions", spreads[params.error_metric]["expected"], SHARED, INTERACTION
            ),
        },
        "splits": splits,
        "text": " ".join(
            [_sentence(split, found, primary) for split, found in splits.items()]
            + ([] if cost is None else [cost["text"]])
        ),
    }


def paired_spread(clip_spread: float, takes: int, interaction: float = INTERACTION) -> float:
    """Return the SD over texts of the difference between two candidates' means of their takes.

    `clip_spread` is the SD of a single clip; `interaction` the share of a clip's variance that is a
    candidate's way with a sentence, `INTERACTION_BASE` between a trained model and the Base.
    """
    take = (1.0 - SHARED - interaction) / takes
    return float(clip_spread * np.sqrt(2.0 * (interaction + take)))


def _plan_cost(
    spread: Mapping[str, float | None], split: Record, params: SelectParams
) -> Record | None:
    """Say what shows that equal words are kept, which a verdict of *confirmed* asks for.

    For each of several numbers of `takes`: the `num_texts` with which the cost is shown to be
    within the margin so often, and the `chance` of it with the sentences that there are.
    """
    clip, expected = spread["clip"], spread["expected"]
    if clip is None or expected is None or split["num_texts"] < 2:
        return None
    margin = max(params.error_margin, params.error_margin_relative * expected)
    rows, count = [], split["num_texts"]
    for takes in sorted({*PLANNED_TAKES, split["takes"]}):
        se = paired_spread(clip, takes, INTERACTION_BASE) / np.sqrt(count)
        needed = texts_needed(margin, se, count, params.confidence, CONFIRMED_POWER)
        chance = power_to_show(margin, se, count, params.confidence)
        rows.append({"takes": takes, "num_texts": needed, "chance": rounded(chance)})
    metric = params.error_metric
    text = say("plan_cost", margin, metric, rows, split["takes"], count, CONFIRMED_POWER)
    return {"margin": rounded(margin), "power": CONFIRMED_POWER, "rows": rows, "text": text}


def _spreads(
    measure: Measure, real: Sequence[ScoreRow], codec: Sequence[ScoreRow], takes: int
) -> dict[str, float | None]:
    """Plan the SD over texts of both comparisons, and say from what.

    `expected` is the value about which the spread is planned, `clip` the SD of a clip; None where
    too little was measured.
    """
    nothing = dict.fromkeys(("expected", "clip", EPOCHS, BASE))
    if measure == "sim":
        # A clip without a similarity says nothing about the spread of those that have one.
        real, codec = ([row for row in rows if row.sim is not None] for rows in (real, codec))
    both = {row.text_id for row in real} & {row.text_id for row in codec}
    if len(both) < 3:
        return nothing
    recorded, coded = (
        getattr(Sample([row for row in rows if row.text_id in both], "cer", None), measure)
        for rows in (real, codec)
    )
    influence = [_influence(ratio) for ratio in (recorded, coded)]
    paired = float(np.std(influence[0] - influence[1], ddof=1))
    if measure == "sim":
        expected = recorded.point
        clip = float(np.std(influence[0], ddof=1))
    else:
        # Where nothing was misheard, plan with the rate that so many clips could not exclude.
        unseen = 1.0 - 0.05 ** (1.0 / len(both))
        expected = max(coded.point, unseen)
        units = float(coded.denominator.mean())
        rates = [ratio.point for ratio in (recorded, coded)]
        binomial = sum(rate * (1.0 - rate) for rate in rates)
        seen = sum(float(np.var(item, ddof=1)) for item in influence)
        # Errors of a clip come together; independent ones are the least that they can spread.
        design = max(1.0 / units, seen / binomial if binomial > 0.0 else 0.0)
        clip = float(np.sqrt(design * expected * (1.0 - expected)))
    epochs = paired_spread(clip, takes)
    return {"expected": expected, "clip": clip, EPOCHS: epochs, BASE: max(paired, epochs)}


def _influence(ratio: Ratio) -> np.ndarray:
    """Return what each text adds to the statistic, times the number of texts, [T]."""
    weight = ratio.denominator.mean()
    return np.asarray((ratio.numerator - ratio.point * ratio.denominator) / weight)


def _power(measure: Measure, spread: float | None, num_texts: int, confidence: float) -> Record:
    """Turn a spread into what can be seen with these texts, and what would be needed."""
    if spread is None or num_texts < 2:
        return {"se": None, "detectable_difference": None, "texts_needed": []}
    se = spread / np.sqrt(num_texts)
    return {
        "se": rounded(se),
        "detectable_difference": rounded(detectable_difference(se, num_texts, confidence, POWER)),
        "texts_needed": [
            {
                "difference": difference,
                "num_texts": texts_needed(difference, se, num_texts, confidence, POWER),
            }
            for difference in DIFFERENCES[measure]
        ],
    }


def _sentence(split: str, found: Record, primary: str) -> str:
    """Put the plan of a split into words, by the measure that chooses."""
    comparison = COMPARISONS[split][0]
    whom = "between two epochs" if comparison == EPOCHS else "from the Base"
    return say("plan", split, found, whom, found[comparison][primary], LABELS[primary], POWER)
