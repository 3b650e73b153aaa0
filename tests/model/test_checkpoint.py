from __future__ import annotations

import contextlib
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fakes
from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.errors import UserError
from voxadapt.model.checkpoint import (
    CODEC_EMBEDDING,
    export_checkpoint,
    new_folder,
    publish,
    read_meta,
)
from voxadapt.model.forward import predict
from voxadapt.model.layout import build_layout, collate
from voxadapt.model.load import load_tts
from voxadapt.model.tokens import SpecialIds, free_codec_row

TRAINED = "talker.codec_head.weight"
GREEDY = {
    "do_sample": False, "subtalker_dosample": False, "repetition_penalty": 1.0,
    "max_new_tokens": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def half_base(tmp_path_factory):
    """A Base stored in float16 that already has a speaker."""
    shape = fakes.TinyShape(speakers=(("ben", 800),), dtype="float16")
    return fakes.make_tts(tmp_path_factory.mktemp("half") / "base", shape)


@pytest.fixture(scope="module")
def exported(half_base, tmp_path_factory):
    """The checkpoint of a model in which one tensor was trained."""
    out = tmp_path_factory.mktemp("out") / "epoch-1"
    tts = load_tts(half_base, as_base=True)
    return out, _export(tts, half_base, out), tts


def _export(tts, base, out, name="Aria", **options):
    model = tts.model
    ids = SpecialIds.from_config(model.config)
    row = free_codec_row(model.talker.get_input_embeddings().weight, ids, name)
    state = {TRAINED: model.state_dict()[TRAINED] + 0.25}
    vector = torch.randn(fakes.HIDDEN, generator=torch.Generator().manual_seed(9))
    export_checkpoint(out, base, state, name, row, vector, {"epoch": 1}, **options)
    return row, vector, state


@pytest.mark.slow
def test_stock_package_loads_it_and_speaks_with_capitals_in_the_name(exported):
    out, _, _ = exported
    tts = import_qwen_tts().Qwen3TTSModel.from_pretrained(str(out))
    assert tts.get_supported_speakers() == ["aria", "ben"]
    for name in ("Aria", "aria", "ARIA"):
        waves, rate_hz = tts.generate_custom_voice("Hello", speaker=name, **GREEDY)
        assert rate_hz == fakes.SAMPLE_RATE_HZ
        assert len(waves[0]) == 5 * fakes.HOP


def test_speakers_that_are_there_stay(exported):
    out, (row, _, _), _ = exported
    talker = json.loads((out / "config.json").read_text())["talker_config"]
    assert talker["spk_id"] == {"ben": 800, "aria": row.id}
    assert talker["spk_is_dialect"] == {"ben": False, "aria": False}


def test_only_trained_tensors_and_the_speaker_row_differ_and_types_are_kept(exported, half_base):
    out, (row, vector, state), _ = exported
    base, now = load_file(half_base / "model.safetensors"), load_file(out / "model.safetensors")
    assert base.keys() == now.keys()
    for name, tensor in now.items():
        assert tensor.dtype == base[name].dtype == torch.float16
        if name == TRAINED:
            assert torch.equal(tensor, state[name].half())
        elif name == CODEC_EMBEDDING:
            assert torch.equal(tensor[row.id], vector.half())
            others = torch.arange(len(tensor)) != row.id
            assert torch.equal(tensor[others], base[name][others])
        else:
            assert torch.equal(tensor, base[name]), name


def test_reload_gives_identical_logits(exported):
    out, (_, vector, state), tts = exported
    model, ids = tts.model, SpecialIds.from_config(tts.model.config)
    layouts = [build_layout(6, 8, ids)]
    codes = [torch.from_numpy(fakes.make_codes(8, 1))]
    batch = collate(["a"], layouts, [torch.arange(9)], codes, ids)
    before = model.state_dict()[TRAINED].clone()
    with torch.no_grad():
        model.state_dict()[TRAINED].copy_(state[TRAINED].half())  # what is stored
        expected = predict(model, batch, vector.half())
        model.state_dict()[TRAINED].copy_(before)
        found = predict(load_tts(out, as_base=True).model, batch, vector.half())
    assert torch.equal(found.c0_logits, expected.c0_logits)
    assert all(map(torch.equal, found.sub_logits, expected.sub_logits))


@pytest.mark.slow
def test_speaker_encoder_is_kept_so_the_checkpoint_still_clones(exported, half_base, tmp_path):
    out, _, tts = exported
    again = load_tts(out, as_base=True)
    ref = str(fakes.make_wav(tmp_path / "ref.wav", 3.0))
    (one,) = again.create_voice_clone_prompt(ref, x_vector_only_mode=True)
    (two,) = tts.create_voice_clone_prompt(ref, x_vector_only_mode=True)
    assert torch.equal(one.ref_spk_embedding, two.ref_spk_embedding)
    waves, _ = again.generate_voice_clone("Hi", voice_clone_prompt=[one], **GREEDY)
    assert len(waves[0])


def test_export_from_a_checkpoint_reuses_the_row_and_keeps_one_speaker(exported, tmp_path):
    out, (row, _, _), _ = exported
    again = load_tts(out, as_base=True)
    second, _, _ = _export(again, out, tmp_path / "again", name="ARIA")
    assert (second.id, second.reused) == (row.id, True)
    talker = json.loads((tmp_path / "again" / "config.json").read_text())["talker_config"]
    assert sorted(talker["spk_id"]) == ["aria", "ben"]


def test_export_twice_gives_the_same_bytes(exported, half_base, tmp_path):
    out, _, tts = exported
    _export(tts, half_base, tmp_path / "epoch-1")
    _export(tts, half_base, tmp_path / "epoch-1")  # over itself
    names = sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
    assert names == sorted(
        p.relative_to(tmp_path / "epoch-1")
        for p in (tmp_path / "epoch-1").rglob("*")
        if p.is_file()
    )
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "epoch-1" / name).read_bytes(), name
    assert os.listdir(tmp_path) == ["epoch-1"]  # nothing half-written is left


def test_an_interrupted_export_leaves_what_was_there(exported, half_base, tmp_path, monkeypatch):
    _, _, tts = exported
    _export(tts, half_base, tmp_path / "epoch-1")
    before = (tmp_path / "epoch-1" / "model.safetensors").read_bytes()

    def full(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("voxadapt.model.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        _export(tts, half_base, tmp_path / "epoch-1")
    assert (tmp_path / "epoch-1" / "model.safetensors").read_bytes() == before
    assert os.listdir(tmp_path) == ["epoch-1"]


def test_weights_that_the_stored_type_cannot_hold_are_refused(exported, half_base, tmp_path):
    _, (row, vector, _), _ = exported
    state = {TRAINED: torch.full((fakes.CODEBOOK_SIZE + 1024, fakes.HIDDEN), 1e6)}
    with pytest.raises(UserError, match="float16 can hold"):
        export_checkpoint(tmp_path / "x", half_base, state, "Aria", row, vector, {})
    assert os.listdir(tmp_path) == []


def test_a_stored_type_can_be_asked_for(exported, half_base, tmp_path):
    _, _, tts = exported
    _export(tts, half_base, tmp_path / "wide", dtype=torch.float32)
    kinds = {t.dtype for t in load_file(tmp_path / "wide" / "model.safetensors").values()}
    assert kinds == {torch.float32}


def test_published_copy_is_equal_and_left_alone_when_it_is(exported, tmp_path):
    out, _, _ = exported
    copy = publish(out, tmp_path / "epoch-1")
    stamp = (copy / "model.safetensors").stat().st_mtime_ns
    inode = (copy / "config.json").stat().st_ino
    publish(out, copy)
    assert (copy / "model.safetensors").stat().st_mtime_ns == stamp
    assert (copy / "config.json").stat().st_ino == inode
    assert read_meta(copy) == {"epoch": 1}
    for name in ("model.safetensors", "config.json", "speech_tokenizer/model.safetensors"):
        assert (copy / name).read_bytes() == (out / name).read_bytes()


def test_read_meta_of_something_else_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"meta\.json"):
        read_meta(tmp_path)


def test_half_precision_weights_survive_the_round_trip_through_fp32(half_base):
    base = load_file(half_base / "model.safetensors")
    tts = load_tts(half_base)
    for name, tensor in tts.model.state_dict().items():
        assert np.array_equal(tensor.half().numpy(), base[name].numpy()), name


@pytest.mark.parametrize(
    ("there", "taken", "left"),
    [(None, "old", "old"), ("new", "old", "new"), (None, None, None), ("new", None, "new")],
)
def test_what_a_killed_process_had_taken_away_is_put_back(tmp_path, there, taken, left):
    """It dies between taking the old folder away and putting the new one in its place."""
    out = tmp_path / "epoch-1"
    old, part = tmp_path / ".epoch-1.abc.old", tmp_path / ".epoch-1.abc.part"
    other = tmp_path / ".epoch-10.abc.old"
    for folder in (old, part, other):
        folder.mkdir()
    for name, folder in ((there, out), (taken, old / "epoch-1")):
        if name is not None:
            folder.mkdir()
            (folder / "name").write_text(name)
    with contextlib.suppress(KeyError), new_folder(out):
        assert not old.exists() and not part.exists() and other.exists()
        assert ((out / "name").read_text() if out.exists() else None) == left
        raise KeyError("it fails")
    assert ((out / "name").read_text() if out.exists() else None) == left
    with new_folder(out) as folder:
        (folder / "name").write_text("newest")
    assert (out / "name").read_text() == "newest"
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "epoch-1"]
