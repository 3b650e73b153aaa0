"""Stage `confirm`: compare the choice with the Base on the split that no decision has seen."""

from __future__ import annotations

from voxadapt.core import paths
from voxadapt.core.files import write_json
from voxadapt.core.params import Params
from voxadapt.core.records import read_record
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.finalists import finalists, second_opinion
from voxadapt.pipeline.speak_and_score import score_split
from voxadapt.pipeline.tracks import speaker_track
from voxadapt.scoring.rows import read_scores
from voxadapt.selection.confirm import confirm


@stage("confirm")
def run(params: Params) -> StageResult:
    """Compare the chosen candidate with the Base on the split that nothing has touched.

    Raises:
        UserError: When nothing has been chosen, or a checkpoint is gone.
    """
    track, context = speaker_track(params), open_context(params)
    decision = read_record(paths.SELECTION, "select")
    chosen = decision["chosen"]
    folders = {name: paths.CONFIRMATION / name for name in finalists(paths.CONFIRMATION, chosen)}
    rows = {}
    for name, folder in folders.items():
        score_split(track, context, name, "confirmation", folder)
        rows[name] = read_scores(folder, split="confirmation")
    record = confirm(
        rows["base"], rows[chosen], track.rule, scale=track.read_scale(), selection=decision
    )
    record["second_asr"] = second_opinion(track, context, rows, folders, chosen)
    write_json(paths.CONFIRM, record)
    return StageResult(record["sentence"], record)
