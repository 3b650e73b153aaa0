"""Training for a language: some rows, a module, or a low-rank adapter; all else is frozen.

An epoch is a delta against the Base: the rows of the tokens that occur, the language's own row of
the codec embedding, and whole tensors or low-rank factors where an arm trains those.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from voxadapt.core.files import sha256_array, sha256_folder
from voxadapt.core.params import LanguageParams
from voxadapt.core.problems import user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.model.delta import Delta, read_delta, write_delta
from voxadapt.model.freezing import module_counts
from voxadapt.model.rows import RowEmbedding, install_rows
from voxadapt.model.stock import Tts, TtsModel
from voxadapt.model.tokens import (
    LanguageRow,
    SpecialIds,
    free_language_row,
    initial_language_vector,
)
from voxadapt.training.adaptations import lora
from voxadapt.training.adaptations.base import Prepared

TEXT_TABLE = "talker.model.text_embedding.weight"
CODEC_TABLE = "talker.model.codec_embedding.weight"
#: What `full_talker` trains besides the rows: all of the talker but codes and code predictor.
TALKER = ("talker.model.layers", "talker.model.norm", "talker.text_projection", "talker.codec_head")
_KINDS: Mapping[str, Literal["text", "codec"]] = {TEXT_TABLE: "text", CODEC_TABLE: "codec"}


@dataclass(frozen=True)
class TrainedParts:
    """Which parameters a stage or an arm trains."""

    token_ids: tuple[int, ...] = ()  # rows of the text embedding, sorted; none: no row
    modules: tuple[str, ...] = ()  # prefixes of modules that are trained whole
    lora_rank: int = 0  # rank of the adapter on the talker's layers; 0: no adapter
    start: Path | None = None  # delta to begin from, whose rows stay as they are; None: the Base
    values: Tensor | None = None  # rows `[R, D]` to begin with; None: the Base's

    def identity(self) -> dict[str, object]:
        """Return what decides the result of a run."""
        values = None if self.values is None else sha256_array(self.values.float().numpy())
        return {
            "token_ids": self.token_ids,
            "modules": self.modules,
            "lora_rank": self.lora_rank,
            "start": None if self.start is None else sha256_folder(self.start),
            "values": values,
        }


def occurring_tokens(tts: Tts, texts: Sequence[str]) -> tuple[int, ...]:
    """Return the text ids that occur in the texts, sorted; those of the turn are not among them."""
    found: set[int] = set()
    for text in texts:
        found.update(tts.processor(text=[text])["input_ids"][0])
    return tuple(sorted(int(token) for token in found))


def respelled_rows(tts: Tts, token_ids: Sequence[int], respell: Callable[[str], str]) -> Tensor:
    """Make a float32 row for each token from those of its respelling: their mean, `[R, D]`.

    A token whose respelling is itself, or empty, keeps its own row.
    """
    tokenizer = tts.processor.tokenizer
    table = tts.model.talker.model.text_embedding.weight.detach().float().cpu()
    rows = []
    for token in token_ids:
        piece = tokenizer.decode([token])
        written = respell(piece)
        ids = tokenizer(written)["input_ids"] if written.strip() else []
        same = not ids or written == piece
        rows.append(table[token] if same else table[torch.tensor(ids)].mean(0))
    return torch.stack(rows)


@dataclass(frozen=True)
class LanguageAdaptation:
    """Train parts of the Base for a language; epochs are deltas."""

    language: LanguageParams  # the `language` section
    model_path: Path  # the Base
    what: TrainedParts  # what is trained
    label: str  # for progress lines and reports

    @property
    def identity(self) -> Mapping[str, object]:
        """What decides the result besides parameters, data and Base."""
        parts = {
            "label": self.label,
            "name": self.language.name,
            "init": self.language.init,
            "row": self.language.row,
            **self.what.identity(),
        }
        return {"language": fingerprint(parts, 64)}

    def prepare(self, tts: Tts, ids: SpecialIds, vectors: Tensor) -> Prepared:
        """Give the language a row, and make what `what` names trainable."""
        model, what = tts.model, self.what
        row, tag = self._language_row(model, ids)
        base = {name: p.numel() for name, p in model.named_parameters()}
        model.requires_grad_(False)
        rows = self._install_rows(model, row.id, tag)
        for name, parameter in model.named_parameters():
            if any(name.startswith(prefix + ".") for prefix in what.modules):
                parameter.requires_grad_(True)
        scale, rank = 0.0, what.lora_rank
        if rank:
            asked_by = "language.arms.talker_lora"
            scale = lora.add(model.talker.model.layers, rank, 2 * rank, asked_by)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        first = {name: module.rows.detach().clone() for name, module in rows.items()}

        def export(folder: Path, meta: Mapping[str, object]) -> None:
            delta = Delta(
                rows={name: (module.ids.cpu(), module.rows.detach().cpu())
                      for name, module in rows.items()},
                full={name: p.detach().cpu() for name, p in trained.items() if name in base
                      and not name.endswith(".rows")},
                lora=lora.factors(trained),
                lora_scale=scale,
                language=(self.language.name, row.id),
            )  # fmt: skip
            moved = {name: _relative(module.rows.detach(), first[name])
                     for name, module in rows.items()}  # fmt: skip
            write_delta(folder, self.model_path, delta, {**meta, "rows_moved": moved})

        counts = module_counts(base, {name: p.numel() for name, p in trained.items()})
        num_rows = sum(len(module.ids) for module in rows.values() if module.rows.requires_grad)
        about = {
            "stage": self.label,
            "language_name": self.language.name,
            "language_row": {
                **asdict(row), "near_zero": row.near_zero, "init": self.language.init,
            },
            "num_rows": num_rows,
            "num_trainable": sum(count.num_trainable for count in counts),
            "num_params": sum(count.num_params for count in counts),
        }  # fmt: skip
        ids = replace(ids, languages={**ids.languages, self.language.name: row.id})
        described = f"{self.label}: language {self.language.name} in row {row.id}, {num_rows} rows"
        stored = {
            name: torch.bfloat16 if p.dtype == torch.float32 else p.dtype
            for name, p in trained.items() if name not in base
        }  # fmt: skip
        return Prepared(ids, trained, counts, about, export, described, stored)

    def _language_row(self, model: TtsModel, ids: SpecialIds) -> tuple[LanguageRow, Tensor]:
        """Find the language's row of the codec embedding; return what it begins as, `[1, D]`."""
        table = model.talker.get_input_embeddings().weight
        language = self.language
        row = free_language_row(table, ids, language.name, language.row, language.init)
        return row, initial_language_vector(table, ids, language.init).float()[None]

    def _install_rows(self, model: TtsModel, row: int, tag: Tensor) -> dict[str, RowEmbedding]:
        """Put rows of their own into the embeddings: those of a start frozen, new ones trained."""
        what = self.what
        rows: dict[str, RowEmbedding] = {}
        if what.start is not None:
            start, _ = read_delta(what.start)
            if start.language != (self.language.name, row):
                facts = {"name": self.language.name, "row": row, "found": repr(start.language)}
                raise user_error("training.other_language", what.start, **facts)
            for name, (index, values) in start.rows.items():
                rows[name] = install_rows(model, _KINDS[name], index.tolist(), values.float())
                rows[name].rows.requires_grad_(False)
        if CODEC_TABLE not in rows:
            rows[CODEC_TABLE] = install_rows(model, "codec", [row], tag)
        if what.token_ids:
            rows[TEXT_TABLE] = install_rows(model, "text", list(what.token_ids), what.values)
        return rows


def _relative(now: Tensor, before: Tensor) -> float | None:
    norm = float(before.norm())
    return float((now - before).norm()) / norm if norm else None
