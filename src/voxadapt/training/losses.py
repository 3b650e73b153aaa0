"""Cross-entropy as sums over tokens, so that accumulation can divide by a global count.

Library losses that shift labels are not used: targets arrive aligned, see `model/forward.py`.

Shape legend: P codec_0 targets, M frames, K codebooks, V codec vocabulary, C codebook size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from voxadapt.core.sums import ordered_sum
from voxadapt.model.forward import Predictions


@dataclass(frozen=True)
class LossSums:
    """Summed cross-entropy in nats, and how many tokens it covers."""

    c0_sum: Tensor  # scalar, over `num_labels` codec_0 targets
    sub_sums: Tensor  # `[K-1]`, one for each further codebook, over `num_frames` targets each
    num_labels: int  # P
    num_frames: int  # M


def loss_sums(predictions: Predictions) -> LossSums:
    """Sum the cross-entropy of one batch in float32."""
    c0 = F.cross_entropy(predictions.c0_logits.float(), predictions.c0_targets, reduction="sum")
    pairs = zip(predictions.sub_logits, predictions.sub_targets.unbind(1), strict=True)
    sub = [F.cross_entropy(logits.float(), codes, reduction="none") for logits, codes in pairs]
    sums = torch.stack(sub, dim=1).sum(0)
    return LossSums(c0, sums, len(predictions.c0_targets), len(predictions.sub_targets))


def total_loss(
    sums: LossSums, num_labels: int, num_frames: int, sub_talker_weight: float
) -> Tensor:
    """Return this batch's part of `c0 + weight * sub`, each a mean over the whole window.

    Labels and frames are those of the whole accumulation window.
    """
    sub_mean = sums.sub_sums.sum() / (num_frames * len(sums.sub_sums))
    return sums.c0_sum / num_labels + sub_talker_weight * sub_mean


@dataclass
class LossTotals:
    """Running sums over batches, on the host, in float64."""

    c0_sum: float = 0.0  # nats over codec_0 targets
    sub_sums: tuple[float, ...] = ()  # nats of each further codebook
    num_labels: int = 0  # codec_0 targets
    num_frames: int = 0  # frames

    @classmethod
    def zeros(cls, num_codebooks: int) -> LossTotals:
        """Start the sums of K codebooks at zero."""
        return cls(sub_sums=(0.0,) * (num_codebooks - 1))

    def add(self, sums: LossSums) -> None:
        """Add one batch."""
        values = torch.cat([sums.c0_sum[None], sums.sub_sums]).detach().tolist()
        self.c0_sum += values[0]
        old = self.sub_sums or (0.0,) * len(values[1:])
        self.sub_sums = tuple(a + b for a, b in zip(old, values[1:], strict=True))
        self.num_labels += sums.num_labels
        self.num_frames += sums.num_frames

    @property
    def c0_loss(self) -> float:
        """Mean nats of a codec_0 target."""
        return self.c0_sum / self.num_labels

    @property
    def codebook_losses(self) -> tuple[float, ...]:
        """Mean nats of codebooks 1 … K-1."""
        return tuple(value / self.num_frames for value in self.sub_sums)

    @property
    def sub_loss(self) -> float:
        """Mean nats of a code of the further codebooks."""
        return ordered_sum(self.codebook_losses) / len(self.sub_sums)

    def loss(self, sub_talker_weight: float) -> float:
        """Return the total that training minimises."""
        return self.c0_loss + sub_talker_weight * self.sub_loss
