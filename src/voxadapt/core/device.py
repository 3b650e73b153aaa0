"""Which device the models run on."""

import re

import torch

from voxadapt.core.problems import user_error


def resolve_device(device: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:N` or `mps` into a device that works here.

    `auto` is a CUDA device or the CPU: Apple GPUs are used when asked for, in float32.

    Raises:
        UserError: When the device is unknown or not present.
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        return torch.device("cpu")
    if device == "mps" and torch.backends.mps.is_available():
        return torch.device("mps")
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if match and int(match[1] or 0) < count:
        return torch.device("cuda", int(match[1] or 0))
    also = " and no Apple GPU that torch can use" if device == "mps" else ""
    raise user_error("core.no_device", "model.device", device=device, count=count, also=also)
