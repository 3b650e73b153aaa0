"""Passages are joined with even loudness and pauses by what they end with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from voxadapt.tools import joining
from voxadapt.tools.joining import PAUSE_S, join_passages, loudness_lufs, trim_edges

RATE_HZ = 24_000


def syllables(seconds: float, level: float, silence_s: float = 0.3) -> Any:
    """Something like speech: a tone in syllables, with silence around it."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = level * np.sin(2 * np.pi * 180 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
    silence = np.zeros(round(silence_s * RATE_HZ))
    return np.round(np.concatenate([silence, wave, silence]) * 32767).astype(np.int16)


def stretches(samples: Any) -> list[tuple[int, int]]:
    """Begin and end of what sounds; gaps above .1 s divide."""
    loud = np.flatnonzero(np.abs(samples) > 0)
    breaks = np.flatnonzero(np.diff(loud) > 0.1 * RATE_HZ)
    starts, stops = [loud[0], *loud[breaks + 1]], [*loud[breaks], loud[-1]]
    return [(int(a), int(b) + 1) for a, b in zip(starts, stops, strict=True)]


def test_loudness_is_even_and_pauses_are_as_named(tmp_path: Path) -> None:
    waves = [syllables(2.0, level) for level in (0.1, 0.25, 0.2, 0.12)]
    ends: list[Any] = ["clause", "sentence", "paragraph", "sentence"]
    parts = [(lambda wave=wave: wave, end) for wave, end in zip(waves, ends, strict=True)]
    length_s = join_passages(tmp_path / "said.wav", parts, RATE_HZ)
    samples, rate_hz = sf.read(tmp_path / "said.wav", dtype="float32")
    assert rate_hz == RATE_HZ and length_s == pytest.approx(len(samples) / RATE_HZ)
    found = stretches(samples)
    loud = [loudness_lufs(samples[a:b], RATE_HZ) for a, b in found]
    assert len(found) == 4 and max(loud) - min(loud) < 0.3
    gaps = [(b[0] - a[1]) / RATE_HZ for a, b in itertools.pairwise(found)]
    for gap_s, end in zip(gaps, ends, strict=False):
        assert PAUSE_S[end] <= gap_s <= PAUSE_S[end] + 2 * joining.EDGE_S + 0.05


def test_gain_is_bounded_and_nothing_clips(tmp_path: Path) -> None:
    waves = [syllables(1.0, level) for level in (0.005, 0.9, 0.9)]
    join_passages(tmp_path / "a.wav", [(lambda w=w: w, "sentence") for w in waves], RATE_HZ)
    samples, _ = sf.read(tmp_path / "a.wav", dtype="float32")
    (quiet, *_) = stretches(samples)
    assert np.abs(samples).max() < 0.95
    gain_db = 20 * np.log10(np.abs(samples[slice(*quiet)]).max() / 0.005)
    assert gain_db == pytest.approx(joining.MAX_GAIN_DB, abs=0.3)


def test_one_passage_is_in_memory_at_a_time(tmp_path: Path) -> None:
    alive = most = 0

    class Wave(np.ndarray):  # counts itself
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def load() -> Any:
        nonlocal alive, most
        wave = syllables(0.5, 0.2).view(Wave)
        alive += 1
        most = max(most, alive)
        return wave

    join_passages(tmp_path / "a.wav", [(load, "sentence")] * 20, RATE_HZ)
    assert most <= 2


def test_silence_short_sounds_and_missing_passages(tmp_path: Path) -> None:
    silence = np.zeros(RATE_HZ, np.int16)
    short = syllables(0.15, 0.2, 0.0)
    parts: Any = [
        (lambda: silence, "sentence"),
        (lambda: None, "sentence"),
        (lambda: short, "clause"),
    ]
    length_s = join_passages(tmp_path / "a.wav", parts, RATE_HZ)
    assert length_s == pytest.approx(2 * PAUSE_S["sentence"] + 0.15, abs=0.06)
    assert np.isfinite(loudness_lufs(short.astype(np.float32) / 32768, RATE_HZ))
    assert trim_edges(np.zeros(5, np.float32), RATE_HZ).size == 0


def test_a_very_long_recording_is_no_broken_wav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "RF64_ABOVE", 10_000)
    wave = syllables(1.0, 0.2)
    join_passages(tmp_path / "a.wav", [(lambda: wave, "sentence")] * 2, RATE_HZ)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    assert sf.info(tmp_path / "a.wav").duration > 2.0
