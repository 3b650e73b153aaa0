"""The interface of an adaptation: what is trained, and how an epoch is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from voxadapt.model.freezing import ModuleCount
from voxadapt.model.stock import Tts
from voxadapt.model.tokens import SpecialIds


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be trained."""

    ids: SpecialIds  # special ids, with a language that the adaptation has added
    trained: Mapping[str, nn.Parameter]  # trained parameters by name
    counts: tuple[ModuleCount, ...]  # parameters of each part of the model
    about: Mapping[str, object]  # facts for `meta.json` and the metrics
    #: Writes the checkpoint of an epoch, given its folder and the facts for `meta.json`.
    export: Callable[[Path, Mapping[str, object]], object]
    describe: str  # what is trained, for the log line
    #: Type in which a checkpoint keeps parameters that the Base's files do not name.
    stored: Mapping[str, torch.dtype] = field(default_factory=dict)
    #: What a tensor of the Base, by name and value, has become; None for one that is as it was, or
    #: trained as a whole.
    changed: Callable[[str, Tensor], Tensor | None] = lambda name, base: None


class Adaptation(Protocol):
    """A way to adapt the Base."""

    @property
    def label(self) -> str:
        """Name in progress lines."""

    @property
    def identity(self) -> Mapping[str, object]:
        """What decides the result besides parameters, data and Base; part of the fingerprint."""

    def prepare(self, tts: Tts, ids: SpecialIds, vectors: Tensor) -> Prepared:
        """Make a loaded Base ready to be trained.

        Its weights have the type of the masters; speaker vectors are `[S, D]`.
        """
