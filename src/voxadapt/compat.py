"""Import guard for `qwen_tts`, the only door through which the package is imported.

`qwen_tts` imports torchaudio although only its unused 25 Hz tokenizer needs it. torchaudio's
compiled extension does not load beside a CPU build of torch (`libc10_cuda.so` is missing), nor
beside a torch of another CUDA version. Where it does not load, a stand-in without the extension
takes its place; calling anything in it raises a clear error.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import itertools
import logging
import sys
import warnings
from types import ModuleType
from typing import Any


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
            f"{self.__name__}.{attribute} was used, but torchaudio could not be imported "
            f"({self._reason}). Only the 25 Hz tokenizer needs it; VoxAdapt uses the 12 Hz one."
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
    """Import `qwen_tts` on any machine, with or without a working torchaudio."""
    if "qwen_tts" in sys.modules:
        return sys.modules["qwen_tts"]
    reason = torchaudio_problem()
    if reason is not None and not isinstance(sys.modules.get("torchaudio"), _Unavailable):
        for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        names = ("torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi")
        for name in names:
            sys.modules[name] = _Unavailable(name, reason)
        # `import a.b.c as x` reads the attributes a.b and b.c.
        for parent, child in itertools.pairwise(names):
            setattr(sys.modules[parent], child.rsplit(".", 1)[1], sys.modules[child])
    sox_logger = logging.getLogger("sox")
    level = sox_logger.level
    sox_logger.setLevel(logging.ERROR)  # "SoX could not be found!": nothing here uses it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("qwen_tts")
    finally:
        sox_logger.setLevel(level)
