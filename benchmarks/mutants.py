"""One changed token: do the tests that mirror the module notice?

    python -m benchmarks.mutants --seed 1 --count 200 [--suite]

Draws mutants at random from the folders that decide and train, and runs the tests that mirror each
one's module: `tests/<folder>/test_<module>*.py` or, where there is none, those of the folder that
import the module. Everything happens in a clone with the changes of the working tree, which is left
alone. One JSON line a mutant goes to `.work/mutants-<seed>.jsonl`; a run that was stopped goes on
there. Mutants that change nothing that anyone could see stand in `equivalent_mutants.jsonl`, with
the reason, and do not count. `--suite` runs the survivors against all tests too, minutes each.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.results import table, verdict, write_section

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.jsonl")
FOLDERS = ("selection", "scoring", "training", "data", "model", "codec")
CPU_S, WALL_S = 240, 3600.0  # of one mutant's tests, which may have to wait for a core
SWAPS = {
    "<": ("<=", ">"), "<=": ("<", ">="), ">": (">=", "<"), ">=": (">", "<="), "==": ("!=",),
    "!=": ("==",), "is": ("is not",), "in": ("not in",), "not": ("",), "and": ("or",),
    "or": ("and",), "+": ("-",), "-": ("+",), "*": ("/",), "/": ("*",), "//": ("/",),
    "%": ("*",), "**": ("*",), "+=": ("-=",), "-=": ("+=",), "*=": ("/=",), "/=": ("*=",),
    "|=": ("&=",), "&": ("|",), "True": ("False",), "False": ("True",), "break": ("continue",),
    "continue": ("break",), "min": ("max",), "max": ("min",), "any": ("all",), "all": ("any",),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A token in a line (from 1) of a file, and that line before and after."""

    file: str
    line: int
    token: str
    before: str
    after: str

    @property
    def what(self) -> tuple[str, str, str]:
        """What names it wherever the line stands."""
        return self.file, self.before.strip(), self.after.strip()

    def source(self, root: Path) -> str:
        """Return the text of the changed file."""
        lines = (root / self.file).read_text(encoding="utf-8").split("\n")
        lines[self.line - 1] = self.after
        return "\n".join(lines)

    def parses(self, root: Path) -> bool:
        """Whether it is Python, as no `for x not in y` is."""
        try:
            ast.parse(self.source(root))
        except SyntaxError:
            return False
        return True


@dataclass(frozen=True)
class Row:
    """What the tests that mirror a module, and perhaps all tests, made of a mutant."""

    mutant: Mutant
    tests: list[str]
    survived: bool
    survived_suite: bool | None = None

    @staticmethod
    def read(line: str) -> Row:
        """Read a row of the file."""
        values = json.loads(line)
        return Row(**values | {"mutant": Mutant(**values["mutant"])})


def mutants_of(root: Path, file: str) -> Iterator[Mutant]:
    """Find the mutants of a file, syntax errors among them.

    Types and decorators have none, nor has `strict=True`, which holds what cannot be otherwise.
    """
    source = (root / file).read_text(encoding="utf-8")
    lines, left_out = source.split("\n"), list(_untouched(ast.parse(source)))
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in (tokenize.NL, tokenize.COMMENT)
    ]
    for previous, token, following in zip(tokens, tokens[1:], tokens[2:], strict=False):
        text, (number, column) = token.string, token.start
        swaps = SWAPS.get(text, ())
        if token.type == tokenize.NUMBER:
            value = ast.literal_eval(text)
            swaps = (repr(value + 1 if isinstance(value, int) else 2 * value or 1.0),)
        elif text in ("+", "*", "**", "%", "+="):
            joined = tokenize.STRING in (previous.type, following.type)
            unpacked = text != "+" and previous.string in ("(", "[", "{", ",", "=", ":")
            swaps = () if joined or unpacked else swaps
        elif text == "in" and previous.string == "not":
            swaps = ()  # one operator: its `not` goes
        elif text in ("min", "max", "any", "all") and following.string != "(":
            swaps = ()
        if any(first <= token.start < last for first, last in left_out):
            continue
        if lines[number - 1][:column].endswith("strict="):
            continue
        for instead in swaps:
            line = lines[number - 1]
            after = line[:column] + instead + line[column + len(text) :]
            yield Mutant(file, number, text, line, after)


def _untouched(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for node in ast.walk(tree):
        parts = list(getattr(node, "decorator_list", []))
        parts += [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for part in filter(None, parts):
            yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def drawn(root: Path, seed: int, count: int) -> list[Mutant]:
    """Draw mutants at random, each place in the code as likely as any other."""
    files = [
        path.relative_to(root).as_posix()
        for folder in FOLDERS
        for path in sorted((root / "src/voxadapt" / folder).rglob("*.py"))
    ]
    found = [mutant for file in files for mutant in mutants_of(root, file)]
    random.Random(seed).shuffle(found)
    kept: list[Mutant] = []
    for mutant in found:
        if len(kept) < count and mutant.parses(root):
            kept.append(mutant)
    return kept


def mirrors(root: Path, file: str) -> list[str]:
    """Name the tests that mirror a module."""
    folder, *_, name = Path(file).relative_to("src/voxadapt").with_suffix("").parts
    tests = root / "tests" / folder
    found = {*tests.glob(f"test_{name}.py"), *tests.glob(f"test_{name}_*.py")}
    if not found:
        module = file.removeprefix("src/").removesuffix(".py").replace("/", ".")
        parent = module.rpartition(".")[0]
        forms = (f"from {module} import", f"from {parent} import {name}", f"import {module}")
        found = {
            path
            for path in tests.glob("test_*.py")
            if any(form in path.read_text(encoding="utf-8") for form in forms)
        }
    return sorted(path.relative_to(root).as_posix() for path in found)


def clone(folder: Path) -> None:
    """Copy the commit and what has changed since; the data are linked."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    words = ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.strip("\0").split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name in ("data", ".venv"):
        if (ROOT / name).is_dir() and not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)


def warm(root: Path) -> None:
    """Import what tests import and no mutant changes, once for all of them."""
    os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(root / "src"))
    sys.path.insert(0, str(root / "src"))
    for name in ("pytest", "hypothesis", "scipy.special", "pandas", "torch", "soundfile"):
        importlib.import_module(name)
    compat = importlib.import_module("voxadapt.core.compat")
    assert Path(compat.__file__ or "").is_relative_to(root), compat.__file__
    compat.import_qwen_tts()
    for name in [name for name in sys.modules if name.split(".")[0] == "voxadapt"]:
        del sys.modules[name]


def forked(root: Path, tests: list[str]) -> bool:
    """Whether tests pass: first those that are not slow, then all of them."""
    return _forked(root, ["-m", "not slow", *tests]) and _forked(root, tests)


def _forked(root: Path, tests: list[str]) -> bool:
    """Whether tests pass, or there are none, in a process that has the libraries already."""
    import pytest

    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(root)
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        with open(root / "output.txt", "w", encoding="utf-8") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        words = ["-x", "-q", "--timeout=0", "-p", "no:cacheprovider", *tests]
        os._exit(int(pytest.main(words)))
    until = time.monotonic() + WALL_S
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) in (0, pytest.ExitCode.NO_TESTS_COLLECTED)
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            until = float("inf")
        time.sleep(0.02)


def whole_suite(root: Path) -> bool:
    """Whether all tests pass."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "2", "--dist", "loadfile"]
    return subprocess.run(words, cwd=root, stdout=subprocess.DEVNULL).returncode == 0


def passes(root: Path, mutant: Mutant, run: Callable[[], bool]) -> bool:
    """Whether tests pass with a mutant in place of its file, which is put back."""
    path = root / mutant.file
    kept, times = path.read_bytes(), path.stat()
    path.write_text(mutant.source(root), encoding="utf-8")
    try:
        return run()
    finally:
        path.write_bytes(kept)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def run(root: Path, sample: list[Mutant], out: Path, again: bool, suite: bool) -> list[Row]:
    """Try what has not been tried, and write a line of each as it is known.

    Raises:
        SystemExit: When the tests of a module fail without any mutant, so that they show nothing.
    """
    lines = out.read_text(encoding="utf-8").splitlines() if out.is_file() else []
    known = {row.mutant.what: row for row in map(Row.read, lines)}
    rows, sound = [], set[tuple[str, ...]]()
    for mutant in sample:
        row = known.get(mutant.what)
        if row is None or (again and row.survived):
            tests = mirrors(root, mutant.file)
            survived = not tests or passes(root, mutant, lambda: forked(root, tests))  # noqa: B023
            row = Row(mutant, tests, survived)
        if suite and row.survived and row.survived_suite is None:
            row = replace(row, survived_suite=passes(root, mutant, lambda: whole_suite(root)))
        rows.append(row)
        if row != known.get(mutant.what):
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
            print("survived" if row.survived else "killed  ", *mutant.what, sep="  ", flush=True)
            if row.survived:
                sound.add(tuple(row.tests))
    fallen = {tuple(row.tests) for row in rows if not row.survived} - sound
    broken = [tests for tests in sorted(fallen) if not forked(root, list(tests))]
    if broken:
        raise SystemExit(f"These tests fail without any mutant: {broken}")
    return rows


def report(rows: list[Row], seed: int, commit: str) -> None:
    """Write the section: shares with 95 % intervals (Wilson)."""
    from scipy.stats import binomtest

    listed = map(json.loads, EQUIVALENT.read_text(encoding="utf-8").splitlines())
    equivalent = {(item["file"], item["before"], item["after"]) for item in listed}
    counted = [row for row in rows if row.mutant.what not in equivalent]

    def share(killed: int, total: int) -> str:
        low, high = binomtest(killed, total).proportion_ci(method="wilson")
        return f"{killed} of {total}, {killed / total:.1%} ({low:.1%} to {high:.1%})"

    killed = sum(not row.survived for row in counted)
    by_folder = []
    for folder in FOLDERS:
        here = [row for row in counted if row.mutant.file.split("/")[2] == folder]
        if here:
            by_folder.append([folder, share(sum(not row.survived for row in here), len(here))])
    lines = [
        f"One changed token each, drawn at random (seed {seed}) from {', '.join(FOLDERS)}: "
        f"`python -m benchmarks.mutants --seed {seed} --count {len(rows)}` on commit {commit}; "
        f"{len(rows) - len(counted)} more were equivalent, as listed beside the script.",
        "",
        *table(["folder", "killed by the tests that mirror the module"], by_folder),
        "",
        f"- All: {share(killed, len(counted))}.",
        "- " + verdict("Killed by the mirrored tests", killed / len(counted), 0.85, ""),
    ]
    tried = [row for row in counted if row.survived and row.survived_suite is not None]
    if tried and len(tried) == len(counted) - killed:
        by_suite = killed + sum(row.survived_suite is False for row in tried)
        lines.append("- " + verdict("Killed by the suite", by_suite / len(counted), 0.97, ""))
    write_section("Mutants", lines)


def main() -> None:
    """Draw, run, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--again", action="store_true", help="run the survivors again")
    parser.add_argument("--suite", action="store_true", help="run them against all tests too")
    arguments = parser.parse_args()
    out = ROOT / f".work/mutants-{arguments.seed}.jsonl"
    out.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "clone"
        clone(root)
        words = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(words, cwd=root, check=True, capture_output=True, text=True).stdout
        sample = drawn(root, arguments.seed, arguments.count)
        warm(root)
        rows = run(root, sample, out, arguments.again, arguments.suite)
    report(rows, arguments.seed, commit.strip())


if __name__ == "__main__":
    main()
