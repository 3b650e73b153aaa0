"""Sections of RESULTS.md, each written by the script that measured it."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INSTEAD = "VOXADAPT_RESULTS"  # a variable that names another file, for rehearsals
RESULTS = Path(os.environ.get(INSTEAD) or Path(__file__).with_name("RESULTS.md"))
TITLE = "# Benchmark results\n\nWritten by the scripts in this folder; nothing is typed by hand.\n"


def write_section(title: str, lines: list[str]) -> None:
    """Put a section into RESULTS.md in place of the one of that title; print it too."""
    body = f"## {title}\n\n" + "\n".join(lines).strip() + "\n"
    _rewrite(title, [body])
    print(body)


def drop_section(title: str) -> None:
    """Take a section out of RESULTS.md."""
    _rewrite(title, [])


def _rewrite(title: str, instead: list[str]) -> None:
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else TITLE
    head, *sections = re.split(r"^(?=## )", old, flags=re.MULTILINE)
    kept = [section for section in sections if not section.startswith(f"## {title}\n")]
    ordered = sorted([*kept, *instead])
    text = head.rstrip() + "\n\n" + "\n".join(section.rstrip() + "\n" for section in ordered)
    RESULTS.write_text(text, encoding="utf-8")


def anchor(title: str) -> str:
    """Return what a link to a section says, as GitHub makes it of a title."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def processor() -> str:
    """Name the processor as the system does."""
    try:
        listed = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", listed, flags=re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def clock_s(device: str) -> float:
    """Read a clock that shows what work takes: CPU time of this process, wall time on a GPU."""
    if not device.startswith("cuda"):
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def peak_gb(device: str) -> float:
    """Return the highest memory of the process, or allocated on the GPU, so far."""
    if not device.startswith("cuda"):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    import torch

    return torch.cuda.max_memory_allocated() / 1e9


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Write a Markdown table; every column but the first is right-aligned."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return ["| " + " | ".join(row) + " |" for row in [header, rule, *rows]]


def spread(values: Sequence[float]) -> str:
    """Write a median with its range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def verdict(what: str, found: float, wanted: float, cause: str) -> str:
    """Say whether a figure reaches its bar, and why if it does not.

    Args:
        what: What is measured.
        found: The figure; larger is better.
        wanted: The bar.
        cause: Why it may be out of reach, with measured numbers.
    """
    if found >= wanted:
        return f"{what}: wanted {wanted:g}, found {found:.2f}: met."
    return f"{what}: wanted {wanted:g}, found {found:.2f}: **not met**. {cause}"


def verdict_at_most(what: str, found: float, wanted: float, cause: str) -> str:
    """Say the same of a figure that must not be larger than its bar."""
    state = "met." if found <= wanted else f"**not met**. {cause}"
    return f"{what}: wanted {wanted:g}, found {found:.2f}: {state}"


class Side:
    """A process that measures when it is told to, so that several can take turns.

    It says what it has measured in a line that begins with `MARK`, by `answer`, and goes on when
    it is sent a line, which `answer` returns.

    Args:
        module: What runs it, as after `python -m`.
        arguments: Its arguments.
    """

    MARK = "measured "

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._module = module
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip

    def ask(self, request: Any = None) -> Any:
        """Let it go on and wait for what it measures.

        Raises:
            RuntimeError: When it ends instead, with the end of what it said.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line.startswith(self.MARK):
                    return json.loads(line.removeprefix(self.MARK))
        except BrokenPipeError:
            pass
        self._process.wait()
        self._errors.seek(0)
        raise RuntimeError(f"{self._module} ended:\n{self._errors.read()[-3000:]}")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @staticmethod
    def answer(measured: Any = None) -> Any:
        """In the process: say what was measured, if anything, and wait for the next request."""
        if measured is not None:
            print(f"\n{Side.MARK}{json.dumps(measured)}", flush=True)
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        return json.loads(line)
