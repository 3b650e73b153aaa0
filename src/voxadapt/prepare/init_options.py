"""The options of `init`, checked, and its result."""

import re
from dataclasses import dataclass
from pathlib import Path

from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.problems import problem, user_error
from voxadapt.prepare.import_folder import checked_consent, readable_reference


@dataclass(frozen=True, slots=True)
class InitOptions:
    """Options of `init`; None leaves a value as it was, or as params.yaml has it."""

    audio: Path | None = None
    transcribe: bool = False
    consent: str | None = None
    language: str | None = None  # name of a new language; None: a speaker's voice
    text: Path | None = None
    source_text: Path | None = None
    ref: Path | None = None
    table: Path | None = None  # corrected table, where it is not in its place
    asr: str | None = None  # Whisper checkpoint, or a name
    asr_language: str | None = None  # Whisper's code of the language
    clip_s: tuple[float, float] = (1.0, 20.0)
    window_s: float = 30.0
    sentences: int = 100  # length of the recording script, at most
    speaker_name: str | None = None
    profile: str = "qwen3-tts-0.6b"
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class InitResult:
    """Outcome of `init`."""

    lines: tuple[str, ...]  # what is there now, for people
    missing: tuple[Problem, ...]  # what is still to be done before the stages run, the first first
    left_out: tuple[Problem, ...]  # parts of recordings and sentences that this run could not use
    commands: tuple[str, ...]  # what to run next


def language_name(given: str | None) -> str | None:
    """Return a language's name as params.yaml wants it."""
    if given is None:
        return None
    name = given.strip().lower().replace(" ", "_")
    if not re.fullmatch(r"[a-z][a-z_-]{0,39}", name):
        raise user_error("prepare.language_name", "--language", found=given)
    return name


def check(options: InitOptions) -> None:
    """Refuse options that cannot be used, all of them together."""
    checked_consent(options.consent)
    problems = []
    low_s, high_s = options.clip_s
    if not 0.5 <= low_s < high_s <= 30.0:
        problems.append(problem("prepare.clip_lengths", "--clip-s", low=low_s, high=high_s))
    if options.source_text is not None and options.language is None:
        problems.append(problem("prepare.source_text", "--source-text"))
    for name, path in (("--ref", options.ref), ("--table", options.table)):
        if path is not None and not path.is_file():
            problems.append(problem("prepare.no_file", f"{name} {path}"))
    raise_problems(problems, "Nothing was written.")
    if options.ref is not None:
        readable_reference(options.ref)
