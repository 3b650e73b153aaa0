"""The table of transcripts: a CSV that opens in a spreadsheet, and comes back as one writes it."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Literal, get_args

from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.files import write_csv
from voxadapt.core.problems import problem, user_error
from voxadapt.data.lines import shown

Use = Literal["yes", "no", "reference"]
COLUMNS = ("clip", "text", "checked", "use", "seconds", "source", "heard", "remark")
READ = ("clip", "text")  # the others may be missing
YES, NO = {"yes", "y", "x", "1", "true"}, {"", "no", "n", "0", "false"}
USES: dict[str, Use] = {
    "reference": "reference", **dict.fromkeys(NO, "no"), **dict.fromkeys(YES | {""}, "yes"),
}  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute instead of show
BOM = "\ufeff"
MAX_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """What a row of the table says."""

    text: str  # transcript; may be empty
    checked: bool  # whether somebody has marked it as read
    use: Use  # whether the clip is taken, left out, or (part of) the reference
    extra: Mapping[str, str] = field(default_factory=dict)  # columns of the user's own


def read_table(path: Path) -> dict[str, Entry]:
    """Read the table as a spreadsheet has saved it: comma, semicolon or tab; UTF-8 or UTF-16.

    All rows that cannot be read are told at once.
    """
    text = _decoded(path)
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise user_error("prepare.torn_table", path.name, found=error) from None
    names = [name.strip().casefold() for name in rows[0]] if rows else []
    missing = [name for name in READ if names.count(name) != 1]
    if missing:
        facts = {"columns": ", ".join(COLUMNS), "found": shown(head), "missing": missing[0]}
        raise user_error("prepare.table_columns", f"{path.name}:1", **facts)
    entries: dict[str, Entry] = {}
    problems: list[Problem] = []
    for number, cells in enumerate(rows[1:], start=2):
        where = f"{path.name}, row {number}"
        while cells and not cells[-1].strip():
            cells.pop()
        if not cells:
            continue
        if len(cells) > len(names):
            cell, count = shown(cells[-1], 30), len(cells)
            problems.append(
                problem("prepare.table_width", where, width=len(names), count=count, cell=cell)
            )
            continue
        row = dict(zip_longest(names, map(_plain, cells), fillvalue=""))
        checked = row.get("checked", "").casefold()
        use = USES.get(row.get("use", "").casefold())
        if checked not in YES | NO:
            problems.append(problem("prepare.table_checked", where, found=shown(checked)))
        if use is None:
            known = " or ".join(get_args(Use))
            problems.append(
                problem("prepare.table_use", where, known=known, found=shown(row["use"]))
            )
        if row["clip"] in entries:
            problems.append(problem("prepare.table_repeats", where, clip=shown(row["clip"])))
        extra = {name: value for name, value in row.items() if name not in COLUMNS and name}
        text = " ".join(row["text"].split())
        entries[row["clip"]] = Entry(text, checked in YES, use or "yes", extra)
    raise_problems(problems, f"{path} cannot be used; nothing was changed.")
    return entries


def _decoded(path: Path) -> str:
    """Read the file's text."""
    try:
        data = path.read_bytes()[: MAX_BYTES + 1]
        if len(data) > MAX_BYTES:
            raise user_error("prepare.table_too_large", path, limit=MAX_BYTES)
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return data.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise user_error("prepare.no_table", path, found=error) from None
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x}"
        raise user_error("prepare.table_encoding", path, found=found) from None


def write_table(path: Path, rows: Iterable[Mapping[str, str]], extra: Iterable[str] = ()) -> None:
    """Write the table: UTF-8 with a mark that spreadsheets know, Windows line ends."""
    names = [*COLUMNS, *extra]

    def quoted(cell: str) -> str:
        # An apostrophe makes it text, which no spreadsheet computes.
        return f"'{cell}" if cell.startswith(FORMULA) else cell

    cells = ([quoted(row.get(name, "")) for name in names] for row in rows)
    write_csv(path, [names, *cells], line_end="\r\n", mark=BOM)


def _plain(cell: str) -> str:
    """Take the apostrophe away again that `write_table` puts before a formula."""
    cell = cell.strip()
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULA) else cell
