"""Which of a run's processes this one is; a run without a launcher has one.

`accelerate launch` and `torchrun` tell it to every process that they start, by variables of the
environment. This is known before torch is imported.
"""

import os


def num_processes() -> int:
    """Return how many processes do this run together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if num_processes() > 1 else 0


def is_main() -> bool:
    """Tell whether this process is the one that writes files and says what was done."""
    return rank() == 0


def is_local_main() -> bool:
    """Tell whether this process is the first one on its machine."""
    return num_processes() == 1 or os.environ["LOCAL_RANK"] == "0"


def destroy_process_group() -> None:
    """End torch's process group when the work is done, if this run has one."""
    if num_processes() > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()
