"""Fuzz the readers of what users write, and record how it went in `tests/fuzz/record.json`.

    python tests/fuzz/run.py                                   # a million inputs drawn from a seed
    python tests/fuzz/run.py --engine atheris --target params --executions 50000

`random` needs nothing and draws every input from the seed. `atheris` (`pip install atheris`) is
guided by the coverage of the code; it takes one target a run. A failure does not stop a run: it
is counted, and its input printed and kept.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import platform
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD = HERE / "record.json"
INSTRUMENTED = ["voxadapt.data", "voxadapt.core.params", "voxadapt.asr.normalise"]
# Of the executions: a manifest and parameters cost several times what a text does.
SHARES = {"manifest": 0.1, "params": 0.1, "normaliser": 0.8}
TURNS = 200
MAX_KEPT = 20
MAX_BYTES = 256
SOURCES = ("data/*.py", "core/params.py", "core/strict_yaml.py", "asr/normalise.py")


class Counted:
    """A target that counts what becomes of its inputs and keeps the inputs that fail.

    Args:
        name: Of the target.
        target: Takes bytes, returns an outcome, raises where a promise is broken.
    """

    def __init__(self, name: str, target: Callable[[bytes], str]) -> None:
        self.name = name
        self.outcomes: Counter[str] = Counter()
        self.failures: list[dict[str, str]] = []
        self.num_failures = 0
        self.executions = 0
        self.seconds = 0.0
        self._target = target
        self._versions = versions()  # of the code that was loaded, not of later edits

    def __call__(self, data: bytes) -> None:
        """Run the target on one input."""
        began_s = time.perf_counter()
        self.executions += 1
        try:
            self.outcomes[self._target(data)] += 1
        except Exception as error:
            self.num_failures += 1
            if len(self.failures) < MAX_KEPT:
                kept = base64.b64encode(data).decode()
                reason = f"{type(error).__name__}: {ascii(str(error))[:300]}"
                self.failures.append({"input_base64": kept, "error": reason})
                traceback.print_exc()
        self.seconds += time.perf_counter() - began_s

    def record(self, engine: str, seed: int) -> dict[str, Any]:
        """Return what a record holds of the run."""
        return {
            "target": self.name,
            "engine": engine,
            "seed": seed,
            "executions": self.executions,
            "seconds": round(self.seconds, 1),
            "outcomes": dict(sorted(self.outcomes.items())),
            "failures": self.num_failures,
            "first_failures": self.failures,
            "versions": self._versions,
        }


def versions() -> dict[str, str]:
    """Return what a result depends on: package, python, engine, and a hash of the code fuzzed."""
    import voxadapt

    package = Path(voxadapt.__file__).parent
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for file in sorted(package.glob(pattern)):
            digest.update(file.read_bytes())
    found = {
        "voxadapt": voxadapt.__version__,
        "code_sha256": digest.hexdigest()[:16],
        "python": platform.python_version(),
        "pydantic": metadata.version("pydantic"),
        "pyyaml": metadata.version("pyyaml"),
    }
    if "atheris" in sys.modules:
        found["atheris"] = metadata.version("atheris")
    return found


def write_record(entries: list[dict[str, Any]]) -> None:
    """Put runs into the record, in the place of earlier ones of the same targets and engine."""
    runs = json.loads(RECORD.read_text(encoding="utf-8"))["runs"] if RECORD.exists() else []
    new = {(entry["target"], entry["engine"]) for entry in entries}
    runs = [run for run in runs if (run["target"], run["engine"]) not in new]
    runs = sorted([*runs, *entries], key=lambda run: (run["target"], run["engine"]))
    total = {key: sum(run[key] for run in runs) for key in ("executions", "failures")}
    text = json.dumps({"runs": runs, "total": total}, indent=2, sort_keys=True)
    RECORD.write_text(text + "\n", encoding="utf-8")


def run_random(names: tuple[str, ...], executions: int, seed: int, keep: bool) -> int:
    """Run targets in turns on inputs drawn from the seed; return the number of failures."""
    from fuzz import targets

    share = {name: SHARES[name] / sum(SHARES[n] for n in names) for name in names}
    counted = {name: Counted(name, targets.TARGETS[name]) for name in names}
    drawn = {name: random.Random(f"{seed} {name}") for name in names}
    for turn in range(1, TURNS + 1):
        for name, run in counted.items():
            draw = drawn[name]
            while run.executions < round(executions * share[name] * turn / TURNS):
                run(draw.randbytes(draw.randrange(MAX_BYTES)))
        if keep and (turn % 10 == 0 or turn == TURNS):
            write_record([run.record("random", seed) for run in counted.values()])
        done = {name: (run.executions, run.num_failures) for name, run in counted.items()}
        print(f"turn {turn} of {TURNS}: {done}", flush=True)
    return sum(run.num_failures for run in counted.values())


def run_atheris(name: str, executions: int, seed: int, keep: bool) -> None:
    """Run one target on inputs that atheris makes; it ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz import targets
    counted = Counted(name, targets.TARGETS[name])

    def one(data: bytes) -> None:
        if counted.executions < executions:
            counted(data)
            if counted.executions == executions:
                print(json.dumps(counted.record("atheris", seed), indent=2), flush=True)
                if keep:
                    write_record([counted.record("atheris", seed)])

    # A few more than are counted: libFuzzer takes some for its own corpus.
    flags = [f"-runs={executions + 1000}", f"-seed={seed}", f"-max_len={MAX_BYTES}"]
    atheris.Setup([sys.argv[0], *flags, "-verbosity=0"], one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz as the command line says."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=tuple(SHARES), help="one alone; default: all")
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("random", "atheris"), default="random")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    keep = not options.no_record
    if options.engine == "atheris":
        if options.target is None:
            parser.error("--engine atheris needs one --target")
        run_atheris(options.target, options.executions, options.seed, keep)
    names = (options.target,) if options.target else tuple(SHARES)
    return 1 if run_random(names, options.executions, options.seed, keep) else 0


if __name__ == "__main__":
    sys.exit(main())
