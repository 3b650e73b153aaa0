"""Stage `language_stage1`: adapt rows of the text embedding; one delta an epoch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from voxadapt.core import paths
from voxadapt.core.files import sha256_folder, write_atomic, write_json
from voxadapt.core.lineage import check_made, write_made
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import LanguageParams, Params, language_section
from voxadapt.core.paths import LANGUAGE
from voxadapt.core.records import Record
from voxadapt.core.stage import StageResult, stage
from voxadapt.data.manifest import Utterance
from voxadapt.data.respelling import load_respelling
from voxadapt.model.load import load_tts, speaker_vector
from voxadapt.model.tokens import SpecialIds
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.corpus_codes import read_corpus_codes
from voxadapt.pipeline.language.reading_store import Readings
from voxadapt.pipeline.language.texts import accepted_texts
from voxadapt.pipeline.language.training import Output, TrainingData, run_training, train_params
from voxadapt.pipeline.tracks import language_track
from voxadapt.training.adaptations.base import Adaptation
from voxadapt.training.adaptations.language import (
    LanguageAdaptation,
    TrainedParts,
    occurring_tokens,
    respelled_rows,
)
from voxadapt.training.batches import GeneratedUtterance

if TYPE_CHECKING:
    from qwen_tts import Qwen3TTSModel


@stage("language_stage1", memory="language.stage1.batch_size")
def run(params: Params) -> StageResult:
    """Adapt rows of the text embedding; publish one delta per epoch."""
    language = language_section(params)
    inputs = [LANGUAGE.made_by_audit, LANGUAGE.made_by_codes, paths.MADE_BY_READINGS]
    check_made(inputs, params)
    output = Output(paths.LANGUAGE_STAGE1, paths.LANGUAGE_STAGE1_LOG)
    result = train_rows(params, language, output, Readings.read(paths.LANGUAGE_READINGS))
    write_json(paths.LANGUAGE_STAGE1_METRICS, result)
    write_json(
        paths.LANGUAGE_STAGE1 / "base" / "meta.json",
        {"epoch": 0, "model": params.model.base, "base_sha256": result["base_sha256"]},
    )
    written = [paths.LANGUAGE_STAGE1, paths.LANGUAGE_STAGE1_METRICS, paths.LANGUAGE_STAGE1_LOG]
    written = [path for path in written if path.exists()]
    keys = ("model.base", "model.revision", "language.stage1", "language.init", "language.row")
    write_made(paths.MADE_BY_STAGE1, "language stage1", written, inputs, params, keys)
    return StageResult(
        f"Stage 1 ({language.stage1.objective}): {result['num_rows']} rows, "
        f"{result['num_trainable']:,} of {result['num_params']:,} parameters; "
        f"{result['delta_bytes'] / 1e6:.2f} MB an epoch.",
        result,
    )


def train_rows(
    params: Params, language: LanguageParams, output: Output, readings: Readings
) -> Record:
    """Run Stage 1 by its objective and return its metrics.

    `language` is the section with the objective and number of epochs of this run, `readings` what
    the Base has read for that objective.
    """
    options = language.stage1
    model_path = resolve_model(params.model)
    device = open_context(params).device
    tts = load_tts(model_path, device, attention=params.model.attention, as_base=True)
    respelling = load_respelling(language.respelling)
    utterances = language_track(params).accepted()
    if options.objective == "audio":
        native = [row.text for row in utterances if row.split == "train"]
    else:
        native = [line.text for line in accepted_texts()]
    tokens = occurring_tokens(tts, native)
    values = None
    if options.init_rows or options.objective == "rows":
        values = respelled_rows(tts, tokens, respelling.respell_piece)
    trained = TrainedParts(token_ids=tokens, values=values)
    label = f"stage 1, {options.objective}"
    adaptation = LanguageAdaptation(language, model_path, trained, label)
    if options.objective == "rows":
        metrics = _set_rows(params, tts, adaptation, utterances[0].ref_audio, output)
        return metrics | {"objective": options.objective}
    del tts
    data = _training_data(params, language, utterances, readings)
    trainer = train_params(params, options, options.lr)
    trainer = trainer.model_copy(update={"frame_dropout": options.frame_dropout})
    metrics = run_training(params, trainer, adaptation, data, language.num_epochs, output)
    return metrics | {"objective": options.objective, **readings.facts}


def _set_rows(
    params: Params, tts: Qwen3TTSModel, adaptation: Adaptation, ref_audio: str, output: Output
) -> Record:
    """Write rows as they are after initialisation as the one epoch; nothing is trained."""
    ids = SpecialIds.from_config(tts.model.config)
    prepared = adaptation.prepare(tts, ids, speaker_vector(tts, ref_audio))
    for stale in output.folder.glob("epoch-*"):
        shutil.rmtree(stale)
    prepared.export(output.folder / "epoch-1", {**prepared.about, "epoch": 1, "step": 0})
    if output.log is not None:
        write_atomic(output.log, "step,epoch,loss\n")
    return {
        **prepared.about,
        "modules": [asdict(count) for count in prepared.counts],
        "epochs": [],
        "base_sha256": sha256_folder(resolve_model(params.model)),
        "num_train_utterances": 0,
        "delta_bytes": (output.folder / "epoch-1" / "delta.safetensors").stat().st_size,
    }


def _training_data(
    params: Params, language: LanguageParams, utterances: Sequence[Utterance], readings: Readings
) -> TrainingData:
    """Return what Stage 1 learns.

    Held-out recordings belong to it, so that the loss on real speech of the language is known.
    """
    codes = read_corpus_codes(
        resolve_model(params.model), utterances, language_track(params).corpus
    )
    splits = ("selection", "train") if language.stage1.objective == "audio" else ("selection",)
    recorded = [row for split in splits for row in utterances if row.split == split]
    read = [GeneratedUtterance(row.id, row.text, row.language) for row in readings.texts]
    tags = {row.id: row.language for row in readings.texts if row.is_source}
    arrays = {**codes, **readings.codes}
    return TrainingData(utterances[0].ref_audio, [*recorded, *read], arrays, tags)
