"""What is still to be done before the stages run, and how."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.params import AuditParams, Params
from voxadapt.core.problems import problem
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
    section_of,
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
        limits = section_of(params, workspace).audit
        found += _missing_of_recordings(record, rows, result, limits)
        found += problems
    else:
        pages = any(workspace.scripts.glob("script-*.txt"))
        first = f"Record the pages in {workspace.scripts.as_posix()}" if pages else "Record some"
        found.append(problem("prepare.none_recorded", "recordings", first=first))
    if workspace.language is None and params.train.speaker_name in PLACEHOLDERS:
        name = params.train.speaker_name
        found.append(problem("prepare.unnamed_speaker", "train.speaker_name", found=name))
    return found + _unset(params, settings_of(workspace, params, options))


def _missing_of_recordings(
    record: InitRecord, rows: Sequence[ClipRow], result: AuditResult | None, limits: AuditParams
) -> list[Problem]:
    """Say what the clips still need."""
    found: list[Problem] = []
    wanted = [row for row in rows if row.use == "yes"]
    if empty := [row for row in wanted if not row.text]:
        found.append(
            problem("prepare.clips_without_text", "transcripts", count=len(empty), table=TABLE)
        )
    if unsure := [row for row in wanted if row.text and not row.is_sure]:
        kinds = Counter(row.clip["source"] for row in unsure)
        told = ", ".join(f"{count} {UNSURE[kind]}" for kind, count in kinds.items())
        facts = {"told": told, "page": PAGE, "table": TABLE}
        found.append(problem("prepare.unchecked_texts", "transcripts", **facts))
    if refused := [row for row in rows if row.is_refused]:
        found.append(problem("prepare.refused_clips", "clips", count=len(refused), table=TABLE))
    if record["consent"] is None:
        found.append(problem("prepare.no_consent", "consent"))
    if record.get("reference") is None:
        low_s, high_s = limits.ref_duration_s
        found.append(problem("prepare.no_reference", "reference", low=low_s, high=high_s))
    minutes = sum(row.length_s for row in rows if row.is_used) / 60.0
    low, _ = limits.recommended_total_minutes
    if minutes < low:
        least = limits.min_total_minutes
        found.append(
            problem("prepare.few_minutes", "minutes", least=least, better=low, minutes=minutes)
        )
    if result is not None:
        found += [f.as_problem("the clips") for f in result.corpus if f.rule != "total_minutes"]
        rules = Counter(f.rule for clip in result.clips for f in clip.findings)
        if rules:
            shown = rules.most_common(SHOWN_WARNINGS)
            told = ", ".join(f"{count} {rule.replace('_', ' ')}" for rule, count in shown)
            found.append(problem("prepare.clip_warnings", "clips", told=told, table=TABLE))
    return found


def _missing_of_language(workspace: Workspace, params: Params, record: InitRecord) -> list[Problem]:
    """Say what a language still needs besides recordings."""
    found = []
    texts = texts_of(workspace)
    if len(texts) < RECOMMENDED_TEXTS:
        found.append(
            problem("prepare.few_texts", "texts", least=RECOMMENDED_TEXTS, count=len(texts))
        )
    if (wrong := map_of(workspace)[1]) is not None:
        found.append(wrong)
    language = params.language
    if language is not None and not (workspace.folder / language.source.text).is_file():
        name = language.source.language
        found.append(problem("prepare.no_source_texts", "language.source.text", language=name))
    if record["asr_language"] is None and whisper_code(str(workspace.language)) is None:
        set_to = language.asr_language if language is not None else "nothing"
        facts = {"language": workspace.language, "found": set_to}
        found.append(problem("prepare.no_whisper_code", "language.asr_language", **facts))
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
            found.append(problem("prepare.unset", key, value=value, found=have))
    return found


def map_of(workspace: Workspace) -> tuple[Respelling | None, Problem | None]:
    """Return the language's map, or what is wrong with it."""
    where = workspace.map.as_posix()
    if not workspace.map.is_file():
        return None, problem("prepare.no_map", where)
    text = workspace.map.read_text(encoding="utf-8", errors="replace")
    left = len(re.findall(rf'^ *- .*reads: "\{FILL_IN}"', text, re.MULTILINE))
    if left:
        return None, problem("prepare.map_to_fill", where, count=left, mark=FILL_IN)
    try:
        found = load_respelling(workspace.map)
    except UserError as error:
        return None, replace(error.problems[0], where=f"{where}: {error.problems[0].where}")
    unknown = found.unknown(texts_of(workspace))
    if unknown:
        named = ", ".join(f"{item} ({count})" for item, count in unknown.most_common(8))
        return found, problem("prepare.map_unknown", where, named=named)
    return found, None
