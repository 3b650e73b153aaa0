"""Notebooks, the miniature, and running every stage at once."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from voxadapt.cli import options as opt


def run_all(params_file: opt.ParamsFile = opt.PARAMS) -> None:
    """Run every stage in order, without DVC."""
    from voxadapt.pipeline.run_all import run_all as run_stages

    for line in run_stages(opt.load(params_file)):
        print(line, flush=True)


def repro(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Stages, with what they need; default: all.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Default: 2 where models run on the CPU, else 1."),
    ] = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="Every stage imports the libraries for itself.")
    ] = False,
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Run `dvc repro`, several stages at a time."""
    from voxadapt.tools import repro as module

    on_cpu = module.on_cpu(params_file)
    preparation = module.PREPARATION if on_cpu and not cold else None
    outcome = module.repro(targets or (), jobs or (2 if on_cpu else 1), preparation=preparation)
    if outcome.failed:
        raise typer.Exit(1)


def run_notebook(
    name: Annotated[str, typer.Argument(help="Notebook name without .ipynb.")],
    candidate: Annotated[str | None, typer.Option(help="For the scoring notebook.")] = None,
    output: Annotated[Path | None, typer.Option(help="HTML file to write.")] = None,
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Run one notebook with papermill; write its HTML."""
    from voxadapt.core.paths import NOTEBOOK_HTML
    from voxadapt.tools import notebook
    from voxadapt.tools.timing import record_seconds

    selectors = {"params_file": str(params_file)}
    stem = name
    if candidate is not None:
        selectors["candidate"] = candidate
        stem = f"{name}_{candidate}"
    started = time.monotonic()
    try:
        page = notebook.run_notebook(name, selectors, output or NOTEBOOK_HTML / f"{stem}.html")
    except notebook.NotebookError as error:
        print(f"\n{error}", file=sys.stderr)
        raise typer.Exit(1) from None
    record_seconds(page, time.monotonic() - started, opt.load(params_file))


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


def build_miniature(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("data"),
    work: Annotated[Path, typer.Option(help="Folder for resumable state.")] = Path(
        ".work/miniature"
    ),
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train the miniature again: hours on a CPU.

    It needs espeak-ng and flite.
    """
    from voxadapt.miniature.build import build

    build(out, work, seed)
