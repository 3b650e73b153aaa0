"""Kill every stage at random moments, repeat the command, and compare what is there in the end.

    python tests/faults/kills.py --kills 20 --real 3 --summary docs/reliability.json

Each stage first runs undisturbed. Then it is killed by SIGKILL at moments drawn over the whole of
its duration (in processor seconds, so that a busy machine moves nothing), some of them in the first
and in the last twentieth, and repeated until it ends. The moments are used up one after the other:
a repetition is killed at the next one too, if it still runs then. At the end the files must equal
those of the undisturbed run, byte for byte, and no finished unit of work may have been done again
beyond the one batch that each kill cut off. In every other trial the stage's outputs are deleted
before the command is repeated, as DVC does; in every third one all files get times of another
century.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import world
from faults.world import PROJECT, STAGES, Ended

#: Units that one kill may cost: what is written together.
BATCH = {
    "clips encoded": 8,
    "clips spoken": 1,
    "clips transcribed": 4,
    "texts read": 1,
    "steps trained": 1,
}
MOST_ATTEMPTS = 60


class Loss(AssertionError):
    """Something was lost, done twice, or came out otherwise."""


def processor_s(number: int) -> float:
    """Return the processor time that a running process has used, in seconds."""
    return time.clock_gettime((~number << 3) | 2)


def run_and_kill(folder: Path, arguments: tuple[str, ...], after_s: float | None) -> Ended:
    """Run a command; kill it when it has used so many processor seconds."""
    for name in ("work.txt", "printed.txt"):
        (folder.parent / name).unlink(missing_ok=True)
    began = time.monotonic()
    child = world.start(folder, *arguments, before=save_every_step)
    while after_s is not None:
        ended = world.wait(child, folder, began, 0.0)
        if ended is not None:
            return ended
        if processor_s(child) >= after_s:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.002)
    ended = world.wait(child, folder, began)
    assert ended is not None
    return ended


def save_every_step() -> None:
    """Save training after every step instead of every five minutes, that resuming be seen."""
    from voxadapt.training.trainer import train

    train.__kwdefaults__["save_every_s"] = 0.0


def children_s() -> float:
    """Return the processor time of all children that have ended, in seconds."""
    now = os.times()
    return now.children_user + now.children_system


def moments(count: int, draw: random.Random) -> list[float]:
    """Draw shares of a duration: one in each of as many equal parts, and both edges."""
    edges = [draw.uniform(0.0, 0.05), draw.uniform(0.95, 1.0)]
    inner = [(n + draw.random()) / (count - 2) for n in range(count - 2)]
    found = edges + inner
    draw.shuffle(found)
    return found


def other_times(folder: Path, draw: random.Random) -> None:
    """Give every file that was written a time between 1980 and 2100."""
    for name in world.WRITTEN:
        for path in (folder / name).rglob("*"):
            if path.is_file():
                stamp = draw.randrange(315532800, 4102444800)
                os.utime(path, (stamp, stamp))


def try_stage(name: str, before: Path, kills: int, draw: random.Random) -> dict[str, Any]:
    """Kill a stage `kills` times and return what was seen.

    Args:
        name: Key of `STAGES`.
        before: Project in which every earlier stage is finished; afterwards this one is, too.
        kills: How many times at least.
        draw: Random numbers.

    Raises:
        Loss: When anything is lost, done twice or different.
    """
    arguments = STAGES[name]
    plain = world.fork_project(before, before.parent / "plain" / "project")
    inputs = world.written(before, world.WRITTEN)
    began_s = children_s()
    expected_run = run_and_kill(plain, arguments, None)
    duration_s = children_s() - began_s
    if expected_run.code:
        raise Loss(f"{name}: the undisturbed run gave {expected_run.code}\n{expected_run.printed}")
    expected = world.written(plain)
    waiting = moments(kills, draw)
    seen: Counter[str] = Counter()
    redone: Counter[str] = Counter()
    while waiting:
        seen["trials"] += 1
        deletes, clock = seen["trials"] % 2 == 0, seen["trials"] % 3 == 0
        folder = world.fork_project(before, before.parent / "trial" / "project")
        done, killed = Counter(expected_run.work), 0
        done.clear()
        for attempt in range(MOST_ATTEMPTS):
            if deletes:
                world.delete_outputs(folder, name)
            share = waiting.pop() if waiting else None
            began_s = children_s()
            ended = run_and_kill(folder, arguments, share and share * duration_s)
            done += ended.work
            if ended.code == 0:
                if share is not None:
                    waiting.insert(0, share)
                    if attempt == 0:  # nothing to resume, and faster than what was measured
                        duration_s = 0.98 * min(duration_s, children_s() - began_s)
                break
            if ended.code != -signal.SIGKILL:
                raise Loss(f"{name}, after {killed} kills: exit {ended.code}\n{ended.printed}")
            killed += 1
            seen["kills"] += 1
            seen["kills after outputs were deleted"] += deletes and killed > 1
            seen["kills before other file times"] += clock
            seen["in the first twentieth"] += share < 0.05
            seen["in the last twentieth"] += share > 0.95
            if clock:
                other_times(folder, draw)
        else:
            raise Loss(f"{name}: not finished after {MOST_ATTEMPTS} attempts")
        compare(name, expected, world.written(folder), killed)
        for kind in BATCH:
            again = done[kind] - expected_run.work[kind]
            if again > killed * BATCH[kind]:
                raise Loss(f"{name}: {again} {kind} again after {killed} kills")
            redone[kind] += max(0, again)
        seen["files compared"] += len(expected)
        shutil.rmtree(folder.parent)
    if world.written(before, world.WRITTEN) != inputs:  # every trial has links to these
        raise Loss(f"{name} changed a finished file in place")
    for folder in world.WRITTEN:
        shutil.rmtree(before / folder, ignore_errors=True)
    world.link_tree(plain, before)
    shutil.rmtree(plain.parent)
    return {
        "processor_s": round(duration_s, 2),
        **{key: int(value) for key, value in sorted(seen.items())},
        "work": {k: v for k, v in sorted(expected_run.work.items())},
        "done_again": {k: v for k, v in sorted(redone.items()) if expected_run.work[k]},
        "losses": 0,
    }


def compare(name: str, expected: dict[str, str], found: dict[str, str], kills: int) -> None:
    """Hold the files of a killed and repeated stage to those of an undisturbed one."""
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    other = sorted(key for key in set(expected) & set(found) if expected[key] != found[key])
    if missing or extra or other:
        raise Loss(
            f"{name}, after {kills} kills: missing {missing}; left over {extra}; different {other}"
        )


def campaign(names: list[str], kills: int, seed: int, folder: Path, summary: Path) -> None:
    """Take a project through all stages up to the last one named; kill those that are named.

    The summary is written anew after each stage, beside what it says of other stages.
    """
    from voxadapt.core.files import read_json, sha256_file, write_json
    from voxadapt.core.provenance import fingerprint

    code = {str(path): sha256_file(path) for path in sorted((PROJECT / "src").rglob("*.py"))}
    source = fingerprint({name.removeprefix(str(PROJECT)): sha for name, sha in code.items()})
    project = world.build(folder / "project")
    record = read_json(summary) if summary.is_file() else {}
    last = max(list(STAGES).index(name) for name in names)
    for name in list(STAGES)[: last + 1]:
        if name not in names:
            ended = run_and_kill(project, STAGES[name], None)
            if ended.code:
                raise Loss(f"{name}: exit {ended.code}\n{ended.printed}")
            continue
        began = time.monotonic()
        found = try_stage(name, project, kills, random.Random(f"{seed} {name}"))
        found |= {"seconds": round(time.monotonic() - began, 1), "seed": seed, "source": source}
        record.setdefault("stages", {})[name] = found
        record["machine"] = machine()
        for key in ("kills", "losses", "seconds"):
            record[key] = sum(stage[key] for stage in record["stages"].values())
        write_json(summary, record)
        print(f"{name}: {json.dumps(found)}", flush=True)


# --- whole process trees -------------------------------------------------------------------------

#: What is run, and which files it must end with.
REAL = {
    "dvc repro": (("-m", "dvc", "repro", "codes"), "codes"),
    "notebook run": (("-m", "voxadapt", "notebook", "run", "02_extract_codes"), "codes"),
}


def real_project(folder: Path) -> Path:
    """Write a project that DVC runs as a user's."""
    project = world.build(folder / "project")
    (project / "data").unlink()
    shutil.copytree(PROJECT / "data", project / "data", copy_function=os.link)
    shutil.copytree(PROJECT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        if (PROJECT / name).is_file():
            shutil.copyfile(PROJECT / name, project / name)
    run_real(project, "-m", "dvc", "init", "--no-scm", "--quiet")
    return project


def run_real(project: Path, *arguments: str, kill_after_s: float | None = None) -> tuple[int, str]:
    """Run a python module with all its children; kill the whole group after a while.

    Returns:
        Exit code, minus 9 when killed, and what was printed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = {"PYTHONPATH": str(project / "src"), "PATH": path, "VOXADAPT_QUIET": "1"}
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=project, env=os.environ | settings, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        printed = process.communicate(timeout=kill_after_s)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed = process.communicate()[0]
    return process.returncode, printed


def results(project: Path) -> dict[str, str]:
    """Hash what the stages up to `codes` wrote, pages aside."""
    found = world.written(project)
    return {name: sha for name, sha in found.items() if "/notebooks/" not in name}


def kill_real(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill whole process trees, kernels' runners and DVC, and repeat the commands.

    Raises:
        Loss: When a repetition fails, or its files are others.
    """
    plain = real_project(folder / "plain")
    began = time.monotonic()
    code, printed = run_real(plain, *REAL["dvc repro"][0])
    duration_s = time.monotonic() - began
    if code:
        raise Loss(f"dvc repro gave {code}\n{printed[-3000:]}")
    expected = results(plain)
    found: dict[str, Any] = {}
    for kind, (arguments, _) in REAL.items():
        draw = random.Random(f"{seed} {kind}")
        project = real_project(folder / kind.replace(" ", "-"))
        if kind != "dvc repro":
            world.link_tree(plain, project, ("artifacts", "reports"))
            world.delete_outputs(project, "codes")
        killed, length_s = 0, duration_s
        for attempt in range(MOST_ATTEMPTS):
            if killed == kills:
                break
            after_s, began = draw.uniform(0.02, 0.9) * length_s, time.monotonic()
            code, printed = run_real(project, *arguments, kill_after_s=after_s)
            if code == -signal.SIGKILL:
                killed += 1
            elif code:
                raise Loss(f"{kind}, attempt {attempt + 1}: exit {code}\n{printed[-3000:]}")
            else:  # it was faster than the moment drawn
                length_s = time.monotonic() - began
                world.delete_outputs(project, "codes")
        if killed < kills:
            raise RuntimeError(
                f"{kind}: only {killed} of {kills} kills in {MOST_ATTEMPTS} attempts"
            )
        code, printed = run_real(project, *arguments)
        if code:
            raise Loss(f"{kind}, after {killed} kills: exit {code}\n{printed[-3000:]}")
        compare(kind, expected, results(project), killed)
        found[kind] = {"kills": killed, "files compared": len(expected), "losses": 0}
    found["two at once"] = two_at_once(folder / "two", expected)
    return found


def two_at_once(folder: Path, expected: dict[str, str]) -> dict[str, Any]:
    """Start the same `dvc repro` twice; whatever the second one says, nothing may be lost."""
    project = real_project(folder)
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda _: run_real(project, *REAL["dvc repro"][0]), range(2)))
    refused = [printed for code, printed in ended if code]
    for printed in refused:
        if not any(word in printed for word in ("busy", "lock", "being")):
            raise Loss(f"a second dvc repro failed without a reason:\n{printed[-3000:]}")
    code, printed = run_real(project, *REAL["dvc repro"][0])
    if code:
        raise Loss(f"dvc repro after two at once gave {code}\n{printed[-3000:]}")
    compare("two at once", expected, results(project), 0)
    return {"runs": 2, "refused": len(refused), "files compared": len(expected), "losses": 0}


def machine() -> dict[str, Any]:
    """Name what a run was made with."""
    from voxadapt.core.provenance import versions

    return {"system": platform.platform(), "cores": os.cpu_count(), "versions": versions()}


def main() -> None:
    """Run the campaign and write its summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="for each stage, at least")
    parser.add_argument(
        "--real", type=int, default=0, help="of DVC's and of a notebook's processes"
    )
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--summary", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    from voxadapt.core.files import read_json, write_json

    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        if options.kills:
            world.warm_up()
            campaign(options.stages, options.kills, options.seed, Path(scratch), options.summary)
        if options.real:
            record = read_json(options.summary) if options.summary.is_file() else {}
            record["real"] = kill_real(options.real, options.seed, Path(scratch))
            write_json(options.summary, record)
            print(json.dumps(record["real"]))


if __name__ == "__main__":
    main()
