"""A manifest folder of a corpus in another layout; clips are copied, or cut without loss.

Every row of the source ends as a clip, as a reference, as one of another speaker, or in the list
of what was left out (`left_out`, to which each step adds), with its reason; the audit's rules for
single clips apply.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import replacing, sha256_file, write_atomic
from voxadapt.core.languages import model_language
from voxadapt.core.params import AuditParams, SplitParams, speaker_name_problem
from voxadapt.core.problems import problem, user_error
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.data.audio import AudioError, probe
from voxadapt.data.audit import audit_clips
from voxadapt.data.lines import shown
from voxadapt.data.manifest import ManifestFiles, RawRow, check_text
from voxadapt.prepare import import_folder
from voxadapt.prepare.formats import arrow_rows, of_speakers, read_source
from voxadapt.prepare.import_folder import ImportedClip, ImportResult
from voxadapt.prepare.sound import LENGTH_SLACK_S, convert, cut_clip, load_cut, needs_ffmpeg, trim
from voxadapt.prepare.tables import PLACES, Row, Wanted

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

    `sources` is one folder or file, `kind` one of `FORMATS`, found out where it is None. `speaker`
    says whose clips to take, or how the names begin (`all`: everybody's); `columns` the role of
    each column, between commas. Nothing outside of `audio_root` is read. The reference is chosen by
    `reference.RULE` if none is given; `limits` are those of the audit that will read the folder.
    """
    if len(sources) != 1 or not sources[0].exists():
        found = "nothing there" if len(sources) == 1 else f"{len(sources)} of them"
        raise user_error("prepare.one_source", "SOURCE", found=found)
    source, limits = sources[0], limits or AuditParams()
    root = audio_root or (source if source.is_dir() else source.parent)
    if not root.is_dir():
        raise user_error("prepare.audio_root", "--audio-root", found=root)
    given = read_source(source, kind, Wanted.of(columns, text_column, kind), root)
    num_rows = len(given.rows) + len(given.problems)
    title = f"{source}: no row can be imported."
    if not given.rows:
        raise UserError(given.problems or problem("prepare.no_row_left", source), title)
    asked = [speaker] if isinstance(speaker, str) else list(speaker or ())
    rows, num_others, names, nobody = of_speakers(given.rows, asked)
    left_out = [*given.problems, *nobody]
    rows = rows if audio_root is None else _moved(rows, root)
    placed = _with_audio(_of_one_or_several(rows, names), root, left_out)
    hashes = {path: sha256_file(path) for path in dict.fromkeys(path for _, path in placed)}
    options = {
        "kind": given.kind, "speaker": names, "text_column": text_column, "language": language,
        "columns": columns, "trim": trim_silence, "limits": limits.model_dump(mode="json"),
        "ref": None if ref is None else sha256_file(import_folder.readable_reference(ref)),
        "root": os.path.realpath(root), "files": {str(f): sha256_file(f) for f in given.files},
        "audio": sorted((str(path), sha) for path, sha in hashes.items()),
    }  # fmt: skip
    staging, done = import_folder.begin(out, options, consent, force)
    if done is not None:
        return done
    placed = _unpack(placed, staging, left_out)
    clips = _write_clips(placed, staging, trim_silence, left_out)
    clips = _audited(clips, staging, limits, left_out)
    unknown = Counter(row.language for row in rows if row.language and not _model_name(row))
    if not clips:
        raise UserError(left_out, title)
    clips, references = import_folder.choose_references(clips, staging, ref, left_out)
    facts = {
        "format": given.kind, "source": source.resolve().name,
        "speaker": names[0] if len(names) == 1 else None,
        **({"speakers": names} if len(names) > 1 else {}),
        "files": {file.name: sha256_file(file) for file in given.files}, "num_rows": num_rows,
        "num_other_speakers": num_others, "transcripts": "given",
        **({"other_languages": dict(unknown)} if unknown and language is None else {}),
    }  # fmt: skip
    return import_folder.finish(out, staging, clips, left_out, facts, references, language, consent)


def _of_one_or_several(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Keep the speakers of rows where there are several; refuse names that cannot be told apart."""
    if len(names) < 2:
        return [replace(row, speaker=None) for row in rows]
    problems = [
        problem("prepare.speaker_name", "speaker", reason=reason, found=shown(name))
        for name in names
        if (reason := speaker_name_problem(name))
    ]
    folded = Counter(name.lower() for name in names)
    problems += [
        problem("prepare.speakers_by_case", "speaker", found=shown(name))
        for name in names
        if folded[name.lower()] > 1
    ]
    raise_problems(problems, "These speakers cannot stand in one manifest.")
    return list(rows)


def _with_audio(rows: Sequence[Row], root: Path, left_out: list[Problem]) -> list[Placed]:
    """Return the rows that can be used, each with its audio."""
    files = ManifestFiles(root, any_format=True)
    placed: list[Placed] = []
    seen: dict[object, str] = {}
    for row in rows:
        row = replace(row, text=" ".join(row.text.split()))
        found = check_text(row.where, row.text)
        path = None if row.packed is None else row.packed[0]
        if path is None:
            path = files.check(row.where, "audio", _name_below(row.audio, root), found)
            if path is None and PureWindowsPath(row.audio).root:
                fix = "Name the folder of the audio with --audio-root."
                found[-1] = replace(found[-1], fix=fix)
        span = row.span_s or (
            row.cut and (row.cut["start"], row.cut["duration"], row.cut["channel"])
        )
        key = row.packed or (str(path), span)
        if path is not None and (first := seen.setdefault(key, row.where)) != row.where:
            found.append(problem("prepare.clip_again", row.where, first=first))
        if found or path is None:
            left_out.append(_in_one(found))
        else:
            placed.append((row, path))
    return placed


def _moved(rows: Sequence[Row], root: Path) -> list[Row]:
    """Read absolute paths of another machine below the folder that they share, which is `root`."""
    paths = {row.audio: PureWindowsPath(row.audio) for row in rows}  # of either kind of slash
    paths = {audio: path for audio, path in paths.items() if path.root}
    if not paths or any(_name_below(audio, root) != audio for audio in paths):
        return list(rows)
    shared = os.path.commonpath([path.parent.as_posix().lstrip("/") for path in paths.values()])
    found = []
    for row in rows:
        if row.audio in paths:
            name = os.path.relpath(paths[row.audio].as_posix().lstrip("/"), shared or ".")
            there = next((place for place in PLACES if (root / place / name).is_file()), "")
            row = replace(row, audio=there + name, name=Path(name).stem)
        found.append(row)
    return found


def _in_one(problems: Sequence[Problem]) -> Problem:
    """Tell of the first thing that is wrong with a row, and what else was found."""
    also = "".join(f"; also {other.found}" for other in problems[1:2])
    return replace(problems[0], found=problems[0].found + also)


def _name_below(audio: str, root: Path) -> str:
    """Return an absolute path below the folder of the audio relative to it, others as they are."""
    if not os.path.isabs(audio):
        return audio
    home, path = os.path.realpath(root), os.path.realpath(audio)
    return os.path.relpath(path, home) if path.startswith(home + os.sep) else audio


def _unpack(placed: Sequence[Placed], staging: Path, left_out: list[Problem]) -> list[Placed]:
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
            if not isinstance(data, bytes) or not data:
                found[key] = problem("prepare.no_packed_audio", row.where)
                continue
            suffix = Path(str(audio.get("path") or "")).suffix.lower()
            suffix = suffix if re.fullmatch(r"\.[a-z0-9]{2,5}", suffix) else ".wav"
            folder = fingerprint(str(file), 8)
            path = staging / "unpacked" / folder / f"{number:06d}{suffix}"
            if not path.is_file():
                write_atomic(path, data)
            found[key] = path
    items = [(row, path if row.packed is None else found[row.packed]) for row, path in placed]
    left_out += [item for _, item in items if isinstance(item, Problem)]
    return [(row, item) for row, item in items if isinstance(item, Path)]


def _model_name(row: Row) -> str | None:
    """Return the language of a row as the model names it; None where it does not know it."""
    return model_language((row.language or "").casefold().removeprefix("all_"))


def _write_clips(
    placed: Sequence[Placed], staging: Path, trim_silence: bool, left_out: list[Problem]
) -> list[ImportedClip]:
    """Copy, convert or cut the clips; those that an earlier run has written stay."""
    safe = [re.sub(r"[^\w.-]", "_", row.name)[:80].strip("._") or "clip" for row, _ in placed]
    counts = Counter(name.casefold() for name in safe)
    progress = Progress("import", len(placed), "clips")
    clips: list[ImportedClip] = []
    for (row, source), stem in zip(placed, safe, strict=True):
        if counts[stem.casefold()] > 1:
            stem = f"{stem}-{fingerprint([row.audio, row.where, row.span_s, row.name], 10)}"
        try:
            name, trimmed_s = _write_clip(row, source, staging, stem), (0.0, 0.0)
            if trim_silence:
                target = staging / "clips" / f"{stem}.trimmed.flac"
                trimmed_s = trim(staging / name, target)
                name = f"clips/{target.name}" if any(trimmed_s) else name
            length_s = probe(staging / name).duration_s
            clips.append(ImportedClip(row.where, name, row.text, length_s, row.speaker,
                                      _model_name(row), trimmed_s))  # fmt: skip
        except (AudioError, OSError) as error:
            told = f"{source.name}: {error}"
            left_out.append(problem("prepare.broken_audio", row.where, found=told))
        progress.advance()
    return clips


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
    if row.channel is not None and row.cut is None:
        held = probe(source).num_channels
        if held > 1 or (row.channel.isdigit() and int(row.channel) > 1):
            raise AudioError(f"{held} channel{'s' * (held > 1)}; the row names {row.channel}")
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
    clips: Sequence[ImportedClip], staging: Path, limits: AuditParams, left_out: list[Problem]
) -> list[ImportedClip]:
    """Leave out what the audit would refuse."""
    rows = [
        RawRow(clip.where, number, Path(clip.audio).stem, clip.audio, clip.text, "", None,
               staging / clip.audio, staging / clip.audio, speaker=clip.speaker)
        for number, clip in enumerate(clips, start=1)
    ]  # fmt: skip
    kept: list[ImportedClip] = []
    for clip, checked in zip(clips, audit_clips(rows, limits, SplitParams()), strict=True):
        wrong = [f.as_problem(clip.where) for f in checked.findings if f.severity == "error"]
        if wrong:
            left_out.append(_in_one(wrong))
        else:
            kept.append(clip)
    return kept
