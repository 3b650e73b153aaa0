"""Two runs at once: the same stage waits, other stages do not; Ctrl-C ends a wait cleanly."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from voxadapt.core.errors import UserError
from voxadapt.core.locks import file_lock
from voxadapt.core.params import load_params
from voxadapt.pipeline import codes, score, select

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(PROJECT / "profiles" / "miniature.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORK_DIR", raising=False)
    return tmp_path


def voxadapt(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "voxadapt", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src"), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def hear_ctrl_c() -> None:
    """Undo what a shell does to commands in its background, where a suite may run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_a_second_run_of_a_stage_says_that_it_waits_and_ctrl_c_ends_it_cleanly(
    project: Path,
) -> None:
    """No traceback, one line, the exit code of an interrupted program, nothing written."""
    with file_lock(project / ".work" / "locks", "audit"):
        second = voxadapt(project, "audit")
        assert second.stderr is not None
        said = second.stderr.readline()
        assert f"process {os.getpid()} is doing the same; waiting" in said
        second.send_signal(signal.SIGINT)
        printed = second.communicate(timeout=60)[1]
    assert second.returncode == 130
    lines = [line for line in printed.splitlines() if line.strip()]
    assert lines == ["Stopped. Run the same command again to go on where it was."]
    assert not (project / "artifacts").exists()


@pytest.mark.slow
def test_a_waiting_run_goes_on_when_the_first_one_has_died(project: Path) -> None:
    folder, order = project / "locks", project / "order"
    first = os.fork()
    if not first:
        with file_lock(folder, "train"):
            order.write_text("first ")
            time.sleep(30)
    while not order.exists():
        time.sleep(0.01)
    second = os.fork()
    if not second:
        with file_lock(folder, "train"), order.open("a") as stream:
            stream.write("second")
        os._exit(0)
    time.sleep(0.3)
    assert order.read_text() == "first "
    os.kill(first, signal.SIGKILL)
    assert os.waitpid(second, 0)[1] == 0
    os.waitpid(first, 0)
    assert order.read_text() == "first second"


def test_other_stages_candidates_and_corpora_do_not_wait(project: Path) -> None:
    """Each of these fails for want of its inputs, at once, while the audit's lock is held."""
    params = load_params("params.yaml")
    with file_lock(".work/locks", "audit"), file_lock(".work/locks", "score-epoch-1"):
        for stage, arguments in (
            (codes.run, ()),
            (score.run, ("base",)),
            (select.run, ()),
        ):
            with pytest.raises(UserError):
                stage(params, *arguments)
    names = sorted(path.stem for path in (project / ".work" / "locks").iterdir())
    assert names == ["audit", "codes", "score-base", "score-epoch-1", "select"]


def test_lack_of_memory_in_a_stage_names_the_setting(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params("params.yaml")
    for error in (
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 GB"),
    ):

        def full(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(codes, "check_made", full)  # the first that the stage does
        with pytest.raises(UserError, match=r"Lower codes\.batch_seconds"):
            codes.run(params)
