"""What the stages of a language train: some rows, a module, or an adapter; all else is frozen.

Every epoch is a delta against the Base: the rows of the tokens that occur, the language's own
row of the codec embedding, and whole tensors or low-rank factors where an arm trains those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import sha256_array, sha256_folder
from voxadapt.core.params import LanguageParams
from voxadapt.core.provenance import fingerprint
from voxadapt.model.delta import Delta, read_delta, write_delta
from voxadapt.model.freezing import MODULES, ModuleCount, module_of
from voxadapt.model.rows import RowEmbedding, install_rows
from voxadapt.model.tokens import SpecialIds, free_language_row, initial_language_vector
from voxadapt.training.adaptation import Adaptation, Prepared

TEXT_TABLE = "talker.model.text_embedding.weight"
CODEC_TABLE = "talker.model.codec_embedding.weight"
#: What `full_talker` trains besides the rows: all of the talker but codes and code predictor.
TALKER = ("talker.model.layers", "talker.model.norm", "talker.text_projection", "talker.codec_head")


@dataclass(frozen=True)
class Trained:
    """Which parameters a stage or an arm trains.

    Attributes:
        token_ids: Rows of the text embedding, sorted; none: no row.
        modules: Prefixes of modules that are trained whole.
        lora_rank: Rank of the adapter on the talker's layers; 0: no adapter.
        start: Delta to begin from, whose rows stay as they are; None: the Base.
        values: Rows `[R, D]` to begin with; None: the Base's.
    """

    token_ids: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()
    lora_rank: int = 0
    start: Path | None = None
    values: Tensor | None = None

    def identity(self) -> dict[str, Any]:
        """Return what decides the result of a run."""
        values = None if self.values is None else sha256_array(self.values.float().numpy())
        return {
            "token_ids": self.token_ids,
            "modules": self.modules,
            "lora_rank": self.lora_rank,
            "start": None if self.start is None else sha256_folder(self.start),
            "values": values,
        }


def occurring_tokens(tts: Any, texts: Sequence[str]) -> tuple[int, ...]:
    """Return the text ids that occur in the texts, sorted; those of the turn are not among them."""
    found: set[int] = set()
    for text in texts:
        found.update(tts.processor(text=[text])["input_ids"][0])
    return tuple(sorted(int(token) for token in found))


def respelled_rows(tts: Any, token_ids: Sequence[int], respell: Callable[[str], str]) -> Tensor:
    """Make a row for each token from the rows of its respelling: their mean.

    A token whose respelling is itself, or empty, keeps its own row.

    Args:
        tts: Stock `Qwen3TTSModel`.
        token_ids: Tokens, sorted.
        respell: Respells a piece of a word.

    Returns:
        Rows `[R, D]`, float32.
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


def language_adaptation(
    language: LanguageParams, model_path: Path, what: Trained, label: str
) -> Adaptation:
    """Train parts of the Base for a language; epochs are deltas.

    Args:
        language: The `language` section.
        model_path: The Base.
        what: What is trained.
        label: For progress lines and reports.
    """

    def prepare(tts: Any, ids: SpecialIds, vector: Tensor) -> Prepared:
        model, talker = tts.model, tts.model.talker
        table = talker.get_input_embeddings().weight
        row = free_language_row(table, ids, language.name, language.row, language.init)
        tag = initial_language_vector(table, ids, language.init).float()[None]
        total = {name: p.numel() for name, p in model.named_parameters()}
        model.requires_grad_(False)
        start = read_delta(what.start)[0] if what.start is not None else None
        rows: dict[str, RowEmbedding] = {}
        if start is not None:
            if start.language != (language.name, row.id):
                raise _other_language(what.start, start.language, (language.name, row.id))
            kinds: dict[str, Literal["text", "codec"]] = {TEXT_TABLE: "text", CODEC_TABLE: "codec"}
            for name, (index, values) in start.rows.items():
                rows[name] = install_rows(model, kinds[name], index.tolist(), values.float())
                rows[name].rows.requires_grad_(False)
        if CODEC_TABLE not in rows:
            rows[CODEC_TABLE] = install_rows(model, "codec", [row.id], tag)
            rows[CODEC_TABLE].rows.requires_grad_(True)
        if what.token_ids:
            rows[TEXT_TABLE] = install_rows(model, "text", list(what.token_ids), what.values)
            rows[TEXT_TABLE].rows.requires_grad_(True)
        for name, parameter in model.named_parameters():
            if any(name.startswith(prefix + ".") for prefix in what.modules):
                parameter.requires_grad_(True)
        scale = _add_lora(talker, what.lora_rank) if what.lora_rank else 0.0
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        first = {name: module.rows.detach().clone() for name, module in rows.items()}

        def export(folder: Path, meta: Mapping[str, Any]) -> None:
            delta = Delta(
                rows={name: (module.ids.cpu(), module.rows.detach().cpu())
                      for name, module in rows.items()},
                full={name: p.detach().cpu() for name, p in trained.items() if name in total
                      and not name.endswith(".rows")},
                lora=_lora_factors(trained),
                lora_scale=scale,
                language=(language.name, row.id),
            )  # fmt: skip
            moved = {name: _relative(module.rows.detach(), first[name])
                     for name, module in rows.items()}  # fmt: skip
            write_delta(folder, model_path, delta, {**meta, "rows_moved": moved})

        sizes = _counts(total, trained)
        num_rows = sum(len(module.ids) for module in rows.values() if module.rows.requires_grad)
        about = {
            "stage": label,
            "language_name": language.name,
            "language_row": {**asdict(row), "near_zero": row.near_zero, "init": language.init},
            "num_rows": num_rows,
            "num_trainable": sum(count.num_trainable for count in sizes),
            "num_params": sum(count.num_params for count in sizes),
        }
        known = replace(ids, languages={**ids.languages, language.name: row.id})
        extra = {name: p.dtype for name, p in trained.items() if name not in total}
        stored = {
            name: torch.bfloat16 if kind == torch.float32 else kind for name, kind in extra.items()
        }
        describe = f"{label}: language {language.name} in row {row.id}, {num_rows} rows"
        return Prepared(known, trained, sizes, about, export, describe, stored)

    identity = {
        "label": label,
        "name": language.name,
        "init": language.init,
        "row": language.row,
        **what.identity(),
    }
    return Adaptation(label, {"language": fingerprint(identity, 64)}, prepare)


def _add_lora(talker: Any, rank: int) -> float:
    """Put an adapter on every linear layer of the talker's blocks; return its scale."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError(
            Problem(
                "language.arms.talker_lora",
                "the package peft",
                "none",
                "Install it with `pip install -c constraints.txt voxadapt[lora]`, or switch the "
                "arm off.",
            )
        ) from None
    targets = [
        name
        for name, module in talker.model.layers.named_modules()
        if isinstance(module, nn.Linear)
    ]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, lora_dropout=0.0)
    inject_adapter_in_model(config, talker.model.layers)
    for name, parameter in talker.model.layers.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return 2.0


def _lora_factors(trained: Mapping[str, nn.Parameter]) -> dict[str, tuple[Tensor, Tensor]]:
    """Pair the factors of an adapter by the tensor that they change."""
    factors = {}
    for name, parameter in trained.items():
        if ".lora_A." in name:
            other = trained[name.replace(".lora_A.", ".lora_B.")]
            target = name.split(".lora_A.")[0] + ".weight"
            factors[target] = (parameter.detach().cpu(), other.detach().cpu())
    return factors


def _counts(
    total: Mapping[str, int], trained: Mapping[str, nn.Parameter]
) -> tuple[ModuleCount, ...]:
    """Count the Base's parameters and those that are trained, part by part."""
    sums: dict[str, list[int]] = {}
    for name, size in total.items():
        sums.setdefault(module_of(name), [0, 0])[0] += size
    for name, parameter in trained.items():
        sums.setdefault(module_of(name), [0, 0])[1] += parameter.numel()
    return tuple(ModuleCount(m, *sums[m]) for m in (*MODULES, "other") if m in sums)


def _relative(now: Tensor, before: Tensor) -> float | None:
    norm = float(before.norm())
    return float((now - before).norm()) / norm if norm else None


def _other_language(folder: Path | None, found: Any, wanted: tuple[str, int]) -> UserError:
    return UserError(
        Problem(
            str(folder),
            f"a delta of language {wanted[0]} in row {wanted[1]}",
            repr(found),
            "Run Stage 1 again with the same language section.",
        )
    )
