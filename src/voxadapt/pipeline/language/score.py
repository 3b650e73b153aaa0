"""Stage `language_score`: speak and score both languages' sentences with one candidate."""

from voxadapt.core import paths
from voxadapt.core.files import write_json
from voxadapt.core.lineage import MADE, SPEAKING_LANGUAGE, check_made, write_made
from voxadapt.core.params import Params
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.candidates import check_name, find_candidate
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.language.speak_and_score import languages_sentence, score_languages
from voxadapt.pipeline.tracks import language_track
from voxadapt.scoring.score_clips import metrics_row


@stage("language_score")
def run(params: Params, candidate: str | int) -> StageResult:
    """Speak held-out sentences of the language, and of the source language, with a candidate."""
    track = language_track(params)
    name = check_name(candidate, track.candidates)
    inputs = [track.corpus.made_by_audit, track.corpus.made_reference]
    check_made(inputs, params)
    folder, metrics = paths.LANGUAGE_SCORES / name, paths.LANGUAGE_SCORE_METRICS / f"{name}.json"
    found, context = find_candidate(track, name), open_context(params)
    summaries = score_languages(params, context, found, "selection", folder)
    write_json(metrics, metrics_row(summaries["target"], summaries["source"]))
    command, written = f"language score {name}", [folder, metrics]
    write_made(folder / MADE, command, written, inputs, params, SPEAKING_LANGUAGE)
    return StageResult(languages_sentence(params, name, summaries), summaries)
