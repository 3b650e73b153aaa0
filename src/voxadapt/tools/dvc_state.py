"""What DVC says of a project: its stages, what each needs, and what has changed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.stage import Stage

from voxadapt.core import paths
from voxadapt.core.problems import user_error


@dataclass(frozen=True)
class Pipeline:
    """DVC's stages, in its own order."""

    #: Direct predecessors, `data.dvc` among them; a frozen stage has none.
    before: dict[str, tuple[str, ...]]
    pages: dict[str, str]  # that stages write
    #: Why stages run again whatever the others do. That something differs which a changed stage
    #: before it writes again is no such reason: it may come out as it was.
    changed: dict[str, tuple[str, ...]]


def read_pipeline() -> Pipeline:
    """Ask DVC for the stages of the project here and what has changed."""

    def needed(stage: Stage) -> list[Stage]:
        return [] if stage.frozen else list(graph.successors(stage))

    try:
        # One reading of dvc.yaml and dvc.lock, which are most of the time: `Repo.status` has two.
        with Repo(".") as repo, repo.lock:
            graph = repo.index.graph  # from a stage to those that it depends on
            stages = list(graph)
            before = {s.addressing: tuple(sorted(o.addressing for o in needed(s))) for s in stages}
            outs = {s.addressing: [out.def_path for out in s.outs] for s in stages}
            answers: dict[str, list[object]] = {}
            for stage in stages:
                answers |= stage.status(check_updates=True)
    except NotDvcRepoError:
        raise user_error("tools.no_project", Path.cwd()) from None
    except LockError:
        raise user_error("tools.busy_project", ".dvc/tmp/lock") from None
    except DvcException as error:
        raise user_error("tools.bad_pipeline", "dvc.yaml", found=error) from None
    folder = f"{paths.NOTEBOOK_HTML.as_posix()}/"
    pages = {name: path for name, written in outs.items() for path in written
             if path.startswith(folder)}  # fmt: skip
    changed = {}
    for name, answer in answers.items():
        rewritten = [out for other in before[name] if other in answers for out in outs[other]]
        if reasons := tuple(_reasons(answer, rewritten)):
            changed[name] = reasons
    return Pipeline(before, pages, changed)


def _reasons(entries: Iterable[object], rewritten: Sequence[str]) -> Iterable[str]:
    """Put what DVC says of one stage into words, except of what a changed stage writes again."""
    for entry in entries:
        if not isinstance(entry, Mapping):
            yield str(entry)  # "always changed"
            continue
        for kind, what in entry.items():
            if not isinstance(what, Mapping):
                yield kind.replace("changed ", "") + " changed"
                continue
            for path, how in what.items():
                if kind == "changed deps" and any(_overlap(path, out) for out in rewritten):
                    continue
                if isinstance(how, Mapping):  # parameters, by name
                    yield from (f"{name} {_how(kind, state)}" for name, state in how.items())
                else:
                    yield f"{path} {_how(kind, how)}"


def _overlap(one: str, other: str) -> bool:
    """Tell whether two paths are the same, or one is in the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _how(kind: str, state: object) -> str:
    if state == "deleted":
        return "is missing"
    if state == "not in cache":
        return "is not in the cache"
    if kind == "changed outs":
        return "is missing" if state == "new" else "differs from what the stage wrote"
    return "is new" if state == "new" else "changed"
