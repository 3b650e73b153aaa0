"""What is saved from JupyterLab, what git reads of other editors, without a browser."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from voxadapt.core.errors import UserError
from voxadapt.tools.lab import before_save, open_lab, set_up_filter
from voxadapt.tools.notebook_cleaner import filtered

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "explore" / "why_this_epoch.ipynb"


def executed(path: Path = NOTEBOOK) -> dict[str, Any]:
    """A notebook after a run in an editor: outputs, counts, another kernel, a blank cell."""
    nb = json.loads(path.read_text(encoding="utf-8"))
    for count, cell in enumerate(nb["cells"], 1):
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cell["execution_count"] = count
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "said\n"}]
    nb["cells"].append({"cell_type": "code", "id": "a-b-c", "metadata": {}, "source": "",
                        "execution_count": None, "outputs": []})  # fmt: skip
    nb["metadata"] = {"kernelspec": {"name": "venv", "display_name": "venv", "language": "python"},
                      "language_info": {"name": "python"}}  # fmt: skip
    return nb


@pytest.mark.slow
def test_what_the_server_writes_is_what_git_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server's own code, with the hook as `voxadapt lab` names it."""
    from jupyter_server.services.contents.largefilemanager import LargeFileManager

    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    (tmp_path / "notebooks" / "explore").mkdir(parents=True)
    manager = LargeFileManager(root_dir=str(tmp_path))
    manager.register_pre_save_hook("voxadapt.tools.lab.before_save")
    for path in ("notebooks/explore/why_this_epoch.ipynb", "notebooks/03_train_speaker.ipynb"):
        content = executed(ROOT / path)
        manager.save({"type": "notebook", "format": "json", "content": content}, path)
        assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes()
    # A notebook elsewhere is the reader's own.
    manager.save({"type": "notebook", "format": "json", "content": executed()}, "mine.ipynb")
    assert "said" in (tmp_path / "mine.ipynb").read_text(encoding="utf-8")


def test_only_notebooks_of_the_project_are_changed() -> None:
    for model, path in (
        ({"type": "file", "content": "text"}, "notebooks/notes.txt"),
        ({"type": "notebook", "content": executed()}, "other/why.ipynb"),
        ({"type": "notebook", "content": {"nbformat": 3, "worksheets": []}}, "notebooks/a.ipynb"),
        ({"type": "directory"}, "notebooks/more"),
    ):
        before = copy.deepcopy(model)
        before_save(model=model, path=path, contents_manager=None)
        assert model == before


@pytest.mark.parametrize("given", [b"", b"{", b"[]", b'{"cells": 3}', b"version https://git-lfs"])
def test_the_filter_loses_nothing_that_is_no_notebook(given: bytes) -> None:
    assert filtered(given) == given


def test_the_filter_starts_at_once() -> None:
    """Git and DVC start it for every notebook that they look into."""
    code = (
        "import sys, voxadapt.tools.notebook_cleaner\n"
        "print(sorted(m for m in sys.modules if m in %r))"
    )
    heavy = ("numpy", "pydantic", "torch", "typer", "yaml")
    done = subprocess.run([sys.executable, "-c", code % (heavy,)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True,
                          timeout=60)  # fmt: skip
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_git_reads_a_notebook_that_another_editor_saved_without_its_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@b", "-c", "core.autocrlf=false")
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True,
                              text=True, timeout=60, check=True)  # fmt: skip
        return done.stdout

    assert "in no git repository" in set_up_filter(tmp_path)
    place = tmp_path / "notebooks" / "explore" / NOTEBOOK.name
    place.parent.mkdir(parents=True)
    place.write_bytes(NOTEBOOK.read_bytes())
    (tmp_path / ".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "A notebook")
    place.write_text(json.dumps(executed(), indent=4), encoding="utf-8")
    assert git("status", "--porcelain") != ""
    for _ in range(2):
        assert set_up_filter(tmp_path) == "git leaves the outputs of notebooks out of commits."
    assert git("config", "--get-all", "filter.voxadapt-notebook.clean").count("\n") == 1
    assert git("diff") == ""  # `git status` goes by the size until the file is added
    git("add", ".")
    assert git("status", "--porcelain") == ""
    nb = executed()
    nb["cells"][0]["source"] += " Another word."
    place.write_text(json.dumps(nb), encoding="utf-8")
    changed = [line for line in git("diff", "--unified=0").splitlines() if line[0] in "+-"]
    assert len(changed) == 4 and "Another word." in changed[-1]
    # Where the environment is gone, git takes the file as it is.
    clean = git("config", "filter.voxadapt-notebook.clean").replace(sys.executable, "/none/python")
    git("config", "filter.voxadapt-notebook.clean", clean.strip())
    place.write_text(json.dumps(executed()), encoding="utf-8")
    git("add", ".")
    assert "said" in git("show", f":notebooks/explore/{NOTEBOOK.name}")


def test_without_git_nothing_is_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "No git here" in set_up_filter(tmp_path)


def test_outside_of_a_project_the_lab_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="voxadapt new"):
        open_lab()


@pytest.mark.slow
def test_the_lab_asks_for_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the server reads, and the schema whose question it answers."""
    from jupyterlab.labapp import LabApp
    from jupyterlab_server import settings_utils

    started: list[list[str]] = []
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path))
    monkeypatch.setattr(LabApp, "launch_instance", lambda argv: started.append(argv))
    open_lab(["--no-browser"])
    assert "--LabApp.news_url=None" in started[0] and "--no-browser" in started[0]
    assert os.environ["JUPYTER_CONFIG_PATH"].endswith(f"{os.pathsep}{tmp_path}")
    overrides, error = settings_utils._get_overrides(str(tmp_path))
    plugin = "@jupyterlab/apputils-extension"
    assert not error and overrides[f"{plugin}:notification"]["fetchNews"] == "false"
    schema = Path(sys.prefix, "share/jupyter/lab/schemas", plugin, "notification.json")
    if schema.is_file():
        asked = json.loads(schema.read_text(encoding="utf-8"))["properties"]["fetchNews"]
        assert asked["default"] == "none" and '"false"' in json.dumps(asked)


@pytest.mark.skipif(os.name == "nt", reason="make")
def test_make_lab_opens_it_and_make_setup_tells_git() -> None:
    command = ["make", "--no-print-directory", "--dry-run", "lab", "VENV=/nowhere/venv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().endswith("voxadapt lab")
    assert "voxadapt notebook filter" in done.stdout
