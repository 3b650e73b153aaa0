"""The stages of a language: here the rooms meet for the second path, as in `stages.py`.

The corpus of recordings goes through the same audit, extraction and scoring as a speaker's; its
files lie in `artifacts/language` and `reports/language`. Candidates are Base models: the
unadapted one, and deltas that are laid over it when they are needed.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from voxadapt.core import paths
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import (
    read_json,
    read_jsonl,
    sha256_file,
    sha256_folder,
    write_atomic,
    write_json,
)
from voxadapt.core.locks import file_lock
from voxadapt.core.params import (
    STAGE2,
    ArmsParams,
    DataParams,
    LanguageParams,
    Params,
    Stage1Params,
    Stage2Params,
    TrainParams,
    candidate_name,
    in_stage2,
)
from voxadapt.core.paths import LANGUAGE
from voxadapt.core.provenance import fingerprint
from voxadapt.data.respelling import Respelling, load_respelling
from voxadapt.data.text import dominant_script, fold_text
from voxadapt.data.texts import (
    TextLine,
    audit_texts,
    outside_vocabulary,
    read_texts,
    write_texts,
)
from voxadapt.pipeline import stages
from voxadapt.pipeline.stages import StageResult, guarded, read_record

PARTS = ("target", "source")
SKIPPED = "skipped.json"
#: How arms are named on the command line and in tables.
ARM_TITLES = {
    "audio_rows": "text rows from audio",
    "init_rows": "text rows set from the respelling",
    "text_projection": "text_projection and language row",
    "talker_lora": "LoRA on the talker",
    "full_talker": "talker without code predictor",
}


# --- data ----------------------------------------------------------------------------------------


def section(params: Params) -> LanguageParams:
    """Return the `language` section.

    Raises:
        UserError: When there is none.
    """
    if params.language is None:
        raise UserError(
            Problem("params.yaml: language", "a section that names the language", "none",
                    "Copy the one of profiles/miniature.yaml and change it.")
        )  # fmt: skip
    return params.language


def corpus_view(params: Params) -> Params:
    """Return the parameters as the corpus stages read them for the language's recordings."""
    language = section(params)
    return params.model_copy(
        update={
            "data": DataParams(
                manifest=language.audio,
                ref_text=language.ref_text,
                other_voices=params.data.other_voices,
            ),
            "asr": params.asr.model_copy(update={"language": language.asr_language}),
            "audit": language.audit,
            "split": language.split,
            "select": language.select,
        }
    )


def source_view(params: Params) -> Params:
    """Return the parameters for scoring the source language with the same voice."""
    view = corpus_view(params)
    asr = view.asr.model_copy(update={"language": section(params).source.asr_language})
    return view.model_copy(update={"asr": asr})


@guarded
def data(params: Params) -> StageResult:
    """Check the language's data, then extract codes and measure the ceiling of every score."""
    checked = audit(params)
    coded = codes(params)
    return StageResult(f"{checked.sentence} {coded.sentence}", checked.values)


def audit(params: Params) -> StageResult:
    """Check the recordings and the texts of the language.

    Raises:
        UserError: With every error in either.
    """
    language = section(params)
    problems = _name_problems(params, language)
    recordings = texts = None
    try:
        recordings = stages.audit(corpus_view(params), LANGUAGE)
    except UserError as error:
        problems += error.problems
    try:
        texts = _audit_texts(params, language)
    except UserError as error:
        problems += error.problems
    if problems or recordings is None or texts is None:
        raise UserError(problems, f"The data of {language.name} cannot be used.")
    return StageResult(f"{recordings.sentence} {texts.sentence}", texts.values)


def _name_problems(params: Params, language: LanguageParams) -> list[Problem]:
    """Say why the model cannot be given a language of this name."""
    from voxadapt.core.model_folder import read_config, resolve_model
    from voxadapt.model.tokens import language_name_problems

    talker = read_config(resolve_model(params.model))["talker_config"]
    return language_name_problems(talker.get("codec_language_id") or {}, language.name)


def _audit_texts(params: Params, language: LanguageParams) -> StageResult:
    from voxadapt.core.model_folder import read_config, resolve_model

    lines = read_texts(language.text)
    respelling = load_respelling(language.respelling)
    folder = resolve_model(params.model)
    talker = read_config(folder)["talker_config"]
    tokenizer = _tokenizer(folder)
    recorded = stages.accepted(LANGUAGE) if LANGUAGE.manifest.is_file() else []
    result = audit_texts(
        lines,
        path=language.text,
        script=dominant_script(row.text for row in recorded),
        held_out={fold_text(row.text) for row in recorded if row.split != "train"},
        # Half of the context is left to speech: a text token takes one to three frames.
        max_tokens=int(talker["max_position_embeddings"]) // 2,
        count_tokens=lambda text: len(tokenizer(text)["input_ids"]),
        unknown=lambda text: outside_vocabulary(tokenizer, talker["text_vocab_size"], text),
        respelling=respelling,
    )
    write_texts(result, paths.LANGUAGE_TEXTS, paths.LANGUAGE_TEXT_METRICS)
    return StageResult(result.sentence, result.metrics)


def codes(params: Params) -> StageResult:
    """Extract codes of the recordings; score them and their codec round trip."""
    return stages.codes(corpus_view(params), LANGUAGE)


# --- Stage 1 -------------------------------------------------------------------------------------


@guarded
def stage1(params: Params) -> StageResult:
    """Adapt rows of the text embedding; publish one delta per epoch."""
    language = section(params)
    result = _train_rows(params, language, paths.LANGUAGE_STAGE1, paths.LANGUAGE_STAGE1_LOG)
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


def _train_rows(
    params: Params, language: LanguageParams, out_dir: Path, log_path: Path | None
) -> dict[str, Any]:
    """Run Stage 1 by its objective and return its metrics."""
    from voxadapt.core.model_folder import resolve_model
    from voxadapt.model.load import load_tts
    from voxadapt.training.language import Trained, occurring_tokens, respelled_rows
    from voxadapt.training.language import language_adaptation as adaptation_of

    stage = language.stage1
    model_path = resolve_model(params.model)
    tts = load_tts(model_path, stages.device_of(params), attention=params.model.attention,
                   as_base=True)  # fmt: skip
    respelling = load_respelling(language.respelling)
    utterances = list(stages.accepted(LANGUAGE))
    lines = _accepted_texts()
    by_audio = stage.objective == "audio"
    native = [row.text for row in utterances if row.split == "train"] if by_audio else [
        line.text for line in lines
    ]  # fmt: skip
    tokens = occurring_tokens(tts, native)
    values = None
    if stage.init_rows or stage.objective == "rows":
        values = respelled_rows(tts, tokens, respelling.respell_piece)
    what = Trained(token_ids=tokens, values=values)
    label = f"stage 1, {stage.objective}"
    adaptation = adaptation_of(language, model_path, what, label)
    ref_audio = utterances[0].ref_audio
    if stage.objective == "rows":
        metrics = _set_rows(tts, adaptation, model_path, ref_audio, out_dir, log_path)
        return metrics | {"objective": stage.objective}
    rows, arrays, tags, facts = _stage1_data(
        params, language, tts, model_path, ref_audio, lines, respelling
    )
    del tts
    options = _options(params, stage, stage.lr)
    options = options.model_copy(update={"frame_dropout": stage.frame_dropout})
    metrics = _run(params, options, adaptation, model_path, rows, arrays, tags, ref_audio,
                   language.num_epochs, out_dir, log_path)  # fmt: skip
    return metrics | {"objective": stage.objective, **facts}


def _set_rows(
    tts: Any,
    adaptation: Any,
    model_path: Path,
    ref_audio: str,
    out_dir: Path,
    log_path: Path | None,
) -> dict[str, Any]:
    """Write rows as they are after initialisation as the one epoch; nothing is trained."""
    from voxadapt.model.load import speaker_vector
    from voxadapt.model.tokens import SpecialIds

    ids = SpecialIds.from_config(tts.model.config)
    prepared = adaptation.prepare(tts, ids, speaker_vector(tts, ref_audio))
    for stale in out_dir.glob("epoch-*"):
        shutil.rmtree(stale)
    prepared.export(out_dir / "epoch-1", {**prepared.about, "epoch": 1, "step": 0})
    if log_path is not None:
        write_atomic(log_path, "step,epoch,loss\n")
    return {
        **prepared.about,
        "modules": [asdict(count) for count in prepared.counts],
        "epochs": [],
        "base_sha256": sha256_folder(model_path),
        "num_train_utterances": 0,
        "delta_bytes": (out_dir / "epoch-1" / "delta.safetensors").stat().st_size,
    }


def _stage1_data(
    params: Params,
    language: LanguageParams,
    tts: Any,
    model_path: Path,
    ref_audio: str,
    lines: Sequence[TextLine],
    respelling: Respelling,
) -> tuple[list[Any], dict[str, Any], dict[str, str], dict[str, Any]]:
    """Return what Stage 1 learns: rows, their codes, tags, and facts for the metrics.

    Held-out recordings belong to it, so that the loss on real speech of the language is known.
    """
    from voxadapt.training.batches import Line

    stage, source = language.stage1, language.source
    utterances = list(stages.accepted(LANGUAGE))
    arrays = dict(stages.corpus_codes(model_path, utterances, LANGUAGE))
    rows: list[Any] = [row for row in utterances if row.split == "selection"]
    tags: dict[str, str] = {}
    facts: dict[str, Any] = {}
    if stage.objective == "audio":
        rows += [row for row in utterances if row.split == "train"]
    else:
        texts = [respelling.respell(line.text) for line in lines]
        facts["texts"] = {"num_texts": len(texts), "num_unfinished": 0}
        for take in range(stage.readings):
            spoken = _read_aloud(
                params, tts, model_path, texts, ref_audio, source.language, stage.seed + take
            )
            for line, codes_NK in zip(lines, spoken, strict=True):
                if codes_NK is None:
                    facts["texts"]["num_unfinished"] += 1
                    continue
                name = f"{line.id}#{take}"
                rows.append(Line(name, line.text, language.name))
                arrays[name] = codes_NK
    learnt = sum(row.split == "train" for row in rows)
    wanted = round(stage.source_share / max(1e-9, 1 - stage.source_share) * learnt)
    repeated = _source_lines(params)[1][:wanted]
    if stage.source_share and repeated:
        spoken = _read_aloud(
            params, tts, model_path, [line.text for line in repeated], ref_audio,
            source.language, stage.seed,
        )  # fmt: skip
        for line, codes_NK in zip(repeated, spoken, strict=True):
            if codes_NK is not None:
                rows.append(Line(line.id, line.text, source.language))
                arrays[line.id] = codes_NK
                tags[line.id] = source.language
    facts["num_source_texts"] = len(tags)
    if stage.source_share and len(repeated) < wanted:
        facts["source_texts_missing"] = wanted - len(repeated)
    return rows, arrays, tags, facts


def _read_aloud(
    params: Params,
    tts: Any,
    model_path: Path,
    texts: Sequence[str],
    ref_audio: str,
    language: str,
    seed: int,
) -> list[Any]:
    """Let the frozen Base read texts; return codes `[N, K]` each, None where it did not end.

    Readings are kept in the work folder, batch by batch, in one folder for each set of texts.
    """
    from voxadapt.generation.decoding import VERSION
    from voxadapt.generation.readings import read_aloud
    from voxadapt.generation.synthesis import frame_rate_hz
    from voxadapt.model.load import speaker_vector

    score = params.score
    sampling: dict[str, Any] = {
        "temperature": score.temperature,
        "top_k": score.top_k,
        "top_p": score.top_p,
        "repetition_penalty": score.repetition_penalty,
        "seed": seed,
        "batch_size": score.batch_size,
        "max_seconds_per_token": score.max_seconds_per_token,
    }
    key = fingerprint(
        [
            VERSION,
            sampling,
            list(texts),
            language,
            sha256_file(ref_audio),
            sha256_folder(model_path),
        ]
    )
    readings = read_aloud(
        tts,
        texts,
        speaker_vector(tts, ref_audio),
        language,
        frames_per_s=frame_rate_hz(tts),
        work_dir=paths.work_dir() / "readings" / key,
        **sampling,
    )
    return [
        np.asarray(reading.codes, dtype=np.int64)
        if reading.ended and reading.codes is not None and len(reading.codes)
        else None
        for reading in readings
    ]


# --- scores and decisions ------------------------------------------------------------------------


@guarded
def score(params: Params, candidate: str | int) -> StageResult:
    """Speak held-out sentences of the language, and of the source language, with a candidate."""
    language = section(params)
    name = candidate_name(candidate)
    if name not in language.candidates:
        listed = ", ".join(language.candidates)
        raise UserError(Problem("candidate", f"one of {listed}", name, "Name one of them."))
    delta = None if name == "base" else _delta(paths.LANGUAGE_STAGE1 / name, "language stage1")
    summaries = _score(params, name, delta, "selection", paths.LANGUAGE_SCORES / name)
    write_json(paths.LANGUAGE_SCORE_METRICS / f"{name}.json", _metrics_row(summaries))
    return StageResult(_score_sentence(params, name, summaries), summaries)


@guarded
def decide(params: Params) -> StageResult:
    """Choose the epoch of Stage 1 and decide about Stage 2 by the rules in the parameters."""
    from voxadapt.selection import select as selection
    from voxadapt.selection.forgetting import forgetting
    from voxadapt.selection.stage2 import decide_stage2

    language = section(params)
    rows = {
        name: _rows(params, paths.LANGUAGE_SCORES / name, name, "target")
        for name in language.candidates
    }
    source = {
        name: _rows(params, paths.LANGUAGE_SCORES / name, name, "source")
        for name in language.candidates
    }
    choice = selection.select(rows, language.select, what="adapt it", **_references())
    chosen = choice["chosen"]
    choice["forgetting"] = forgetting(
        source["base"], source, language.select, chosen=chosen, scale=_scale()
    )
    write_json(paths.LANGUAGE_CHOICE1, choice)
    decision = decide_stage2(rows[chosen], _references()["codec"], language.stage2, language.select)
    write_json(paths.LANGUAGE_DECISION, decision)
    return StageResult(f"{choice['reason']} {decision['reason']}", decision)


@guarded
def stage2(params: Params) -> StageResult:
    """Adapt the code predictor from the best epoch of Stage 1, if the decision says so.

    Every epoch is scored as well. Where Stage 2 is not run, a record says why.
    """
    language = section(params)
    decision = read_record(paths.LANGUAGE_DECISION, "language decide")
    chosen = decision["stage1"]["candidate"]
    for folder in (paths.LANGUAGE_STAGE2, paths.LANGUAGE_STAGE2_SCORES):
        if decision["acts"] != "run" and folder.exists():
            shutil.rmtree(folder)
    if decision["acts"] != "run":
        # The numbers stay in decision.json: a change in them alone does not run this stage again.
        record = {"skipped": True, "reason": f"{paths.LANGUAGE_DECISION} says {decision['acts']}."}
        write_json(paths.LANGUAGE_STAGE2 / SKIPPED, record)
        write_json(paths.LANGUAGE_STAGE2_SCORES / SKIPPED, record)
        write_json(paths.LANGUAGE_STAGE2_METRICS, record)
        write_atomic(paths.LANGUAGE_STAGE2_LOG, "step,epoch,loss\n")
        return StageResult(f"Stage 2 is skipped. {decision['reason']}", None)

    (paths.LANGUAGE_STAGE2 / SKIPPED).unlink(missing_ok=True)
    (paths.LANGUAGE_STAGE2_SCORES / SKIPPED).unlink(missing_ok=True)
    start = None
    if chosen != "base":
        start = _delta(paths.LANGUAGE_STAGE1 / chosen, "language stage1")
    stage = language.stage2
    options = _options(params, stage, stage.lr)
    options = options.model_copy(update={"weight_decay": stage.weight_decay})
    metrics = _train_audio(
        params, options, "stage 2", stage.num_epochs, paths.LANGUAGE_STAGE2,
        paths.LANGUAGE_STAGE2_LOG, modules=("talker.code_predictor",), start=start,
    )  # fmt: skip
    write_json(paths.LANGUAGE_STAGE2_METRICS, metrics | {"skipped": False})
    sentences = []
    for name in stage.candidate_names:
        folder = paths.LANGUAGE_STAGE2_SCORES / name
        summaries = _score(params, name, delta_of(name), "selection", folder)
        sentences.append(_score_sentence(params, name, summaries))
    return StageResult(
        f"Stage 2: {metrics['num_trainable']:,} of {metrics['num_params']:,} parameters. "
        + " ".join(sentences),
        metrics,
    )


@guarded
def confirm(params: Params) -> StageResult:
    """Choose the model that is kept, and compare it with the Base on the untouched split."""
    from voxadapt.scoring.rows import read_scores
    from voxadapt.selection import select as selection
    from voxadapt.selection.confirm import confirm as compare_with_base
    from voxadapt.selection.forgetting import forgetting

    language = section(params)
    first = read_record(paths.LANGUAGE_CHOICE1, "language decide")
    start = first["chosen"]
    folders = {"base": paths.LANGUAGE_SCORES / "base", start: paths.LANGUAGE_SCORES / start}
    ran = not (paths.LANGUAGE_STAGE2 / SKIPPED).is_file()
    if ran:
        for name in language.stage2.candidate_names:
            folders[name] = paths.LANGUAGE_STAGE2_SCORES / name
    rows = {name: _rows(params, path, name, "target") for name, path in folders.items()}
    source = {name: _rows(params, path, name, "source") for name, path in folders.items()}
    if ran:
        decision = selection.select(
            rows, language.select, start=start, what="adapt it", **_references()
        )
    else:
        decision = dict(first)
    decision["forgetting"] = forgetting(
        source["base"], source, language.select, chosen=decision["chosen"], scale=_scale()
    )
    decision["stage1_choice"] = start
    decision["stage2_ran"] = ran
    write_json(paths.LANGUAGE_SELECTION, decision)
    _write_epochs_table(params, ran)

    chosen = decision["chosen"]
    wanted = stages.finalists(paths.LANGUAGE_CONFIRMATION, chosen)
    heard = {}
    for name in wanted:
        folder = paths.LANGUAGE_CONFIRMATION / name
        _score(params, name, delta_of(name), "confirmation", folder, parts=("target",))
        heard[name] = read_scores(folder / "target", split="confirmation")
    record = compare_with_base(
        heard["base"],
        heard[chosen],
        language.select,
        scale=_scale(),
        selection=decision,
    )
    folders = {name: paths.LANGUAGE_CONFIRMATION / name / "target" for name in wanted}
    record["second_asr"] = stages.second_opinion(corpus_view(params), heard, folders, chosen)
    write_json(paths.LANGUAGE_CONFIRM, record)
    warning = decision["forgetting"].get("warning")
    said = f"{decision['reason']} {record['sentence']}"
    return StageResult(said + (f" {warning}" if warning else ""), record)


@guarded
def report(params: Params) -> StageResult:
    """Write the language's report page."""
    from voxadapt.reporting.language_page import write_language_report

    write_language_report(params)
    return StageResult(f"The report is {paths.LANGUAGE_REPORT}.", paths.LANGUAGE_REPORT)


# --- arms ----------------------------------------------------------------------------------------


@guarded
def arms(params: Params, names: Sequence[str] | None = None) -> StageResult:
    """Train and score other parts of the model with the same harness; write one table.

    Args:
        params: All parameters.
        names: Arms of `ARM_TITLES`; None: those that `language.arms` switches on.
    """
    language = section(params)
    wanted = language.arms.enabled if names is None else tuple(names)
    unknown = [name for name in wanted if name not in ARM_TITLES]
    if unknown:
        raise UserError(
            [Problem("arm", f"one of {', '.join(ARM_TITLES)}", name, "Correct it.")
             for name in unknown]
        )  # fmt: skip
    if not wanted:
        return StageResult(
            f"No arm is switched on in language.arms, so {paths.LANGUAGE_ARMS_TABLE} stays as it "
            f"is. There are: {', '.join(ARM_TITLES)}.",
        )
    listed = [_stage_entry(params)] if paths.LANGUAGE_SELECTION.is_file() else []
    for name in wanted:
        listed.append(_arm(params, name))
    table = {"arms": listed, "base": _entry(params, "base", paths.LANGUAGE_SCORES / "base")}
    write_json(paths.LANGUAGE_ARMS_TABLE, table)
    best = min(listed, key=lambda item: item["cer"]["point"])
    return StageResult(
        f"{len(wanted)} arms; lowest CER {100 * best['cer']['point']:.1f} % by {best['title']}.",
        table,
    )


def _arm(params: Params, name: str) -> dict[str, Any]:
    """Train one arm, score its epochs, and describe the one that the rule chooses."""
    from voxadapt.selection import select as selection
    from voxadapt.selection.forgetting import forgetting

    language = section(params)
    arm: ArmsParams = language.arms
    folder = paths.LANGUAGE_ARMS / name
    began = time.monotonic()
    if name in ("audio_rows", "init_rows"):
        objective = "audio" if name == "audio_rows" else "rows"
        stage = language.stage1.model_copy(update={"objective": objective})
        names = ("base", *(f"epoch-{n}" for n in range(1, arm.num_epochs + 1)))
        changed = language.model_copy(update={"stage1": stage, "candidates": names})
        metrics = _train_rows(
            params.model_copy(update={"language": changed}), changed, folder / "deltas", None
        )
    else:
        from voxadapt.training.language import TALKER

        options = _options(params, language.stage1, arm.lr)
        modules = {"text_projection": ("talker.text_projection",), "full_talker": TALKER}
        metrics = _train_audio(
            params, options, ARM_TITLES[name], arm.num_epochs, folder / "deltas", None,
            modules=modules.get(name, ()),
            lora_rank=arm.lora_rank if name == "talker_lora" else 0,
            with_rows=name == "full_talker",
        )  # fmt: skip
    seconds = time.monotonic() - began
    rows = {"base": _rows(params, paths.LANGUAGE_SCORES / "base", "base", "target")}
    source = {"base": _rows(params, paths.LANGUAGE_SCORES / "base", "base", "source")}
    for delta in sorted((folder / "deltas").glob("epoch-*"), key=lambda p: int(p.name[6:])):
        scores = folder / "scores" / delta.name
        _score(params, delta.name, delta, "selection", scores)
        rows[delta.name] = _rows(params, scores, delta.name, "target")
        source[delta.name] = _rows(params, scores, delta.name, "source")
    choice = selection.select(rows, language.select, **_references())
    epochs = [item for item in choice["candidates"] if item["name"] != "base"]
    chosen = choice["chosen"]
    if chosen == "base":  # every arm is shown by its best epoch, also when none beats the Base
        chosen = min(epochs, key=lambda item: item["cer"]["point"])["name"]
    kept = forgetting(source["base"], source, language.select, chosen=chosen, scale=_scale())
    return _entry(params, name, folder / "scores" / chosen) | {
        "title": ARM_TITLES[name],
        "epoch": chosen,
        "beats_base": choice["chosen"] != "base",
        "forgetting": kept["candidates"][chosen],
        "num_trainable": metrics["num_trainable"],
        "share": metrics["num_trainable"] / metrics["num_params"],
        "delta_bytes": metrics["delta_bytes"],
        "data": "text" if name == "init_rows" else "audio and text",
        "seconds": round(seconds, 1),
    }


def _stage_entry(params: Params) -> dict[str, Any]:
    """Describe the path that the pipeline took as a row of the arms' table."""
    decision = read_record(paths.LANGUAGE_SELECTION, "language confirm")
    chosen = decision["chosen"]
    folder = paths.LANGUAGE_STAGE2_SCORES if in_stage2(chosen) else paths.LANGUAGE_SCORES
    first = read_record(paths.LANGUAGE_STAGE1_METRICS, "language stage1")
    title, data = f"Stage 1, {first['objective']}", first["objective"] == "audio"
    num_trainable, delta_bytes = first["num_trainable"], first["delta_bytes"]
    if in_stage2(chosen):
        second = read_record(paths.LANGUAGE_STAGE2_METRICS, "language stage2")
        kept = decision["stage1_choice"] != "base"
        title, data = f"{title}; Stage 2" if kept else "Stage 2 alone", True
        num_trainable = second["num_trainable"] + (num_trainable if kept else 0)
        delta_bytes = second["delta_bytes"]
    return _entry(params, "stages", folder / chosen) | {
        "title": title,
        "epoch": chosen,
        "beats_base": chosen != "base",
        "forgetting": decision["forgetting"]["candidates"].get(chosen),
        "num_trainable": num_trainable,
        "share": num_trainable / first["num_params"],
        "delta_bytes": delta_bytes,
        "data": "audio and text" if data else "text",
        "seconds": None,
    }


def _entry(params: Params, name: str, folder: Path) -> dict[str, Any]:
    found = {part: read_record(folder / part / "summary.json", "language score") for part in PARTS}
    shown = ("cer", "wer", "sim", "duration_ratio", "failure_rate")
    return {
        "name": name,
        **{key: found["target"][key] for key in shown},
        "source_cer": found["source"]["cer"],
    }


# --- using a language ----------------------------------------------------------------------------


def materialise(params: Params, output: Path, candidate: str | None = None) -> StageResult:
    """Write the chosen model, or a candidate, as a full folder that stock `qwen_tts` loads."""
    from voxadapt.core.model_folder import resolve_model
    from voxadapt.model.delta import materialise as lay_over

    name = candidate or read_record(paths.LANGUAGE_SELECTION, "language confirm")["chosen"]
    delta = delta_of(name)
    if delta is None:
        raise UserError(
            Problem("candidate", "an adapted model", "base",
                    "The Base is kept: there is nothing to lay over it.")
        )  # fmt: skip
    lay_over(resolve_model(params.model), delta, output)
    spoken = section(params).name.capitalize()
    return StageResult(
        f'{output} speaks {spoken}: generate_voice_clone(text, language="{spoken}", …).', output
    )


def restore(params: Params, checkpoint: Path, candidate: str, output: Path) -> StageResult:
    """Take a delta out of a full folder again: the Base, bit for bit."""
    from voxadapt.core.model_folder import resolve_model
    from voxadapt.model.delta import restore as take_out

    base, delta = resolve_model(params.model), delta_of(candidate)
    if delta is None:
        raise UserError(Problem("candidate", "an adapted model", "base", "Name an epoch."))
    take_out(checkpoint, delta, base, output)
    return StageResult(f"{output} is the Base again, bit for bit.", output)


def say(
    params: Params, text: str, output: Path, candidate: str | None = None, seed: int = 0
) -> StageResult:
    """Speak a text in the language with the chosen model, or with a candidate."""
    name = candidate or read_record(paths.LANGUAGE_SELECTION, "language confirm")["chosen"]
    tts, voice, *_ = _load(params, delta_of(name))
    tag = "auto" if name == "base" else section(params).name
    return stages.say_with(params, tts, voice, text, output, name, tag, seed)


# --- shared --------------------------------------------------------------------------------------


def _options(params: Params, stage: Stage1Params | Stage2Params, lr: float) -> TrainParams:
    """Return the loop's parameters for a stage of the language."""
    name = section(params).name
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


def _train_audio(
    params: Params,
    options: TrainParams,
    label: str,
    num_epochs: int,
    out_dir: Path,
    log_path: Path | None,
    *,
    modules: tuple[str, ...] = (),
    lora_rank: int = 0,
    with_rows: bool = False,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train on the recordings' codes and return the metrics."""
    from voxadapt.core.model_folder import resolve_model
    from voxadapt.model.load import load_tts
    from voxadapt.training.language import Trained, language_adaptation, occurring_tokens

    language = section(params)
    model_path = resolve_model(params.model)
    utterances = list(stages.accepted(LANGUAGE))
    arrays = stages.corpus_codes(model_path, utterances, LANGUAGE)
    tokens: tuple[int, ...] = ()
    if with_rows:
        texts = [row.text for row in utterances if row.split == "train"]
        tokens = occurring_tokens(load_tts(model_path), texts)
    what = Trained(token_ids=tokens, modules=modules, lora_rank=lora_rank, start=start)
    adaptation = language_adaptation(language, model_path, what, label)
    return _run(params, options, adaptation, model_path, utterances, arrays, {},
                utterances[0].ref_audio, num_epochs, out_dir, log_path)  # fmt: skip


def _run(
    params: Params,
    options: TrainParams,
    adaptation: Any,
    model_path: Path,
    rows: Sequence[Any],
    arrays: Mapping[str, Any],
    tags: Mapping[str, str],
    ref_audio: str,
    num_epochs: int,
    out_dir: Path,
    log_path: Path | None,
) -> dict[str, Any]:
    from voxadapt.training.trainer import train

    base_sha256 = sha256_folder(model_path)
    result = train(
        options,
        model_path=model_path,
        utterances=rows,
        codes=arrays,
        ref_audio=ref_audio,
        out_dir=out_dir,
        work_dir=paths.work_dir(),
        num_epochs=num_epochs,
        adaptation=adaptation,
        tags=tags,
        log_path=log_path,
        device=stages.device_of(params),
        attention=params.model.attention,
        base_sha256=base_sha256,
    )
    last = result.checkpoints[-1] / "delta.safetensors"
    return {
        **result.metrics,
        "base_sha256": base_sha256,
        "num_train_utterances": sum(row.split == "train" for row in rows),
        "delta_bytes": last.stat().st_size,
    }


def _score(
    params: Params,
    name: str,
    delta: Path | None,
    split: str,
    folder: Path,
    parts: Sequence[str] = PARTS,
) -> dict[str, Any]:
    """Speak and measure one candidate in the language and in the source language."""
    language = section(params)
    tts, voice, identity, load = _load(params, delta)
    found = {}
    for part in parts:
        target = part == "target"
        view = corpus_view(params) if target else source_view(params)
        spoken = (
            stages.sentences(view, split, LANGUAGE) if target else _source_sentences(params, split)
        )
        tag = language.source.language if not target else "auto" if delta is None else language.name
        found[part] = stages.score_voice(
            view, tts, voice, name, spoken, folder / part,
            checkpoint_sha=identity, language=tag, at=LANGUAGE, load=load,
        )  # fmt: skip
    return found


def _load(params: Params, delta: Path | None) -> tuple[Any, Any, str, Callable[[Any], Any]]:
    """Load the Base, or a delta laid over it; return model, voice, identity and how to load it."""
    from voxadapt.core.model_folder import resolve_model
    from voxadapt.generation.synthesis import clone_voice
    from voxadapt.model.load import load_tts

    base = resolve_model(params.model)
    identity = sha256_folder(base)
    dtype = stages.speaking_dtype(params)
    load = partial(load_tts, base, dtype=dtype, attention=params.model.attention)
    if delta is not None:
        identity = fingerprint([identity, sha256_folder(delta)], 64)
        folder = paths.work_dir() / "materialised" / identity[:16]
        load = partial(_laid_over, base, delta, folder, dtype, params.model.attention)
    tts = load(stages.device_of(params))
    view = corpus_view(params)
    ref_audio = stages.accepted(LANGUAGE)[0].ref_audio
    voice = clone_voice(tts, ref_audio, view.data.ref_text, params.score.base_prompt)
    return tts, voice, identity, load


def _laid_over(
    base: Path, delta: Path, folder: Path, dtype: Any, attention: str, device: Any
) -> Any:
    """Load a delta laid over the Base, by way of a folder that is removed again."""
    from voxadapt.model.delta import materialise as lay_over
    from voxadapt.model.load import load_tts

    with file_lock(folder.parents[1] / "locks", f"materialised-{folder.name}"):
        shutil.rmtree(folder, ignore_errors=True)  # half of one, if a run was killed here
        lay_over(base, delta, folder)
        tts = load_tts(folder, device, dtype, attention)
        shutil.rmtree(folder)  # it is in memory now; an epoch of 1.7B would take 4 GB of disk
    return tts


def _identity(params: Params, delta: Path | None) -> str:
    from voxadapt.core.model_folder import resolve_model

    base = sha256_folder(resolve_model(params.model))
    return base if delta is None else fingerprint([base, sha256_folder(delta)], 64)


def _delta(folder: Path, stage: str) -> Path:
    if not (folder / "meta.json").is_file():
        raise UserError(Problem(str(folder), "a delta", "nothing", f"Run `voxadapt {stage}`."))
    return folder


def delta_of(name: str) -> Path | None:
    """Return the delta of a candidate of either stage; None for the Base.

    Raises:
        UserError: When it has not been trained.
    """
    if name == "base":
        return None
    if in_stage2(name):
        folder = paths.LANGUAGE_STAGE2 / name.removeprefix(STAGE2)
        return _delta(folder, "language stage2")
    return _delta(paths.LANGUAGE_STAGE1 / candidate_name(name), "language stage1")


def _rows(params: Params, folder: Path, name: str, part: str) -> list[Any]:
    """Read a candidate's rows on the selection sentences and refuse what is not whole."""
    from voxadapt.scoring.rows import read_scores

    view = corpus_view(params)
    if part == "target":
        spoken = stages.sentences(view, "selection", LANGUAGE)
    else:
        spoken = _source_sentences(params, "selection")
    arm = paths.LANGUAGE_ARMS in folder.parents
    delta = folder.parents[1] / "deltas" / name if arm and name != "base" else delta_of(name)
    return read_scores(
        folder / part,
        [(item.text_id, take) for item in spoken for take in range(params.score.takes)],
        texts={item.text_id: item.text for item in spoken},
        split="selection",
        checkpoint_sha=_identity(params, delta),
        fix=f"Run `voxadapt language score {name}` again.",
    )


def _references() -> dict[str, Any]:
    from voxadapt.scoring.rows import read_scores

    return {
        "scale": _scale(),
        "real": read_scores(LANGUAGE.reference / "real", stages.held_out_keys(LANGUAGE)),
        "codec": read_scores(LANGUAGE.reference / "codec", stages.held_out_keys(LANGUAGE)),
    }


def _scale() -> dict[str, Any]:
    return read_record(LANGUAGE.scale, "language data")


def _accepted_texts() -> list[TextLine]:
    wanted = read_record(paths.LANGUAGE_TEXT_METRICS, "language data")["num_accepted"]
    try:
        rows = read_jsonl(paths.LANGUAGE_TEXTS)
        lines = [TextLine(row["id"], row["text"], row["id"]) for row in rows]
        found = f"{len(lines)}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        lines, found = [], "nothing" if isinstance(error, FileNotFoundError) else str(error)
    if len(lines) != wanted:
        raise UserError(
            Problem(str(paths.LANGUAGE_TEXTS), f"{wanted} accepted texts", found,
                    "Run `voxadapt language data`.")
        )  # fmt: skip
    return lines


def _source_lines(params: Params) -> tuple[list[TextLine], list[TextLine]]:
    """Split the source sentences by hash: those that are scored, and those that may be learnt."""
    source = section(params).source
    lines = {fold_text(line.text): line for line in read_texts(source.text, any_field=True)}
    order = sorted(lines, key=lambda key: fingerprint([params.split.salt, "source", key]))
    listed = [
        TextLine(f"source-{fingerprint(key, 10)}", lines[key].text, lines[key].where)
        for key in order
    ]
    return listed[: source.max_sentences], listed[source.max_sentences :]


def _source_sentences(params: Params, split: str) -> list[Any]:
    from voxadapt.scoring.rows import Sentence, slice_of

    return sorted(
        (
            Sentence(text_id=line.id, text=line.text, split=split, slice=slice_of(line.text))
            for line in _source_lines(params)[0]
        ),
        key=lambda item: item.text_id,
    )


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def _metrics_row(summaries: Mapping[str, Any]) -> dict[str, Any]:
    from voxadapt.scoring.score_clips import metrics_row

    return {part: metrics_row(summary) for part, summary in summaries.items()}


def _score_sentence(params: Params, name: str, summaries: Mapping[str, Any]) -> str:
    language = section(params)
    said = stages.score_sentence(f"{name} in {language.name}", summaries["target"])
    kept = stages.percent(summaries["source"]["cer"])
    return f"{said} {language.source.language}: CER {kept}."


def _write_epochs_table(params: Params, ran: bool) -> None:
    """Write CER, similarity and forgetting per epoch, for `dvc plots`."""
    import csv

    names = [(name, paths.LANGUAGE_SCORES / name) for name in section(params).candidates]
    if ran:
        listed = section(params).stage2.candidate_names
        names += [(name, paths.LANGUAGE_STAGE2_SCORES / name) for name in listed]
    stream = io.StringIO()
    columns = ["candidate", "order"]
    for measure in ("cer", "wer", "sim", "source_cer"):
        columns += [measure, f"{measure}_low", f"{measure}_high"]
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for order, (name, folder) in enumerate(names):
        target = read_json(folder / "target" / "summary.json")
        source = read_json(folder / "source" / "summary.json")
        row: dict[str, Any] = {"candidate": name, "order": order}
        for measure, found in (("cer", target["cer"]), ("wer", target["wer"]),
                               ("sim", target["sim"]), ("source_cer", source["cer"])):  # fmt: skip
            row[measure] = found["point"]
            row[f"{measure}_low"], row[f"{measure}_high"] = found["low"], found["high"]
        writer.writerow(row)
    write_atomic(paths.LANGUAGE_EPOCHS_TABLE, stream.getvalue())
