"""Where the data of a project lie, what an earlier run has left there, and its params.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from voxadapt import __version__
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import (
    read_json,
    read_jsonl,
    sha256_bytes,
    sha256_file,
    write_atomic,
    write_json,
)
from voxadapt.core.params import AuditParams, Params, load_params
from voxadapt.prepare.init_options import Wishes
from voxadapt.prepare.new_project import PROFILES

SCHEMA = "voxadapt-init/1"
RECORD, TABLE, PAGE = "init.json", "transcripts.csv", "transcripts.html"
SCRIPTS = "script"


@dataclass(frozen=True, slots=True)
class Room:
    """Where things lie.

    Attributes:
        folder: The project.
        home: Its data folder.
        manifest: What the audit reads.
        language: Name of the new language; None for a speaker's voice.
    """

    folder: Path
    home: Path
    manifest: Path
    language: str | None

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


def find_room(folder: Path, params: Params, language: str | None) -> Room:
    """Say where the data go: where params.yaml reads them, or beside."""
    if language is None:
        manifest = folder / params.data.manifest
    elif params.language is not None and params.language.name == language:
        manifest = folder / params.language.audio
    else:
        manifest = folder / "data" / "language" / language / "train_raw.jsonl"
    return Room(folder, manifest.parent, manifest, language)


def open_record(room: Room, wishes: Wishes) -> dict[str, Any]:
    """Read what earlier runs have left; refuse files that they did not write."""
    record = room.home / RECORD
    state: dict[str, Any] = {"schema": SCHEMA, "recordings": {}, "written": {}}
    if record.is_file():
        try:
            state = read_json(record)
            ours = state["schema"] == SCHEMA
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            fix = "Restore it, or move the folder away and begin again."
            raise UserError(Problem(str(record), f"a record of {SCHEMA}", "another", fix))
    problems = []
    for path in (room.manifest, room.texts, room.source):
        if path.is_file() and sha256_file(path) not in state["written"].get(path.name, []):
            ours = path.name in state["written"]
            fix = (
                f"Corrections belong into {TABLE}; take this file away and repeat."
                if ours and path == room.manifest
                else "Move it away, or name another folder; nothing is overwritten."
            )
            found = "one that was edited" if ours else "a file of your own"
            problems.append(Problem(str(path), "a file that `init` wrote", found, fix))
    if problems:
        raise UserError(problems, "Nothing was written.")
    state["voxadapt"] = __version__
    for key in ("consent", "asr_language"):
        state[key] = getattr(wishes, key) or state.get(key)
    return state


def write_owned(path: Path, rows: Sequence[Mapping[str, Any]], state: dict[str, Any]) -> None:
    """Write a JSONL that a later run recognises as its own, also after a kill between the two."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    data = "".join(lines).encode()
    hashes = state["written"].setdefault(path.name, [])
    before = [sha for sha in hashes if path.is_file() and sha == sha256_file(path)]
    state["written"][path.name] = [*before, sha256_bytes(data)]
    write_json(path.parent / RECORD, state)
    write_atomic(path, data)
    state["written"][path.name] = [sha256_bytes(data)]


def settings_of(room: Room, params: Params, wishes: Wishes) -> dict[str, str]:
    """Return what params.yaml has to say for these data."""
    if room.language is None:
        found = {"train.speaker_name": wishes.speaker_name, "asr.language": wishes.asr_language}
        return {key: value for key, value in found.items() if value is not None}
    settings = {
        "language.name": room.language,
        "language.text": room.inside(room.texts),
        "language.audio": room.inside(room.manifest),
        "language.respelling": room.inside(room.map),
    }
    if wishes.source_text is not None or room.source.is_file():
        settings["language.source.text"] = room.inside(room.source)
    code = wishes.asr_language
    if code is None and params.language is not None and params.language.name == room.language:
        code = params.language.asr_language
    code = code or whisper_code(room.language)
    return settings | ({"language.asr_language": code} if code else {})


def whisper_code(language: str) -> str | None:
    """Return Whisper's code of a language, None where it has none."""
    from whisper.tokenizer import LANGUAGES

    return {name: code for code, name in LANGUAGES.items()}.get(language.replace("_", " "))


def write_settings(room: Room, params: Params, wishes: Wishes) -> None:
    """Write these settings into a params.yaml that nobody has edited yet."""
    path = room.folder / "params.yaml"
    pristine = [file.read_bytes() for file in (room.folder / PROFILES).glob("*.yaml")]
    settings = settings_of(room, params, wishes)
    if settings and path.read_bytes() in pristine:
        write_atomic(path, with_values(path.read_text(encoding="utf-8"), settings))
        load_params(path)


def with_values(text: str, values: Mapping[str, str]) -> str:
    """Replace values of a params.yaml, comments and order kept.

    Args:
        text: YAML of mappings, two blanks a level, one line a value.
        values: By dotted key; one that is not there is passed over.
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


def limits_of(params: Params, room: Room) -> AuditParams:
    """Return the limits of the audit that will read these data."""
    if room.language is not None and params.language is not None:
        return params.language.audit
    return params.audit


def texts_of(room: Room) -> list[str]:
    """Return the texts of the language that were taken in."""
    return [row["text"] for row in read_jsonl(room.texts)] if room.texts.is_file() else []
