"""The learning rate of each optimizer step."""

import math


def learning_rate(
    step: int, peak: float, schedule: str, warmup_steps: int, total_steps: int
) -> float:
    """Return the learning rate of an optimizer step.

    It rises linearly to `peak` over the warm-up, then stays (`constant`) or falls to zero along
    half a cosine (`cosine`). Steps count from 0.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    assert schedule == "cosine", schedule
    share = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
