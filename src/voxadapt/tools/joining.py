"""Spoken passages joined to one recording: even loudness, pauses by what a passage ends with."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyloudnorm
import soundfile as sf
from numpy.typing import NDArray

from voxadapt.core.files import replacing
from voxadapt.data.audio import HOP_S, frame_levels_db, speech_frames, to_pcm16
from voxadapt.tools.passages import Boundary

PAUSE_S: dict[Boundary, float] = {"clause": 0.15, "sentence": 0.4, "paragraph": 0.9}
EDGE_S = 0.04  # of a passage's own silence that is kept on both sides, and faded
MAX_GAIN_DB = 9.0
PEAK_DBFS = -1.0
BLOCK_S = 0.4  # in which loudness is measured (ITU-R BS.1770)
RF64_ABOVE = 2**32 - 2**20  # bytes that a plain WAV cannot hold

Samples = NDArray[np.float32]
Wave = NDArray[np.int16]


def trim_edges(samples: Samples, sample_rate_hz: int) -> Samples:
    """Cut silence off both ends but for `EDGE_S`, over which the rest is faded in and out.

    Full scale is 1.0; `[N]` gives `[M]`, M <= N, empty where nothing is heard.
    """
    active = np.flatnonzero(speech_frames(frame_levels_db(samples, sample_rate_hz)))
    if not len(active):
        return samples[:0]
    hop, edge = round(HOP_S * sample_rate_hz), round(EDGE_S * sample_rate_hz)
    start = max(0, active[0] * hop - edge)
    stop = min(len(samples), (active[-1] + 3) * hop + edge)  # a frame is two and a half hops long
    kept = samples[start:stop].copy()
    ramp = np.linspace(0.0, 1.0, min(edge, len(kept) // 2), dtype=np.float32)
    kept[: len(ramp)] *= ramp
    kept[len(kept) - len(ramp) :] *= ramp[::-1]
    return kept


def loudness_lufs(samples: Samples, sample_rate_hz: int) -> float:
    """Measure loudness of `[N]`, full scale 1.0, by ITU-R BS.1770; -inf for silence."""
    if not len(samples):
        return -np.inf
    short = max(0, round(BLOCK_S * sample_rate_hz) + 1 - len(samples))
    repeated = np.pad(samples, (0, short), mode="wrap")
    with np.errstate(divide="ignore"):
        return float(pyloudnorm.Meter(sample_rate_hz).integrated_loudness(repeated))


def join_passages(
    path: Path,
    passages: Sequence[tuple[Callable[[], Wave | None], Boundary]],
    sample_rate_hz: int,
    container: str = "WAV",
) -> float:
    """Write passages one after another, and return the length in seconds.

    Of each are given what loads its samples (None where there are none) and what it ends with; one
    of them is in memory at a time. Each is brought to their median loudness, by `MAX_GAIN_DB` at
    most and no nearer to full scale than `PEAK_DBFS`. A WAV that is too long for one becomes RF64.
    """

    def trimmed() -> Iterator[tuple[Samples, Boundary]]:
        for load, boundary in passages:
            wave = load()
            samples: Samples = np.zeros(0, np.float32)
            if wave is not None and len(wave):
                samples = trim_edges(wave.astype(np.float32) / np.float32(32768), sample_rate_hz)
            yield samples, boundary

    levels, num_samples = [], 0
    for samples, boundary in trimmed():
        levels.append(loudness_lufs(samples, sample_rate_hz))
        num_samples += len(samples) + round(PAUSE_S[boundary] * sample_rate_hz)
    heard = [level for level in levels if np.isfinite(level)]
    target = float(np.median(heard)) if heard else 0.0
    if container == "WAV" and 2 * num_samples > RF64_ABOVE:
        container = "RF64"
    with (
        replacing(path) as part,
        sf.SoundFile(part, "w", sample_rate_hz, 1, format=container) as sound,
    ):
        pause_s = 0.0
        for (samples, boundary), level in zip(trimmed(), levels, strict=True):
            sound.write(np.zeros(round(pause_s * sample_rate_hz), np.int16))
            sound.write(_amplified(samples, target - level))
            pause_s = PAUSE_S[boundary]
        return float(sound.frames) / sample_rate_hz


def _amplified(samples: Samples, gain_db: float) -> Wave:
    peak = float(np.abs(samples).max(initial=0.0))
    if not np.isfinite(gain_db) or not peak:
        gain_db = 0.0
    factor = 10.0 ** (np.clip(gain_db, -MAX_GAIN_DB, MAX_GAIN_DB) / 20.0)
    if peak * factor > 10.0 ** (PEAK_DBFS / 20.0):
        factor = min(factor, max(1.0, 10.0 ** (PEAK_DBFS / 20.0) / peak))
    return to_pcm16(samples * factor)
