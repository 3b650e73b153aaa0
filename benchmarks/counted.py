"""Peak memory of training on a GPU, counted where there is none, beside what the plan says.

    python -m benchmarks.counted [--adapter]

The training loop runs as it is, at the real shapes, on a pretended GPU: torch's fake tensors know
their shape, type and device, and hold nothing. Every storage that an operation makes is counted
from then until the last tensor that looks at it is gone, rounded up to 512 bytes as torch's
allocator does. What is on the CPU is real; an operation that mixes the two ends the run, and
wherever the host reads a value of the device, which on a GPU waits for it, the place is noted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from benchmarks.gpu import BARS_GB, COUNTED, FRAMES, MODES, said_bytes
from benchmarks.memory import LOW, WORDS, measure, within
from benchmarks.results import table, write_section
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.params import ModelParams, TrainParams
from voxadapt.model.shapes import SHAPES, Shape, config_values
from voxadapt.model.tokens import SpecialIds
from voxadapt.tools.memory import PROCESS_BYTES
from voxadapt.tools.plan import find_config
from voxadapt.training import optimizer as compact
from voxadapt.training import trainer as loop
from voxadapt.training.adaptations import speaker

GPU = "cuda:0"
BLOCK_BYTES = 512  # of torch's CUDA allocator
#: Further modes of the 0.6B, for the plan alone.
FURTHER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("float32 products", {"batch_size": 4}),
    ("float32 masters, checkpointed",
     {"compute_dtype": "bfloat16", "batch_size": 8, "gradient_checkpointing": True}),
    ("float32 masters, accumulated",
     {"compute_dtype": "bfloat16", "batch_size": 4, "gradient_accumulation_steps": 2}),
    ("float32 masters, text frozen",
     {"compute_dtype": "bfloat16", "batch_size": 8, "frozen": ["talker.model.text_embedding"]}),
    ("bfloat16 weights alone",
     {"compute_dtype": "bfloat16", "master_weights": False, "batch_size": 4}),
    ("low memory, accumulated",
     {**LOW, "batch_size": 2, "gradient_accumulation_steps": 2}),
)  # fmt: skip
#: `train.method: lora`, and what it may take of a 1.7B.
ADAPTER = {"method": "lora", "compute_dtype": "bfloat16", "batch_size": 4}
ADAPTER_BAR_GB = 10
STEPS = 2  # the first makes the optimizer's state
HEADER = ["training", "plan", "counted", "ratio", "weights", "optimizer", "gradients",
          "activations", "at most"]  # fmt: skip
_META = torch.device("meta")
_ATEN = torch.ops.aten
_COPIES = {_ATEN._to_copy.default, _ATEN.copy_.default}
_PRODUCTS = {
    _ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default,
    _ATEN.convolution.default,
}  # fmt: skip


@dataclass
class Count:
    """What is alive, and the most that ever was.

    Attributes:
        device: Kind of device that is counted.
        parts: Bytes that are alive, by what they are for.
        peak: Largest sum.
        moments: The largest sum of each moment of a step, and its parts.
        moment: The moment that it is.
        part: What new storages are for.
        waits: How often the host waited for the device, by moment and place.
    """

    device: str
    parts: Counter[str] = field(default_factory=Counter)
    peak: int = 0
    moments: dict[str, tuple[int, dict[str, int]]] = field(default_factory=dict)
    moment: str = "loading"
    part: str = "weights"
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    _total: int = 0
    _alive: dict[int, tuple[int, str, Any]] = field(default_factory=dict)

    def add(self, tensor: Tensor, part: str) -> None:
        """Count the storage of a tensor, unless it is counted already."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        self._alive[key] = size, part, weakref.ref(storage, partial(self._gone, key))
        self.parts[part] += size
        self._total += size
        self.peak = max(self.peak, self._total)
        if self._total > self.moments.get(self.moment, (0,))[0]:
            self.moments[self.moment] = self._total, dict(self.parts)

    def part_of(self, tensor: Tensor) -> str | None:
        """Return what a tensor's storage is for; None if it was never counted."""
        found = self._alive.get(tensor.untyped_storage()._cdata)
        return found[1] if found else None

    def file(self, tensor: Tensor, part: str) -> None:
        """Say what a storage that is alive is for."""
        key = tensor.untyped_storage()._cdata
        size, old, reference = self._alive[key]
        self._alive[key] = size, part, reference
        self.parts[old] -= size
        self.parts[part] += size

    def settle(self, old: str, new: str) -> None:
        """Say so of all storages of a part."""
        for key, (size, part, reference) in self._alive.items():
            if part == old:
                self._alive[key] = size, new, reference
        self.parts[new] += self.parts.pop(old, 0)

    def wait(self) -> None:
        """Note that the host reads a value of the device, and where."""
        frame = sys._getframe(1)
        while any(f"/{part}/" in frame.f_code.co_filename for part in ("torch", "benchmarks")):
            assert frame.f_back is not None
            frame = frame.f_back
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
        self.waits[self.moment, place] += 1

    def _gone(self, key: int, _reference: object) -> None:
        size, part, _ = self._alive.pop(key)
        self.parts[part] -= size
        self._total -= size


class Counted(TorchDispatchMode):
    """Counts what operations make on a device; a GPU's are pretended, a CPU's are real."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return _META
        kwargs = dict(kwargs or {})
        if torch.is_inference_mode_enabled():  # what is made of other operations arrives whole
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if self.count.device == "cuda":
            made = self._pretend(func, args, kwargs, tensors)
        else:
            made = func(*args, **kwargs)
        part = self.count.part
        if func is _ATEN._to_copy.default and self.count.part_of(tensors[0]) == "weights":
            part = "casts" if part == "activations" else part
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.device.type == self.count.device:
                self.count.add(leaf, part)
        return made

    def _pretend(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
        """Run an operation: on the CPU, or as if on the GPU."""
        fake = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        target = kwargs.get("device")
        kind = None if target is None else torch.device(target).type
        if not fake and kind not in ("cuda", "meta"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is _ATEN._local_scalar_dense.default:
            self.count.wait()
            return {torch.bool: True}.get(fake[0].dtype, 1.0 if fake[0].is_floating_point() else 1)
        if func is _ATEN._to_copy.default and fake and kind == "cpu":
            self.count.wait()
            with unset_fake_temporarily():
                return torch.ones(fake[0].shape, dtype=kwargs.get("dtype") or fake[0].dtype)
        if func is _ATEN._to_copy.default and fake and kind == "cuda":
            if kwargs.get("dtype") in (None, fake[0].dtype):  # it is there already
                return _ATEN.alias.default(fake[0])
        mixed = [t for t in tensors if t.ndim and not isinstance(t, FakeTensor)]
        if mixed and func not in _COPIES:
            raise RuntimeError(f"{func} mixes the GPU with tensors of the CPU: {mixed[0].shape}")
        if func in _PRODUCTS and torch.is_autocast_enabled("cuda"):
            # Autocast does not see fake tensors: `_Kernels` casts what comes to it.
            assert all(tensor.dtype != torch.float32 for tensor in tensors), func
        if "generator" in kwargs:
            kwargs["generator"] = None  # there is none for a device that is not there
        return func(*args, **kwargs)


class _Fake(FakeTensorMode):
    """Fake tensors whose device is seen by Python alone.

    Autograd asks a device that it knows for streams, and a build of torch for CPUs has none for a
    GPU; tensors without data it takes as they are.
    """

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return _META
        if kwargs and kwargs.get("device") == _META:  # as autograd was told
            kwargs = {**kwargs, "device": torch.device(GPU)}
        return super().dispatch(func, types, args, kwargs)


class _Generator(torch.Generator):
    """A generator of the CPU for a device that is not there."""

    def __new__(cls, device: object = None) -> _Generator:
        return super().__new__(cls)


class _Kernels:
    """Chooses what a GPU would choose: the type of products, and how attention is computed."""

    def __init__(self) -> None:
        self._cast: dict[int, tuple[Tensor, Tensor]] = {}
        self._linear, self._attention = functional.linear, functional.scaled_dot_product_attention

    def linear(self, *given: Any, **named: Any) -> Tensor:
        """Do what `torch.nn.functional.linear` does."""
        return self._linear(*self._lowered(given), **named)

    def attention(self, *given: Any, **named: Any) -> Tensor:
        """Do what `torch.nn.functional.scaled_dot_product_attention` does."""
        if not isinstance(given[0], FakeTensor):
            return self._attention(*given, **named)
        return _attention(*self._lowered(given), **named)

    def forget(self) -> None:
        """Drop the weights that autocast has kept in its type."""
        self._cast.clear()

    def _lowered(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if not torch.is_autocast_enabled("cuda") or not isinstance(given[0], FakeTensor):
            return given
        return tuple(self._lower(one) if isinstance(one, Tensor) else one for one in given)

    def _lower(self, tensor: Tensor) -> Tensor:
        kind = torch.get_autocast_dtype("cuda")
        if tensor.dtype != torch.float32:
            return tensor
        kept = tensor.is_leaf and tensor.requires_grad and torch.is_autocast_cache_enabled()
        if not kept:
            return tensor.to(kind)
        if id(tensor) not in self._cast:
            self._cast[id(tensor)] = tensor, tensor.to(kind)
        return self._cast[id(tensor)][1]


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attend as torch does on a GPU: flash attention takes 16-bit values and no mask."""
    if attn_mask is None and query.dtype in (torch.bfloat16, torch.float16):
        return _ATEN._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )[0]
    return _ATEN._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )[0]


@contextlib.contextmanager
def pretended() -> Iterator[Count]:
    """Let a GPU be there: tensors on `GPU` are fake, and those that operations make are counted."""
    count, kernels = Count("cuda"), _Kernels()
    compact._levels.cache_clear()
    clear = torch.clear_autocast_cache

    def forget() -> None:
        kernels.forget()
        clear()

    try:
        with (
            mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
            mock.patch("torch.cuda.is_bf16_supported", return_value=True),
            mock.patch("torch.clear_autocast_cache", forget),
            mock.patch.object(FakeTensor, "tolist", lambda self: self.to("cpu").tolist()),
            mock.patch("torch.Generator", _Generator),
            mock.patch.object(compact, "range", _few, create=True),
            mock.patch.object(functional, "linear", kernels.linear),
            mock.patch.object(nn.Module, "to", _moved),
            mock.patch.object(functional, "scaled_dot_product_attention", kernels.attention),
            _Fake(allow_non_fake_inputs=True),
            Counted(count),
        ):
            yield count
    finally:
        compact._levels.cache_clear()


def _moved(
    module: nn.Module, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """Move a module as `to` does, which does not work with fake tensors; values mean nothing."""
    for part in module.modules():
        for name, p in part.named_parameters(recurse=False):
            if device not in (None, p.device) or dtype not in (None, p.dtype):
                new = torch.zeros(p.shape, dtype=dtype or p.dtype, device=device or p.device)
                part._parameters[name] = nn.Parameter(new, p.requires_grad)
    return module


def _few(start: int, stop: int, step: int) -> list[int]:
    """Of the chunks that are updated one after another, take three: the others come and go alike.

    While the second is worked on, some of the first is still there.
    """
    chunks = range(start, stop, step)
    return [*chunks[:2], *chunks[2:][-1:]]


@contextlib.contextmanager
def real() -> Iterator[Count]:
    """Count what operations make on the CPU."""
    count = Count("cpu")
    with Counted(count):
        yield count


def without_data(shape: Shape, codec: bool = True) -> list[Any]:
    """Make a Base model, and the released codec if asked, on torch's meta device."""
    import_qwen_tts()
    from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

    config = Qwen3TTSConfig(**config_values(shape))
    config._attn_implementation = "sdpa"
    # As in voxadapt.tools.plan: the package's defaults and two sizes that it leaves out.
    voice = Qwen3TTSTokenizerV2Config(decoder_config={"codebook_dim": 512, "head_dim": 64})
    with torch.device("meta"):
        model = Qwen3TTSForConditionalGeneration(config)
        return [model, Qwen3TTSTokenizerV2Model(voice)] if codec else [model]


def place(empty: list[Any], device: str, count: Count) -> Any:
    """Put them on a device, as they are loaded; return what the loop asks of a loaded model."""
    model = empty.pop(0)
    _place(model, device)
    if empty:
        count.part = "codec"
        _place(empty[0], device)
        count.part = "weights"
        model.load_speech_tokenizer(SimpleNamespace(model=empty.pop()))
    ids = SpecialIds.from_config(model.config)

    def tokens(_texts: list[str]) -> list[Tensor]:
        return [torch.tensor([[ids.im_start, 1, 2, *WORDS.encode(), ids.im_end, 1, 2, 3, 4]])]

    return SimpleNamespace(model=model, _tokenize_texts=tokens, _build_assistant_text=str)


def _place(model: nn.Module, device: str) -> None:
    """Put a model whose tensors have no data on a device, with values of no meaning."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            new = torch.zeros(parameter.shape, dtype=parameter.dtype, device=device)
            module._parameters[name] = nn.Parameter(new)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype, device=device)


def train(
    shape: Shape,
    given: dict[str, Any],
    num_frames: int,
    device: str = GPU,
    steps: int = STEPS,
    codec: bool = True,
) -> Count:
    """Train one epoch of a few steps and count.

    Args:
        shape: Of the model.
        given: `train` section.
        num_frames: Of the longest clip.
        device: `GPU`, which is pretended, or `cpu`, which is real.
        steps: Optimizer steps.
        codec: The codec's weights lie beside the model's.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(name)
        empty = without_data(shape, codec)
        with pretended() if device == GPU else real() as count:
            tts = place(empty, device, count)
            weights = [(n, torch.empty(0, dtype=torch.bfloat16)) for n in tts.model.state_dict()]
            with (
                mock.patch.object(loop, "load_tts", return_value=tts),
                mock.patch.object(loop, "iterate_weights", return_value=weights),
                mock.patch.object(loop, "make_optimizer", partial(_watched, count)),
                mock.patch("torch.autograd.backward", _during(count, torch.autograd.backward)),
                # What only goes to the disk takes nothing of the device.
                mock.patch.object(loop, "save_state"),
                mock.patch.object(loop, "measure_drift", return_value={}),
                mock.patch.object(speaker, "export_checkpoint"),
                mock.patch.object(speaker, "write_delta"),
                mock.patch.object(loop, "publish"),
            ):
                named = {"speaker_name": "A", **given}
                measure(folder, folder / "base", num_frames, named, device, steps)
    return count


_make_optimizer = compact.make_optimizer


def _watched(count: Count, trained: Any, params: TrainParams) -> Any:
    """Make the optimizer, and from then on tell gradients, state and activations apart."""
    optimizer = _make_optimizer(trained, params)
    count.part, count.moment = "activations", "forward"
    for parameter in trained.values():
        parameter.register_post_accumulate_grad_hook(lambda p: count.file(p.grad, "gradients"))
    step = optimizer.step
    taken: list[Any] = []

    def watched() -> None:
        count.part = count.moment = "update"
        step()
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor) and count.part_of(value) is not None:
                    count.file(value, "optimizer")
        count.part, count.moment = "activations", "forward"
        if not taken:  # a moment is a full step's
            count.moments.clear()
            count.waits.clear()
        taken.append(1)

    optimizer.step = watched  # type: ignore[method-assign]
    return optimizer


def _during(count: Count, call: Callable[..., None]) -> Callable[..., None]:
    def backward(*args: Any, **kwargs: Any) -> None:
        count.moment = "backward"
        try:
            call(*args, **kwargs)
        finally:
            count.moment = "forward"

    return backward


def row(size: str, label: str, given: dict[str, Any], bar: str) -> tuple[list[str], float, Count]:
    """Count a mode; return its row of the table, what the plan says of it in bytes, the count."""
    _, codec, _ = find_config(ModelParams(base=f"Qwen/Qwen3-TTS-12Hz-{size}-Base"))
    said = said_bytes(size, {"speaker_name": "A", **given}, codec)
    count = train(SHAPES[size], given, FRAMES)
    _, parts = max(count.moments.values(), key=lambda found: found[0])
    activations = parts.get("activations", 0) + parts.get("casts", 0) + parts.get("update", 0)
    cells = [
        f"{size}, {label}",
        *(f"{value / 1e9:.2f} GB" for value in (said, count.peak)),
        f"{said / count.peak:.2f}",
        *(f"{parts.get(name, 0) / 1e9:.2f}" for name in ("weights", "optimizer", "gradients")),
        f"{activations / 1e9:.2f}",
        bar,
    ]
    print(" | ".join(cells), flush=True)
    return cells, said, count


def write_adapters(sizes: list[str]) -> None:
    """Count the training of an adapter and write its section."""
    found = [(size, *row(size, "adapter", ADAPTER, f"{ADAPTER_BAR_GB} GB")) for size in sizes]
    cells, ratios = [line for _, line, *_ in found], [s / c.peak for *_, s, c in found]
    worst = max(count.peak for *_, count in found)
    write_section(
        "Memory of training an adapter on a GPU, counted",
        [
            f"`train.method: lora` with bfloat16 weights, rank 16 on talker and code predictor, "
            f"batches of {ADAPTER['batch_size']} clips of {FRAMES} frames; counted as above: "
            "`python -m benchmarks.counted --adapter`. The most may be held while the model is "
            "loaded in float32, for the speaker vector.",
            "",
            *table(HEADER, cells),
            "",
            f"- Wanted at most {ADAPTER_BAR_GB} GB, counted {worst / 1e9:.1f}"
            + (": met." if worst <= ADAPTER_BAR_GB * 1e9 else ": **not met**."),
            f"- {within('Prediction of `voxadapt plan`', ratios, cells, 'A part is forgotten.')}",
        ],
    )


def main() -> None:
    """Count every mode and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--adapter", action="store_true", help="count train.method: lora alone")
    arguments = parser.parse_args()
    sizes = arguments.sizes
    if arguments.adapter:
        write_adapters(sizes)
        return
    found = [
        (size, *row(size, label, given, f"{BARS_GB[size]} GB"))
        for size in sizes
        for label, given in MODES
    ]
    peaks = {size: min(count.peak for at, *_, count in found if at == size) for size in sizes}
    found += [(sizes[0], *row(sizes[0], label, given, "-")) for label, given in FURTHER]
    cells = [line for _, line, *_ in found]
    lines = [
        f"Full training of {size}: wanted at most {BARS_GB[size]} GB, counted {peak / 1e9:.1f} GB "
        "in the mode that takes least"
        + (": met." if peak <= 1e9 * BARS_GB[size] else ": **not met**.")
        for size, peak in peaks.items()
    ]
    ratios = [said / count.peak for *_, said, count in found]
    lines.append(within("Prediction of `voxadapt plan`", ratios, cells, "A part is forgotten."))
    waits = Counter(place for _, place in found[0][-1].waits.elements())
    lines.append(
        "No operation mixed the GPU with tensors of the CPU. Times that the host read a value of "
        "the device, and waited for it, in a step of one batch and a held-out batch: "
        + ", ".join(f"{times} in `{place}`" for place, times in sorted(waits.items()))
        + ". (`after_step` looks at the first step, every tenth and the last.)"
    )
    write_section(
        COUNTED,
        [
            "**Counted, not measured**: `python -m benchmarks.counted`, torch "
            f"{torch.__version__}. The training loop runs at the real shapes on fake tensors, "
            "which have a shape, a type and a device, and hold nothing; every storage that an "
            "operation makes is counted while a tensor looks at it, rounded up to "
            f"{BLOCK_BYTES} bytes. Clips of {FRAMES} frames, {STEPS} steps of an epoch, loading "
            "and the epoch's end. Not in it: what kernels need for themselves, holes between "
            "blocks, and the context of CUDA, for which `voxadapt plan` adds "
            f"{PROCESS_BYTES['cuda'] / 1e9} GB; it is left out of what the plan says here. GB at "
            "the peak; *activations* with the copies of weights that autocast makes.",
            "",
            *table(HEADER, cells),
            "",
            *(f"- {line}" for line in lines),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
