"""The plan beside whole stages: the memory that `voxadapt plan` predicts, and what they take.

    python -m benchmarks.planned [--runs N] [--path speaker|language]

A run makes a project of the miniature with a part of its clips, asks the plan before anything has
run, and then gives the verbs one after another as a user would, each in a process of its own. Of
each process wall clock, processor seconds and the peak of its anonymous memory are taken. Nothing
is carried over from run to run: resumable state lies in the project too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import yaml
from benchmarks.results import processor, spread, table, verdict_at_most, write_section

PROJECT = Path(__file__).parents[1]
EVERY = 5
LIMIT = 0.15
PLAN_LIMIT_S = 5.0
#: Line of the plan, or None for what it does not list; the verb.
VERBS: dict[str, tuple[tuple[str | None, tuple[str, ...]], ...]] = {
    "speaker": (
        ("audit", ("audit",)),
        ("codes", ("codes",)),
        ("train", ("train",)),
        ("score", ("score", "base")),
        ("score", ("score", "epoch-1")),
        (None, ("select",)),
        ("confirm", ("confirm",)),
    ),
    "language": (
        ("language data", ("language", "data")),
        ("language readings", ("language", "readings")),
        ("language stage1", ("language", "stage1")),
        ("language score", ("language", "score", "base")),
        ("language score", ("language", "score", "epoch-1")),
        (None, ("language", "decide")),
        ("language stage2", ("language", "stage2")),
        ("language stage2_score", ("language", "stage2-score")),
        ("language confirm", ("language", "confirm")),
    ),
}


@dataclass
class Cost:
    """What a stage takes, predicted or measured: over all of its verbs.

    Attributes:
        wall_s: Wall clock.
        cpu_s: Processor seconds, of user and system.
        peak_bytes: Largest anonymous memory of a process.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: float = 0.0


def make_project(folder: Path) -> None:
    """Lay out a project that shares models and recordings with this one."""
    data = PROJECT / "data"
    if not data.is_dir():
        raise SystemExit("data/ is not restored: dvc pull data.dvc")
    (folder / "profiles").symlink_to(PROJECT / "profiles")
    shutil.copytree(data, folder / "data")  # the audit takes no links that leave the folder
    for manifest in ("speaker", "language/malay"):
        for file in (folder / "data" / manifest).glob("*.jsonl"):
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            file.unlink()
            file.write_text("".join(lines[::EVERY]), encoding="utf-8")
    params = yaml.safe_load((PROJECT / "profiles" / "miniature.yaml").read_text(encoding="utf-8"))
    params["candidates"] = params["language"]["candidates"] = ["base", "epoch-1"]
    params["audit"]["min_total_minutes"] = params["language"]["audit"]["min_total_minutes"] = 1.0
    params["select"] |= {"error_margin": 1.0, "failure_margin": 1.0}
    params["score"]["takes"] = 2
    params["language"]["stage2"] |= {"mode": "always", "num_epochs": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def settings() -> dict[str, str]:
    """Return the environment of the processes."""
    own = {key: value for key, value in os.environ.items() if key not in ("WORK_DIR",)}
    parts = [str(PROJECT / "src"), str(PROJECT), own.get("PYTHONPATH", "")]
    return own | {"PYTHONPATH": os.pathsep.join(filter(None, parts)), "VOXADAPT_QUIET": "1"}


def ask_plan(folder: Path) -> dict[str, float]:
    """Return the bytes of every stage, as the plan says them in a new process."""
    command = [sys.executable, "-m", "benchmarks.planned", "--child"]
    answer = subprocess.run(
        command, cwd=folder, env=settings(), check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def plan_here() -> None:
    """In the process: plan the project of the current folder and print it."""
    from voxadapt.core.params import load_params
    from voxadapt.tools.plan import plan

    found = plan(load_params())
    print(json.dumps({stage.name: stage.memory.total for stage in found.stages}))


def run(verb: tuple[str, ...], folder: Path) -> Cost:
    """Run a verb to its end.

    Raises:
        RuntimeError: When it fails, with the end of what it said.
    """
    with tempfile.TemporaryFile("w+") as said:
        before, began = time_of_children(), time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "voxadapt", *verb],
            cwd=folder, env=settings(), stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        status = Path(f"/proc/{process.pid}/status")
        cost = Cost()
        while process.poll() is None:
            cost.peak_bytes = max(cost.peak_bytes, anonymous_bytes(status))
            time.sleep(0.01)
        cost.wall_s = time.monotonic() - began
        cost.cpu_s = time_of_children() - before
        if process.returncode:
            said.seek(0)
            raise RuntimeError(
                f"{' '.join(verb)} gave {process.returncode}:\n{said.read()[-3000:]}"
            )
    return cost


def anonymous_bytes(status: Path) -> float:
    """Read the anonymous memory of a process; 0 when it has ended."""
    try:
        lines = status.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(x.split()[1]) * 1024.0 for x in lines if x.startswith("RssAnon")), 0.0)


def time_of_children() -> float:
    """Return the processor seconds of all processes that this one has waited for."""
    times = os.times()
    return times.children_user + times.children_system


def one_run(chosen: list[str]) -> tuple[dict[str, float], dict[str, Cost]]:
    """Plan a fresh project, then run it; return what was said and what it took, by stage."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_project(folder)
        said = ask_plan(folder)
        taken = {"plan": run(("plan",), folder)}
        for stage, verb in (item for path in chosen for item in VERBS[path]):
            cost = run(verb, folder)
            if stage is None:
                continue
            whole = taken.setdefault(stage, Cost())
            whole.wall_s += cost.wall_s
            whole.cpu_s += cost.cpu_s
            whole.peak_bytes = max(whole.peak_bytes, cost.peak_bytes)
            print(f"{stage}: {asdict(whole)}, planned {said[stage]}", file=sys.stderr, flush=True)
    return said, taken


def off(said: list[float], found: list[float]) -> float:
    """Return the ratio of two medians."""
    return statistics.median(said) / statistics.median(found)


def verdict(what: str, ratios: dict[str, float]) -> str:
    """Say whether all ratios are within the limit, and which are not."""
    worst = max(ratios, key=lambda name: abs(ratios[name] - 1))
    outside = [f"{name} {r:.2f}" for name, r in ratios.items() if abs(r - 1) > LIMIT]
    said = f"{what}: wanted within {100 * LIMIT:.0f} %, furthest off {worst} ({ratios[worst]:.2f})"
    if not outside:
        return f"{said}: met."
    return f"{said}: **not met** by {len(outside)} of {len(ratios)}: {', '.join(outside)}."


def write(runs: list[tuple[dict[str, float], dict[str, Cost]]]) -> None:
    """Write the section."""
    said: dict[str, list[float]] = {}
    found: dict[str, list[Cost]] = {}
    asked_s = [taken["plan"].wall_s for _, taken in runs]
    for plan, taken in runs:
        for stage, cost in taken.items():
            if stage == "plan":
                continue
            said.setdefault(stage, []).append(plan[stage])
            found.setdefault(stage, []).append(cost)
    rows, by_memory = [], {}
    for stage, costs in found.items():
        sizes = said[stage]
        wall_s, cpu_s = [cost.wall_s for cost in costs], [cost.cpu_s for cost in costs]
        peaks = [cost.peak_bytes for cost in costs]
        by_memory[stage] = off(sizes, peaks)
        rows.append(
            [
                stage,
                f"{spread(cpu_s)} s",
                f"{spread(wall_s)} s",
                f"{statistics.median(sizes) / 1e9:.2f} GB",
                f"{statistics.median(peaks) / 1e9:.2f} GB",
                f"{by_memory[stage]:.2f}",
            ]
        )
    write_section(
        "The plan beside whole stages",
        [
            f"A project of the miniature with one clip in {EVERY}, two candidates a path: the "
            "plan is asked before anything has run, then the verbs run one after another, each in "
            f"a new process, start and imports included. Median and range of n = {len(runs)} plans "
            f"and runs; one thread of {processor()}, torch {version('torch')}: "
            "`python -m benchmarks.planned`.",
            "",
            *table(
                ["stage", "processor", "wall clock", "memory, predicted", "measured", "ratio"],
                rows,
            ),
            "",
            "- " + verdict("Peak anonymous memory of a stage", by_memory),
            "- A score stage is that of both candidates.",
            "- "
            + verdict_at_most(
                f"Seconds of `voxadapt plan`, a new process ({spread(asked_s)})",
                statistics.median(asked_s),
                PLAN_LIMIT_S,
                "Imports take most of it.",
            ),
        ],
    )


def main() -> None:
    """Run, and write the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--path", choices=list(VERBS), nargs="+", default=list(VERBS))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        plan_here()
        return
    runs = []
    for _ in range(arguments.runs):
        runs.append(one_run(arguments.path))
        write(runs)


if __name__ == "__main__":
    main()
