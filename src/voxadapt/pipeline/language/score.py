"""Stage `language_score`: speak and score both languages' sentences with one candidate."""

from __future__ import annotations

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
    summaries = score_languages(
        params,
        open_context(params),
        find_candidate(track, name),
        "selection",
        paths.LANGUAGE_SCORES / name,
    )
    metrics = metrics_row(summaries["target"], summaries["source"])
    write_json(paths.LANGUAGE_SCORE_METRICS / f"{name}.json", metrics)
    write_made(
        paths.LANGUAGE_SCORES / name / MADE,
        f"language score {name}",
        [paths.LANGUAGE_SCORES / name, paths.LANGUAGE_SCORE_METRICS / f"{name}.json"],
        inputs,
        params,
        SPEAKING_LANGUAGE,
    )
    return StageResult(languages_sentence(params, name, summaries), summaries)
