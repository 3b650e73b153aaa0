"""The optimizer gets only those rows of a trained text embedding that occur in the corpus.

The others have no gradient and do not decay, so they would not move; but as parts of one parameter
they would cost a gradient, two moments and their arithmetic in every step: two thirds of an
optimizer step at the 0.6B's text vocabulary, whose table is a third of the model.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from voxadapt.model.layout import NONE
from voxadapt.model.rows import install_rows
from voxadapt.model.stock import TtsModel
from voxadapt.training.batches import Example

TEXT_EMBEDDING = "talker.model.text_embedding.weight"


class TextRows:
    """The text rows of a corpus as a parameter of their own, in float32.

    The model looks them up in place of the table's. `write_back` copies them into the table, before
    that is stored or compared as a whole.

    Attributes:
        rows: The parameter, `[R, D]`.
    """

    def __init__(self, model: TtsModel, examples: Sequence[Example]) -> None:
        found = {i for e in examples for i in (*e.text_ids.tolist(), *e.layout.text_ids)} - {NONE}
        self._module = install_rows(model, "text", sorted(found))
        self.rows = self._module.rows

    @torch.no_grad()
    def write_back(self) -> None:
        """Put the rows into the table."""
        self._module.table.weight.index_copy_(0, self._module.ids, self.rows)

    @torch.no_grad()
    def read(self) -> None:
        """Take the rows from the table."""
        self.rows.copy_(self._module.table.weight[self._module.ids])


def occurring_rows(
    model: TtsModel, trained: Mapping[str, nn.Parameter], examples: Sequence[Example]
) -> TextRows | None:
    """Reduce a trained text embedding to the rows of a corpus.

    None when the text embedding is not trained as a whole in float32.
    """
    table = trained.get(TEXT_EMBEDDING)
    if table is None or table.dtype != torch.float32:
        return None
    return TextRows(model, examples)
