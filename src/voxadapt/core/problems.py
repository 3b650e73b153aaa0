"""What is wrong with what the user gave, in the words of a package's `problems.yaml`."""

from functools import cache
from pathlib import Path
from typing import cast

from voxadapt.core.errors import Problem, UserError, reason
from voxadapt.core.strict_yaml import read_yaml


@cache
def words_of(package: str) -> dict[str, list[str]]:
    """Read what is expected, found and to be done by kind of problem; a title may follow."""
    file = Path(__file__).parents[1] / package / "problems.yaml"
    return cast("dict[str, list[str]]", read_yaml(file))


def problem(kind: str, where: object, /, **facts: object) -> Problem:
    """Fill in the words of a kind of problem, such as `data.no_file`.

    Of an exception among the facts its reason is told.
    """
    return Problem(str(where), *_told(kind, where, facts)[:3])


def user_error(kind: str, where: object, /, **facts: object) -> UserError:
    """Make the error of a single problem, under the title that its words have."""
    expected, found, fix, *title = _told(kind, where, facts)
    return UserError.of(where, expected, found, fix, *title)


def _told(kind: str, where: object, facts: dict[str, object]) -> list[str]:
    package, _, name = kind.partition(".")
    told = {k: reason(v) if isinstance(v, BaseException) else v for k, v in facts.items()}
    return [words.format(where=where, **told) for words in words_of(package)[name]]
