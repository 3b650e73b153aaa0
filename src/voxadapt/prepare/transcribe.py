"""Clips of recordings: cut once, heard once, joined with the table that a person corrects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import sha256_file, write_json
from voxadapt.core.params import Params
from voxadapt.core.progress import Progress
from voxadapt.data.audio import probe
from voxadapt.data.audit import disagreement
from voxadapt.data.manifest import check_text
from voxadapt.data.text import fold_text
from voxadapt.prepare import segment as cutting
from voxadapt.prepare.folder import REF, cut_clip
from voxadapt.prepare.import_long import EDGE_S, MAX_DRAFT_DISAGREEMENT, Hearing, Listener, group
from voxadapt.prepare.init_options import Wishes
from voxadapt.prepare.transcript_table import Entry, read_table
from voxadapt.prepare.workspace import RECORD, TABLE, Room, settings_of

WORK = Path(".work") / "init"  # what Whisper has heard; may be deleted
DRAFT, GIVEN, DIVIDED, NO_TEXT = "Whisper", "text file", "text file, divided", "none"


class Ears:
    """Whisper, loaded when it is first needed."""

    def __init__(self, room: Room, wishes: Wishes, params: Params) -> None:
        self._room, self._wishes, self._params = room, wishes, params
        self._listener: Listener | None = None

    def get(self) -> Listener:
        """Return the listener."""
        if self._listener is None:
            wishes, room = self._wishes, self._room
            asr = wishes.asr or self._params.asr.model
            asr = str(room.folder / asr) if (room.folder / asr).is_file() else asr
            code = wishes.asr_language or settings_of(room, self._params, wishes).get(
                "language.asr_language"
            )
            if code is None and room.language is not None:
                fix = "Name a language close to it with --asr-language, or give texts instead."
                raise UserError(
                    Problem("--transcribe", "a language that Whisper knows", room.language, fix)
                )
            hearing = Hearing(
                asr,
                code or self._params.asr.language,
                wishes.clip_s,
                wishes.window_s,
                wishes.device,
            )
            self._listener = Listener(hearing, room.folder / WORK)
        return self._listener


def take_in(room: Room, wishes: Wishes, state: dict[str, Any], ears: Ears) -> list[Problem]:
    """Cut recordings that were not seen before; the record is kept after each."""
    if wishes.audio is None:
        return []
    files, left_out = cutting.find_recordings(wishes.audio)
    ours = [(room.home / name).resolve() for name in ("clips", REF)]
    files = [path for path in files if not any(path.resolve().is_relative_to(p) for p in ours)]
    hashes = {path: sha256_file(path) for path in files}
    first: dict[str, Path] = {}
    for path, sha in hashes.items():
        if first.setdefault(sha, path) is not path:
            found = f"the same bytes as {first[sha].name}"
            left_out.append(Problem(path.name, "each recording once", found, "Drop one."))
    new = [path for sha, path in first.items() if sha not in state["recordings"]]
    stems = {item["stem"] for item in state["recordings"].values()}
    progress = Progress("cut", len(new), "recordings")
    for path in new:
        sha = hashes[path]
        stem = re.sub(r"[^\w.-]", "_", path.stem)[:60].strip("._") or "recording"
        stem = f"{stem}-{sha[:6]}" if stem in stems else stem
        stems.add(stem)
        lines, name = cutting.lines_beside(path, room.scripts)
        if lines or not wishes.transcribe:
            pieces = cutting.cut(path.name, cutting.speech_of(path), wishes.clip_s, lines)
            problems = [piece.problem for piece in pieces if piece.problem is not None]
            pieces = [piece for piece in pieces if piece.problem is None]
        else:
            heard = ears.get().hear(path, sha)
            groups, problems = group(heard, path.name, wishes.clip_s, cutting.SHORTEST_S)
            pieces = [
                cutting.Piece(parts[0].start_s, parts[-1].end_s, " ".join(p.text for p in parts))
                for parts in groups
            ]
        if lines:
            source = GIVEN if len(lines) == 1 else DIVIDED
        else:
            source = DRAFT if wishes.transcribe else NO_TEXT
        clips = _write_clips(room, path, stem, pieces, source)
        state["recordings"][sha] = {
            "name": path.name,
            "stem": stem,
            "text": name or None,
            "clips": clips,
            "left_out": [problem.as_dict() for problem in problems],
        }
        write_json(room.home / RECORD, state)
        left_out += problems
        progress.advance()
    return left_out


def _write_clips(
    room: Room, recording: Path, stem: str, pieces: Sequence[cutting.Piece], source: str
) -> list[dict[str, Any]]:
    """Write the clips of one recording; return what the record says of each."""
    total_s = probe(recording).duration_s
    clips = []
    for piece in pieces:
        start_s, end_s = max(0.0, piece.start_s - EDGE_S), min(total_s, piece.end_s + EDGE_S)
        name = f"clips/{stem}-{round(1000 * start_s):08d}.flac"
        cut_clip(recording, room.home / name, start_s, end_s - start_s)
        clips.append(
            {
                "clip": name,
                "start_s": round(start_s, 3),
                "end_s": round(end_s, 3),
                "text": " ".join(piece.text.split()),
                "source": source,
                "heard": None,
                "listed": False,
            }
        )
    return clips


def clips_of(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every clip of the record, recording by recording, by name."""
    recordings = sorted(state["recordings"].values(), key=lambda item: item["stem"])
    return [clip for recording in recordings for clip in recording["clips"]]


def hear(
    room: Room,
    wishes: Wishes,
    state: dict[str, Any],
    entries: Mapping[str, Entry],
    ears: Ears,
) -> None:
    """Let Whisper hear clips that it has not heard: drafts for those without a text, and checks."""
    if not wishes.transcribe:
        return
    clips = [clip for clip in clips_of(state) if clip["heard"] is None]
    dropped = {name for name, entry in entries.items() if entry.use == "no"}
    clips = [
        clip
        for clip in clips
        if clip["clip"] not in dropped and (room.home / clip["clip"]).is_file()
    ]
    if not clips:
        return
    texts = [entries[c["clip"]].text if c["clip"] in entries else c["text"] for c in clips]
    # A transcript may be as long as its text; where there is none, as long as anybody can speak.
    bounds = [
        text or "x" * round(30 * (clip["end_s"] - clip["start_s"]))
        for clip, text in zip(clips, texts, strict=True)
    ]
    heard = ears.get().again([room.home / clip["clip"] for clip in clips], bounds)
    for clip, text, found in zip(clips, texts, heard, strict=True):
        clip["heard"] = " ".join(found.split())
        if not text:
            clip["text"], clip["source"] = clip["heard"], DRAFT
    write_json(room.home / RECORD, state)


def corrections(room: Room, wishes: Wishes, state: Mapping[str, Any]) -> dict[str, Entry]:
    """Read the table back, if there is one."""
    path = wishes.table or room.home / TABLE
    if not path.is_file():
        return {}
    entries = read_table(path)
    known = {clip["clip"] for clip in clips_of(state)}
    problems = [
        Problem(
            f"{path.name}: {name}", "a clip of this folder", "none of that name", "Drop the row."
        )
        for name in entries
        if name not in known
    ]
    for name, entry in entries.items():
        if entry.text and entry.use != "no":
            problems += check_text(f"{path.name}: {name}", entry.text)
    if problems:
        raise UserError(problems, f"{path} cannot be used; nothing was changed.")
    return entries


def rows_of(state: Mapping[str, Any], entries: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """Join the record with the table: one row a clip."""
    rows = []
    for clip in clips_of(state):
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
        agrees = error is not None and error <= MAX_DRAFT_DISAGREEMENT
        rows.append(
            clip
            | {
                "text": text,
                "checked": checked,
                "use": entry.use,
                "extra": entry.extra,
                "error": error,
                "is_sure": checked
                or clip["source"] == GIVEN
                or (clip["source"] == DIVIDED and agrees),
                "remarks": [],
            }
        )
    return rows


def is_used(row: Mapping[str, Any]) -> bool:
    """Say whether a row goes into the manifest."""
    return bool(row["use"] == "yes" and row["text"] and not row.get("refused"))
