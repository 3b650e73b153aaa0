"""The command line: help, profiles, and user errors as one table with exit code 2."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from voxadapt.cli.app import COMMANDS, app

PROJECT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "voxadapt", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(PROJECT / "profiles", tmp_path / "profiles")
    shutil.copy(PROJECT / "profiles" / "miniature.yaml", tmp_path / "params.yaml")
    return tmp_path


def test_help_lists_every_stage(project: Path) -> None:
    done = run(project, "--help")
    assert done.returncode == 0
    for verb in "audit codes train score select confirm report say use doctor".split():
        assert verb in done.stdout


def test_help_has_five_groups_and_one_line_a_command() -> None:
    lines = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["--help"]).output.splitlines()
    groups = [line.split()[1] for line in lines if line.startswith("╭")]
    assert groups == ["Options", "Start", "Run", "Look", "Share", "Advanced"]
    names = [line.split()[1] for line in lines if re.match(r"│ \w", line)]
    known = [name for commands in COMMANDS.values() for name in commands]
    assert sorted(names) == sorted([*known, "language", "notebook"])
    assert not any(line.startswith("│  ") for line in lines), "no command needs two lines"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["trian"], "voxadapt train"),
        (["langauge"], "voxadapt language"),
        (["language", "decied"], "voxadapt language decide"),
        (["language", "audit"], "voxadapt audit"),
        (["stage2"], "voxadapt language stage2"),
        (["notebook", "claen"], "voxadapt notebook clean"),
    ],
)
def test_a_typo_names_what_was_meant(typed: list[str], meant: str) -> None:
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 2
    assert f"Did you mean `{meant}`" in " ".join(result.output.replace("│", "").split())


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = "torch pandas numpy transformers pydantic whisper dvc matplotlib".split()
    code = f"import sys, voxadapt.cli; sys.exit(' '.join(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_version(project: Path) -> None:
    done = run(project, "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("voxadapt ")


def test_wrong_params_are_one_table_without_a_traceback(project: Path) -> None:
    path = project / "params.yaml"
    text = path.read_text().replace("takes: 3", "takez: 3")
    text = re.sub(r"  lr: \S+", "  lr: fast", text, count=1)
    path.write_text(text.replace("batch_size: 8", "batch_size: -8", 1))
    done = run(project, "audit")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for name in ("score.takez", "train.lr", "train.batch_size", "3 problems"):
        assert name in done.stderr


@pytest.mark.parametrize("arguments", [("train", "--batch-size", "0"), ("score",), ("nosuch",)])
def test_wrong_options_exit_with_2(project: Path, arguments: tuple[str, ...]) -> None:
    done = run(project, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_option_outside_its_range_names_the_option(project: Path) -> None:
    done = run(project, "train", "--dtype", "int8")
    assert done.returncode == 2
    assert "--compute-dtype" in done.stderr or "--dtype" in done.stderr
    assert "Traceback" not in done.stderr


def test_use_writes_a_profile_and_keeps_edited_params(project: Path) -> None:
    done = run(project, "use", "qwen3-tts-0.6b")
    assert done.returncode == 0, done.stderr
    params = project / "params.yaml"
    assert params.read_bytes() == (project / "profiles" / "qwen3-tts-0.6b.yaml").read_bytes()
    params.write_text(params.read_text() + "# mine\n")
    refused = run(project, "use", "miniature")
    assert refused.returncode == 2
    assert "# mine" in params.read_text()
    assert run(project, "use", "miniature", "--force").returncode == 0
    assert "# mine" not in params.read_text()


def test_unknown_profile_lists_the_known_ones(project: Path) -> None:
    done = run(project, "use", "nosuch")
    assert done.returncode == 2
    assert "miniature" in done.stderr
