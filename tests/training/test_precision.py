"""Which types weights have in memory, in the forward pass and in records."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from voxadapt.core.params import TrainParams
from voxadapt.training.precision import Precision

BF16, FULL = torch.bfloat16, torch.float32
CASES = [  # options, master, low memory, adapter, autocast, named master
    ({}, FULL, False, False, False, "float32"),
    ({"compute_dtype": "bfloat16"}, FULL, False, False, True, "float32"),
    ({"compute_dtype": "bfloat16", "master_weights": False}, BF16, False, False, False, "bfloat16"),
    ({"compute_dtype": "bfloat16", "low_memory": True}, BF16, True, False, False, "24-bit"),
    ({"compute_dtype": "bfloat16", "method": "lora"}, BF16, False, True, True, "float32"),
    ({"method": "lora"}, FULL, False, True, False, "float32"),
]


@pytest.mark.parametrize(("options", "master", "low", "adapter", "cast", "named"), CASES)
def test_types_follow_from_the_parameters(options, master, low, adapter, cast, named):
    precision = Precision.of(TrainParams(speaker_name="A", **options))
    assert (precision.master, precision.low_memory, precision.adapter) == (master, low, adapter)
    context = precision.autocast(torch.device("cpu"))
    assert isinstance(context, torch.autocast if cast else nullcontext)
    with context:
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (BF16 if cast else FULL)
    computes = options.get("compute_dtype", "float32")
    assert precision.names(BF16) == {
        "master_dtype": named, "compute_dtype": computes, "stored_dtype": "bfloat16",
    }  # fmt: skip
    model = nn.BatchNorm1d(3)
    precision.cast(model)
    assert model.weight.dtype == master and model.running_mean.dtype == FULL
