"""A manifest folder of a corpus in another layout; clips are copied, or cut without loss."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import sha256_file, write_atomic
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.data.audio import probe
from voxadapt.data.manifest import ManifestFiles, check_text
from voxadapt.prepare.formats import READERS, Row, Span, find_layout, of_speaker, parquet_rows
from voxadapt.prepare.import_folder import (
    ImportedClip,
    ImportResult,
    begin,
    choose_reference,
    copy_clip,
    cut_clip,
    finish,
    readable_reference,
)

NOT_UNPACKED = "none"  # a file name that no clip has


def import_corpus(
    sources: Sequence[Path],
    out: Path,
    *,
    kind: str | None = None,
    speaker: str | None = None,
    text_column: str | None = None,
    audio_root: Path | None = None,
    ref: Path | None = None,
    language: str | None = None,
    consent: str | None = None,
    force: bool = False,
) -> ImportResult:
    """Make a manifest folder of a corpus in another layout.

    Args:
        sources: One folder or file.
        out: Folder to write.
        kind: One of `FORMATS`; found out when None.
        speaker: Whose clips to take, or how the name begins; needed where there are several.
        text_column: Column that holds the text, where the usual names do not.
        audio_root: Folder that holds the audio; nothing outside of it is read.
        ref: Reference clip; chosen by `REF_RULE` when None.
        language: Name of the language, for each row.
        consent: How the speaker agreed, for each row.
        force: Replace an earlier import.

    Returns:
        The outcome; rows that cannot be used are left out and listed.

    Raises:
        UserError: When the source cannot be read, the speaker is not clear or no row is left.
    """
    if len(sources) != 1 or not sources[0].exists():
        found = "nothing there" if len(sources) == 1 else f"{len(sources)} of them"
        fix = "Name a folder or a file; recordings without texts go with `voxadapt init`."
        raise UserError(Problem("SOURCE", "one folder or file of a corpus", found, fix))
    source = sources[0]
    kind = find_layout(source, kind)
    root = audio_root or (source if source.is_dir() else source.parent)
    if not root.is_dir():
        raise UserError(Problem("--audio-root", "a folder", str(root), "Correct the path."))
    files, rows, left_out = READERS[kind](source, text_column)
    num_rows = len(rows) + len(left_out)
    rows, num_others, voice = of_speaker(rows, speaker)
    options = {
        "kind": kind, "speaker": voice, "text_column": text_column, "language": language,
        "ref": None if ref is None else sha256_file(readable_reference(ref)),
        "root": os.path.realpath(root),
        "files": {file.name: sha256_file(file) for file in files},
    }  # fmt: skip
    staging, done = begin(out, options, consent, force)
    if done is not None:
        return done
    usable, problems = _usable_rows(rows, root, staging)
    left_out += problems
    if not usable:
        fix = "Mend the source, or name its --format."
        raise UserError(
            left_out or [Problem(str(source), "at least one row", "none", fix)],
            f"{source}: no row can be imported.",
        )
    clips, reference = choose_reference(_write_clips(usable, staging), staging, ref)
    facts = {
        "format": kind, "source": source.resolve().name, "speaker": voice,
        "files": options["files"], "num_rows": num_rows, "num_other_speakers": num_others,
        "transcripts": "given",
    }  # fmt: skip
    return finish(out, staging, clips, left_out, facts, reference, language, consent)


def _usable_rows(
    rows: Sequence[Row], root: Path, staging: Path
) -> tuple[list[tuple[Row, Path]], list[Problem]]:
    """Return the rows that can be used, each with its audio, and what is wrong with the others."""
    _unpack(rows, staging)
    given, unpacked = ManifestFiles(root), ManifestFiles(staging)
    places: dict[str, tuple[Path | None, list[Problem]]] = {}
    usable: list[tuple[Row, Path]] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, Span | None, int | None], str] = {}
    for row in rows:
        row = replace(row, text=row.text.strip())
        found = check_text(row.where, row.text)
        if row.packed is None:
            name, files = _name_below(row.audio, root), given
        else:
            name, files = _unpacked_name(row, staging), unpacked
        if name not in places:
            told: list[Problem] = []
            places[name] = files.check(row.where, "audio", name, told), told
        path, told = places[name]
        if path is None:
            is_absolute = os.path.isabs(row.audio)
            fix = "Name the folder of the audio with --audio-root." if is_absolute else told[0].fix
            found.append(replace(told[0], where=row.where, fix=fix))
        elif (first := seen.setdefault((name, row.span_s, row.channel), row.where)) != row.where:
            again = f"again (first in {first})"
            found.append(Problem(row.where, "each clip once", again, "Drop one of them."))
        if found:
            also = "".join(f"; also {problem.found}" for problem in found[1:2])
            problems.append(replace(found[0], found=found[0].found + also))
        elif path is not None:
            usable.append((row, path))
    return usable, problems


def _name_below(audio: str, root: Path) -> str:
    """Return an absolute path below the folder of the audio relative to it, others as they are."""
    if not os.path.isabs(audio):
        return audio
    home, path = os.path.realpath(root), os.path.realpath(audio)
    return os.path.relpath(path, home) if path.startswith(home + os.sep) else audio


def _unpack(rows: Sequence[Row], staging: Path) -> None:
    """Write the audio of parquet rows as files, once."""
    wanted: dict[Path, dict[int, str]] = {}
    for row in rows:
        if row.packed is not None and _unpacked_name(row, staging) == NOT_UNPACKED:
            file, number = row.packed
            wanted.setdefault(file, {})[number] = row.name
    for file, names in wanted.items():
        for number, values in enumerate(parquet_rows(file, ["audio"], batch_size=16)):
            audio, name = values["audio"], names.get(number)
            data = audio.get("bytes") if isinstance(audio, dict) else None
            if name is None or not isinstance(audio, dict) or not isinstance(data, bytes):
                continue
            suffix = Path(str(audio.get("path") or "")).suffix.lower()
            suffix = suffix if re.fullmatch(r"\.[a-z0-9]{2,5}", suffix) else ".wav"
            write_atomic(staging / "unpacked" / f"{name}{suffix}", data)


def _unpacked_name(row: Row, staging: Path) -> str:
    """Return the file that holds the audio of a parquet row, below the staging folder."""
    files = sorted((staging / "unpacked").glob(f"{row.name}.*"))
    return files[0].relative_to(staging).as_posix() if files else NOT_UNPACKED


def _write_clips(rows: Sequence[tuple[Row, Path]], staging: Path) -> list[ImportedClip]:
    """Copy or cut the clips; those that an earlier run has written stay."""
    safe = [re.sub(r"[^\w.-]", "_", row.name)[:80].strip("._") or "clip" for row, _ in rows]
    counts = Counter(name.casefold() for name in safe)
    progress = Progress("import", len(rows), "clips")
    clips = []
    for (row, source), stem in zip(rows, safe, strict=True):
        if counts[stem.casefold()] > 1:
            stem = f"{stem}-{fingerprint([row.audio, row.where, row.span_s, row.name], 10)}"
        if row.span_s is None:
            name = f"clips/{stem}{source.suffix.lower()}"
            copy_clip(source, staging / name)
        else:
            name = f"clips/{stem}.flac"
            if not (staging / name).is_file():
                cut_clip(source, staging / name, *row.span_s, channel=row.channel)
        clips.append(ImportedClip(name, row.text, probe(staging / name).duration_s))
        progress.advance()
    return clips
