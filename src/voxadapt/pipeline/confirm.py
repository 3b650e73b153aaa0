"""Stage `confirm`: compare the choice with the Base on the split that no decision has seen."""

from voxadapt.core import paths
from voxadapt.core.files import write_json
from voxadapt.core.lineage import MADE, SPEAKING, check_made, sealed
from voxadapt.core.params import Params
from voxadapt.core.records import read_record
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.candidates import BASE, check_weights, find_candidate
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.finalists import confirm_choice, finalists
from voxadapt.pipeline.speak_and_score import score_split
from voxadapt.pipeline.tracks import speaker_track
from voxadapt.scoring.rows import read_scores


@stage("confirm")
def run(params: Params) -> StageResult:
    """Compare the chosen candidate with the Base on the split that nothing has touched."""
    track = speaker_track(params)
    check_made([paths.SELECTION], params)
    decision = read_record(paths.SELECTION, "select")
    chosen = decision["chosen"]
    names = dict.fromkeys([BASE, chosen])
    inputs = [paths.SELECTION, track.corpus.made_by_audit, track.corpus.made_reference]
    inputs += [paths.SCORES / name / MADE for name in names]
    check_made(inputs, params)
    for name in names:
        candidate = find_candidate(track, name)
        check_weights(candidate)
        fix = f"Restore the model, or run `voxadapt score {name}` and `voxadapt select` again."
        read_scores(paths.SCORES / name, checkpoint_sha=candidate.sha, fix=fix)
    context = open_context(params)
    folders = {name: paths.CONFIRMATION / name for name in finalists(paths.CONFIRMATION, chosen)}
    for name, folder in folders.items():
        score_split(track, context, name, "confirmation", folder)
    record = confirm_choice(track, context, decision, folders, params.usable)
    keys = (*SPEAKING, "asr.second", "usable")
    record = sealed(record, "confirm", [paths.CONFIRMATION], inputs, params, keys)
    write_json(paths.CONFIRM, record)
    said = [record["sentence"], record["usable"]["sentence"]]
    return StageResult(" ".join(filter(None, said)), record)
