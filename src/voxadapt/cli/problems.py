"""User errors as a table on stderr."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from voxadapt.core import launch
from voxadapt.core.errors import Problem, UserError, one_row_a_reason

HEADERS = ("where", "expected", "found", "what to do")
MAX_WIDTH = 44
#: Control characters, which a terminal obeys, and those that turn the direction of writing.
CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
#: What progress bars of libraries write to go up a line, and nothing else.
MOVES = re.compile(r"(?:\x1b\[A|\r|\n)*")


class Printable:
    """A stream that shows the control characters of names and texts instead of obeying them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, its control characters as escapes."""
        return self._stream.write(text if MOVES.fullmatch(text) else printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def printable(text: str) -> str:
    """Write control characters as escapes; line ends and tabs stay."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def print_problems(error: UserError) -> None:
    """Print a user error as one table on stderr; of several processes, one table a machine."""
    if not launch.is_local_main():
        print(f"Process {launch.rank()}: {error.problems[0]}", file=sys.stderr)
        return
    print(f"\n{printable(error.title) or 'This cannot be done.'}", file=sys.stderr)
    for line in problem_lines(one_row_a_reason(error.problems)):
        print(line, file=sys.stderr)
    count = len(error.problems)
    print(f"{count} problem{'s' if count > 1 else ''}.\n", file=sys.stderr)


def print_left_out(values: object, record: Path) -> None:
    """Print what a stage has left out, where its record says that it has."""
    listed = values.get("dropped", ()) if isinstance(values, Mapping) else ()
    dropped = [Problem(**item) for item in listed]
    if dropped:
        print_problems(UserError(dropped, f"Left out; {record} has each of them."))


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Lay problems out as the lines of a table."""
    cells = [
        [printable(" ".join(cell.split())) for cell in (p.where, p.expected, p.found, p.fix)]
        for p in problems
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
