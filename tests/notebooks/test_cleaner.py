"""Saving, running or opening a notebook leaves its cleaned copy as it was."""

import copy
import json
import uuid
from pathlib import Path

import pytest

from voxadapt.core.errors import UserError
from voxadapt.tools.notebook import clean_all, clean_notebook, declared_parameters

NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title\n", "text"]},
        {
            "cell_type": "code", "id": "b", "metadata": {"tags": ["parameters"]},
            "execution_count": None, "outputs": [], "source": ['params_file = "params.yaml"'],
        },
        {
            "cell_type": "code", "id": "c", "metadata": {}, "execution_count": None,
            "outputs": [], "source": ["print('größer')\n", "1 + 1"],
        },
    ],
    "metadata": {"kernelspec": {"name": "python3", "language": "python", "display_name": "P"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}  # fmt: skip


def write(path: Path, nb: dict, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(nb, **options), encoding="utf-8")  # type: ignore[arg-type]
    return path


def resaved(nb: dict) -> dict:
    """Run and save as JupyterLab does, in a kernel of another name, with a blank cell added."""
    nb = copy.deepcopy(nb)
    for count, cell in enumerate(nb["cells"], 1):
        cell["id"] = uuid.uuid4().hex[:8]
        cell["source"] = "".join(cell["source"])
        cell["metadata"] |= {"collapsed": False, "lines_to_next_cell": 2}
        if cell["cell_type"] == "code":
            cell["metadata"] |= {"execution": {"iopub.execute_input": "2026-01-01T00:00:00Z"}}
            cell["execution_count"] = count
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "2\n"}]
    nb["cells"].append(
        {"cell_type": "code", "id": "zz", "metadata": {}, "execution_count": None,
         "outputs": [], "source": "\n"}
    )  # fmt: skip
    nb["metadata"] = {
        "kernelspec": {"display_name": "venv (3.13)", "language": "python", "name": "venv"},
        "language_info": {"name": "python", "version": "3.13.1"},
        "widgets": {},
    }
    nb["nbformat_minor"] = 4
    return nb


def test_resaving_changes_nothing(tmp_path: Path) -> None:
    before = clean_notebook(write(tmp_path / "a.ipynb", NOTEBOOK))
    after = clean_notebook(write(tmp_path / "b.ipynb", resaved(NOTEBOOK), indent=4, sort_keys=True))
    assert before == after


@pytest.mark.slow
def test_cleaning_is_idempotent_and_valid(tmp_path: Path) -> None:
    import nbformat

    text = clean_notebook(write(tmp_path / "a.ipynb", resaved(NOTEBOOK)))
    (tmp_path / "b.ipynb").write_text(text, encoding="utf-8")
    assert clean_notebook(tmp_path / "b.ipynb") == text
    nbformat.validate(json.loads(text))
    assert json.loads(text)["cells"][1]["metadata"] == {"tags": ["parameters"]}
    assert "größer" in text


def test_a_changed_source_changes_the_copy(tmp_path: Path) -> None:
    nb = copy.deepcopy(NOTEBOOK)
    nb["cells"][2]["source"][1] = "1 + 2"
    changed = clean_notebook(write(tmp_path / "b.ipynb", nb))
    assert changed != clean_notebook(write(tmp_path / "a.ipynb", NOTEBOOK))


def test_clean_all_leaves_unchanged_copies_alone_and_removes_stale_ones(tmp_path: Path) -> None:
    source, target = tmp_path / "notebooks", tmp_path / "artifacts" / "notebooks"
    write(source / "a.ipynb", NOTEBOOK)
    write(source / "b.ipynb", NOTEBOOK)
    assert [path.name for path in clean_all(source, target)] == ["a.ipynb", "b.ipynb"]
    stamp = (target / "a.ipynb").stat().st_mtime_ns
    write(source / "a.ipynb", resaved(NOTEBOOK))
    (source / "b.ipynb").unlink()
    clean_all(source, target)
    assert (target / "a.ipynb").stat().st_mtime_ns == stamp
    assert [path.name for path in target.iterdir()] == ["a.ipynb"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"cells": 3}'])
def test_what_is_no_notebook_is_a_user_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="expected a notebook"):
        clean_notebook(path)


def test_there_is_exactly_one_parameters_cell(tmp_path: Path) -> None:
    nb = copy.deepcopy(NOTEBOOK)
    assert declared_parameters(write(tmp_path / "a.ipynb", nb)) == ("params_file",)
    nb["cells"][2]["metadata"] = {"tags": ["parameters"]}
    with pytest.raises(UserError, match="found 2 of them"):
        declared_parameters(write(tmp_path / "a.ipynb", nb))
    nb["cells"] = nb["cells"][:1]
    with pytest.raises(UserError, match="found 0 of them"):
        declared_parameters(write(tmp_path / "a.ipynb", nb))


def test_notebooks_can_be_cleaned_where_they_are(tmp_path):
    path = write(tmp_path / "a.ipynb", resaved(NOTEBOOK))
    expected = clean_notebook(path)
    for _ in range(2):
        assert clean_all(tmp_path, tmp_path) == [tmp_path / "a.ipynb"]
        assert (tmp_path / "a.ipynb").read_text(encoding="utf-8") == expected
