"""Tables of a corpus: lines of cells with or without a header, and JSON objects, as rows.

A column is known by the header, by what it holds, or because the user says so. Where neither the
header nor the content is clear, nothing is guessed.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from math import isfinite, isnan
from pathlib import Path
from statistics import median
from typing import Any, cast

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.problems import problem, user_error
from voxadapt.core.records import Record
from voxadapt.core.strict_yaml import read_yaml
from voxadapt.data.lines import DuplicateKeyError, json_lines, parse_object, shown, unique_object
from voxadapt.data.text import num_spoken_characters

Find = Callable[[str], str]  # the audio that a cell names, relative to the folder of the audio
Span = tuple[float, float]  # start and length, seconds
LJSPEECH = ("audio", "text", "normalised")
ROLES = ("audio", "text", "normalised", "speaker", "language", "offset", "end", "duration", "-")
#: Names of columns in headers, by what they hold, as `_folded` writes them: the first counts.
NAMES = {
    role: names.split()
    for role, names in cast(
        "dict[str, str]", read_yaml(Path(__file__).with_name("columns.yaml"))
    ).items()
}
#: Names that hold what `NAMES` may not pass over, in other words or units.
_UNITS = "ms|msec|milli|sample|frame|tick|byte|index"
_NOT_KNOWN = {
    "speaker": "speaker|spk|talker|sprecher|locut",
    "offset": rf"(start|begin|onset|offset|end|stop)({_UNITS})|(sample|frame)s?(start|offset|end)"
    "|^(from|to|onset|t[01]|[tx]min|[tx]max)$",
}
PLACES = ("", "wavs/", "clips/", "wav/", "audio/")
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
LANGUAGES = frozenset(
    "zh en ja ko yue de fr ru pt es it ms id all_zh all_ja all_ko all_yue jp kr auto".split()
)
NO_VALUE = ("nan", "NaN", "<NA>", "N/A")  # what tools write into an empty cell
MAX_CONTRADICTION_S = 0.1  # of an end and a duration
SAMPLED = 500  # rows that say what a column holds
ALIKE = 0.5  # of two texts of a row, the second is the first, normalised
MAX_RECORD_LINES = 20
_PHONEMES = re.compile("[ˈˌː]")


@dataclass(frozen=True)
class Row:
    """One utterance of a source."""

    where: str  # file and line, for messages
    name: str  # what the clip may be called
    audio: str  # path as the source gives it; absolute, or relative to the folder of the audio
    text: str  # transcript
    speaker: str | None = None  # as the source names it; None where it does not
    language: str | None = None  # as the source names it
    gender: str | None = None  # as the source names it
    channel: str | None = None  # the same, of the file's channels
    span_s: Span | None = None  # start and length in the file, seconds; None for the whole file
    length_s: float | None = None  # length that the source states, to be held against the file
    #: File of pyarrow's, column and row in it that hold the audio itself.
    packed: tuple[Path, str, int] | None = None
    cut: Mapping[str, Any] | None = None  # lhotse's cut of one supervision, as its JSON has it


@dataclass(frozen=True)
class Wanted:
    """What the user says of the columns."""

    columns: tuple[str, ...] = ()  # role of each column, in order; none where the table shows it
    text_column: str | None = None  # name of the column that holds the text
    #: Whether `--format` says that there is id, text and, perhaps, normalised text.
    is_ljspeech: bool = False

    @classmethod
    def of(cls, columns: str | None, text_column: str | None, kind: str | None = None) -> Wanted:
        """Check `--columns`."""
        listed = tuple(part.strip() for part in columns.split(",")) if columns else ()
        needed = {"audio", "text"} - {"text" if part == "normalised" else part for part in listed}
        repeated = [part for part in set(listed) - {"-"} if listed.count(part) > 1]
        if listed and (needed or repeated or set(listed) - set(ROLES)):
            facts = {"roles": ", ".join(ROLES[:-1]), "found": columns}
            raise user_error("prepare.columns_option", "--columns", **facts)
        return cls(listed, text_column, kind == "ljspeech")


def read_table(file: Path, wanted: Wanted, find: Find) -> Iterator[Row | Problem]:
    """Read the lines of a table; refuse one of which it is not clear which column is what."""
    lines = list(json_lines(file, []))
    readable = [(number, line) for number, line in lines if isinstance(line, str)]
    problems = [line for _, line in lines if isinstance(line, Problem)]
    if not readable:
        raise UserError(problems or problem("prepare.no_rows", file))
    if len(lines) == 1 and "\r" in readable[0][1]:
        raise user_error("prepare.carriage_returns", file)
    if re.fullmatch(r'"?sep=.?"?', readable[0][1].strip()):  # for a spreadsheet
        readable = readable[1:] or readable
    first = next((at for at, (_, line) in enumerate(readable) if line[:1] != "#"), 0)
    if _header_mark(readable[first][1]) and not _header_mark(readable[0][1]):
        readable = readable[first:]  # comments stand over the header
    yield from problems
    delimiter, roles, has_header = _dialect(file, [line for _, line in readable], wanted, find)
    audio_at, width = roles.index("audio"), len(roles)

    def is_row(line: str) -> bool:
        cells = _cells(line, delimiter) or []
        return len(cells) == width and Path(find(cells[audio_at])).suffix.lower() in SUFFIXES

    for number, cells, line in _records(readable[has_header:], delimiter, width, is_row):
        where = f"{file.name}:{number}"
        short = roles[-1:] == ("normalised",) and cells is not None and len(cells) == width - 1
        if cells is None or (len(cells) != width and not short):
            found = "an open quotation mark" if cells is None else f"{len(cells)}: {shown(line)}"
            yield problem("prepare.row_width", where, width=width, found=found, delimiter=delimiter)
        else:
            yield row_of(where, dict(zip(roles, cells, strict=False)), find)


def read_objects(file: Path, wanted: Wanted, find: Find) -> Iterator[Row | Problem]:
    """Read JSON objects, one a line or in a list."""
    given: dict[str, str] = {}
    for where, values in json_rows(file, '{"audio": "…", "text": "…"}'):
        if isinstance(values, Problem):
            yield values
            continue
        if wanted.columns and not given:  # in the order of the first object's keys
            given = dict(zip(values, roles_of(where, list(values), wanted), strict=True))
        if "audios" in values or "messages" in values:
            values = _of_messages(values)
        names = [key for key, value in values.items() if value is not None]
        try:
            roles = [given.get(name, "-") for name in names] if given else (
                of_header(where, names, wanted.text_column))  # fmt: skip
        except UserError as error:
            yield error.problems[0]
            continue
        known = {role: values[name] for name, role in zip(names, roles, strict=True) if role != "-"}
        yield row_of(where, known, find)


def json_rows(file: Path, shape: str) -> Iterable[tuple[str, Record | Problem]]:
    """Return where each object of a file stands, and the object or what is wrong with it."""
    with open(file, "rb") as stream:
        begins = stream.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")[:1]
    if (file.suffix == ".json" or begins == b"[") and (listed := _json_list(file)) is not None:
        return listed
    return (
        (where, line if isinstance(line, Problem) else parse_object(where, line, shape))
        for number, line in json_lines(file, [])
        for where in [f"{file.name}:{number}"]
    )


def _json_list(file: Path) -> list[tuple[str, Record | Problem]] | None:
    """Read a JSON file that holds one list of objects; None: it has objects line by line."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        try:
            values = json.loads(text, object_pairs_hook=unique_object)
        except json.JSONDecodeError:
            if text.lstrip().startswith("{"):
                return None
            raise
        if isinstance(values, dict) and "\n" not in text.strip():
            return None
        if not isinstance(values, list):
            raise ValueError(f"{type(values).__name__}")
    except DuplicateKeyError as error:
        raise user_error("prepare.json_list", file, found=f"the key {error} twice") from None
    except (OSError, ValueError, RecursionError) as error:
        raise user_error("prepare.json_list", file, found=error) from None
    return [
        (where, item)
        if isinstance(item, dict)
        else (where, problem("prepare.no_object", where, found=shown(item, 40)))
        for number, item in enumerate(values, start=1)
        for where in [f"{file.name}, row {number}"]
    ]


def _of_messages(values: Record) -> Record:
    """Turn a dialogue with one recording into audio and text: what is said beside `<audio>`."""
    known = {key: value for key, value in values.items() if key not in ("messages", "audios")}
    audios, messages = values.get("audios"), values.get("messages")
    if isinstance(audios, list) and len(audios) == 1:
        known["audio"] = audios[0]
    elif audios is not None:
        known["audio"] = audios
    said: dict[object, list[str]] = {}
    for item in messages if isinstance(messages, list) else []:
        if isinstance(item, dict) and isinstance(item.get("content"), str):
            said.setdefault(item.get("role"), []).append(item["content"])
    answers, questions = said.get("assistant", [""]), said.get("user", [""])
    if len(answers) > 1 or len(questions) > 1:
        return {**known, "text": [*questions, *answers]}
    (answer,), (asked,) = answers, questions
    if text := (answer if "<audio>" not in answer else asked).replace("<audio>", "").strip():
        known["text"] = text
    return known


def row_of(where: str, values: Record, find: Find) -> Row | Problem:
    """Make a row of values by role, or say which of them is wrong."""
    audio = values.get("audio")
    if isinstance(audio, dict):
        audio = audio.get("path")
    text = values.get("normalised") or values.get("text")
    text = None if text in NO_VALUE else text
    for role, value in (("audio", audio), ("text", text)):
        if not isinstance(value, str):
            found = f"{type(value).__name__} {shown(value, 40)}" if value is not None else "none"
            return problem("prepare.no_string", where, role=role, found=found)
    assert isinstance(audio, str) and isinstance(text, str)
    values = {key: _plain_number(value) for key, value in values.items()}
    names = []
    for role in ("speaker", "language", "gender", "channel"):
        name = values.get(role)
        if not isinstance(name, str | int | None):
            return problem("prepare.no_name", where, role=role, found=shown(name, 40))
        written = "" if name is None else str(name).strip()
        names.append(None if written in ("", "None", "null", "NULL", *NO_VALUE) else written)
    try:
        start_s, end_s, length_s = (
            seconds(values.get(key)) for key in ("offset", "end", "duration")
        )
    except ValueError as error:
        return problem("prepare.no_seconds", where, found=error)
    audio = find(audio.strip())
    row = Row(where, Path(audio).stem, audio, text, names[0], names[1], names[2], names[3])
    if start_s is None and end_s is None:
        return row if length_s is None else replace(row, length_s=length_s)
    stated_s = length_s
    if start_s is not None and end_s is not None:
        length_s = end_s - start_s
        if stated_s is not None and abs(stated_s - length_s) > MAX_CONTRADICTION_S:
            length_s = None
    if start_s is None or length_s is None or length_s <= 0:
        told = shown({"offset": start_s, "end": end_s, "duration": stated_s})
        return problem("prepare.no_duration", where, found=told)
    return replace(row, span_s=(start_s, length_s))


def seconds(value: object) -> float | None:
    """Read a time: a number, or one in a cell; None for none.

    Raises:
        ValueError: When it is none of these, or negative.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(shown(value, 40))
    try:
        found = float(value)
    except ValueError:
        raise ValueError(shown(value, 40)) from None
    if not isfinite(found) or found < 0:
        raise ValueError(shown(value, 40))
    return found


def _plain_number(value: object) -> object:
    """Undo what a table library makes of whole numbers in a column with gaps."""
    if isinstance(value, float) and isnan(value):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- lines and columns ---------------------------------------------------------------------------


def _cells(line: str, delimiter: str) -> list[str] | None:
    """Split one record; None where a quotation mark is open or stands amid a cell."""
    try:
        found = next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True))
    except csv.Error:
        return None
    return [" ".join(cell.split()) for cell in found]


def _records(
    lines: Sequence[tuple[int, str]], delimiter: str, width: int, is_row: Callable[[str], bool]
) -> Iterator[tuple[int, list[str] | None, str]]:
    """Yield line number, cells and line; None for cells that cannot be told apart.

    A quoted text may go over several lines where none of them is a record of its own.
    """
    at = 0
    while at < len(lines):
        number, line = lines[at]
        at += 1
        cells = _cells(line, delimiter)
        if delimiter in "|\t":  # such tables are seldom quoted: a mark may belong to the text
            plain = [" ".join(cell.split()) for cell in line.split(delimiter)]
            marked = [cell for cell in plain if len(cell) > 1 and cell[0] == '"' == cell[-1]]
            is_quoted = len(marked) == width or any('""' in cell for cell in marked)
            if cells is None or (len(plain) == width and not is_quoted):
                cells = plain
        elif cells is None:
            whole, end = line, at
            while end < min(len(lines), at + MAX_RECORD_LINES):
                if is_row(lines[end][1]):
                    break
                whole, end = f"{whole}\n{lines[end][1]}", end + 1
                joined = _cells(whole, delimiter)
                if joined is not None:
                    if len(joined) == width:
                        cells, at = joined, end
                    break
        yield number, cells, line


def _dialect(
    file: Path, lines: Sequence[str], wanted: Wanted, find: Find
) -> tuple[str, tuple[str, ...], bool]:
    """Return delimiter, role of each column, and whether the first line is a header."""
    where = f"{file.name}:1"
    if (delimiter := _header_mark(lines[0])) is not None:
        return delimiter, roles_of(where, _cells(lines[0], delimiter) or [], wanted), True
    best: tuple[float, str, list[list[str]]] | None = None
    for delimiter in "|\t;,":
        parsed = [_cells(line, delimiter) or line.split(delimiter) for line in lines[:SAMPLED]]
        width = Counter(map(len, parsed)).most_common(1)[0][0]
        fitting = [cells for cells in parsed if len(cells) == width]
        share = len(fitting) / len(parsed)
        if width > 1 and (best is None or share > best[0]):
            best = share, delimiter, fitting
    if best is None:
        raise user_error("prepare.no_columns", where, found=shown(lines[0]))
    _, delimiter, sample = best
    ljspeech = [cells for line in lines[:SAMPLED] if len(cells := line.split("|")) == 3]
    if delimiter == "|" and len(sample[0]) == 2 and len(ljspeech) * 5 > len(lines[:SAMPLED]):
        if _of_content(list(zip(*ljspeech, strict=True)), find) == LJSPEECH:
            sample = ljspeech  # some rows have no normalised text
    guessed = wanted.columns or None
    if guessed is None and wanted.is_ljspeech and delimiter == "|" and len(sample[0]) <= 3:
        guessed = LJSPEECH[: len(sample[0])]
    guessed = guessed or _of_content(list(zip(*sample, strict=True)), find)
    if guessed is None or len(guessed) != len(sample[0]):
        raise _unclear(where, lines[0], len(sample[0]))
    if wanted.text_column == "text" and "normalised" in guessed:
        guessed = tuple("-" if role == "normalised" else role for role in guessed)
    elif wanted.text_column not in (None, "text", "normalised"):
        raise user_error("prepare.no_header", "--text-column", found=wanted.text_column)
    text_at = guessed.index("text" if "text" in guessed else "normalised")
    column = [cells[text_at] for cells in sample]
    if sum(bool(_PHONEMES.search(text)) for text in column) > len(column) / 2:
        raise user_error("prepare.phonemes", where, found=shown(column[0]))
    return delimiter, guessed, False


def _header_mark(line: str) -> str | None:
    """Return what stands between the names of a header; None for a line that is none."""
    for delimiter in "|\t;,":
        names = _cells(line, delimiter) or []
        known = {role for role in NAMES if set(map(_folded, names)) & set(NAMES[role])}
        is_header = known & {"audio", "text", "normalised"} and (
            len(known) > 1 or all(re.fullmatch(r"\S+", name) for name in names)
        )
        if is_header and len(names) > 1 and not any(Path(name).suffix for name in names):
            return delimiter
    return None


def _unclear(where: str, line: str, count: int) -> UserError:
    """Ask the user for the columns."""
    example = ",".join([*("audio", "text", "speaker")[:count], *["-"] * (count - 3)])[:200]
    facts = {"count": count, "example": example, "roles": ", ".join(ROLES[:-1])}
    return user_error("prepare.unclear_columns", where, found=shown(line), **facts)


def _folded(name: object) -> str:
    """Write the name of a column as `NAMES` has it."""
    return re.sub(r"[\W_]+", "", str(name).casefold())


def roles_of(where: str, names: Sequence[str], wanted: Wanted) -> tuple[str, ...]:
    """Return the role of each named column, as the user or the names say."""
    if wanted.columns and len(wanted.columns) != len(names):
        raise _unclear(where, ", ".join(names), len(names))
    return wanted.columns or of_header(where, names, wanted.text_column)


def of_header(where: str, names: Sequence[str], text_column: str | None) -> tuple[str, ...]:
    """Return the role of each column of a header."""
    folded = [_folded(name) for name in names]
    found = ", ".join(map(str, names))[:80] or "nothing"
    roles = ["-"] * len(folded)
    for role, known in NAMES.items():
        there = [name for name in known if name in folded]
        if role == "text" and len(there) > 1 and text_column is None:
            raise user_error("prepare.several_texts", where, found=", ".join(there))
        if there and folded.count(there[0]) > 1:
            raise user_error("prepare.column_again", where, name=there[0])
        if there:
            roles[folded.index(there[0])] = role
    if text_column is not None:
        if _folded(text_column) not in folded:
            raise user_error("prepare.no_text_column", where, name=text_column, found=found)
        roles = ["-" if role in ("text", "normalised") else role for role in roles]
        roles[folded.index(_folded(text_column))] = "text"
    for role, pattern in _NOT_KNOWN.items():
        odd = [name for name in folded if re.search(pattern, name)]
        if odd and role not in roles:
            usual = ", ".join(NAMES[role][:4]) + (", in seconds" if role == "offset" else "")
            facts = {"usual": usual, "found": found, "name": shown(names[folded.index(odd[0])])}
            raise user_error("prepare.odd_column", where, **facts)
    for kind, role, either in (
        ("prepare.no_audio_column", "audio", {"audio"}),
        ("prepare.no_text_column", "text", {"text", "normalised"}),
    ):
        if not either & set(roles):
            raise user_error(kind, where, name=", ".join(NAMES[role][:6]), found=found)
    return tuple(roles)


def _of_content(columns: Sequence[Sequence[str]], find: Find) -> tuple[str, ...] | None:
    """Tell the columns of a table without a header by what they hold; None where it is unclear."""
    kinds = [_kind(column, find) for column in columns]
    if kinds.count("audio") > 1:  # a speaker's number may be the name of a file as well
        kinds = [_kind(column, str) for column in columns]
    texts = [at for at, kind in enumerate(kinds) if kind == "text"]
    if len(texts) == 2 and texts[1] - texts[0] == 1:
        pairs = list(zip(columns[texts[0]], columns[texts[1]], strict=True))[:50]
        if median(SequenceMatcher(None, a, b).ratio() for a, b in pairs) >= ALIKE:
            kinds[texts[1]] = "normalised"
    counts = Counter(kinds)
    if "language" in kinds and counts["label"] == 1:
        kinds[kinds.index("label")] = "speaker"
    elif counts["number"] == 1:
        kinds[kinds.index("number")] = "speaker"
    if len(columns) == 2 and counts["audio"] == 1:  # there is nothing else that it could be
        kinds = ["audio" if kind == "audio" else "text" for kind in kinds]
    kinds = ["-" if kind == "empty" else kind for kind in kinds]
    is_clear = kinds.count("audio") == kinds.count("text") == 1 and set(kinds) <= set(ROLES)
    return tuple(kinds) if is_clear and kinds.count("language") < 2 else None


def _kind(column: Sequence[str], find: Find) -> str:
    """Say what the cells of a column look like."""
    filled = [cell for cell in column if cell]
    if not filled:
        return "empty"
    if sum(Path(find(cell)).suffix.lower() in SUFFIXES for cell in filled) * 2 >= len(column):
        return "audio"
    distinct = len(set(filled)) / len(filled)
    if all(re.fullmatch(r"\d{1,6}", cell) for cell in filled):
        return "number" if distinct <= 0.5 or len(filled) < 8 else "label"
    if all(cell.casefold() in LANGUAGES for cell in filled):
        return "language"
    is_long = median(num_spoken_characters(cell) for cell in filled) >= 8
    has_words = sum(" " in cell for cell in filled) * 2 > len(filled)
    varied = distinct > 0.3 or len(filled) < 3
    return "text" if varied and (is_long or has_words) else "label"
