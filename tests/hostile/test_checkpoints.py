"""Hostile models, recognisers and records of scores: nothing in them is run, all is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resemblyzer
import torch
from safetensors.numpy import save
from safetensors.torch import load_file, save_file
from whisper.model import ModelDimensions, Whisper

from fakes import make_tts
from rows import make_system
from voxadapt.asr.whisper import load_whisper
from voxadapt.core.errors import UserError
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import ModelParams
from voxadapt.data.manifest import read_manifest
from voxadapt.model.delta import read_delta
from voxadapt.model.load import load_speech_tokenizer, load_tts
from voxadapt.scoring import similarity
from voxadapt.scoring.rows import read_scores, serialise_rows


class Bomb:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.path.join(os.environ["BOMB"], "exploded"),)


@pytest.fixture(autouse=True)
def nothing_explodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whatever a test reads, no pickle of it may run."""
    fuse = tmp_path / "fuse"
    fuse.mkdir()
    monkeypatch.setenv("BOMB", str(fuse))
    yield
    assert list(fuse.iterdir()) == [], "a pickle was run"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tts(tmp_path_factory.mktemp("hostile") / "base")


def told(error: UserError) -> str:
    for problem in error.problems:
        assert problem.where and problem.expected and problem.found and problem.fix
        assert len(str(problem)) < 2000
    return str(error)


def edit_json(name: str, **change: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        for key, value in change.items():
            if value is ...:
                values.pop(key, None)
            else:
                values[key] = value
        (folder / name).write_text(json.dumps(values))

    return edit


def put(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def cut(name: str, share: float) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return edit


def remove(*names: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for name in names:
            for path in folder.glob(name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return edit


def tensors(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def pickled(name: str, instead_of: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / instead_of).unlink()
        (folder / name).write_bytes(pickle.dumps(Bomb()))

    return edit


def wrong_shape(found: dict[str, Any]) -> None:
    name = "talker.model.codec_embedding.weight"
    found[name] = found[name][:, :-3].clone()


def no_layer(found: dict[str, Any]) -> None:
    for name in [name for name in found if "layers.1" in name]:
        del found[name]


HUGE_HEADER = (2**40).to_bytes(8, "little") + b"{}"
LYING_HEADER = json.dumps(
    {"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}
).encode()
MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (remove("config.json"), "config.json"),
    "empty config": (put("config.json", b""), "config.json"),
    "config is a list": (put("config.json", b"[]"), "config.json"),
    "config nested 100,000 deep": (put("config.json", b"[" * 100_000), "config.json"),
    "config in UTF-16": (put("config.json", "{}".encode("utf-16")), "config.json"),
    "another model": (edit_json("config.json", model_type="llama"), "'llama'"),
    "another kind": (edit_json("config.json", tts_model_type="magic"), "'magic'"),
    "talker_config is text": (edit_json("config.json", talker_config="x"), "qwen_tts"),
    "talker_config is missing": (edit_json("config.json", talker_config=...), "The model"),
    "code in the config": (edit_json("config.json", auto_map={"AutoModel": "x.Y"}), "auto_map"),
    "code in the tokenizer": (
        edit_json("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}), "auto_map",
    ),
    "code in the codec": (
        edit_json("speech_tokenizer/config.json", auto_map={"AutoModel": "x.Y"}), "auto_map",
    ),
    "no tokenizer": (remove("tokenizer*", "vocab*", "merges*"), "cannot be loaded"),
    "torn tokenizer": (cut("tokenizer.json", 0.5), "cannot be loaded"),
    "no weights": (remove("model.safetensors"), "cannot be loaded"),
    "empty weights": (put("model.safetensors", b""), "safetensors"),
    "truncated weights": (cut("model.safetensors", 0.6), "safetensors"),
    "only a header": (cut("model.safetensors", 0.001), "safetensors"),
    "header of a terabyte": (put("model.safetensors", HUGE_HEADER), "safetensors"),
    "offsets beyond the end": (
        put("model.safetensors", len(LYING_HEADER).to_bytes(8, "little") + LYING_HEADER),
        "safetensors",
    ),
    "pickle called safetensors": (put("model.safetensors", pickle.dumps([1])), "safetensors"),
    "pickle bomb": (pickled("pytorch_model.bin", "model.safetensors"), "can run code"),
    "pickle bomb for the codec": (
        pickled("speech_tokenizer/pytorch_model.bin", "speech_tokenizer/model.safetensors"),
        "can run code",
    ),
    "mismatched shape": (tensors(wrong_shape), "cannot be loaded"),
    "missing layer": (tensors(no_layer), "missing"),
    "no codec": (remove("speech_tokenizer"), "cannot be loaded"),
    "truncated codec": (cut("speech_tokenizer/model.safetensors", 0.5), "cannot be loaded"),
    "no generation config": (remove("generation_config.json"), "cannot be loaded"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_model(base: Path, tmp_path: Path, name: str) -> None:
    damage, message = MODELS[name]
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_tts(folder, as_base=True)
    assert message in told(caught.value)
    assert str(folder) in told(caught.value)


@pytest.mark.parametrize("name", [name for name in MODELS if "codec" in name])
def test_codec_alone(base: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    MODELS[name][0](folder)
    with pytest.raises(UserError, match="speech_tokenizer"):
        load_speech_tokenizer(folder)


@pytest.mark.parametrize("name", ["", "no/such/folder/at/all", "a b", "../x", "/dev/null", "x\0y"])
def test_model_that_is_nowhere(name: str) -> None:
    with pytest.raises(UserError, match=r"model\.base|config\.json"):
        load_tts(resolve_model(ModelParams.model_construct(base=name, revision=None)))


# --- recognisers and the speaker encoder -------------------------------------------------------

DIMS = {"n_mels": 80, "n_audio_ctx": 10, "n_audio_state": 8, "n_audio_head": 2,
        "n_audio_layer": 1, "n_vocab": 51865, "n_text_ctx": 8, "n_text_state": 8,
        "n_text_head": 2, "n_text_layer": 1}  # fmt: skip


def without_numbers(path: Path) -> None:
    state = Whisper(ModelDimensions(**DIMS)).state_dict()
    state["decoder.ln.weight"] *= float("nan")
    torch.save({"dims": DIMS, "model_state_dict": state}, path)


WHISPERS: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: path.write_text("no weights"),
    "empty": lambda path: path.write_bytes(b""),
    "pickle bomb": lambda path: path.write_bytes(pickle.dumps(Bomb())),
    "bomb in torch's format": lambda path: torch.save({"dims": DIMS, "x": Bomb()}, path),
    "list": lambda path: torch.save([1, 2], path),
    "no dims": lambda path: torch.save({"model_state_dict": {}}, path),
    "no weights": lambda path: torch.save({"dims": DIMS, "model_state_dict": {}}, path),
    "unknown dims": lambda path: torch.save({"dims": DIMS | {"x": 1}}, path),
    "huge dims": lambda path: torch.save({"dims": DIMS | {"n_vocab": 10**15}}, path),
    "negative dims": lambda path: torch.save({"dims": DIMS | {"n_text_ctx": -1}}, path),
    "archive": lambda path: zipfile.ZipFile(path, "w").close(),
    "weights that are no numbers": without_numbers,
}


@pytest.mark.parametrize("name", WHISPERS)
def test_recogniser(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.pt"
    WHISPERS[name](path)
    with pytest.raises(UserError, match=r"model\.pt") as caught:
        load_whisper(path)
    assert "cannot be read" in told(caught.value)


def test_speaker_encoder_that_is_no_plain_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the environment tells torch to unpickle everything."""
    torch.save({"model_state": Bomb()}, tmp_path / "pretrained.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setattr(resemblyzer, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(pickle.UnpicklingError):
        similarity.Embedder()


# --- what stages left --------------------------------------------------------------------------


def rows_file(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        text = serialise_rows(make_system("base", 3, 1))
        values = [json.loads(line) for line in text.splitlines()]
        change(values)
        path.write_text("".join(json.dumps(row) + "\n" for row in values))

    return write


SCORES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "torn line": (lambda path: path.write_text('{"candidate": "ba'), "rows.jsonl:1"),
    "NaN": (rows_file(lambda rows: rows[1].update(sim=float("nan"))), "rows.jsonl:2"),
    "infinite": (rows_file(lambda rows: rows[1].update(duration_s=1e999)), "rows.jsonl:2"),
    "negative count": (rows_file(lambda rows: rows[1].update(word_hits=-1)), "rows.jsonl:2"),
    "no words": (rows_file(lambda rows: rows[0].update(ref_words=0)), "rows.jsonl:1"),
    "extra field": (rows_file(lambda rows: rows[2].update(x=1)), "rows.jsonl:3"),
    "row twice": (rows_file(lambda rows: rows.append(rows[0])), "one row"),
    "two candidates": (rows_file(lambda rows: rows[0].update(candidate="x")), "one candidate"),
    "two recognisers": (rows_file(lambda rows: rows[0].update(asr_id="x")), "asr_id"),
    "wrong encoding": (lambda path: path.write_bytes(b"\xff\xfe{}"), "score rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCORES)
def test_scores(tmp_path: Path, name: str) -> None:
    write, message = SCORES[name]
    write(tmp_path / "rows.jsonl")
    with pytest.raises(UserError) as caught:
        read_scores(tmp_path)
    assert message in told(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1]\n", b'{"id": "a"}\n', b"\xff", b"{}{}\n"])
def test_accepted_manifest(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(content)
    if not content:
        assert read_manifest(path) == []
        return
    with pytest.raises(UserError, match="voxadapt audit"):
        read_manifest(path)


@pytest.mark.parametrize("damage", ["nothing", "text", "pickle", "list"])
def test_delta(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "delta"
    folder.mkdir()
    for file in ("delta.safetensors", "meta.json") if damage != "nothing" else ():
        data = {"text": b"x", "pickle": pickle.dumps(Bomb()), "list": b"[]"}[damage]
        (folder / file).write_bytes(data)
    with pytest.raises(UserError, match="delta"):
        read_delta(folder)


@pytest.mark.parametrize("metadata", [None, {"voice": "[]"}, {"voice": "{}"}, {"voice": "x"}])
def test_a_voice_is_no_pickle_and_names_its_clips(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "voice.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="not a voice"):
        similarity.VoiceReference.read(path)
    path.write_bytes(save({"embeddings": np.zeros((2, 256), np.float32)}, metadata))
    with pytest.raises(ValueError, match=r"voice|ids|Expecting"):
        similarity.VoiceReference.read(path)
