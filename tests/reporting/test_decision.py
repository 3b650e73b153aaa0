"""What the reports say first: verdict, ladders, steps, differences, what next."""

from pathlib import Path
from typing import Any

import pytest

from reporting.world import (
    TEXTS,
    interval,
    make_confirm,
    make_cost,
    make_params,
    make_selection,
    write_world,
)
from voxadapt.core import paths
from voxadapt.core.files import read_json, read_jsonl, write_json, write_jsonl
from voxadapt.core.params import load_params
from voxadapt.reporting import decision, speaker_page
from voxadapt.reporting.records import SpeakerRecords, load_records
from voxadapt.reporting.tables import error_of


@pytest.fixture
def records(world: Path) -> SpeakerRecords:
    return load_records(make_params(), world)


@pytest.mark.slow
def test_the_verdict_is_voice_words_and_outlook(records: SpeakerRecords) -> None:
    said = dict(decision.verdict_sentences(records, "epoch 2", "Aria"))
    assert list(said) == ["Voice", "Words", "Outlook"]
    assert "0.760 against 0.620" in said["Voice"]
    assert "of the way from other voices" in said["Voice"]
    assert said["Words"].endswith("recordings 1.0\u00a0%, coded recordings 5.0\u00a0%.")
    assert said["Outlook"] == "Flat: more epochs will not help."  # an older record has no trends


def test_the_words_stand_beside_recordings_of_the_same_sentences(records: SpeakerRecords) -> None:
    records.codes["real"] = {"confirmation": {"wer": interval(0.0321)}}
    said = dict(decision.verdict_sentences(records, "epoch 2", "Aria"))
    assert "recordings 3.2\u00a0%" in said["Words"]
    errors = decision.ladders(records, "wer")[1]
    assert [rung["value"] for rung in errors["rungs"] if rung["kind"] == "real"] == ["3.2\u00a0%"]
    del records.codes["real"], records.codes["codec"]  # an older record says nothing of them
    assert "recordings" not in dict(decision.verdict_sentences(records, "e", "A"))["Words"]
    kinds = [rung["kind"] for rung in decision.ladders(records, "wer")[1]["rungs"]]
    assert kinds == ["floor", "base", "chosen"]


def test_a_kept_base_is_compared_with_nothing(records: SpeakerRecords) -> None:
    records.confirm.update(make_confirm("base", "base_kept"))
    records.selection["chosen"] = "base"
    said = dict(decision.verdict_sentences(records, "base", "Aria"))
    assert "against" not in said["Voice"] + said["Words"]
    kinds = [rung["kind"] for rung in decision.ladders(records, "wer")[0]["rungs"]]
    assert kinds == ["floor", "base", "codec", "real"]


@pytest.mark.parametrize(
    ("trend", "words"),
    [
        ("rising", "WER is still getting better."),
        ("flat", "WER is flat."),
        ("turned", "WER is past its best at epoch 3."),
        ("undecided", "WER shows no clear trend."),
    ],
)
def test_the_outlook_is_one_sentence(trend: str, words: str) -> None:
    selection = make_selection(make_params(), "epoch-2", "epoch-3")
    found = {"trend": trend, "best": "epoch-3", "epochs": ["epoch-2", "epoch-3", "epoch-4"]}
    selection["outlook"] = {"trend": trend, "trends": {"error": found}}
    assert decision.outlook(selection) == f"Over the last 3 epochs {words}"


def test_a_ladder_goes_from_worse_to_better_and_says_what_lies_off_the_scale() -> None:
    rungs = [("floor", "f", {"point": 1.0}), ("base", "b", interval(0.4)),
             ("chosen", "c", interval(0.3)), ("codec", "k", None),
             ("real", "r", interval(0.05))]  # fmt: skip
    found = decision.ladder("WER", rungs, share=True)
    assert found is not None
    floor, base, chosen, real = found["rungs"]  # the unknown one is left out
    assert floor["beyond"] and floor["at"] == 0.0
    assert base["at"] < chosen["at"] < real["at"] < 100
    for rung in (base, chosen, real):
        assert 0 <= rung["low"] <= rung["at"] <= rung["high"] <= 100
    similar = decision.ladder("sim", [("floor", "f", {"point": 0.6}), ("base", "b", interval(0.7))])
    assert similar is not None and similar["rungs"][0]["at"] < similar["rungs"][1]["at"]
    assert not similar["rungs"][0]["beyond"]
    assert decision.ladder("sim", [("base", "b", interval(0.7)), ("real", "r", None)]) is None


def test_the_steps_lose_every_candidate_once_but_the_chosen_one() -> None:
    selection = make_selection(make_params(), "epoch-2", "epoch-3")
    selection["tied"] = ["epoch-2", "epoch-3"]
    found = decision.steps(selection)
    assert [step["count"] for step in found] == [5, 4, 3, 2, 1]
    went = [name for step in found for name in step["went"]]
    assert sorted(went) == ["base", "epoch-1", "epoch-3", "epoch-4"]
    assert found[1]["went"] == ["epoch-4"]  # it failed a gate
    assert found[-1]["left"] == ["epoch-2"]


def test_no_step_is_made_up_where_none_is_better() -> None:
    selection = make_selection(make_params(), "base", "epoch-3")
    for candidate in selection["candidates"]:
        candidate["shown_better"] = False
    assert [step["left"] for step in decision.steps(selection)][-1] == ["base"]


def test_nothing_is_walked_through_where_nothing_could_be_measured(
    records: SpeakerRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision, "MIN_HALVED", 2)
    deaf = records.selection | {"measurable": {"measurable": False, "sentence": "Deaf."}}
    assert decision.steps(deaf) == [] and decision.halves(records, deaf) == ""


def test_differences_are_sorted_and_of_all_takes(records: SpeakerRecords) -> None:
    listed = decision.differences(records, "epoch-2", "wer")
    changes = [entry["change"] for entry in listed]
    assert len(listed) == len(TEXTS) and changes == sorted(changes)
    assert max(entry["height"] for entry in listed) == 100.0
    for entry in listed:
        own = [error_of(r) for r in records.rows["epoch-2"] if r["text_id"] == entry["text_id"]]
        base = [error_of(r) for r in records.rows["base"] if r["text_id"] == entry["text_id"]]
        assert entry["change"] == pytest.approx(sum(own) / 3 - sum(base) / 3)
        assert [cell["candidate"] for cell in entry["item"]["cells"]] == ["base", "epoch-2"]
        assert len({cell["place"] for cell in entry["item"]["cells"]}) == 1  # one take for both
    assert decision.differences(records, "base", "wer") == []


def test_few_of_many_sentences_are_heard_and_the_ends_always(
    records: SpeakerRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision, "MAX_HEARD", 3)
    listed = decision.differences(records, "epoch-2", "wer")
    heard = [place for place, entry in enumerate(listed) if "item" in entry]
    assert heard == [0, round((len(listed) - 1) / 2), len(listed) - 1]


@pytest.mark.slow
def test_a_typical_sentence_comes_first_and_its_recording_is_understood(
    records: SpeakerRecords,
) -> None:
    listed = decision.differences(records, "epoch-2", "wer")
    typical, worst = decision.hear(records, listed, "wer")
    assert [cell["candidate"] for cell in typical["cells"]] == ["real", "base", "epoch-2"]
    assert typical["cells"][0]["error"] == 0.0
    errors = [error_of(entry["rows"]["epoch-2"]) for entry in listed]
    assert worst["error"] == max(errors)
    assert typical["cells"][1]["place"].startswith("utt-")
    assert typical["cells"][1]["place"] == typical["cells"][2]["place"]


@pytest.mark.slow
def test_half_of_the_sentences_is_asked_again(
    world: Path, records: SpeakerRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decision.halves(records, records.selection) == ""  # 8 sentences are too few
    monkeypatch.setattr(decision, "MIN_HALVED", 8)
    monkeypatch.setattr(decision, "HALVES", 2)
    said = decision.halves(records, records.selection)
    assert said.startswith(
        "Would fewer sentences choose the same? Of 2 random halves (4 sentences each)"
    )
    assert said == decision.halves(records, records.selection)
    # Sets that guard stay whole and are no part of the halves.
    drawn = []
    monkeypatch.setattr(
        decision,
        "decide_again",
        lambda selection, rows, *rest: drawn.append(rows["base"]) or {"chosen": "base"},
    )
    guard = [row | {"slice": "short", "text_id": f"short-{row['text_id']}"}
             for row in records.rows["base"]]  # fmt: skip
    records.rows["base"] = [*records.rows["base"], *guard]
    said = decision.halves(records, records.selection)
    assert "(4 sentences each), 0 do; the rest choose the Base (2)." in said
    for rows in drawn:
        assert len({row.text_id for row in rows if row.slice == "ranked"}) == 4
        assert sum(row.slice == "short" for row in rows) == len(guard)


def test_what_next_follows_the_record(records: SpeakerRecords) -> None:
    def titles(**changes: object) -> list[str]:
        records.confirm.update(changes)
        found = decision.next_steps(records.confirm, "voxadapt say", "export", 'a "b" $c')
        assert '"a b c"' in next(step["code"] for step in found if step["title"] == "Let it speak")
        return [step["title"] for step in found]

    assert titles() == ["Let it speak", "Pass it on"]
    assert titles(usable={"state": "not_yet"}) == ["Let it speak"]
    assert "Pass it on" not in titles(verdict="contradicted", usable={"state": "ready"})


EPOCHS = {"candidates": 4, "num_epochs": 1}
FEW = {"rule": "total_minutes", "value": 6.5, "limit": 30.0, "message": "Expected 30; found 6.5."}


def usable(**values: float) -> dict[str, Any]:
    """A verdict on what is measured, held against limits of .1 and .3."""
    states = {k: "ready" if v <= 0.05 else "with_care" if v <= 0.3 else "not_yet"
              for k, v in values.items()}  # fmt: skip
    worst = max(states.values(), key=["ready", "with_care", "not_yet"].index, default="ready")
    measures = {k: {"value": v, "high": v + 0.1, "limits": [0.1, 0.3], "state": states[k]}
                for k, v in values.items()}  # fmt: skip
    return {"state": worst, "measures": measures, "sentence": f"{worst}."}


@pytest.mark.parametrize(
    ("verdict", "good", "few", "trend", "first"),
    [
        ("confirmed", {}, True, None, "Use it"),
        ("confirmed", {"error_above_codec": 0.0}, True, "flat", "Use it"),
        ("confirmed", {"error_above_codec": 0.0}, True, "rising", "Train longer"),
        ("confirmed", {"error_above_codec": 0.5}, True, "rising", "Train longer"),
        ("confirmed", {"error_above_codec": 0.5}, True, "flat", "Record more"),
        ("confirmed", {"similarity_lost": 0.5}, True, "undecided", "Record more"),
        ("confirmed", {"similarity_lost": 0.5}, False, "turned", "Train more gently"),
        ("confirmed", {"failure_rate": 0.5}, False, "flat", "Hear what failed"),
        ("confirmed", {"wrong_language": 0.08}, False, "flat", "Confirm on more sentences"),
        ("confirmed", {"wrong_language": 0.2}, False, "flat", "Hear what failed"),
        ("not_confirmed", {}, True, "flat", "Record more"),
        ("contradicted", {}, False, "turned", "Train more gently"),
        ("cost_not_excluded", {}, False, "flat", "Confirm on more sentences"),
        ("base_kept", {"error_above_codec": 0.0}, True, "flat", "Use the Base"),
        ("base_kept", {"error_above_codec": 0.5}, True, "flat", "Record more"),
        ("not_measurable", {}, True, "rising", ""),
    ],
)
def test_what_to_do_now_follows_from_what_is_lacking(
    records: SpeakerRecords, verdict: str, good: dict[str, float], few: bool,
    trend: str | None, first: str,
) -> None:  # fmt: skip
    records.confirm.update(verdict=verdict, usable=usable(**good), cost=make_cost(verdict))
    records.audit["corpus_warnings"] = [FEW] if few else []
    found = {"trend": trend, "best": "epoch-3", "epochs": ["epoch-3", "epoch-4"]}
    records.selection["outlook"] = trend and {"trend": trend, "trends": {"error": found}}
    cures = decision.remedies(records, EPOCHS)
    now = decision.what_now(verdict, cures)
    assert now.startswith(first) and bool(now) == bool(first)
    assert all({"title", "why", "how", "code"} <= set(cure) for cure in cures)
    assert not cures or cures[0]["title"] == first


def test_too_many_minutes_are_not_a_reason_to_record_more(records: SpeakerRecords) -> None:
    records.confirm["usable"] = usable(error_above_codec=0.5)
    records.audit["corpus_warnings"] = [FEW | {"value": 80.0, "limit": 60.0}]
    assert [cure["title"] for cure in decision.remedies(records, EPOCHS)] == ["Hear what failed"]


def test_a_recogniser_that_mishears_recordings_is_named_first(records: SpeakerRecords) -> None:
    records.confirm["usable"] = usable(error_above_codec=0.5, wrong_language=0.5)
    recogniser = {"heard_as_other_language": 0.4}
    records.selection["measurable"] = {"measurable": True, "recogniser": recogniser}
    records.codes["codec"] = {"confirmation": {"wer": interval(0.45)}}
    (cure, *_) = decision.remedies(records, EPOCHS)
    assert cure["title"] == "Take a stronger recogniser"
    assert "misses 45\u00a0% of coded recordings and takes 40\u00a0%" in cure["why"]


def test_longer_training_is_written_for_the_stage_that_it_is_of(records: SpeakerRecords) -> None:
    setting = "language.stage2.num_epochs"
    records.selection["outlook"] = {"trend": "rising", "sentence": "", "setting": setting}
    (cure,) = decision.remedies(records, EPOCHS)
    assert cure["code"] == "num_epochs: 2  # of language.stage2"


@pytest.mark.parametrize(
    ("tied", "primary", "clearest", "said"),
    [
        (["epoch-2"], "similarity", "epoch-2", ""),
        (["epoch-2", "epoch-3"], "similarity", "epoch-2",
         "Epoch 3 is about as good: none is shown to beat the others in similarity; "
         "epoch 2 has the lowest WER of them."),
        (["epoch-1", "epoch-2", "epoch-3"], "similarity", "epoch-3",
         "Epoch 1 and epoch 3 are about as good: none is shown to beat the others in similarity; "
         "the earliest of those not shown to have a higher WER is taken."),
        (["epoch-1", "epoch-2", "epoch-3", "epoch-4"], "error", None,
         "Epoch 1, epoch 3 and epoch 4 are about as good: none is shown to beat the others in "
         "WER; the earliest is taken."),
        (["epoch-2", "epoch-3"], "error", None,
         "Epoch 3 is about as good: none is shown to beat the others in WER; "
         "the earliest is taken."),
    ],
)  # fmt: skip
def test_others_that_are_as_good_are_named(
    tied: list[str], primary: str, clearest: str | None, said: str
) -> None:
    selection = make_selection(make_params(), "epoch-2", "epoch-3")
    selection |= {"tied": tied, "clearest": clearest}
    selection["rule"] |= {"primary": primary}
    assert decision.about_as_good(selection) == said


def test_others_that_are_not_shown_to_differ_are_named_as_such() -> None:
    selection = make_selection(make_params(), "epoch-3", "epoch-3") | {"tied": ["epoch-3"]}
    second = next(item for item in selection["candidates"] if item["name"] == "epoch-2")
    second["shown_better"] = False
    assert decision.about_as_good(selection) == ""
    second["vs_best"]["difference"] |= {"low": -0.05, "high": 0.01}
    assert decision.about_as_good(selection) == (
        "Epoch 2 may be as good: no difference in similarity is shown, but no gain over the Base "
        "either."
    )
    assert decision.about_as_good(make_selection(make_params(), "base", "epoch-3")) == ""


def test_coded_recordings_above_recordings_are_explained_where_they_are(
    records: SpeakerRecords,
) -> None:
    assert "below" not in decision.ladders(records, "wer")[0]
    records.selection["scale"] = {"ceiling": 0.934, "codec_ceiling": 0.945, "floor": 0.6}
    similarity, errors = decision.ladders(records, "wer")
    assert "makes clips more alike" in similarity["below"] and "below" not in errors


@pytest.mark.slow
def test_the_line_to_copy_is_one_that_params_yaml_takes(tmp_path: Path) -> None:
    params = make_params(4, max_grid_sentences=1)
    write_world(tmp_path, params)
    outlook = {"outlook": {"trend": "rising", "sentence": "Rising."}}
    write_json(tmp_path / paths.SELECTION, read_json(tmp_path / paths.SELECTION) | outlook)
    html = speaker_page.build_page(params, tmp_path)
    line = next(x for x in html.split("<code>")[1:] if x.startswith("candidates:")).split("<")[0]
    repository = Path(__file__).parents[2]
    text = (repository / "params.yaml").read_text(encoding="utf-8")
    old = next(x for x in text.splitlines() if x.startswith("candidates:"))
    (tmp_path / "params.yaml").write_text(text.replace(old, line), encoding="utf-8")
    assert load_params(tmp_path / "params.yaml").num_epochs == 6


@pytest.mark.slow
def test_a_sentence_that_has_no_recording_is_heard_without_one(
    tmp_path: Path,
) -> None:
    write_world(tmp_path, make_params())
    path = tmp_path / paths.SPEAKER.reference / "real" / "rows.jsonl"
    write_jsonl(path, [row for row in read_jsonl(path) if row["text_id"] == "utt-000"])
    records = load_records(make_params(), tmp_path)
    listed = decision.differences(records, "epoch-2", "wer")
    typical, worst = (decision.hear(records, listed, "wer") * 2)[:2]
    assert "real" in [cell["candidate"] for cell in typical["cells"]]
    assert worst["cells"]
