"""Clips and their texts: cut once, transcribed once, joined with the table that is corrected."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.files import sha256_file, write_json
from voxadapt.core.problems import problem
from voxadapt.core.progress import Progress
from voxadapt.data.audio import AudioError, probe
from voxadapt.data.audit import disagreement
from voxadapt.data.manifest import check_text
from voxadapt.data.text import fold_text
from voxadapt.prepare.import_folder import REF
from voxadapt.prepare.init_options import InitOptions
from voxadapt.prepare.segment import EDGE_S, Segment, cut, join_phrases, speech_of
from voxadapt.prepare.sound import convert, cut_clip, needs_ffmpeg
from voxadapt.prepare.sources import find_recordings, lines_beside
from voxadapt.prepare.transcribe import CACHE, LazyTranscriber
from voxadapt.prepare.transcript_table import Entry, Use, read_table
from voxadapt.prepare.workspace import RECORD, TABLE, ClipRecord, InitRecord, Workspace

DRAFT, GIVEN, DIVIDED, NO_TEXT = "Whisper", "text file", "text file, divided", "none"
MAX_DISAGREEMENT = 0.15  # character error of the clip's own transcript against its text
MAX_PAIRING_ERROR = 0.6  # of a given text: the clip says something else
MAX_CHARACTERS_PER_S = 30  # nobody speaks faster: bounds a transcript where there is no text


@dataclass(slots=True)
class ClipRow:
    """A clip as the record and the corrected table have it."""

    clip: ClipRecord  # what the record says of it
    text: str  # transcript; may be empty
    checked: bool  # whether somebody has read it
    use: Use  # whether it is taken, left out, or (part of) the reference
    extra: Mapping[str, str]  # columns of the user's own
    #: Character error of Whisper's transcript of the clip; None where there is none.
    error: float | None
    remarks: list[str] = field(default_factory=list)  # for the table
    is_refused: bool = False  # whether the audit finds an error

    @property
    def name(self) -> str:
        """Path of the clip in the data folder."""
        return self.clip["clip"]

    @property
    def length_s(self) -> float:
        """Length of the clip."""
        return self.clip["end_s"] - self.clip["start_s"]

    @property
    def disagrees(self) -> bool:
        """Whether Whisper's transcript of the clip differs from its text."""
        return self.error is not None and self.error > MAX_DISAGREEMENT

    @property
    def is_sure(self) -> bool:
        """Whether the text was checked, given for this clip, or confirmed by Whisper."""
        confirmed = self.error is not None and not self.disagrees
        source = self.clip["source"]
        return self.checked or source == GIVEN or (source == DIVIDED and confirmed)

    @property
    def is_doubtful(self) -> bool:
        """Whether Whisper heard a draft otherwise the second time, or another text than given."""
        is_other = self.error is not None and self.error > MAX_PAIRING_ERROR
        is_draft = self.clip["source"] == DRAFT
        return not self.checked and (is_other or (self.disagrees and is_draft))

    @property
    def is_used(self) -> bool:
        """Whether it goes into the manifest."""
        usable = bool(self.text) and not self.is_refused and not self.is_doubtful
        return self.use == "yes" and usable


def add_recordings(
    workspace: Workspace, options: InitOptions, record: InitRecord, whisper: LazyTranscriber
) -> list[Problem]:
    """Cut recordings that are new, noting each; return what of them cannot be used."""
    if options.audio is None:
        return []
    files, left_out = find_recordings(options.audio)
    ours = [(workspace.home / name).resolve() for name in ("clips", REF)]
    files = [path for path in files if not any(path.resolve().is_relative_to(p) for p in ours)]
    hashes = {path: sha256_file(path) for path in files}
    first: dict[str, Path] = {}
    for path, sha in hashes.items():
        if first.setdefault(sha, path) is not path:
            left_out.append(problem("prepare.repeated_recording", path.name, first=first[sha].name))
    new = [(sha, path) for sha, path in first.items() if sha not in record["recordings"]]
    stems = {item["stem"] for item in record["recordings"].values()}
    progress = Progress("cut", len(new), "recordings")
    for sha, path in new:
        stem = re.sub(r"[^\w.-]", "_", path.stem)[:60].strip("._") or "recording"
        stem = f"{stem}-{sha[:6]}" if stem in stems else stem
        stems.add(stem)
        lines, text_file = lines_beside(path, workspace.scripts)
        original = path
        if needs_ffmpeg(path):
            path = workspace.folder / CACHE / "converted" / f"{sha[:16]}.flac"
            try:
                if not path.is_file():
                    convert(original, path)
            except AudioError as error:
                left_out.append(problem("prepare.unreadable_recording", original.name, found=error))
                continue
        if lines or not options.transcribe:
            segments = cut(original.name, speech_of(path), options.clip_s, lines)
        else:
            segments = join_phrases(whisper.phrases(path, sha), original.name, options.clip_s)
        source = DRAFT if options.transcribe else NO_TEXT
        if lines:
            source = GIVEN if len(lines) == 1 else DIVIDED
        problems = [segment.problem for segment in segments if segment.problem is not None]
        usable = [segment for segment in segments if segment.problem is None]
        clips = _write_clips(workspace, path, stem, usable, source, problems)
        record["recordings"][sha] = {
            "name": original.name,
            "stem": stem,
            "text": text_file,
            "clips": clips,
            "left_out": [problem.as_dict() for problem in problems],
        }
        write_json(workspace.home / RECORD, record)
        left_out += problems
        progress.advance()
    return left_out


def _write_clips(
    workspace: Workspace,
    recording: Path,
    stem: str,
    segments: Sequence[Segment],
    source: str,
    problems: list[Problem],
) -> list[ClipRecord]:
    """Write the clips of one recording, noting those that cannot be; return the record of each."""
    total_s = probe(recording).duration_s
    clips: list[ClipRecord] = []
    for segment in segments:
        start_s, end_s = max(0.0, segment.start_s - EDGE_S), min(total_s, segment.end_s + EDGE_S)
        name = f"clips/{stem}-{round(1000 * start_s):08d}.flac"
        try:
            cut_clip(recording, workspace.home / name, start_s, end_s - start_s)
        except AudioError as error:
            where = f"{recording.name} {start_s:.1f}-{end_s:.1f} s"
            problems.append(problem("prepare.unreadable_recording", where, found=error))
            continue
        clip: ClipRecord = {
            "clip": name,
            "start_s": round(start_s, 3),
            "end_s": round(end_s, 3),
            "text": " ".join(segment.text.split()),
            "source": source,
            "heard": None,
            "listed": False,
        }
        if segment.probability is not None:
            clip["probability"] = segment.probability
        clips.append(clip)
    return clips


def clips_of(record: InitRecord) -> list[ClipRecord]:
    """Return every clip of the record, recording by recording, by name."""
    recordings = sorted(record["recordings"].values(), key=lambda item: item["stem"])
    return [clip for recording in recordings for clip in recording["clips"]]


def transcribe_clips(
    workspace: Workspace, record: InitRecord, entries: Mapping[str, Entry], whisper: LazyTranscriber
) -> None:
    """Transcribe clips that have no transcript yet: drafts where there is no text, and checks."""
    dropped = {name for name, entry in entries.items() if entry.use == "no"}
    clips = [
        clip
        for clip in clips_of(record)
        if clip["heard"] is None
        and clip["clip"] not in dropped
        and (workspace.home / clip["clip"]).is_file()
    ]
    if not clips:
        return
    texts = [entries[c["clip"]].text if c["clip"] in entries else c["text"] for c in clips]
    bounds = [
        text or "x" * round(MAX_CHARACTERS_PER_S * (clip["end_s"] - clip["start_s"]))
        for clip, text in zip(clips, texts, strict=True)
    ]
    heard = whisper.transcribe([workspace.home / clip["clip"] for clip in clips], bounds)
    for clip, text, found in zip(clips, texts, heard, strict=True):
        clip["heard"] = transcript = " ".join(found.split())
        if not text:
            clip["text"], clip["source"] = transcript, DRAFT
    write_json(workspace.home / RECORD, record)


def corrections(workspace: Workspace, options: InitOptions, record: InitRecord) -> dict[str, Entry]:
    """Read the table back, if there is one."""
    path = options.table or workspace.home / TABLE
    if not path.is_file():
        return {}
    entries = read_table(path)
    known = {clip["clip"] for clip in clips_of(record)}
    unknown = [name for name in entries if name not in known]
    problems = [problem("prepare.unknown_clip", f"{path.name}: {name}") for name in unknown]
    for name, entry in entries.items():
        if entry.text and entry.use != "no":
            problems += check_text(f"{path.name}: {name}", entry.text)
    raise_problems(problems, f"{path} cannot be used; nothing was changed.")
    return entries


def rows_of(record: InitRecord, entries: Mapping[str, Entry]) -> list[ClipRow]:
    """Join the record with the table: one row a clip."""
    rows = []
    for clip in clips_of(record):
        entry = entries.get(clip["clip"])
        if entry is None:  # new; or its row was deleted
            entry = Entry(clip["text"], False, "no" if clip["listed"] and entries else "yes")
        elif not entry.text and not clip["listed"]:
            entry = replace(entry, text=clip["text"])
        text = entry.text or (clip["text"] if clip["source"] == DRAFT else "")
        reference = fold_text(text)
        error = None
        if reference and clip["heard"] is not None:
            error = disagreement(reference, fold_text(clip["heard"]))
        checked = entry.checked or bool(entry.text and entry.text != clip["text"])
        rows.append(ClipRow(clip, text, checked, entry.use, entry.extra, error))
    return rows
