"""The short form of `make test-faults`, and what the last long one says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from voxadapt.core.files import read_json

PROJECT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
@pytest.mark.skipif(not (PROJECT / "data" / "models").is_dir(), reason="the miniature is not here")
def test_killed_stages_go_on_and_end_with_the_same_bytes(tmp_path: Path) -> None:
    """In a process of its own: a process with threads, as a test worker is, must not fork."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "tests" / "faults" / "kills.py"), "--kills", "3",
         "--stages", "codes", "train", "--summary", str(tmp_path / "summary.json")],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    summary = read_json(tmp_path / "summary.json")
    assert summary["losses"] == 0
    for name, work in (("codes", "clips encoded"), ("train", "steps trained")):
        stage = summary["stages"][name]
        assert stage["kills"] >= 3
        assert stage["work"][work] > 0
        assert stage["done_again"][work] <= stage["kills"] * 8


def test_the_last_long_run_lost_nothing_and_the_page_quotes_it() -> None:
    record = read_json(PROJECT / "docs" / "reliability.json")
    assert record["losses"] == 0
    page = (PROJECT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert f"{record['kills']} kills" in page
    for name, stage in record["stages"].items():
        assert f"| {name} | {stage['kills']} |" in page
