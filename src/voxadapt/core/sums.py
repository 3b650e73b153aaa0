"""Sums of floats that are the same on every Python."""

import functools
import operator
from collections.abc import Iterable


def ordered_sum(values: Iterable[float]) -> float:
    """Add floats from left to right, for a value that is written to a record.

    The builtin `sum` compensates rounding errors from Python 3.12 on and does not before, so its
    last digit depends on the interpreter.
    """
    return functools.reduce(operator.add, values, 0.0)
