"""What the exploring notebooks read: a decision that was really made, of synthetic rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reporting.world import SCALE, TEXTS, write_rows
from voxadapt.core import paths
from voxadapt.core.files import write_json
from voxadapt.core.params import Params
from voxadapt.scoring.rows import read_scores
from voxadapt.selection.select import select


def write_choice(root: Path, params: Params) -> dict[str, Any]:
    """Write score rows, clips and the decision that the rule makes of them; return it."""
    rows = {}
    for name in params.candidates:
        write_rows(root, paths.SCORES / name, name, TEXTS, 3)
        rows[name] = read_scores(root / paths.SCORES / name)
    scale = {key: {"point": value} for key, value in SCALE.items()}
    record = select(rows, params.select, scale=scale)
    write_json(root / paths.SELECTION, record)
    return record
