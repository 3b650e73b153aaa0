"""Fixtures of the tests of `voxadapt init` and `voxadapt import`."""

from __future__ import annotations

import pytest


@pytest.fixture
def python_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whisper's alignment as plain Python: compiling it takes longer than these few words."""
    import whisper.timing as timing

    for name in ("dtw_cpu", "backtrace"):
        compiled = getattr(timing, name)
        monkeypatch.setattr(timing, name, getattr(compiled, "py_func", compiled))
