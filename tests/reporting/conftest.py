from pathlib import Path

import pytest

from reporting.world import make_params, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic project; tests that change it make their own."""
    return write_world(tmp_path_factory.mktemp("world"), make_params())
