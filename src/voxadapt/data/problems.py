"""What is wrong with what the user gave, in the words of `problems.yaml`."""

from pathlib import Path
from typing import cast

from voxadapt.core.errors import Problem
from voxadapt.core.strict_yaml import read_yaml

WORDS = cast("dict[str, list[str]]", read_yaml(Path(__file__).with_suffix(".yaml")))


def problem(kind: str, where: object, **facts: object) -> Problem:
    """Fill in the words of a kind of problem: what is expected, found, and to be done."""
    expected, found, fix = (words.format(**facts) for words in WORDS[kind])
    return Problem(str(where), expected, found, fix)
