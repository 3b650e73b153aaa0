"""Scores in words, for the last line of a stage."""

from __future__ import annotations

from voxadapt.core.records import Record


def score_sentence(name: str, summary: Record) -> str:
    """Sum up a candidate's scores."""
    return (
        f"{name}: {summary['n_measured']} of {summary['n_expected']} clips; "
        f"WER {percent(summary['wer'])}, CER {percent(summary['cer'])}, "
        f"similarity {number(summary['sim']['point'])}, "
        f"failures {percent(summary['failure_rate'])}."
    )


def percent(interval: Record) -> str:
    """Write a share with its interval in percent."""
    if interval["point"] is None:
        return "not measured"
    point = f"{100 * interval['point']:.1f} %"
    if interval["low"] is None:  # a single sentence has no interval
        return point
    return f"{point} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def number(value: float | None) -> str:
    """Write a similarity."""
    return "not measured" if value is None else f"{value:.3f}"
