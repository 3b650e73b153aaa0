"""Extraction and scoring of ever more clips: time and memory of both executors.

    python -m benchmarks.scale [--clips 1000 10000 100000]

The clips are simulated: rows without end over a few hundred short WAV files, each row with a hash
of its own, so that every clip is read, goes through the batches and is stored. The models are
stand-ins that take no time; what is measured is everything around them, which is what could grow.
Each run is a process of its own; memory is its peak above what it held before the first clip. The
workers of the cluster are measured too, the largest of them at its peak, shared memory included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile as sf
import torch
from benchmarks.results import processor, table, verdict, write_section

from voxadapt.asr.normalise import NOTHING
from voxadapt.asr.transcript import Transcript
from voxadapt.asr.voice_prints import Audio, Embedder, VoicePrint, Wave
from voxadapt.asr.whisper import Transcriber
from voxadapt.codec.extract import extract_codes
from voxadapt.core.executor import LOCAL, Executor, RayData
from voxadapt.core.params import ExecutorParams, ScoreParams
from voxadapt.data.audio import read_audio
from voxadapt.data.manifest import Utterance
from voxadapt.scoring.rows import EvalClip
from voxadapt.scoring.score_clips import score_clips

RATE_HZ, HOP, NUM_CODEBOOKS = 24_000, 1_920, 16
FILES, FRAMES = 256, 3  # 0.24 s a clip
MEGABYTE = 1e6
WORKERS = 2


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        seconds: From the first clip to the last result.
        peak_bytes: Of this process, above what it held before.
        kept_bytes: What this process holds of it in the end: the results themselves.
        worker_bytes: Peak of the largest worker; 0 without workers.
    """

    seconds: float
    peak_bytes: float
    kept_bytes: float
    worker_bytes: float


class Codec:
    """A stand-in that makes codes of the loudness of frames."""

    device = "cpu"

    def get_input_sample_rate(self) -> int:
        """Return samples a second."""
        return RATE_HZ

    def get_encode_downsample_rate(self) -> int:
        """Return samples a frame."""
        return HOP

    def encode(self, waves: list[Any], sr: int) -> Any:
        """Return codes `[N, K]` a clip."""
        codes = []
        for wave in waves:
            loudness = np.abs(wave.reshape(-1, HOP)).mean(axis=1)
            frames = (loudness[:, None] * np.arange(1, NUM_CODEBOOKS + 1) * 1000).astype(np.int64)
            codes.append(torch.from_numpy(frames % 2048))
        return SimpleNamespace(audio_codes=codes)


class Voices(Embedder):
    """A stand-in for the speaker encoder: mypy and a test hold it to the real one's interface."""

    def __init__(self) -> None:
        self.id, self.device = "stand-in", "cpu"
        self.reload = Voices  # type: ignore[assignment]

    def prepare(self, audio: Audio) -> Wave:
        """Return the samples as they are."""
        return audio[0] if isinstance(audio, tuple) else read_audio(audio)[0]

    def embed_speech(self, speeches: Sequence[Wave]) -> list[VoicePrint]:
        """Return one vector a clip."""
        vector = np.zeros(256, np.float32)
        return [VoicePrint(vector, len(speech) / RATE_HZ) for speech in speeches]

    def embed_windows(self, speeches: Sequence[Wave]) -> list[Wave]:
        """Return no window of a second: the clips are shorter."""
        return [np.zeros((0, 256), np.float32) for _ in speeches]


class Ears(Transcriber):
    """A stand-in for the recogniser, which hears every text."""

    def __init__(self) -> None:
        self.asr_id, self.own = "stand-in", NOTHING

    def in_language(self, language: str) -> Transcriber:
        """Return the same one: it hears every language."""
        return self

    def transcribe(
        self, paths: Sequence[str | Path], texts: Sequence[str], executor: Executor = LOCAL
    ) -> list[Transcript]:
        """Return the texts."""
        return [Transcript(text, 0.0, 1.0, 0.0, "en", 1.0, 1) for text in texts]


def now_bytes() -> float:
    """Return the memory of this process."""
    return _status(os.getpid(), "VmRSS")


def _status(process: int | str, field: str) -> float:
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    found = [line.split()[1] for line in text.splitlines() if line.startswith(f"{field}:")]
    return 1024.0 * int(found[0]) if found else 0.0


class WorkersPeak(threading.Thread):
    """Looks at the workers of the cluster every second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.num_bytes = 0.0

    def run(self) -> None:
        """Look for ever."""
        while True:
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if (folder / "cmdline").read_bytes().startswith(b"ray::"):
                        self.num_bytes = max(self.num_bytes, _status(folder.name, "VmHWM"))
                except OSError:
                    continue  # it has ended
            time.sleep(1.0)


def make_files(folder: Path) -> None:
    """Write the clips that all rows share."""
    rng = np.random.default_rng(0)
    for number in range(FILES):
        wave = 0.1 * rng.standard_normal(FRAMES * HOP)
        sf.write(folder / f"{number}.wav", wave.astype(np.float32), RATE_HZ)


def one_run(step: str, back_end: str, count: int, root: Path) -> Cost:
    """Take `count` clips through a step, in this process."""
    executor: Executor = LOCAL
    if back_end == "ray":
        executor = RayData(ExecutorParams(kind="ray", num_workers=WORKERS))
        list(executor.run([0], abs, _nothing, None))  # the cluster has started
    work: Any
    if step == "extraction":
        rows = [
            Utterance(
                id=f"c{n:06d}", audio=f"{n % FILES}.wav", text="x", ref_audio="0.wav",
                language=None, duration_s=FRAMES * HOP / RATE_HZ, sample_rate_hz=RATE_HZ,
                audio_sha256=hashlib.sha256(b"%d" % n).hexdigest(), split="train",
            )
            for n in range(count)
        ]  # fmt: skip

        def work(folder: Path) -> Any:
            codec: Any = Codec()
            return extract_codes(rows, codec, 8.0, folder, "0" * 64, root, executor=executor)
    else:
        clips = [
            EvalClip(
                candidate="base", split="selection", text_id=f"c{n:06d}", lang="en",
                text="one two three", wav=f"{n % FILES}.wav",
            )
            for n in range(count)
        ]  # fmt: skip

        def work(folder: Path) -> Any:
            return score_clips(
                clips, Ears(), Voices(), None, None, ScoreParams(), root=root,
                executor=executor, work_dir=folder,
            )  # fmt: skip

    watch = WorkersPeak()
    if back_end == "ray":
        watch.start()
    with tempfile.TemporaryDirectory() as folder:
        before, start = now_bytes(), time.perf_counter()
        found = work(Path(folder))
        seconds = time.perf_counter() - start
        after = now_bytes()
    assert len(found) == count
    peak = 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Cost(seconds, peak - before, after - before, watch.num_bytes)


def _nothing(model: None, number: int) -> int:
    return number


def main() -> None:
    """Measure; write the section."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        step, back_end, count, root = arguments.one
        cost = one_run(step, back_end, int(count), Path(root))
        print("\n" + json.dumps(asdict(cost)))
        return
    rows, lines = [], []
    with tempfile.TemporaryDirectory() as root:
        make_files(Path(root))
        for step in ("extraction", "scoring"):
            for back_end in ("local", "ray"):
                costs = []
                for count in arguments.clips:
                    words = ["--one", step, back_end, str(count), root]
                    done = subprocess.run(
                        [sys.executable, "-m", "benchmarks.scale", *words],
                        stdout=subprocess.PIPE, text=True, check=True,
                        env={**os.environ, "CI": "1"},
                    )  # fmt: skip
                    cost = Cost(**json.loads(done.stdout.splitlines()[-1]))
                    costs.append(cost)
                    rows.append(
                        [
                            f"{step}, {back_end}", f"{count:,}", f"{cost.seconds:.1f}",
                            f"{count / cost.seconds:.0f}", f"{cost.peak_bytes / MEGABYTE:.0f}",
                            f"{cost.kept_bytes / MEGABYTE:.0f}",
                            f"{cost.worker_bytes / MEGABYTE:.0f}" if back_end == "ray" else "-",
                        ]
                    )  # fmt: skip
                    print(rows[-1], flush=True)
                lines += _judge(f"{step}, {back_end}", arguments.clips, costs)
    header = [
        "step, executor", "clips", "seconds", "clips/s", "peak, MB", "held in the end, MB",
        "largest worker, MB",
    ]  # fmt: skip
    write_section(
        "Scale",
        [
            f"Simulated clips of {1000 * FRAMES * HOP // RATE_HZ} ms and models that take no time: "
            f"`python -m benchmarks.scale`; {os.cpu_count()} cores of {processor()}, one run each, "
            f"Ray on this machine with {WORKERS} workers. Peak and end are this process's memory "
            "above what it held before the first clip; the end is the results themselves (codes or "
            "rows of every clip). With real models the time of the models comes on top.",
            "",
            *table(header, rows),
            "",
            *lines,
        ],
    )


def _judge(name: str, counts: list[int], costs: list[Cost]) -> list[str]:
    """Say whether time is linear and memory flat between the last two sizes."""
    ratio = counts[-1] / counts[-2]
    growth = (costs[-1].seconds / costs[-2].seconds) / ratio
    above = [(cost.peak_bytes - cost.kept_bytes) / MEGABYTE for cost in costs]
    lines = [
        "- "
        + verdict(
            f"{name}, clips a second at {counts[-1]:,} over those at {counts[-2]:,}",
            1 / growth, 0.8, "Time grows faster than the number of clips.",
        ),
        f"- {name}: the peak is {above[-2]:.0f} MB above the results at {counts[-2]:,} clips and "
        f"{above[-1]:.0f} MB at {counts[-1]:,}.",
    ]  # fmt: skip
    if costs[-1].worker_bytes:
        share = costs[-2].worker_bytes / costs[-1].worker_bytes
        cause = "A worker holds more of a longer run."
        what = f"{name}, largest worker at {counts[-2]:,} over that at {counts[-1]:,}"
        lines.append("- " + verdict(what, share, 0.9, cause))
    return [*lines, ""]


if __name__ == "__main__":
    main()
