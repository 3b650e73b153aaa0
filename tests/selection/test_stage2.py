"""Stage 2's gate on simulated systems: run, skip, undecided, and who may overrule the data."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from rows import make_row, make_system
from voxadapt.core.errors import UserError
from voxadapt.core.params import SelectParams, Stage2Params
from voxadapt.scoring.rows import ScoreRow
from voxadapt.selection.stage2 import _texts_needed, decide_stage2

SELECT = SelectParams(num_bootstrap=600, primary="error", error_metric="wer")


def decide(
    error: float, *, num_texts: int = 24, candidate: str = "epoch-3", **rule: Any
) -> dict[str, Any]:
    """Decide for a Stage 1 of this error and a round trip of .1."""
    return decide_stage2(
        make_system(candidate, num_texts, error=error),
        make_system("codec", num_texts, takes=1, error=0.1),
        Stage2Params(**rule),
        SELECT,
    )


def test_a_wide_gap_runs_stage_2() -> None:
    record = decide(0.5)
    assert record["decision"] == record["acts"] == "run"
    assert record["gap"]["low"] > record["rule"]["max_gap"] == 0.05
    assert record["gap"]["point"] == pytest.approx(
        record["stage1"]["wer"]["point"] - record["codec"]["wer"]["point"], abs=1e-6
    )
    assert record["stage1"]["candidate"] == "epoch-3" and record["stage1"]["n"] == 72
    assert record["codec"]["n"] == 24 and record["gap"]["n"] == record["num_texts"] == 24
    assert record["num_texts_needed"] is None
    assert record["reason"].startswith("Stage 2 runs: epoch-3 reads with WER ")
    assert "more than the 5 points allowed" in record["reason"]


def test_no_gap_skips_stage_2() -> None:
    record = decide(0.05, if_undecided="run")
    assert record["decision"] == record["acts"] == "skip"
    assert record["gap"]["high"] <= 0.05
    assert record["reason"].startswith("Stage 2 is skipped: epoch-3 reads")


def test_the_threshold_alone_turns_the_decision() -> None:
    wide, narrow = decide(0.3, max_gap=0.05), decide(0.3, max_gap=0.4)
    assert (wide["decision"], narrow["decision"]) == ("run", "skip")
    assert wide["gap"] == narrow["gap"]


@pytest.mark.parametrize("acts", ["run", "skip"])
def test_too_few_sentences_leave_it_undecided_and_the_rule_acts(acts: str) -> None:
    record = decide(0.18, num_texts=6, if_undecided=acts)
    gap = record["gap"]
    assert record["decision"] == "undecided" and record["acts"] == acts
    assert gap["low"] <= 0.05 < gap["high"]
    reach = gap["point"] - gap["low"] if gap["point"] > 0.05 else gap["high"] - gap["point"]
    needed = record["num_texts_needed"]
    assert needed == math.ceil(6 * (reach / abs(gap["point"] - 0.05)) ** 2) > 6
    assert f"About {needed} sentences" in record["reason"]
    assert f"stage2.if_undecided: {acts}" in record["reason"]


@pytest.mark.slow
def test_the_number_needed_would_have_decided() -> None:
    few = decide(0.18, num_texts=6)
    assert decide(0.18, num_texts=4 * few["num_texts_needed"])["decision"] == "run"


@pytest.mark.parametrize(("point", "needed"), [(0.3, 54), (0.1, 24), (0.25, 150)])
def test_the_number_needed_is_of_the_end_beyond_the_limit(point: float, needed: int) -> None:
    gap = {"point": point, "low": 0.0, "high": 0.3, "n": 6}
    assert _texts_needed(gap, 0.2) == needed


@pytest.mark.parametrize(("error", "verdict"), [(0.5, "run"), (0.05, "skip")])
def test_a_mode_overrules_the_act_and_not_the_verdict(error: float, verdict: str) -> None:
    for mode, acts in (("always", "run"), ("never", "skip")):
        record = decide(error, mode=mode)
        assert (record["decision"], record["acts"], record["mode"]) == (verdict, acts, mode)
        assert record["gap"] == decide(error)["gap"]
        assert f"stage2.mode: {mode}" in record["reason"]
        assert ("the data would" in record["reason"]) == (verdict != acts)


def test_a_gap_at_the_limit_itself_names_no_number() -> None:
    half = [make_row("epoch-1", f"t{i}", word_hits=10 - i, word_substitutions=i) for i in range(3)]
    whole = [make_row("codec", f"t{i}") for i in range(3)]
    record = decide_stage2(half, whole, Stage2Params(max_gap=0.1), SELECT)
    assert record["gap"]["point"] == 0.1 and record["decision"] == "undecided"
    assert record["num_texts_needed"] is None and "No number" in record["reason"]


def test_one_sentence_decides_nothing() -> None:
    record = decide(0.9, num_texts=1)
    assert record["decision"] == "undecided" and record["num_texts_needed"] is None
    assert record["gap"]["low"] is None and "[" not in record["reason"]


def test_a_kept_base_is_named() -> None:
    record = decide(0.5, candidate="base")
    assert record["stage1"]["keep_base"] and record["decision"] == "run"
    assert "the unadapted Base reads" in record["reason"]
    assert "nothing was learnt" in record["reason"]


def test_takes_are_averaged_and_failed_clips_count() -> None:
    rows = [make_row("epoch-1", f"t{i}", take) for i in range(4) for take in range(2)]
    rows[0] = rows[0].model_copy(update={"status": "failed", "hyp": "", "hyp_norm": ""})
    codec = [make_row("codec", f"t{i}") for i in range(4)]
    record = decide_stage2(rows, codec, Stage2Params(), SELECT)
    assert record["stage1"]["wer"]["point"] == record["gap"]["point"] == 0.125


def test_character_errors_can_decide() -> None:
    worse = {"char_hits": 20, "char_substitutions": 19}
    stage1 = [make_row("epoch-1", f"t{i}", **worse) for i in range(6)]
    codec = [make_row("codec", f"t{i}") for i in range(6)]
    params = SELECT.model_copy(update={"error_metric": "cer"})
    record = decide_stage2(stage1, codec, Stage2Params(), params)
    assert record["rule"]["metric"] == "cer" and record["decision"] == "run"
    assert record["gap"]["point"] == pytest.approx(19 / 39, abs=1e-6)


def test_other_splits_and_sentences_are_left_out() -> None:
    stage1 = make_system("epoch-1", 8, error=0.5)
    codec = make_system("codec", 12, takes=1)
    codec += make_system("codec", 8, takes=1, error=0.9, split="confirmation")
    record = decide_stage2(stage1, codec, Stage2Params(), SELECT)
    assert record["codec"]["n"] == 8 and record["split"] == "selection"


def test_missing_stale_and_foreign_round_trips_are_refused() -> None:
    stage1, rule = make_system("epoch-1", 4), Stage2Params()

    def refused(codec: list[ScoreRow], match: str) -> None:
        with pytest.raises(UserError, match=match):
            decide_stage2(stage1, codec, rule, SELECT)

    refused(make_system("codec", 3, takes=1), "text t03: expected the codec's round trip")
    refused(make_system("codec", 4, takes=1, text="else"), "stale")
    refused(make_system("codec", 4, takes=1, asr_id="tiny"), "asr_id")


def test_equal_inputs_give_equal_bytes_in_any_order() -> None:
    stage1, codec = make_system("epoch-3", error=0.2), make_system("codec", takes=1)
    first = json.dumps(decide_stage2(stage1, codec, Stage2Params(), SELECT), allow_nan=False)
    for rows in (stage1, codec):
        random.Random(1).shuffle(rows)
    assert json.dumps(decide_stage2(stage1, codec, Stage2Params(), SELECT)) == first


@pytest.mark.parametrize("measurable", [True, False])
def test_what_cannot_be_measured_decides_nothing(measurable: bool) -> None:
    rows = make_system("epoch-3", error=0.5), make_system("codec", takes=1, error=0.1)
    can = {"measurable": measurable, "sentence": "Nothing can be measured."}
    record = decide_stage2(*rows, Stage2Params(if_undecided="run"), SELECT, can)
    assert record["decision"] == ("run" if measurable else "undecided")
    assert record["acts"] == ("run" if measurable else "skip")
    assert record["reason"].startswith("Nothing asks for Stage 2") == (not measurable)
    assert record.get("measurable") == (None if measurable else can)
    asked = decide_stage2(*rows, Stage2Params(mode="always"), SELECT, can)
    assert asked["acts"] == "run" and "stage2.mode: always" in asked["reason"]
    assert record["num_texts_needed"] is None
    few = decide_stage2(rows[0][:18], rows[1], Stage2Params(max_gap=0.41), SELECT, can)
    assert (few["num_texts_needed"] is None) == (not measurable)


def test_sets_that_guard_need_no_recordings() -> None:
    stage1, codec = make_system("epoch-3", error=0.5), make_system("codec", takes=1, error=0.1)
    plain = decide_stage2(stage1, codec, Stage2Params(), SELECT)
    guard = [row.model_copy(update={"text_id": f"long-{row.text_id}", "slice": "long"})
             for row in make_system("epoch-3", error=0.9)]  # fmt: skip
    guarded = decide_stage2([*stage1, *guard], codec, Stage2Params(), SELECT)
    assert guarded["gap"] == plain["gap"] and guarded["decision"] == plain["decision"]
    assert guarded["inputs"] != plain["inputs"]
