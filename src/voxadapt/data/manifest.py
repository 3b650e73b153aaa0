"""Manifests: the user's JSONL, read strictly, and the accepted utterances after the audit.

Reading never stops at the first problem and never raises for bad content: it returns the rows
that are sound and one problem for everything else, each with file and line.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.files import write_jsonl
from voxadapt.core.languages import model_language
from voxadapt.core.params import speaker_name_problem
from voxadapt.core.problems import problem, user_error
from voxadapt.core.records import Record
from voxadapt.data.audio import AudioError, probe
from voxadapt.data.lines import json_objects, shown
from voxadapt.data.text import has_letter, invisible_controls, is_speakable, special_tokens

REQUIRED = ("audio", "text", "ref_audio")
OPTIONAL = ("language", "consent", "speaker")
ROW = '{"audio": "…", "text": "…", "ref_audio": "…"}'
MAX_TEXT_CHARACTERS = 2000
MAX_DROPPED_SHARE = 0.5  # of rows with errors
MAX_CONSENT_CHARACTERS = 200
MAX_PATH_CHARACTERS = 1024
BASE64 = r"[A-Za-z0-9+/=_\s-]{201,}"


class Utterance(BaseModel):
    """One accepted clip."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Unique name, from the stem of the audio file; safe as a file name.
    id: str = Field(min_length=1)
    audio: str = Field(min_length=1)  # path with forward slashes, relative to the project folder
    text: str = Field(min_length=1)  # exact transcript, as given
    ref_audio: str = Field(min_length=1)  # path of the reference clip, like `audio`
    language: str | None = None  # as given, or None
    duration_s: float = Field(gt=0.0)  # length of the clip
    sample_rate_hz: int = Field(ge=1)  # rate of the file
    audio_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # hash of the file
    split: Literal["train", "selection", "confirmation"]  # train, selection or confirmation
    #: Who speaks, as given; None: `train.speaker_name`. Written where it is given.
    speaker: str | None = None


T = TypeVar("T", bound="Utterance | RawRow")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One sound row of the user's manifest: its files exist and have readable headers."""

    where: str  # file and line, for messages
    line: int  # line number from 1
    id: str  # unique name, from the stem of the audio file; safe as a file name
    audio: str  # path as written
    text: str  # transcript as written
    ref_audio: str  # reference path as written
    #: As the model names it, where its languages are known; else as written, or None.
    language: str | None
    audio_path: Path  # the clip, below the manifest's folder
    ref_path: Path  # the reference clip, below the manifest's folder
    notes: tuple[str, ...] = ()  # what was accepted although it is unusual
    consent: str | None = None  # how the speaker agreed, as written, or None
    speaker: str | None = None  # who speaks, as written, or None


def read_raw_manifest(
    path: str | Path, languages: Collection[str] | None = None
) -> tuple[list[RawRow], list[Problem]]:
    """Read the user's manifest.

    It is JSONL with `audio`, `text`, `ref_audio` and, optionally, `language`, `consent` and
    `speaker` in each line; paths are relative to its folder. A byte order mark, Windows line ends
    and blank lines are accepted and noted on the first row. A row's language must be one of
    `languages`, those of the model, by any name of it.

    Returns:
        The sound rows in file order, and a problem for every other line. A file that cannot be
        read at all gives no row and one problem.
    """
    path = Path(path)
    folder = path.parent
    rows: list[RawRow] = []
    problems: list[Problem] = []
    notes: list[str] = []
    files = ManifestFiles(folder)
    fix = (
        "Prepare one with `voxadapt init`, or correct data.manifest; in the repository, `dvc pull`."
    )
    for number, where, values in json_objects(path, ROW, problems, notes, fix):
        found = row_problems(where, values)
        language = values.get("language")
        if languages is not None and isinstance(language, str):
            known = model_language(language, languages)
            if known is None and not found:
                facts = {"known": ", ".join(sorted(languages)), "found": shown(language)}
                found.append(problem("data.other_language", where, **facts))
            language = known
        problems.extend(found)
        if not all(isinstance(values.get(key), str) for key in REQUIRED):
            continue
        audio_path = files.check(where, "audio", values["audio"], problems)
        ref_path = files.check(where, "ref_audio", values["ref_audio"], problems)
        if audio_path is None or ref_path is None or found:
            continue
        audio, text, ref = (values[key] for key in REQUIRED)
        rows.append(
            RawRow(where, number, "", audio, text, ref, language, audio_path, ref_path, (),
                   values.get("consent"), values.get("speaker"))
        )  # fmt: skip
    rows = _without_repeated_audio(rows, problems)
    for members in by_speaker(rows).values():
        problems.extend(_refuse_second_reference(members))
    problems.extend(_refuse_alike_speakers(rows))
    if not rows and not problems:
        problems.append(problem("data.no_row", path))
    ids = _assign_ids([os.path.relpath(row.audio_path, folder) for row in rows])
    rows = [replace(row, id=name) for row, name in zip(rows, ids, strict=True)]
    if rows and notes:
        rows[0] = replace(rows[0], notes=tuple(notes))
    return rows, sorted(problems, key=lambda item: line_of(item.where))


def line_of(where: str) -> int:
    """Return the line number in `file.jsonl:12`, or 0 for a whole file."""
    tail = where.rsplit(":", 1)[-1]
    return int(tail) if tail.isdigit() else 0


def divide_errors(
    errors: Sequence[Problem], rows: Iterable[str], on_error: Literal["drop", "stop"]
) -> tuple[list[Problem], list[Problem]]:
    """Divide errors into those of single rows, which are left out, and those that stop an audit.

    `rows` are the places of all rows, such as `file.jsonl:12`. Where more than half have errors,
    these concern the corpus as a whole.
    """
    rejected = {item.where for item in errors if line_of(item.where)}
    if on_error == "stop" or len(rejected) > MAX_DROPPED_SHARE * len(rejected.union(rows)):
        return [], list(errors)
    dropped = [item for item in errors if item.where in rejected]
    return dropped, [item for item in errors if item.where not in rejected]


def row_problems(where: str, values: Record) -> list[Problem]:
    """Check one row on its own; its paths are not looked at."""
    known = REQUIRED + OPTIONAL
    problems = [
        problem("data.unknown_key", where, known=", ".join(known), key=shown(key))
        for key in values
        if key not in known
    ]
    problems += [problem("data.missing_key", where, key=k) for k in REQUIRED if k not in values]
    for key, value in values.items():
        nullable = key in OPTIONAL and value is None
        if key in known and not isinstance(value, str) and not nullable:
            found = f"{type(value).__name__} {shown(value, 40)}"
            problems.append(problem("data.no_string", where, key=key, found=found))
    given = {key: value for key, value in values.items() if isinstance(value, str)}
    if "text" in given:
        problems += check_text(where, given["text"])
    language = given.get("language", "any")
    if not re.fullmatch(r"[A-Za-z][A-Za-z _-]{0,39}", language):
        problems.append(problem("data.language_name", where, found=shown(language)))
    consent, limit = given.get("consent", "none"), MAX_CONSENT_CHARACTERS
    if not (consent.strip() and consent.isprintable() and len(consent) <= limit):
        problems.append(problem("data.consent", where, limit=limit, found=shown(consent)))
    if "speaker" in given and (reason := speaker_name_problem(given["speaker"])):
        facts = {"reason": reason, "found": shown(given["speaker"])}
        problems.append(problem("data.speaker_name", where, **facts))
    return problems


def check_text(where: str, text: str) -> list[Problem]:
    """Check a transcript on its own."""
    if not text.strip():
        return [problem("data.empty_text", where)]
    problems = []
    if controls := invisible_controls(text):
        found = ", ".join(dict.fromkeys(controls[:4]))
        problems.append(problem("data.controls", where, found=found))
    if tokens := special_tokens(text):
        problems.append(problem("data.special_tokens", where, found=", ".join(tokens[:4])))
    if not has_letter(text) or not is_speakable(text):
        problems.append(problem("data.no_letter", where, found=shown(text, 40)))
    if len(text) > MAX_TEXT_CHARACTERS:
        facts = {"limit": MAX_TEXT_CHARACTERS, "count": len(text)}
        problems.append(problem("data.long_text", where, **facts))
    return problems


class ManifestFiles:
    """Checks the paths of one manifest; a path that many rows share is checked once.

    Paths begin in a folder that they do not leave; `any_format` lets files through that libsndfile
    cannot read.
    """

    def __init__(self, folder: Path, any_format: bool = False) -> None:
        self.folder, self.any_format = folder, any_format
        self.root = Path(os.path.realpath(folder))
        # DVC may place data as links into its own cache; those stay readable.
        self.dvc_caches = [
            Path(os.path.realpath(parent / ".dvc" / "cache"))
            for parent in (self.root, *self.root.parents)
            if (parent / ".dvc" / "cache").is_dir()
        ]
        self._seen: dict[tuple[str, str], tuple[Path | None, Problem | None]] = {}

    def check(self, where: str, key: str, text: str, problems: list[Problem]) -> Path | None:
        """Return the file that a path names, or None after noting what is wrong with it."""
        if (key, text) not in self._seen:
            self._seen[key, text] = self._look(where, key, text)
        path, wrong = self._seen[key, text]
        if wrong is not None:
            problems.append(replace(wrong, where=where))
        return path

    def _refuse(
        self, kind: str, where: str, key: str, text: str, **facts: object
    ) -> tuple[None, Problem]:
        folder = self.folder.as_posix() or "."
        return None, problem(kind, where, key=key, path=shown(text), folder=folder, **facts)

    def place(self, where: str, key: str, text: str) -> tuple[Path | None, Problem | None]:
        """Return where a path leads, whether or not a file is there, or what is wrong with it."""
        refuse = partial(self._refuse, where=where, key=key, text=text)
        if not text.strip():
            return refuse("data.path_empty")
        if text.lower().startswith("data:") or re.fullmatch(BASE64, text):
            return refuse("data.path_base64")
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
            return refuse("data.path_address")
        if invisible_controls(text) or len(text) > MAX_PATH_CHARACTERS:
            return refuse("data.path_impossible")
        if text.startswith(("/", "\\", "~")) or PureWindowsPath(text).drive:
            return refuse("data.path_absolute")
        if "\\" in text:
            return refuse("data.path_backslash")
        if ".." in PurePosixPath(text).parts:
            return refuse("data.path_leaves")
        path = self.folder / text
        try:
            real = Path(os.path.realpath(path))
        except (OSError, ValueError) as error:
            return refuse("data.path_refused", error=error)
        if not any(real.is_relative_to(home) for home in (self.root, *self.dvc_caches)):
            return refuse("data.link_leaves")
        return path, None

    def _look(self, where: str, key: str, text: str) -> tuple[Path | None, Problem | None]:
        """Return the file that a path names, or what is wrong with the path or the file."""
        refuse = partial(self._refuse, where=where, key=key, text=text)
        path, wrong = self.place(where, key, text)
        if path is None:
            return None, wrong
        try:
            if not os.path.lexists(path):
                for form in ("NFC", "NFD"):
                    if os.path.lexists(self.folder / unicodedata.normalize(form, text)):
                        return refuse("data.file_accents", form=form)
                there = Path(text).is_file()
                return refuse("data.file_elsewhere" if there else "data.no_file")
            real = Path(os.path.realpath(path))
            if not real.exists():
                return refuse("data.dead_link")
            if not real.is_file():
                return refuse("data.not_a_file")
            if real.stat().st_size == 0:
                return refuse("data.empty_file")
            if not self.any_format:
                probe(path)
        except AudioError as error:
            return refuse("data.no_audio", error=error)
        except (OSError, ValueError) as error:
            return refuse("data.unreadable_file", error=error)
        return path, None


def _without_repeated_audio(rows: list[RawRow], problems: list[Problem]) -> list[RawRow]:
    """Keep the first row of each audio file; the others become problems."""
    first: dict[str, RawRow] = {}
    for row in rows:
        same = first.setdefault(os.path.realpath(row.audio_path), row)
        if same is not row:
            facts = {"audio": shown(row.audio), "line": same.line}
            problems.append(problem("data.repeated_audio", row.where, **facts))
    return list(first.values())


def _refuse_second_reference(rows: Sequence[RawRow]) -> list[Problem]:
    """Report rows whose reference differs from the most common one (the first, on a tie)."""
    names = [os.path.realpath(row.ref_path) for row in rows]
    [(most, _)] = Counter(names).most_common(1)
    usual = shown(rows[names.index(most)].ref_audio, 40)
    others = [row for row, name in zip(rows, names, strict=True) if name != most]
    return [
        problem("data.second_reference", row.where, usual=usual, found=shown(row.ref_audio, 40))
        for row in others
    ]


def by_speaker(rows: Iterable[T]) -> dict[str | None, list[T]]:
    """Group rows by who speaks, in the order of their first rows; None: rows that do not say."""
    groups: dict[str | None, list[T]] = {}
    for row in rows:
        groups.setdefault(row.speaker, []).append(row)
    return groups


def _refuse_alike_speakers(rows: Sequence[RawRow]) -> list[Problem]:
    """Report speakers whose names differ in case alone, and those that share a reference."""
    problems: list[Problem] = []
    names: dict[str, str] = {}
    references: dict[str, str | None] = {}
    for speaker, members in by_speaker(rows).items():
        row = members[0]
        known = names.setdefault((speaker or "").lower(), speaker or "")
        if speaker is not None and known != speaker:
            facts = {"known": known, "speaker": speaker}
            problems.append(problem("data.speaker_case", row.where, **facts))
        other = references.setdefault(os.path.realpath(row.ref_path), speaker)
        if other != speaker:
            whose = "rows without a speaker" if other is None else f"the speaker {other!r}"
            facts = {"ref": shown(row.ref_audio, 40), "whose": whose}
            problems.append(problem("data.shared_reference", row.where, **facts))
    return problems


def _assign_ids(relative_paths: Sequence[str]) -> list[str]:
    """Name clips by their stem, by their whole path where stems collide.

    Names are compared without case, because some file systems do. A name depends only on the
    paths in the manifest, not on their order.
    """
    posix = [PurePosixPath(Path(name).as_posix()) for name in relative_paths]
    stems = [_safe(name.stem) for name in posix]
    longer = [_safe("__".join(name.parts)) for name in posix]
    stem_counts = Counter(name.casefold() for name in stems)
    longer_counts = Counter(name.casefold() for name in longer)
    names = []
    for name, stem, long in zip(posix, stems, longer, strict=True):
        if stem_counts[stem.casefold()] == 1 and not stem.startswith("_"):
            names.append(stem)
        elif longer_counts[long.casefold()] == 1 and long.casefold() not in stem_counts:
            names.append(long)
        else:
            names.append(f"{long}.{hashlib.sha256(name.as_posix().encode()).hexdigest()[:12]}")
    return names


def _safe(name: str) -> str:
    """Make a name safe as a file name and as a key of a safetensors file."""
    return re.sub(r"[^\w.-]", "_", name)[:100].strip(".") or "_"


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write accepted utterances, sorted by id, one JSON object a line."""
    rows = [
        u.model_dump(exclude={"speaker"} if u.speaker is None else None)
        for u in sorted(utterances, key=lambda u: u.id)
    ]
    write_jsonl(path, rows)


def read_manifest(path: str | Path) -> list[Utterance]:
    """Read the manifest that the audit wrote; raises `UserError` where it holds something else."""
    path = Path(path)
    utterances, problems = [], []
    try:
        with open(path, encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    utterances.append(Utterance.model_validate_json(line))
                except ValidationError as error:
                    where = f"{path.name}:{number}"
                    problems.append(problem("data.no_utterance", where, found=error))
    except (OSError, UnicodeDecodeError) as error:
        raise user_error("data.no_manifest", path, error=error) from None
    for name, count in Counter(u.id for u in utterances).items():
        if count > 1:
            problems.append(problem("data.repeated_id", path, name=name, count=count))
    raise_problems(problems, f"{path} cannot be used.")
    return utterances
