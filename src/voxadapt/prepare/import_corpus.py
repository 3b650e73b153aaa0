"""A manifest folder of a corpus in another layout; clips are copied, or cut without loss.

Every row of the source ends as a clip, as a reference, as one of another speaker, or in the list
of what was left out, with its reason; the audit's rules for single clips apply.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import replacing, sha256_file, write_atomic
from voxadapt.core.languages import model_language
from voxadapt.core.params import AuditParams, SplitParams, speaker_name_problem
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.data.audio import AudioError, probe
from voxadapt.data.audit import audit_clips
from voxadapt.data.lines import shown
from voxadapt.data.manifest import ManifestFiles, RawRow, check_text
from voxadapt.data.problems import problem
from voxadapt.prepare.formats import arrow_rows, of_speakers, read_source
from voxadapt.prepare.import_folder import (
    ImportedClip,
    ImportResult,
    begin,
    choose_references,
    finish,
    readable_reference,
)
from voxadapt.prepare.sound import LENGTH_SLACK_S, convert, cut_clip, load_cut, needs_ffmpeg, trim
from voxadapt.prepare.tables import Row, Wanted

Placed = tuple[Row, Path]  # a row and its audio


def import_corpus(
    sources: Sequence[Path],
    out: Path,
    *,
    kind: str | None = None,
    speaker: Sequence[str] | str | None = None,
    columns: str | None = None,
    text_column: str | None = None,
    audio_root: Path | None = None,
    ref: Path | None = None,
    language: str | None = None,
    consent: str | None = None,
    trim_silence: bool = False,
    limits: AuditParams | None = None,
    force: bool = False,
) -> ImportResult:
    """Make a manifest folder of a corpus in another layout.

    Args:
        sources: One folder or file.
        out: Folder to write.
        kind: One of `FORMATS`; found out when None.
        speaker: Whose clips to take, or how the names begin; `all` takes everybody's. Needed where
            there are several.
        columns: Role of each column, between commas, where the table does not show it.
        text_column: Column that holds the text, where the usual names do not.
        audio_root: Folder that holds the audio; nothing outside of it is read.
        ref: Reference clip; chosen by `reference.RULE` when None.
        language: Name of the language, for each row.
        consent: How the speaker agreed, for each row.
        trim_silence: Trim long silence at the edges of clips, and list it.
        limits: Of the audit that will read the folder; its defaults when None.
        force: Replace an earlier import.

    Raises:
        UserError: When the source cannot be read, columns or speaker are not clear, or no row is
            left.
    """
    if len(sources) != 1 or not sources[0].exists():
        found = "nothing there" if len(sources) == 1 else f"{len(sources)} of them"
        raise UserError(problem("one_source", "SOURCE", found=found))
    source, limits = sources[0], limits or AuditParams()
    root = audio_root or (source if source.is_dir() else source.parent)
    if not root.is_dir():
        raise UserError(problem("audio_root", "--audio-root", found=root))
    given = read_source(source, kind, Wanted.of(columns, text_column, kind), root)
    num_rows = len(given.rows) + len(given.problems)
    asked = [speaker] if isinstance(speaker, str) else list(speaker or ())
    rows, num_others, names, left_out = of_speakers(given.rows, asked)
    placed, problems = _with_audio(_of_one_or_several(rows, names), root)
    left_out = [*given.problems, *left_out, *problems]
    hashes = {path: sha256_file(path) for path in dict.fromkeys(path for _, path in placed)}
    options = {
        "kind": given.kind, "speaker": names, "text_column": text_column, "language": language,
        "columns": columns, "trim": trim_silence, "limits": limits.model_dump(mode="json"),
        "ref": None if ref is None else sha256_file(readable_reference(ref)),
        "root": os.path.realpath(root), "files": {str(f): sha256_file(f) for f in given.files},
        "audio": sorted((str(path), sha) for path, sha in hashes.items()),
    }  # fmt: skip
    staging, done = begin(out, options, consent, force)
    if done is not None:
        return done
    placed, problems = _unpack(placed, staging)
    left_out += problems
    clips, problems = _write_clips(placed, staging, trim_silence)
    left_out += problems
    clips, problems = _audited(clips, staging, limits)
    left_out += problems
    if not clips:
        title = f"{source}: no row can be imported."
        raise UserError(left_out or [problem("no_row_left", source)], title)
    try:
        clips, references, problems = choose_references(clips, staging, ref)
    except UserError as error:
        raise UserError([*error.problems, *left_out], error.title) from None
    left_out += problems
    facts = {
        "format": given.kind, "source": source.resolve().name,
        "speaker": names[0] if len(names) == 1 else None,
        **({"speakers": names} if len(names) > 1 else {}),
        "files": {file.name: sha256_file(file) for file in given.files}, "num_rows": num_rows,
        "num_other_speakers": num_others, "transcripts": "given",
    }  # fmt: skip
    return finish(out, staging, clips, left_out, facts, references, language, consent)


def _of_one_or_several(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Keep the speakers of rows where there are several; refuse names that cannot be told apart."""
    if len(names) < 2:
        return [replace(row, speaker=None) for row in rows]
    problems = [
        problem("speaker_name", "speaker", reason=reason, found=shown(name))
        for name in names
        if (reason := speaker_name_problem(name))
    ]
    folded = Counter(name.lower() for name in names)
    problems += [
        problem("speakers_by_case", "speaker", found=shown(name))
        for name in names
        if folded[name.lower()] > 1
    ]
    raise_problems(problems, "These speakers cannot stand in one manifest.")
    return list(rows)


def _with_audio(rows: Sequence[Row], root: Path) -> tuple[list[Placed], list[Problem]]:
    """Return the rows that can be used, each with its audio, and what is wrong with the others."""
    files = ManifestFiles(root, any_format=True)
    placed: list[Placed] = []
    problems: list[Problem] = []
    seen: dict[object, str] = {}
    for row in rows:
        row = replace(row, text=" ".join(row.text.split()))
        found = check_text(row.where, row.text)
        path = None if row.packed is None else row.packed[0]
        if path is None:
            path = files.check(row.where, "audio", _name_below(row.audio, root), found)
            if path is None and os.path.isabs(row.audio):
                fix = "Name the folder of the audio with --audio-root."
                found[-1] = replace(found[-1], fix=fix)
        span = row.span_s or (
            row.cut and (row.cut["start"], row.cut["duration"], row.cut["channel"])
        )
        key = row.packed or (str(path), span)
        if path is not None and (first := seen.setdefault(key, row.where)) != row.where:
            found.append(problem("clip_again", row.where, first=first))
        if found or path is None:
            also = "".join(f"; also {other.found}" for other in found[1:2])
            problems.append(replace(found[0], found=found[0].found + also))
        else:
            placed.append((row, path))
    return placed, problems


def _name_below(audio: str, root: Path) -> str:
    """Return an absolute path below the folder of the audio relative to it, others as they are."""
    if not os.path.isabs(audio):
        return audio
    home, path = os.path.realpath(root), os.path.realpath(audio)
    return os.path.relpath(path, home) if path.startswith(home + os.sep) else audio


def _unpack(placed: Sequence[Placed], staging: Path) -> tuple[list[Placed], list[Problem]]:
    """Write the audio that lies in files of pyarrow as files."""
    packed = {row.packed: row for row, _ in placed if row.packed is not None}
    found: dict[tuple[Path, str, int], Path | Problem] = {}
    for file, column in dict.fromkeys((file, column) for file, column, _ in packed):
        for number, values in enumerate(arrow_rows(file, [column], batch_size=16)):
            key = file, column, number
            row = packed.get(key)
            if row is None:
                continue
            audio = values[column]
            data = audio.get("bytes") if isinstance(audio, dict) else None
            if not isinstance(audio, dict) or not isinstance(data, bytes) or not data:
                found[key] = problem("no_packed_audio", row.where)
                continue
            suffix = Path(str(audio.get("path") or "")).suffix.lower()
            suffix = suffix if re.fullmatch(r"\.[a-z0-9]{2,5}", suffix) else ".wav"
            folder = fingerprint(str(file), 8)
            path = staging / "unpacked" / folder / f"{number:06d}{suffix}"
            if not path.is_file():
                write_atomic(path, data)
            found[key] = path
    rows: list[Placed] = []
    problems: list[Problem] = []
    for row, path in placed:
        item = path if row.packed is None else found[row.packed]
        if isinstance(item, Problem):
            problems.append(item)
        else:
            rows.append((row, item))
    return rows, problems


def _write_clips(
    placed: Sequence[Placed], staging: Path, trim_silence: bool
) -> tuple[list[ImportedClip], list[Problem]]:
    """Copy, convert or cut the clips; those that an earlier run has written stay."""
    safe = [re.sub(r"[^\w.-]", "_", row.name)[:80].strip("._") or "clip" for row, _ in placed]
    counts = Counter(name.casefold() for name in safe)
    progress = Progress("import", len(placed), "clips")
    clips: list[ImportedClip] = []
    problems: list[Problem] = []
    for (row, source), stem in zip(placed, safe, strict=True):
        if counts[stem.casefold()] > 1:
            stem = f"{stem}-{fingerprint([row.audio, row.where, row.span_s, row.name], 10)}"
        try:
            name = _write_clip(row, source, staging, stem)
            trimmed_s = (0.0, 0.0)
            if trim_silence:
                target = staging / "clips" / f"{stem}.trimmed.flac"
                trimmed_s = trim(staging / name, target)
                name = f"clips/{target.name}" if any(trimmed_s) else name
            clips.append(
                ImportedClip(row.where, name, row.text, probe(staging / name).duration_s,
                             row.speaker,
                             model_language((row.language or "").casefold().removeprefix("all_")),
                             trimmed_s)
            )  # fmt: skip
        except (AudioError, OSError) as error:
            told = f"{source.name}: {error}"
            problems.append(problem("broken_audio", row.where, found=told))
        progress.advance()
    return clips, problems


def _write_clip(row: Row, source: Path, staging: Path, stem: str) -> str:
    """Write the clip of one row; return its name in the folder.

    Raises:
        AudioError: When the audio cannot be read whole, or is not what the row says.
    """
    target = staging / "clips" / f"{stem}.flac"
    if needs_ffmpeg(source):
        whole = staging / "converted" / f"{fingerprint(str(source), 16)}.flac"
        if not whole.is_file():
            convert(source, whole)
        source = whole
    if row.length_s is not None or row.span_s is not None:
        seconds, stated_s = probe(source).duration_s, row.length_s or (row.span_s or (0, 0))[1]
        is_all = abs(seconds - stated_s) <= LENGTH_SLACK_S + 0.01 * stated_s
        if row.span_s is not None and is_all:  # cut already: these are times of the whole recording
            row = replace(row, span_s=None)
        elif row.length_s is not None and not is_all and round(seconds) != stated_s:
            raise AudioError(f"{seconds:.2f} s; the row says {stated_s:.2f} s")
    if row.cut is None and row.span_s is None:
        target = target.with_suffix(source.suffix.lower())
    if not target.is_file():
        if row.cut is not None:
            load_cut(row.cut, source, target)
        elif row.span_s is not None:
            cut_clip(source, target, *row.span_s)
        else:
            with replacing(target) as part:
                shutil.copyfile(source, part)
    return f"clips/{target.name}"


def _audited(
    clips: Sequence[ImportedClip], staging: Path, limits: AuditParams
) -> tuple[list[ImportedClip], list[Problem]]:
    """Leave out what the audit would refuse."""
    rows = [
        RawRow(clip.where, number, Path(clip.audio).stem, clip.audio, clip.text, "", None,
               staging / clip.audio, staging / clip.audio, speaker=clip.speaker)
        for number, clip in enumerate(clips, start=1)
    ]  # fmt: skip
    kept: list[ImportedClip] = []
    problems: list[Problem] = []
    for clip, checked in zip(clips, audit_clips(rows, limits, SplitParams()), strict=True):
        wrong = [found for found in checked.findings if found.severity == "error"]
        if wrong:
            also = "".join(f"; also {found.found}" for found in wrong[1:2])
            first = wrong[0].as_problem(clip.where)
            problems.append(replace(first, found=first.found + also))
        else:
            kept.append(clip)
    return kept, problems
