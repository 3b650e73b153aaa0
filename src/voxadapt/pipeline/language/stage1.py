"""Stage `language_stage1`: adapt rows of the text embedding; one delta an epoch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from voxadapt.core import paths
from voxadapt.core.files import sha256_file, sha256_folder, write_atomic, write_json
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import LanguageParams, Params
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Record
from voxadapt.core.stage import StageResult, stage
from voxadapt.data.manifest import Utterance
from voxadapt.data.respelling import Respelling, load_respelling
from voxadapt.data.texts import TextLine
from voxadapt.generation.decoding import VERSION, frame_rate_hz
from voxadapt.generation.readings import read_aloud
from voxadapt.model.load import load_tts, speaker_vector
from voxadapt.model.tokens import SpecialIds
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.corpus_codes import read_corpus_codes
from voxadapt.pipeline.language.texts import accepted_texts, source_lines
from voxadapt.pipeline.language.training import (
    Output,
    TrainingData,
    num_train,
    run_training,
    train_params,
)
from voxadapt.pipeline.tracks import language_section, language_track
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
    """Adapt rows of the text embedding; publish one delta per epoch.

    Raises:
        UserError: For data or parameters that cannot be trained.
    """
    language = language_section(params)
    output = Output(paths.LANGUAGE_STAGE1, paths.LANGUAGE_STAGE1_LOG)
    result = train_rows(params, language, output)
    write_json(paths.LANGUAGE_STAGE1_METRICS, result)
    write_json(
        paths.LANGUAGE_STAGE1 / "base" / "meta.json",
        {"epoch": 0, "model": params.model.base, "base_sha256": result["base_sha256"]},
    )
    return StageResult(
        f"Stage 1 ({language.stage1.objective}): {result['num_rows']} rows, "
        f"{result['num_trainable']:,} of {result['num_params']:,} parameters; "
        f"{result['delta_bytes'] / 1e6:.2f} MB an epoch.",
        result,
    )


def train_rows(params: Params, language: LanguageParams, output: Output) -> Record:
    """Run Stage 1 by its objective.

    Args:
        params: All parameters.
        language: The `language` section, with the objective and number of epochs of this run.
        output: Where the run writes.

    Returns:
        Its metrics.
    """
    options = language.stage1
    model_path = resolve_model(params.model)
    device = open_context(params).device
    tts = load_tts(model_path, device, attention=params.model.attention, as_base=True)
    respelling = load_respelling(language.respelling)
    utterances = language_track(params).accepted()
    lines = accepted_texts()
    native = [line.text for line in lines]
    if options.objective == "audio":
        native = [row.text for row in utterances if row.split == "train"]
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
    data, facts = _training_data(params, language, tts, utterances, lines, respelling)
    del tts
    trainer = train_params(params, options, options.lr)
    trainer = trainer.model_copy(update={"frame_dropout": options.frame_dropout})
    metrics = run_training(params, trainer, adaptation, data, language.num_epochs, output)
    return metrics | {"objective": options.objective, **facts}


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
    params: Params,
    language: LanguageParams,
    tts: Qwen3TTSModel,
    utterances: Sequence[Utterance],
    lines: Sequence[TextLine],
    respelling: Respelling,
) -> tuple[TrainingData, Record]:
    """Return what Stage 1 learns, and facts for the metrics.

    Held-out recordings belong to it, so that the loss on real speech of the language is known.
    """
    options, source = language.stage1, language.source
    ref_audio = utterances[0].ref_audio
    model_path = resolve_model(params.model)
    arrays = dict(read_corpus_codes(model_path, utterances, language_track(params).corpus))
    rows: list[Utterance | GeneratedUtterance] = [
        row for row in utterances if row.split == "selection"
    ]
    facts: Record = {}

    def read(texts: Sequence[str], take: int = 0) -> list[np.ndarray | None]:
        return _read_aloud(params, tts, texts, ref_audio, source.language, options.seed + take)

    if options.objective == "audio":
        rows += [row for row in utterances if row.split == "train"]
    else:
        texts = [respelling.respell(line.text) for line in lines]
        num_unfinished = 0
        for take in range(options.readings):
            for line, codes_NK in zip(lines, read(texts, take), strict=True):
                if codes_NK is None:
                    num_unfinished += 1
                    continue
                name = f"{line.id}#{take}"
                rows.append(GeneratedUtterance(name, line.text, language.name))
                arrays[name] = codes_NK
        facts["texts"] = {"num_texts": len(texts), "num_unfinished": num_unfinished}
    wanted = round(options.source_share / max(1e-9, 1 - options.source_share) * num_train(rows))
    repeated = source_lines(params)[1][:wanted]
    tags: dict[str, str] = {}
    if options.source_share and repeated:
        spoken = read([line.text for line in repeated])
        for line, codes_NK in zip(repeated, spoken, strict=True):
            if codes_NK is not None:
                rows.append(GeneratedUtterance(line.id, line.text, source.language))
                arrays[line.id] = codes_NK
                tags[line.id] = source.language
    facts["num_source_texts"] = len(tags)
    if options.source_share and len(repeated) < wanted:
        facts["source_texts_missing"] = wanted - len(repeated)
    return TrainingData(ref_audio, rows, arrays, tags), facts


def _read_aloud(
    params: Params,
    tts: Qwen3TTSModel,
    texts: Sequence[str],
    ref_audio: str,
    language: str,
    seed: int,
) -> list[np.ndarray | None]:
    """Let the frozen Base read texts; return codes `[N, K]` each, None where it did not end.

    Readings are kept in the work folder, batch by batch, in one folder for each set of texts.
    """
    score = params.score
    sampling = {
        "temperature": score.temperature,
        "top_k": score.top_k,
        "top_p": score.top_p,
        "repetition_penalty": score.repetition_penalty,
        "seed": seed,
        "batch_size": score.batch_size,
        "max_seconds_per_token": score.max_seconds_per_token,
    }
    base_sha256 = sha256_folder(resolve_model(params.model))
    identity = [VERSION, sampling, list(texts), language, sha256_file(ref_audio), base_sha256]
    readings = read_aloud(
        tts,
        texts,
        speaker_vector(tts, ref_audio),
        language,
        temperature=score.temperature,
        top_k=score.top_k,
        top_p=score.top_p,
        repetition_penalty=score.repetition_penalty,
        seed=seed,
        batch_size=score.batch_size,
        max_seconds_per_token=score.max_seconds_per_token,
        frames_per_s=frame_rate_hz(tts),
        work_dir=paths.work_dir() / "readings" / fingerprint(identity),
    )
    return [
        np.asarray(reading.codes, dtype=np.int64)
        if reading.ended and reading.codes is not None and len(reading.codes)
        else None
        for reading in readings
    ]
