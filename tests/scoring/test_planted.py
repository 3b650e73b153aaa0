"""Defects planted into real recordings are seen through the whole of scoring: ASR, voice, shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from voxadapt.asr.voice_prints import Embedder
from voxadapt.asr.whisper import Transcriber
from voxadapt.core.params import ScoreParams, SelectParams
from voxadapt.data.audio import read_audio
from voxadapt.scoring.rows import EvalClip, ScoreRow
from voxadapt.scoring.score_clips import score_clips
from voxadapt.scoring.similarity import build_scale

SPEAKER, MALAY = Path("data/speaker"), Path("data/language/malay")
WHISPER = Path("data/models/whisper/miniature.pt")
PARAMS = ScoreParams(min_speech_s=0.5)
NUM_REAL = 5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WHISPER.is_file(), reason="the miniature is not here: dvc pull"),
]


def listed(folder: Path, count: int) -> list[dict[str, str]]:
    lines = (folder / "train_raw.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ScoreRow]:
    """Score a recording, as it is and with each defect, against the speaker's other ones."""
    folder = tmp_path_factory.mktemp("planted")
    real = [
        EvalClip(candidate="real", split="selection", text_id=f"r{index}", lang="en",
             text=row["text"], wav=str((SPEAKER / row["audio"]).resolve()))
        for index, row in enumerate(listed(SPEAKER, 10 + NUM_REAL)[10:])
    ]  # fmt: skip
    embedder = Embedder()
    reference, scale, _ = build_scale(
        embedder, real, {}, SelectParams(num_bootstrap=200), root=folder, min_speech_s=0.5
    )
    clean, rate_hz = read_audio(real[0].wav)
    foreign = listed(MALAY, 2)[1]
    half, second = len(clean) // 2, np.zeros(round(1.3 * rate_hz), np.float32)
    planted = {
        "clean": clean,
        "cut_in_half": clean[:half],
        "cut_in_a_word": clean[: round(0.6 * len(clean))],
        "barely_begun": clean[: round(0.4 * rate_hz)],
        "late": np.concatenate([second, clean]),
        "pause": np.concatenate([clean[:half], second, clean[half:]]),
        "never_ends": np.concatenate([clean, second]),
        "twice": np.concatenate([clean, clean]),
        "six_times": np.concatenate([clean] * 6),
        "overdriven": np.clip(clean * 20, -1.0, 1.0),
        "silent": np.zeros(2 * rate_hz, np.float32),
        "foreign": read_audio(MALAY / foreign["audio"])[0],
        "runaway": clean,
    }
    clips = []
    for name, wave in planted.items():
        sf.write(folder / f"{name}.wav", wave, rate_hz)
        clips.append(
            EvalClip(candidate="epoch-1", split="selection", text_id=name, lang="en",
                 text=foreign["text"] if name == "foreign" else real[0].text, wav=f"{name}.wav",
                 hit_max_tokens=name == "runaway")
        )  # fmt: skip
    transcriber = Transcriber(WHISPER, "en")
    scored = score_clips(clips, transcriber, embedder, reference, scale, PARAMS, root=folder)
    return {row.text_id: row for row in scored}


def test_the_recording_itself_has_no_flag(rows: Mapping[str, ScoreRow]) -> None:
    clean = rows["clean"]
    assert clean.flags == () and clean.wer == clean.cer == 0.0
    assert clean.dur_ratio == pytest.approx(1.0, abs=0.2) and not clean.failed


@pytest.mark.parametrize(
    ("defect", "flags"),
    [
        ("cut_in_half", {"rate_low", "truncated_tail"}),
        ("cut_in_a_word", {"abrupt_end", "rate_low"}),
        ("barely_begun", {"rate_low", "truncated_tail", "abrupt_end", "too_little_speech"}),
        ("late", {"leading_silence"}),
        ("pause", {"internal_silence"}),
        ("never_ends", {"trailing_silence"}),
        ("twice", {"rate_high"}),
        ("six_times", {"rate_high", "long_clip", "high_compression"}),
        ("overdriven", {"clipping", "truncated_tail"}),
        (
            "silent",
            {"rate_low", "leading_silence", "too_little_speech", "truncated_tail", "low_logprob"},
        ),
        ("foreign", {"wrong_language", "low_logprob"}),
        ("runaway", {"hit_max_tokens"}),
    ],
)
def test_a_planted_defect_is_seen(
    rows: Mapping[str, ScoreRow], defect: str, flags: set[str]
) -> None:
    assert set(rows[defect].flags) == flags


def test_a_voice_that_cannot_be_heard_has_no_similarity(rows: Mapping[str, ScoreRow]) -> None:
    assert rows["silent"].sim is None and rows["barely_begun"].sim is None
    assert rows["silent"].failed and rows["twice"].failed and rows["runaway"].failed
    assert rows["clean"].sim is not None and rows["foreign"].sim is not None
    assert rows["foreign"].sim < rows["clean"].sim - 0.1
