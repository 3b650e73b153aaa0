"""A recipe beside the plain one: what two DVC experiments say of the same sentences, by set.

    python -m benchmarks.recipes PROJECT main texts-as-typed adapter --epochs 2 3 4 5 6

The first experiment, branch or commit is what the others are compared with; all epochs named are
pooled, as further takes of their sentences. Made by, for instance:

    dvc exp run --queue -n texts-as-typed -S train.text_augmentation=0.3 report
    dvc exp run --queue -n adapter -S train.method=lora -S train.lr=7e-4 report
    dvc exp run --run-all
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import table, write_section

from voxadapt.core.params import SelectParams
from voxadapt.scoring.measures import ERRORS
from voxadapt.scoring.rows import GUARDS, ScoreRow, read_scores
from voxadapt.scoring.statistics import (
    Interval,
    Ratio,
    paired_difference,
    ratio_by_text,
    resample_weights,
)

PARAMS = SelectParams()


def rows_of(project: Path, rev: str, epochs: Sequence[int], folder: Path) -> list[ScoreRow]:
    """Fetch the rows of an experiment's epochs from DVC's cache."""
    found: list[ScoreRow] = []
    for epoch in epochs:
        target = folder / rev / f"epoch-{epoch}"
        target.parent.mkdir(exist_ok=True)
        source = ["artifacts/scores/" + target.name, "--rev", rev, "--out", str(target)]
        command = [sys.executable, "-m", "dvc", "get", "--quiet", str(project), *source]
        subprocess.run(command, check=True)
        found += read_scores(target)
    return found


def ratio(rows: Sequence[ScoreRow], texts: Sequence[str], measure: str) -> Ratio:
    """Sum a measure by sentence."""
    keys = [row.text_id for row in rows]
    if measure == "sim":
        measured = [float(row.sim is not None) for row in rows]  # very short clips have none
        return ratio_by_text(texts, keys, [row.sim or 0.0 for row in rows], measured)
    edits, units = ERRORS[measure]
    numerators, denominators = [edits(row) for row in rows], [units(row) for row in rows]
    return ratio_by_text(texts, keys, numerators, denominators)


def compare(plain: Sequence[ScoreRow], recipe: Sequence[ScoreRow]) -> list[list[str]]:
    """Tabulate a recipe beside the plain one: each set, then all sentences."""
    lines = []
    for name in ("corpus", *GUARDS, "all"):
        ours, theirs = (
            [
                row
                for row in rows
                if name in (row.slice, "all") or (name == "corpus" and row.slice not in GUARDS)
            ]
            for rows in (recipe, plain)
        )
        texts = sorted({row.text_id for row in theirs})
        if not texts:
            continue
        weights = resample_weights(len(texts), PARAMS.num_bootstrap, PARAMS.seed)
        cells = []
        for measure, factor, digits in (("wer", 100.0, 1), ("sim", 1.0, 3)):
            a, b = ratio(ours, texts, measure), ratio(theirs, texts, measure)
            gap, _ = paired_difference(a, b, weights, PARAMS.confidence)
            cells += [f"{factor * b.point:.{digits}f}", f"{factor * a.point:.{digits}f}"]
            cells.append(_interval(gap, factor, digits))
        lines.append([name, *cells, f"{len(texts)} x {len(ours) // len(texts)}"])
    return lines


def _interval(gap: Interval, factor: float, digits: int) -> str:
    point, low, high = (
        "-" if value is None else f"{factor * value:+.{digits}f}"
        for value in (gap.point, gap.low, gap.high)
    )
    return f"{point} [{low}, {high}]"


def main() -> None:
    """Compare, and write the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("revs", nargs="+", help="experiments; the first is the plain recipe")
    parser.add_argument("--epochs", type=int, nargs="+", required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, *others = (
            rows_of(given.project, rev, given.epochs, Path(folder)) for rev in given.revs
        )
    lines = [
        f"Epochs {', '.join(map(str, given.epochs))} of each experiment are pooled, as takes of "
        f"their sentences: `python -m benchmarks.recipes PROJECT {' '.join(sys.argv[2:])}`. WER in "
        f"%, similarity to the speaker; differences from `{given.revs[0]}` with 95 % intervals, "
        "paired by sentence.",
    ]
    header = ["set", "WER, plain", "with it", "difference", "SIM, plain", "with it", "difference"]
    for rev, rows in zip(given.revs[1:], others, strict=True):
        lines += ["", f"`{rev}`:", "", *table([*header, "sentences x clips"], compare(plain, rows))]
    write_section("Recipes for a voice", lines)


if __name__ == "__main__":
    main()
