"""Notebooks whose process is killed, or that are stopped by Ctrl-C."""

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


@pytest.mark.slow
def test_a_killed_notebook_is_its_process_killed(project: Path) -> None:
    """A notebook runs in the process of its stage, whose death DVC tells; the cells so far stay."""
    write_notebook(project, "print('before')", "import os; os.kill(os.getpid(), 9)")
    done = subprocess.run(
        [sys.executable, "-m", "voxadapt", "notebook", "run", "tiny"], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert not (project / "reports").exists()
    kept = (project / ".work" / "notebooks" / "tiny.ipynb").read_text(encoding="utf-8")
    assert "before" in kept


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopping_the_command_stops_the_notebook(project: Path, number: signal.Signals) -> None:
    """Ctrl-C ends with one line and 130; after a SIGKILL nothing goes on writing."""
    write_notebook(
        project,
        "import os, pathlib, time; pathlib.Path('begun').write_text(str(os.getpid()))",
        "time.sleep(100)",
    )
    runner = subprocess.Popen(
        [sys.executable, "-m", "voxadapt", "notebook", "run", "tiny"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background
    )
    marker = project / "begun"
    while not (marker.is_file() and marker.read_text()):
        assert runner.poll() is None
        time.sleep(0.05)
    worker = int(marker.read_text())
    os.killpg(runner.pid, number)
    printed = runner.communicate(timeout=60)[1]
    if number == signal.SIGINT:
        assert runner.returncode == 130
        assert "Traceback" not in printed
        assert printed.strip().splitlines()[-1].startswith("Stopped. Run the same command again")
    deadline = time.monotonic() + 20
    while is_running(worker):
        assert time.monotonic() < deadline, "the notebook outlives its command"
        time.sleep(0.1)
    assert not (project / "reports").exists()


def is_running(number: int) -> bool:
    """Tell whether a process runs; one that ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
