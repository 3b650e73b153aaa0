"""Parameters of every stage: strict, frozen, one section per stage.

`params.yaml` is read once, here. A misspelt key, a wrong type or a value out of range becomes a
`Problem` that names the parameter; all of them are shown together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.languages import whisper_language
from voxadapt.core.problems import problem, user_error
from voxadapt.core.strict_yaml import on_one_line, read_yaml


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 <= limits[0] < limits[1]:
        raise ValueError("must be two numbers, the lower first, none below 0")
    return limits


def _no_coin_flip(margin: float) -> float:
    if margin < 0.005:
        raise ValueError(
            "must be at least 0.005: without room for chance every other candidate that is just "
            "as good fails, however many sentences there are"
        )
    return margin


def _base_then_epochs(listed: tuple[str, ...]) -> tuple[str, ...]:
    if not listed or listed[0] != "base" or listed.count("base") != 1:
        raise ValueError("must start with base, the zero-shot model, and list it once")
    wrong = [item for item in listed[1:] if not re.fullmatch(r"epoch-[1-9][0-9]{0,3}", item)]
    if wrong:
        raise ValueError(f"must list epochs as epoch-1, epoch-2 …; {wrong[0]!r} is not one")
    numbers = [epoch_number(item) for item in listed[1:]]
    if not numbers or numbers != sorted(set(numbers)):
        raise ValueError("must list at least one epoch, ascending, none twice")
    return listed


Share = Annotated[float, Field(ge=0.0, le=1.0)]
# By how much a candidate may be worse than the Base.
Margin = Annotated[float, Field(le=1.0), AfterValidator(_no_coin_flip)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
# A lower and an upper limit, in this order.
Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_ascending)]
Filled = Annotated[str, Field(min_length=1)]
WhisperLanguage = Annotated[Filled, AfterValidator(whisper_language)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
CandidateNames = Annotated[tuple[str, ...], AfterValidator(_base_then_epochs)]

MAX_SPEAKER_CHARACTERS = 64
STAGE2 = "stage2-"


def speaker_name_problem(name: str) -> str | None:
    """Say why a speaker cannot have this name; None when it can."""
    if not 1 <= len(name) <= MAX_SPEAKER_CHARACTERS:
        return f"must have 1 to {MAX_SPEAKER_CHARACTERS} characters"
    if name != name.strip() or not name.isprintable():
        return "must have no surrounding blanks and no control characters"
    return None


class Section(BaseModel):
    """A frozen group of parameters that refuses unknown keys, and what is no plain value."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: object, info: ValidationInfo) -> object:
        """Refuse control characters, and true or false for a number: they would be 1 and 0."""
        is_switch = cls.model_fields[str(info.field_name)].annotation is bool
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, bool) and not is_switch:
                raise ValueError(
                    "must not be true or false, as yes, no, on, off without quotes are"
                )
            if isinstance(item, str) and not item.replace("\n", " ").isprintable():
                raise ValueError("must be printable text")
        return value


class ModelParams(Section):
    """Which Base model is adapted, and where it runs."""

    base: Filled  # folder, or a hub id such as Qwen/Qwen3-TTS-12Hz-1.7B-Base
    revision: str | None = None  # commit on the hub; null for a folder
    # Where a CustomVoice model is adapted: the Base of its size, for cloning.
    speaker_encoder: Filled | None = None
    # auto, cpu, cuda, cuda:N or mps.
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    num_threads: int | None = Field(None, ge=1)  # CPU threads; null: torch decides

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what is off and younger than the runs that it left unchanged: they stand."""
        values: dict[str, object] = handler(self)
        return {k: v for k, v in values.items() if k != "speaker_encoder" or v is not None}


class AsrParams(Section):
    """Which Whisper model transcribes."""

    model: Filled  # path of a checkpoint, a Hugging Face folder or id, or an openai-whisper name
    language: WhisperLanguage  # code or name, always forced: en, Mandarin …
    batch_size: Count = 16
    # Another one, of another size or family, that hears the two finalists too.
    second: Filled | None = None
    substitutions: Filled | None = None  # YAML of spellings that mean the same: words, letters

    @model_validator(mode="after")
    def _two_models(self) -> AsrParams:
        if self.second == self.model:
            raise ValueError("asr.second must be another model than asr.model")
        return self


class DataParams(Section):
    """Where the speaker's corpus lies."""

    manifest: Filled  # JSONL with audio, text and ref_audio; paths relative to it
    # Transcript of the reference clip, for score.base_prompt; null: its row's.
    ref_text: str | None = None
    # JSONL with audio, text and speaker: other voices, for the floor.
    other_voices: Filled | None = None


class AuditParams(Section):
    """Limits of the data audit; beyond an *error* limit a clip is not used."""

    min_total_minutes: Positive = 5.0
    recommended_total_minutes: Range = (10.0, 30.0)
    min_sample_rate_hz: Count = 16000
    clip_duration_s: Range = (1.0, 20.0)
    ref_duration_s: Range = (3.0, 10.0)
    max_clipped_share: Share = 0.001
    min_snr_db: float = 20.0
    max_edge_silence_s: Positive = 0.7
    rate_outlier_mads: Positive = 4.0
    # Character error rate of Whisper against the transcript that is reported.
    max_disagreement: Positive = 0.3
    # Clips and lines with an error: left out and listed, or none is used.
    on_error: Literal["drop", "stop"] = "drop"


class SplitParams(Section):
    """Shares of texts held out by hash, so that adding clips moves no text between splits."""

    selection_share: Share = 0.2
    confirmation_share: Share = 0.2
    salt: str = "voxadapt"

    @model_validator(mode="after")
    def _leave_some_training(self) -> SplitParams:
        if self.selection_share + self.confirmation_share >= 0.9:
            raise ValueError("selection_share + confirmation_share must stay below 0.9")
        return self


class CodesParams(Section):
    """Codec extraction."""

    batch_seconds: Positive = 60.0  # padded audio per codec batch; on a CPU at most 8 s


class LoraParams(Section):
    """A low-rank adapter, which is trained instead of the weights: they change by B A alpha / rank.

    It lies on the linear layers of the blocks; what `train.frozen` names is left without.
    """

    rank: Count = 16
    alpha: Positive = 32.0
    # Whose blocks it changes.
    targets: tuple[Literal["talker", "code_predictor"], ...] = Field(
        ("talker", "code_predictor"), min_length=1
    )
    # Part of the change that an epoch speaks with; another trains nothing new.
    export_scale: Positive = 1.0

    @property
    def export_factor(self) -> float:
        """Factor of B A in an epoch."""
        return self.export_scale * self.alpha / self.rank


class TrainParams(Section):
    """Speaker fine-tuning. The number of epochs is the last one listed in `candidates`."""

    speaker_name: str = Field(min_length=1, max_length=64)
    language: str = "auto"  # prefix: auto, or a language the model lists
    batch_size: Count = 8
    gradient_accumulation_steps: Count = 1
    lr: Positive = 2.0e-6
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0.0)
    max_grad_norm: Positive = 1.0
    # Largest share of input frames without codes, drawn for each utterance.
    frame_dropout: Share = 0.0
    # Share of texts typed carelessly: no final stop, no punctuation, lower case.
    text_augmentation: Share = 0.0
    sub_talker_weight: Positive = 0.3  # weight of the code predictor's loss
    # Autocast dtype; masters stay fp32 unless master_weights is false.
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    master_weights: bool = True
    # Train the weights, or a low-rank adapter (needs peft).
    method: Literal["full", "lora"] = "full"
    lora: LoraParams = LoraParams()
    # bfloat16 weights, 8 more bits and 8-bit moments: 7 bytes a weight, not 16.
    low_memory: bool = False
    frozen: tuple[str, ...] = ("speaker_encoder",)  # module prefixes that are not trained
    gradient_checkpointing: bool = False
    seed: Seed = 0
    # Of several in the manifest, those that are learnt; null: all. The others must be speakers of
    # model.base; they are spoken and measured.
    speakers: tuple[str, ...] | None = Field(None, min_length=1)
    # Several speakers: 0 takes every clip once an epoch, 1 as many frames of each.
    balance: Share = 0.0

    @field_validator("speaker_name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if problem := speaker_name_problem(name):
            raise ValueError(problem)
        return name

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what is off and younger than the runs that it left unchanged: they stand."""
        values: dict[str, object] = handler(self)
        younger = ("speakers", "balance", "text_augmentation")
        off = [name for name in younger if not values.get(name)]
        off += ["method", "lora"] if self.method == "full" else []
        return {name: value for name, value in values.items() if name not in off}

    @model_validator(mode="after")
    def _one_kind_of_master(self) -> TrainParams:
        if self.low_memory and (self.compute_dtype != "bfloat16" or not self.master_weights):
            raise ValueError(
                "low_memory keeps masters of its own and computes in bfloat16: "
                "set compute_dtype: bfloat16 and master_weights: true"
            )
        if self.low_memory and self.method == "lora":
            raise ValueError("low_memory is of method full: an adapter needs little as it is")
        return self


class OwnSentences(Section):
    """A set of the sentences that this user will speak."""

    own: Filled  # text file, a sentence a line; or JSONL with text


class ScoreParams(Section):
    """Synthesis and scoring, the same for every candidate."""

    takes: int = Field(3, ge=1)  # takes per sentence; at least 3 for a decision
    batch_size: Count = 32
    # Weights that speak; auto: bfloat16 on a GPU that has it, or float32.
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: Seed = 1
    max_sentences: int | None = Field(None, ge=1)  # per split; null scores all of them
    # What is spoken at selection; only the corpus chooses.
    sets: tuple[
        Literal["corpus", "short", "long", "numbers", "names", "questions"] | OwnSentences, ...
    ] = ("corpus",)
    # How the Base clones: speaker vector, reference text and codes too, or, for a speaker, both:
    # the better one is the bar.
    base_prompt: Literal["x_vector", "icl", "both"] = "x_vector"
    non_streaming_mode: bool = True
    temperature: Positive = 0.9
    top_k: Count = 50
    top_p: Share = 1.0
    repetition_penalty: Positive = 1.05
    # Cap on generated seconds per text token (plus 4 s): stops runaways.
    max_seconds_per_token: Positive = 0.6

    @field_validator("sets")
    @classmethod
    def _corpus_and_others_once(
        cls, sets: tuple[str | OwnSentences, ...]
    ) -> tuple[str | OwnSentences, ...]:
        names = ["own" if isinstance(item, OwnSentences) else item for item in sets]
        if names[:1] != ["corpus"] or len(set(names)) < len(names):
            raise ValueError("must begin with corpus, which chooses, and list each set once")
        return sets

    min_speech_s: Positive = 1.0  # less speech than this: similarity is missing
    rate_ratio: Range = (0.6, 1.7)  # spoken / expected duration
    max_silence_s: Positive = 1.0
    mos: bool = False  # predict naturalness with DistillMOS (extra mos); it decides nothing


class SelectParams(Section):
    """The selection rule, fixed before any epoch is scored."""

    primary: Literal["similarity", "error"] = "similarity"
    error_metric: Literal["wer", "cer"] = "wer"
    error_margin: Margin = 0.02  # error may exceed the Base's by this share,
    error_margin_relative: Share = 0.1  # or by this part of the Base's own error, whichever is more
    failure_margin: Margin = 0.02
    # Similarities this close count as equal: nobody hears less.
    similarity_tie: Share = 0.005
    duration_ratio: Range = (0.8, 1.25)
    max_wrong_language: Share = 0.05
    # Similarity may fall below the Base's by this; null: no gate.
    similarity_margin: Margin | None = None
    # Smallest F0 range over the recordings'; null: no gate.
    min_f0_range_ratio: float | None = Field(None, gt=0.0, le=1.0)
    num_bootstrap: Annotated[int, Field(ge=200, le=100_000)] = 4000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    seed: Seed = 2


class MeasurableParams(Section):
    """Limits beyond which the answer is that nothing can be measured here."""

    max_error: Share = 0.5  # of the recogniser on real recordings, as recorded and after the codec
    # Pairs in which a coded recording is more like its speaker's than others'.
    min_separation: Share = 0.8


class UsableParams(Section):
    """What is good enough: ready within the first limit, not usable yet beyond the second."""

    # Error above that of the same sentences' recordings, coded.
    error_above_codec: Shares = (0.05, 0.15)
    # Share of the way from the codec's ceiling to other voices.
    similarity_lost: Shares = (0.25, 0.6)
    failure_rate: Shares = (0.02, 0.1)
    wrong_language: Shares = (0.1, 0.3)  # clips heard as another language, above coded recordings


class SourceParams(Section):
    """Sentences of a language that the Base knows: what adaptation may make it forget."""

    text: Filled  # JSONL with a text in each line; a corpus' manifest will do
    language: str = "english"  # one that the Base lists
    asr_language: WhisperLanguage = "en"  # Whisper's code of it
    max_sentences: Count = 24


class Stage1Params(Section):
    """Stage 1: rows of `talker.model.text_embedding`, everything else frozen.

    Objectives: `respelling` lets the frozen Base read the texts in an orthography that it knows
    and trains the rows to say the same from the native spelling (text only); `rows` sets the rows
    from those of the respelling without training (text only); `audio` learns from recordings.
    """

    objective: Literal["respelling", "rows", "audio"] = "respelling"
    init_rows: bool = False  # begin with the rows of the respelling instead of the Base's own
    readings: Count = 1  # times that the Base reads each respelled text
    # Share of utterances that repeat the source language as the Base says it.
    source_share: Share = 0.25
    lr: Positive = 1.0e-4
    batch_size: Count = 8
    gradient_accumulation_steps: Count = 1
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: Positive = 1.0
    frame_dropout: Share = 0.0
    seed: Seed = 0


class Stage2Params(Section):
    """Stage 2: `talker.code_predictor`, with the rows of the best Stage 1 epoch frozen."""

    mode: Literal["auto", "always", "never"] = "auto"
    # Stage 2 runs when Stage 1's error exceeds the codec's round trip by more.
    max_gap: Share = 0.05
    # What to do when the interval of that gap contains max_gap.
    if_undecided: Literal["run", "skip"] = "run"
    num_epochs: Count = 3
    lr: Positive = 5.0e-5
    batch_size: Count = 8
    gradient_accumulation_steps: Count = 1
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0.0)
    max_grad_norm: Positive = 1.0
    seed: Seed = 0

    @property
    def candidate_names(self) -> tuple[str, ...]:
        """The candidates: `stage2-epoch-1`, …; also the names of their files."""
        return tuple(f"{STAGE2}epoch-{epoch}" for epoch in range(1, self.num_epochs + 1))


class ArmsParams(Section):
    """Other answers to "which part must learn a language"; each is trained on the recordings."""

    audio_rows: bool = False  # Stage 1 with the objective `audio`
    init_rows: bool = False  # Stage 1 with the objective `rows`
    text_projection: bool = False  # talker.text_projection and language row
    talker_lora: bool = False  # LoRA on the talker's layers (needs peft)
    full_talker: bool = False  # the talker without its code predictor
    lora_rank: Count = 8
    num_epochs: Count = 3
    lr: Positive = 1.0e-4  # of arms that train modules; rows use stage1.lr

    @property
    def enabled(self) -> tuple[str, ...]:
        """Names of the arms that are switched on, in the order of the fields."""
        return tuple(name for name, on in self.model_dump().items() if on is True)


class LanguageParams(Section):
    """Adaptation to a language that the Base does not know."""

    name: str  # lower-case name, as inference will be asked for it
    init: str = "mean"  # language row: mean of the known ones, or a relative
    row: int | None = Field(None, ge=0)  # codec row of the tag; null: a free one
    asr_language: WhisperLanguage  # Whisper's code of the language
    text: Filled  # JSONL with {"text": …} lines: all that Stage 1 needs
    audio: Filled  # manifest of recordings: held-out sentences, voice, Stage 2
    ref_text: str | None = None  # transcript of the reference clip
    respelling: Filled  # map of graphemes to an orthography that the Base reads
    source: SourceParams
    split: SplitParams = SplitParams()
    audit: AuditParams = AuditParams()
    # Stage 1 checkpoints that are scored: base, then epoch-1, epoch-2 …
    candidates: CandidateNames = ("base", "epoch-1", "epoch-2", "epoch-3", "epoch-4")
    stage1: Stage1Params = Stage1Params()
    stage2: Stage2Params = Stage2Params()
    arms: ArmsParams = ArmsParams()
    select: SelectParams

    @field_validator("name")
    @classmethod
    def _lower_case(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z][a-z_-]*", name):
            raise ValueError(
                "must be lower-case letters: inference looks languages up in lower case "
                f"(write {name.lower()!r})"
            )
        return name

    @model_validator(mode="after")
    def _rows_are_one_epoch(self) -> LanguageParams:
        if self.stage1.objective == "rows" and self.candidates != ("base", "epoch-1"):
            raise ValueError(
                "stage1.objective rows trains nothing: list candidates [base, epoch-1]"
            )
        return self

    @property
    def num_epochs(self) -> int:
        """How many epochs of Stage 1 are trained."""
        return epoch_number(self.candidates[-1])


class ReportParams(Section):
    """What the page shows."""

    title: str = "Speaker fine-tuning"
    max_grid_sentences: Count = 12
    # Who is compared by ear: base, chosen, runner-up, or an epoch.
    listening_pairs: tuple[tuple[str, str], ...] = Field((("base", "chosen"),), min_length=1)
    listening_sentences: Count = 20  # of each pair; half as many are rated


class ExecutorParams(Section):
    """Where extraction and scoring run; the results are the same bytes, and no stage runs again."""

    # This machine, or workers of a Ray cluster (needs the extra ray).
    kind: Literal["local", "ray"] = "local"
    # auto or host:port of a cluster that this machine is in; null starts one here.
    address: str | None = Field(None, pattern=r"^(auto|[A-Za-z0-9_.\-]+:[0-9]{1,5})$")
    # Worker processes. local: at most cores / model.num_threads, which null means; 1 on a GPU. ray:
    # models that are loaded at once, a processor each; null means 2.
    num_workers: Count | None = None
    gpus_per_worker: Positive = 1.0  # where model.device is a GPU; 0.5 puts two workers on one
    # How often a worker may die and be replaced before the run stops.
    max_losses: int = Field(3, ge=0)


class Params(Section):
    """Everything in `params.yaml`."""

    profile: str = "miniature"
    model: ModelParams
    asr: AsrParams
    data: DataParams
    audit: AuditParams = AuditParams()
    split: SplitParams = SplitParams()
    codes: CodesParams = CodesParams()
    train: TrainParams
    # Scored checkpoints: base, then epoch-1, epoch-2 … in ascending order.
    candidates: CandidateNames
    score: ScoreParams = ScoreParams()
    select: SelectParams = SelectParams()
    measurable: MeasurableParams = MeasurableParams()
    usable: UsableParams = UsableParams()
    report: ReportParams = ReportParams()
    executor: ExecutorParams = ExecutorParams()
    language: LanguageParams | None = None

    @property
    def num_epochs(self) -> int:
        """How many epochs are trained: the last one that is scored."""
        return epoch_number(self.candidates[-1])


def candidate_name(candidate: str | int) -> str:
    """Name a candidate as `params.yaml` does: `base` stays, `3` becomes `epoch-3`."""
    text = str(candidate)
    return f"epoch-{int(text)}" if text.isdecimal() else text


def in_stage2(candidate: str) -> bool:
    """Tell whether a candidate is an epoch of a language's Stage 2."""
    return candidate.startswith(STAGE2)


def language_scoring(candidate: str) -> str:
    """Name the command that scores a candidate of the language: `language score epoch-1`."""
    return "language stage2-score" if in_stage2(candidate) else f"language score {candidate}"


def epoch_number(candidate: str) -> int:
    """Return the epoch of a candidate within its stage; the Base has been trained for 0."""
    return 0 if candidate == "base" else int(candidate.removeprefix(STAGE2)[len("epoch-") :])


def language_section(params: Params) -> LanguageParams:
    """Return the `language` section; raises `UserError` when there is none."""
    if params.language is None:
        raise user_error("core.no_language", "params.yaml: language")
    return params.language


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read a parameter file; raises `UserError` with a problem for each parameter that is wrong."""
    path = Path(path)
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise user_error("core.no_params", path) from None
    except (OSError, ValueError) as error:  # a wrong byte is a ValueError too
        raise user_error("core.unreadable_params", path, error=error) from None
    if not isinstance(values, dict):
        raise user_error("core.no_sections", path, found=repr(values)[:60])
    return check_params(values, path)


def check_params(values: Mapping[str, object], path: str | Path) -> Params:
    """Check what a parameter file holds; errors as of `load_params`."""
    path = Path(path)
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = [_problem(path, item) for item in error.errors(include_url=False)]
        raise UserError(problems, f"{path} cannot be used.") from None


def _problem(path: Path, item: ErrorDetails) -> Problem:
    """Turn one pydantic error into a problem that names the parameter."""
    name = ".".join(map(str, item["loc"]))
    where = f"{path.name}: {on_one_line(name)[:120] or 'candidates'}"
    if item["type"] == "extra_forbidden":
        return problem("core.unknown_parameter", where)
    if item["type"] == "missing":
        return problem("core.missing_parameter", where)
    found = on_one_line(repr(item.get("input")))
    found = found if len(found) <= 80 else found[:77] + "…"
    kind = "core.no_number" if "float" in item["type"] else "core.wrong_parameter"
    expected = item["msg"].removeprefix("Value error, ")
    return problem(kind, where, expected=expected, found=found)
