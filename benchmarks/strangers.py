"""Are clips of another voice, and clips whose last word is cut, found by the audit?

    python -m benchmarks.strangers data

Corpora are made of the miniature's ten voices: clips of one, and some of another that nobody
named. Ends are cut within the last sound; intervals resample pairs of voices, or clips.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.results import table, write_section
from numpy.typing import NDArray

from voxadapt.asr.voice_prints import Embedder
from voxadapt.asr.whisper import Transcriber
from voxadapt.core.files import read_jsonl
from voxadapt.core.params import load_params
from voxadapt.data.audio import (
    FRAME_S,
    HOP_S,
    frame_levels_db,
    measure,
    read_mono,
    speech_frames,
    write_wav,
)
from voxadapt.data.audit import MAX_END_DB, loses_its_end
from voxadapt.data.one_voice import alike, compare_voices
from voxadapt.data.text import fold_text

NUM_CLIPS = 96  # of a large voice
NUM_REPLAYS = 1000
NUM_STRANGERS = ((1, 24), (5, 24), (12, 48))  # of another voice, among so many of one
CUT_S = (0.06, 0.3)  # taken away before the end of the last sound
NUM_RESAMPLED = 2000
PROFILE = Path("profiles/miniature.yaml")
ENDS = ("as recorded", "cut behind the last sound", "cut within the last sound")
Voices = dict[str, tuple[NDArray[np.float32], NDArray[np.float64]]]


def files_of(data: Path) -> dict[str, list[Path]]:
    """Return the clips of each voice."""
    files = {
        folder.name: sorted(folder.glob("*.ogg"))
        for folder in sorted((data / "voices").iterdir())
        if folder.is_dir()
    }
    for name, folder in (("slt", data / "speaker"), ("malay", data / "language" / "malay")):
        clips = sorted((folder / "clips").iterdir())
        files[name] = clips[:: max(1, len(clips) // NUM_CLIPS)][:NUM_CLIPS]
    return files


def embedded(files: dict[str, list[Path]]) -> Voices:
    """Embed every clip once."""
    embedder, voices = Embedder("cpu"), {}
    for name, paths in files.items():
        prints = embedder.embed(paths)
        vectors = np.stack([item.embedding for item in prints if item.embedding is not None])
        speech_s = np.array([item.speech_s for item in prints if item.embedding is not None])
        voices[name] = vectors, speech_s
    return voices


def interval(found: Sequence[float], rng: np.random.Generator) -> str:
    """Return mean and 95 % interval of independent rates."""
    values = np.array(found)
    means = rng.choice(values, (NUM_RESAMPLED, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{100 * values.mean():.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


def plant(voices: Voices, rng: np.random.Generator) -> list[list[str]]:
    """Plant strangers; return one row of the table for each share of them."""
    rows = []
    for num_strangers, num_own in NUM_STRANGERS:
        own: dict[tuple[str, str], list[float]] = {}
        strange: dict[tuple[str, str], list[float]] = {}
        count = [0, 0]
        for _ in range(NUM_REPLAYS):
            home = str(rng.choice([name for name in voices if len(voices[name][0]) >= num_own]))
            other = str(rng.choice([name for name in voices if name != home]))
            some = rng.choice(len(voices[home][0]), num_own, replace=False)
            them = rng.choice(len(voices[other][0]), min(num_strangers, 8), replace=False)
            vectors = np.concatenate([voices[home][0][some], voices[other][0][them]])
            speech_s = np.concatenate([voices[home][1][some], voices[other][1][them]])
            found = compare_voices(vectors, speech_s)
            assert found is not None
            flagged = found.similarity < found.limits
            own.setdefault((home, other), []).append(float(flagged[:num_own].mean()))
            strange.setdefault((home, other), []).append(float(flagged[num_own:].mean()))
            count[0], count[1] = count[0] + num_own, count[1] + len(them)
        rates = [
            interval([float(np.mean(v)) for v in rate.values()], rng) for rate in (strange, own)
        ]
        what = f"{min(num_strangers, 8)} among {num_own}"
        rows.append([what, rates[0], str(count[1]), rates[1], str(count[0]), str(len(own))])
    return rows


def pairs_of(voices: Voices) -> str:
    """Say how many pairs of voices, and of halves of one voice, are called one voice."""
    centres = {name: vectors.mean(axis=0) for name, (vectors, _) in voices.items()}
    centres = {name: centre / np.linalg.norm(centre) for name, centre in centres.items()}
    halves = 0
    for vectors, _ in voices.values():
        parts = {str(part): vectors[part::2].mean(axis=0) for part in range(2)}
        halves += len(alike({key: part / np.linalg.norm(part) for key, part in parts.items()}))
    num_pairs = len(voices) * (len(voices) - 1) // 2
    return (
        f"Called one voice: {len(alike(centres))} of {num_pairs} pairs of voices, and {halves} of "
        f"{len(voices)} voices that two names share."
    )


def ends(data: Path, rng: np.random.Generator) -> list[list[str]]:
    """Cut clips within their last sound, and behind it; return the rows of the table."""
    params = load_params(PROFILE)
    rows: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for language, corpus in (("en", data / "speaker"), ("ms", data / "language" / "malay")):
            clips = read_jsonl(corpus / "train_raw.jsonl")
            clips = clips[:: max(1, len(clips) // NUM_CLIPS)][:NUM_CLIPS]
            paths: dict[str, list[Path]] = {}
            for number, clip in enumerate(clips):
                mono, rate_hz = read_mono(corpus / clip["audio"])
                last = np.flatnonzero(speech_frames(frame_levels_db(mono, rate_hz)))[-1]
                end = round((last * HOP_S + FRAME_S) * rate_hz)
                cut = end - round(float(rng.uniform(*CUT_S)) * rate_hz)
                for name, part in zip(ENDS, (mono, mono[:end], mono[:cut]), strict=True):
                    path = Path(folder) / f"{language}-{number}-{len(part)}.wav"
                    write_wav(path, part, rate_hz)
                    paths.setdefault(name, []).append(path)
            transcriber = Transcriber(params.asr.model, language, "cpu", params.asr.batch_size)
            texts = [clip["text"] for clip in clips]
            for name, some in paths.items():
                found = rows.setdefault(name, {"energy": [], "either": []})
                heard = transcriber.transcribe(some, texts)
                for path, text, transcript in zip(some, texts, heard, strict=True):
                    measured = measure(*read_mono(path))
                    loud = measured.end_db > MAX_END_DB
                    said = fold_text(text), fold_text(transcript.text)
                    found["energy"].append(float(loud))
                    found["either"].append(float(loud or loses_its_end(measured, *said)))
    return [
        [name, *(interval(flags, rng) for flags in found.values()), str(len(found["energy"]))]
        for name, found in rows.items()
    ]


def main(data: Path) -> None:
    """Measure both, and write them down."""
    files, rng = files_of(data), np.random.default_rng(1)
    voices = embedded(files)
    header = ["strangers", "found", "n", "own clips flagged", "n", "pairs of voices"]
    lines = [
        *table(header, plant(voices, rng)),
        "",
        pairs_of(voices),
        "",
        "Called cut off, by energy alone and with the transcript of the miniature's Whisper:",
        "",
        *table(["end of the clip", "by energy", "with the recogniser", "n"], ends(data, rng)),
    ]
    write_section("Strangers and cut ends in a corpus", lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
