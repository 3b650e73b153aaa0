"""Seven bytes a weight: no update is lost, and training goes where float32 masters take it."""

from __future__ import annotations

import pytest
import torch

import fakes
from voxadapt.core.errors import UserError
from voxadapt.core.params import TrainParams
from voxadapt.training import optimizer as compact
from voxadapt.training import trainer as loop
from voxadapt.training.optimizer import (
    BLOCK,
    CompactAdamW,
    make_optimizer,
    round_master,
    sample_moments,
    sample_weights,
)
from voxadapt.training.updates import UpdateProbe

TEXTS = ("hello there", "good day to you")


def make(values: torch.Tensor, lr: float = 1e-3) -> tuple[torch.nn.Parameter, CompactAdamW]:
    parameter = torch.nn.Parameter(values.detach().to(torch.bfloat16, copy=True))
    return parameter, CompactAdamW([{"params": [parameter], "weight_decay": 0.0}], lr)


def everything(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.arange(parameter.numel())


def test_weight_and_low_bits_are_a_24_bit_master_and_the_weight_is_the_nearest_one():
    generator = torch.Generator().manual_seed(0)
    exact = round_master(torch.randn(10_000) * torch.logspace(-30, 3, 10_000))
    weight, low = compact._split(exact, generator)  # already a master: nothing to round
    assert torch.equal(compact._join(weight, low), exact)
    error = (weight.float() - exact).abs()
    assert bool((error <= (exact.bfloat16().float() - exact).abs()).all())


def test_masters_are_rounded_at_random_in_proportion():
    generator = torch.Generator().manual_seed(0)
    for value in (0.0201234, -1.0000123, 3e-7):
        many = torch.full((200_000,), value)
        rounded = compact._join(*compact._split(many, generator))
        distance = float(rounded.max() - rounded.min())
        assert len(rounded.unique()) == 2
        assert float(rounded.double().mean()) == pytest.approx(value, abs=0.01 * distance)


def test_moments_are_rounded_at_random_in_proportion_and_none_becomes_zero():
    generator = torch.Generator().manual_seed(0)
    mean_levels, square_levels = compact._levels(torch.device("cpu"))
    values = torch.randn(BLOCK) * torch.logspace(-5, 0, BLOCK)
    for levels, wanted in ((mean_levels, values), (square_levels, values.square())):
        total = torch.zeros(BLOCK, dtype=torch.float64)
        for _ in range(400):
            decoded = compact._decode(*compact._encode(wanted, levels, generator), levels)
            total += decoded.double()
        error = (total / 400 - wanted).abs() / (wanted.abs() + 1e-9)
        assert float(error.quantile(0.9)) < 0.05
    tiny = torch.cat([torch.tensor([1.0]), torch.full((9,), 1e-30)])
    decoded = compact._decode(*compact._encode(tiny, square_levels, generator), square_levels)
    assert bool((decoded > 0).all())
    zeros = compact._encode(torch.zeros(10), mean_levels, generator)
    assert not bool(compact._decode(*zeros, mean_levels).any())


@pytest.mark.slow
@pytest.mark.parametrize("lr", [1e-8, 1e-6, 1e-4])
def test_no_update_is_lost_however_small_the_rate(lr):
    """Two hundred steps of one sign: the mean weight moves as float32 masters move it."""
    torch.manual_seed(0)
    start = (torch.randn(20_000) * 0.02).bfloat16()
    parameter, optimizer = make(start, lr)
    full = torch.nn.Parameter(start.float())
    reference = torch.optim.AdamW([full], lr=lr, weight_decay=0.0)
    for _ in range(200):
        grad = 1.0 + 0.1 * torch.randn_like(full)
        parameter.grad, full.grad = grad.bfloat16(), grad
        optimizer.step()
        reference.step()
    moved = optimizer.masters(parameter, everything(parameter)).double() - start.double()
    wanted = full.detach().double() - start.double()
    assert float(moved.mean()) == pytest.approx(float(wanted.mean()), rel=0.03)


@pytest.mark.slow
def test_a_gradient_that_changes_slowly_still_moves_the_second_moment():
    """Rounding to the nearest level would keep it at its first value for ever."""
    parameter, optimizer = make(torch.ones(4 * BLOCK), lr=1e-6)
    for step in range(600):
        parameter.grad = torch.full_like(parameter, 1.0 if step < 100 else 2.0)
        optimizer.step()
    _, square = optimizer.moments(parameter, everything(parameter))
    exact = (1 - 0.999**100) * 0.999**500 + 4 * (1 - 0.999**500)
    assert float(square.mean()) == pytest.approx(exact, rel=0.05)


def test_weights_without_a_gradient_stay_bit_identical():
    values = torch.randn(300, 40)
    parameter, optimizer = make(values)
    before = parameter.detach().clone()
    parameter.grad = torch.zeros_like(parameter)
    parameter.grad[7] = 1.0
    optimizer.step()
    still = [row for row in range(300) if row != 7]
    assert torch.equal(parameter[still], before[still])
    assert not torch.equal(parameter[7], before[7])


def test_a_tensor_in_chunks_and_of_odd_size_is_trained_alike(monkeypatch):
    values, grad = torch.randn(1000), torch.randn(1000)
    found = []
    for chunk in (1 << 21, BLOCK):
        monkeypatch.setattr(compact, "_CHUNK", chunk)
        parameter, optimizer = make(values)
        parameter.grad = grad.bfloat16()
        optimizer.step()
        found.append(optimizer.masters(parameter, everything(parameter)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_state_survives_a_pause(tmp_path):
    values = torch.randn(3, 500)
    grads = [torch.randn(3, 500).bfloat16() for _ in range(6)]

    def run(parameter, optimizer, listed):
        for grad in listed:
            parameter.grad = grad.clone()
            optimizer.step()

    whole, optimizer = make(values)
    run(whole, optimizer, grads)
    paused, first = make(values)
    run(paused, first, grads[:3])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    again, second = make(paused.detach())
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run(again, second, grads[3:])
    assert torch.equal(whole, again)
    index = everything(whole)
    assert torch.equal(optimizer.masters(whole, index), second.masters(again, index))


def test_probe_sees_what_bf16_would_lose_and_masters_keep():
    torch.manual_seed(0)
    parameter, optimizer = make(torch.randn(20_000) * 0.02, lr=2e-6)
    probe = UpdateProbe({"w": parameter}, {"w": torch.bfloat16})
    parameter.grad = torch.ones_like(parameter)
    probe.before_step(optimizer)
    optimizer.step()
    lost = probe.after_step(optimizer)
    assert lost.stored > 0.8
    assert lost.trained < 0.1


def test_a_trained_weight_takes_seven_bytes():
    parameter, optimizer = make(torch.randn(1 << 20))
    parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    tensors = [parameter, parameter.grad, *optimizer.state[parameter].values()]
    size = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
    assert size / parameter.numel() == pytest.approx(7 + 8 / BLOCK)


OPTIONS = {"compute_dtype": "bfloat16", "low_memory": True}


@pytest.mark.slow
def test_it_learns_two_clips_as_float32_masters_do(tmp_path):
    base = fakes.make_tts(tmp_path / "base", fakes.TinyShape(dtype="bfloat16"))
    ref = fakes.make_wav(tmp_path / "ref.wav", 3.0)
    two = (fakes.make_codes(9, seed=1), fakes.make_codes(13, seed=2))
    rows = [fakes.make_utterance(f"u{n:03d}", TEXTS[n % 2]) for n in range(240)]
    losses = {}
    for name, options in (("masters", {"compute_dtype": "bfloat16"}), ("compact", OPTIONS)):
        result = loop.train(
            TrainParams(speaker_name="A", batch_size=2, lr=4e-3, warmup_steps=5, **options),
            model_path=base,
            utterances=rows,
            codes={row.id: two[n % 2] for n, row in enumerate(rows)},
            ref_audio=ref,
            out_dir=tmp_path / name,
            work_dir=tmp_path / "work",
            num_epochs=1,
        )
        losses[name] = [row["loss"] for row in result.rows if "loss" in row]
    assert losses["compact"][-1] < 0.15
    halfway = [sum(listed[30:60]) / 30 for listed in losses.values()]
    assert halfway[0] == pytest.approx(halfway[1], rel=0.2)


@pytest.mark.slow
def test_a_run_says_what_its_masters_are_and_goes_on_after_a_pause(world, tmp_path):
    result, at_once, paused = world.train_with_a_pause(tmp_path, **OPTIONS)
    assert result.metrics["precision"]["master_dtype"] == "24-bit"
    assert at_once == paused


@pytest.mark.slow
def test_at_a_small_rate_weights_move_as_far_as_with_float32_masters(world, tmp_path):
    given = {"lr": 1e-5, "compute_dtype": "bfloat16"}
    full = world.train(tmp_path / "full", 1, **given)
    small = world.train(tmp_path / "small", 1, **given, low_memory=True)
    epoch = small.metrics["epochs"][0]
    assert epoch["lost_update_share"] > 0.5
    assert epoch["lost_update_share_trained"] < 0.1
    assert small.rows[-1]["loss"] == pytest.approx(full.rows[-1]["loss"], rel=0.02)


@pytest.mark.slow
def test_out_of_memory_names_the_settings_that_are_left_and_what_is_kept(
    world, tmp_path, monkeypatch
):
    world.train(tmp_path, 1, **OPTIONS)

    def full(*_args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(loop, "predict", full)
    with pytest.raises(UserError) as caught:
        world.train(tmp_path, 2, **OPTIONS)
    (problem,) = caught.value.problems
    assert "gradient_checkpointing: true" in problem.fix
    assert "low_memory: true" not in problem.fix
    assert "epoch-1 is kept" in problem.fix
    assert (tmp_path / "out" / "epoch-1" / "meta.json").is_file()


def test_loading_without_room_is_a_user_error(world, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(loop, "load_tts", full)
    with pytest.raises(UserError, match=r"model\.device"):
        world.train(tmp_path, 1)


def test_params_refuse_two_kinds_of_masters():
    for options in ({"compute_dtype": "float32"}, {"master_weights": False}):
        with pytest.raises(ValueError, match="masters of its own"):
            TrainParams(**{"speaker_name": "A", **OPTIONS, **options})


def test_the_ends_of_a_block_and_zero_are_levels_of_their_own():
    generator = torch.Generator().manual_seed(0)
    mean_levels, square_levels = compact._levels(torch.device("cpu"))
    assert len(mean_levels) == 255 and len(square_levels) == 256
    assert float(mean_levels[127]) == 0.0 and bool((mean_levels.diff() > 0).all())
    assert float(square_levels[0]) > 0 and bool((square_levels.diff() > 0).all())
    values = torch.zeros(2 * BLOCK + 5)
    values[[0, 1, BLOCK, -1]] = torch.tensor([-3.0, 3.0, -0.25, 7.0])
    code, scale = compact._encode(values, mean_levels, generator)
    assert scale.tolist() == [3.0, 0.25, 7.0] and len(code) == len(values)
    assert torch.equal(compact._decode(code, scale, mean_levels), values)
    squares = values.square()
    decoded = compact._decode(*compact._encode(squares, square_levels, generator), square_levels)
    assert torch.equal(decoded[squares > 0], squares[squares > 0])
    assert bool((decoded[squares == 0] > 0).all()) and float(decoded[2]) < 1e-15


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_a_step_is_adamws_with_its_decay_and_its_corrections(weight_decay):
    """From the first step on, when both corrections are large; two blocks and a half."""
    torch.manual_seed(1)
    start = torch.randn(640).bfloat16()
    parameter = torch.nn.Parameter(start.clone())
    groups = [{"params": [parameter], "weight_decay": weight_decay}]
    optimizer = CompactAdamW(groups, 0.01, betas=(0.8, 0.95), eps=1e-3)
    full = torch.nn.Parameter(start.float())
    options = {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": weight_decay}
    reference = torch.optim.AdamW([full], lr=0.01, **options)
    for step in range(5):
        full.grad = torch.randn(640) * (step + 1)
        parameter.grad = full.grad.bfloat16()
        optimizer.step()
        reference.step()
        moved = optimizer.masters(parameter, everything(parameter)) - start.float()
        wanted = full.detach() - start.float()
        assert float((moved - wanted).abs().mean()) < 0.05 * float(wanted.abs().mean())
    mean, square = optimizer.moments(parameter, everything(parameter))
    state = reference.state[full]
    assert float((mean - state["exp_avg"]).abs().mean()) < 0.1 * float(
        state["exp_avg"].abs().mean()
    )
    assert float(square.mean()) == pytest.approx(float(state["exp_avg_sq"].mean()), rel=0.05)
    for found, exact in zip(
        sample_moments(reference, full, torch.tensor([3])), ("exp_avg", "exp_avg_sq"), strict=True
    ):
        assert float(found) == float(state[exact][3])
    assert float(sample_weights(reference, full, torch.tensor([3]))) == float(full[3])


def test_matrices_alone_decay_and_embeddings_never():
    named = {
        "layer.weight": torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16)),
        "layer.bias": torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16)),
        "text_embedding.weight": torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.bfloat16)),
    }
    for options, kind in (({}, torch.optim.AdamW), (OPTIONS, CompactAdamW)):
        params = TrainParams(speaker_name="A", weight_decay=0.2, lr=0.5, **options)
        optimizer = make_optimizer(named, params)
        assert isinstance(optimizer, kind)
        sizes = [(group["weight_decay"], [p.numel() for p in group["params"]], group["lr"])
                 for group in optimizer.param_groups]  # fmt: skip
        assert sizes == [(0.2, [4], 0.5), (0.0, [2, 6], 0.5)]
        alone = make_optimizer({"layer.bias": named["layer.bias"]}, params)
        assert [group["weight_decay"] for group in alone.param_groups] == [0.0]


def test_rounding_is_by_seed_and_step_alone():
    def stepped(seed, steps):
        parameter = torch.nn.Parameter(torch.ones(600, dtype=torch.bfloat16))
        optimizer = CompactAdamW([{"params": [parameter], "weight_decay": 0.0}], 1e-5, seed=seed)
        for _ in range(steps):
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        optimizer.zero_grad()
        assert parameter.grad is None
        return optimizer.masters(parameter, everything(parameter))

    assert torch.equal(stepped(1, 2), stepped(1, 2))
    assert not torch.equal(stepped(1, 2), stepped(2, 2))


def test_a_master_is_the_nearest_and_moments_have_powers_for_levels():
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    error = (round_master(values) - values).abs() / values.abs()
    assert error.max() <= 2.0**-16 and error.mean() < 2.0**-17
    first, second = compact._levels(torch.device("cpu"))
    assert first[127] == 0.0 and second[127] == 0.5**8
    assert first[191].item() == pytest.approx((64 / 127) ** 4)
