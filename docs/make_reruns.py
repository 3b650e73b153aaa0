"""Write `docs/reruns.md`: which stages run again after an edit, as DVC itself says.

Run it after an edge of `dvc.yaml` changed: `python docs/make_reruns.py`. A scratch copy of the
pipeline is brought up to date with stand-ins for data and outputs (`dvc commit`), one comment
line is added in each folder of the package, and `dvc status` says which changed dependencies each
stage has. No stage runs.
Files of `pipeline` and keys of `params.yaml` are listed as `dvc.yaml` declares them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("reruns.md")
PACKAGE = "src/voxadapt"
HEAD = """\
# What runs again

Written by `python docs/make_reruns.py`, which asks `dvc status` in a scratch copy of the pipeline
after an edit in each folder; a test repeats it. *Runs again* are the stages whose own dependency
was touched. What hangs on their outputs follows only where an output differs: DVC compares
contents, so a comment in the code of `audit` runs `audit` and nothing else.

A stage depends on the folders that its module imports and on the keys that its code reads
(`tests/pipeline/test_closure.py` and `test_parameters.py` hold `dvc.yaml` to it, both ways). The
tables and figures that a notebook shows beside its results are no dependency: a new wording there
does not train anything again. `candidates` is the list of epochs: one more trains that epoch and
scores it alone.
"""


def scratch_pipeline(folder: Path) -> None:
    """Make an up-to-date copy of the pipeline with stand-ins for everything but code and text.

    Args:
        folder: An empty folder.
    """
    from dvc.repo import Repo

    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, folder / name)
    for name in ("src/voxadapt", "notebooks"):
        shutil.copytree(
            PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "starter")
        )
    Repo.init(str(folder), no_scm=True).close()
    with Repo(str(folder)) as repo:
        wanted = [item for stage in repo.index.stages for item in (*stage.deps, *stage.outs)]
        keys: dict[str, list[str]] = {}
        for stage in repo.index.stages:
            for dep in stage.deps:
                if getattr(dep, "params", None) and dep.def_path != "params.yaml":
                    keys.setdefault(dep.def_path, []).extend(dep.params)
        for item in sorted(wanted, key=lambda item: -len(item.fspath)):
            _stand_in(folder, Path(item.fspath), keys.get(item.def_path, []))
    with Repo(str(folder)) as repo:
        repo.commit(force=True)


def _stand_in(folder: Path, path: Path, keys: Sequence[str]) -> None:
    """Write a file, or a folder with one file, where there is nothing."""
    if path.exists() or not path.is_relative_to(folder):
        return
    if not path.suffix:
        path.mkdir(parents=True)
        path = path / "stand-in"
    path.parent.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {}
    for key in keys:
        *outer, last = key.split(".")
        inner = record
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = "stand-in"
    path.write_text(json.dumps(record) if keys else "stand-in", encoding="utf-8")


def changed_dependencies(folder: Path) -> dict[str, set[str]]:
    """Return for each stage with changed dependencies their paths, in the order of `dvc.yaml`.

    A stage that is run for each candidate is named once.
    """
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        status = repo.status()
    found: dict[str, set[str]] = {}
    for name, reasons in status.items():
        for reason in reasons:
            if isinstance(reason, dict) and "changed deps" in reason:
                stage = name.rpartition(":")[2].partition("@")[0]
                found.setdefault(stage, set()).update(reason["changed deps"])
    order = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: found[name] for name in order if name in found}


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key of a parameter tree that holds a value, with the value."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def edits_of_code(folder: Path) -> dict[str, list[str]]:
    """Add one comment line in each folder of the package; return which stages each made stale.

    DVC is asked once: it names the changed dependencies of each stage.
    """
    root = folder / PACKAGE
    places = sorted(path for path in root.iterdir() if path.is_dir() and path.name != "pipeline")
    edited = {
        place.name: file for place in places if (file := min(place.rglob("*.py"), default=None))
    }
    before = {file: file.read_bytes() for file in edited.values()}
    for file, content in before.items():
        file.write_bytes(content + b"# one comment line\n")
    changed = changed_dependencies(folder)
    for file, content in before.items():
        file.write_bytes(content)
    return {
        f"{name}/": [
            stage
            for stage, paths in changed.items()
            if any(file.is_relative_to(folder / path) for path in paths)
        ]
        for name, file in edited.items()
    }


def stages_by_file() -> dict[str, list[str]]:
    """Return for each file of `pipeline` the stages that declare it."""
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    root = PROJECT / PACKAGE
    files = sorted(p for p in (root / "pipeline").rglob("*.py") if p.name != "__init__.py")
    return {
        file.relative_to(root).as_posix(): [
            name
            for name, stage in stages.items()
            if file.relative_to(PROJECT).as_posix() in stage["deps"]
        ]
        for file in files
    }


def stages_by_key() -> dict[str, list[str]]:
    """Return for each key of `params.yaml` the stages that declare it, or a section around it."""
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    tree = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {key: [] for key, _ in leaves(tree)}
    for name, stage in stages.items():
        declared = [entry for entry in stage.get("params", []) if isinstance(entry, str)]
        for key, users in found.items():
            if any(key == entry or key.startswith(f"{entry}.") for entry in declared):
                users.append(name)
    return found


def page(folder: Path) -> str:
    """Return the whole page.

    Args:
        folder: Of `scratch_pipeline`, which is the working folder.
    """
    if before := changed_dependencies(folder):
        sys.exit(f"The scratch copy is not up to date: {', '.join(before)}")
    code, keys = edits_of_code(folder) | stages_by_file(), stages_by_key()
    lines = [HEAD, "## After an edit of code", "", "| touched | runs again |", "|---|---|"]
    lines += [f"| `{place}` | {_listed(stages)} |" for place, stages in code.items()]
    lines += ["", "## After a change in params.yaml", "", "| key | runs again |", "|---|---|"]
    for stages, names in _grouped(keys).items():
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {_listed(stages)} |")
    return "\n".join(lines) + "\n"


def _grouped(keys: Mapping[str, Sequence[str]]) -> dict[tuple[str, ...], list[str]]:
    """Put keys of one section that run the same stages on one line."""
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for key, stages in keys.items():
        rows.setdefault((key.rpartition(".")[0], tuple(stages)), []).append(key)
    grouped: dict[tuple[str, ...], list[str]] = {}
    for (_, stages), names in rows.items():
        grouped.setdefault(stages, []).extend(names)
    return grouped


def _listed(stages: Sequence[str]) -> str:
    return ", ".join(stages) if stages else "nothing"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name).resolve()
        with chdir(scratch):
            scratch_pipeline(scratch)
            text = page(scratch)
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
