"""dvc.yaml, params.yaml, paths.py and the notebooks say the same."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from voxadapt.core import paths
from voxadapt.core.params import Params, load_params
from voxadapt.core.strict_yaml import read_yaml
from voxadapt.tools.notebook import CLEANED, NOTEBOOKS
from whole import dvc

ROOT = Path(__file__).parents[2]
PIPELINE = yaml.load((ROOT / "dvc.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]
KINDS = ("outs", "metrics", "plots")

each_stage = pytest.mark.parametrize("name", list(STAGES))


def outputs(stage: dict[str, Any], *kinds: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in kinds or KINDS:
        for entry in stage.get(kind, []):
            yield (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))


def all_outputs(*kinds: str) -> set[str]:
    return {path for stage in STAGES.values() for path, _ in outputs(stage, *kinds)}


@each_stage
def test_stage_says_what_it_does(name: str) -> None:
    assert STAGES[name]["desc"].endswith(".")
    assert STAGES[name]["cmd"].startswith("python -m voxadapt notebook ")


@each_stage
def test_nothing_persists_and_nothing_always_runs(name: str) -> None:
    assert not {"always_changed", "frozen"} & set(STAGES[name])
    for path, options in outputs(STAGES[name]):
        assert "persist" not in options, path


@each_stage
def test_no_output_lies_in_the_data_folder(name: str) -> None:
    for path, _ in outputs(STAGES[name]):
        assert PurePosixPath(path).parts[0] in ("artifacts", "reports"), path


@each_stage
def test_only_metrics_and_plots_stay_out_of_the_cache(name: str) -> None:
    """A plain output without cache is never found in the run cache."""
    for path, options in outputs(STAGES[name], "outs"):
        assert options.get("cache", True), path
    for path, options in outputs(STAGES[name], "metrics", "plots"):
        assert options.get("cache") is False, path


@each_stage
def test_parameters_exist(name: str) -> None:
    tree = read_yaml(ROOT / "params.yaml")
    assert isinstance(tree, dict)
    for key in STAGES[name].get("params", []):
        if isinstance(key, dict):  # values of a file that an earlier stage writes
            assert set(key) <= all_outputs("outs")
            continue
        value = tree
        for part in key.split("."):
            assert part in value, key
            value = value[part]


@each_stage
def test_stage_depends_on_its_cleaned_notebook(name: str) -> None:
    match = re.search(r"notebook run (\S+)", STAGES[name]["cmd"])
    if match is None:
        assert name == "clean"
        return
    assert (CLEANED / f"{match[1]}.ipynb").as_posix() in STAGES[name]["deps"]
    assert (ROOT / NOTEBOOKS / f"{match[1]}.ipynb").is_file()
    suffix = "_${item.candidate}" if "matrix" in STAGES[name] else ""
    assert f"{paths.NOTEBOOK_HTML.as_posix()}/{match[1]}{suffix}.html" in all_outputs("outs")


@each_stage
def test_dependencies_in_the_source_tree_exist(name: str) -> None:
    for path in STAGES[name]["deps"]:
        if path.startswith(("src/", "notebooks")):
            assert (ROOT / path).exists(), path


def test_every_path_of_the_package_is_an_output_and_the_other_way_round() -> None:
    declared = all_outputs() - {CLEANED.as_posix()}
    declared = {path.replace("${item.candidate}", "*") for path in declared}
    # The two folders, and what `voxadapt compare` writes, which no stage does.
    outside = ("ARTIFACTS", "REPORTS", "LANGUAGE_ARMS", "LANGUAGE_ARMS_TABLE")
    named = {
        value.as_posix()
        for key, value in vars(paths).items()
        if isinstance(value, Path) and key.isupper() and key not in outside
    }
    for corpus in (paths.SPEAKER, paths.LANGUAGE):
        parents = (corpus.artifacts, corpus.reports)
        named |= {path.as_posix() for path in vars(corpus).values() if path not in parents}
    for path in named:
        inside = {path, *(parent.as_posix() for parent in PurePosixPath(path).parents)}
        holds = any(output.startswith(f"{path}/") for output in declared)
        assert declared & inside or holds, f"{path} is written but no stage declares it"
    for output in declared:
        related = any(output == p or output.startswith(f"{p}/") or p.startswith(f"{output}/")
                      for p in named)  # fmt: skip
        assert related, f"{output} is declared but not in paths.py"


def test_candidates_are_the_only_list() -> None:
    """One more epoch: training goes on, and that epoch alone is scored."""
    score = STAGES["score"]
    assert score["matrix"] == {"candidate": "${candidates}"}
    assert f"{paths.CHECKPOINTS.as_posix()}/${{item.candidate}}" in score["deps"]
    assert paths.CHECKPOINTS.as_posix() not in score["deps"]
    assert "candidates" not in score["params"]
    assert {"candidates"} <= set(STAGES["train"]["params"]) & set(STAGES["select"]["params"])


def test_checkpoints_are_not_pushed() -> None:
    options = dict(outputs(STAGES["train"], "outs"))[paths.CHECKPOINTS.as_posix()]
    assert options == {"push": False}


def test_executed_notebooks_and_the_report_are_leaves() -> None:
    leaves = {path for path in all_outputs() if path.endswith(".html")}
    for stage in STAGES.values():
        assert not leaves & set(stage["deps"])


def test_heavy_stages_do_not_depend_on_how_results_are_shown() -> None:
    for name in STAGES.keys() - {"report", "language_report"}:
        assert "src/voxadapt/reporting" not in STAGES[name]["deps"]


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_profiles_hold_every_section_that_the_pipeline_names(path: Path) -> None:
    """DVC reads the file itself: a default of the model does not help it."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    listed = [key for stage in STAGES.values() for key in stage.get("params", [])]
    wanted = {key.split(".")[0] for key in listed if isinstance(key, str)}
    assert wanted <= set(tree)
    for key in (key for key in listed if isinstance(key, str)):
        value = tree
        for part in key.split("."):
            assert part in value, f"{key} is missing"
            value = value[part]
    assert set(Params.model_fields) >= wanted
    assert all(isinstance(item, str) for item in tree["candidates"])


def test_compiled_files_are_no_dependency() -> None:
    ignored = (ROOT / ".dvcignore").read_text(encoding="utf-8").split()
    assert "__pycache__/" in ignored
    assert ".ipynb_checkpoints/" in ignored


@pytest.mark.slow
def test_dvc_builds_the_graph(tmp_path: Path) -> None:
    """DVC itself reads the pipeline: every stage, and the edges from audit to report."""
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    dvc(tmp_path, "init", "--no-scm", "-q")
    edges = dvc(tmp_path, "dag", "--dot")
    params = load_params(ROOT / "params.yaml")
    for candidate in params.candidates:
        assert f'"train" -> "score@{candidate}"' in edges
        assert f'"score@{candidate}" -> "select"' in edges
    for edge in ('"audit" -> "codes"', '"codes" -> "train"', '"select" -> "confirm"',
                 '"confirm" -> "report"', '"clean" -> "train"'):  # fmt: skip
        assert edge in edges
    assert params.language is not None
    for candidate in params.language.candidates:
        assert f'"language_stage1" -> "language_score@{candidate}"' in edges
        assert f'"language_score@{candidate}" -> "language_decide"' in edges
    for edge in ('"language_data" -> "language_readings"',
                 '"language_readings" -> "language_stage1"',
                 '"language_decide" -> "language_stage2"',
                 '"language_stage2" -> "language_stage2_score"',
                 '"language_stage2_score" -> "language_confirm"',
                 '"language_confirm" -> "language_report"'):  # fmt: skip
        assert edge in edges
    lanes = {edge for edge in re.findall(r'"(\S+)" -> "(\S+)"', edges)
             if edge[0] not in ("clean", "data.dvc")}  # fmt: skip
    assert not [pair for pair in lanes if len({name.startswith("language_") for name in pair}) > 1]


def test_stage_2_hangs_on_the_decision_alone() -> None:
    """Another interval or sentence in decision.json does not train again."""
    stage = STAGES["language_stage2"]
    values = [key for key in stage["params"] if isinstance(key, dict)]
    assert values == [{paths.LANGUAGE_DECISION.as_posix(): ["acts", "stage1.candidate"]}]
    assert not [dep for dep in stage["deps"] if dep.startswith("reports/")]
