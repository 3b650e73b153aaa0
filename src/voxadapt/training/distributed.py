"""The processes that train together, by Hugging Face Accelerate; most runs have one.

Every process holds the whole model and its optimizer. The batches of a step are the same for all;
each process computes its share of every batch, gradients are summed, and all take the same step.
So the result does not depend on the number of processes, and a saved state suits any number.
"""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from voxadapt.core import launch as processes
from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.params import TrainParams
from voxadapt.core.problems import problem, user_error
from voxadapt.training.losses import LossTotals

_PATIENCE = timedelta(hours=2)  # for a main process that waits for a lock or writes an epoch
#: Kinds of launch that spread weights over processes, by the variable that announces them.
_SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DEEPSPEED",
    "ACCELERATE_USE_MEGATRON_LM": "MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config",
}


def start(params: TrainParams, device: torch.device) -> tuple[Accelerator, torch.device]:
    """Join the other processes; return the accelerator, and the device of this process.

    Of several processes, `cpu` keeps them off the GPUs.

    Raises:
        UserError: When the run was launched in a way that cannot be trained.
    """
    _check(params, device)
    alone = processes.num_processes() == 1
    accelerator = Accelerator(
        cpu=alone or device.type == "cpu",  # alone, the device is the caller's affair
        device_placement=False,
        mixed_precision="no",  # train.compute_dtype decides
        dynamo_backend="no",
        kwargs_handlers=[
            # Buffers are constants. Gradients lie in what is sent, so that they take no more room.
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=_PATIENCE),
        ],
    )
    accelerator.wait_for_everyone()
    return accelerator, device if alone or device.type == "cpu" else accelerator.device


def same_everywhere(accelerator: Accelerator, step: int, folder: str) -> None:
    """Check that all processes have read the same state.

    Raises:
        UserError: In all processes, when they differ.
    """
    found = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
    if len(set(found)) > 1:
        raise user_error("training.other_states", folder, steps=", ".join(map(str, found)))


def total(accelerator: Accelerator, totals: LossTotals) -> LossTotals:
    """Return the sums over all processes."""
    own = [totals.c0_sum, *totals.sub_sums, totals.num_labels, totals.num_frames]
    values = torch.tensor(own, dtype=torch.float64, device=accelerator.device)
    c0_sum, *sub_sums, num_labels, num_frames = accelerator.reduce(values, "sum").tolist()
    return LossTotals(c0_sum, tuple(sub_sums), round(num_labels), round(num_frames))


def _check(params: TrainParams, device: torch.device) -> None:
    """Refuse launches that cannot be trained, all reasons together."""
    count = processes.num_processes()
    problems: list[Problem] = []
    for variable, kind in _SHARDED.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            where = "distributed_type of the launch configuration"
            problems.append(problem("training.sharded", where, kind=kind))
    if params.batch_size < count:
        facts = {"count": count, "found": params.batch_size}
        problems.append(problem("training.small_batch", "train.batch_size", **facts))
    if count > 1 and device.type == "cuda":
        if device.index:
            problems.append(problem("training.one_gpu", "model.device", found=device))
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if here > gpus:
            where = "num_processes of the launch configuration"
            problems.append(problem("training.few_gpus", where, gpus=gpus, found=here))
    raise_problems(problems, "This launch cannot be trained.")
