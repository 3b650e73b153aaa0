"""Predicted seconds are sums of what is done; training and the loop are timed on the device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_budget import NONE

from voxadapt.core.errors import UserError
from voxadapt.core.params import ScoreParams, TrainParams, load_params
from voxadapt.generation.decoding import SHRINK_AT
from voxadapt.model.shapes import Shape, config_values
from voxadapt.tools import timing
from voxadapt.tools.sizes import BatchShape, Clip, Model, text_rows
from voxadapt.tools.timing import Loop, Pass, Rates, Speed, Starts
from voxadapt.training.occurring import TEXT_EMBEDDING

START = Starts(
    begin_s=1.0, hearing_begin_s=0.5, learning_begin_s=2.0, speaking_begin_s=3.0, codec_s=0.1,
    model_s=0.7, clone_s=0.3, whisper_s=0.2, voice_s=0.4,
)  # fmt: skip
LOOP = Loop(step_s=0.1, row_s=0.01, fill_s=0.5, fill_row_s=0.05)
RATES = Rates(
    START, LOOP, decode_s=0.001, round_s=0.004, encode_s=0.002, hear_s=0.5, voice_s=0.003,
    check_s=0.01,
)  # fmt: skip
CLIPS = [Clip("selection", frames, frames, frames + 20) for frames in (30, 10, 20)]
SPEED = Speed(Pass(1e-6, 1e-7, 1e-5), Pass(4e-7, 4e-8, 4e-6), 1e-9, 2e-9, 3e-9, 4e-9)
#: One row at a time ends, far apart: the batch shrinks whenever the loop's rule says so.
ENDS = [10, 20, 30]


TINY = Shape(
    "0b6", hidden=64, intermediate=128, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=32,
    text_hidden=64, predictor_hidden=64, predictor_intermediate=128, predictor_layers=2,
    encoder_channels=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def small() -> Model:
    return Model.from_config(config_values(TINY), [], NONE)


def train_params(**changed) -> TrainParams:
    return TrainParams(**{"speaker_name": "A", "compute_dtype": "float32", **changed})


def test_a_stage_starts_with_its_own_imports_and_weights() -> None:
    total = {name: sum(START.times(name).values()) for name in ("audit", "codes", "train", "score")}
    assert total["audit"] == pytest.approx(1.0 + 0.5 + 0.2)
    assert total["codes"] == pytest.approx(1.0 + 3.0 + 0.1 + 0.2 + 0.4)
    assert total["train"] == pytest.approx(1.0 + 2.0 + 0.7)
    assert total["score"] == pytest.approx(1.0 + 3.0 + 0.7 + 0.2 + 0.4)


def test_rows_that_have_ended_leave_the_batch_once_they_are_many() -> None:
    assert 2 / 3 <= SHRINK_AT
    rows = 10 * 3 + 10 * 2 + 10 * 1
    assert LOOP.batch_s(ENDS) == pytest.approx(0.5 + 3 * 0.05 + 30 * 0.1 + rows * 0.01)
    together = [20] * 9 + [21]  # nine leave at once
    rows = 20 * 10 + 1
    assert LOOP.batch_s(together) == pytest.approx(0.5 + 10 * 0.05 + 21 * 0.1 + rows * 0.01)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_a_batch_costs_between_its_frames_and_all_rows_to_the_end(frames: list[int]) -> None:
    fixed = 0.5 + 0.05 * len(frames) + 0.1 * max(frames)
    found = LOOP.batch_s(frames) - fixed
    assert 0.01 * sum(frames) - 1e-9 <= found <= 0.01 * len(frames) * max(frames) + 1e-9


def test_sentences_of_like_length_share_a_batch_and_batches_are_of_like_size() -> None:
    assert RATES.tokens_s(CLIPS, 8) == pytest.approx(LOOP.batch_s(ENDS))
    assert RATES.tokens_s(CLIPS, 2) == pytest.approx(LOOP.batch_s([10, 20]) + LOOP.batch_s([30]))
    assert RATES.tokens_s([], 2) == 0.0


def test_takes_and_clips_are_counted() -> None:
    once = RATES.score_times(CLIPS, ScoreParams(takes=1, batch_size=8))
    assert once["hearing"] == pytest.approx(3 * 0.5)
    assert once["sound"] == pytest.approx(0.001 * 60)
    assert once["voices"] == pytest.approx(0.003 * 60)
    thrice = RATES.score_times(CLIPS, ScoreParams(takes=3, batch_size=8))
    assert thrice == pytest.approx(timing.added(once, times=3))


def test_the_audit_hears_every_clip_and_the_codes_stage_what_it_decodes() -> None:
    training = Clip("train", 9, 100, 120)
    audit = RATES.audit_times([training, *CLIPS])
    assert (audit["hearing"], audit["checks"]) == pytest.approx((4 * 0.5, 4 * 0.01))
    codes = RATES.codes_times([training, *CLIPS], other_frames=1000)
    assert codes["codes"] == pytest.approx(0.002 * 160)
    assert codes["round trip"] == pytest.approx(0.004 * 60)
    assert codes["hearing"] == pytest.approx(3 * 0.5)
    cut = (12.5 + 20 + 25) + (12.5 + 20)  # the first clip and the third, cut to 1, 1.6 and 2 s
    assert codes["voices"] == pytest.approx(0.003 * (3 * 60 + cut + 1000))
    alone = RATES.codes_times([training])
    assert alone["hearing"] == alone["voices"] == alone["round trip"] == 0.0


def test_seconds_are_added_part_by_part() -> None:
    found = timing.added({"a": 1.0}, {"a": 2.0, "b": 3.0}, times=2.0)
    assert found == {"a": 6.0, "b": 6.0}
    assert timing.added() == {}


def test_the_loop_is_timed_on_the_device(small) -> None:
    loop = timing.measure_loop(small, ScoreParams(batch_size=2), torch.device("cpu"))
    assert 0 < loop.batch_s([1, 1]) < 10


def test_passes_grow_with_positions(small) -> None:
    few = SPEED.learning.batch_s(small, BatchShape(1, 100, 60))
    assert SPEED.learning.batch_s(small, BatchShape(4, 100, 240)) == pytest.approx(4 * few)


def test_an_update_is_paid_once_for_all_batches_of_a_step(small) -> None:
    clips = [Clip("train", 20, 60, 90)] * 8
    single = timing.steps_s(small, train_params(batch_size=4), clips, SPEED)
    more = train_params(batch_size=2, gradient_accumulation_steps=2)
    assert timing.steps_s(small, more, clips, SPEED) == pytest.approx(single)
    twice = timing.steps_s(small, train_params(batch_size=2), clips, SPEED)
    held = sum(small.updated(True, text_rows(clips)).values())
    assert twice - single == pytest.approx(2 * SPEED.update_s * held)


def test_a_text_embedding_that_is_trained_whole_costs_its_gradient(small) -> None:
    clips = [Clip("train", 20, 60, 90)] * 4
    low = train_params(low_memory=True, compute_dtype="bfloat16", batch_size=2)
    rows = small.counts[TEXT_EMBEDDING][0]
    free = Speed(SPEED.learning, SPEED.listening, SPEED.update_s, 0.0, 0.0, 0.0)
    found = timing.steps_s(small, low, clips, SPEED) - timing.steps_s(small, low, clips, free)
    assert found == pytest.approx(2 * rows * SPEED.clearing_s)


def test_epochs_are_counted_and_the_base_is_measured_too(small) -> None:
    clips = [Clip("train", 20, 60, 90)] * 4 + [Clip("selection", 20, 60, 90)] * 2
    one, three = (timing.training_times(small, train_params(), clips, SPEED, n) for n in (1, 3))
    assert three["steps"] == pytest.approx(3 * one["steps"])
    assert three["held-out loss"] == pytest.approx(2 * one["held-out loss"])
    assert three["saving"] == pytest.approx(3 * one["saving"])
    assert one["saving"] == pytest.approx(4e-9 * small.num_trained + 3e-9 * small.num_params)
    part = timing.training_times(small, train_params(), clips, SPEED, 1, whole=False)
    assert part["saving"] < one["saving"]


LOW = {"low_memory": True, "compute_dtype": "bfloat16", "gradient_checkpointing": True}


@pytest.mark.parametrize("changed", [{}, LOW])
def test_training_is_timed_as_it_is_done(small, changed, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "PATIENCE_S", 0.0)
    clips = [Clip("train", 10, 20, 40)] * 4
    speed = timing.measure_speed(
        small, train_params(**changed, batch_size=2), clips, torch.device("cpu")
    )
    assert min(speed.update_s, speed.clearing_s, speed.export_s, speed.state_s) > 0
    assert speed.learning.batch_s(small, BatchShape(2, 40, 40)) > 0
    assert list((tmp_path / ".work").iterdir()) == []


def test_a_start_is_timed_step_by_step(capsys) -> None:
    request = {
        "device": "cpu", "threads": torch.get_num_threads(), "began": 0.0, "base": "none",
        "attention": "sdpa", "asr": [], "recording": ["none.wav", "none"],
        "steps": ["libraries", "hearing"],
    }  # fmt: skip
    timing.take_steps(json.dumps(request))
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["libraries", "hearing"]
    assert all(seconds >= 0 for seconds in found.values())


def test_starts_are_added_up_from_two_processes(monkeypatch) -> None:
    taken = (
        "import json, sys; print(json.dumps(dict.fromkeys(json.loads(sys.argv[1])['steps'], 2)))"
    )
    monkeypatch.setattr(timing, "_START", taken)
    params = load_params(Path(__file__).parents[2] / "profiles" / "miniature.yaml")
    found = timing.begin(params, (Path("a.wav"), "a text"), torch.device("cpu"))
    assert (found.begin_s, found.hearing_begin_s, found.learning_begin_s) == (2, 2, 2)
    assert found.speaking_begin_s == 4
    assert (found.codec_s, found.model_s, found.clone_s) == (2, 2, 2)


def test_a_start_that_fails_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr(timing, "_START", "import sys; sys.exit('No room for libraries.')")
    params = load_params(Path(__file__).parents[2] / "profiles" / "miniature.yaml")
    with pytest.raises(UserError, match=r"No room for libraries\..*--no-measure"):
        timing.begin(params, (Path("a.wav"), "a text"), torch.device("cpu"))
