"""Notebooks run, cleaned and filtered; and the end of a git merge."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from voxadapt.cli import options as opt


def run_notebook(
    name: Annotated[str, typer.Argument(help="Notebook name without .ipynb.")],
    candidate: Annotated[str | None, typer.Option(help="For the scoring notebook.")] = None,
    output: Annotated[Path | None, typer.Option(help="HTML file to write.")] = None,
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Run one notebook with papermill; write its HTML."""
    from voxadapt.core.paths import NOTEBOOK_HTML
    from voxadapt.tools import notebook
    from voxadapt.tools.notebook_watch import explain_kill
    from voxadapt.tools.timing import record_seconds

    selectors = {"params_file": str(params_file)} | ({"candidate": candidate} if candidate else {})
    stem = f"{name}_{candidate}" if candidate else name
    started = time.monotonic()
    try:
        with explain_kill(name.removesuffix(".ipynb")):
            page = notebook.run_notebook(name, selectors, output or NOTEBOOK_HTML / f"{stem}.html")
    except notebook.NotebookError as error:
        print(f"\n{error}", file=sys.stderr)
        raise typer.Exit(1) from None
    record_seconds(page, time.monotonic() - started)


def clean_notebooks(
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Clean the notebooks themselves, for a commit.")
    ] = False,
) -> None:
    """Write the clean copies on which stages depend."""
    from voxadapt.tools.notebook import CLEANED, EXPLORE, NOTEBOOKS, clean_all

    clean_all(NOTEBOOKS, NOTEBOOKS if in_place else CLEANED)
    if in_place:
        clean_all(EXPLORE, EXPLORE)


def filter_notebooks() -> None:
    """Have git leave notebook outputs out of commits."""
    from voxadapt.tools.lab import set_up_filter

    print(set_up_filter(Path()))


def merge_lock() -> None:
    """End a git merge that stopped at dvc.lock."""
    from voxadapt.tools.merge import merge_lock

    merged = merge_lock()
    again = ", ".join(merged.dropped) or "none"
    print(f"dvc.lock: {len(merged.entries)} stages are kept; both sides ran: {again}.")
    print("Resolve what else is in conflict (`git status`), commit, then: dvc checkout; dvc repro")
