"""Records of earlier stages: what is damaged, or of another shape, is an error of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxadapt.core.errors import UserError
from voxadapt.core.records import read_record


@pytest.mark.parametrize("content", ["", "[]", "7", "null", '"words"', "{", "[" * 100_000, "\xff"])
def test_what_is_no_record_is_named_with_its_command(tmp_path: Path, content: str) -> None:
    file = tmp_path / "selection.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="Run `voxadapt select`"):
        read_record(file, "select")
    with pytest.raises(UserError, match="nothing"):
        read_record(tmp_path / "none.json", "select")


def test_a_key_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "selection.json").write_text('{"rule": {}}')
    record = read_record(tmp_path / "selection.json", "select")
    assert record["rule"] == {} and record.get("chosen") is None and "chosen" not in record
    with pytest.raises(UserError, match="chosen"):
        record["chosen"]
