"""The manifest reader: every defect is one problem with file and line, and never an exception."""

from __future__ import annotations

import json
import os
import string
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import make_corpus, write_clip, write_rows
from properties import examples
from voxadapt.core.errors import UserError
from voxadapt.data.lines import MAX_LINE_BYTES
from voxadapt.data.manifest import (
    RawRow,
    Utterance,
    _assign_ids,
    line_of,
    read_manifest,
    read_raw_manifest,
    row_problems,
    write_manifest,
)

GOOD = {"audio": "a.wav", "text": "A sentence.", "ref_audio": "ref.wav"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, a reference, and files with every kind of defect."""
    root = tmp_path_factory.mktemp("corpus")
    for name in ("a.wav", "b.wav", "ref.wav", "ref2.wav", "sub/a.wav", "sub/b.flac"):
        write_clip(root / name, 3.5, seed=len(name))
    (root / "empty.wav").write_bytes(b"")
    (root / "text.wav").write_text("this is no audio at all, only text " * 20)
    (root / "header.wav").write_bytes((root / "a.wav").read_bytes()[:44])
    (root / "short.wav").write_bytes((root / "a.wav").read_bytes()[:30])
    (root / "headerless.raw").write_bytes(bytes(1000))
    (root / "folder.wav").mkdir()
    outside = write_clip(root.parent / "outside.wav", 3.5)
    (root / "link.wav").symlink_to(outside)
    (root / "dangling.wav").symlink_to(root / "nowhere.wav")
    (root / "inside.wav").symlink_to(root / "b.wav")
    zero_hz = bytearray((root / "a.wav").read_bytes())
    zero_hz[24:28] = bytes(4)
    (root / "zero_hz.wav").write_bytes(bytes(zero_hz))
    return root


def read(folder: Path, content: bytes | str | dict | list) -> tuple[list[RawRow], list[str]]:
    """Read a manifest with this content; problems come back as text."""
    if isinstance(content, dict):
        content = json.dumps(content)
    elif isinstance(content, list):
        content = "\n".join(json.dumps(row) for row in content)
    data = content.encode() if isinstance(content, str) else content
    path = folder / "rows.jsonl"
    path.write_bytes(data)
    rows, problems = read_raw_manifest(path)
    for problem in problems:
        assert all((problem.where, problem.expected, problem.found, problem.fix))
        assert str(problem).isprintable(), problem
    return rows, [str(problem) for problem in problems]


@pytest.mark.slow
def test_sound_rows_are_read_in_order(folder: Path) -> None:
    rows, problems = read(folder, [GOOD, GOOD | {"audio": "./sub/b.flac", "language": "malay"}])
    assert problems == []
    assert [row.id for row in rows] == ["a", "b"]
    assert [row.line for row in rows] == [1, 2]
    assert [row.language for row in rows] == [None, "malay"]
    assert rows[1].where == "rows.jsonl:2"
    assert rows[0].audio_path.is_file()
    assert rows[0].notes == ()


@pytest.mark.slow
def test_a_language_is_one_of_the_model(folder: Path) -> None:
    given = ["German", "de-AT", "Mandarin", "beijing dialect", "malay", "klingon", "auto", "ms"]
    path = write_rows(folder / "rows.jsonl", [GOOD | {"language": name} for name in given])
    known = {"german", "chinese", "beijing_dialect", "malay"}
    problems = read_raw_manifest(path, known)[1]
    refused = [problem.where for problem in problems if "language" in problem.expected]
    assert refused == [f"{path.name}:{number}" for number in (6, 7, 8)]
    assert "beijing_dialect, chinese, german, malay" in problems[-1].expected
    for name, found in zip(given[:5], ["german", "german", "chinese", "beijing_dialect", "malay"],
                           strict=True):  # fmt: skip
        rows, _ = read_raw_manifest(
            write_rows(folder / "rows.jsonl", [GOOD | {"language": name}]), known
        )
        assert [row.language for row in rows] == [found]


DEFECTS = {
    "missing file": ({"audio": "no.wav"}, "no file 'no.wav'"),
    "empty file": ({"audio": "empty.wav"}, "0 bytes"),
    "no audio": ({"audio": "text.wav"}, "no readable audio"),
    "header only": ({"audio": "header.wav"}, "without samples"),
    "cut header": ({"audio": "short.wav"}, "readable"),
    "headerless": ({"audio": "headerless.raw"}, "readable"),
    "0 Hz": ({"audio": "zero_hz.wav"}, "audio that can be read"),
    "folder": ({"audio": "folder.wav"}, "which is none"),
    "link out of the folder": ({"audio": "link.wav"}, "a link that leaves the folder"),
    "link to nothing": ({"audio": "dangling.wav"}, "a link to nothing"),
    "absolute": ({"audio": "/etc/passwd"}, "the absolute path"),
    "home": ({"audio": "~/a.wav"}, "the absolute path"),
    "drive": ({"audio": "C:/a.wav"}, "the absolute path"),
    "network share": ({"audio": "\\\\host\\a.wav"}, "the absolute path"),
    "backslash": ({"audio": "sub\\a.wav"}, "forward slashes"),
    "parent": ({"audio": "../outside.wav"}, "leaves the folder"),
    "inner parent": ({"audio": "sub/../../outside.wav"}, "leaves the folder"),
    "address": ({"audio": "https://example.org/a.wav"}, "the address"),
    "file address": ({"audio": "file:///etc/passwd"}, "the address"),
    "data address": ({"audio": "data:audio/wav;base64,UklGRg=="}, "base64"),
    "base64": ({"audio": "UklGRiQAAABXQVZF" * 40}, "base64"),
    "empty path": ({"audio": " "}, "an empty path"),
    "NUL in a path": ({"audio": "a\0.wav"}, "cannot exist"),
    "surrogate in a path": ({"audio": "\ud800.wav"}, "cannot exist"),
    "long path": ({"audio": "x/" * 3000 + "a.wav"}, "cannot exist"),
    "long name": ({"audio": "x" * 400 + ".wav"}, "audio: "),
    "bad reference": ({"ref_audio": "no.wav"}, "ref_audio: an existing file"),
    "unknown key": ({"txt": "x"}, "unknown key 'txt'"),
    "wrong type": ({"audio": 5}, "audio as a string"),
    "null text": ({"text": None}, "text as a string"),
    "list text": ({"text": ["a"]}, "text as a string"),
    "wrong language": ({"language": 3}, "language as a string"),
    "odd language": ({"language": "<script>"}, "a language name"),
    "empty text": ({"text": ""}, "empty text"),
    "blank text": ({"text": " \u3000 "}, "empty text"),
    "only punctuation": ({"text": "?! …"}, "at least one letter"),
    "only emoji": ({"text": "😀😀"}, "at least one letter"),
    "only digits": ({"text": "1984"}, "at least one letter"),
    "control character": ({"text": "a\u0007b"}, "U+0007"),
    "special token": ({"text": "a<|endoftext|> b"}, "text without special tokens"),
    "line break": ({"text": "a\nb"}, "U+000A"),
    "lone surrogate": ({"text": "a\ud83d"}, "U+D83D"),
    "10,000 characters": ({"text": "word " * 2000}, "10000 characters"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_of_one_row(folder: Path, name: str) -> None:
    change, message = DEFECTS[name]
    rows, problems = read(folder, [GOOD | {"audio": "b.wav"}, GOOD | change])
    assert [row.line for row in rows] == [1], "the sound row is kept, the other is refused"
    assert len(problems) == 1, problems
    assert problems[0].startswith("rows.jsonl:2: expected ")
    assert message in problems[0]


LINES = {
    "no JSON": ("{", "invalid JSON"),
    "two objects": ('{"a": 1} {"b": 2}', "invalid JSON"),
    "trailing comma": ('{"audio": "a.wav",}', "invalid JSON"),
    "list": ("[1, 2]", "found list"),
    "string": ('"a.wav"', "found str"),
    "number": ("1e999", "found float"),
    "null": ("null", "found NoneType"),
    "huge integer": ("9" * 10000, "invalid JSON"),
    "nested": ("[" * 100_000 + "]" * 100_000, "deeply nested"),
    "duplicate key": ('{"audio": "a.wav", "audio": "b.wav"}', "'audio' twice"),
    "missing keys": ("{}", "a key audio"),
}


@pytest.mark.parametrize("name", LINES)
def test_line_that_is_no_row(folder: Path, name: str) -> None:
    line, message = LINES[name]
    rows, problems = read(folder, line + "\n" + json.dumps(GOOD))
    assert [row.line for row in rows] == [2]
    assert any(message in problem for problem in problems), problems
    assert all(problem.startswith("rows.jsonl:1:") for problem in problems)


def test_encodings(folder: Path) -> None:
    line = json.dumps(GOOD).encode()
    rows, problems = read(folder, b"\xef\xbb\xbf" + line + b"\r\n")
    assert problems == []
    assert "byte order mark" in rows[0].notes[0]
    assert "Windows line ends" in rows[0].notes[1]
    rows, problems = read(folder, line + b"\n\n\n")
    assert problems == []
    assert len(rows) == 1
    rows, problems = read(folder, json.dumps(GOOD).encode("utf-16"))
    assert rows == []
    assert "UTF-16" in problems[0]
    rows, problems = read(folder, line + b'\n{"text": "caf\xe9"}\n')
    assert len(rows) == 1
    assert problems[0].startswith("rows.jsonl:2: expected UTF-8; found byte 0xe9 at column 14")


def test_line_over_the_limit_is_refused_and_the_next_is_read(folder: Path) -> None:
    long = json.dumps(GOOD | {"text": "x" * 3 * MAX_LINE_BYTES})
    rows, problems = read(folder, long + "\n" + json.dumps(GOOD))
    assert [row.line for row in rows] == [2]
    assert len(problems) == 1
    assert "rows.jsonl:1: expected a line of at most" in problems[0]


def test_manifest_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        rows, problems = read_raw_manifest(path)
        assert rows == []
        assert len(problems) == 1
        assert problems[0].where == str(path)
    (tmp_path / "empty.jsonl").write_text("")
    assert "an empty file" in str(read_raw_manifest(tmp_path / "empty.jsonl")[1][0])


def test_path_that_exists_elsewhere_is_hinted_at(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "data" / "utt.wav", 2.0)
    monkeypatch.chdir(tmp_path)
    _, problems = read(folder, GOOD | {"audio": "data/utt.wav"})
    assert "It exists relative to the working folder" in problems[0]


def test_two_references(folder: Path) -> None:
    rows = [GOOD, GOOD | {"audio": "b.wav"}, GOOD | {"audio": "sub/a.wav", "ref_audio": "ref2.wav"}]
    _, problems = read(folder, rows)
    assert len(problems) == 1
    assert problems[0].startswith(
        "rows.jsonl:3: expected the same ref_audio in every row ('ref.wav')"
    )
    _, problems = read(folder, [GOOD, GOOD | {"audio": "b.wav", "ref_audio": "./ref.wav"}])
    assert problems == [], "one file written in two ways is one reference"


def test_each_row_of_a_missing_reference_has_its_problem(folder: Path) -> None:
    rows = [GOOD | {"ref_audio": "no.wav", "text": f"Text {i} a."} for i in range(200)]
    _, problems = read(folder, rows)
    assert len(problems) == 200, "the command line shows one row a reason"


def test_same_clip_twice(folder: Path) -> None:
    rows, problems = read(folder, [GOOD | {"audio": "b.wav"}, GOOD | {"audio": "inside.wav"}])
    assert len(rows) == 1
    assert "first in line 1" in problems[0]


def test_links_into_the_dvc_cache_are_allowed(tmp_path: Path) -> None:
    target = write_clip(tmp_path / ".dvc" / "cache" / "files" / "md5" / "ab" / "cd.wav", 3.5)
    folder = tmp_path / "data"
    write_clip(folder / "ref.wav", 3.5)
    (folder / "a.wav").symlink_to(target)
    rows, problems = read(folder, GOOD)
    assert problems == []
    assert len(rows) == 1


def test_ids_are_unique_and_safe() -> None:
    paths = ["a/x.wav", "b/x.wav", "b/x.flac", "y.wav", "Y.flac", "__metadata__.wav", "ä ö/ü.wav",
             "../odd name?.wav", "a__x.wav.wav", "." * 5 + ".wav", "z" * 300 + ".wav"]  # fmt: skip
    ids = _assign_ids(paths)
    assert len({name.casefold() for name in ids}) == len(paths)
    assert "__metadata__" not in ids, "safetensors reserves this key"
    for name in ids:
        assert "/" not in name
        assert len(name) <= 120
        assert not name.startswith(".")
    again = dict(zip(reversed(paths), _assign_ids(paths[::-1]), strict=True))
    assert [again[path] for path in paths] == ids, "the order of the rows does not matter"


NAMES = st.text(alphabet=string.ascii_letters + "_-. ü", min_size=1, max_size=6)


@pytest.mark.slow
@given(st.lists(st.tuples(NAMES, NAMES), unique=True, max_size=30))
def test_ids_are_unique(names: list[tuple[str, str]]) -> None:
    paths = sorted({f"{a.strip('. ') or 'd'}/{b.strip('. ') or 'f'}.wav" for a, b in names})
    ids = _assign_ids(paths)
    assert len({name.casefold() for name in ids}) == len(paths)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(["audio", "text", "ref_audio", "language", "x"])
PATHS = st.sampled_from(["a.wav", "b.wav", "ref.wav", "no.wav", "../a.wav", "link.wav", "text.wav"])
OBJECTS = st.dictionaries(KEYS, PATHS | st.text(max_size=12) | VALUES, max_size=5)
LINE = (
    OBJECTS.map(lambda value: json.dumps(value).encode())
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60)
)


@pytest.mark.slow
@settings(max_examples=examples(150))
@given(st.lists(LINE, max_size=6), st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n"]))
def test_any_bytes_give_rows_or_problems(folder: Path, lines: list[bytes], end: bytes) -> None:
    rows, problems = read(folder, end.join(lines))
    content = end.join(lines).strip()
    assert rows or problems or not content.strip(b"\xef\xbb\xbf \t\r\n")
    for row in rows:
        assert row.audio_path.resolve().is_relative_to(folder.resolve())
        assert row.ref_path.resolve().is_relative_to(folder.resolve())
        assert row.text.strip()
    assert len({row.id for row in rows}) == len(rows)


def test_accepted_manifest_round_trip(tmp_path: Path) -> None:
    fields = {"text": "Ein Satz über – Größe.", "ref_audio": "data/ref.wav", "duration_s": 2.5,
              "sample_rate_hz": 16000, "audio_sha256": "0" * 64, "split": "train"}  # fmt: skip
    given_rows = [Utterance(id=name, audio=f"data/{name}.wav", **fields) for name in "cab"]
    given_rows.append(given_rows[0].model_copy(update={"id": "d", "audio": "d", "text": "O"}))
    path = tmp_path / "deep" / "manifest.jsonl"
    write_manifest(path, given_rows)
    assert read_manifest(path) == sorted(given_rows, key=lambda u: u.id)
    before = path.read_bytes()
    write_manifest(path, reversed(given_rows))
    assert path.read_bytes() == before, "the order of the input does not matter"


def test_accepted_manifest_that_was_touched(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    with pytest.raises(UserError, match="voxadapt audit"):
        read_manifest(path)
    path.write_text('{"id": "a"}\n{"id": 5\n')
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    assert [problem.where for problem in caught.value.problems] == [
        "manifest.jsonl:1",
        "manifest.jsonl:2",
    ]


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root reads all")
def test_unreadable_file(tmp_path: Path) -> None:
    path, _ = make_corpus(tmp_path, 2)
    (tmp_path / "clips" / "utt000.wav").chmod(0)
    rows, problems = read_raw_manifest(path)
    assert len(rows) == 1
    assert len(problems) == 1


def test_unusual_but_sound_audio(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((48000, 8)).astype(np.float32) * 0.1
    sf.write(tmp_path / "eight.wav", noise, 192000)
    sf.write(tmp_path / "one.wav", noise[:1, 0], 16000)
    write_clip(tmp_path / "ref.wav", 3.5)
    path = write_rows(
        tmp_path / "rows.jsonl",
        [
            {"audio": name, "text": f"Text {name}", "ref_audio": "ref.wav"}
            for name in ("eight.wav", "one.wav")
        ],
    )
    rows, problems = read_raw_manifest(path)
    assert (len(rows), problems) == (2, []), "the audit judges what can be read"


def test_of_three_references_the_usual_one_is_expected(folder: Path) -> None:
    for name in ("c.wav", "d.wav"):
        if not (folder / name).exists():
            write_clip(folder / name, 0.5)
    others = ["ref.wav", "ref2.wav", "ref2.wav", "sub/b.flac"]
    rows = [
        GOOD | {"audio": audio, "ref_audio": ref}
        for audio, ref in zip(("a.wav", "b.wav", "c.wav", "d.wav"), others, strict=True)
    ]
    _, problems = read(folder, rows)
    assert [problem.split(": ")[0] for problem in problems] == ["rows.jsonl:1", "rows.jsonl:4"]
    assert all("'ref2.wav'" in problem for problem in problems)


def test_an_id_is_the_stem_or_the_path_or_has_a_hash() -> None:
    assert _assign_ids(["a/x.wav", "b/y.wav", "b/y.flac"]) == ["x", "b__y.wav", "b__y.flac"]
    assert _assign_ids(["X.wav", "a/x.wav"]) == ["X.wav", "a__x.wav"], "case does not tell apart"
    assert _assign_ids(["_x.wav", ".x.wav"]) == ["_x.wav", "x"]
    stem_taken = _assign_ids(["a/x.wav", "b/x.wav", "a__x.wav.wav"])
    assert stem_taken[0].startswith("a__x.wav.") and len(stem_taken[0]) == len("a__x.wav.") + 12
    assert stem_taken[1:] == ["b__x.wav", "a__x.wav"]
    same = _assign_ids(["a b/c.wav", "a_b/c.wav"])
    assert all(name.startswith("a_b__c.wav.") for name in same) and len(set(same)) == 2
    assert _assign_ids(["z" * 101 + ".wav"]) == ["z" * 100]


@pytest.mark.parametrize(
    ("key", "length", "fine"),
    [("text", 2000, True), ("text", 2001, False), ("consent", 200, True), ("consent", 201, False),
     ("language", 40, True), ("language", 41, False)],
)  # fmt: skip
def test_what_is_written_has_a_length_that_fits(key: str, length: int, fine: bool) -> None:
    row = GOOD | {key: "x" * length}
    assert (row_problems("rows.jsonl:1", row) == []) == fine


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"text": 3}, "text as a string"),
        ({"text": None}, "text as a string"),
        ({"language": None, "consent": None, "speaker": None}, ""),
        ({"consent": 3}, "consent as a string"),
        ({"consent": " "}, "printable characters"),
        ({"consent": "a\nb"}, "printable characters"),
        ({"language": "9"}, "a language name"),
        ({"speaker": ""}, "a speaker's name"),
        ({"speaker": "Aria"}, ""),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_a_key_has_its_type_and_form(values: dict[str, object], said: str) -> None:
    problems = row_problems("rows.jsonl:1", {**GOOD, **values})
    assert [said in str(problem) for problem in problems] == ([True] if said else [])


def test_the_line_is_read_off_the_place() -> None:
    assert line_of("rows.jsonl:12") == 12
    assert line_of("rows.jsonl") == line_of("rows.jsonl:") == line_of("a:b") == 0
