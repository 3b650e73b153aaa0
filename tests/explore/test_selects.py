"""Selects in a notebook: widgets where a kernel shows them, first values where none does."""

from __future__ import annotations

from types import SimpleNamespace

import IPython
import pytest

from voxadapt.explore.selects import Selects


def test_without_a_kernel_the_first_values_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    selects, seen = Selects(candidate=["epoch-1", "base"], take=["1", "2"]), []
    selects.draw(lambda **values: seen.append(values))
    assert seen == [{"candidate": "epoch-1", "take": "1"}] and selects["take"] == "1"
    assert "candidate: epoch-1, take: 1" in capsys.readouterr().out


def test_with_a_kernel_a_change_is_read_and_draws_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    selects = Selects(candidate=["epoch-1", "base"], take=["1", "2"])
    monkeypatch.undo()
    seen: list[dict[str, str]] = []
    selects.draw(lambda **values: seen.append(values))
    selects._boxes["candidate"].value = "base"
    assert selects["candidate"] == "base"
    assert seen[-1] == {"candidate": "base", "take": "1"} and len(seen) == 2
