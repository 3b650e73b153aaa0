"""Lines of JSON: depth, length, blank lines, encodings and keys given twice, at their limits."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from voxadapt.core.errors import Problem
from voxadapt.data import lines
from voxadapt.data.lines import json_lines, json_objects, parse_object, shown


def read(path: Path, data: bytes) -> tuple[list[tuple[int, str]], list[str], list[str]]:
    """Return lines with their numbers, problems and notes."""
    path.write_bytes(data)
    notes: list[str] = []
    found = list(json_lines(path, notes))
    kept = [(number, line) for number, line in found if isinstance(line, str)]
    return kept, [str(line) for _, line in found if isinstance(line, Problem)], notes


def nested(depth: int) -> str:
    """Return an object of so many levels, lists within it."""
    return '{"a": ' + "[" * (depth - 1) + "1" + "]" * (depth - 1) + "}"


def test_an_object_may_be_so_deep_and_no_deeper() -> None:
    assert isinstance(parse_object("x:1", nested(32), "{}"), dict)
    for depth in (33, 40, 5000):
        assert "deeply nested" in str(parse_object("x:1", nested(depth), "{}"))
    assert "list" in str(parse_object("x:1", "[1]", "{}"))
    assert parse_object("x:1", '{"a": {"b": []}}', "{}") == {"a": {"b": []}}


def test_a_key_given_twice_is_named() -> None:
    assert "'b' twice" in str(parse_object("x:1", '{"a": 1, "b": 2, "b": 3}', "{}"))
    assert "twice" in str(parse_object("x:1", '{"a": {"c": 1, "c": 1}}', "{}"))


def test_a_value_is_shown_in_sixty_characters() -> None:
    assert shown("x" * 58) == "'" + "x" * 58 + "'"
    assert shown("x" * 59) == "'" + "x" * 58 + "…"
    assert shown(12345, 4) == "123…" and shown(1234, 4) == "1234"
    assert shown("a\x00") == r"'a\x00'" and shown("é") == "'é'" and shown("é\n") == r"'\xe9\n'"


def test_a_line_may_be_so_long_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 20)
    for end in (b"\n", b"\r\n"):
        kept, problems, _ = read(tmp_path / "a", b"x" * 20 + end + b"next\n")
        assert kept == [(1, "x" * 20), (2, "next")] and not problems
    for size in (22, 23, 40, 41, 42, 43, 90):
        kept, problems, _ = read(tmp_path / "a", b"x" * size + b"\nnext\n")
        assert kept == [(2, "next")] and "a:1: expected a line of at most 20" in problems[0]
    kept, problems, _ = read(tmp_path / "a", b"x" * 22)
    assert not kept and len(problems) == 1


def test_a_line_of_a_megabyte_is_read(tmp_path: Path) -> None:
    assert read(tmp_path / "a", b"x" * 1_000_000 + b"\n")[0]
    assert "at most 1000000 bytes" in read(tmp_path / "a", b"x" * 1_000_002 + b"\n")[1][0]


def test_blank_lines_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_BLANK_LINES", 3)
    kept, problems, notes = read(tmp_path / "a", b"x\n\n \n\t\ny\n")
    assert kept == [(1, "x"), (5, "y")] and not problems and len(notes) == 1
    kept, problems, _ = read(tmp_path / "a", b"x\n\n\n\n\ny\n")
    assert kept == [(1, "x")] and "a:5: expected rows; found 3 blank lines" in problems[0]
    assert read(tmp_path / "a", b"x\n ")[2] == [], "the end of a file is no blank line"


def test_marks_and_line_ends_are_noted_once_and_where_they_are(tmp_path: Path) -> None:
    kept, problems, notes = read(tmp_path / "a", b"\xef\xbb\xbfx\r\ny\r\n")
    assert kept == [(1, "x"), (2, "y")] and not problems and len(notes) == 2
    assert read(tmp_path / "a", b"x\n\xef\xbb\xbfy\n")[0][1] == (2, "\ufeffy")
    for mark in (b"\xff\xfe", b"\xfe\xff"):
        assert "UTF-16" in read(tmp_path / "a", mark + b"x\0\n\0")[1][0]
        assert "0xf" in read(tmp_path / "a", b"x\n" + mark + b"\n")[1][0]
    assert "byte 0xe9 at column 3" in read(tmp_path / "a", b"ab\xe9\n")[1][0]


def test_a_zipped_file_is_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n[2]\n{"a": 3}\n'))
    problems: list[Problem] = []
    found = list(json_objects(tmp_path / "a.jsonl.gz", "{}", problems))
    assert found == [(1, "a.jsonl.gz:1", {"a": 1}), (3, "a.jsonl.gz:3", {"a": 3})]
    assert [problem.where for problem in problems] == ["a.jsonl.gz:2"]


def test_objects_take_notes_where_they_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    notes: list[str] = []
    [(number, where, found)] = json_objects(path, "{}", [], notes)
    assert (number, where, found) == (1, "rows.jsonl:1", {"a": 1}) and notes
    assert list(json_objects(path, "{}", [])) == [(number, where, found)]
