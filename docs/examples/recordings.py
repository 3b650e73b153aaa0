"""Recordings to try `voxadapt init` on: clips of the miniature, one after another, as one reads.

    python docs/examples/recordings.py voice recordings      # two recordings, one with its text
    python docs/examples/recordings.py sentences malay.txt   # sentences that can be "recorded"
    python docs/examples/recordings.py aloud SCRIPTS FOLDER  # reads pages of a recording script
    python docs/examples/recordings.py correct TABLE         # corrects a table of the first two

Run it where `data/` is, in the repository.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import soundfile as sf

VOICE, LANGUAGE = Path("data/speaker"), Path("data/language/malay")
PAUSE_S = 0.8
NUM_SENTENCES = 12  # in each of the two recordings


def rows(corpus: Path) -> list[dict[str, str]]:
    """Return the rows of a corpus' manifest."""
    lines = (corpus / "train_raw.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def record(corpus: Path, taken: list[dict[str, str]], path: Path) -> list[tuple[float, str]]:
    """Write clips one after another; return when each ends, and its text."""
    parts, ends, seconds = [], [], 0.0
    for row in taken:
        samples, rate_hz = sf.read(corpus / row["audio"], dtype="float32")
        seconds += len(samples) / rate_hz + PAUSE_S
        parts += [samples, np.zeros(round(PAUSE_S * rate_hz), np.float32)]
        ends.append((seconds, row["text"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.concatenate(parts), rate_hz)
    return ends


def voice(folder: Path) -> dict[str, list[tuple[float, str]]]:
    """Write two recordings of the miniature's speaker; the text of the second lies beside it."""
    found = rows(VOICE)
    read = {
        name: record(VOICE, found[start : start + NUM_SENTENCES], folder / f"{name}.wav")
        for name, start in (("monday", 0), ("tuesday", NUM_SENTENCES))
    }
    text = "".join(f"{line}\n" for _, line in read["tuesday"])
    (folder / "tuesday.txt").write_text(text, encoding="utf-8")
    return read


def aloud(scripts: Path, folder: Path) -> None:
    """Read each page of a recording script aloud."""
    known = {row["text"]: row for row in rows(LANGUAGE)}
    for page in sorted(scripts.glob("script-*.txt")):
        lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line]
        taken = [known[line] for line in lines if not line.startswith("#")]
        record(LANGUAGE, taken, folder / f"{page.stem}.wav")


def correct(table: Path, read: dict[str, list[tuple[float, str]]]) -> None:
    """Write into a table of transcripts what is said in each clip, and that it was checked."""
    with open(table, encoding="utf-8-sig", newline="") as stream:
        found = list(csv.DictReader(stream))
    for row in found:
        name, _, start_ms = Path(row["clip"]).stem.rpartition("-")
        row["text"] = next(text for end_s, text in read[name] if int(start_ms) / 1000 < end_s)
        row["checked"] = "yes"
    with open(table, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(found[0]))
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    what, *paths = sys.argv[1], *map(Path, sys.argv[2:])
    if what == "voice":
        voice(paths[0])
    elif what == "sentences":
        text = "".join(f"{row['text']}\n" for row in rows(LANGUAGE))
        paths[0].write_text(text, encoding="utf-8")
    elif what == "aloud":
        aloud(*paths)
    elif what == "correct":
        correct(paths[0], voice(Path("recordings")))
    else:
        sys.exit(__doc__)
