"""The decision taken apart gives the decision again."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from explore.world import write_choice
from reporting.world import TEXTS, make_params
from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json, read_jsonl, write_json, write_jsonl
from voxadapt.explore import choice

PARAMS = make_params()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("choice")
    write_choice(root, PARAMS)
    return root


@pytest.fixture
def found(original: Path, monkeypatch: pytest.MonkeyPatch) -> choice.Choice:
    monkeypatch.chdir(original)
    return choice.read_choice(PARAMS)


@pytest.mark.slow
def test_the_steps_lead_from_all_candidates_to_the_chosen_one(found: choice.Choice) -> None:
    table = choice.steps(found)
    left = [set(names.split(", ")) for names in table["left"]]
    assert all(after <= before for before, after in pairwise(left))
    assert len(left[0]) == 5 and left[-1] == {f"Epoch {found.record['chosen'][-1]}"}
    went = {name for names in table["went"] for name in names.split(", ") if name != "–"}
    assert went | left[-1] == left[0]
    assert found.sentence.startswith(f"Epoch {found.record['chosen'][-1]} is chosen")


@pytest.mark.slow
def test_the_rule_as_written_decides_the_same_again(found: choice.Choice) -> None:
    table = choice.what_if(found, {}, {"primary": "error"}, {"error_margin": 0.01})
    assert table["chosen"].iloc[0] == table["chosen"].iloc[1]
    again = choice.decision.decide_again(found.record, found.rows, found.rule)
    for key in ("chosen", "best", "tied", "clearest", "candidates"):
        assert again[key] == found.record[key]
    assert list(table.index)[2:] == ["primary: error", "error_margin: 0.01"]


def test_a_rule_that_params_could_not_hold_is_refused(found: choice.Choice) -> None:
    with pytest.raises(UserError) as caught:
        choice.what_if(found, {"confidence": 2.0, "primry": "error"})
    assert {p.where for p in caught.value.problems} == {"select.confidence", "select.primry"}


def test_any_scored_clip_can_be_heard(
    found: choice.Choice, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda html: shown.append(str(html)))
    choice.hear_any(found)
    assert f"candidate: {found.record['chosen']}" in capsys.readouterr().out
    assert "take 1" in shown[0] and "similarity" in shown[0]


def test_sentences_that_speak_for_and_against_can_be_heard(found: choice.Choice) -> None:
    html = choice.telling_sentences(found, "epoch-3", "base", limit=2)
    assert html.count("<audio") == 8 and html.count('class="clip"') == 4
    gains = found.samples["epoch-3"].sim.numerator - found.samples["base"].sim.numerator
    assert f"{found.samples['base'].text_ids[int(gains.argmax())]}:" in html
    assert choice.telling_sentences(found).count("<audio") == 8
    with pytest.raises(UserError, match="epoch-9"):
        choice.telling_sentences(found, "epoch-9")


@pytest.mark.slow
def test_on_fewer_sentences_the_shares_add_up(found: choice.Choice) -> None:
    table = choice.fewer_sentences(found, sizes=(4, 6, 100), repeats=5)
    assert list(table.index) == ["4", "6", f"{len(TEXTS)}, all"]
    for size in ("4", "6"):
        assert sum(float(share.rstrip(" %")) for share in table.loc[size]) == 100
    chosen = table.loc[f"{len(TEXTS)}, all"]
    assert list(chosen[chosen == "chosen"].index) == [f"Epoch {found.record['chosen'][-1]}"]


@pytest.mark.slow
@pytest.mark.parametrize("draw", [choice.gates, choice.differences, choice.front])
def test_figures_are_drawn(found: choice.Choice, draw) -> None:
    assert draw(found)._repr_png_().startswith(b"\x89PNG")


def test_what_is_missing_or_stale_is_named_with_its_command(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    shutil.copytree(original, root)
    monkeypatch.chdir(root)
    rows = paths.SCORES / "epoch-2" / "rows.jsonl"
    changed = read_jsonl(rows)
    changed[0]["sim"] = 0.0
    write_jsonl(rows, changed)
    with pytest.raises(UserError, match="older than the scores") as caught:
        choice.read_choice(PARAMS)
    assert [p.fix for p in caught.value.problems] == ["Run `dvc repro select`."]
    rows.unlink()
    (paths.SCORES / "base" / "rows.jsonl").unlink()
    with pytest.raises(UserError, match="not come so far") as caught:
        choice.read_choice(PARAMS)
    assert [p.fix.split("`")[1] for p in caught.value.problems] == [
        "dvc repro score@base", "dvc repro score@epoch-2",
    ]  # fmt: skip
    paths.SELECTION.unlink()
    with pytest.raises(UserError, match="dvc repro select"):
        choice.read_choice(PARAMS)


@pytest.mark.slow
def test_where_the_base_is_kept_it_is_held_against_the_best_of_the_others(
    original: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(original, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    record = read_json(paths.SELECTION)
    for candidate in record["candidates"][1:]:
        candidate["eligible"] = False
    write_json(paths.SELECTION, record | {
        "best": "base", "chosen": "base", "tied": ["base"], "runner_up": None, "clearest": "base",
    })  # fmt: skip
    found = choice.read_choice(PARAMS)
    assert "Base</figcaption>" in choice.telling_sentences(found)
    assert choice.steps(found)["left"].iloc[-1] == "Base"
    for draw in (choice.gates, choice.differences, choice.front):
        draw(found)._repr_png_()
