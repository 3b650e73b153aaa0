"""What pages, notebooks, profiles and messages tell somebody to type, set or open is there."""

from __future__ import annotations

import ast
import copy
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import soundfile
import yaml
from pydantic import BaseModel

from commands import PROFILES, PROJECT, cli, refusal
from test_docs import NAMES, SPAN, read
from voxadapt.core.errors import UserError
from voxadapt.core.params import Params, check_params
from voxadapt.data.clips import read_clips
from voxadapt.data.manifest import row_problems

PACKAGE = PROJECT / "src" / "voxadapt"
TOOLS = ("voxadapt ", "dvc ", "make ", "pytest ", "python ", "accelerate ", "pip ")
FILLED_IN = re.compile(r"\{\{.*?\}\}|\{[^}]*\}|<\w+>|…")
OF_OTHERS = ("reads", "distributed_type", "push")  # keys of a respelling map, Accelerate and DVC
OPTIONS_OF_OTHERS = ("--extra-index-url", "--no-deps", "--rehearse", "--name", "--num_processes")
FILE = re.compile(
    r"[\w./*-]+\.(?:json|jsonl|csv|html|yaml|ipynb|py|md|txt|safetensors|npz|wav|mp3|svg|lock|dvc)"
)
OWN_FILES = (
    "generation_config.json",
    "votes-ab-Ana.json",
    "script-01.wav",
    "tuesday.txt",
    "tuesday.wav",
)


def strings(path: Path) -> str:
    """Return the strings of a module, with `{}` for what is filled in."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return "\n".join(found)


@cache
def told() -> dict[str, str]:
    """Return every text that somebody may follow, by its file."""
    found = {name: read(name) for name in NAMES if name not in ("CHANGELOG.md", "docs/api.md")}
    paths = [*PACKAGE.rglob("*"), *PROJECT.glob("profiles/**/*"), *PROJECT.glob("*.yaml")]
    for path in sorted(path for path in paths if path.suffix in (".py", ".yaml", ".j2")):
        text = strings(path) if path.suffix == ".py" else path.read_text(encoding="utf-8")
        found[path.relative_to(PROJECT).as_posix()] = text
    for path in sorted(PROJECT.glob("notebooks/**/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        found[path.relative_to(PROJECT).as_posix()] = text
    return found


def spans() -> Iterator[tuple[str, str]]:
    for name, text in told().items():
        yield from ((name, span) for span in sorted(set(SPAN.findall(text))))


@pytest.mark.slow
def test_commands_that_are_told_exist_with_these_options() -> None:
    found: dict[str, list[str]] = {}
    for name, span in spans():
        line = FILLED_IN.sub("1", span)
        if line.startswith(TOOLS) and not re.search(r"^voxadapt 1\b|\[[-a-z]", line):
            found.setdefault(line, []).append(name)
    for name, text in told().items():  # in messages, without marks
        for line in re.findall(r"(?<![`\w./\"=-])voxadapt ((?:[a-z0-9-]+ ?)+)", text):
            words = line.split()
            words = words[: 2 if words[0] in ("language", "notebook") else 1]
            found.setdefault(f"voxadapt {' '.join(words)}", []).append(name)
    told_why = {line: refusal(shlex.split(line)) for line in found}
    assert {line: (found[line], why) for line, why in told_why.items() if why} == {}
    assert len(found) > 150


@pytest.mark.slow
def test_commands_that_write_a_record_are_named_whole() -> None:
    """A missing record says "Run `voxadapt {command}`"; with what the command requires."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called in ("read_record", "read", "optional", "write_made"):
                    found |= {v.value for v in node.args[1:3] if isinstance(v, ast.Constant)}
    named = found - {"utf-8", "float32"}  # of other readers
    commands = [value.split() for value in named if isinstance(value, str)]
    assert [words for words in commands if refusal(["voxadapt", *words], True)] == []
    assert len(commands) > 10


def test_a_command_that_does_not_exist_is_noticed() -> None:
    for line in (
        "voxadapt trian", "voxadapt score", "voxadapt score base --loud", "voxadapt language fly",
        "voxadapt evaluate --batch-size many", "dvc reproduce", "dvc repro --loud", "make tea",
        "dvc repro reports", "dvc exp run -S train.metod=lora", "make repro EXTRA=dev",
        "dvc exp run --queue -S train.lr=1e-6,quick report", "pytest tests/none.py",
        "python -m benchmarks.none", "python -m benchmarks.gpu --loud", "pip install voxadapt[tea]",
        "accelerate launch --config_file profiles/accelerate/eight_gpus.yaml -m voxadapt trian",
    ):  # fmt: skip
        assert refusal(shlex.split(line), True), line
    assert refusal(["voxadapt", "score"]) is None


def _options(command: Any) -> Iterator[str]:
    yield from (option for item in command.params for option in item.opts)
    for inner in getattr(command, "commands", {}).values():
        yield from _options(inner)


def test_options_that_are_told_by_themselves_exist() -> None:
    known = {*_options(cli()), "--help", *OPTIONS_OF_OTHERS}
    found = {(name, span.split()[0]) for name, span in spans() if span.startswith("--")}
    for name, text in told().items():
        if name.endswith("problems.yaml"):
            plain = re.sub(r"`[^`]+`", "", text)
            found |= {(name, word) for word in re.findall(r"(?<![\w-])--[a-z][a-z_-]+", plain)}
    assert [item for item in sorted(found) if item[1] not in known] == [] and len(found) > 50


# --- parameters ----------------------------------------------------------------------------------


def _keys(section: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield above + name
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{above}{name}.")


KEYS = set(_keys(Params))
SECTIONS = "|".join(key for key in KEYS if "." not in key)


def test_parameters_that_are_told_exist() -> None:
    found = set()
    for name, text in told().items():
        within = SPAN.findall(text) if name.endswith(".py") else [text]
        found |= {
            (name, key)
            for part in within
            for key in re.findall(
                rf"(?<![\w./-])((?:{SECTIONS})(?:\.[a-z_0-9]+)+)(?![\w(/.])", part
            )
            if not name.endswith((".j2", ".ipynb")) or f"`{key}" in text
        }
    files = "safetensors|sbatch|tsv|list|dvc|json|no_file|empty|clips"
    wrong = [item for item in sorted(found) if item[1] not in KEYS]
    assert [item for item in wrong if not re.search(rf"\.({files})\b", item[1])] == []
    assert len(found) > 300


def _set(tree: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    changed = node = copy.deepcopy(tree)
    *way, last = key.split(".")
    for name in way:
        node = node.setdefault(name, {})
    node[last] = value
    return changed


@cache
def _profile(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _fits(values: dict[str, Any]) -> bool:
    """Tell whether parameters that are told can be set in one of the profiles."""
    for profile in PROFILES:
        tree = _profile(profile)
        for key, value in values.items():
            tree = _set(tree, key, value)
        try:
            check_params(tree, profile)
        except UserError:
            continue
        return True
    return False


def test_values_that_are_told_can_be_set() -> None:
    wrong, count = [], 0
    for name, span in spans():
        if found := re.fullmatch(r"([a-z_0-9.]+): (.+)", span):
            key, value = found[1], yaml.safe_load(FILLED_IN.sub("1", found[2]))
            keys = [item for item in KEYS if item == key or item.endswith(f".{key}")]
            if key in OF_OTHERS or name == "src/voxadapt/core/progress.py":
                continue
            count += 1
            if not any(_fits({item: value}) for item in keys):
                wrong.append((name, span))
    for name in NAMES:
        for block in re.findall(r"^```yaml\n(.*?)^```", read(name), re.MULTILINE | re.DOTALL):
            values = yaml.safe_load(block)
            if set(values) <= set(Params.model_fields):
                pairs = {f"{top}.{k}": v for top, part in values.items() for k, v in part.items()}
                count += 1
                if not _fits(pairs):
                    wrong.append((name, block))
    assert wrong == [] and count > 40


def test_rows_that_are_shown_are_accepted(tmp_path: Path) -> None:
    count = 0
    (tmp_path / "c").mkdir()
    soundfile.write(tmp_path / "c" / "voice.wav", [0.0] * 16000, 16000)
    for name in NAMES:
        for block in re.findall(
            r"^[ ]*```json\n(.*?)^[ ]*```", read(name), re.MULTILINE | re.DOTALL
        ):
            lines = block.replace("…", "a").strip().splitlines()
            rows = [json.loads(line) for line in lines]
            count += len(rows)
            if "ref_audio" in rows[0]:
                assert [row_problems(name, row) for row in rows] == [[]] * len(rows)
            else:
                clips = tmp_path / "clips.jsonl"
                clips.write_text("\n".join(lines), encoding="utf-8")
                assert len(read_clips(clips)) == len(rows)
    assert count >= 9


# --- files and tests -----------------------------------------------------------------------------


def test_files_that_are_told_are_in_the_repository_or_written_by_the_code() -> None:
    written = "\n".join(text for name, text in told().items() if name.startswith("src/"))
    pages = {f"{path.stem}.html" for path in PROJECT.glob("notebooks/*.ipynb")}
    tops = [PROJECT, PACKAGE, PROJECT / "benchmarks", *(PROJECT / "tests").iterdir()]
    wrong, count = [], 0
    for name, span in spans():
        if name.endswith((".py", "reruns.md")) or not FILE.fullmatch(span):
            continue
        count += 1
        last = Path(span).name
        if not (any(list(top.glob(span)) for top in tops) or last in written or last in pages):
            wrong.append((name, span))
    assert [item for item in wrong if item[1] not in OWN_FILES] == [] and count > 100


@pytest.mark.slow
def test_tests_that_are_told_exist() -> None:
    names = {
        node.name
        for path in (PROJECT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    names |= {path.stem for path in (PROJECT / "tests").rglob("test_*.py")}
    found = {
        (name, word)
        for name, span in spans()
        for word in re.findall(r"\btest_\w+(?!\w*>)", span)
        if name in NAMES
    }
    wrong = [item for item in sorted(found) if item[1] not in names]
    assert wrong == [] and len(found) > 60
