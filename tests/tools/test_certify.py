"""A certificate names the first thing that another implementation computes otherwise."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from voxadapt.core.errors import UserError
from voxadapt.tools import certify as module
from voxadapt.tools.certify import certify, compare
from voxadapt.tools.certify_probe import TEXTS

BASE = Path(__file__).parents[2] / "data/models/base"


@pytest.mark.slow
def test_the_stock_loop_computes_what_ours_does(tmp_path: Path) -> None:
    result = certify(BASE, None, tmp_path / "certificate.json")
    record = json.loads((tmp_path / "certificate.json").read_text("utf-8"))
    assert "computes the same" in result.sentence and record["equal"]
    names = [item["name"] for item in record["compared"]]
    for part in ("token ids", "prefill embeddings", "talker layer 0", "talker logits",
                 "code predictor layer 0", "code predictor logits", "greedy codes"):  # fmt: skip
        assert sum(part in name for name in names) >= len(TEXTS)
    assert "codec: decoded samples" in names and "qwen-tts" in record["other"]["implementation"]


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "another"}'])
def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(UserError, match="nothing is overwritten"):
        certify(BASE, None, tmp_path / "mine.json")
    assert (tmp_path / "mine.json").read_text() == content


@pytest.mark.slow
def test_the_first_layer_that_differs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe_here = module._probe_here

    def other_weights(folder: Path) -> Any:
        load_tts = module.load_tts

        def changed(path: Path) -> Any:
            tts = load_tts(path)
            with torch.no_grad():
                tts.model.talker.model.layers[2].mlp.up_proj.weight.mul_(1.01)
            return tts

        with monkeypatch.context() as patch:
            patch.setattr(module, "load_tts", changed)
            return probe_here(folder)

    monkeypatch.setattr(module, "_probe_here", other_weights)
    with pytest.raises(UserError, match="text 1: talker layer 2"):
        certify(BASE, None, tmp_path / "certificate.json")
    record = json.loads((tmp_path / "certificate.json").read_text("utf-8"))
    assert not record["equal"] and record["first_difference"] == "text 1: talker layer 2"


def test_comparing() -> None:
    a: dict[str, Any] = {
        "ids": np.array([1, 2, 3]), "codes": np.array([[1, 2], [3, 4]]), "x": np.array([1.0, 2.0]),
        "y": np.zeros((2, 3)), "nan": np.array([1.0]), "ours": np.zeros(1),
    }  # fmt: skip
    b = {
        "ids": np.array([1, 2, 3]), "codes": np.array([[1, 2], [3, 5], [1, 1]]),
        "x": np.array([1.0, 2.00001]), "y": np.zeros((3, 2)), "nan": np.array([np.nan]),
    }  # fmt: skip
    found = {item.name: item for item in compare(a, b)}
    assert {name for name, item in found.items() if item.equal} == {"ids", "x"}
    assert "from position 1 on; 2 here, 3 there" in found["codes"].detail
    assert "shape [3, 2], not [2, 3]" in found["y"].detail
    assert found["ours"].detail == "it is computed by one of them only"


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (None, "a Python interpreter"),
        ("import sys; sys.exit('no qwen_tts here')", "no qwen_tts here"),
    ],
)
def test_an_environment_that_cannot_is_said_to(
    script: str | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    if script is not None:
        python.write_text(f"#!{sys.executable}\n{script}\n")
        python.chmod(0o755)
    with pytest.raises(UserError, match=found):
        module._probe_there(BASE, python, {})
