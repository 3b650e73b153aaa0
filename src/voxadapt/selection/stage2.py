"""Whether Stage 2 runs: the gap between what Stage 1 reads and what the codec could carry.

The codec's round trip of a recording is the best that any codes could sound; what Stage 1 lacks to
it is all that Stage 2 may hope to win. The rule is fixed in `language.stage2` before anything is
scored, the verdict is the data's, and a mode that overrules it is recorded beside it.
"""

import math
from collections.abc import Sequence

from voxadapt.core.errors import raise_problems
from voxadapt.core.params import SelectParams, Stage2Params
from voxadapt.core.problems import problem
from voxadapt.core.records import Record
from voxadapt.scoring.measures import Sample, error_rates
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked, rows_sha
from voxadapt.scoring.statistics import paired_difference, resample_weights, rounded
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

    Of the recordings' codec round trip, other splits and sentences that Stage 1's choice did not
    speak are left out, and so are the sets that guard, of which there are no recordings. Where by
    `can` (see `measurable`) nothing can be measured, the data decide nothing and so ask for no
    Stage 2, and the record holds `can`. In the content of `decision.json`, `decision` is what the
    data say, `acts` what is done; errors and gaps are shares of the reference units.
    """
    split, candidate = stage1_rows[0].split, stage1_rows[0].candidate
    evaluator = evaluator_id(stage1_rows)
    inputs = {candidate: rows_sha(stage1_rows)}
    stage1_rows = ranked(stage1_rows)  # without the sets that guard: nobody has recorded them
    codec_rows = _paired(stage1_rows, ranked(comparable(codec_rows, split, evaluator)))
    inputs["codec"] = rows_sha(codec_rows)
    ours, theirs = (Sample(rows, select.error_metric, None) for rows in (stage1_rows, codec_rows))
    num_texts, confidence = len(ours.text_ids), select.confidence
    weights = resample_weights(num_texts, select.num_bootstrap, select.seed)
    found, _ = paired_difference(ours.error, theirs.error, weights, confidence)
    # What is published decides, so that the last bits of a sum do not.
    gap = found.as_dict(with_se=True)
    measurable = can is None or can["measurable"]
    decision = _decide(gap, params.max_gap) if measurable else "undecided"
    undecided = params.if_undecided if measurable else "skip"
    acts = {
        "auto": undecided if decision == "undecided" else decision,
        "always": "run",
        "never": "skip",
    }[params.mode]

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
            **error_rates(stage1_rows, select),
            "n": len(stage1_rows),
        },
        "codec": {**error_rates(codec_rows, select), "n": len(codec_rows)},
        "gap": gap,
        "num_texts": num_texts,
        "num_texts_needed": (
            _texts_needed(gap, params.max_gap) if decision == "undecided" and measurable else None
        ),
    }
    if measurable:
        return record | {"reason": wording.say("stage2_reason", record)}
    return record | {"measurable": can, "reason": wording.say("stage2_unmeasured", record)}


def _paired(stage1: Sequence[ScoreRow], codec: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Keep the round trips of the sentences that Stage 1 spoke; each must be there."""
    texts = {row.text_id: row.text for row in stage1}
    kept = [row for row in codec if row.text_id in texts]
    missing = sorted(texts.keys() - {row.text_id for row in kept})
    problems = [problem("selection.no_round_trip", f"text {key}") for key in missing]
    for row in kept:
        if row.text != texts[row.text_id]:
            facts = {"text": texts[row.text_id], "found": row.text}
            problems.append(problem("selection.stale_round_trip", f"text {row.text_id}", **facts))
    raise_problems(problems[:50], "Stage 1 cannot be compared with the codec's round trip.")
    return kept


def _decide(gap: Record, max_gap: float) -> str:
    """Read the interval of the gap; one sentence alone has none and decides nothing."""
    if gap["low"] is None:
        return "undecided"
    if gap["low"] > max_gap:
        return "run"
    return "skip" if gap["high"] <= max_gap else "undecided"


def _texts_needed(gap: Record, max_gap: float) -> int | None:
    """Estimate how many sentences would decide it; None where no number would."""
    distance = rounded(abs(gap["point"] - max_gap))
    if gap["low"] is None or not distance:
        return None
    over = gap["point"] > max_gap
    reach: float = gap["point"] - gap["low"] if over else gap["high"] - gap["point"]
    needed: float = gap["n"] * (reach / distance) ** 2
    return max(int(gap["n"]) + 1, math.ceil(needed))
