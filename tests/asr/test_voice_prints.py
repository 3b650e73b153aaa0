"""Spectra of the speaker encoder."""

from __future__ import annotations

import numpy as np
import pytest

from voxadapt.asr.voice_prints import FFT_SIZE, RATE_HZ, Embedder


@pytest.mark.slow  # importing librosa takes seconds
def test_window_and_filters_are_those_of_the_stock_preprocessing() -> None:
    import librosa
    from scipy.signal import get_window

    embedder = Embedder()
    filters = librosa.filters.mel(sr=RATE_HZ, n_fft=FFT_SIZE, n_mels=40)
    assert np.array_equal(embedder._filters, filters.T)
    assert np.array_equal(embedder._window, get_window("hann", FFT_SIZE).astype(np.float32))
