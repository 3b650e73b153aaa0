"""Import guard for `qwen_tts`, the only door through which the package is imported; the allocator.

`qwen_tts` imports torchaudio although only its unused 25 Hz tokenizer needs it. torchaudio's
compiled extension does not load beside a CPU build of torch (`libc10_cuda.so` is missing), nor
beside a torch of another CUDA version. Where it does not load, a stand-in without the extension
takes its place; calling anything in it raises a clear error. So it is with onnxruntime, which only
that tokenizer needs too.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.machinery
import io
import itertools
import shutil
import sys
import warnings
from types import ModuleType
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT_BYTES = 1 << 30
_DEFAULT_BYTES = 128 * 1024  # of glibc


class _Unavailable(ModuleType):
    """A module whose import succeeds and whose use explains why it is not there."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.__version__ = "0.0.0"
        self.__path__: list[str] = []
        self._reason = reason

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise RuntimeError(
            f"{self.__name__}.{attribute} was used, but it cannot be used here ({self._reason}). "
            "Only the 25 Hz tokenizer needs it; VoxAdapt uses the 12 Hz one."
        )


def torchaudio_problem() -> str | None:
    """Say why torchaudio cannot be imported here, or None when it can."""
    try:
        importlib.import_module("torchaudio")
    except Exception as error:  # OSError, ImportError or RuntimeError, by platform
        return f"{type(error).__name__}: {error}".splitlines()[0]
    module = sys.modules["torchaudio"]
    return module._reason if isinstance(module, _Unavailable) else None


def import_qwen_tts() -> ModuleType:
    """Import `qwen_tts` on any machine, with or without a working torchaudio.

    Two notes that the package prints at import, on SoX and on flash attention, are left out:
    both concern the 25 Hz tokenizer only.
    """
    if "qwen_tts" in sys.modules:
        return sys.modules["qwen_tts"]
    reason = torchaudio_problem()
    if reason is not None and not isinstance(sys.modules.get("torchaudio"), _Unavailable):
        for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        _stand_in("torchaudio.compliance.kaldi", reason)
    if shutil.which("sox") is None and "sox" not in sys.modules:
        _stand_in("sox", "the program sox is not installed")
    unneeded = "onnxruntime" not in sys.modules  # it starts a thread, and no fork inherits one
    if unneeded:
        _stand_in("onnxruntime", "it was left out")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("qwen_tts")
        finally:
            if unneeded:
                del sys.modules["onnxruntime"]  # others may want the real one


def keep_freed_memory() -> None:
    """Let the C allocator keep what is freed, instead of giving it back to the system.

    glibc returns every large block at once, and the system then clears each page anew: decoding
    speech on a CPU spends most of its time so. Does nothing where the library is another one.
    """
    _keep_up_to(_KEPT_BYTES)


def return_freed_memory() -> None:
    """Take `keep_freed_memory` back, and give what is free to the system; no result changes.

    Where memory is short: what is kept is in pieces, of which large tensors fit into few.
    """
    _keep_up_to(_DEFAULT_BYTES)
    give_back_memory()


def give_back_memory() -> None:
    """Give what is free now to the system, where the C library is glibc; no result changes."""
    with contextlib.suppress(OSError, TypeError, AttributeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


def _keep_up_to(num_bytes: int) -> None:
    """Set how large a freed block must be to go back to the system at once."""
    with contextlib.suppress(OSError, TypeError, AttributeError):  # Windows, macOS
        mallopt = ctypes.CDLL(None).mallopt
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(option, num_bytes)


def _stand_in(dotted: str, reason: str) -> None:
    """Put stand-ins for a module and its parents into `sys.modules`."""
    parts = dotted.split(".")
    names = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
    for name in names:
        sys.modules[name] = _Unavailable(name, reason)
    for parent, child in itertools.pairwise(names):  # `import a.b.c as x` reads a.b and b.c
        setattr(sys.modules[parent], child.rsplit(".", 1)[1], sys.modules[child])
