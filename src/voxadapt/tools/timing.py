"""How long stages take: what they took on this machine the last time, scaled to today's work.

A run leaves a note in the folder of resumable state; no stage reads it, and nothing tracks it.
Nothing is measured for a prediction: what has not run here yet has none.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import write_json
from voxadapt.core.params import Params
from voxadapt.core.provenance import git_commit, versions

#: What the time of a stage is proportional to.
_GROWS_WITH = {
    "audit": ("clips",),
    "codes": ("clips",),
    "train": ("clips", "epochs"),
    "score": ("clips", "takes"),
    "confirm": ("clips", "takes"),
    "language_data": ("language_clips",),
    "language_readings": ("language_texts",),
    "language_stage1": ("language_texts", "language_epochs"),
    "language_score": ("language_clips", "takes"),
    "language_stage2": ("language_clips", "stage2_epochs"),
    "language_stage2_score": ("language_clips", "takes", "stage2_epochs"),
    "language_confirm": ("language_clips", "takes"),
}


def work(params: Params) -> dict[str, int]:
    """Count what the time of the stages grows with."""
    found = {
        "clips": _lines(params.data.manifest),
        "epochs": params.num_epochs,
        "takes": params.score.takes,
    }
    if params.language is not None:
        found |= {
            "language_clips": _lines(params.language.audio),
            "language_texts": _lines(params.language.text),
            "language_epochs": params.language.num_epochs,
            "stage2_epochs": params.language.stage2.num_epochs,
        }
    return found


def _lines(path: str) -> int:
    try:
        with open(path, "rb") as stream:
            return sum(bool(line.strip()) for line in stream)
    except OSError:
        return 0


def record_seconds(page: str | Path, seconds: float, params: Params | None = None) -> None:
    """Note what a stage took and what with, under the name of the page that it wrote.

    A stage that is done does not fail for its note.
    """
    note = {
        "seconds": round(seconds, 1),
        "work": {} if params is None else work(params),
        "code": git_commit(),
        "versions": versions(),
    }
    file = _note(page)
    try:
        write_json(file, note)
    except (OSError, UserError) as error:
        why = error.problems[0].found if isinstance(error, UserError) else error
        print(f"The stage is done; what it took is not noted in {file}: {why}.", file=sys.stderr)


def expected_seconds(
    stage: str, pages: Mapping[str, str], today: Mapping[str, int] | None = None
) -> tuple[float | None, str]:
    """Predict a stage from the note of its last run, or else of another candidate's.

    Args:
        stage: As DVC names it.
        pages: Page that each stage writes; a stage without one runs no notebook and takes none.
        today: From `work`; None does not scale.

    Returns:
        Seconds, and what they are from: `last time`, or the name of the other stage. None where
        nothing was noted.
    """
    if stage not in pages:
        return 0.0, "last time"
    family = stage.partition("@")[0]
    for other in (stage, *(name for name in pages if name.partition("@")[0] == family)):
        note = _read_note(pages[other])
        if note is not None:
            seconds, then = note
            source = "last time" if other == stage else other
            return seconds * _growth(family, then, today or {}), source
    return None, ""


def _growth(family: str, then: Mapping[str, int], today: Mapping[str, int]) -> float:
    names = _GROWS_WITH.get(family, ())
    if not all(then.get(name) and today.get(name) for name in names):
        return 1.0
    return math.prod(today[name] / then[name] for name in names)


def _note(page: str | Path) -> Path:
    return paths.work_dir() / "seconds" / f"{Path(page).stem}.json"


def _read_note(page: str) -> tuple[float, Mapping[str, int]] | None:
    """Return seconds and work of a note; None where there is none, or a torn one."""
    try:
        note = json.loads(_note(page).read_text(encoding="utf-8"))
        return float(note["seconds"]), {k: int(v) for k, v in note.get("work", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
