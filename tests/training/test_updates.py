from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from voxadapt.training import updates
from voxadapt.training.updates import Drift, UpdateProbe, _adamw_update, measure_drift


def _step(weight: torch.Tensor, lr: float, stored=torch.bfloat16):
    parameter = torch.nn.Parameter(weight)
    optimizer = torch.optim.AdamW([parameter], lr=lr, weight_decay=0.0)
    probe = UpdateProbe({"w": parameter}, {"w": stored})
    parameter.grad = torch.ones_like(parameter)
    probe.before_step(optimizer)
    before = parameter.detach().clone()
    optimizer.step()
    return probe.after_step(optimizer), before, parameter.detach()


def test_share_equals_what_rounding_really_does_to_the_weights():
    torch.manual_seed(0)
    values = torch.randn(2000) * 0.02
    for lr in (1e-6, 1e-5, 1e-4):
        lost, before, after = _step(values.bfloat16(), lr)
        still = float((before == after).float().mean())
        assert lost.trained == pytest.approx(still, abs=0.01)
        assert lost.stored == lost.trained


def test_fp32_masters_keep_updates_that_bf16_loses():
    torch.manual_seed(0)
    lost, _, _ = _step(torch.randn(2000) * 0.02, 2e-6)
    assert lost.stored > 0.8
    assert lost.trained < 0.01


def test_a_base_in_float32_is_measured_against_bf16():
    torch.manual_seed(0)
    values = torch.randn(2000) * 0.02
    assert _step(values, 2e-6, torch.float32)[0].stored > 0.8
    assert _step(values, 2e-6, torch.float16)[0].stored < _step(values, 2e-6)[0].stored


def test_weights_without_an_update_are_not_counted():
    parameter = torch.nn.Parameter(torch.randn(100))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.0)
    probe = UpdateProbe({"w": parameter}, {"w": torch.bfloat16})
    parameter.grad = torch.zeros_like(parameter)
    probe.before_step(optimizer)
    optimizer.step()
    assert probe.after_step(optimizer).stored == 0.0


def test_two_hundred_steps_move_fp32_masters_where_pure_bf16_stands_still():
    torch.manual_seed(0)
    start = (torch.randn(2000) * 0.02).bfloat16()
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        parameter = torch.nn.Parameter(start.to(dtype))
        optimizer = torch.optim.AdamW([parameter], lr=5e-7, weight_decay=0.0)
        for _ in range(200):
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        # What a 16-bit checkpoint of it would hold:
        moved[dtype] = float((parameter.detach().bfloat16() != start).float().mean())
    assert moved[torch.float32] > 0.5
    assert moved[torch.bfloat16] < 0.05


def test_tensors_weigh_by_the_values_that_they_stand_for():
    """One tensor loses all of its updates and another none: the larger counts for more."""
    lost = torch.nn.Parameter(torch.full((2048 * 3,), 100.0))  # of which every third is looked at
    kept = torch.nn.Parameter(torch.full((2048,), 1e-3))
    optimizer = torch.optim.AdamW([lost, kept], lr=1e-4, weight_decay=0.0)
    probe = UpdateProbe({"a": lost, "b": kept}, {"a": torch.bfloat16, "b": torch.bfloat16})
    lost.grad, kept.grad = torch.ones_like(lost), torch.ones_like(kept)
    probe.before_step(optimizer)
    optimizer.step()
    assert probe.after_step(optimizer).stored == pytest.approx(0.75)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_the_update_is_the_one_that_the_optimizer_took(weight_decay):
    """At the rate from which half a step of bfloat16 is passed, decay and corrections included."""
    group = {"betas": (0.8, 0.9), "eps": 1e-2, "weight_decay": weight_decay, "lr": 0.01}
    parameter = torch.nn.Parameter(torch.randn(50, dtype=torch.float64))
    optimizer = torch.optim.AdamW([parameter], **group)
    for _ in range(3):
        parameter.grad = torch.randn(50, dtype=torch.float64)
        before = parameter.detach().clone()
        optimizer.step()
    state = optimizer.state[parameter]
    update = _adamw_update(state["exp_avg"], state["exp_avg_sq"], 3, before, group)
    torch.testing.assert_close(update, parameter.detach() - before)


def test_drift_is_relative_to_the_base_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(updates, "_CHUNK", 4)
    base = {
        "talker.model.norm.weight": torch.tensor([3.0, 4.0, 0.0, 0.0, 0.0]),
        "talker.model.layers.0.a": torch.ones(8),
        "talker.model.layers.1.a": torch.zeros(8),
        "talker.codec_head.weight": torch.zeros(2, 2),
        "speaker_encoder.x": torch.ones(3),
    }
    save_file(base, tmp_path / "model.safetensors")
    now = {
        "talker.model.norm.weight": torch.tensor([3.0, 4.0, 0.0, 3.0, 4.0]),
        "talker.model.layers.0.a": torch.full((8,), 1.5),
        "talker.codec_head.weight": torch.eye(2),
    }
    found = measure_drift(now, tmp_path, lambda name, old: None if "speaker" in name else old)
    assert found == {
        "talker.model.norm": Drift(1.0, 2 / 5),
        "talker.model.layers": Drift(0.5, 8 / 16),
        "talker.codec_head": Drift(None, 2 / 4),
    }
