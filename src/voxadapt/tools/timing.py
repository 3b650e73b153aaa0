"""How long stages take: what they took on this machine the last time.

A run leaves a note in the folder of resumable state; no stage reads it, and nothing tracks it.
Nothing is measured for a prediction: what has not run here yet has none.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import write_json
from voxadapt.core.provenance import git_commit, versions

LAST_TIME = "last time"


def record_seconds(page: str | Path, seconds: float) -> None:
    """Note what a stage took, under the name of the page that it wrote; it does not fail for it."""
    note = {"seconds": round(seconds, 1), **_memory(), "code": git_commit(), "versions": versions()}
    file = _note(page)
    try:
        write_json(file, note)
    except (OSError, UserError) as error:
        why = error.problems[0].found if isinstance(error, UserError) else error
        print(f"The stage is done; what it took is not noted in {file}: {why}.", file=sys.stderr)


def _memory() -> dict[str, object]:
    """Return the device and the most memory that this process or a worker of it has held."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        peak, device = torch.cuda.max_memory_allocated(), torch.cuda.get_device_name()
    else:
        try:
            import resource
        except ImportError:  # on Windows
            return {}
        asked = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        unit = 1 if sys.platform == "darwin" else 1024
        peak, device = unit * max(resource.getrusage(who).ru_maxrss for who in asked), "cpu"
    return {"device": device, "peak_memory_gib": round(peak / 2**30, 2)}


def expected_seconds(stage: str, pages: Mapping[str, str]) -> tuple[float | None, str]:
    """Predict a stage from the note of its last run, or else of another candidate's.

    Returns the seconds, None where nothing was noted, and what they are from: `last time`, or the
    name of the other stage. A stage that writes no page runs no notebook and takes none.
    """
    if stage not in pages:
        return 0.0, LAST_TIME
    family = stage.partition("@")[0]
    for other in (stage, *(name for name in pages if name.partition("@")[0] == family)):
        try:
            seconds = float(json.loads(_note(pages[other]).read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError, TypeError):  # none, or a torn one
            continue
        return seconds, LAST_TIME if other == stage else other
    return None, ""


def _note(page: str | Path) -> Path:
    return paths.seconds_dir() / f"{Path(page).stem}.json"
