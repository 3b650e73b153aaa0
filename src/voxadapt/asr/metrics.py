"""Word and character errors of a clip, as counts that corpus errors are summed from.

Three numbers are kept apart by name. The *capped corpus error* ranks: edits of a clip count at
most its reference length, so that one runaway cannot outweigh the rest. The *raw corpus error* is
the usual WER or CER. The *mean of clips* weighs short and long sentences alike.
"""

from dataclasses import dataclass

import jiwer

from voxadapt.asr.letters import units
from voxadapt.asr.normalise import characters


@dataclass(frozen=True, slots=True)
class EditCounts:
    """Edit operations that turn a reference into a transcript."""

    hits: int  # units in common
    substitutions: int  # units replaced
    deletions: int  # units of the reference that are missing
    insertions: int  # units that the reference lacks

    @property
    def reference_units(self) -> int:
        """Words or characters of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def edits(self) -> int:
        """Edit distance, without a cap."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def capped_edits(self) -> int:
        """Edits, at most the reference length."""
        return min(self.edits, self.reference_units)


def word_counts(reference: str, hypothesis: str) -> EditCounts:
    """Count word edits between two normalised texts; an unspaced script's characters are words.

    In a sentence of both kinds of script this is the mixed error rate.
    """
    _refuse_empty(reference)
    expected, heard = units(reference), units(hypothesis)
    if not heard:
        return EditCounts(0, 0, len(expected), 0)
    return _counts(jiwer.process_words(" ".join(expected), " ".join(heard)))


def char_counts(reference: str, hypothesis: str) -> EditCounts:
    """Count character edits between two normalised texts, spaces left out."""
    _refuse_empty(reference)
    reference, hypothesis = characters(reference), characters(hypothesis)
    if not hypothesis:
        return EditCounts(0, 0, len(reference), 0)
    return _counts(jiwer.process_characters(reference, hypothesis))


def _refuse_empty(reference: str) -> None:
    if not reference.strip():
        raise ValueError("an empty reference has no error rate; give a text with letters or digits")


def _counts(output: jiwer.WordOutput | jiwer.CharacterOutput) -> EditCounts:
    return EditCounts(output.hits, output.substitutions, output.deletions, output.insertions)
