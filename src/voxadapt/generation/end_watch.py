"""Whether a row of speech has missed its end, from the probability of the end in every frame.

The product of the complements is the share of equal rows that would still be speaking. Where it
falls below `STARVED`, or the limit comes after a frame at which the larger part of equal rows
would have ended, the row is cut where most of them would have. A row that is free to end is cut
with a probability below `STARVED`, whatever the model says; until then nothing of it changes.

Shape legend: S slots, A slots in use.
"""

import torch
from torch import Tensor

STARVED = 1e-4  # share of equal rows still speaking below which a row is cut
PLAUSIBLE = 0.5  # share of equal rows that ended in one frame, for which a row at its limit is cut


class EndWatch:
    """What is known of the ends of rows; it stays on the device, and nothing is read back.

    Attributes:
        likeliest_S: Frame at which most rows equal to a slot's would have ended.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self.speaking_S = torch.ones(slots, device=device)
        self._share_S = torch.zeros(slots, device=device)  # of equal rows, at `likeliest_S`
        self.likeliest_S = torch.zeros(slots, dtype=torch.long, device=device)

    def reset(self) -> None:
        """Begin with other rows."""
        self.speaking_S.fill_(1.0)
        self._share_S.zero_()
        self.likeliest_S.zero_()

    def observe(self, end_A: Tensor, active_A: Tensor, frame_1: Tensor) -> Tensor:
        """Take in how likely the end was; return which rows may go on, bool `[A]`.

        `end_A` is its probability in frame number `frame_1`; `active_A` are the rows that were
        speaking before it, the others stay as they are.
        """
        A = len(end_A)
        speaking_A, share_A, likeliest_A = (
            self.speaking_S[:A],
            self._share_S[:A],
            self.likeliest_S[:A],
        )
        here_A = torch.where(active_A, speaking_A * end_A, 0.0)
        likeliest_A.copy_(torch.where(here_A > share_A, frame_1, likeliest_A))
        share_A.copy_(torch.maximum(share_A, here_A))
        speaking_A.sub_(here_A)
        return speaking_A >= STARVED

    def missed(self, slots: int) -> Tensor:
        """Return which of the first slots have missed their end, bool `[A]`, if none came."""
        return (self.speaking_S[:slots] < STARVED) | (self._share_S[:slots] >= PLAUSIBLE)

    def keep(self, kept: Tensor) -> None:
        """Move these slots to the front."""
        for item in (self.speaking_S, self._share_S, self.likeliest_S):
            item[: len(kept)] = item[kept]
