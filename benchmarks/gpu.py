"""What only a GPU can show: the real shapes, their memory and speed, and decoding next to stock.

    python -m benchmarks.gpu [--upstream PATH]
    python -m benchmarks.gpu --rehearse

Models with random weights are built on the spot; nothing is downloaded. Meant to take less than
eight minutes on one data-centre GPU; `--sizes 0.6B` for a smaller card. Needs 20 GB of disk for a
moment. Each measurement writes its own section as soon as it is done; one that fails is named at
the end.

`--rehearse` goes through all of it on the CPU with tiny models, in half a minute. It prints the
sections, whose figures mean nothing, and leaves RESULTS.md as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch
from benchmarks import results
from benchmarks.memory import LOW, measure, predicted, write_reference
from benchmarks.random_model import write_model
from benchmarks.results import drop_section, spread, table, verdict, write_section

from voxadapt.core.errors import UserError
from voxadapt.model.load import load_tts
from voxadapt.model.shapes import SHAPES, Shape
from voxadapt.tools.memory import PROCESS_BYTES
from voxadapt.tools.plan import read_codec
from voxadapt.tools.sizes import Codec
from voxadapt.training import trainer as loop

DEVICE = "cuda"
FRAMES = 100  # of a clip: eight seconds
STEPS = 6
MODES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("float32 masters", {"compute_dtype": "bfloat16", "batch_size": 8}),
    ("low memory", {**LOW, "batch_size": 4}),
    ("low memory, checkpointed",
     {**LOW, "batch_size": 2, "gradient_checkpointing": True}),
)  # fmt: skip
BARS_GB = {"0.6B": 10, "1.7B": 16}
ROWS, LIMIT = 16, 64  # sentences spoken together, and their tokens
WAYS = ("stock", "ours", "recorded")  # of making their codes
NOT_MEASURED = "On a GPU: not measured"
COUNTED = "Memory of training on a GPU, counted"  # by benchmarks.counted
SENTENCE = "This sentence is spoken by nobody."
CODEC: Literal["full", "small"] = "full"
TINY = Shape(
    "0b6", hidden=64, intermediate=96, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=32,
    text_hidden=16, predictor_hidden=32, predictor_intermediate=48, predictor_layers=1,
    encoder_channels=16,
)  # fmt: skip


def cuda(name: str, instead: Any = None) -> Any:
    """Call a function of `torch.cuda`; in a rehearsal, return what is given."""
    return instead if DEVICE == "cpu" else getattr(torch.cuda, name)()


@contextlib.contextmanager
def rehearsal() -> Iterator[None]:
    """Make everything small, take the CPU for the GPU, and write to a file that is thrown away."""
    small: dict[str, Any] = {
        "DEVICE": "cpu", "CODEC": "small", "SHAPES": dict.fromkeys(SHAPES, TINY), "FRAMES": 8,
        "STEPS": 3, "ROWS": 2, "LIMIT": 6,
    }  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.multiple(sys.modules[__name__], **small),
        mock.patch.object(results, "RESULTS", Path(name) / "RESULTS.md"),
        mock.patch.dict(os.environ, {results.INSTEAD: f"{name}/RESULTS.md"}),
    ):
        yield


def build(root: Path, size: str) -> Path:
    """Return the model of a size, written when it is asked for the first time."""
    folder = root / size
    return folder if folder.is_dir() else write_model(folder, SHAPES[size], codec=CODEC)


def free() -> None:
    """Give back what the last measurement held, and begin to count anew."""
    gc.collect()
    cuda("empty_cache")
    cuda("reset_peak_memory_stats")


@dataclass(frozen=True)
class Trained:
    """What a size in a mode took.

    Attributes:
        label: Size and mode.
        said_gb: Memory that the plan predicts.
        peak_gb: Memory of the tensors at its peak; None: the card is too small.
        speeds: Frames a second of each step after the second.
    """

    label: str
    said_gb: float
    peak_gb: float | None
    speeds: list[float]

    def row(self) -> list[str]:
        """Write a row of the table."""
        if self.peak_gb is None:
            return [self.label, f"{self.said_gb:.1f} GB", "does not fit", "-", "-"]
        ratio = f"{self.said_gb / self.peak_gb:.2f}"
        speed = f"{statistics.median(self.speeds):.0f}"
        speed += f" ({min(self.speeds):.0f} to {max(self.speeds):.0f})"
        return [self.label, f"{self.said_gb:.1f} GB", f"{self.peak_gb:.1f} GB", ratio, speed]


def training_memory(sizes: list[str], root: Path) -> None:
    """Train every size in every mode and write the section."""
    found: list[Trained] = []
    said = []
    for size in sizes:
        model = build(root, size)
        taken = [train_mode(size, label, given, model, root / "run") for label, given in MODES]
        found += taken
        least = min((t.peak_gb for t in taken if t.peak_gb is not None), default=None)
        if least is None:
            said.append(f"Full training of {size}: **not met**, no mode fits into this card.")
        else:
            state = "met" if least <= BARS_GB[size] else "**not met**"
            said.append(
                f"Full training of {size}: wanted at most {BARS_GB[size]} GB, found {least:.1f} "
                f"GB in the mode that takes least: {state}."
            )
    errors = [abs(t.said_gb / t.peak_gb - 1) for t in found if t.peak_gb is not None]
    if errors:
        state = "met" if max(errors) <= 0.15 else "**not met**, see the line that is furthest off"
        said.append(
            f"Prediction of `voxadapt plan`: wanted within 15 %, found {100 * max(errors):.0f} % "
            f"at worst: {state}."
        )
    write_section(
        "Memory of training on a GPU",
        [
            f"{device_name()}, random weights, clips of {FRAMES} frames, {STEPS} steps of an "
            "epoch with its export, all but the speaker encoder trained, n = 1 a line: "
            f"`{command()}`. Memory is that of tensors, at its peak; frames a second: median and "
            "range of the steps after the second. Resumable state was not written.",
            "",
            *table(
                ["training", "predicted", "peak", "ratio", "frames a second"],
                [taken.row() for taken in found],
            ),
            "",
            *(f"- {text}" for text in said),
        ],
    )


def said_bytes(size: str, given: dict[str, Any], codec: Codec) -> float:
    """Return what the plan says of the tensors alone."""
    return predicted(SHAPES[size], FRAMES, given, codec, "cuda") - PROCESS_BYTES["cuda"]


def train_mode(
    size: str, label: str, changed: dict[str, Any], model: Path, folder: Path
) -> Trained:
    """Train one epoch of a few steps in one mode."""
    given = {"speaker_name": "A", **changed}
    free()
    folder.mkdir()
    said = said_bytes(size, given, read_codec(model))
    try:
        # What only goes to the disk takes no memory here, but minutes and tens of gigabytes.
        with (
            mock.patch.object(loop, "save_state"),
            mock.patch.object(loop, "measure_drift", return_value={}),
        ):
            log = measure(folder, model, FRAMES, given, DEVICE, STEPS)
    except UserError as error:
        print(error, file=sys.stderr)
        return Trained(f"{size}, {label}", said / 1e9, None, [])
    finally:
        shutil.rmtree(folder)
    peak = cuda("max_memory_allocated", instead=said)
    speeds = [row["frames_per_s"] for row in log if row["step"] > 2]
    return Trained(f"{size}, {label}", said / 1e9, peak / 1e9, speeds)


def speak(tts: Any, prompt: Any, way: str, sample: bool) -> tuple[float, list[Any]]:
    """Speak the sentences without the codec, in one of WAYS; return seconds and codes of each."""
    from voxadapt.generation import cuda_graph as capture
    from voxadapt.generation.decoding import Decoding, fused_weights

    codec = tts.model.speech_tokenizer
    spoken: list[Any] = []

    def silent(items: list[dict[str, Any]]) -> Any:
        spoken.extend(item["audio_codes"].cpu() for item in items)
        return [np.zeros(1, dtype=np.float32)] * len(items), 24_000

    call = {
        "text": [SENTENCE] * ROWS, "language": "Auto", "voice_clone_prompt": [prompt] * ROWS,
        "non_streaming_mode": True, "do_sample": sample, "subtalker_dosample": sample,
        "repetition_penalty": 1.05, "max_new_tokens": LIMIT,
    }  # fmt: skip
    torch.manual_seed(0)
    with mock.patch.object(codec, "decode", silent):
        cuda("synchronize")
        start = time.perf_counter()
        if way == "stock":
            tts.generate_voice_clone(**call)
        else:
            joined = fused_weights(tts.model.talker)
            joined.record = way == "recorded" and capture.possible(tts.model.device)
            with Decoding(tts.model, range(ROWS), [LIMIT] * ROWS):
                tts.generate_voice_clone(**call)
        cuda("synchronize")
        return time.perf_counter() - start, spoken


def decoding(size: str, root: Path, runs: int) -> None:
    """Time the loops in turns, compare greedy codes in float32, and write the section."""
    from voxadapt.generation.decoding import forget, fused_weights

    model = build(root, size)
    write_reference(root / "ref.wav")
    lines, said = [], []
    for kind in (torch.float32, torch.bfloat16):
        free()
        name = str(kind).removeprefix("torch.")
        tts = load_tts(model, DEVICE, kind)
        eos = tts.model.config.talker_config.codec_eos_token_id
        tts.model.talker.generation_config.pad_token_id = eos
        (prompt,) = tts.create_voice_clone_prompt(
            ref_audio=str(root / "ref.wav"), x_vector_only_mode=True
        )
        if kind == torch.float32:
            stock, *ours = [speak(tts, prompt, way, False)[1] for way in WAYS]
            for way, codes in zip(WAYS[1:], ours, strict=True):
                pairs = list(zip(stock, codes, strict=True))
                same = sum(a.shape == b.shape and bool((a == b).all()) for a, b in pairs)
                said.append(
                    verdict(
                        f"Clips whose greedy codes in float32 are those of stock, {way}",
                        same,
                        len(pairs),
                        "Sums in another order differ in the last bits, and where two codes are "
                        "equally likely to that precision, what follows differs.",
                    )
                )
        first = speak(tts, prompt, "recorded", True)[0]  # records
        is_recorded = fused_weights(tts.model.talker).record
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        wholes = []
        for run in range(runs + 1):
            for way in WAYS:
                seconds, spoken = speak(tts, prompt, way, True)
                if run:
                    taken[way].append(seconds / max(len(codes) for codes in spoken))
                    wholes += [seconds] if way == "recorded" else []
        ratios = [a / b for a, b in zip(taken["stock"], taken["recorded"], strict=True)]
        lines.append(
            [
                name,
                *(f"{1000 * statistics.median(taken[way]):.1f} ms" for way in WAYS),
                spread(ratios),
                f"{first - statistics.median(wholes):.1f} s",
            ]
        )
        said.append(
            verdict(
                f"Times faster in {name}, recorded",
                statistics.median(ratios),
                4.0,
                "Where a step's time goes was not measured here: a profiler would say.",
            )
        )
        if not is_recorded:
            said.append(f"In {name} a frame **could not be recorded** as a CUDA graph.")
        forget()
        del tts, prompt
    write_section(
        "Decoding on a GPU",
        [
            f"{device_name()}, random weights at the {size} shape, {ROWS} rows, {LIMIT} tokens, "
            f"time of a step without the codec, median and range of {runs} runs in turns after one "
            f"to warm up: `{command()}`. *Recorded*: our loop, a frame of which is one CUDA graph, "
            "as it runs by default; *recording* is done once a model and batch size.",
            "",
            *table(
                ["weights", "stock loop", "our loop", "recorded", "times faster", "recording"],
                lines,
            ),
            "",
            *(f"- {text}" for text in said),
        ],
    )


def beside_public(upstream: Path, size: str) -> None:
    """Train beside the public script, which writes a section of its own."""
    free()
    words = [
        sys.executable, "-m", "benchmarks.training", "--upstream", str(upstream), "--device",
        DEVICE, "--dtype", "bfloat16", "--shape", "middle" if DEVICE == "cpu" else size,
        "--batches", "8", "--clips", "32", "--parts", "1" if DEVICE == "cpu" else "5",
    ]  # fmt: skip
    subprocess.run(words, check=True)


def not_measured() -> None:
    """Write down what is wanted of a GPU where there is none."""
    write_section(
        NOT_MEASURED,
        [
            "No machine with a GPU was at hand: **none of these was measured.** On one, "
            "`python -m benchmarks.gpu --upstream PATH` writes figures in place of this section.",
            "",
            "- Training beside the public script, codec frames a second: wanted 2 times.",
            f"- Greedy codes of {ROWS} rows: wanted those of stock.",
            f"- Decoding {ROWS} rows at the 1.7B shape, next to stock: wanted 4 times. A frame is "
            "recorded as a CUDA graph. Without a GPU, tests replay what is recorded on a CPU, and "
            "run it on a pretended GPU, where it mixes no devices and reads nothing back; on one, "
            "every recording is compared with what it recorded before it is used.",
            "- Full training in the mode that takes least: wanted "
            + ", ".join(f"{bar} GB at most for the {size}" for size, bar in BARS_GB.items())
            + "; the plan: within 15 %. Without a GPU both were *counted*: see "
            f"[{COUNTED}](#{results.anchor(COUNTED)}).",
        ],
    )


def device_name() -> str:
    """Name the device and the version of torch."""
    name = cuda("get_device_name", instead="a rehearsal on the CPU")
    return f"{name}, torch {torch.__version__}"


def command() -> str:
    """Return what was run, without the place of the checkout."""
    words = sys.argv[1:]
    if "--upstream" in words:
        words[words.index("--upstream") + 1] = "PATH"
    return " ".join(["python -m benchmarks.gpu", *words])


def main() -> None:
    """Measure on the GPU, or say what would be measured on one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", type=Path, help="checkout of the public repository")
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--runs", type=int, default=5, help="of each decoding loop")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny models")
    arguments = parser.parse_args()
    with rehearsal() if arguments.rehearse else contextlib.nullcontext():
        if not arguments.rehearse:
            if not torch.cuda.is_available():
                not_measured()
                sys.exit("benchmarks.gpu needs a CUDA device, and torch finds none here.")
            drop_section(NOT_MEASURED)
        failed = measure_all(arguments.sizes, arguments.runs, arguments.upstream)
    if failed:
        sys.exit(f"Failed, and not in RESULTS.md: {', '.join(failed)}.")


def measure_all(sizes: list[str], runs: int, upstream: Path | None) -> list[str]:
    """Run each measurement by itself; return those that failed."""
    failed = []
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        for label in ("training beside the public script", "decoding", "memory of training"):
            start = time.perf_counter()
            try:
                if label == "decoding":
                    decoding(sizes[-1], Path(name), runs)
                elif label == "memory of training":
                    training_memory(sizes, Path(name))
                elif upstream is not None:
                    beside_public(upstream, sizes[-1])
            except Exception:
                traceback.print_exc()
                failed.append(label)
            print(f"{label}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"{time.perf_counter() - begun:.0f} s in all.")
    return failed


if __name__ == "__main__":
    main()
