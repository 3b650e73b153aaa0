"""What a run trains and how it writes an epoch: the two things in which adaptations differ.

The loop is the same for a speaker and for a language. An `Adaptation` readies the loaded model:
it says which parameters are trained and how a checkpoint of them is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxadapt.core.params import TrainParams
from voxadapt.model.checkpoint import export_checkpoint
from voxadapt.model.freezing import ModuleCount, freeze
from voxadapt.model.tokens import SpeakerRow, SpecialIds, free_codec_row


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
            vector `[D]`; of several speakers `[S, D]`.
    """

    label: str
    identity: Mapping[str, Any]
    prepare: Callable[[Any, SpecialIds, Tensor], Prepared]


def speaker_adaptation(
    params: TrainParams, model_path: Path, speakers: Sequence[str] = ()
) -> Adaptation:
    """Fine-tune the model on one speaker or several; epochs are CustomVoice folders.

    Args:
        params: `train` section.
        model_path: The Base.
        speakers: Names of several, in the order of their vectors; none: `params.speaker_name`.
    """
    names = list(speakers) or [params.speaker_name]

    def prepare(tts: Any, ids: SpecialIds, vector: Tensor) -> Prepared:
        model = tts.model
        weight, taken = model.talker.get_input_embeddings().weight, ids
        rows: list[SpeakerRow] = []
        for name in names:
            rows.append(free_codec_row(weight, taken, name))
            taken = replace(taken, speakers={**taken.speakers, name.lower(): rows[-1].id})
        # Vectors are computed once, outside the loss, so their encoder is never trained.
        counts = freeze(model, {*params.frozen, "speaker_encoder"})
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        first, *others = zip(names, rows, vector if speakers else [vector], strict=True)

        def export(folder: Path, meta: Mapping[str, Any]) -> None:
            export_checkpoint(folder, model_path, trained, *first, meta,
                              also={name: (row, own) for name, row, own in others})  # fmt: skip

        about: dict[str, Any] = {
            "speaker_name": names[0],
            "speaker_row": {**asdict(rows[0]), "near_zero": rows[0].near_zero},
        }
        describe = ", ".join(
            f"speaker {name} in row {row.id}" for name, row in zip(names, rows, strict=True)
        )
        if speakers:
            about["speakers"] = {
                name: {**asdict(row), "near_zero": row.near_zero}
                for name, row in zip(names, rows, strict=True)
            }
            about["kept_speakers"] = sorted(set(ids.speakers) - {name.lower() for name in names})
        return Prepared(ids, trained, counts, about, export, describe)

    label = names[0] if len(names) == 1 else f"{len(names)} speakers"
    return Adaptation(label, {}, prepare)
