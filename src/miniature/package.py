"""Writes the shipped corpora of the miniature world."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import soundfile as sf

from miniature.recipe import SAMPLE_RATE, Recipe
from miniature.speech import TEST_SETS, Corpus, plan

CLIP_RATE = 16_000
_COMPRESSION = 0.5  # of Ogg Vorbis, 0 to 1: a third of the size of FLAC


def write_clip(wave: np.ndarray, path: Path, rate: int = CLIP_RATE) -> None:
    """Write a 24 kHz clip as mono audio without clipping: 16-bit WAV, or Ogg Vorbis.

    Args:
        wave: Samples.
        path: Where to write; the suffix names the format.
        rate: Rate to store.
    """
    import soxr

    out = wave if rate == SAMPLE_RATE else soxr.resample(wave, SAMPLE_RATE, rate)
    peak = float(np.abs(out).max())
    if peak > 0.99:
        out = out * (0.99 / peak)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".ogg":
        sf.write(path, out, rate, subtype="VORBIS", compression_level=_COMPRESSION)
    else:
        sf.write(path, out, rate, subtype="PCM_16")


def _jsonl(rows: list[dict[str, str]], path: Path) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _reference(corpus: Corpus, split: str, path: Path) -> None:
    wave = np.concatenate([corpus.clip(i) for i in corpus.where(split)])
    write_clip(wave, path, SAMPLE_RATE)


def write_corpora(corpus: Corpus, recipe: Recipe, out: Path) -> None:
    """Write the speaker corpus, the Malay corpus, the other voices and the test sets.

    Args:
        corpus: All clips.
        recipe: Sizes and seed.
        out: The ``data`` folder.
    """
    speaker = out / "speaker"
    rows = []
    for n, i in enumerate(corpus.where("speaker"), 1):
        name = f"clips/utt{n:04d}.ogg"
        write_clip(corpus.clip(i), speaker / name)
        rows.append({"audio": name, "text": corpus.utterances[i].text, "ref_audio": "ref.wav"})
    _jsonl(rows, speaker / "train_raw.jsonl")
    _reference(corpus, "speaker_ref", speaker / "ref.wav")

    malay = out / "language" / "malay"
    rows = []
    for n, i in enumerate(corpus.where("malay_corpus"), 1):
        name = f"clips/utt{n:04d}.ogg"
        write_clip(corpus.clip(i), malay / name)
        rows.append(
            {
                "audio": name,
                "text": corpus.utterances[i].text,
                "ref_audio": "ref.wav",
                "language": "malay",
            }
        )
    _jsonl(rows, malay / "train_raw.jsonl")
    _reference(corpus, "malay_ref", malay / "ref.wav")
    planned = plan(recipe)
    texts = [{"text": u.text} for u in planned if u.split == "malay_text"]
    _jsonl(texts, malay / "text_only.jsonl")

    voices: list[dict[str, str]] = []
    for i in corpus.where("floor"):
        voice = corpus.utterances[i].voice
        count = sum(row["speaker"] == voice for row in voices) + 1
        name = f"{voice}/utt{count:02d}.ogg"
        write_clip(corpus.clip(i), out / "voices" / name)
        voices.append({"audio": name, "text": corpus.utterances[i].text, "speaker": voice})
    _jsonl(voices, out / "voices" / "voices.jsonl")

    for language, folder in (("english", speaker), ("malay", malay)):
        for name in TEST_SETS:
            split = f"set_{name}"
            chosen = [u.text for u in planned if u.split == split and u.language == language]
            _jsonl([{"text": text} for text in chosen], folder / "sets" / f"{name}.jsonl")


def replace_folder(source: Path, target: Path) -> None:
    """Put a finished folder in place of another one.

    Args:
        source: The new folder, on the same file system.
        target: The place to put it.
    """
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.rename(target, old)
    os.rename(source, target)
    shutil.rmtree(old, ignore_errors=True)
