"""The page of `dvc plots show` needs no network: it brings what draws its curves."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from whole import PROJECT, dvc

PLOTS = """\
plots:
  - Losses per step:
      template: steps
      x: step
      y:
        log.csv: [loss, c0_loss]
  - Errors:
      template: interval
      x: step
      y:
        log.csv: loss
"""


@pytest.mark.slow
def test_it_draws_every_plot_without_the_internet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    (tmp_path / "dvc.yaml").write_text(PLOTS)
    for file in (PROJECT / ".dvc" / "plots").iterdir():
        target = tmp_path / ".dvc" / "plots" / file.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
    (tmp_path / ".dvc" / "config").write_bytes((PROJECT / ".dvc" / "config").read_bytes())
    with open(tmp_path / "log.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["step", "loss", "c0_loss", "loss_low", "loss_high"])
        rows.writerows([step, 3 - step, 2 - step, 2 - step, 4 - step] for step in range(3))
    dvc(tmp_path, "plots", "show")
    page = (tmp_path / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    assert page.count("vegaEmbed('#") == 2
    assert "function vegaEmbed(selector, spec)" in page
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|@import""", page)
    assert not re.search(r"\{(scripts|plot_divs|refresh_tag)\}", page)
