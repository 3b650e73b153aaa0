"""The pipeline, several stages at a time: `dvc repro` runs one after the other.

DVC keeps every decision: which stages there are, what has changed, what is recorded. Here its
graph is read once, and each stage whose predecessors are done is given to a `dvc repro
--single-item` of its own, first the one with the longest chain of stages behind it. DVC's locks
keep those processes from writing over each other. Where models run on the CPU, their processes
start warm (`voxadapt.tools.warm`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.errors import UserError
from voxadapt.core.params import load_params
from voxadapt.core.progress import format_duration
from voxadapt.tools.dvc_state import read_pipeline
from voxadapt.tools.notebook import import_papermill
from voxadapt.tools.warm import offer

LIBRARIES = (
    "torch", "transformers", "accelerate", "safetensors.torch", "numpy", "scipy.signal",
    "scipy.ndimage", "scipy.stats", "pandas", "soundfile", "librosa.core.audio",
    "librosa.core.spectrum", "librosa.effects", "librosa.feature.spectral", "librosa.filters",
    "whisper", "jiwer", "matplotlib.figure", "matplotlib.backends.backend_agg",
    "jinja2", "pydantic", "yaml", "typer", "IPython", "ipykernel.kernelapp", "ipykernel.zmqshell",
    "nbconvert", "nbformat", "dvc.cli", "dvc.commands.repro", "dvc.repo.reproduce",
    "dvc.stage.run",
)  # fmt: skip
"""What stages, notebook runners, kernels and DVC import."""

STOP_S = 60.0
"""How long stages may take to end after Ctrl-C before they are killed."""

# What DVC says after every stage, for people who run one.
_HINTS = re.compile(
    r"|To track the changes with git, run:|\tgit add .*|To enable auto staging, run:"
    r"|\tdvc config core\.autostage true|Use `dvc push` to send .*|Updating lock file .*"
    r"|Data and pipelines are up to date\."
)


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        done: Stages that were given to DVC and ended well, in that order.
        failed: Stages that did not.
        left: Stages that were not begun because of that.
    """

    done: tuple[str, ...]
    failed: tuple[str, ...]
    left: tuple[str, ...]


def import_libraries() -> None:
    """Import what a warm process has ready; what fails is left to the stage that needs it."""
    loads: list[Callable[[], object]] = [import_papermill, import_qwen_tts, _resemblyzer]
    loads += [partial(importlib.import_module, name) for name in LIBRARIES]
    for load in loads:
        with contextlib.suppress(Exception):
            load()


def _resemblyzer() -> None:
    with warnings.catch_warnings():  # as voxadapt.scoring.similarity imports it
        warnings.simplefilter("ignore")
        importlib.import_module("resemblyzer")


PREPARATION = f"{__name__}:{import_libraries.__name__}"


def on_cpu(params_file: str | Path) -> bool:
    """Tell whether models run on the CPU by the parameters, and not just for lack of a GPU."""
    return load_params(params_file).model.device == "cpu"


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")  # at once, as several threads write
    sys.stdout.flush()


def repro(
    targets: Sequence[str] = (),
    jobs: int = 2,
    *,
    preparation: str | None = None,
    show: Callable[[str], None] = _show,
) -> Outcome:
    """Run what has changed in the DVC project of the current folder.

    Args:
        targets: Stages, with all that they depend on; none: all stages.
        jobs: Most stages at a time.
        preparation: Function that imports libraries, `module:function`, once for all stages;
            none: every stage imports them. Not for a GPU, which no fork may inherit.
        show: Takes a line for the terminal, which begins with the stage's name.

    Raises:
        UserError: When this is no DVC project, or there is no such stage.
        KeyboardInterrupt: After Ctrl-C, when all stages have ended.
    """
    began = time.monotonic()
    with offer(preparation) as given:
        try:
            pipeline = read_pipeline(targets)
        except UserError as error:
            raise UserError(error.problems, "The pipeline cannot be run.") from None
        needs = {name: set(others) for name, others in pipeline.before.items()}
        pending = with_dependents(needs, pipeline.changed)
        if pending:
            rest = len(needs) - len(pending)
            show(f"{len(pending)} stages to run or check, {rest} up to date; {jobs} at a time.")
        launcher = ["-m", "voxadapt.tools.warm", "dvc"] if given else ["-m", "dvc"]
        outcome = run_all(
            {name: needs[name] & pending for name in needs if name in pending},
            jobs,
            lambda stage: subprocess.Popen(
                [sys.executable, *launcher, "--wait-for-lock", "repro", "--single-item", stage],
                env=os.environ | given,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                process_group=0 if os.name == "posix" else None,  # Ctrl-C is passed on, once
            ),
            show,
        )
    took = format_duration(time.monotonic() - began)
    if outcome.failed:
        show(f"Failed: {', '.join(outcome.failed)}; the lines above that begin so say why.")
        if outcome.left:
            show(f"Not begun: {', '.join(outcome.left)}.")
    elif pending:
        show(f"{len(outcome.done)} stages done in {took}.")
    else:
        show("All stages are up to date.")
    return outcome


def with_dependents(needs: Mapping[str, Iterable[str]], changed: Iterable[str]) -> set[str]:
    """Return the stages that may have to run: those that changed, and all that build on them.

    Args:
        needs: For every stage those that it depends on.
        changed: Stages that have changed themselves.
    """
    pending = set(changed)
    while more := {name for name, others in needs.items() if pending & set(others)} - pending:
        pending |= more
    return pending


def chains(needs: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Count, for every stage, the longest chain of stages that begins with it."""
    lengths = dict.fromkeys(needs, 1)
    for _ in needs:  # a chain has no more links than there are stages
        for name, others in needs.items():
            for other in others:
                lengths[other] = max(lengths[other], lengths[name] + 1)
    return lengths


def run_all(
    needs: Mapping[str, set[str]],
    jobs: int,
    start: Callable[[str], subprocess.Popen[str]],
    show: Callable[[str], None],
) -> Outcome:
    """Run stages as soon as those that they need are done; after a failure begin no other.

    Args:
        needs: For every stage those of them that it needs.
        jobs: Most stages at a time.
        start: Begins a stage in a process group of its own, its lines in a pipe.
        show: Takes a line for the terminal.
    """
    lengths = chains(needs)
    left = sorted(needs, key=lambda name: -lengths[name])
    running: dict[str, subprocess.Popen[str]] = {}
    done: list[str] = []
    failed: list[str] = []
    ended: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    try:
        while running or (left and not failed):
            ready = [name for name in left if needs[name].issubset(done)]
            for name in ready[: 0 if failed else jobs - len(running)]:
                left.remove(name)
                running[name] = start(name)
                follow = threading.Thread(target=_follow, args=(name, running[name], show, ended))
                follow.start()
            name, code = ended.get()
            del running[name]
            (failed if code else done).append(name)
    except BaseException:  # Ctrl-C above all
        _stop(running, ended)
        raise
    return Outcome(tuple(done), tuple(failed), tuple(left))


def _follow(
    name: str,
    process: subprocess.Popen[str],
    show: Callable[[str], None],
    ended: queue.SimpleQueue[tuple[str, int]],
) -> None:
    """Show what a stage prints, line by line, and tell when it has ended."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            text = line.rstrip("\n")
            if not _HINTS.fullmatch(text):
                show(f"[{name}] {text}")
    ended.put((name, process.wait()))


def _stop(
    running: dict[str, subprocess.Popen[str]], ended: queue.SimpleQueue[tuple[str, int]]
) -> None:
    """Pass Ctrl-C on to the running stages, and wait until they have ended."""
    for number in (signal.SIGINT, getattr(signal, "SIGKILL", signal.SIGTERM)):
        for process in running.values():
            with contextlib.suppress(OSError):
                if os.name == "posix":
                    os.killpg(process.pid, number)
                else:
                    process.terminate()
        until = time.monotonic() + STOP_S
        with contextlib.suppress(queue.Empty, KeyboardInterrupt):
            while running:
                name, _ = ended.get(timeout=max(0.0, until - time.monotonic()))
                del running[name]
