"""What is said of a notebook whose process is killed, which can then say nothing itself.

A notebook runs in the process of the command. When the system takes it away for lack of memory
there is no exception and no table: a small process that waits beside it says what happened.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_POLL_S = 0.5
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
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
            while os.getppid() == parent:
                time.sleep(_POLL_S)
            os.write(2, f"\n{kill_message(name)}\n".encode())
        os._exit(0)
    try:
        yield
    finally:
        with suppress(ProcessLookupError, ChildProcessError):  # somebody has ended it
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def kill_message(name: str) -> str:
    """Say what ended a notebook's process, most probably, and what to lower."""
    setting = _SETTINGS.get(name)
    lower = f"lower {setting}" if setting else "end what else uses memory"
    return (
        f"The process of {name} was killed. If nobody did it, memory was short: {lower}. "
        "`voxadapt plan` says what each stage needs. Then repeat the command: it goes on where it "
        "was."
    )
