"""The benchmark of growth runs with the package as it is: a few clips, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import scale


@pytest.mark.slow
@pytest.mark.parametrize("step", ["extraction", "scoring"])
def test_every_simulated_clip_has_its_result(step: str, tmp_path: Path) -> None:
    """`one_run` asserts that each has one; stand-ins that had drifted would not get so far."""
    scale.make_files(tmp_path)
    cost = scale.one_run(step, "local", 70, tmp_path)  # more than are read at once
    assert cost.seconds > 0.0 and cost.worker_bytes == 0.0
