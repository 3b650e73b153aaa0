"""What the stages wrote, read once for the report page."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxadapt import paths
from voxadapt.errors import Problem, UserError
from voxadapt.params import Params
from voxadapt.provenance import read_json, read_jsonl

Record = dict[str, Any]
PSEUDO = ("real", "codec")  # scored like candidates: recordings, and their codec round trip


@dataclass(frozen=True, slots=True)
class Records:
    """Everything that the report shows.

    Attributes:
        root: Project folder; paths in rows are found from here.
        audit: Figures of the corpus audit.
        clips: Every raw row with measurements and findings.
        codes: Figures of the codec round trip.
        train: Figures of the training run.
        train_log: Rows of the training log, numbers as floats (None where empty).
        scale: Similarity ceiling, codec ceiling and floor.
        selection: The decision on the selection split.
        confirm: Chosen candidate and Base on the confirmation split.
        summaries: Summary by candidate, pseudo-candidates included where they exist.
        rows: Score rows by candidate; `wav` is replaced by a path that can be opened.
    """

    root: Path
    audit: Record
    clips: list[Record]
    codes: Record
    train: Record
    train_log: list[dict[str, float | None]]
    scale: Record
    selection: Record
    confirm: Record
    summaries: dict[str, Record]
    rows: dict[str, list[Record]]


def load_records(params: Params, root: str | Path = ".") -> Records:
    """Read the files that the report needs.

    Args:
        params: Names the candidates.
        root: Project folder.

    Returns:
        The records.

    Raises:
        UserError: Naming every file that is missing or cannot be read, and the stage that
            writes it.
    """
    root = Path(root)
    problems: list[Problem] = []

    def read(path: Path, stage: str, reader: Any, default: Any) -> Any:
        try:
            return reader(root / path)
        except FileNotFoundError:
            found = "nothing"
        except (OSError, ValueError) as error:
            found = " ".join(str(error).split())[:120]
        problems.append(
            Problem(
                path.as_posix(), f"what `{stage}` writes", found, f"Run `voxadapt {stage}` first."
            )
        )
        return default

    summaries, rows = {}, {}
    for name in params.candidate_names:
        folder = paths.SCORES / name
        summaries[name] = read(folder / "summary.json", f"score {name}", read_json, {})
        rows[name] = read(folder / "rows.jsonl", f"score {name}", read_jsonl, [])
        rows[name] = with_wav_paths(rows[name], root / folder, root)
    for name in PSEUDO:
        folder = paths.REFERENCE / name
        rows[name] = read(folder / "rows.jsonl", "codes", read_jsonl, [])
        rows[name] = with_wav_paths(rows[name], root / folder, root)
        if (root / folder / "summary.json").is_file():
            summaries[name] = read(folder / "summary.json", "codes", read_json, {})
    records = Records(
        root=root,
        audit=read(paths.AUDIT_METRICS, "audit", read_json, {}),
        clips=read(paths.CLIPS, "audit", read_jsonl, []),
        codes=read(paths.CODES_METRICS, "codes", read_json, {}),
        train=read(paths.TRAIN_METRICS, "train", read_json, {}),
        train_log=read(paths.TRAIN_LOG, "train", read_log, []),
        scale=read(paths.REFERENCE / "similarity.json", "codes", read_json, {}),
        selection=read(paths.SELECTION, "select", read_json, {}),
        confirm=read(paths.CONFIRM, "confirm", read_json, {}),
        summaries=summaries,
        rows=rows,
    )
    if not problems:
        problems = _disagreements(params, records)
    if problems:
        raise UserError(problems, "The report cannot be written.")
    return records


def _disagreements(params: Params, records: Records) -> list[Problem]:
    """Find records of different runs: other candidates, or another epoch confirmed."""
    problems = []
    selected = [candidate["name"] for candidate in records.selection["candidates"]]
    if selected != list(params.candidate_names):
        problems.append(
            Problem(
                paths.SELECTION.as_posix(),
                f"the candidates of params.yaml: {', '.join(params.candidate_names)}",
                ", ".join(selected),
                "Run `voxadapt select` again.",
            )
        )
    if records.confirm["chosen"] != records.selection["chosen"]:
        problems.append(
            Problem(
                paths.CONFIRM.as_posix(),
                f"a confirmation of {records.selection['chosen']}, which is chosen",
                f"one of {records.confirm['chosen']}",
                "Run `voxadapt confirm` again.",
            )
        )
    return problems


def with_wav_paths(rows: list[Record], folder: Path, root: Path) -> list[Record]:
    """Make `wav` openable: relative to the rows' folder, or else to the project.

    Recordings of the pseudo-candidate `real` lie in the corpus, generated clips beside their rows.
    """
    return [
        {
            **row,
            "wav": str(
                folder / row["wav"] if (folder / row["wav"]).is_file() else root / row["wav"]
            ),
        }
        if row.get("wav")
        else row
        for row in rows
    ]


def read_log(path: str | Path) -> list[dict[str, float | None]]:
    """Read a CSV of numbers; an empty cell is None, a word is dropped."""
    with open(path, encoding="utf-8", newline="") as stream:
        return [{key: _number(cell) for key, cell in row.items()} for row in csv.DictReader(stream)]


def _number(cell: str | None) -> float | None:
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if json.dumps(value) not in ("NaN", "Infinity", "-Infinity") else None


def flatten(record: Record, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
