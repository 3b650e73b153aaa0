"""The form in which notebooks are committed: sources and tags, nothing that a run leaves behind.

As a program, git's filter for `notebooks/`: it copies a notebook from the standard input to the
standard output in that form, and anything else as it is. Git and DVC start it once for every
notebook that they look into, so nothing but the standard library is imported.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


def clean_content(nb: Mapping[str, Any]) -> str:
    """Return a notebook's text without anything that running or saving it changes.

    Outputs, counts, ids and metadata go; sources, cell types and tags stay, and the kernelspec
    becomes the plain Python one, without which papermill cannot inject parameters. Blank cells
    are dropped.
    """
    cells: list[dict[str, Any]] = []
    for cell in nb["cells"]:
        source = source_of(cell).rstrip()
        if not source:
            continue
        tags = cell.get("metadata", {}).get("tags", [])
        clean: dict[str, Any] = {
            "cell_type": cell["cell_type"],
            "id": f"c{len(cells)}",
            "metadata": {"tags": tags} if tags else {},
            "source": source.splitlines(keepends=True),
        }
        if cell["cell_type"] == "code":
            clean |= {"execution_count": None, "outputs": []}
        cells.append(clean)
    return dump({"cells": cells, "metadata": {"kernelspec": KERNELSPEC}})


def source_of(cell: Mapping[str, Any]) -> str:
    """Return a cell's source, which files hold as text or as lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def dump(nb: Mapping[str, Any]) -> str:
    """Write a notebook as Jupyter does, with sorted keys."""
    nb = {**nb, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(nb, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def filtered(given: bytes) -> bytes:
    """Return the clean form of a notebook's file, and anything else as it is."""
    try:
        nb = json.loads(given)
        is_notebook = nb["nbformat"] == 4 and isinstance(nb["cells"], list)
    except (ValueError, KeyError, TypeError):
        is_notebook = False
    return clean_content(nb).encode() if is_notebook else given


if __name__ == "__main__":
    sys.stdout.buffer.write(filtered(sys.stdin.buffer.read()))
