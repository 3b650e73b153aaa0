"""Manifests of clips that any system spoke: read strictly, but a missing clip is no error.

A clip that is not there failed, and a failed clip stays in every denominator. What is refused is
what would make figures wrong: unreadable rows, paths that leave the folder, one clip twice, one
name for two sentences.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.languages import whisper_language
from voxadapt.core.problems import problem, user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Record
from voxadapt.data.lines import json_objects, shown
from voxadapt.data.manifest import MAX_TEXT_CHARACTERS, ManifestFiles
from voxadapt.data.text import fold_text, invisible_controls, is_speakable, special_tokens

ROW = '{"audio": "…", "text": "…"} and perhaps id, system, take, reference, language'
KEYS = ("audio", "text", "id", "system", "take", "reference", "language")
VOICE, VOICE_KEYS = '{"audio": "…", "speaker": "…"}', {"audio", "text", "speaker"}
SYSTEM = "system"  # of a manifest that names none
RESERVED = ("real", "codec")
MAX_NAME_CHARACTERS = 80
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")


@dataclass(frozen=True, slots=True)
class SpokenClip:
    """One row: who said what, and where it lies."""

    system: str  # who spoke
    text_id: str  # names the sentence; the same in two systems means the same sentence
    take: int  # 0, 1, 2 … of this system and sentence
    text: str  # what should be said
    audio: str  # path as written, relative to the manifest's folder
    exists: bool  # whether a file is there
    references: tuple[Path, ...]  # recordings of the speaker that this clip should sound like
    language: str | None = None  # Whisper's code of its language, where the row has one


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording of the real speaker."""

    path: Path  # the file
    text: str | None  # what is said, None when it is unknown


def read_clips(path: str | Path, languages: Collection[str] | None = None) -> list[SpokenClip]:
    """Read a manifest of clips.

    It is JSONL; in each line `audio` and `text`, optionally `id` (of the sentence; default: by its
    text), `system`, `take` (default: counted), `reference`, one path or several, and `language`, of
    those that the recogniser knows. Paths are relative to the file's folder and stay below it.

    Raises:
        UserError: With one problem for each row that cannot be used.
    """
    path = Path(path)
    files = ManifestFiles(path.parent)
    problems: list[Problem] = []
    clips: list[SpokenClip] = []
    taken: Counter[tuple[str, str]] = Counter()
    texts: dict[str, str] = {}
    first_in: dict[tuple[str, ...], str] = {}
    for _, where, values in json_objects(path, ROW, problems):
        found = _row_problems(where, values, languages)
        if found:
            problems += found
            continue
        place, wrong = files.place(where, "audio", values["audio"])
        given = values.get("reference") or []
        given = [given] if isinstance(given, str) else given
        wanted = [files.check(where, "reference", item, problems) for item in given]
        if place is None:
            problems += [wrong] if wrong else []
            continue
        if None in wanted:
            continue
        system, text = values.get("system") or SYSTEM, values["text"]
        text_id = values.get("id") or f"text-{fingerprint(fold_text(text), 10)}"
        take = values.get("take")
        if take is None:
            take = taken[system, text_id]
        taken[system, text_id] += 1
        if texts.setdefault(text_id, text) != text:
            facts = {"text_id": text_id, "text": shown(texts[text_id]), "found": shown(text)}
            problems.append(problem("data.other_text", where, **facts))
        for key, what in (
            (("take", system, text_id, str(take)), f"take {take} of {text_id} once"),
            (("audio", system, str(place)), "each clip once"),
        ):
            if first_in.setdefault(key, where) != where:
                facts = {"what": what, "first": first_in[key]}
                problems.append(problem("data.clip_again", where, **facts))
        clips.append(
            SpokenClip(system, text_id, take, text, values["audio"], place.is_file(),
                       tuple(item for item in wanted if item is not None),
                       whisper_language(values["language"]) if values.get("language") else None)
        )  # fmt: skip
    if not clips and not problems:
        problems.append(problem("data.no_clip", path, shape=ROW))
    raise_problems(problems, f"{path} cannot be used.")
    return clips


def read_recordings(path: str | Path) -> list[Recording]:
    """Read recordings of the real speaker.

    They are a folder of audio files, or a JSONL with `audio` and, optionally, `text` in each line
    (other keys are let through, so that a corpus' manifest will do).

    Raises:
        UserError: When there are none, or with one problem for each row that cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        found = [
            Recording(file, None)
            for file in sorted(path.iterdir())
            if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file()
        ]
        if not found:
            raise user_error("data.no_recordings", path, suffixes=", ".join(AUDIO_SUFFIXES))
        return found
    files = ManifestFiles(path.parent)
    problems: list[Problem] = []
    recordings = []
    for _, where, values in json_objects(path, ROW, problems):
        audio, text = values.get("audio"), values.get("text")
        if not isinstance(audio, str) or not (text is None or isinstance(text, str)):
            problems.append(problem("data.recording_row", where))
            continue
        place = files.check(where, "audio", audio, problems)
        if place is not None:
            recordings.append(Recording(place, text if text and is_speakable(text) else None))
    if not recordings and not problems:
        problems.append(problem("data.no_recording_row", path))
    raise_problems(problems, f"{path} cannot be used.")
    return recordings


def read_other_voices(path: str | Path) -> dict[str, list[Path]]:
    """Read a JSONL of other voices; raises `UserError` with a problem for each wrong row."""
    path = Path(path)
    files = ManifestFiles(path.parent)
    voices: dict[str, list[Path]] = {}
    problems: list[Problem] = []
    fix = "Check the path, or set data.other_voices: null."
    for _, where, row in json_objects(path, VOICE, problems, fix=fix):
        if not {"audio", "speaker"} <= set(row) <= VOICE_KEYS:
            found = shown(", ".join(map(str, row)) or "no key")
            problems.append(problem("data.voice_keys", where, found=found))
        elif not isinstance(row["audio"], str) or not isinstance(row["speaker"], str):
            problems.append(problem("data.voice_strings", where, found=shown(row)))
        elif (audio := files.check(where, "audio", row["audio"], problems)) is not None:
            voices.setdefault(row["speaker"], []).append(audio.resolve())
    raise_problems(problems, f"{path} cannot be used.")
    return voices


def _row_problems(where: str, values: Record, languages: Collection[str] | None) -> list[Problem]:
    """Check the keys and types of one row, and that its text can be spoken."""
    problems = [
        problem("data.clip_key", where, known=", ".join(KEYS), key=shown(key))
        for key in values
        if key not in KEYS
    ]

    def wrong(key: str, expected: str) -> None:
        found = shown(values[key], 40) if key in values else "nothing"
        problems.append(problem("data.clip_row", where, key=key, expected=expected, found=found))

    for key in ("audio", "text"):
        if not isinstance(values.get(key), str):
            wrong(key, "a string")
    for key in ("id", "system"):
        name = values.get(key)
        if name is not None and not (
            isinstance(name, str)
            and name.strip() == name != ""
            and name.isprintable()
            and len(name) <= MAX_NAME_CHARACTERS
        ):
            wrong(key, f"a name of at most {MAX_NAME_CHARACTERS} printable characters")
    if values.get("system") in RESERVED:
        wrong("system", f"another name than {' or '.join(RESERVED)}")
    take = values.get("take")
    if take is not None and (not isinstance(take, int) or isinstance(take, bool) or take < 0):
        wrong("take", "0, 1, 2 …")
    reference = values.get("reference")
    listed = [reference] if isinstance(reference, str) else reference
    if reference is not None and not (
        isinstance(listed, list) and listed and all(isinstance(item, str) for item in listed)
    ):
        wrong("reference", "a path, or a list of paths")
    language = values.get("language")
    if language is not None and not (
        isinstance(language, str) and (languages is None or whisper_language(language) in languages)
    ):
        wrong("language", "a name or code that Whisper knows")
    text = values.get("text")
    if isinstance(text, str):
        if not is_speakable(text):
            wrong("text", "letters or digits")
        elif invisible_controls(text) or len(text) > MAX_TEXT_CHARACTERS:
            wrong("text", f"at most {MAX_TEXT_CHARACTERS} characters without control characters")
        elif special_tokens(text):
            wrong("text", "text without special tokens")
    return problems
