"""What is wrong with what `init`, `import` and `new` were given."""

from voxadapt.core import problems
from voxadapt.core.errors import Problem


def problem(kind: str, where: object, /, **facts: object) -> Problem:
    """Fill in the words of a kind of problem in `prepare/problems.yaml`."""
    return problems.problem(f"prepare.{kind}", where, **facts)
