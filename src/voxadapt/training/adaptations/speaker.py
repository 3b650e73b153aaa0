"""Fine-tuning on one speaker or several.

An epoch is a CustomVoice folder; where an adapter is trained, the delta that makes one of the Base.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from voxadapt.core.params import TrainParams
from voxadapt.core.problems import user_error
from voxadapt.model.checkpoint import CODEC_EMBEDDING, export_checkpoint
from voxadapt.model.delta import Delta, write_delta
from voxadapt.model.freezing import freeze, module_counts, under
from voxadapt.model.stock import Tts, TtsModel
from voxadapt.model.tokens import SpeakerRow, SpecialIds, free_codec_row
from voxadapt.training.adaptations import lora
from voxadapt.training.adaptations.base import Prepared
from voxadapt.training.speakers import SpeakerIndex


@dataclass(frozen=True)
class SpeakerAdaptation:
    """Train the model on the speakers of a corpus."""

    params: TrainParams  # `train` section
    model_path: Path  # the Base
    speakers: SpeakerIndex  # whom the corpus holds

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
        described = ", ".join(
            f"speaker {name} in row {row.id}" for name, row in zip(names, rows, strict=True)
        )
        facts = [{**asdict(row), "near_zero": row.near_zero} for row in rows]
        about: dict[str, object] = {"speaker_name": names[0], "speaker_row": facts[0]}
        if self.speakers.named:
            about["speakers"] = dict(zip(names, facts, strict=True))
            about["kept_speakers"] = sorted(set(ids.speakers) - {name.lower() for name in names})
        if self.params.method == "lora":
            return self._with_adapter(tts.model, ids, rows, vectors, about, described)
        trained = {name: p for name, p in tts.model.named_parameters() if p.requires_grad}
        first, *others = zip(names, rows, vectors, strict=True)

        def export(folder: Path, meta: Mapping[str, object]) -> None:
            export_checkpoint(folder, self.model_path, trained, *first, meta,
                              also={name: (row, own) for name, row, own in others})  # fmt: skip

        return Prepared(ids, trained, counts, about, export, described)

    def _with_adapter(
        self,
        model: TtsModel,
        ids: SpecialIds,
        rows: list[SpeakerRow],
        vectors: Tensor,
        about: dict[str, object],
        described: str,
    ) -> Prepared:
        """Train an adapter on the blocks instead of the weights."""
        options, frozen = self.params.lora, self.params.frozen
        base = {name: p.numel() for name, p in model.named_parameters()}
        model.requires_grad_(False)
        for target in options.targets:
            place = f"{'talker' if target == 'talker' else 'talker.code_predictor'}.model.layers"
            blocks = model.get_submodule(place)
            without = {name for name, _ in blocks.named_modules()
                       if any(under(f"{place}.{name}", prefix) for prefix in frozen)}  # fmt: skip
            lora.add(blocks, options.rank, options.alpha, "train.method: lora", without)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise user_error("training.all_frozen", "train.lora.targets")
        speakers = {
            name.lower(): row.id for name, row in zip(self.speakers.names, rows, strict=True)
        }

        def changed(name: str, weight: Tensor) -> Tensor | None:
            return lora.changed(trained, name, weight, options.export_factor)

        def export(folder: Path, meta: Mapping[str, object]) -> None:
            index = torch.tensor([row.id for row in rows])
            own = {CODEC_EMBEDDING: (index, vectors)}
            delta = Delta(
                own, lora=lora.factors(trained), lora_scale=options.export_factor, speakers=speakers
            )
            write_delta(folder, self.model_path, delta, meta)

        counts = module_counts(base, {name: p.numel() for name, p in trained.items()})
        about |= {"method": "lora", "lora": options.model_dump(exclude={"export_scale"})}
        stored = dict.fromkeys(trained, torch.float32)
        described = f"{described}, by an adapter of rank {options.rank}"
        return Prepared(ids, trained, counts, about, export, described, stored, changed)


def _free_rows(weight: Tensor, ids: SpecialIds, names: tuple[str, ...]) -> list[SpeakerRow]:
    """Find a row for each speaker; none is given twice."""
    rows: list[SpeakerRow] = []
    for name in names:
        rows.append(free_codec_row(weight, ids, name))
        ids = replace(ids, speakers={**ids.speakers, name.lower(): rows[-1].id})
    return rows
