"""User errors: collected, then shown together as one table.

A *problem* names the record or parameter, what was expected, what was found and what to do.
Code that reads user input collects problems and raises one `UserError` at the end; the command
line prints the table and leaves with exit code 2. Programmer errors stay ordinary exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that the user can mend.

    Attributes:
        where: File and line (`train_raw.jsonl:12`), parameter (`train.lr`) or path.
        expected: What a correct value looks like.
        found: What is there.
        fix: What to do next.
    """

    where: str
    expected: str
    found: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}; found {self.found}. {self.fix}"

    def as_dict(self) -> dict[str, str]:
        """Return the four fields as a plain dictionary."""
        return asdict(self)


class UserError(ValueError):
    """One or more problems in what the user gave.

    Args:
        problems: The problems, in the order in which they should be read.
        title: One sentence that says what could not be done because of them.
    """

    def __init__(self, problems: Problem | Sequence[Problem], title: str = "") -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        assert self.problems, "a UserError needs at least one problem"
        self.title = title
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.title] if self.title else []
        return "\n".join(lines + [str(problem) for problem in self.problems])
