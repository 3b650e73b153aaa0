"""Predicted naturalness is optional and follows noise."""

from __future__ import annotations

import builtins
import importlib.util
from typing import Any

import numpy as np
import pytest

from sounds import RATE_HZ, make_voice
from voxadapt.core.errors import UserError
from voxadapt.scoring.naturalness import MosPredictor


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "distillmos":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="distillmos"):
        MosPredictor()


@pytest.mark.slow
def test_an_opinion_is_between_one_and_five_and_the_same_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    if importlib.util.find_spec("distillmos") is None:
        pytest.skip("the extra mos is not installed")
    predictor = MosPredictor()
    assert capsys.readouterr().out == ""
    voice = make_voice(2.0)
    noisy = voice + np.random.default_rng(0).normal(0, 0.1, len(voice)).astype(np.float32)
    first, worse = predictor.predict([(voice, RATE_HZ), (noisy, RATE_HZ)])
    assert 1.0 <= worse <= first <= 5.0
    assert predictor.predict([(voice, RATE_HZ)]) == [first]
