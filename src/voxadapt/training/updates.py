"""Do updates survive? What rounding takes from a step, and how far an epoch has moved weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxadapt.model.checkpoint import iterate_weights
from voxadapt.model.freezing import module_of
from voxadapt.training.optimizer import (
    CompactAdamW,
    ParamGroup,
    round_master,
    sample_moments,
    sample_weights,
)

AnyOptimizer = torch.optim.Optimizer | CompactAdamW

_VALUES_PER_TENSOR = 2048
_CHUNK = 1 << 22  # values compared at once; they are held in float64


@dataclass(frozen=True)
class LostShare:
    """Share of weights with a nonzero update that the update leaves unchanged."""

    stored: float  # if the weights were kept in the 16-bit type of the checkpoint, without masters
    trained: float  # in the type that the weights really have in training


class UpdateProbe:
    """Measures on a sample of weights what one AdamW step loses to rounding.

    An update is lost in a type when `round(round(w) + u) == round(w)`, where `u != 0` is the
    step's change computed in float32 from the optimizer's state. The sample takes up to 2,048
    evenly spaced values of each tensor; tensors weigh by the number of values that they stand
    for. `stored` uses each tensor's type in the Base's files, bfloat16 where that is float32.
    """

    def __init__(
        self, named: Mapping[str, nn.Parameter], stored: Mapping[str, torch.dtype]
    ) -> None:
        self._items = []
        for name, parameter in named.items():
            count = min(parameter.numel(), _VALUES_PER_TENSOR)
            index = torch.linspace(0, parameter.numel() - 1, count, dtype=torch.float64).long()
            kind = stored[name] if stored[name] != torch.float32 else torch.bfloat16
            self._items.append((parameter, index.to(parameter.device), kind))
        self._before: list[Tensor] = []

    @torch.no_grad()
    def before_step(self, optimizer: AnyOptimizer) -> None:
        """Remember the sampled weights."""
        self._before = [sample_weights(optimizer, p, index) for p, index, _ in self._items]

    @torch.no_grad()
    def after_step(self, optimizer: AnyOptimizer) -> LostShare:
        """Return what the step just taken has lost.

        For a `CompactAdamW`, what its masters would lose if they were rounded to the nearest. They
        are rounded stochastically, so that on average nothing of this is lost.
        """
        items = [  # a tensor without state had no gradient, so no update
            (*item, old)
            for item, old in zip(self._items, self._before, strict=True)
            if optimizer.state.get(item[0])
        ]
        if not items:
            return LostShare(0.0, 0.0)
        # Values are read from a GPU at once: each reading waits for all that it has still to do.
        steps = [torch.as_tensor(optimizer.state[p]["step"]) for p, *_ in items]
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        counts = [
            _count_lost(optimizer, groups[id(item[0])], item, step)
            for item, step in zip(items, torch.stack(steps).tolist(), strict=True)
        ]
        lost_stored = lost_trained = moved = 0.0
        for (parameter, index, *_), found in zip(items, torch.stack(counts).tolist(), strict=True):
            scale = parameter.numel() / len(index)
            moved += scale * found[0]
            lost_stored += scale * found[1]
            lost_trained += scale * found[2]
        if not moved:
            return LostShare(0.0, 0.0)
        return LostShare(lost_stored / moved, lost_trained / moved)


def _count_lost(
    optimizer: AnyOptimizer,
    group: ParamGroup | dict[str, Any],
    item: tuple[nn.Parameter, Tensor, torch.dtype, Tensor],
    step: float,
) -> Tensor:
    """Count sampled weights with an update, lost if stored, and lost in training: `[3]` int64."""
    parameter, index, kind, old = item
    mean, square = sample_moments(optimizer, parameter, index)
    update = _adamw_update(mean, square, step, old.float(), group)
    lost_stored = (old.to(kind).float() + update).to(kind) == old.to(kind)
    if isinstance(optimizer, CompactAdamW):
        lost_trained = round_master(old + update) == old
    else:
        dtype = parameter.dtype
        lost_trained = (old.to(dtype).float() + update).to(dtype) == old.to(dtype)
    counted = update != 0
    return torch.stack([counted, lost_stored & counted, lost_trained & counted]).sum(dim=1)


@dataclass(frozen=True)
class Drift:
    """How far a part of the model is from the Base."""

    #: ||W - W_base|| / ||W_base||, over all tensors of the part; None for a part that is zero in
    #: the Base.
    relative: float | None
    changed_share: float  # share of weights whose stored value differs from the Base's


def measure_drift(
    named: Mapping[str, Tensor],
    base_dir: str | Path,
    changed: Callable[[str, Tensor], Tensor | None],
) -> dict[str, Drift]:
    """Compare weights with the Base's files, part by part: those named, or `changed` otherwise."""
    sums: dict[str, list[float]] = {}
    for name, base in iterate_weights(base_dir):
        trained = named[name].detach() if name in named else changed(name, base)
        if trained is None:
            continue
        total = sums.setdefault(module_of(name), [0.0, 0.0, 0.0, 0.0])
        total[3] += base.numel()
        now = trained.reshape(-1)
        for old, new in zip(base.reshape(-1).split(_CHUNK), now.split(_CHUNK), strict=True):
            new = new.to("cpu")
            total[0] += float((new.float() - old.float()).double().pow(2).sum())
            total[1] += float(old.double().pow(2).sum())
            total[2] += float((new.to(old.dtype) != old).sum())
    return {
        module: Drift((d / b) ** 0.5 if b else None, changed / size)
        for module, (d, b, changed, size) in sums.items()
    }


def _adamw_update(
    mean: Tensor, square: Tensor, step: float, weight: Tensor, group: ParamGroup | dict[str, Any]
) -> Tensor:
    """Recompute AdamW's change of the sampled weights in float32."""
    beta1, beta2 = group["betas"]
    mean, square = mean / (1 - beta1**step), square / (1 - beta2**step)
    change = mean / (square.sqrt() + group["eps"]) + group["weight_decay"] * weight
    return -group["lr"] * change
