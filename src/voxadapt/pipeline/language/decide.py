"""Stage `language_decide`: choose the epoch of Stage 1; decide whether Stage 2 is run."""

from voxadapt.core import paths
from voxadapt.core.files import write_json
from voxadapt.core.lineage import MADE, check_made, sealed
from voxadapt.core.params import Params, language_section
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.candidates import find_candidate
from voxadapt.pipeline.language.choosing import read_language_scores
from voxadapt.pipeline.stored_scores import read_recordings, set_aside_unlisted
from voxadapt.pipeline.tracks import language_track
from voxadapt.selection.stage2 import decide_stage2


@stage("language_decide")
def run(params: Params) -> StageResult:
    """Choose the epoch of Stage 1 and decide about Stage 2 by the rules in the parameters."""
    track, language = language_track(params), language_section(params)
    set_aside_unlisted(track.candidates, paths.LANGUAGE_SCORES, paths.LANGUAGE_SCORE_METRICS)
    inputs = [
        track.corpus.made_by_audit,
        track.corpus.made_reference,
        paths.MADE_BY_STAGE1,
        *(paths.LANGUAGE_SCORES / name / MADE for name in track.candidates),
    ]
    check_made(inputs, params)
    scores = read_language_scores(
        params,
        {paths.LANGUAGE_SCORES / name: find_candidate(track, name) for name in track.candidates},
    )
    choice = scores.choose("language.candidates", "adapt it")
    chosen = choice["chosen"]
    choice["forgetting"] = scores.forgotten(chosen)
    keys = ("language.select", "measurable")
    choice = sealed(choice, "language decide", (), inputs, params, keys)
    write_json(paths.LANGUAGE_CHOICE1, choice)
    codec = read_recordings(track, "codec")
    decision = decide_stage2(
        scores.target[chosen], codec, language.stage2, track.rule, choice["measurable"]
    )
    asked = ("language.stage2.mode", "language.stage2.max_gap", "language.stage2.if_undecided")
    made_from = [paths.LANGUAGE_CHOICE1]
    decision = sealed(decision, "language decide", (), made_from, params, asked)
    write_json(paths.LANGUAGE_DECISION, decision)
    return StageResult(f"{choice['reason']} {decision['reason']}", decision)
