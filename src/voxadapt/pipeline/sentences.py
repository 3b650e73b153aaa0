"""The sentences that candidates are scored on."""

from dataclasses import dataclass
from pathlib import Path

from voxadapt.core.params import AsrParams
from voxadapt.core.problems import user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.data.text import fold_text
from voxadapt.pipeline.guard_sets import guard_sentences
from voxadapt.pipeline.tracks import Track
from voxadapt.scoring.rows import Sentence, slice_of


@dataclass(frozen=True)
class SentenceSet:
    """Sentences of a language, with how they are asked for and transcribed."""

    sentences: list[Sentence]  # the same for all candidates
    asr: AsrParams  # Whisper, with the language that it is told to transcribe
    tag: str  # language that the model is asked for, or auto


def track_sentences(track: Track, split: str) -> list[Sentence]:
    """Return the sentences of a split: all of them, or as many as the parameters say, by hash.

    Sentences with digits are among them, in a slice that decides nothing where a language's number
    words are not known.

    Raises:
        UserError: When the split has no utterances, or only sentences with digits.
    """
    manifest = track.corpus.manifest
    rows = [row for row in track.accepted() if row.split == split]
    if not rows:
        raise user_error("pipeline.empty_split", manifest, split=split)
    # A text that was recorded twice, or by several speakers, is one sentence: it is said once.
    rows = sorted(rows, key=lambda row: row.id)
    rows = list({(fold_text(row.text), track.language_of(row)): row for row in rows}.values())
    rows = sorted(rows, key=lambda row: fingerprint([track.split.salt, row.id]))
    rows = rows[: track.score.max_sentences]
    found = [
        Sentence(text_id=row.id, text=row.text, split=split,
                 slice=slice_of(row.text, track.code_of(row)), tag=track.language_of(row),
                 lang=track.code_of(row) if track.language_of(row) else None)
        for row in sorted(rows, key=lambda row: row.id)
    ]  # fmt: skip
    if all(item.slice != "ranked" for item in found):
        raise user_error("pipeline.nothing_ranks", manifest, split=split, count=len(found))
    return found


def selection_sentences(track: Track) -> list[Sentence]:
    """Return what is spoken at selection: the corpus' sentences, and those of sets that guard."""
    corpus = track_sentences(track, "selection")
    folder = Path(track.data.manifest).parent
    guards = guard_sentences(track.score, track.asr.language, corpus, track.split.salt, folder)
    return sorted([*corpus, *guards], key=lambda item: item.text_id)
