"""Fine-tuning on one speaker or several; an epoch is a CustomVoice folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from voxadapt.core.params import TrainParams
from voxadapt.model.checkpoint import export_checkpoint
from voxadapt.model.freezing import freeze
from voxadapt.model.stock import Tts
from voxadapt.model.tokens import SpeakerRow, SpecialIds, free_codec_row
from voxadapt.training.adaptations.base import Prepared
from voxadapt.training.speakers import SpeakerIndex


@dataclass(frozen=True)
class SpeakerAdaptation:
    """Train the model on the speakers of a corpus.

    Attributes:
        params: `train` section.
        model_path: The Base.
        speakers: Whom the corpus holds.
    """

    params: TrainParams
    model_path: Path
    speakers: SpeakerIndex

    @property
    def label(self) -> str:
        """The speaker's name, or how many there are."""
        names = self.speakers.names
        return names[0] if len(names) == 1 else f"{len(names)} speakers"

    @property
    def identity(self) -> Mapping[str, object]:
        """Nothing: the speakers are part of the data."""
        return {}

    def prepare(self, tts: Tts, ids: SpecialIds, vectors: Tensor) -> Prepared:
        """Give every speaker a row of the codec embedding; freeze what `params` names."""
        names = self.speakers.names
        rows = _free_rows(tts.model.talker.get_input_embeddings().weight, ids, names)
        # Vectors are computed once, outside the loss, so their encoder is never trained.
        counts = freeze(tts.model, {*self.params.frozen, "speaker_encoder"})
        trained = {name: p for name, p in tts.model.named_parameters() if p.requires_grad}
        first, *others = zip(names, rows, vectors, strict=True)

        def export(folder: Path, meta: Mapping[str, object]) -> None:
            export_checkpoint(folder, self.model_path, trained, *first, meta,
                              also={name: (row, own) for name, row, own in others})  # fmt: skip

        described = ", ".join(
            f"speaker {name} in row {row.id}" for name, row in zip(names, rows, strict=True)
        )
        return Prepared(ids, trained, counts, self._about(ids, rows), export, described)

    def _about(self, ids: SpecialIds, rows: list[SpeakerRow]) -> dict[str, object]:
        names = self.speakers.names
        facts = [{**asdict(row), "near_zero": row.near_zero} for row in rows]
        about: dict[str, object] = {"speaker_name": names[0], "speaker_row": facts[0]}
        if self.speakers.named:
            about["speakers"] = dict(zip(names, facts, strict=True))
            about["kept_speakers"] = sorted(set(ids.speakers) - {name.lower() for name in names})
        return about


def _free_rows(weight: Tensor, ids: SpecialIds, names: tuple[str, ...]) -> list[SpeakerRow]:
    """Find a row for each speaker; none is given twice."""
    rows: list[SpeakerRow] = []
    for name in names:
        rows.append(free_codec_row(weight, ids, name))
        ids = replace(ids, speakers={**ids.speakers, name.lower(): rows[-1].id})
    return rows
