"""`voxadapt repro` on small DVC projects: order, records, failures, and how it is stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from voxadapt.core.errors import UserError
from voxadapt.tools.dvc_state import read_pipeline
from voxadapt.tools.repro import Outcome, chains, repro, run_all, with_dependents
from voxadapt.tools.warm import ADDRESS

PROJECT = Path(__file__).parents[2]
PIPELINE = """
    stages:
      first:
        cmd: python step.py first first.txt source.txt
        deps: [source.txt, step.py]
        outs: [first.txt]
      alone:
        cmd: python step.py alone alone.txt step.py
        deps: [step.py]
        outs: [alone.txt]
      train:
        cmd: python step.py train epochs.txt first.txt
        deps: [first.txt, step.py]
        outs: [epochs.txt]
      score:
        matrix:
          epoch: [1, 2, 3]
        cmd: python step.py score-${item.epoch} scores/${item.epoch}.txt epochs.txt
        deps: [epochs.txt, step.py]
        outs:
          - scores/${item.epoch}.txt
      select:
        cmd: python step.py select chosen.txt scores
        deps: [scores, step.py]
        params: [rule]
        outs: [chosen.txt]
    """
STEP = """
    import pathlib, sys, time
    name, target, source = sys.argv[1:]
    def tell(event):
        with open("log.txt", "a") as log:
            log.write(f"{event} {name}\\n")
    tell("begin")
    if pathlib.Path(f"{name}.fails").exists():
        print("it does not work", file=sys.stderr)
        sys.exit(3)
    wait = pathlib.Path(f"{name}.waits")
    if wait.exists():
        wait.write_text("now")
        time.sleep(100)
    least = pathlib.Path("at_once")
    while name.startswith("score") and least.exists():
        if open("log.txt").read().count("begin score") >= int(least.read_text()):
            break
        time.sleep(0.05)
    source = pathlib.Path(source)
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    target = pathlib.Path(target)
    target.parent.mkdir(exist_ok=True)
    target.write_text(name + "".join(path.read_text() for path in files))
    tell("end")
    """
READY = """
    import importlib
    def load():
        for name in ("dvc.cli", "dvc.commands.repro", "dvc.repo.reproduce", "dvc.stage.run"):
            importlib.import_module(name)
    """
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="warm starts are for Linux")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project in which nothing has run."""
    folder = tmp_path_factory.mktemp("made")
    for name, text in (("dvc.yaml", PIPELINE), ("step.py", STEP), ("ready.py", READY)):
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    (folder / "source.txt").write_text("words\n", encoding="utf-8")
    (folder / "params.yaml").write_text("rule: 1\n", encoding="utf-8")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet", "--no-scm"], cwd=folder, check=True)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", f"{PROJECT / 'src'}{os.pathsep}{folder}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.delenv(ADDRESS, raising=False)
    return folder


def run(*targets: str, jobs: int = 3) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    return repro(targets, jobs, preparation="ready:load", show=lines.append), lines


def log(folder: Path) -> list[str]:
    return (folder / "log.txt").read_text(encoding="utf-8").splitlines()


def recorded(folder: Path) -> dict[str, object]:
    return yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]


SCORES = {f"score@{number}" for number in range(1, 4)}
ALL = {"first", "alone", "train", "select", *SCORES}


def test_the_longest_chain_goes_first() -> None:
    needs = {"a": set(), "b": {"a"}, "c": {"b"}, "d": set(), "e": {"d", "b"}, "f": {"e"}}
    assert chains(needs) == {"a": 4, "b": 3, "c": 1, "d": 3, "e": 2, "f": 1}
    assert with_dependents(needs, {"d"}) == {"d", "e", "f"}
    assert with_dependents(needs, ()) == set()

    def start(_: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE, text=True)

    needs = {"alone": set(), "first": set(), "second": {"first"}}
    assert run_all(needs, 1, start, print).done == ("first", "alone", "second")


def test_all_that_changed_runs_in_order_side_by_side_and_is_recorded(project: Path) -> None:
    (project / "at_once").write_text("3", encoding="utf-8")
    outcome, lines = run()
    assert (set(outcome.done), outcome.failed, outcome.left) == (ALL, (), ())
    order = {line: number for number, line in enumerate(log(project))}
    for later, earlier in (("train", "first"), ("score-2", "train"), ("select", "score-3")):
        assert order[f"begin {later}"] > order[f"end {earlier}"]
    at_once = most = 0
    for line in log(project):
        at_once += 1 if line.startswith("begin") else -1
        most = max(most, at_once)
    assert most == 3  # as many as were allowed
    assert set(recorded(project)) == ALL
    assert (project / "chosen.txt").read_text().count("words") == 3
    assert "[score@2] Running stage 'score@2':" in lines
    assert not [line for line in lines if "git add" in line or "dvc push" in line]

    alone = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], capture_output=True, text=True, check=True
    )
    assert alone.stdout.count("didn't change, skipping") == len(ALL)
    outcome, lines = run()
    assert (outcome.done, lines) == ((), ["All stages are up to date."])

    (project / "params.yaml").write_text("rule: 2\n", encoding="utf-8")
    before = len(log(project))
    assert run()[0].done == ("select",)
    assert log(project)[before:] == ["begin select", "end select"]


def test_one_stage_that_fails_lets_others_end_and_begins_none(project: Path) -> None:
    (project / "score-2.fails").touch()
    outcome, lines = run(jobs=2)
    assert outcome.failed == ("score@2",)
    assert "select" in outcome.left
    assert set(recorded(project)) == set(outcome.done)  # also of what ran beside it
    assert {"first", "train"} <= set(outcome.done)
    assert "[score@2] it does not work" in lines
    assert any(line.startswith("Failed: score@2;") for line in lines)
    assert any(line.startswith("Not begun: ") and "select" in line for line in lines)

    (project / "score-2.fails").unlink()
    missing = ALL - set(recorded(project))
    assert set(run(jobs=2)[0].done) == missing
    assert set(recorded(project)) == ALL


def test_targets_bring_what_they_need(project: Path) -> None:
    found = read_pipeline(["train"])
    assert found.before == {"train": ("first",), "first": ()}
    assert set(found.changed) == {"train", "first"}
    assert set(read_pipeline(["score"]).before) == {*SCORES, "train", "first"}
    with pytest.raises(UserError, match="dvc stage list"):
        read_pipeline(["no-such-stage"])
    with pytest.raises(UserError, match="dvc stage list"):
        read_pipeline(["no-such-file.dvc"])
    (project / "dvc.yaml").write_text("stages: [", encoding="utf-8")
    with pytest.raises(UserError, match="a pipeline that DVC can read"):
        read_pipeline(["train"])


def test_a_frozen_stage_waits_for_nothing(project: Path) -> None:
    pipeline = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))
    pipeline["stages"]["train"]["frozen"] = True
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline), encoding="utf-8")
    assert read_pipeline(["score"]).before["train"] == ()
    assert "first" not in read_pipeline(["score"]).before


def test_without_a_project_the_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="expected a DVC project") as caught:
        repro()
    assert caught.value.title == "The pipeline cannot be run."
    assert "voxadapt new" in caught.value.problems[0].fix


@LINUX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopping_it_stops_every_stage(project: Path, number: signal.Signals) -> None:
    for name in ("train", "alone"):
        (project / f"{name}.waits").touch()
    script = """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background
        from voxadapt.tools.repro import repro
        repro(jobs=2, preparation="ready:load")
        """
    running = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while "" in [(project / f"{name}.waits").read_text() for name in ("train", "alone")]:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = of_project(project)
    assert len(found) >= 6  # of each stage a caller, DVC and the step; and the warm process
    running.send_signal(number)
    running.communicate(timeout=60)
    assert running.returncode == -number  # Python's own end of a KeyboardInterrupt
    while of_project(project):
        assert time.monotonic() < deadline, "a process outlives the run"
        time.sleep(0.05)
    assert set(recorded(project)) == {"first"}

    for name in ("train", "alone"):
        (project / f"{name}.waits").unlink()
    assert not run("train", "alone")[0].failed  # nothing was left locked
    assert set(recorded(project)) == {"first", "train", "alone"}


def of_project(folder: Path) -> list[int]:
    """List the processes that work in a folder, but for this one."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            try:
                if (path / "cwd").resolve(strict=True) == folder.resolve():
                    found.append(int(path.name))
            except OSError:
                continue
    return found
