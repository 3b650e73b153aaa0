"""Long recordings: transcribed in windows, cut where sentences end, transcribed once more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from corpus import speech
from voxadapt.asr.whisper import Transcriber
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json, read_jsonl
from voxadapt.data.audio import resample
from voxadapt.prepare import drafts
from voxadapt.prepare.init import init
from voxadapt.prepare.init_options import InitOptions
from voxadapt.prepare.segment import Phrase, join_phrases, place_words
from voxadapt.prepare.transcript_table import read_table

DATA = Path(__file__).parents[2] / "data"
WHISPER = str(DATA / "models/whisper/miniature.pt")
OPTIONS = InitOptions(
    transcribe=True, asr=WHISPER, asr_language="en", clip_s=(1.0, 6.0), window_s=4.0,
    device="cpu", ref=DATA / "speaker" / "ref.wav",
)  # fmt: skip


def test_words_go_to_the_speech_that_they_overlap() -> None:
    spans = [(0.5, 1.5), (2.5, 3.0), (3.4, 4.0)]
    words = [(" One", 0.0, 0.9, 1.0), (" two", 0.9, 2.4, 1.0), (".", 2.4, 2.6, 1.0),
             (" Three", 2.0, 3.1, 1.0), (" four", 3.1, 4.0, 1.0)]  # fmt: skip
    placed = ["".join(word for word, *_ in own) for own in place_words(words, spans)]
    assert placed == [" One two.", " Three", " four"]


def test_phrases_become_clips_that_end_with_sentences() -> None:
    phrases = [
        Phrase(0.2, 1.4, "One two,", 0.9), Phrase(1.7, 3.0, "three.", 0.9),
        Phrase(3.4, 3.6, "", 0.0), Phrase(3.9, 5.0, "Short.", 0.9),
        Phrase(8.0, 12.5, "Goes on", 0.9, is_open=True), Phrase(12.5, 14.0, "and ends.", 0.9),
        Phrase(14.3, 30.0, "Far too long", 0.9), Phrase(33.0, 33.4, "Ah.", 0.9),
    ]  # fmt: skip
    segments = join_phrases(phrases, "talk.wav", (1.0, 8.0))
    assert [segment.text for segment in segments if segment.problem is None] == [
        "One two, three.",
        "Short.",
        "Goes on and ends.",
    ]
    problems = [segment.problem for segment in segments if segment.problem is not None]
    assert [problem.found.split(":")[0] for problem in problems] == ["16.0 s", "0.7 s"]


@pytest.mark.slow
@pytest.mark.usefixtures("python_alignment")
def test_a_long_recording_becomes_drafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = speech(tmp_path / "talk.wav", 0, 3)
    options = replace(OPTIONS, audio=tmp_path / "talk.wav")
    words = Transcriber.words
    calls: list[int] = []

    def stopping(self: Any, wave: np.ndarray) -> Any:
        calls.append(len(wave))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return words(self, wave)

    monkeypatch.setattr(Transcriber, "words", stopping)
    with pytest.raises(KeyboardInterrupt):
        init(tmp_path / "my-voice", options)
    init(tmp_path / "my-voice", options)
    assert len(calls) == 2 + len(texts) - 1, "one window was transcribed before"
    home = tmp_path / "my-voice" / "data" / "speaker"
    [found] = read_json(home / "init.json")["recordings"].values()
    assert found["left_out"] == [], "the last sentence ends the recording"
    assert {clip["source"] for clip in found["clips"]} == {drafts.DRAFT}
    assert len(found["clips"]) == 3
    assert sum(clip["text"] in texts for clip in found["clips"]) >= 2, "it knows its own speaker"
    assert all(0.0 < clip["probability"] <= 1.0 and clip["heard"] for clip in found["clips"])
    rows = read_jsonl(home / "train_raw.jsonl")
    assert [row["text"] for row in rows] == [clip["text"] for clip in found["clips"]]


@pytest.mark.slow
@pytest.mark.usefixtures("python_alignment")
def test_a_draft_transcribed_otherwise_the_second_time_waits_for_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech(tmp_path / "talk.wav", 0, 3)
    options = replace(OPTIONS, audio=tmp_path / "talk.wav")
    transcribe = drafts.LazyTranscriber.transcribe

    def otherwise(self: Any, *given: Any) -> list[str]:
        return ["Something else altogether.", *transcribe(self, *given)[1:]]

    monkeypatch.setattr(drafts.LazyTranscriber, "transcribe", otherwise)
    init(tmp_path / "my-voice", options)
    home = tmp_path / "my-voice" / "data" / "speaker"
    first, *others = read_table(home / "transcripts.csv")
    assert [row["audio"] for row in read_jsonl(home / "train_raw.jsonl")] == others
    text = (home / "transcripts.csv").read_text(encoding="utf-8-sig")
    assert "%; left out until it is checked" in text
    (home / "transcripts.csv").write_text(text.replace(",no,yes,", ",yes,yes,", 1))
    init(tmp_path / "my-voice", InitOptions())
    assert [row["audio"] for row in read_jsonl(home / "train_raw.jsonl")] == [first, *others]


@pytest.mark.usefixtures("python_alignment")
def test_words_have_times_inside_their_window() -> None:
    transcriber = Transcriber(WHISPER, "en")
    row = read_jsonl(DATA / "speaker" / "train_raw.jsonl")[0]
    samples, rate_hz = sf.read(DATA / "speaker" / row["audio"], dtype="float32")
    wave = resample(samples, rate_hz, 16000)
    words, problem = transcriber.words(wave)
    assert problem is None
    assert "".join(word for word, *_ in words).strip() == row["text"]
    edges = [edge for _, start_s, end_s, _ in words for edge in (start_s, end_s)]
    assert edges == sorted(edges) and 0.0 <= edges[0] and edges[-1] <= len(wave) / 16000 + 0.02
    assert all(0.0 < probability <= 1.0 for *_, probability in words)


def test_what_is_no_recording_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "rec").mkdir()
    for name in ("a.m4a", "b.wav"):
        (tmp_path / "rec" / name).write_bytes(b"nothing that libsndfile reads")
    with pytest.raises(UserError) as caught:
        init(tmp_path / "my-voice", InitOptions(audio=tmp_path / "rec", transcribe=True))
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "my-voice").exists()
