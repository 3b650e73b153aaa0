"""Clips of other voices, for the floor of speaker similarity."""

from pathlib import Path

from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.problems import problem
from voxadapt.data.lines import json_objects, shown
from voxadapt.data.manifest import ManifestFiles

FIELDS = {"audio", "text", "speaker"}
SHAPE = '{"audio": "…", "speaker": "…"}'


def read_other_voices(path: str | Path) -> dict[str, list[Path]]:
    """Read a JSONL of other voices; raises `UserError` with a problem for each wrong row."""
    path = Path(path)
    files = ManifestFiles(path.parent)
    voices: dict[str, list[Path]] = {}
    problems: list[Problem] = []
    fix = "Check the path, or set data.other_voices: null."
    for _, where, row in json_objects(path, SHAPE, problems, fix=fix):
        if not {"audio", "speaker"} <= set(row) <= FIELDS:
            found = shown(", ".join(map(str, row)) or "no key")
            problems.append(problem("data.voice_keys", where, found=found))
        elif not isinstance(row["audio"], str) or not isinstance(row["speaker"], str):
            problems.append(problem("data.voice_strings", where, found=shown(row)))
        elif (audio := files.check(where, "audio", row["audio"], problems)) is not None:
            voices.setdefault(row["speaker"], []).append(audio.resolve())
    raise_problems(problems, f"{path} cannot be used.")
    return voices
