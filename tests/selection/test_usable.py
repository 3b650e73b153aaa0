"""Good enough, apart from best; and no verdict where nothing can be measured."""

from __future__ import annotations

from typing import Any

import pytest

from rows import make_row, make_system
from voxadapt.core.params import SelectParams, Stage2Params, UsableParams
from voxadapt.selection.stage2 import decide_stage2
from voxadapt.selection.usable import unconfirmed, usable, without_verdict

RULE = SelectParams(num_bootstrap=400)
LIMITS = UsableParams()
SCALE = {
    "sim_id": "sim", "ceiling": {"point": 0.95}, "codec_ceiling": {"point": 0.9},
    "floor": {"point": 0.5},
}  # fmt: skip
DEAF = {"measurable": False, "sentence": "Cannot be measured with this recogniser.",
        "recogniser": {"heard_as_other_language": 0.0}}  # fmt: skip


def can(other: float | None = 0.0) -> dict[str, Any]:
    return {"measurable": True, "sentence": "", "recogniser": {"heard_as_other_language": other}}


def judge(rule: SelectParams = RULE, told: float | None = 0.0, **fields: Any) -> dict[str, Any]:
    rows = [make_row("epoch-1", f"t{n:02d}", k, **fields) for n in range(40) for k in range(3)]
    codec = [make_row("codec", f"t{n:02d}", sim=0.9) for n in range(40)]
    return usable(rows, codec, SCALE, can(told), rule, LIMITS)


def test_a_good_model_is_ready() -> None:
    found = judge(sim=0.88)
    assert found["state"] == "ready" and found["sentence"] == "Ready to use."


@pytest.mark.parametrize(
    ("fields", "measure", "state"),
    [
        ({"sim": 0.75}, "similarity_lost", "with_care"),
        ({"sim": 0.55}, "similarity_lost", "not_yet"),
        ({"sim": 0.9, "word_hits": 9, "word_substitutions": 1}, "error_above_codec", "with_care"),
        ({"sim": 0.9, "word_hits": 7, "word_substitutions": 3}, "error_above_codec", "not_yet"),
        ({"sim": 0.9, "flags": ("rate_low",)}, "failure_rate", "not_yet"),
        ({"sim": 0.9, "flags": ("wrong_language",)}, "wrong_language", "not_yet"),
    ],
)
def test_what_keeps_a_model_from_being_ready(
    fields: dict[str, Any], measure: str, state: str
) -> None:
    found = judge(**fields)
    assert found["state"] == found["measures"][measure]["state"] == state
    others = {item["state"] for name, item in found["measures"].items() if name != measure}
    assert others == {"ready"}


def test_a_model_heard_as_another_language_is_not_usable_whatever_it_beats() -> None:
    rule = RULE.model_copy(update={"primary": "error", "error_metric": "cer"})
    found = judge(rule, flags=("wrong_language",))
    assert found["state"] == "not_yet" and "another language" in found["sentence"]
    assert "similarity_lost" not in found["measures"]


def test_the_language_is_not_judged_by_a_recogniser_that_mistakes_recordings() -> None:
    assert "wrong_language" not in judge(told=0.9, flags=("wrong_language",))["measures"]


def test_nothing_is_decided_where_nothing_can_be_measured() -> None:
    decision = {"chosen": "epoch-3", "keep_base": False, "reason": "epoch-3 is chosen."}
    found = without_verdict(decision, DEAF)
    assert found["chosen"] == "base" and found["reason"].endswith("Nothing is decided.")
    assert "Keep" not in found["reason"]
    second = without_verdict(decision | {"start": "epoch-2", "keep_start": False}, DEAF)
    assert second["chosen"] == "epoch-2" and second["keep_start"] and not second["keep_base"]
    assert without_verdict(decision, can())["chosen"] == "epoch-3"
    record = unconfirmed({"verdict": "confirmed", "sentence": "beats"}, DEAF)
    assert record["verdict"] == "not_measurable" and "beats" not in record["sentence"]
    rows = [make_row("epoch-1", "t0")]
    judged = usable(rows, rows, SCALE, DEAF, RULE, LIMITS)
    assert judged["state"] == "unknown"


@pytest.mark.parametrize("mode", ["auto", "always", "never"])
def test_stage_2_is_undecided_where_nothing_can_be_measured(mode: str) -> None:
    """Base 83 % is close to codec 83 %: a deaf recogniser must not skip Stage 2 for it."""
    stage1 = make_system("epoch-1", error=0.83)
    codec = [row.model_copy(update={"candidate": "codec"}) for row in stage1 if row.take == 0]
    params = Stage2Params(mode=mode, max_gap=0.05)
    found = decide_stage2(stage1, codec, params, RULE, DEAF)
    assert found["decision"] == "undecided" and found["num_texts_needed"] is None
    assert found["measurable"] is DEAF and DEAF["sentence"] not in found["reason"]
    assert "it runs" in found["reason"] if mode == "always" else "it is skipped" in found["reason"]
    assert "small enough" not in found["reason"] and "not more than" not in found["reason"]
    heard = decide_stage2(stage1, codec, params, RULE, can())
    assert heard["decision"] != "undecided" and "measurable" not in heard


@pytest.mark.parametrize(
    ("share", "state"),
    [(0.05, "ready"), (0.06, "with_care"), (0.15, "with_care"), (0.16, "not_yet")],
)
def test_an_error_is_held_against_both_limits(share: float, state: str) -> None:
    """Every clip has the same error: the interval is the value itself."""
    fields = {"ref_words": 100, "word_hits": round(100 - 100 * share), "sim": 0.9}
    found = judge(**fields, word_substitutions=round(100 * share))
    item = found["measures"]["error_above_codec"]
    assert (item["state"], item["limits"]) == (state, [0.05, 0.15])
    assert item["value"] == item["high"] == pytest.approx(share)
    assert f"{round(100 * share)} points" in found["sentence"] or state == "ready"


@pytest.mark.parametrize(
    ("sim", "state"),
    [(0.805, "ready"), (0.795, "with_care"), (0.665, "with_care"), (0.655, "not_yet")],
)
def test_a_voice_is_placed_between_the_codecs_ceiling_and_a_strangers(
    sim: float, state: str
) -> None:
    found = judge(sim=sim)["measures"]["similarity_lost"]
    assert found["state"] == state
    assert found["value"] == pytest.approx((0.9 - sim) / 0.4)
    assert "similarity_lost" not in judge(RULE.model_copy(update={"primary": "error"}))["measures"]


def test_ready_is_shown_to_be_within_the_second_limit() -> None:
    """Few sentences: the value is fine, its upper bound is not."""
    rows = [make_row("epoch-1", f"t{n}", sim=0.9) for n in range(4)]
    codec = [make_row("codec", f"t{n}", sim=0.9) for n in range(6)]
    found = usable(rows, codec, SCALE, can(), RULE, LIMITS)
    failures = found["measures"]["failure_rate"]
    assert (failures["value"], failures["state"]) == (0.0, "with_care") and failures["high"] > 0.1
    assert found["state"] == "with_care" and "not shown to be within" in found["sentence"]


@pytest.mark.parametrize(("told", "judged"), [(0.5, True), (0.51, False), (None, False)])
def test_the_language_is_judged_where_recordings_mostly_are(
    told: float | None, judged: bool
) -> None:
    assert ("wrong_language" in judge(told=told)["measures"]) == judged


def test_the_speaker_who_comes_off_worst_counts() -> None:
    speakers = (("Aria", 0.88), ("Bo", 0.7))
    rows = [
        make_row("epoch-1", f"t{n:02d}", take, speaker=name, sim=sim)
        for n in range(40)
        for take, (name, sim) in enumerate(speakers)
    ]
    codec = [make_row("codec", f"t{n:02d}", sim=0.9) for n in range(40)]
    scale = SCALE | {"speakers": {"Aria": SCALE, "Bo": SCALE}}
    found = usable(rows, codec, scale, can(), RULE, LIMITS)
    lost = found["measures"]["similarity_lost"]
    assert (lost["speaker"], lost["state"], found["state"]) == ("Bo", "with_care", "with_care")
    assert lost["value"] == pytest.approx(0.5)


def test_a_verdict_is_taken_back_where_nothing_can_be_measured() -> None:
    decision = {"chosen": "epoch-2", "keep_base": False}
    assert without_verdict(decision, can()) == decision | {"measurable": can()}
    kept = without_verdict(decision, DEAF)
    assert (kept["chosen"], kept["keep_base"]) == ("base", True) and "keep_start" not in kept
    later = without_verdict(decision | {"start": "epoch-1", "keep_start": False}, DEAF)
    assert (later["chosen"], later["keep_base"], later["keep_start"]) == ("epoch-1", False, True)
    record = {"verdict": "confirmed"}
    assert unconfirmed(record, None) is record and unconfirmed(record, can()) is record
    assert unconfirmed(record, DEAF)["verdict"] == "not_measurable"
