"""Clips of other voices, for the floor of speaker similarity."""

from pathlib import Path

from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.data.lines import json_objects, shown
from voxadapt.data.manifest import ManifestFiles

FIELDS = {"audio", "text", "speaker"}
SHAPE = '{"audio": "…", "speaker": "…"}'


def read_other_voices(path: str | Path) -> dict[str, list[Path]]:
    """Read a JSONL of other voices.

    Raises:
        UserError: With one problem for each row that cannot be used.
    """
    path = Path(path)
    fix = "Mend the row, or set data.other_voices: null."
    files = ManifestFiles(path.parent)
    voices: dict[str, list[Path]] = {}
    problems: list[Problem] = []
    try:
        for _, where, row in json_objects(path, SHAPE, problems):
            if not {"audio", "speaker"} <= set(row) <= FIELDS:
                found = shown(", ".join(map(str, row)) or "no key")
                problems.append(Problem(where, "audio, speaker and perhaps text", found, fix))
                continue
            if not isinstance(row["audio"], str) or not isinstance(row["speaker"], str):
                problems.append(Problem(where, "text in audio and speaker", shown(row), fix))
                continue
            audio = files.check(where, "audio", row["audio"], problems)
            if audio is not None:
                voices.setdefault(row["speaker"], []).append(audio.resolve())
    except OSError as error:
        found = f"nothing that can be read ({error.strerror or error})"
        where = f"data.other_voices: {path}"
        raise UserError.of(where, "a JSONL file of other voices", found, fix) from None
    raise_problems(problems, f"{path} cannot be used.")
    return voices
