"""One writer at a time: a second run of the same stage waits for the first one."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from voxadapt.core.errors import explain_storage

try:
    import fcntl
except ImportError:  # Windows: DVC's own locks remain
    fcntl = None  # type: ignore[assignment]


@contextmanager
def file_lock(folder: str | Path, name: str) -> Iterator[None]:
    """Hold a lock while the block runs; wait, and say for whom, while another process holds it.

    The system gives a lock back when its process ends, however it ends: nothing is to be removed by
    hand after a crash. What is locked is named: a stage, or a stage and a candidate.

    Raises:
        UserError: When the lock file cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = _lock_file(folder, name)
    with explain_storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
            told = f"{name}: process {holder} is doing the same; waiting until it has ended."
            print(told, "Ctrl-C stops waiting, not the other process.", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise  # a file system without locks: as on Windows
        with suppress(OSError):  # whose lock it is, for the message alone
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(folder: str | Path, name: str) -> int | None:
    """Return the process that holds a lock, None if nobody does."""
    path = _lock_file(folder, name)
    if fcntl is None or not path.is_file():
        return None
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(handle, 20, 0).decode(errors="replace").strip()
        return int(said) if said.isdigit() else None
    except OSError:
        return None
    else:
        return None
    finally:
        os.close(handle)


def _lock_file(folder: str | Path, name: str) -> Path:
    return Path(folder) / (re.sub(r"[^\w.-]", "_", name) + ".lock")
