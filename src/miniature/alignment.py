"""Where in a clip each part of a text is about said, and what attention elsewhere costs.

A small model with little time to learn does not find by itself which part of a long text belongs
to which part of the sound. Some of its attention heads are therefore led there, as in Tachibana
et al. (2018), "Efficiently trainable text-to-speech ... with guided attention", with the clips'
ends for fixed points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def letter_places(spans: Sequence[tuple[str, float, float]]) -> list[float]:
    """Return the place at which each letter of clips said one after the other is about said.

    Letters are taken to be said at an even pace within a clip, digits and signs as long as their
    words.

    Args:
        spans: Text, begin and end of each clip, in any unit.

    Returns:
        A place for each letter of the texts joined by spaces; a space's is that of the clip it
        leads to.
    """
    places: list[float] = []
    for text, begin, end in spans:
        pace = np.array([5.0 if c.isdigit() else 1.0 if c.isascii() and c not in "$%" else 6.0
                         for c in text])  # fmt: skip
        middle = (np.cumsum(pace) - pace / 2) / pace.sum()
        places += [float(begin), *(begin + middle * (end - begin)).tolist()]
    return places[1:]


def stray_cost(place: Tensor, position: Tensor, near: float, width: float) -> Tensor:
    """Return what attention to positions costs, between 0 (near its place) and 1.

    Args:
        place: Where attention belongs; NaN: nowhere.
        position: Positions, broadcast with it.
        near: Distance at which it costs nothing.
        width: How far beyond it costs 40 %.
    """
    beyond = ((position - place).abs() - near).clamp(min=0)
    return (1 - torch.exp(-(beyond**2) / (2 * width**2))).nan_to_num(nan=1.0)
