from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fakes
from voxadapt.model.load import load_tts

WIDTHS = (24, fakes.HIDDEN)  # text_hidden != hidden, as in the 0.6B, and == hidden


@pytest.fixture(scope="session")
def base_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        width: fakes.make_tts(
            # Unequal everywhere, or equal everywhere: with and without the predictor's projection.
            root / f"text{width}", fakes.TinyShape(width, 16 if width != fakes.HIDDEN else width)
        )
        for width in WIDTHS
    }  # fmt: skip


@pytest.fixture(scope="session")
def models(base_dirs: dict[int, Path]) -> dict[int, Any]:
    return {width: load_tts(path) for width, path in base_dirs.items()}


@pytest.fixture(scope="session", params=WIDTHS, ids=lambda width: f"text{width}")
def tts(request: pytest.FixtureRequest, models: dict[int, Any]) -> Any:
    return models[request.param]
