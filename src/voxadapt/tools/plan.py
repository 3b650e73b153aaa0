"""What a run will need: the memory of every stage, whether it runs, and how long it takes.

Memory is counted (`voxadapt.tools.memory`). What runs is DVC's answer, and its time is what it took
here the last time (`voxadapt.tools.status`). Nothing is measured, and torch is not imported for
models that are here, so that the answer comes at once.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from voxadapt.core.errors import UserError
from voxadapt.core.executor import num_cores
from voxadapt.core.files import read_json, read_jsonl
from voxadapt.core.model_folder import read_config
from voxadapt.core.params import (
    LanguageParams,
    ModelParams,
    Params,
    SplitParams,
    Stage1Params,
    Stage2Params,
    TrainParams,
)  # fmt: skip
from voxadapt.core.paths import LANGUAGE, SPEAKER
from voxadapt.core.problems import user_error
from voxadapt.core.progress import format_duration
from voxadapt.core.records import Record
from voxadapt.tools.doctor import is_hub_id
from voxadapt.tools.dvc_state import Pipeline
from voxadapt.tools.memory import (
    GB,
    Memory,
    audit_memory,
    codes_memory,
    speaking_memory,
    training_memory,
)
from voxadapt.tools.sizes import (
    FRAME_RATE_HZ,
    TEXT_EMBEDDING,
    BatchShape,
    Clip,
    Codec,
    Model,
    num_positions,
    text_rows,
)  # fmt: skip
from voxadapt.tools.status import UP_TO_DATE, StageStatus, status, summary

#: The codec of the released models, counted from the stock class.
RELEASED_CODEC = Codec(num_bytes=1_005_260_804, encoder_width=64, decoder_width=96)
Count = Callable[[str], int]  # of the tokens of a text
COLUMNS = ("stage", "memory", "of which", "time", "state")
_CHARACTERS_PER_TOKEN = 3.5  # of a text whose tokenizer is not here


@dataclass(frozen=True)
class Stage:
    """One line of the plan."""

    name: str  # of the verb that runs it
    memory: Memory
    lower: str  # settings, should the memory not do
    runs: tuple[StageStatus, ...] = ()  # one a candidate; none where nobody asked DVC

    @property
    def to_run(self) -> list[StageStatus]:
        """Those that are not up to date."""
        return [stage for stage in self.runs if stage.state != UP_TO_DATE]

    @property
    def seconds(self) -> float | None:
        """What those take together; None where one has not run here yet."""
        known = [stage.seconds for stage in self.to_run if stage.seconds is not None]
        return sum(known) if self.runs and len(known) == len(self.to_run) else None

    @property
    def state(self) -> str:
        """Where it stands, in a word or two; `voxadapt status` says why."""
        if not self.runs or not self.to_run:
            return UP_TO_DATE if self.runs else "-"
        state = self.to_run[0].state
        several = len(self.runs) > 1
        return f"{state}: {len(self.to_run)} of {len(self.runs)}" if several else state


@dataclass(frozen=True)
class Plan:
    """What `voxadapt plan` prints."""

    device: str
    capacity: float  # of its memory, bytes
    stages: tuple[Stage, ...]
    found: tuple[StageStatus, ...] = ()  # all of DVC's

    @property
    def fits(self) -> bool:
        """Whether every stage has room."""
        return all(stage.memory.total <= self.capacity for stage in self.stages)


def plan(params: Params, memory_gb: float | None = None, pipeline: Pipeline | None = None) -> Plan:
    """Predict every stage of a run.

    `memory_gb` plans for a GPU of this memory, which need not be here. `pipeline`, where it is for
    these parameters, tells what runs, and how long it takes.
    """
    values, codec, folder = find_config(params.model)
    model = Model.from_config(values, params.train.frozen, codec, folder)
    count = _token_counter(folder)
    tagged = params.train.language != "auto"
    if memory_gb is None:
        device, capacity, kind = describe_device(params.model)
    else:
        device, capacity, kind = f"a GPU of {memory_gb:g} GB", memory_gb * GB, "cuda"
    stages: list[Stage] = []
    if (language := params.language) is not None:
        files = (language.audio, language.text, language.source.text)
        if all(Path(file).is_file() for file in files):
            stages = _language(params, language, model, kind, count, tagged)
    if not stages or Path(params.data.manifest).is_file():  # or it is of a language alone
        stages = [*_speaker(params, model, kind, capacity, count, tagged), *stages]
    found = () if pipeline is None else tuple(status(pipeline))
    planned = []
    for stage in stages:
        family = stage.name.replace(" ", "_")
        runs = tuple(run for run in found if run.name.partition("@")[0] == family)
        planned.append(replace(stage, runs=runs))
    return Plan(device, capacity, tuple(planned), found)


def _speaker(
    params: Params, model: Model, kind: str, capacity: float, count: Count, tagged: bool
) -> list[Stage]:
    """Plan the speaker's stages."""
    clips = find_clips(SPEAKER.manifest, params.data.manifest, params.split, count, tagged)
    learnt = [clip for clip in clips if clip.split == "train"]
    largest = largest_batch(learnt, params.train.batch_size)
    speaking = speaking_memory(model, [c for c in clips if c.split != "train"], params, kind)
    return [
        Stage("audit", audit_memory(params, kind), "asr.batch_size"),
        Stage("codes", codes_memory(model, params, kind), "codes.batch_seconds"),
        Stage(
            "train",
            training_memory(model, params.train, largest, kind, text_rows(learnt)),
            _train_setting(model, params.train, learnt, kind, capacity),
        ),
        Stage("score", speaking, "score.batch_size"),
        Stage("confirm", speaking, "score.batch_size"),
    ]


def _language(
    params: Params, language: LanguageParams, model: Model, kind: str, count: Count, tagged: bool
) -> list[Stage]:
    """Plan the language's stages; Stage 2 as if it were run."""
    clips = find_clips(LANGUAGE.manifest, language.audio, language.split, count, tagged)
    learnt = [clip for clip in clips if clip.split == "train"]
    per_token = [clip.num_frames / clip.num_text_tokens for clip in clips]

    def of_texts(path: str) -> list[Clip]:
        """Expect as many frames of a text token as the recordings have, one after another."""
        found = []
        for index, row in enumerate(read_jsonl(path)):
            tokens = count(str(row.get("text", "")))
            frames = max(1, round(per_token[index % len(per_token)] * tokens))
            found.append(Clip("train", tokens, frames, num_positions(tokens, frames, True)))
        return found

    stage, source = language.stage1, of_texts(language.source.text)
    texts = learnt if stage.objective == "audio" else of_texts(language.text) * stage.readings
    share = stage.source_share
    num_repeated = round(share / max(1e-9, 1 - share) * len(texts)) if share else 0
    rest = source[language.source.max_sentences :]
    told = [*texts, *rest[:num_repeated]]

    def learning(part: str, how: Stage1Params | Stage2Params, seen: list[Clip]) -> Memory:
        """Predict training of one part of the model, all else frozen, with float32 masters."""
        counts = {name: (size, name.startswith(part)) for name, (size, _) in model.counts.items()}
        changed = {"master_weights": True, "low_memory": False, "method": "full"} | {
            key: getattr(how, key) for key in ("batch_size", "gradient_accumulation_steps")
        }
        train = params.train.model_copy(update=changed)
        batch = largest_batch(seen, how.batch_size)
        rows = text_rows(seen) if part == TEXT_EMBEDDING else None
        return training_memory(replace(model, counts=counts), train, batch, kind, rows)

    codes = codes_memory(model, params, kind)
    speaking = speaking_memory(model, [c for c in clips if c.split != "train"], params, kind)
    stage1 = learning(TEXT_EMBEDDING, stage, told)
    stage2 = learning("talker.code_predictor.", language.stage2, learnt)
    return [
        Stage("language data", codes, "codes.batch_seconds"),
        Stage("language readings", speaking, "score.batch_size"),
        Stage("language stage1", stage1, "language.stage1.batch_size"),
        Stage("language score", speaking, "score.batch_size"),
        Stage("language stage2", stage2, "language.stage2.batch_size"),
        Stage("language stage2_score", speaking, "score.batch_size"),
        Stage("language confirm", speaking, "score.batch_size"),
    ]


def largest_batch(clips: Sequence[Clip], batch_size: int) -> BatchShape:
    """Return the largest batch that training may see: clips of similar length share one."""
    if not clips:
        raise user_error("tools.no_clips", "data.manifest")
    longest = sorted(clips, key=lambda clip: -clip.num_positions)[:batch_size]
    frames = sum(clip.num_frames for clip in longest)
    return BatchShape(len(longest), longest[0].num_positions, frames)


def _train_setting(
    model: Model, params: TrainParams, clips: Sequence[Clip], kind: str, capacity: float
) -> str:
    """Return the first settings, in the order of what they cost, with which training fits."""

    def in_batches_of(rows: int) -> dict[str, object]:
        factor = params.batch_size // rows
        steps = params.gradient_accumulation_steps * factor
        return {"batch_size": rows, "gradient_accumulation_steps": steps}

    smaller = [params.batch_size >> n for n in range(1, params.batch_size.bit_length())]
    light: dict[str, object] = {"gradient_checkpointing": True}
    low: dict[str, object] = {"compute_dtype": "bfloat16"}
    if params.method != "lora":
        low |= {"low_memory": True, "master_weights": True}
    one = in_batches_of(1)
    for changed in (*map(in_batches_of, smaller), light, one | light, low, low | light,
                    low | light | one):  # fmt: skip
        other = TrainParams.model_validate({**params.model_dump(), **changed})
        shape = largest_batch(clips, other.batch_size)
        if training_memory(model, other, shape, kind, text_rows(clips)).total <= capacity:
            listed = {k: v for k, v in changed.items() if getattr(params, k) != v}
            return ", ".join(f"train.{k}: {str(v).lower()}" for k, v in listed.items())
    return "train.frozen: freeze more, or another device"


def find_config(params: ModelParams) -> tuple[Record, Codec, Path | None]:
    """Return the Base's config, codec and folder; a model that is known need not be downloaded."""
    folder = Path(params.base)
    on_hub = is_hub_id(params.base)
    if on_hub:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(params.base, "config.json", revision=params.revision)
        folder = Path(cached).parent if isinstance(cached, str) else folder
    if folder.is_dir():
        here = folder if any(folder.glob("*.safetensors")) else None
        return read_config(folder), read_codec(folder), here
    if on_hub:
        from voxadapt.model.shapes import SHAPES, config_values

        for name, shape in SHAPES.items():
            if name.lower() in params.base.lower():
                return config_values(shape), RELEASED_CODEC, None
    raise user_error("tools.unknown_model", "model.base", found=params.base)


def read_codec(folder: Path) -> Codec:
    """Read what the codec of a model folder weighs."""
    codec = folder / "speech_tokenizer"
    values: Record = read_json(codec / "config.json")
    decoder = values["decoder_config"]
    return Codec(
        sum(file.stat().st_size for file in codec.glob("*.safetensors")),
        values["encoder_config"]["num_filters"],
        decoder["decoder_dim"] // 2 ** len(decoder["upsample_rates"]),
    )


def find_clips(
    audited: Path, manifest: str, split: SplitParams, count: Count, tagged: bool
) -> list[Clip]:
    """Read what the corpus' clips weigh: from the audit's manifest, else from the raw one.

    `count` counts the tokens of a text; `tagged` sequences have a language tag.
    """
    rows: list[tuple[str, str, float]]
    if audited.is_file():
        rows = [(row["split"], row["text"], row["duration_s"]) for row in read_jsonl(audited)]
    else:
        import soundfile

        from voxadapt.data.manifest import read_raw_manifest
        from voxadapt.data.splits import assign_split
        from voxadapt.data.text import fold_text

        found, problems = read_raw_manifest(manifest)
        if problems and not found:
            raise UserError(problems, "The corpus cannot be planned for.")
        rows = [
            (assign_split(fold_text(raw.text), split), raw.text,
             soundfile.info(str(raw.audio_path)).duration)
            for raw in found
        ]  # fmt: skip
    clips = []
    for part, text, seconds in rows:
        tokens, frames = count(text), max(1, round(seconds * FRAME_RATE_HZ))
        clips.append(Clip(part, tokens, frames, num_positions(tokens, frames, tagged)))
    return clips


def _token_counter(folder: Path | None) -> Count:
    """Return what counts the tokens of a text, by the model's tokenizer if it is here."""
    if folder is None or not (folder / "vocab.json").is_file():
        return lambda text: max(1, round(len(text) / _CHARACTERS_PER_TOKEN))
    from tokenizers import Tokenizer, models, pre_tokenizers

    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        files = str(folder / "vocab.json"), str(folder / "merges.txt")
        tokenizer = Tokenizer(models.BPE.from_file(*files))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return lambda text: max(1, len(tokenizer.encode(text).ids))


def describe_device(params: ModelParams) -> tuple[str, float, str]:
    """Return name, memory in bytes and kind of the device that models run on."""
    if params.device != "cpu" and (params.device != "auto" or shutil.which("nvidia-smi")):
        import torch

        from voxadapt.core.device import resolve_device

        device = resolve_device(params.device)
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            return properties.name, float(properties.total_memory), "cuda"
    cores = num_cores()
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    threads = params.num_threads or cores
    name = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    if params.device == "mps":
        name = "Apple GPU, which shares the machine's memory"
    return name, float(pages * size), "cpu"


def rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the plan's table, `COLUMNS` without its header."""
    found: list[tuple[str, ...]] = []
    for stage in plan.stages:
        parts = sorted(stage.memory.parts.items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{name} {value / GB:.1f}" for name, value in parts if value >= 0.05 * GB)
        when = format_duration(stage.seconds) if stage.seconds else "-"
        found.append((stage.name, f"{stage.memory.total / GB:.1f} GB", shown, when, stage.state))
    return found


def notes(plan: Plan) -> list[str]:
    """Say what the next run does, and what to lower where a stage does not fit."""
    lines = summary(plan.found) if plan.found else []
    if any(stage.seconds is None and stage.to_run for stage in plan.stages):
        lines.append("A stage that has not run here yet says how long it takes when it has begun.")
    if plan.found and any(stage.to_run for stage in plan.stages):
        lines.append("Why a stage runs: voxadapt status.")
    for stage in plan.stages:
        if stage.memory.total > plan.capacity:
            hears = "windows" in stage.memory.parts
            lower = "asr.batch_size, or take a smaller asr.model" if hears else stage.lower
            lines.append(f"{stage.name} does not fit. Lower: {lower}.")
    return [*lines, "Everything fits."] if plan.fits else lines
