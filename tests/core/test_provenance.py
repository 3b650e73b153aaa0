"""Fingerprints, versions and the commit of a result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxadapt.core import provenance as p

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_fingerprint_ignores_the_order_of_keys(value: dict) -> None:
    backwards = dict(reversed(list(value.items())))
    assert p.fingerprint(value) == p.fingerprint(backwards)
    assert len(p.fingerprint(value)) == 16


def test_fingerprint_sees_every_change() -> None:
    assert len({p.fingerprint(v) for v in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {})}) == 5


def test_versions_name_what_shapes_a_result() -> None:
    found = p.versions()
    assert {"python", "torch", "qwen-tts", "openai-whisper", "Resemblyzer"} <= set(found)
    assert found["numpy"] == np.__version__


def test_commit_outside_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert p.git_commit() == {"commit": "unknown", "modified": False}
