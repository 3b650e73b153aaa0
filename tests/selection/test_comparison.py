"""Systems against each other: paired where they spoke the same, simultaneous, symmetric."""

from __future__ import annotations

import pytest

from rows import make_system
from voxadapt.core.errors import UserError
from voxadapt.core.params import SelectParams
from voxadapt.scoring.rows import ScoreRow
from voxadapt.selection.comparison import compare_systems

SELECT = SelectParams(num_bootstrap=500)


def three(**fields: object) -> dict[str, list[ScoreRow]]:
    return {
        "a": make_system("a", error=0.1, sim=0.8, **fields),  # type: ignore[arg-type]
        "b": make_system("b", error=0.1, sim=0.7, **fields),  # type: ignore[arg-type]
        "c": make_system("c", error=0.5, sim=0.8, **fields),  # type: ignore[arg-type]
    }


def test_every_pair_is_read_by_the_simultaneous_interval() -> None:
    record = compare_systems(three(), SELECT)
    assert record is not None and record["num_texts"] == 24
    by_pair = {(pair["first"], pair["second"]): pair for pair in record["pairs"]}
    assert set(by_pair) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert by_pair["a", "b"]["error"]["better"] is None
    assert by_pair["a", "b"]["sim"]["better"] == "a" == by_pair["a", "c"]["error"]["better"]
    assert by_pair["b", "c"]["sim"]["better"] == "c"
    assert by_pair["a", "c"]["failure_rate"]["better"] is None
    for pair in by_pair.values():
        for key in ("error", "sim"):
            found = pair[key]
            width = found["simultaneous_high"] - found["simultaneous_low"]
            assert width > found["difference"]["high"] - found["difference"]["low"] - 0.01
    assert sum(record["p_best"]["error"].values()) == pytest.approx(1.0, abs=1e-5)
    assert "a has higher similarity than b" in record["text"]
    assert compare_systems({k: rows[::-1] for k, rows in three().items()}, SELECT) == record


def test_only_shared_texts_count() -> None:
    rows = three()
    rows["b"] = [row for row in rows["b"] if row.text_id >= "t04"]
    rows["c"] += [
        row.model_copy(update={"text_id": "n" + row.text_id, "slice": "digits"})
        for row in rows["c"][:6]
    ]
    record = compare_systems(rows, SELECT)
    assert record is not None and record["num_texts"] == 20
    assert record["left_out"] == {"a": 4, "b": 0, "c": 4}
    alone = {k: [row for row in v if "t04" <= row.text_id] for k, v in three().items()}
    expected = compare_systems(alone, SELECT)
    assert expected is not None and record["pairs"] == expected["pairs"]


def test_nothing_in_common_is_said() -> None:
    rows = three()
    rows["b"] = [row.model_copy(update={"text_id": "x" + row.text_id}) for row in rows["b"]]
    record = compare_systems(rows, SELECT)
    assert (
        record is not None and record["pairs"] == [] and "share 0 of their texts" in record["text"]
    )
    assert compare_systems({"a": rows["a"]}, SELECT) is None


def test_takes_may_differ_and_similarity_may_be_unknown() -> None:
    rows = three()
    rows["a"] = [row for row in rows["a"] if row.take == 0]
    record = compare_systems(rows, SELECT, with_similarity=False)
    assert record is not None
    assert all("sim" not in pair for pair in record["pairs"]) and "sim" not in record["p_best"]


def test_identical_systems_cannot_be_told_apart() -> None:
    rows = make_system("a", error=0.3)
    twin = [row.model_copy(update={"candidate": "b"}) for row in rows]
    record = compare_systems({"a": rows, "b": twin}, SELECT)
    assert record is not None
    [pair] = record["pairs"]
    assert all(pair[key]["better"] is None for key in ("error", "sim", "failure_rate"))
    assert pair["error"]["difference"]["point"] == 0.0
    assert "no two systems can be told apart" in record["text"]


def test_evaluators_are_not_mixed() -> None:
    rows = three() | {"c": make_system("c", asr_id="other")}
    with pytest.raises(UserError, match="asr_id"):
        compare_systems(rows, SELECT)


def test_the_system_that_runs_away_is_the_worse_one() -> None:
    rows = {"a": make_system("a", runaways=20), "b": make_system("b")}
    record = compare_systems(rows, SELECT)
    assert record is not None
    [pair] = record["pairs"]
    assert pair["failure_rate"]["better"] == "b"
