"""Splits by hash: a text's split depends on the text alone, so adding clips moves nothing."""

import hashlib
from typing import Literal

from voxadapt.core.params import SplitParams

Split = Literal["train", "selection", "confirmation"]
#: Fewest held-out clips of a speaker that similarity can be measured against.
MIN_REFERENCE_CLIPS = 3
SPLITS: tuple[Split, ...] = ("train", "selection", "confirmation")


def assign_split(text_norm: str, split: SplitParams) -> Split:
    """Assign a text to a split by the sha256 of the salt and the folded text.

    Equal texts are always together, so no text is in two splits. Selection takes the low end of
    the hash range and confirmation the high end: changing one share moves no text between these
    two.
    """
    digest = hashlib.sha256(f"{split.salt}\0{text_norm}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < split.selection_share:
        return "selection"
    if position >= 1.0 - split.confirmation_share:
        return "confirmation"
    return "train"
