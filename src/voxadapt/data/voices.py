"""Clips of other voices, for the floor of speaker similarity."""

from __future__ import annotations

import json
from pathlib import Path

from voxadapt.errors import Problem, UserError

FIELDS = {"audio", "text", "speaker"}


def read_other_voices(path: str | Path) -> dict[str, list[Path]]:
    """Read a JSONL of other voices.

    Args:
        path: Rows with `audio` and `speaker`, and perhaps `text`; paths are relative to the file
            and stay below its folder.

    Returns:
        Audio files by speaker, in file order.

    Raises:
        UserError: With one problem for each row that cannot be used.
    """
    path = Path(path)
    fix = "Mend the row, or set data.other_voices: null."
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        found = " ".join(str(error).split())
        raise UserError(
            Problem(f"data.other_voices: {path}", "a JSONL file of other voices", found, fix)
        ) from None
    folder = path.parent.resolve()
    voices: dict[str, list[Path]] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(Problem(where, "a JSON object", str(error)[:80], fix))
            continue
        if not isinstance(row, dict) or not {"audio", "speaker"} <= set(row) <= FIELDS:
            problems.append(Problem(where, "audio, speaker and perhaps text", line[:60], fix))
            continue
        if not isinstance(row["audio"], str) or not isinstance(row["speaker"], str):
            problems.append(Problem(where, "text in audio and speaker", line[:60], fix))
            continue
        audio = (folder / row["audio"]).resolve()
        if not audio.is_relative_to(folder) or not audio.is_file():
            expected = f"a file below {path.parent}"
            problems.append(Problem(where, expected, repr(row["audio"])[:80], fix))
            continue
        voices.setdefault(row["speaker"], []).append(audio)
    if problems:
        raise UserError(problems, f"{path} cannot be used.")
    return voices
