"""Recording a frame of speech: what a CUDA graph would replay, proved without one.

`Recorder` stands in for the graph. It holds every operation with all that Python has computed
fixed, refuses to read a value back, and repeats the operations on the same tensors.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import counted
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from speaking import TEXTS, codes_of
from voxadapt.generation import cuda_graph as capture
from voxadapt.generation import decoding
from voxadapt.model.load import load_tts
from voxadapt.model.shapes import Shape

MINIATURE = Path(__file__).parents[2] / "data/models/base"
SENTENCES = [
    "The cat sat on the warm stone.", "Yes.", "They walked home late in the rain.", "We know.",
    "Is it far?", "He said that the train would be here at noon.",
]  # fmt: skip
READS_BACK = {"item", "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"}


class Recorder(TorchDispatchMode):
    """Record operations while they are done; repeat them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(
            isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool
            for leaf in tree_leaves(args[1] if len(args) > 1 else ())
        )
        if name in READS_BACK or masks:
            raise RuntimeError(f"{func} reads a value back")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.inference_mode()
    def replay(self) -> None:
        now: dict[int, Any] = {}
        for func, args, kwargs, result in self.calls:
            args, kwargs = tree_map_only(
                torch.Tensor, lambda item: now.get(id(item), item), (args, kwargs)
            )
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                now[id(old)] = new


def record(work: Callable[[], None], _: torch.device) -> Callable[[], None]:
    with Recorder() as recorder:
        work()
    return recorder.replay


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let frames be recorded; what is returned grows by one a recording."""
    made: list[int] = []

    def count(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        made.append(1)
        return record(work, device)

    decoding.forget()
    monkeypatch.setattr(decoding, "ROUND", 16)  # what is masked is read all the same
    monkeypatch.setattr(capture, "possible", lambda device: True)
    monkeypatch.setattr(capture, "warm_up", lambda work, device: work())
    monkeypatch.setattr(capture, "record", count)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True], ids=["text first", "streaming"])
def test_greedy_codes_of_a_recording_equal_the_stock_loop(
    tts: Any, streaming: bool, recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"sample": False, "non_streaming_mode": not streaming}
    stock = codes_of(tts, TEXTS, monkeypatch, **fields)
    ours = codes_of(tts, TEXTS, monkeypatch, seeds=range(4), **fields)
    assert all(torch.equal(a, b) for a, b in zip(ours, stock, strict=True))
    assert len(recorded) == 3  # four rows, two, one
    decoding.forget()


@pytest.mark.slow
def test_a_recording_says_what_the_loop_says_and_serves_later_batches(
    recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tts = load_tts(MINIATURE)
    batches = [
        (SENTENCES, range(6), [60, 20, 60, 30, 4, 60]),
        (SENTENCES[2:4], [8, 9], [40, 61]),
        (SENTENCES[:5], range(50, 55), [35] * 5),
    ]
    fields = {"sample": True, "top_p": 0.9}
    said = [
        codes_of(tts, texts, monkeypatch, seeds=seeds, limits=limits, **fields)
        for texts, seeds, limits in batches
    ]
    assert len(recorded) == 4  # six rows, three, two, one: once for all batches
    assert len({len(item) for item in said[0]}) > 2  # rows left at different places
    decoding.forget()
    monkeypatch.setattr(capture, "possible", lambda device: False)
    for (texts, seeds, limits), codes in zip(batches, said, strict=True):
        wanted = codes_of(tts, texts, monkeypatch, seeds=seeds, limits=limits, **fields)
        assert all(torch.equal(a, b) for a, b in zip(codes, wanted, strict=True))
    assert len(recorded) == 4


@pytest.mark.slow
def test_other_weights_and_other_sampling_are_recorded_anew(
    tts: Any, recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"sample": False, "seeds": [0], "limits": 8}
    before = codes_of(tts, TEXTS[:1], monkeypatch, **fields)
    codes_of(tts, TEXTS[:1], monkeypatch, **fields, repetition_penalty=1.3)
    assert len(recorded) == 2
    weight = tts.model.talker.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight.mul_(-3.0)
        try:
            after = codes_of(tts, TEXTS[:1], monkeypatch, **fields)
        finally:
            weight.div_(-3.0)
    assert len(recorded) == 3 and not torch.equal(before[0], after[0])
    decoding.forget()


def reads_back(work: Callable[[], None], _: torch.device) -> Callable[[], None]:
    raise RuntimeError("operation not permitted when stream is capturing")


def does_nothing(work: Callable[[], None], _: torch.device) -> Callable[[], None]:
    return lambda: None


@pytest.mark.parametrize("broken", [reads_back, does_nothing])
def test_a_recording_that_fails_or_differs_is_not_used(
    tts: Any, broken: Any, recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "record", broken)
    fields = {"sample": True, "seeds": range(4), "limits": 12}
    with pytest.warns(RuntimeWarning, match="could not be recorded"):
        codes = codes_of(tts, TEXTS, monkeypatch, **fields)
    codes_of(tts, TEXTS, monkeypatch, **fields)  # said once: a second warning would be an error
    decoding.forget()
    monkeypatch.setattr(capture, "possible", lambda device: False)
    wanted = codes_of(tts, TEXTS, monkeypatch, **fields)
    assert all(torch.equal(a, b) for a, b in zip(codes, wanted, strict=True))


@pytest.mark.parametrize("inference", [False, True])
def test_reading_a_value_back_is_noticed(inference: bool) -> None:
    values = torch.arange(3)
    for work in (lambda: int(values.sum()), lambda: values[values > 1], lambda: values.nonzero()):
        with (
            torch.inference_mode(inference),
            pytest.raises(RuntimeError, match="reads a value back"),
        ):
            record(work, values.device)


@pytest.mark.slow
def test_what_was_recorded_is_freed_at_once(
    tts: Any, recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes_of(tts, TEXTS[:1], monkeypatch, sample=False, seeds=[0], limits=8)
    assert recorded
    joined = decoding.fused_weights(tts.model.talker)
    alive = weakref.ref(joined.recorded)
    del joined
    gc.disable()
    try:
        decoding.forget()
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_frame_on_a_gpu_mixes_no_devices_and_waits_for_nothing() -> None:
    shape = Shape(
        "0b6", hidden=64, intermediate=96, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
        text_hidden=16, predictor_hidden=32, predictor_intermediate=48, predictor_layers=1,
        encoder_channels=16,
    )  # fmt: skip
    options = {
        "do_sample": True, "temperature": 0.9, "top_k": 8, "top_p": 0.9,
        "repetition_penalty": 1.05, "subtalker_dosample": True, "subtalker_temperature": 0.9,
        "subtalker_top_k": 8, "subtalker_top_p": 1.0, "min_new_tokens": 2,
        "suppress_tokens": [2149, 2151],
    }  # fmt: skip
    empty = counted.without_data(shape, codec=False)
    empty[0].to(torch.bfloat16)
    with counted.pretended() as count, torch.inference_mode():
        talker = counted.place(empty, counted.GPU, count).model.talker
        options["eos_token_id"] = talker.config.codec_eos_token_id
        room = decoding._Capacity(4, 64, 128, 64)
        frames = decoding._Frames(talker, decoding._FusedWeights(talker), room, options, True)
        frames._load_noise()
        count.waits.clear()
        for slots in (4, 2, 1):
            frames._use(slots)
            frames._frame()
        assert not count.waits
        frames._keep(1)
        frames.results(4)
    assert {place for _, place in count.waits} <= {"decoding.py:results"}
