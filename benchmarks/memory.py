"""Peak memory of training as `voxadapt plan` predicts it, and as it is.

    python -m benchmarks.memory

Every case trains a model with random weights for one epoch in a process of its own, by the loop
that the pipeline uses, with its held-out loss, export and saved state. Its anonymous memory is
read every two milliseconds; pages of mapped files, which the system takes back, are not in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.random_model import write_model
from benchmarks.results import processor, table, write_section

from voxadapt.core.params import TrainParams
from voxadapt.data.manifest import Utterance
from voxadapt.model.shapes import Shape, config_values
from voxadapt.tools.memory import training_memory
from voxadapt.tools.plan import read_codec
from voxadapt.tools.sizes import BatchShape, Codec, Model, num_positions

SHAPES = {
    "wide": Shape(
        "0b6", hidden=768, intermediate=2304, num_layers=6, num_heads=8, num_kv_heads=4,
        head_dim=64, text_hidden=512, predictor_hidden=256, predictor_intermediate=768,
        predictor_layers=2, encoder_channels=64,
    ),
    "deep": Shape(
        "0b6", hidden=512, intermediate=1536, num_layers=12, num_heads=8, num_kv_heads=4,
        head_dim=64, text_hidden=512, predictor_hidden=512, predictor_intermediate=1024,
        predictor_layers=2, encoder_channels=64,
    ),
}  # fmt: skip
TEXT = "talker.model.text_embedding"
LOW = {"low_memory": True, "compute_dtype": "bfloat16"}
CASES: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("wide, all trained", "wide", 60, {}),
    ("wide, text frozen", "wide", 60, {"frozen": [TEXT]}),
    ("deep, long clips", "deep", 150, {"frozen": [TEXT], "batch_size": 4}),
    ("deep, accumulated", "deep", 150,
     {"frozen": [TEXT], "batch_size": 2, "gradient_accumulation_steps": 2}),
    ("deep, checkpointed", "deep", 150,
     {"frozen": [TEXT], "batch_size": 4, "gradient_checkpointing": True}),
    ("wide, bfloat16 products", "wide", 60, {"compute_dtype": "bfloat16"}),
    ("wide, low memory", "wide", 60, LOW),
    ("deep, low memory, checkpointed", "deep", 150,
     {**LOW, "batch_size": 4, "gradient_checkpointing": True}),
)  # fmt: skip
STEPS = 6  # of which the first warms up
WORDS = "a text of some forty letters, as they are"


class Peak:
    """Reads this process' anonymous memory until it is stopped."""

    def __init__(self) -> None:
        self.largest_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.is_set():
            status = Path("/proc/self/status").read_text(encoding="ascii")
            line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            self.largest_bytes = max(self.largest_bytes, int(line.split()[1]) * 1024)
            time.sleep(0.002)

    def stop(self) -> int:
        """Stop and return the peak in bytes."""
        self._stop.set()
        self._thread.join()
        return self.largest_bytes


def utterances(count: int) -> list[Utterance]:
    """Return rows whose audio is never read: two are held out."""
    return [
        Utterance(
            id=f"clip{n}", audio=f"{n}.wav", text=WORDS, ref_audio="ref.wav", language=None,
            duration_s=1.0, sample_rate_hz=24_000, audio_sha256=f"{n:064d}",
            split="train" if n < count else "selection",
        )
        for n in range(count + 2)
    ]  # fmt: skip


def corpus(rows: list[Utterance], num_frames: int) -> dict[str, Any]:
    """Return random codes; clips differ a little in length, so that batches are padded."""
    import numpy as np

    rng = np.random.default_rng(0)
    sizes = {row.id: num_frames - n % 3 for n, row in enumerate(rows)}
    return {
        name: rng.integers(0, 2048, (size, 16)).astype(np.int16) for name, size in sizes.items()
    }


def write_reference(path: Path) -> None:
    """Write three seconds of noise."""
    import numpy as np
    import soundfile

    samples = np.random.default_rng(0).normal(0, 0.1, 72_000).astype(np.float32)
    soundfile.write(path, samples, 24_000)


def measure(
    folder: Path, model: Path, num_frames: int, given: dict[str, Any], device: str, steps: int
) -> tuple[dict[str, Any], ...]:
    """Train one epoch of a few optimizer steps; return the rows of its log."""
    from voxadapt.training.trainer import train

    params = TrainParams.model_validate(given)
    count = steps * params.batch_size * params.gradient_accumulation_steps
    rows = utterances(count)
    write_reference(folder / "ref.wav")
    return train(
        params,
        model_path=model,
        utterances=rows,
        codes=corpus(rows, num_frames),
        ref_audio=folder / "ref.wav",
        out_dir=folder / "out",
        work_dir=folder / "work",
        num_epochs=1,
        device=device,
        base_sha256="0" * 64,
    ).rows


def predicted(
    shape: Shape, num_frames: int, given: dict[str, Any], codec: Codec, kind: str = "cpu"
) -> float:
    """Return what the plan says, in bytes."""
    params = TrainParams.model_validate(given)
    facts = Model.from_config(config_values(shape), params.frozen, codec)
    length = num_positions(len(WORDS), num_frames)
    rows = params.batch_size
    frames = sum(num_frames - n % 3 for n in range(rows))
    batch = BatchShape(rows, length, frames)
    texts = STEPS * rows * params.gradient_accumulation_steps * len(WORDS)
    return training_memory(facts, params, batch, kind, texts).total


def within(what: str, ratios: list[float], rows: list[list[str]], cause: str) -> str:
    """Say whether a prediction is within 15 %, and why not if it is not."""
    worst, row = max(zip(ratios, rows, strict=True), key=lambda pair: abs(pair[0] - 1))
    said = f"{what}: wanted within 15 %, furthest off by {100 * abs(worst - 1):.0f} % ({row[0]}): "
    return said + ("met." if abs(worst - 1) <= 0.15 else f"**not met**. {cause}")


def main() -> None:
    """Measure every case and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        given = json.loads(arguments.child)
        torch.set_num_threads(1)
        peak = Peak()
        where = Path(given["folder"]), Path(given["model"])
        measure(*where, given["frames"], given["params"], "cpu", STEPS)
        print(peak.stop())
        return
    rows, ratios = [], []
    with tempfile.TemporaryDirectory() as name:
        for number in arguments.cases:
            label, shape, frames, changed = CASES[number]
            model = Path(name) / shape
            if not model.is_dir():
                write_model(model, SHAPES[shape], codec="small")
            given = {"speaker_name": "A", "batch_size": 2, **changed}
            folder = Path(name) / f"case{number}"
            folder.mkdir()
            request = {
                "folder": str(folder), "model": str(model), "shape": shape, "frames": frames,
                "params": given,
            }  # fmt: skip
            command = [sys.executable, "-m", "benchmarks.memory", "--child", json.dumps(request)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = int(answer.splitlines()[-1])
            said = predicted(SHAPES[shape], frames, given, read_codec(model))
            ratios.append(said / found)
            rows.append(
                [
                    label,
                    f"{said / 1e9:.2f} GB",
                    f"{found / 1e9:.2f} GB",
                    f"{said / found:.2f}",
                ]
            )
    shapes = ", ".join(
        f"{name}: {dataclasses.asdict(shape)['hidden']} x {shape.num_layers}"
        for name, shape in SHAPES.items()
    )
    write_section(
        "Memory of training",
        [
            f"Peak anonymous memory of a process that trains one epoch of {STEPS} steps; one "
            f"thread of {processor()}, torch {torch.__version__}, random weights ({shapes}), one "
            "process a case: `python -m benchmarks.memory`.",
            "",
            *table(["case", "predicted", "measured", "ratio"], rows),
            "",
            "- "
            + within(
                "Memory", ratios, rows, "What is fitted are the heap's holes, which differ most."
            ),
        ],
    )


if __name__ == "__main__":
    main()
