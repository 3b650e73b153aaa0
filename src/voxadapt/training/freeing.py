"""Memory that was freed goes back to the system, so that the peak is what is used at once."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def give_back_memory() -> None:
    """Return freed memory of the C library to the system, where that is glibc; no result changes.

    Tensors of a few MB are freed into the heap, which keeps their pages: without this, what loading
    and training have freed still counts while an epoch is written.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
