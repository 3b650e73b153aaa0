"""A low-rank adapter on every linear layer of the talker's blocks, by `peft`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from voxadapt.core.errors import Problem, UserError
from voxadapt.model.stock import Talker


def add(talker: Talker, rank: int) -> float:
    """Put the adapter in, as all that is trained of the blocks; return its scale.

    Raises:
        UserError: When `peft` is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError(
            Problem(
                "language.arms.talker_lora",
                "the package peft",
                "none",
                "Install it with `pip install -c constraints.txt voxadapt[lora]`, or switch the "
                "arm off.",
            )
        ) from None
    layers = talker.model.layers
    targets = [name for name, part in layers.named_modules() if isinstance(part, nn.Linear)]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, lora_dropout=0.0)
    inject_adapter_in_model(config, layers)
    for name, parameter in layers.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return 2.0


def factors(trained: Mapping[str, nn.Parameter]) -> dict[str, tuple[Tensor, Tensor]]:
    """Pair the factors `[r, in]` and `[out, r]` of an adapter by the tensor that they change."""
    found = {}
    for name, parameter in trained.items():
        if ".lora_A." in name:
            other = trained[name.replace(".lora_A.", ".lora_B.")]
            target = name.split(".lora_A.")[0] + ".weight"
            found[target] = (parameter.detach().cpu(), other.detach().cpu())
    return found
