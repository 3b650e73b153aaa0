"""The tables that `dvc plots` draws: a row a candidate, each measure with its interval."""

from collections.abc import Sequence
from pathlib import Path

from voxadapt.core.files import write_csv
from voxadapt.core.records import Record


def interval_columns(name: str, interval: Record) -> Record:
    """Return the columns of a measure."""
    ends = {f"{name}_{end}": interval[end] for end in ("low", "high")}
    return {name: interval["point"], **ends}


def write_plot_table(path: Path, rows: Sequence[Record]) -> None:
    """Write rows with the same keys as CSV."""
    write_csv(path, [rows[0].keys(), *(row.values() for row in rows)])
