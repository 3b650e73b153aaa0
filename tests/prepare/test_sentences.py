"""The sentences that candidates speak: those with digits are marked, and never alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from voxadapt.core.errors import UserError
from voxadapt.core.params import Params
from voxadapt.core.paths import Corpus
from voxadapt.data.manifest import Utterance, write_manifest
from voxadapt.pipeline.sentences import track_sentences
from voxadapt.pipeline.tracks import speaker_track


def corpus(tmp_path: Path, texts: list[str]) -> Corpus:
    at = Corpus(tmp_path / "artifacts", tmp_path / "reports")
    write_manifest(
        at.manifest,
        [
            Utterance(id=f"u{n}", audio=f"u{n}.wav", text=text, ref_audio="ref.wav", duration_s=2.0,
                      sample_rate_hz=16000, audio_sha256="0" * 64, split="selection")
            for n, text in enumerate(texts)
        ],
    )  # fmt: skip
    return at


@pytest.fixture
def params() -> Params:
    return Params.model_validate(
        {
            "model": {"base": "base"}, "asr": {"model": "tiny", "language": "mi"},
            "data": {"manifest": "m.jsonl"}, "train": {"speaker_name": "Aria"},
            "candidates": ["base", "epoch-1"],
        }
    )  # fmt: skip


def test_sentences_know_their_slice(tmp_path: Path, params: Params) -> None:
    at = corpus(tmp_path, ["Two cats.", "๓ cats."])
    found = track_sentences(replace(speaker_track(params), corpus=at), "selection")
    assert [item.slice for item in found] == ["ranked", "digits"]


def test_a_split_of_digits_alone_is_refused(tmp_path: Path, params: Params) -> None:
    at = corpus(tmp_path, ["In 1999.", "Room 5."])
    with pytest.raises(UserError, match="a sentence that ranks in the selection split"):
        track_sentences(replace(speaker_track(params), corpus=at), "selection")


def test_a_text_that_was_recorded_twice_is_said_once(tmp_path: Path, params: Params) -> None:
    at = corpus(tmp_path, ["Two cats.", "two cats", "A dog."])
    found = track_sentences(replace(speaker_track(params), corpus=at), "selection")
    assert sorted(item.text.lower().rstrip(".") for item in found) == ["a dog", "two cats"]
