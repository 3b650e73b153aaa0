"""What adaptation made a model forget: the source language, read again by every candidate.

Base and candidates speak the same source sentences with the same seeds. How the paired difference
d of the error (candidate minus Base, margin m of the selection) is read: *forgotten* when its
interval lies above 0; *kept* when its upper bound is at most m; *undecided* when it contains 0 but
reaches beyond m, because too few sentences were read to exclude a loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxadapt.asr.normalise import metric_for
from voxadapt.core.errors import UserError
from voxadapt.core.params import SelectParams
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked, rows_sha
from voxadapt.scoring.statistics import paired_difference, resample_weights
from voxadapt.selection.select import BASE, check_pairs

MEASURES = ("cer", "wer", "sim", "failure_rate")


def forgetting(
    base_rows: Sequence[ScoreRow],
    rows_by_candidate: Mapping[str, Sequence[ScoreRow]],
    params: SelectParams,
    *,
    chosen: str,
    scale: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compare each candidate's source language with the Base's.

    Args:
        base_rows: The Base's rows of the source sentences.
        rows_by_candidate: Rows of the same sentences by candidate; the Base may be among them.
        params: Error metric (CER where the source language has no spaces), `error_margin`,
            bootstrap and confidence.
        chosen: The candidate that is kept; `warning` is about it.
        scale: `similarity.json` as read, for the floor of clips without a similarity.

    Returns:
        JSON-ready values: `candidates` by name (the Base first) with their measures, `vs_base`
        (None for the Base), verdict and sentence; `warning` is None unless the chosen one has
        forgotten something.

    Raises:
        UserError: When candidates did not speak the same sentences, or were scored by different
            evaluators.
    """
    others = {name: rows for name, rows in rows_by_candidate.items() if name != BASE}
    rows = {BASE: base_rows, **others}
    assert chosen in rows, "the chosen candidate's rows are missing"
    problems = check_pairs(rows, list(rows))
    if problems:
        raise UserError(problems[:50], "The scores of the source language cannot be compared.")
    evaluator = evaluator_id(row for found in rows.values() for row in found)
    lang = base_rows[0].lang
    fitting = metric_for(lang, [row.text_norm for row in base_rows])
    metric = "cer" if fitting == "cer" else params.error_metric
    floor = None if scale is None else scale["floor"]["point"]
    samples = {name: Sample(ranked(found), metric, floor) for name, found in rows.items()}
    base = samples[BASE]
    weights = resample_weights(len(base.text_ids), params.num_bootstrap, params.seed)
    candidates: dict[str, dict[str, Any]] = {}
    for name, sample in samples.items():
        measured = sample.intervals(weights, params.confidence, None, floor)
        item: dict[str, Any] = {"name": name} | {k: measured[k].as_dict() for k in MEASURES}
        if name == BASE:
            item |= {"vs_base": None, "verdict": "kept"}
        else:
            item["vs_base"] = {
                key: paired_difference(
                    getattr(sample, key), getattr(base, key), weights, params.confidence
                )[0].as_dict(with_se=True)
                for key in MEASURES
            }
            item["verdict"] = _verdict(item["vs_base"][metric], params.error_margin)
        candidates[name] = item | {"sentence": _sentence(item, metric, lang, params.error_margin)}
    lost = candidates[chosen]["verdict"] == "forgotten"
    return {
        "schema": "voxadapt-forgetting/1",
        "lang": lang,
        "metric": metric,
        "rule": {
            "text": _rule_text(metric, params),
            "margin": params.error_margin,
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


def _verdict(difference: Mapping[str, Any], margin: float) -> str:
    """Read a paired difference of errors; see the module's docstring."""
    low, high = difference["low"], difference["high"]
    if low is None:  # a single sentence has no interval
        return "undecided"
    if low > 0:
        return "forgotten"
    return "kept" if high <= margin else "undecided"


def _sentence(item: Mapping[str, Any], metric: str, lang: str, margin: float) -> str:
    """Say what became of the source language."""
    error = f"{metric.upper()} {100 * item[metric]['point']:.1f} %"
    if item["vs_base"] is None:
        return f"The Base reads {lang} with {error}."
    found = item["vs_base"][metric]
    span = ""
    if found["low"] is not None:
        span = f" [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
    verdict = {
        "forgotten": "measurably worse",
        "kept": f"no worse within {100 * margin:g} points",
        "undecided": (
            f"not measurably worse, but too few sentences to exclude {100 * margin:g} points"
        ),
    }[item["verdict"]]
    return (
        f"{item['name']} reads {lang} with {error}, {100 * found['point']:+.1f} points{span} "
        f"against the Base: {verdict}."
    )


def _rule_text(metric: str, params: SelectParams) -> str:
    """Put the rule into words."""
    margin = f"{100 * params.error_margin:g} points"
    return (
        f"Of the paired {100 * params.confidence:g} % interval of the candidate's {metric.upper()} "
        f"minus the Base's on source sentences: forgotten when it lies above 0; kept when its "
        f"upper bound is at most {margin}; undecided otherwise."
    )
