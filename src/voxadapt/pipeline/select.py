"""Stage `select`: choose the epoch by the rule in the parameters, or keep the Base."""

from voxadapt.core import paths
from voxadapt.core.files import write_json
from voxadapt.core.lineage import MADE, check_made, sealed
from voxadapt.core.params import Params, epoch_number
from voxadapt.core.records import Record
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.candidates import find_candidate, kept_speakers
from voxadapt.pipeline.plot_table import interval_columns, write_plot_table
from voxadapt.pipeline.sentences import selection_sentences
from voxadapt.pipeline.stored_scores import choose, read_selection_scores, set_aside_unlisted
from voxadapt.pipeline.tracks import speaker_track


@stage("select")
def run(params: Params) -> StageResult:
    """Choose the epoch by the rule in `params.select`, or keep the Base."""
    track = speaker_track(params)
    set_aside_unlisted(track.candidates, paths.SCORES, paths.SCORE_METRICS)
    inputs = [
        track.corpus.made_by_audit,
        track.corpus.made_reference,
        paths.MADE_BY_TRAIN,
        *(paths.SCORES / name / MADE for name in track.candidates),
    ]
    check_made(inputs, params)
    sentences, speakers = selection_sentences(track), track.speakers()
    takes = track.score.takes * len(speakers)
    scores = {
        name: read_selection_scores(
            paths.SCORES / name, find_candidate(track, name), sentences, takes, f"score {name}"
        )
        for name in track.candidates
    }
    decision = choose(track, scores, kept=kept_speakers(track.model, speakers))
    rows = [_epoch_row(item, decision["chosen"]) for item in decision["candidates"]]
    write_plot_table(paths.EPOCHS_TABLE, rows)
    keys = ("select", "measurable")
    decision = sealed(decision, "select", [paths.EPOCHS_TABLE], inputs, params, keys)
    write_json(paths.SELECTION, decision)
    return StageResult(decision["reason"], decision)


def _epoch_row(item: Record, chosen: str) -> Record:
    """Return a candidate's row of the per-epoch table."""
    return {
        "candidate": item["name"],
        "epoch": epoch_number(item["name"]),
        **{k: v for m in ("wer", "cer", "sim") for k, v in interval_columns(m, item[m]).items()},
        "duration_ratio": item["duration_ratio"]["point"],
        "failure_rate": item["failure_rate"]["point"],
        "p_best": item["p_best"],
        "eligible": int(item["eligible"]),
        "chosen": int(item["name"] == chosen),
    }
