"""The fundamental frequency (F0) of a clip: its level, range, final movement and sudden changes.

F0 comes from SwiftF0, a small network whose weights are in its wheel; `benchmarks/pitch.py` holds
it against known F0 and against librosa's pYIN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from swift_f0 import SwiftF0

from voxadapt.data.audio import resample

RATE_HZ = 16000
HOP_S = 0.016
F0_HZ = (60.0, 500.0)  # speech of men, women and children
VOICED = 0.5  # SwiftF0's confidence from which a frame is voiced
MAX_OFF_ST = 14.0  # a frame this far from the clip's median is an error of an octave
RANGE_PERCENTILES = (5.0, 95.0)
MIN_VOICED_FRAMES = 12  # 0.2 s; less has no median worth the name
FINAL_FRAMES = 10  # voiced frames at the end that a fall or rise is measured on
SIDE_FRAMES = 20  # voiced frames, 0.3 s, on each side of a sudden change of F0
PHRASE_GAP_FRAMES = 16  # 0.25 s without voice; F0 begins anew after it, in any voice


@dataclass(frozen=True, slots=True)
class Pitch:
    """The F0 of one clip; all None where too little of it is voiced."""

    median_hz: float | None = None  # median of the voiced frames
    range_st: float | None = None  # from their 5th to their 95th percentile, in semitones
    #: Median of the last voiced frames over that of the clip, in semitones: below 0 where the voice
    #: falls at the end, above where it rises.
    final_st: float | None = None
    #: Largest difference in medians between the 0.3 s of voice before and after a moment, or
    #: between two phrases, in semitones; None where there is less voice.
    jump_st: float | None = None


class PitchTracker:
    """SwiftF0 on one thread."""

    def f0_hz(self, wav: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float64]:
        """Return F0 of each frame of 16 ms of mono samples, [N], in Hz; nan where not voiced."""
        wav = resample(wav, sample_rate_hz, RATE_HZ)
        if not len(wav):
            return np.zeros(0)
        found = self._detector.detect(wav, RATE_HZ, *F0_HZ)
        return np.where(found.confidence >= VOICED, found.pitch_hz, np.nan)

    def measure(self, wav: NDArray[np.float32], sample_rate_hz: int) -> Pitch:
        """Measure the F0 of a clip; see `f0_hz`."""
        return measure_pitch(self.f0_hz(wav, sample_rate_hz))

    @cached_property
    def _detector(self) -> SwiftF0:
        return SwiftF0(threads=1, spin=False)

    def __reduce__(self) -> tuple[type[PitchTracker], tuple[()]]:
        """Have a worker elsewhere load the network anew."""
        return PitchTracker, ()


def measure_pitch(f0_hz: NDArray[np.float64]) -> Pitch:
    """Measure level, range, final movement and sudden changes of F0 in frames of 16 ms.

    Frames are nan where unvoiced.
    """
    places = np.flatnonzero(np.isfinite(f0_hz))
    if len(places) < MIN_VOICED_FRAMES:
        return Pitch()
    semitones = 12.0 * np.log2(f0_hz[places])
    kept = np.abs(semitones - np.median(semitones)) <= MAX_OFF_ST
    places, semitones = places[kept], semitones[kept]
    if len(semitones) < MIN_VOICED_FRAMES:
        return Pitch()
    ends = np.flatnonzero(np.diff(places) > PHRASE_GAP_FRAMES) + 1
    median = float(np.median(semitones))
    low, high = np.percentile(semitones, RANGE_PERCENTILES)
    return Pitch(
        median_hz=float(2.0 ** (median / 12.0)),
        range_st=float(high - low),
        final_st=float(np.median(semitones[-FINAL_FRAMES:])) - median,
        jump_st=_largest_jump(np.split(semitones, ends)),
    )


def _largest_jump(phrases: Sequence[NDArray[np.float64]]) -> float | None:
    """Return the largest difference in medians around a moment within a phrase, or of phrases."""
    long_enough = [phrase for phrase in phrases if len(phrase) >= SIDE_FRAMES]
    levels = np.array([np.median(phrase) for phrase in long_enough])
    jumps = [float(np.abs(np.diff(levels)).max())] if len(levels) > 1 else []
    for phrase in long_enough:
        if len(phrase) >= 2 * SIDE_FRAMES:
            sides = np.median(sliding_window_view(phrase, SIDE_FRAMES), axis=1)
            jumps.append(float(np.abs(sides[SIDE_FRAMES:] - sides[:-SIDE_FRAMES]).max()))
    return max(jumps, default=None)
