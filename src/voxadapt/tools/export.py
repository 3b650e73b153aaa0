"""Exporting a model: a folder for the Hub with its card, or the delta of it.

A folder that is exported holds what stock `qwen_tts` loads, a model card (`README.md`) and
`voxadapt.json`, which says the same to machines and lists every file with its hash. A delta holds
what differs from the Base; `apply_delta` makes the model of it again.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from voxadapt import __version__
from voxadapt.core import paths
from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import set_usual_mode, sha256_file, write_atomic, write_json
from voxadapt.core.lineage import check_made
from voxadapt.core.model_folder import DELTA, read_config
from voxadapt.core.params import Params, SelectParams, candidate_name, in_stage2, language_section
from voxadapt.core.paths import LANGUAGE, SPEAKER, Corpus
from voxadapt.core.provenance import git_commit, versions
from voxadapt.core.records import Record, read_record
from voxadapt.core.stage import StageResult
from voxadapt.model.checkpoint import (
    iterate_weights,
    list_files,
    new_folder,
    own_files,
    place_file,
    read_meta,
    tensors_sha256,
)
from voxadapt.model.delta import Delta, materialise, write_delta
from voxadapt.pipeline.candidates import check_name, check_weights, find_checkpoint, find_delta
from voxadapt.scoring.rows import read_scores, rows_sha
from voxadapt.selection import wording
from voxadapt.tools.exported import (
    CARD,
    FACTS,
    HUB_ID,
    MEASURES,
    SCHEMA,
    describe_consent,
    is_export,
    size_in_words,
)
from voxadapt.tools.model_card import render_card

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_QWEN = "Qwen/Qwen3-TTS"
HUB_CODES = {"jw": "jv"}  # ISO codes that the Hub knows, where Whisper has others


@dataclass(frozen=True)
class Terms:
    """What only the user can say about a model."""

    name: str | None = None  # None: the folder's
    licence: str | None = None  # of the exported weights, as the Hub names it; None: the Base's
    base_licence: str | None = None  # None: apache-2.0 for Qwen's own
    data_licence: str | None = None  # of the recordings, in any words
    base_model: str | None = None  # the Base's id on the Hub, where params.yaml names a folder


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
    """Write a fine-tuned checkpoint as a folder for the Hub, or the delta of it.

    Without a candidate it is the chosen one; `force` replaces what `export` did not write.

    Raises:
        UserError: When the Base was kept and no epoch is named, when figures are missing or are
            those of another checkpoint, or when `out` holds something else.
    """
    decision = _begin(terms, out, force, paths.SELECTION, "select")
    name = _candidate(decision, candidate, "voxadapt export epoch-1")
    checkpoint = find_checkpoint(params.model, name)
    check_weights(checkpoint)
    if name == decision["chosen"]:
        check_made([paths.CONFIRM])
    base, sha = checkpoint.base, checkpoint.sha
    source = checkpoint.delta or checkpoint.folder
    scores = _scores(decision, name, paths.CONFIRM, paths.CONFIRMATION / name, "confirm", sha)
    meta = read_meta(source)
    facts = _facts(params, terms, out, SPEAKER, decision, name, params.select, scores, meta) | {
        "kind": "speaker",
        "form": "delta" if delta else "full",
        "speaker": meta["speaker_name"],
        "speakers": list(meta.get("speakers", ())),
        "languages": [HUB_CODES.get(params.asr.language, params.asr.language)],
        "spoken_as": params.train.language,
    }
    with new_folder(out) as folder:
        if checkpoint.delta is not None:
            digest = _write_delta(base, checkpoint.delta, folder, out, delta)
        else:
            digest = tensors_sha256(source)
            if delta:
                _write_difference(base, source, folder)
                facts["adapted"] = {"config": read_config(source), "meta": meta}
            else:
                read_config(source)
                for file in list_files(source):
                    place_file(source / file, folder / file)
        facts["provenance"] |= {"checkpoint_sha256": sha, "tensors_sha256": digest}
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

    The candidate is an epoch of Stage 1 or `stage2-epoch-N`, without one what was kept, or the best
    epoch of an arm of `voxadapt compare`.
    """
    language = language_section(params)
    decision = _begin(terms, out, force, paths.LANGUAGE_SELECTION, "language confirm")
    entry = None if arm is None else _arm(arm, candidate)
    if entry is None:
        name = _candidate(decision, candidate, "voxadapt language export epoch-1")
        found = find_delta(params.model, name)
        check_weights(found)
        if name == decision["chosen"]:
            check_made([paths.LANGUAGE_CONFIRM])
    else:
        name = f"{arm}, {entry['epoch']}"
        folder = paths.LANGUAGE_ARMS / entry["name"] / "deltas" / entry["epoch"]
        found = find_delta(params.model, entry["epoch"], folder)
    base, source, sha = found.base, found.delta, found.sha
    assert source is not None, "the Base is refused"
    meta, lost = read_meta(source), decision["forgetting"]
    if entry is None:
        rows = paths.LANGUAGE_CONFIRMATION / name / "target"
        scores = _scores(decision, name, paths.LANGUAGE_CONFIRM, rows, "language confirm", sha)
        lost_by = lost["candidates"].get(name)
    else:
        scores, lost_by = _selected(decision, entry), entry["forgetting"]
    codes = (language.asr_language, language.source.asr_language)
    facts = _facts(params, terms, out, LANGUAGE, decision, name, language.select, scores, meta) | {
        "kind": "language",
        "form": "delta" if delta else "full",
        "language": language.name,
        "languages": list(dict.fromkeys(HUB_CODES.get(code, code) for code in codes)),
        "source_language": language.source.language,
        "forgetting": {"num_texts": lost["num_texts"], "metric": lost["metric"], "entry": lost_by},
        "with_text": params.score.base_prompt == "icl",
    }
    with new_folder(out) as folder:
        digest = _write_delta(base, source, folder, out, delta)
        facts["provenance"] |= {"checkpoint_sha256": sha, "tensors_sha256": digest}
        _finish(folder, facts)
    return _result(out, facts)


def _begin(terms: Terms, out: Path, force: bool, decision: Path, stage: str) -> Record:
    """Check what was asked for; return the decision."""
    _check_terms(terms)
    _check_out(out, force)
    check_made([decision])
    return read_record(decision, stage)


def _arm(arm: str, candidate: str | None) -> Record:
    """Return the row of an arm in the table that `voxadapt compare` wrote."""
    arms: list[Record] = read_record(paths.LANGUAGE_ARMS_TABLE, "compare")["arms"]
    listed = {item["name"]: item for item in arms}
    if arm not in listed or arm == "stages":
        known = ", ".join(name for name in listed if name != "stages")
        raise UserError.of(
            "--arm", f"one of {known or 'none'}", arm, f"Run `voxadapt compare {arm}`."
        )
    if candidate is not None:
        fix = "Leave the candidate out."
        raise UserError.of("candidate", "none with --arm: its best epoch", candidate, fix)
    return listed[arm]


def _candidate(decision: Record, candidate: str | None, example: str) -> str:
    """Return the candidate to export."""
    name = candidate
    if name is None:
        name = decision["chosen"]
        if not decision.get("measurable", {"measurable": True})["measurable"]:
            expected = "one that could be measured"
            fix = f"Mend that, or name an epoch all the same: `{example}`."
            title = "There is nothing to export: it cannot be measured which model is the best."
            raise UserError.of("the decision", expected, decision["reason"], fix, title)
        if name == "base":
            raise UserError.of(
                "the decision", "an adapted model", f"base. {decision['reason']}",
                f"Use the Base as it is, or name an epoch all the same: `{example}`.",
                "The measurements say: keep the Base. There is nothing to export.",
            )  # fmt: skip
    elif not in_stage2(name):
        name = candidate_name(name)
    if name == "base":
        raise UserError(
            Problem("candidate", "an adapted model", "base", "Name an epoch."),
            "The Base is published by its makers.",
        )
    return check_name(name, [item["name"] for item in decision["candidates"]])


def _scores(decision: Record, name: str, record: Path, rows: Path, stage: str, sha: str) -> Record:
    """Return the confirmation of this checkpoint; the selection's figures if it was not chosen."""
    if name != decision["chosen"]:
        item = next(item for item in decision["candidates"] if item["name"] == name)
        return _selected(decision, item)
    fix = f"Run `voxadapt {stage}` again."
    found = read_record(record, stage)
    if found["chosen"] != name:
        raise UserError.of(record, f"the confirmation of {name}", f"that of {found['chosen']}", fix)
    heard = read_scores(rows, split=found["split"], checkpoint_sha=sha, fix=fix)
    if rows_sha(heard) != found["inputs"][name]:
        raise UserError.of(record, f"figures of the clips in {rows}", "figures of others", fix)
    return found


def _selected(decision: Record, item: Record) -> Record:
    """Return a candidate's figures on the sentences that chose, in the shape of a confirmation."""
    base: Record = next((entry for entry in decision["candidates"] if entry["name"] == "base"), {})
    versus = item.get("vs_base") or {}
    short = {decision["rule"]["error_metric"]: "error"}
    measures = {
        key: {"base": base.get(key), "chosen": item[key],
              "difference": versus.get(short.get(key, key))}
        for key, *_ in MEASURES
    }  # fmt: skip
    return {**decision, "measures": measures}


def _facts(
    params: Params,
    terms: Terms,
    out: Path,
    at: Corpus,
    decision: Record,
    name: str,
    rule: SelectParams,
    scores: Record,
    meta: Record,
) -> Record:
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
            "headline": wording.headline(scores, name, "Keep the Base.") if confirmed else None,
            "confirmation": scores["sentence"] if confirmed else None,
        },
        "scores": {
            "split": scores["split"],
            "confirmed": confirmed,
            "num_texts": scores["num_texts"],
            "takes": scores["takes"],
            "confidence": rule.confidence,
            "measures": {
                key: {p: scores["measures"][key].get(p) for p in ("base", "chosen", "difference")}
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
        "base": {"hub_id": hub, "revision": params.model.revision, "sha256": meta["base_sha256"]},
        "provenance": {
            "training": {key: meta[key] for key in trained if key in meta},
            **git_commit(),
            "versions": versions(),
        },
    }


def _write_delta(base: Path, source: Path, folder: Path, out: Path, delta: bool) -> str:
    """Write a delta as it is, or laid over its Base; return the hash of the whole's tensors."""
    if not delta:
        return tensors_sha256(materialise(base, source, folder))
    for file in (DELTA, "meta.json"):
        place_file(source / file, folder / file)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        return tensors_sha256(materialise(base, source, Path(scratch) / "full"))


def _write_difference(base_dir: Path, source: Path, folder: Path) -> None:
    """Write what a checkpoint changes in its Base: rows of a tensor where few of them differ."""
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
        expected = "the tensors of the Base, of the same types and shapes"
        found = ", ".join(differing[:3]) or "other tensors"
        raise UserError.of(source, expected, found, "Export the whole model: leave out --delta.")
    write_delta(folder, base_dir, Delta(rows, full), {"kind": "speaker"})
    set_usual_mode(folder / DELTA)


def _moved_rows(before: Tensor, value: Tensor) -> Tensor:
    """Return bool `[R]`: which rows differ in any bit; a scalar is one row."""
    flat = [part.contiguous().reshape(max(1, len(part) if part.ndim else 1), -1)
            for part in (before, value)]  # fmt: skip
    bits = [part.view(torch.uint8) for part in flat]
    return (bits[0] != bits[1]).any(dim=1)


def _finish(folder: Path, facts: Record) -> None:
    """Write the card and the record into a folder that holds everything else."""
    own_files(folder)
    write_atomic(folder / CARD, render_card(facts))
    facts["files"] = {
        file.as_posix(): {"sha256": sha256_file(folder / file),
                          "size_bytes": (folder / file).stat().st_size}
        for file in list_files(folder)
    }  # fmt: skip
    write_json(folder / FACTS, facts)


def _result(out: Path, facts: Record) -> StageResult:
    size = sum(file["size_bytes"] for file in facts["files"].values())
    said = [f"{out}: {facts['candidate']}, {len(facts['files'])} files, {size_in_words(size)}."]
    if facts["base"]["hub_id"] is None:
        said.append("The card names no Base on the Hub; give it with --base-model.")
    if facts["licence"]["model"] is None:
        said.append("The card states no licence; give it with --license.")
    if not facts["is_chosen"]:
        said.append("It is not the chosen candidate, so the card has no confirmed figures.")
    if not describe_consent(facts)[0]:
        said.append("No consent was recorded, and the card says so.")
    return StageResult(" ".join(said), facts)


def _check_terms(terms: Terms) -> None:
    problems = [
        Problem(option, "a licence as the Hub names it, such as apache-2.0, cc-by-4.0 or other",
                repr(value), "Look it up in the list of the Hub's documentation.")
        for option, value in (("--license", terms.licence), ("--base-license", terms.base_licence))
        if value is not None and not _LICENCE.fullmatch(value)
    ]  # fmt: skip
    if terms.base_model is not None and not HUB_ID.fullmatch(terms.base_model):
        problems.append(
            Problem("--base-model", "owner/name on the Hub", terms.base_model, "Correct it.")
        )
    for option, text in (("--name", terms.name), ("--data-license", terms.data_licence)):
        if text is not None and (not text.strip() or not text.isprintable()):
            problems.append(Problem(option, "one line of text", repr(text), "Correct it."))
    raise_problems(problems)


def _check_out(out: Path, force: bool) -> None:
    """Refuse to replace what `export` did not write."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError.of(out, "a folder", "a file or a link", "Choose another.")
    if force or not out.exists() or not any(out.iterdir()) or is_export(out):
        return
    raise UserError.of(
        out, "a new or empty folder, or one that export wrote", "other files",
        "Choose another folder, or repeat with --force to replace it.", "Nothing was written.",
    )  # fmt: skip
