"""Clips whose end is suppressed: where do they end, and does any clip change that is free to end?

    python -m benchmarks.endings data/models/base data/speaker/train_raw.jsonl

With `--seconds` and `--store`, it stops after a while and goes on when it is called again.

A clip's true end is where it ends by itself. It is spoken three times with the same random numbers:
without the watch for missed ends, with it, and with it while the end cannot be chosen for k frames
from the true one on. k goes round `SUPPRESSED`; the last stands for an end that never comes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from benchmarks.results import table, write_section
from scipy.stats import binomtest
from torch import Tensor

SUPPRESSED = (6, 12, 25, 50, 10_000)  # frames
SAMPLINGS = {"miniature": (0.2, 30), "stock": (0.9, 50)}  # temperature, top-k
NEAR_S = 0.3  # an end this near the true one is right
BATCH = 50


@dataclass(frozen=True)
class Clip:
    """The codes of a clip, `[N, K]`, and how it ended."""

    codes: Tensor
    ended: bool
    rescued: bool


@contextmanager
def without_watch() -> Iterator[None]:
    """Let no row be cut for a missed end."""
    from voxadapt.generation import end_watch

    with mock.patch.multiple(end_watch, STARVED=0.0, PLAUSIBLE=2.0):
        yield


@contextmanager
def suppressed(spans: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Keep the end from being chosen; what is watched still says how likely it was.

    Args:
        spans: For each row, the first frame and the one after the last.
    """
    from voxadapt.generation.decoding import _Frames

    first_B, stop_B = torch.tensor(spans).T
    choose_frame = _Frames._choose

    def choose(frames: _Frames) -> None:
        row_A, sampler = frames._row_S[: frames.count], frames._sampler
        frame = frames._frame_1
        known_A = row_A < len(first_B)  # a recording has room for more rows than there are
        row_A = row_A.clamp(max=len(first_B) - 1)
        never_A = known_A & (frame >= first_B[row_A]) & (frame < stop_B[row_A])
        never_AV = never_A[:, None] & frames._is_eos_V

        def choose_code(scores_AV: Tensor, uniform_A: Tensor) -> Tensor:
            chosen = type(sampler).choose(
                sampler, scores_AV.masked_fill(never_AV, -torch.inf), uniform_A
            )
            return chosen

        with mock.patch.object(sampler, "choose", choose_code):
            choose_frame(frames)

    with mock.patch.object(_Frames, "_choose", choose):
        yield


def speak(
    tts: Any, voice: dict[str, Any], texts: Sequence[str], seeds: Sequence[int],
    temperature: float, top_k: int, max_seconds_per_token: float = 0.6,
) -> list[Clip]:  # fmt: skip
    """Speak texts without decoding them to audio."""
    from voxadapt.generation.decoding import Decoding, frame_rate_hz, text_tokens, token_limit

    given: list[Tensor] = []

    def spy(items: Sequence[dict[str, Tensor]]) -> Any:
        given.extend(item["audio_codes"].clone() for item in items)
        return [np.zeros(1, np.float32) for _ in items], 24_000

    rate_hz = frame_rate_hz(tts)
    limits = [token_limit(text_tokens(tts, text), max_seconds_per_token, rate_hz) for text in texts]
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": 1.0}
    call = {
        "text": list(texts), "language": "Auto", "non_streaming_mode": True, "do_sample": True,
        "subtalker_dosample": True, "repetition_penalty": 1.05, **sampling, **voice,
        **{f"subtalker_{name}": value for name, value in sampling.items()},
    }  # fmt: skip
    by_name = tts.model.tts_model_type == "custom_voice"
    with (
        mock.patch.object(tts.model.speech_tokenizer, "decode", spy),
        Decoding(tts.model, seeds, limits) as decoding,
    ):
        (tts.generate_custom_voice if by_name else tts.generate_voice_clone)(**call)
    return [
        Clip(codes, ending.ended, ending.rescued)
        for codes, ending in zip(given, decoding.endings, strict=True)
    ]


def voice_of(tts: Any, reference: Path) -> dict[str, Any]:
    """Return what the stock call needs: the model's first speaker, or a clone of a recording."""
    if tts.model.tts_model_type == "custom_voice":
        return {"speaker": sorted(tts.get_supported_speakers())[0]}
    prompt = tts.create_voice_clone_prompt(ref_audio=str(reference), x_vector_only_mode=True)
    return {"voice_clone_prompt": prompt}


@dataclass
class Found:
    """Counts over the clips of one sampling.

    Attributes:
        num_clips: That were spoken.
        num_healthy: That ended by themselves without the watch.
        num_changed: Of these, with any code that differs with it.
        away_s: For each k, how far from the true end each healthy clip ended; late is positive.
    """

    num_clips: int = 0
    num_healthy: int = 0
    num_changed: int = 0
    away_s: dict[str, list[float]] = field(default_factory=lambda: {str(k): [] for k in SUPPRESSED})


def measure(
    tts: Any, voice: dict[str, Any], texts: Sequence[str], found: Found, sampling: tuple[float, int]
) -> None:
    """Speak a batch of clips three times, compare their ends and count them in."""
    from voxadapt.generation.decoding import frame_rate_hz

    rate_hz = frame_rate_hz(tts)
    numbers = range(found.num_clips, found.num_clips + BATCH)
    lines = [texts[number % len(texts)] for number in numbers]
    with without_watch():
        free = speak(tts, voice, lines, numbers, *sampling)
    watched = speak(tts, voice, lines, numbers, *sampling)
    ks = [SUPPRESSED[number % len(SUPPRESSED)] for number in numbers]
    spans = [(len(clip.codes), len(clip.codes) + k) for clip, k in zip(free, ks, strict=True)]
    with suppressed(spans):
        late = speak(tts, voice, lines, numbers, *sampling)
    found.num_clips += len(free)
    for true, same, other, k in zip(free, watched, late, ks, strict=True):
        if true.ended:
            found.num_healthy += 1
            found.num_changed += not torch.equal(true.codes, same.codes)
            found.away_s[str(k)].append((len(other.codes) - len(true.codes)) / rate_hz)


def share(hits: int, count: int) -> str:
    """Write a share with its 95 % interval."""
    if not count:
        return "none"
    low, high = binomtest(hits, count).proportion_ci(method="exact")
    return f"{hits} of {count}, {hits / count:.2%} ({low:.2%} to {high:.2%})"


def main() -> None:
    """Measure and write the section."""
    from voxadapt.model.load import load_tts

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("manifest", type=Path, help="texts to say, with a reference clip")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--store", type=Path, help="counts of the clips spoken so far")
    parser.add_argument("--sampling", choices=SAMPLINGS, default=next(iter(SAMPLINGS)))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tts = load_tts(arguments.model)
    rows = [json.loads(line) for line in arguments.manifest.read_text("utf-8").splitlines()]
    voice = voice_of(tts, arguments.manifest.parent / rows[0]["ref_audio"])
    texts = sorted({row["text"] for row in rows})
    temperature, top_k = SAMPLINGS[arguments.sampling]
    found, start_s = Found(), time.monotonic()
    if arguments.store is not None and arguments.store.is_file():
        found = Found(**json.loads(arguments.store.read_text("utf-8")))
    while found.num_clips < arguments.clips:
        if time.monotonic() - start_s > arguments.seconds:
            print(f"{found.num_clips} of {arguments.clips} clips")
            return
        measure(tts, voice, texts, found, (temperature, top_k))
        if arguments.store is not None:
            arguments.store.write_text(json.dumps(asdict(found)), encoding="utf-8")
    lines = [
        f"{found.num_clips} clips, {len(texts)} texts, seeds 0 to {found.num_clips - 1}, "
        f"temperature {temperature}, top-k {top_k}: `python -m benchmarks.endings "
        f"{arguments.model} {arguments.manifest} --sampling {arguments.sampling}`. Shares have "
        "exact 95 % intervals.",
        "",
    ]
    cells = []
    all_s = [value for away_s in found.away_s.values() for value in away_s]
    for k, away_s in [*zip(SUPPRESSED, found.away_s.values(), strict=True), (0, all_s)]:
        near = sum(abs(value) <= NEAR_S + 1e-9 for value in away_s)
        name = f"{k} frames" if 0 < k < SUPPRESSED[-1] else "for ever" if k else "all"
        furthest = f"{max(away_s, key=abs):+.2f} s" if away_s else "none"
        cells.append([name, share(near, len(away_s)), furthest])
    lines += table(["end suppressed", f"ends within {NEAR_S} s of the true end", "furthest"], cells)
    near = sum(abs(value) <= NEAR_S + 1e-9 for value in all_s)
    share_near = near / max(1, len(all_s))
    lines += [
        "",
        f"- Ended by themselves without the watch: {share(found.num_healthy, found.num_clips)}.",
        "- Of these, changed by it in any code (wanted: at most 0.1 %): "
        f"{share(found.num_changed, found.num_healthy)}.",
        f"- Right ends under suppression: wanted 95 %, found {share_near:.1%}: "
        f"{'met' if share_near >= 0.95 else '**not met**'}.",
    ]
    write_section(f"Missed ends, {tts.model.tts_model_type}, {arguments.sampling} sampling", lines)


if __name__ == "__main__":
    main()
