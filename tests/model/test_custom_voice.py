"""Adapting a CustomVoice model: the encoder of a Base beside it, its speakers and styles kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import fakes
from training.conftest import make_world
from voxadapt.core.errors import UserError
from voxadapt.core.model_folder import read_config, resolve_model
from voxadapt.core.params import ModelParams, TrainParams
from voxadapt.core.speaker_encoder import INDEX, PREFIX
from voxadapt.generation.synthesis import Voice, check_voice
from voxadapt.model.checkpoint import iterate_weights, tensors_sha256
from voxadapt.model.delta import Delta, materialise, write_delta
from voxadapt.model.load import load_tts, speaker_vector, weight_files
from voxadapt.model.shapes import SHAPES, config_values
from voxadapt.tools.apply_delta import apply
from voxadapt.tools.exported import FACTS, SCHEMA
from voxadapt.training.trainer import train


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Base, and a CustomVoice model of other weights with two speakers and no encoder."""
    root = tmp_path_factory.mktemp("custom")
    base = fakes.make_tts(root / "base", fakes.TinyShape(dtype="bfloat16"))
    shape = fakes.TinyShape(dtype="bfloat16", speakers=(("vivian", 700), ("ryan", 701)))
    custom = fakes.make_tts(root / "custom", shape, seed=1)
    weights = load_file(custom / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(PREFIX)}
    save_file(kept, custom / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((custom / "config.json").read_text())
    del config["speaker_encoder_config"]
    config |= {"tts_model_type": "custom_voice", "tts_model_size": "1b7"}
    (custom / "config.json").write_text(json.dumps(config))
    return base, custom


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_world(tmp_path_factory.mktemp("world"), dtype="bfloat16")


@pytest.fixture
def start(folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base, custom = folders
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    return resolve_model(ModelParams(base=str(custom), speaker_encoder=str(base)))


def test_the_start_has_the_models_weights_and_the_bases_encoder(folders: Any, start: Path) -> None:
    base, custom = folders
    found, ours, theirs = (dict(iterate_weights(path)) for path in (start, custom, base))
    encoder = {name: value for name, value in theirs.items() if name.startswith(PREFIX)}
    assert found.keys() == ours.keys() | encoder.keys()
    assert all(torch.equal(found[name], {**ours, **encoder}[name]) for name in found)
    again = resolve_model(ModelParams(base=str(custom), speaker_encoder=str(base)))
    assert again == start
    other = resolve_model(ModelParams(base=str(base), speaker_encoder=str(base)))
    assert other == base, "it has an encoder"


def test_a_delta_of_it_is_applied_with_the_encoder_that_it_had(
    folders: Any, start: Path, tmp_path: Path
) -> None:
    base, custom = folders
    name, delta = "talker.model.text_embedding.weight", tmp_path / "delta"
    rows = (torch.tensor([3]), dict(iterate_weights(start))[name][[3]] + 1)
    write_delta(delta, start, Delta(rows={name: rows}), {"kind": "speaker"})
    whole = materialise(start, delta, tmp_path / "whole")
    facts = {
        "schema": SCHEMA, "form": "delta", "name": "aria", "candidate": "epoch-1", "files": {},
        "provenance": {"tensors_sha256": tensors_sha256(whole)}, "licence": {}, "consent": None,
    }  # fmt: skip
    (delta / FACTS).write_text(json.dumps(facts))
    with pytest.raises(UserError, match="does not belong to this Base"):
        apply(delta, str(custom), tmp_path / "out")
    apply(delta, str(custom), tmp_path / "out", speaker_encoder=str(base))
    assert tensors_sha256(tmp_path / "out") == tensors_sha256(whole)


@pytest.mark.slow
def test_it_clones_with_the_bases_encoder_and_speaks_for_its_own(
    folders: Any, start: Path, tmp_path: Path
) -> None:
    base, _ = folders
    ref = fakes.make_wav(tmp_path / "ref.wav", 3.0)
    vectors = [speaker_vector(load_tts(path, as_base=True), ref) for path in (start, base)]
    assert torch.equal(*vectors)
    assert set(load_tts(start).get_supported_speakers() or []) == {"vivian", "ryan"}


@pytest.mark.slow
def test_a_voice_is_added_and_the_others_and_their_styles_stay(
    start: Path, tmp_path: Path, world: Any
) -> None:
    result = train(
        TrainParams(speaker_name="Aria", batch_size=4, lr=1e-3), model_path=start,
        utterances=world.utterances, codes=world.codes, ref_audio=world.ref,
        out_dir=tmp_path / "out", work_dir=tmp_path / "state", num_epochs=1,
    )  # fmt: skip
    epoch = load_tts(result.checkpoints[0])
    assert set(epoch.get_supported_speakers() or []) == {"vivian", "ryan", "aria"}
    rows = [load_tts(path).model.talker.model.codec_embedding.weight[[700, 701]]
            for path in (start, result.checkpoints[0])]  # fmt: skip
    assert torch.equal(*rows)
    given = []
    original = epoch.model.generate

    def spy(**options: Any) -> Any:
        given.append(options["instruct_ids"])
        return original(**{**options, "max_new_tokens": 4})

    epoch.model.generate = spy
    voice = Voice(speaker="Aria", instruct="in a whisper")
    check_voice(epoch, voice, "Auto")
    epoch.generate_custom_voice("hello", speaker=voice.speaker, instruct=voice.instruct)
    said = epoch.processor.tokenizer.decode(given[0][0][0])
    assert said == "<|im_start|>user\nin a whisper<|im_end|>\n"
    assert voice.sha != Voice(speaker="Aria").sha


def test_an_instruction_that_would_be_ignored_is_refused(folders: Any) -> None:
    base, _ = folders
    tts = load_tts(base)
    with pytest.raises(UserError, match=r"--instruct: expected a named speaker of a 1\.7B"):
        check_voice(tts, Voice(speaker="x", instruct="sadly"), "Auto")


def test_an_encoder_of_another_width_or_none_is_refused(
    folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, custom = folders
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    wide = shutil.copytree(base, tmp_path / "wide")
    config = json.loads((wide / "config.json").read_text())
    config["speaker_encoder_config"]["enc_dim"] = 2048
    (wide / "config.json").write_text(json.dumps(config))
    for other in (wide, custom):
        with pytest.raises(UserError, match="a Base whose speaker encoder has a width of 32"):
            resolve_model(ModelParams(base=str(custom), speaker_encoder=str(other)))
    with pytest.raises(UserError, match=r"model\.speaker_encoder name the Base"):
        load_tts(custom, as_base=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["0.6B", "1.7B"])
def test_at_the_real_shapes_every_tensor_has_its_place(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of the released shapes, their weights holes in a file: nothing is on the disk."""
    from voxadapt.core.compat import import_qwen_tts

    import_qwen_tts()
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

    values = config_values(SHAPES[size])
    with torch.device("meta"):
        model = Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**values))
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    for name, kind in (("base", "base"), ("custom", "custom_voice")):
        folder = tmp_path / name
        folder.mkdir()
        written = {**config_values(SHAPES[size]), "tts_model_type": kind}
        (folder / "config.json").write_text(json.dumps(written))
        header, position = {}, 0
        for tensor, shape in shapes.items():
            if kind == "base" or not tensor.startswith(PREFIX):
                end = position + 2 * torch.Size(shape).numel()
                header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
                position = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / "model.safetensors", "wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + position)
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    params = ModelParams(base=str(tmp_path / "custom"), speaker_encoder=str(tmp_path / "base"))
    start = resolve_model(params)
    assert weight_files(start).keys() == shapes.keys()
    index = json.loads((start / INDEX).read_text())["weight_map"]
    assert {name: (start / file) for name, file in index.items()} == weight_files(start)
    assert read_config(start)["tts_model_type"] == "custom_voice"
