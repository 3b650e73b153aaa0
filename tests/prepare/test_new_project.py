"""`voxadapt new` from a checkout; test_wheel.py has the installed one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from voxadapt.core.errors import UserError
from voxadapt.core.params import load_params
from voxadapt.prepare import new_project as starting
from voxadapt.prepare.new_project import installed_stages, new_project

PROJECT = Path(__file__).parents[2]


def test_a_project_holds_what_a_run_needs(tmp_path: Path) -> None:
    said = new_project(tmp_path / "voice", "qwen3-tts-0.6b")
    folder = tmp_path / "voice"
    assert "voxadapt doctor" in said and (folder / ".git").is_dir()
    params = load_params(folder / "params.yaml")
    assert params.profile == "qwen3-tts-0.6b" and params.data.other_voices is None
    assert (folder / "params.yaml").read_bytes() in [
        path.read_bytes() for path in (folder / "profiles").glob("*.yaml")
    ]  # `voxadapt use` takes it for unedited
    notebooks = {path.name for path in (PROJECT / "notebooks").glob("*.ipynb")}
    assert {path.name for path in (folder / "notebooks").glob("*.ipynb")} == notebooks
    assert len(list((folder / "notebooks" / "explore").iterdir())) == 3
    assert "voxadapt-notebook" in (folder / ".gitattributes").read_text(encoding="utf-8")
    stages = (folder / "dvc.yaml").read_text(encoding="utf-8")
    for notebook in re.findall(r"notebook run (\w+)", stages):
        assert f"{notebook}.ipynb" in notebooks
    assert not (folder / "profiles" / "miniature.yaml").exists()
    assert (folder / "profiles" / "accelerate" / "eight_gpus.yaml").is_file()  # docs/scale.md
    ignored = (folder / ".gitignore").read_text().splitlines()
    assert {"/data", "/.dvcstore/", "/artifacts/"} <= set(ignored)
    assert "no_scm" not in (folder / ".dvc" / "config").read_text()
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# voice\n") and '{"audio": "clips/utt0001.wav"' in readme


def test_inside_a_repository_no_second_one_is_made(tmp_path: Path) -> None:
    new_project(tmp_path / "outer", "qwen3-tts-0.6b")
    new_project(tmp_path / "outer" / "inner", "qwen3-tts-1.7b")
    assert not (tmp_path / "outer" / "inner" / ".git").exists()


def test_without_git_dvc_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "without git" in new_project(tmp_path / "voice", "qwen3-tts-1.7b")
    config = (tmp_path / "voice" / ".dvc" / "config").read_text()
    assert config.startswith("[core]\n    no_scm = true\n") and "remote = embedded" in config


def test_nothing_is_overwritten_and_all_problems_are_shown_together(tmp_path: Path) -> None:
    (tmp_path / "voice").mkdir()
    (tmp_path / "voice" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError) as caught:
        new_project(tmp_path / "voice", "miniature")
    assert [problem.where for problem in caught.value.problems] == [
        str(tmp_path / "voice"), "--profile",
    ]  # fmt: skip
    assert "qwen3-tts-1.7b" in str(caught.value)
    with pytest.raises(UserError, match="new or empty folder"):
        new_project(tmp_path / "file", "qwen3-tts-1.7b")
    assert [path.name for path in (tmp_path / "voice").iterdir()] == ["notes.txt"]


def test_stages_depend_on_the_version_instead_of_modules() -> None:
    text = "# header\nstages:\n  a:\n    deps:\n      - data/models\n      - src/voxadapt/data\n"
    text += "      - src/voxadapt/model\n    params:\n      - src\n\n  b:\n    deps:\n"
    text += "      - src/voxadapt/data\n"
    stages = yaml.safe_load(installed_stages(text))["stages"]
    assert stages["a"] == {"deps": ["requirements.txt"], "params": ["src"]}
    assert stages["b"] == {"deps": ["requirements.txt"]}


def test_an_unfilled_package_is_a_programming_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "PACKAGE", tmp_path / "site-packages" / "voxadapt")
    with pytest.raises(AssertionError, match="not filled"):
        starting.source_folder()
