"""The Base and the choice on sentences that chose nothing, by two recognisers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from voxadapt.asr.whisper import Transcriber
from voxadapt.core.files import write_atomic
from voxadapt.core.records import Record
from voxadapt.pipeline.candidates import BASE
from voxadapt.pipeline.context import ROOT, Context
from voxadapt.pipeline.tracks import Track
from voxadapt.scoring.rows import SECOND_FILE, ScoreRow, serialise_rows
from voxadapt.scoring.score_clips import retranscribe
from voxadapt.selection.second_opinion import second_opinion as compare


def finalists(confirmation: Path, chosen: str) -> list[str]:
    """Name who is confirmed, the Base and the choice; drop the scores of earlier choices."""
    wanted = list(dict.fromkeys([BASE, chosen]))
    for folder in confirmation.glob("*"):
        if folder.is_dir() and folder.name not in wanted:
            shutil.rmtree(folder)
    return wanted


def second_opinion(
    track: Track,
    context: Context,
    rows: Mapping[str, list[ScoreRow]],
    folders: Mapping[str, Path],
    chosen: str,
) -> Record | None:
    """Transcribe the finalists' clips with a second recogniser, if the parameters name one.

    Args:
        track: Whose candidates they are.
        context: Where it runs.
        rows: Rows of the Base and the chosen candidate by the first recogniser.
        folders: Where each candidate's scores lie; the second transcripts are written beside.
        chosen: The candidate that is kept.

    Returns:
        What `selection.second_opinion` says; None when `asr.second` is null.
    """
    if track.asr.second is None:
        for folder in folders.values():
            (folder / SECOND_FILE).unlink(missing_ok=True)
        return None
    transcriber = Transcriber.from_params(
        track.asr, str(context.device), context.work_dir, track.asr.second
    )
    heard = {
        name: retranscribe(found, transcriber, root=ROOT, executor=context.executor)
        for name, found in rows.items()
    }
    for name, found in heard.items():
        write_atomic(folders[name] / SECOND_FILE, serialise_rows(found))
    return compare(rows, heard, track.rule, chosen=chosen)
