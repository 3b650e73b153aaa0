"""Time and memory against hours of audio and against epochs.

    python -m benchmarks.growth

An hour is 360 clips of ten seconds. The clips here are synthetic and last little more than a
second, so that 100,000 fit on a disk and into minutes; their number, texts and codes are those of
the hours. The audit's time for an hour of real clips is larger in the part that reads sound.
Codes are random and of the real size, since the codec's own speed does not depend on the corpus.

Each step runs in a process of its own, forked from one that has imported everything; its memory is
the peak above what it began with.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from benchmarks.results import processor, table, verdict_at_most, write_section

from voxadapt.codec.store import Codes, read_codes, write_codes
from voxadapt.core.params import AuditParams, SelectParams, SplitParams
from voxadapt.data.audit import audit_corpus, write_audit
from voxadapt.data.manifest import read_manifest, read_raw_manifest
from voxadapt.scoring.rows import ScoreRow, read_scores, write_rows
from voxadapt.selection.select import select

CLIPS_PER_HOUR = 360
CLIP_S, RATE_HZ = 1.1, 16_000
NUM_FRAMES, NUM_CODEBOOKS = 125, 16  # of ten seconds
SENTENCES, TAKES = 50, 3
MANY_EPOCHS, MANY_SENTENCES, LIMIT_S = 30, 500, 10.0  # a large choice, and what it may take
LIMIT_MB = 50.0  # above the results themselves
RUNS = 3
LONG_HOURS = 50.0  # from here on a step runs once
WORDS = (
    "amber basket candle dinner engine forest garden harbour island jacket kettle ladder marble "
    "needle orange pencil quiver rabbit saddle timber umber velvet window yellow zebra"
).split()
FIGURE = Path("docs/growth.svg")


@dataclass(frozen=True)
class Cost:
    """What a step took.

    Attributes:
        seconds: Of the processor.
        num_bytes: Peak above what its process began with.
        kept_bytes: What is left of it while the result is held.
    """

    seconds: float
    num_bytes: float
    kept_bytes: float


def _held_bytes() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return float(pages * resource.getpagesize())


def cost_of(work: Callable[[], Any]) -> Cost:
    """Run a step in a forked process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        before, held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, _held_bytes()
        start = time.process_time()
        result = work()
        seconds = time.process_time() - start
        after, kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, _held_bytes()
        sender.send(Cost(seconds, 1024.0 * (after - before), kept - held))
        del result
        os._exit(0)

    child = context.Process(target=run)
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError("a step failed; its message is above") from None
    finally:
        child.join()


def median_cost(work: Callable[[], Any], runs: int = RUNS) -> Cost:
    """Return the medians of several runs."""
    found = [cost_of(work) for _ in range(runs)]
    return Cost(*(float(value) for value in np.median([astuple(cost) for cost in found], axis=0)))


def make_corpus(folder: Path, count: int) -> Path:
    """Write clips with a buzz of their own, a reference and the manifest."""
    rng = np.random.default_rng(count)
    (folder / "clips").mkdir(parents=True)

    def sound(seconds: float) -> Any:
        time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
        pitch_hz = 100 + 60 * rng.random()
        tone = sum(np.sin(2 * np.pi * pitch_hz * k * time_s) / k for k in range(1, 5))
        gate = 0.5 * (1 + np.sin(2 * np.pi * 2.5 * time_s))
        return 0.2 * tone * gate + 1e-3 * rng.standard_normal(len(time_s))

    soundfile.write(folder / "ref.wav", sound(5.0), RATE_HZ)
    lines = []
    for number in range(count):
        name = f"clips/{number:05d}.wav"
        soundfile.write(folder / name, sound(CLIP_S), RATE_HZ)
        text = f"The {' '.join(rng.choice(WORDS, 3))} {WORDS[number % len(WORDS)]}."
        lines.append(json.dumps({"audio": name, "text": text, "ref_audio": "ref.wav"}))
    path = folder / "train_raw.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def corpus_costs(folder: Path, hours: float) -> dict[str, Cost]:
    """Measure the steps whose cost may grow with the corpus."""
    raw = make_corpus(folder, round(hours * CLIPS_PER_HOUR))
    manifest, codes, index = folder / "manifest.jsonl", folder / "codes", folder / "codes.jsonl"
    limits = AuditParams(min_total_minutes=0.1, clip_duration_s=(1.0, 20.0))

    def audit() -> Any:
        rows, problems = read_raw_manifest(raw)
        result = audit_corpus(rows, limits, SplitParams(), raw, problems)
        write_audit(result, manifest, folder / "clips.jsonl", folder / "metrics.json")
        return result

    def store() -> None:
        rng = np.random.default_rng(0)
        array = rng.integers(0, 2048, (NUM_FRAMES, NUM_CODEBOOKS), dtype=np.int16)
        arrays = Codes([clip.id for clip in clips], lambda name: array.copy())  # as read from disk
        write_codes(codes, index, arrays, clips, "0" * 64)

    def load() -> Any:
        return read_codes(codes, index, clips, NUM_CODEBOOKS, 2048, "0" * 64)

    runs = 1 if hours >= LONG_HOURS else RUNS
    costs = {
        "audit": median_cost(audit, runs),
        "manifest read": median_cost(lambda: read_manifest(manifest), runs),
    }
    clips = read_manifest(manifest)  # what codes are written and read for is held already
    return costs | {
        "codes written": median_cost(store, runs),
        "codes read": median_cost(load, runs),
    }


def score_rows(candidate: str, epoch: int, sentences: int) -> list[ScoreRow]:
    """Make up the rows of a candidate whose similarity grows with its epoch."""
    rng = np.random.default_rng(epoch)
    rows = []
    for number in range(sentences):
        for take in range(TAKES):
            errors = int(rng.binomial(10, 0.1))
            text = "one two three four five six seven eight nine ten"
            rows.append(
                ScoreRow(
                    candidate=candidate, split="selection", text_id=f"t{number:03d}", take=take,
                    seed=1, lang="en", text=text, text_norm=text, norm_id="n", wav="",
                    wav_sha256="0" * 64, sample_rate_hz=24_000, duration_s=3.0, speech_s=2.5,
                    num_frames=37, hit_max_tokens=False, gen_sha="g", checkpoint_sha=candidate,
                    asr_id="a", hyp=text, hyp_norm=text, word_hits=10 - errors,
                    word_substitutions=errors, word_deletions=0, word_insertions=0,
                    char_hits=39 - errors, char_substitutions=errors, char_deletions=0,
                    char_insertions=0, ref_words=10, ref_chars=39, avg_logprob=-0.1,
                    compression_ratio=1.0, no_speech_prob=0.0, lid="en", lid_p=1.0,
                    sim=float(0.7 + 0.01 * epoch + 0.03 * rng.standard_normal()), sim_id="s",
                    sim_ref_n=20, dur_ratio=1.0, lead_silence_s=0.1, trail_silence_s=0.1,
                    max_internal_silence_s=0.1, clipped_share=0.0, num_pauses=0.0,
                    pause_s=0.0, window_sims=(), f0_median_hz=None, f0_range_st=None,
                    f0_final_st=None, f0_jump_st=None, flags=(), status="ok", message="",
                )
            )  # fmt: skip
    return rows


def epoch_costs(folder: Path, epochs: int, sentences: int = SENTENCES) -> dict[str, Cost]:
    """Measure reading the scores of so many epochs and the Base, and choosing among them."""
    names = ["base", *(f"epoch-{number}" for number in range(1, epochs + 1))]
    for number, name in enumerate(names):
        write_rows(folder / name, score_rows(name, number, sentences))

    def read() -> dict[str, list[ScoreRow]]:
        return {name: read_scores(folder / name) for name in names}

    params = SelectParams()
    return {
        "scores read": median_cost(read),
        "read and select": median_cost(lambda: select(read(), params)),
    }


def draw(panels: list[tuple[str, str, list[float], dict[str, list[Cost]]]], path: Path) -> None:
    """Draw seconds and megabytes of every step, one row of panels for each axis."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(panels), 2, figsize=(9, 3.2 * len(panels)))
    for line, (title, label, at, steps) in zip(axes, panels, strict=True):
        for name, costs in steps.items():
            line[0].plot(at, [cost.seconds for cost in costs], "o-", label=name)
            line[1].plot(at, [cost.num_bytes / 1e6 for cost in costs], "o-", label=name)
        for axis, unit in zip(line, ("CPU seconds", "MB above the start"), strict=True):
            axis.set(title=title, xlabel=label, ylabel=unit, xscale="log")
            axis.set_xticks(at, [f"{value:.3g}" for value in at])
            axis.minorticks_off()
            axis.set_ylim(bottom=0)
        line[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure both kinds of growth, draw them and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, nargs="+", default=[1 / 6, 1.0, 10.0, 277.8])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 10, 30])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        corpora = [
            corpus_costs(Path(name) / f"{number}", hours)
            for number, hours in enumerate(arguments.hours)
        ]
        chosen = [
            epoch_costs(Path(name) / f"e{epochs}", epochs) for epochs in arguments.epochs
        ]  # fmt: skip
        many = epoch_costs(Path(name) / "many", MANY_EPOCHS, MANY_SENTENCES)["read and select"]
    by_hours = {step: [costs[step] for costs in corpora] for step in corpora[0]}
    by_epochs = {step: [costs[step] for costs in chosen] for step in chosen[0]}
    draw(
        [
            ("the corpus", "hours of audio", arguments.hours, by_hours),
            ("the scores", "epochs", [float(n) for n in arguments.epochs], by_epochs),
        ],
        FIGURE,
    )

    def cells(costs: list[Cost]) -> list[str]:
        return [f"{cost.seconds:.2f} s, {cost.num_bytes / 1e6:.0f} MB" for cost in costs]

    def slope(costs: list[Cost], at: list[float]) -> str:
        return f"{(costs[-1].num_bytes - costs[0].num_bytes) / 1e6 / (at[-1] - at[0]):.2f} MB"

    hours, epochs = arguments.hours, [float(number) for number in arguments.epochs]
    write_section(
        "Growth",
        [
            f"CPU seconds and peak memory above the start of the process, one thread of "
            f"{processor()}, medians of {RUNS} runs (one beyond {LONG_HOURS:.0f} "
            f"hours): `python -m benchmarks.growth`. An hour is {CLIPS_PER_HOUR} clips; the "
            f"simulated ones last {CLIP_S:g} s instead of 10 s, so the audit's reading of sound "
            "counts for less than it would; codes have their real size.",
            "",
            *table(
                ["step", *(f"{value * 60:.0f} min" for value in hours), "memory for an hour more"],
                [[step, *cells(costs), slope(costs, hours)] for step, costs in by_hours.items()],
            ),
            "",
            f"Scores: {SENTENCES} sentences, {TAKES} takes.",
            "",
            *table(
                ["step", *(f"{value:.0f} epochs" for value in epochs), "memory for an epoch more"],
                [[step, *cells(costs), slope(costs, epochs)] for step, costs in by_epochs.items()],
            ),
            "",
            "- "
            + verdict_at_most(
                f"Seconds that reading and selecting take with {MANY_EPOCHS} epochs and the Base, "
                f"{MANY_SENTENCES} sentences, {TAKES} takes",
                many.seconds,
                LIMIT_S,
                "Intervals are redrawn for each.",
            ),
            *(
                "- "
                + verdict_at_most(
                    f"MB above the results, {step}, {hours[-1] * CLIPS_PER_HOUR:,.0f} clips",
                    (costs[-1].num_bytes - costs[-1].kept_bytes) / 1e6,
                    LIMIT_MB,
                    "It grows with the clips.",
                )
                for step, costs in by_hours.items()
            ),
            "",
            f"![Time and memory against hours and epochs](../{FIGURE.as_posix()})",
        ],
    )


if __name__ == "__main__":
    main()
