"""The folder that an import writes: clips, reference, manifest and the record of it.

It is written under a name that begins with a dot, where a repeated command goes on, and renamed
when it is complete.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from voxadapt import __version__
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import (
    json_or_none,
    read_json,
    sha256_bytes,
    sha256_file,
    write_json,
    write_jsonl,
)
from voxadapt.core.params import AuditParams
from voxadapt.core.problems import problem, user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Record
from voxadapt.data.audio import AudioError, decode, read_mono
from voxadapt.data.manifest import row_problems
from voxadapt.prepare.reference import RULE, Candidate, measure_clip, propose
from voxadapt.prepare.sound import sound_mono, write_sound
from voxadapt.scoring.wording import Sentences

SENTENCES = Sentences(Path(__file__).parent)
SCHEMA = "voxadapt-import/1"
RECORD = "import.json"
MANIFEST = "train_raw.jsonl"
REF = "ref.wav"
PLAN = "plan.json"
MAX_MEASURED = 200  # clips among which the reference is looked for


@dataclass(frozen=True)
class ImportResult:
    """Outcome of an import."""

    sentence: str  # the outcome, for people
    left_out: tuple[Problem, ...]  # one problem for each row that was left out
    record: Mapping[str, object]  # the content of `import.json`


@dataclass(frozen=True)
class ImportedClip:
    """A clip in the folder."""

    where: str  # its row in the source
    audio: str  # path in the folder
    text: str  # transcript
    duration_s: float  # length
    speaker: str | None = None  # who speaks, where several do
    language: str | None = None  # name of its language, where the source names it
    #: Silence that was taken away before and after the speech.
    trimmed_s: tuple[float, float] = (0.0, 0.0)


def begin(
    out: Path, options: Mapping[str, object], consent: str | None, force: bool
) -> tuple[Path, ImportResult | None]:
    """Return the folder to work in; or what an earlier run of the same command has written."""
    if checked_consent(consent) is not None:
        options = {**options, "consent": consent}
    plan = fingerprint([SCHEMA, options])
    if out.resolve() in (Path("/"), Path.cwd()):
        raise user_error("prepare.import_here", f"-o {out}")
    staging = out.with_name(f".{out.name}.importing")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        record = json_or_none(out / RECORD, SCHEMA)
        if record is not None and record.get("plan") == plan and not force:
            problems = tuple(Problem(**item) for item in record["left_out"])
            return staging, ImportResult(f"{out} is there already.", problems, record)
        if record is None or not force:
            kind = "prepare.import_taken" if record is None else "prepare.import_of_other"
            raise user_error(kind, out)
    same = False
    with suppress(OSError, ValueError):
        same = read_json(staging / PLAN) == plan
    if not same:
        for path in staging.glob("*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(staging / PLAN, plan)
    (staging / "clips").mkdir(exist_ok=True)
    return staging, None


def readable_reference(ref: Path) -> Path:
    """Return the user's reference clip if it can be one."""
    low_s, high_s = AuditParams().ref_duration_s
    try:
        samples, rate_hz = decode(ref)
        seconds = len(sound_mono(samples)) / rate_hz
        found = "" if low_s <= seconds <= high_s else f"{seconds:.1f} s"
    except (AudioError, OSError) as error:
        found = str(error)
    if found:
        facts = {"low": low_s, "high": high_s, "found": found}
        raise user_error("prepare.ref_length", f"--ref {ref}", **facts)
    return ref


def choose_references(
    clips: Sequence[ImportedClip], staging: Path, ref: Path | None, left_out: list[Problem]
) -> tuple[list[ImportedClip], list[Record]]:
    """Write a reference for each speaker, the user's or the clearest clip.

    Beside the clips that remain, what the record says of each is returned. Clips of speakers
    without one are left out; one speaker at least has to have one.
    """
    speakers = list(dict.fromkeys(clip.speaker for clip in clips))
    if ref is not None:
        if len(speakers) > 1:
            several = problem("prepare.ref_of_several", "--ref", count=len(speakers))
            raise UserError([several, *left_out])
        write_sound(staging / REF, *read_mono(ref), "WAV", "PCM_16")
        return list(clips), [{"from": ref.name, "rule": "given", "text": None}]
    low_s, high_s = AuditParams().ref_duration_s
    rest: list[ImportedClip] = []
    found: list[Record] = []
    problems: list[Problem] = []
    for speaker in speakers:
        own = [clip for clip in clips if clip.speaker == speaker]
        fit = [clip for clip in own if low_s <= clip.duration_s <= high_s]
        fit = sorted(fit, key=lambda clip: sha256_bytes(clip.audio.encode()))[:MAX_MEASURED]
        proposal = propose(_measured(fit, staging), AuditParams())
        if proposal is None or len(own) < 2:
            told = f"none among {len(own)}" + (f" of {speaker}" if speaker else "")
            facts = {"low": low_s, "high": high_s, "found": told}
            problems += [
                problem("prepare.speaker_without_ref", clip.where, **facts) for clip in own
            ]
            continue
        chosen = next(clip for clip in own if clip.audio in proposal.clips)
        name = reference_name(speaker)
        write_sound(staging / name, *read_mono(staging / chosen.audio), "WAV", "PCM_16")
        rest += [clip for clip in own if clip is not chosen]
        record = {"from": chosen.audio, "rule": RULE, "why": proposal.why, "text": chosen.text}
        found.append(record | ({"speaker": speaker, "file": name} if speaker else {}))
    if not found:
        raise UserError([replace(problems[0], where="the reference"), *left_out])
    left_out += problems
    kept = {clip.audio for clip in rest}
    return [clip for clip in clips if clip.audio in kept], found


def reference_name(speaker: str | None) -> str:
    """Return the path of a speaker's reference in the folder."""
    if speaker is None:
        return REF
    safe = re.sub(r"[^\w-]", "_", speaker)[:40]
    return f"refs/{safe}-{sha256_bytes(speaker.encode())[:6]}.wav"


def _measured(clips: Sequence[ImportedClip], staging: Path) -> list[Candidate]:
    """Measure clips as candidates for the reference; no two of them are neighbours."""
    found = []
    for clip in clips:
        with suppress(AudioError):
            found.append(measure_clip(staging, clip.audio, clip.audio, 0, clip.text))
    return found


def manifest_rows(
    clips: Iterable[ImportedClip], language: str | None, consent: str | None
) -> Iterator[dict[str, str]]:
    """Yield the rows of the manifest, as the audit reads them."""
    for clip in clips:
        row = {"audio": clip.audio, "text": clip.text, "ref_audio": reference_name(clip.speaker)}
        more = {
            "language": language or clip.language, "consent": consent, "speaker": clip.speaker
        }  # fmt: skip
        yield row | {key: value for key, value in more.items() if value is not None}


def checked_consent(consent: str | None) -> str | None:
    """Return what `--consent` says; refuse what no manifest may hold."""
    if consent is not None:
        whole = {"audio": "a", "text": "a", "ref_audio": "a", "consent": consent}
        if problems := row_problems("--consent", whole):
            raise UserError(problems, "Nothing was written.")
    return consent


def finish(
    out: Path,
    staging: Path,
    clips: Sequence[ImportedClip],
    left_out: Sequence[Problem],
    facts: Record,
    references: Sequence[Record],
    language: str | None,
    consent: str | None,
) -> ImportResult:
    """Write manifest and record, and move the folder to its place.

    Every row of the source is a clip, a reference, one of another speaker, or listed.
    """
    num_references = sum(item["rule"] != "given" for item in references)
    given = len(clips) + num_references + facts["num_other_speakers"] + len(left_out)
    assert given == facts["num_rows"], f"{facts['num_rows']} rows, of which {given} are known"
    write_jsonl(staging / MANIFEST, manifest_rows(clips, language, consent))
    kept = {clip.audio for clip in clips}
    for file in (staging / "clips").iterdir():
        if f"clips/{file.name}" not in kept:
            file.unlink()
    minutes = sum(clip.duration_s for clip in clips) / 60.0
    trimmed = [
        {"audio": clip.audio, "before_s": clip.trimmed_s[0], "after_s": clip.trimmed_s[1]}
        for clip in clips
        if any(clip.trimmed_s)
    ]
    record = {
        "schema": SCHEMA,
        "voxadapt": __version__,
        "plan": read_json(staging / PLAN),
        **facts,
        "reference": references[0],
        **({"references": list(references)} if len(references) > 1 else {}),
        **({"trimmed": trimmed} if trimmed else {}),
        "num_imported": len(clips),
        "minutes": round(minutes, 4),
        "num_left_out": len(left_out),
        "left_out": [item.as_dict() for item in left_out],
        "manifest_sha256": sha256_file(staging / MANIFEST),
    }
    write_json(staging / RECORD, record)
    for name in ("unpacked", "converted"):
        shutil.rmtree(staging / name, ignore_errors=True)
    (staging / PLAN).unlink()
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(staging, out)
    shutil.rmtree(old, ignore_errors=True)
    said = SENTENCES.say("imported", out / MANIFEST, record, references, len(trimmed))
    return ImportResult(said, tuple(left_out), record)
