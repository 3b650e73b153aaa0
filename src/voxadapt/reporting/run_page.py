"""What changed since the last run, and what this one cost: beside the report, not in it.

The report is the same wherever it is made, so that a clone of the repository makes it again bit
for bit. This page is of one machine and one moment, and is neither committed nor an output.
"""

import csv
import io
from pathlib import Path

import yaml

from voxadapt.core import paths
from voxadapt.core.files import read_json, write_atomic
from voxadapt.core.params import Params
from voxadapt.core.provenance import git
from voxadapt.core.records import Record, flatten
from voxadapt.reporting import components

MAX_COMMITS = 50  # looked through for an earlier table


def write_run_page(
    params: Params, path: Path, root: str | Path = ".", language: bool = False
) -> None:
    """Write the page of a speaker's run, or of a language's."""
    root = Path(root)
    table = paths.LANGUAGE_EPOCHS_TABLE if language else paths.EPOCHS_TABLE
    template = components.environment().get_template("run.html.j2")
    page = template.render(
        params=params, since=_since(root, table), stages=_stages(root, language), language=language
    )
    write_atomic(path, page)


def _since(root: Path, table: Path) -> Record | None:
    """Compare the table of epochs and `params.yaml` with the last commit that had another table."""
    now, params, data = (
        path.read_text(encoding="utf-8") if path.is_file() else ""
        for path in (root / table, root / "params.yaml", root / "data.dvc")
    )
    asked = ("log", f"-{MAX_COMMITS}", "--format=%h %cs %s", "--", table.as_posix())
    log = git(*asked, root=root)
    for line in log.splitlines():
        commit = line.partition(" ")[0]
        before = git("show", f"{commit}:./{table.as_posix()}", root=root)
        if before and now and before != now:
            old, new = (_rows(text) for text in (before, now))
            then = _flat(git("show", f"{commit}:./params.yaml", root=root))
            today = _flat(params)
            return {
                "commit": line,
                "other_data": data != git("show", f"{commit}:./data.dvc", root=root),
                "rows": [
                    {"name": name, "now": new.get(name, {}), "before": old.get(name, {})}
                    for name in dict.fromkeys([*new, *old])
                ],
                "params": [
                    (key, then.get(key, "–"), today.get(key, "–"))
                    for key in sorted({*then, *today})
                    if then.get(key, "–") != today.get(key, "–")
                ],
            }
    return None


def _rows(table: str) -> dict[str, dict[str, float | str | None]]:
    """Read a table of epochs by candidate."""
    return {
        row["candidate"]: {
            "chosen": row.get("chosen"),
            **{key: float(row[key]) if row.get(key) else None for key in ("wer", "cer", "sim")},
        }
        for row in csv.DictReader(io.StringIO(table))
    }


def _flat(text: str) -> Record:
    """Read parameters with dotted names, lists as words."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in flatten(found if isinstance(found, dict) else {}).items()
    }


def _stages(root: Path, language: bool) -> list[Record]:
    """Return what each stage's last run took on this machine, in their order."""
    found = []
    for file in sorted((root / paths.seconds_dir()).glob("*.json")):
        number = int(file.stem[:2]) if file.stem[:2].isdigit() else 0
        try:
            note = read_json(file)
            took = {"name": file.stem[3:].strip("_").replace("_", " "), **note,
                    "seconds": float(note["seconds"])}  # fmt: skip
        except (OSError, ValueError, TypeError, KeyError):
            continue  # a torn note is none
        if (number >= 8) == language:
            found.append(took)
    return found
