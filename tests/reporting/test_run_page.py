"""The page beside the report: what changed since the last run, and what this one cost."""

import subprocess
from pathlib import Path

import pytest

from reporting.world import make_params
from voxadapt.core import paths
from voxadapt.core.files import write_json
from voxadapt.reporting.run_page import write_run_page

HEAD = "candidate,epoch,wer,cer,sim,chosen\n"


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "-C", root, *identity, *arguments], check=True, capture_output=True)


def page(root: Path) -> str:
    path = root / "reports" / "run.html"
    write_run_page(make_params(), path, root)
    return " ".join(
        path.read_text(encoding="utf-8").replace("\u00a0", " ").replace("&nbsp;", " ").split()
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    table = tmp_path / paths.EPOCHS_TABLE
    table.parent.mkdir(parents=True)
    table.write_text(HEAD + "base,0,0.4,0.3,0.7,1\nepoch-1,1,0.5,0.4,0.8,0\n")
    (tmp_path / "params.yaml").write_text("train: {lr: 0.1, seed: 1}\ncandidates: [base]\n")
    return tmp_path


def test_without_a_history_nothing_is_made_up(project: Path) -> None:
    found = page(project)
    assert "No earlier commit holds figures that differ" in found
    assert "No stage has noted its time here." in found


def test_the_last_other_table_is_what_is_compared_with(project: Path) -> None:
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first <run>")
    table = project / paths.EPOCHS_TABLE
    table.write_text(HEAD + "base,0,0.4,0.3,0.7,0\nepoch-1,1,0.25,0.2,0.8,1\n")
    (project / "params.yaml").write_text("train: {lr: 0.2, seed: 1}\ncandidates: [base, epoch-1]\n")
    before = page(project)
    git(project, "add", "reports/plots", "params.yaml")
    git(project, "commit", "-qm", "second")
    assert page(project) == before  # whether or not this run is committed
    assert "first &lt;run&gt;" in before
    assert "50.0 %" in before and "25.0 %" in before
    assert "Base (chosen before)" in before and "Epoch 1 (chosen)" in before
    assert "train.lr" in before and "train.seed" not in before
    assert ">base, epoch-1</td>" in before and "cannot be compared" not in before
    (project / "data.dvc").write_text("outs: []\n")
    assert "cannot be compared" in page(project)


def test_costs_are_those_that_were_noted(project: Path) -> None:
    folder = project / paths.work_dir() / "seconds"
    write_json(folder / "03_train_speaker.json",
               {"seconds": 90.0, "peak_memory_gib": 1.5, "device": "cpu",
                "versions": {"torch": "2.9"}})  # fmt: skip
    write_json(folder / "10_language_score_base.json", {"seconds": 60.0})
    (folder / "02_extract_codes.json").write_text('{"seco')
    found = page(project)
    assert "1.5 minutes in all" in found and "1.5 GiB" in found and "language score" not in found
