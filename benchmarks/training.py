"""Fine-tuning: our loop beside the public script's, on the same weights, data, batch and type.

    python -m benchmarks.training --upstream ../Qwen3-TTS

`--upstream` is a checkout of https://github.com/QwenLM/Qwen3-TTS. Its script runs as it is, in a
process of its own as its users run it; only what it fixes in its source is turned into the
arguments given here: attention (flash), type (bfloat16), and the device. Ours runs the loop of
`voxadapt train`. What is timed is one epoch, data loading included, in parts between which the two
take turns; then both are stopped and write nothing. The public script accumulates four batches, so
ours does. The weights are random, at a middle size with the proportions of the 1.7B and its full
vocabularies.
"""

from __future__ import annotations

import argparse
import json
import math
import runpy
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
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

from voxadapt.model.shapes import SHAPES, Shape

#: The 1.7B in small: talker twice as wide as the code predictor, 28 : 5 layers, all ids.
MIDDLE = Shape(
    "middle", hidden=512, intermediate=1536, num_layers=6, num_heads=8, num_kv_heads=4,
    head_dim=64, text_hidden=512, predictor_hidden=256, predictor_intermediate=768,
    predictor_layers=1, encoder_channels=128,
)  # fmt: skip
ACCUMULATION = 4  # a constant of the public script
FRAMES_PER_S = 12.5
TOKENS_PER_S = 4.0
REF_S = 5.0


@dataclass
class Taken:
    """What one part of an epoch took.

    Attributes:
        seconds: CPU time, or wall time on a GPU.
        num_frames: Codec frames in it.
        positions: Positions of all batches.
        padding: Of them, those that are padding.
        peak_gb: Highest memory so far: of the process, or allocated on the GPU.
    """

    seconds: float
    num_frames: int
    positions: int
    padding: int
    peak_gb: float

    @property
    def frames_per_s(self) -> float:
        """Codec frames a second."""
        return self.num_frames / self.seconds


class Rates(NamedTuple):
    """What the products of a batch need and reach."""

    operations: float  # of a batch
    alone: float  # operations a second of its products, each timed by itself
    best: float  # operations a second of a large product


class Recorder:
    """Times the parts of an epoch, and holds the run between them until it is its turn again.

    Args:
        device: Where the steps run.
        num_steps: Optimizer steps of a part.
    """

    def __init__(self, device: str, num_steps: int) -> None:
        self._device, self._num_steps = device, num_steps
        self._steps_left = num_steps
        self._started: float | None = None
        self._batches: list[tuple[int, int, int]] = []

    def begin(self) -> None:
        """Start the clock with the first batch, when the first part is asked for."""
        if self._started is None:
            Side.answer()
            self._started = clock_s(self._device)

    def batch(self, num_frames: int, attention_mask: torch.Tensor) -> None:
        """Note a batch; it may be read ahead of the step that learns it."""
        padding = int((attention_mask == 0).sum())
        self._batches.append((num_frames, attention_mask.numel(), padding))

    def step(self) -> None:
        """Note the end of an optimizer step; at the end of a part, report and wait."""
        self._steps_left -= 1
        if self._steps_left:
            return
        assert self._started is not None
        seconds = clock_s(self._device) - self._started
        count = self._num_steps * ACCUMULATION
        learnt, self._batches = self._batches[:count], self._batches[count:]
        frames, positions, padding = (sum(column) for column in zip(*learnt, strict=True))
        Side.answer(asdict(Taken(seconds, frames, positions, padding, peak_gb(self._device))))
        self._steps_left, self._started = self._num_steps, clock_s(self._device)


def run_public(arguments: argparse.Namespace, recorder: Recorder) -> None:
    """Run the public script; the recorder holds it between the parts."""
    from voxadapt.core.compat import import_qwen_tts

    import_qwen_tts()
    import accelerate
    from qwen_tts.inference import qwen3_tts_model

    folder = arguments.upstream / "finetuning"
    sys.path.insert(0, str(folder))
    import dataset

    model_class = qwen3_tts_model.Qwen3TTSModel
    load, accelerator = model_class.from_pretrained, accelerate.Accelerator
    collate, read = dataset.TTSDataset.collate_fn, dataset.TTSDataset.__getitem__

    def load_as_asked(path: str, **_fixed: Any) -> Any:
        return load(
            path, dtype=getattr(torch, arguments.dtype), attn_implementation="sdpa",
            device_map=arguments.device,
        )  # fmt: skip

    def accelerator_as_asked(**options: Any) -> Any:
        precision = "no" if arguments.dtype == "float32" else "bf16"
        return accelerator(
            **{**options, "mixed_precision": precision, "cpu": arguments.device == "cpu"}
        )

    def counted(self: Any, items: list[Any]) -> Any:
        batch = collate(self, items)
        recorder.batch(int(batch["codec_mask"].sum()), batch["attention_mask"])
        return batch

    def begun(self: Any, index: int) -> Any:
        recorder.begin()
        return read(self, index)

    class Timed(torch.optim.AdamW):
        def step(self, closure: Callable[[], float] | None = None) -> Any:
            result = super().step(closure)
            recorder.step()
            return result

    with ExitStack() as patches:
        for patch in (
            mock.patch.object(model_class, "from_pretrained", load_as_asked),
            mock.patch.object(accelerate, "Accelerator", accelerator_as_asked),
            mock.patch.object(dataset.TTSDataset, "__getitem__", begun),
            mock.patch.object(dataset.TTSDataset, "collate_fn", counted),
            mock.patch.object(torch.optim, "AdamW", Timed),
            mock.patch.object(
                sys, "argv",
                ["sft_12hz.py", "--init_model_path", str(arguments.work / "base"),
                 "--output_model_path", str(arguments.work / "output"),
                 "--train_jsonl", str(arguments.work / "train.jsonl"),
                 "--batch_size", str(arguments.batch_size), "--num_epochs", "1"],
            ),
        ):  # fmt: skip
            patches.enter_context(patch)
        runpy.run_path(str(folder / "sft_12hz.py"), run_name="__main__")


def run_ours(arguments: argparse.Namespace, recorder: Recorder) -> None:
    """Run our loop; the recorder holds it between the parts."""
    from voxadapt.core.params import TrainParams
    from voxadapt.data.manifest import Utterance
    from voxadapt.training import trainer as loop
    from voxadapt.training.batches import make_batch

    class Steps:
        def __init__(self, *_arguments: Any) -> None:
            pass

        def advance(self, *_arguments: Any) -> None:
            recorder.step()

    def counted(examples: Any, ids: Any) -> Any:
        recorder.begin()
        batch = make_batch(examples, ids)
        recorder.batch(batch.num_frames, batch.attention_mask)
        return batch

    lines = (arguments.work / "train.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    params = TrainParams(
        speaker_name="speaker_test",
        batch_size=arguments.batch_size,
        gradient_accumulation_steps=ACCUMULATION,
        lr=2e-5,
        weight_decay=0.01,
        compute_dtype=arguments.dtype,
        master_weights=arguments.dtype == "float32",
    )
    with (
        mock.patch.object(loop, "Progress", Steps),
        mock.patch.object(loop, "make_batch", counted),
        tempfile.TemporaryDirectory(dir=arguments.work) as scratch,
    ):
        loop.train(
            params,
            model_path=arguments.work / "base",
            utterances=[
                Utterance(
                    id=f"c{n}", audio=row["audio"], text=row["text"], ref_audio=row["ref_audio"],
                    language=None, duration_s=len(row["audio_codes"]) / FRAMES_PER_S,
                    sample_rate_hz=24_000, audio_sha256=f"{n:064x}", split="train",
                )
                for n, row in enumerate(rows)
            ],
            codes={f"c{n}": np.array(r["audio_codes"], np.int16) for n, r in enumerate(rows)},
            ref_audio=arguments.work / "ref.wav",
            out_dir=Path(scratch) / "out",
            work_dir=Path(scratch) / "work",
            num_epochs=1,
            device=arguments.device,
            base_sha256="0" * 64,
        )  # fmt: skip


def write_data(folder: Path, num_clips: int, seed: int) -> None:
    """Write clips in the public script's format: random codes, lengths as in read speech."""
    rng = np.random.default_rng(seed)
    tone = 0.1 * np.sin(2 * math.pi * 200 * np.arange(int(REF_S * 24_000)) / 24_000)
    sf.write(folder / "ref.wav", (tone + rng.normal(0, 0.01, len(tone))).astype("f4"), 24_000)
    durations_s = np.clip(rng.lognormal(np.log(4.5), 0.5, num_clips), 1.0, 20.0)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as stream:
        for duration_s in durations_s:
            codes = rng.integers(0, 2048, (round(duration_s * FRAMES_PER_S), 16))
            letters = rng.integers(97, 123, round(duration_s * TOKENS_PER_S)).astype(np.uint8)
            row = {
                "audio": "unread.wav",
                "text": letters.tobytes().decode(),
                "audio_codes": codes.tolist(),
                "ref_audio": str(folder / "ref.wav"),
            }
            stream.write(json.dumps(row) + "\n")


def command(arguments: argparse.Namespace) -> str:
    """Return what was run, without the place of the checkout."""
    said = ["python -m benchmarks.training --upstream PATH"]
    for name in ("batches", "clips", "parts", "dtype", "device", "shape"):
        value = getattr(arguments, name)
        said.append(f"--{name} {' '.join(map(str, value)) if name == 'batches' else value}")
    return " ".join(said)


def measure(arguments: argparse.Namespace, batch_size: int, shape: Shape) -> dict[str, list[Taken]]:
    """Train an epoch on both sides, part by part in turns; the first part is for warming up."""
    taken: dict[str, list[Taken]] = {"public": [], "ours": []}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as running:
        work = Path(temporary)
        write_model(work / "base", shape, dtype=getattr(torch, arguments.dtype), codec="small")
        write_data(work, arguments.clips * (arguments.parts + 1), seed=0)
        sides = {}
        for whose in taken:
            words = [
                "--upstream", str(arguments.upstream), "--side", whose, "--work", str(work),
                "--batch-size", str(batch_size), "--clips", str(arguments.clips),
                "--dtype", arguments.dtype, "--device", arguments.device,
            ]  # fmt: skip
            sides[whose] = running.enter_context(Side("benchmarks.training", words))
        for part in range(arguments.parts + 1):
            for whose, side in sides.items():
                found = Taken(**side.ask())
                if part:
                    taken[whose].append(found)
    return taken


def total_frames_per_s(parts: list[Taken]) -> float:
    """Return the codec frames a second of all parts together."""
    return sum(t.num_frames for t in parts) / sum(t.seconds for t in parts)


def padding_share(parts: list[Taken]) -> float:
    """Return the share of all positions that are padding."""
    return sum(t.padding for t in parts) / sum(t.positions for t in parts)


def products(shape: Shape, positions: int, frames: int, device: str, dtype: torch.dtype) -> Rates:
    """Time each product of a batch by itself, forward and back: what training could reach.

    Of the layers and heads, at the batch's own sizes; `best` is the rate of a large product.
    """
    heads, keys = (n * shape.head_dim for n in (shape.num_heads, shape.num_kv_heads))
    sizes: Counter[tuple[int, int, int]] = Counter()  # rows, inputs, outputs
    for rows, hidden, inner, layers in (
        (positions, shape.hidden, shape.intermediate, shape.num_layers),
        (16 * frames, shape.predictor_hidden, shape.predictor_intermediate, shape.predictor_layers),
    ):
        for inputs, outputs, count in (
            (hidden, heads, 1), (hidden, keys, 2), (heads, hidden, 1), (hidden, inner, 2),
            (inner, hidden, 1),
        ):  # fmt: skip
            sizes[rows, inputs, outputs] += layers * count
    sizes[16 * frames, shape.hidden, shape.predictor_hidden] += 1
    sizes[frames, shape.predictor_hidden, 2048] += 15
    sizes[frames, shape.hidden, 3072] += 1
    operations = seconds = 0.0
    for (rows, inputs, outputs), count in sizes.items():
        x, y, weight = (
            torch.randn(*size, device=device, dtype=dtype)
            for size in ((rows, inputs), (rows, outputs), (outputs, inputs))
        )
        operations += count * 6.0 * rows * inputs * outputs
        seconds += count * _least_s(partial(_linear, x, y, weight), device)
    size = 1024 if device == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=dtype)
    return Rates(
        operations, operations / seconds, 2.0 * size**3 / _least_s(partial(torch.mm, a, a), device)
    )


def _linear(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> None:
    """Multiply as a linear layer does, forward and for both gradients."""
    x @ weight.t(), y @ weight, y.t() @ x


def _least_s(work: Callable[[], object], device: str) -> float:
    """Return the seconds of the fastest of some calls."""
    taken = []
    for _ in range(8):
        start = clock_s(device)
        work()
        taken.append(clock_s(device) - start)
    return min(taken)


def main() -> None:
    """Time both sides and write the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--upstream", type=Path, required=True, help="checkout of Qwen3-TTS")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--clips", type=int, default=16, help="of a part; 4 x each batch, or more")
    parser.add_argument(
        "--parts", type=int, default=5, help="that are timed, after one that is not"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=("middle", *SHAPES), default="middle")
    parser.add_argument("--side", choices=("public", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    on_cpu = arguments.device == "cpu"
    if on_cpu:
        torch.set_num_threads(1)
    if arguments.side:
        num_steps = arguments.clips // (ACCUMULATION * arguments.batch_size)
        recorder = Recorder(arguments.device, num_steps)
        (run_public if arguments.side == "public" else run_ours)(arguments, recorder)
        raise SystemExit("the epoch ended before it was stopped")
    shape = MIDDLE if arguments.shape == "middle" else SHAPES[arguments.shape]
    if any(arguments.clips % (ACCUMULATION * size) for size in arguments.batches):
        parser.error(f"--clips must be a multiple of {ACCUMULATION} x each batch size")
    rows, said = [], []
    for size in arguments.batches:
        taken = measure(arguments, size, shape)
        public, ours = taken["public"], taken["ours"]
        ratios = [b.frames_per_s / a.frames_per_s for a, b in zip(public, ours, strict=True)]
        times = total_frames_per_s(ours) / total_frames_per_s(public)
        num_batches = arguments.clips * len(ours) // size
        seconds = sum(t.seconds for t in ours) / num_batches
        rates = products(
            shape,
            sum(t.positions - t.padding for t in ours) // num_batches,
            sum(t.num_frames for t in ours) // num_batches,
            arguments.device,
            getattr(torch, arguments.dtype),
        )
        rate = rates.operations / seconds
        rows.append(
            [
                f"{size} x {ACCUMULATION}",
                *(f"{total_frames_per_s(parts):.0f}" for parts in (public, ours)),
                f"{times:.2f}",
                spread(ratios),
                *(f"{100 * padding_share(parts):.1f} %" for parts in (public, ours)),
                *(f"{max(t.peak_gb for t in parts):.2f} GB" for parts in (public, ours)),
            ]
        )
        said += [
            verdict(
                f"Batch {size} x {ACCUMULATION}, times faster",
                times,
                2.0,
                "If its products took all of its time it would be "
                f"{times * rates.alone / rate:.1f} times.",
            ),
            verdict(
                f"Batch {size} x {ACCUMULATION}, share of the rate of its products alone, %",
                100 * rate / rates.alone,
                70,
                "The rest of the time lies between them.",
            ),
            f"Batch {size} x {ACCUMULATION} multiplies at {rate / 1e9:.0f} GFLOP/s; its products "
            f"reach {rates.alone / 1e9:.0f} one by one at these sizes, a large one "
            f"{rates.best / 1e9:.0f}.",
            verdict(
                "Share of our batches that is not padding, %",
                100 * (1 - padding_share(ours)),
                95,
                f"{arguments.clips * (arguments.parts + 1)} clips sorted by length do not fill "
                f"batches of {size} better; a larger corpus does.",
            ),
        ]
    where = f"one thread of {processor()}" if on_cpu else torch.cuda.get_device_name()
    header = [
        "batch", "public, frames/s", "ours, frames/s", "times faster", "of single parts",
        "public, padding", "ours, padding", "public, peak", "ours, peak",
    ]  # fmt: skip
    write_section(
        f"Training beside the public script, {'CPU' if on_cpu else 'GPU'}, {arguments.dtype}",
        [
            f"Codec frames a second of {'CPU' if on_cpu else 'wall'} time at the {arguments.shape} "
            f"shape ({shape.num_layers} x {shape.hidden} talker, {shape.predictor_layers} x "
            f"{shape.predictor_hidden} code predictor, {shape.text_vocab} text rows, all trained), "
            f"{where}, torch {torch.__version__}, {arguments.dtype}. One epoch of "
            f"{arguments.clips * (arguments.parts + 1)} clips, in parts of {arguments.clips} that "
            f"take turns (n = {arguments.parts}, after one to warm up): `{command(arguments)}`. "
            "Figures of all parts together, then median and range of single parts, whose clips "
            "differ.",
            "",
            *table(header, rows),
            "",
            *(f"- {text}" for text in said),
        ],
    )


if __name__ == "__main__":
    main()
