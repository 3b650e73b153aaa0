"""Manifests of clips: a missing clip is counted, a row that would falsify figures is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus import write_clip
from properties import examples
from voxadapt.core.errors import UserError
from voxadapt.data.clips import SYSTEM, read_clips, read_recordings


def manifest(folder: Path, *rows: Any) -> Path:
    path = folder / "clips.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.wav", "b.wav", "deep/c.wav"):
        write_clip(tmp_path / name, 0.5)
    return tmp_path


def test_the_least_that_a_row_needs(folder: Path) -> None:
    first, second = read_clips(
        manifest(folder, {"audio": "a.wav", "text": "Hello."}, {"audio": "b.wav", "text": "Hello."})
    )
    assert first.system == second.system == SYSTEM and first.exists
    assert first.text_id == second.text_id and first.text_id.startswith("text-")
    assert (first.take, second.take) == (0, 1) and first.references == ()


def test_systems_pair_by_text_or_by_id(folder: Path) -> None:
    rows = [
        {"audio": "a.wav", "text": "Hello.", "system": "x", "id": "one", "take": 2},
        {"audio": "a.wav", "text": "Hello.", "system": "y", "id": "one",
         "reference": ["deep/c.wav", "b.wav"]},
    ]  # fmt: skip
    first, second = read_clips(manifest(folder, *rows))
    assert (first.text_id, first.take) == ("one", 2) and (second.text_id, second.take) == ("one", 0)
    assert [path.name for path in second.references] == ["c.wav", "b.wav"]


def test_a_missing_clip_is_no_error_but_a_missing_reference_is(folder: Path) -> None:
    [clip] = read_clips(manifest(folder, {"audio": "gone/x.wav", "text": "Hello."}))
    assert not clip.exists
    with pytest.raises(UserError, match="reference: an existing file"):
        read_clips(manifest(folder, {"audio": "a.wav", "text": "Hi.", "reference": "gone.wav"}))


GOOD = {"audio": "a.wav", "text": "Hello."}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "invalid JSON"),
        ("[1]", r"\[1\]"),
        ('{"audio": "a.wav", "audio": "b.wav", "text": "x"}', "each key once"),
        ({"audio": "a.wav"}, "text: a string"),
        ({"text": "Hello."}, "audio: a string"),
        (GOOD | {"txt": "x"}, "unknown key"),
        (GOOD | {"audio": "/etc/passwd"}, "absolute path"),
        (GOOD | {"audio": "../a.wav"}, "leaves the folder"),
        (GOOD | {"audio": "https://example.org/a.wav"}, "address"),
        (GOOD | {"audio": "C:\\a.wav"}, "absolute path"),
        (GOOD | {"audio": "a\u0000.wav"}, "cannot exist"),
        (GOOD | {"text": "?!"}, "letters or digits"),
        (GOOD | {"text": "bell \u0007"}, "control characters"),
        (GOOD | {"text": 3}, "text: a string"),
        (GOOD | {"take": -1}, "take: 0, 1, 2"),
        (GOOD | {"take": True}, "take: 0, 1, 2"),
        (GOOD | {"system": "real"}, "another name than real"),
        (GOOD | {"system": " x"}, "a name of at most"),
        (GOOD | {"id": ""}, "a name of at most"),
        (GOOD | {"reference": []}, "a path, or a list"),
        (GOOD | {"reference": "../a.wav"}, "leaves the folder"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(folder: Path, row: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_clips(manifest(folder, {"audio": "b.wav", "text": "Fine."}, row))
    assert all(problem.where.startswith("clips.jsonl:2") for problem in caught.value.problems)


def test_what_would_count_twice_or_mix_sentences_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="each clip once"):
        read_clips(manifest(folder, GOOD, GOOD))
    first = GOOD | {"id": "s", "take": 0}
    with pytest.raises(UserError, match="take 0 of s once"):
        read_clips(manifest(folder, first, first | {"audio": "b.wav"}))
    with pytest.raises(UserError, match="another id"):
        read_clips(manifest(folder, GOOD | {"id": "s"},
                            {"audio": "b.wav", "text": "Other.", "id": "s"}))  # fmt: skip
    read_clips(manifest(folder, GOOD | {"system": "x"}, GOOD | {"system": "y"}))


def test_links_that_leave_the_folder_are_refused(folder: Path) -> None:
    outside = folder.parent / f"{folder.name}-outside.wav"
    write_clip(outside, 0.5)
    (folder / "link.wav").symlink_to(outside)
    with pytest.raises(UserError, match="a link that leaves the folder"):
        read_clips(manifest(folder, GOOD | {"audio": "link.wav"}))


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_manifest_says_what_a_row_is(folder: Path, content: str) -> None:
    (folder / "clips.jsonl").write_text(content)
    with pytest.raises(UserError, match='"audio"'):
        read_clips(folder / "clips.jsonl")
    with pytest.raises(UserError, match="a JSONL file"):
        read_clips(folder / "none.jsonl")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


@pytest.mark.slow
@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["audio", "text", "id", "system", "take", "reference", "x"]), JSON
    )
)
def test_no_row_raises_anything_but_user_errors(folder: Path, row: dict[str, Any]) -> None:
    try:
        clips = read_clips(manifest(folder, row))
    except UserError:
        return
    assert len(clips) == 1


def test_recordings_from_a_folder_or_a_manifest(folder: Path) -> None:
    assert [(item.path.name, item.text) for item in read_recordings(folder)] == [
        ("a.wav", None), ("b.wav", None),
    ]  # fmt: skip
    path = manifest(folder, {"audio": "deep/c.wav", "text": "Yes.", "ref_audio": "x"},
                    {"audio": "a.wav"})  # fmt: skip
    assert [item.text for item in read_recordings(path)] == ["Yes.", None]
    (folder / "none").mkdir()
    with pytest.raises(UserError, match="no reference"):
        read_recordings(folder / "none")
    with pytest.raises(UserError, match="existing file"):
        read_recordings(manifest(folder, {"audio": "gone.wav"}))
    with pytest.raises(UserError, match="as strings"):
        read_recordings(manifest(folder, {"text": "Yes."}))


def test_every_bad_row_is_named_not_the_first_alone(folder: Path) -> None:
    """Of each kind of fault one, each before another row that is wrong."""
    rows = [
        {"audio": "a.wav"},
        {"audio": "../x.wav", "text": "Hi."},
        {"audio": "a.wav", "text": "Hi.", "reference": "gone.wav"},
        "no json",
        {"text": "Hi."},
    ]
    with pytest.raises(UserError) as caught:
        read_clips(manifest(folder, GOOD, *rows))
    lines = {problem.where.split(":")[1] for problem in caught.value.problems}
    assert lines == {"2", "3", "4", "5", "6"}
    with pytest.raises(UserError) as caught:
        read_recordings(
            manifest(folder, {"audio": 3}, {"audio": "a.wav", "text": 4}, {"audio": "x"})
        )
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(("length", "fine"), [(2000, True), (2001, False)])
def test_a_text_has_so_many_characters_and_no_more(folder: Path, length: int, fine: bool) -> None:
    path = manifest(folder, GOOD | {"text": "x" * length})
    if fine:
        assert len(read_clips(path)[0].text) == length
    else:
        with pytest.raises(UserError, match="2000"):
            read_clips(path)
