"""User errors as a table on stderr."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from voxadapt.cli.terminal import print_table, printable, width
from voxadapt.core import launch
from voxadapt.core.errors import Problem, UserError, one_row_a_reason

HEADERS = ("where", "expected", "found", "what to do")
MIN_TABLE_WIDTH = 110  # in less, a problem is a paragraph


def print_problems(error: UserError) -> None:
    """Print a user error as one table on stderr; of several processes, one table a machine."""
    if not launch.is_local_main():
        print(f"Process {launch.rank()}: {error.problems[0]}", file=sys.stderr)
        return
    print(f"\n{printable(error.title) or 'This cannot be done.'}", file=sys.stderr)
    print_rows(one_row_a_reason(error.problems), sys.stderr)
    count = len(error.problems)
    print(f"{count} problem{'s' if count > 1 else ''}.\n", file=sys.stderr)


def print_left_out(values: object, record: Path) -> None:
    """Print what a stage has left out, where its record says that it has."""
    listed = values.get("dropped", ()) if isinstance(values, Mapping) else ()
    dropped = [Problem(**item) for item in listed]
    if dropped:
        print_problems(UserError(dropped, f"Left out; {record} has each of them."))


def print_rows(problems: Sequence[Problem], stream: TextIO) -> None:
    """Print problems as a table, or one below the other where the terminal is narrow."""
    rows = [(p.where, p.expected, p.found, p.fix) for p in problems]
    if width() >= MIN_TABLE_WIDTH:
        print_table(rows, HEADERS, stream)
        return
    for row in rows:
        print_table([(f"- {name}", cell) for name, cell in zip(HEADERS, row, strict=True)],
                    stream=stream)  # fmt: skip
