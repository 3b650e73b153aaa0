"""A stage that is run by its command counts for DVC."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import typer
import yaml

from voxadapt.cli import options as opt
from voxadapt.cli import run as commands
from whole import PROJECT, dvc

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose stages write one line and read the parameters."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(PROJECT / "profiles" / "miniature.yaml", "params.yaml")
    write = "echo ran >> {out} && test $(wc -l < {out}) -lt 3"
    stages = {
        "clean": {"cmd": "true", "always_changed": True},
        **{
            name: {"cmd": write.format(out=name), "params": ["profile"],
                   "outs": [{name: {"persist": True, "cache": False}}]}
            for name in ("codes", "language_data", "train")
        },
        "score": {"matrix": {"candidate": ["base", "epoch-1"]}, "outs": ["${item.candidate}"],
                  "cmd": "echo ran > ${item.candidate}"},
    }  # fmt: skip
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    dvc(tmp_path, "init", "--no-scm", "-q")
    return tmp_path


def test_what_a_command_ran_does_not_run_again(project: Path) -> None:
    commands.codes(opt.PARAMS)
    commands.stage("language.data", "")(opt.PARAMS)
    commands.train(opt.PARAMS)
    commands.score("1", opt.PARAMS)
    written = {path.name for path in project.iterdir()}
    assert written >= {"codes", "language_data", "train", "epoch-1"}
    assert "base" not in written
    for name in ("codes", "language_data", "train", "score@epoch-1"):
        assert "up to date" in dvc(project, "status", name)
    commands.codes(opt.PARAMS)
    assert (project / "codes").read_text() == "ran\n"


def test_a_stage_that_fails_ends_the_command(project: Path) -> None:
    (project / "codes").write_text("ran\nran\n")
    with pytest.raises(typer.Exit) as ended:
        commands.codes(opt.PARAMS)
    assert ended.value.exit_code == 2


def test_other_parameters_and_other_folders_are_none_of_dvcs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not commands.run_by_dvc("codes", Path("other.yaml"))
    with monkeypatch.context() as two:
        two.setattr(commands.launch, "num_processes", lambda: 2)
        assert not commands.run_by_dvc("codes", opt.PARAMS)
    monkeypatch.chdir(project / ".dvc")
    assert not commands.run_by_dvc("codes", opt.PARAMS)
