"""What a stage's code imports, read from the sources: no module is run.

The unit is a folder of the package, because a folder is what a stage can go stale for; in
`pipeline`, where each stage has a module of its own, it is the file.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
SOURCE = PROJECT / "src"
PACKAGE = "voxadapt"
BY_FILE = "pipeline"
STAGES: dict[str, dict[str, Any]] = yaml.load(
    (PROJECT / "dvc.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader
)["stages"]


def module_file(name: str) -> Path | None:
    """Return the file of a module of the package, or None where there is no such module."""
    path = SOURCE.joinpath(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def imports_of(name: str) -> frozenset[str]:
    """Return the package's modules that a module imports, inside functions too.

    Importing `a.b.c` runs `a` and `a.b` as well. What stands under `if TYPE_CHECKING:` is not
    imported when the module runs.
    """
    file = module_file(name)
    assert file is not None, name
    found: set[str] = set()
    for node in _running(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith(PACKAGE)}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            assert node.module is not None
            found.add(node.module)
            named = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {full for full in named if module_file(full) is not None}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A module named in a string, as for `import_module`.
            if re.fullmatch(rf"{PACKAGE}(\.\w+)+", node.value) and module_file(node.value):
                found.add(node.value)
    parents = {part for full in found for part in _parents(full)}
    return frozenset(found | parents)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _running(node)


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:n]) for n in range(1, len(parts)))


def closure(*names: str) -> frozenset[str]:
    """Return the modules that are imported, directly or not, by modules of the package."""
    seen: set[str] = set()
    open_ = list(names)
    while open_:
        name = open_.pop()
        if name not in seen:
            seen.add(name)
            open_ += imports_of(name)
    return frozenset(seen)


def unit_of(path: str) -> str | None:
    """Return the unit that a file belongs to, as `dvc.yaml` would name it.

    The package's own `__init__` and those of `pipeline` hold a docstring and belong to nobody.
    """
    inside = PurePosixPath(path).relative_to(f"src/{PACKAGE}")
    if inside.parts[0] == BY_FILE:
        return None if inside.name == "__init__.py" else path
    return None if len(inside.parts) == 1 else f"src/{PACKAGE}/{inside.parts[0]}"


def units(modules: frozenset[str]) -> set[str]:
    """Return the units of modules."""
    files = (module_file(name) for name in modules)
    paths = (file.relative_to(PROJECT).as_posix() for file in files if file is not None)
    return {unit for path in paths if (unit := unit_of(path)) is not None}


def notebook_of(stage: Mapping[str, Any]) -> str | None:
    """Return the name of the notebook that a stage runs."""
    match = re.search(r"notebook run (\S+)", stage["cmd"])
    return match[1] if match else None


def stage_modules(notebook: str) -> set[str]:
    """Return the modules of `pipeline` that a notebook calls.

    What else it imports draws the tables and figures of its own page, a leaf that no stage
    reads: a new wording there must not train anything again.
    """
    text = (PROJECT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8")
    found = set()
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code":
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    full = {f"{node.module}.{alias.name}" for alias in node.names}
                    found |= {name for name in {node.module, *full} if module_file(name)}
    return {name for name in found if name.startswith(f"{PACKAGE}.{BY_FILE}.")
            and not module_file(name).name == "__init__.py"}  # fmt: skip


#: Stages that run a notebook: all but the one that cleans them.
NOTEBOOKS: dict[str, str] = {
    name: notebook for name, stage in STAGES.items() if (notebook := notebook_of(stage))
}
