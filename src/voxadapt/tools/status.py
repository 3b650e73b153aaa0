"""Where the pipeline stands: what is up to date, what runs again and why, and what that costs.

What has changed is DVC's own answer, and so is the order of the stages. Nothing is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from voxadapt.core import paths
from voxadapt.core.locks import holder
from voxadapt.core.progress import format_duration
from voxadapt.tools.dvc_state import Pipeline
from voxadapt.tools.timing import LAST_TIME, expected_seconds

TRAINING = {"train": "candidates", "language_stage1": "language.candidates"}  # list of epochs
COLUMNS = ("stage", "state", "took")
SHOWN = 3  # reasons
UP_TO_DATE, STALE, WAITS, RUNNING = "up to date", "stale", "waits", "running"


@dataclass(frozen=True)
class StageStatus:
    """Where one stage stands."""

    name: str  # as `dvc repro` takes it
    state: str  # one that waits runs if a stage before it gives another result
    reasons: tuple[str, ...] = ()  # what has changed or is missing, or the stages it waits for
    seconds: float | None = None  # what it will take; None where it has not run here yet
    source: str = ""  # of the seconds: `last time`, or the name of a stage like it


def status(pipeline: Pipeline) -> list[StageStatus]:
    """Say of every stage where it stands and what it will take, in an order that can run."""
    found: dict[str, StageStatus] = {}
    for name in TopologicalSorter(pipeline.before).static_order():
        process = holder(paths.work_dir() / "locks", name.replace("@", "-"))
        waits_for = tuple(n for n in pipeline.before[name] if found[n].state != UP_TO_DATE)
        reasons: tuple[str, ...]
        if process is not None:
            state, reasons = RUNNING, (f"process {process}",)
        elif name in pipeline.changed:
            state, reasons = STALE, pipeline.changed[name]
        elif waits_for:
            state, reasons = WAITS, waits_for
        else:
            found[name] = StageStatus(name, UP_TO_DATE)
            continue
        cost = expected_seconds(name, pipeline.pages)
        found[name] = StageStatus(name, state, reasons, *cost)
    return list(found.values())


def explain(stage: StageStatus) -> str:
    """Say in words where a stage stands."""
    alike = all(reason.endswith(" changed") for reason in stage.reasons)
    reasons = [reason.removesuffix(" changed") if alike else reason for reason in stage.reasons]
    more = [f"{len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
    why = ", ".join([*reasons[:SHOWN], *more]) + (" changed" if alike and reasons else "")
    if stage.state == WAITS:
        return f"waits for {why}"
    return f"{stage.state}: {why}" if why else stage.state


def explain_training(stage: StageStatus, schedule: str) -> str:
    """Say whether training goes on from the epochs that there are, or makes all of them anew."""
    candidates = TRAINING[stage.name]
    if set(stage.reasons) == {f"{candidates} changed"}:
        if schedule == "constant":
            return "goes on from the last epoch; epochs that are there stay as they are"
        return f"trains every epoch again: schedule {schedule} depends on their number"
    return (
        f"trains every epoch again where data, Base or training parameters differ; those of "
        f"before stay in {paths.work_dir() / 'train'}"
    )


def rows(found: Sequence[StageStatus], schedule: str = "constant") -> list[tuple[str, str, str]]:
    """Return the table of the status, `COLUMNS`; `schedule` is `train.schedule`."""
    table = []
    for stage in sorted(found, key=lambda stage: stage.name.startswith("language_")):
        state, cost = explain(stage), ""
        if stage.seconds:
            source = "" if stage.source == LAST_TIME else f", as {stage.source}"
            cost = f"{format_duration(stage.seconds)}{source}"
        if stage.name in TRAINING and stage.state == STALE:
            state = f"{state}; {explain_training(stage, schedule)}"
        table.append((stage.name, state, cost))
    return table


def summary(found: Sequence[StageStatus]) -> list[str]:
    """Say what the next run does and takes, in a line or two."""
    to_run = [stage for stage in found if stage.state != UP_TO_DATE]
    if not to_run:
        return [f"All {len(found)} stages are up to date: dvc repro runs nothing."]
    known = [stage.seconds for stage in to_run if stage.seconds is not None]
    cost = "unknown time"
    if any(known):
        cost = f"about {format_duration(sum(known))} one after another"
    unknown = len(to_run) - len(known)
    but = f"; {unknown} of them have not run here yet" if unknown else ""
    lines = [f"dvc repro runs up to {len(to_run)} of {len(found)} stages: {cost}{but}."]
    if any(stage.state == WAITS for stage in to_run):
        lines.append("A stage that waits runs only if what it waits for gives another result.")
    return lines
