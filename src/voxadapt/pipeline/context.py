"""What a stage runs with: device, executor, work folder. Built once, at its start."""

from dataclasses import dataclass
from pathlib import Path

import torch

from voxadapt.core import paths
from voxadapt.core.device import resolve_device
from voxadapt.core.executor import Executor, Local, RayData, num_cores, worker_device
from voxadapt.core.params import Params

#: The project folder: stages run in it, and paths in records are relative to it.
ROOT = Path()


@dataclass(frozen=True)
class Context:
    """Where a stage computes."""

    device: torch.device  # of the models that this process loads
    executor: Executor  # what takes batches of extraction and scoring
    work_dir: Path  # resumable state, which DVC does not track

    @property
    def worker_device(self) -> str:
        """The device as a worker of the executor names it."""
        return worker_device(str(self.device))

    @property
    def embeddings_dir(self) -> Path | None:
        """Where embeddings are kept for a run that goes on; on one machine they are soon remade."""
        return None if isinstance(self.executor, Local) else self.work_dir / "sounds"


def open_context(params: Params) -> Context:
    """Find the device and the executor, and give torch the threads that the parameters name.

    Raises:
        UserError: When the device is unknown or not present.
    """
    if params.model.num_threads is not None:
        torch.set_num_threads(params.model.num_threads)
    device, num_threads = resolve_device(params.model.device), torch.get_num_threads()
    executor: Executor = Local()  # one GPU is best used by one process
    if params.executor.kind == "ray":
        gpus = params.executor.gpus_per_worker if device.type == "cuda" else 0.0
        executor = RayData(params.executor, gpus, num_threads)
    elif device.type == "cpu":  # as many workers as the processors carry
        most = max(1, num_cores() // num_threads)
        executor = Local(min(params.executor.num_workers or most, most), num_threads)
    return Context(device, executor, paths.work_dir())
