"""Naturalness as a listener might rate it, by DistillMOS: reported, and never deciding.

The network was taught to repeat another network's opinion of telephone speech and of English
synthesis. Its figures can say that a candidate sounds more or less clean than another in the same
voice and language; they cannot say that a language is spoken well, and they rise with loud, steady
and slow speech.
"""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from voxadapt.core.compat import stand_in_for_torchaudio
from voxadapt.core.problems import user_error
from voxadapt.data.audio import resample

RATE_HZ = 16000


class MosPredictor:
    """DistillMOS with the weights of its wheel; a `UserError` where the extra `mos` is missing."""

    def __init__(self, device: str = "cpu") -> None:
        stand_in_for_torchaudio()
        try:
            from distillmos import ConvTransformerSQAModel
        except ImportError:
            raise user_error("scoring.no_mos", "score.mos") from None
        with contextlib.redirect_stdout(io.StringIO()):  # it says where its weights are
            self._model = ConvTransformerSQAModel().eval().to(device)
        self._device = device

    def predict(self, waves: Sequence[tuple[NDArray[np.float32], int]]) -> list[float]:
        """Predict the mean opinion of clips, from 1 (bad) to 5 (excellent)."""
        found = []
        for samples, rate_hz in waves:
            wave = torch.from_numpy(resample(samples, rate_hz, RATE_HZ))[None].to(self._device)
            with torch.inference_mode():
                found.append(round(float(self._model(wave)[0]), 4))
        return found
