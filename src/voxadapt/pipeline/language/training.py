"""Training parts of the Base for a language: what both stages and the arms share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from voxadapt.core.files import sha256_folder
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import Params, Stage1Params, Stage2Params, TrainParams, language_section
from voxadapt.core.records import Record
from voxadapt.data.manifest import Utterance
from voxadapt.model.load import load_tts
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.corpus_codes import read_corpus_codes
from voxadapt.pipeline.tracks import language_track
from voxadapt.training.adaptations.base import Adaptation
from voxadapt.training.adaptations.language import (
    LanguageAdaptation,
    TrainedParts,
    occurring_tokens,
)
from voxadapt.training.batches import GeneratedUtterance
from voxadapt.training.trainer import train


@dataclass(frozen=True)
class Output:
    """Where a run writes."""

    folder: Path  # receives a delta for each epoch
    log: Path | None = None  # CSV of losses; None writes none


@dataclass
class TrainingData:
    """What a run learns."""

    ref_audio: str  # recording that gives the speaker vector
    #: Utterances, and lines whose codes come from the Base.
    rows: list[Utterance | GeneratedUtterance]
    codes: Mapping[str, np.ndarray]  # codes `[N, K]` by id
    #: Language of single rows by id; the others have the language's own.
    tags: Mapping[str, str] = field(default_factory=dict)


def train_params(params: Params, stage: Stage1Params | Stage2Params, lr: float) -> TrainParams:
    """Return the trainer's parameters for a stage of the language."""
    name = language_section(params).name
    return TrainParams(
        speaker_name=name,
        language=name,
        batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.gradient_accumulation_steps,
        lr=lr,
        warmup_steps=stage.warmup_steps,
        max_grad_norm=stage.max_grad_norm,
        sub_talker_weight=params.train.sub_talker_weight,
        compute_dtype=params.train.compute_dtype,
        frozen=(),  # an adaptation says itself what is trained
        gradient_checkpointing=params.train.gradient_checkpointing,
        seed=stage.seed,
    )


def train_on_recordings(
    params: Params,
    options: TrainParams,
    label: str,
    num_epochs: int,
    output: Output,
    *,
    modules: tuple[str, ...] = (),
    lora_rank: int = 0,
    with_rows: bool = False,
    start: Path | None = None,
) -> Record:
    """Train modules, or an adapter on the talker's layers, on the recordings; return the metrics.

    `label` is part of the run's identity. `modules` are prefixes of those that are trained whole;
    an adapter has a rank above 0; `with_rows` trains the text rows of the recordings' tokens too.
    `start` is the delta to begin from.
    """
    track = language_track(params)
    model_path = resolve_model(track.model)
    utterances = track.accepted()
    arrays = read_corpus_codes(model_path, utterances, track.corpus)
    tokens: tuple[int, ...] = ()
    if with_rows:
        texts = [row.text for row in utterances if row.split == "train"]
        tokens = occurring_tokens(load_tts(model_path), texts)
    trained = TrainedParts(token_ids=tokens, modules=modules, lora_rank=lora_rank, start=start)
    adaptation = LanguageAdaptation(language_section(params), model_path, trained, label)
    data = TrainingData(utterances[0].ref_audio, list(utterances), arrays)
    return run_training(params, options, adaptation, data, num_epochs, output)


def run_training(
    params: Params,
    options: TrainParams,
    adaptation: Adaptation,
    data: TrainingData,
    num_epochs: int,
    output: Output,
) -> Record:
    """Run the trainer and return its metrics, with the Base's hash and the size of a delta."""
    context, model_path = open_context(params), resolve_model(params.model)
    base_sha256 = sha256_folder(model_path)
    result = train(
        options,
        model_path=model_path,
        utterances=data.rows,
        codes=data.codes,
        ref_audio=data.ref_audio,
        out_dir=output.folder,
        work_dir=context.work_dir,
        num_epochs=num_epochs,
        adaptation=adaptation,
        tags=data.tags,
        log_path=output.log,
        device=context.device,
        attention=params.model.attention,
        base_sha256=base_sha256,
    )
    last = result.checkpoints[-1] / "delta.safetensors"
    return {
        **result.metrics,
        "base_sha256": base_sha256,
        "num_train_utterances": num_train(data.rows),
        "delta_bytes": last.stat().st_size,
    }


def num_train(rows: Sequence[Utterance | GeneratedUtterance]) -> int:
    """Count what is learnt; the other rows are measured."""
    return sum(row.split == "train" for row in rows)
