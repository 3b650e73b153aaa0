"""Hashes, atomic files and records: equal values give equal bytes."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxadapt.core import files as p
from voxadapt.core.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


def test_hashes_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert p.sha256_file(tmp_path / "a") == p.sha256_bytes(b"abc") == abc
    before = p.sha256_folder(tmp_path)
    assert before == p.sha256_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert p.sha256_folder(tmp_path) != before, "a name counts"
    (tmp_path / "b").rename(tmp_path / "a")
    assert p.sha256_folder(tmp_path) == before
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c").write_bytes(b"")
    assert p.sha256_folder(tmp_path) != before


def test_hash_of_an_array_covers_type_and_shape() -> None:
    array = np.arange(6, dtype=np.int16)
    others = [array.reshape(2, 3), array.astype(np.int32), array[::-1], array + 1]
    assert len({p.sha256_array(a) for a in [array, *others]}) == 5
    assert p.sha256_array(array.reshape(2, 3).T.copy()) == p.sha256_array(array.reshape(2, 3).T)


def test_atomic_write_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file.json"
    p.write_atomic(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(UserError, match="Free space"):
        p.write_atomic(path, "new and longer")
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["file.json"], "no litter"


@pytest.mark.slow
@given(JSON)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    p.write_json(path, value)
    assert p.read_json(path) == value
    first = path.read_bytes()
    p.write_json(path, json.loads(first))
    assert path.read_bytes() == first


@pytest.mark.slow
@given(st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=3), max_size=4))
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    p.write_jsonl(path, rows)
    assert p.read_jsonl(path) == rows, "also with U+2028 and other line separators in a text"


def test_records_hold_no_nan(tmp_path: Path) -> None:
    for write in (p.write_json, lambda path, value: p.write_jsonl(path, [{"x": value}])):
        with pytest.raises(ValueError, match="JSON compliant"):
            write(tmp_path / "x", math.nan)


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022])
def test_the_umask_is_kept(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        p.write_json(tmp_path / "record.json", {})
        p.write_json(tmp_path / "record.json", {"again": 1})
        p.write_jsonl(tmp_path / "rows.jsonl", [{}])
    finally:
        os.umask(before)
    for name in ("record.json", "rows.jsonl"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~mask
