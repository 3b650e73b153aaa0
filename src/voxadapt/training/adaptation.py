"""What a run trains and how it writes an epoch: the two things in which adaptations differ.

The loop is the same for a speaker and for a language. An `Adaptation` readies the loaded model:
it says which parameters are trained and how a checkpoint of them is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxadapt.model.checkpoint import export_checkpoint
from voxadapt.model.freezing import ModuleCount, freeze
from voxadapt.model.tokens import SpecialIds, free_codec_row
from voxadapt.params import TrainParams


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be trained.

    Attributes:
        ids: Special ids, with a language that the adaptation has added.
        trained: Trained parameters by name.
        counts: Parameters of each part of the model.
        about: Facts for `meta.json` and the metrics.
        export: Writes the checkpoint of an epoch: folder, facts.
        describe: What is trained, for the log line.
        stored: Type in which a checkpoint keeps parameters that the Base's files do not name.
    """

    ids: SpecialIds
    trained: Mapping[str, nn.Parameter]
    counts: tuple[ModuleCount, ...]
    about: Mapping[str, Any]
    export: Callable[[Path, Mapping[str, Any]], Any]
    describe: str
    stored: Mapping[str, torch.dtype] = field(default_factory=dict)


@dataclass(frozen=True)
class Adaptation:
    """A way to adapt the Base.

    Attributes:
        label: What progress lines call it.
        identity: What decides the result besides parameters, data and Base.
        prepare: Readies a loaded Base: stock model in the masters' type, special ids, speaker
            vector `[D]`.
    """

    label: str
    identity: Mapping[str, Any]
    prepare: Callable[[Any, SpecialIds, Tensor], Prepared]


def speaker_adaptation(params: TrainParams, model_path: Path) -> Adaptation:
    """Fine-tune the model on one speaker; epochs are CustomVoice folders.

    Args:
        params: `train` section.
        model_path: The Base.
    """

    def prepare(tts: Any, ids: SpecialIds, vector: Tensor) -> Prepared:
        model = tts.model
        row = free_codec_row(model.talker.get_input_embeddings().weight, ids, params.speaker_name)
        # The vector is computed once, outside the loss, so its encoder is never trained.
        counts = freeze(model, {*params.frozen, "speaker_encoder"})
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}

        def export(folder: Path, meta: Mapping[str, Any]) -> None:
            export_checkpoint(folder, model_path, trained, params.speaker_name, row, vector, meta)

        about = {
            "speaker_name": params.speaker_name,
            "speaker_row": {**asdict(row), "near_zero": row.near_zero},
        }
        describe = f"speaker {params.speaker_name} in row {row.id}"
        return Prepared(ids, trained, counts, about, export, describe)

    return Adaptation(params.speaker_name, {}, prepare)
