"""The protocol on simulated systems whose right answer is known."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from properties import examples
from rows import make_system
from voxadapt.core.errors import UserError
from voxadapt.core.params import SelectParams
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.statistics import Interval
from voxadapt.selection import wording
from voxadapt.selection.confirm import confirm, read_cost, read_verdict
from voxadapt.selection.select import select
from voxadapt.selection.wording import caution, headline

THOUSANDTHS = st.integers(-300, 300).map(lambda value: value / 1000)
PARAMS = SelectParams(num_bootstrap=600)
SCALE = {
    "ceiling": {"point": 0.9},
    "codec_ceiling": {"point": 0.85},
    "floor": {"point": 0.5},
}


def choose(params: SelectParams = PARAMS, **systems: dict[str, Any]) -> dict[str, Any]:
    return select(
        {name.replace("_", "-"): make_system(name, **fields) for name, fields in named(systems)},
        params,
        scale=SCALE,
    )


def named(systems: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(name.replace("_", "-"), fields) for name, fields in systems.items()]


def of(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in result["candidates"] if item["name"] == name)


def gate(result: dict[str, Any], name: str, which: str) -> str:
    return next(g["state"] for g in of(result, name)["gates"] if g["name"] == which)


@pytest.mark.slow
def test_a_clear_winner_is_chosen() -> None:
    result = choose(
        base={"sim": 0.6}, epoch_1={"sim": 0.7}, epoch_2={"sim": 0.8}, epoch_3={"sim": 0.7}
    )
    assert result["chosen"] == result["best"] == "epoch-2"
    assert not result["keep_base"]
    assert of(result, "epoch-2")["p_best"] == 1.0
    assert of(result, "epoch-2")["vs_base"]["sim"]["low"] > 0.15
    assert result["reason"].startswith("epoch-2 is chosen")
    assert result["runner_up"] in ("epoch-1", "epoch-3")


def test_identical_systems_keep_the_base() -> None:
    rows = make_system("base")
    twin = [row.model_copy(update={"candidate": "epoch-1"}) for row in rows]
    result = select({"base": rows, "epoch-1": twin}, PARAMS)
    assert result["chosen"] == "base" and result["keep_base"]
    difference = of(result, "epoch-1")["vs_base"]["primary"]
    assert (difference["point"], difference["low"], difference["high"]) == (0.0, 0.0, 0.0)
    assert of(result, "base")["p_best"] == of(result, "epoch-1")["p_best"] == 0.5
    assert "do not fine-tune" in result["reason"]


def test_a_tie_goes_to_the_earliest_epoch() -> None:
    shared = make_system("epoch-2", sim=0.8)
    systems = {
        "base": make_system("base", sim=0.6),
        "epoch-1": [r.model_copy(update={"candidate": "epoch-1"}) for r in shared],
        "epoch-2": shared,
    }
    # Nudge one clip up in epoch 2: it leads, by far less than a standard error.
    systems["epoch-2"][0] = shared[0].model_copy(update={"sim": (shared[0].sim or 0) + 0.01})
    result = select(systems, PARAMS)
    assert result["best"] == "epoch-2"
    assert result["chosen"] == "epoch-1" and result["runner_up"] == "epoch-2"
    assert of(result, "epoch-1")["vs_best"]["tied"] and result["tied"] == ["epoch-1", "epoch-2"]
    assert of(result, "epoch-1")["vs_best"]["difference"]["se"] > 0


@pytest.mark.slow
def test_among_those_that_sound_alike_the_error_decides() -> None:
    unclear = {"sim": 0.85, "error": 0.12, "seed": 3}
    clear = {"sim": 0.85, "error": 0.04, "seed": 3}
    result = choose(base={"error": 0.13}, epoch_1=unclear, epoch_2=clear, epoch_3=clear)
    assert {"epoch-1", "epoch-2", "epoch-3"} <= set(result["tied"])
    assert (result["chosen"], result["clearest"]) == ("epoch-2", "epoch-2")
    assert "its WER is the lowest" in result["reason"]
    # The same with a lead in similarity that is certain, and that nobody hears.
    systems = {"base": make_system("base", error=0.13), "epoch-2": make_system("epoch-2", **clear)}
    systems["epoch-1"] = [
        row.model_copy(update={"sim": (twin.sim or 0.0) + 0.004})
        for row, twin in zip(make_system("epoch-1", **unclear), systems["epoch-2"], strict=True)
    ]
    for tie, chosen in ((0.005, "epoch-2"), (0.0, "epoch-1")):
        found = select(systems, SelectParams(num_bootstrap=600, similarity_tie=tie))
        assert found["best"] == "epoch-1" and found["chosen"] == chosen
    other = choose(
        SelectParams(num_bootstrap=600, primary="error"), base={"error": 0.13}, epoch_1=clear
    )
    assert other["clearest"] is None and other["chosen"] == "epoch-1"


def test_a_better_base_is_kept() -> None:
    result = choose(base={"sim": 0.8}, epoch_1={"sim": 0.7}, epoch_2={"sim": 0.6})
    assert result["chosen"] == "base" and result["keep_base"]
    assert result["reason"].startswith("Keep the Base, do not fine-tune")


def test_runaways_are_gated_out() -> None:
    result = choose(base={"sim": 0.6}, epoch_1={"sim": 0.7}, epoch_2={"sim": 0.9, "runaways": 6})
    assert gate(result, "epoch-2", "failure_rate") == "failed"
    assert not of(result, "epoch-2")["eligible"]
    assert result["chosen"] == "epoch-1"
    assert of(result, "epoch-2")["p_best"] == 0.0 and of(result, "epoch-2")["vs_best"] is None
    assert "epoch-2 (failure rate" in result["reason"]


def test_a_worse_error_is_gated_out() -> None:
    result = choose(base={"sim": 0.6}, epoch_1={"sim": 0.9, "error": 0.3})
    assert gate(result, "epoch-1", "error") == "failed" and result["keep_base"]


def test_few_sentences_leave_a_gate_undecided_and_say_so() -> None:
    systems = {"base": make_system("base", num_texts=8), "epoch-1": make_system("base", 8, sim=0.9)}
    rows = [r.model_copy(update={"candidate": "epoch-1"}) for r in systems["epoch-1"]]
    rows[0] = rows[0].model_copy(update={"word_hits": 7, "word_substitutions": 3})
    rows[5] = rows[5].model_copy(update={"word_hits": 8, "word_substitutions": 2})
    result = select({"base": systems["base"], "epoch-1": rows}, PARAMS)
    assert gate(result, "epoch-1", "error") == "undecided"
    assert of(result, "epoch-1")["eligible"] and "Not decided by this set" in result["reason"]


@pytest.mark.parametrize("ratio", [0.5, 1.6])
def test_rate_drift_is_gated_out(ratio: float) -> None:
    result = choose(base={"sim": 0.6}, epoch_1={"sim": 0.9, "dur_ratio": ratio})
    assert gate(result, "epoch-1", "duration_ratio") == "failed" and result["keep_base"]


def test_wrong_language_is_gated_unless_whisper_cannot_tell() -> None:
    wrong = {"sim": 0.9, "flags": ("wrong_language",), "lid": "ms"}
    systems = {"base": make_system("base", sim=0.6), "epoch-1": make_system("epoch-1", **wrong)}
    assert gate(select(systems, PARAMS), "epoch-1", "wrong_language") == "failed"
    deaf = make_system("real", takes=1, flags=("wrong_language",))
    result = select(systems, PARAMS, real=deaf)
    assert gate(result, "epoch-1", "wrong_language") == "undecided"


def test_a_lost_clip_breaks_coverage() -> None:
    rows = make_system("epoch-1", sim=0.9)
    rows[3] = rows[3].model_copy(update={"status": "failed", "sim": None})
    result = select({"base": make_system("base", sim=0.6), "epoch-1": rows}, PARAMS)
    assert gate(result, "epoch-1", "coverage") == "failed" and result["keep_base"]


def test_nothing_eligible_keeps_the_base() -> None:
    result = choose(base={"dur_ratio": 3.0}, epoch_1={"dur_ratio": 3.0})
    assert result["chosen"] == "base" and "no candidate passed" in result["reason"]


def test_error_can_be_the_primary() -> None:
    params = SelectParams(num_bootstrap=600, primary="error")
    result = choose(
        params, base={"error": 0.4, "sim": 0.9}, epoch_1={"error": 0.05}, epoch_2={"error": 0.2}
    )
    assert result["chosen"] == "epoch-1"
    assert of(result, "epoch-1")["primary"] == of(result, "epoch-1")["wer"]


ERROR = SelectParams(num_bootstrap=600, primary="error", similarity_margin=0.02)


@pytest.mark.parametrize(
    ("shift", "state"), [(0.05, "passed"), (-0.01, "undecided"), (-0.2, "failed")]
)
def test_a_lost_voice_is_gated_out_when_errors_choose(shift: float, state: str) -> None:
    base = make_system("base", 12, error=0.4)
    rows = []
    for row in make_system("epoch-1", 12, error=0.05):
        swing = 0.05 if int(row.text_id[1:]) % 2 else -0.05  # sentences differ; 12 are few
        rows.append(row.model_copy(update={"sim": (row.sim or 0.0) + shift + swing}))
    result = select({"base": base, "epoch-1": rows}, ERROR, scale=SCALE)
    assert gate(result, "epoch-1", "similarity") == state
    assert gate(result, "base", "similarity") == "passed"
    assert result["chosen"] == ("base" if state == "failed" else "epoch-1")
    assert ("Not decided by this set: similarity" in result["reason"]) == (state == "undecided")
    assert ("Gated out: epoch-1 (similarity)" in result["reason"]) == (state == "failed")
    assert "SIM-resemblyzer at most 0.02 below the Base's" in result["rule"]["text"]


def test_without_a_similarity_margin_there_is_no_such_gate() -> None:
    result = choose(base={}, epoch_1={})
    assert [g["name"] for g in of(result, "base")["gates"]] == [
        "coverage", "failure_rate", "error", "duration_ratio", "wrong_language"
    ]  # fmt: skip
    assert not {"start", "keep_start"} & set(result) and "vs_start" not in of(result, "base")
    assert "below" not in result["rule"]["text"]


def later(**systems: dict[str, Any]) -> dict[str, Any]:
    """Select among what follows a Stage 1 that chose epoch 3."""
    rows = {name: make_system(name, **fields) for name, fields in named(systems)}
    return select(rows, ERROR, start="epoch-3", scale=SCALE)


def test_a_later_stage_is_held_against_its_start() -> None:
    result = later(
        stage2_epoch_10={"error": 0.02}, stage2_epoch_2={"error": 0.2}, base={"error": 0.6},
        epoch_3={"error": 0.3},
    )  # fmt: skip
    assert [(c["name"], c["epoch"]) for c in result["candidates"]] == [
        ("epoch-3", 3), ("base", 0), ("stage2-epoch-2", 2), ("stage2-epoch-10", 10)
    ]  # fmt: skip
    assert result["chosen"] == "stage2-epoch-10" and result["start"] == "epoch-3"
    assert not result["keep_base"] and not result["keep_start"]
    chosen = of(result, "stage2-epoch-10")
    assert chosen["vs_start"]["error"]["point"] == pytest.approx(-0.28, abs=0.05)
    assert chosen["vs_base"]["error"]["point"] == pytest.approx(-0.58, abs=0.05)
    assert of(result, "epoch-3")["vs_start"] is None and of(result, "epoch-3")["vs_base"]
    assert of(result, "base")["vs_base"] is None and of(result, "base")["vs_start"]
    assert gate(result, "base", "error") == "failed"  # it reads worse than the start
    assert "Against epoch-3: " in result["reason"]
    assert "Against the zero-shot Base: " in result["reason"]
    assert "minus epoch-3's" in chosen["gates"][1]["text"]
    assert "without any, epoch-3, where this stage begins, is kept" in result["rule"]["text"]


def test_a_useless_or_harmful_later_stage_keeps_its_start() -> None:
    shared = make_system("epoch-3", error=0.3)
    twin = [row.model_copy(update={"candidate": "stage2-epoch-1"}) for row in shared]
    result = select({"stage2-epoch-1": twin, "epoch-3": shared}, ERROR, start="epoch-3")
    assert result["chosen"] == "epoch-3" and result["keep_start"] and not result["keep_base"]
    assert result["reason"].startswith("Keep epoch-3: no eligible candidate is shown to do better")
    assert of(result, "stage2-epoch-1")["vs_base"] is None  # the Base was not scored here
    runaways = later(epoch_3={"error": 0.3}, stage2_epoch_1={"error": 0.0, "runaways": 6})
    assert runaways["chosen"] == "epoch-3"
    assert "Gated out: stage2-epoch-1 (failure rate" in runaways["reason"]


def test_the_base_can_win_against_a_start_that_lost_its_way() -> None:
    result = later(epoch_3={"error": 0.5}, base={"error": 0.1})
    assert result["chosen"] == "base" and result["keep_base"] and not result["keep_start"]
    assert result["reason"].startswith("The Base is chosen")
    assert "Against epoch-3: " in result["reason"] and "zero-shot" not in result["reason"]


def test_a_start_without_rows_is_refused() -> None:
    with pytest.raises(UserError, match="epoch-3 with its rows"):
        select({"base": make_system("base")}, ERROR, start="epoch-3")


def test_what_was_tried_can_be_named() -> None:
    rows = {
        name: make_system(name, error=error) for name, error in (("base", 0.1), ("epoch-1", 0.3))
    }
    result = select(rows, ERROR, what="adapt it")
    assert result["reason"].startswith("Keep the Base, do not adapt it: no eligible epoch")


def test_missing_similarity_counts_as_the_floor() -> None:
    rows = [r.model_copy(update={"sim": None if r.take else r.sim}) for r in make_system("epoch-1")]
    result = select({"base": make_system("base"), "epoch-1": rows}, PARAMS, scale=SCALE)
    assert of(result, "epoch-1")["sim"]["point"] == pytest.approx(0.6, abs=0.03)
    assert result["scale"] == {name: level["point"] for name, level in SCALE.items()}
    assert select({"base": make_system("base"), "epoch-1": rows}, PARAMS)["scale"] is None
    assert result["keep_base"]


def test_pareto_names_both_extremes() -> None:
    result = choose(
        base={"sim": 0.7, "error": 0.02}, epoch_1={"sim": 0.8, "error": 0.03},
        epoch_2={"sim": 0.75, "error": 0.035},
    )  # fmt: skip
    assert [item["name"] for item in result["candidates"] if item["pareto"]] == ["base", "epoch-1"]
    assert of(result, "epoch-2")["pareto_probability"] < 0.4


def test_equal_inputs_give_equal_bytes_in_any_order() -> None:
    systems = {
        name: make_system(name, sim=sim)
        for name, sim in (("base", 0.6), ("epoch-1", 0.79), ("epoch-2", 0.8), ("epoch-10", 0.8))
    }
    first = json.dumps(select(systems, PARAMS, scale=SCALE))
    again: dict[str, Sequence[ScoreRow]] = {}
    for name in reversed(systems):
        again[name] = list(systems[name])
        random.Random(name).shuffle(again[name])  # type: ignore[arg-type]
    assert json.dumps(select(again, PARAMS, scale=SCALE)) == first
    assert [c["epoch"] for c in json.loads(first)["candidates"]] == [0, 1, 2, 10]


def test_unpaired_and_mixed_inputs_are_refused() -> None:
    base, other = make_system("base"), make_system("epoch-1")
    with pytest.raises(UserError, match="1 missing"):
        select({"base": base, "epoch-1": other[1:]}, PARAMS)
    with pytest.raises(UserError, match="asr_id"):
        select({"base": base, "epoch-1": make_system("epoch-1", asr_id="tiny")}, PARAMS)
    with pytest.raises(UserError, match="sim_id"):
        select({"base": base, "epoch-1": other}, PARAMS, codec=make_system("codec", sim_id="x"))
    with pytest.raises(UserError, match="other texts"):
        select({"base": base, "epoch-1": make_system("epoch-1", text="else")}, PARAMS)
    with pytest.raises(UserError, match="base"):
        select({"epoch-1": other}, PARAMS)
    thai = {name: make_system(name, lang="th") for name in ("base", "epoch-1")}
    with pytest.raises(UserError, match="cer"):
        select(thai, PARAMS)


def test_confirmation_confirms_a_real_gain() -> None:
    fields = {"split": "confirmation", "seed": 7}
    base = make_system("base", sim=0.6, error=0.3, **fields)
    chosen = make_system("epoch-2", sim=0.8, error=0.25, **fields)
    selection = choose(base={"sim": 0.6}, epoch_2={"sim": 0.8})
    result = confirm(base, chosen, PARAMS, scale=SCALE, selection=selection)
    assert result["verdict"] == "confirmed" and result["split"] == "confirmation"
    assert result["measures"]["sim"]["difference"]["low"] > 0
    assert result["measures"]["sim"]["selection_difference"]["point"] == pytest.approx(
        0.2, abs=0.02
    )
    assert result["measures"]["sim_norm"]["difference"]["point"] == pytest.approx(0.57, abs=0.05)
    assert "winner's curse" in result["disclosure"]
    assert result["cost"]["state"] == "shown" and result["gain"]["low"] > 0


def test_a_cost_that_is_only_likely_to_be_small_is_not_confirmed() -> None:
    """Breaks when the point of the cost is read instead of its bound."""
    fields = {"num_texts": 12, "split": "confirmation"}
    base = make_system("base", sim=0.6, error=0.3, **fields)
    chosen = make_system("epoch-2", sim=0.8, error=0.3, **fields)
    result = confirm(base, chosen, PARAMS)
    cost = result["cost"]
    assert cost["worse"] <= cost["margin"] < cost["at_most"]
    assert result["verdict"] == "cost_not_excluded" and cost["num_texts_needed"] > 12
    assert f"about {cost['num_texts_needed']} sentences would show it" in result["sentence"]
    assert caution(result) == f" {result['sentence']}" and not caution(confirm(base, base, PARAMS))
    said = headline(result, "epoch 2", "Keep the Base.")
    assert said == "Epoch 2 is more similar; a higher WER is not excluded."


def test_confirmation_can_fail_and_can_contradict() -> None:
    base = make_system("base", sim=0.7)
    assert confirm(base, make_system("epoch-1", sim=0.7005), PARAMS)["verdict"] == "not_confirmed"
    assert confirm(base, make_system("epoch-1", sim=0.6), PARAMS)["verdict"] == "contradicted"
    worse = confirm(base, make_system("epoch-1", sim=0.8, error=0.3), PARAMS)
    assert worse["verdict"] == "contradicted" and worse["cost"]["state"] == "exceeded"
    assert headline(worse, "epoch 1", "Keep the Base.").startswith("Do not use epoch 1")
    kept = confirm(base, base, PARAMS)
    assert kept["verdict"] == "base_kept" and kept["measures"]["sim"]["difference"]["point"] == 0.0


@pytest.mark.slow
def test_confirmation_by_errors_confirms_a_gain_and_watches_the_voice() -> None:
    base = make_system("base", error=0.5, split="confirmation")
    chosen = make_system("stage2-epoch-2", error=0.1, sim=0.81, split="confirmation")
    selection = select(
        {
            "base": make_system("base", error=0.5),
            "epoch-1": make_system("epoch-1", error=0.3),
            "stage2-epoch-2": make_system("stage2-epoch-2", error=0.1),
        },
        ERROR,
        start="epoch-1",
    )
    result = confirm(base, chosen, ERROR, scale=SCALE, selection=selection)
    assert result["verdict"] == "confirmed" and result["primary"] == "error"
    said = result["sentence"]
    assert "stage2-epoch-2's WER is lower than the zero-shot Base's: -" in said
    assert "its SIM-resemblyzer is higher than the Base's: +0.018 [+" in said
    assert said.endswith("]."), "a gain is no cost"
    assert result["measures"]["wer"]["selection_difference"]["point"] < -0.3
    equal = make_system("epoch-1", error=0.5, split="confirmation")
    assert confirm(base, equal, ERROR)["verdict"] == "not_confirmed"
    worse = make_system("epoch-1", error=0.9, split="confirmation")
    assert confirm(base, worse, ERROR)["verdict"] == "contradicted"
    other_voice = make_system("epoch-1", error=0.1, sim=0.6, split="confirmation")
    result = confirm(base, other_voice, ERROR)
    assert result["verdict"] == "contradicted"
    said = result["sentence"]
    assert "its SIM-resemblyzer is lower than the Base's: -" in said
    assert said.endswith(", shown to exceed the margin of 0.020.")


@settings(max_examples=examples(60), deadline=None)
@given(
    gain=THOUSANDTHS,
    loss=THOUSANDTHS,
    widths=st.tuples(THOUSANDTHS.map(abs), THOUSANDTHS.map(abs)),
    primary=st.sampled_from(["similarity", "error"]),
)
def test_the_words_of_a_confirmation_follow_signs_and_intervals(
    gain: float, loss: float, widths: tuple[float, float], primary: str
) -> None:
    def ends(point: float, width: float) -> Interval:
        low, high = (round(point + sign * width - 0.0005, 4) for sign in (-1, 1))
        return Interval(point, low, high, 8, width / 2 + 0.001)

    sim, error = ends(gain, widths[0]), ends(loss, widths[1])
    if primary == "similarity":
        cost = read_cost("wer", error, 0.02, 1, 0.95)
        verdict = read_verdict(sim, 1, cost)
    else:
        cost = read_cost("sim", sim, 0.02, -1, 0.95)
        verdict = read_verdict(error, -1, cost)
    measures = {"sim": {"difference": sim.as_dict()}, "wer": {"difference": error.as_dict()}}
    record = {"num_texts": 8, "chosen": "epoch-1", "measures": measures, "error_metric": "wer",
              "primary": primary, "verdict": verdict, "cost": cost.as_dict()}  # fmt: skip
    said = wording.say("confirmation", record)
    for label, found in (("SIM-resemblyzer", sim), ("WER", error)):
        assert found.low is not None and found.high is not None
        side = "higher" if found.low > 0 else "lower" if found.high < 0 else "not shown to differ"
        assert f"{label} is {side}" in said
    bounds = (error.low, error.high) if primary == "similarity" else (-sim.high, -sim.low)
    assert ("margin" in said) == (bounds[1] > 0)
    assert ("shown to exceed" in said) == (bounds[0] > 0.02)
    chip, tone = wording.verdict(record)
    assert (tone == "good") == (verdict == "confirmed")
    assert ("Worse" in chip) == (verdict == "contradicted" and bounds[0] <= 0.02)


@pytest.mark.parametrize("key", ["error_margin", "failure_margin", "similarity_margin"])
def test_a_margin_of_nothing_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"at least 0\.005: without room for chance"):
        SelectParams.model_validate({key: 0.0})


def test_one_failed_clip_does_not_decide_the_gate_on_errors() -> None:
    """One runaway in 60 is within the margin of failures; its words are not counted again."""
    right = {"word_hits": 10, "word_substitutions": 0}
    base = make_system("base", num_texts=20, sim=0.7, **right)
    epoch = make_system("epoch-1", num_texts=20, sim=0.8, **right)
    lost = {"word_hits": 0, "word_deletions": 10, "flags": ("hit_max_tokens",)}
    epoch[0] = epoch[0].model_copy(update=lost)
    part = {"word_hits": 9, "word_deletions": 1}
    epoch[3:9] = [clip.model_copy(update=part) for clip in epoch[3:9]]  # 6 of 590 words, not 16
    result = select({"base": base, "epoch-1": epoch}, SelectParams(num_bootstrap=400))
    gates = {gate["name"]: gate for gate in of(result, "epoch-1")["gates"]}
    assert gates["error"]["state"] != "failed" and gates["failure_rate"]["state"] != "failed"
    assert gates["error"]["value"] < 0.02 < of(result, "epoch-1")["wer"]["point"]


def test_a_margin_grows_with_the_bases_own_error() -> None:
    systems = {"base": make_system("base", sim=0.6, error=0.5), "epoch-1": make_system("epoch-1")}
    for share, margin in ((0.1, 0.05), (0.0, 0.02)):
        params = SelectParams(num_bootstrap=600, error_margin_relative=share)
        [found] = [
            g for g in of(select(systems, params), "epoch-1")["gates"] if g["name"] == "error"
        ]
        assert found["limit"] == pytest.approx(margin, abs=0.005)


def test_a_kept_base_says_how_many_sentences_would_decide() -> None:
    result = choose(base={"sim": 0.8, "num_texts": 10}, epoch_1={"sim": 0.797, "num_texts": 10})
    assert result["keep_base"] and not of(result, "epoch-1")["shown_better"]
    found = result["would_decide"]
    assert found["candidate"] == "epoch-1" and found["gain"] > 0 and found["num_texts"] > 10
    assert f"About {found['num_texts']} sentences instead of 10 would show" in result["reason"]
    worse = choose(base={"sim": 0.8}, epoch_1={"sim": 0.7})
    assert worse["would_decide"] is None and "would show" not in worse["reason"]


@pytest.mark.parametrize(("num_texts", "needed"), [(2, 6), (5, 6)])
def test_a_gain_that_few_sentences_cannot_show_asks_for_as_many_as_can(
    num_texts: int, needed: int
) -> None:
    """Five signs are all alike in one of 32 draws: no gain is shown at 2.5 %, however large."""
    sims = {"base": 0.5, "epoch_1": 0.9}
    result = choose(**{name: {"sim": sim, "num_texts": num_texts} for name, sim in sims.items()})
    assert result["keep_base"] and result["would_decide"]["num_texts"] == needed
    shown = choose(**{name: {"sim": sim, "num_texts": needed} for name, sim in sims.items()})
    assert shown["chosen"] == "epoch-1"


def test_epochs_that_do_not_differ_say_nothing_of_what_could_be_seen() -> None:
    same = make_system("epoch-1")
    epochs = {
        name: [row.model_copy(update={"candidate": name}) for row in same]
        for name in ("epoch-1", "epoch-2")
    }
    power = select({"base": make_system("base"), **epochs}, PARAMS)["power"]
    assert power["detectable_difference"] is None and "do not differ" in power["text"]


def test_several_epochs_have_an_outlook() -> None:
    result = choose(base={"sim": 0.6}, epoch_1={"sim": 0.7}, epoch_2={"sim": 0.8})
    assert result["outlook"]["trend"] == "rising"
    assert "`candidates: [base, epoch-1, …, epoch-3]`" in result["outlook"]["sentence"]
    assert choose(base={}, epoch_1={})["outlook"] is None


def test_what_a_set_could_show_is_said_of_two_sentences_and_more() -> None:
    one, two = (
        choose(base={"sim": 0.6, "num_texts": n}, epoch_1={"sim": 0.7, "num_texts": n})["power"]
        for n in (1, 2)
    )
    assert one["se"] is None and one["texts_needed"] == [] and "single sentence" in one["text"]
    assert two["se"] > 0.0 and two["num_texts"] == 2 and len(two["texts_needed"]) > 1


def test_by_the_error_the_worse_of_two_speakers_counts() -> None:
    systems = {
        name: [row.model_copy(update={"speaker": who, "take": take})
               for take, (who, error) in enumerate((("Aria", 0.1), ("Bo", bo)))
               for row in make_system(name, takes=1, error=error)]
        for name, bo in (("base", 0.6), ("epoch-1", 0.4))
    }  # fmt: skip
    found = of(select(systems, SelectParams(num_bootstrap=200, primary="error")), "epoch-1")
    rows = [row for row in systems["epoch-1"] if row.speaker == "Bo"]
    worse = sum(row.word_substitutions for row in rows) / (10 * len(rows))
    assert found["primary"]["point"] == pytest.approx(worse, abs=1e-5)
    assert found["wer"]["point"] < found["primary"]["point"]
