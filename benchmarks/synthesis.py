"""Speaking a batch: our token loop against the stock one, and what the C allocator costs the codec.

    python -m benchmarks.synthesis data/models/base data/speaker/train_raw.jsonl [--shape 0.6B]

Both loops sample the same texts from the same prompt; runs take turns. The stock calls run once
more in a process whose allocator is left as it is. With `--shape` a model of a real size with
random weights speaks instead, and only its loop is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmarks.results import processor, spread, table, verdict, write_section

LIMIT = 80  # tokens a clip; the miniature's sentences need about thirty


def speak_with(
    tts: Any, prompt: Any, texts: list[str], ours: bool, limit: int = LIMIT
) -> dict[str, float]:
    """Speak the texts and return seconds of the tokens and of the codec, and the frames made."""
    from voxadapt.generation.decoding import Decoding
    from voxadapt.generation.synthesis import one_by_one

    codec, spent = tts.model.speech_tokenizer, {"codec": 0.0, "frames": 0.0}
    decode: Callable[..., Any] = codec.decode

    def timed(items: list[dict[str, Any]]) -> Any:
        start = time.process_time()
        result = decode(items)
        spent["codec"] += time.process_time() - start
        spent["frames"] += float(sum(len(item["audio_codes"]) for item in items))
        return result

    sampling = {"temperature": 0.6, "top_k": 30, "top_p": 1.0}
    call = {
        "text": texts, "language": "Auto", "voice_clone_prompt": [prompt],
        "non_streaming_mode": True, "do_sample": True, "subtalker_dosample": True,
        "repetition_penalty": 1.05, "max_new_tokens": limit, **sampling,
        **{f"subtalker_{name}": value for name, value in sampling.items()},
    }  # fmt: skip
    torch.manual_seed(0)
    with mock.patch.object(codec, "decode", timed):
        start = time.process_time()
        if ours:
            with Decoding(tts.model, range(len(texts)), [limit] * len(texts)), one_by_one(codec):
                tts.generate_voice_clone(**call)
        else:
            decoder = codec.model.decoder
            layers = type(decoder).forward.__get__(decoder)
            with mock.patch.object(decoder, "forward", layers):
                tts.generate_voice_clone(**call)
        spent["tokens"] = time.process_time() - start - spent["codec"]
    return spent


def products_s(tts: Any, rows: int, repeats: int = 20) -> float:
    """Return the CPU seconds of one row's frame in the matrix products of the layers alone.

    What the loop could reach if norms, attention, sampling and Python cost nothing.
    """
    from voxadapt.generation.decoding import fused_weights

    weights = fused_weights(tts.model.talker)
    again = tts.model.talker.config.num_code_groups  # positions of a frame in the predictor
    taken = 0.0
    for stack, count in ((weights.talker, 1), (weights.predictor, again)):
        calls = [
            (product, torch.randn(rows, product.num_inputs))
            for layer in stack.layers
            for product in layer.linears
        ]
        with torch.inference_mode():
            start = time.process_time()
            for _ in range(repeats):
                for product, inputs in calls:
                    product(inputs)
            taken += count * (time.process_time() - start) / repeats
    return taken / rows


def open_model(model: Path, manifest: Path) -> tuple[Any, Any, list[str]]:
    """Load a model; return it, the prompt of the first row's reference, and the texts."""
    from voxadapt.model.load import load_tts

    torch.set_num_threads(1)
    tts: Any = load_tts(model)
    generation = tts.model.talker.generation_config
    generation.pad_token_id = tts.model.config.talker_config.codec_eos_token_id
    rows = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    reference = manifest.parent / rows[0]["ref_audio"]
    (prompt,) = tts.create_voice_clone_prompt(ref_audio=str(reference), x_vector_only_mode=True)
    return tts, prompt, [row["text"] for row in rows]


def at_shape(name: str, manifest: Path, size: int, runs: int) -> None:
    """Time a frame of `size` rows at a real shape, by both loops, and write the section."""
    from benchmarks.random_model import write_model

    from voxadapt.model.shapes import SHAPES

    few, more = 2, 10  # frames; the time of the prompts is in both
    taken: dict[str, list[float]] = {"stock": [], "ours": []}
    with tempfile.TemporaryDirectory() as root:
        folder = write_model(Path(root) / "model", SHAPES[name], codec="small")
        tts, prompt, texts = open_model(folder, manifest)
        products = products_s(tts, size, repeats=1) * size
        for run in range(runs + 1):
            for whose, found in taken.items():
                spent = [
                    speak_with(tts, prompt, texts[:size], whose == "ours", frames)["tokens"]
                    for frames in (few, more)
                ]
                if run:  # the first is for warming up
                    found.append((spent[1] - spent[0]) / (more - few))
    ratios = [stock / ours for stock, ours in zip(*taken.values(), strict=True)]
    median = statistics.median(ratios)
    limit = statistics.median(taken["stock"]) / products
    cause = f"The products alone would give {limit:.1f}."
    write_section(
        f"Speaking at the {name} shape",
        [
            f"CPU seconds of one frame of {size} rows, random weights, float32, one thread of "
            f"{processor()}, torch {torch.__version__}, median and range of {runs} interleaved "
            f"runs: `python -m benchmarks.synthesis {' '.join(sys.argv[1:])}`. Matrix products "
            f"of the layers alone: {products:.2f} s.",
            "",
            *table(
                ["loop", "a frame of all rows"],
                [[whose, f"{spread(found)} s"] for whose, found in taken.items()],
            ),
            "",
            f"- {verdict('Times faster, the loop', median, 4.0, cause)} Of single runs: "
            f"{spread(ratios)}.",
        ],
    )


def measure(arguments: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Return [tokens, codec, frames] of every run, keyed by batch size and whose loop it was."""
    tts, prompt, said = open_model(arguments.model, arguments.manifest)
    taken: dict[str, list[list[float]]] = {
        f"{size} products": [[products_s(tts, size)] for _ in range(arguments.runs)]
        for size in arguments.batches
    }
    for size in arguments.batches:
        texts = said[:size]
        for run in range(arguments.runs + 1):
            for whose in ("stock", "ours"):
                found = speak_with(tts, prompt, texts, whose == "ours")
                if run:  # the first is for warming up
                    values = [found["tokens"], found["codec"], found["frames"]]
                    taken.setdefault(f"{size} {whose}", []).append(values)
    return taken


def main() -> None:
    """Time both loops with both allocators and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a Base model")
    parser.add_argument("manifest", type=Path, help="texts to say, with a reference clip")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16, 32])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--default-allocator", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=["0.6B", "1.7B"], help="random weights of this size")
    arguments = parser.parse_args()
    if arguments.shape:
        at_shape(arguments.shape, arguments.manifest, arguments.batches[-1], arguments.runs)
        return
    if arguments.default_allocator:
        with mock.patch("voxadapt.model.load.keep_freed_memory"):
            print(json.dumps(measure(arguments)))
        return
    ours = measure(arguments)
    command = [sys.executable, "-m", "benchmarks.synthesis", *sys.argv[1:], "--default-allocator"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    default = json.loads(answer.splitlines()[-1])
    rows, said = [], []
    for size in arguments.batches:
        products = statistics.median(run[0] for run in ours[f"{size} products"])
        stock, fast, plain = ours[f"{size} stock"], ours[f"{size} ours"], default[f"{size} stock"]
        ratios = [
            (a[0] / a[2]) / (b[0] / b[2]) for a, b in zip(stock, fast, strict=True)
        ]  # a frame's time: sampled clips differ a little in length
        whole = [
            ((a[0] + a[1]) / a[2]) / ((b[0] + b[1]) / b[2])
            for a, b in zip(plain, fast, strict=True)
        ]
        rows.append(
            [
                str(size),
                *(f"{1000 * statistics.median(r[0] / r[2] for r in runs):.2f} ms"
                  for runs in (stock, fast)),
                f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
                f"{statistics.median(r[0] / r[2] for r in stock) / products:.1f}",
                *(f"{1000 * statistics.median(r[1] / r[2] for r in runs):.2f} ms"
                  for runs in (plain, fast)),
                f"{statistics.median(whole):.1f} ({min(whole):.1f} to {max(whole):.1f})",
            ]
        )  # fmt: skip
        what = f"Batch {size}, times faster"
        limit = statistics.median(r[0] / r[2] for r in stock) / products
        cause = f"The products alone would give {limit:.1f}; the rest is what lies between them."
        said.append(verdict(f"{what}, the loop", statistics.median(ratios), 4.0, cause))
        said.append(verdict(f"{what}, loop and codec", statistics.median(whole), 3.0, cause))
    header = [
        "batch", "stock loop", "our loop", "times faster", "limit", "codec, default allocator",
        "codec, ours", "together",
    ]  # fmt: skip
    frames = ours[f"{arguments.batches[-1]} ours"][0][2]
    write_section(
        "Speaking",
        [
            f"CPU time of a frame (80 ms of speech), one thread of {processor()}, torch "
            f"{torch.__version__}, {arguments.model}, medians of {arguments.runs} interleaved "
            f"runs, {frames:.0f} frames in the largest batch: `python -m benchmarks.synthesis "
            f"{' '.join(sys.argv[1:])}`. *Limit*: the stock loop against the matrix products of "
            "our layers alone. *Together*: loop and codec, ours (clip by clip) against the stock "
            "calls in a process whose allocator gives freed memory back.",
            "",
            *table(header, rows),
            "",
            *(f"- {text}" for text in said),
        ],
    )


if __name__ == "__main__":
    main()
