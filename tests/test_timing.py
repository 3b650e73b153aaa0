"""Predicted seconds are sums of what is done; the loop is timed on the device."""

from __future__ import annotations

import pytest
import torch

from test_budget import NONE, SMALL
from voxadapt import timing
from voxadapt.budget import Clip, Model
from voxadapt.params import ScoreParams
from voxadapt.shapes import config_values

RATES = timing.Rates(
    start_s=5.0, step_s=0.1, row_s=0.01, decode_s=0.001, encode_s=0.002, clip_s=0.5
)
CLIPS = [Clip("selection", 9, frames, frames + 20) for frames in (30, 10, 20)]


def test_a_batch_takes_as_many_steps_as_its_longest_row_has_frames() -> None:
    assert RATES.tokens_s(CLIPS, 8) == pytest.approx(0.1 * 30 + 0.01 * 60)
    assert RATES.tokens_s(CLIPS, 2) == pytest.approx(0.1 * (20 + 30) + 0.01 * 60)
    assert RATES.tokens_s([], 2) == 0.0


def test_takes_and_clips_are_counted() -> None:
    once = RATES.score_s(CLIPS, ScoreParams(takes=1, batch_size=8))
    assert once == pytest.approx(3.6 + 0.001 * 60 + 3 * 0.5)
    assert RATES.score_s(CLIPS, ScoreParams(takes=3, batch_size=8)) == pytest.approx(3 * once)


def test_training_clips_are_coded_but_not_heard() -> None:
    training = Clip("train", 9, 100, 120)
    assert RATES.codes_s([training]) == pytest.approx(5.0 + 0.002 * 100)
    heard = 2 * 0.5 * 3 + 0.001 * 60 + 0.002 * 60
    assert RATES.codes_s([training, *CLIPS]) == pytest.approx(5.0 + 0.002 * 100 + heard)


def test_the_loop_is_timed_on_the_device() -> None:
    model = Model.from_config(config_values(SMALL), [], NONE)
    step_s, row_s = timing.loop_seconds(model, ScoreParams(batch_size=2), torch.device("cpu"))
    assert 0 < step_s + row_s < 10
