from __future__ import annotations

import csv
import hashlib
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fakes
from voxadapt.core.errors import UserError
from voxadapt.model.checkpoint import CODEC_EMBEDDING
from voxadapt.model.freezing import module_of
from voxadapt.training import trainer as loop
from voxadapt.training.losses import LossTotals


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def timeless(rows) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "frames_per_s"} for row in rows]


class Interrupt(KeyboardInterrupt):
    pass


def interrupt_at(monkeypatch, step: int) -> None:
    """Stop training like Ctrl-C, in the middle of an optimizer step."""
    calls = []
    original = LossTotals.loss

    def loss(self, weight):
        calls.append(None)
        if len(calls) == step:
            raise Interrupt
        return original(self, weight)

    monkeypatch.setattr(LossTotals, "loss", loss)


def test_a_run_leaves_a_checkpoint_per_epoch_a_log_and_a_summary(finished):
    root, result = finished
    assert [path.name for path in result.checkpoints] == ["epoch-1", "epoch-2"]
    assert sorted(os.listdir(root / "out")) == ["epoch-1", "epoch-2"]
    with open(root / "log.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3, 4]  # 7 clips, batch 4, 2 epochs
    assert tuple(rows[0])[: len(loop.log.COLUMNS)] == loop.log.COLUMNS
    assert rows[0]["heldout_loss"]
    assert not rows[0]["loss"]
    assert float(rows[4]["heldout_loss"]) < float(rows[0]["heldout_loss"])
    assert all(row["c3_loss"] for row in rows[1:])


def test_summary_discloses_precision_speaker_row_and_what_happened_to_the_weights(finished):
    _, result = finished
    assert result.metrics["precision"] == {
        "master_dtype": "float32", "compute_dtype": "float32", "stored_dtype": "bfloat16"
    }  # fmt: skip
    assert result.metrics["speaker_row"]["near_zero"]
    for epoch in result.metrics["epochs"]:
        assert 0 < epoch["lost_update_share"] < 1
        assert epoch["lost_update_share_trained"] < 0.01
        for module in ("talker.model.layers", "talker.code_predictor", "talker.codec_head"):
            assert epoch["drift"][module]["relative"] > 1e-4
    one, two = (e["drift"]["talker.model.layers"] for e in result.metrics["epochs"])
    assert two["relative"] > one["relative"]


def test_meta_names_what_the_checkpoint_came_from(finished):
    _, result = finished
    meta = loop.read_json(result.checkpoints[1] / "meta.json")
    assert (meta["epoch"], meta["step"], meta["speaker_name"]) == (2, 4, "Aria")
    for key in ("base_sha256", "data_sha256", "params_sha256", "ref_audio_sha256"):
        assert len(meta[key]) == 64
    assert meta["heldout"]["num_labels"] == 19 + 21 + 2


@pytest.mark.slow
def test_frozen_parameters_stay_bit_identical_and_trained_ones_change(world, tmp_path):
    frozen = ("speaker_encoder", "talker.model.text_embedding", "talker.code_predictor")
    result = world.train(tmp_path, 1, frozen=frozen, weight_decay=0.1)
    base = load_file(world.base / "model.safetensors")
    now = load_file(result.checkpoints[0] / "model.safetensors")
    changed = {module_of(name) for name in base if not torch.equal(base[name], now[name])}
    assert changed == {
        "talker.model.codec_embedding", "talker.model.layers", "talker.model.norm",
        "talker.text_projection", "talker.codec_head",
    }  # fmt: skip


@pytest.mark.slow
def test_rows_that_no_batch_used_stay_bit_identical_even_with_weight_decay(world, tmp_path):
    result = world.train(tmp_path, 1, weight_decay=0.5)
    base = load_file(world.base / "model.safetensors")[CODEC_EMBEDDING]
    now = load_file(result.checkpoints[0] / "model.safetensors")[CODEC_EMBEDDING]
    moved = set(torch.nonzero((base != now).any(1)).flatten().tolist())
    talker = loop.load_tts(world.base).model.config.talker_config
    used = {int(c) for row in world.utterances for c in world.codes[row.id][:, 0]}
    special = {
        talker.codec_pad_id, talker.codec_bos_id, talker.codec_nothink_id,
        talker.codec_think_bos_id, talker.codec_think_eos_id,
    }  # fmt: skip
    assert moved <= used | special | {result.metrics["speaker_row"]["id"]}
    assert result.metrics["speaker_row"]["id"] in moved


def test_speaker_row_is_the_vector_that_conditioned_training(world, finished):
    _, result = finished
    vector = loop.speaker_vector(loop.load_tts(world.base), world.ref)
    row = result.metrics["speaker_row"]["id"]
    for path in result.checkpoints:
        stored = load_file(path / "model.safetensors")[CODEC_EMBEDDING][row]
        assert torch.equal(stored, vector.bfloat16())


@pytest.mark.slow
def test_same_seed_same_bytes_and_another_seed_other_ones(world, finished, tmp_path):
    root, _ = finished
    world.train(tmp_path / "same")
    assert hashes(tmp_path / "same" / "out") == hashes(root / "out")
    world.train(tmp_path / "other", 1, seed=4)
    other = hashes(tmp_path / "other" / "out" / "epoch-1")
    assert other["model.safetensors"] != hashes(root / "out" / "epoch-1")["model.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("calls", [1, 3, 6])
def test_resumed_run_equals_an_uninterrupted_one(world, finished, tmp_path, monkeypatch, calls):
    root, expected = finished
    with monkeypatch.context() as patch:
        interrupt_at(patch, calls)
        with pytest.raises(Interrupt):
            world.train(tmp_path, save_every_s=0.0)
    result = world.train(tmp_path, save_every_s=0.0)
    assert hashes(tmp_path / "out") == hashes(root / "out")
    assert timeless(result.rows) == timeless(expected.rows)
    if calls > 1:
        assert result.resumed_step > 0


@pytest.mark.slow
def test_a_further_epoch_trains_only_itself(world, finished, tmp_path):
    root, _ = finished
    shutil.copytree(root, tmp_path / "more")
    before = hashes(tmp_path / "more" / "out")
    result = world.train(tmp_path / "more", 3)
    assert result.resumed_step == 4
    after = hashes(tmp_path / "more" / "out")
    assert {name: after[name] for name in before} == before
    straight = world.train(tmp_path / "straight", 3)
    assert after == hashes(tmp_path / "straight" / "out")
    assert timeless(result.rows) == timeless(straight.rows)


def test_a_finished_run_trains_nothing_and_restores_what_was_deleted(
    world, finished, tmp_path, monkeypatch
):
    root, _ = finished
    shutil.copytree(root, tmp_path / "again")
    expected = hashes(tmp_path / "again" / "out")
    shutil.rmtree(tmp_path / "again" / "out" / "epoch-1")
    monkeypatch.setattr(loop, "load_tts", None)  # not even the model is loaded
    result = world.train(tmp_path / "again")
    assert hashes(tmp_path / "again" / "out") == expected
    assert result.resumed_step == 4


@pytest.mark.slow
def test_fewer_epochs_and_other_runs_leave_no_stale_checkpoints(world, finished, tmp_path):
    root, _ = finished
    shutil.copytree(root, tmp_path / "less")
    world.train(tmp_path / "less", 1)
    assert os.listdir(tmp_path / "less" / "out") == ["epoch-1"]
    world.train(tmp_path / "less", 1, lr=5e-4)
    meta = loop.read_json(tmp_path / "less" / "out" / "epoch-1" / "meta.json")
    assert meta["lr"] == 5e-4


@pytest.mark.slow
def test_cosine_runs_of_other_lengths_share_no_state(world, tmp_path):
    world.train(tmp_path, 1, schedule="cosine")
    assert world.train(tmp_path, 2, schedule="cosine").resumed_step == 0


@pytest.mark.slow
def test_accumulation_gives_the_same_run(world, tmp_path):
    runs = [
        world.train(tmp_path / str(size), 1, batch_size=size, gradient_accumulation_steps=8 // size)
        for size in (8, 2, 1)
    ]
    for run in runs[1:]:
        assert len(run.rows) == len(runs[0].rows)
        for a, b in zip(runs[0].rows[1:], run.rows[1:], strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(world, finished, tmp_path):
    _, expected = finished
    result = world.train(tmp_path, 1, gradient_checkpointing=True)
    for a, b in zip(result.rows[1:], expected.rows[1:], strict=False):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


@pytest.mark.slow
def test_fp32_masters_move_weights_where_pure_bf16_does_not(world, tmp_path):
    """At a small rate bf16 weights swallow nearly all updates; fp32 masters keep them."""
    given = {"lr": 1e-6, "compute_dtype": "bfloat16"}
    masters = world.train(tmp_path / "masters", 1, **given)
    pure = world.train(tmp_path / "pure", 1, **given, master_weights=False)
    assert pure.metrics["precision"]["master_dtype"] == "bfloat16"
    lost_masters, lost_pure = (
        run.metrics["epochs"][0]["lost_update_share_trained"] for run in (masters, pure)
    )
    assert lost_masters < 0.1
    assert lost_pure > 0.9
    drift_masters, drift_pure = (
        run.metrics["epochs"][0]["drift"]["talker.model.layers"]["relative"]
        for run in (masters, pure)
    )
    assert 0 <= drift_pure < drift_masters


@pytest.mark.slow
def test_autocast_trains_and_keeps_rotary_frequencies_in_fp32(world, tmp_path, monkeypatch):
    seen = []
    original = loop.predict

    def predict(model, batch, vector, keep=None):
        seen.append({name: b.dtype for name, b in model.named_buffers() if "inv_freq" in name})
        return original(model, batch, vector, keep)

    monkeypatch.setattr(loop, "predict", predict)
    world.train(tmp_path, 1, compute_dtype="bfloat16", master_weights=False)
    assert seen[0]
    assert set(seen[0].values()) == {torch.float32}


@pytest.mark.slow
def test_nan_stops_training_names_batch_and_clips_and_keeps_the_last_epoch(
    world, tmp_path, monkeypatch
):
    world.train(tmp_path, 1)
    before = hashes(tmp_path / "out")
    original = loop.loss_sums

    def broken(predictions):
        sums = original(predictions)
        return type(sums)(
            sums.c0_sum * float("nan"), sums.sub_sums, sums.num_labels, sums.num_frames
        )

    monkeypatch.setattr(loop, "loss_sums", broken)
    with pytest.raises(UserError) as caught:
        world.train(tmp_path, 2)
    (problem,) = caught.value.problems
    assert problem.where.startswith("epoch 2, step 1: clip")
    assert "epoch-1 is kept" in problem.fix
    assert hashes(tmp_path / "out") == before


def test_out_of_memory_names_the_setting_to_lower(world, tmp_path, monkeypatch):
    def full(*_args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(loop, "predict", full)
    with pytest.raises(UserError, match=r"train\.batch_size"):
        world.train(tmp_path, 1)


@pytest.mark.slow
def test_damaged_state_is_a_user_error_and_code_in_it_is_never_run(world, tmp_path):
    world.train(tmp_path, 1)
    (path,) = (tmp_path / "work" / "train").glob("*/state.pt")
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    for content in (b"not a state", None):
        if content is None:
            torch.save({"loop": Evil()}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(UserError, match="Delete the file"):
            world.train(tmp_path, 2)
    assert not marker.exists()


def test_data_that_cannot_be_trained_is_refused_before_the_model_is_loaded(
    world, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "load_tts", None)
    held = [row for row in world.utterances if row.split != "train"]
    with pytest.raises(UserError, match="train split"):
        world.train(tmp_path, 1, utterances=held)
    with pytest.raises(UserError, match="clip0"):
        world.train(tmp_path, 1, codes={k: v for k, v in world.codes.items() if k != "clip0"})


@pytest.mark.slow
def test_confirmation_clips_are_never_read(world, tmp_path):
    extra = fakes.make_utterance("secret", "never", "confirmation")
    result = world.train(tmp_path, 1, utterances=(*world.utterances, extra))
    assert len(result.rows) == 3


@pytest.mark.slow
@pytest.mark.slow
def test_texts_are_as_they_were_given_unless_asked_for(world, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.augmentation, "variants", None)
    assert len(world.train(tmp_path, 1).rows) == 3


@pytest.mark.slow
def test_an_utterance_is_learnt_in_its_own_language(world, tmp_path):
    german = {row.id: "german" for row in world.utterances}
    tagged = world.train(tmp_path / "tagged", 1, tags=german)
    plain = world.train(tmp_path / "plain", 1, language="german")
    auto = world.train(tmp_path / "auto", 1)
    losses = [run.rows[1]["loss"] for run in (tagged, plain, auto)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.slow
def test_hidden_frames_are_the_same_after_a_pause(world, tmp_path):
    _, at_once, paused = world.train_with_a_pause(tmp_path, frame_dropout=0.6)
    assert at_once == paused
