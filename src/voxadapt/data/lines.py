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
from voxadapt.core.problems import problem
from voxadapt.core.records import Record

MAX_LINE_BYTES = 1_000_000
MAX_BLANK_LINES = 1_000_000
MAX_DEPTH = 32  # of lists and objects within one another; a row needs two


class DuplicateKeyError(ValueError):
    """A key that one JSON object gives twice."""


def json_objects(
    path: Path,
    shape: str,
    problems: list[Problem],
    notes: list[str] | None = None,
    fix: str = "Check the path.",
) -> Iterator[tuple[int, str, Record]]:
    """Yield the objects of a JSONL file; every other line, or a file unread, becomes a problem.

    `fix` says what to do about a file that cannot be read.

    Yields:
        Line number from 1, `file.jsonl:12` for messages, and the object.
    """
    try:
        for number, line in json_lines(path, [] if notes is None else notes):
            where = f"{path.name}:{number}"
            values = line if isinstance(line, Problem) else parse_object(where, line, shape)
            if isinstance(values, Problem):
                problems.append(values)
            else:
                yield number, where, values
    except OSError as error:
        told = error.strerror or error
        problems.append(problem("data.unreadable_lines", path, error=told, fix=fix))


def parse_object(where: str, line: str, shape: str) -> Record | Problem:
    """Return the object that a line holds, or what is wrong with the line."""
    try:
        values = json.loads(line, object_pairs_hook=unique_object)
    except DuplicateKeyError as error:
        return problem("data.repeated_key", where, key=shown(str(error)))
    except RecursionError:
        return problem("data.deep_json", where, shape=shape)
    except ValueError as error:  # also an integer of more digits than Python reads
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at column {error.colno}"
        return problem("data.no_json", where, shape=shape, reason=reason[:80])
    if _is_deeper(values, MAX_DEPTH):
        return problem("data.deep_json", where, shape=shape)
    if not isinstance(values, dict):
        found = f"{type(values).__name__} {shown(values, 40)}"
        return problem("data.no_object", where, shape=shape, found=found)
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


def unique_object(pairs: list[tuple[str, object]]) -> Record:
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
                yield 1, problem("data.utf16", where)
                return
            if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                raw = raw[3:]
                notes.append("the manifest starts with a byte order mark; it was ignored")
            if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                while (more := stream.readline(MAX_LINE_BYTES)) and not more.endswith(b"\n"):
                    pass
                yield number, problem("data.long_line", where, limit=MAX_LINE_BYTES)
                continue
            if raw.endswith(b"\r\n") and "line ends" not in "".join(notes):
                notes.append("the manifest has Windows line ends; they were accepted")
            if not raw.strip():
                num_blank += 1
                if num_blank > MAX_BLANK_LINES:
                    yield number, problem("data.blank_lines", where, count=num_blank - 1)
                    return
                if raw.endswith(b"\n") and "blank" not in "".join(notes):
                    notes.append("the manifest has blank lines; they were ignored")
                continue
            try:
                yield number, raw.decode("utf-8").strip("\r\n")
            except UnicodeDecodeError as error:
                facts = {"byte": raw[error.start], "column": error.start + 1}
                yield number, problem("data.no_utf8", where, **facts)
