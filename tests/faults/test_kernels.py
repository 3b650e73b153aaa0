"""Notebooks whose kernel is killed, whose runner is killed, or that are stopped by Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from voxadapt.tools.notebook import NotebookError, run_notebook

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORK_DIR", str(tmp_path / ".work"))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT / "src"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shutil.copyfile(PROJECT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


def write_notebook(folder: Path, *sources: str) -> None:
    cells = [
        {"cell_type": "code", "id": f"x{i}", "metadata": {"tags": ["parameters"]} if not i else {},
         "execution_count": None, "outputs": [], "source": source}
        for i, source in enumerate(('params_file = "params.yaml"', *sources))
    ]  # fmt: skip
    (folder / "notebooks").mkdir()
    nb = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "notebooks" / "tiny.ipynb").write_text(json.dumps(nb), encoding="utf-8")


def test_a_killed_kernel_is_told_with_what_to_do(project: Path) -> None:
    write_notebook(project, "print('before')", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(NotebookError, match="the kernel died") as caught:
        run_notebook("tiny", {}, project / "tiny.html")
    for part in ("lack of memory", "batch_size", "repeat the command: it goes on where it was"):
        assert part in str(caught.value)
    assert not (project / "tiny.html").exists()
    kept = (project / ".work" / "notebooks" / "tiny.ipynb").read_text(encoding="utf-8")
    assert "before" in kept


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopping_the_runner_stops_the_kernel_too(project: Path, number: signal.Signals) -> None:
    """Ctrl-C ends with one line and 130; after a SIGKILL no kernel goes on writing."""
    write_notebook(
        project,
        "import os, pathlib, time; pathlib.Path('kernel').write_text(str(os.getpid()))",
        "time.sleep(100)",
    )
    runner = subprocess.Popen(
        [sys.executable, "-m", "voxadapt", "notebook", "run", "tiny"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background
    )
    marker = project / "kernel"
    while not (marker.is_file() and marker.read_text()):
        assert runner.poll() is None
        time.sleep(0.05)
    kernel = int(marker.read_text())
    os.killpg(runner.pid, number)
    printed = runner.communicate(timeout=60)[1]
    if number == signal.SIGINT:
        assert runner.returncode == 130
        assert "Traceback" not in printed
        assert printed.strip().splitlines()[-1].startswith("Stopped. Run the same command again")
    deadline = time.monotonic() + 20
    while is_running(kernel):
        assert time.monotonic() < deadline, "the kernel outlives its runner"
        time.sleep(0.1)
    assert not (project / "reports").exists()


def is_running(number: int) -> bool:
    """Tell whether a process runs; one that ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
