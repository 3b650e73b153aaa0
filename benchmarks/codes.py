"""Codes of a corpus: our extraction beside the public script's, on the same clips and codec.

    python -m benchmarks.codes --upstream ../Qwen3-TTS data/speaker/train_raw.jsonl

`--upstream` is a checkout of https://github.com/QwenLM/Qwen3-TTS; its `prepare_data.py` runs as it
is, in a process of its own. Time is from the loaded codec to the written codes, over and over in
turns. The codec has the real sizes and random weights unless `--model` names a folder.

Clips are read from 24 kHz WAV files that are made first. Codes are compared twice: on clips of
whole frames, where ours must be those of the public script clip by clip, and on clips as long as
they are, each side with itself in other batches.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile as sf
import torch
from benchmarks.random_model import write_model
from benchmarks.results import (
    Side,
    clock_s,
    peak_gb,
    processor,
    spread,
    table,
    verdict,
    write_section,
)
from benchmarks.training import MIDDLE

from voxadapt.codec.extract import extract_codes, whole_frames
from voxadapt.data.audio import read_mono
from voxadapt.data.manifest import Utterance

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


@dataclass(frozen=True)
class Request:
    """What a side is asked to encode.

    Attributes:
        manifest: JSONL of clips.
        output: Where the codes go, in the public script's format.
        alone: One clip in a batch, instead of what the side does by itself.
    """

    manifest: str
    output: str
    alone: bool = False


def serve_public(arguments: argparse.Namespace) -> None:
    """Run the public script as often as it is asked to, with the codec loaded once."""
    from voxadapt.core.compat import import_qwen_tts

    tokenizer_class = import_qwen_tts().Qwen3TTSTokenizer
    sys.path.insert(0, str(arguments.upstream / "finetuning"))
    script = importlib.import_module("prepare_data")
    model = str(arguments.model / "speech_tokenizer")
    tokenizer = tokenizer_class.from_pretrained(model, device_map=arguments.device)
    device, asked = arguments.device, Side.answer()
    while True:
        request = Request(**asked)
        words = [
            "prepare_data.py", "--device", arguments.device, "--tokenizer_model_path", model,
            "--input_jsonl", request.manifest, "--output_jsonl", request.output,
        ]  # fmt: skip
        size = 1 if request.alone else script.BATCH_INFER_NUM
        with (
            mock.patch.object(tokenizer_class, "from_pretrained", return_value=tokenizer),
            mock.patch.object(script, "BATCH_INFER_NUM", size),
            mock.patch.object(sys, "argv", words),
        ):
            started = clock_s(device)
            script.main()
        asked = Side.answer(asdict(Taken(clock_s(device) - started, peak_gb(device))))


def serve_ours(arguments: argparse.Namespace) -> None:
    """Run our extraction as often as it is asked to, with the codec loaded once."""
    from voxadapt.model.load import load_speech_tokenizer

    tokenizer = load_speech_tokenizer(arguments.model, arguments.device)
    device, asked = arguments.device, Side.answer()
    while True:
        request = Request(**asked)
        lines = Path(request.manifest).read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
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
        limit_s = 0.1 if request.alone else arguments.batch_seconds
        started = clock_s(device)
        with tempfile.TemporaryDirectory() as work:
            codes = extract_codes(clips, tokenizer, limit_s, work, "0" * 64, "/")
        written = (
            json.dumps({**row, "audio_codes": codes[str(n)].tolist()}) + "\n"
            for n, row in enumerate(rows)
        )
        Path(request.output).write_text("".join(written), encoding="utf-8")
        asked = Side.answer(asdict(Taken(clock_s(device) - started, peak_gb(device))))


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
    parser.add_argument("manifest", type=Path, nargs="?", help="JSONL with audio and text")
    parser.add_argument("--upstream", type=Path, required=True, help="checkout of Qwen3-TTS")
    parser.add_argument("--model", type=Path, help="model folder; none: random weights")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--runs", type=int, default=5, help="that are timed, after one that is not")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-seconds", type=float, default=60.0, help="ours")
    parser.add_argument("--side", choices=("public", "ours"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    on_cpu = arguments.device == "cpu"
    if arguments.side:
        if on_cpu:
            torch.set_num_threads(1)
        (serve_public if arguments.side == "public" else serve_ours)(arguments)
    if arguments.manifest is None:
        parser.error("a manifest of clips is needed")
    named = arguments.model.name if arguments.model else "random weights at the real sizes"
    taken: dict[str, list[Taken]] = {"public": [], "ours": []}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as running:
        work = Path(temporary)
        if arguments.model is None:
            arguments.model = write_model(work / "model", MIDDLE)
        num_clips, seconds, manifests = write_clips(arguments.manifest, arguments.clips, work)
        words = [
            "--upstream", str(arguments.upstream), "--model", str(arguments.model),
            "--device", arguments.device, "--batch-seconds", str(arguments.batch_seconds),
        ]  # fmt: skip
        sides = {
            whose: running.enter_context(Side("benchmarks.codes", [*words, "--side", whose]))
            for whose in taken
        }

        def encode(whose: str, kind: str, output: str, alone: bool = False) -> Taken:
            request = Request(str(manifests[kind]), str(work / output), alone)
            return Taken(**sides[whose].ask(asdict(request)))

        for run in range(arguments.runs + 1):
            for whose, runs in taken.items():
                found = encode(whose, "whole_frames", whose)
                if run:
                    runs.append(found)
        encode("public", "whole_frames", "public_1", alone=True)
        same = differing(work / "public_1", work / "ours")
        alone = {}
        for whose in taken:
            encode(whose, "as_they_are", f"{whose}_many")
            encode(whose, "as_they_are", f"{whose}_1", alone=True)
            alone[whose] = differing(work / f"{whose}_many", work / f"{whose}_1")
    ratios = [a.seconds / b.seconds for a, b in zip(taken["public"], taken["ours"], strict=True)]
    where = f"one thread of {processor()}" if on_cpu else torch.cuda.get_device_name()
    rows = [
        [
            name,
            f"{num_clips / statistics.median(t.seconds for t in runs):.2f}",
            spread([seconds / t.seconds for t in runs]),
            f"{max(t.peak_gb for t in runs):.2f} GB",
            say(alone[name]),
        ]
        for name, runs in taken.items()
    ]
    header = ["", "clips/s", "s of audio a second", "peak memory", "other codes alone"]
    write_section(
        f"Codes beside the public script, {'CPU' if on_cpu else 'GPU'}",
        [
            f"{num_clips} clips, {seconds:.0f} s of audio, codec with {named}, {where}, "
            f"torch {torch.__version__}, {'CPU' if on_cpu else 'wall'} time, medians and ranges of "
            f"{arguments.runs} runs that take turns after one to warm up: `python -m "
            f"benchmarks.codes {arguments.manifest} --upstream PATH --clips {arguments.clips} "
            f"--runs {arguments.runs} --device {arguments.device} --batch-seconds "
            f"{arguments.batch_seconds:g}`. *Other codes alone*: of the clips as long as they are, "
            "those whose codes in a batch are not their codes alone.",
            "",
            *table(header, rows),
            "",
            f"- Ratio of single runs: {spread(ratios)}.",
            "- "
            + verdict(
                "Times faster, median",
                statistics.median(ratios),
                2.0,
                "Ours saves padding, codebooks that are not read, and on a CPU the way to memory; "
                "the codec's products, which are the rest, are the same on both sides, and how "
                "much the public script pads hangs on the order of the clips.",
            ),
            f"- Codes of clips of whole frames that differ from the public script's clip by clip: "
            f"wanted none, found {say(same)}: {'**not met**' if same[0] else 'met'}.",
            f"- Codes of ours that hang on the batch: wanted none, found {say(alone['ours'])}: "
            f"{'**not met**' if alone['ours'][0] else 'met'}.",
        ],
    )


if __name__ == "__main__":
    main()
