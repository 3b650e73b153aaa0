"""What every stage has: a name, a lock, errors that say what to do, and a result."""

import functools
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ParamSpec

from voxadapt.core import launch, paths
from voxadapt.core.errors import (
    UserError,
    is_out_of_memory,
    missing_operation,
    out_of_memory,
    storage_problem,
)
from voxadapt.core.locks import file_lock
from voxadapt.core.params import candidate_name
from voxadapt.core.problems import user_error

P = ParamSpec("P")


@dataclass(frozen=True)
class StageResult:
    """The outcome of a stage."""

    sentence: str  # the outcome, for people
    values: object = None  # the main record that was written


Stage = Callable[P, StageResult]


def stage(
    name: str, memory: str = "score.batch_size and asr.batch_size"
) -> Callable[[Stage[P]], Stage[P]]:
    """Make a function a stage: one run at a time, and errors of the machine explained.

    A second run of the same stage (and candidate, where it has one) waits for the first; stages
    that write other files run side by side. `name` is that of `dvc.yaml`, and of the lock; `memory`
    is the parameter whose lower value needs less memory.

    Raises:
        UserError: By the stage, for a full disk, a lack of memory, or a launch on several
            processes of a stage other than `train`.
    """

    def decorate(run: Stage[P]) -> Stage[P]:
        signature = inspect.signature(run)

        @functools.wraps(run)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> StageResult:
            given = signature.bind(*args, **kwargs).arguments
            if launch.num_processes() > 1 and name != "train":
                where, count = f"the launch of {name}", launch.num_processes()
                raise user_error("core.one_process", where, count=count)
            parts = [name]
            if "candidate" in given:
                parts.append(candidate_name(given["candidate"]))
            lock = file_lock(paths.work_dir() / "locks", "-".join(parts))
            with lock if launch.is_main() else nullcontext():
                try:
                    return run(*args, **kwargs)
                except Exception as error:
                    if is_out_of_memory(error):
                        raise out_of_memory(error, memory) from None
                    if missing := missing_operation(error):
                        raise missing from None
                    where = str(getattr(error, "filename", None) or name)
                    if problem := storage_problem(error, where):
                        raise UserError(problem, "A file could not be written.") from None
                    raise

        return guarded

    return decorate
