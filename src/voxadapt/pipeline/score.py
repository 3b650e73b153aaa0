"""Stage `score`: speak the selection sentences with one candidate and measure every clip."""

from __future__ import annotations

from voxadapt.core import paths
from voxadapt.core.files import write_json
from voxadapt.core.lineage import MADE, SPEAKING, check_made, write_made
from voxadapt.core.params import Params
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.candidates import check_name
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.speak_and_score import score_split
from voxadapt.pipeline.tracks import speaker_track
from voxadapt.scoring.score_clips import metrics_row
from voxadapt.scoring.wording import score_sentence


@stage("score")
def run(params: Params, candidate: str | int) -> StageResult:
    """Speak the selection sentences with one candidate and measure every clip."""
    track = speaker_track(params)
    fix = "Name one of them, or add it to params."
    name = check_name(candidate, track.candidates, fix=fix)
    inputs = [track.corpus.made_by_audit, track.corpus.made_reference]
    check_made(inputs, params)
    summary = score_split(track, open_context(params), name, "selection", paths.SCORES / name)
    write_json(paths.SCORE_METRICS / f"{name}.json", metrics_row(summary))
    write_made(
        paths.SCORES / name / MADE,
        f"score {name}",
        [paths.SCORES / name, paths.SCORE_METRICS / f"{name}.json"],
        inputs,
        params,
        SPEAKING,
    )
    return StageResult(score_sentence(name, summary), summary)
