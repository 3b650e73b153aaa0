"""Epochs of other runs are taken out of the published folder and lost nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from voxadapt.core.files import write_json
from voxadapt.training.state import clear_stale, load_state


def epoch(folder: Path, run: str, value: float) -> Path:
    folder.mkdir(parents=True)
    save_file({"weight": torch.tensor([value])}, folder / "model.safetensors")
    write_json(folder / "meta.json", {"run": run})
    return folder


@pytest.fixture
def published(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        epoch(tmp_path / "checkpoints" / f"epoch-{number}", "old", number)
    return tmp_path / "checkpoints"


def test_epochs_of_this_run_stay_up_to_the_number_asked_for(published, tmp_path):
    clear_stale(published, tmp_path / "train" / "old", 2)
    assert sorted(path.name for path in published.iterdir()) == ["epoch-1", "epoch-2"]
    assert (tmp_path / "train" / "old" / "epoch-3" / "model.safetensors").is_file()


def test_epochs_of_another_run_go_to_its_own_folder(published, tmp_path):
    clear_stale(published, tmp_path / "train" / "new", 3)
    assert list(published.iterdir()) == []
    kept = tmp_path / "train" / "old"
    assert sorted(path.name for path in kept.iterdir()) == ["epoch-1", "epoch-2", "epoch-3"]


def test_an_epoch_that_is_kept_already_is_not_replaced(published, tmp_path):
    kept = epoch(tmp_path / "train" / "old" / "epoch-1", "old", 7.0)
    before = (kept / "model.safetensors").read_bytes()
    clear_stale(published, tmp_path / "train" / "new", 3)
    assert (kept / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"run": 3}', '{"run": "../../x"}', "{}"])
def test_a_torn_or_foreign_record_is_no_way_out_of_the_folder(tmp_path, content):
    bad = tmp_path / "checkpoints" / "epoch-1"
    bad.mkdir(parents=True)
    (bad / "meta.json").write_text(content)
    clear_stale(tmp_path / "checkpoints", tmp_path / "train" / "new", 3)
    assert not bad.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) in (
        ["checkpoints"],
        ["checkpoints", "train"],
    )


def test_a_state_is_taken_up_with_all_epochs_that_it_has_finished(tmp_path):
    assert load_state(tmp_path) is None
    torch.save({"loop": {"epoch": 2}}, tmp_path / "state.pt")
    epoch(tmp_path / "epoch-2", "old", 2.0)
    assert load_state(tmp_path) is None, "the first one is missing"
    first = epoch(tmp_path / "epoch-1", "old", 1.0)
    assert load_state(tmp_path) == {"loop": {"epoch": 2}}
    (first / "meta.json").write_text("{")
    assert load_state(tmp_path) is None, "the first one is torn"
