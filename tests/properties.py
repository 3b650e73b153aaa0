"""How many examples of a property are tried: all of them, or a fifth in the loop."""

from hypothesis import settings

ALL = 100  # the default of hypothesis, which conftest.py lowers for the loop


def examples(count: int) -> int:
    """Return how many of so many examples this run tries."""
    return max(1, count * settings().max_examples // ALL)
