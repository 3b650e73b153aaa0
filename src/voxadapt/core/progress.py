"""Progress as plain lines: readable in a terminal, quiet in notebooks and CI logs."""

import os
import sys
import time

INTERVAL_S = 5.0


def format_duration(seconds: float) -> str:
    """Write seconds as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """Print `label: done/total unit, ETA …` at most every `INTERVAL_S` seconds.

    Lines go to stderr, one after another, so that logs stay readable. In CI (`CI` set) and in
    papermill runs (`VOXADAPT_QUIET` set) only the closing line is printed. `unit` is what is
    counted: clips, steps, sentences.
    """

    def __init__(self, label: str, total: int, unit: str = "clips") -> None:
        self.label, self.total, self.unit = label, total, unit
        self._start = self._last = time.monotonic()
        self.done = 0
        self._quiet = bool(os.environ.get("CI") or os.environ.get("VOXADAPT_QUIET"))

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units done and print a line when one is due."""
        self.done += count
        now = time.monotonic()
        elapsed = now - self._start
        finished = self.done >= self.total
        if not finished and (self._quiet or now - self._last < INTERVAL_S):
            return
        self._last = now
        if finished:
            tail = f"done in {format_duration(elapsed)}"
        else:
            tail = f"ETA {format_duration(elapsed / self.done * (self.total - self.done))}"
        note = f", {note}" if note else ""
        line = f"{self.label}: {self.done}/{self.total} {self.unit}{note}, {tail}"
        print(line, file=sys.stderr, flush=True)
