"""Confirmation: the chosen candidate beside the Base on sentences that chose nothing."""

from __future__ import annotations

from collections.abc import Sequence

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.measures import calibrated
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked, rows_sha
from voxadapt.scoring.speakers import SpeakerScores, confusion
from voxadapt.selection import wording
from voxadapt.selection.gates import margin_state
from voxadapt.selection.pairing import BASE, check_candidates, check_scale
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
    """Compare the chosen candidate with the Base on sentences that chose nothing.

    Args:
        base: The Base's rows of the confirmation split.
        chosen: The chosen candidate's rows; the Base's own where the Base was kept.
        params: The rule.
        scale: `similarity.json` as read.
        selection: `selection.json` as read, to show both splits' differences side by side.

    Returns:
        The JSON-ready content of `confirm.json`.

    Raises:
        UserError: When both were not scored on the same clips by the same evaluator.
    """
    name = chosen[0].candidate
    rows = {BASE: base, name: chosen}
    split = check_candidates(rows, list(rows), params, BASE)
    evaluator = evaluator_id([*base, *chosen])
    check_scale(scale, evaluator)
    scores = SpeakerScores({key: ranked(found) for key, found in rows.items()}, scale, params)
    ours, theirs = scores.samples[name][None], scores.samples[BASE][None]
    measures = _measures(scores, name, _earlier(selection, name))
    num_texts = len(ours.text_ids)
    verdict, sentence = _verdict(name, measures, params, num_texts)
    record: Record = {
        "schema": "voxadapt-confirm/1",
        "split": split,
        "base": BASE,
        "chosen": name,
        "num_texts": num_texts,
        "takes": len(ours.rows) // num_texts,
        "n_expected": {BASE: len(theirs.rows), name: len(ours.rows)},
        "n_measured": {BASE: theirs.num_measured, name: ours.num_measured},
        "evaluator": evaluator,
        "inputs": {key: rows_sha(found) for key, found in rows.items()},
        "measures": measures,
        "primary": params.primary,
        "error_metric": params.error_metric,
        "verdict": verdict,
        "sentence": sentence,
        "disclosure": wording.DISCLOSURE,
    }
    if scores.speakers != (None,):
        record["speakers"] = _speakers(scores, name, params.error_metric)
        record["confusion"] = confusion(ours.rows, params)
    return record


def _measures(scores: SpeakerScores, name: str, earlier: Record) -> Record:
    """Return each measure of both candidates, and how far they differ here and on selection."""
    base, chosen = scores.intervals(BASE), scores.intervals(name)
    measures: Record = {}
    for key in MEASURES:
        difference = None
        if key == "sim_norm":
            ends = scores.level("ceiling"), scores.level("floor")
            difference = calibrated(scores.difference("sim", name, BASE), *ends, difference=True)
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


def _verdict(name: str, measures: Record, params: SelectParams, num_texts: int) -> tuple[str, str]:
    """Read the confirmation split: is the gain on the primary measure shown?"""
    metric = params.error_metric
    if name == BASE:
        return "base_kept", wording.base_confirmed(measures, metric, num_texts)
    sim, error = measures["sim"]["difference"], measures[metric]["difference"]
    found, sign = (sim, 1) if params.primary == "similarity" else (error, -1)
    bounds = [sign * found[key] for key in ("low", "high") if found[key] is not None]
    gain = "not_confirmed"
    if bounds and min(bounds) > 0:
        gain = "confirmed"
    elif bounds and max(bounds) < 0:
        gain = "contradicted"
    cost = None
    if params.primary == "similarity":
        upper = error["point"] if error["high"] is None else error["high"]
        cost = metric.upper(), margin_state(error["point"], upper, params.error_margin)
    elif params.similarity_margin is not None:
        lower = sim["point"] if sim["low"] is None else sim["low"]
        cost = "similarity", margin_state(-sim["point"], -lower, params.similarity_margin)
    sentence = wording.confirmation(name, gain, cost, measures, metric, num_texts)
    if gain == "confirmed" and cost is not None and cost[1] == "failed":
        gain = "not_confirmed"
    return gain, sentence


def _earlier(selection: Record | None, name: str) -> Record:
    """Find the chosen candidate's differences on the selection split."""
    if selection is None:
        return {}
    if selection["schema"] != SCHEMA:
        raise UserError(
            Problem("selection", SCHEMA, str(selection["schema"]), "Run `voxadapt select` again.")
        )
    for item in selection["candidates"]:
        if item["name"] == name and item["vs_base"] is not None:
            found = item["vs_base"]
            return {
                "sim": found["sim"],
                selection["rule"]["error_metric"]: found["error"],
                "failure_rate": found["failure_rate"],
            }
    return {}
