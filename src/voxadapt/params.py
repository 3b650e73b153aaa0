"""Parameters of every stage: strict, frozen, one section per stage.

`params.yaml` is read once, here. A misspelt key, a wrong type or a value out of range becomes a
`Problem` that names the parameter; all of them are shown together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from voxadapt.errors import Problem, UserError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen group of parameters that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelParams(Section):
    """Which Base model is adapted, and where it runs."""

    base: str = Field(description="Folder, or a hub id such as Qwen/Qwen3-TTS-12Hz-1.7B-Base.")
    revision: str | None = Field(None, description="Commit on the hub; null for a folder.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    num_threads: int | None = Field(None, ge=1, description="CPU threads; null: torch decides.")


class AsrParams(Section):
    """Which openai-whisper model transcribes."""

    model: str = Field(description="Path of a checkpoint, or an openai-whisper name.")
    language: str = Field(description="Whisper language code, always forced: en, ms, zh …")
    batch_size: Count = 16


class DataParams(Section):
    """Where the speaker's corpus lies."""

    manifest: str = Field(description="JSONL with audio, text and ref_audio; paths relative to it.")
    ref_text: str | None = Field(
        None, description="Transcript of the reference clip, for `score.base_prompt: icl`."
    )
    other_voices: str | None = Field(
        None, description="JSONL with audio, text and speaker: other voices, for the floor."
    )


class AuditParams(Section):
    """Limits of the data audit; beyond an *error* limit the pipeline stops."""

    min_total_minutes: Positive = 5.0
    recommended_total_minutes: tuple[float, float] = (10.0, 30.0)
    min_sample_rate_hz: Count = 16000
    clip_duration_s: tuple[float, float] = (1.0, 20.0)
    ref_duration_s: tuple[float, float] = (3.0, 10.0)
    max_clipped_share: Share = 0.001
    min_snr_db: float = 20.0
    max_edge_silence_s: Positive = 0.7
    rate_outlier_mads: Positive = 4.0
    max_disagreement: Positive = Field(
        0.3, description="Character error rate of Whisper against the transcript that is reported."
    )


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

    batch_seconds: Positive = Field(60.0, description="Padded audio per codec batch.")


class TrainParams(Section):
    """Speaker fine-tuning. The number of epochs is the last one listed in `candidates`."""

    speaker_name: str = Field(min_length=1, max_length=64)
    language: str = Field("auto", description="Prefix: auto, or a language the model lists.")
    batch_size: Count = 8
    gradient_accumulation_steps: Count = 1
    lr: Positive = 2.0e-6
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0.0)
    max_grad_norm: Positive = 1.0
    frame_dropout: Share = Field(
        0.0, description="Largest share of input frames without codes, drawn for each utterance."
    )
    sub_talker_weight: Positive = Field(0.3, description="Weight of the code predictor's loss.")
    compute_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Autocast dtype; masters stay fp32 unless master_weights is false."
    )
    master_weights: bool = True
    frozen: tuple[str, ...] = Field(
        ("speaker_encoder",), description="Module prefixes that are not trained."
    )
    gradient_checkpointing: bool = False
    seed: int = 0

    @field_validator("speaker_name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if name != name.strip() or any(ord(c) < 32 for c in name):
            raise ValueError("must have no surrounding blanks and no control characters")
        return name


class ScoreParams(Section):
    """Synthesis and scoring, the same for every candidate."""

    takes: int = Field(3, ge=1, description="Takes per sentence; at least 3 for a decision.")
    batch_size: Count = 32
    seed: int = 1
    max_sentences: int | None = Field(None, ge=1, description="Per split; null scores all of them.")
    base_prompt: Literal["x_vector", "icl"] = Field(
        "x_vector", description="How the Base clones: speaker vector, or reference text and codes."
    )
    non_streaming_mode: bool = True
    temperature: Positive = 0.9
    top_k: Count = 50
    top_p: Share = 1.0
    repetition_penalty: Positive = 1.05
    max_seconds_per_token: Positive = Field(
        0.6, description="Cap on generated seconds per text token (plus 4 s): stops runaways."
    )
    min_speech_s: Positive = Field(1.0, description="Less speech than this: similarity is missing.")
    rate_ratio: tuple[float, float] = Field((0.6, 1.7), description="Spoken / expected duration.")
    max_silence_s: Positive = 1.0


class SelectParams(Section):
    """The selection rule, fixed before any epoch is scored."""

    primary: Literal["similarity", "error"] = "similarity"
    error_metric: Literal["wer", "cer"] = "wer"
    error_margin: float = Field(0.02, ge=0.0, description="Error may exceed the Base's by this.")
    failure_margin: float = Field(0.02, ge=0.0)
    duration_ratio: tuple[float, float] = (0.8, 1.25)
    max_wrong_language: Share = 0.05
    num_bootstrap: Annotated[int, Field(ge=200)] = 4000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    seed: int = 2


class ReportParams(Section):
    """What the page shows."""

    title: str = "Speaker fine-tuning"
    max_grid_sentences: Count = 12


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
    candidates: tuple[str, ...] = Field(
        description="Scored checkpoints: base, then epoch-1, epoch-2 … in ascending order."
    )
    score: ScoreParams = ScoreParams()
    select: SelectParams = SelectParams()
    report: ReportParams = ReportParams()

    @field_validator("candidates")
    @classmethod
    def _base_then_epochs(cls, listed: tuple[str, ...]) -> tuple[str, ...]:
        if not listed or listed[0] != "base" or listed.count("base") != 1:
            raise ValueError("must start with base, the zero-shot model, and list it once")
        wrong = [item for item in listed[1:] if not _EPOCH.fullmatch(item)]
        if wrong:
            raise ValueError(f"must list epochs as epoch-1, epoch-2 …; {wrong[0]!r} is not one")
        numbers = [epoch_number(item) for item in listed[1:]]
        if not numbers or numbers != sorted(set(numbers)):
            raise ValueError("must list at least one epoch, ascending, none twice")
        return listed

    @property
    def num_epochs(self) -> int:
        """How many epochs are trained: the last one that is scored."""
        return epoch_number(self.candidates[-1])

    @property
    def candidate_names(self) -> tuple[str, ...]:
        """The candidates: `base`, `epoch-1`, …; also the names of their files."""
        return self.candidates


_EPOCH = re.compile(r"epoch-[1-9][0-9]{0,3}")


def candidate_name(candidate: str | int) -> str:
    """Name a candidate as `params.yaml` does: `base` stays, `3` becomes `epoch-3`."""
    text = str(candidate)
    return f"epoch-{int(text)}" if text.isdecimal() else text


def epoch_number(candidate: str) -> int:
    """Return the epoch of a candidate; the Base has been trained for 0."""
    return 0 if candidate == "base" else int(candidate.removeprefix("epoch-"))


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=deep) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", node.start_mark
            )
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Args:
        path: YAML file with one section per stage.

    Returns:
        The frozen parameters.

    Raises:
        UserError: With one problem for each parameter that is missing, unknown or wrong.
    """
    path = Path(path)
    title = f"{path} cannot be used."
    use = "Run `voxadapt use miniature`."
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (safe)
    except FileNotFoundError:
        raise UserError(Problem(str(path), "a parameter file", "nothing", use), title) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            Problem(str(path), "readable YAML in UTF-8", " ".join(str(error).split()), "Mend it."),
            title,
        ) from None
    if not isinstance(values, dict):
        raise UserError(
            Problem(str(path), "sections such as model: and train:", repr(values)[:60], "Mend it."),
            title,
        )
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError([_problem(path, item) for item in error.errors()], title) from None


def _problem(path: Path, item: Any) -> Problem:
    """Turn one pydantic error into a problem that names the parameter."""
    name = ".".join(str(part) for part in item["loc"] if part not in ("base", "int", "literal"))
    where = f"{path.name}: {name or 'candidates'}"
    if item["type"] == "extra_forbidden":
        return Problem(where, "a known parameter", "an unknown one", "Check the spelling.")
    if item["type"] == "missing":
        return Problem(where, "a value", "nothing", "Add it; `profiles/` has examples.")
    found = repr(item.get("input"))
    found = found if len(found) <= 80 else found[:77] + "…"
    is_number = "float" in item["type"]
    hint = "Write a number such as 2.0e-5 (with the point)." if is_number else "Change it."
    return Problem(where, item["msg"].removeprefix("Value error, "), found, hint)
