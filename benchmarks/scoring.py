"""The cost of scoring a candidate: 50 sentences, 3 takes, on the miniature.

    python -m benchmarks.scoring data

Every candidate is scored from nothing by the function that the stage calls: the model is loaded,
the sentences are spoken, decoded, heard, compared and summed up, and nothing is taken from a cache.
Candidates differ in the seed of their speech. What starting a process and importing the libraries
costs is measured apart, because a stage pays it once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from benchmarks.results import processor, table, write_section

NUM_SENTENCES, NUM_TAKES = 50, 3
NUM_STARTS = 3
GOAL_S = 12.0
PARTS = ("load", "tokens", "codec", "transcripts", "similarity", "F0", "rest")
#: What a score stage imports before it can begin.
IMPORTS = (
    "import torch; from voxadapt.core.compat import import_qwen_tts; import_qwen_tts(); "
    "import qwen_tts.core.models, voxadapt.pipeline.score"
)


def sentences(folder: Path) -> tuple[list[Any], list[Any]]:
    """Return the sentences that are spoken, and other recordings as the speaker's reference."""
    from voxadapt.scoring.rows import EvalClip, Sentence, slice_of

    lines = (folder / "speaker" / "train_raw.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    spoken = [
        Sentence(
            text_id=f"{n:03d}",
            text=row["text"],
            split="selection",
            slice=slice_of(row["text"], "en"),
        )
        for n, row in enumerate(rows[:NUM_SENTENCES])
    ]
    real = [
        EvalClip(
            candidate="real", split="selection", text_id=f"real{n}", lang="en", text=row["text"],
            wav=f"data/speaker/{row['audio']}",
        )
        for n, row in enumerate(rows[NUM_SENTENCES : NUM_SENTENCES + 20])
    ]  # fmt: skip
    return spoken, real


@contextlib.contextmanager
def timed(owner: Any, name: str, spent: dict[str, float], part: str) -> Iterator[None]:
    """Add the processor seconds of a function's calls to a part."""
    stock: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return stock(*arguments, **options)
        finally:
            spent[part] += time.process_time() - start

    with mock.patch.object(owner, name, call):
        yield


def score_candidate(params: Any, folder: Path, spoken: list[Any], number: int) -> dict[str, float]:
    """Score one candidate in the working folder; return the seconds of its parts."""
    from voxadapt.asr.voice_prints import Embedder
    from voxadapt.asr.whisper import Transcriber
    from voxadapt.generation import decoding
    from voxadapt.generation.synthesis import clone_voice
    from voxadapt.model.load import load_tts
    from voxadapt.pipeline.candidates import Candidate
    from voxadapt.pipeline.context import open_context
    from voxadapt.pipeline.sentences import SentenceSet
    from voxadapt.pipeline.speak_and_score import speak_and_score
    from voxadapt.pipeline.speaking import Speaking
    from voxadapt.pipeline.tracks import speaker_track
    from voxadapt.scoring.pitch import PitchTracker

    score = params.score.model_copy(update={"seed": number, "takes": NUM_TAKES})
    here = params.executor.model_copy(update={"num_workers": 1})
    params = params.model_copy(update={"score": score, "executor": here})
    track, base = speaker_track(params), Path("data/models/base")
    candidate = Candidate(f"epoch-{number}", base, base)
    spent = dict.fromkeys(PARTS, 0.0)
    start, clock = time.process_time(), time.perf_counter()
    tts = load_tts(base)
    voice = clone_voice(tts, "data/speaker/ref.wav", None, "x_vector")
    spent["load"] = time.process_time() - start
    with (
        timed(decoding, "generate_codes", spent, "tokens"),
        timed(tts.model.speech_tokenizer, "decode", spent, "codec"),
        timed(Transcriber, "transcribe", spent, "transcripts"),
        timed(Embedder, "prepare", spent, "similarity"),
        timed(Embedder, "embed_speech", spent, "similarity"),
        timed(Embedder, "embed_windows", spent, "similarity"),
        timed(PitchTracker, "measure", spent, "F0"),
    ):
        speaking = Speaking(track.speakers()[0], tts, voice, partial(load_tts, base))
        sentences = SentenceSet(spoken, params.asr, "auto")
        place = folder / candidate.name
        speak_and_score(track, open_context(params), candidate, [speaking], sentences, place)
    whole = time.process_time() - start
    spent["rest"] = whole - sum(spent.values())
    return {**spent, "whole": whole, "wall clock": time.perf_counter() - clock}


def start_seconds() -> list[float]:
    """Return the processor seconds of fresh processes that import what a score stage imports."""
    taken = []
    for _ in range(NUM_STARTS):
        before = os.times()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True)
        after = os.times()
        taken.append(sum(after[2:4]) - sum(before[2:4]))
    return taken


def measure(data: Path, num_candidates: int) -> tuple[list[dict[str, float]], int]:
    """Score candidates one after another; return their seconds and how many clips each has."""
    from voxadapt.asr.voice_prints import Embedder
    from voxadapt.core.params import load_params
    from voxadapt.core.paths import SPEAKER
    from voxadapt.data.manifest import Utterance, write_manifest
    from voxadapt.scoring.similarity import build_scale

    params = load_params(Path("profiles/miniature.yaml"))
    torch.set_num_threads(1)
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        Path("data").symlink_to((home / data).resolve(), target_is_directory=True)
        spoken, real = sentences(Path("data"))
        voice, scale, _ = build_scale(
            Embedder(), real, {}, params.select, root=Path(),
            min_speech_s=params.score.min_speech_s,
        )  # fmt: skip
        voice.write(SPEAKER.voice)
        scale.write(SPEAKER.scale)
        write_manifest(
            SPEAKER.manifest,
            [
                Utterance(
                    id="real0", audio=real[0].wav, text=real[0].text,
                    ref_audio="data/speaker/ref.wav", duration_s=1.0,
                    sample_rate_hz=24000, audio_sha256="0" * 64, split="selection",
                )
            ],
        )  # fmt: skip
        with mock.patch.dict(os.environ, {"WORK_DIR": "work"}):
            found = []
            for number in range(1, num_candidates + 1):
                found.append(score_candidate(params, Path("scores"), spoken, number))
                print(json.dumps(found[-1]), flush=True)
    return found, NUM_SENTENCES * NUM_TAKES


def main() -> None:
    """Score candidates, fit seconds against their number and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the miniature's data folder")
    parser.add_argument("--candidates", type=int, default=10)
    arguments = parser.parse_args()
    starts = start_seconds()
    found, num_clips = measure(arguments.data, arguments.candidates)
    wholes = [item["whole"] for item in found]
    typical = statistics.median(wholes)
    start_s = statistics.median(starts)
    columns = {name: [item[name] for item in found] for name in (*PARTS, "whole", "wall clock")}
    columns["start and imports"] = starts
    rows = [
        [name, *(f"{pick(values):.1f} s" for pick in (min, statistics.median, max))]
        for name, values in columns.items()
    ]
    total = typical + start_s
    verdict = "met" if total <= GOAL_S else "**missed**"
    sums = np.cumsum(wholes)
    slope = float(np.polyfit(np.arange(1, len(sums) + 1), sums, 1)[0]) if len(sums) > 1 else typical
    write_section(
        "Scoring a candidate",
        [
            f"{num_clips} clips ({NUM_SENTENCES} sentences, {NUM_TAKES} takes) of the miniature, "
            f"one thread of {processor()}, torch {torch.__version__}, n = {len(found)} candidates "
            f"one after another, nothing cached, processor seconds; {NUM_STARTS} starts of a "
            f"process: `python -m benchmarks.scoring {arguments.data} --candidates "
            f"{arguments.candidates}`. The wall clock counts what other programs took besides.",
            "",
            *table(["part", "least", "median", "most"], rows),
            "",
            f"With the start of its process one candidate takes {total:.1f} s (goal "
            f"{GOAL_S:.0f} s, {verdict}). {len(found)} candidates in one process take "
            f"{sums[-1]:.0f} s, {sums[-1] / typical:.1f} times the median one; a candidate more "
            f"costs {slope:.1f} s (slope of the running sum), {slope / typical:.2f} of the median.",
        ],
    )


if __name__ == "__main__":
    main()
