"""Confirmation: the chosen candidate beside the Base on sentences that chose nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from voxadapt.core.params import SelectParams
from voxadapt.core.problems import user_error
from voxadapt.core.records import Record
from voxadapt.scoring.measures import calibrated
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked, rows_sha
from voxadapt.scoring.speakers import SpeakerScores, confusion
from voxadapt.scoring.statistics import Interval, rounded, texts_needed
from voxadapt.scoring.wording import side
from voxadapt.selection import wording
from voxadapt.selection.gates import error_margin
from voxadapt.selection.pairing import BASE, check_candidates, check_scale, comparable
from voxadapt.selection.race import Candidates
from voxadapt.selection.select import SCHEMA

MEASURES = ("sim", "sim_norm", "wer", "wer_raw", "cer", "cer_raw", "failure_rate", "duration_ratio")


def confirm(
    base: Sequence[ScoreRow],
    chosen: Sequence[ScoreRow],
    params: SelectParams,
    *,
    scale: Record | None = None,
    selection: Record | None = None,
) -> Record:
    """Compare the chosen candidate (or a Base that was kept, with itself) with the Base.

    Rows are of the confirmation split, which chose nothing; `selection.json` shows both splits'
    differences side by side. The result is the content of `confirm.json`.

    Raises:
        UserError: When both were not scored on the same clips by the evaluator of the selection.
    """
    name = chosen[0].candidate
    rows = {BASE: base, name: chosen}
    split = check_candidates(rows, list(rows), params, BASE)
    evaluator, earlier = evaluator_id([*base, *chosen]), _earlier(selection, name)
    if selection is not None:
        fix = "Score the candidates again and select, or set back what was changed since."
        comparable(chosen, split, selection["evaluator"], fix)
    check_scale(scale, evaluator)
    scores = SpeakerScores({key: ranked(found) for key, found in rows.items()}, scale, params)
    ours, theirs = scores.samples[name][None], scores.samples[BASE][None]
    measures = _measures(scores, name, earlier)
    num_texts = len(ours.text_ids)
    gain = scores.gain(name, BASE)
    sign = 1 if params.primary == "similarity" else -1
    cost = None if name == BASE else _worst_cost(scores, name, params)
    verdict = "base_kept" if name == BASE else read_verdict(gain, sign, cost)
    if len(scores.speakers) > 1 and verdict in ("confirmed", "cost_not_excluded"):
        # The interval of a worst speaker takes for granted who that is; the test does not.
        both = Candidates.of([scores.worst(BASE), scores.worst(name)], params)
        if both.p_better(0)[1] > (1.0 - params.confidence) / 2.0:
            verdict = "not_confirmed"
    record: Record = {
        "schema": "voxadapt-confirm/1",
        "split": split,
        "base": BASE,
        "chosen": name,
        "num_texts": num_texts,
        "takes": len(ours.rows) // (num_texts * len(scores.speakers)),
        "n_expected": {BASE: len(theirs.rows), name: len(ours.rows)},
        "n_measured": {BASE: theirs.num_measured, name: ours.num_measured},
        "evaluator": evaluator,
        "inputs": {key: rows_sha(found) for key, found in rows.items()},
        "measures": measures,
        "primary": params.primary,
        "error_metric": params.error_metric,
        "verdict": verdict,
        "gain": None if name == BASE else gain.as_dict(with_se=True),
        "cost": None if cost is None else cost.as_dict(),
        "disclosure": wording.say("disclosure"),
    }
    if scores.speakers != (None,):
        record["speakers"] = _speakers(scores, name, params.error_metric)
        record["confusion"] = confusion(ours.rows, params)
    record["sentence"] = wording.say("confirmation", record)
    return record


def _measures(scores: SpeakerScores, name: str, earlier: Record) -> Record:
    """Return each measure of both candidates, and how far they differ here and on selection."""
    base, chosen = scores.intervals(BASE), scores.intervals(name)
    measures: Record = {}
    for key in MEASURES:
        difference = None
        if key == "sim_norm":
            ends = scores.level("top"), scores.level("floor")
            difference = calibrated(scores.difference("sim", name, BASE), *ends, difference=True)
        elif key.endswith("_raw"):  # without an interval, as in `Sample.intervals`
            found = scores.difference(key, name, BASE)
            difference = Interval(found.point, None, None, found.n)
        elif key != "duration_ratio":
            difference = scores.difference(key, name, BASE)
        measures[key] = {
            "base": base[key].as_dict(),
            "chosen": chosen[key].as_dict(),
            "difference": None if difference is None else difference.as_dict(with_se=True),
            "selection_difference": earlier.get(key),
        }
    return measures


def _speakers(scores: SpeakerScores, name: str, metric: str) -> Record:
    """Compare each speaker that rows name with the Base."""
    both = {key: scores.by_speaker(key, BASE, ("sim", metric)) for key in (BASE, name)}
    return {
        speaker: {
            key: {
                "base": both[BASE][speaker][key],
                "chosen": found[key],
                "difference": found["vs_base"] and found["vs_base"][short],
            }
            for key, short in (("sim", "sim"), (metric, "error"))
        }
        for speaker, found in both[name].items()
    }


@dataclass(frozen=True, slots=True)
class Cost:
    """What a candidate costs in the measure that it was not chosen by: how much worse it is.

    With bounds, the margin that is allowed, and the sentences with which a cost of this size is
    shown to be within it in 80 % of cases; None where it is at the margin or above.
    """

    measure: str
    worse: float
    at_least: float
    at_most: float
    margin: float
    num_texts_needed: int | None

    @property
    def state(self) -> str:
        """Whether it is shown to be within the margin (`shown`), above it (`exceeded`), or not."""
        if self.at_most <= self.margin:
            return "shown"
        return "exceeded" if self.at_least > self.margin else "not_excluded"

    def as_dict(self) -> Record:
        """Return JSON-ready values."""
        values = asdict(self) | {"state": self.state}
        numbers = ("worse", "at_least", "at_most", "margin")
        return values | {key: rounded(values[key]) for key in numbers}


def read_cost(
    measure: str, difference: Interval, margin: float, sign: int, confidence: float
) -> Cost:
    """Hold candidate minus Base against how much worse it may be; where higher is worse, sign 1."""
    assert difference.point is not None
    worse = sign * difference.point
    if difference.low is None or difference.high is None or not difference.se:
        ends = (worse, worse) if difference.low is not None else (-np.inf, np.inf)
        return Cost(measure, worse, *ends, margin, None)
    at_least, at_most = sorted((sign * difference.low, sign * difference.high))
    needed = None
    if margin - worse > 0.0005:  # nearer than that, no number of sentences is of use
        needed = texts_needed(margin - worse, difference.se, difference.n, confidence)
    return Cost(measure, worse, at_least, at_most, margin, needed)


def read_verdict(gain: Interval, sign: int, cost: Cost | None) -> str:
    """Say what unseen sentences make of a gain (of an error with sign -1) and of its cost.

    `contradicted` when the candidate is shown to be worse, or to cost more than is allowed;
    `not_confirmed` when its gain is not shown; `cost_not_excluded` when the gain is shown but not
    that its cost is within the margin; `confirmed` when both are shown, or nothing is limited.
    """
    better = sign * side(asdict(gain))
    if better < 0 or (cost is not None and cost.state == "exceeded"):
        return "contradicted"
    if not better:
        return "not_confirmed"
    return "confirmed" if cost is None or cost.state == "shown" else "cost_not_excluded"


def _worst_cost(scores: SpeakerScores, name: str, params: SelectParams) -> Cost | None:
    """Return what the candidate costs the speaker to whom it costs most, against the margin."""
    listed = []
    for speaker in scores.speakers:
        if params.primary == "similarity":
            margin = error_margin(params, scores.samples[BASE][speaker].error.point)
            difference = scores.difference("error", name, BASE, speaker)
            listed.append(read_cost(params.error_metric, difference, margin, 1, params.confidence))
        elif params.similarity_margin is not None:
            difference = scores.difference("sim", name, BASE, speaker)
            listed.append(
                read_cost("sim", difference, params.similarity_margin, -1, params.confidence)
            )
    return max(listed, key=lambda cost: cost.at_most - cost.margin, default=None)


def _earlier(selection: Record | None, name: str) -> Record:
    """Find the chosen candidate's differences on the selection split."""
    if selection is None:
        return {}
    if selection["schema"] != SCHEMA:
        facts = {"schema": SCHEMA, "found": selection["schema"]}
        raise user_error("selection.other_selection", "selection", **facts)
    for item in selection["candidates"]:
        if item["name"] == name and item["vs_base"] is not None:
            found = item["vs_base"]
            return {
                "sim": found["sim"],
                selection["rule"]["error_metric"]: found["error"],
                "failure_rate": found["failure_rate"],
            }
    return {}
