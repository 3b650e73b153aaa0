"""Types of the weights in memory, in the forward pass and in the checkpoint."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from voxadapt.core.params import TrainParams


@dataclass(frozen=True)
class Precision:
    """How a run computes."""

    master: torch.dtype  # type of the weights in memory, which the optimizer moves
    compute: torch.dtype  # type of the forward pass
    low_memory: bool  # `CompactAdamW` keeps eight more bits of each weight
    #: Weights stay as they are, in the type of the forward pass; a float32 adapter moves.
    adapter: bool = False

    @classmethod
    def of(cls, params: TrainParams) -> Precision:
        """Read the `train` section."""
        compute: torch.dtype = getattr(torch, params.compute_dtype)
        adapter = params.method == "lora"
        full = params.master_weights and not params.low_memory and not adapter
        return cls(torch.float32 if full else compute, compute, params.low_memory, adapter)

    def cast(self, model: nn.Module) -> None:
        """Give the parameters the master type; buffers (rotary frequencies) stay float32."""
        for parameter in model.parameters():
            parameter.data = parameter.data.to(self.master)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        if self.compute == torch.float32 or (self.master != torch.float32 and not self.adapter):
            return nullcontext()
        return torch.autocast(device.type, dtype=self.compute)

    def names(self, stored: torch.dtype) -> dict[str, str]:
        """Name the types for records, with the one that the checkpoint has."""
        return {
            "master_dtype": "24-bit"
            if self.low_memory
            else _name(torch.float32 if self.adapter else self.master),
            "compute_dtype": _name(self.compute),
            "stored_dtype": _name(stored),
        }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
