"""The list of other voices: read strictly, every bad row named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpus import write_clip
from voxadapt.core.errors import UserError
from voxadapt.data.clips import read_other_voices

ROWS = [
    {"audio": "a.wav", "speaker": "Cleo"},
    {"audio": "b.wav", "speaker": "Dan", "text": "what is said"},
    {"audio": "b.wav", "speaker": "Cleo"},
]


def read(folder: Path, *rows: object) -> dict[str, list[Path]]:
    for name in ("a.wav", "b.wav"):
        if not (folder / name).exists():
            write_clip(folder / name, 0.5)
    path = folder / "voices.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return read_other_voices(path)


def test_clips_are_listed_by_speaker_in_their_order(tmp_path: Path) -> None:
    a, b = (tmp_path / name for name in ("a.wav", "b.wav"))
    assert read(tmp_path, *ROWS) == {"Cleo": [a.resolve(), b.resolve()], "Dan": [b.resolve()]}
    assert read(tmp_path) == {}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"audio": "a.wav"}, "voices.jsonl:2: expected audio, speaker"),
        ({"speaker": "Dan"}, "voices.jsonl:2: expected audio, speaker"),
        ({}, "no key"),
        (ROWS[0] | {"age": 9}, "'audio, speaker, age'"),
        (ROWS[0] | {"audio": 3}, "text in audio and speaker"),
        (ROWS[0] | {"speaker": None}, "text in audio and speaker"),
        ({"audio": "c.wav", "speaker": "Dan"}, "no file 'c.wav'"),
        ([1], "voices.jsonl:2"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, ROWS[0], row)
    (problem,) = caught.value.problems
    assert said in str(problem)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.other_voices"):
        read_other_voices(tmp_path / "absent.jsonl")
