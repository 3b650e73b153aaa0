from __future__ import annotations

import pytest
import torch

from voxadapt.training.updates import UpdateProbe


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
