"""Texts that the Base has read, on their way from `language_readings` to Stage 1."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from voxadapt.core.files import write_atomic
from voxadapt.core.problems import user_error
from voxadapt.core.records import Record


@dataclass(frozen=True)
class ReadText:
    """One text that the Base has read."""

    id: str  # unique among the texts
    text: str  # in the spelling that is learnt
    language: str  # its language
    is_source: bool = False  # a sentence of the source language, learnt so that it is not forgotten


@dataclass(frozen=True)
class Readings:
    """What the Base has read."""

    texts: tuple[ReadText, ...] = ()  # in the order in which they are learnt
    codes: Mapping[str, np.ndarray] = field(default_factory=dict)  # codes `[N, K]` int64 by id
    facts: Record = field(default_factory=dict)  # counts for the metrics of Stage 1

    def write(self, path: Path) -> None:
        """Write them as safetensors; equal readings give equal bytes."""
        arrays = {name: codes.astype(np.int16) for name, codes in self.codes.items()}
        about = {"texts": [asdict(text) for text in self.texts], "facts": self.facts}
        text = json.dumps(about, sort_keys=True, ensure_ascii=False)
        write_atomic(path, save(arrays, {"readings": text}))

    @classmethod
    def read(cls, path: Path) -> Readings:
        """Read what `write` wrote; raises `UserError` when there is nothing, or another file."""
        try:
            with safe_open(path, "numpy") as stored:
                about = json.loads((stored.metadata() or {})["readings"])
                texts = tuple(ReadText(**row) for row in about["texts"])
                codes = {text.id: stored.get_tensor(text.id).astype(np.int64) for text in texts}
                return cls(texts, codes, about["facts"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise user_error("pipeline.no_readings", path, error=error) from None
