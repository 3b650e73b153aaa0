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
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import write_jsonl
from voxadapt.core.languages import model_language
from voxadapt.core.params import speaker_name_problem
from voxadapt.core.records import Record
from voxadapt.data.audio import AudioError, probe
from voxadapt.data.lines import json_objects, shown
from voxadapt.data.text import has_letter, invisible_controls, is_speakable, special_tokens

REQUIRED = ("audio", "text", "ref_audio")
OPTIONAL = ("language", "consent", "speaker")
ROW = '{"audio": "…", "text": "…", "ref_audio": "…"}'
MAX_TEXT_CHARACTERS = 2000
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
    try:
        for number, where, values in json_objects(path, ROW, problems, notes):
            found = row_problems(where, values)
            language = values.get("language")
            if languages is not None and isinstance(language, str):
                known = model_language(language, languages)
                if known is None and not found:
                    fix = "Write one of them, or drop the key; new ones go with `voxadapt init`."
                    expected = f"a language of the model: {', '.join(sorted(languages))}"
                    found.append(Problem(where, expected, shown(language), fix))
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
    except OSError as error:
        fix = "Check data.manifest in params.yaml; `dvc pull` restores the embedded data."
        found_text = f"nothing that can be read ({error.strerror or error})"
        return [], [Problem(str(path), "a JSONL file", found_text, fix)]
    rows, repeated = _refuse_repeated_audio(rows)
    problems.extend(repeated)
    for members in by_speaker(rows).values():
        problems.extend(_refuse_second_reference(members))
    problems.extend(_refuse_alike_speakers(rows))
    if not rows and not problems:
        fix = 'Give one {"audio": …, "text": …, "ref_audio": …} a line.'
        problems.append(Problem(str(path), "at least one row", "an empty file", fix))
    ids = _assign_ids([os.path.relpath(row.audio_path, folder) for row in rows])
    rows = [replace(row, id=name) for row, name in zip(rows, ids, strict=True)]
    if rows and notes:
        rows[0] = replace(rows[0], notes=tuple(notes))
    return rows, sorted(problems, key=lambda problem: line_of(problem.where))


def line_of(where: str) -> int:
    """Return the line number in `file.jsonl:12`, or 0 for a whole file."""
    tail = where.rsplit(":", 1)[-1]
    return int(tail) if tail.isdigit() else 0


def row_problems(where: str, values: Record) -> list[Problem]:
    """Check one row on its own; its paths are not looked at."""
    problems = []
    for key in values:
        if key not in REQUIRED + OPTIONAL:
            expected = f"only {', '.join(REQUIRED + OPTIONAL)}"
            found, fix = f"unknown key {shown(key)}", "Check the spelling, or drop it."
            problems.append(Problem(where, expected, found, fix))
    problems += [
        Problem(where, f"a key {key}", "none", f"Add {key}.")
        for key in REQUIRED
        if key not in values
    ]
    for key, value in values.items():
        nullable = key in OPTIONAL and value is None
        if key in REQUIRED + OPTIONAL and not isinstance(value, str) and not nullable:
            found = f"{type(value).__name__} {shown(value, 40)}"
            problems.append(Problem(where, f"{key} as a string", found, "Put it in quotes."))
    if isinstance(values.get("text"), str):
        problems.extend(check_text(where, values["text"]))
    if isinstance(values.get("language"), str):
        language = values["language"]
        if not re.fullmatch(r"[A-Za-z][A-Za-z _-]{0,39}", language):
            fix = "Name a language such as english or malay, or drop the key."
            problems.append(Problem(where, "a language name", shown(language), fix))
    if isinstance(values.get("consent"), str):
        consent = values["consent"]
        fits = len(consent) <= MAX_CONSENT_CHARACTERS
        if not (consent.strip() and consent.isprintable() and fits):
            fix = "Say who agreed to what, when, and who holds the record; or drop the key."
            limit = f"consent in 1 to {MAX_CONSENT_CHARACTERS} printable characters"
            problems.append(Problem(where, limit, shown(consent), fix))
    if isinstance(values.get("speaker"), str):
        if reason := speaker_name_problem(values["speaker"]):
            fix = "Give the name by which the model is to be asked for this voice, or drop the key."
            expected = f"a speaker's name, which {reason}"
            problems.append(Problem(where, expected, shown(values["speaker"]), fix))
    return problems


def check_text(where: str, text: str) -> list[Problem]:
    """Check a transcript on its own."""
    if not text.strip():
        return [
            Problem(where, "a transcript", "empty text", "Write what is said, or drop the row.")
        ]
    problems = []
    if controls := invisible_controls(text):
        fix = "Replace them by blanks."
        found = ", ".join(dict.fromkeys(controls[:4]))
        problems.append(Problem(where, "text without control characters", found, fix))
    if tokens := special_tokens(text):
        fix = "Remove them; a model takes them for control."
        problems.append(Problem(where, "text without special tokens", ", ".join(tokens[:4]), fix))
    if not has_letter(text) or not is_speakable(text):
        fix = "Write what is said in words; numbers too."
        problems.append(Problem(where, "text with at least one letter", shown(text, 40), fix))
    if len(text) > MAX_TEXT_CHARACTERS:
        fix = "Give one sentence a clip."
        limit = f"text of at most {MAX_TEXT_CHARACTERS} characters"
        problems.append(Problem(where, limit, f"{len(text)} characters", fix))
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
        path, problem = self._seen[key, text]
        if problem is not None:
            problems.append(replace(problem, where=where))
        return path

    def place(self, where: str, key: str, text: str) -> tuple[Path | None, Problem | None]:
        """Return where a path leads, whether or not a file is there, or what is wrong with it."""

        def refuse(expected: str, found: str, fix: str) -> tuple[None, Problem]:
            return None, Problem(where, f"{key}: {expected}", found, fix)

        inside = f"a path below {self.folder.as_posix() or '.'}/"
        copy = "Copy the file there and give its relative path."
        if not text.strip():
            return refuse(inside, "an empty path", "Give the path of a file.")
        if text.lower().startswith("data:") or re.fullmatch(BASE64, text):
            return refuse(inside, "embedded base64 audio", "Write it to a file; give its path.")
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
            return refuse(inside, f"the address {shown(text)}", "Download it and give its path.")
        if invisible_controls(text) or len(text) > MAX_PATH_CHARACTERS:
            return refuse(inside, f"a path that cannot exist: {shown(text)}", "Rename the file.")
        windows = PureWindowsPath(text)
        if text.startswith(("/", "\\", "~")) or windows.drive:
            return refuse(inside, f"the absolute path {shown(text)}", copy)
        if "\\" in text:
            return refuse("forward slashes", shown(text), "Write / instead of \\.")
        if ".." in PurePosixPath(text).parts:
            return refuse(inside, f"{shown(text)}, which leaves the folder", copy)
        path = self.folder / text
        try:
            real = Path(os.path.realpath(path))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return refuse("a path", f"{shown(text)}: {reason}", "Rename the file.")
        if not any(real.is_relative_to(home) for home in (self.root, *self.dvc_caches)):
            return refuse(inside, f"{shown(text)}, a link that leaves the folder", copy)
        return path, None

    def _look(self, where: str, key: str, text: str) -> tuple[Path | None, Problem | None]:
        def refuse(expected: str, found: str, fix: str) -> tuple[None, Problem]:
            return None, Problem(where, f"{key}: {expected}", found, fix)

        path, problem = self.place(where, key, text)
        if path is None:
            return None, problem
        try:
            if not os.path.lexists(path):
                elsewhere = Path(text)
                hint = "Check the name; paths are relative to the manifest's folder."
                if elsewhere.is_file():
                    hint = (
                        "It exists relative to the working folder; paths here are relative to "
                        "the manifest's folder: move the manifest, or change the path."
                    )
                for form in ("NFC", "NFD"):
                    if os.path.lexists(self.folder / unicodedata.normalize(form, text)):
                        hint = (
                            f"A file of that name is there, with its accents in {form}: write the "
                            "name as the file system has it, or rename the file."
                        )
                return refuse("an existing file", f"no file {shown(text)}", hint)
            real = Path(os.path.realpath(path))
            if not real.exists():
                fix = "Restore its target, or copy the file."
                return refuse("an existing file", f"{shown(text)}, a link to nothing", fix)
            if not real.is_file():
                return refuse("a file", f"{shown(text)}, which is none", "Name an audio file.")
            if real.stat().st_size == 0:
                return refuse("audio", f"{shown(text)}, a file of 0 bytes", "Replace the file.")
            if not self.any_format:
                probe(path)
        except AudioError as error:
            fix = "Replace it by a WAV or FLAC file that plays."
            return refuse("audio that can be read", f"{shown(text)}: {error}", fix)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return refuse("a readable file", f"{shown(text)}: {reason}", "Check its permissions.")
        return path, None


def _refuse_repeated_audio(rows: list[RawRow]) -> tuple[list[RawRow], list[Problem]]:
    """Keep the first row of each audio file."""
    first: dict[str, RawRow] = {}
    kept, problems = [], []
    for row in rows:
        name = os.path.realpath(row.audio_path)
        if name in first:
            found = f"{shown(row.audio)} again (first in line {first[name].line})"
            problems.append(Problem(row.where, "each clip once", found, "Drop one of the rows."))
        else:
            first[name] = row
            kept.append(row)
    return kept, problems


def _refuse_second_reference(rows: Sequence[RawRow]) -> list[Problem]:
    """Report rows whose reference differs from the most common one (the first, on a tie)."""
    names = [os.path.realpath(row.ref_path) for row in rows]
    if len(set(names)) < 2:
        return []
    counts = Counter(names)
    usual = max(counts, key=lambda name: counts[name])
    expected = f"the same ref_audio in every row ({shown(rows[names.index(usual)].ref_audio, 40)})"
    fix = "Use one reference: the voice becomes unstable otherwise."
    others = [row for row, name in zip(rows, names, strict=True) if name != usual]
    return [Problem(row.where, expected, shown(row.ref_audio, 40), fix) for row in others]


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
            fix = "Write it alike in every row: the model knows a speaker in lower case."
            problems.append(Problem(row.where, f"the speaker {known!r}", repr(speaker), fix))
        other = references.setdefault(os.path.realpath(row.ref_path), speaker)
        if other != speaker:
            whose = "rows without a speaker" if other is None else f"the speaker {other!r}"
            fix = "Give each speaker a clip of its own voice: it decides how the model hears it."
            found = f"{shown(row.ref_audio, 40)}, that of {whose}"
            problems.append(Problem(row.where, "a ref_audio of this speaker's own", found, fix))
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
    """Read the accepted manifest that the audit wrote.

    Raises:
        UserError: When it is absent, or does not hold what the audit writes.
    """
    path = Path(path)
    fix = "Run `voxadapt audit` (or `dvc repro audit`)."
    utterances, problems = [], []
    try:
        with open(path, encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    utterances.append(Utterance.model_validate_json(line))
                except ValidationError as error:
                    item = error.errors()[0]
                    found = f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
                    problems.append(Problem(f"{path.name}:{number}", "an utterance", found, fix))
    except (OSError, UnicodeDecodeError) as error:
        found = "nothing" if isinstance(error, FileNotFoundError) else str(error)
        raise UserError.of(path, "the accepted manifest", found, fix) from None
    for name, count in Counter(u.id for u in utterances).items():
        if count > 1:
            problems.append(Problem(str(path), "unique ids", f"{name} {count} times", fix))
    raise_problems(problems, f"{path} cannot be used.")
    return utterances
