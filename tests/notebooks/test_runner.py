"""The papermill runner on tiny notebooks; each test starts one kernel or two."""

import json
import re
import sys
from pathlib import Path

import pytest

from voxadapt.core.errors import UserError
from voxadapt.tools.notebook import NotebookError, open_project, run_notebook

ROOT = Path(__file__).parents[2]


def write_notebook(folder: Path, *sources: str) -> None:
    """Write `tiny.ipynb`: a parameters cell, then the sources."""
    parameters = 'params_file = "absent.yaml"\ncandidate = "base"'
    cells = [
        {"cell_type": "code", "id": f"x{i}", "metadata": {"tags": ["parameters"]} if not i else {},
         "execution_count": None, "outputs": [], "source": source}
        for i, source in enumerate((parameters, *sources))
    ]  # fmt: skip
    nb = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    folder.mkdir()
    (folder / "tiny.ipynb").write_text(json.dumps(nb), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with a parameter file, and no kernel registered anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORK_DIR", str(tmp_path / ".work"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_a_run_gives_the_same_page_twice(project: Path, capfd: pytest.CaptureFixture) -> None:
    write_notebook(
        project / "notebooks",
        "import os, sys\n"
        "from voxadapt.tools.notebook import open_project\n"
        "from voxadapt.reporting import figures\n"
        "params = open_project(params_file)",
        "print('progress', os.getpid(), file=sys.stderr)\n"
        "print(candidate, params.profile, sys.executable, os.getcwd())",
        "figures.losses([])",
    )
    selectors = {"params_file": "params.yaml", "candidate": "epoch-2"}
    pages = [run_notebook("tiny", selectors, project / f"{n}" / "tiny.html") for n in "ab"]
    html = pages[0].read_text(encoding="utf-8")
    assert html == pages[1].read_text(encoding="utf-8")
    assert f"epoch-2 miniature {sys.executable} {project}" in html
    assert "data:image/png;base64," in html
    assert "progress" not in re.sub(r"(?s)<details.*?</details>", "", html)
    assert "progress" in capfd.readouterr().err
    assert not re.search(r"(src|href|import|url)\W{0,3}https?://", html)
    assert "<script" not in html
    assert html.count("<details") == 5  # each code cell is folded, the injected one included


@pytest.mark.slow
def test_a_user_error_comes_out_as_the_same_problems(project: Path) -> None:
    write_notebook(
        project / "notebooks",
        "from voxadapt.tools.notebook import open_project\nparams = open_project(params_file)",
    )
    text = (project / "params.yaml").read_text(encoding="utf-8")
    broken = text.replace("batch_size: 8", "batch_size: none\n  batsch: 1", 1)
    (project / "broken.yaml").write_text(broken, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        run_notebook("tiny", {"params_file": "broken.yaml"}, project / "tiny.html")
    assert caught.value.title == "broken.yaml cannot be used."
    where = {problem.where for problem in caught.value.problems}
    assert where == {"broken.yaml: train.batch_size", "broken.yaml: train.batsch"}
    assert not (project / "tiny.html").exists()
    kept = (project / ".work" / "notebooks" / "tiny.html").read_text(encoding="utf-8")
    assert "broken.yaml: train.batsch" in kept
    assert "Traceback" not in kept


def test_another_failure_names_the_executed_copy(project: Path) -> None:
    write_notebook(project / "notebooks", "print('before')", "1 / 0", "print('after')")
    with pytest.raises(NotebookError, match=r"ZeroDivisionError: division by zero") as caught:
        run_notebook("tiny", {}, project / "tiny.html")
    executed = project / ".work" / "notebooks" / "tiny.ipynb"
    assert str(executed) in str(caught.value)
    assert "before" in executed.read_text(encoding="utf-8")
    assert not (project / "tiny.html").exists()


def test_a_notebook_opened_in_its_own_folder_enters_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "notebooks").mkdir()
    monkeypatch.chdir(project / "notebooks")
    assert open_project("params.yaml").profile == "miniature"
    assert Path.cwd() == project


@pytest.mark.parametrize(
    ("name", "selectors", "message"),
    [
        ("tinny", {}, "one of: tiny"),
        ("tiny", {"lr": 1.0}, "undeclared selector"),
        ("tiny", {"candidates": "base"}, "candidate"),
    ],
)
def test_wrong_calls_are_user_errors(
    project: Path, name: str, selectors: dict, message: str
) -> None:
    write_notebook(project / "notebooks", "1")
    with pytest.raises(UserError, match=message):
        run_notebook(name, selectors, project / "tiny.html")
