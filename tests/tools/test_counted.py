"""Training on a GPU that is not there: what it would hold, and what it would wait for."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from benchmarks import counted, gpu, results
from benchmarks.memory import LOW, predicted

from voxadapt.model.shapes import SHAPES, Shape
from voxadapt.tools.memory import PROCESS_BYTES
from voxadapt.tools.sizes import Codec

SMALL = Shape(
    "0b6", hidden=256, intermediate=768, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64,
    text_hidden=16, predictor_hidden=128, predictor_intermediate=384, predictor_layers=1,
    encoder_channels=16,
)  # fmt: skip
FRAMES = 60
#: Where the host reads a value of the device: the stock mask, the logged losses, the norm of the
#: gradients, and the look at an update that is taken every tenth step.
WAITS = {
    "masking_utils.py:_ignore_causal_mask_sdpa", "losses.py:add", "trainer.py:train_step",
    "updates.py:after_step",
}  # fmt: skip


def planned(shape: Shape, given: dict) -> float:
    said = predicted(shape, FRAMES, {"speaker_name": "A", **given}, Codec(0, 64, 96), "cuda")
    return said - PROCESS_BYTES["cuda"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": 4, "compute_dtype": "bfloat16"},
        {"batch_size": 4, "compute_dtype": "bfloat16", "gradient_checkpointing": True},
        {**LOW, "batch_size": 4, "frame_dropout": 0.5, "gradient_accumulation_steps": 2},
    ],
    ids=["masters", "checkpointed", "low memory, accumulated"],
)
def test_a_step_stays_on_the_gpu_and_takes_what_is_planned(given):
    count = counted.train(SMALL, given, FRAMES, codec=False)
    assert planned(SMALL, given) == pytest.approx(count.peak, rel=0.15)
    assert {place for _, place in count.waits} == WAITS
    batches = given.get("gradient_accumulation_steps", 1) + 1  # of a step, and the held-out one
    times = Counter(place for _, place in count.waits.elements())
    assert times["losses.py:add"] == times["masking_utils.py:_ignore_causal_mask_sdpa"] == batches
    assert times["trainer.py:train_step"] == 1


def as_on_a_cpu(query, key, value, mask=None, dropout_p=0.0, is_causal=False, scale=None, **_gqa):
    """Attend by the kernel that a CPU takes, so that both count the same operations."""
    assert mask is None
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, scale=scale
    )[0]


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"compute_dtype": "bfloat16"}, LOW], ids=["masters", "low"])
def test_what_is_counted_on_a_pretended_device_is_counted_on_a_real_one(given, monkeypatch):
    """All but a few tensors of the data, which on a CPU are where the model is."""
    monkeypatch.setattr(counted, "_attention", as_on_a_cpu)
    given = {"batch_size": 4, **given}
    pretended = counted.train(SMALL, given, FRAMES, codec=False)
    real = counted.train(SMALL, given, FRAMES, "cpu", codec=False)
    (_, parts), (_, real_parts) = pretended.moments["forward"], real.moments["forward"]
    for part in ("activations", "casts", "gradients", "optimizer"):
        assert parts.get(part, 0) == real_parts.get(part, 0), part
    assert pretended.peak == pytest.approx(real.peak, rel=0.001)


@pytest.mark.slow
def test_the_codec_is_let_go_before_training():
    count = counted.train(SMALL, {"batch_size": 2}, 20)
    assert count.parts["codec"] == 0
    assert count.peak > 1e9  # while the speaker vector was computed


def test_tensors_of_the_cpu_and_of_the_gpu_do_not_mix():
    with counted.pretended() as count:
        there, here = torch.ones(256, device=counted.GPU), torch.ones(256)
        assert count.parts["weights"] == 1024
        with pytest.raises(RuntimeError, match="mixes the GPU with tensors of the CPU"):
            there + here
        assert not count.waits
        assert float((there + here.to(counted.GPU)).sum()) == 1.0  # nobody knows it
        assert sum(count.waits.values()) == 1
        del there
        assert count.parts["weights"] == 0


@pytest.mark.slow
def test_the_plan_is_what_is_counted_at_a_real_shape():
    label, given = gpu.MODES[1]
    _, said, count = counted.row("0.6B", label, given, "-")
    assert said == pytest.approx(count.peak, rel=0.15)
    assert count.peak <= gpu.BARS_GB["0.6B"] * 1e9


@pytest.mark.slow
def test_the_benchmark_for_a_gpu_runs_through_on_a_cpu(monkeypatch, capsys):
    before = Path(results.RESULTS).read_bytes()
    monkeypatch.setattr(sys, "argv", ["gpu", "--rehearse", "--runs", "1", "--sizes", "0.6B"])
    gpu.main()
    said = capsys.readouterr().out
    assert "## Decoding on a GPU" in said
    assert "## Memory of training on a GPU" in said
    assert Path(results.RESULTS).read_bytes() == before
    assert gpu.DEVICE == "cuda"
    assert set(gpu.SHAPES) == set(SHAPES)


def test_a_card_that_is_too_small_has_its_line():
    row = gpu.Trained("1.7B, low memory", 15.0, None, []).row()
    assert row == ["1.7B, low memory", "15.0 GB", "does not fit", "-", "-"]


def test_without_a_gpu_the_sections_point_to_what_was_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    gpu.not_measured()
    assert "(#memory-of-training-on-a-gpu-counted)" in capsys.readouterr().out
