"""Sweeps: experiments queued and run by DVC, and read side by side."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from rows import make_system
from sweeps_stage import rows_of, write_results
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json, write_json
from voxadapt.core.params import load_params
from voxadapt.reporting import compare_page
from voxadapt.scoring.rows import write_rows
from voxadapt.selection.select import select
from voxadapt.tools import experiment_files
from voxadapt.tools import experiments as sweeps
from whole import edit, hashes, run, voxadapt

PROJECT = Path(__file__).parents[2]
TESTS = Path(__file__).parents[1]


def settings(folder: Path, **changes: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT / "profiles" / "miniature.yaml", folder / "params.yaml")
    defaults: dict[str, object] = {
        "candidates": ["base", "epoch-1", "epoch-2"],
        "train__lr": 2.0e-4,
        "score__takes": 2,
        "score__sets": ["corpus"],
        "select__num_bootstrap": 400,
    }
    edit(folder, **{**defaults, **changes})


class World:
    """Experiments that are folders: what DVC would read from commits lies in them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.listed = root, [("workspace", None, "")]
        settings(root)
        write_results(root, load_params(root / "params.yaml"))
        monkeypatch.chdir(root)
        monkeypatch.setattr(experiment_files, "list_experiments", self.names)
        monkeypatch.setattr(experiment_files, "_reader", self.reader)

    def names(self, names: list[str] | None) -> list[Any]:
        return [item for item in self.listed if names is None or item[0] in names]

    def reader(self, commit: str, opened: ExitStack) -> Any:
        return lambda path: (self.root / "experiments" / commit / path).read_bytes()

    def add(self, name: str, state: str = "", fields: Any = (), **changes: object) -> Path:
        folder = self.root / "experiments" / name
        settings(folder, **changes)
        write_results(folder, load_params(folder / "params.yaml"), **dict(fields))
        self.listed.append((name, name, state))
        return folder

    def compare(self, names: list[str] | None = None, **options: Any) -> dict[str, Any]:
        return sweeps.compare(load_params(self.root / "params.yaml"), names, **options).values


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "project", monkeypatch)


def entry(record: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in record["experiments"] if item["name"] == name)


@pytest.mark.slow
def test_what_the_experiments_chose_is_compared_by_the_rule_for_epochs(world: World) -> None:
    world.add("slow", train__lr=5.0e-5)
    world.add("near", train__lr=1.5e-4)
    world.add("long", candidates=["base", "epoch-1", "epoch-2", "epoch-3"], train__lr=3.0e-4)
    record = world.compare()
    assert record["winner"] == "workspace" and record["winner_candidate"] == "epoch-2"
    assert record["parameters"] == ["candidates", "train.lr"]
    assert entry(record, "slow")["parameters"]["train.lr"] == 5e-5
    assert entry(record, "slow")["own_choice"] == "base" and not entry(record, "slow")["systems"]
    pairs = {(pair["first"], pair["second"]): pair for pair in record["comparison"]["pairs"]}
    assert set(pairs) == set(combinations(("base", "long", "near", "workspace"), 2))
    assert pairs["base", "near"]["sim"]["better"] == "near"
    found = pairs["near", "workspace"]["sim"]
    assert found["simultaneous_low"] <= found["difference"]["low"] + 0.001
    decided = record["decision"]
    assert decided["tied"][0] == "workspace" and decided["chosen"] == "workspace"
    assert sum(item["p_best"] for item in decided["candidates"]) == pytest.approx(1, abs=1e-5)
    assert "winner's curse" in record["disclosure"] and "9 candidates" in record["disclosure"]
    assert any("the Base is kept: slow" in note for note in record["notes"])
    assert any("do not show" in note and "near" in note for note in record["notes"])
    assert "epoch-" not in record["reason"] and record["confirm"] is None


@pytest.mark.slow
def test_the_page_holds_everything_and_equal_inputs_give_equal_bytes(world: World) -> None:
    world.add("<script>alert(1)</script>", train__lr=3.0e-4)
    world.compare()
    before = [path.read_bytes() for path in (sweeps.TABLE, sweeps.PAGE)]
    record = world.compare()
    assert [path.read_bytes() for path in (sweeps.TABLE, sweeps.PAGE)] == before
    html = sweeps.PAGE.read_text(encoding="utf-8")
    assert "<script>alert" not in html and "default-src 'none'" in html
    assert html.count("<audio") == compare_page.MAX_SENTENCES * len(record["decision"]["inputs"])
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "train.lr" in html and str(world.root) not in html


def test_a_number_as_dvc_writes_it_is_a_number(world: World) -> None:
    """`-S train.lr=3e-6` leaves `3e-06` in params.yaml, which YAML 1.1 takes for text."""
    folder = world.add("small", train__lr="3e-06")
    assert load_params(folder / "params.yaml").train.lr == 3e-6
    record = world.compare()
    assert entry(record, "small")["parameters"]["train.lr"] == 3e-6


@pytest.mark.slow
def test_a_better_experiment_wins_over_the_workspace(world: World) -> None:
    edit(world.root, train__lr=6.0e-4)
    shutil.rmtree(world.root / "artifacts")
    write_results(world.root, load_params(world.root / "params.yaml"))
    world.add("right", train__lr=2.0e-4)
    record = world.compare()
    assert record["winner"] == "right" and record["reason"].startswith("right is chosen")


def test_every_candidate_of_two_experiments(world: World) -> None:
    world.add("twin")
    record = world.compare(candidates=["all"])
    assert entry(record, "twin")["repeats"] == {
        "twin (epoch 1)": "workspace (epoch 1)", "twin (epoch 2)": "workspace (epoch 2)"
    }  # fmt: skip
    assert [item["name"] for item in record["decision"]["candidates"]] == [
        "base", "workspace (epoch 1)", "workspace (epoch 2)"
    ]  # fmt: skip
    assert any("clip for clip" in note for note in record["notes"])


@pytest.mark.slow
def test_a_candidate_that_one_experiment_lacks_is_missing_there(world: World) -> None:
    world.add("long", candidates=["base", "epoch-1", "epoch-2", "epoch-3"], train__lr=3.0e-4)
    record = world.compare(candidates=["chosen", "epoch-3"])
    assert entry(record, "workspace")["lacking"] == ["epoch-3"]
    record = world.compare(candidates=["epoch-1"])
    assert [item["candidate"] for item in entry(record, "long")["systems"]] == ["epoch-1"]


@pytest.mark.slow
def test_scores_that_were_made_differently_are_refused_in_one_table(world: World) -> None:
    world.add("heard", fields={"asr_id": "another"}, train__lr=1.5e-4)
    world.add("takes", score__takes=3, train__lr=1.0e-4)
    world.add("fine", train__lr=3.0e-4)
    with pytest.raises(UserError) as caught:
        world.compare()
    table = {problem.where: problem for problem in caught.value.problems}
    assert set(table) == {"recogniser", "takes", "seeds"}
    assert table["recogniser"].found == "asr (workspace, takes, fine); another (heard)"
    assert table["takes"].found == "2 (workspace, heard, fine); 3 (takes)"
    assert "score.takes: 2 (workspace, heard, fine), 3 (takes)" in table["takes"].fix
    assert not sweeps.PAGE.exists()
    assert world.compare(["workspace", "fine"])["winner"] == "workspace"


@pytest.mark.slow
def test_an_experiment_without_results_shows_no_others(world: World) -> None:
    """Its commit holds the lock, and so the scores, of the commit that it started from."""
    world.add("done", train__lr=3.0e-4)
    for state in ("Failed", "Queued", "Running"):
        world.add(state.lower(), state, train__lr=0.5)
    record = world.compare()
    for name in ("failed", "queued", "running"):
        item = entry(record, name)
        assert item["missing"] and not item["systems"] and item["parameters"]["train.lr"] == 0.5
    html = sweeps.PAGE.read_text(encoding="utf-8")
    assert "it failed. See" in html and "it has not run yet" in html and "3 missing" in html


@pytest.mark.slow
def test_stale_broken_and_absent_results_are_missing(world: World) -> None:
    world.add("fine", train__lr=3.0e-4)
    (world.add("edited", train__lr=1.0e-4) / "dvc.lock").write_text(lock("2e-04"))
    (world.add("kept", train__lr=2.5e-4) / "dvc.lock").write_text(lock("25e-05"))
    other = world.add("other", train__lr=1.2e-4)
    changed = rows_of(load_params(other / "params.yaml"), "epoch-2", hyp="else")
    write_rows(other / "artifacts/scores/epoch-2", changed)
    (world.add("absent", train__lr=1.1e-4) / "reports/selection.json").unlink()
    record = world.compare()
    said = {item["name"]: item["missing"] for item in record["experiments"]}
    assert said["workspace"] == said["fine"] == said["kept"] == ""
    assert "train.lr 0.0002, not of 0.0001" in said["edited"]
    assert "made from other scores of epoch-2" in said["other"]
    assert "reports/selection.json" in said["absent"] and "dvc exp pull" in said["absent"]
    assert [name for name, text in said.items() if text] == ["edited", "other", "absent"]


def lock(lr: str) -> str:
    """Write a lock; one stage is not compared, one is of a candidate that is not listed."""
    made_with = {"train": f"train: {{lr: {lr}}}", "confirm": "train: {lr: 7.0}",
                 "score@epoch-9": "score: {takes: 9}"}  # fmt: skip
    lines = [f"  {name}: {{params: {{params.yaml: {{{text}}}}}}}"
             for name, text in made_with.items()]  # fmt: skip
    return "\n".join(["stages:", *lines]) + "\n"


@pytest.mark.slow
def test_the_language_path_is_read_where_it_keeps_its_scores(world: World) -> None:
    for folder in (world.root, world.add("second", language__stage1__lr=1.0e-3)):
        params = load_params(folder / "params.yaml")
        assert params.language is not None
        wrong = {"base": 20, "epoch-1": 10, "stage2-epoch-1": 4 if folder == world.root else 9}
        rows = {
            name: make_system(
                name, num_texts=8, takes=2, char_hits=39 - count, char_substitutions=count
            )
            for name, count in wrong.items()
        }
        for name, found in rows.items():
            scores = "stage2_scores" if name.startswith("stage2") else "scores"
            write_rows(folder / "artifacts/language" / scores / name / "target", found)
        del rows["stage2-epoch-1"]
        first = select(rows, params.language.select)
        write_json(folder / "reports/language/stage1.json", first)
        rows["stage2-epoch-1"] = found
        last = select(rows, params.language.select, start="epoch-1")
        last["forgetting"] = {"candidates": {"stage2-epoch-1": {"verdict": "kept"}}}
        write_json(folder / "reports/language/selection.json", last)
    record = world.compare(language=True)
    assert record["path"] == "language" and record["winner"] == "workspace"
    assert record["winner_candidate"] == "stage2-epoch-1"
    assert record["parameters"] == ["language.stage1.lr"]
    [system] = entry(record, "second")["systems"]
    assert system["cer"]["point"] == pytest.approx(9 / 39, abs=1e-6)
    assert system["source_language"] == "kept" and "from 3 candidates" in record["disclosure"]


@pytest.mark.slow
def test_epochs_of_experiments_that_keep_the_base_can_be_compared(world: World) -> None:
    for name, lr in (("slow", 5.0e-5), ("slower", 4.0e-5)):
        world.add(name, train__lr=lr)
    with pytest.raises(UserError, match=r"Each of them keeps the Base.*--candidates all"):
        world.compare(["slow", "slower"])
    record = world.compare(["slow", "slower"], candidates=["epoch-2"])
    assert [len(entry(record, name)["systems"]) for name in ("slow", "slower")] == [1, 1]


def test_nothing_to_compare_is_said(world: World) -> None:
    with pytest.raises(UserError, match="two that can be compared"):
        world.compare()
    world.add("gone", "Failed", train__lr=0.5)
    with pytest.raises(UserError, match="it failed"):
        world.compare()
    with pytest.raises(UserError, match=r"docs/sweeps\.md"):
        world.compare(["workspace"])


@pytest.mark.slow
def test_bases_that_differ_are_disclosed(world: World) -> None:
    folder = world.add("big", train__lr=3.0e-4)
    params = load_params(folder / "params.yaml")
    rows = {name: rows_of(params, name) for name in params.candidates}
    rows["base"] = [row.model_copy(update={"checkpoint_sha": "1.7B"}) for row in rows["base"]]
    for name, found in rows.items():
        write_rows(folder / "artifacts/scores" / name, found)
    write_json(folder / "reports/selection.json", select(rows, params.select))
    record = world.compare()
    assert any("different Bases" in note for note in record["notes"])


@pytest.mark.slow
def test_dvc_queues_runs_and_keeps_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of docs/sweeps.md on a small project: one of three experiments fails."""
    root = tmp_path / "project"
    settings(root)
    shutil.copyfile(TESTS / "sweeps_stage.py", root / "stage.py")
    (root / "data").mkdir()
    (root / "data" / "corpus.txt").write_text("a corpus\n")
    (root / ".gitignore").write_text("/data\n/artifacts/\n/.work/\n/reports/\n")
    stage = {"cmd": "python stage.py", "deps": ["data", "stage.py"],
             "params": ["train", "candidates", "score", "select"],
             "outs": ["artifacts/scores", "reports/selection.json"]}  # fmt: skip
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"score": stage}}))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT / "src"), str(TESTS)]))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("WORK_DIR", str(root / ".work"))
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "tests")
        monkeypatch.setenv(f"{name}_EMAIL", "tests@example.com")

    def dvc(*arguments: str, code: int = 0) -> None:
        from dvc.cli import main

        with contextlib.chdir(root):
            assert main([*arguments, "--quiet"]) == code, arguments

    def commit() -> None:
        run(root, "git", "add", "--all")
        run(root, "git", "commit", "--quiet", "--message", "a commit")

    run(root, "git", "init", "--quiet")
    dvc("init")
    dvc("add", "data")
    commit()
    dvc("repro")
    commit()
    dvc("exp", "run", "--queue", "-S", "train.lr=3e-4,0.5")
    dvc("exp", "run", "--run-all")  # a failed experiment is no failure of the command

    ran = [line.split() for line in (root / ".work" / "ran").read_text().splitlines()]
    assert sorted(float(lr) for lr, _ in ran) == [2e-4, 3e-4, 0.5]
    assert sum("/.dvc/tmp/exps/" in folder for _, folder in ran) == 2  # WORK_DIR held
    assert run(root, "git", "status", "--porcelain") == ""
    before = hashes(root / "artifacts") | hashes(root / "reports") | hashes(root / "data")
    printed = voxadapt(root, "compare", "--experiments")
    assert "1 missing" in (root / sweeps.PAGE).read_text(encoding="utf-8")
    assert "dvc queue logs" in printed
    record = read_json(root / sweeps.TABLE)
    by_lr = {item["parameters"]["train.lr"]: item for item in record["experiments"]}
    assert sorted(by_lr) == [2e-4, 3e-4, 0.5]
    assert by_lr[0.5]["missing"].startswith("it failed")
    assert by_lr[2e-4]["name"] == "workspace"
    [kept] = by_lr[3e-4]["systems"]
    assert kept["candidate"] == "epoch-2" and kept["sim"]["point"] > 0.75
    after = hashes(root / "artifacts") | hashes(root / "reports") | hashes(root / "data")
    assert {key: sha for key, sha in after.items() if not key.startswith("compare.")} == before
    assert run(root, "git", "status", "--porcelain") == ""

    name = by_lr[3e-4]["name"]
    dvc("exp", "apply", name)
    assert load_params(root / "params.yaml").train.lr == 3e-4
    voxadapt(root, "compare", "--experiments", "workspace", name, "HEAD")
    record = read_json(root / sweeps.TABLE)
    assert entry(record, name)["repeats"] == {name: "workspace"}
    shutil.rmtree(root / ".dvc" / "cache")
    refused = voxadapt(root, "compare", "--experiments", "workspace", name, code=2)
    assert "reports/selection.json" in refused and "dvc exp pull" in refused
    refused = voxadapt(root, "compare", "--experiments", "no-such", code=2)
    assert "no-such" in refused and "dvc exp list" in refused
    assert "--experiments" in voxadapt(root, "compare", "--candidates", "all", code=2)
