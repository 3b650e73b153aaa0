"""Apple GPUs: taken when asked for; what they lack is named. Tried with a pretended accelerator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from benchmarks import counted

from voxadapt.asr import whisper as recogniser
from voxadapt.core.device import resolve_device
from voxadapt.core.errors import UserError, is_out_of_memory
from voxadapt.core.stage import StageResult, stage
from voxadapt.generation import decoding
from voxadapt.model.load import speaking_dtype
from voxadapt.model.shapes import Shape

SHAPE = Shape(
    "0b6", hidden=64, intermediate=96, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
    text_hidden=16, predictor_hidden=32, predictor_intermediate=48, predictor_layers=1,
    encoder_channels=16,
)  # fmt: skip


def test_an_apple_gpu_is_taken_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no Apple GPU that torch can use"):
        resolve_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = resolve_device("mps")
    assert device == torch.device("mps") and resolve_device("auto").type in ("cpu", "cuda")
    assert speaking_dtype("auto", device) == torch.float32


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (
            NotImplementedError(
                "The operator 'aten::_fancy_op.out' is not implemented for the MPS device."
            ),
            "aten::_fancy_op.out",
        ),
        (TypeError("Cannot convert a MPS Tensor to float64 dtype"), "float64"),
    ],
)
def test_an_operation_that_an_apple_gpu_lacks_is_named(
    error: Exception, found: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path))

    @stage("audit")
    def run() -> StageResult:
        raise error

    with pytest.raises(UserError, match=found):
        run()
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))


def test_whisper_goes_to_an_apple_gpu_in_float32_without_sparse_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = recogniser.whisper.load_model("data/models/whisper/miniature.pt", device="cpu")
    assert model.alignment_heads.is_sparse
    went: list[str] = []
    monkeypatch.setattr(recogniser.whisper, "load_model", lambda name, device: model)
    monkeypatch.setattr(type(model), "to", lambda self, device: went.append(device) or self)
    assert recogniser._load("tiny", "mps") is model
    assert went == ["mps"] and not model.alignment_heads.is_sparse


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """The types of all tensors that are made on the pretended accelerator."""
    seen: set[torch.dtype] = set()
    add = counted.Count.add

    def spy(self: Any, tensor: torch.Tensor, part: str) -> None:
        seen.add(tensor.dtype)
        add(self, tensor, part)

    monkeypatch.setattr(counted.Count, "add", spy)
    return seen


@pytest.mark.slow
def test_training_holds_nothing_in_float64_there(kinds: set[torch.dtype]) -> None:
    given = {"compute_dtype": "float32", "batch_size": 2, "lr": 1e-4}
    counted.train(SHAPE, given, num_frames=12, codec=False)
    assert torch.float32 in kinds and torch.float64 not in kinds


@pytest.mark.slow
def test_speaking_holds_nothing_in_float64_there(kinds: set[torch.dtype]) -> None:
    options: Any = {
        "do_sample": True, "temperature": 0.9, "top_k": 8, "top_p": 0.9,
        "repetition_penalty": 1.05, "subtalker_dosample": True, "subtalker_temperature": 0.9,
        "subtalker_top_k": 8, "subtalker_top_p": 1.0, "min_new_tokens": 2,
        "suppress_tokens": [2149, 2151],
    }  # fmt: skip
    empty = counted.without_data(SHAPE, codec=False)
    with counted.pretended() as count, torch.inference_mode():
        talker = counted.place(empty, counted.GPU, count).model.talker
        options["eos_token_id"] = talker.config.codec_eos_token_id
        room = decoding._Capacity(4, 64, 128, 64)
        frames = decoding._Frames(talker, decoding._FusedWeights(talker), room, options, True)
        frames._load_noise()
        frames._frame()
        frames.results(4)
    assert torch.float32 in kinds and torch.float64 not in kinds
