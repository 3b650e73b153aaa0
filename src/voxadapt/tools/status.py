"""Where the pipeline stands: what is up to date, what is stale and why, and what a run will cost.

What is stale is DVC's own answer, and so is the order of the stages. What a stage costs is what it
took here the last time; where it has not run here yet, what `voxadapt plan` predicts. Nothing is
written.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json, write_json
from voxadapt.core.locks import holder
from voxadapt.core.params import Params
from voxadapt.core.progress import format_duration
from voxadapt.tools.dvc_state import Pipeline

UP_TO_DATE, STALE, WAITS, RUNNING = "up to date", "stale", "waits", "running"
_SHOWN_REASONS = 3


@dataclass(frozen=True)
class StageStatus:
    """Where one stage stands.

    Attributes:
        name: As `dvc repro` takes it.
        state: `up to date`, `stale`, `waits` (for a stage before it) or `running`.
        reasons: What has changed or is missing, or the stages that it waits for.
        seconds: What it will take; None where nobody knows.
        source: Where that is from: `last time`, `plan`, or the name of a stage like it.
    """

    name: str
    state: str
    reasons: tuple[str, ...] = ()
    seconds: float | None = None
    source: str = ""


# --- what stages took ----------------------------------------------------------------------------


def record_seconds(page: str | Path, seconds: float) -> None:
    """Note what a stage took, under the name of the page that it wrote.

    It is a note about this machine, in the folder of resumable state: no stage reads it, and a
    stage that is done does not fail for it.
    """
    record = _record(Path(page).stem)
    try:
        write_json(record, {"seconds": round(seconds, 1)})
    except (OSError, UserError) as error:
        why = error.problems[0].found if isinstance(error, UserError) else error
        print(f"The stage is done; what it took is not noted in {record}: {why}.", file=sys.stderr)


def recorded_seconds(page: str | Path) -> float | None:
    """Return what the stage that writes a page took here the last time; None if it never ran."""
    try:
        return float(read_json(_record(Path(page).stem))["seconds"])
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def _record(stem: str) -> Path:
    return paths.work_dir() / "seconds" / f"{stem}.json"


# --- the answer ----------------------------------------------------------------------------------


def status(params: Params | None, pipeline: Pipeline) -> list[StageStatus]:
    """Say of every stage where it stands and what it will take.

    Args:
        params: All parameters: with them, layers, codec and Whisper are timed where a stage has not
            run here yet. None predicts nothing.
        pipeline: From `voxadapt.tools.dvc_state.read_pipeline`.

    Returns:
        One entry a stage, in an order in which they can run.
    """
    states: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name in TopologicalSorter(pipeline.before).static_order():
        before = pipeline.before[name]
        process = holder(paths.work_dir() / "locks", _lock_name(name))
        held_up = tuple(other for other in before if states[other][0] != UP_TO_DATE)
        if process is not None:
            states[name] = RUNNING, (f"process {process}",)
        elif held_up:
            states[name] = WAITS, held_up
        elif name in pipeline.changed:
            states[name] = STALE, pipeline.changed[name]
        else:
            states[name] = UP_TO_DATE, ()
    costs: dict[str, tuple[float | None, str]] = {
        name: _known_seconds(name, pipeline.pages)
        for name, (state, _) in states.items()
        if state != UP_TO_DATE
    }
    if params is not None and any(seconds is None for seconds, _ in costs.values()):
        planned = _planned(params)
        for name, (seconds, _) in costs.items():
            if seconds is None and _family(name) in planned:
                costs[name] = planned[_family(name)], "plan"
    return [
        StageStatus(name, state, reasons, *costs.get(name, (None, "")))
        for name, (state, reasons) in states.items()
    ]


def _lock_name(name: str) -> str:
    """Name the lock of a stage as `stages.guarded` does."""
    stage, _, candidate = name.partition("@")
    return f"{stage}-{candidate}" if candidate else stage


def _family(name: str) -> str:
    return name.partition("@")[0]


def _known_seconds(name: str, pages: Mapping[str, str]) -> tuple[float | None, str]:
    """Return what a stage, or else one like it, took here."""
    if name not in pages:
        return 0.0, "last time"  # it runs no notebook: a moment
    own = recorded_seconds(pages[name])
    if own is not None:
        return own, "last time"
    for other, page in pages.items():
        if _family(other) == _family(name) and (like := recorded_seconds(page)) is not None:
            return like, other
    return None, ""


def _planned(params: Params) -> dict[str, float]:
    """Predict one run of each kind of stage."""
    from voxadapt.tools import plan as budget

    plan = budget.plan(params)
    scored = sum((paths.SCORES / n / "summary.json").is_file() for n in params.candidate_names)
    counts = {"score": len(params.candidate_names) - scored}
    if params.language is not None:
        counts["language_score"] = len(params.language.candidates)
    seconds = {}
    for stage in plan.stages:
        name = stage.name.replace(" ", "_")
        if stage.seconds:
            seconds[name] = stage.seconds / max(1, counts.get(name, 1))
    return seconds


def describe(found: Sequence[StageStatus]) -> list[str]:
    """Write the status as lines of text."""
    width = max((len(stage.name) for stage in found), default=0)
    lines = []
    for stage in sorted(found, key=lambda stage: stage.name.startswith("language_")):
        reasons = list(stage.reasons[:_SHOWN_REASONS])
        if len(stage.reasons) > _SHOWN_REASONS:
            reasons.append(f"{len(stage.reasons) - _SHOWN_REASONS} more")
        why = ", ".join(reasons)
        state = f"waits for {why}" if stage.state == WAITS else stage.state
        if stage.state in (STALE, RUNNING) and why:
            state += f": {why}"
        cost = ""
        if stage.seconds:
            cost = f"  [{format_duration(stage.seconds)}, {_said(stage.source)}]"
        lines.append(f"{stage.name.ljust(width)}  {state}{cost}")
    to_run = [stage for stage in found if stage.state != UP_TO_DATE]
    lines.append("")
    if not to_run:
        return [*lines, f"All {len(found)} stages are up to date: dvc repro runs nothing."]
    known = [stage.seconds for stage in to_run if stage.seconds is not None]
    unknown = len(to_run) - len(known)
    cost = (
        f"about {format_duration(sum(known))} one after another" if any(known) else "unknown time"
    )
    but = f"; {unknown} of them are not timed yet" if unknown else ""
    lines.append(f"dvc repro runs up to {len(to_run)} of {len(found)} stages: {cost}{but}.")
    if any(stage.state == WAITS for stage in to_run):
        lines.append("A stage that waits runs only if what it waits for gives another result.")
    return lines


def _said(source: str) -> str:
    return {"last time": "as last time", "plan": "predicted"}.get(source, f"as {source}")
