"""The optimizers: torch's AdamW, and one for little memory, of seven bytes a weight, not sixteen.

A weight that is kept in bfloat16 alone loses most updates of fine-tuning: they are smaller than
half the distance to the next value. `CompactAdamW` keeps the next eight bits of each bfloat16
weight beside it. Both together are a 24-bit master, to which the update is added with stochastic
rounding, so that it arrives in full on average.

The two moments take a byte a weight, in blocks of 256 that share a scale. Their levels lie closer
together towards zero, and they too are rounded stochastically: a step changes the moments by a
tenth, or a thousandth, of the new gradient, which is less than the distance of two levels, and
rounding to the nearest would leave them unchanged for ever.

Shape legend: N weights of a tensor, C weights of a chunk, S blocks.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypedDict, cast

import torch
from torch import Tensor, nn

from voxadapt.core.params import TrainParams

BLOCK = 256  # moments that share a scale
_CHUNK = 1 << 21  # weights updated at once: bounds the float32 copies
_LOW_BITS = 8  # of the master, beside the sixteen of the weight


class GroupOptions(TypedDict):
    """Parameters that share a weight decay."""

    params: list[nn.Parameter]
    weight_decay: float


class ParamGroup(GroupOptions):
    """Parameters that share their options, as in `torch.optim`."""

    lr: float
    betas: tuple[float, float]
    eps: float


class CompactState(TypedDict):
    """What is kept of a parameter of N weights in S blocks.

    `low`: `[N]` int8; `mean` and `square`: `[N]` uint8, with scales `[S]` float32.
    """

    step: int
    low: Tensor
    mean: Tensor
    mean_scale: Tensor
    square: Tensor
    square_scale: Tensor


class SavedOptimizer(TypedDict):
    """State and options; parameters are numbered in the order of the groups."""

    state: dict[int, CompactState]
    groups: list[dict[str, object]]


class CompactAdamW:
    """AdamW over bfloat16 parameters, with a 24-bit master and 8-bit moments of each.

    It has the part of `torch.optim.Optimizer` that the loop needs. It is not derived from it
    because loading a state there casts every tensor to the type of its parameter.

    Args:
        groups: Each with its parameters and `weight_decay`.
        lr: Learning rate, until a group's `lr` is set.
        betas: Decay of the two moments.
        eps: Added to the root of the second moment.
        seed: Of the stochastic rounding, which depends on it and the number of the step only.

    Attributes:
        param_groups: As in torch.
        state: Of each parameter that has had a gradient.
    """

    def __init__(
        self,
        groups: Sequence[GroupOptions],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        seed: int = 0,
    ) -> None:
        self.param_groups: list[ParamGroup] = [
            {"lr": lr, "betas": betas, "eps": eps, **group} for group in groups
        ]
        self.state: dict[nn.Parameter, CompactState] = {}
        self._seed = seed
        for parameter in self._parameters():
            assert parameter.dtype == torch.bfloat16 and parameter.is_contiguous()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""
        assert set_to_none, "gradients are dropped, not filled"
        for parameter in self._parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state.get(parameter)
                if state is None:
                    state = self.state[parameter] = _new_state(parameter)
                state["step"] += 1
                device = parameter.device
                if device not in generators:
                    seed = self._seed * 1_000_003 + state["step"]
                    generators[device] = torch.Generator(device).manual_seed(seed)
                _move(parameter, state, group, generators[device])

    def masters(self, parameter: nn.Parameter, index: Tensor) -> Tensor:
        """Return single weights with all of their 24 bits, as float32.

        `index` are places in the flattened parameter.
        """
        weight = parameter.detach().view(-1)[index]
        state = self.state.get(parameter)
        return weight.float() if state is None else _join(weight, state["low"][index])

    def moments(self, parameter: nn.Parameter, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return first and second moment of single weights, as float32; arguments as `masters`."""
        state, block = self.state[parameter], index // BLOCK
        mean_levels, square_levels = _levels(index.device)
        return (
            mean_levels[state["mean"][index].int()] * state["mean_scale"][block],
            square_levels[state["square"][index].int()] * state["square_scale"][block],
        )

    def state_dict(self) -> SavedOptimizer:
        """Return state and options."""
        return {
            "state": {
                number: self.state[parameter]
                for number, parameter in enumerate(self._parameters())
                if parameter in self.state
            },
            "groups": [
                {key: value for key, value in group.items() if key != "params"}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, saved: SavedOptimizer) -> None:
        """Take over what `state_dict` returned, on the parameters' devices."""
        for group, options in zip(self.param_groups, saved["groups"], strict=True):
            group.update(options)  # type: ignore[typeddict-item]
        self.state = {
            parameter: cast(
                CompactState,
                {k: v.to(parameter.device) if isinstance(v, Tensor) else v for k, v in own.items()},
            )
            for number, parameter in enumerate(self._parameters())
            if (own := saved["state"].get(number)) is not None
        }

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]


def round_master(values: Tensor) -> Tensor:
    """Round float32 values to the nearest that a master can be."""
    half = 1 << (15 - _LOW_BITS)
    bits = values.float().view(torch.int32) + half
    return (bits & -(1 << (16 - _LOW_BITS))).view(torch.float32)


def make_optimizer(
    trained: Mapping[str, nn.Parameter], params: TrainParams
) -> torch.optim.AdamW | CompactAdamW:
    """Make AdamW that decays matrices only: embedding rows that no batch used must not move."""
    decayed = {name for name, p in trained.items() if p.ndim > 1 and "embedding" not in name}
    matrices = [p for name, p in trained.items() if name in decayed]
    others = [p for name, p in trained.items() if name not in decayed]
    groups: list[GroupOptions] = [
        {"params": matrices, "weight_decay": params.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if params.low_memory:
        return CompactAdamW(groups, params.lr, seed=params.seed)
    # One kernel does it all, in one pass over the weights and without a copy of them.
    return torch.optim.AdamW(groups, lr=params.lr, fused=True)  # type: ignore[arg-type]


def sample_weights(
    optimizer: torch.optim.Optimizer | CompactAdamW, parameter: nn.Parameter, index: Tensor
) -> Tensor:
    """Return single weights as the optimizer keeps them; `index` counts the flattened parameter."""
    if isinstance(optimizer, CompactAdamW):
        return optimizer.masters(parameter, index)
    return parameter.reshape(-1)[index].clone()


def sample_moments(
    optimizer: torch.optim.Optimizer | CompactAdamW, parameter: nn.Parameter, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Return first and second moment of single weights, as float32; arguments as above."""
    if isinstance(optimizer, CompactAdamW):
        return optimizer.moments(parameter, index)
    state = optimizer.state[parameter]
    return (
        state["exp_avg"].reshape(-1)[index].float(),
        state["exp_avg_sq"].reshape(-1)[index].float(),
    )


def _new_state(parameter: nn.Parameter) -> CompactState:
    count, device = parameter.numel(), parameter.device
    blocks = -(-count // BLOCK)
    return {
        "step": 0,
        "low": torch.zeros(count, dtype=torch.int8, device=device),
        "mean": torch.zeros(count, dtype=torch.uint8, device=device),
        "mean_scale": torch.zeros(blocks, device=device),
        "square": torch.zeros(count, dtype=torch.uint8, device=device),
        "square_scale": torch.zeros(blocks, device=device),
    }


def _move(
    parameter: nn.Parameter, state: CompactState, group: ParamGroup, generator: torch.Generator
) -> None:
    """Take one step of a parameter, a chunk at a time."""
    assert parameter.grad is not None
    weight, grad = parameter.detach().view(-1), parameter.grad.view(-1)
    (beta1, beta2), lr, step = group["betas"], group["lr"], state["step"]
    mean_levels, square_levels = _levels(parameter.device)
    for start in range(0, len(weight), _CHUNK):
        at = slice(start, min(start + _CHUNK, len(weight)))
        scales = slice(start // BLOCK, -(-at.stop // BLOCK))
        grad_C = grad[at].float()
        mean_C = _decode(state["mean"][at], state["mean_scale"][scales], mean_levels)
        mean_C.lerp_(grad_C, 1 - beta1)
        square_C = _decode(state["square"][at], state["square_scale"][scales], square_levels)
        square_C.lerp_(grad_C.square_(), 1 - beta2)
        state["mean"][at], state["mean_scale"][scales] = _encode(mean_C, mean_levels, generator)
        state["square"][at], state["square_scale"][scales] = _encode(
            square_C, square_levels, generator
        )
        denominator = square_C.div_(1 - beta2**step).sqrt_().add_(group["eps"])
        master_C = _join(weight[at], state["low"][at])
        master_C.mul_(1 - lr * group["weight_decay"])
        master_C.addcdiv_(mean_C, denominator, value=-lr / (1 - beta1**step))
        weight[at], state["low"][at] = _split(master_C, generator)


def _join(weight: Tensor, low: Tensor) -> Tensor:
    """Put masters together, as float32."""
    bits = (weight.view(torch.int16).int() << 16) + (low.int() << (16 - _LOW_BITS))
    return bits.view(torch.float32)


def _split(master: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Round masters stochastically; return the nearest bfloat16 and the signed remainder."""
    step = 1 << (16 - _LOW_BITS)
    noise = torch.empty_like(master, dtype=torch.int32).random_(0, step, generator=generator)
    bits = noise.add_(master.view(torch.int32)).bitwise_and_(-step)
    high = (bits + 0x8000) >> 16
    low = (bits - (high << 16)) >> (16 - _LOW_BITS)
    return high.to(torch.int16).view(torch.bfloat16), low.to(torch.int8)


def _encode(values: Tensor, levels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Round values stochastically to one of the two levels that enclose them.

    Values are `[C]` float32; levels ascend up to 1, and a value below the first becomes the first.

    Returns:
        Number of each value's level, `[C]` uint8, and the largest magnitude of each block.
    """
    count, blocks = len(values), -(-len(values) // BLOCK)
    padded = nn.functional.pad(values, (0, blocks * BLOCK - count)).view(blocks, BLOCK)
    scale = padded.abs().amax(dim=1)
    share = padded / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    below = torch.bucketize(share, levels, right=True, out_int32=True)
    below = below.sub_(1).clamp_(0, len(levels) - 2)
    start, end = levels[below], levels[below + 1]
    chance = torch.rand(share.shape, generator=generator, device=share.device)
    code = below + (chance < (share - start) / (end - start))
    return code.view(-1)[:count].to(torch.uint8), scale


def _decode(code: Tensor, scale: Tensor, levels: Tensor) -> Tensor:
    """Return the values `[C]` of level numbers."""
    return levels[code.int()] * scale.repeat_interleave(BLOCK)[: len(code)]


@lru_cache
def _levels(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the levels of first and second moments as shares of a block's largest.

    Fourth powers for the first, which has a sign, and eighth powers for the second, which is its
    square. No second moment is zero: it would make a step without bound.
    """
    signed = torch.linspace(-1, 1, 255, dtype=torch.float64)
    positive = torch.arange(1, 257, dtype=torch.float64) / 256
    first, second = signed.sign() * signed.pow(4), positive.pow(8)
    return first.float().to(device), second.float().to(device)
