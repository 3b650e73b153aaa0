"""Where the pipeline stands: DVC's answers in words, running stages, what a run will cost."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from voxadapt.cli.app import app
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json
from voxadapt.core.locks import file_lock, holder
from voxadapt.core.stage import StageResult, stage
from voxadapt.tools.dvc_state import Pipeline, read_pipeline
from voxadapt.tools.status import (
    RUNNING,
    STALE,
    UP_TO_DATE,
    WAITS,
    StageStatus,
    rows,
    status,
    summary,
)
from voxadapt.tools.timing import expected_seconds, record_seconds
from whole import dvc

PIPELINE = """\
stages:
  codes:
    cmd:
      - mkdir -p reports/notebooks artifacts
      - cp corpus.txt artifacts/codes
      - echo > reports/notebooks/codes.html
    deps: [corpus.txt]
    params: [codes.batch]
    outs: [artifacts/codes, reports/notebooks/codes.html]
  score:
    matrix:
      candidate: [base, epoch-1]
    cmd:
      - cp artifacts/codes artifacts/${item.candidate}
      - echo > reports/notebooks/score_${item.candidate}.html
    deps: [artifacts/codes]
    outs: ["artifacts/${item.candidate}", "reports/notebooks/score_${item.candidate}.html"]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.delenv("WORK_DIR", raising=False)
    (tmp_path / "corpus.txt").write_text("one")
    (tmp_path / "params.yaml").write_text("codes:\n  batch: 1\n")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    dvc(Path.cwd(), "init", "--no-scm", "--quiet")
    return tmp_path


def states(found: list[StageStatus]) -> dict[str, str]:
    return {stage.name: stage.state for stage in found}


@pytest.mark.slow
def test_a_project_from_nothing_to_done_and_stale_again(project: Path) -> None:
    found = status(read_pipeline())
    assert set(states(found).values()) == {STALE}
    assert "artifacts/codes is missing" in found[0].reasons
    assert found[1].reasons[0].startswith("artifacts/")  # its outputs, not what codes will write
    assert "3 of 3 stages: unknown time; 3 of them have not run here yet" in summary(found)[-1]

    dvc(Path.cwd(), "repro", "--quiet")
    found = status(read_pipeline())
    assert set(states(found).values()) == {UP_TO_DATE}
    assert summary(found)[-1] == "All 3 stages are up to date: dvc repro runs nothing."

    (project / "params.yaml").write_text("codes:\n  batch: 2\n")
    (project / "artifacts" / "epoch-1").unlink()
    record_seconds("reports/notebooks/codes.html", 61.0)
    record_seconds("reports/notebooks/score_base.html", 30.0)
    found = status(read_pipeline())
    assert found[0].reasons == ("codes.batch changed",)
    by_name = {stage.name: stage for stage in found}
    assert by_name["score@epoch-1"].reasons == ("artifacts/epoch-1 is missing",)
    assert by_name["score@base"].reasons == ("codes",)
    assert (by_name["score@epoch-1"].seconds, by_name["score@epoch-1"].source) == (
        30.0,
        "score@base",
    )
    assert set(rows(found)) == {
        ("codes", "stale: codes.batch changed", "1 min 01 s"),
        ("score@epoch-1", "stale: artifacts/epoch-1 is missing", "30 s, as score@base"),
        ("score@base", "waits for codes", "30 s"),
    }
    text = "\n".join(summary(found))
    assert "dvc repro runs up to 3 of 3 stages: about 2 min 01 s one after another." in text
    assert "runs only if" in text


def test_a_stage_that_runs_is_named_with_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path))
    pipeline = Pipeline({"train": (), "score@base": ("train",)}, {}, {"train": ("lr changed",)})
    with file_lock(tmp_path / "locks", "train"):
        found = status(pipeline)
    assert (found[0].state, found[0].reasons) == (RUNNING, (f"process {os.getpid()}",))
    assert found[1].state == WAITS
    assert status(pipeline)[0].state == STALE  # the lock's file is still there
    assert holder(tmp_path / "locks", "nothing") is None


def test_a_change_of_its_own_is_told_from_waiting(project: Path) -> None:
    """As DVC: what runs whatever others do, and what runs only if they give another result."""
    dvc(Path.cwd(), "repro", "--quiet")
    before = read_pipeline()
    (project / "corpus.txt").write_text("two")
    changed = (project / "dvc.yaml").read_text().replace("deps: [artifacts/codes]", "deps: [own]")
    assert before.changed == {}
    found = states(status(read_pipeline()))
    assert found == {"codes": STALE, "score@base": WAITS, "score@epoch-1": WAITS}
    shutil.rmtree(project / "artifacts" / "codes", ignore_errors=True)
    (project / "artifacts" / "codes").unlink(missing_ok=True)
    assert states(status(read_pipeline())) == found  # codes writes it again
    (project / "own").write_text("code")
    (project / "dvc.yaml").write_text(changed.replace("[own]", "[artifacts/codes, own]"))
    again = {stage.name: stage for stage in status(read_pipeline())}
    assert {stage.state for stage in again.values()} == {STALE}
    assert again["score@base"].reasons == ("own changed",)


def test_a_note_is_read_and_a_torn_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path))
    page, pages = "reports/notebooks/a.html", {"train": "reports/notebooks/a.html"}
    assert expected_seconds("train", pages) == (None, "")
    assert expected_seconds("clean", pages)[0] == 0.0
    record_seconds(page, 12.34)
    assert expected_seconds("train", pages) == (12.3, "last time")
    note = read_json(tmp_path / "seconds" / "a.json")
    assert 0.01 < note["peak_memory_gib"] < 64 and note["device"]
    (tmp_path / "seconds" / "a.json").write_text('{"sec')
    assert expected_seconds("train", pages) == (None, "")


@pytest.mark.slow
def test_a_full_disk_does_not_fail_a_stage_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("WORK_DIR", str(tmp_path))
    monkeypatch.setattr("voxadapt.tools.notebook.run_notebook", lambda *_: tmp_path / "a.html")
    monkeypatch.setattr("voxadapt.core.files.sync", full)
    done = CliRunner().invoke(app, ["notebook", "run", "a"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "a.json: No space left on device." in done.output
    monkeypatch.setattr(Path, "mkdir", full)
    record_seconds(tmp_path / "b.html", 1.0)
    monkeypatch.undo()
    assert capsys.readouterr().err.count("No space left on device.\n") == 1
    assert not list((tmp_path / "seconds").glob("*"))


@pytest.mark.slow
def test_a_folder_without_dvc_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        read_pipeline()
    assert "voxadapt new" in caught.value.problems[0].fix


def test_locks_are_found_by_the_names_of_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path))

    @stage("language_score")
    def score(candidate: str) -> StageResult:
        found = status(Pipeline({"language_score@epoch-2": ()}, {}, {}))
        return StageResult(found[0].state)

    assert score("epoch-2").sentence == RUNNING


@pytest.mark.parametrize(
    ("reasons", "schedule", "says"),
    [
        (("candidates changed",), "constant", "goes on from the last epoch"),
        (("candidates changed",), "cosine", "trains every epoch again"),
        (("candidates changed", "train.lr changed"), "constant", "trains every epoch again"),
    ],
)
def test_what_a_change_costs_is_said_before_training(reasons, schedule, says):
    [(_, state, _)] = rows([StageStatus("train", STALE, reasons)], schedule)
    assert says in state
