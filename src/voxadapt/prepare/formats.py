"""Corpora in other layouts, read as rows; what cannot be read is a problem with file and line."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from voxadapt.core.errors import Problem, UserError
from voxadapt.data.lines import MAX_LINE_BYTES, shown

FORMATS = ("ljspeech", "commonvoice", "lhotse", "hf")
TEXT_COLUMNS = ("text", "transcription", "transcript", "sentence", "normalized_text")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "speaker_name")


Span = tuple[float, float]  # start and length, seconds


@dataclass(frozen=True)
class Row:
    """One utterance of a source.

    Attributes:
        where: File and line, for messages.
        name: What the clip may be called.
        audio: Path as the source gives it; absolute, or relative to the folder of the audio.
        text: Transcript.
        speaker: As the source names it; None where it does not.
        span_s: Start and length in the file, seconds; None for the whole file.
        channel: Channel of the file; None for all of them as they are.
        packed: Parquet file and row that hold the audio itself.
    """

    where: str
    name: str
    audio: str
    text: str
    speaker: str | None = None
    span_s: Span | None = None
    channel: int | None = None
    packed: tuple[Path, int] | None = None


def find_layout(source: Path, given: str | None) -> str:
    """Say which layout a source has."""
    if given is not None:
        if given not in FORMATS:
            known = ", ".join(FORMATS)
            raise UserError(Problem("--format", f"one of {known}", given, "Correct it."))
        return given
    names = [source.name] if source.is_file() else sorted(p.name for p in source.iterdir())
    if any(re.fullmatch(r".*(cuts|supervisions).*\.jsonl(\.gz)?", name) for name in names):
        return "lhotse"
    if any(name.endswith(".tsv") for name in names):
        return "commonvoice"
    if "metadata.csv" in names:
        file = source if source.is_file() else source / "metadata.csv"
        with open(file, encoding="utf-8-sig", errors="replace") as stream:
            head = stream.readline(MAX_LINE_BYTES)
        return "hf" if "file_name" in head else "ljspeech"
    if any(name.endswith(".parquet") or name == "metadata.jsonl" for name in names):
        return "hf"
    if source.is_dir() and (_metadata_files(source) or list(source.glob("*/*.parquet"))):
        return "hf"
    if any(name.endswith(".arrow") or name == "dataset_dict.json" for name in names):
        fix = "Write it with dataset.to_parquet(…), and import that."
        raise UserError(
            Problem(str(source), "a folder of parquet files", "one of save_to_disk", fix)
        )
    raise UserError(
        Problem(
            str(source),
            "metadata.csv (LJSpeech), a .tsv (Common Voice), cuts or supervisions .jsonl(.gz) "
            "(lhotse), metadata.csv/.jsonl or .parquet (Hugging Face)",
            ", ".join(names[:5]) or "an empty folder",
            f"Name the file itself, or --format {'|'.join(FORMATS)}; "
            "recordings go with `voxadapt init`.",
        ),
        "The layout of the source is not known.",
    )


Found = tuple[list[Path], list[Row], list[Problem]]


def _read_ljspeech(source: Path, text_column: str | None) -> Found:
    """Read `id|text|normalised` lines; the normalised text is taken where there is one."""
    file = _one_file(source, "metadata.csv")
    if text_column not in (None, "text", "normalised"):
        raise UserError(Problem("--text-column", "text or normalised", text_column, "Correct it."))
    folder = file.parent
    rows: list[Row] = []
    problems: list[Problem] = []
    for where, line in _lines(file, problems):
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 2 or not cells[0]:
            expected = "id|text or id|text|normalised"
            problems.append(Problem(where, expected, shown(line), "Mend the line."))
            continue
        text = cells[1]
        if len(cells) > 2 and cells[2] and text_column != "text":
            text = cells[2]
        audio = cells[0]
        if "/" not in audio and not (Path(audio).suffix and (folder / audio).is_file()):
            audio = next(
                (path for path in (f"wavs/{audio}.wav", f"{audio}.wav", f"wavs/{audio}.flac")
                 if (folder / path).is_file()),
                f"wavs/{audio}.wav",
            )  # fmt: skip
        rows.append(Row(where, Path(cells[0]).stem, audio, text))
    return [file], rows, problems


def _read_commonvoice(source: Path, text_column: str | None) -> Found:
    """Read a TSV with client_id, path and sentence; clips lie in `clips/` beside it."""
    file = source
    if source.is_dir():
        listed = [source / name for name in ("validated.tsv", "train.tsv")]
        listed += sorted(source.glob("*.tsv"))
        file = next((path for path in listed if path.is_file()), source / "validated.tsv")
    column = text_column or "sentence"
    rows: list[Row] = []
    problems: list[Problem] = []
    for where, values in _table(file, "\t", ("client_id", "path", column), problems):
        audio = values["path"]
        name = audio if (file.parent / audio).is_file() else f"clips/{audio}"
        rows.append(Row(where, Path(audio).stem, name, values[column], values["client_id"]))
    return [file], rows, problems


def _read_hf(source: Path, text_column: str | None) -> Found:
    """Read an audiofolder's metadata, or parquet files that hold the audio itself."""
    if source.is_file():
        files = [source]
    else:
        files = _metadata_files(source) or sorted(
            [*source.glob("*.parquet"), *source.glob("*/*.parquet")]
        )
    if not files:
        expected = "metadata.csv, metadata.jsonl or .parquet files"
        raise UserError(Problem(str(source), expected, "none of them", "Name the file itself."))
    rows: list[Row] = []
    problems: list[Problem] = []
    home = source if source.is_dir() else source.parent
    for file in files:
        if file.suffix == ".parquet":
            rows += _read_parquet(file, text_column)
            continue
        listed: Iterable[tuple[str, Mapping[str, object]]]
        if file.suffix == ".csv":
            listed = _table(file, ",", ("file_name",), problems)
        else:
            listed = _objects(file, problems)
        for where, values in listed:
            text, who = _column(where, values, text_column, problems), _speaker(values)
            audio = values.get("file_name")
            if not isinstance(audio, str):
                found = f"the columns {', '.join(map(str, values))[:60]}"
                problems.append(Problem(where, "a file_name", found, "Add the column."))
            elif text is not None:
                below = file.parent.relative_to(home)
                name = audio if below == Path() else f"{below.as_posix()}/{audio}"
                rows.append(Row(where, Path(audio).stem, name, text, who))
    return files, rows, problems


def _read_parquet(file: Path, text_column: str | None) -> list[Row]:
    """Read everything but the audio of a parquet file."""
    names: list[str] = _open_parquet(file).schema_arrow.names
    if "audio" not in names:
        found = ", ".join(names[:8])
        raise UserError(Problem(str(file), "a column audio", found, "Rename the column."))
    column = text_column or next((name for name in TEXT_COLUMNS if name in names), None)
    if column is None or column not in names:
        raise UserError(_no_text(str(file), names, text_column))
    speaker = next((name for name in SPEAKER_COLUMNS if name in names), None)
    rows = []
    columns = [name for name in (column, speaker) if name]
    for number, values in enumerate(parquet_rows(file, columns)):
        text, voice = values[column], None if speaker is None else values[speaker]
        rows.append(
            Row(
                f"{file.name}:{number + 1}",
                f"{file.stem}-{number:06d}",
                "",
                text if isinstance(text, str) else "",
                None if voice is None else str(voice),
                packed=(file, number),
            )
        )
    return rows


def parquet_rows(
    file: Path, columns: Sequence[str], batch_size: int = 1024
) -> Iterator[dict[str, object]]:
    """Yield the rows of a parquet file; `batch_size` of them are in memory."""
    for batch in _open_parquet(file).iter_batches(batch_size=batch_size, columns=columns):
        yield from batch.to_pylist()


def _open_parquet(file: Path) -> Any:
    """Open a parquet file with pyarrow, where it is installed."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        fix = "pip install pyarrow; or write the data set as a folder with metadata.csv."
        raise UserError(
            Problem(str(file), "pyarrow, which reads parquet", "it is not installed", fix)
        ) from None
    try:
        return ParquetFile(file)
    except Exception as error:  # pyarrow's own types, OSError, ValueError
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            Problem(str(file), "a parquet file", reason, "Fetch the file again.")
        ) from None


def _read_lhotse(source: Path, text_column: str | None) -> Found:
    """Read cuts, or supervisions with the recordings beside them, as plain JSON lines."""
    if text_column not in (None, "text"):
        raise UserError(Problem("--text-column", "text, as lhotse has it", text_column, "Drop it."))
    file = source
    if source.is_dir():
        listed = sorted(path for path in source.iterdir() if ".jsonl" in path.suffixes)
        file = next(
            (p for key in ("cuts", "supervisions") for p in listed if key in p.name), source
        )
    problems: list[Problem] = []
    rows: list[Row] = []
    files = [file]
    recordings: dict[str, Any] = {}
    if "supervisions" in file.name:
        beside = file.with_name(file.name.replace("supervisions", "recordings"))
        if not beside.is_file():
            fix = "Put recordings.jsonl.gz beside it, or import cuts."
            raise UserError(Problem(str(beside), "the recordings of the supervisions", "nothing",
                                    fix))  # fmt: skip
        files.append(beside)
        recordings = {str(item.get("id")): item for _, item in _objects(beside, problems)}
    for where, item in _objects(file, problems):
        try:
            for part in _supervised(item, recordings):
                rows.append(replace(part, where=where))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
            problems.append(
                Problem(where, "a cut with recording and supervisions", found, "Mend the line.")
            )
    return files, rows, problems


def _supervised(item: Mapping[str, Any], recordings: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the utterances of a cut, or the one of a supervision.

    Raises:
        KeyError, TypeError, ValueError, IndexError: When a field is missing or of another kind.
    """
    if "recording_id" in item and "recording" not in item:
        if item["recording_id"] not in recordings:
            raise ValueError(f"no recording {item['recording_id']!r}")
        parts: list[tuple[Mapping[str, Any], Mapping[str, Any], float]] = [
            (item, recordings[item["recording_id"]], 0.0)
        ]
    else:
        if item.get("type", "MonoCut") not in ("MonoCut", "Cut"):
            raise ValueError(f"a {item['type']}; export MonoCuts")
        parts = [(part, item["recording"], float(item["start"])) for part in item["supervisions"]]
        if not parts:
            raise ValueError("no supervision")
    for part, recording, offset_s in parts:
        if len(recording["sources"]) != 1 or recording["sources"][0]["type"] != "file":
            raise ValueError(f"sources {[s['type'] for s in recording['sources']]}, not one file")
        start_s, length_s = offset_s + float(part["start"]), float(part["duration"])
        total_s = float(recording["duration"])
        if not (start_s > -0.01 and length_s > 0 and start_s + length_s <= total_s + 0.05):
            raise ValueError(f"{start_s:g} s + {length_s:g} s in a recording of {total_s:g} s")
        whole = start_s < 0.005 and length_s >= total_s - 0.005
        channel = part.get("channel", 0)
        channel = int(channel[0] if isinstance(channel, list) else channel)
        source = str(recording["sources"][0]["source"])
        yield Row("", str(part["id"]), source, str(part.get("text") or ""),
                  None if part.get("speaker") is None else str(part["speaker"]),
                  None if whole else (max(0.0, start_s), length_s),
                  None if whole else channel)  # fmt: skip


READERS: Mapping[str, Callable[[Path, str | None], Found]] = {
    "ljspeech": _read_ljspeech,
    "commonvoice": _read_commonvoice,
    "lhotse": _read_lhotse,
    "hf": _read_hf,
}


def _one_file(source: Path, name: str) -> Path:
    file = source / name if source.is_dir() else source
    if not file.is_file():
        raise UserError(Problem(str(file), "a file", "nothing", "Name the file itself."))
    return file


def _metadata_files(source: Path) -> list[Path]:
    names = ("metadata.csv", "metadata.jsonl")
    return sorted(p for name in names for p in [*source.glob(name), *source.glob(f"*/{name}")])


def _lines(file: Path, problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """Yield the lines of a text file, perhaps gzipped, with where they stand."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as stream:
            number = 0
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                where = f"{file.name}:{number}"
                if len(raw) > MAX_LINE_BYTES:
                    raise UserError(
                        Problem(where, f"lines of at most {MAX_LINE_BYTES} bytes", "a longer one",
                                "Give one utterance a line.")
                    )  # fmt: skip
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
                except UnicodeDecodeError as error:
                    found = f"byte 0x{raw[error.start]:02x}"
                    problems.append(Problem(where, "UTF-8", found, "Save the file as UTF-8."))
                    continue
                if line.strip():
                    yield where, line
    except (OSError, EOFError) as error:
        raise UserError(
            Problem(str(file), "a file that can be read", str(error) or "cut off",
                    "Fetch the file again.")
        ) from None  # fmt: skip


def _table(
    file: Path, delimiter: str, needed: Sequence[str], problems: list[Problem]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a table with a header; a row of another width is a problem."""
    if not file.is_file():
        raise UserError(Problem(str(file), "a file", "nothing", "Name the file itself."))
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = (
                csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
                if delimiter == "\t"
                else csv.reader(stream, delimiter=delimiter)
            )
            header = next(reader, [])
            missing = [name for name in needed if name not in header]
            if missing:
                found = ", ".join(header)[:80] or "an empty file"
                raise UserError(
                    Problem(f"{file.name}:1", f"the columns {', '.join(missing)}", found,
                            "Correct the header, or name --format or --text-column.")
                )  # fmt: skip
            for cells in reader:
                where = f"{file.name}:{reader.line_num}"
                if not cells:
                    continue
                if len(cells) != len(header):
                    found = str(len(cells))
                    problems.append(
                        Problem(where, f"{len(header)} columns", found, "Mend the line.")
                    )
                    continue
                yield where, dict(zip(header, cells, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            Problem(str(file), "a table in UTF-8", " ".join(str(error).split())[:120],
                    "Save the file as UTF-8.")
        ) from None  # fmt: skip


def _objects(file: Path, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON objects of a file, one a line."""
    for where, line in _lines(file, problems):
        try:
            item = json.loads(line)
            if not isinstance(item, dict):
                raise ValueError(type(item).__name__)
        except (ValueError, RecursionError) as error:
            found = f"{type(error).__name__}: {str(error)[:60]}"
            problems.append(Problem(where, "one JSON object a line", found, "Mend the line."))
            continue
        yield where, item


def _column(
    where: str, values: Mapping[str, object], given: str | None, problems: list[Problem]
) -> str | None:
    """Return the text of a row; None after noting that there is none."""
    name = given or next((name for name in TEXT_COLUMNS if name in values), None)
    if name is None or name not in values:
        problems.append(_no_text(where, list(values), given))
        return None
    value = values[name]
    return value if isinstance(value, str) else ""


def _no_text(where: str, names: Sequence[str], given: str | None) -> Problem:
    expected = f"a column {given}" if given else f"a column {', '.join(TEXT_COLUMNS)}"
    return Problem(where, expected, ", ".join(map(str, names))[:80], "Name it with --text-column.")


def _speaker(values: Mapping[str, object]) -> str | None:
    name = next((name for name in SPEAKER_COLUMNS if values.get(name) not in (None, "")), None)
    return None if name is None else str(values[name])


def of_speaker(rows: list[Row], wanted: str | None) -> tuple[list[Row], int, str | None]:
    """Return the rows of one speaker, how many others have, and the speaker's full name."""
    counts = Counter(row.speaker for row in rows if row.speaker)
    listed = ", ".join(f"{shown(name, 24)} ({n})" for name, n in counts.most_common(5))
    names = [name for name in counts if wanted is not None and name.startswith(wanted)]
    if wanted is not None and wanted in counts:
        names = [wanted]
    if wanted is None and len(counts) < 2:
        names = list(counts)
        if not names:
            return rows, 0, None
    if len(names) != 1:
        expected = "one speaker" if wanted is None else f"one speaker who begins with {wanted}"
        raise UserError(
            Problem("--speaker", expected, f"{len(counts)}: {listed}" if counts else "none named",
                    "Name one; the beginning will do. A manifest holds one voice."),
            "It is not clear whose recordings to import.",
        )  # fmt: skip
    kept = [row for row in rows if row.speaker == names[0]]
    return kept, len(rows) - len(kept), names[0]
