"""Who says each utterance, and what several speakers add to a run's identity."""

from __future__ import annotations

from pathlib import Path

import pytest

import fakes
from voxadapt.core.errors import UserError
from voxadapt.core.files import sha256_file
from voxadapt.training.speakers import SpeakerIndex


def rows(*named: tuple[str, str | None, str]):
    return [fakes.make_utterance(i, "x", split, speaker=speaker) for i, speaker, split in named]


def test_one_speaker_says_all_and_adds_nothing():
    index = SpeakerIndex.build(
        rows(("a", None, "train"), ("b", "Bo", "selection")), "Aria", "r.wav"
    )
    assert index.names == ("Aria",) and index.references == (Path("r.wav"),)
    assert dict(index.of_utterance) == {"a": 0, "b": 0}
    assert index.named is False and index.identity() == {}


def test_several_speakers_are_indexed_and_are_part_of_the_run(tmp_path):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(name.encode())
    recordings = {"Bo": tmp_path / "b.wav", "Aria": tmp_path / "a.wav"}
    listed = rows(("x", "Aria", "train"), ("y", "Bo", "train"), ("z", None, "selection"))
    index = SpeakerIndex.build(listed, "Bo", "r.wav", recordings)
    assert index.names == ("Bo", "Aria") and index.named is True
    assert dict(index.of_utterance) == {"x": 1, "y": 0, "z": 0}
    assert index.identity() == {
        "spoken_by": {"x": 1, "y": 0, "z": 0},
        "references": [sha256_file(path) for path in recordings.values()],
        "speakers": ["Bo", "Aria"],
    }


def test_a_speaker_without_a_recording_or_clips_to_train_on_is_named():
    listed = rows(("x", "Aria", "train"), ("y", "Bo", "selection"), ("z", "Cleo", "train"))
    with pytest.raises(UserError) as caught:
        SpeakerIndex.build(listed, "Aria", "r.wav", {"Aria": "a.wav", "Bo": "b.wav"})
    assert [problem.where for problem in caught.value.problems] == ["Cleo", "speaker Bo"]
