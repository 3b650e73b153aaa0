"""F0 against tones whose F0 is known."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from voxadapt.scoring.pitch import HOP_S, RATE_HZ, Pitch, PitchTracker, measure_pitch

TRACKER = PitchTracker()


def sung(f0_hz: NDArray[np.float64], seed: int = 0) -> NDArray[np.float32]:
    """Return a voice-like sound with this F0 in each sample."""
    phase = 2 * np.pi * np.cumsum(f0_hz) / RATE_HZ
    wave = sum(
        np.sin(h * phase) / h * np.exp(-(((h * f0_hz - 700) / 900) ** 2) / 2) for h in range(1, 20)
    )
    noise = np.random.default_rng(seed).normal(0, 0.004, len(f0_hz))
    return np.asarray(0.5 * wave / np.abs(wave).max() + noise, np.float32)


def glide(low_hz: float, high_hz: float, seconds: float = 2.0) -> NDArray[np.float64]:
    return np.geomspace(low_hz, high_hz, round(seconds * RATE_HZ))


@pytest.mark.parametrize(("low", "high"), [(90, 180), (220, 130), (150, 150), (300, 380)])
def test_f0_of_a_glide_is_found(low: float, high: float) -> None:
    f0 = glide(low, high)
    found = TRACKER.f0_hz(sung(f0), RATE_HZ)
    voiced = np.isfinite(found)
    truth = f0[
        np.minimum(np.round(np.arange(len(found)) * HOP_S * RATE_HZ).astype(int), len(f0) - 1)
    ]
    off = np.abs(12 * np.log2(found[voiced] / truth[voiced]))
    assert voiced.mean() > 0.9 and np.median(off) < 0.1 and np.mean(off > 0.5) < 0.03


def test_melody_of_a_glide() -> None:
    up, down = (TRACKER.measure(sung(glide(*ends)), RATE_HZ) for ends in ((100, 200), (200, 100)))
    for found in (up, down):
        assert found.median_hz == pytest.approx(141.4, rel=0.02)
        assert found.range_st == pytest.approx(10.8, abs=0.5)  # nine tenths of an octave
    assert up.final_st == pytest.approx(5.6, abs=0.5) and down.final_st == pytest.approx(
        -5.6, abs=0.5
    )


@pytest.mark.slow
def test_another_rate_and_level_change_nothing() -> None:
    wave = sung(glide(120, 180))
    loud, quiet = TRACKER.measure(wave, RATE_HZ), TRACKER.measure(0.2 * wave, RATE_HZ)
    assert quiet.median_hz == pytest.approx(loud.median_hz, rel=0.01)
    up = np.interp(np.arange(0, len(wave), 2 / 3), np.arange(len(wave)), wave).astype(np.float32)
    assert TRACKER.measure(up, 24_000).median_hz == pytest.approx(loud.median_hz, rel=0.01)


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros(RATE_HZ), np.zeros(100)])
def test_silence_has_no_f0(wave: NDArray[np.float64]) -> None:
    assert TRACKER.measure(wave.astype(np.float32), RATE_HZ) == Pitch()


def test_noise_has_no_f0() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
    assert TRACKER.measure(noise, RATE_HZ) == Pitch()


def test_a_jump_is_sudden_and_a_glide_is_not() -> None:
    even = measure_pitch(np.full(100, 150.0))
    moved = measure_pitch(np.r_[np.full(50, 150.0), np.full(50, 195.0)])
    drifting = measure_pitch(np.geomspace(150.0, 195.0, 100))
    assert even.jump_st == 0.0 and even.range_st == 0.0
    assert moved.jump_st == pytest.approx(12 * np.log2(1.3), abs=1e-6)
    assert drifting.jump_st is not None and drifting.jump_st < 1.0


def test_a_phrase_that_begins_anew_is_no_jump_and_one_in_another_pitch_is() -> None:
    phrase, pause = np.geomspace(180.0, 150.0, 100), np.full(30, np.nan)
    again = measure_pitch(np.r_[phrase, pause, phrase]).jump_st
    moved = measure_pitch(np.r_[phrase, pause, 1.3 * phrase]).jump_st
    assert again is not None and again < 1.0
    assert moved == pytest.approx(12 * np.log2(1.3), abs=0.1)


def test_octave_errors_are_left_out() -> None:
    contour = np.full(100, 150.0)
    contour[10:20] = 450.0
    assert measure_pitch(contour).range_st == 0.0


def test_too_little_voice_has_no_melody() -> None:
    assert measure_pitch(np.r_[np.full(5, 150.0), np.full(95, np.nan)]) == Pitch()
    assert measure_pitch(np.full(30, 150.0)).jump_st is None


def test_a_worker_gets_the_tracker() -> None:
    assert isinstance(pickle.loads(pickle.dumps(TRACKER)), PitchTracker)


def test_numbers_of_a_contour() -> None:
    """Frames in semitones above 100 Hz; each number is read off the contour."""

    def hz(*semitones: float) -> NDArray[np.float64]:
        return np.asarray(100.0 * 2.0 ** (np.array(semitones) / 12.0))

    contour = hz(*np.linspace(0, 10, 101), *[2.0] * 10)
    found = measure_pitch(contour)
    low, middle, high = np.percentile([*np.linspace(0, 10, 101), *[2.0] * 10], [5, 50, 95])
    assert found.median_hz == pytest.approx(100 * 2 ** (middle / 12))
    assert found.range_st == pytest.approx(high - low)
    assert found.final_st == pytest.approx(2.0 - middle)
    assert measure_pitch(hz(*[0.0] * 12)).median_hz == pytest.approx(100.0)
    assert measure_pitch(hz(*[0.0] * 11)) == Pitch()
    kept, lost = (measure_pitch(hz(*[0.0] * 30, *[far] * 3)) for far in (13.9, 14.1))
    assert kept.range_st > 0.0 and lost.range_st == 0.0  # type: ignore[operator]
    mixed = hz(*[0.0] * 8, *[20.0] * 4)
    assert measure_pitch(mixed) == Pitch(), "what is left is too little"
    assert measure_pitch(hz(*[0.0] * 19)).jump_st is None
    assert measure_pitch(hz(*[0.0] * 39)).jump_st is None
    assert measure_pitch(hz(*[0.0] * 20, *[4.0] * 20)).jump_st == pytest.approx(4.0)
    assert measure_pitch(hz(*[0.0] * 20, *[4.0] * 19)).jump_st is None


@pytest.mark.parametrize(("gap", "ends"), [(15, False), (16, True)])
def test_a_phrase_ends_after_a_quarter_of_a_second(gap: int, ends: bool) -> None:
    """Thirty frames, a pause and ten higher ones: too short a phrase to be one of its own."""
    low, high = np.full(30, 100.0), np.full(10, 120.0)
    contour = np.r_[low, np.full(gap, np.nan), high]
    found = measure_pitch(contour).jump_st
    assert (found is None) == ends
    whole = np.r_[low, np.full(gap, np.nan), np.full(20, 120.0)]
    assert measure_pitch(whole).jump_st == pytest.approx(12 * np.log2(1.2))
