"""Headers of safetensors files: where each tensor's bytes lie, without reading any of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxadapt.core.problems import user_error

METADATA = "__metadata__"


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """Read `dtype`, `shape` and `data_offsets` by name, and the byte at which the offsets begin.

    Raises:
        UserError: When the file is torn.
    """
    try:
        with open(file, "rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            entries: dict[str, Any] = json.loads(stream.read(size))
    except (OSError, ValueError, MemoryError, OverflowError) as error:
        raise user_error("core.torn_tensors", file, error=error) from None
    entries.pop(METADATA, None)
    return entries, 8 + size


def header_bytes(entries: Mapping[str, object]) -> bytes:
    """Return the bytes that precede the tensors of a file."""
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
