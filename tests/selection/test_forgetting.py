"""What was forgotten, on simulated systems whose right answer is known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rows import make_row, make_system
from voxadapt.core.errors import UserError
from voxadapt.core.params import SelectParams
from voxadapt.scoring.rows import ScoreRow
from voxadapt.selection.forgetting import forgetting

PARAMS = SelectParams(num_bootstrap=600, primary="error")
FIELDS = {"split": "source", "num_texts": 40}


def renamed(rows: list[ScoreRow], name: str) -> list[ScoreRow]:
    return [row.model_copy(update={"candidate": name}) for row in rows]


def compare(
    base: list[ScoreRow] | None = None, chosen: str = "base", **others: list[ScoreRow]
) -> dict[str, Any]:
    return forgetting(
        base or make_system("base", **FIELDS),
        {name.replace("_", "-"): rows for name, rows in others.items()},
        PARAMS,
        chosen=chosen,
    )


def test_a_candidate_that_says_the_same_has_kept_everything() -> None:
    base = make_system("base", **FIELDS)
    record = compare(base, chosen="epoch-1", epoch_1=renamed(base, "epoch-1"))
    found = record["candidates"]["epoch-1"]
    assert found["verdict"] == "kept" and record["warning"] is None
    assert {key: value["point"] for key, value in found["vs_base"].items()} == {
        "cer": 0.0, "wer": 0.0, "sim": 0.0, "failure_rate": 0.0
    }  # fmt: skip
    assert found["wer"] == record["candidates"]["base"]["wer"]
    assert "no worse within 2 points" in found["sentence"]


def test_a_worse_candidate_has_forgotten_and_only_the_chosen_one_warns() -> None:
    worse = make_system("epoch-2", error=0.4, sim=0.7, **FIELDS)
    better = make_system("epoch-1", error=0.02, **FIELDS)
    record = compare(chosen="epoch-2", epoch_1=better, epoch_2=worse)
    found = record["candidates"]["epoch-2"]
    assert found["verdict"] == "forgotten" and found["vs_base"]["wer"]["low"] > 0
    assert found["vs_base"]["sim"]["point"] == pytest.approx(-0.1, abs=0.02)
    assert found["sentence"] in record["warning"] and record["chosen"] == "epoch-2"
    assert record["candidates"]["epoch-1"]["verdict"] == "kept"
    assert compare(chosen="epoch-1", epoch_1=better, epoch_2=worse)["warning"] is None
    assert compare(epoch_2=worse)["warning"] is None


def test_few_sentences_cannot_exclude_a_loss() -> None:
    few = {"split": "source", "num_texts": 5}
    record = compare(
        make_system("base", **few),
        chosen="epoch-1",
        epoch_1=make_system("epoch-1", error=0.13, **few),
    )
    found = record["candidates"]["epoch-1"]
    assert found["vs_base"]["wer"]["low"] <= 0 < PARAMS.error_margin
    assert found["vs_base"]["wer"]["high"] > PARAMS.error_margin
    assert found["verdict"] == "undecided" and record["warning"] is None
    assert "too few sentences" in found["sentence"]


def test_a_single_sentence_has_no_interval() -> None:
    record = compare([make_row("base")], epoch_1=[make_row("epoch-1")])
    assert record["candidates"]["epoch-1"]["verdict"] == "undecided"
    assert "[" not in record["candidates"]["epoch-1"]["sentence"]


def test_a_failed_clip_counts_as_forgotten_words() -> None:
    rows = make_system("epoch-1", error=0.0, **FIELDS)
    lost = [row.model_copy(update={"status": "failed", "sim": None}) for row in rows]
    record = forgetting(
        make_system("base", **FIELDS),
        {"epoch-1": lost},
        PARAMS,
        chosen="base",
        scale={"floor": {"point": 0.5}},
    )
    found = record["candidates"]["epoch-1"]
    assert found["wer"]["point"] == found["failure_rate"]["point"] == 1.0
    assert found["sim"]["point"] == 0.5 and found["verdict"] == "forgotten"


def test_the_base_is_listed_once_and_first_in_the_callers_order() -> None:
    base = make_system("base", **FIELDS)
    names = ("stage2-epoch-1", "epoch-2", "epoch-10", "base", "talker_lora")
    record = forgetting(base, {name: renamed(base, name) for name in names}, PARAMS, chosen="base")
    assert list(record["candidates"]) == [
        "base", "stage2-epoch-1", "epoch-2", "epoch-10", "talker_lora"
    ]  # fmt: skip
    assert (
        record["candidates"]["base"]["vs_base"] is None
        and record["candidates"]["base"]["verdict"] == "kept"
    )
    assert record["num_texts"] == 40 and record["takes"] == 3
    json.dumps(record, allow_nan=False)


def test_a_source_language_without_spaces_is_read_by_characters() -> None:
    base = make_system("base", lang="zh", **FIELDS)
    assert compare(base, epoch_1=renamed(base, "epoch-1"))["metric"] == "cer"


def test_unpaired_and_mixed_scores_are_refused() -> None:
    other = make_system("epoch-1", **FIELDS)
    with pytest.raises(UserError, match="1 missing"):
        compare(epoch_1=other[1:])
    with pytest.raises(UserError, match="other texts"):
        compare(epoch_1=make_system("epoch-1", text="else", **FIELDS))
    with pytest.raises(UserError, match="asr_id"):
        compare(epoch_1=make_system("epoch-1", asr_id="tiny", **FIELDS))
