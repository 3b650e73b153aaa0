"""Codes of a corpus: our extraction beside the public script's, on the same clips and codec.

    python -m benchmarks.codes --upstream ../Qwen3-TTS data/speaker/train_raw.jsonl

`--upstream` is a checkout of https://github.com/QwenLM/Qwen3-TTS; its `prepare_data.py` runs as it
is, in a process of its own as its users run it. Time is from the loaded codec to the written
codes. The codec has the real sizes and random weights unless `--model` names a folder.

Clips are read from 24 kHz WAV files that are made first. Codes are compared twice: on clips of
whole frames, where both sides must agree, and on clips as long as they are, each side with itself
in other batches.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile as sf
import torch
from benchmarks.results import processor, table, write_section
from benchmarks.training import MIDDLE

from voxadapt.codec.extract import extract_codes, whole_frames
from voxadapt.data.audio import read_mono
from voxadapt.data.manifest import Utterance
from voxadapt.shapes import write_model

RATE_HZ, HOP = 24_000, 1_920


@dataclass(frozen=True)
class Taken:
    """What one process measured.

    Attributes:
        seconds: CPU time, or wall time on a GPU.
        peak_gb: Highest memory of the process, or allocated on the GPU.
    """

    seconds: float
    peak_gb: float


class Clock:
    """CPU time of this process, or wall time on a GPU."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device.startswith("cuda")
        self._started = 0.0

    def start(self) -> None:
        """Begin."""
        self._started = self._now()

    def taken(self) -> Taken:
        """Return the time since the start, and the highest memory so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self._on_gpu:
            peak = torch.cuda.max_memory_allocated()
        return Taken(self._now() - self._started, peak / 1e9)

    def _now(self) -> float:
        if not self._on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def run_public(arguments: argparse.Namespace) -> Taken:
    """Run the public script; write its codes to `--output`."""
    from voxadapt.compat import import_qwen_tts

    tokenizer_class = import_qwen_tts().Qwen3TTSTokenizer
    load, clock = tokenizer_class.from_pretrained, Clock(arguments.device)

    def loaded(*given: Any, **options: Any) -> Any:
        tokenizer = load(*given, **options)
        clock.start()
        return tokenizer

    words = [
        "prepare_data.py", "--device", arguments.device,
        "--tokenizer_model_path", str(arguments.model / "speech_tokenizer"),
        "--input_jsonl", str(arguments.manifest), "--output_jsonl", str(arguments.output),
    ]  # fmt: skip
    sys.path.insert(0, str(arguments.upstream / "finetuning"))
    script = importlib.import_module("prepare_data")
    with (
        mock.patch.object(tokenizer_class, "from_pretrained", loaded),
        mock.patch.object(script, "BATCH_INFER_NUM", arguments.batch_clips),
        mock.patch.object(sys, "argv", words),
    ):
        script.main()
    return clock.taken()


def run_ours(arguments: argparse.Namespace) -> Taken:
    """Run our extraction; write its codes to `--output` in the public script's format."""
    from voxadapt.model.load import load_speech_tokenizer

    rows = [json.loads(line) for line in arguments.manifest.read_text("utf-8").splitlines()]
    clips = []
    for number, row in enumerate(rows):
        audio = Path(row["audio"])
        clips.append(
            Utterance(
                id=str(number), audio=row["audio"], text=row["text"], ref_audio="unread.wav",
                language=None, duration_s=sf.info(audio).duration, sample_rate_hz=RATE_HZ,
                audio_sha256=hashlib.sha256(audio.read_bytes()).hexdigest(), split="train",
            )
        )  # fmt: skip
    tokenizer = load_speech_tokenizer(arguments.model, arguments.device)
    clock = Clock(arguments.device)
    clock.start()
    with tempfile.TemporaryDirectory() as work:
        codes = extract_codes(clips, tokenizer, arguments.batch_seconds, work, "0" * 64, "/")
    lines = (
        json.dumps({**row, "audio_codes": codes[str(n)].tolist()}) for n, row in enumerate(rows)
    )
    arguments.output.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return clock.taken()


def write_clips(manifest: Path, limit: int, folder: Path) -> tuple[int, float, dict[str, Path]]:
    """Write 24 kHz clips as they are and completed to whole frames.

    Args:
        manifest: JSONL with audio and text.
        limit: Clips at most.
        folder: Where to write.

    Returns:
        How many clips, their seconds, and a manifest of each kind.
    """
    rows = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()][:limit]
    lists: dict[str, list[str]] = {"as_they_are": [], "whole_frames": []}
    seconds = 0.0
    for number, row in enumerate(rows):
        samples, _ = read_mono(manifest.parent / row["audio"], RATE_HZ)
        seconds += len(samples) / RATE_HZ
        for name, wave in (
            ("as_they_are", samples),
            ("whole_frames", whole_frames(samples, HOP)),
        ):
            path = folder / name / f"{number:05d}.wav"
            path.parent.mkdir(exist_ok=True)
            sf.write(path, wave, RATE_HZ, subtype="PCM_16")
            lists[name].append(json.dumps({"audio": str(path), "text": row["text"]}))
    manifests = {}
    for name, lines in lists.items():
        manifests[name] = folder / f"{name}.jsonl"
        manifests[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(rows), seconds, manifests


def run_side(
    arguments: argparse.Namespace, whose: str, manifest: Path, output: Path, **options: Any
) -> Taken:
    """Run one side in a process of its own."""
    words = [
        sys.executable, "-m", "benchmarks.codes", str(manifest), "--side", whose,
        "--upstream", str(arguments.upstream), "--model", str(arguments.model),
        "--output", str(output), "--device", arguments.device,
    ]  # fmt: skip
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{whose} failed:\n{done.stderr[-3000:]}")
    return Taken(**json.loads(done.stdout.splitlines()[-1]))


def differing(a: Path, b: Path) -> tuple[int, int]:
    """Return how many clips have other codes in two files, and how many frames of them all."""
    clips = frames = 0
    for one, other in zip(a.read_text().splitlines(), b.read_text().splitlines(), strict=True):
        x, y = (np.array(json.loads(line)["audio_codes"]) for line in (one, other))
        assert x.shape == y.shape, f"{x.shape} and {y.shape}"
        clips += not np.array_equal(x, y)
        frames += int((x != y).any(1).sum())
    return clips, frames


def say(found: tuple[int, int]) -> str:
    """Write what differs."""
    return f"{found[0]} clips ({found[1]} frames)" if found[0] else "none"


def main() -> None:
    """Time both sides, compare codes and write the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path, help="JSONL with audio and text")
    parser.add_argument("--upstream", type=Path, required=True, help="checkout of Qwen3-TTS")
    parser.add_argument("--model", type=Path, help="model folder; none: random weights")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-seconds", type=float, default=60.0, help="ours")
    parser.add_argument("--batch-clips", type=int, default=32, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=("public", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        if arguments.device == "cpu":
            torch.set_num_threads(1)
        taken = (run_public if arguments.side == "public" else run_ours)(arguments)
        print(json.dumps(asdict(taken)))
        return
    named = arguments.model.name if arguments.model else "random weights at the real sizes"
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if arguments.model is None:
            arguments.model = write_model(work / "model", MIDDLE)
        num_clips, seconds, manifests = write_clips(arguments.manifest, arguments.clips, work)
        whole, as_is = manifests["whole_frames"], manifests["as_they_are"]
        taken: dict[str, list[Taken]] = {"public": [], "ours": []}
        size = arguments.batch_seconds
        for _ in range(arguments.runs):
            taken["public"].append(run_side(arguments, "public", whole, work / "public"))
            taken["ours"].append(
                run_side(arguments, "ours", whole, work / "ours", batch_seconds=size)
            )
        same = differing(work / "public", work / "ours")
        run_side(arguments, "public", as_is, work / "public_32")
        run_side(arguments, "public", as_is, work / "public_1", batch_clips=1)
        run_side(arguments, "ours", as_is, work / "ours_many", batch_seconds=size)
        run_side(arguments, "ours", as_is, work / "ours_1", batch_seconds=0.1)
        public_alone = differing(work / "public_32", work / "public_1")
        ours_alone = differing(work / "ours_many", work / "ours_1")
    ratios = [a.seconds / b.seconds for a, b in zip(taken["public"], taken["ours"], strict=True)]
    on_cpu = arguments.device == "cpu"
    where = f"one thread of {processor()}" if on_cpu else torch.cuda.get_device_name()
    rows = [
        [
            name,
            f"{num_clips / statistics.median(t.seconds for t in runs):.2f}",
            f"{seconds / statistics.median(t.seconds for t in runs):.1f}",
            f"{max(t.peak_gb for t in runs):.2f} GB",
            say(alone),
        ]
        for (name, runs), alone in zip(taken.items(), (public_alone, ours_alone), strict=True)
    ]
    header = ["", "clips/s", "s of audio a second", "peak memory", "other codes alone"]
    write_section(
        f"Codes beside the public script, {'CPU' if on_cpu else 'GPU'}",
        [
            f"{num_clips} clips, {seconds:.0f} s of audio, codec with {named}, {where}, "
            f"torch {torch.__version__}, {'CPU' if on_cpu else 'wall'} time, medians of "
            f"{arguments.runs} runs that take turns, each in a process of its own: `python -m "
            f"benchmarks.codes {arguments.manifest} --upstream PATH --clips {arguments.clips} "
            f"--runs {arguments.runs} --device {arguments.device} --batch-seconds {size:g}`.",
            "",
            *table(header, rows),
            "",
            f"Times faster: {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}). On clips of whole frames, where nothing hangs on the batch, "
            f"codes that differ between the two: {say(same)}. *Other codes alone*: of the clips "
            "as long as they are, those whose codes in a batch are not their codes alone.",
        ],
    )


if __name__ == "__main__":
    main()
