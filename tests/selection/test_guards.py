"""A candidate that loses short answers is not taken, although its average is better."""

from __future__ import annotations

from typing import Any

import pytest

from rows import make_row
from voxadapt.core.params import SelectParams
from voxadapt.scoring.rows import ScoreRow
from voxadapt.selection.select import select

PARAMS = SelectParams(num_bootstrap=400)
TAKES = 3


def clips(candidate: str, sim: float, short_errors: int) -> list[ScoreRow]:
    """Return rows of 30 corpus sentences without errors, and 10 short ones with some."""
    rows = [
        make_row(candidate, f"t{i:02d}", take, sim=sim + 0.001 * (i % 5))
        for i in range(30)
        for take in range(TAKES)
    ]
    for i in range(10):
        for take in range(TAKES):
            wrong = short_errors if i % 5 else short_errors // 2
            fields: dict[str, Any] = {
                "slice": "short", "text": f"Short answer {i}.", "ref_words": 3,
                "word_hits": 3 - wrong, "word_substitutions": wrong, "sim": sim,
            }  # fmt: skip
            rows.append(make_row(candidate, f"short-{i}", take, **fields))
    return rows


@pytest.mark.parametrize(("errors", "chosen"), [(0, "epoch-1"), (2, "base")])
def test_a_set_guards(errors: int, chosen: str) -> None:
    rows = {"base": clips("base", 0.7, 0), "epoch-1": clips("epoch-1", 0.8, errors)}
    found = select(rows, PARAMS)
    assert found["chosen"] == chosen
    assert found["num_texts"] == 30, "sets never choose"
    item = next(item for item in found["candidates"] if item["name"] == "epoch-1")
    gates = {gate["name"]: gate["state"] for gate in item["gates"]}
    assert gates["short_error"] == ("failed" if errors else "passed")
    assert item["wer"]["point"] == 0.0, "nor do they enter the average that hid them"


def test_a_set_of_one_sentence_shows_nothing_and_of_two_no_more_than_there_is() -> None:
    rows = {"base": clips("base", 0.7, 0), "epoch-1": clips("epoch-1", 0.8, 2)}
    for count, said in ((1, "(one sentence)"), (2, "to +100.0)")):
        kept = [f"short-{i}" for i in range(count)]
        some = {name: [row for row in found if row.slice == "ranked" or row.text_id in kept]
                for name, found in rows.items()}  # fmt: skip
        item = next(c for c in select(some, PARAMS)["candidates"] if c["name"] == "epoch-1")
        gate = next(gate for gate in item["gates"] if gate["name"] == "short_error")
        assert (gate["state"], item["eligible"]) == ("undecided", True)
        assert said in gate["text"]


def test_without_sets_there_are_no_further_gates() -> None:
    rows = {
        name: [row for row in clips(name, 0.7, 0) if row.slice == "ranked"]
        for name in ("base", "epoch-1")
    }
    for item in select(rows, PARAMS)["candidates"]:
        assert not any(gate["name"].startswith("short") for gate in item["gates"])
