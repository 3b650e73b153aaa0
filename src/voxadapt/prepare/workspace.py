"""Where the data of a project lie, the record of earlier runs, and the project's params.yaml."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import yaml

from voxadapt import __version__
from voxadapt.core.errors import raise_problems
from voxadapt.core.files import (
    json_or_none,
    read_jsonl,
    sha256_bytes,
    sha256_file,
    write_atomic,
    write_json,
)
from voxadapt.core.languages import whisper_language
from voxadapt.core.params import LanguageParams, Params, load_params
from voxadapt.core.problems import problem, user_error
from voxadapt.prepare.import_folder import REF
from voxadapt.prepare.init_options import InitOptions
from voxadapt.prepare.new_project import PROFILES

SCHEMA = "voxadapt-init/1"
RECORD, TABLE, PAGE = "init.json", "transcripts.csv", "transcripts.html"
SCRIPTS = "script"


class ClipRecord(TypedDict):
    """What the record says of a clip: where it comes from, its text, its own transcript."""

    clip: str
    start_s: float
    end_s: float
    text: str
    source: str
    heard: str | None
    listed: bool
    probability: NotRequired[float]


class RecordingRecord(TypedDict):
    """What the record says of a recording."""

    name: str
    stem: str
    text: str | None
    clips: list[ClipRecord]
    left_out: list[dict[str, str]]


ReferenceRecord = TypedDict("ReferenceRecord", {
    "clips": list[str], "why": str, "faults": list[str], "rule": NotRequired[str],
    "text": NotRequired[str], "from": NotRequired[str],
})  # fmt: skip


class InitRecord(TypedDict):
    """The content of `init.json`; recordings by the SHA-256 of their files.

    `written` holds the hashes of files that `init` wrote, so that edited ones are recognised.
    """

    schema: str
    voxadapt: str
    recordings: dict[str, RecordingRecord]
    written: dict[str, list[str]]
    consent: str | None
    asr_language: str | None
    reference: NotRequired[ReferenceRecord | None]


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders and files of a project's data."""

    folder: Path  # the project
    home: Path  # its data folder
    manifest: Path  # what the audit reads
    language: str | None  # name of the new language; None for a speaker's voice

    @property
    def texts(self) -> Path:
        """Texts of the language."""
        return self.home / "text_only.jsonl"

    @property
    def source(self) -> Path:
        """Sentences of the language that the Base knows."""
        return self.home / "source.jsonl"

    @property
    def map(self) -> Path:
        """Respelling map of the language."""
        return self.folder / PROFILES / "respelling" / f"{self.language}.yaml"

    @property
    def scripts(self) -> Path:
        """Pages to read aloud."""
        return self.home / SCRIPTS

    def inside(self, path: Path) -> str:
        """Write a path relative to the project, as params.yaml has it."""
        return path.relative_to(self.folder).as_posix()


def find_workspace(folder: Path, params: Params, language: str | None) -> Workspace:
    """Say where the data go: where params.yaml reads them, or beside."""
    if language is None:
        manifest = folder / params.data.manifest
    elif params.language is not None and params.language.name == language:
        manifest = folder / params.language.audio
    else:
        manifest = folder / "data" / "language" / language / "train_raw.jsonl"
    return Workspace(folder, manifest.parent, manifest, language)


def open_record(workspace: Workspace, options: InitOptions) -> InitRecord:
    """Read what earlier runs have left; refuse files that they did not write."""
    file = workspace.home / RECORD
    record: InitRecord = {
        "schema": SCHEMA,
        "voxadapt": __version__,
        "recordings": {},
        "written": {},
        "consent": None,
        "asr_language": None,
    }
    if file.is_file():
        found = json_or_none(file, SCHEMA)
        if found is None:
            raise user_error("prepare.other_record", file, schema=SCHEMA)
        record = cast(InitRecord, found)
    there = [workspace.home / name for name in (TABLE, PAGE, REF)]
    problems = [problem("prepare.own_file", path) for path in there
                if path.exists() and not file.is_file()]  # fmt: skip
    for path in (workspace.manifest, workspace.texts, workspace.source):
        if path.is_file() and sha256_file(path) not in record["written"].get(path.name, []):
            is_known = path.name in record["written"]
            kind = "prepare.edited_file" if is_known else "prepare.own_file"
            if is_known and path == workspace.manifest:
                kind = "prepare.edited_manifest"
            problems.append(problem(kind, path, table=TABLE))
    raise_problems(problems, "Nothing was written.")
    record["voxadapt"] = __version__
    record["consent"] = options.consent or record.get("consent")
    record["asr_language"] = options.asr_language or record.get("asr_language")
    return record


def write_owned(path: Path, rows: Sequence[Mapping[str, str]], record: InitRecord) -> None:
    """Write a JSONL that a later run recognises as its own, also after a kill between the two."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    data = "".join(lines).encode()
    hashes = record["written"].setdefault(path.name, [])
    before = [sha for sha in hashes if path.is_file() and sha == sha256_file(path)]
    record["written"][path.name] = [*before, sha256_bytes(data)]
    write_json(path.parent / RECORD, record)
    write_atomic(path, data)
    record["written"][path.name] = [sha256_bytes(data)]


def settings_of(workspace: Workspace, params: Params, options: InitOptions) -> dict[str, str]:
    """Return what params.yaml has to say for these data."""
    if workspace.language is None:
        found = {"train.speaker_name": options.speaker_name, "asr.language": options.asr_language}
        return {key: value for key, value in found.items() if value is not None}
    settings = {
        "language.name": workspace.language,
        "language.text": workspace.inside(workspace.texts),
        "language.audio": workspace.inside(workspace.manifest),
        "language.respelling": workspace.inside(workspace.map),
    }
    if options.source_text is not None or workspace.source.is_file():
        settings["language.source.text"] = workspace.inside(workspace.source)
    code = options.asr_language
    if code is None and params.language is not None and params.language.name == workspace.language:
        code = params.language.asr_language
    code = code or whisper_code(workspace.language)
    return settings | ({"language.asr_language": code} if code else {})


def whisper_code(language: str) -> str | None:
    """Return Whisper's code of a language, None where it has none."""
    from whisper.tokenizer import LANGUAGES

    code = whisper_language(language.replace("_", " "))
    return code if code in LANGUAGES else None


def write_settings(workspace: Workspace, params: Params, options: InitOptions) -> None:
    """Write these settings into a params.yaml that nobody has edited yet."""
    path = workspace.folder / "params.yaml"
    pristine = [file.read_bytes() for file in (workspace.folder / PROFILES).glob("*.yaml")]
    settings = settings_of(workspace, params, options)
    if settings and path.read_bytes() in pristine:
        write_atomic(path, with_values(path.read_text(encoding="utf-8"), settings))
        load_params(path)


def with_values(text: str, values: Mapping[str, str]) -> str:
    """Replace values of a params.yaml, comments and order kept.

    The text is YAML of mappings, two blanks a level, one line a value; a dotted key that is not
    there is passed over.
    """
    lines, keys = text.splitlines(), [""] * 8
    for number, line in enumerate(lines):
        found = re.match(r"( *)(\w+):(?:[^#]*)(#.*)?$", line)
        if found is None:
            continue
        depth = len(found[1]) // 2
        keys[depth] = found[2]
        key = ".".join(keys[: depth + 1])
        if key in values:
            value = values[key]
            plain = re.fullmatch(r"[\w./-]+", value) and yaml.safe_load(value) == value
            said = value if plain else json.dumps(value, ensure_ascii=False)
            comment = f" {found[3]}" if found[3] else ""
            lines[number] = f"{found[1]}{found[2]}: {said}{comment}"
    return "\n".join(lines) + "\n"


def section_of(params: Params, workspace: Workspace) -> Params | LanguageParams:
    """Return what has the parameters of the audit that will read these data."""
    return params if workspace.language is None else params.language or params


def texts_of(workspace: Workspace) -> list[str]:
    """Return the texts of the language that were taken in."""
    return [row["text"] for row in read_jsonl(workspace.texts)] if workspace.texts.is_file() else []
