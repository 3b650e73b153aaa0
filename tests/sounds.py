"""Waveforms for the tests: a voice that voice activity detection accepts, and tiny models."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

RATE_HZ = 24_000
Wave = NDArray[np.float32]


def make_voice(duration_s: float, pitch_hz: float = 120.0, seed: int = 0) -> Wave:
    """Return a buzzing source through moving formants, 10 ms faded in and out."""
    return _make_voice(duration_s, pitch_hz, seed).copy()


@cache
def _make_voice(duration_s: float, pitch_hz: float, seed: int) -> Wave:
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    pitch = pitch_hz * (1 + 0.08 * np.sin(2 * np.pi * 0.7 * time_s + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    wave = np.zeros_like(time_s)
    for centre, width in ((500, 150), (1500, 200), (2500, 300)):
        formant = centre * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(1.5, 3) * time_s))
        for harmonic in range(1, 30):
            gain = np.exp(-(((harmonic * pitch - formant) / width) ** 2))
            wave += gain * np.sin(harmonic * phase)
    wave *= 0.6 + 0.4 * np.sin(2 * np.pi * 4 * time_s)
    edge = np.minimum(1.0, np.minimum(time_s, time_s[::-1]) / 0.01)
    wave = wave / np.abs(wave).max() * 0.5 * edge + 0.0003 * rng.standard_normal(len(time_s))
    return wave.astype(np.float32)


def silence(duration_s: float) -> Wave:
    """Return digital silence."""
    return np.zeros(round(duration_s * RATE_HZ), np.float32)


def write(path: Path, wave: Wave, sample_rate_hz: int = RATE_HZ) -> Path:
    """Write 16-bit WAV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, wave, sample_rate_hz, subtype="PCM_16")
    return path


def make_whisper(
    path: Path, seed: int = 0, num_vocab: int = 51865, num_audio_ctx: int = 250
) -> Path:
    """Write a tiny random Whisper checkpoint (5 s window), as openai-whisper reads it."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(seed)
    dims = ModelDimensions(
        n_mels=80, n_audio_ctx=num_audio_ctx, n_audio_state=16, n_audio_head=2, n_audio_layer=1,
        n_vocab=num_vocab, n_text_ctx=64, n_text_state=16, n_text_head=2, n_text_layer=1,
    )  # fmt: skip
    model = Whisper(dims)
    torch.nn.init.normal_(model.decoder.positional_embedding, std=0.5)
    torch.nn.init.normal_(model.decoder.token_embedding.weight, std=0.5)
    torch.save({"dims": dims.__dict__, "model_state_dict": model.state_dict()}, path)
    return path
