"""Import guard for `qwen_tts`, the only door through which the package is imported; the allocator.

`qwen_tts` imports the whole of transformers' model code, and with it much that speaking and
training never use: scikit-learn, SciPy, numba (through librosa's filters), torch's compiler and
distributed tensors. That is three times the work of importing torch. Here they stay away while the
package is imported; its own classes are the stock ones. What is used after all is imported when it
is called, and other code that imports any of it gets the real module.

`qwen_tts` also imports torchaudio, although only its unused 25 Hz tokenizer needs it. torchaudio's
compiled extension does not load beside a CPU build of torch (`libc10_cuda.so` is missing), nor
beside a torch of another CUDA version. Where it does not load, a stand-in without the extension
takes its place; calling anything in it raises a clear error. So it is with onnxruntime, which only
that tokenizer needs too.
"""

import contextlib
import ctypes
import importlib
import importlib.machinery
import io
import itertools
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType

from voxadapt.core.launch import num_processes

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

    def __getattr__(self, attribute: str) -> object:
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


def stand_in_for_torchaudio() -> None:
    """Let packages that import torchaudio and need none of it load where it does not."""
    reason = torchaudio_problem()
    if reason is not None and not isinstance(sys.modules.get("torchaudio"), _Unavailable):
        for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        _stand_in("torchaudio.compliance.kaldi", reason)


def import_qwen_tts() -> ModuleType:
    """Import `qwen_tts` on any machine, with or without a working torchaudio, and little else.

    Two notes that the package prints at import, on SoX and on flash attention, are left out:
    both concern the 25 Hz tokenizer only.
    """
    if "qwen_tts" in sys.modules:
        return sys.modules["qwen_tts"]
    stand_in_for_torchaudio()
    if shutil.which("sox") is None and "sox" not in sys.modules:
        _stand_in("sox", "the program sox is not installed")
    with _unneeded_left_out(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return importlib.import_module("qwen_tts")


@contextlib.contextmanager
def _unneeded_left_out() -> Iterator[None]:
    """Keep away what `qwen_tts` imports and never needs here; afterwards all is as before.

    Nothing is hidden that has been imported already: what it costs is paid.
    """
    hidden: dict[str, ModuleType | None] = {
        "sklearn": None,  # None: transformers takes it for not installed
        "scipy": None,
        "onnxruntime": _Unavailable("onnxruntime", "it was left out"),  # it starts a thread
        "librosa.filters": _module("librosa.filters", mel=_deferred("librosa.filters", "mel")),
    }
    if "transformers.utils.import_utils" in sys.modules:  # it has noted what is installed
        del hidden["sklearn"], hidden["scipy"]
    hidden = {name: module for name, module in hidden.items() if name not in sys.modules}
    if "torch._dynamo" not in sys.modules:
        hidden |= _without_compiler()
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        with _without_tensor_parallelism():
            yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _without_compiler() -> dict[str, ModuleType | None]:
    """Return modules in place of torch's compiler, whose marks say nothing where none is used."""

    def unmarked(function: object = None, *_: object, **__: object) -> object:
        return function or unmarked

    wrapped = "torch._dynamo._trace_wrapped_higher_order_op"
    mode = "TransformGetItemToIndex"  # with which transformers builds a mask for padded batches
    return {
        "torch._dynamo": _module("torch._dynamo", allow_in_graph=unmarked, disable=unmarked),
        wrapped: _module(wrapped, **{mode: _deferred(wrapped, mode)}),
    }


@contextlib.contextmanager
def _without_tensor_parallelism() -> Iterator[None]:
    """Have transformers import neither distributed tensors nor flex attention, which compiles.

    Several processes that train together (`accelerate launch`) get all of it.
    """
    try:
        import torch
        from accelerate.utils import imports as _accelerate  # keeps what it finds out about torch
    except ImportError:
        yield
        return
    del _accelerate
    found = torch.distributed.is_available
    if num_processes() == 1:
        torch.distributed.is_available = _no
    try:
        from transformers import utils
        from transformers.utils import import_utils

        for module in (utils, import_utils):
            vars(module)["is_torch_flex_attn_available"] = _no
        yield
    finally:
        torch.distributed.is_available = found


def _no() -> bool:
    return False


def _module(name: str, **content: object) -> ModuleType:
    """Make a module, or a package without further modules."""
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(content, __path__=[])
    return module


def _deferred(module: str, name: str) -> Callable[..., object]:
    """Return a function that imports the real one when it is called, and calls it."""

    def call(*args: object, **kwargs: object) -> object:
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    return call


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
