"""What the terminal shows: text that it does not obey, and tables that fit it."""

import re
import shutil
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, TextIO

#: Control characters, which a terminal obeys, and those that turn the direction of writing.
CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
#: What progress bars of libraries write to go up a line, and nothing else.
MOVES = re.compile(r"(?:\x1b\[A|\r|\n)*")
PIPED_WIDTH = 120  # of a table in a file or a pipe
COLOURS = {
    "ok": "green", "up to date": "green", "warn": "yellow", "stale": "yellow", "running": "cyan",
    "waits": "dim", "fail": "bold red",
}  # fmt: skip


class Printable:
    """A stream that shows the control characters of names and texts instead of obeying them."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text, its control characters as escapes."""
        return self.stream.write(text if MOVES.fullmatch(text) else printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def printable(text: str) -> str:
    """Write control characters as escapes; line ends and tabs stay."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def width() -> int:
    """Return the columns of the terminal, or of a table that goes elsewhere."""
    return shutil.get_terminal_size((PIPED_WIDTH, 24)).columns


def column_widths(
    columns: Sequence[Sequence[str]], available: int, min_widths: Sequence[int] = ()
) -> list[int]:
    """Return the widths of columns, two blanks apart, that fit.

    The widest gives way first, down to its longest word, as a path may be copied; where even these
    do not fit, words are folded.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in columns]
    widths[: len(min_widths)] = map(max, widths, min_widths)
    words = [max((cell_len(w) for cell in column for w in cell.split()), default=0)
             for column in columns]  # fmt: skip
    room = available - 2 * (len(columns) - 1)
    least = words if sum(words) <= room else [1] * len(words)
    while sum(widths) > room and any(map(int.__gt__, widths, least)):
        index = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        widths[index] -= 1
    return widths


def print_table(
    rows: Sequence[Sequence[str]],
    headers: Sequence[str] = (),
    stream: TextIO | None = None,
    min_widths: Sequence[int] = (),
) -> None:
    """Print a table that is no wider than the terminal; a known state has its colour there."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out: Any = stream or sys.stdout
    shown = [[printable(" ".join(cell.split())) for cell in row] for row in rows]
    columns = list(zip(*([headers] if headers else []), *shown, strict=True))
    console = Console(file=out.stream if isinstance(out, Printable) else out, width=width())
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=bool(headers))
    widths = column_widths(columns, width(), min_widths)
    for header, size in zip_longest(headers, widths, fillvalue=""):
        table.add_column(str(header), overflow="fold", width=int(size))
    for row in shown:
        table.add_row(*(Text(cell, COLOURS.get(cell.partition(":")[0], "")) for cell in row))
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines()
    console.file.write("".join(f"{line.rstrip()}\n" for line in lines))
