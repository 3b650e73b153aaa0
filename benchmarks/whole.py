"""The whole: `make repro` on a fresh clone, from nothing to both reports.

    python -m benchmarks.whole [--runs N]

Each run clones the repository's last commit into a folder of its own and starts there without a
virtual environment; packages come from where pip finds them. What is timed begins before the
installation and ends with the last report. Files of the results that are in git must come out as
they were committed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import processor, table, verdict_at_most, write_section

PROJECT = Path(__file__).parents[1]
LIMIT_S = 12 * 60
INSTALLED = "Running stage "  # first line of `dvc repro`
OURS = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "WORK_DIR"}


@dataclass(frozen=True)
class Run:
    """What one run took.

    Attributes:
        setup_s: Virtual environment, packages, data.
        stages_s: All stages of both paths, DVC's last word included.
        changed: Committed results that came out differently.
    """

    setup_s: float
    stages_s: float
    changed: tuple[str, ...]


def run(folder: Path) -> Run:
    """Clone, run, look at what has changed.

    Raises:
        RuntimeError: When `make repro` fails.
    """
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(folder)], check=True)
    settings = {key: value for key, value in os.environ.items() if key not in OURS}
    python = Path(sys.executable).parent
    settings["PATH"] = os.pathsep.join(
        part for part in settings["PATH"].split(os.pathsep) if Path(part) != python
    )
    began = time.monotonic()
    installed = None
    process = subprocess.Popen(
        ["make", "repro"], cwd=folder, env=settings, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    last: list[str] = []
    for line in process.stdout:
        last = [*last[-30:], line]
        if installed is None and INSTALLED in line:
            installed = time.monotonic()
            print(f"set up in {installed - began:.0f} s", file=sys.stderr)
    if process.wait() or installed is None:
        raise RuntimeError(f"make repro gave {process.returncode}:\n{''.join(last)}")
    ended = time.monotonic()
    command = ["git", "status", "--porcelain", "--untracked-files=no"]
    answer = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    changed = tuple(sorted(line[3:] for line in answer.splitlines()))
    return Run(installed - began, ended - installed, changed)


def main() -> None:
    """Run, and write the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=1)
    arguments = parser.parse_args()
    found = []
    for number in range(arguments.runs):
        with tempfile.TemporaryDirectory() as scratch:
            found.append(run(Path(scratch) / "clone"))
        print(f"run {number + 1}: {found[-1]}", file=sys.stderr)
    whole = [one.setup_s + one.stages_s for one in found]
    rows = [
        [name, *(f"{value:.0f} s" for value in (min(all_), statistics.median(all_), max(all_)))]
        for name, all_ in (
            ("set-up: environment, packages, data", [one.setup_s for one in found]),
            ("all stages of both paths", [one.stages_s for one in found]),
            ("together", whole),
        )
    ]
    changed = sorted({name for one in found for name in one.changed})
    write_section(
        "The whole",
        [
            f"`make repro` on a fresh clone without an environment, {os.cpu_count()} cores of "
            f"{processor()}, wall-clock seconds, n = {len(found)}: "
            f"`python -m benchmarks.whole --runs {arguments.runs}`.",
            "",
            *table(["part", "least", "median", "most"], rows),
            "",
            "- "
            + verdict_at_most(
                "Minutes from nothing to both reports, at most",
                max(whole) / 60,
                LIMIT_S / 60,
                "Where it goes is in the table.",
            ),
            f"- Tracked files unlike those in git: {', '.join(changed) or 'none'}.",
        ],
    )


if __name__ == "__main__":
    main()
