"""What the reports say first: verdict, ladders, steps, differences, what next."""

from pathlib import Path

import pytest

from reporting.world import (
    TEXTS,
    interval,
    make_confirm,
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
        ("rising", "WER is still getting better: train longer."),
        ("flat", "WER is flat: more epochs will not help, more data may."),
        ("turned", "WER is past its best at epoch 3: train less, or with a lower learning rate."),
        ("undecided", "WER is without a clear trend: whether more epochs would help is not shown."),
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


def test_half_of_the_sentences_is_asked_again(
    world: Path, records: SpeakerRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decision.halves(records, records.selection) == ""  # 8 sentences are too few
    monkeypatch.setattr(decision, "MIN_HALVED", 8)
    monkeypatch.setattr(decision, "HALVES", 2)
    said = decision.halves(records, records.selection)
    assert said.startswith(
        "Would fewer sentences choose the same? Of 2 random halves (4 sentences)"
    )
    assert said == decision.halves(records, records.selection)


def test_what_next_follows_the_record(records: SpeakerRecords) -> None:
    def titles(**changes: object) -> list[str]:
        records.confirm.update(changes)
        epochs = {"candidates": 4, "num_epochs": 1}
        found = decision.next_steps(records, "voxadapt say", "export", epochs, 'a "b" $c')
        assert '"a b c"' in next(step["code"] for step in found if step["title"] == "Let it speak")
        return [step["title"] for step in found]

    assert titles() == ["Let it speak", "Pass it on"]
    assert titles(usable={"state": "not_yet"}) == ["Let it speak"]
    records.selection["outlook"] = {"trend": "rising", "sentence": ""}
    assert titles() == ["Train longer", "Let it speak"]
    records.selection["outlook"]["setting"] = "language.stage2.num_epochs"
    found = decision.next_steps(records, "", "", {"num_epochs": 1}, "")
    assert found[0]["code"] == "num_epochs: 2  # of language.stage2"
    assert "Pass it on" not in titles(verdict="contradicted", usable={"state": "ready"})
    cost = {"num_texts_needed": 120}
    assert titles(verdict="cost_not_excluded", cost=cost)[1] == "Record more"


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


def test_a_sentence_that_has_no_recording_is_heard_without_one(
    tmp_path: Path,
) -> None:
    write_world(tmp_path, make_params())
    path = tmp_path / paths.REFERENCE / "real" / "rows.jsonl"
    write_jsonl(path, [row for row in read_jsonl(path) if row["text_id"] == "utt-000"])
    records = load_records(make_params(), tmp_path)
    listed = decision.differences(records, "epoch-2", "wer")
    typical, worst = (decision.hear(records, listed, "wer") * 2)[:2]
    assert "real" in [cell["candidate"] for cell in typical["cells"]]
    assert worst["cells"]
