"""What runs again after an edit: DVC's own answer, in a scratch copy of the pipeline."""

from __future__ import annotations

import importlib.util
from contextlib import chdir
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from closure import PROJECT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reruns() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_reruns", PROJECT / "docs" / "make_reruns.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_dvc_says(reruns: ModuleType) -> None:
    assert reruns.PAGE.read_text(encoding="utf-8") == reruns.page(), "run docs/make_reruns.py"


def test_a_key_of_the_choice_runs_the_choice(reruns: ModuleType, tmp_path: Path) -> None:
    with chdir(tmp_path):
        reruns.scratch_pipeline(tmp_path)
        path = tmp_path / "params.yaml"
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        tree["select"]["similarity_tie"] += 0.001
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        assert reruns.stale_stages(tmp_path) == ["select"]
