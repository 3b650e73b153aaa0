from __future__ import annotations

import pytest

from voxadapt.training.schedule import learning_rate


def test_warmup_rises_linearly_and_never_starts_at_zero():
    rates = [learning_rate(step, 1.0, "constant", 4, 100) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_constant_does_not_depend_on_the_length_of_the_run():
    for step in (0, 7, 50):
        short, long = (learning_rate(step, 2e-6, "constant", 5, total) for total in (60, 600))
        assert short == long


def test_cosine_falls_from_the_peak_to_nothing():
    rates = [learning_rate(step, 1.0, "cosine", 10, 110) for step in range(110)]
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(150, 1.0, "cosine", 10, 110) == 0.0, "and stays there"
