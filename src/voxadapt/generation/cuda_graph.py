"""Work that is recorded once on a GPU and replayed as one launch: CUDA graphs.

A frame of speech is thousands of small kernels; launching them one by one from Python takes longer
than they run. What is recorded must read and write the same memory each time, ask the GPU for no
value and let no shape depend on one.
"""

import warnings
from collections.abc import Callable

import torch


def possible(device: torch.device) -> bool:
    """Whether work on a device can be recorded."""
    return device.type == "cuda"


def warm_up(work: Callable[[], None], device: torch.device) -> None:
    """Do the work beside the usual stream, as libraries set themselves up when first called."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(stream)


def record(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record the work without doing it; return what does it.

    Raises:
        RuntimeError: It cannot be recorded.
    """
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
    return graph.replay


def warn(error: Exception) -> None:
    """Say that speaking goes on, but slower."""
    warnings.warn(
        f"A frame of speech could not be recorded as a CUDA graph ({error}); speaking goes on "
        "without, slower.",
        RuntimeWarning,
        stacklevel=2,
    )
