"""Reading scores that are to decide: whole, and of the models that are there now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voxadapt.pipeline.candidates import Candidate
from voxadapt.pipeline.tracks import HELD_OUT, Track
from voxadapt.scoring.rows import ScoreRow, Sentence, read_scores


def read_selection_scores(
    folder: Path, candidate: Candidate, sentences: Sequence[Sentence], takes: int, command: str
) -> list[ScoreRow]:
    """Read a candidate's rows on the selection sentences.

    Args:
        folder: Of the scores.
        candidate: Who spoke; rows of other weights are stale.
        sentences: What must have been spoken.
        takes: How often, by all speakers together.
        command: Which `voxadapt` command scores it again.

    Raises:
        UserError: When rows are missing, extra, double or stale.
    """
    return read_scores(
        folder,
        [(item.text_id, take) for item in sentences for take in range(takes)],
        texts={item.text_id: item.text for item in sentences},
        split="selection",
        checkpoint_sha=candidate.sha,
        fix=f"Run `voxadapt {command}` again.",
    )


def read_recordings(track: Track, name: str) -> list[ScoreRow]:
    """Read the rows of the held-out recordings (`real`), or of their codec round trip (`codec`).

    Raises:
        UserError: When a held-out clip has no row, or a row no clip.
    """
    expected = [(row.id, 0) for row in track.accepted() if row.split in HELD_OUT]
    return read_scores(track.corpus.reference / name, expected)
