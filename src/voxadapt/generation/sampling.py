"""From logits to codes, as Hugging Face's `generate` chooses them, with draws made beforehand.

Shape legend: B rows, V codes.
"""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

BELOW_ONE = 1.0 - 2.0**-23  # largest random number


def uniform(seed: int, num_tokens: int, num_codes: int) -> Tensor:
    """Draw the random numbers of one row, `[num_tokens, num_codes]`, the same on every device.

    The first frames' numbers do not depend on how many are drawn. They stay so far below 1 that
    a number times a float32 total is always less than the total.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_tokens, num_codes, generator=generator).clamp_(max=BELOW_ONE)


class GenerateOptions(TypedDict, total=False):
    """What the stock call passes to `talker.generate` besides the prompt, as far as it is read."""

    do_sample: bool
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    subtalker_dosample: bool
    subtalker_temperature: float | None
    subtalker_top_k: int | None
    subtalker_top_p: float | None
    eos_token_id: int
    suppress_tokens: list[int]
    min_new_tokens: int | None


class Sampler:
    """From logits to codes, with the processors of Hugging Face's `generate` in its order.

    Codes keep their order under the draw, so that two checkpoints whose probabilities differ a
    little mostly choose the same code. Nothing is read back from a GPU, and no shape depends on
    a value.

    Args:
        sample: Draw; otherwise take the likeliest.
        temperature: Divides the logits.
        top_k: Likeliest codes that are drawn from; 0 or None: all.
        top_p: Probability mass that is drawn from.
        repetition_penalty: Divides the logits of codes that the row has used already.
    """

    def __init__(
        self,
        sample: bool,
        temperature: float | None,
        top_k: int | None,
        top_p: float | None,
        repetition_penalty: float | None = None,
    ) -> None:
        self._sample, self._temperature, self._top_k = sample, temperature, top_k
        self.penalty = repetition_penalty if repetition_penalty not in (None, 1.0) else None
        self._top_p = None
        if top_p is not None and top_p < 1.0:
            from transformers import TopPLogitsWarper  # a model is loaded by now: nothing heavy

            self._top_p = TopPLogitsWarper(top_p)

    @classmethod
    def talker(cls, options: GenerateOptions) -> Sampler:
        """Return the sampler of codebook 0."""
        return cls(options["do_sample"], options["temperature"], options["top_k"],
                   options["top_p"], options["repetition_penalty"])  # fmt: skip

    @classmethod
    def sub_talker(cls, options: GenerateOptions) -> Sampler:
        """Return the sampler of the other codebooks."""
        return cls(options["subtalker_dosample"], options["subtalker_temperature"],
                   options["subtalker_top_k"], options["subtalker_top_p"])  # fmt: skip

    def __call__(self, used_BV: Tensor | None, logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
        """Choose a code a row."""
        return self.choose(self.scores(used_BV, logits_BV), uniform_B)

    def scores(self, used_BV: Tensor | None, logits_BV: Tensor) -> Tensor:
        """Return the logits that are chosen by: their softmax is what is drawn from.

        Logits are float32; `used_BV`, the codes that a row has used, is read only where repetition
        is penalised.
        """
        scores_BV = logits_BV
        if self.penalty is not None:
            assert used_BV is not None
            lower_BV = torch.where(
                scores_BV < 0, scores_BV * self.penalty, scores_BV / self.penalty
            )
            scores_BV = torch.where(used_BV, lower_BV, scores_BV)
        if not self._sample:
            return scores_BV
        if self._temperature not in (None, 1.0):
            scores_BV = scores_BV / self._temperature
        if self._top_k:
            kept = scores_BV.topk(min(self._top_k, scores_BV.shape[-1])).values[:, -1:]
            scores_BV = scores_BV.masked_fill(scores_BV < kept, -torch.inf)
        if self._top_p is not None:
            scores_BV = self._top_p(None, scores_BV)
        return scores_BV

    def choose(self, scores_BV: Tensor, uniform_B: Tensor) -> Tensor:
        """Choose the code whose stretch of the cumulated probability holds the draw.

        Draws lie in [0, BELOW_ONE].
        """
        if not self._sample:
            return scores_BV.argmax(dim=-1)
        cumulated_BV = scores_BV.softmax(dim=-1).cumsum(dim=-1)
        wanted_B1 = uniform_B[:, None] * cumulated_BV[:, -1:]
        return torch.searchsorted(cumulated_BV, wanted_B1, right=True).squeeze(-1)
