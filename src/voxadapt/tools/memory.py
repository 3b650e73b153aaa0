"""How much memory each stage takes, counted before it runs.

Memory is counted, not fitted, but for the holes in a CPU's heap: parameters by their shapes,
activations from what autograd keeps of each position. It is that of tensors and, on a CPU, of the
process that holds them. Files that are read through a memory map are left out: the system takes
their pages back when it needs them.

Shape legend: B rows, L positions, M frames, D width, I feed-forward width, Q and G widths of all
query heads and of all key heads, K codebooks, C codebook size, V codec vocabulary.
"""

import math
import pickletools
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from voxadapt.core.files import read_json
from voxadapt.core.params import Params, TrainParams
from voxadapt.tools.sizes import FRAME_RATE_HZ, BatchShape, Clip, Model, Precision, precision_of

GB = 1e9
HOP = 1920
#: Of other modules, which import torch; a test holds them equal.
CPU_BATCH_S = 8.0  # audio that the codec encodes at once on a CPU
ROUND = 256  # positions that a CUDA graph has room for are a multiple of this
BLOCK = 256  # weights that share a scale in the 8-bit optimizer
SPARE_S = 4.0  # added to the limit of a text
#: Interpreter and libraries on a CPU; context and kernels of a CUDA device.
PROCESS_BYTES = {"cpu": 0.3 * GB, "cuda": 0.6 * GB}
_HEARING_BYTES = 0.22 * GB  # the same on a CPU without the models' libraries
#: Of what is counted; freed memory that the C library keeps between blocks in use.
_HOLES = {"cpu": 0.07, "cuda": 0.0}
_ENCODER_TENSORS, _DECODER_TENSORS = 3, 5  # of the codec at full rate, alive at once
_WINDOW_FRAMES = 325  # that the codec decodes at once, context included
#: Millions of parameters, decoder layers and width of openai-whisper's models.
_WHISPER = {
    "tiny": (39, 4, 384), "base": (74, 6, 512), "small": (244, 12, 768), "medium": (769, 24, 1024),
    "large": (1550, 32, 1280), "turbo": (809, 4, 1280),
}  # fmt: skip
WEIGHTS = (".safetensors", ".bin")
_WHISPER_POSITIONS = 1500


@dataclass(frozen=True)
class Memory:
    """Predicted peak of a stage, in bytes: what it is made of at that moment."""

    parts: dict[str, float]

    @property
    def total(self) -> float:
        """The peak."""
        return sum(self.parts.values())


def training_memory(
    model: Model,
    params: TrainParams,
    shape: BatchShape,
    kind: str = "cuda",
    num_text_rows: int | None = None,
) -> Memory:
    """Predict the peak of training.

    Weights and optimizer state are always there. The pass back frees the activations of a layer
    when it has made its gradients; the peak is the largest sum on the way, or the moment of the
    update, or on a CPU that of an epoch's export. The codec is loaded with the model, in float32,
    and let go before. The shape is that of the largest batch; `num_text_rows` are the text tokens
    that occur in the corpus, at most.
    """
    precision = precision_of(params)
    weight_size = trained_size = 2 if precision == "bfloat16" else 4
    lora = params.method == "lora"
    if lora:
        model, trained_size = model.with_adapter(params.lora), 4
    held_by = model.updated(weight_size == 4, num_text_rows)
    trained, grad = sum(held_by.values()), float(trained_size)
    extra = (trained_size - weight_size) * model.num_trained
    fixed = {
        "process": PROCESS_BYTES[kind],
        "weights": float(weight_size * model.num_params + extra),
        "optimizer": (3 + 8 / BLOCK if params.low_memory else 2.0 * trained_size) * trained,
    }
    kept, passing = _kept(model, shape, precision, params.gradient_checkpointing)
    casts, back_casts = _casts(model, precision, params.gradient_checkpointing)
    if lora and weight_size == 2:
        casts = back_casts = 2.0 * trained
    # Back through the model: logits, predictor, talker, embeddings.
    prefixes = {"predictor": "talker.code_predictor.", "talker": "talker.model.layers."}
    made = {
        part: grad * sum(count for name, count in held_by.items() if name.startswith(prefix))
        for part, prefix in prefixes.items()
    }
    made["rest"] = grad * trained - sum(made.values())
    held = grad * trained if params.gradient_accumulation_steps > 1 else 0.0
    remaining = sum(kept.values())
    moments = [{"gradients": held, "activations": remaining + casts}]
    for name in ("logits", "predictor", "talker", "rest"):
        moments.append({"gradients": held, "activations": remaining + passing[name] + back_casts})
        remaining -= kept[name]
        if params.gradient_accumulation_steps == 1:
            held += made.get(name, 0.0)
    update = 60.0 * min(max(held_by.values()), 1 << 21) if params.low_memory else 0.0
    moments.append({"gradients": grad * trained, "update": update})
    if kind == "cpu" and not lora:  # a checkpoint's tensors, and their bytes; no gradients then
        moments.append({"export": 2.0 * model.num_trained + 2.0 * model.num_params})
    loading = {
        "process": PROCESS_BYTES[kind],
        "codec": float(model.codec.num_bytes),
        "weights": 4.0 * model.num_params,
    }
    parts = _largest([{**fixed, **_largest(moments)}, loading])
    return Memory({**parts, "fragmentation": _HOLES[kind] * sum(parts.values())})


def _casts(model: Model, precision: Precision, checkpointing: bool) -> tuple[float, float]:
    """Return the bytes of weights in the type of products, in the pass forward and in that back."""
    if precision != "autocast":
        return 0.0, 0.0
    stacks = (model.talker, model.predictor)
    casts = 2.0 * sum(s.num_layers * s.matrix_params for s in stacks)
    one_layer = 2.0 * max(s.matrix_params for s in stacks)  # made again for each
    return casts, one_layer if checkpointing else casts


def _kept(
    model: Model, shape: BatchShape, precision: Precision, checkpointing: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Return what autograd keeps of each part, and what its pass back needs besides, in bytes."""
    K, C = model.num_codebooks, model.codebook_size
    size = 4 if precision == "float32" else 2
    sums = 2 if precision == "bfloat16" else 4  # bytes of a value of the residual stream
    positions = shape.num_rows * shape.length
    labels = shape.num_frames + shape.num_rows
    first, other = float(labels * model.codec_vocab), float(shape.num_frames * C)
    numbers = first + (K - 1) * other
    kept = {"logits": 4 * numbers}
    # The logits themselves, and the gradients of one codebook's at a time.
    passing = {"logits": size * numbers + (4 + size) * max(first, other)}
    for name, stack, count in (
        ("predictor", model.predictor, K * shape.num_frames),
        ("talker", model.talker, positions),
    ):
        layer = float(stack.kept_bytes(precision) * count)
        within = float(size * (3 * stack.inner + 2 * stack.width) * count)
        if checkpointing:
            kept[name] = float(sums * stack.width * count * stack.num_layers)
            passing[name] = layer + within
        else:
            kept[name] = layer * stack.num_layers
            passing[name] = within
    kept["rest"] = float(positions * (size * (3 * model.text_width) + sums * stack.width))
    passing["rest"] = float(4 * sums * positions * stack.width)
    return kept, passing


def speaking_memory(model: Model, clips: Sequence[Clip], params: Params, kind: str) -> Memory:
    """Predict the peak of speaking and hearing the largest batch of held-out sentences.

    The talker is there while Whisper listens; the joined copies of its weights and the codec's
    activations, which are those of one clip at a time, have gone by then.
    """
    longest = _limits(clips, params)[: params.score.batch_size]
    rows, frames = len(longest), max(longest, default=0)
    wide = params.score.dtype == "float32" or (params.score.dtype == "auto" and kind == "cpu")
    size = 4.0 if wide else 2.0
    copies = caches = 0.0
    positions = frames + 20.0
    if kind == "cuda":  # a recording has room for longer batches
        positions = math.ceil(positions / ROUND) * ROUND
    for stack, length in ((model.talker, positions), (model.predictor, model.num_codebooks)):
        width, inner = stack.width, stack.inner
        joined = width * (stack.queries + 2 * stack.keys) + 2 * width * inner
        copied = stack.matrix_params if kind == "cpu" else joined  # a CPU lays all of them out
        copies += size * stack.num_layers * copied
        caches += 2 * size * stack.num_layers * stack.keys * length * rows
    tables = model.codebook_size * model.predictor.width
    if kind == "cpu":  # which lays the heads out as well
        copies += size * (model.num_codebooks - 1) * tables
    if model.predictor.width != model.talker.width:  # projected once
        copies += size * (model.num_codebooks - 1) * tables
    window = HOP * min(frames, _WINDOW_FRAMES)
    decoder = size * _DECODER_TENSORS * model.codec.decoder_width * window
    fixed = {
        "process": PROCESS_BYTES[kind],
        "codec": size / 4 * model.codec.num_bytes,
        "weights": size * model.num_params,
    }
    hearing = _hearing(params, kind)
    speaking = [{"decoding": copies + caches}, {"decoding": copies, "sound": decoder}, hearing]
    return Memory({**fixed, **_one_after_another(speaking, kind)})


def codes_memory(model: Model, params: Params, kind: str) -> Memory:
    """Predict the peak of the codes stage: the codec, and Whisper on recordings."""
    batch_s = params.codes.batch_seconds
    samples = (min(batch_s, CPU_BATCH_S) if kind == "cpu" else batch_s) * FRAME_RATE_HZ * HOP
    codec = {"sound": 4.0 * _ENCODER_TENSORS * model.codec.encoder_width * samples}
    decoded = 4.0 * _DECODER_TENSORS * model.codec.decoder_width * HOP * _WINDOW_FRAMES
    fixed = {"process": PROCESS_BYTES[kind], "codec": float(model.codec.num_bytes)}
    moments = [codec, {"round trip": decoded}, _hearing(params, kind)]
    return Memory({**fixed, **_one_after_another(moments, kind)})


def audit_memory(params: Params, kind: str) -> Memory:
    """Predict the peak of the audit: Whisper on recordings."""
    process = _HEARING_BYTES if kind == "cpu" else PROCESS_BYTES[kind]
    return Memory({"process": process, **_hearing(params, kind)})


def _one_after_another(moments: Sequence[dict[str, float]], kind: str) -> dict[str, float]:
    """Return the peak of a stage's parts; on a CPU the process keeps what each of them frees."""
    if kind != "cpu":
        return _largest(moments)
    held: dict[str, float] = {}
    for moment in moments:
        held |= {name: max(size, held.get(name, 0.0)) for name, size in moment.items()}
    return held


def _largest(moments: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the moment at which most is held."""
    return max(moments, key=lambda parts: sum(parts.values()))


def _hearing(params: Params, kind: str) -> dict[str, float]:
    """Return Whisper's weights, and what its decoder keeps of a batch of windows."""
    millions, layers, width = _whisper(params.asr.model)
    kept = 2 * layers * _WHISPER_POSITIONS * width * params.asr.batch_size
    return {"whisper": 4e6 * millions, "windows": (4.0 if kind == "cpu" else 2.0) * kept}


def _limits(clips: Sequence[Clip], params: Params) -> list[int]:
    """Return the most frames that each held-out sentence may have, largest first."""
    per_token = params.score.max_seconds_per_token
    limits_s = (per_token * clip.num_text_tokens + SPARE_S for clip in clips)
    return sorted((math.ceil(limit_s * FRAME_RATE_HZ) + 1 for limit_s in limits_s), reverse=True)


def _whisper(model: str) -> tuple[float, int, int]:
    """Return the millions of parameters, decoder layers and width of a Whisper model."""
    path = Path(model)
    with suppress(OSError, ValueError, KeyError, StopIteration, zipfile.BadZipFile):
        if path.is_file():
            return _whisper_file(path)
        if path.is_dir():
            config = read_json(path / "config.json")
            num_bytes = sum(f.stat().st_size for f in path.iterdir() if f.suffix in WEIGHTS)
            size = 2 if config.get("torch_dtype", config.get("dtype")) == "float16" else 4
            return num_bytes / size / 1e6, int(config["decoder_layers"]), int(config["d_model"])
    name = model.removesuffix(".en")
    return _WHISPER.get(name) or _WHISPER["turbo" if "turbo" in name else "large"]


def _whisper_file(path: Path) -> tuple[float, int, int]:
    """Read the same of a checkpoint: its pickle is scanned, and nothing of it is run."""
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        found = list(pickletools.genops(archive.read(pickled)))
        stored = sum(item.file_size for item in archive.infolist() if "/data/" in item.filename)
    half = any("HalfStorage" in str(value) for _, value, _ in found)
    plain = [value for operation, value, _ in found if "PUT" not in operation.name]
    layers, width = (
        int(next(v for v in plain[plain.index(name) + 1 :] if isinstance(v, int)))
        for name in ("n_text_layer", "n_text_state")
    )
    return stored / (2 if half else 4) / 1e6, layers, width
