"""A fine-tuned Whisper in Hugging Face form is openai's model under other names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import whisper
from safetensors.torch import load_file, save_file

from sounds import make_voice, write
from voxadapt.asr.huggingface import load_folder
from voxadapt.asr.whisper import Transcriber, load_whisper
from voxadapt.core.errors import UserError

SIZES = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "max_source_positions": 250, "max_target_positions": 448,
}  # fmt: skip


def make_model(vocab_size: int = 51865, num_mel_bins: int = 80) -> torch.nn.Module:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(3)
    config = WhisperConfig(vocab_size=vocab_size, num_mel_bins=num_mel_bins, **SIZES)
    return WhisperForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "whisper-of-mine"
    make_model().save_pretrained(path)
    return path


def same_logits(theirs: torch.nn.Module, ours: whisper.Whisper, num_mel_bins: int) -> None:
    mel = torch.randn(2, num_mel_bins, 500, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([[50258, 50259, 50359, 11, 220], [50258, 50260, 50359, 7, 8]])
    with torch.no_grad():
        expected = theirs(input_features=mel, decoder_input_ids=tokens).logits
        found = ours(mel, tokens)
    torch.testing.assert_close(found, expected[..., : found.shape[-1]], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("added", [0, 7])
def test_the_same_logits(tmp_path: Path, mels: int, added: int) -> None:
    num_tokens = 51865 if mels == 80 else 51866
    theirs = make_model(num_tokens + added, mels)
    theirs.save_pretrained(tmp_path)
    ours, sha = load_folder(tmp_path)
    same_logits(theirs, ours, mels)
    assert ours.dims.n_vocab == num_tokens and ours.num_languages == (99 if mels == 80 else 100)
    assert len(sha) == 64 and load_folder(tmp_path)[1] == sha


@pytest.mark.slow
def test_shards_halves_and_pickled_tensors(tmp_path: Path, folder: Path) -> None:
    theirs = make_model()
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="1MB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    same_logits(theirs, load_folder(tmp_path / "shards")[0], 80)
    pickled = tmp_path / "pickled"
    theirs.save_pretrained(pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), pickled / "pytorch_model.bin")
    same_logits(theirs, load_folder(pickled)[0], 80)
    half = tmp_path / "half"
    theirs.half().save_pretrained(half)
    assert load_folder(half)[0].decoder.token_embedding.weight.dtype == torch.float32


@pytest.mark.slow
def test_it_transcribes(tmp_path: Path, folder: Path) -> None:
    clip = write(tmp_path / "clip.wav", make_voice(1.0, 120, 1))
    transcriber = Transcriber(folder, "Mandarin")
    (found,) = transcriber.transcribe([clip], ["one two"])
    assert found.lid is not None and transcriber.asr_id.startswith("whisper:whisper-of-mine+")
    assert "/zh/" in transcriber.asr_id


def config(path: Path, **changed: object) -> None:
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(values | changed))


def index(path: Path, content: str) -> None:
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(content)


def drop_a_weight(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    weights.pop(next(name for name in weights if "fc1" in name))
    save_file(weights, path / "model.safetensors")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "another model": (lambda path: config(path, model_type="bert"), "type 'bert'"),
    "no config": (lambda path: (path / "config.json").unlink(), "config.json"),
    "config of no model": (lambda path: (path / "config.json").write_text("[]"), "config.json"),
    "a size missing": (lambda path: config(path, d_model=None), "config.json"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "no weights"),
    "torn index": (lambda path: index(path, "{"), "index"),
    "index of nothing": (lambda path: index(path, "[]"), "index"),
    "index of other shards": (lambda path: index(path, '{"weight_map": {"a": "b.bin"}}'), "Error"),
    "torn weights": (lambda path: (path / "model.safetensors").write_bytes(b"x" * 50), "Error"),
    "other sizes": (lambda path: config(path, d_model=32), "Error"),
    "a weight missing": (drop_a_weight, "Missing key"),
    "adapter": (
        lambda path: [(path / "config.json").unlink(),
                      (path / "adapter_config.json").write_text("{}")], "adapter",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",  # the first imports the classes of the other model
    [pytest.param(name, marks=pytest.mark.slow) if name == "another model" else name
     for name in BROKEN],
)  # fmt: skip
def test_a_broken_folder_is_a_table(tmp_path: Path, name: str) -> None:
    make_model().save_pretrained(tmp_path)
    change, found = BROKEN[name]
    change(tmp_path)
    with pytest.raises(UserError) as caught:
        load_whisper(tmp_path)
    (problem,) = caught.value.problems
    assert problem.where == f"asr.model: {tmp_path}" and found in problem.found and problem.fix


def test_a_hub_id_that_cannot_be_had_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import reset_sessions

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    reset_sessions()  # a session that is there already may go online
    with pytest.raises(UserError, match="could not be fetched"):
        load_whisper("nobody/no-such-whisper")
    reset_sessions()  # and this one could not any more
