"""Where the heavy steps of extraction and scoring run: on this machine, or on a Ray cluster.

A caller cuts its work into *shards*: the very batches in which its model runs, made of its clips in
a fixed order. Each shard goes through two steps, `read` (a processor and the disk) and `work` (a
model, loaded once a worker). `Local` takes one shard after another, or has worker processes take
them; `RayData` streams them through the workers of a cluster. The shards are the same in all, so
the results are the same bytes, where the processors (or GPUs) are of one kind.

Neither keeps anything: the caller stores each result, under the hash of what it was made from, when
it arrives, and hands over only shards that are not stored yet. So a run that was stopped goes on,
with either back end.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from voxadapt.core.errors import Problem, UserError, is_out_of_memory, raise_problems
from voxadapt.core.params import ExecutorParams
from voxadapt.core.problems import problem, user_error

Shard = TypeVar("Shard")
Model = TypeVar("Model")
Material = TypeVar("Material")
Result = TypeVar("Result")

STORE_BYTES = 256 * 2**20  # a worker, for shards on their way in a cluster that is started here
READERS_PER_WORKER = 2  # of such a cluster at most; a processor each, as a worker has
NUM_RAY_WORKERS = 2  # unless the parameters say otherwise
SHARDS_PER_TASK = 8
TASKS_PER_WORKER = 8  # at least, where there are enough shards: nobody waits long for the last one


@dataclass(frozen=True)
class Local:
    """This machine: this process takes one shard after another, or workers share them.

    A worker is a fork of this process, with the models that it has loaded. It is a fresh process,
    which loads its own, where a fork is not safe: torch's threads do not survive one, nor do
    macOS's libraries, and Windows has none.
    """

    num_workers: int = 1  # processes; 1 is this one
    num_threads: int = 1  # of torch, in each worker; other numbers may give other last bits

    def run(
        self,
        shards: Sequence[Shard],
        read: Callable[[Shard], Material],
        work: Callable[[Model, Material], Result],
        model: Model,
        load: Callable[[], Model] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Take every shard through both steps.

        `load` is how a worker elsewhere loads the model, once; without it `model` itself is sent.

        Yields:
            The position of a shard and its result, each once, in any order.

        Raises:
            UserError: What a step raised, or what the cluster lacks.
        """
        num_workers = min(self.num_workers, len(shards))
        if num_workers < 2:
            for number, shard in enumerate(shards):
                yield number, work(model, read(shard))
            return
        forked = sys.platform == "linux" and self.num_threads == 1
        context = multiprocessing.get_context("fork" if forked else "spawn")
        loader = partial(as_it_is, model) if forked or load is None else load
        waiting = list(range(len(shards)))  # the longest are last: they are taken first
        workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
        try:
            for _ in range(num_workers):
                ours, theirs = context.Pipe()
                arguments = (theirs, self.num_threads, read, work, loader)
                worker = context.Process(target=_serve, args=arguments, daemon=True)  # type: ignore[attr-defined]
                worker.start()
                theirs.close()
                workers[ours] = worker
                _hand_out(ours, waiting, shards)
            busy = set(workers)
            while busy:
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    number, result, error = _answer(ready, workers[ready])
                    if error is not None:
                        raise error
                    yield number, result
                    if waiting:
                        _hand_out(ready, waiting, shards)
                    else:
                        busy.remove(ready)
        finally:
            for connection, worker in workers.items():
                worker.kill()
                worker.join()
                connection.close()


def _hand_out(connection: Connection, waiting: list[int], shards: Sequence[object]) -> None:
    """Give a worker a shard; one that is dead is found out when it is asked for the result."""
    number = waiting.pop()
    try:
        connection.send_bytes(pickle.dumps((number, shards[number])))
    except (BrokenPipeError, ConnectionResetError):
        pass


def _answer(
    connection: Connection, worker: multiprocessing.process.BaseProcess
) -> tuple[int, Any, Exception | None]:
    """Receive a shard's number, its result, or what was raised."""
    try:
        answer: tuple[int, Any, Exception | None] = pickle.loads(connection.recv_bytes())
        return answer
    except (EOFError, ConnectionResetError):
        worker.join()
        code = worker.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise user_error("core.lost_worker", "executor.num_workers", how=how) from None


def _serve(
    connection: Connection,
    num_threads: int,
    read: Callable[[Any], Any],
    work: Callable[[Any, Any], Any],
    load: Callable[[], Any],
) -> None:
    """Be a worker: take shards until this process is ended, at the latest with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)
    model = None
    while True:
        try:
            number, shard = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            model = load() if model is None else model
            answer = pickle.dumps((number, work(model, read(shard)), None))
        except Exception as error:
            answer = pickle.dumps((number, None, _sendable(error)))
        connection.send_bytes(answer)


def _sendable(error: Exception) -> Exception:
    """Return an exception with its traceback as a note; as text, where it cannot be pickled."""
    failure = _Failure.of(error)
    error.add_note(f"In a worker process:\n{failure.text or error}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # it may hold anything, or need other arguments
        return failure.as_error()
    return error


def _end_with_parent() -> None:
    """End this process when its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


LOCAL = Local()


def num_cores() -> int:
    """Count the cores that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_device(device: str) -> str:
    """Name a device as a worker sees it, which has one GPU and no other: cuda:3 becomes cuda."""
    return device.partition(":")[0]


@dataclass(frozen=True)
class RayData:
    """Workers of a Ray cluster, fed by Ray Data.

    Reading is done by tasks, a processor each; a worker is an actor that holds the model. Shards
    stream through both, as many at a time as the cluster's object store takes. A worker that dies
    is replaced and its shards are done again.
    """

    params: ExecutorParams  # address, number of workers, how often one may be lost
    gpus_per_worker: float = 0.0  # 0 where the models run on processors
    num_threads: int = 1  # of torch, in each worker; other numbers may give other last bits

    @property
    def num_workers(self) -> int:
        """How many models are loaded at once."""
        return self.params.num_workers or NUM_RAY_WORKERS

    def run(
        self,
        shards: Sequence[Shard],
        read: Callable[[Shard], Material],
        work: Callable[[Model, Material], Result],
        model: Model,
        load: Callable[[], Model] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Take every shard through both steps; see `Local.run`."""
        if not shards:
            return
        ray = self._connect()
        self._require_room(ray.cluster_resources())
        context = ray.data.DataContext.get_current()
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # the caller says how far it is
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.enable_fallback_to_arrow_object_ext_type = True  # parcels are no Arrow values
        num_tasks = max(
            len(shards) // SHARDS_PER_TASK, min(len(shards), TASKS_PER_WORKER * self.num_workers)
        )
        num_workers = min(self.num_workers, num_tasks)
        rows = [{"number": n, "parcel": _Parcel(shard)} for n, shard in enumerate(shards)]
        losses = self.params.max_losses
        with warnings.catch_warnings():  # `max_retries` and `max_restarts` go in Ray 2.64
            warnings.simplefilter("ignore", DeprecationWarning)
            results = (
                ray.data.from_items(rows, override_num_blocks=num_tasks)
                .map(_read, fn_args=(os.getcwd(), read), num_cpus=1, max_retries=losses)
                .map(
                    _Worker,
                    fn_constructor_args=(
                        os.getcwd(), self.num_threads, work, load or partial(as_it_is, model),
                    ),
                    compute=ray.data.ActorPoolStrategy(size=num_workers),
                    num_cpus=1,
                    num_gpus=self.gpus_per_worker,
                    max_restarts=losses,
                )
            )  # fmt: skip
        del rows
        try:
            for row in results.iter_rows():
                value = row["parcel"].value
                if isinstance(value, _Failure):
                    raise value.as_error()
                yield int(row["number"]), value
        except ray.exceptions.RayError as error:
            raise self._explain(error) from None

    def _connect(self) -> Any:
        """Return `ray`, connected: to the cluster of an earlier call, the one named, or its own."""
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise user_error("core.no_ray", "executor.kind: ray", error=error) from None
        if ray.is_initialized():
            return ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.params.address is None:
            workers = self.num_workers
            spare = (os.cpu_count() or 1) - workers
            options |= {
                "address": "local",
                "num_cpus": workers + max(1, min(spare, READERS_PER_WORKER * workers)),
                "object_store_memory": STORE_BYTES * (workers + 1),
                "include_dashboard": False,
            }
        else:
            options["address"] = self.params.address
        try:
            ray.init(**options)
        except Exception as error:  # of many types: no answer, another version, no node here
            where = f"executor.address: {self.params.address}"
            raise user_error("core.no_cluster", where, error=error) from None
        return ray

    def _require_room(self, resources: Mapping[str, float]) -> None:
        """Refuse a cluster too small for the workers and one reader: it would wait forever."""
        needed = {"CPU": self.num_workers + 1.0, "GPU": self.num_workers * self.gpus_per_worker}
        problems = [
            problem(
                "core.small_cluster", f"executor.num_workers: {self.num_workers}", amount=amount,
                kind=kind + (", one to read" if kind == "CPU" else ""),
                found=resources.get(kind, 0.0),
            )
            for kind, amount in needed.items()
            if resources.get(kind, 0.0) < amount
        ]  # fmt: skip
        raise_problems(problems, "The cluster is too small.")

    def _explain(self, error: Exception) -> UserError:
        """Say what to do about an error of the cluster itself."""
        text = str(error)
        reason = " ".join(text.split())
        lost = ("ActorDied", "ActorUnavailable", "WorkerCrashed", "NodeDied", "OwnerDied")
        if any(name in type(error).__name__ + text for name in (*lost, "The actor is dead")):
            where, count = f"executor.max_losses: {self.params.max_losses}", self.params.max_losses
            return user_error("core.lost_too_often", where, count=count, found=reason[-300:])
        return user_error("core.cluster_gave_up", "executor.kind: ray", found=reason[:400])


Executor = Local | RayData


@dataclass(frozen=True)
class _Parcel:
    """A value that Ray hands on as it is."""

    value: Any


def as_it_is(value: Shard) -> Shard:
    """Read or load nothing: what the call has is all that is needed."""
    return value


def _enter(folder: str) -> None:
    """Go to the project folder, which relative paths start from."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise user_error("core.no_project", folder, error=error) from None


@dataclass(frozen=True)
class _Failure:
    """What a step raised, as plain values."""

    problems: tuple[Problem, ...]
    title: str
    no_memory: bool
    text: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        """Keep what the caller must know of an exception."""
        if isinstance(error, UserError):
            return cls(error.problems, error.title, False, "")
        return cls((), "", is_out_of_memory(error), "".join(traceback.format_exception(error)))

    def as_error(self) -> Exception:
        """Return what is raised in its place."""
        if self.problems:
            return UserError(self.problems, self.title)
        if self.no_memory:
            return MemoryError(self.text.strip().splitlines()[-1])
        return RuntimeError(f"a worker failed:\n{self.text}")


def _read(row: dict[str, Any], folder: str, read: Callable[[Any], Any]) -> dict[str, Any]:
    """Take a shard through the first step."""
    try:
        _enter(folder)
        value = read(row["parcel"].value)
    except Exception as error:
        value = _Failure.of(error)
    return {"number": row["number"], "parcel": _Parcel(value)}


class _Worker:
    """An actor with a model; a failure to load it is the result of its every shard."""

    def __init__(
        self,
        folder: str,
        num_threads: int,
        work: Callable[[Any, Any], Any],
        load: Callable[[], Any],
    ) -> None:
        import torch

        torch.set_num_threads(num_threads)
        self._failure: _Failure | None = None
        self._work = work
        try:
            _enter(folder)
            self._model = load()
        except Exception as error:
            self._failure = _Failure.of(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Take a shard through the second step."""
        value = self._failure or row["parcel"].value
        if not isinstance(value, _Failure):
            try:
                value = self._work(self._model, value)
            except Exception as error:
                value = _Failure.of(error)
        return {"number": row["number"], "parcel": _Parcel(value)}
