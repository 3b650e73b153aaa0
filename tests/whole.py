"""A small copy of the project on which the whole pipeline is run as a user runs it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import yaml

from corpus import set_values, take_a_part

PROJECT = Path(__file__).parents[1]
COPIED = ("src", "notebooks", "profiles", ".dvc/config", ".dvc/.gitignore", ".dvc/plots")
COPIED += (".dvcignore", ".gitignore", "dvc.yaml", "data.dvc", "README.md")
COPIED += ("reports/language/arms.json",)


def environment(folder: Path) -> dict[str, str]:
    """Return what finds a project's sources, and its `python` beside it."""
    places = [str(folder.parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        "PYTHONPATH": str(folder / "src"),
        "PATH": os.pathsep.join(places),
        "OMP_WAIT_POLICY": "PASSIVE",
        "DVC_NO_ANALYTICS": "1",
    }


def run(folder: Path, *command: str, code: int = 0) -> str:
    """Run a command in a project and return what it printed."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment(folder), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    printed = done.stdout + done.stderr
    assert done.returncode == code, f"{' '.join(command)} gave {done.returncode}\n{printed[-4000:]}"
    return printed


def dvc(folder: Path, *arguments: str) -> str:
    """Run a command of DVC in this process and return what it printed: starting one takes seconds.

    What stages print is not in it.
    """
    from dvc.cli import main

    printed = io.StringIO()
    handlers = logging.getLogger("dvc").handlers
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, environment(folder)),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        streams = [handler.setStream(printed) for handler in handlers]  # type: ignore[attr-defined]
        try:
            code = main([*arguments])
        finally:
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)  # type: ignore[attr-defined]
    assert code == 0, f"dvc {' '.join(arguments)} gave {code}\n{printed.getvalue()[-4000:]}"
    return printed.getvalue()


def repro(folder: Path, target: str) -> str:
    """Run what has changed."""
    return dvc(folder, "repro", target)


def in_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the package in a project, in this process: starting one takes seconds."""
    from voxadapt.cli.app import main

    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "argv", ["voxadapt", *arguments]),
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),  # no sentence is broken
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main()
    assert isinstance(stop.value.code, int)
    return subprocess.CompletedProcess(arguments, stop.value.code, out.getvalue(), err.getvalue())


def voxadapt(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run a command in this process and return what it printed."""
    done = in_process(folder, *arguments)
    printed = done.stdout + done.stderr
    assert done.returncode == code, f"{shlex.join(arguments)} gave {done.returncode}\n{printed}"
    return printed


def without_dvc(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run a stage's command in this process, whatever DVC thinks of the stage."""
    with mock.patch("voxadapt.cli.run.run_by_dvc", return_value=False):
        return voxadapt(folder, *arguments, code=code)


def _shown_lines() -> list[str]:
    """Return every command line of the README and of what it has moved to other pages."""
    pages = ("README.md", "docs/install.md", "docs/stages.md")
    text = "\n".join((PROJECT / page).read_text(encoding="utf-8") for page in pages)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def readme_commands() -> list[list[str]]:
    """Return the arguments of every `voxadapt` command that is shown, once, in their order.

    `init` makes another project; tests/prepare runs it with the walkthroughs.
    """
    shown = dict.fromkeys(line for line in _shown_lines() if line.startswith("voxadapt "))
    commands = [shlex.split(line)[1:] for line in shown]
    return [arguments for arguments in commands if arguments[0] != "init"]


def other_commands() -> list[str]:
    """Return the commands that are shown and are not `voxadapt`'s."""
    return [line for line in _shown_lines() if not line.startswith("voxadapt ")]


def is_of_language(arguments: list[str]) -> bool:
    """Say whether a command belongs to the language's path."""
    return arguments[0] in ("language", "compare")


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def edit(folder: Path, **changes: object) -> None:
    """Change parameters given as section__key=value."""
    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    set_values(values, changes)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def small_project(folder: Path) -> Path:
    """Make a project with few clips, few sentences and one epoch in an empty git repository."""
    for name in COPIED:
        source, target = PROJECT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    run(folder, "git", "init", "--quiet")
    dvc(folder, "remote", "modify", "embedded", "url", str(PROJECT / ".dvcstore"))
    dvc(folder, "pull", "--quiet", "data.dvc")
    voxadapt(folder, "use", "miniature")
    take_a_part(folder / "data" / "speaker", folder / "small" / "speaker", 110)
    take_a_part(folder / "data" / "language" / "malay", folder / "small" / "malay", 100)
    texts = (folder / "data" / "language" / "malay" / "text_only.jsonl").read_text().splitlines()
    (folder / "small" / "texts.jsonl").write_text("\n".join(texts[:100]) + "\n")
    edit(
        folder,
        data__manifest="small/speaker/train_raw.jsonl",
        audit__min_total_minutes=2.0,
        split__selection_share=0.2,
        split__confirmation_share=0.15,
        language__text="small/texts.jsonl",
        language__audio="small/malay/train_raw.jsonl",
        language__audit__min_total_minutes=2.0,
        language__source__text="small/speaker/train_raw.jsonl",
        candidates=["base", "epoch-1"],
        score__takes=2,
        score__max_sentences=6,
        select__num_bootstrap=400,
        language__candidates=["base", "epoch-1"],
        language__source__max_sentences=3,
        language__select__num_bootstrap=400,
        language__stage2__num_epochs=1,
        language__stage2__max_gap=1.0,  # no error can exceed it: Stage 2 is skipped
    )
    return folder
