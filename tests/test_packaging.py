"""What holds the project together: import rules, pins, commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def pins(name: str) -> dict[str, str]:
    """Pinned versions by canonical package name."""
    lines = (PROJECT / name).read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        if line and not line.startswith(("#", "-c ")):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!-]+)", line)
            assert match, f"{name}: {line!r} is no exact pin without a build tag"
            found[canonicalize_name(match[1])] = match[2]
    return found


def requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    return [Requirement(r) for r in project["dependencies"] + extras["dev"] + extras["ray"]]


def test_imports_keep_to_the_rooms() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as f; f()"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "2 kept, 0 broken" in done.stdout


def test_pins_agree_with_the_requirements() -> None:
    pinned = pins("constraints.txt")
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{requirement} is not pinned"
        assert requirement.specifier.contains(pinned[name]), f"{requirement}: {pinned[name]}"
    for name, version in (("torch", "2.13.0"), ("transformers", "4.57.3")):
        assert pinned[name] == version
    assert Version(pinned["setuptools"]) < Version("81"), "webrtcvad needs pkg_resources"


@pytest.mark.slow
def test_pins_are_complete() -> None:
    """Every package that the requirements pull in here, at any depth, is pinned."""
    pinned = pins("constraints.txt")
    missing, seen = set(), set()
    queue = requirements()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in seen:
            continue
        seen.add(name)
        try:
            installed = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            continue  # another platform's package, or an extra that nobody asked for
        if name not in pinned:
            missing.add(name)
        for text in installed.requires or []:
            further = Requirement(text)
            extras = requirement.extras or {""}
            if further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in extras
            ):
                queue.append(further)
    assert missing == set()
    assert len(seen) > 150, "the graph was walked"


def test_gpu_pins_only_add() -> None:
    assert "-c constraints.txt" in (PROJECT / "constraints-gpu.txt").read_text().splitlines()
    gpu, cpu = pins("constraints-gpu.txt"), pins("constraints.txt")
    assert not set(gpu) & set(cpu)
    for text in PYPROJECT["project"]["optional-dependencies"]["gpu"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(gpu[canonicalize_name(requirement.name)])


@pytest.mark.skipif(os.name == "nt", reason="make and bash")
def test_commands_exist() -> None:
    for target in ("repro", "test", "test-ray", "lab", "clean", "setup"):
        done = subprocess.run(
            ["make", "--dry-run", target],
            cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    script = PROJECT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert {"make test", "make test-ray"} <= set(re.findall(r"make [\w-]+", script.read_text()))
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="make")
def test_an_old_python_is_refused_with_a_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\ncase "$1" in -V) echo Python 3.8.10;; *) exit 1;; esac\n')
    old.chmod(0o755)
    for python, message in ((old, "Python 3.8.10"), ("no-such-python", "No no-such-python found")):
        done = subprocess.run(
            ["make", "setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
            cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert message in done.stdout
        assert "3.11" in done.stdout
        assert not (tmp_path / "venv").exists()


@pytest.mark.skipif(os.name == "nt", reason="make")
def test_make_help_names_every_target() -> None:
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert targets
    command = ["make", "--no-print-directory", "help"]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    named = {words[1] for words in map(str.split, said.splitlines()) if words[:1] == ["make"]}
    assert named == set(targets[1].split()) - {"help", "data"}


@pytest.mark.slow
def test_tests_of_plain_data_wait_for_no_torch() -> None:
    code = """
import sys, pytest
ended = pytest.main(["--collect-only", "-qq", "tests/data", "tests/listening", "tests/notebooks"])
sys.exit(ended or "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
