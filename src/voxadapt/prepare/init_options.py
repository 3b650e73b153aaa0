"""What the user asks of `init`, read and checked; and what it says when it is done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from voxadapt.core.errors import Problem, UserError
from voxadapt.data.manifest import check_text
from voxadapt.data.text import fold_text, has_digit, has_markup
from voxadapt.data.texts import read_texts
from voxadapt.prepare.folder import checked_consent, readable_reference
from voxadapt.prepare.segment import COMMENT


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asks of `init`; None leaves it as it was, or as params.yaml has it.

    Attributes:
        audio: Folder of recordings, or one recording.
        transcribe: Whether Whisper hears the clips: drafts where there is no text, and checks.
        consent: How the speaker agreed; for each row.
        language: Name of a new language; None: a speaker's voice.
        text: Sentences, one a line, or a JSONL with `text`.
        source_text: The same in the language that the Base knows, to see what is forgotten.
        ref: Reference clip.
        table: Corrected table, where it is not in its place.
        asr: Whisper checkpoint, or a name.
        asr_language: Whisper's code of the language.
        clip_s: Shortest and longest clip.
        window_s: What Whisper hears at once.
        sentences: How many the recording script has at most.
        speaker_name: What the speaker is called.
        profile: Model that a new project begins with.
        device: auto, cpu, cuda or cuda:N.
    """

    audio: Path | None = None
    transcribe: bool = False
    consent: str | None = None
    language: str | None = None
    text: Path | None = None
    source_text: Path | None = None
    ref: Path | None = None
    table: Path | None = None
    asr: str | None = None
    asr_language: str | None = None
    clip_s: tuple[float, float] = (1.0, 20.0)
    window_s: float = 30.0
    sentences: int = 100
    speaker_name: str | None = None
    profile: str = "qwen3-tts-0.6b"
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Begun:
    """What `init` says when it is done.

    Attributes:
        lines: What is there now, for people.
        missing: What is still to be done before the stages run, the first first.
        left_out: Parts of recordings and sentences that this run could not use.
        commands: What to run next.
    """

    lines: tuple[str, ...]
    missing: tuple[Problem, ...]
    left_out: tuple[Problem, ...]
    commands: tuple[str, ...]


def language_name(given: str | None) -> str | None:
    """Return a language's name as params.yaml wants it."""
    if given is None:
        return None
    name = given.strip().lower().replace(" ", "_")
    if not re.fullmatch(r"[a-z][a-z_-]{0,39}", name):
        fix = "Write it in the letters a to z, such as Malay."
        raise UserError(Problem("--language", "a name in Latin letters", given, fix))
    return name


def check(wishes: Wishes) -> None:
    """Refuse options that cannot be meant, all of them together."""
    checked_consent(wishes.consent)
    problems = []
    low_s, high_s = wishes.clip_s
    if not 0.5 <= low_s < high_s <= 30.0:
        expected = "0.5 <= shortest < longest <= 30"
        problems.append(Problem("--clip-s", expected, f"{low_s:g} {high_s:g}", "Correct it."))
    if wishes.source_text is not None and wishes.language is None:
        fix = "Name the --language, or leave --source-text out."
        problems.append(Problem("--source-text", "together with --language", "a voice", fix))
    for option, path in (("--ref", wishes.ref), ("--table", wishes.table)):
        if path is not None and not path.is_file():
            problems.append(Problem(f"{option} {path}", "a file", "none", "Correct the path."))
    if problems:
        raise UserError(problems, "Nothing was written.")
    if wishes.ref is not None:
        readable_reference(wishes.ref)


def usable_texts(path: Path) -> tuple[list[str], list[Problem]]:
    """Return the sentences of a file, each once, and what is wrong with the other lines."""
    if path.suffix == ".jsonl":
        found = [(line.where, line.text) for line in read_texts(path, any_field=True)]
    else:
        try:
            content = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "bytes of another encoding"
            fix = "Give plain text in UTF-8, one sentence a line."
            raise UserError(Problem(str(path), "text in UTF-8", str(reason), fix)) from None
        numbered = enumerate(content.splitlines(), start=1)
        found = [(f"{path.name}:{number}", " ".join(line.split())) for number, line in numbered]
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for where, text in found:
        if not text or text.startswith(COMMENT):
            continue
        told = check_text(where, text)
        if not told and has_markup(text):
            told = [Problem(where, "plain text", "tags or entities", "Keep what is said.")]
        if not told and has_digit(text):
            told = [Problem(where, "numbers in words", "digits", "Write them as they are read.")]
        problems += told[:1]
        if not told:
            texts.setdefault(fold_text(text), text)
    if not texts:
        raise UserError(problems or Problem(str(path), "sentences", "none", "One a line."))
    return list(texts.values()), problems
