"""The log's columns, what an epoch sums up to, and messages of divergence and lack of memory."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest
import torch

from voxadapt.core.errors import UserError
from voxadapt.core.params import TrainParams
from voxadapt.training.log import (
    codebook_columns,
    describe,
    epoch_summary,
    explain_memory,
    heldout_columns,
    not_finite,
    say,
    write_log,
    write_speed,
)
from voxadapt.training.losses import LossTotals
from voxadapt.training.state import LoopState

PARAMS = TrainParams(speaker_name="A", sub_talker_weight=0.5)
TOTALS = LossTotals(c0_sum=6.0, sub_sums=(4.0, 8.0), num_labels=3, num_frames=2)


def row(step, epoch, **fields):
    return {"step": step, "epoch": epoch, "lost_update_share": None,
            "lost_update_share_trained": None, **fields}  # fmt: skip


COMMON = {"loss": 6.0, "c0_loss": 5.0, "sub_loss": 4.0, "num_frames": 10}
ROWS = [
    row(0, 0, heldout_loss=9.0),
    row(1, 1, loss=3.0, c0_loss=2.0, sub_loss=2.0, num_labels=10, num_frames=30, frames_per_s=5.0),
    row(2, 1, **COMMON, num_labels=30, lost_update_share=0.5, lost_update_share_trained=0.1),
    row(3, 2, loss=1.0, c0_loss=9.0, sub_loss=9.0, num_labels=1, num_frames=1),
    row(4, 1, **COMMON, num_labels=10, lost_update_share=0.25, lost_update_share_trained=0.3),
]


def test_an_epoch_is_the_mean_over_its_tokens():
    found = epoch_summary(1, LoopState(step=4, rows=ROWS), TOTALS, PARAMS)
    c0, sub = (20 + 150 + 50) / 50, (60 + 40 + 40) / 50
    assert found["train"] == pytest.approx({"loss": c0 + 0.5 * sub, "c0_loss": c0, "sub_loss": sub})
    assert (found["epoch"], found["step"]) == (1, 4)
    assert found["lost_update_share"] == pytest.approx(0.375)
    assert found["lost_update_share_trained"] == pytest.approx(0.2)
    assert found["heldout"] == {
        "num_labels": 3, "codebook_losses": [2.0, 4.0],
        "loss": 3.5, "c0_loss": 2.0, "sub_loss": 3.0,
    }  # fmt: skip
    assert "lost_update_share" not in epoch_summary(2, LoopState(rows=ROWS), TOTALS, PARAMS)


def test_a_split_without_clips_leaves_blanks():
    nothing = LossTotals.zeros(3)
    assert nothing.sub_sums == (0.0, 0.0)
    assert set(heldout_columns(nothing, PARAMS).values()) == {None}
    assert (
        epoch_summary(1, LoopState(rows=ROWS), nothing, PARAMS)["heldout"]["codebook_losses"] == []
    )
    assert codebook_columns(TOTALS) == {"c1_loss": 2.0, "c2_loss": 4.0}


def test_sums_go_on_from_batch_to_batch():
    totals = LossTotals()
    for scale in (1.0, 2.0):
        sums = SimpleNamespace(c0_sum=torch.tensor(3.0 * scale), num_labels=4, num_frames=5,
                               sub_sums=torch.tensor([1.0, 2.0]) * scale)  # fmt: skip
        totals.add(sums)
    assert totals == LossTotals(9.0, (3.0, 6.0), 8, 10)


def test_the_log_is_the_same_bytes_and_speed_has_a_file_of_its_own(tmp_path):
    write_log(tmp_path / "log.csv", [*ROWS, row(5, 2, c10_loss=1 / 3, c2_loss=2.0)])
    write_speed(tmp_path / "speed.csv", ROWS)
    lines = list(csv.DictReader(open(tmp_path / "log.csv", encoding="utf-8")))
    assert list(lines[0])[-2:] == ["c2_loss", "c10_loss"] and "frames_per_s" not in lines[0]
    assert lines[5]["c10_loss"] == "0.333333" and lines[0]["loss"] == ""
    assert (tmp_path / "speed.csv").read_text() == "step,frames_per_s\n1,5\n"


@pytest.mark.parametrize(
    ("last_good", "kept"), [(2, "epoch-2 is kept"), (0, "no epoch was finished")]
)
def test_divergence_names_step_and_clips(last_good, kept):
    (problem,) = not_finite(3, 4, float("nan"), 1.5, ["a", "b"], last_good).problems
    assert problem.where == "epoch 3, step 5: a, b" and kept in problem.fix
    assert problem.found == "loss nan, gradient norm 1.5"


class Laid(list):
    """A layout of so many positions."""

    num_frames = 7


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        ({"batch_size": 2},
         ["Lower train.batch_size", "gradient_checkpointing", "low_memory", "lora"], []),
        ({"batch_size": 1}, ["Set train.gradient_checkpointing"], ["batch_size"]),
        ({"batch_size": 1, "gradient_checkpointing": True},
         ["Set train.low_memory"], ["checkpointing"]),
        ({"batch_size": 1, "gradient_checkpointing": True, "method": "lora"},
         ["Shorten the longest clip, long (7 frames)"], ["low_memory", "method"]),
        ({"batch_size": 1, "gradient_checkpointing": True, "low_memory": True,
          "compute_dtype": "bfloat16"}, ["Shorten the longest clip, long (7 frames)"], ["method"]),
    ],
)  # fmt: skip
def test_lack_of_memory_names_what_is_left_to_lower(options, said, unsaid):
    params = TrainParams(speaker_name="A", **options)
    examples = [
        SimpleNamespace(id="short", layout=Laid("ab")),
        SimpleNamespace(id="long", layout=Laid("abc")),
    ]
    with pytest.raises(UserError) as caught, explain_memory(params, examples, LoopState(epoch=1)):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    (problem,) = caught.value.problems
    assert problem.where == "train.batch_size" and "epoch-1 is kept" in problem.fix
    assert all(part in problem.fix for part in said)
    assert not any(part in problem.fix for part in unsaid)


def test_other_errors_pass_and_a_model_that_does_not_load_names_the_device():
    with pytest.raises(RuntimeError, match="shape"), explain_memory():
        raise RuntimeError("shape mismatch")
    for given in ((), (PARAMS,)):
        with pytest.raises(UserError, match=r"model\.device"), explain_memory(*given):
            raise torch.OutOfMemoryError("full")
    with explain_memory():
        pass


def test_a_line_says_what_is_trained(monkeypatch, capsys):
    counts = [
        SimpleNamespace(num_params=1000, num_trainable=10),
        SimpleNamespace(num_params=500, num_trainable=5),
    ]
    names = {"master_dtype": "float32", "compute_dtype": "bfloat16", "stored_dtype": "bfloat16"}
    line = describe(PARAMS, names, counts, "speaker A in row 3")
    assert "15 of 1,500 parameters; speaker A in row 3" in line and "process" not in line
    assert "2 processes share" in describe(PARAMS, names, counts, "x", 2)
    for name in ("CI", "VOXADAPT_QUIET"):
        monkeypatch.delenv(name, raising=False)
    say("seen")
    for name in ("CI", "VOXADAPT_QUIET"):
        monkeypatch.setenv(name, "1")
        say("unseen")
        monkeypatch.delenv(name)
    assert capsys.readouterr().err == "seen\n"
