"""What a language's candidates are scored on: its own sentences, and the source language's."""

from voxadapt.core.params import Params, language_section
from voxadapt.pipeline.candidates import BASE
from voxadapt.pipeline.language.texts import source_lines
from voxadapt.pipeline.sentences import SentenceSet, selection_sentences, track_sentences
from voxadapt.pipeline.tracks import language_track
from voxadapt.scoring.rows import Sentence, slice_of

TARGET, SOURCE = "target", "source"


def target_sentences(params: Params, split: str, name: str = BASE) -> SentenceSet:
    """Return the held-out sentences of a split; the Base, which lacks the tag, gets auto."""
    track = language_track(params)
    tag = "auto" if name == BASE else track.tag
    spoken = selection_sentences(track) if split == "selection" else track_sentences(track, split)
    return SentenceSet(spoken, track.asr, tag)


def source_sentences(params: Params, split: str) -> SentenceSet:
    """Return the sentences of the source language that are never learnt."""
    source = language_section(params).source
    sentences = []
    for line in source_lines(params)[0]:
        kind = slice_of(line.text, source.asr_language)
        sentences.append(Sentence(text_id=line.id, text=line.text, split=split, slice=kind))
    asr = params.asr.model_copy(update={"language": source.asr_language})
    return SentenceSet(sorted(sentences, key=lambda item: item.text_id), asr, source.language)
