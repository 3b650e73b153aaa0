"""The speaker's path through its stages, in the current folder."""

from voxadapt.core.params import Params
from voxadapt.pipeline import audit, codes, confirm, report, score, select, train


def run_speaker_path(params: Params) -> None:
    """Run every stage, one after another."""
    for stage in (audit, codes, train):
        stage.run(params)
    for name in params.candidates:
        score.run(params, name)
    for last in (select, confirm, report):
        last.run(params)
