"""What is still to be done before the stages run, and how."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.params import AuditParams, Params
from voxadapt.data.audit import AuditResult
from voxadapt.data.respelling import Respelling, load_respelling
from voxadapt.data.texts import RECOMMENDED_TEXTS
from voxadapt.prepare.drafts import DIVIDED, DRAFT, NO_TEXT, ClipRow
from voxadapt.prepare.init_options import InitOptions
from voxadapt.prepare.respelling_template import FILL_IN
from voxadapt.prepare.workspace import (
    PAGE,
    TABLE,
    InitRecord,
    Workspace,
    limits_of,
    settings_of,
    texts_of,
    whisper_code,
)

PLACEHOLDERS = ("my_speaker",)
SHOWN_WARNINGS = 3
UNSURE = {
    DRAFT: "drafts by Whisper",
    DIVIDED: "lines that were divided by length",
    NO_TEXT: "of unknown origin",
}


def missing_of(
    workspace: Workspace,
    params: Params,
    options: InitOptions,
    record: InitRecord,
    rows: Sequence[ClipRow],
    result: AuditResult | None,
    problems: Sequence[Problem],
) -> list[Problem]:
    """Say what is still to be done, the first first."""
    found: list[Problem] = []
    if workspace.language is not None:
        found += _missing_of_language(workspace, params, record)
    if rows:
        found += _missing_of_recordings(
            workspace, record, rows, result, limits_of(params, workspace)
        )
        found += problems
    else:
        pages = any(workspace.scripts.glob("script-*.txt"))
        fix = f"Record the pages in {workspace.scripts.as_posix()}" if pages else "Record some"
        fix += "; then repeat the command with --audio FOLDER."
        found.append(Problem("recordings", "one voice, 10 minutes or more", "none", fix))
    if workspace.language is None and params.train.speaker_name in PLACEHOLDERS:
        fix = "Write the name into params.yaml."
        found.append(
            Problem("train.speaker_name", "what the speaker is called",
                    params.train.speaker_name, fix)
        )  # fmt: skip
    return found + _unset(params, settings_of(workspace, params, options))


def _missing_of_recordings(
    workspace: Workspace,
    record: InitRecord,
    rows: Sequence[ClipRow],
    result: AuditResult | None,
    limits: AuditParams,
) -> list[Problem]:
    """Say what the clips still need."""
    again = "then repeat the command"
    found: list[Problem] = []
    wanted = [row for row in rows if row.use == "yes"]
    if empty := [row for row in wanted if not row.text]:
        fix = (
            f"Fill in the column text of {TABLE}, {again}; or let Whisper draft with --transcribe."
        )
        found.append(Problem("transcripts", "a text for each clip", f"{len(empty)} without", fix))
    if unsure := [row for row in wanted if row.text and not row.is_sure]:
        kinds = Counter(row.clip["source"] for row in unsure)
        told = ", ".join(f"{count} {UNSURE[kind]}" for kind, count in kinds.items())
        fix = f"Hear and mend them in {PAGE} or {TABLE}, {again}."
        found.append(Problem("transcripts", "texts that somebody has checked", told, fix))
    if refused := [row for row in rows if row.is_refused]:
        fix = f"See the remarks in {TABLE}: mend them, or set use to no."
        told = f"{len(refused)} left out by the audit"
        found.append(Problem("clips", "clips without an error", told, fix))
    if record["consent"] is None:
        fix = 'Repeat with --consent "who agreed to what, when".'
        found.append(Problem("consent", "how the speaker agreed", "nothing", fix))
    if record.get("reference") is None:
        low_s, high_s = limits.ref_duration_s
        fix = "Record one clear sentence of 5 to 10 s, or name a clip with --ref."
        found.append(Problem("reference", f"a clip of {low_s:g} to {high_s:g} s", "none", fix))
    minutes = sum(row.length_s for row in rows if row.is_used) / 60.0
    low, _ = limits.recommended_total_minutes
    if minutes < low:
        least = f"at least {limits.min_total_minutes:g}, better {low:g} min"
        fix = f"Record more; {again} with --audio FOLDER."
        found.append(Problem("minutes", least, f"{minutes:.1f} min", fix))
    if result is not None:
        found += [f.as_problem("the clips") for f in result.corpus if f.rule != "total_minutes"]
        rules = Counter(f.rule for clip in result.clips for f in clip.findings)
        if rules:
            shown = rules.most_common(SHOWN_WARNINGS)
            told = ", ".join(f"{count} {rule.replace('_', ' ')}" for rule, count in shown)
            fix = f"Hear them: column remark of {TABLE}. They are not in the way."
            found.append(Problem("clips", "clips without a warning", told, fix))
    return found


def _missing_of_language(workspace: Workspace, params: Params, record: InitRecord) -> list[Problem]:
    """Say what a language still needs besides recordings."""
    found = []
    texts = texts_of(workspace)
    if len(texts) < RECOMMENDED_TEXTS:
        fix = "Give them with --text FILE, one sentence a line."
        expected = f"{RECOMMENDED_TEXTS} sentences or more"
        found.append(Problem("texts", expected, str(len(texts)), fix))
    problem = map_of(workspace)[1]
    if problem is not None:
        found.append(problem)
    language = params.language
    if language is not None and not (workspace.folder / language.source.text).is_file():
        fix = "Give them with --source-text FILE, one sentence a line."
        expected = f"sentences of {language.source.language}, to see what is forgotten"
        found.append(Problem("language.source.text", expected, "no such file", fix))
    if record["asr_language"] is None and whisper_code(str(workspace.language)) is None:
        fix = "Name the closest that it knows with --asr-language; scores are then of that reading."
        expected = f"Whisper's code for {workspace.language}, which it does not know"
        set_to = language.asr_language if language is not None else "nothing"
        found.append(Problem("language.asr_language", expected, set_to, fix))
    return found


def _unset(params: Params, settings: Mapping[str, str]) -> list[Problem]:
    """Name settings that params.yaml has otherwise."""
    tree = params.model_dump()
    found = []
    for key, value in settings.items():
        have: object = tree
        for part in key.split("."):
            have = have.get(part) if isinstance(have, dict) else None
        if have != value:
            fix = "Write it into params.yaml."
            found.append(Problem(key, value, str(have), fix))
    return found


def map_of(workspace: Workspace) -> tuple[Respelling | None, Problem | None]:
    """Return the language's map, or what is wrong with it."""
    where = workspace.map.as_posix()
    if not workspace.map.is_file():
        fix = "Give sentences with --text: a map to fill in is made of them."
        return None, Problem(where, "a respelling map", "none", fix)
    text = workspace.map.read_text(encoding="utf-8", errors="replace")
    left = len(re.findall(rf'^ *- .*reads: "\{FILL_IN}"', text, re.MULTILINE))
    if left:
        fix = f'Replace each "{FILL_IN}"; the head of the file says how.'
        return None, Problem(where, "a reading for each letter", f"{left} to fill in", fix)
    try:
        found = load_respelling(workspace.map)
    except UserError as error:
        return None, replace(error.problems[0], where=f"{where}: {error.problems[0].where}")
    unknown = found.unknown(texts_of(workspace))
    if unknown:
        named = ", ".join(f"{item} ({count})" for item, count in unknown.most_common(8))
        fix = "Add letters to its graphemes and words to its exceptions, or drop the sentences."
        return found, Problem(where, "a map that knows every text", f"unknown: {named}", fix)
    return found, None
