"""The words of findings and problems: each is used, and each use fills in what its words need."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest

from voxadapt.data.findings import RULES
from voxadapt.data.problems import WORDS

SOURCE = Path(__file__).parents[2] / "src" / "voxadapt"
GIVEN = {"value", "limit", "percent", "limit_percent"}


def calls(name: str) -> list[tuple[str, ast.Call]]:
    """Return the calls of `problem` or `Finding.of`, with where they are."""
    module = {"problem": "voxadapt.data.problems", "Finding.of": "voxadapt.data.findings"}[name]
    return [
        (f"{path.relative_to(SOURCE)}:{node.lineno}", node)
        for path in sorted(SOURCE.rglob("*.py"))
        if f"from {module} import" in path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name and node.args
    ]


def fields(words: list[str]) -> set[str]:
    return {name for text in words for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize(
    ("name", "table", "given"), [("problem", WORDS, set()), ("Finding.of", RULES, GIVEN)]
)
def test_words_are_used_and_filled_in(
    name: str, table: dict[str, list[str]], given: set[str]
) -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    for kind, words in table.items():
        assert f'"{kind}"' in source or kind.partition(".")[0] == "total_minutes", kind
        assert len(words) == (3 if table is WORDS else 4), kind
    for where, call in calls(name):
        first = call.args[0]
        if not isinstance(first, ast.Constant):
            continue
        named = {keyword.arg for keyword in call.keywords}
        needed = fields(table[first.value]) - given
        assert None in named or needed <= named, f"{where}: {needed - named}"
