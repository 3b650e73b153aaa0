from __future__ import annotations

from typing import Any

import pytest

from voxadapt.core.params import SelectParams
from voxadapt.pipeline.speak_and_score import better_prompt


def summaries(**values: tuple[float | None, float]) -> dict[Any, Any]:
    return {name: {"sim": {"point": sim}, "wer": {"point": wer}}
            for name, (sim, wer) in values.items()}  # fmt: skip


@pytest.mark.parametrize(
    ("x_vector", "icl", "primary", "expected"),
    [
        ((0.6, 0.10), (0.7, 0.11), "similarity", "icl"),
        ((0.7, 0.10), (0.6, 0.05), "similarity", "icl"),  # 5 points more errors are no bar
        ((0.7, 0.10), (0.6, 0.09), "similarity", "x_vector"),
        ((0.6, 0.10), (0.9, 0.50), "similarity", "x_vector"),
        ((0.7, 0.10), (0.7, 0.10), "similarity", "x_vector"),
        ((0.7, 0.10), (None, 0.10), "similarity", "x_vector"),
        ((0.7, 0.10), (0.1, 0.09), "error", "icl"),
    ],
)
def test_the_prompt_that_is_harder_to_beat(
    x_vector: Any, icl: Any, primary: Any, expected: str
) -> None:
    rule = SelectParams(primary=primary)
    assert better_prompt(summaries(x_vector=x_vector, icl=icl), rule) == expected
