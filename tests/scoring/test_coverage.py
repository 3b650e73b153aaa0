"""95 % intervals contain the truth in 93 to 97 % of simulated corpora; planned power is real.

`python -m benchmarks.coverage` runs the same cases with many more trials.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from benchmarks.coverage import CASES, Case, measure, power_of_errors, power_of_similarity

NUM_TRIALS = 600
# Two standard errors of a share of so many trials.
CHANCE = 2.0 * float(np.sqrt(0.95 * 0.05 / NUM_TRIALS))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_intervals_contain_the_truth_as_often_as_they_say(case: Case) -> None:
    found = measure(case, NUM_TRIALS, num_bootstrap=600, seed=1)
    assert case.lowest - CHANCE <= found <= case.highest + CHANCE


@pytest.mark.parametrize("power", [power_of_similarity, power_of_errors])
@pytest.mark.parametrize("num_texts", [20, 60])
def test_a_difference_called_detectable_is_detected_in_four_cases_of_five(
    power: Callable[[int, int, int, int], float], num_texts: int
) -> None:
    assert 0.75 <= power(num_texts, 500, 500, 3) <= 0.85
