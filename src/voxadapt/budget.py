"""What a run will need, before it runs: memory and time of every stage.

Memory is counted, not fitted, but for the holes in a CPU's heap: parameters from the stock model
on torch's meta device, which holds shapes only; activations from what autograd keeps of each
position. The time of training comes from a step of the stock layers at their real width, measured
on the device; that of the other stages from a calibration in `voxadapt.timing`.

Memory is that of tensors and, on a CPU, of the process that holds them. Files that are read
through a memory map are left out: the system takes their pages back when it needs them.

Shape legend: B rows, L positions, M frames, D width, I feed-forward width, Q and G widths of all
query heads and of all key heads, K codebooks, C codebook size, V codec vocabulary.
"""

from __future__ import annotations

import copy
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from voxadapt import paths, timing
from voxadapt.codec.extract import CPU_BATCH_S
from voxadapt.compat import import_qwen_tts
from voxadapt.data.manifest import read_manifest, read_raw_manifest
from voxadapt.data.splits import assign_split
from voxadapt.data.text import fold_text
from voxadapt.doctor import is_hub_id
from voxadapt.errors import Problem, UserError
from voxadapt.model.decoding import token_limit
from voxadapt.model.freezing import freeze
from voxadapt.model.layout import build_layout
from voxadapt.model.load import read_config, resolve_device
from voxadapt.model.tokens import SpecialIds
from voxadapt.params import LanguageParams, ModelParams, Params, TrainParams
from voxadapt.paths import LANGUAGE, SPEAKER, Corpus
from voxadapt.provenance import read_json
from voxadapt.shapes import SHAPES, config_values
from voxadapt.training.batches import epoch_windows
from voxadapt.training.compact import BLOCK
from voxadapt.training.occurring import TEXT_EMBEDDING

GB = 1e9
FRAME_RATE_HZ = 12.5
HOP = 1920
#: Interpreter and libraries on a CPU; context and kernels of a CUDA device.
PROCESS_BYTES = {"cpu": 0.45 * GB, "cuda": 0.6 * GB}
#: Of what is counted; freed memory that the C library keeps between blocks in use.
_HOLES = {"cpu": 0.07, "cuda": 0.0}
_ENCODER_TENSORS, _DECODER_TENSORS = 3, 5  # of the codec at full rate, alive at once
_FIXED_TEXT_TOKENS = 6  # that every sequence has: a turn's role, padding, begin and end
_CHARACTERS_PER_TOKEN = 3.5  # of a text whose tokenizer is not here
#: Millions of parameters, decoder layers and width of openai-whisper's models.
_WHISPER = {
    "tiny": (39, 4, 384), "base": (74, 6, 512), "small": (244, 12, 768), "medium": (769, 24, 1024),
    "large": (1550, 32, 1280), "turbo": (809, 4, 1280),
}  # fmt: skip
_WHISPER_POSITIONS = 1500

Precision = Literal["float32", "autocast", "bfloat16"]


@dataclass(frozen=True)
class Clip:
    """What a clip weighs.

    Attributes:
        split: `train`, `selection` or `confirmation`.
        num_text_tokens: Of its text.
        num_frames: Codec frames.
        num_positions: Of its training sequence.
    """

    split: str
    num_text_tokens: int
    num_frames: int
    num_positions: int


@dataclass(frozen=True)
class BatchShape:
    """A right-padded batch.

    Attributes:
        num_rows: B.
        length: L, padding included.
        num_frames: M, padding not included.
    """

    num_rows: int
    length: int
    num_frames: int


@dataclass(frozen=True)
class Stack:
    """Sizes of the talker's or of the code predictor's layers."""

    width: int
    inner: int
    num_layers: int
    queries: int
    keys: int

    @classmethod
    def from_config(cls, config: Any) -> Stack:
        """Read them from a stock config."""
        size = config.head_dim
        return cls(
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
            config.num_attention_heads * size,
            config.num_key_value_heads * size,
        )

    @property
    def matrix_params(self) -> int:
        """Weights of one layer's products."""
        attention = self.width * (2 * self.queries + 2 * self.keys)
        return attention + 3 * self.width * self.inner

    def kept_bytes(self, precision: Precision) -> int:
        """Return what autograd keeps of one position in one layer.

        Args:
            precision: Types of weights and products.
        """
        D, I, Q, G = self.width, self.inner, self.queries, self.keys  # noqa: E741
        if precision == "float32":
            # two norms (input, scaled, output), heads (product, scaled, turned), attention
            return 24 * D + 16 * Q + 16 * G + 16 * I
        heads = 10 * Q + 10 * G
        norms = 16 if precision == "bfloat16" else 26  # autocast: the sums stay in float32
        return norms * D + heads + 8 * I


@dataclass(frozen=True)
class Codec:
    """What the codec weighs.

    Attributes:
        num_bytes: Of its weights, float32.
        encoder_width: Channels of its encoder at the full rate of the audio.
        decoder_width: Channels of its decoder there.
    """

    num_bytes: int
    encoder_width: int
    decoder_width: int


@dataclass(frozen=True)
class Model:
    """What the prediction needs to know of a model.

    Attributes:
        config: Stock `Qwen3TTSConfig`.
        talker: Its layers.
        predictor: The code predictor's layers.
        counts: Parameters by name: how many, and whether they are trained.
        codec: Its codec.
    """

    config: Any
    talker: Stack
    predictor: Stack
    counts: dict[str, tuple[int, bool]]
    codec: Codec

    @classmethod
    def from_config(cls, values: dict[str, Any], frozen: Sequence[str], codec: Codec) -> Model:
        """Count the parameters of a `config.json`.

        Args:
            values: Its content.
            frozen: Module prefixes that are not trained.
            codec: The model's codec.
        """
        import_qwen_tts()
        from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

        config = Qwen3TTSConfig(**copy.deepcopy(values))
        for field in ("codec_language_id", "spk_id", "spk_is_dialect"):
            if getattr(config.talker_config, field) is None:
                setattr(config.talker_config, field, {})
        config.tts_model_type = "base"
        with torch.device("meta"):
            model = Qwen3TTSForConditionalGeneration(config)
        freeze(model, {*frozen, "speaker_encoder"})
        counts = {name: (p.numel(), p.requires_grad) for name, p in model.named_parameters()}
        talker = config.talker_config
        stacks = Stack.from_config(talker), Stack.from_config(talker.code_predictor_config)
        return cls(config, *stacks, counts, codec)

    @property
    def num_params(self) -> int:
        """All parameters."""
        return sum(count for count, _ in self.counts.values())

    @property
    def num_trained(self) -> int:
        """Those that are trained."""
        return sum(count for count, trained in self.counts.values() if trained)

    def updated(self, full: bool, num_text_rows: int | None) -> dict[str, int]:
        """Count by name what the optimizer holds.

        Args:
            full: Masters are float32; then only the rows of the text embedding that occur are held.
            num_text_rows: How many occur at most; None: all.
        """
        held = {name: count for name, (count, trained) in self.counts.items() if trained}
        if full and num_text_rows is not None and TEXT_EMBEDDING in held:
            rows = num_text_rows * self.config.talker_config.text_hidden_size
            held[TEXT_EMBEDDING] = min(rows, held[TEXT_EMBEDDING])
        return held


@dataclass(frozen=True)
class Memory:
    """Predicted peak of a stage, in bytes.

    Attributes:
        parts: What it is made of, at the moment of the peak.
    """

    parts: dict[str, float]

    @property
    def total(self) -> float:
        """The peak."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Stage:
    """One line of the plan.

    Attributes:
        name: The verb that runs it.
        memory: On the device.
        seconds: None where nothing was measured.
        done: What is there already.
        lower: Settings to lower, should the memory not do.
    """

    name: str
    memory: Memory
    seconds: float | None
    done: str
    lower: str


@dataclass(frozen=True)
class Plan:
    """What `voxadapt plan` prints.

    Attributes:
        device: Name of the device.
        capacity: Its memory in bytes.
        stages: In the order in which they run.
    """

    device: str
    capacity: float
    stages: tuple[Stage, ...]

    @property
    def fits(self) -> bool:
        """Whether every stage has room."""
        return all(stage.memory.total <= self.capacity for stage in self.stages)


# --- memory --------------------------------------------------------------------------------------


def precision_of(params: TrainParams) -> Precision:
    """Return how a run computes."""
    if params.low_memory or (not params.master_weights and params.compute_dtype == "bfloat16"):
        return "bfloat16"
    return "autocast" if params.compute_dtype == "bfloat16" else "float32"


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
    and let go before.

    Args:
        model: What is trained.
        params: `train` section.
        shape: The largest batch.
        kind: `cpu` or `cuda`.
        num_text_rows: Text tokens that occur in the corpus, at most; None: all that there are.
    """
    precision = precision_of(params)
    weight_size = 2 if precision == "bfloat16" else 4
    held_by = model.updated(weight_size == 4, num_text_rows)
    trained, grad = sum(held_by.values()), float(weight_size)
    state = (3 + 8 / BLOCK if params.low_memory else 2.0 * weight_size) * trained
    weights = float(weight_size * model.num_params)
    fixed = {
        "process": PROCESS_BYTES[kind],
        "weights": weights,
        "optimizer": state,
    }
    kept, passing = _kept(model, shape, precision, params.gradient_checkpointing)
    casts = back_casts = 0.0  # weights in the type of products: there until the pass forward ends
    if precision == "autocast":
        stacks = (model.talker, model.predictor)
        casts = back_casts = 2.0 * sum(s.num_layers * s.matrix_params for s in stacks)
        if params.gradient_checkpointing:  # made again for each layer
            back_casts = 2.0 * max(s.matrix_params for s in stacks)
    # Back through the model: logits, predictor, talker, embeddings.
    made = {
        part: grad * sum(count for name, count in held_by.items() if name.startswith(prefix))
        for part, prefix in (
            ("predictor", "talker.code_predictor."),
            ("talker", "talker.model.layers."),
        )
    }
    made["rest"] = grad * trained - sum(made.values())
    moments: list[dict[str, float]] = []
    held = grad * trained if params.gradient_accumulation_steps > 1 else 0.0
    remaining = sum(kept.values())
    moments.append({"gradients": held, "activations": remaining + casts})
    for name in ("logits", "predictor", "talker", "rest"):
        moments.append(
            {
                "gradients": held,
                "activations": remaining + passing[name] + back_casts,
            }
        )
        remaining -= kept[name]
        if params.gradient_accumulation_steps == 1:
            held += made.get(name, 0.0)
    update = 60.0 * min(max(held_by.values()), 1 << 21) if params.low_memory else 0.0
    moments.append({"gradients": grad * trained, "update": update})
    if kind == "cpu":  # the tensors of a checkpoint, and their bytes once more; no gradients then
        moments.append({"export": 2.0 * model.num_trained + 2.0 * model.num_params})
    loading = {
        "process": PROCESS_BYTES[kind],
        "codec": float(model.codec.num_bytes),
        "weights": 4.0 * model.num_params,
    }
    parts = _largest([{**fixed, **_largest(moments)}, loading])
    return Memory({**parts, "holes": _HOLES[kind] * sum(parts.values())})


def _kept(
    model: Model, shape: BatchShape, precision: Precision, checkpointing: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Return what autograd keeps of each part, and what its pass back needs besides, in bytes."""
    talker = model.config.talker_config
    K, C = talker.num_code_groups, talker.code_predictor_config.vocab_size
    size = 4 if precision == "float32" else 2
    sums = 2 if precision == "bfloat16" else 4  # bytes of a value of the residual stream
    positions = shape.num_rows * shape.length
    labels = shape.num_frames + shape.num_rows
    numbers = float(labels * talker.vocab_size + shape.num_frames * (K - 1) * C)
    kept = {"logits": 4 * numbers}
    passing = {"logits": (8 if size == 4 else 10) * numbers}
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
    text = talker.text_hidden_size
    kept["rest"] = float(positions * (size * (3 * text) + sums * stack.width))
    passing["rest"] = float(4 * sums * positions * stack.width)
    return kept, passing


def speaking_memory(model: Model, clips: Sequence[Clip], params: Params, kind: str) -> Memory:
    """Predict the peak of speaking and hearing the largest batch of held-out sentences.

    The talker is there while Whisper listens; the joined copies of its weights and the codec's
    activations, which are those of one clip at a time, have gone by then.
    """
    longest = _limits(clips, params)[: params.score.batch_size]
    rows, frames = len(longest), max(longest, default=0)
    copies = caches = 0.0
    stacks = ((model.talker, frames + 20.0), (model.predictor, 16.0))
    for stack, length in stacks:
        width, inner = stack.width, stack.inner
        joined = width * (stack.queries + 2 * stack.keys) + 2 * width * inner
        copied = stack.matrix_params if kind == "cpu" else joined  # a CPU lays all of them out
        copies += 4.0 * stack.num_layers * copied
        caches += 8.0 * stack.num_layers * stack.keys * length * rows
    decoder = 4.0 * _DECODER_TENSORS * model.codec.decoder_width * HOP * min(frames, 325)
    fixed = {
        "process": PROCESS_BYTES[kind],
        "codec": float(model.codec.num_bytes),
        "weights": 4.0 * model.num_params,
    }
    hearing = _hearing(params, kind)
    speaking = [{"decoding": copies + caches}, {"decoding": copies, "sound": decoder}, hearing]
    return Memory({**fixed, **_largest(speaking)})


def codes_memory(model: Model, params: Params, kind: str) -> Memory:
    """Predict the peak of the codes stage: the codec, and Whisper on recordings."""
    batch_s = params.codes.batch_seconds
    samples = (min(batch_s, CPU_BATCH_S) if kind == "cpu" else batch_s) * FRAME_RATE_HZ * HOP
    codec = {"sound": 4.0 * _ENCODER_TENSORS * model.codec.encoder_width * samples}
    fixed = {"process": PROCESS_BYTES[kind], "codec": float(model.codec.num_bytes)}
    return Memory({**fixed, **_largest([codec, _hearing(params, kind)])})


def _largest(moments: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the moment at which most is held."""
    return max(moments, key=lambda parts: sum(parts.values()))


def _hearing(params: Params, kind: str) -> dict[str, float]:
    """Return Whisper's weights, and what its decoder keeps of a batch of windows."""
    millions, layers, width = _whisper(params.asr.model)
    kept = 2 * layers * _WHISPER_POSITIONS * width * params.asr.batch_size
    return {"whisper": 4e6 * millions, "windows": (4.0 if kind == "cpu" else 2.0) * kept}


def _whisper(model: str) -> tuple[float, int, int]:
    if Path(model).is_file():
        values = torch.load(model, map_location="meta", weights_only=True)
        dims, weights = values["dims"], values["model_state_dict"]
        millions = sum(tensor.numel() for tensor in weights.values()) / 1e6
        return millions, dims["n_text_layer"], dims["n_text_state"]
    name = model.removesuffix(".en")
    return _WHISPER.get(name) or _WHISPER["turbo" if "turbo" in name else "large"]


# --- time ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """What a device needs, measured with layers of the model's width.

    Attributes:
        talker_s: Forward and back through one talker layer, for one position.
        predictor_s: The same of the code predictor, for one of a frame's K positions.
        rest_s: All that is outside the layers, for one frame.
        update_s: One step of the optimizer, for one weight.
    """

    talker_s: float
    predictor_s: float
    rest_s: float
    update_s: float

    def step_s(self, model: Model, params: TrainParams, shape: BatchShape) -> float:
        """Predict the seconds of one pass forward and back over a batch."""
        K = model.config.talker_config.num_code_groups
        again = 4 / 3 if params.gradient_checkpointing else 1.0
        talker = self.talker_s * model.talker.num_layers * shape.num_rows * shape.length
        predictor = self.predictor_s * model.predictor.num_layers * K * shape.num_frames
        return again * (talker + predictor) + self.rest_s * shape.num_frames


def measure_speed(
    model: Model, params: TrainParams, shape: BatchShape, device: torch.device
) -> Speed:
    """Time one, then two layers of either kind on a batch, and the optimizer on a matrix.

    Args:
        model: Whose widths are taken.
        params: `train` section.
        shape: A batch as training has it.
        device: Where to measure.
    """
    from voxadapt.model.forward import predict
    from voxadapt.training.losses import loss_sums, total_loss

    precision = precision_of(params)
    kind = torch.float32 if precision != "bfloat16" else torch.bfloat16
    K = model.config.talker_config.num_code_groups
    positions, codes = shape.num_rows * shape.length, K * shape.num_frames

    def seconds(talker_layers: int, predictor_layers: int) -> float:
        small = _small(model, talker_layers, predictor_layers).to(device, kind).train()
        for name, parameter in small.named_parameters():
            first = re.sub(r"(?<=layers\.)\d+", "0", name)  # the model may have fewer layers
            parameter.requires_grad_(model.counts[first][1])
        batch = _batch(small, shape).to(device)
        taken = []
        for _ in range(3):
            _wait(device)
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "autocast"):
                sums = loss_sums(predict(small, batch, None))
            total_loss(sums, sums.num_labels, sums.num_frames, 0.3).backward()
            _wait(device)
            taken.append(time.perf_counter() - start)
        return min(taken[1:])

    one, more, sub = seconds(1, 1), seconds(3, 1), seconds(1, 3)
    talker_s, predictor_s = max(more - one, 0.0) / 2, max(sub - one, 0.0) / 2
    rest_s = max(one - talker_s - predictor_s, 0.0)
    return Speed(
        talker_s / positions,
        predictor_s / codes,
        rest_s / shape.num_frames,
        _update_s(params, kind, device),
    )


def _update_s(params: TrainParams, kind: torch.dtype, device: torch.device) -> float:
    """Time the optimizer on a matrix; return the seconds of one weight."""
    from voxadapt.training.loop import make_optimizer

    weight = nn.Parameter(torch.zeros(2048, 2048, dtype=kind, device=device))
    optimizer = make_optimizer({"weight": weight}, params)
    taken = []
    for _ in range(4):
        weight.grad = torch.ones_like(weight)
        _wait(device)
        start = time.perf_counter()
        optimizer.step()
        _wait(device)
        taken.append(time.perf_counter() - start)
    return min(taken[1:]) / weight.numel()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _small(model: Model, talker_layers: int, predictor_layers: int) -> Any:
    """Build a model of the same widths with few layers and few text tokens, random weights."""
    from qwen_tts.core.models import Qwen3TTSForConditionalGeneration

    config = copy.deepcopy(model.config)
    talker = config.talker_config
    talker.num_hidden_layers, talker.text_vocab_size = talker_layers, 64
    talker.code_predictor_config.num_hidden_layers = predictor_layers
    if getattr(talker.code_predictor_config, "layer_types", None) is not None:
        talker.code_predictor_config.layer_types = ["full_attention"] * predictor_layers
    return Qwen3TTSForConditionalGeneration(config)


def _batch(model: Any, shape: BatchShape) -> Any:
    """Make a batch of that shape: every row as long as the longest, frames at its end."""
    from voxadapt.model.layout import collate

    ids = replace(
        SpecialIds.from_config(model.config),
        im_start=1, im_end=2, tts_pad=3, tts_bos=4, tts_eos=5,
    )  # fmt: skip
    frames = max(1, shape.num_frames // shape.num_rows)
    tokens = max(1, shape.length - len(build_layout(1, frames, ids, None)) + 1)
    layouts = [build_layout(tokens, frames, ids, None)] * shape.num_rows
    text = torch.full((tokens + 3,), 6)
    codes = torch.zeros(frames, ids.num_codebooks, dtype=torch.long)
    names = [str(row) for row in range(shape.num_rows)]
    return collate(names, layouts, [text] * shape.num_rows, [codes] * shape.num_rows, ids)


# --- the plan ------------------------------------------------------------------------------------


def plan(params: Params, memory_gb: float | None = None, measure: bool = True) -> Plan:
    """Predict every stage of a run.

    Args:
        params: All parameters.
        memory_gb: Plan for a GPU of this memory, which need not be here; None: for this machine.
        measure: Time layers, codec and Whisper on the device, to predict seconds.

    Raises:
        UserError: When the model or the corpus cannot be found.
    """
    values, codec = find_config(params.model)
    model = Model.from_config(values, params.train.frozen, codec)
    clips = find_clips(params, model)
    learnt = [clip for clip in clips if clip.split == "train"]
    if memory_gb is None:
        device = resolve_device(params.model.device)
        name, capacity, kind = *describe_device(device), device.type
    else:
        device, name = None, f"a GPU of {memory_gb:g} GB"
        capacity, kind = memory_gb * GB, "cuda"
    largest = largest_batch(learnt, params.train.batch_size)
    measured = device if measure else None
    rates = None
    if measured is not None:
        rates = timing.calibrate(model, params, _recordings(params, SPEAKER), measured)

    def seconds(of: Callable[[timing.Rates], float]) -> float | None:
        return None if rates is None else of(rates)

    train_s = None
    if measured is not None:
        train_s = training_seconds(model, params.train, learnt, measured)
    start_s = 0.0 if rates is None else rates.start_s
    epochs = params.num_epochs
    names = [f"epoch-{number + 1}" for number in range(epochs)]
    there = sum((paths.CHECKPOINTS / name / "meta.json").is_file() for name in names)
    scored = sum((paths.SCORES / n / "summary.json").is_file() for n in params.candidate_names)
    held_out = [clip for clip in clips if clip.split != "train"]
    judged = _first(clips, "selection", params)
    confirmed = _first(clips, "confirmation", params)
    codes_made = paths.CODES.is_file()
    stages = [
        Stage(
            "codes",
            codes_memory(model, params, kind),
            seconds(lambda found: 0.0 if codes_made else found.codes_s(clips)),
            "made" if codes_made else "to do",
            "codes.batch_seconds",
        ),
        Stage(
            "train",
            training_memory(model, params.train, largest, kind, text_rows(learnt)),
            None if train_s is None else train_s * (epochs - there) + start_s * (there < epochs),
            f"{there} of {epochs} epochs",
            _train_setting(model, params.train, learnt, kind, capacity),
        ),
        Stage(
            "score",
            speaking_memory(model, held_out, params, kind),
            seconds(
                lambda found: (
                    (len(params.candidate_names) - scored)
                    * (found.start_s + found.score_s(judged, params.score))
                )
            ),
            f"{scored} of {len(params.candidate_names)} candidates",
            "score.batch_size",
        ),
        Stage(
            "confirm",
            speaking_memory(model, held_out, params, kind),
            seconds(lambda found: found.start_s + 2 * found.score_s(confirmed, params.score)),
            "to do",
            "score.batch_size",
        ),
    ]
    language = params.language
    if language is not None and all(
        Path(path).is_file() for path in (language.audio, language.text, language.source.text)
    ):
        stages += _language(params, language, model, kind, measured, rates)
    return Plan(name, capacity, tuple(stages))


def _language(
    params: Params,
    language: LanguageParams,
    model: Model,
    kind: str,
    device: torch.device | None,
    rates: timing.Rates | None,
) -> list[Stage]:
    """Plan the language's stages; Stage 2 as if it were run."""
    from voxadapt.data.texts import read_texts
    from voxadapt.language_stages import _options, corpus_view

    view = corpus_view(params)
    clips = find_clips(view, model, LANGUAGE)
    learnt = [clip for clip in clips if clip.split == "train"]
    held_out = [clip for clip in clips if clip.split != "train"]
    per_token = sum(c.num_frames for c in clips) / sum(c.num_text_tokens for c in clips)
    count, ids = _token_counter(params), SpecialIds.from_config(model.config)

    def of_texts(path: str) -> list[Clip]:
        """Expect as many frames of a text token as the recordings have."""
        found = []
        for line in read_texts(path, any_field=True):
            tokens = count(line.text)
            frames = max(1, round(per_token * tokens))
            length = len(build_layout(tokens, frames, ids, 0))
            found.append(Clip("train", tokens, frames, length))
        return found

    stage, source = language.stage1, of_texts(language.source.text)
    asked, rest = source[: language.source.max_sentences], source[language.source.max_sentences :]
    texts = learnt if stage.objective == "audio" else of_texts(language.text) * stage.readings
    share = stage.source_share
    repeated = rest[: round(share / max(1e-9, 1 - share) * len(texts))] if share else []
    told = [*texts, *repeated]
    rows_only = replace(
        model, counts={name: (n, name == TEXT_EMBEDDING) for name, (n, _) in model.counts.items()}
    )
    prefix = "talker.code_predictor."
    predictor_only = replace(
        model,
        counts={name: (n, name.startswith(prefix)) for name, (n, _) in model.counts.items()},
    )
    first = _options(params, stage, stage.lr)
    second = _options(params, language.stage2, language.stage2.lr)
    judged, confirmed = (_first(clips, split, view) for split in ("selection", "confirmation"))
    speaking = speaking_memory(model, held_out, view, kind)

    def score_s(sentences: list[Clip]) -> float:
        assert rates is not None
        return rates.score_s(sentences, params.score) + rates.score_s(asked, params.score)

    times: list[float | None] = [None] * 5
    if rates is not None and device is not None:
        read = repeated if stage.objective == "audio" else told
        trained_s = 0.0
        if stage.objective != "rows":
            trained_s = language.num_epochs * training_seconds(rows_only, first, told, device)
        more_s = language.stage2.num_epochs * (
            training_seconds(predictor_only, second, learnt, device) + score_s(judged)
        )
        times = [
            rates.codes_s(clips),
            rates.start_s + rates.tokens_s(read, params.score.batch_size) + trained_s,
            len(language.candidates) * (rates.start_s + score_s(judged)),
            rates.start_s + more_s,
            rates.start_s + 2 * score_s(confirmed),
        ]
    rows = text_rows(told)
    memories = [
        codes_memory(model, view, kind),
        training_memory(rows_only, first, largest_batch(told, first.batch_size), kind, rows),
        speaking,
        training_memory(predictor_only, second, largest_batch(learnt, second.batch_size), kind),
        speaking,
    ]
    lower = ("codes.batch_seconds", "language.stage1.batch_size", "score.batch_size",
             "language.stage2.batch_size", "score.batch_size")  # fmt: skip
    done = ("", "", f"{len(language.candidates)} candidates", "if it is run", "")
    names = ("data", "stage1", "score", "stage2", "confirm")
    return [
        Stage(f"language {name}", memory, seconds, there, setting)
        for name, memory, seconds, there, setting in zip(
            names, memories, times, done, lower, strict=True
        )
    ]


def _first(clips: Sequence[Clip], split: str, params: Params) -> list[Clip]:
    """Return as many clips of a split as are spoken."""
    return [clip for clip in clips if clip.split == split][: params.score.max_sentences]


def training_seconds(
    model: Model, train: TrainParams, clips: Sequence[Clip], device: torch.device
) -> float:
    """Predict the seconds of one epoch, its updates included.

    Args:
        model: What is trained.
        train: `train` section.
        clips: What is learnt.
        device: Where; layers are timed there.
    """
    windows = epoch_windows(
        [clip.num_positions for clip in clips],
        train.batch_size,
        train.gradient_accumulation_steps,
        train.seed,
        1,
    )
    shapes = [batch_of([clips[i] for i in at]) for window in windows for at in window]
    typical = sorted(shapes, key=lambda shape: shape.num_frames)[len(shapes) // 2]
    if device.type == "cpu" and typical.num_rows > 1:  # time on a CPU grows with the rows
        typical = BatchShape(1, typical.length, typical.num_frames // typical.num_rows)
    speed = measure_speed(model, train, typical, device)
    held = sum(model.updated(precision_of(train) != "bfloat16", text_rows(clips)).values())
    passes = sum(speed.step_s(model, train, shape) for shape in shapes)
    return passes + len(windows) * speed.update_s * held


def batch_of(clips: Sequence[Clip]) -> BatchShape:
    """Return the shape of a batch of clips."""
    lengths = [clip.num_positions for clip in clips]
    frames = sum(clip.num_frames for clip in clips)
    return BatchShape(len(clips), max(lengths), frames)


def largest_batch(clips: Sequence[Clip], batch_size: int) -> BatchShape:
    """Return the largest batch that training may see: clips of similar length share one."""
    if not clips:
        raise UserError(
            Problem("data.manifest", "clips to train on", "none", "Run `voxadapt audit`.")
        )
    return batch_of(sorted(clips, key=lambda clip: -clip.num_positions)[:batch_size])


def text_rows(clips: Sequence[Clip]) -> int:
    """Return how many text tokens occur at most."""
    return sum(clip.num_text_tokens for clip in clips) + _FIXED_TEXT_TOKENS


def _train_setting(
    model: Model, params: TrainParams, clips: Sequence[Clip], kind: str, capacity: float
) -> str:
    """Return the first settings, in the order of what they cost, with which training fits."""
    rows = params.batch_size
    tries: list[dict[str, Any]] = []
    while rows > 1:
        rows //= 2
        tries.append({"batch_size": rows})
    tries += [{"gradient_checkpointing": True}, {"batch_size": 1, "gradient_checkpointing": True}]
    low = {"low_memory": True, "master_weights": True, "compute_dtype": "bfloat16"}
    tries += [low, {**low, "gradient_checkpointing": True}]
    tries.append({**low, "gradient_checkpointing": True, "batch_size": 1})
    for changed in tries:
        if "batch_size" in changed:
            factor = params.batch_size // changed["batch_size"]
            changed["gradient_accumulation_steps"] = params.gradient_accumulation_steps * factor
        other = TrainParams.model_validate({**params.model_dump(), **changed})
        shape = largest_batch(clips, other.batch_size)
        if training_memory(model, other, shape, kind, text_rows(clips)).total <= capacity:
            listed = {k: v for k, v in changed.items() if getattr(params, k) != v}
            return ", ".join(f"train.{k}: {str(v).lower()}" for k, v in listed.items())
    return "train.frozen: freeze more, or another device"


def find_config(params: ModelParams) -> tuple[dict[str, Any], Codec]:
    """Return the Base's config and its codec; the model need not be downloaded.

    Raises:
        UserError: When nothing is known about the model.
    """
    folder = Path(params.base)
    on_hub = is_hub_id(params.base)
    if on_hub:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(params.base, "config.json", revision=params.revision)
        folder = Path(cached).parent if isinstance(cached, str) else folder
    if folder.is_dir():
        return read_config(folder), read_codec(folder)
    for name, shape in SHAPES.items():
        if on_hub and name.lower() in params.base.lower():
            return config_values(shape), _released_codec()
    raise UserError(
        Problem(
            "model.base",
            "a model folder, or the hub id of a model of 0.6B or 1.7B",
            params.base,
            "Fetch the model, then plan again.",
        )
    )


def read_codec(folder: Path) -> Codec:
    """Read what the codec of a model folder weighs."""
    codec = folder / "speech_tokenizer"
    values = read_json(codec / "config.json")
    decoder = values["decoder_config"]
    return Codec(
        sum(file.stat().st_size for file in codec.glob("*.safetensors")),
        values["encoder_config"]["num_filters"],
        decoder["decoder_dim"] // 2 ** len(decoder["upsample_rates"]),
    )


def _released_codec() -> Codec:
    """Count the released codec: the package's defaults and two sizes that it leaves out."""
    import_qwen_tts()
    from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model

    config = Qwen3TTSTokenizerV2Config(decoder_config={"codebook_dim": 512, "head_dim": 64})
    with torch.device("meta"):
        codec = Qwen3TTSTokenizerV2Model(config)
    decoder = config.decoder_config
    return Codec(
        sum(tensor.numel() * tensor.element_size() for tensor in codec.state_dict().values()),
        config.encoder_config.num_filters,
        decoder.decoder_dim // 2 ** len(decoder.upsample_rates),
    )


def find_clips(params: Params, model: Model, at: Corpus = SPEAKER) -> list[Clip]:
    """Read what the corpus' clips weigh: from the audit's manifest, else from the raw one."""
    ids = SpecialIds.from_config(model.config)
    tag = None if params.train.language == "auto" else 0  # any id: only the length counts
    count = _token_counter(params)
    rows: list[tuple[str, str, float]] = []
    if at.manifest.is_file():
        rows = [(row.split, row.text, row.duration_s) for row in read_manifest(at.manifest)]
    else:
        import soundfile

        found, problems = read_raw_manifest(params.data.manifest)
        if problems and not found:
            raise UserError(problems, "The corpus cannot be planned for.")
        for raw in found:
            assigned = assign_split(fold_text(raw.text), params.split)
            rows.append((assigned, raw.text, soundfile.info(str(raw.audio_path)).duration))
    clips = []
    for split, text, seconds in rows:
        tokens, frames = count(text), max(1, round(seconds * FRAME_RATE_HZ))
        clips.append(Clip(split, tokens, frames, len(build_layout(tokens, frames, ids, tag))))
    return clips


def _recordings(params: Params, at: Corpus) -> list[tuple[Path, str]]:
    """Return some recordings and their texts, evenly from the whole corpus."""
    if at.manifest.is_file():
        found = [(Path(row.audio), row.text) for row in read_manifest(at.manifest)]
    else:
        rows, _ = read_raw_manifest(params.data.manifest)
        found = [(row.audio_path, row.text) for row in rows]
    return found[:: max(1, len(found) // timing.RECORDINGS)][: timing.RECORDINGS]


def _token_counter(params: Params) -> Any:
    folder = Path(params.model.base)
    if folder.is_dir():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return lambda text: max(1, len(tokenizer(text)["input_ids"]))
    return lambda text: max(1, round(len(text) / _CHARACTERS_PER_TOKEN))


def _limits(clips: Sequence[Clip], params: Params) -> list[int]:
    """Return the most frames that each held-out sentence may have, largest first."""
    per_token = params.score.max_seconds_per_token
    return sorted((token_limit(c.num_text_tokens, per_token) for c in clips), reverse=True)


def describe_device(device: torch.device) -> tuple[str, float]:
    """Return the name and the memory of a device, in bytes."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return properties.name, float(properties.total_memory)
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"CPU, {torch.get_num_threads()} threads", float(pages * size)


def describe(plan: Plan) -> list[str]:
    """Write the plan as lines of text."""
    rows = [("stage", "memory", "of which", "time", "there already")]
    for stage in plan.stages:
        parts = sorted(stage.memory.parts.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {value / GB:.1f}" for name, value in parts if value >= 0.05 * GB)
        when = "-" if stage.seconds is None else _duration(stage.seconds)
        rows.append((stage.name, f"{stage.memory.total / GB:.1f} GB", shown, when, stage.done))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [f"{plan.device}, {plan.capacity / GB:.1f} GB", ""]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    known = [stage.seconds for stage in plan.stages if stage.seconds is not None]
    if known:
        missing = len(plan.stages) - len(known)
        but = f", {missing} stages not counted" if missing else ""
        lines.append(f"Together {_duration(sum(known))}{but}.")
    lines.append("")
    for stage in plan.stages:
        if stage.memory.total > plan.capacity:
            hears = "windows" in stage.memory.parts
            lower = "asr.batch_size, or take a smaller asr.model" if hears else stage.lower
            lines.append(f"{stage.name} does not fit. Lower: {lower}.")
    return [*lines, "Everything fits."] if plan.fits else lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
