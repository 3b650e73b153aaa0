"""`voxadapt init`: makes a project's data of recordings and sentences, and says what is missing."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import write_atomic, write_json, write_jsonl
from voxadapt.core.languages import MODEL_LANGUAGES
from voxadapt.core.params import AuditParams, Params, load_params
from voxadapt.core.problems import user_error
from voxadapt.core.progress import Progress
from voxadapt.data.audio import AudioError, read_mono
from voxadapt.data.audit import AuditResult, audit_corpus
from voxadapt.data.manifest import line_of, read_raw_manifest
from voxadapt.data.respelling import load_respelling
from voxadapt.prepare import drafts, transcript_page
from voxadapt.prepare import recording_script as script
from voxadapt.prepare.checklist import map_of, missing_of
from voxadapt.prepare.drafts import ClipRow
from voxadapt.prepare.import_folder import REF
from voxadapt.prepare.init_options import InitOptions, InitResult, check, language_name
from voxadapt.prepare.new_project import PROFILES, new_project, source_folder
from voxadapt.prepare.reference import RULE, measure_clip, propose
from voxadapt.prepare.respelling_template import respelling_template
from voxadapt.prepare.sound import write_sound
from voxadapt.prepare.sources import find_recordings, read_lines, usable_texts
from voxadapt.prepare.transcribe import LazyTranscriber
from voxadapt.prepare.transcript_table import Entry, write_table
from voxadapt.prepare.workspace import (
    PAGE,
    RECORD,
    TABLE,
    InitRecord,
    ReferenceRecord,
    Workspace,
    find_workspace,
    open_record,
    section_of,
    write_owned,
    write_settings,
)
from voxadapt.scoring.wording import Sentences

CHECKED = ".train_raw.checked.jsonl"  # what the audit reads before it is known what is left out
READER = PROFILES / "respelling" / "malay.yaml"  # its vowels and consonants are those of English
SENTENCES = Sentences(Path(__file__).parent)


def init(folder: Path, options: InitOptions) -> InitResult:
    """Make, or go on with, the data of a project."""
    name = language_name(options.language)
    check(options)
    texts, left_out = usable_texts(options.text)
    source, refused = usable_texts(options.source_text)
    left_out += refused
    if options.audio is not None:
        find_recordings(options.audio)
    lines = []
    if name in MODEL_LANGUAGES.values():
        lines.append(
            f"The Base speaks {str(name).capitalize()} already: for a voice that speaks it, leave "
            "--language out. What follows changes how the Base reads it."
        )
    if not (folder / "params.yaml").is_file():
        if options.audio is None and options.text is None:
            raise user_error("prepare.nothing_given", folder)
        lines.append(new_project(folder, options.profile).partition("\n")[0])
    params = load_params(folder / "params.yaml")
    workspace = find_workspace(folder, params, name)
    record = open_record(workspace, options)
    entries = drafts.corrections(workspace, options, record)
    write_settings(workspace, params, options)
    params = load_params(folder / "params.yaml")
    if name is not None:
        workspace.home.mkdir(parents=True, exist_ok=True)
        for path, given in ((workspace.texts, texts), (workspace.source, source)):
            if given:
                write_owned(path, [{"text": line} for line in given], record)
        if texts and not workspace.map.is_file():
            reader = load_respelling(source_folder() / READER)
            write_atomic(workspace.map, respelling_template(name, texts, reader))
            known = f"with the letters of {len(texts)} texts"
            lines.append(f"{workspace.map.as_posix()}: a map to fill in, {known}.")
    if texts:
        lines.append(_extend_script(workspace, options, texts))
    whisper = LazyTranscriber(workspace, options, params)
    left_out += drafts.add_recordings(workspace, options, record, whisper)
    if options.transcribe:
        drafts.transcribe_clips(workspace, record, entries, whisper)
    rows = drafts.rows_of(record, entries)
    if rows:
        _set_reference(workspace, options, record, rows, section_of(params, workspace).audit)
    result, problems = _audit(workspace, record, rows, params)
    if rows:
        _write(workspace, record, rows, entries)
        lines.append(_counted(workspace, rows, record))
    write_json(workspace.home / RECORD, record)
    missing = missing_of(workspace, params, options, record, rows, result, problems)
    commands = _commands(workspace, missing)
    return InitResult(tuple(lines), tuple(missing), tuple(left_out), tuple(commands))


def _extend_script(workspace: Workspace, options: InitOptions, texts: Sequence[str]) -> str:
    """Write what to record first; pages that are there already stay."""
    folder = workspace.scripts
    known = map_of(workspace)[0] if workspace.language is not None else None
    sounds, unit = script.sounds_of(texts, known)
    first = script.scripted(folder, read_lines)
    coverage = script.choose(texts, max(options.sentences, len(first)), sounds, unit, first)
    pages = script.write_script(folder, coverage, len(first))
    count = min(script.PAGE, len(coverage.choices))
    shares = coverage.after(count), script.share_held(texts, count, sounds)
    said = folder.as_posix(), coverage, len(texts), pages, count, *shares
    return SENTENCES.say("script", *said)


def _set_reference(
    workspace: Workspace,
    options: InitOptions,
    record: InitRecord,
    rows: Sequence[ClipRow],
    limits: AuditParams,
) -> None:
    """Take the reference that the user gave or marked; propose one where there is none."""
    marked = [row for row in rows if row.use == "reference"]
    old = record.get("reference")
    if options.ref is not None:
        write_sound(workspace.home / REF, *read_mono(options.ref), "WAV", "PCM_16")
        given = options.ref.name
        record["reference"] = {"clips": [], "from": given, "why": "given", "faults": []}
        for row in marked:
            row.use = "yes"
        return
    if not marked and old and old["clips"] == [] and (workspace.home / REF).is_file():
        return  # one that was given before
    names = [row.name for row in marked]
    if not names:
        reference = _proposed(workspace, rows, limits)
    elif old is None or names != old["clips"]:
        reference = {"clips": names, "why": f"marked in {TABLE}", "faults": []}
    else:
        reference = old
    record["reference"] = reference
    if reference is None:
        return
    names = reference["clips"]
    _join_clips(workspace, names, limits)
    reference["text"] = " ".join(row.text for row in rows if row.name in names)
    for row in rows:
        row.use = "reference" if row.name in names else row.use


def _join_clips(workspace: Workspace, names: Sequence[str], limits: AuditParams) -> None:
    """Write the clips, one after another, as the reference."""
    parts = [read_mono(workspace.home / name) for name in names]
    rates = {rate_hz for _, rate_hz in parts}
    seconds = sum(len(mono) / rate_hz for mono, rate_hz in parts)
    low_s, high_s = limits.ref_duration_s
    if len(rates) > 1 or not low_s <= seconds <= high_s:
        found = f"{seconds:.1f} s of {len(names)} clips" + ("" if len(rates) < 2 else ", two rates")
        facts = {"low": low_s, "high": high_s, "found": found}
        raise user_error("prepare.reference_clips", f"{TABLE}: reference", **facts)
    joined = np.concatenate([mono for mono, _ in parts])
    write_sound(workspace.home / REF, joined, rates.pop(), "WAV", "PCM_16")


def _proposed(
    workspace: Workspace, rows: Sequence[ClipRow], limits: AuditParams
) -> ReferenceRecord | None:
    """Measure the clips and propose a reference."""
    num_usable = sum(row.use == "yes" for row in rows)
    progress = Progress("reference", num_usable, "clips measured")
    candidates = []
    for order, row in enumerate(rows):
        if row.use != "yes":
            continue
        recording = re.sub(r"-\d{8}\.flac$", "", row.name)
        with suppress(AudioError):  # the audit says what is wrong with it
            candidates.append(measure_clip(workspace.home, row.name, recording, order, row.text))
        progress.advance()
    found = propose(candidates, limits)
    if found is None or num_usable <= len(found.clips):
        return None
    return {"clips": [*found.clips], "why": found.why, "faults": [*found.faults], "rule": RULE}


def _audit(
    workspace: Workspace, record: InitRecord, rows: Sequence[ClipRow], params: Params
) -> tuple[AuditResult | None, list[Problem]]:
    """Audit the rows that can be used; those with an error are left out, with the reason."""
    section = section_of(params, workspace)
    limits = section.audit.model_copy(update={"min_total_minutes": 1e-6, "on_error": "stop"})
    manifest = workspace.home / CHECKED
    try:
        while usable := [row for row in rows if row.is_used]:
            if not (workspace.home / REF).is_file():
                break
            write_jsonl(manifest, _manifest(workspace, record, rows))
            found, refused = read_raw_manifest(manifest)
            try:
                result = audit_corpus(found, limits, section.split, manifest, refused)
            except UserError as error:
                if _refuse(usable, error.problems):
                    continue
                return None, [replace(wrong, where="the clips") for wrong in error.problems]
            for checked in result.clips:
                row = usable[checked.row.line - 1]
                row.remarks += [f"{f.found}; expected {f.expected}" for f in checked.findings]
            return result, []
    finally:
        manifest.unlink(missing_ok=True)
    return None, []


def _refuse(rows: Sequence[ClipRow], problems: Sequence[Problem]) -> bool:
    """Mark the rows that problems of the audit name by line; False where they name none."""
    by_line = {line: wrong for wrong in problems if (line := line_of(wrong.where))}
    for number, wrong in by_line.items():
        row = rows[number - 1]
        row.is_refused = True
        row.remarks.append(f"left out: {wrong.found} (expected {wrong.expected})")
    return bool(by_line)


def _manifest(
    workspace: Workspace, record: InitRecord, rows: Sequence[ClipRow]
) -> list[dict[str, str]]:
    """Return the rows that the audit reads."""
    same = {"language": workspace.language, "consent": record["consent"]}
    given = {key: value for key, value in same.items() if value is not None}
    return [
        {"audio": row.name, "text": row.text, "ref_audio": REF} | given
        for row in rows
        if row.is_used
    ]


def _write(
    workspace: Workspace, record: InitRecord, rows: Sequence[ClipRow], entries: Mapping[str, Entry]
) -> None:
    """Write manifest, table and page."""
    for row in rows:
        if row.error is not None and row.disagrees:
            until = "; left out until it is checked" if row.is_doubtful else ""
            told = f"Whisper's transcript differs by {100 * row.error:.0f} %{until}"
            row.remarks.insert(0, told)
    own = list(dict.fromkeys(name for entry in entries.values() for name in entry.extra))
    for clip in drafts.clips_of(record):
        clip["listed"] = True
    write_owned(workspace.manifest, _manifest(workspace, record, rows), record)
    cells = [
        {
            "clip": row.name,
            "text": row.text,
            "checked": "yes" if row.checked else "no",
            "use": row.use,
            "seconds": f"{row.length_s:.1f}",
            "source": row.clip["source"],
            "heard": row.clip["heard"] or "",
            "remark": "; ".join(row.remarks),
            **row.extra,
        }
        for row in rows
    ]
    write_table(workspace.home / TABLE, cells, own)
    page = transcript_page.build(cells, workspace.folder.resolve().name, TABLE)
    write_atomic(workspace.home / PAGE, page)


def _counted(workspace: Workspace, rows: Sequence[ClipRow], record: InitRecord) -> str:
    """Count clips and minutes, and name the reference."""
    used = [row for row in rows if row.is_used]
    minutes = sum(row.length_s for row in used) / 60.0
    counts = len(used), len(rows), minutes, len(record["recordings"])
    said = [SENTENCES.say("counted", workspace.home.as_posix(), *counts)]
    if (reference := record.get("reference")) is not None:
        said.append(SENTENCES.say("reference", reference))
    return "\n".join(said)


def _commands(workspace: Workspace, missing: Sequence[Problem]) -> list[str]:
    """Return what to run next."""
    here, language = os.path.relpath(workspace.folder), workspace.language
    which = "" if language is None else f" --language {language}"
    first = [f"voxadapt init {here}{which}   # after each correction"] if missing else []
    first += [] if here == "." else [f"cd {here}"]
    if language is not None:
        return [*first, "voxadapt doctor", "dvc repro language_report"]
    return [*first, "voxadapt doctor", "voxadapt audit", "voxadapt plan", "dvc repro report"]
