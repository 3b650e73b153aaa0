"""Scoring a language's candidates: the same loaded model speaks both languages."""

from pathlib import Path

from voxadapt.core.params import Params, language_section
from voxadapt.core.records import Record
from voxadapt.pipeline.candidates import Candidate
from voxadapt.pipeline.context import Context
from voxadapt.pipeline.language.sentences import SOURCE, TARGET, source_sentences, target_sentences
from voxadapt.pipeline.speak_and_score import speak_and_score
from voxadapt.pipeline.speaking import load_speaking
from voxadapt.pipeline.tracks import language_track
from voxadapt.scoring.wording import percent, score_sentence


def score_languages(
    params: Params,
    context: Context,
    candidate: Candidate,
    split: str,
    folder: Path,
    *,
    with_source: bool = True,
) -> dict[str, Record]:
    """Speak and measure a candidate in the language, and in the source language; sum both up.

    The folder receives a folder of scores for each language.
    """
    track = language_track(params)
    speaking = list(load_speaking(track, candidate, track.speakers(), context))
    sets = {TARGET: target_sentences(params, split, candidate.name)}
    if with_source:
        sets[SOURCE] = source_sentences(params, split)
    return {
        part: speak_and_score(track, context, candidate, speaking, sentences, folder / part)
        for part, sentences in sets.items()
    }


def languages_sentence(params: Params, name: str, summaries: dict[str, Record]) -> str:
    """Sum up a candidate's scores in both languages."""
    language = language_section(params)
    said = score_sentence(f"{name} in {language.name}", summaries[TARGET])
    return f"{said} {language.source.language}: CER {percent(summaries[SOURCE]['cer'])}."
