"""Which F0 tracker is nearer to the truth, and what does it cost: SwiftF0 or librosa's pYIN?

    python -m benchmarks.pitch data [seed]

The truth is known for sung glides, with vibrato and noise; and for recordings, how much F0 has
moved after the clip was played faster, which moves all of it by a known ratio.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
from benchmarks.results import processor, table, write_section
from numpy.typing import NDArray

from voxadapt.data.audio import read_audio, resample
from voxadapt.scoring.pitch import F0_HZ, HOP_S, RATE_HZ, PitchTracker

Wave = NDArray[np.float32]
Tracker = Callable[[Wave], NDArray[np.float64]]
NUM_GLIDES, NUM_RECORDINGS = 20, 12
HOP = round(HOP_S * RATE_HZ)
FASTER = 2 ** (2 / 12)
GROSS_ST = 0.5


def pyin(wave: Wave) -> NDArray[np.float64]:
    """Track F0 as librosa does, at the same hop."""
    found = librosa.pyin(
        wave, fmin=F0_HZ[0], fmax=F0_HZ[1], sr=RATE_HZ, frame_length=1024, hop_length=HOP
    )
    return np.asarray(found[0])


def glide(generator: np.random.Generator) -> tuple[Wave, NDArray[np.float64]]:
    """Return two seconds of a voice-like glide, and F0 of each sample."""
    seconds = np.arange(2 * RATE_HZ) / RATE_HZ
    first, last = np.log(generator.uniform(80, 350, 2))
    depth, speed = generator.uniform(0, 2), generator.uniform(1, 4)
    vibrato = 2 ** (depth * np.sin(2 * np.pi * speed * seconds) / 12)
    f0 = np.exp(np.linspace(first, last, len(seconds))) * vibrato
    phase = 2 * np.pi * np.cumsum(f0) / RATE_HZ
    wave = np.zeros(len(f0))
    for h in range(1, 20):
        wave += np.sin(h * phase) / h * np.exp(-(((h * f0 - 700) / 900) ** 2) / 2)
    wave = 0.5 * wave / np.abs(wave).max() + generator.normal(0, 0.005, len(f0))
    return wave.astype(np.float32), f0


def main() -> None:
    """Measure both, write the section."""
    data, seed = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    generator, swift = np.random.default_rng(seed), PitchTracker()
    trackers: dict[str, Tracker] = {
        "SwiftF0": lambda wave: swift.f0_hz(wave, RATE_HZ),
        "pYIN": pyin,
    }
    glides = [glide(generator) for _ in range(NUM_GLIDES)]
    lines = (data / "speaker/train_raw.jsonl").read_text(encoding="utf-8").splitlines()
    files = [json.loads(line)["audio"] for line in lines[:NUM_RECORDINGS]]
    waves = [resample(*read_audio(data / "speaker" / name), RATE_HZ) for name in files]
    faster = [resample(wave, round(RATE_HZ * FASTER), RATE_HZ) for wave in waves]
    rows = []
    for name, track in trackers.items():
        track(waves[0])
        start, off = time.process_time(), []
        for wave, f0 in glides:
            found = track(wave)
            truth = f0[np.minimum(np.arange(len(found)) * HOP, len(f0) - 1)]
            voiced = np.isfinite(found)
            off.append(np.abs(12 * np.log2(found[voiced] / truth[voiced])))
        errors = np.concatenate(off)
        moved = [
            12 * np.log2(np.nanmedian(track(up)) / np.nanmedian(track(wave)))
            for wave, up in zip(waves, faster, strict=True)
        ]
        spent = time.process_time() - start
        seconds = sum(map(len, [*waves, *faster, *(wave for wave, _ in glides)])) / RATE_HZ
        rows.append(
            [
                name,
                f"{np.median(errors):.3f}",
                f"{100 * np.mean(errors > GROSS_ST):.2f} %",
                f"{np.mean(np.abs(np.array(moved) - 12 * np.log2(FASTER))):.3f}",
                f"{1000 * spent / seconds:.1f} ms",
            ]
        )
    write_section(
        "F0 trackers",
        [
            f"{NUM_GLIDES} glides of 2 s with vibrato and noise, {NUM_RECORDINGS} recordings "
            f"played 2 semitones higher; seed {seed}; CPU time on {processor()}: "
            f"`python -m benchmarks.pitch data {seed}`. Semitones.",
            "",
            *table(
                [
                    "tracker",
                    "median error on glides",
                    f"frames off by more than {GROSS_ST}",
                    "error of the transposition",
                    "time a second of audio",
                ],
                rows,
            ),
        ],
    )


if __name__ == "__main__":
    main()
