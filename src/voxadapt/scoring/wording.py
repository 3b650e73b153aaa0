"""Sentences from templates, and how they write figures."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from voxadapt.core.records import Record


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


def points_of(share: float, spec: str = "g") -> str:
    """Write a share in hundredths."""
    return format(100 * share, spec)


def signed(difference: Record, scale: float = 1.0, spec: str = "+.3f", unit: str = "") -> str:
    """Write a difference with its interval."""
    point, low, high = (difference[key] for key in ("point", "low", "high"))
    shown = f"{format(scale * point, spec)}{unit}"
    if low is None:
        return shown
    return f"{shown} [{format(scale * low, spec)}, {format(scale * high, spec)}]"


def points(difference: Record) -> str:
    """Write a difference of shares in points, with its interval."""
    return signed(difference, 100.0, "+.1f", " points")


def side(difference: Record) -> int:
    """Return 1 or -1 where the interval of a difference excludes 0, else 0."""
    low, high = difference["low"], difference["high"]
    return 0 if low is None or high is None or low <= 0 <= high else 1 if low > 0 else -1


class Sentences:
    """The macros of `templates/sentences.j2` in a folder.

    `names` are what the templates may call beside the functions of this module.
    """

    def __init__(self, folder: Path, names: Mapping[str, Any] | None = None) -> None:
        self._folder, self._names = folder, names or {}

    @cached_property
    def _macros(self) -> object:
        """The macros, compiled when the first sentence is written: no import waits for them."""
        environment = Environment(
            loader=FileSystemLoader(self._folder / "templates"),
            autoescape=False,  # records are plain text; pages escape what they show
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        written = (percent, points_of, signed, points, side)
        environment.filters |= {function.__name__: function for function in written}
        environment.filters |= {"fmt": format, "number": number}
        environment.globals |= self._names
        return environment.get_template("sentences.j2").module

    def say(self, macro: str, *values: object, **named: object) -> str:
        """Write what a macro says, in one line."""
        return " ".join(str(getattr(self._macros, macro)(*values, **named)).split())


say = Sentences(Path(__file__).parent).say


def score_sentence(name: str, summary: Record) -> str:
    """Sum up a candidate's scores."""
    return say("score", name, summary)
