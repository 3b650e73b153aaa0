"""`voxadapt init`: joins cutting, hearing, the table, the reference, the audit and the script."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import write_atomic, write_json, write_jsonl
from voxadapt.core.params import AuditParams, Params, load_params
from voxadapt.core.progress import Progress
from voxadapt.data.audio import AudioError, read_mono
from voxadapt.data.audit import AuditResult, audit_corpus
from voxadapt.data.manifest import read_raw_manifest
from voxadapt.data.respelling import load_respelling
from voxadapt.prepare import (
    recording_script as script,
)
from voxadapt.prepare import (
    segment as cutting,
)
from voxadapt.prepare import (
    transcript_page as page,
)
from voxadapt.prepare.checklist import map_of, missing_of
from voxadapt.prepare.folder import REF, write_sound
from voxadapt.prepare.import_long import MAX_DRAFT_DISAGREEMENT
from voxadapt.prepare.init_options import Begun, Wishes, check, language_name, usable_texts
from voxadapt.prepare.new_project import PROFILES, new_project, source_folder
from voxadapt.prepare.reference import RULE, measure_clip, propose
from voxadapt.prepare.respelling_template import respelling_template
from voxadapt.prepare.transcribe import (
    Ears,
    clips_of,
    corrections,
    hear,
    is_used,
    rows_of,
    take_in,
)
from voxadapt.prepare.transcript_table import Entry, write_table
from voxadapt.prepare.workspace import (
    PAGE,
    RECORD,
    TABLE,
    Room,
    find_room,
    limits_of,
    open_record,
    write_owned,
    write_settings,
)

TRIAL = ".train_raw.checked.jsonl"  # what the audit reads while it is not decided what is left out
READER = PROFILES / "respelling" / "malay.yaml"  # its vowels and consonants are those of English


def init(folder: Path, wishes: Wishes) -> Begun:
    """Make, or go on with, the data of a project.

    Args:
        folder: A project, or a new or empty folder, which becomes one.
        wishes: What to do.

    Returns:
        What is there, what is missing and what to run.

    Raises:
        UserError: When something given cannot be read, or files there are not of this command.
    """
    name = language_name(wishes.language)
    check(wishes)
    texts, refused = ([], []) if wishes.text is None else usable_texts(wishes.text)
    source, more = ([], []) if wishes.source_text is None else usable_texts(wishes.source_text)
    left_out = refused + more
    if wishes.audio is not None:
        cutting.find_recordings(wishes.audio)
    lines = []
    if not (folder / "params.yaml").is_file():
        if wishes.audio is None and wishes.text is None:
            fix = "Say --audio FOLDER, --text FILE, or both."
            raise UserError(Problem(str(folder), "recordings or sentences", "neither", fix))
        lines.append(new_project(folder, wishes.profile).partition("\n")[0])
    params = load_params(folder / "params.yaml")
    room = find_room(folder, params, name)
    state = open_record(room, wishes)
    entries = corrections(room, wishes, state)
    write_settings(room, params, wishes)
    params = load_params(folder / "params.yaml")
    if name is not None:
        _write_texts(room, texts, source, state)
        lines += _map_lines(room, texts)
    if texts:
        lines.append(_extend_script(room, wishes, name, texts))
    hearing = Ears(room, wishes, params)
    left_out += take_in(room, wishes, state, hearing)
    hear(room, wishes, state, entries, hearing)
    rows = rows_of(state, entries)
    if rows:
        _set_reference(room, wishes, state, rows, limits_of(params, room))
    result, problems = _judge(room, state, rows, params)
    if rows:
        _write(room, state, rows, entries, result)
        lines.append(_counted(room, rows, state))
    write_json(room.home / RECORD, state)
    missing = missing_of(room, params, wishes, state, rows, result, problems)
    return Begun(tuple(lines), tuple(missing), tuple(left_out), tuple(_commands(room, missing)))


# --- texts, map, script --------------------------------------------------------------------------


def _write_texts(
    room: Room, texts: Sequence[str], source: Sequence[str], state: dict[str, Any]
) -> None:
    """Write the language's texts, and those of the source language."""
    room.home.mkdir(parents=True, exist_ok=True)
    if texts:
        write_owned(room.texts, [{"text": text} for text in texts], state)
    if source:
        write_owned(room.source, [{"text": text} for text in source], state)


def _map_lines(room: Room, texts: Sequence[str]) -> list[str]:
    """Write the map's template where there is no map; say so."""
    if room.map.is_file() or not texts:
        return []
    reader = load_respelling(source_folder() / READER)
    write_atomic(room.map, respelling_template(str(room.language), texts, reader))
    return [f"{room.map.as_posix()}: a map to fill in, with the letters of {len(texts)} texts."]


def _extend_script(room: Room, wishes: Wishes, language: str | None, texts: Sequence[str]) -> str:
    """Write what to record first; pages that are there already stay."""
    known = map_of(room)[0] if language is not None else None
    sounds, unit = script.sounds_of(texts, known)
    first = script.scripted(room.scripts, cutting.read_lines)
    coverage = script.choose(texts, max(wishes.sentences, len(first)), sounds, unit, first)
    pages = script.write_script(room.scripts, coverage, len(first))
    count = min(script.PAGE, len(coverage.choices))
    return (
        f"{room.scripts.as_posix()}: {len(coverage.choices)} of {len(texts)} sentences to record, "
        f"on {pages} page{'' if pages == 1 else 's'}; they hold {coverage.num_covered} of "
        f"{coverage.num_units} {unit} and pairs. The first {count} hold "
        f"{100 * coverage.after(count):.0f} %; the first {count} of the file hold "
        f"{100 * script.share_held(texts, count, sounds):.0f} %."
    )


# --- the reference -------------------------------------------------------------------------------


def _set_reference(
    room: Room,
    wishes: Wishes,
    state: dict[str, Any],
    rows: list[dict[str, Any]],
    limits: AuditParams,
) -> None:
    """Take the reference that the user gave or marked; propose one where there is none."""
    marked = [row for row in rows if row["use"] == "reference"]
    old = state.get("reference") or {}
    if wishes.ref is not None:
        mono, rate_hz = read_mono(wishes.ref)
        write_sound(room.home / REF, mono, rate_hz, "WAV", "PCM_16")
        state["reference"] = {"clips": [], "from": wishes.ref.name, "why": "given", "faults": []}
        for row in marked:
            row["use"] = "yes"
        return
    if not marked and old.get("clips") == [] and (room.home / REF).is_file():
        return  # one that was given before
    names = [row["clip"] for row in marked]
    if not names:
        names, state["reference"] = _proposed(room, rows, limits)
    elif names != old.get("clips"):
        state["reference"] = {"clips": names, "why": f"marked in {TABLE}", "faults": []}
    if not names:
        state["reference"] = None
        return
    parts = [read_mono(room.home / name) for name in names]
    rates = {rate_hz for _, rate_hz in parts}
    seconds = sum(len(mono) / rate_hz for mono, rate_hz in parts)
    low_s, high_s = limits.ref_duration_s
    if len(rates) > 1 or not low_s <= seconds <= high_s:
        found = f"{seconds:.1f} s of {len(names)} clips" + ("" if len(rates) < 2 else ", two rates")
        fix = "Mark others with use = reference, or none: then one is proposed."
        expected = f"clips of {low_s:g} to {high_s:g} s together"
        raise UserError(Problem(f"{TABLE}: reference", expected, found, fix))
    joined = np.concatenate([mono for mono, _ in parts])
    write_sound(room.home / REF, joined, rates.pop(), "WAV", "PCM_16")
    state["reference"]["text"] = " ".join(row["text"] for row in rows if row["clip"] in names)
    for row in rows:
        row["use"] = "reference" if row["clip"] in names else row["use"]


def _proposed(
    room: Room, rows: Sequence[Mapping[str, Any]], limits: AuditParams
) -> tuple[list[str], dict[str, Any] | None]:
    """Measure the clips and propose a reference."""
    usable = [row for row in rows if row["use"] == "yes"]
    progress = Progress("reference", len(usable), "clips measured")
    candidates = []
    for order, row in enumerate(rows):
        if row["use"] != "yes":
            continue
        recording = re.sub(r"-\d{8}\.flac$", "", row["clip"])
        try:
            candidates.append(measure_clip(room.home, row["clip"], recording, order, row["text"]))
        except AudioError:
            pass  # the audit says what is wrong with it
        progress.advance()
    found = propose(candidates, limits)
    if found is None or len(usable) <= len(found.clips):
        return [], None
    record = {"clips": [*found.clips], "why": found.why, "faults": [*found.faults], "rule": RULE}
    return [*found.clips], record


# --- the audit, and what it leaves ---------------------------------------------------------------


def _judge(
    room: Room, state: dict[str, Any], rows: list[dict[str, Any]], params: Params
) -> tuple[AuditResult | None, list[Problem]]:
    """Audit the rows that can be used; those with an error are left out, with the reason.

    Returns:
        The audit, None where the corpus as a whole is refused; and why it is.
    """
    limits = limits_of(params, room)
    split = params.split
    if room.language is not None and params.language is not None:
        split = params.language.split
    trial = room.home / TRIAL
    quiet = limits.model_copy(update={"min_total_minutes": 1e-6})
    problems: list[Problem] = []
    try:
        while usable := [row for row in rows if is_used(row)]:
            if not (room.home / REF).is_file():
                return None, []
            write_jsonl(trial, _manifest(room, state, rows))
            found, refused = read_raw_manifest(trial)
            try:
                result = audit_corpus(found, quiet, split, trial, refused)
            except UserError as error:
                wrong = {int(tail): p for p in error.problems
                         if (tail := p.where.rpartition(":")[2]).isdigit()}  # fmt: skip
                for number, problem in wrong.items():
                    usable[number - 1]["refused"] = True
                    usable[number - 1]["remarks"].append(
                        f"left out: {problem.found} (expected {problem.expected})"
                    )
                if wrong:
                    continue
                problems = [replace(p, where="the clips") for p in error.problems]
                return None, problems
            for checked in result.clips:
                row = usable[checked.row.line - 1]
                row["remarks"] += [f"{f.found}; expected {f.expected}" for f in checked.findings]
            return result, problems
    finally:
        trial.unlink(missing_ok=True)
    return None, problems


def _manifest(
    room: Room, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows that the audit reads."""
    same = {"language": room.language, "consent": state["consent"]}
    same = {key: value for key, value in same.items() if value is not None}
    return [
        {"audio": row["clip"], "text": row["text"], "ref_audio": REF} | same
        for row in rows
        if is_used(row)
    ]


def _write(
    room: Room,
    state: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    entries: Mapping[str, Entry],
    result: AuditResult | None,
) -> None:
    """Write manifest, table and page."""
    for row in rows:
        if row["error"] is not None and row["error"] > MAX_DRAFT_DISAGREEMENT:
            row["remarks"].insert(0, f"Whisper hears it {100 * row['error']:.0f} % otherwise")
    own = list(dict.fromkeys(name for entry in entries.values() for name in entry.extra))
    for clip in clips_of(state):
        clip["listed"] = True
    write_owned(room.manifest, _manifest(room, state, rows), state)
    cells = [
        {
            "clip": row["clip"],
            "text": row["text"],
            "checked": "yes" if row["checked"] else "no",
            "use": row["use"],
            "seconds": f"{row['end_s'] - row['start_s']:.1f}",
            "source": row["source"],
            "heard": row["heard"] or "",
            "remark": "; ".join(row["remarks"]),
            **row["extra"],
        }
        for row in rows
    ]
    write_table(room.home / TABLE, cells, own)
    write_atomic(room.home / PAGE, page.build(cells, room.folder.resolve().name, TABLE))


# --- what to say ---------------------------------------------------------------------------------


def _counted(room: Room, rows: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> str:
    """Count clips and minutes, and name the reference."""
    used = [row for row in rows if is_used(row)]
    minutes = sum(row["end_s"] - row["start_s"] for row in used) / 60.0
    num = len(state["recordings"])
    text = (
        f"{room.home.as_posix()}: {len(used)} of {len(rows)} clips for training and tests, "
        f"{minutes:.1f} min, of {num} recording{'' if num == 1 else 's'}."
    )
    reference = state.get("reference")
    if reference is None:
        return text
    named = " + ".join(reference["clips"]) or reference.get("from", "")
    faults = f" But it is {', '.join(reference['faults'])}." if reference["faults"] else ""
    return f"{text}\nThe reference is {named}: {reference['why']}.{faults}"


def _commands(room: Room, missing: Sequence[Problem]) -> list[str]:
    """Return what to run next."""
    here = os.path.relpath(room.folder)
    which = "" if room.language is None else f" --language {room.language}"
    first = [f"voxadapt init {here}{which}   # after each correction"] if missing else []
    first += [] if here == "." else [f"cd {here}"]
    if room.language is not None:
        return [*first, "voxadapt doctor", "dvc repro language_report"]
    return [*first, "voxadapt doctor", "voxadapt audit", "voxadapt plan", "dvc repro report"]
