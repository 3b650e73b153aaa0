"""The gate on F0 range, and what the record says of melody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rows import make_row
from voxadapt.core.params import SelectParams
from voxadapt.scoring.prosody import prosody_record
from voxadapt.scoring.rows import ScoreRow
from voxadapt.selection.gates import f0_range_gate
from voxadapt.selection.select import select

PARAMS = SelectParams(num_bootstrap=300)


def clips(candidate: str, share: float, **fields: Any) -> list[ScoreRow]:
    """Return rows with this share of the recordings' F0 range, 10 % up or down."""
    generator = np.random.default_rng(len(candidate))
    return [
        make_row(
            candidate,
            f"t{text:02d}",
            take,
            f0_range_st=4.0 * share * (1 + 0.1 * generator.normal()),
            f0_median_hz=170.0 + 0.1 * text,
            **fields,
        )
        for text in range(20)
        for take in range(1 if candidate in ("real", "codec") else 3)
    ]


REAL, CODEC = clips("real", 1.0), clips("codec", 1.0)


@pytest.mark.parametrize(
    ("share", "state"), [(1.0, "passed"), (0.8, "passed"), (0.7, "undecided"), (0.5, "failed")]
)
def test_the_gate_is_read_by_its_interval(share: float, state: str) -> None:
    rows = clips("epoch-1", share)
    assert f0_range_gate(rows, REAL, CODEC, 0.7, PARAMS).state in (
        (state,) if state != "undecided" else ("undecided", "failed")
    )


@pytest.mark.parametrize(
    "lost",
    [{"f0_median_hz": None, "f0_range_st": None}, {"f0_median_hz": 210.0}, {"f0_range_st": 2.0}],
)
def test_a_codec_that_loses_f0_leaves_it_undecided(lost: dict[str, Any]) -> None:
    codec = [row.model_copy(update=lost) for row in CODEC]
    gate = f0_range_gate(clips("epoch-1", 0.5), REAL, codec, 0.7, PARAMS)
    assert gate.state == "undecided" and "cannot be measured" in gate.text
    record = prosody_record(clips("epoch-1", 0.5, pause_s=0.2), REAL, codec, PARAMS)
    assert record["f0_measurable"] is False and set(record) == {
        "f0_measurable", "pause_s", "articulation_rate",
    }  # fmt: skip


def test_sentences_that_nobody_recorded_leave_it_undecided() -> None:
    other = [row.model_copy(update={"text_id": f"own-{row.text_id}"}) for row in REAL]
    assert f0_range_gate(clips("epoch-1", 0.5), other, CODEC, 0.7, PARAMS).state == "undecided"


def test_a_flat_candidate_is_not_eligible_where_the_gate_is_on() -> None:
    rows = {"base": clips("base", 0.95), "epoch-1": clips("epoch-1", 0.55, sim=0.9)}
    recordings: dict[str, Any] = {"real": REAL, "codec": CODEC}
    free = select(rows, PARAMS, **recordings)
    kept = select(rows, PARAMS.model_copy(update={"min_f0_range_ratio": 0.7}), **recordings)
    assert free["chosen"] == "epoch-1" and kept["chosen"] == "base"
    [flat] = [item for item in kept["candidates"] if item["name"] == "epoch-1"]
    [gate] = [gate for gate in flat["gates"] if gate["name"] == "f0_range"]
    assert gate["state"] == "failed" and gate["value"] == pytest.approx(0.55, abs=0.03)
    assert flat["prosody"]["f0_range_st"]["vs_real"]["high"] < 0.7
    assert all(gate["name"] != "f0_range" for item in free["candidates"] for gate in item["gates"])


def test_the_record_is_without_f0_where_the_codec_loses_it() -> None:
    rows = clips("epoch-1", 0.8, pause_s=0.2, num_pauses=1.0)
    real = clips("real", 1.0, pause_s=0.2, num_pauses=1.0)
    kept = prosody_record(rows, real, CODEC, PARAMS)
    higher = [row.model_copy(update={"f0_median_hz": 210.0}) for row in CODEC]
    lost = prosody_record(rows, real, higher, PARAMS)
    assert kept["f0_measurable"] and not lost["f0_measurable"]
    assert {"f0_range_st", "pause_s"} <= set(kept) and "pause_s" in lost
    assert not any(name.startswith("f0") for name in lost if name != "f0_measurable")
