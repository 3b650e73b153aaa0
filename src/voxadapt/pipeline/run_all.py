"""Every stage of a speaker in order, without DVC."""

from __future__ import annotations

from collections.abc import Iterator

from voxadapt.core.params import Params
from voxadapt.pipeline import audit, codes, confirm, report, score, select, train


def run_all(params: Params) -> Iterator[str]:
    """Run every stage; yield one line a stage."""
    yield f"audit: {audit.run(params).sentence}"
    yield f"codes: {codes.run(params).sentence}"
    yield f"train: {train.run(params).sentence}"
    for name in params.candidate_names:
        yield f"score {name}: {score.run(params, name).sentence}"
    yield f"select: {select.run(params).sentence}"
    yield f"confirm: {confirm.run(params).sentence}"
    yield f"report: {report.run(params).sentence}"
