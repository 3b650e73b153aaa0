from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import fakes
from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.errors import UserError
from voxadapt.core.files import sha256_folder
from voxadapt.model.checkpoint import iterate_weights
from voxadapt.model.delta import (
    DELTA,
    Delta,
    materialise,
    read_delta,
    restore,
    weights_sha256,
    write_delta,
)
from voxadapt.model.load import load_tts, weight_files

TEXT = "talker.model.text_embedding.weight"
CODEC = "talker.model.codec_embedding.weight"
WHOLE = "talker.code_predictor.lm_head.0.weight"
LAYER = "talker.model.layers.0.self_attn.q_proj.weight"
TAG = 950
MINIATURE = Path("data/models/base")
GREEDY = {
    "do_sample": False, "subtalker_dosample": False, "repetition_penalty": 1.0,
    "max_new_tokens": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Base in bfloat16, whose weight file is one that is copied rather than linked."""
    return fakes.make_tts(
        tmp_path_factory.mktemp("one") / "base", fakes.TinyShape(dtype="bfloat16")
    )


@pytest.fixture(scope="module")
def sharded(base, tmp_path_factory):
    """The same Base in two files, with other metadata than voxadapt writes."""
    folder = tmp_path_factory.mktemp("two") / "base"
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {True: "model-00001-of-00002.safetensors", False: "model-00002-of-00002.safetensors"}
    where = {name: parts[name.startswith("talker.model")] for name in tensors}
    for part in parts.values():
        chosen = {name: t for name, t in tensors.items() if where[name] == part}
        save_file(chosen, folder / part, metadata={"format": "pt", "made_by": "someone"})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 0}, "weight_map": where})
    )
    return folder


@pytest.fixture(params=["base", "sharded", "miniature"])
def any_base(request):
    if request.param == "miniature":
        if not (MINIATURE / "model.safetensors").is_file():
            pytest.skip("the miniature is not here: dvc pull")
        return MINIATURE
    return request.getfixturevalue(request.param)


def tensor_of(folder, name):
    return dict(iterate_weights(folder))[name]


def make_delta(base, lora=True):
    """Return three rows of text, a language's tag, one whole tensor and one low-rank change."""
    random = torch.Generator().manual_seed(3)
    tensors = dict(iterate_weights(base))
    ids = torch.tensor([3, 65, 100])
    a = torch.randn(2, tensors[LAYER].shape[1], generator=random)
    b = torch.randn(tensors[LAYER].shape[0], 2, generator=random)
    whole = tensors[WHOLE].float() + 0.5
    return Delta(
        rows={
            TEXT: (ids, torch.randn(3, tensors[TEXT].shape[1], generator=random)),
            CODEC: (torch.tensor([TAG]), torch.ones(1, tensors[CODEC].shape[1])),
        },
        full={WHOLE: whole},
        lora={LAYER: (a, b)} if lora else {},
        lora_scale=0.25,
        language=("malay", TAG),
    )


def flip(file, offset):
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.unlink()  # the file may be a link to the Base's
    file.write_bytes(data)


def test_what_is_written_is_read_again_in_the_bases_type(base, tmp_path):
    delta = make_delta(base)
    folder = write_delta(tmp_path / "epoch-1", base, delta, {"epoch": 1})
    again, meta = read_delta(folder)
    index, values = again.rows[TEXT]
    assert index.tolist() == [3, 65, 100]
    assert torch.equal(values, delta.rows[TEXT][1].bfloat16())
    assert torch.equal(again.full[WHOLE], delta.full[WHOLE].bfloat16())
    assert torch.equal(again.lora[LAYER][0], delta.lora[LAYER][0])  # float32
    assert (again.lora_scale, again.language) == (0.25, ("malay", TAG))
    assert sorted(os.listdir(folder)) == [DELTA, "meta.json"]
    assert os.listdir(tmp_path) == ["epoch-1"]
    assert meta["epoch"] == 1
    assert meta["base_weights_sha256"] == weights_sha256(base)
    assert meta["size_bytes"] == (folder / DELTA).stat().st_size
    assert meta["tensors"][TEXT] == {"kind": "rows", "num_rows": 3, "num_values": 3 * 24}
    assert meta["tensors"][LAYER]["num_values"] == sum(f.numel() for f in delta.lora[LAYER])
    assert meta["num_values"] == sum(entry["num_values"] for entry in meta["tensors"].values())
    assert meta["tensors"][WHOLE]["kind"] == "full"


def test_writing_twice_gives_the_same_bytes(base, tmp_path):
    for name in ("one", "two"):
        write_delta(tmp_path / name, base, make_delta(base), {})
    assert sha256_folder(tmp_path / "one") == sha256_folder(tmp_path / "two")


def test_rows_and_tensors_that_equal_the_bases_are_left_out(base, tmp_path):
    table = tensor_of(base, TEXT)
    ids = torch.tensor([9, 4, 7])  # in any order
    values = table[ids].float()
    values[0] += 1
    delta = Delta(
        rows={TEXT: (ids, values), CODEC: (torch.tensor([2]), tensor_of(base, CODEC)[2:3])},
        full={WHOLE: tensor_of(base, WHOLE)},
    )
    again, meta = read_delta(write_delta(tmp_path / "x", base, delta, {}))
    assert again.names == {TEXT}
    assert again.rows[TEXT][0].tolist() == [9]
    assert torch.equal(again.rows[TEXT][1][0], values[0].bfloat16())
    assert meta["tensors"].keys() == {TEXT}


def test_a_delta_of_nothing_can_be_written_put_in_and_taken_out(base, tmp_path):
    folder = write_delta(tmp_path / "delta", base, Delta(), {})
    assert read_delta(folder)[0].names == frozenset()
    full = materialise(base, folder, tmp_path / "full")
    assert fakes.changed_tensors(base, full) == []
    restore(full, folder, base, tmp_path / "again")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3.4e38])
@pytest.mark.parametrize("kind", ["rows", "full", "lora"])
def test_values_that_the_type_cannot_hold_are_refused(base, tmp_path, bad, kind):
    delta = make_delta(base)
    part = getattr(delta, kind)
    value = next(iter(part.values()))
    if kind == "lora":
        value[0][0, 0] = 100.0
    (value if kind == "full" else value[1])[0, 0] = bad
    with pytest.raises(UserError, match="can hold; found NaN or infinity"):
        write_delta(tmp_path / "x", base, delta, {})
    assert os.listdir(tmp_path) == []


def test_unknown_tensors_and_rows_are_programmer_errors(base, tmp_path):
    for delta in (
        Delta(full={"talker.nothing": torch.ones(2)}),
        Delta(rows={TEXT: (torch.tensor([10**6]), torch.ones(1, 24))}),
        Delta(rows={TEXT: (torch.tensor([4, 4]), torch.ones(2, 24))}),
        Delta(full={WHOLE: torch.ones(2)}),
        Delta(full={TEXT: tensor_of(base, TEXT)}, rows=make_delta(base).rows),
    ):
        with pytest.raises((AssertionError, IndexError)):
            write_delta(tmp_path / "x", base, delta, {})


def _truncate(folder):
    (folder / DELTA).write_bytes((folder / DELTA).read_bytes()[:-9])


def _other_schema(folder):
    (folder / "meta.json").write_text('{"schema": "something/1"}')


def _no_facts(folder):
    (folder / "meta.json").write_text('{"schema": "voxadapt-delta/1"}')


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _other_schema,
        _no_facts,
        lambda folder: flip(folder / DELTA, -1),
        lambda folder: (folder / DELTA).unlink(),
        lambda folder: (folder / "meta.json").unlink(),
        lambda folder: (folder / "meta.json").write_text("[]"),
    ],
)
def test_a_damaged_delta_is_a_user_error(base, tmp_path, damage):
    folder = write_delta(tmp_path / "delta", base, make_delta(base), {})
    damage(folder)
    with pytest.raises(UserError, match="Run the"):
        materialise(base, folder, tmp_path / "full")
    assert not (tmp_path / "full").exists()


def test_a_folder_that_was_cut_off_is_written_anew(base, tmp_path):
    delta = write_delta(tmp_path / "delta", base, make_delta(base), {"epoch": 2})
    full = materialise(base, delta, tmp_path / "full")
    weights = full / "model.safetensors"
    whole, written = weights.read_bytes(), weights.stat().st_mtime_ns
    assert materialise(base, delta, full) == full
    assert weights.stat().st_mtime_ns == written, "it was there"
    weights.write_bytes(whole[:-8])
    assert materialise(base, delta, full) == full and weights.read_bytes() == whole


@pytest.mark.slow
def test_materialised_folder_differs_by_the_delta_and_nothing_else(any_base, tmp_path):
    delta = make_delta(any_base)
    folder = write_delta(tmp_path / "delta", any_base, delta, {"epoch": 2})
    stored, _ = read_delta(folder)
    before = weights_sha256(any_base)
    full = materialise(any_base, folder, tmp_path / "full")
    assert fakes.changed_tensors(any_base, full) == sorted([TEXT, CODEC, WHOLE, LAYER])
    old, new = dict(iterate_weights(any_base)), dict(iterate_weights(full))
    for name, (index, values) in stored.rows.items():
        assert torch.equal(new[name][index], values)
        others = torch.ones(len(old[name]), dtype=torch.bool)
        others[index] = False
        assert torch.equal(new[name][others], old[name][others])
    assert torch.equal(new[WHOLE], stored.full[WHOLE])
    a, b = stored.lora[LAYER]
    assert torch.equal(new[LAYER], (old[LAYER].float() + 0.25 * (b @ a)).to(old[LAYER].dtype))
    assert {f.name for f in weight_files(full).values()} == {
        f.name for f in weight_files(any_base).values()
    }
    assert (full / "meta.json").read_bytes() == (folder / "meta.json").read_bytes()
    assert weights_sha256(any_base) == before
    config, base_config = (json.loads((d / "config.json").read_text()) for d in (full, any_base))
    base_config["talker_config"]["codec_language_id"]["malay"] = TAG
    assert config == base_config
    assert config["tts_model_type"] == "base"


def test_removing_the_delta_restores_the_base_bit_for_bit(any_base, tmp_path):
    folder = write_delta(tmp_path / "delta", any_base, make_delta(any_base), {})
    full = materialise(any_base, folder, tmp_path / "full")
    assert sha256_folder(full) != sha256_folder(any_base)
    again = restore(full, folder, any_base, tmp_path / "again")
    assert sha256_folder(again) == sha256_folder(any_base)


def test_a_weight_file_without_a_change_is_not_written_again(sharded, tmp_path, monkeypatch):
    monkeypatch.setattr("voxadapt.model.checkpoint._LINK_FROM_BYTES", 1)
    delta = Delta(rows=make_delta(sharded).rows, language=("malay", TAG))
    full = materialise(sharded, write_delta(tmp_path / "d", sharded, delta, {}), tmp_path / "full")
    changed, kept = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert (full / kept).samefile(sharded / kept)
    assert not (full / changed).samefile(sharded / changed)


def test_a_folder_made_from_the_same_delta_is_left_alone(base, tmp_path):
    delta = write_delta(tmp_path / "delta", base, make_delta(base), {})
    full = materialise(base, delta, tmp_path / "full")
    inode = (full / "model.safetensors").stat().st_ino
    materialise(base, delta, full)
    assert (full / "model.safetensors").stat().st_ino == inode
    other = write_delta(tmp_path / "other", base, make_delta(base, lora=False), {})
    materialise(base, other, full)
    assert fakes.changed_tensors(base, full) == sorted([TEXT, CODEC, WHOLE])
    (full / "vocab.json").unlink()  # somebody cleaned up
    materialise(base, other, full)
    assert (full / "vocab.json").is_file()


def test_a_folder_that_holds_something_else_is_never_replaced(base, tmp_path):
    delta = write_delta(tmp_path / "delta", base, make_delta(base), {})
    full = materialise(base, delta, tmp_path / "full")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    for out in (mine, base, delta, mine / "thesis.txt"):
        before = sorted(out.glob("*"))
        with pytest.raises(UserError, match="Choose another output folder"):
            materialise(base, delta, out)
        with pytest.raises(UserError, match="Choose another output folder"):
            restore(full, delta, base, out)
        assert sorted(out.glob("*")) == before
    (tmp_path / "empty").mkdir()
    assert (materialise(base, delta, tmp_path / "empty") / "config.json").is_file()


def test_a_delta_of_another_base_is_refused(base, tmp_path):
    delta = write_delta(tmp_path / "delta", base, make_delta(base), {})
    other = fakes.make_tts(tmp_path / "other", fakes.TinyShape(dtype="bfloat16"), seed=1)
    with pytest.raises(UserError, match="does not belong to this Base"):
        materialise(other, delta, tmp_path / "full")
    with pytest.raises(UserError, match="does not belong to this Base"):
        restore(tmp_path / "full", delta, other, tmp_path / "again")


def test_a_checkpoint_that_was_changed_elsewhere_cannot_be_restored(base, tmp_path):
    delta = write_delta(tmp_path / "delta", base, make_delta(base), {})

    def refused(change):
        full = materialise(base, delta, tmp_path / "full")
        change(full)
        with pytest.raises(UserError, match="by this delta only") as caught:
            restore(full, delta, base, tmp_path / "again")
        shutil.rmtree(full)
        assert sorted(os.listdir(tmp_path)) == ["delta"]
        return caught.value.problems[0].found

    def other_speaker(full):
        config = json.loads((full / "config.json").read_text())
        config["talker_config"]["spk_id"] = {"aria": 3}
        (full / "config.json").write_text(json.dumps(config))

    assert "model.safetensors" in refused(lambda full: flip(full / "model.safetensors", -1))
    assert "config.json" in refused(other_speaker)
    assert "more.txt" in refused(lambda full: (full / "more.txt").write_text("x"))
    assert "vocab.json" in refused(lambda full: (full / "vocab.json").unlink())
    assert "model.safetensors" in refused(lambda full: (full / "model.safetensors").unlink())
    assert refused(lambda full: (full / "model.safetensors").write_bytes(b"none"))
    # What the delta itself changed may have any value: it is taken out.
    full = materialise(base, delta, tmp_path / "full")
    values = load_file(full / "model.safetensors")
    values[WHOLE] += 1
    save_file(values, full / "model.safetensors", metadata={"format": "pt"})
    restore(full, delta, base, tmp_path / "again")


def test_a_base_with_facts_of_its_own_gets_them_back(base, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(base, mine)
    (mine / "meta.json").write_text('{"epoch": 9}')
    delta = write_delta(tmp_path / "delta", mine, make_delta(mine), {"epoch": 1})
    full = materialise(mine, delta, tmp_path / "full")
    assert json.loads((full / "meta.json").read_text())["epoch"] == 1
    again = restore(full, delta, mine, tmp_path / "again")
    assert sha256_folder(again) == sha256_folder(mine)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["base", "sharded"])
def test_stock_package_lists_the_language_and_speaks_it(which, request, tmp_path):
    start = request.getfixturevalue(which)
    delta = write_delta(tmp_path / "delta", start, make_delta(start), {})
    full = materialise(start, delta, tmp_path / "full")
    tts = import_qwen_tts().Qwen3TTSModel.from_pretrained(str(full), dtype=torch.float32)
    assert "malay" in tts.get_supported_languages()
    ref = str(fakes.make_wav(tmp_path / "ref.wav", 3.0))

    seen = set()
    table = tts.model.talker.get_input_embeddings()
    table.register_forward_pre_hook(lambda _, ids: seen.update(ids[0].flatten().tolist()))

    def tags(language):
        seen.clear()
        waves, rate_hz = tts.generate_voice_clone(
            "Saya beli payung.", language=language, ref_audio=ref, ref_text="Hai.", **GREEDY
        )
        assert rate_hz == fakes.SAMPLE_RATE_HZ
        assert len(waves[0])
        return seen & {34, 37, TAG}

    assert tags("Malay") == tags("malay") == {TAG}
    assert tags("English") == {34}
    assert tags("Auto") == set()
    stored = dict(iterate_weights(full))
    for name, value in load_tts(full).model.state_dict().items():
        assert torch.equal(value, stored[name].float()), name


def test_changed_tensors_sees_bits_types_and_missing_tensors(base, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(base, other)
    tensors = load_file(other / "model.safetensors")
    tensors[WHOLE] = tensors[WHOLE].float()
    del tensors[LAYER]
    tensors["more"] = torch.ones(1)
    save_file(tensors, other / "model.safetensors")
    assert fakes.changed_tensors(base, other) == sorted([WHOLE, LAYER, "more"])
    assert fakes.changed_tensors(base, base) == []
    save_file({"zero": torch.tensor([0.0, float("nan")])}, other / "model.safetensors")
    again = tmp_path / "again"
    again.mkdir()
    save_file({"zero": torch.tensor([0.0, float("nan")])}, again / "model.safetensors")
    assert fakes.changed_tensors(other, again) == []
    save_file({"zero": torch.tensor([-0.0, float("nan")])}, again / "model.safetensors")
    assert fakes.changed_tensors(other, again) == ["zero"]
