"""Stage `score`: speak the selection sentences with one candidate and measure every clip."""

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
    name = check_name(candidate, track.candidates, "Name one of them, or add it to params.")
    inputs = [track.corpus.made_by_audit, track.corpus.made_reference]
    check_made(inputs, params)
    folder, metrics = paths.SCORES / name, paths.SCORE_METRICS / f"{name}.json"
    summary = score_split(track, open_context(params), name, "selection", folder)
    write_json(metrics, metrics_row(summary))
    write_made(folder / MADE, f"score {name}", [folder, metrics], inputs, params, SPEAKING)
    return StageResult(score_sentence(name, summary), summary)
