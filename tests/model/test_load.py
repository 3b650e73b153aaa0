from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import fakes
from voxadapt.core.device import resolve_device
from voxadapt.core.errors import UserError
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import ModelParams, ScoreParams
from voxadapt.model.load import load_tts, speaker_vector, speaking_dtype


def test_a_local_folder_is_used_as_it_is(base_dirs):
    assert resolve_model(ModelParams(base=str(base_dirs[24]))) == base_dirs[24]


def test_a_missing_folder_says_what_and_how_to_point_elsewhere():
    with pytest.raises(UserError) as caught:
        resolve_model(ModelParams(base="data/models/nowhere"))
    message = str(caught.value)
    assert "data/models/nowhere" in message
    assert "model.base" in message
    assert "dvc pull" in message


def test_weights_that_cannot_be_fetched_say_what_from_where_and_the_way_out(monkeypatch):
    import huggingface_hub

    def offline(*_args, **_kwargs):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError) as caught:
        resolve_model(ModelParams(base="Qwen/Qwen3-TTS-12Hz-1.7B-Base", revision="abc123"))
    (problem,) = caught.value.problems
    assert "Qwen/Qwen3-TTS-12Hz-1.7B-Base at revision abc123" in problem.expected
    assert "https://huggingface.co/Qwen" in problem.expected
    assert "Set model.base to a folder" in problem.fix


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    for wrong in ("gpu", "cuda:99", "cuda:x"):
        with pytest.raises(UserError, match="usable CUDA"):
            resolve_device(wrong)


@pytest.mark.parametrize("values", [{"model_type": "qwen2"}, {"model_type": "qwen3_tts"}, []])
def test_another_kind_of_model_is_refused(tmp_path, values):
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"config\.json"):
        load_tts(tmp_path)


def test_missing_weights_are_named_instead_of_left_random(tmp_path, base_dirs):
    folder = tmp_path / "model"
    shutil.copytree(base_dirs[24], folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["talker.text_projection.linear_fc1.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 missing \(talker\.text_projection"):
        load_tts(folder)


def test_damaged_weights_are_a_user_error(tmp_path, base_dirs):
    folder = tmp_path / "model"
    shutil.copytree(base_dirs[24], folder)
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_tts(folder)


def test_speaker_vector_is_fp32_repeatable_and_that_of_stock_cloning(tmp_path, models):
    tts = models[24]
    ref = fakes.make_wav(tmp_path / "ref.wav", 3.0, sample_rate_hz=16_000)
    vector = speaker_vector(tts, ref)
    assert vector.dtype == torch.float32
    assert not vector.is_inference()
    assert torch.equal(vector, speaker_vector(tts, ref))
    (prompt,) = tts.create_voice_clone_prompt(str(ref), x_vector_only_mode=True)
    torch.testing.assert_close(vector, prompt.ref_spk_embedding.clone())


def test_unreadable_reference_audio_is_a_user_error(tmp_path, models):
    (tmp_path / "ref.wav").write_text("no audio")
    with pytest.raises(UserError, match=r"ref\.wav"):
        speaker_vector(models[24], tmp_path / "ref.wav")


def test_weights_that_could_run_code_are_named_and_not_loaded(tmp_path, base_dirs):
    folder = tmp_path / "model"
    shutil.copytree(base_dirs[24], folder)
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "optimizer.pt"):
        (folder / name).write_text("{}")
    with pytest.raises(UserError) as caught:
        load_tts(folder)
    (problem,) = caught.value.problems
    assert problem.found.startswith("optimizer.pt, pytorch_model.bin, which can run code")


@pytest.mark.parametrize(
    ("wanted", "device", "has_it", "found"),
    [
        ("auto", "cpu", True, torch.float32),
        ("auto", "cuda", True, torch.bfloat16),
        ("auto", "cuda", False, torch.float32),
        ("bfloat16", "cpu", False, torch.bfloat16),
        ("float32", "cuda", True, torch.float32),
    ],
)
def test_type_of_the_weights_that_speak(
    wanted: str, device: str, has_it: bool, found: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_it)
    score = ScoreParams.model_validate({"dtype": wanted})
    assert speaking_dtype(score.dtype, torch.device(device)) is found
