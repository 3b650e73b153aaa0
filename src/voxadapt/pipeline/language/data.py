"""Stage `language_data`: check texts and recordings; extract codes; measure their round trip."""

from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.model_folder import read_config, resolve_model
from voxadapt.core.params import LanguageParams, Params, language_section
from voxadapt.core.paths import LANGUAGE
from voxadapt.core.stage import StageResult, stage
from voxadapt.data.manifest import read_raw_manifest
from voxadapt.data.respelling import load_respelling
from voxadapt.data.text import dominant_script, fold_text
from voxadapt.data.texts import TextLine, audit_texts, outside_vocabulary, read_texts, write_texts
from voxadapt.model.tokens import language_name_problems
from voxadapt.pipeline.audit import audit_track, record_audit
from voxadapt.pipeline.codes import encode_corpus
from voxadapt.pipeline.tracks import language_track, read_accepted


@stage("language_data")
def run(params: Params) -> StageResult:
    """Check the language's data, then extract codes and measure the ceiling of every score."""
    checked = audit(params)
    coded = codes(params)
    return StageResult(f"{checked.sentence} {coded.sentence}", checked.values)


def audit(params: Params) -> StageResult:
    """Check the recordings and the texts of the language."""
    language = language_section(params)
    problems = _name_problems(params, language)
    recordings = texts = None
    try:
        _check_texts(language)  # cheap, before anything is transcribed
    except UserError as error:
        raise UserError(
            [*problems, *error.problems, *read_raw_manifest(language.audio)[1]],
            f"The data of {language.name} cannot be used.",
        ) from None
    try:
        recordings = _audit_recordings(params)
    except UserError as error:
        problems += error.problems
    try:
        texts = _audit_texts(params, language)
    except UserError as error:
        problems += error.problems
    if problems or recordings is None or texts is None:
        raise UserError(problems, f"The data of {language.name} cannot be used.")
    named = ("audit", "split", "asr_language", "name", "audio", "text", "respelling")
    keys = [f"language.{name}" for name in named]
    read, written = [Path(language.text), Path(language.respelling)], [paths.LANGUAGE_TEXT_METRICS]
    record_audit(params, language_track(params), "language data", keys, read, written)
    return StageResult(f"{recordings.sentence} {texts.sentence}", texts.values)


@stage("audit-language", memory="asr.batch_size")
def _audit_recordings(params: Params) -> StageResult:
    return audit_track(params, language_track(params), [language_section(params).name])


@stage("codes-language", memory="codes.batch_seconds")
def codes(params: Params) -> StageResult:
    """Extract codes of the recordings; score them and their codec round trip."""
    respelling = load_respelling(language_section(params).respelling)
    letters = [grapheme.letters for grapheme in respelling.graphemes]
    return encode_corpus(params, language_track(params), ("language.asr_language",), letters)


def _name_problems(params: Params, language: LanguageParams) -> list[Problem]:
    """Say why the model cannot be given a language of this name."""
    talker = read_config(resolve_model(params.model))["talker_config"]
    return language_name_problems(talker.get("codec_language_id") or {}, language.name)


def _check_texts(language: LanguageParams) -> None:
    """Read the texts and their map; refuse what no recording and no model changes."""
    lines, refused = _read_texts(language)
    audit_texts(
        lines, path=language.text, respelling=load_respelling(language.respelling),
        refused=refused, on_error=language.audit.on_error,
    )  # fmt: skip


def _read_texts(language: LanguageParams) -> tuple[list[TextLine], list[Problem]]:
    """Read the texts, and what is wrong with lines that are left out."""
    refused: list[Problem] = []
    drops = language.audit.on_error == "drop"
    return read_texts(language.text, refused=refused if drops else None), refused


def _audit_texts(params: Params, language: LanguageParams) -> StageResult:
    import_qwen_tts()  # before transformers, which then loads no more than speaking needs
    from transformers import AutoTokenizer

    lines, refused = _read_texts(language)
    respelling = load_respelling(language.respelling)
    folder = resolve_model(params.model)
    talker = read_config(folder)["talker_config"]
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    recorded = read_accepted(LANGUAGE) if LANGUAGE.manifest.is_file() else []
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
        refused=refused,
        on_error=language.audit.on_error,
    )
    write_texts(result, paths.LANGUAGE_TEXTS, paths.LANGUAGE_TEXT_METRICS)
    return StageResult(result.sentence, result.metrics)
