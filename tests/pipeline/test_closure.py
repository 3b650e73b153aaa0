"""The code that a stage depends on in dvc.yaml is the code that it imports, and nothing else."""

from __future__ import annotations

import ast

import pytest

from closure import NOTEBOOKS, SOURCE, STAGES, closure, imports_of, stage_modules, units

each_stage = pytest.mark.parametrize("name", NOTEBOOKS)


def declared(name: str) -> set[str]:
    return {path for path in STAGES[name]["deps"] if path.startswith("src/")}


def real(name: str) -> set[str]:
    modules = stage_modules(NOTEBOOKS[name])
    assert len(modules) == 1, f"{NOTEBOOKS[name]} calls one stage, not {sorted(modules)}"
    return units(closure(*modules))


@each_stage
def test_a_stage_declares_the_code_that_it_imports(name: str) -> None:
    missing = real(name) - declared(name)
    assert not missing, f"{name} imports {sorted(missing)}; add them to its deps in dvc.yaml"


@each_stage
def test_a_stage_declares_no_code_that_it_does_not_import(name: str) -> None:
    surplus = declared(name) - real(name)
    assert not surplus, f"{name} does not import {sorted(surplus)}; drop them from its deps"


#: Recordings of a language are audited and encoded by what does so for a speaker's.
BUILT_OF = {"language_data": {"voxadapt.pipeline.audit", "voxadapt.pipeline.codes"}}


def test_one_stage_does_not_import_another() -> None:
    """A stage that calls another one is stale for it: each such pair is listed."""
    own = {name: stage_modules(notebook) for name, notebook in NOTEBOOKS.items()}
    for name, modules in own.items():
        others = {m for other, found in own.items() if found != modules for m in found}
        assert closure(*modules) & others == BUILT_OF.get(name, set()), name


def test_what_belongs_to_no_unit_holds_nothing() -> None:
    package = SOURCE / "voxadapt"
    for path in (package / "__init__.py", *(package / "pipeline").rglob("__init__.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        kinds = {type(node) for node in body}
        assert kinds <= {ast.Expr, ast.Assign}, f"{path} holds code that no stage declares"


def test_an_import_inside_a_function_counts() -> None:
    assert "voxadapt.training.trainer" in imports_of("voxadapt.pipeline.train")


TRAINING = {"train", "language_stage1", "language_stage2"}
SCORING = {"score", "language_score", "language_stage2_score"}


@pytest.mark.parametrize(
    ("folder", "kept"),
    [
        ("reporting", set(NOTEBOOKS) - {"report", "language_report"}),
        ("listening", set(NOTEBOOKS) - {"report"}),
        ("selection",
         {"audit", "codes", "language_data", "language_readings"} | TRAINING | SCORING),
        ("generation",
         {"audit", "codes", "select", "language_data", "language_decide"} | TRAINING),
        ("training", {"audit", "codes", "select", "confirm", "language_data", "language_readings",
                      "language_decide", "language_confirm"} | SCORING),
        ("scoring", {"audit", "language_readings"} | TRAINING),
        ("codec", {"audit", "score", "select", "confirm"}),
    ],
)  # fmt: skip
def test_an_edit_runs_no_more_than_it_must(folder: str, kept: set[str]) -> None:
    """Both what dvc.yaml declares and what is imported: whoever adds an edge sees its price."""
    for name in kept:
        assert f"src/voxadapt/{folder}" not in declared(name) | real(name), name
