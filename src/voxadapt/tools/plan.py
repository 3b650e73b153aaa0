"""What a run will need, before it runs: memory and time of every stage.

Memory is counted, not fitted, but for the holes in a CPU's heap: parameters from the stock model
on torch's meta device, which holds shapes only; activations from what autograd keeps of each
position. The time of training comes from a step of the stock layers at their real width, measured
on the device; that of the other stages from a calibration in `voxadapt.tools.timing`.

Memory is that of tensors and, on a CPU, of the process that holds them. Files that are read
through a memory map are left out: the system takes their pages back when it needs them.

Shape legend: B rows, L positions, M frames, D width, I feed-forward width, Q and G widths of all
query heads and of all key heads, K codebooks, C codebook size, V codec vocabulary.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from voxadapt.codec.extract import CPU_BATCH_S
from voxadapt.core import paths
from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.device import resolve_device
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import read_json
from voxadapt.core.model_folder import read_config
from voxadapt.core.params import LanguageParams, ModelParams, Params, TrainParams
from voxadapt.data.manifest import read_manifest, read_raw_manifest
from voxadapt.data.splits import assign_split
from voxadapt.data.text import fold_text
from voxadapt.generation.decoding import ROUND, token_limit
from voxadapt.model.layout import build_layout
from voxadapt.model.shapes import SHAPES, config_values
from voxadapt.model.tokens import SpecialIds
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.tracks import Track, language_track, speaker_track
from voxadapt.tools import timing
from voxadapt.tools.doctor import is_hub_id
from voxadapt.tools.sizes import (
    FRAME_RATE_HZ,
    BatchShape,
    Clip,
    Codec,
    Model,
    Precision,
    batch_of,
    precision_of,
    text_rows,
)
from voxadapt.training.compact import BLOCK
from voxadapt.training.occurring import TEXT_EMBEDDING

GB = 1e9
HOP = 1920
#: Interpreter and libraries on a CPU; context and kernels of a CUDA device.
PROCESS_BYTES = {"cpu": 0.45 * GB, "cuda": 0.6 * GB}
_HEARING_BYTES = 0.22 * GB  # the same on a CPU without the models' libraries
#: Of what is counted; freed memory that the C library keeps between blocks in use.
_HOLES = {"cpu": 0.07, "cuda": 0.0}
_ENCODER_TENSORS, _DECODER_TENSORS = 3, 5  # of the codec at full rate, alive at once
_WINDOW_FRAMES = 325  # that the codec decodes at once, context included
_CHARACTERS_PER_TOKEN = 3.5  # of a text whose tokenizer is not here
#: Millions of parameters, decoder layers and width of openai-whisper's models.
_WHISPER = {
    "tiny": (39, 4, 384), "base": (74, 6, 512), "small": (244, 12, 768), "medium": (769, 24, 1024),
    "large": (1550, 32, 1280), "turbo": (809, 4, 1280),
}  # fmt: skip
_WHISPER_POSITIONS = 1500


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
        times: Seconds by what they go to; None where nothing was measured.
        done: What is there already.
        lower: Settings to lower, should the memory not do.
    """

    name: str
    memory: Memory
    times: timing.Times | None
    done: str
    lower: str

    @property
    def seconds(self) -> float | None:
        """All of its seconds together."""
        return None if self.times is None else sum(self.times.values())


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
    wide = params.score.dtype == "float32" or (params.score.dtype == "auto" and kind == "cpu")
    size = 4.0 if wide else 2.0
    talker = model.config.talker_config
    copies = caches = 0.0
    positions = frames + 20.0
    if kind == "cuda":  # a recording has room for longer batches
        positions = math.ceil(positions / ROUND) * ROUND
    for stack, length in ((model.talker, positions), (model.predictor, talker.num_code_groups)):
        width, inner = stack.width, stack.inner
        joined = width * (stack.queries + 2 * stack.keys) + 2 * width * inner
        copied = stack.matrix_params if kind == "cpu" else joined  # a CPU lays all of them out
        copies += size * stack.num_layers * copied
        caches += 2 * size * stack.num_layers * stack.keys * length * rows
    tables = talker.code_predictor_config.vocab_size * model.predictor.width
    if kind == "cpu":  # which lays the heads out as well
        copies += size * (talker.num_code_groups - 1) * tables
    if model.predictor.width != model.talker.width:  # projected once
        copies += size * (talker.num_code_groups - 1) * tables
    decoder = (
        size * _DECODER_TENSORS * model.codec.decoder_width * HOP * min(frames, _WINDOW_FRAMES)
    )
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


def _whisper(model: str) -> tuple[float, int, int]:
    if Path(model).is_file():
        values = torch.load(model, map_location="meta", weights_only=True)
        dims, weights = values["dims"], values["model_state_dict"]
        millions = sum(tensor.numel() for tensor in weights.values()) / 1e6
        return millions, dims["n_text_layer"], dims["n_text_state"]
    name = model.removesuffix(".en")
    return _WHISPER.get(name) or _WHISPER["turbo" if "turbo" in name else "large"]


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
    clips = find_clips(params, model, speaker_track(params))
    learnt = [clip for clip in clips if clip.split == "train"]
    if memory_gb is None:
        device = open_context(params).device if measure else resolve_device(params.model.device)
        name, capacity, kind = *describe_device(device), device.type
    else:
        device, name = None, f"a GPU of {memory_gb:g} GB"
        capacity, kind = memory_gb * GB, "cuda"
    largest = largest_batch(learnt, params.train.batch_size)
    held_out = [clip for clip in clips if clip.split != "train"]
    speaking = speaking_memory(model, held_out, params, kind)
    training = training_memory(model, params.train, largest, kind, text_rows(learnt))
    measured = device if measure else None
    rates = speed = None
    if measured is not None and speaking.total <= capacity:  # the model is loaded for it
        rates = timing.calibrate(
            model, params, _recordings(speaker_track(params)), measured, _positions_before(held_out)
        )
    if measured is not None and training.total <= capacity:
        speed = timing.measure_speed(model, params.train, learnt, measured)

    def times(of: Callable[[timing.Rates], timing.Times]) -> timing.Times | None:
        return None if rates is None else of(rates)

    epochs = params.num_epochs
    names = [f"epoch-{number + 1}" for number in range(epochs)]
    there = sum((paths.CHECKPOINTS / name / "meta.json").is_file() for name in names)
    scored = sum((paths.SCORES / n / "summary.json").is_file() for n in params.candidate_names)
    base_scored = (paths.SCORES / "base" / "summary.json").is_file()
    judged = _first(clips, "selection", params)
    confirmed = _first(clips, "confirmation", params)
    audited, codes_made = paths.MANIFEST.is_file(), paths.CODES.is_file()
    train_times = None
    if speed is not None and there < epochs:
        learning = timing.training_times(model, params.train, clips, speed, epochs - there)
        train_times = timing.added({} if rates is None else rates.start.times("train"), learning)
    elif speed is not None:
        train_times = {}
    stages = [
        Stage(
            "audit",
            audit_memory(params, kind),
            times(lambda found: {} if audited else found.audit_times(clips)),
            "made" if audited else "to do",
            "asr.batch_size",
        ),
        Stage(
            "codes",
            codes_memory(model, params, kind),
            times(
                lambda found: {} if codes_made else found.codes_times(clips, _other_frames(params))
            ),
            "made" if codes_made else "to do",
            "codes.batch_seconds",
        ),
        Stage(
            "train",
            training,
            train_times,
            f"{there} of {epochs} epochs",
            _train_setting(model, params.train, learnt, kind, capacity),
        ),
        Stage(
            "score",
            speaking,
            times(
                lambda found: timing.added(
                    timing.added(
                        found.start.times("score"),
                        found.score_times(judged, params.score),
                        times=len(params.candidate_names) - scored,
                    ),
                    {"cloning": found.start.clone_s * (not base_scored)},
                )
            ),
            f"{scored} of {len(params.candidate_names)} candidates",
            "score.batch_size",
        ),
        Stage(
            "confirm",
            speaking,
            times(
                lambda found: timing.added(
                    found.start.times("score"),
                    {"loading": found.start.model_s, "cloning": found.start.clone_s},
                    timing.added(found.score_times(confirmed, params.score), times=2),
                )
            ),
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


def _other_frames(params: Params) -> int:
    """Return how many frames the recordings of other voices have."""
    import soundfile

    from voxadapt.data.voices import read_other_voices

    if params.data.other_voices is None:
        return 0
    found = read_other_voices(params.data.other_voices)
    seconds = sum(
        soundfile.info(str(path)).duration for listed in found.values() for path in listed
    )
    return round(seconds * FRAME_RATE_HZ)


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
    from voxadapt.pipeline.language.training import train_params

    clips = find_clips(params, model, language_track(params))
    learnt = [clip for clip in clips if clip.split == "train"]
    held_out = [clip for clip in clips if clip.split != "train"]
    per_token = [clip.num_frames / clip.num_text_tokens for clip in clips]
    count, ids = _token_counter(params), SpecialIds.from_config(model.config)

    def of_texts(path: str) -> list[Clip]:
        """Expect as many frames of a text token as the recordings have, one after another."""
        found = []
        for number, line in enumerate(read_texts(path, any_field=True)):
            tokens = count(line.text)
            frames = max(1, round(per_token[number % len(per_token)] * tokens))
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
    first = train_params(params, stage, stage.lr)
    second = train_params(params, language.stage2, language.stage2.lr)
    judged, confirmed = (_first(clips, split, params) for split in ("selection", "confirmation"))
    speaking = speaking_memory(model, held_out, params, kind)

    times: list[timing.Times | None] = [None] * 5
    if rates is not None and device is not None:
        read = repeated if stage.objective == "audio" else told
        start, added = rates.start, timing.added
        first_times: timing.Times = {}
        heard = [clip for clip in clips if clip.split == "selection"]
        if stage.objective != "rows":
            speed = timing.measure_speed(rows_only, first, told, device)
            first_times = timing.training_times(
                rows_only, first, [*told, *heard], speed, language.num_epochs, whole=False
            )
        speed = timing.measure_speed(predictor_only, second, learnt, device)
        num_epochs = language.stage2.num_epochs
        second_times = timing.training_times(
            predictor_only, second, clips, speed, num_epochs, whole=False
        )
        scored, spoken = (
            rates.score_times(sentences, params.score) for sentences in (judged, confirmed)
        )
        scored = added(scored, rates.score_times(asked, params.score))
        cloned, again = {"cloning": start.clone_s}, {"loading": start.model_s}
        audit = {k: v for k, v in rates.audit_times(clips).items() if k in ("checks", "hearing")}
        times = [
            added(rates.codes_times(clips, _other_frames(params)), audit),
            added(
                start.times("train"),
                again,
                {"reading aloud": rates.tokens_s(read, params.score.batch_size)},
                first_times,
            ),
            added(start.times("score"), cloned, scored, times=len(language.candidates)),
            added(start.times("score"), cloned, second_times, added(scored, times=num_epochs)),
            added(start.times("score"), cloned, again, added(spoken, times=2)),
        ]
    rows = text_rows(told)
    memories = [
        codes_memory(model, params, kind),
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
        Stage(f"language {name}", memory, taken, there, setting)
        for name, memory, taken, there, setting in zip(
            names, memories, times, done, lower, strict=True
        )
    ]


def _positions_before(clips: Sequence[Clip]) -> int:
    """Return how many positions a frame has before it, on average: a prompt and half a clip."""
    if not clips:
        return timing.PROMPT
    return round(sum(c.num_positions - c.num_frames / 2 for c in clips) / len(clips))


def _first(clips: Sequence[Clip], split: str, params: Params) -> list[Clip]:
    """Return as many clips of a split as are spoken."""
    return [clip for clip in clips if clip.split == split][: params.score.max_sentences]


def largest_batch(clips: Sequence[Clip], batch_size: int) -> BatchShape:
    """Return the largest batch that training may see: clips of similar length share one."""
    if not clips:
        raise UserError(
            Problem("data.manifest", "clips to train on", "none", "Run `voxadapt audit`.")
        )
    return batch_of(sorted(clips, key=lambda clip: -clip.num_positions)[:batch_size])


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


def find_clips(params: Params, model: Model, track: Track) -> list[Clip]:
    """Read what the corpus' clips weigh: from the audit's manifest, else from the raw one."""
    ids = SpecialIds.from_config(model.config)
    tag = None if params.train.language == "auto" else 0  # any id: only the length counts
    count = _token_counter(params)
    rows: list[tuple[str, str, float]] = []
    if track.corpus.manifest.is_file():
        rows = [
            (row.split, row.text, row.duration_s) for row in read_manifest(track.corpus.manifest)
        ]
    else:
        import soundfile

        found, problems = read_raw_manifest(track.data.manifest)
        if problems and not found:
            raise UserError(problems, "The corpus cannot be planned for.")
        for raw in found:
            assigned = assign_split(fold_text(raw.text), track.split)
            rows.append((assigned, raw.text, soundfile.info(str(raw.audio_path)).duration))
    clips = []
    for split, text, seconds in rows:
        tokens, frames = count(text), max(1, round(seconds * FRAME_RATE_HZ))
        clips.append(Clip(split, tokens, frames, len(build_layout(tokens, frames, ids, tag))))
    return clips


def _recordings(track: Track) -> list[tuple[Path, str]]:
    """Return some recordings and their texts, evenly from the whole corpus."""
    if track.corpus.manifest.is_file():
        found = [(Path(row.audio), row.text) for row in read_manifest(track.corpus.manifest)]
    else:
        rows, _ = read_raw_manifest(track.data.manifest)
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


def describe(plan: Plan, itemised: bool = False) -> list[str]:
    """Write the plan as lines of text.

    Args:
        plan: What to write.
        itemised: Say what the time of each stage is made of, too.
    """
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
    for stage in plan.stages if itemised else ():
        if stage.times:
            listed = sorted(stage.times.items(), key=lambda item: -item[1])
            shown = ", ".join(f"{name} {seconds:.1f}" for name, seconds in listed)
            lines.append(f"{stage.name}, seconds: {shown}.")
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
