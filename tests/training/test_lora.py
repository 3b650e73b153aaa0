from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from voxadapt.core.errors import UserError
from voxadapt.core.params import TrainParams
from voxadapt.model.checkpoint import CODEC_EMBEDDING, iterate_weights
from voxadapt.model.delta import materialise, read_delta
from voxadapt.model.freezing import module_of
from voxadapt.model.load import load_tts, speaker_vector
from voxadapt.model.tokens import SpecialIds
from voxadapt.training.adaptations.lora import changed
from voxadapt.training.batches import build_examples, make_batch
from voxadapt.training.trainer import ForwardLoss

LORA = {"method": "lora", "lr": 1e-2, "lora": {"rank": 4, "alpha": 8.0}}


def same_files(one: Path, other: Path) -> bool:
    names = sorted(p.name for p in one.iterdir())
    return names == sorted(p.name for p in other.iterdir()) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


def test_the_change_is_the_scaled_product_of_its_factors():
    a, b, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]), torch.ones(2, 2)
    trained = {"layer.lora_A.default.weight": a, "layer.lora_B.default.weight": b}
    found = changed(trained, "layer.weight", weight.bfloat16(), 0.5)
    assert found.dtype == torch.float32 and found.tolist() == [[2.5, 4.0], [3.0, 5.0]]
    assert changed(trained, "other.weight", weight, 0.5) is None


@pytest.fixture(scope="session")
def adapted(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("lora")
    return root, world.train(root, **LORA)


@pytest.mark.slow
def test_an_epoch_is_a_small_delta_that_becomes_a_stock_folder_which_speaks_by_name(
    world, adapted, tmp_path
):
    _, result = adapted
    folder = result.checkpoints[1]
    assert sorted(p.name for p in folder.iterdir()) == ["delta.safetensors", "meta.json"]
    whole = materialise(world.base, folder, tmp_path / "whole")
    base, now = dict(iterate_weights(world.base)), dict(iterate_weights(whole))
    changed = {module_of(name) for name in base if not torch.equal(base[name], now[name])}
    assert changed == {
        "talker.model.layers", "talker.code_predictor", "talker.model.codec_embedding",
    }  # fmt: skip
    tts = load_tts(whole)
    assert tts.model.tts_model_type == "custom_voice"
    assert "aria" in tts.get_supported_speakers()
    row = result.metrics["speaker_row"]["id"]
    moved = (base[CODEC_EMBEDDING] != now[CODEC_EMBEDDING]).any(1).nonzero().flatten().tolist()
    assert moved == [row]
    vector = speaker_vector(load_tts(world.base), world.ref)
    assert torch.equal(now[CODEC_EMBEDDING][row], vector.to(torch.bfloat16))


def test_it_learns_and_says_what_it_moved(adapted):
    _, result = adapted
    losses = [row["heldout_loss"] for row in result.rows if row.get("heldout_loss")]
    assert losses[-1] < losses[0] - 0.05
    assert result.metrics["precision"]["master_dtype"] == "float32"
    assert result.metrics["method"] == "lora"
    trained = {c["module"]: c["num_trainable"] for c in result.metrics["modules"]}
    assert {name for name, count in trained.items() if count} == {
        "talker.model.layers", "talker.code_predictor",
    }  # fmt: skip
    one, two = (e["drift"]["talker.model.layers"]["relative"] for e in result.metrics["epochs"])
    assert 0 < one < two


def test_the_whole_model_predicts_what_training_measured(world, adapted, tmp_path):
    """The materialised weights, rounded to bfloat16, give the held-out loss of the adapter."""
    _, result = adapted
    whole = materialise(world.base, result.checkpoints[1], tmp_path / "whole")
    tts = load_tts(whole, as_base=True)
    ids = SpecialIds.from_config(tts.model.config)
    held = [row for row in world.utterances if row.split == "selection"]
    batch = make_batch(build_examples(held, world.codes, tts, ids), ids)
    vector = speaker_vector(tts, world.ref)[None]
    with torch.no_grad():
        sums = ForwardLoss(tts.model, vector, {row.id: 0 for row in held})(batch)
    found = float(sums.c0_sum) / sums.num_labels
    wanted = result.metrics["epochs"][1]["heldout"]["c0_loss"]
    assert found == pytest.approx(wanted, rel=0.01)


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_bytes(world, adapted, tmp_path):
    _, result = adapted
    world.train(tmp_path, 1, **LORA)
    resumed = world.train(tmp_path, 2, **LORA)
    assert resumed.resumed_step > 0
    for ours, theirs in zip(resumed.checkpoints, result.checkpoints, strict=True):
        assert same_files(ours, theirs)


def test_another_scale_at_export_trains_nothing_and_changes_every_epoch(world, adapted, tmp_path):
    root, result = adapted
    full = [read_delta(folder)[0] for folder in result.checkpoints]
    half = {**LORA, "lora": {**LORA["lora"], "export_scale": 0.5}}
    again = world.train(root, **half)
    assert again.resumed_step == result.rows[-1]["step"]
    for before, folder in zip(full, again.checkpoints, strict=True):
        after = read_delta(folder)[0]
        assert after.lora_scale == before.lora_scale / 2
        assert all(torch.equal(after.lora[n][0], before.lora[n][0]) for n in before.lora)
    world.train(root, **LORA)


@pytest.mark.slow
def test_targets_and_frozen_prefixes_say_where_the_adapter_lies(world, tmp_path):
    only = {**LORA, "lora": {"rank": 2, "targets": ["code_predictor"]},
            "frozen": ["speaker_encoder", "talker.code_predictor.model.layers.0"]}  # fmt: skip
    result = world.train(tmp_path, 1, **only)
    names = set(read_delta(result.checkpoints[0])[0].lora)
    assert names
    assert all(name.startswith("talker.code_predictor.model.layers.1.") for name in names)


@pytest.mark.slow
def test_bfloat16_keeps_the_weights_and_trains_a_float32_adapter(world, tmp_path):
    result = world.train(tmp_path, 2, **LORA, compute_dtype="bfloat16")
    assert result.metrics["precision"] == {
        "master_dtype": "float32", "compute_dtype": "bfloat16", "stored_dtype": "float32",
    }  # fmt: skip
    losses = [row["heldout_loss"] for row in result.rows if row.get("heldout_loss")]
    assert losses[-1] < losses[0]


def test_low_memory_is_refused_and_a_full_run_is_called_as_before(world):
    with pytest.raises(ValueError, match="low_memory is of method full"):
        TrainParams(speaker_name="A", method="lora", low_memory=True, compute_dtype="bfloat16")
    assert not {"method", "lora"} & set(TrainParams(speaker_name="A").model_dump())


def test_without_peft_the_refusal_says_how_to_get_it(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"voxadapt\[lora\]"):
        world.train(tmp_path, 1, **LORA)
