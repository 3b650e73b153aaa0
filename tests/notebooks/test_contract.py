"""Notebooks stay thin, normalised, and in step with the pipeline. No kernel is started."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest
import yaml

from voxadapt.tools.notebook import SELECTORS, clean_notebook, declared_parameters

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXPLORING = sorted((ROOT / "notebooks" / "explore").glob("*.ipynb"))
STAGE = re.compile(r"from (voxadapt\.pipeline[.\w]*) import (\w+)\n")
MAX_CODE_CELLS, MAX_LINES = 12, 8
FORBIDDEN = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While,
    ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp, ast.Try,
)  # fmt: skip

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_exploring = pytest.mark.parametrize("path", EXPLORING, ids=lambda path: path.stem)
every_notebook = pytest.mark.parametrize(
    "path", [*NOTEBOOKS, *EXPLORING], ids=lambda path: path.stem
)


def cells(path: Path, kind: str = "code") -> list[str]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 6 and len(EXPLORING) == 3


@every_notebook
def test_committed_in_clean_form(path: Path) -> None:
    """No outputs, counts, foreign metadata: exactly what the cleaner writes."""
    assert path.read_bytes() == clean_notebook(path).encode()


@each_notebook
def test_parameters_cell_declares_selectors_only(path: Path) -> None:
    names = declared_parameters(path)
    assert names
    assert set(names) <= set(SELECTORS)
    assert "params_file" in names


@every_notebook
def test_notebook_calls_and_shows_but_does_not_compute(path: Path) -> None:
    sources = cells(path)
    assert 3 <= len(sources) <= MAX_CODE_CELLS
    for source in sources:
        assert len(source.splitlines()) <= MAX_LINES, source
        assert not re.search(r"^\s*[!%]", source, flags=re.MULTILINE), source
        found = [n for n in ast.walk(ast.parse(source)) if isinstance(n, FORBIDDEN)]
        assert not found, source


@every_notebook
def test_title_cell_says_question_inputs_outputs_and_time(path: Path) -> None:
    title = cells(path, "markdown")[0]
    assert title.startswith("# ")
    assert "?" in title.splitlines()[0] or path.stem.endswith("report")
    for word in ("**Reads**", "**Writes**", "**Takes**"):
        assert word in title


@each_notebook
def test_notebook_reads_parameters_through_the_model_and_runs_one_stage(path: Path) -> None:
    code = "\n".join(cells(path))
    assert code.count("open_project(params_file)") == 1
    assert len(re.findall(r"\b\w+\.run\(params", code)) == 1


@every_notebook
def test_it_ends_with_what_to_try_next(path: Path) -> None:
    last = json.loads(path.read_text(encoding="utf-8"))["cells"][-1]
    assert last["cell_type"] == "markdown"
    assert "".join(last["source"]).startswith("## Next\n\n")
    named = re.findall(r"`(explore/\w+|\d\db?_\w+)`", "".join(last["source"]))
    for name in named:
        assert (ROOT / "notebooks" / f"{name}.ipynb").is_file(), name
    if path in NOTEBOOKS and not path.stem.endswith("_report"):
        assert NOTEBOOKS[NOTEBOOKS.index(path) + 1].stem in named


@each_exploring
def test_an_exploring_notebook_begins_with_what_to_change(path: Path) -> None:
    """Its parameters are the reader's; it opens the project once and runs no stage."""
    sources = cells(path)
    names = declared_parameters(path)
    assert "params_file" in names and [n for n in names if f"{n} =" in sources[0]] == list(names)
    code = "\n".join(sources)
    assert code.count("open_project(params_file)") == 1
    assert not STAGE.search(code)
    for name in names:
        assert len(re.findall(rf"\b{name}\b", code)) >= 2, f"{name} is not used"


@every_notebook
def test_names_used_in_notebooks_exist(path: Path) -> None:
    """A renamed function breaks here, in milliseconds, and not at the end of a training run."""
    from voxadapt.explore import choice, project, sentence, teacher_forcing
    from voxadapt.reporting import figures, players, records, tables
    from voxadapt.reporting import language_page as language

    rooms = {"figures": figures, "players": players, "tables": tables, "records": records}
    rooms |= {"language": language, "choice": choice}
    rooms |= {"sentence": sentence, "teacher_forcing": teacher_forcing, "project": project}
    if found := STAGE.search("\n".join(cells(path))):
        rooms[found[2]] = importlib.import_module(f"{found[1]}.{found[2]}")
    for source in cells(path):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                room = rooms.get(node.value.id)
                assert room is None or hasattr(room, node.attr), f"{node.value.id}.{node.attr}"


def test_every_notebook_is_a_stage_and_every_stage_has_its_notebook() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    used = {
        stage: match[1]
        for stage, content in pipeline.items()
        if (match := re.search(r"notebook run (\S+)", content["cmd"]))
    }
    assert sorted(used.values()) == [path.stem for path in NOTEBOOKS]
    for stage, name in used.items():
        code = "\n".join(cells(ROOT / "notebooks" / f"{name}.ipynb"))
        imported = STAGE.findall(code)
        module = stage.replace("language_", "language.")
        assert [f"{package}.{found}" for package, found in imported] == [
            f"voxadapt.pipeline.{module}"
        ]
        assert re.findall(r"\b(\w+)\.run\(", code) == [module.rpartition(".")[2]]
