"""Makes small corpora on disk: sound that behaves like speech, rows, manifests, parameters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

WORDS = (
    "amber basket candle dinner engine forest garden harbor island jacket kettle ladder "
    "marble needle orange pencil quiver rabbit saddle timber umber velvet window yellow"
).split()


def speech_like(seconds: float, sample_rate_hz: int = 16000, seed: int = 0) -> np.ndarray:
    """A buzz in syllables of 0.2 s with pauses between, over a faint hiss, that dies away at the
    end: [num_samples]."""
    return _speech_like(seconds, sample_rate_hz, seed).copy()


@cache
def _speech_like(seconds: float, sample_rate_hz: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * sample_rate_hz)) / sample_rate_hz
    pitch_hz = 100.0 + 40.0 * rng.random()
    tone = sum(np.sin(2 * np.pi * pitch_hz * k * time_s) / k for k in range(1, 8))
    gate = (np.sin(2 * np.pi * 2.5 * time_s) > -0.3).astype(float)
    smooth = np.convolve(gate, np.hanning(400) / np.hanning(400).sum(), mode="same")
    smooth *= np.clip((time_s[-1] - time_s - 0.06) / 0.02, 0.0, 1.0)
    hiss = rng.standard_normal(len(time_s)) * 1e-3
    return (0.25 * tone * smooth + hiss).astype(np.float32)


def write_clip(path: Path, seconds: float = 2.5, hz: int = 16000, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, speech_like(seconds, hz, seed), hz)
    return path


def sentence(number: int) -> str:
    rng = np.random.default_rng(number)
    chosen = rng.choice(WORDS, 5, replace=False)
    return f"The {chosen[0]} and the {chosen[1]} {chosen[2]} {chosen[3]} {chosen[4]}."


def write_rows(path: Path, rows: list[dict[str, Any] | str]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def make_corpus(folder: Path, num_clips: int = 12) -> tuple[Path, list[dict[str, Any]]]:
    """Write clips, a reference and a manifest without any fault in it."""
    write_clip(folder / "ref.wav", 5.0, seed=999)
    rows = []
    for number in range(num_clips):
        name = f"clips/utt{number:03d}.wav"
        write_clip(folder / name, 2.5, seed=number)
        rows.append({"audio": name, "text": sentence(number), "ref_audio": "ref.wav"})
    return write_rows(folder / "train_raw.jsonl", rows), rows


def take_a_part(source: Path, target: Path, count: int) -> None:
    """Copy the first clips of a corpus: the whole of it would take minutes."""
    rows = (source / "train_raw.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    (target / "clips").mkdir(parents=True)
    shutil.copyfile(source / "ref.wav", target / "ref.wav")
    for row in rows:
        name = json.loads(row)["audio"]
        shutil.copyfile(source / name, target / name)
    (target / "train_raw.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def set_values(tree: dict[str, Any], changes: Mapping[str, object]) -> None:
    """Change parameters given as section__key, in place."""
    for name, value in changes.items():
        *sections, key = name.split("__")
        target = tree
        for section in sections:
            target = target[section]
        target[key] = value


def speech(path: Path, first: int, count: int, corpus: str = "speaker") -> list[str]:
    """Sentences of the miniature, 0.8 s between them; returns the texts."""
    data = Path(__file__).parents[1] / "data"
    lines = (data / corpus / "train_raw.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[first : first + count]]
    parts = []
    for row in rows:
        samples, rate_hz = sf.read(data / corpus / row["audio"], dtype="float32")
        parts += [samples, np.zeros(round(0.8 * rate_hz), np.float32)]
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.concatenate(parts), rate_hz)
    return [row["text"] for row in rows]
