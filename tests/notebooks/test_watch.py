"""A notebook whose process is killed: the message says so, and what to lower."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from voxadapt.tools.notebook_watch import _SETTINGS, kill_message

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def run_block(block: str, name: str = "04_score_candidate") -> subprocess.CompletedProcess[str]:
    """Run a block under the watch in a process of its own."""
    code = (
        "import os, signal, subprocess, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job's children ignore it
        "from voxadapt.tools.notebook_watch import explain_kill\n"
        f"with explain_kill({name!r}):\n" + textwrap.indent(block, "    ")
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_process_is_explained(number: signal.Signals) -> None:
    done = run_block(f"os.kill(os.getpid(), {int(number)})")
    assert done.returncode == -number
    assert done.stdout == ""
    assert "04_score_candidate" in done.stderr
    assert "lower score.batch_size" in done.stderr
    assert "voxadapt plan" in done.stderr


@pytest.mark.slow
def test_a_process_of_its_own_does_not_hide_it() -> None:
    done = run_block("os.fork() or __import__('time').sleep(4)\nos.kill(os.getpid(), 9)")
    assert done.returncode == -9
    assert done.stderr.count("lower score.batch_size") == 1


@pytest.mark.parametrize("block", ["pass", "sys.exit(2)", "raise ValueError('own words')"])
def test_what_ends_by_itself_is_left_alone(block: str) -> None:
    done = run_block(block)
    assert done.returncode == {"p": 0, "s": 2, "r": 1}[block[0]]
    assert "voxadapt plan" not in done.stderr


def test_ctrl_c_is_no_kill() -> None:
    done = run_block("os.kill(os.getpid(), signal.SIGINT)")
    assert "voxadapt plan" not in done.stderr
    assert "KeyboardInterrupt" in done.stderr


def test_no_process_is_left_behind() -> None:
    done = run_block("pass\nprint(subprocess.run(['true']).returncode)\n")
    assert done.stdout == "0\n"
    code = (
        "import os\nfrom voxadapt.tools.notebook_watch import explain_kill\n"
        "with explain_kill('x'):\n    pass\n"
        "try:\n    os.waitpid(-1, os.WNOHANG)\nexcept ChildProcessError:\n    print('none')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.stdout == "none\n"


def test_the_words_say_what_to_lower() -> None:
    assert "If nobody did it" in kill_message("03_train_speaker")
    assert "train.batch_size" in kill_message("03_train_speaker")
    assert "end what else uses memory" in kill_message("07_report")


def test_the_settings_are_of_notebooks_that_exist_and_parameters_that_exist() -> None:
    from voxadapt.core.params import load_params

    params = load_params(ROOT / "params.yaml")
    for name, words in _SETTINGS.items():
        assert (ROOT / "notebooks" / f"{name}.ipynb").is_file()
        for word in words.replace("(", " ").replace(",", " ").split():
            if "." in word:
                value: object = params
                for part in word.split("."):
                    value = getattr(value, part)
