"""Corpora in other layouts, read as rows; what cannot be read is a problem with file and line.

Every reader gives one item for each row that the source has: a row, or what is wrong with it.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.problems import problem, user_error
from voxadapt.core.records import Record
from voxadapt.data.lines import json_lines, shown
from voxadapt.data.manifest import ManifestFiles
from voxadapt.prepare import folders, tables
from voxadapt.prepare.tables import Find, Row, Wanted

FORMATS = ("ljspeech", "commonvoice", "lhotse", "kaldi", "hf", "table", "jsonl", "beside")
LHOTSE = re.compile(r".*(cuts|supervisions).*\.jsonl(\.gz)?")
TABLE = re.compile(
    r"\.(csv|psv|list|jsonl|jsonl\.gz|json)$|(list|metadata|train|transcript).*\.txt$",
    re.IGNORECASE,
)
NO_TABLES = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
SPLITS = frozenset("train test validation valid val dev eval all other clean".split())
FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")  # of accents, in names of files
PACKED = (".parquet", ".arrow")
ALL = "all"


@dataclass(frozen=True)
class Source:
    """What was read."""

    kind: str  # one of `FORMATS`
    files: tuple[Path, ...]  # files that hold the rows
    rows: tuple[Row, ...]  # rows in order
    problems: tuple[Problem, ...]  # one for each row that cannot be read


def read_source(source: Path, given: str | None, wanted: Wanted, root: Path) -> Source:
    """Read a corpus; refuse one whose layout or columns are not known."""
    if given is not None and given not in FORMATS:
        raise user_error("prepare.format", "--format", known=", ".join(FORMATS), found=given)
    kind, files = _find_files(source, given)
    if source.is_dir():
        checks = ManifestFiles(source)
        for file in files:
            _, refused = checks.place(str(file), "source", file.relative_to(source).as_posix())
            if refused is not None:
                raise UserError(refused)
    items: list[Row | Problem] = []
    homes = {file.parent.name for file in files if file.parent != source}
    are_voices = len(homes) > 1 and not homes <= SPLITS and kind not in ("beside", "kaldi")
    for place, read in _readers(kind, files, source, wanted, root):
        home = place.parent.name if are_voices else None
        try:
            items += (replace(item, speaker=item.speaker or home) if isinstance(item, Row)
                      else item for item in read())  # fmt: skip
        except (OSError, EOFError) as error:
            raise user_error("prepare.torn_source", place, found=str(error) or "cut off") from None
    rows = tuple(item for item in items if isinstance(item, Row))
    problems = tuple(item for item in items if isinstance(item, Problem))
    return Source(kind, tuple(files), rows, problems)


def _readers(
    kind: str, files: Sequence[Path], source: Path, wanted: Wanted, root: Path
) -> Iterator[tuple[Path, Callable[[], Iterable[Row | Problem]]]]:
    """Yield what is read, a file or a whole folder, with what reads its rows."""
    if kind in ("kaldi", "beside"):
        read = folders.read_kaldi if kind == "kaldi" else folders.read_beside
        yield source, partial(read, source, _finder(root, source))
        return
    for file in files:
        find = _finder(root, file.parent)
        if kind == "lhotse":
            yield file, partial(_read_cuts, file)
        elif file.suffix in PACKED:
            yield file, partial(_read_columns, file, wanted, find)
        elif _is_json(file):
            yield file, partial(tables.read_objects, file, wanted, find)
        else:
            yield file, partial(tables.read_table, file, wanted, find)


def _is_json(file: Path) -> bool:
    """Say whether a file holds JSON, by its name or by how it begins."""
    if {".json", ".jsonl"} & set(file.suffixes):
        return True
    first = next((line for _, line in json_lines(file, []) if isinstance(line, str)), "")
    return first.lstrip().startswith("{")


def _finder(root: Path, folder: Path) -> Find:
    """Return a function that finds the audio that a cell of a folder names, relative to `root`."""
    inside = folder != root and folder.is_relative_to(root)
    below = f"{folder.relative_to(root).as_posix()}/" if inside else ""

    @cache
    def find(cell: str) -> str:
        if not cell or cell.startswith("/") or ".." in cell or len(cell) > 1000 or "\0" in cell:
            return cell
        known = Path(cell).suffix.lower() in tables.SUFFIXES
        ends = ("",) if known else ("", *tables.SUFFIXES, *map(str.upper, tables.SUFFIXES))
        plain = cell.replace("\\", "/")
        stem, suffix = os.path.splitext(plain)
        forms = (cell, plain, stem + suffix.swapcase(), *(normalize(form, plain) for form in FORMS))
        for form, place, end in product(dict.fromkeys(forms), tables.PLACES, ends):
            name = f"{below}{place}{form}{end}"
            try:
                if (root / name).is_file():
                    return name
            except OSError:
                return cell
        return below + cell

    return find


def _find_files(source: Path, given: str | None) -> tuple[str, list[Path]]:
    """Return the layout of a source and the files that list its clips."""
    if source.is_file():
        return given or _kind_of(source), [source]
    if not source.is_dir():
        raise user_error("prepare.no_source", source)
    names = sorted(path.name for path in source.iterdir()
                   if path.is_file() and not path.name.startswith("."))  # fmt: skip
    cuts = [name for key in ("cuts", "supervisions") for name in names
            if key in name and LHOTSE.fullmatch(name)]  # fmt: skip
    deeper = ("", "*/") if given in (None, "hf") else ("",)
    metadata = [path for name in ("metadata.csv", "metadata.jsonl") for below in deeper
                for path in sorted(source.glob(below + name)) if path.is_file()]  # fmt: skip
    packed = [path for name in ("*.parquet", "data-*.arrow") for below in ("", "*/")
              for path in sorted(source.glob(below + name)) if path.is_file()]  # fmt: skip
    tsv = [name for name in names if name.lower().endswith(".tsv")]
    tsv.sort(key=lambda name: (name != "validated.tsv", name != "train.tsv", name))
    listed = [name for name in names if TABLE.search(name) and name not in NO_TABLES]
    if given in (None, "kaldi") and (files := folders.kaldi_files(source)):
        return "kaldi", files
    if given in (None, "lhotse") and cuts:
        return "lhotse", [source / cuts[0]]
    if given in (None, "commonvoice") and tsv:
        return given or _kind_of(source / tsv[0]), [source / tsv[0]]
    if given in (None, "hf", "ljspeech", "table", "jsonl") and metadata:
        return given or _kind_of(metadata[0]), metadata
    if given in (None, "hf") and packed:
        return "hf", packed
    if given in (None, "table", "jsonl", "ljspeech") and len(listed) == 1:
        return given or _kind_of(source / listed[0]), [source / listed[0]]
    if given in (None, "beside") and (texts := folders.texts_beside(source)):
        return "beside", texts
    names += sorted(f"{path.name}/" for path in source.iterdir() if path.is_dir())
    found = ", ".join((listed or names)[:5]) or "an empty folder"
    kind = "prepare.unknown_layout" if len(listed) < 2 else "prepare.several_tables"
    raise user_error(kind, source, found=found, formats="|".join(FORMATS))


def _kind_of(file: Path) -> str:
    """Name the layout of a file by its name and first line."""
    if LHOTSE.fullmatch(file.name):
        return "lhotse"
    if file.suffix in PACKED:
        return "hf"
    if _is_json(file):
        return "hf" if file.name == "metadata.jsonl" else "jsonl"
    first = next((line for _, line in json_lines(file, []) if isinstance(line, str)), "")
    if "client_id" in first:
        return "commonvoice"
    if "file_name" in first:
        return "hf"
    return "ljspeech" if file.name == "metadata.csv" and "|" in first else "table"


def _read_columns(file: Path, wanted: Wanted, find: Find) -> Iterator[Row | Problem]:
    """Read everything but the audio of a parquet or arrow file; or the paths that it holds."""
    names, _ = _open_arrow(file)
    roles = dict(zip(names, tables.roles_of(str(file), names, wanted), strict=True))
    sound = next(name for name in names if roles[name] == "audio")
    first = next(arrow_rows(file, [sound], batch_size=1), {sound: None})
    has_paths = isinstance(first[sound], str)
    own = "-" if has_paths else "audio"
    read = [name for name in names if roles[name] not in ("-", own)]
    for number, values in enumerate(arrow_rows(file, read)):
        where = f"{file.name}:{number + 1}"
        known = {roles[name]: value for name, value in values.items()}
        if has_paths:
            yield tables.row_of(where, known, find)
            continue
        row = tables.row_of(where, {**known, "audio": f"{file.stem}-{number:06d}"}, str)
        yield replace(row, audio="", packed=(file, sound, number)) if isinstance(row, Row) else row


def arrow_rows(file: Path, columns: Sequence[str], batch_size: int = 1024) -> Iterator[Record]:
    """Yield the rows of a parquet or arrow file; a batch of them is in memory."""
    _, batches = _open_arrow(file, list(columns), batch_size)
    for batch in batches:
        yield from batch.select(list(columns)).to_pylist()


def _open_arrow(
    file: Path, columns: list[str] | None = None, batch_size: int = 1024
) -> tuple[list[str], Iterator[Any]]:
    """Open a file with pyarrow, where it is installed: column names and batches."""
    try:
        from pyarrow import ipc
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise user_error("prepare.no_pyarrow", file) from None
    try:
        if file.suffix == ".arrow":
            stream = ipc.open_stream(file.open("rb"))
            return list(stream.schema.names), iter(stream)
        parquet = ParquetFile(file)
        batches = parquet.iter_batches(batch_size=batch_size, columns=columns)
        return list(parquet.schema_arrow.names), batches
    except Exception as error:  # pyarrow's own types, OSError, ValueError
        raise user_error("prepare.torn_arrow", file, found=error) from None


def _read_cuts(file: Path) -> Iterator[Row | Problem]:
    """Read lhotse's cuts, or supervisions with their recordings, one row a supervision."""
    recordings: dict[str, Record] = {}
    if "supervisions" in file.name:
        beside = file.with_name(file.name.replace("supervisions", "recordings"))
        if not beside.is_file():
            raise user_error("prepare.no_recordings_beside", beside)
        for _, item in tables.json_rows(beside, "a recording"):
            if not isinstance(item, Problem):
                recordings[str(item.get("id"))] = item
    for where, item in tables.json_rows(file, "a cut"):
        if isinstance(item, Problem):
            yield item
            continue
        parts: list[Any] = item.get("supervisions") or [None]
        if "supervisions" not in item and "recording_id" in item:
            recording = recordings.get(str(item["recording_id"]))
            item = {**item, "type": "MonoCut", "recording": recording, "supervisions": [item]}
            parts = [{**item["supervisions"][0], "start": 0.0}]
        for part in parts:
            try:
                yield _of_cut(where, item, part)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                found = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
                yield problem("prepare.bad_cut", where, found=found)


def _of_cut(where: str, item: Record, part: Record | None) -> Row:
    """Make a row of one supervision of a cut; lhotse loads its sound later.

    Raises:
        KeyError, TypeError, ValueError, IndexError: When a field is missing or of another kind.
    """
    if item.get("type", "MonoCut") not in ("MonoCut", "Cut"):
        raise ValueError(f"a {item['type']}; export MonoCuts")
    if part is None:
        raise ValueError("no supervision")
    recording = item["recording"]
    if recording is None:
        raise ValueError(f"no recording {item['recording_id']!r}")
    (source,) = recording["sources"]
    if source["type"] != "file":
        raise ValueError(f"a source of type {source['type']}, not a file")
    text = part.get("text")
    channel: Any = item.get("channel", part.get("channel", 0))
    if not isinstance(text, str):
        raise ValueError(f"text {shown(text, 40)}")
    if part.get("channel", channel) != channel:
        raise ValueError(f"a supervision of channel {part['channel']} in a cut of {channel}")
    if isinstance(channel, list):
        (channel,) = channel
    start_s, length_s = float(item["start"]), float(item["duration"])
    total_s = float(recording["duration"])
    if not (start_s > -0.01 and start_s + length_s <= total_s + 0.05):
        raise ValueError(f"{start_s:g} s + {length_s:g} s in a recording of {total_s:g} s")
    first_s, spoken_s = float(part["start"]), float(part["duration"])
    if not (first_s > -0.05 and spoken_s > 0 and first_s + spoken_s <= length_s + 0.05):
        raise ValueError(f"a supervision of {first_s:g} s + {spoken_s:g} s in {length_s:g} s")
    speaker = part.get("speaker")
    language = part.get("language")
    if not isinstance(speaker, str | int | None) or not isinstance(language, str | None):
        raise ValueError(f"speaker {shown(speaker, 40)}, language {shown(language, 40)}")
    first_s = max(0.0, first_s)
    cut = {
        "type": "MonoCut", "id": str(part["id"]), "channel": int(channel), "recording": recording,
        "start": max(0.0, start_s) + first_s, "duration": min(spoken_s, length_s - first_s),
        "supervisions": [],
    }  # fmt: skip
    return Row(where, str(part["id"]), str(source["source"]), text,
               None if speaker is None else str(speaker), language, cut=cut)  # fmt: skip


def of_speakers(
    rows: Sequence[Row], wanted: Sequence[str]
) -> tuple[list[Row], int, list[str], list[Problem]]:
    """Return the rows of the wanted speakers, and what becomes of the others.

    Beside the rows: how many are of others, full names in order (none where the source names
    nobody), and a problem for each row without a speaker among rows with one.
    """
    counts = Counter(row.speaker for row in rows if row.speaker)
    if not counts and list(wanted) in ([], [ALL]):
        genders = {row.gender.casefold() for row in rows if row.gender}
        if len(genders) > 1:
            raise user_error("prepare.genders", "--columns", found=", ".join(sorted(genders)[:5]))
        return list(rows), 0, [], []
    listed = ", ".join(f"{shown(name, 24)} ({n})" for name, n in counts.most_common(5))

    def unclear(expected: str) -> UserError:
        found = f"{len(counts)}: {listed}" if counts else "none named"
        return user_error("prepare.which_speaker", "--speaker", expected=expected, found=found)

    names = list(counts) if list(wanted) == [ALL] or (not wanted and len(counts) == 1) else []
    for given in wanted if not names else ():
        found = [given] if given in counts else [name for name in counts if name.startswith(given)]
        if len(found) != 1:
            raise unclear(f"one speaker who begins with {given}")
        names += found
    if not names:
        raise unclear("one speaker")
    kept = [row for row in rows if row.speaker in names]
    nobody = [problem("prepare.no_speaker", row.where) for row in rows if not row.speaker]
    return kept, len(rows) - len(kept) - len(nobody), list(dict.fromkeys(names)), nobody
