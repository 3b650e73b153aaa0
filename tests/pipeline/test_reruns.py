"""What runs again after an edit: DVC's own answer, in a scratch copy of the pipeline."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from closure import PROJECT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reruns() -> ModuleType:
    script = PROJECT / "docs" / "make_reruns.py"
    spec = importlib.util.spec_from_file_location("make_reruns", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scratch(reruns: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("scratch").resolve()
    with chdir(folder):
        reruns.scratch_pipeline(folder)
        yield folder


def test_the_page_is_what_dvc_says(reruns: ModuleType, scratch: Path) -> None:
    text = reruns.PAGE.read_text(encoding="utf-8")
    assert text == reruns.page(scratch), "run docs/make_reruns.py"


def test_a_key_of_the_choice_runs_the_choice(reruns: ModuleType, scratch: Path) -> None:
    path = scratch / "params.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    tree["select"]["similarity_tie"] += 0.001
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    # The report asks of the rule whether fewer sentences would choose the same.
    assert list(reruns.changed_dependencies(scratch)) == ["select", "report"]
