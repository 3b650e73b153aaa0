"""Speaker embeddings: ours in one batch against Resemblyzer's stock call, on one thread.

    python benchmarks/similarity.py data/speaker/clips

Prints seconds of CPU time for each, over several runs in turn, and the largest difference.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from voxadapt.evaluation.similarity import Embedder, read_audio

NUM_CLIPS = 64
NUM_RUNS = 5


def main() -> None:
    """Time both on the same clips."""
    import resemblyzer

    torch.set_num_threads(1)
    paths = sorted(Path(sys.argv[1]).glob("*.flac"))[:NUM_CLIPS]
    clips = [read_audio(path) for path in paths]
    seconds = sum(len(wav) / rate_hz for wav, rate_hz in clips)
    embedder = Embedder("cpu")
    embedder.embed(clips[:2])  # first calls build tables
    ours_s, stock_s, largest = [], [], 0.0
    for _ in range(NUM_RUNS):
        start = time.process_time()
        ours = embedder.embed(clips)
        ours_s.append(time.process_time() - start)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stock = [
                embedder._encoder.embed_utterance(resemblyzer.preprocess_wav(wav, rate_hz))
                for wav, rate_hz in clips
            ]
        stock_s.append(time.process_time() - start)
        largest = max(
            float(np.abs(found.embedding - vector).max())
            for found, vector in zip(ours, stock, strict=True)
            if found.embedding is not None
        )
    ratios = sorted(b / a for a, b in zip(ours_s, stock_s, strict=True))
    print(f"{len(clips)} clips, {seconds:.0f} s of audio, {NUM_RUNS} runs, one thread")
    print(f"ours  {statistics.median(ours_s):.2f} s   stock  {statistics.median(stock_s):.2f} s")
    print(f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"largest difference {largest:.1e}")


if __name__ == "__main__":
    main()
