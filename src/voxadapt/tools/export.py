"""Bringing a model out: a folder for the Hub with its card, a delta of it, and the way back.

A folder that is exported holds what stock `qwen_tts` loads, a model card (`README.md`) and
`voxadapt.json`, which says the same to machines and lists every file with its hash. A delta holds
what differs from the Base; `apply` makes the model of it again and proves that every tensor is
the one that was exported.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from voxadapt import __version__
from voxadapt.core import paths
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import read_json, sha256_file, sha256_folder, write_atomic, write_json
from voxadapt.core.params import ModelParams, Params, SelectParams, candidate_name, in_stage2
from voxadapt.core.paths import LANGUAGE, SPEAKER, Corpus
from voxadapt.core.provenance import fingerprint, git_commit, versions
from voxadapt.pipeline import language_stages
from voxadapt.pipeline.stages import StageResult, read_record

SCHEMA = "voxadapt-export/1"
FACTS = "voxadapt.json"
CARD = "README.md"
TEMPLATE = "model_card.md.j2"
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".npz"}
MAX_FILE_BYTES = 50 * 10**9  # what the Hub takes as one file
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_QWEN = "Qwen/Qwen3-TTS"
#: Measures of a card: key, metric type on the Hub, title, factor, unit.
MEASURES = (
    ("wer", "wer", "Word error rate", 100.0, "%"),
    ("cer", "cer", "Character error rate", 100.0, "%"),
    ("sim", "cosine_similarity", "Speaker similarity (Resemblyzer)", 1.0, ""),
    ("failure_rate", "failure_rate", "Failed clips", 100.0, "%"),
    ("duration_ratio", "duration_ratio", "Duration against the speaker's rate", 1.0, ""),
)


@dataclass(frozen=True)
class Terms:
    """What only the user can say about a model.

    Attributes:
        name: Name of the model; the folder's when None.
        licence: Of the exported weights, as the Hub names it; the Base's when None.
        base_licence: Of the Base; apache-2.0 for Qwen's own when None.
        data_licence: Of the recordings, in any words.
        base_model: The Base's id on the Hub, where params.yaml names a folder.
    """

    name: str | None = None
    licence: str | None = None
    base_licence: str | None = None
    data_licence: str | None = None
    base_model: str | None = None


# --- export --------------------------------------------------------------------------------------


def export_speaker(
    params: Params,
    out: Path,
    candidate: str | None = None,
    terms: Terms = Terms(),
    *,
    delta: bool = False,
    force: bool = False,
) -> StageResult:
    """Write a fine-tuned checkpoint as a folder for the Hub, or what it changes in the Base.

    Args:
        params: All parameters.
        out: Folder to write.
        candidate: An epoch; the chosen one when None.
        terms: Licences and names.
        delta: Write the changed tensors and rows instead of the whole model.
        force: Replace a folder that this function did not write.

    Raises:
        UserError: When the Base was kept and no epoch is named, when figures are missing or are
            those of another checkpoint, or when `out` holds something else.
    """
    from voxadapt.core.model_folder import resolve_model
    from voxadapt.model.checkpoint import list_files, new_folder, place_file, read_meta

    _check_terms(terms)
    _check_out(out, force)
    decision = read_record(paths.SELECTION, "select")
    name = _candidate(decision, candidate, "voxadapt export epoch-1")
    source = paths.CHECKPOINTS / name
    if not (source / "meta.json").is_file():
        raise UserError(
            Problem(str(source), f"the checkpoint {name}", "nothing", "Run `voxadapt train`.")
        )
    sha = sha256_folder(source)
    scores = _scores(decision, name, paths.CONFIRM, paths.CONFIRMATION / name, "confirm", sha)
    base = resolve_model(params.model)
    meta = read_meta(source)
    facts = _facts(params, terms, out, SPEAKER, decision, name, params.select, scores, meta) | {
        "kind": "speaker",
        "form": "delta" if delta else "full",
        "speaker": meta["speaker_name"],
        "speakers": list(meta.get("speakers", ())),
        "languages": [_language_code(params.asr.language)],
        "spoken_as": params.train.language,
    }
    facts["provenance"] |= {
        "checkpoint_sha256": sha,
        "tensors_sha256": tensors_sha256(source),
    }
    with new_folder(out) as folder:
        if delta:
            _write_difference(base, source, folder)
            facts["adapted"] = {"config": read_json(source / "config.json"), "meta": meta}
        else:
            for file in list_files(source):
                place_file(source / file, folder / file)
        _finish(folder, facts)
    return _result(out, facts)


def export_language(
    params: Params,
    out: Path,
    candidate: str | None = None,
    terms: Terms = Terms(),
    *,
    arm: str | None = None,
    delta: bool = False,
    force: bool = False,
) -> StageResult:
    """Write an adapted Base that speaks the language as a folder for the Hub, or its delta.

    Args:
        params: All parameters.
        out: Folder to write.
        candidate: An epoch of Stage 1, or `stage2-epoch-N`; the kept one when None.
        terms: Licences and names.
        arm: Take the best epoch of this arm of `voxadapt compare` instead, such as talker_lora.
        delta: Write the delta alone.
        force: Replace a folder that this function did not write.

    Raises:
        UserError: As `export_speaker`.
    """
    from voxadapt.core.model_folder import resolve_model
    from voxadapt.model.checkpoint import new_folder, place_file, read_meta
    from voxadapt.model.delta import DELTA, materialise

    language = language_stages.section(params)
    _check_terms(terms)
    _check_out(out, force)
    decision = read_record(paths.LANGUAGE_SELECTION, "language confirm")
    base = resolve_model(params.model)
    entry = None if arm is None else _arm(arm, candidate)
    if entry is None:
        name = _candidate(decision, candidate, "voxadapt language export epoch-1")
        source = language_stages.delta_of(name)
        assert source is not None, "the Base is refused"
    else:
        name = f"{arm}, {entry['epoch']}"
        source = paths.LANGUAGE_ARMS / entry["name"] / "deltas" / entry["epoch"]
    meta = read_meta(source)
    sha = fingerprint([sha256_folder(base), sha256_folder(source)], 64)
    if entry is None:
        scores = _scores(
            decision, name, paths.LANGUAGE_CONFIRM, paths.LANGUAGE_CONFIRMATION / name / "target",
            "language confirm", sha,
        )  # fmt: skip
    else:
        scores = _selected(decision, entry)
    facts = _facts(params, terms, out, LANGUAGE, decision, name, language.select, scores, meta) | {
        "kind": "language",
        "form": "delta" if delta else "full",
        "language": language.name,
        "languages": list(
            dict.fromkeys(
                _language_code(code)
                for code in (language.asr_language, language.source.asr_language)
            )
        ),
        "source_language": language.source.language,
        "forgetting": _forgetting(decision, name, entry),
        "with_text": params.score.base_prompt == "icl",
    }
    with new_folder(out) as folder:
        if delta:
            for file in (DELTA, "meta.json"):
                place_file(source / file, folder / file)
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
                full = materialise(base, source, Path(scratch) / "full")
                digest = tensors_sha256(full)
        else:
            materialise(base, source, folder)
            digest = tensors_sha256(folder)
        facts["provenance"] |= {"checkpoint_sha256": sha, "tensors_sha256": digest}
        _finish(folder, facts)
    return _result(out, facts)


def _arm(arm: str, candidate: str | None) -> dict[str, Any]:
    """Return the row of an arm in the table that `voxadapt compare` wrote."""
    listed = {
        item["name"]: item for item in read_record(paths.LANGUAGE_ARMS_TABLE, "compare")["arms"]
    }
    if arm not in listed or arm == "stages":
        known = ", ".join(name for name in listed if name != "stages")
        raise UserError(
            Problem("--arm", f"one of {known or 'none'}", arm, f"Run `voxadapt compare {arm}`.")
        )
    if candidate is not None:
        fix = "Leave the candidate out."
        raise UserError(Problem("candidate", "none with --arm: its best epoch", candidate, fix))
    return listed[arm]


def _candidate(decision: Mapping[str, Any], candidate: str | None, example: str) -> str:
    """Return the candidate to export."""
    name = candidate
    if name is None:
        name = decision["chosen"]
        if name == "base":
            raise UserError(
                Problem("the decision", "an adapted model", f"base. {decision['reason']}",
                        f"Use the Base as it is, or name an epoch all the same: `{example}`."),
                "The measurements say: keep the Base. There is nothing to export.",
            )  # fmt: skip
    elif not in_stage2(name):
        name = candidate_name(name)
    if name == "base":
        raise UserError(
            Problem("candidate", "an adapted model", "base", "Name an epoch."),
            "The Base is published by its makers.",
        )
    listed = [item["name"] for item in decision["candidates"]]
    if name not in listed:
        raise UserError(
            Problem("candidate", f"one of {', '.join(listed)}", name, "Name one of them.")
        )
    return name


def _scores(
    decision: Mapping[str, Any], name: str, record: Path, rows: Path, stage: str, sha: str
) -> Mapping[str, Any]:
    """Return the confirmation of this checkpoint; the selection's figures if it was not chosen.

    Raises:
        UserError: When the chosen candidate was not confirmed, or another checkpoint was.
    """
    from voxadapt.scoring.rows import read_scores, rows_sha

    if name != decision["chosen"]:
        item = next(item for item in decision["candidates"] if item["name"] == name)
        return _selected(decision, item)
    fix = f"Run `voxadapt {stage}` again."
    found = read_record(record, stage)
    if found["chosen"] != name:
        raise UserError(
            Problem(str(record), f"the confirmation of {name}", f"that of {found['chosen']}", fix)
        )
    heard = read_scores(rows, split=found["split"], checkpoint_sha=sha, fix=fix)
    if rows_sha(heard) != found["inputs"][name]:
        raise UserError(
            Problem(str(record), f"figures of the clips in {rows}", "figures of others", fix)
        )
    return found


def _selected(decision: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a candidate's figures on the sentences that chose, in the shape of a confirmation."""
    return {**decision, "measures": {key: {"chosen": item[key]} for key, *_ in MEASURES}}


def _facts(
    params: Params,
    terms: Terms,
    out: Path,
    at: Corpus,
    decision: Mapping[str, Any],
    name: str,
    rule: SelectParams,
    scores: Mapping[str, Any],
    meta: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect what card and record say, without what differs between speaker and language."""
    audit = read_record(at.audit_metrics, "audit")
    confirmed = "verdict" in scores
    hub = terms.base_model or (None if Path(params.model.base).is_dir() else params.model.base)
    base_licence = terms.base_licence
    if base_licence is None and hub is not None and hub.startswith(_QWEN):
        base_licence = "apache-2.0"
    kept = ("minutes", "num_accepted", "num_warnings", "num_clips_with_warnings", "script",
            "warnings_by_rule", "splits", "median_snr_db", "manifest_sha256")  # fmt: skip
    trained = ("run", "epoch", "step", "lr", "precision", "objective", "stage", "params_sha256",
               "data_sha256", "ref_audio_sha256", "base_weights_sha256")  # fmt: skip
    return {
        "schema": SCHEMA,
        "voxadapt": __version__,
        "name": terms.name or out.resolve().name,
        "candidate": name,
        "is_chosen": name == decision["chosen"],
        "decision": {
            "chosen": decision["chosen"],
            "reason": decision["reason"],
            "rule": decision["rule"]["text"],
            "verdict": scores["verdict"] if confirmed else None,
            "confirmation": scores["sentence"] if confirmed else None,
        },
        "scores": {
            "split": scores["split"],
            "confirmed": confirmed,
            "num_texts": scores["num_texts"],
            "takes": scores["takes"],
            "confidence": rule.confidence,
            "measures": {
                key: {
                    part: scores["measures"][key].get(part)
                    for part in ("base", "chosen", "difference")
                }
                for key, *_ in MEASURES
            },
            "scale": decision["scale"],
            "error_metric": decision["rule"]["error_metric"],
            "asr_floor": decision["asr_floor"],
            "evaluator": scores["evaluator"],
        },
        "audit": {key: audit[key] for key in kept if key in audit},
        "corpus_warnings": [found["message"] for found in audit.get("corpus_warnings", [])],
        "consent": audit.get("consent"),
        "licence": {
            "model": terms.licence or base_licence,
            "base": base_licence,
            "data": terms.data_licence,
        },
        "base": {
            "hub_id": hub,
            "revision": params.model.revision,
            "sha256": meta["base_sha256"],
        },
        "provenance": {
            "training": {key: meta[key] for key in trained if key in meta},
            **git_commit(),
            "versions": versions(),
        },
    }


def _forgetting(
    decision: Mapping[str, Any], name: str, arm: Mapping[str, Any] | None
) -> dict[str, Any]:
    found = decision["forgetting"]
    entry = found["candidates"].get(name) if arm is None else arm["forgetting"]
    return {"num_texts": found["num_texts"], "metric": found["metric"], "entry": entry}


def _language_code(code: str) -> str:
    """Return the ISO code that the Hub knows for one of Whisper's."""
    return {"jw": "jv"}.get(code, code)


def _write_difference(base_dir: Path, source: Path, folder: Path) -> None:
    """Write what a checkpoint changes in its Base: rows of a tensor where few of them differ."""
    from torch import Tensor

    from voxadapt.model.checkpoint import iterate_weights
    from voxadapt.model.delta import DELTA, Delta, write_delta

    base = dict(iterate_weights(base_dir))
    rows: dict[str, tuple[Tensor, Tensor]] = {}
    full: dict[str, Tensor] = {}
    differing = []
    for name, value in iterate_weights(source):
        before = base.get(name)
        if before is None or before.dtype != value.dtype or before.shape != value.shape:
            differing.append(name)
            continue
        moved = _moved_rows(before, value)
        if not bool(moved.any()):
            continue
        if value.ndim > 1 and int(moved.sum()) * 2 < len(value):
            index = moved.nonzero().flatten()
            rows[name] = (index, value[index])
        else:
            full[name] = value
    if differing or len(base) != len(list(iterate_weights(source))):
        raise UserError(
            Problem(str(source), "the tensors of the Base, of the same types and shapes",
                    ", ".join(differing[:3]) or "other tensors",
                    "Export the whole model: leave out --delta.")
        )  # fmt: skip
    write_delta(folder, base_dir, Delta(rows, full), {"kind": "speaker"})
    (folder / DELTA).chmod(0o644)


def _moved_rows(before: Any, value: Any) -> Any:
    """Return bool `[R]`: which rows differ in any bit; a scalar is one row."""
    import torch

    flat = [part.contiguous().reshape(max(1, len(part) if part.ndim else 1), -1)
            for part in (before, value)]  # fmt: skip
    bits = [part.view(torch.uint8) for part in flat]
    return (bits[0] != bits[1]).any(dim=1)


def tensors_sha256(folder: str | Path) -> str:
    """Hash every tensor of a model by name, type, shape and bits, in whichever files they lie."""
    import torch

    from voxadapt.model.checkpoint import iterate_weights

    hashes = {}
    for name, value in iterate_weights(folder):
        data = value.contiguous().reshape(-1).view(torch.uint8).numpy()
        digest = hashlib.sha256(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(data)
        hashes[name] = digest.hexdigest()
    return fingerprint(hashes, 64)


def _finish(folder: Path, facts: dict[str, Any]) -> None:
    """Write the card and the record into a folder that holds everything else."""
    from voxadapt.model.checkpoint import list_files

    write_atomic(folder / CARD, render_card(facts))
    facts["files"] = {
        file.as_posix(): {
            "sha256": sha256_file(folder / file),
            "size_bytes": (folder / file).stat().st_size,
        }
        for file in list_files(folder)
    }
    write_json(folder / FACTS, facts)


def _result(out: Path, facts: Mapping[str, Any]) -> StageResult:
    size = sum(file["size_bytes"] for file in facts["files"].values())
    said = [f"{out}: {facts['candidate']}, {len(facts['files'])} files, {_bytes(size)}."]
    if facts["base"]["hub_id"] is None:
        said.append("The card names no Base on the Hub; give it with --base-model.")
    if facts["licence"]["model"] is None:
        said.append("The card states no licence; give it with --license.")
    if not facts["is_chosen"]:
        said.append("It is not the chosen candidate, so the card has no confirmed figures.")
    if not _consent(facts)[0]:
        said.append("No consent was recorded, and the card says so.")
    return StageResult(" ".join(said), facts)


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _check_terms(terms: Terms) -> None:
    problems = [
        Problem(option, "a licence as the Hub names it, such as apache-2.0, cc-by-4.0 or other",
                repr(value), "Look it up in the list of the Hub's documentation.")
        for option, value in (("--license", terms.licence), ("--base-license", terms.base_licence))
        if value is not None and not _LICENCE.fullmatch(value)
    ]  # fmt: skip
    if terms.base_model is not None and not _HUB_ID.fullmatch(terms.base_model):
        problems.append(
            Problem("--base-model", "owner/name on the Hub", terms.base_model, "Correct it.")
        )
    for option, text in (("--name", terms.name), ("--data-license", terms.data_licence)):
        if text is not None and (not text.strip() or not text.isprintable()):
            problems.append(Problem(option, "one line of text", repr(text), "Correct it."))
    if problems:
        raise UserError(problems)


def _check_out(out: Path, force: bool) -> None:
    """Refuse to replace what `export` did not write."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(Problem(str(out), "a folder", "a file or a link", "Choose another."))
    if force or not out.exists() or not any(out.iterdir()) or _is_export(out):
        return
    raise UserError(
        Problem(str(out), "a new or empty folder, or one that export wrote", "other files",
                "Choose another folder, or repeat with --force to replace it."),
        "Nothing was written.",
    )  # fmt: skip


def _is_export(folder: Path) -> bool:
    try:
        found = read_json(folder / FACTS)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("schema") == SCHEMA


# --- the card ------------------------------------------------------------------------------------


def render_card(facts: Mapping[str, Any]) -> str:
    """Render the model card from the facts of an export: front matter, then Markdown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from voxadapt.reporting.components import TEMPLATES

    environment = Environment(  # Markdown, so values are escaped for it and not for HTML
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_markdown,
    )
    recorded, consent = _consent(facts)
    return environment.get_template(TEMPLATE).render(
        facts=facts,
        front_matter=_Plain(front_matter(facts)),
        rows=_score_rows(facts),
        yardsticks=_yardsticks(facts["scores"]),
        consent=consent,
        consent_recorded=recorded,
        percent=f"{100 * facts['scores']['confidence']:g} %",
        speaker=_Plain(json.dumps(facts.get("speaker"), ensure_ascii=False)),
        language=_Plain(
            json.dumps(
                str(facts.get("language", facts.get("spoken_as"))).capitalize(), ensure_ascii=False
            )
        ),
    )


class _Plain(str):
    """Text that goes into the card as it is."""


def _markdown(value: Any) -> Any:
    """Escape what would be Markdown or HTML in a value."""
    if not isinstance(value, str) or isinstance(value, _Plain):
        return value
    text = " ".join(value.split())
    for sign, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, shown)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text)


def front_matter(facts: Mapping[str, Any]) -> str:
    """Return the card's metadata as YAML: what the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    scores = facts["scores"]
    results = []
    if scores["confirmed"]:
        for key, kind, title, factor, unit in MEASURES[:4]:
            found = scores["measures"][key]["chosen"]
            if found["point"] is None:
                continue
            low, high = (_times(found[end], factor) for end in ("low", "high"))
            results.append(
                EvalResult(
                    task_type="text-to-speech",
                    task_name="Text to speech",
                    dataset_type="private",
                    dataset_name="held-out sentences of the corpus (confirmation split)",
                    dataset_split="confirmation",
                    metric_type=kind,
                    metric_name=f"{title}{', ' + unit if unit else ''}",
                    metric_value=_times(found["point"], factor),
                    metric_args={
                        "confidence": scores["confidence"],
                        "low": low,
                        "high": high,
                        "num_clips": found["n"],
                        "num_sentences": scores["num_texts"],
                    },
                )
            )
    data = ModelCardData(
        license=facts["licence"]["model"] or "unknown",
        base_model=facts["base"]["hub_id"],
        language=facts["languages"],
        library_name="qwen-tts",
        pipeline_tag="text-to-speech",
        tags=["voxadapt", "qwen3-tts", "text-to-speech", f"{facts['kind']}-adaptation"],
        model_name=facts["name"],
        eval_results=results or None,
        base_model_relation=("adapter" if facts["form"] == "delta" else "finetune")
        if facts["base"]["hub_id"]
        else None,
    )
    return yaml.safe_dump(data.to_dict(), sort_keys=False, allow_unicode=True)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 4)


def _score_rows(facts: Mapping[str, Any]) -> list[tuple[_Plain, ...]]:
    """Return the table of scores: measure, the Base, this model, difference, clips."""
    listed = []
    for key, _, title, factor, unit in MEASURES:
        found = facts["scores"]["measures"][key]
        cells = [_interval(found[part], factor, unit) for part in ("base", "chosen")]
        gap = found["difference"]
        listed.append(
            tuple(map(_Plain, (title, *cells, _interval(gap, factor, unit, signed=True),
                               str(found["chosen"]["n"]))))
        )  # fmt: skip
    return listed


def _yardsticks(scores: Mapping[str, Any]) -> str:
    """Say between which values error and similarity can lie here."""
    metric = scores["error_metric"]
    floor = _interval(scores["asr_floor"][metric], 100.0, "%")
    said = [f"{metric.upper()} of the recogniser on the speaker's own recordings: {floor}."]
    names = (("ceiling", "the speaker's real clips"), ("codec_ceiling", "these through the codec"),
             ("floor", "other voices"))  # fmt: skip
    found = [f"{title} {scores['scale'][key]:.3f}" for key, title in names
             if scores["scale"].get(key) is not None]  # fmt: skip
    if found:
        said.append(f"Similarity of {', '.join(found)}.")
    return " ".join(said)


def _interval(
    found: Mapping[str, Any] | None, factor: float, unit: str, signed: bool = False
) -> str:
    if found is None:
        return "–"
    if found["point"] is None:
        return "not measured"
    digits, sign = (1 if factor > 1 else 3), ("+" if signed else "")
    unit = {"%": " points" if signed else " %"}.get(unit, unit)
    point = f"{factor * found['point']:{sign}.{digits}f}{unit}"
    if found["low"] is None:
        return point
    low, high = (f"{factor * found[end]:{sign}.{digits}f}" for end in ("low", "high"))
    return f"{point} [{low}, {high}]"


def _consent(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Say whether consent was recorded with the recordings, and in which words."""
    given, total = facts["consent"], facts["audit"].get("num_accepted", 0)
    if isinstance(given, str) and given.strip():
        return True, f"Recorded with the corpus: {given}"
    stated = given.get("statements", {}) if isinstance(given, Mapping) else {}
    if not stated:
        return False, (
            "No consent of the speaker was recorded with the recordings. Whoever uses this model "
            "has to make sure that the speaker has agreed."
        )
    words = "; ".join(f"“{text}” ({count})" for text, count in stated.items())
    return True, f"As {sum(stated.values())} of {total} recordings state it: {words}."


# --- the way back --------------------------------------------------------------------------------


def apply(delta_dir: Path, base: str, out: Path, revision: str | None = None) -> StageResult:
    """Make the whole model of an exported delta and its Base.

    Args:
        delta_dir: Folder that `export --delta` wrote.
        base: Folder or hub id of the Base.
        out: New or empty folder.
        revision: Commit of the Base on the Hub.

    Returns:
        The outcome; every tensor was compared with the hash that the export noted.

    Raises:
        UserError: When the delta is damaged or of another Base, or when the result differs.
    """
    from voxadapt.core.model_folder import resolve_model
    from voxadapt.model.checkpoint import new_folder
    from voxadapt.model.delta import materialise

    facts = _read_facts(delta_dir)
    if facts["form"] != "delta":
        raise UserError(
            Problem(str(delta_dir), "a folder that `export --delta` wrote", "a whole model",
                    "It can be used as it is.")
        )  # fmt: skip
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            Problem(str(out), "a new or empty folder", "other files", "Choose another folder.")
        )
    base_dir = resolve_model(ModelParams(base=base, revision=revision))
    is_low_rank = _check_fit(delta_dir, base_dir)
    with new_folder(out) as folder:
        materialise(base_dir, delta_dir, folder)
        adapted = facts.get("adapted")
        if adapted is not None:
            write_json(folder / "config.json", adapted["config"])
            write_json(folder / "meta.json", adapted["meta"])
        found, wanted = tensors_sha256(folder), facts["provenance"]["tensors_sha256"]
        if found != wanted and not is_low_rank:
            raise UserError(
                Problem(str(delta_dir), f"tensors {wanted[:12]}", found[:12],
                        "Fetch the delta again."),
                "The result is not the model that was exported.",
            )  # fmt: skip
    exact = "bit for bit as it was exported" if found == wanted else (
        "as it was exported up to rounding: low-rank changes are multiplied out on this machine"
    )  # fmt: skip
    return StageResult(f"{out} is {facts['name']}, {exact}.", out)


def _check_fit(delta_dir: Path, base_dir: Path) -> bool:
    """Refuse a delta that the Base has no place for; say whether it has low-rank changes."""
    from safetensors import safe_open

    from voxadapt.model.delta import read_delta, weights_sha256
    from voxadapt.model.load import weight_files

    delta, meta = read_delta(delta_dir)
    if meta["base_weights_sha256"] != weights_sha256(base_dir):
        return False  # the Base is another one, which is said in other words
    files, problems = weight_files(base_dir), []
    for name in sorted(delta.names):
        shape: list[int] | None = None
        if name in files:
            with safe_open(files[name], framework="pt") as stream:
                shape = stream.get_slice(name).get_shape()
        if name in delta.rows:
            index, value = delta.rows[name]
            inside = shape is not None and bool(((index >= 0) & (index < shape[0])).all())
            fits = inside and [len(index), *shape[1:]] == list(value.shape)  # type: ignore[index]
        elif name in delta.full:
            fits = shape == list(delta.full[name].shape)
        else:
            a, b = delta.lora[name]
            fits = shape == [b.shape[0], a.shape[-1]] and b.shape[-1] == a.shape[0]
        if not fits:
            problems.append(
                Problem(f"{delta_dir}: {name}", f"a tensor of the Base ({shape})",
                        "a change of another shape", "Fetch the delta again.")
            )  # fmt: skip
    if problems:
        raise UserError(problems, "The delta does not fit its Base.")
    return bool(delta.lora)


def _read_facts(folder: Path) -> dict[str, Any]:
    """Read the record of an export."""
    file = folder / FACTS
    try:
        found = read_json(file)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']!r}")
        for key in ("form", "name", "candidate", "files", "provenance", "licence", "consent"):
            found[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        nothing = isinstance(error, FileNotFoundError)
        raise UserError(
            Problem(str(file), f"the record of an export ({SCHEMA})",
                    "nothing" if nothing else f"{type(error).__name__}: {error}",
                    "Write the folder with `voxadapt export`.")
        ) from None  # fmt: skip
    return found


# --- push ----------------------------------------------------------------------------------------


def check_export(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Check a folder before it is published.

    The card may have been edited; every other file must be as it was exported, and nothing may
    have been added: a recording of the corpus, above all.

    Returns:
        The facts of the export, and its files, relative and sorted.

    Raises:
        UserError: With everything that is wrong.
    """
    from huggingface_hub import ModelCard

    from voxadapt.model.checkpoint import list_files

    facts = _read_facts(folder)
    listed, problems = facts["files"], []
    again = "Export it again."
    found = [file.as_posix() for file in list_files(folder)]
    for name in found:
        path = folder / name
        if path.suffix.lower() in AUDIO_SUFFIXES:
            problems.append(
                Problem(name, "no audio and no voice embedding", "a file of that kind",
                        "Take it out: recordings of the corpus are not part of a model.")
            )  # fmt: skip
        elif name not in listed and name != FACTS:
            problems.append(
                Problem(name, "only files that export wrote", "another one", "Take it out.")
            )
        elif path.stat().st_size > MAX_FILE_BYTES:
            problems.append(
                Problem(name, f"at most {_bytes(MAX_FILE_BYTES)}", _bytes(path.stat().st_size),
                        "Publish a delta, or the model in several files.")
            )  # fmt: skip
        elif name not in (FACTS, CARD) and sha256_file(path) != listed[name]["sha256"]:
            problems.append(Problem(name, "the file as it was exported", "another one", again))
    for name in sorted(set(listed) - set(found) - {CARD}):
        problems.append(Problem(name, "a file of the export", "nothing", again))
    try:
        data = ModelCard.load(folder / CARD).data.to_dict()
        if data.get("pipeline_tag") != "text-to-speech":
            raise ValueError("no pipeline_tag: text-to-speech")
    except Exception as error:  # yaml, the hub client's own checks, a file that is not there
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        problems.append(Problem(CARD, "a model card with its metadata", reason, again))
    if problems:
        raise UserError(problems, f"{folder} is not published.")
    return facts, found


def push(
    folder: Path, repo: str, *, private: bool = False, dry_run: bool = False, api: Any = None
) -> StageResult:
    """Publish an exported folder on the Hub with the ordinary client.

    Args:
        folder: What `export` wrote.
        repo: owner/name; made when it is not there.
        private: Make it private; a public one that is there is refused.
        dry_run: Check and list, without the network.
        api: A `huggingface_hub.HfApi`; made when None.

    Raises:
        UserError: When the folder is not fit, no token is there, or the Hub refuses.
    """
    from huggingface_hub import HfApi, get_token

    if not _HUB_ID.fullmatch(repo):
        raise UserError(Problem("--repo", "owner/name", repr(repo), "Correct it."))
    facts, files = check_export(folder)
    sizes = {name: (folder / name).stat().st_size for name in files}
    lines = [f"  {_bytes(size):>8}  {name}" for name, size in sizes.items()]
    total = f"{len(files)} files, {_bytes(sum(sizes.values()))}"
    notes = []
    if not _consent(facts)[0]:
        notes.append("Note: no consent of the speaker was recorded.")
    if facts["licence"]["model"] is None:
        notes.append("Note: the card states no licence.")
    if dry_run:
        seen = "private" if private else "public"
        head = f"{repo} ({seen}) would receive {total}:"
        return StageResult("\n".join([head, *lines, *notes]), files)
    token = get_token()
    if token is None:
        raise UserError(
            Problem("the Hub", "a token that may write", "none",
                    "Make one at https://huggingface.co/settings/tokens and set HF_TOKEN, or run "
                    "`hf auth login`. --dry-run needs none."),
            "Nothing was published.",
        )  # fmt: skip
    api = api or HfApi(token=token, library_name="voxadapt", library_version=__version__)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise UserError(
                Problem(repo, "a private repository", "a public one",
                        "Choose another name, or change its settings on the Hub."),
                "Nothing was published.",
            )  # fmt: skip
        done = api.upload_folder(
            repo_id=repo,
            folder_path=str(folder),
            commit_message=f"{facts['name']}: {facts['candidate']}, by VoxAdapt {__version__}",
        )
    except UserError:
        raise
    except Exception as error:  # the hub client raises a dozen unrelated types
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            Problem(repo, "a repository that takes the files", reason,
                    "Check the name, the token's rights and the network; run it again to go on."),
            "The folder was not published, or not wholly.",
        ) from None  # fmt: skip
    return StageResult("\n".join([f"{done}: {total}.", *notes]), files)
