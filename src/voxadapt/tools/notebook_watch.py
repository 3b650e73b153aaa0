"""What is said of a notebook whose process is killed, which can then say nothing itself.

A notebook runs in the process of the command. When the system takes it away for lack of memory
there is no exception and no table: a small process that waits beside it says what happened.
"""

from __future__ import annotations

import os
import re
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DONE = b"."
_POLL_S = 1.0  # for a parent whose end of the pipe has outlived it in a process of its own
#: What to lower, by notebook.
_SETTINGS = {
    "01_audit_data": "asr.batch_size, or take a smaller asr.model",
    "02_extract_codes": "codes.batch_seconds",
    "03_train_speaker": "train.batch_size (raise train.gradient_accumulation_steps by as much), "
    "or set train.gradient_checkpointing or train.low_memory",
    "08_language_data": "codes.batch_seconds",
    "09_language_stage1": "language.stage1.batch_size",
    "12_language_stage2": "language.stage2.batch_size",
} | dict.fromkeys(
    ("04_score_candidate", "06_confirm_choice", "08b_language_readings", "10_language_score",
     "12b_language_stage2_score", "13_language_confirm"),
    "score.batch_size",
)  # fmt: skip


@contextmanager
def explain_kill(name: str) -> Iterator[None]:
    """Have the end of this process explained on stderr if the block does not end by itself.

    Exit code, signals and process id stay as they are. Does nothing on Windows.
    """
    if not hasattr(os, "fork"):
        yield
        return
    reader, writer = os.pipe()
    parent, num_before = os.getpid(), num_killed_for_memory()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.close(writer)
            _watch(name, parent, reader, num_before)
        os._exit(0)
    os.close(reader)
    try:
        yield
    finally:
        with suppress(OSError):  # the watcher is gone
            os.write(writer, _DONE)
        os.close(writer)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def _watch(name: str, parent: int, reader: int, num_before: int | None) -> None:
    """Wait until the parent is done or gone; say what to do in the second case."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    ready: list[int] = []
    while not ready and os.getppid() == parent:
        ready, _, _ = select.select([reader], [], [], _POLL_S)
    if ready and os.read(reader, 1) == _DONE:
        return
    num_after = num_killed_for_memory()
    for_memory = None not in (num_before, num_after) and num_after != num_before
    os.write(2, f"\n{kill_message(name, for_memory)}\n".encode())


def kill_message(name: str, for_memory: bool) -> str:
    """Say what ended a notebook's process, known to be `for_memory` or not, and what to lower."""
    setting = _SETTINGS.get(name)
    lower = f"lower {setting}" if setting else "end what else uses memory"
    what = (
        f"The system ended the process of {name} for lack of memory: "
        if for_memory
        else f"The process of {name} was killed. If nobody did it, memory was short: "
    )
    return (
        f"{what}{lower}. `voxadapt plan` says what each stage needs. "
        "Then repeat the command: it goes on where it was."
    )


def num_killed_for_memory() -> int | None:
    """Count the processes that this system has ended for lack of memory; None where unknown."""
    with suppress(OSError):
        found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
        return int(found[1]) if found else None
    return None
