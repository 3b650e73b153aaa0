"""What DVC says of a project: its stages, what each needs, and what has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxadapt.core import paths
from voxadapt.core.errors import Problem, UserError


@dataclass(frozen=True)
class Pipeline:
    """DVC's stages, in its own order.

    Attributes:
        before: Direct predecessors of each stage; `data.dvc`, which restores data, is one too. A
            frozen stage has none: DVC runs it for nothing before it.
        pages: Page that each stage writes; stages without one are missing.
        changed: Reasons of the stages that DVC calls changed.
    """

    before: dict[str, tuple[str, ...]]
    pages: dict[str, str]
    changed: dict[str, tuple[str, ...]]


def read_pipeline(targets: Sequence[str] = (), folder: str | Path = ".") -> Pipeline:
    """Ask DVC for the stages of a project and what has changed.

    Args:
        targets: Stages, to which all that they depend on is added; none: all.
        folder: The project.

    Raises:
        UserError: Where there is no DVC project or no such stage, where DVC cannot read its files,
            or another DVC process holds them.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.lock import LockError
    from dvc.repo import Repo

    def needed(stage: Any) -> list[Any]:
        return [] if stage.frozen else list(graph.successors(stage))

    try:
        with Repo(str(folder)) as repo:
            graph = repo.index.graph  # from a stage to those that it depends on
            stages = _named(repo, targets) if targets else list(graph)
            for stage in stages:  # grows while it is read
                stages.extend(other for other in needed(stage) if other not in stages)
            before = {s.addressing: tuple(sorted(o.addressing for o in needed(s))) for s in stages}
            answers = repo.status(list(before) if targets else None)
            pages = {
                stage.addressing: out.def_path
                for stage in stages
                for out in stage.outs
                if out.def_path.startswith(f"{paths.NOTEBOOK_HTML.as_posix()}/")
            }
    except NotDvcRepoError:
        raise UserError(
            Problem(str(Path(folder).resolve()), "a DVC project", "no .dvc folder",
                    "Change to the project's folder, or make one: voxadapt new.")
        ) from None  # fmt: skip
    except LockError:
        raise UserError(
            Problem(".dvc/tmp/lock", "no other DVC process at this moment",
                    "one holds the project", "Ask again in a few seconds.")
        ) from None  # fmt: skip
    except DvcException as error:
        raise UserError(
            Problem("dvc.yaml", "a pipeline that DVC can read", " ".join(str(error).split()),
                    "Mend the file, or restore it from git.")
        ) from None  # fmt: skip
    changed = {name: tuple(_reasons(answers[name])) for name in before if name in answers}
    return Pipeline(before, pages, changed)


def _named(repo: Any, targets: Sequence[str]) -> list[Any]:
    """Find the stages that are named: one, or all of a matrix."""
    from dvc.exceptions import DvcException

    try:
        return [stage for target in targets for stage in repo.stage.collect(target)]
    except DvcException as error:
        raise UserError(
            Problem("dvc.yaml", "a DVC project with these stages", " ".join(str(error).split()),
                    "`dvc stage list` names them.")
        ) from None  # fmt: skip


def _reasons(entries: Iterable[Any]) -> Iterable[str]:
    """Put what DVC says of one stage into words."""
    for entry in entries:
        if not isinstance(entry, Mapping):
            yield str(entry)  # "always changed"
            continue
        for kind, what in entry.items():
            if not isinstance(what, Mapping):
                yield kind.replace("changed ", "") + " changed"
                continue
            for path, how in what.items():
                if isinstance(how, Mapping):  # parameters, by name
                    yield from (f"{name} {_how(kind, state)}" for name, state in how.items())
                else:
                    yield f"{path} {_how(kind, how)}"


def _how(kind: str, state: Any) -> str:
    if state == "deleted":
        return "is missing"
    if state == "not in cache":
        return "is not in the cache"
    if kind == "changed outs":
        return "is missing" if state == "new" else "differs from what the stage wrote"
    return "is new" if state == "new" else "changed"
