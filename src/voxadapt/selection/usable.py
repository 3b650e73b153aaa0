"""Is what was chosen good enough? Apart from whether it is better than the rest.

The yardsticks are recordings of the same sentences after the codec: what they lose, the recogniser
and the codec lose of any voice. A model is *ready* where it lies within the first limit of every
measure and is shown to lie within the second, *not usable yet* where it lies beyond the second one
of any, and *usable with care* in between.
"""

from collections.abc import Sequence

from voxadapt.core.params import SelectParams, UsableParams
from voxadapt.core.records import Record
from voxadapt.scoring.measures import calibrated
from voxadapt.scoring.rows import ScoreRow, ranked
from voxadapt.scoring.speakers import SpeakerScores, rows_of, speakers_in
from voxadapt.scoring.statistics import rounded
from voxadapt.selection import wording

STATES = ("ready", "with_care", "not_yet")
MOSTLY = 0.5


def without_verdict(decision: Record, can: Record) -> Record:
    """Put into a decision whether anything could be measured; where not, it decides nothing."""
    decision = decision | {"measurable": can}
    if can["measurable"]:
        return decision
    start = decision.get("start", "base")
    kept = {"chosen": start, "keep_base": start == "base"}
    if "start" in decision:
        kept["keep_start"] = True
    return decision | kept | {"reason": f"{can['sentence']} Nothing is decided."}


def unconfirmed(record: Record, can: Record | None) -> Record:
    """Take the verdict from a confirmation where by the selection nothing could be measured."""
    if can is None or can["measurable"]:
        return record
    return record | {"verdict": "not_measurable", "sentence": can["sentence"]}


def usable(
    chosen: Sequence[ScoreRow],
    codec: Sequence[ScoreRow],
    scale: Record,
    can: Record,
    rule: SelectParams,
    limits: UsableParams,
) -> Record:
    """Judge a model by limits; of several speakers, by the one that comes off worst in each.

    The model's rows are of one split, those of the codec's round trips of any; the voice matters
    where it is primary.

    Returns:
        `state` (`ready`, `with_care`, `not_yet`; `unknown` where nothing can be measured),
        `measures` with value, upper bound, limits and state of each, and a `sentence`.
    """
    if not can["measurable"]:
        return {"state": "unknown", "measures": {}, "sentence": ""}
    texts = {row.text_id for row in ranked(chosen)}
    recorded = [row for row in ranked(codec) if row.text_id in texts]
    told = can["recogniser"]["heard_as_other_language"]
    measures: dict[str, Record] = {}
    for speaker in speakers_in(chosen) or (None,):
        rows = ranked(chosen) if speaker is None else rows_of(ranked(chosen), speaker)
        found = _values(rows, recorded, scale, speaker, rule)
        if told is None or told > MOSTLY:
            found.pop("wrong_language")  # recordings are heard as another language too
        for name, (point, high) in found.items():
            item = _judged(point, high, getattr(limits, name))
            if speaker is not None:
                item["speaker"] = speaker
            worse = (measures.get(name, item), item)
            measures[name] = max(worse, key=lambda m: (STATES.index(m["state"]), m["value"]))
    state = max((item["state"] for item in measures.values()), key=STATES.index)
    return {
        "state": state,
        "measures": measures,
        "sentence": wording.say("usable", state, measures, rule.error_metric.upper()),
    }


def _values(
    rows: Sequence[ScoreRow],
    recorded: Sequence[ScoreRow],
    scale: Record,
    speaker: str | None,
    rule: SelectParams,
) -> dict[str, tuple[float, float | None]]:
    """Return value and upper bound of each measure of one speaker."""
    # Both sides are of the same texts; a scale is that of the speaker.
    plain = [row.model_copy(update={"speaker": None}) for row in rows]
    coded = [row.model_copy(update={"speaker": None}) for row in recorded]
    own = scale if speaker is None else scale["speakers"][speaker]
    scores = SpeakerScores({"model": plain, "codec": coded}, own, rule)
    error = scores.difference("error", "model", "codec")
    other = scores.difference("wrong_language_rate", "model", "codec")
    failures = scores.intervals("model")["failure_rate"]
    found = {
        "error_above_codec": (error.point, error.high),
        "failure_rate": (failures.point, failures.high),
        "wrong_language": (other.point, other.high),
    }
    placed = calibrated(
        scores.intervals("model")["sim"], scores.level("top"), scores.level("floor")
    )
    if rule.primary == "similarity" and placed.point is not None:
        lost = None if placed.low is None else 1.0 - placed.low
        found["similarity_lost"] = (1.0 - placed.point, lost)
    return {key: (value, high) for key, (value, high) in found.items() if value is not None}


def _judged(value: float, high: float | None, limits: tuple[float, float]) -> Record:
    """Hold a value and its upper bound against both limits."""
    state = "with_care"
    if value > limits[1]:
        state = "not_yet"
    elif value <= limits[0] and (value if high is None else high) <= limits[1]:
        state = "ready"
    return {"value": rounded(value), "high": rounded(high), "limits": list(limits), "state": state}
