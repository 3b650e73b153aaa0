"""Whether Stage 2 runs: the gap between what Stage 1 reads and what the codec could carry.

The codec's round trip of a recording is the best that any codes could sound; what Stage 1 lacks to
it is all that Stage 2 may hope to win. The rule is fixed in `language.stage2` before anything is
scored, the verdict is the data's, and a mode that overrules it is recorded beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.params import SelectParams, Stage2Params
from voxadapt.core.records import Record
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked, rows_sha
from voxadapt.scoring.statistics import (
    Interval,
    paired_difference,
    ratio_interval,
    resample_weights,
    rounded,
)
from voxadapt.selection import wording
from voxadapt.selection.pairing import BASE, comparable


def decide_stage2(
    stage1_rows: Sequence[ScoreRow],
    codec_rows: Sequence[ScoreRow],
    params: Stage2Params,
    select: SelectParams,
    can: Record | None = None,
) -> Record:
    """Decide by the scores of Stage 1 whether the code predictor is to be trained.

    Args:
        stage1_rows: Rows of the candidate that Stage 1 chose, on the selection split.
        codec_rows: Rows of the recordings' codec round trip; other splits and sentences that no
            candidate spoke are left out.
        params: The rule.
        select: Error metric, bootstrap and confidence.
        can: What `measurable` returns: where nothing can be measured the data decide nothing.

    Returns:
        The JSON-ready content of `decision.json`: `decision` is what the data say, `acts` what is
        done. Errors and gaps are shares of the reference units.

    Raises:
        UserError: When a sentence lacks its codec round trip, or was scored by another evaluator.
    """
    split, candidate = stage1_rows[0].split, stage1_rows[0].candidate
    evaluator = evaluator_id(stage1_rows)
    codec_rows = _paired(stage1_rows, comparable(codec_rows, split, evaluator))
    inputs = {candidate: rows_sha(stage1_rows), "codec": rows_sha(codec_rows)}
    stage1_rows, codec_rows = ranked(stage1_rows), ranked(codec_rows)
    ours, theirs = (Sample(rows, select.error_metric, None) for rows in (stage1_rows, codec_rows))
    num_texts, confidence = len(ours.text_ids), select.confidence
    weights = resample_weights(num_texts, select.num_bootstrap, select.seed)
    found, _ = paired_difference(ours.error, theirs.error, weights, confidence)
    # What is published decides, so that the last bits of a sum do not.
    gap = found.as_dict(with_se=True)
    measurable = can is None or can["measurable"]
    decision = _decide(gap, params.max_gap) if measurable else "undecided"
    acts = {
        "auto": params.if_undecided if decision == "undecided" else decision,
        "always": "run",
        "never": "skip",
    }[params.mode]

    def errors(sample: Sample) -> Record:
        intervals: dict[str, Interval] = {
            name: ratio_interval(getattr(sample, name), weights, len(sample.rows), confidence)
            for name in ("cer", "wer")
        }
        return {name: value.as_dict() for name, value in intervals.items()}

    record = {
        "schema": "voxadapt-stage2-decision/1",
        "decision": decision,
        "acts": acts,
        "mode": params.mode,
        "rule": {
            "text": wording.say("stage2_rule", params, select),
            "max_gap": params.max_gap,
            "metric": select.error_metric,
            "confidence": confidence,
            "if_undecided": params.if_undecided,
            "num_bootstrap": select.num_bootstrap,
            "seed": select.seed,
        },
        "split": split,
        "evaluator": evaluator,
        "inputs": inputs,
        "stage1": {
            "candidate": candidate,
            "keep_base": candidate == BASE,
            **errors(ours),
            "n": len(ours.rows),
        },
        "codec": {**errors(theirs), "n": len(theirs.rows)},
        "gap": gap,
        "num_texts": num_texts,
        "num_texts_needed": (
            _texts_needed(gap, params.max_gap) if decision == "undecided" and measurable else None
        ),
    }
    record["reason"] = wording.say("stage2_reason", record)
    if can is not None and not measurable:
        record["reason"] = f"{can['sentence']} {wording.say('stage2_unmeasured', record)}"
    return record


def _paired(stage1: Sequence[ScoreRow], codec: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Keep the round trips of the sentences that Stage 1 spoke; each must be there."""
    texts = {row.text_id: row.text for row in stage1}
    kept = [row for row in codec if row.text_id in texts]
    fix = "Run the codes stage of the language's recordings again."
    problems = [
        Problem(f"text {text_id}", "the codec's round trip of its recording", "none", fix)
        for text_id in sorted(set(texts) - {row.text_id for row in kept})
    ]
    problems += [
        Problem(
            f"text {row.text_id}", f"the text {texts[row.text_id]!r}", f"{row.text!r} (stale)", fix
        )
        for row in kept
        if row.text != texts[row.text_id]
    ]
    if problems:
        raise UserError(problems[:50], "Stage 1 cannot be compared with the codec's round trip.")
    return kept


def _decide(gap: Record, max_gap: float) -> str:
    """Read the interval of the gap; one sentence alone has none and decides nothing."""
    if gap["low"] is None:
        return "undecided"
    if gap["low"] > max_gap:
        return "run"
    return "skip" if gap["high"] <= max_gap else "undecided"


def _texts_needed(gap: Record, max_gap: float) -> int | None:
    """Estimate with how many sentences the interval would leave the limit on one side.

    Returns:
        None where no number would do: the gap measured is the limit itself, or has no interval.
    """
    distance = rounded(abs(gap["point"] - max_gap))
    if gap["low"] is None or not distance:
        return None
    over = gap["point"] > max_gap
    reach: float = gap["point"] - gap["low"] if over else gap["high"] - gap["point"]
    needed: float = gap["n"] * (reach / distance) ** 2
    return max(int(gap["n"]) + 1, math.ceil(needed))
