"""A manifest folder of a corpus in another layout; clips are copied, or cut without loss."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import sha256_file, write_atomic
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.data.audio import (
    probe,
)
from voxadapt.data.manifest import (
    ManifestFiles,
    check_text,
)
from voxadapt.prepare.formats import READERS, Row, find_layout, of_speaker, open_parquet
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
    rows, problems, paths = _sound_rows(rows, root, staging)
    left_out += problems
    if not rows:
        fix = "Mend the source, or name its --format."
        raise UserError(
            left_out or [Problem(str(source), "at least one row", "none", fix)],
            f"{source}: no row can be imported.",
        )
    clips = _write_clips(rows, paths, staging)
    clips, reference = choose_reference(clips, staging, ref)
    facts = {
        "format": kind, "source": source.resolve().name, "speaker": voice,
        "files": options["files"], "num_rows": num_rows, "num_other_speakers": num_others,
        "reference": reference, "transcripts": "given",
    }  # fmt: skip
    return finish(out, staging, clips, left_out, facts, language, consent)


def _sound_rows(
    rows: Sequence[Row], root: Path, staging: Path
) -> tuple[list[Row], list[Problem], dict[str, Path]]:
    """Return rows whose text and audio can be used, what is wrong with the others, and files."""
    _unpack([row for row in rows if row.packed is not None], staging)
    folders = {False: ManifestFiles(root), True: ManifestFiles(staging)}
    home = os.path.realpath(root)
    kept: list[Row] = []
    problems: list[Problem] = []
    paths: dict[str, Path] = {}
    known: dict[str, Path | Problem] = {}
    seen: dict[tuple[str, Any, Any], str] = {}
    for row in rows:
        row = replace(row, text=row.text.strip())
        found = check_text(row.where, row.text)
        name = row.audio
        if row.packed is not None:
            name = next(
                (path.relative_to(staging).as_posix() for path in _unpacked(row, staging)), "none"
            )
        elif os.path.isabs(name) and os.path.realpath(name).startswith(home + os.sep):
            name = os.path.relpath(os.path.realpath(name), home)
        if name not in known:
            told: list[Problem] = []
            place = folders[row.packed is not None].check(row.where, "audio", name, told)
            known[name] = place if place is not None else told[0]
        place_or_problem = known[name]
        if isinstance(place_or_problem, Problem):
            problem = replace(place_or_problem, where=row.where)
            if os.path.isabs(row.audio):
                problem = replace(problem, fix="Name the folder of the audio with --audio-root.")
            found = [*found, problem]
        else:
            key = (name, row.span_s, row.channel)
            if key in seen:
                twice = f"again (first in {seen[key]})"
                found = [*found, Problem(row.where, "each clip once", twice, "Drop one of them.")]
            seen.setdefault(key, row.where)
        if found:
            first = found[0]
            problems.append(
                first if len(found) == 1
                else replace(first, found=f"{first.found}; also {found[1].found}")
            )  # fmt: skip
        else:
            kept.append(row)
            assert isinstance(place_or_problem, Path)
            paths[row.where + row.name] = place_or_problem
    return kept, problems, paths


def _unpack(rows: Sequence[Row], staging: Path) -> None:
    """Write the audio of parquet rows as files, once."""
    wanted: dict[Path, dict[int, Row]] = {}
    for row in rows:
        assert row.packed is not None
        if not _unpacked(row, staging):
            wanted.setdefault(row.packed[0], {})[row.packed[1]] = row
    for file, numbers in wanted.items():
        number = 0
        for batch in open_parquet(file).iter_batches(batch_size=16, columns=["audio"]):
            for values in batch.to_pylist():
                audio, row_or_none = values["audio"], numbers.get(number)
                number += 1
                data = audio.get("bytes") if isinstance(audio, dict) else None
                if row_or_none is None or not isinstance(data, bytes):
                    continue
                suffix = Path(str(audio.get("path") or "")).suffix.lower()
                suffix = suffix if re.fullmatch(r"\.[a-z0-9]{2,5}", suffix) else ".wav"
                write_atomic(staging / "unpacked" / f"{row_or_none.name}{suffix}", data)


def _unpacked(row: Row, staging: Path) -> list[Path]:
    return sorted((staging / "unpacked").glob(f"{row.name}.*"))


def _write_clips(
    rows: Sequence[Row], paths: Mapping[str, Path], staging: Path
) -> list[ImportedClip]:
    """Copy or cut the clips; those that an earlier run has written stay."""
    safe = [re.sub(r"[^\w.-]", "_", row.name)[:80].strip("._") or "clip" for row in rows]
    counts = Counter(name.casefold() for name in safe)
    progress = Progress("import", len(rows), "clips")
    clips = []
    for row, stem in zip(rows, safe, strict=True):
        source = paths[row.where + row.name]
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
