"""The words of findings and problems: each is used, and each use fills in what its words need."""

from __future__ import annotations

import ast
import string
from functools import cache
from pathlib import Path

from voxadapt.core.problems import words_of
from voxadapt.data.findings import RULES

SOURCE = Path(__file__).parents[2] / "src" / "voxadapt"
PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/problems.yaml"))
PROBLEMS = {f"{name}.{kind}": words for name in PACKAGES for kind, words in words_of(name).items()}
GIVEN = {"value", "limit", "percent", "limit_percent"}


@cache
def all_calls() -> list[tuple[str, str, ast.Call]]:
    """Return the calls whose first argument is a constant: what is called, where, the call."""
    return [
        (ast.unparse(node.func), f"{path.relative_to(SOURCE)}:{node.lineno}", node)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
    ]


def calls(*names: str) -> list[tuple[str, ast.Call]]:
    """Return the calls of functions whose first argument names a kind."""
    return [(where, node) for name, where, node in all_calls() if name in names]


def fields(words: list[str]) -> set[str]:
    return {name for text in words for _, name, _, _ in string.Formatter().parse(text) if name}


def check(where: str, call: ast.Call, words: list[str], given: set[str]) -> None:
    named = {keyword.arg for keyword in call.keywords}
    needed = fields(words) - given
    assert None in named or needed <= named, f"{where}: {needed - named}"
    strange = named - needed - {None}
    assert given is GIVEN or not strange, f"{where}: no words for {strange}"


@cache
def source() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))


def used(kind: str) -> bool:
    return f'"{kind}"' in source() or kind.partition(".")[0] == "total_minutes"


def test_words_of_findings_are_used_and_filled_in() -> None:
    for kind, words in RULES.items():
        assert used(kind), kind
        assert len(words) == 4, kind
    for where, call in calls("Finding.of"):
        check(where, call, RULES[ast.literal_eval(call.args[0])], GIVEN)


def test_words_of_problems_are_used_and_filled_in() -> None:
    assert len(PACKAGES) >= 8
    for kind, words in PROBLEMS.items():
        assert used(kind) or used(kind.partition(".")[2]), kind
        assert 3 <= len(words) <= 4, kind
    found = calls("problem", "user_error")
    assert len(found) > 150
    for where, call in found:
        kind = ast.literal_eval(call.args[0])
        if "." not in kind:  # by a room's own `problem`
            own = f"{where.partition('/')[0]}.{kind}"
            kind = own if own in PROBLEMS else f"prepare.{kind}"
        check(
            where,
            call,
            PROBLEMS[kind][: 3 if ast.unparse(call.func) == "problem" else 4],
            {"where"},
        )


def test_words_are_whole() -> None:
    for kind, words in PROBLEMS.items():
        _, _, fix, *title = words
        assert all(words), kind
        assert fix.endswith((".", "}", "?")), kind
        assert not title or title[0].endswith("."), kind
