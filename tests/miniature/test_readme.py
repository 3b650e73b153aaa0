"""The page of the miniature shows the curves that its trainings wrote."""

from __future__ import annotations

import json

from miniature.readme import CURVES, SHARES, curve_table


def test_a_stopped_run_counts_each_step_once(tmp_path):
    for _, folder, key in CURVES:
        (tmp_path / folder).mkdir(exist_ok=True)
        steps = [*range(1, 101), *range(81, 121)]  # stopped at 100, went on from 80
        rows = [{"step": step, "c0": 0.0, "sub": 0.0, key: step} for step in steps]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / folder / "curve.jsonl").write_text(text)
    lines = curve_table(tmp_path).splitlines()
    assert len(lines) == 2 + len(CURVES)
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[1] == "120"
    assert cells[2:] == [f"{round(share * 120):.2f}" for share in SHARES]
