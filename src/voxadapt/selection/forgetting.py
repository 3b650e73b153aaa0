"""What adaptation made a model forget: the source language, read again by every candidate.

Base and candidates speak the same source sentences with the same seeds. How the paired difference
d of the error (candidate minus Base, margin m of the selection) is read: *forgotten* when its
interval lies above 0; *kept* when its upper bound is at most m; *undecided* when it contains 0 but
reaches beyond m, because too few sentences were read to exclude a loss.
"""

from collections.abc import Mapping, Sequence

from voxadapt.asr.normalise import metric_for
from voxadapt.core.errors import raise_problems
from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked, rows_sha
from voxadapt.scoring.statistics import paired_difference, resample_weights, rounded
from voxadapt.selection import wording
from voxadapt.selection.gates import error_margin
from voxadapt.selection.pairing import BASE, check_pairs

MEASURES = ("cer", "wer", "sim", "failure_rate")


def forgetting(
    base_rows: Sequence[ScoreRow],
    rows_by_candidate: Mapping[str, Sequence[ScoreRow]],
    params: SelectParams,
    *,
    chosen: str,
    scale: Record | None = None,
) -> Record:
    """Compare each candidate's source language with the Base's.

    The measure is CER where the source language has no spaces. The record has `candidates` by name
    (the Base first) with their measures, `vs_base` (None for the Base), verdict and sentence;
    `warning` is None unless the chosen one has forgotten something.

    Raises:
        UserError: When candidates did not speak the same sentences, or were scored by different
            evaluators.
    """
    others = {name: rows for name, rows in rows_by_candidate.items() if name != BASE}
    rows = {BASE: base_rows, **others}
    assert chosen in rows, "the chosen candidate's rows are missing"
    problems = check_pairs(rows, list(rows))
    raise_problems(problems[:50], "The scores of the source language cannot be compared.")
    evaluator = evaluator_id(row for found in rows.values() for row in found)
    lang = base_rows[0].lang
    fitting = metric_for(lang, [row.text_norm for row in base_rows])
    metric = "cer" if fitting == "cer" else params.error_metric
    floor = None if scale is None else scale["floor"]["point"]
    samples = {name: Sample(ranked(found), metric, floor) for name, found in rows.items()}
    base = samples[BASE]
    weights = resample_weights(len(base.text_ids), params.num_bootstrap, params.seed)
    margin = error_margin(params, base.error.point)
    candidates: dict[str, Record] = {}
    for name, sample in samples.items():
        measured = sample.intervals(weights, params.confidence, None, floor)
        item: Record = {"name": name} | {k: measured[k].as_dict() for k in MEASURES}
        if name == BASE:
            item |= {"vs_base": None, "verdict": "kept"}
        else:
            item["vs_base"] = {
                key: paired_difference(
                    getattr(sample, key), getattr(base, key), weights, params.confidence
                )[0].as_dict(with_se=True)
                for key in MEASURES
            }
            item["verdict"] = _verdict(item["vs_base"][metric], margin)
        candidates[name] = item | {
            "sentence": wording.say("forgetting_sentence", item, metric, lang, margin)
        }
    lost = candidates[chosen]["verdict"] == "forgotten"
    return {
        "schema": "voxadapt-forgetting/1",
        "lang": lang,
        "metric": metric,
        "rule": {
            "text": wording.say("forgetting_rule", metric, params, margin),
            "margin": rounded(margin),
            "confidence": params.confidence,
            "num_bootstrap": params.num_bootstrap,
            "seed": params.seed,
        },
        "num_texts": len(base.text_ids),
        "takes": len(base.rows) // len(base.text_ids),
        "evaluator": evaluator,
        "inputs": {name: rows_sha(found) for name, found in rows.items()},
        "candidates": candidates,
        "chosen": chosen,
        "warning": (
            "The model that was chosen has forgotten some of the source language. "
            f"{candidates[chosen]['sentence']}"
            if lost
            else None
        ),
    }


def _verdict(difference: Record, margin: float) -> str:
    """Read a paired difference of errors; see the module's docstring."""
    low, high = difference["low"], difference["high"]
    if low is None:  # a single sentence has no interval
        return "undecided"
    if low > 0:
        return "forgotten"
    return "kept" if high <= margin else "undecided"
