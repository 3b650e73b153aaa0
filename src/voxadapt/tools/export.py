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
from rich.filesize import decimal
from torch import Tensor

from voxadapt import __version__
from voxadapt.core import paths
from voxadapt.core.errors import raise_problems
from voxadapt.core.files import set_usual_mode, sha256_file, sha256_folder, write_atomic, write_json
from voxadapt.core.lineage import check_made
from voxadapt.core.model_folder import DELTA, read_config
from voxadapt.core.params import Params, candidate_name, in_stage2, language_section
from voxadapt.core.paths import LANGUAGE, Corpus
from voxadapt.core.problems import problem, user_error
from voxadapt.core.provenance import git_commit, versions
from voxadapt.core.records import Record, read_record
from voxadapt.core.stage import StageResult
from voxadapt.model import checkpoint as checkpoints
from voxadapt.model.delta import Delta, materialise, write_delta
from voxadapt.pipeline.candidates import (
    check_name,
    check_weights,
    find_candidate,
    find_delta,
    speakers_of_model,
)
from voxadapt.pipeline.tracks import Track, language_track, speaker_track
from voxadapt.scoring.rows import read_scores, rows_sha
from voxadapt.selection import wording
from voxadapt.tools import exported
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


#: What a project is made of: no export takes its place.
OWN = tuple(map(Path, ("artifacts", "data", "notebooks", "profiles", "reports", ".git", ".dvc")))


def export(
    params: Params, out: Path, candidate: str | None = None, terms: Terms = Terms(), *,
    language: bool = False, arm: str | None = None, delta: bool = False, force: bool = False,
) -> StageResult:  # fmt: skip
    """Write a speaker's checkpoint, or a Base that speaks the language, for the Hub; or its delta.

    The candidate is an epoch, of the language also `stage2-epoch-N`; without one it is what was
    chosen, or the best epoch of an `arm` of `voxadapt compare`. Figures that are missing, or those
    of another checkpoint, are refused; `force` replaces what `export` did not write.
    """
    _check_terms(terms)
    _check_out(out, force)
    track = language_track(params) if language else speaker_track(params)
    check_made([track.corpus.decision])
    decision = read_record(track.corpus.decision, "language confirm" if language else "select")
    if arm is not None:
        entry = _arm(arm, candidate)
        name = f"{arm}, {entry['epoch']}"
        folder = paths.LANGUAGE_ARMS / entry["name"] / "deltas" / entry["epoch"]
        found = find_delta(params.model, entry["epoch"], folder)
        scores, lost = _selected(decision, entry), entry["forgetting"]
    else:
        name = _candidate(decision, candidate, language)
        found = find_candidate(track, name)
        check_weights(found)
        if name == decision["chosen"]:
            check_made([track.corpus.confirm])
        scores = _scores(track.corpus, decision, name, found.sha)
        lost = decision["forgetting"]["candidates"].get(name) if language else None
    source = found.delta or found.folder
    meta = checkpoints.read_meta(source)
    if "base_sha256" not in meta:  # rows that are set and not trained come without it
        meta["base_sha256"] = sha256_folder(found.base)
    facts = _facts(track, terms, out, decision, name, scores, meta)
    facts |= {"form": "delta" if delta else "full", **_own_facts(params, track, found.base, meta)}
    if language:
        seen = {key: decision["forgetting"][key] for key in ("num_texts", "metric")}
        facts["forgetting"] = {**seen, "entry": lost}
    with checkpoints.new_folder(out) as folder:
        if found.delta is not None:
            digest = _write_delta(found.base, found.delta, folder, out, delta)
        else:
            config, digest = read_config(source), checkpoints.tensors_sha256(source)
            if delta:
                _write_difference(found.base, source, folder)
                facts["adapted"] = {"config": config, "meta": meta}
            else:
                for file in checkpoints.list_files(source):
                    checkpoints.place_file(source / file, folder / file)
        facts["provenance"] |= {"checkpoint_sha256": found.sha, "tensors_sha256": digest}
        _finish(folder, facts)
    return _result(out, facts)


def _own_facts(params: Params, track: Track, base: Path, meta: Record) -> Record:
    """Return what only a card of a speaker, or of a language, says."""
    if track.corpus is not LANGUAGE:
        learnt = list(meta.get("speakers", ())) or [meta["speaker_name"]]
        kept = speakers_of_model(base) - {name.lower() for name in learnt}
        rows = track.accepted() if track.corpus.manifest.is_file() else []
        return {
            "kind": "speaker",
            "speaker": meta["speaker_name"],
            "speakers": [*learnt, *sorted(kept)] if kept or "speakers" in meta else [],
            "languages": _hub_codes(
                params.asr.language, *sorted({track.code_of(row) for row in rows})
            ),
            "spoken_as": params.train.language,
        }
    section = language_section(params)
    return {
        "kind": "language",
        "language": section.name,
        "languages": _hub_codes(section.asr_language, section.source.asr_language),
        "source_language": section.source.language,
        "with_text": params.score.base_prompt == "icl",
    }


def _hub_codes(*codes: str) -> list[str]:
    return list(dict.fromkeys(HUB_CODES.get(code, code) for code in codes))


def _arm(arm: str, candidate: str | None) -> Record:
    """Return the row of an arm in the table that `voxadapt compare` wrote."""
    arms: list[Record] = read_record(paths.LANGUAGE_ARMS_TABLE, "compare")["arms"]
    listed = {item["name"]: item for item in arms}
    if arm not in listed or arm == "stages":
        known = ", ".join(name for name in listed if name != "stages") or "none"
        raise user_error("tools.unknown_arm", "--arm", known=known, arm=arm)
    if candidate is not None:
        raise user_error("tools.candidate_of_arm", "candidate", found=candidate)
    return listed[arm]


def _candidate(decision: Record, candidate: str | None, language: bool) -> str:
    """Return the candidate to export."""
    if candidate is None:
        names = [item["name"] for item in decision["candidates"] if item["name"] != "base"]
        command = "voxadapt language export" if language else "voxadapt export"
        example = f"{command} {names[0] if names else 'epoch-1'} -o my-model"
        facts = {"reason": decision["reason"], "example": example}
        if not decision.get("measurable", {"measurable": True})["measurable"]:
            raise user_error("tools.unmeasured", "the decision", **facts)
        if decision["chosen"] == "base":
            raise user_error("tools.base_kept", "the decision", **facts)
        name = decision["chosen"]
    else:
        name = candidate if in_stage2(candidate) else candidate_name(candidate)
    if name == "base":
        raise user_error("tools.base_published", "candidate")
    return check_name(name, [item["name"] for item in decision["candidates"]])


def _scores(at: Corpus, decision: Record, name: str, sha: str) -> Record:
    """Return the confirmation of this checkpoint; the selection's figures if it was not chosen."""
    if name != decision["chosen"]:
        item = next(item for item in decision["candidates"] if item["name"] == name)
        return _selected(decision, item)
    stage = "language confirm" if at is LANGUAGE else "confirm"
    fix = f"Run `voxadapt {stage}` again."
    found = read_record(at.confirm, stage)
    if found["chosen"] != name:
        facts = {"name": name, "other": found["chosen"], "fix": fix}
        raise user_error("tools.other_confirmation", at.confirm, **facts)
    rows = at.confirmation / name / ("target" if at is LANGUAGE else "")
    heard = read_scores(rows, split=found["split"], checkpoint_sha=sha, fix=fix)
    if rows_sha(heard) != found["inputs"][name]:
        raise user_error("tools.other_clips", at.confirm, rows=rows, fix=fix)
    return found


def _selected(decision: Record, item: Record) -> Record:
    """Return a candidate's figures on the sentences that chose, in the shape of a confirmation."""
    base: Record = next((entry for entry in decision["candidates"] if entry["name"] == "base"), {})
    versus = item.get("vs_base") or {}
    short = {decision["rule"]["error_metric"]: "error"}
    measures = {
        key: {"base": base.get(key), "chosen": item[key],
              "difference": versus.get(short.get(key, key))}
        for key, *_ in exported.MEASURES
    }  # fmt: skip
    return {**decision, "measures": measures}


def _facts(
    track: Track, terms: Terms, out: Path, decision: Record, name: str, scores: Record, meta: Record
) -> Record:
    """Collect what card and record say, without what differs between speaker and language."""
    audit, model = read_record(track.corpus.audit_metrics, "audit"), track.model
    confirmed = "verdict" in scores
    hub = terms.base_model or (None if Path(model.base).is_dir() else model.base)
    base_licence = terms.base_licence
    if base_licence is None and hub is not None and hub.startswith(_QWEN):
        base_licence = "apache-2.0"
    kept = ("minutes", "num_accepted", "num_warnings", "num_clips_with_warnings", "script",
            "warnings_by_rule", "splits", "median_snr_db", "manifest_sha256")  # fmt: skip
    encoder = model.speaker_encoder
    if encoder is not None and Path(encoder).is_dir():
        encoder = "path/to/the/base/of/its/size"
    trained = ("run", "epoch", "step", "lr", "precision", "objective", "stage", "params_sha256",
               "data_sha256", "ref_audio_sha256", "base_weights_sha256")  # fmt: skip
    return {
        "schema": exported.SCHEMA,
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
            "confidence": track.rule.confidence,
            "measures": {
                key: {p: scores["measures"][key].get(p) for p in ("base", "chosen", "difference")}
                for key, *_ in exported.MEASURES
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
            "revision": model.revision,
            "sha256": meta["base_sha256"],
            **({"speaker_encoder": encoder} if encoder else {}),
        },
        "provenance": {
            "training": {key: meta[key] for key in trained if key in meta},
            **git_commit(),
            "versions": versions(),
        },
    }


def _write_delta(base: Path, source: Path, folder: Path, out: Path, delta: bool) -> str:
    """Write a delta as it is, or laid over its Base; return the hash of the whole's tensors."""
    if not delta:
        return checkpoints.tensors_sha256(materialise(base, source, folder))
    for file in (DELTA, "meta.json"):
        checkpoints.place_file(source / file, folder / file)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        return checkpoints.tensors_sha256(materialise(base, source, Path(scratch) / "full"))


def _write_difference(base_dir: Path, source: Path, folder: Path) -> None:
    """Write what a checkpoint changes in its Base: rows of a tensor where few of them differ."""
    base = dict(checkpoints.iterate_weights(base_dir))
    rows: dict[str, tuple[Tensor, Tensor]] = {}
    full: dict[str, Tensor] = {}
    differing = []
    for name, value in checkpoints.iterate_weights(source):
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
    if differing or len(base) != len(list(checkpoints.iterate_weights(source))):
        found = ", ".join(differing[:3]) or "other tensors"
        raise user_error("tools.no_difference", source, found=found)
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
    checkpoints.own_files(folder)
    write_atomic(folder / exported.CARD, render_card(facts))
    facts["files"] = {
        file.as_posix(): {"sha256": sha256_file(folder / file),
                          "size_bytes": (folder / file).stat().st_size}
        for file in checkpoints.list_files(folder)
    }  # fmt: skip
    write_json(folder / exported.FACTS, facts)


def _result(out: Path, facts: Record) -> StageResult:
    size = sum(file["size_bytes"] for file in facts["files"].values())
    said = [f"{out}: {facts['candidate']}, {len(facts['files'])} files, {decimal(size)}."]
    if facts["base"]["hub_id"] is None:
        said.append("The card names no Base on the Hub; give it with --base-model.")
    if facts["licence"]["model"] is None:
        said.append("The card states no licence; give it with --license.")
    if not facts["is_chosen"]:
        said.append("It is not the chosen candidate, so the card has no confirmed figures.")
    if not exported.describe_consent(facts)[0]:
        said.append("No consent was recorded, and the card says so.")
    return StageResult(" ".join(said), facts)


def _check_terms(terms: Terms) -> None:
    problems = [
        problem("tools.no_licence", option, found=repr(value))
        for option, value in (("--license", terms.licence), ("--base-license", terms.base_licence))
        if value is not None and not _LICENCE.fullmatch(value)
    ]
    if terms.base_model is not None and not exported.HUB_ID.fullmatch(terms.base_model):
        problems.append(problem("tools.no_hub_id", "--base-model", found=terms.base_model))
    for option, text in (("--name", terms.name), ("--data-license", terms.data_licence)):
        if text is not None and (not text.strip() or not text.isprintable()):
            problems.append(problem("tools.no_line", option, found=repr(text)))
    raise_problems(problems)


def _check_out(out: Path, force: bool) -> None:
    """Refuse to replace what `export` did not write."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise user_error("tools.no_folder", out)
    if not out.exists() or not any(out.iterdir()) or exported.is_export(out):
        return
    if not force:
        raise user_error("tools.foreign_folder", out)
    if any(out.resolve().is_relative_to(part.resolve()) for part in (*OWN, paths.work_dir())):
        raise user_error("tools.own_folder", out)
