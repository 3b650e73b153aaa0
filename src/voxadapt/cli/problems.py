"""User errors as a table on stderr."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from voxadapt.core import launch
from voxadapt.core.errors import Problem, UserError

HEADERS = ("where", "expected", "found", "what to do")
MAX_WIDTH = 44


def print_problems(error: UserError) -> None:
    """Print a user error as one table on stderr; of several processes, one table a machine."""
    if not launch.is_local_main():
        print(f"Process {launch.rank()}: {error.problems[0]}", file=sys.stderr)
        return
    print(f"\n{error.title or 'This cannot be done.'}", file=sys.stderr)
    for line in problem_lines(error.problems):
        print(line, file=sys.stderr)
    count = len(error.problems)
    print(f"{count} problem{'s' if count > 1 else ''}.\n", file=sys.stderr)


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Lay problems out as the lines of a table."""
    cells = [
        [" ".join(cell.split()) for cell in (p.where, p.expected, p.found, p.fix)] for p in problems
    ]
    columns = zip(HEADERS, *cells, strict=True)
    widths = [min(MAX_WIDTH, max(len(cell) for cell in column)) for column in columns]
    table = [HEADERS, ["-" * width for width in widths], *cells]
    return [line for row in table for line in _wrap(row, widths)]


def _wrap(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Lay one row of a table out over as many lines as its longest cell needs."""
    columns = [
        textwrap.wrap(cell, width, break_on_hyphens=False) or [""]  # a path may be copied
        for cell, width in zip(row, widths, strict=True)
    ]
    height = max(len(column) for column in columns)
    padded = [column + [""] * (height - len(column)) for column in columns]
    return [
        "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for parts in zip(*padded, strict=True)
    ]
