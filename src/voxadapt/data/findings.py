"""What the audits of recordings and of texts find; the rules' words are in `findings.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from voxadapt.core.errors import Problem
from voxadapt.core.records import Record
from voxadapt.core.strict_yaml import read_yaml

RULES = cast("dict[str, list[str]]", read_yaml(Path(__file__).with_suffix(".yaml")))


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that a clip, a text, or the corpus breaks."""

    severity: Literal["error", "warning"]  # errors stop the pipeline; warnings are listed
    rule: str  # short name of the rule
    expected: str  # what the rule asks for
    found: str  # what is there
    fix: str  # what to do
    value: float | None = None  # the measured number or text
    limit: float | None = None  # the limit that it was held against

    @classmethod
    def of(
        cls, rule: str, value: float | None = None, limit: float | None = None, **facts: object
    ) -> Finding:
        """Fill in the words of a rule."""
        value, limit = (None if number is None else float(number) for number in (value, limit))
        shares = {"percent": 100 * (value or 0.0), "limit_percent": 100 * (limit or 0.0)}
        severity, *words = RULES[rule]
        told = [text.format(value=value, limit=limit, **shares, **facts) for text in words]
        kind = cast("Literal['error', 'warning']", severity)
        return cls(kind, rule.partition(".")[0], told[0], told[1], told[2], value, limit)

    @property
    def message(self) -> str:
        """The finding in one sentence and a hint."""
        return f"Expected {self.expected}; found {self.found}. {self.fix}"

    def as_dict(self) -> Record:
        """Return what `clips.jsonl` holds of it."""
        value = None if self.value is None else round(self.value, 6)
        said = {"severity": self.severity, "rule": self.rule, "message": self.message}
        return said | {"value": value, "limit": self.limit}

    def as_problem(self, where: str) -> Problem:
        """Turn an error into a row of the table that stops the pipeline."""
        return Problem(where, self.expected, self.found, self.fix)


def named(items: Sequence[str]) -> str:
    """Show characters with their code points, and longer items as they are."""
    return ", ".join(
        item if len(item) > 1 else f"{item if item.isprintable() else ''} U+{ord(item):04X}".strip()
        for item in items[:5]
    )
