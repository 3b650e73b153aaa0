"""User errors: collected, then shown together as one table.

A *problem* names the record or parameter, what was expected, what was found and what to do.
Code that reads user input collects problems and raises one `UserError` at the end; the command
line prints the table and leaves with exit code 2. Programmer errors stay ordinary exceptions.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from os import PathLike

from pydantic_core import ValidationError

MAX_LINES = 8  # of one reason, by number
MAX_ROWS = 20  # more are told one row a reason


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that the user can mend."""

    where: str  # file and line (`train_raw.jsonl:12`), parameter (`train.lr`) or path
    expected: str  # what a correct value looks like
    found: str  # what is there
    fix: str  # what to do next

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}; found {self.found}. {self.fix}"

    def as_dict(self) -> dict[str, str]:
        """Return the four fields as a plain dictionary."""
        return asdict(self)


class UserError(ValueError):
    """One or more problems in what the user gave.

    The title says in a sentence what could not be done because of them.
    """

    def __init__(self, problems: Problem | Sequence[Problem], title: str = "") -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        assert self.problems, "a UserError needs at least one problem"
        self.title = title
        super().__init__(str(self))

    @classmethod
    def of(cls, where: object, expected: str, found: str, fix: str, title: str = "") -> UserError:
        """Make the error of a single problem."""
        return cls(Problem(str(where), expected, found, fix), title)

    def __reduce__(self) -> tuple[object, ...]:  # a worker sends it with its notes
        return type(self), (self.problems, self.title), self.__dict__

    def __str__(self) -> str:
        lines = [self.title] if self.title else []
        problems: Sequence[Problem] = self.problems
        if len(problems) > MAX_ROWS:
            problems = one_row_a_reason(problems)
        return "\n".join(lines + [str(problem) for problem in problems])


def reason(error: BaseException) -> str:
    """Say in a line what an exception tells; `nothing` of a file that is not there."""
    if isinstance(error, FileNotFoundError):
        return "nothing"
    text = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        text = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return " ".join(text.split())[:200] or type(error).__name__


def raise_problems(problems: Sequence[Problem], title: str = "") -> None:
    """Raise what was collected, if anything was."""
    if problems:
        raise UserError(problems, title)


def one_row_a_reason(problems: Sequence[Problem]) -> list[Problem]:
    """Put problems of one reason into one row, with the lines that have it."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        reason = re.sub(r"'[^']*'|[\d.]+", "#", problem.expected)
        groups.setdefault((reason, problem.fix), []).append(problem)
    rows = []
    for group in groups.values():
        if len(group) < 3:
            rows += group
            continue
        places = [re.fullmatch(r"(.*)([:\s])(\d+)", problem.where) for problem in group]
        file = places[0][1] if places[0] else ""
        if file and all(place and place[1] == file for place in places):
            numbers = [place[3] for place in places if place]
            where = f"{file}: {', '.join(dict.fromkeys(numbers[:MAX_LINES]))}"
        else:
            where = ", ".join(dict.fromkeys(problem.where for problem in group[:3]))
        more = f" … ({len(group)} in all)" if len(group) > MAX_LINES else f" ({len(group)})"
        alike = len({problem.found for problem in group}) == 1
        found = group[0].found if alike else f"{group[0].found}; others alike"
        rows.append(replace(group[0], where=where + more, found=found))
    return rows


_ROOM = "Free space there, or use a larger disk; then repeat the command: it goes on"
_RIGHT = "Give this user the right to it; then repeat the command: it goes on"
_FIXES = {
    errno.ENOSPC: ("room to write", _ROOM),
    getattr(errno, "EDQUOT", errno.ENOSPC): ("room to write, within the quota", _ROOM),
    errno.EFBIG: ("a disk that takes files of this size", _ROOM),
    errno.EROFS: ("a folder that can be written", _RIGHT),
    errno.EACCES: ("permission to read and write here", _RIGHT),
    errno.EPERM: ("permission to read and write here", _RIGHT),
    errno.EIO: ("a disk without faults", "Check the disk; then repeat the command: it goes on"),
}


def storage_problem(error: BaseException, where: str) -> Problem | None:
    """Say what to do about an error of the disk: full, read-only, over a quota, faulty.

    Libraries that write for themselves tell the number only in their message (safetensors), or that
    something was not written and nothing else (torch). `where` is told where the error itself names
    no file. None stands for an error that is not one of the disk.
    """
    text = " ".join(str(error).split())
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := re.search(r"os error (\d+)", text)):
        number = int(match[1])
    if number is None and isinstance(error, RuntimeError) and "inline_container" in text:
        number = errno.ENOSPC
        text = "the file could not be written whole"
    if number is None or number not in _FIXES:
        return None
    expected, fix = _FIXES[number]
    if isinstance(error, OSError):
        text = os.strerror(number)
    return Problem(where, expected, text[:200], f"{fix} where it was.")


@contextmanager
def explain_storage(path: str | PathLike[str]) -> Iterator[None]:
    """Turn an error of the disk, such as a full one, into a `UserError` that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        problem = storage_problem(error, str(path))
        if problem is None:
            raise
        raise UserError(problem, "A file could not be written.") from None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error is a lack of memory, of the machine or of a device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (
            type(error).__name__ == "OutOfMemoryError"
            or "allocate memory" in text
            or "mps backend out of memory" in text
        )
    )


def missing_operation(error: BaseException) -> UserError | None:
    """Say which operation an Apple GPU lacks, if that is what an error tells."""
    text = " ".join(str(error).split())
    if not isinstance(error, NotImplementedError | TypeError | RuntimeError) or "MPS" not in text:
        return None
    operation = re.search(r"aten::[\w.]+", text)
    return UserError(
        Problem("model.device: mps", "operations that torch has for Apple GPUs",
                operation[0] if operation else text[:160],
                "Set model.device: cpu, or PYTORCH_ENABLE_MPS_FALLBACK=1 in the environment, which "
                "computes that operation on the CPU."),
        "An Apple GPU cannot compute this with this version of torch.",
    )  # fmt: skip


def out_of_memory(error: BaseException, setting: str) -> UserError:
    """Say which setting to lower."""
    fix = f"Lower {setting}, or end what else uses the memory; then repeat the command."
    return UserError(Problem(setting, "a batch that fits into memory", reason(error), fix),
                     "There is not enough memory.")  # fmt: skip
