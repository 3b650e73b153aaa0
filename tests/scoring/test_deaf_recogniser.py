"""A Whisper that was taught to confuse two sounds is found out; the benchmark tries twenty."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import recogniser
from benchmarks.recogniser import NUM_JUDGED, PARAMS, encode, heard, plant

from voxadapt.asr.whisper import Transcriber
from voxadapt.scoring.recogniser import judge

WHISPER = sorted(Path("data/models/whisper").glob("*.pt"))


@pytest.mark.slow
@pytest.mark.skipif(not WHISPER, reason="the miniature is not here: dvc pull")
def test_a_fine_tuned_confusion_is_named_and_no_other_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Taught in half the benchmark's steps, at twice its rate, from 240 recordings."""
    monkeypatch.setattr(recogniser, "STEPS", 120)
    monkeypatch.setattr(recogniser, "LEARNING_RATE", 2e-3)
    transcriber = Transcriber(WHISPER[0], "en")
    items = encode(transcriber, Path("data/speaker"), NUM_JUDGED + 240)
    judged, taught = items[:NUM_JUDGED], items[NUM_JUDGED:]
    assert judge(heard(transcriber, transcriber._model, judged), PARAMS)["blind"] == []
    named, distance, others = plant(transcriber, judged, taught, ("d", "t"), 0)
    assert named and distance < 0.5 and others <= 1
