"""The Base and the choice on sentences that chose nothing, by two recognisers."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from voxadapt.asr.whisper import Transcriber
from voxadapt.core.files import write_atomic
from voxadapt.core.params import UsableParams
from voxadapt.core.records import Record
from voxadapt.pipeline.candidates import BASE
from voxadapt.pipeline.context import ROOT, Context
from voxadapt.pipeline.stored_scores import read_recordings
from voxadapt.pipeline.tracks import Track
from voxadapt.scoring.rows import SECOND_FILE, ScoreRow, read_scores, serialise_rows
from voxadapt.scoring.score_clips import retranscribe
from voxadapt.selection.confirm import confirm
from voxadapt.selection.second_opinion import second_opinion
from voxadapt.selection.usable import unconfirmed, usable


def finalists(confirmation: Path, chosen: str) -> list[str]:
    """Name who is confirmed, the Base and the choice; drop the scores of earlier choices."""
    wanted = list(dict.fromkeys([BASE, chosen]))
    for folder in confirmation.glob("*"):
        if folder.is_dir() and folder.name not in wanted:
            shutil.rmtree(folder)
    return wanted


def confirm_choice(
    track: Track,
    context: Context,
    decision: Record,
    folders: Mapping[str, Path],
    limits: UsableParams,
) -> Record:
    """Compare the choice with the Base on rows that chose nothing; say whether it is good enough.

    Each finalist's scores of the confirmation split lie in one of `folders`.
    """
    rows = {name: read_scores(folder, split="confirmation") for name, folder in folders.items()}
    chosen, can, scale = rows[decision["chosen"]], decision["measurable"], track.read_scale()
    record = confirm(rows[BASE], chosen, track.rule, scale=scale, selection=decision)
    record = unconfirmed(record, can)
    codec = read_recordings(track, "codec")
    record["usable"] = usable(chosen, codec, scale, can, track.rule, limits)
    record["second_asr"] = hear_again(track, context, rows, folders, decision["chosen"])
    return record


def hear_again(
    track: Track,
    context: Context,
    rows: Mapping[str, list[ScoreRow]],
    folders: Mapping[str, Path],
    chosen: str,
) -> Record | None:
    """Transcribe the finalists' clips with a second recogniser, if the parameters name one."""
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
    return second_opinion(rows, heard, track.rule, chosen=chosen)
