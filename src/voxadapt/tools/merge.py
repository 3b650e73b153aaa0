"""Ending a git merge in `dvc.lock`, stage by stage."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import yaml
from dvc.utils.serialize import dumps_yaml

from voxadapt.core.errors import UserError
from voxadapt.core.files import write_atomic
from voxadapt.core.problems import user_error

LOCK = "dvc.lock"
BASE, OURS, THEIRS = 1, 2, 3  # git's stages of a file in conflict

Entries = Mapping[str, object]


@dataclass(frozen=True)
class Merged:
    """A merged lock: its stages, and those that both sides ran with different results."""

    entries: dict[str, object]
    dropped: tuple[str, ...]


def merge_entries(base: Entries, ours: Entries, theirs: Entries) -> Merged:
    """Merge the stages of three locks: what one side alone has changed is taken from it."""
    entries: dict[str, object] = {}
    dropped = []
    for name in dict.fromkeys([*ours, *theirs]):
        was, here, there = base.get(name), ours.get(name), theirs.get(name)
        if here != there and was not in (here, there):
            dropped.append(name)
            continue
        entry = there if here == was else here
        if entry is not None:
            entries[name] = entry
    return Merged(entries, tuple(dropped))


def merge_lock() -> Merged:
    """Merge the `dvc.lock` of a git merge that stopped at it, and mark it as resolved.

    Metrics and plots of stages that are in conflict become ours; the next `dvc repro` writes
    those of the stages that run again.
    """
    conflicts = set(_git("diff", "--name-only", "--diff-filter=U", "--relative").splitlines())
    if LOCK not in conflicts:
        raise user_error("tools.no_conflict", LOCK)
    base = _entries(BASE)  # also of a side that has no lock any more: what the other ran stays
    merged = merge_entries(base, *(_entries(side) or base for side in (OURS, THEIRS)))
    write_atomic(LOCK, dumps_yaml({"schema": "2.0", "stages": merged.entries}))
    written = sorted(name for name in conflicts if name.startswith("reports/"))
    if written:
        _git("checkout", "--ours", "--", *written)
    _git("add", "--", LOCK, *written)
    return merged


def _entries(side: int) -> Entries:
    """Return what one side of the merge records, by stage; nothing where it has no lock."""
    try:
        text = _git("show", f":{side}:./{LOCK}")
    except UserError:
        return {}
    try:
        content = yaml.safe_load(text)
        stages = content["stages"]
        if not isinstance(stages, dict):
            raise TypeError("its `stages` are no mapping")
    except (yaml.YAMLError, KeyError, TypeError) as error:
        whose = {BASE: "the common commit", OURS: "this branch", THEIRS: "the other branch"}[side]
        raise user_error("tools.bad_lock", f"{LOCK} of {whose}", found=error, lock=LOCK) from None
    return stages


def _git(*arguments: str) -> str:
    """Run git here and return what it prints."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise user_error("tools.no_git", "git", found=error) from None
    if done.returncode:
        found = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise user_error("tools.no_work_tree", f"git {arguments[0]}", found=found)
    return done.stdout
