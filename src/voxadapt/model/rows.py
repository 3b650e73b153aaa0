"""Training some rows of an embedding while the others stay as they are, bit for bit.

An optimizer that holds the whole table would carry moments for rows that never occur, 311 million
values in the real model's text embedding. Here only the chosen rows are parameters.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxadapt.model.stock import TtsModel

_ATTRIBUTES = {"text": "text_embedding", "codec": "codec_embedding"}


class RowEmbedding(nn.Module):
    """An embedding of which some rows are trained, in float32.

    Stands in for the `nn.Embedding` that it wraps, and freezes, wherever that is called or its
    `weight` read. `ids` are the trained rows, ascending, none twice: `[R]` int64. `rows` are their
    values, `[R, D]` float32, the one parameter that gets gradients; they begin as `values`, or as
    the table's.

    Shape legend: V rows of the table, R trained rows, D width.
    """

    ids: Tensor
    slots: Tensor

    def __init__(
        self, table: nn.Embedding, ids: Sequence[int], values: Tensor | None = None
    ) -> None:
        super().__init__()
        weight = table.weight
        assert len(ids) and list(ids) == sorted(set(ids)), "rows must ascend, none twice"
        assert ids[0] >= 0 and ids[-1] < len(weight), "a row lies outside the table"
        self.table = table.requires_grad_(False)
        index = torch.tensor(list(ids), dtype=torch.int64, device=weight.device)
        slots = torch.full((len(weight),), -1, dtype=torch.int64, device=weight.device)
        slots[index] = torch.arange(len(index), device=weight.device)
        self.register_buffer("ids", index, persistent=False)
        self.register_buffer("slots", slots, persistent=False)  # row of the table to row of `rows`
        first = weight.detach()[index] if values is None else values.detach()
        assert first.shape == (len(index), weight.shape[1]), "values must be [R, D]"
        self.rows = nn.Parameter(first.to(weight.device, torch.float32, copy=True))

    @property
    def weight(self) -> Tensor:
        """The whole table `[V, D]` in its own type, trained rows put in; a copy, detached."""
        table = self.table.weight.detach()
        return table.index_copy(0, self.ids, self.rows.detach().to(table.dtype))

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        return self.table.num_embeddings

    @property
    def embedding_dim(self) -> int:
        """Width of a row."""
        return self.table.embedding_dim

    def forward(self, ids: Tensor) -> Tensor:
        """Look ids of any shape up, in the type of the table."""
        kept = functional.embedding(ids, self.table.weight.detach())
        slots = self.slots[ids]
        trained = functional.embedding(slots.clamp(min=0), self.rows).to(kept.dtype)
        return torch.where((slots >= 0)[..., None], trained, kept)


def install_rows(
    model: TtsModel,
    table: Literal["text", "codec"],
    ids: Sequence[int],
    values: Tensor | None = None,
) -> RowEmbedding:
    """Let a model train some rows of its text or codec embedding; the table's others are frozen.

    What `get_text_embeddings()` and `get_input_embeddings()` of the talker return is the new
    module, so training and stock generation use it alike. `ids` and `values` as of `RowEmbedding`.
    """
    attribute = _ATTRIBUTES[table]
    module = RowEmbedding(getattr(model.talker.model, attribute), ids, values)
    setattr(model.talker.model, attribute, module)
    return module
