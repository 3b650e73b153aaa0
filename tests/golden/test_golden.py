"""A change of a library that changes a result is seen here."""

from __future__ import annotations

import copy

import pytest

from golden import measure as golden
from voxadapt.core.files import read_json

pytestmark = pytest.mark.skipif(
    not (golden.DATA / "models").is_dir(), reason="the miniature is not here: dvc pull"
)


@pytest.mark.slow
def test_the_whole_pipeline_gives_its_golden_values() -> None:
    moved = golden.differences(read_json(golden.GOLDEN), golden.measure())
    known = read_json(golden.GOLDEN)["versions"]
    assert not moved, "\n".join([*moved, f"The golden values were made with {known}."])


def test_a_value_that_moves_beyond_its_tolerance_is_named() -> None:
    before = read_json(golden.GOLDEN)
    after = copy.deepcopy(before)
    after["close"]["losses"][1][0] *= 1 + 1e-6
    assert golden.differences(before, after) == []
    after["close"]["losses"][1][0] *= 1.01
    after["exact"]["chosen"] = "base"
    after["exact"]["codes_sha"] = {}
    names = [line.split(":")[0].split(" ")[0] for line in golden.differences(before, after)]
    assert names == ["chosen", "codes_sha", "losses"]
    del after["close"]["mel"]
    assert any(line.startswith("mel") for line in golden.differences(before, after))
