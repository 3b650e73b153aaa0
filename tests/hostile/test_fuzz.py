"""The fuzz targets of `tests/fuzz/` for a moment, by hypothesis; and what the record may claim."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuzz import run, targets

PROJECT = Path(__file__).parents[2]
NUM_EXAMPLES = {"manifest": 250, "params": 150, "normaliser": 600}


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.TARGETS)
def test_target(name: str) -> None:
    target: Callable[[bytes], str] = targets.TARGETS[name]

    @settings(max_examples=NUM_EXAMPLES[name])
    @given(st.binary(max_size=run.MAX_BYTES))
    @example(b"")
    @example(bytes(range(256)))
    def hold(data: bytes) -> None:
        assert target(data) in ("accepted", "refused")

    hold()


@pytest.mark.slow
def test_both_outcomes_are_reached() -> None:
    """A target whose inputs are all refused would test nothing behind the door."""
    for name, target in targets.TARGETS.items():
        outcomes = {target(bytes((7 * n + k * k) % 256 for k in range(64))) for n in range(120)}
        assert outcomes == {"accepted", "refused"}, name


def test_a_failure_is_counted_and_kept() -> None:
    def fails(data: bytes) -> str:
        assert len(data) < 3, "too long"
        return "accepted"

    counted = run.Counted("x", fails)
    for size in range(5):
        counted(bytes(size))
    record = counted.record("random", 1)
    assert (record["executions"], record["failures"]) == (5, 2)
    assert record["outcomes"] == {"accepted": 3}
    assert "too long" in record["first_failures"][0]["error"]


def test_the_record_adds_up() -> None:
    if not run.RECORD.is_file():
        pytest.skip("no record: `python tests/fuzz/run.py` writes it")
    record = json.loads(run.RECORD.read_text(encoding="utf-8"))
    for key in ("executions", "failures"):
        assert record["total"][key] == sum(entry[key] for entry in record["runs"])
    for entry in record["runs"]:
        assert sum(entry["outcomes"].values()) + entry["failures"] == entry["executions"]
    assert {entry["target"] for entry in record["runs"]} == set(targets.TARGETS)
    assert record["total"]["failures"] == 0


def test_the_long_run_failed_nowhere_and_the_page_quotes_it() -> None:
    runs = json.loads(run.RECORD.read_text(encoding="utf-8"))["runs"]
    page = (PROJECT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert sum(entry["failures"] for entry in runs) == 0
    for entry in runs:
        counts = (entry["executions"], entry["outcomes"]["accepted"], entry["outcomes"]["refused"])
        assert " | ".join(f"{count:,}" for count in counts) in page, entry["target"]
    assert f"| all | {sum(entry['executions'] for entry in runs):,} |" in page
