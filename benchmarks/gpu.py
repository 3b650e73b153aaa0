"""What only a GPU can show: the real shapes, their memory and speed, and decoding next to stock.

    python -m benchmarks.gpu [--upstream PATH]

Models with random weights are built on the spot; nothing is downloaded. Under eight minutes on one
data-centre GPU; `--sizes 0.6B` for a smaller card. Needs about 60 GB of disk for a moment.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from benchmarks.memory import LOW, measure, predicted, write_reference
from benchmarks.results import table, write_section

from voxadapt.budget import PROCESS_BYTES
from voxadapt.shapes import SHAPES, write_model

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
SENTENCE = "This sentence is spoken by nobody."


def free() -> None:
    """Give back what the last measurement held, and begin to count anew."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def train_rows(size: str, model: Path, folder: Path) -> list[list[str]]:
    """Train in every mode; return lines of the table."""
    lines = []
    for label, changed in MODES:
        given = {"speaker_name": "A", **changed}
        free()
        folder.mkdir()
        said = predicted(SHAPES[size], FRAMES, given, model, "cuda") - PROCESS_BYTES["cuda"]
        try:
            log = measure(folder, model, FRAMES, given, DEVICE, STEPS)
        except ValueError as error:  # a user error: the card is too small for this mode
            lines.append([f"{size}, {label}", f"{said / 1e9:.1f} GB", "does not fit", "-", "-"])
            print(error, file=sys.stderr)
            continue
        finally:
            shutil.rmtree(folder)
        found = torch.cuda.max_memory_allocated()
        speeds = [row["frames_per_s"] for row in log if row["step"] > 2]
        lines.append(
            [
                f"{size}, {label}",
                f"{said / 1e9:.1f} GB",
                f"{found / 1e9:.1f} GB",
                f"{said / found:.2f}",
                f"{statistics.median(speeds):.0f} ({min(speeds):.0f} to {max(speeds):.0f})",
            ]
        )
    return lines


def speak(tts: Any, prompt: Any, ours: bool, sample: bool) -> tuple[float, list[Any]]:
    """Speak the sentences without the codec; return seconds and the codes of each."""
    from voxadapt.model.decoding import Decoding

    codec, spoken = tts.model.speech_tokenizer, []

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
        torch.cuda.synchronize()
        start = time.perf_counter()
        if ours:
            with Decoding(tts.model, range(ROWS), [LIMIT] * ROWS):
                tts.generate_voice_clone(**call)
        else:
            tts.generate_voice_clone(**call)
        torch.cuda.synchronize()
        return time.perf_counter() - start, spoken


def decoding(model: Path, folder: Path, runs: int) -> tuple[list[list[str]], str]:
    """Time both loops in turns; compare greedy codes in float32."""
    from voxadapt.model.load import load_tts

    folder.mkdir()
    write_reference(folder / "ref.wav")
    lines, note = [], ""
    for kind in (torch.float32, torch.bfloat16):
        free()
        tts = load_tts(model, DEVICE, kind)
        tts.model.talker.generation_config.pad_token_id = 2150
        (prompt,) = tts.create_voice_clone_prompt(
            ref_audio=str(folder / "ref.wav"), x_vector_only_mode=True
        )
        if kind == torch.float32:
            greedy = [speak(tts, prompt, ours, False)[1] for ours in (False, True)]
            pairs = list(zip(*greedy, strict=True))
            same = sum(a.shape == b.shape and bool((a == b).all()) for a, b in pairs)
            note = f"Greedy codes in float32: {same} of {len(pairs)} clips identical to stock."
        taken: dict[bool, list[float]] = {False: [], True: []}
        for run in range(runs + 1):
            for ours in (False, True):
                seconds, spoken = speak(tts, prompt, ours, True)
                if run:
                    taken[ours].append(seconds / max(len(codes) for codes in spoken))
        ratios = [stock / fast for stock, fast in zip(taken[False], taken[True], strict=True)]
        lines.append(
            [
                str(kind).removeprefix("torch."),
                *(f"{1000 * statistics.median(taken[ours]):.1f} ms" for ours in (False, True)),
                f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
            ]
        )
        del tts, prompt
    return lines, note


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", type=Path, help="checkout of the public repository")
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--runs", type=int, default=3, help="of each decoding loop")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA device, and torch finds none here. Nothing was done.")
    start = time.perf_counter()
    trained: list[list[str]] = []
    loads, spoken, note = [], [], ""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for size in arguments.sizes:
            model = write_model(root / size, SHAPES[size], codec="full")
            free()
            began = time.perf_counter()
            from voxadapt.model.load import load_tts

            tts = load_tts(model, DEVICE, torch.bfloat16)
            torch.cuda.synchronize()
            loads.append(f"{size} in {time.perf_counter() - began:.1f} s")
            del tts
            trained += train_rows(size, model, root / "run")
            if size == arguments.sizes[-1]:
                spoken, note = decoding(model, root / "voice", arguments.runs)
            shutil.rmtree(model)
    device = torch.cuda.get_device_name(0)
    bars = ", ".join(f"{size} in {BARS_GB[size]} GB" for size in arguments.sizes)
    write_section(
        "Real shapes on a GPU",
        [
            f"{device}, torch {torch.__version__}, random weights, clips of {FRAMES} frames, "
            f"{STEPS} steps of an epoch with its export, all but the speaker encoder trained: "
            f"`python -m benchmarks.gpu {' '.join(sys.argv[1:])}`. Loaded: {', '.join(loads)}. "
            f"Memory is that of tensors, at its peak; wanted: full training of {bars}, and the "
            "prediction within 15 %.",
            "",
            *table(["training", "predicted", "peak", "ratio", "frames a second"], trained),
            "",
            f"Decoding {ROWS} rows of {arguments.sizes[-1]}, {LIMIT} tokens, time of a step, "
            f"median of {arguments.runs} runs in turns. Wanted: 4 times stock. {note}",
            "",
            *table(["weights", "stock loop", "our loop", "times faster"], spoken),
        ],
    )
    if arguments.upstream is not None:
        beside = [
            sys.executable, "-m", "benchmarks.training", "--upstream", str(arguments.upstream),
            "--device", "cuda", "--dtype", "bfloat16", "--shape", "1.7B", "--batches", "8",
            "--clips", "32", "--runs", "1",
        ]  # fmt: skip
        subprocess.run(beside, check=True)
    print(f"{time.perf_counter() - start:.0f} s in all.")


if __name__ == "__main__":
    main()
