"""Warm starts: a fork is what a fresh interpreter would be, and never outlives its caller."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from voxadapt.tools.warm import ADDRESS, offer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm starts are for Linux")

PROJECT = Path(__file__).parents[2]
MODULES = {
    "prepare": """
        import os
        READY = []
        def load():
            from voxadapt.core import errors
            os.environ["SET_BY_A_LIBRARY"] = "yes"
            READY.append(os.getpid())
        def with_a_thread():
            import threading, time
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """,
    "tell": """
        import json, os, sys
        import prepare
        print(json.dumps({
            "warm": bool(prepare.READY), "folder": os.getcwd(), "arguments": sys.argv[1:],
            "environment": dict(os.environ), "input": sys.stdin.read(), "path": sys.path[0],
            "loaded": [n for n in sys.modules if n.startswith("voxadapt.")], "name": __name__,
        }))
        print("on stderr", file=sys.stderr)
        sys.exit(7)
        """,
    "wait": """
        import os, pathlib, subprocess, sys, time
        child = subprocess.Popen(["sleep", "100"])
        pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}\\n")
        try:
            time.sleep(100)
        except KeyboardInterrupt:
            child.wait()
            sys.exit(130)
        """,
    "die": """
        import os, sys
        if sys.argv[1] == "raise":
            raise RuntimeError("for a reason")
        os.kill(os.getpid(), int(sys.argv[1]))
        """,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{PROJECT / 'src'}{os.pathsep}{tmp_path}")
    monkeypatch.delenv(ADDRESS, raising=False)
    return tmp_path


@pytest.fixture
def given(folder: Path) -> Iterator[dict[str, str]]:
    with offer("prepare:load") as given:
        assert given
        yield dict(os.environ) | given


def begin(environment: dict[str, str], *arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "voxadapt.tools.warm", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(environment: dict[str, str], folder: Path) -> dict[str, object]:
    process = begin(environment, "tell", "one", "two words", folder=folder)
    printed, errors = process.communicate("what it reads", timeout=30)
    assert (process.returncode, errors) == (7, "on stderr\n")
    return json.loads(printed)


def test_a_fork_is_what_a_fresh_interpreter_would_be(folder: Path, given: dict[str, str]) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    warm = told(given | {"DVC_STAGE": "score@base", "SHLVL": "9"}, elsewhere)
    cold = told({**given, "DVC_STAGE": "score@base", "SHLVL": "9", ADDRESS: ""}, elsewhere)
    assert (warm.pop("warm"), cold.pop("warm")) == (True, False)
    added = warm["environment"].pop("SET_BY_A_LIBRARY"), warm["environment"].pop(ADDRESS)
    assert added == ("yes", given[ADDRESS])
    del cold["environment"][ADDRESS]
    assert warm == cold  # this package too is not there before it is imported
    assert warm["loaded"] == []


def test_what_differs_or_is_not_there_begins_cold(folder: Path, given: dict[str, str]) -> None:
    assert told(given, folder)["warm"]
    assert not told(given | {"OMP_NUM_THREADS": "17"}, folder)["warm"]
    assert not told(given | {ADDRESS: str(folder / "nothing")}, folder)["warm"]
    assert not told({k: v for k, v in given.items() if k != ADDRESS}, folder)["warm"]


def test_with_threads_there_is_no_fork(folder: Path) -> None:
    with offer("prepare:with_a_thread") as given:
        assert not told(os.environ | given, folder)["warm"]


def test_a_preparation_that_fails_is_a_cold_start(folder: Path) -> None:
    with offer("prepare:missing") as given:
        assert not told(os.environ | given, folder)["warm"]


@pytest.mark.parametrize(("how", "code"), [("raise", 1), ("9", -9), ("15", -15)])
def test_the_caller_ends_as_the_fork_ends(
    folder: Path, given: dict[str, str], how: str, code: int
) -> None:
    process = begin(given, "die", how, folder=folder)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == code
    assert ("RuntimeError: for a reason" in errors) == (how == "raise")


def pids(folder: Path) -> list[int]:
    """Wait for the fork; return its number and that of its own child."""
    deadline = time.monotonic() + 20
    while not ((folder / "pids").is_file() and (folder / "pids").read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(number) for number in (folder / "pids").read_text().split()]


def all_end(numbers: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(is_running(number) for number in numbers):
        assert time.monotonic() < deadline, "a process outlives what it worked for"
        time.sleep(0.02)


def is_running(number: int) -> bool:
    """Tell whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent(number: int) -> int:
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


def test_ctrl_c_is_passed_on_to_the_fork_and_its_children(
    folder: Path, given: dict[str, str]
) -> None:
    process = begin(given, "wait", folder=folder)
    found = pids(folder)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    all_end(found)


def test_a_fork_ends_with_its_caller(folder: Path, given: dict[str, str]) -> None:
    process = begin(given, "wait", folder=folder)
    found = pids(folder)
    process.kill()
    all_end(found)
    process.communicate()


def test_a_caller_ends_with_the_process_that_started_it(
    folder: Path, given: dict[str, str]
) -> None:
    command = f'"{sys.executable}" -m voxadapt.tools.warm wait; true'
    shell = subprocess.Popen(["sh", "-c", command], env=given, cwd=folder)
    found = pids(folder)
    shell.kill()
    shell.wait()
    all_end(found)


def test_all_end_with_the_warm_process(folder: Path, given: dict[str, str]) -> None:
    process = begin(given, "wait", folder=folder)
    fork, child = pids(folder)
    os.kill(parent(fork), 9)
    assert process.wait(timeout=30) == 1
    all_end([fork])
    os.kill(child, 9)  # what a stage starts is a caller itself, and ends
    process.communicate()
    assert not told(given, folder)["warm"]


def test_all_end_with_the_process_that_offered(folder: Path) -> None:
    script = """
        import os, subprocess, sys
        from voxadapt.tools.warm import offer
        with offer("prepare:load") as given:
            open("address", "w").write(given["VOXADAPT_WARM"])
            command = [sys.executable, "-m", "voxadapt.tools.warm", "wait"]
            subprocess.run(command, env=os.environ | given)
        """
    offering = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=folder)
    found = pids(folder)
    server = parent(found[0])
    offering.kill()
    offering.wait()
    all_end([server, *found])
    assert not Path((folder / "address").read_text()).parent.exists()


# --- notebooks -----------------------------------------------------------------------------------

NOTEBOOK = (
    'params_file = "params.yaml"',
    "import os, pathlib\nimport numpy as np\nprint(os.getcwd() == os.environ['HERE'])",
    "import hashlib, io\nfrom matplotlib.figure import Figure\n"
    "figure, image = Figure(), io.BytesIO()\n"
    "figure.subplots().plot(np.arange(3))\nfigure.savefig(image, format='png')\n"
    "print('image', hashlib.sha256(image.getvalue()).hexdigest())",
    "import pandas as pd\npd.DataFrame({'a': [1, 2]})",
    "pathlib.Path('pids').write_text(f'{os.getpid()} {os.getppid()}\\n')\n"
    "if os.environ.get('DVC_STAGE') == 'wait': __import__('time').sleep(100)\n"
    "if os.environ.get('DVC_STAGE') == 'die': os.kill(os.getpid(), 9)",
)


@pytest.fixture
def notebook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cells = [
        {"cell_type": "code", "id": f"x{i}", "metadata": {"tags": ["parameters"]} if not i else {},
         "execution_count": None, "outputs": [], "source": source}
        for i, source in enumerate(NOTEBOOK)
    ]  # fmt: skip
    (folder / "notebooks").mkdir()
    nb = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "notebooks" / "tiny.ipynb").write_text(json.dumps(nb), encoding="utf-8")
    (folder / "kernels.py").write_text(
        "import importlib\n"
        "def load():\n"
        "    for name in ('papermill', 'nbconvert', 'IPython', 'ipykernel.kernelapp',\n"
        "                 'ipykernel.zmqshell', 'matplotlib.figure', 'pandas'):\n"
        "        importlib.import_module(name)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("HERE", str(folder))
    return folder


def run_tiny(environment: dict[str, str], stage: str = "run") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "voxadapt", "notebook", "run", "tiny"],
        env={**environment, "DVC_STAGE": stage},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(number: int) -> list[int]:
    """List the processes that another one started."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            if parent(int(path.name)) == number:
                found.append(int(path.name))
    return [other for other in found if is_running(other)]


def test_a_notebook_is_the_same_bytes_and_ends_with_its_runner(notebook: Path) -> None:
    html = notebook / "reports" / "notebooks" / "tiny.html"
    with offer("kernels:load") as given:
        warm = os.environ | given
        process = run_tiny(warm)
        assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
        found = html.read_bytes()
        assert b"<table" in found and b"image " in found and b"True" in found
        html.unlink()

        process = run_tiny(warm, "die")
        assert "the kernel died" in process.communicate(timeout=60)[1]
        assert process.returncode == 1
        (notebook / "pids").unlink()

        process = run_tiny(warm, "wait")
        kernel, server = pids(notebook)
        runner = next(number for number in children(server) if number != kernel)
        os.kill(runner, 9)  # a fork too
        assert process.wait(timeout=30) == -9
        all_end([kernel])
        (notebook / "pids").unlink()
        process.communicate()

        process = run_tiny(warm, "wait")
        kernel = pids(notebook)[0]
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
        assert process.returncode == 130
        assert errors.strip().splitlines()[-1].startswith("Stopped. Run the same command again")
        all_end([kernel])
        assert not html.exists()
    process = run_tiny(dict(os.environ))
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    assert html.read_bytes() == found
