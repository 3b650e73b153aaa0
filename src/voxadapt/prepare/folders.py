"""Corpora without one table: data directories of Kaldi, and texts beside clips."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from voxadapt.core.errors import Problem
from voxadapt.core.problems import problem
from voxadapt.data.lines import json_lines, shown
from voxadapt.prepare.tables import SUFFIXES, Find, Row, row_of

KALDI = ("wav.scp", "text")
KALDI_MAY_HAVE = ("segments", "utt2spk", "spk2utt", "utt2lang", "reco2file_and_channel")
TEXT_ENDINGS = (".normalized.txt", ".txt", ".TXT", ".lab")  # of LibriTTS, of many, of aligners
_LABEL = re.compile(r"\s*\d+(?:[.,]\d+)?\s+\d+(?:[.,]\d+)?\s")  # start, end, and what is there

_NUMBERED = re.compile(r"[\[(\s]*\w*\d[\w.:-]*[\])|.:\s]")  # 12. or utt_12 or [0:12.5]
_NAMED = re.compile(r"[^\s:]{1,20}:\s")  # who speaks


def kaldi_files(folder: Path) -> list[Path]:
    """Return the files that are read of a data directory of Kaldi or ESPnet; none of another."""
    files = [folder / name for name in (*KALDI, *KALDI_MAY_HAVE) if (folder / name).is_file()]
    return files if {path.name for path in files} >= set(KALDI) else []


def read_kaldi(folder: Path, find: Find) -> Iterator[Row | Problem]:
    """Read the utterances of `text`, with their recordings, segments and speakers.

    A recording that `wav.scp` makes with a command is not read: nothing is run.
    """
    problems: list[Problem] = []
    recordings, speakers, segments, languages, channels = (
        dict(_pairs(folder / name, problems))
        for name in ("wav.scp", "utt2spk", "segments", "utt2lang", "reco2file_and_channel")
    )
    if not speakers:
        for speaker, (where, named) in _pairs(folder / "spk2utt", problems):
            speakers |= dict.fromkeys(named.split(), (where, speaker))
    utterances = list(_pairs(folder / "text", problems))
    yield from problems
    for name, (where, text) in utterances:
        values: dict[str, object] = {"text": text, "speaker": speakers.get(name, ("", None))[1],
                                     "language": languages.get(name, ("", None))[1]}  # fmt: skip
        recording = name
        if segments:
            _, segment = segments.get(name, ("", ""))
            recording, *ends = segment.split() or [""]
            try:
                start_s, end_s = (float(end) for end in ends)
            except ValueError:
                there = shown(segment) if segment else "none"
                yield problem("prepare.no_segment", where, found=there)
                continue
            values |= {"offset": start_s, "duration": end_s - start_s}
        if recording in channels:
            values["channel"] = " ".join(channels[recording][1].split()[-1:])
        _, audio = recordings.get(recording, ("", None))
        if audio is not None and audio.endswith("|"):
            yield problem("prepare.kaldi_command", where, found=shown(audio))
            continue
        row = row_of(where, {**values, "audio": audio}, find)
        yield replace(row, name=name) if isinstance(row, Row) else row


def _pairs(file: Path, problems: list[Problem]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the key of each line of a table of Kaldi with where it stands and what follows."""
    if not file.is_file():
        return
    seen: set[str] = set()
    for number, line in json_lines(file, []):
        where = f"{file.name}:{number}"
        if isinstance(line, Problem):
            problems.append(line)
            continue
        key, *rest = line.split(maxsplit=1)
        if key in seen:
            problems.append(problem("prepare.key_again", where, found=shown(key)))
            continue
        seen.add(key)
        yield key, (where, rest[0].strip() if rest else "")


def texts_beside(folder: Path) -> list[Path]:
    """Return the texts beside the recordings below a folder, if most recordings have one."""
    found = [text for _, text in _clips(folder)]
    texts = [text for text in found if text is not None]
    return texts if 2 * len(texts) > len(found) else []


def read_beside(folder: Path, find: Find) -> Iterator[Row | Problem]:
    """Read every recording below a folder with the text beside it.

    Its speaker is the folder, of those directly below, in which it lies, as in LibriTTS.
    """
    for path, text in _clips(folder):
        where = path.relative_to(folder).as_posix()
        if text is None:
            names = " or ".join(path.stem + ending for ending in TEXT_ENDINGS)
            yield problem("prepare.no_text_beside", where, names=names)
            continue
        found = [line for _, line in json_lines(text, [])]
        wrong = next((line for line in found if isinstance(line, Problem)), None)
        speaker, *deeper = where.split("/")
        lines = [line for line in found if isinstance(line, str)]
        said = " ".join(line.strip() for line in lines)
        values = {"audio": where, "text": said, "speaker": speaker if deeper else None}
        if are_labels(lines):
            wrong = wrong or problem("prepare.labels", text.name, found=shown(said, 40))
        yield wrong or row_of(where, values, find)


def are_labels(lines: Sequence[str]) -> bool:
    """Say whether lines hold more than words: times, as of subtitles; numbers or names, on each."""
    names = {name[0] if (name := _NAMED.match(line)) else "" for line in lines}
    return (
        any("-->" in line for line in lines)
        or (bool(lines) and all(_LABEL.match(line) for line in lines))
        or (len(lines) > 2 and all(_NUMBERED.match(line) for line in lines))
        or (len(lines) > 2 and "" not in names and len(names) < 3)
    )


def _clips(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Yield the recordings below a folder, each with the text beside it; hidden ones are copies."""
    for path in sorted(folder.rglob("*")):
        if any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts):
            continue
        if path.suffix.lower() in SUFFIXES and path.is_file():
            texts = (path.with_name(path.stem + ending) for ending in TEXT_ENDINGS)
            yield path, next((text for text in texts if text.is_file()), None)
