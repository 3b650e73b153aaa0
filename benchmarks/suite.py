"""How long do the tests take: those that run while one works, and all of them?

    python -m benchmarks.suite [--loop]

Both as CONTRIBUTING.md and the Makefile run them, on two cores; the ten slowest tests with their
setup, in seconds of the run of all. `--loop` leaves that run out, and its line as it is missing.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import processor, table, verdict_at_most, write_section

PROJECT = Path(__file__).parents[1]
LOOP_S, WHOLE_S = 60.0, 420.0
SLOWEST = 10


@dataclass(frozen=True)
class Run:
    """Seconds on the clock and of all processors, counts by outcome, and seconds of each test."""

    wall_s: float
    cpu_s: float
    counts: dict[str, int]
    tests_s: dict[str, float]

    def row(self, what: str) -> list[str]:
        """Write a row of the table."""
        n = self.counts
        passed = n["tests"] - n["failures"] - n["errors"] - n["skipped"]
        failed = n["failures"] + n["errors"]
        return [what, f"{self.wall_s:.0f} s", f"{self.cpu_s:.0f} s", f"{passed:,}",
                f"{n['skipped']}", f"{failed}"]  # fmt: skip


def run(*options: str) -> Run:
    """Run tests in two processes."""
    words = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile",
             "--no-loadscope-reorder", "-p", "no:cacheprovider"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(
            [*words, f"--junitxml={report}", *options],
            cwd=PROJECT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
        )  # fmt: skip
        after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        root = ET.parse(report).getroot()
    suite = root if root.tag == "testsuite" else root[0]
    return Run(
        ended - began,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")},
        {f"{case.get('classname')}::{case.get('name')}".removeprefix("tests."):
         float(case.get("time", 0.0)) for case in suite.iter("testcase")},
    )  # fmt: skip


def main() -> None:
    """Run both and write the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--loop", action="store_true", help="leave out the run of all tests")
    given = parser.parse_args()
    loop = run("-m", "not slow")
    rows = [loop.row('`pytest -n 2 -m "not slow"`')]
    said = [verdict_at_most("Seconds of the loop", loop.wall_s, LOOP_S, "")]
    lines = []
    if not given.loop:
        whole = run()
        rows.append(whole.row("`make test`"))
        said.append(verdict_at_most("Seconds of all tests", whole.wall_s, WHOLE_S, ""))
        slowest = sorted(whole.tests_s.items(), key=lambda item: -item[1])[:SLOWEST]
        listed = [[f"`{name}`", f"{seconds:.0f}"] for name, seconds in slowest]
        lines = ["", f"The {SLOWEST} slowest, seconds with their setup:", ""]
        lines += table(["test", "s"], listed)
    write_section(
        "Tests",
        [
            f"Two processes on {os.cpu_count()} cores of {processor()}, n = 1: "
            "`python -m benchmarks.suite`.",
            "",
            *table(["run", "clock", "CPU", "passed", "skipped", "failed"], rows),
            *lines,
            "",
            *[f"- {line}" for line in said],
        ],
    )


if __name__ == "__main__":
    main()
