"""Would candidates that race need fewer clips for the same choice?

    python -m benchmarks.racing [--replays 1000]

The populations and the choice are those of `docs/make_calibration.py`. Sentences are spoken in
blocks of 20; after each, an epoch stops speaking once it is shown that it cannot win, by confidence
sequences that hold at every look: against the Base alone, so that each candidate stays a stage of
its own, or against every other epoch, which makes each stage wait for all others.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from benchmarks.results import table, write_section

TITLE = "Racing candidates"
NAMES = (
    "null",
    "similarity +.05",
    "similarity +.05 in the last epoch only",
    "similarity climbs to +.05, falls",
    "WER 3 -> 6 %, similarity +.05",
)
SAME, CLIPS = 0.99, 0.5  # of choices at least, and of clips at most
NUM_TEXTS, NUM_EPOCHS, BLOCK = 100, 6, 20
ALPHA = 0.025  # of all pairs together


def calibration() -> ModuleType:
    """Load the simulation of the page on calibration."""
    path = Path(__file__).parents[1] / "docs" / "make_calibration.py"
    spec = importlib.util.spec_from_file_location("make_calibration", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules["make_calibration"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def highest(values: np.ndarray, alpha: float) -> float:
    """Return an upper bound of a mean that holds at every look (normal mixture, plug-in spread)."""
    count, spread = len(values), float(values.std(ddof=1))
    rho2 = 1.0 / BLOCK  # narrowest a few blocks on
    width = np.sqrt((count * rho2 + 1) / (count**2 * rho2) * np.log((count * rho2 + 1) / alpha**2))
    return float(values.mean() + spread * width)


def stopped(sims: np.ndarray, excess: np.ndarray, margin: float, *, wide: bool) -> dict[int, int]:
    """Race the epochs; return after how many sentences each stopped one did.

    Args:
        sims: Mean similarity of each sentence `[N, C]`, the Base first.
        excess: Error of each sentence above the Base's `[N, C]`.
        margin: By how much the error may be higher.
        wide: Against every other epoch, not the Base alone.
    """
    num_candidates = sims.shape[1]
    pairs = num_candidates * (num_candidates - 1) if wide else 2 * (num_candidates - 1)
    out: dict[int, int] = {}
    for count in range(BLOCK, len(sims), BLOCK):
        left = [index for index in range(num_candidates) if index not in out]
        for index in left[1:]:
            rivals = [other for other in left if other != index] if wide else [0]
            beaten = any(highest((sims[:count, index] - sims[:count, other]), ALPHA / pairs) < 0
                         for other in rivals)  # fmt: skip
            if beaten or -highest(-excess[:count, index], ALPHA / pairs) > margin:
                out[index] = count
    return out


def replay(page: Any, case: Any, generator: np.random.Generator) -> list[tuple[bool, float]]:
    """Choose from all clips, and from those of each race; say whether the choice is the same."""
    spoken = page.speak(case, NUM_TEXTS, NUM_EPOCHS, generator)
    whole = page.choose(case, spoken)
    ratios = spoken.sims[0]
    sims = np.stack([ratio.numerator / ratio.denominator for ratio in ratios], axis=1)
    errors = np.stack([ratio.numerator for ratio in spoken.usable[0]], axis=1)
    said = spoken.usable[0][0].denominator.mean()
    margin = page.error_margin(case.params, float(spoken.usable[0][0].point))
    found = []
    for wide in (False, True):
        out = stopped(sims, (errors - errors[:, :1]) / said, margin, wide=wide)
        kept = [index for index in range(NUM_EPOCHS + 1) if index not in out]
        everything = (spoken.errors, spoken.sims, spoken.failures, spoken.usable)
        part = page.Spoken(*([[one[i] for i in kept] for one in listed] for listed in everything))
        chosen = kept[page.choose(case, part)]
        clips = sum(out.get(index, NUM_TEXTS) for index in range(NUM_EPOCHS + 1))
        found.append((chosen == whole, clips / (NUM_TEXTS * (NUM_EPOCHS + 1))))
    return found


def row(name: str, found: Sequence[tuple[bool, float]]) -> list[str]:
    """Write a row of the table."""
    same, clips = np.array(found, dtype=float).T
    spread = 1.96 * np.sqrt(max(same.mean() * (1 - same.mean()), 1 / len(same)) / len(same))
    held = same.mean() >= SAME and clips.mean() <= CLIPS
    return [name, f"{100 * same.mean():.1f} ± {100 * spread:.1f} %", f"{100 * clips.mean():.0f} %",
            "yes" if held else "no"]  # fmt: skip


def main() -> None:
    """Replay every case, and write the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--replays", type=int, default=1000)
    replays = parser.parse_args().replays
    page = calibration()
    cases = {case.name: case for case in page.CASES}
    rows = []
    for number, name in enumerate(NAMES):
        generator = np.random.default_rng([8, number])
        runs = [replay(page, cases[name], generator) for _ in range(replays)]
        for against, found in zip(
            ("the Base", "every epoch"), zip(*runs, strict=True), strict=True
        ):
            rows.append(row(f"{name}, against {against}", found))
            print(rows[-1], file=sys.stderr, flush=True)
    write_section(
        TITLE,
        [
            f"{NUM_EPOCHS} epochs, {NUM_TEXTS} sentences in 3 takes, blocks of {BLOCK}, "
            f"n = {replays} replays a row: `python -m benchmarks.racing --replays {replays}`. "
            f"Wanted: the same choice in {SAME:.0%}, with at most {CLIPS:.0%} of the clips.",
            "",
            *table(["case", "same choice", "clips spoken", "held"], rows),
        ],
    )


if __name__ == "__main__":
    main()
