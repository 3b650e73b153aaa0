"""Lines of JSON that a user wrote, read strictly: the one reader of every manifest.

Nothing is raised for bad content: a line is an object with its number, or a problem that names
file and line. What is accepted although it is unusual is noted.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from voxadapt.core.errors import Problem
from voxadapt.core.records import Record

MAX_LINE_BYTES = 1_000_000
MAX_BLANK_LINES = 1_000_000
MAX_DEPTH = 32  # of lists and objects within one another; a row needs two


class DuplicateKeyError(ValueError):
    """A key that one JSON object gives twice."""


def json_objects(
    path: Path, shape: str, problems: list[Problem], notes: list[str] | None = None
) -> Iterator[tuple[int, str, Record]]:
    """Yield the objects of a JSONL file; every other line becomes a problem.

    Yields:
        Line number from 1, `file.jsonl:12` for messages, and the object.

    Raises:
        OSError: When the file cannot be read.
    """
    for number, line in json_lines(path, [] if notes is None else notes):
        where = f"{path.name}:{number}"
        values = line if isinstance(line, Problem) else parse_object(where, line, shape)
        if isinstance(values, Problem):
            problems.append(values)
        else:
            yield number, where, values


def parse_object(where: str, line: str, shape: str) -> Record | Problem:
    """Return the object that a line holds, or what is wrong with the line."""
    one = "Write one JSON object a line."
    try:
        values = json.loads(line, object_pairs_hook=_unique_object)
    except DuplicateKeyError as error:
        return Problem(where, "each key once", f"{shown(str(error))} twice", "Keep one of them.")
    except RecursionError:
        return Problem(where, shape, "deeply nested JSON", "Write one flat object.")
    except ValueError as error:  # also an integer of more digits than Python reads
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at column {error.colno}"
        return Problem(where, shape, f"invalid JSON ({reason[:80]})", one)
    if _is_deeper(values, MAX_DEPTH):
        return Problem(where, shape, "deeply nested JSON", "Write one flat object.")
    if not isinstance(values, dict):
        return Problem(where, shape, f"{type(values).__name__} {shown(values, 40)}", one)
    return values


def _is_deeper(value: object, limit: int) -> bool:
    """Say whether lists and objects lie within one another more often than `limit` times."""
    level = [value]
    for _ in range(limit):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return False
        level = inner
    return any(isinstance(item, dict | list) for item in level)


def _unique_object(pairs: list[tuple[str, object]]) -> Record:
    """Make a dictionary of a JSON object's pairs; a key given twice is an error."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise DuplicateKeyError(next(key for key in counts if counts[key] > 1))
    return found


def shown(value: object, width: int = 60) -> str:
    """Show a value in a message: one line, printable, not too long."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def json_lines(path: Path, notes: list[str]) -> Iterator[tuple[int, str | Problem]]:
    """Yield the lines of a file, perhaps gzipped, with numbers; a problem for bad ones."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        number = num_blank = 0
        while raw := stream.readline(MAX_LINE_BYTES + 2):
            number += 1
            where = f"{path.name}:{number}"
            if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                yield 1, Problem(where, "UTF-8", "UTF-16", "Save the file as UTF-8.")
                return
            if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                raw = raw[3:]
                notes.append("the manifest starts with a byte order mark; it was ignored")
            if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                while (more := stream.readline(MAX_LINE_BYTES)) and not more.endswith(b"\n"):
                    pass
                expected = f"a line of at most {MAX_LINE_BYTES} bytes"
                fix = "Give one row a line, with paths instead of embedded audio."
                yield number, Problem(where, expected, "a longer one", fix)
                continue
            if raw.endswith(b"\r\n") and "line ends" not in "".join(notes):
                notes.append("the manifest has Windows line ends; they were accepted")
            if not raw.strip():
                num_blank += 1
                if num_blank > MAX_BLANK_LINES:
                    found = f"{num_blank - 1} blank lines"
                    yield number, Problem(where, "rows", found, "Take another file.")
                    return
                if raw.endswith(b"\n") and "blank" not in "".join(notes):
                    notes.append("the manifest has blank lines; they were ignored")
                continue
            try:
                yield number, raw.decode("utf-8").strip("\r\n")
            except UnicodeDecodeError as error:
                found = f"byte 0x{raw[error.start]:02x} at column {error.start + 1}"
                yield number, Problem(where, "UTF-8", found, "Save the file as UTF-8.")
