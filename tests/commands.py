"""Whether a command that is told to somebody exists, with these options and these parameters."""

from __future__ import annotations

import re
import shlex
import tempfile
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
PROFILES = sorted(PROJECT.glob("profiles/*.yaml"))


@cache
def cli() -> Any:
    import typer

    from voxadapt.cli.app import app

    return typer.main.get_command(app)


@cache
def _parsers() -> dict[str, Any]:
    from accelerate.commands.launch import launch_command_parser
    from dvc.cli.parser import get_main_parser

    return {"dvc": get_main_parser(), "accelerate": launch_command_parser()}


@cache
def _stages() -> list[str]:
    return list(yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


@cache
def _extras() -> set[str]:
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    return {*tomllib.loads(text)["project"]["optional-dependencies"]}


def refusal(words: list[str], is_whole: bool = False) -> str | None:
    """Say why a command does not exist; None where it does, or is of a tool unknown here.

    Of one that is not whole, what is required may be missing.
    """
    tool, *arguments = words
    check = {
        "voxadapt": _voxadapt, "dvc": _dvc, "make": _make, "pytest": _files, "python": _python,
        "accelerate": _accelerate, "pip": _pip,
    }.get(tool)  # fmt: skip
    return check(arguments, is_whole) if check else None


def _voxadapt(arguments: list[str], is_whole: bool) -> str | None:
    command, path = cli(), "voxadapt"
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        if arguments[0] not in command.commands:
            return f"no command {arguments[0]}"
        command, path = command.commands[arguments[0]], f"{path} {arguments[0]}"
        arguments = arguments[1:]
    options = {name for item in command.params for name in item.opts} | {"--help"}
    if hasattr(command, "commands") or "--help" in arguments:
        given = {word for word in arguments if word.startswith("-")}
        return None if given <= options else f"no option among {arguments}"
    try:
        command.make_context(path, list(arguments))
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        left_out = type(error).__name__ == "MissingParameter" and not is_whole
        return None if left_out else str(error.format_message())
    return None


def _parse(tool: str, arguments: list[str]) -> Any:
    try:
        return _parsers()[tool].parse_args(arguments)
    except (SystemExit, Exception) as error:
        is_help = isinstance(error, SystemExit) and error.code == 0
        return None if is_help else f"{tool} refuses {arguments}: {error!r}"


def _dvc(arguments: list[str], is_whole: bool) -> str | None:
    is_group = not (is_whole or any(word.startswith("-") for word in arguments))
    found = _parse("dvc", arguments)
    if isinstance(found, str) and is_group:  # `dvc plots`: one of its commands is meant
        found = _parse("dvc", [*arguments, "--help"])
    if isinstance(found, str):
        return found
    if arguments[0] == "repro" or arguments[:2] == ["exp", "run"]:
        unknown = [name for name in getattr(found, "targets", ()) if name not in ("1", *_stages())]
        if unknown:
            return f"no stage {unknown}"
    given = [word for option, word in pairwise(arguments) if option in ("-S", "--set-param")]
    told = [_sweep(given, profile) for profile in PROFILES if given]
    return next(filter(None, told), None)


def _sweep(given: list[str], profile: Path) -> str | None:
    """Set parameters as `dvc exp run` sets them, every combination, and read the result."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

    from voxadapt.core.errors import UserError
    from voxadapt.core.params import load_params

    for sweep in get_hydra_sweeps({"params.yaml": given}):
        with tempfile.TemporaryDirectory() as folder:
            params = Path(folder) / "params.yaml"
            params.write_bytes(profile.read_bytes())
            try:
                apply_overrides(params, sweep["params.yaml"])
                load_params(params)
            except (DvcException, UserError) as error:
                return f"{profile.name}: {error} {error.__cause__ or ''}"
    return None


def _make(arguments: list[str], is_whole: bool) -> str | None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    known = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    known += [f"{name}=" for name in re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE)]
    unknown = [word for word in arguments if re.sub("=.*", "=", word) not in known]
    return f"no target or variable {unknown}" if unknown else None


def _files(arguments: list[str], is_whole: bool) -> str | None:
    files = [word for word in arguments if word.startswith(("tests/", "docs/"))]
    absent = [word for word in files if not (PROJECT / word.split("::")[0]).exists()]
    return f"no {absent}" if absent else None


def _python(arguments: list[str], is_whole: bool) -> str | None:
    if arguments[:1] != ["-m"]:
        return _files(arguments, is_whole)
    module, *options = arguments[1:]
    if module in ("voxadapt", "pytest"):
        return refusal([module, *options], is_whole)
    top = module.split(".")[0]
    at = next((at for at in (PROJECT, PROJECT / "src") if (at / top).is_dir()), None)
    if at is None:
        return None
    file = at / (module.replace(".", "/") + ".py")
    file = file if file.is_file() else file.with_suffix("") / "__main__.py"
    if not file.is_file():
        return f"no module {module}"
    text = file.read_text(encoding="utf-8")
    unknown = [word for word in options if word.startswith("--") and f'"{word}"' not in text]
    return f"{module} has no {unknown}" if unknown else None


def _accelerate(arguments: list[str], is_whole: bool) -> str | None:
    if arguments == ["launch"]:
        return None
    found = _parse("accelerate", arguments[1:])
    if isinstance(found, str):
        return found
    if not (PROJECT / found.config_file).is_file():
        return f"no {found.config_file}"
    return refusal([found.training_script, *found.training_script_args], is_whole)


def _pip(arguments: list[str], is_whole: bool) -> str | None:
    named = re.findall(r"(?:voxadapt|\.)\[([\w,]+)\]", shlex.join(arguments))
    unknown = {name for item in named for name in item.split(",")} - _extras()
    given = [file for option, file in pairwise(arguments) if option == "-c"]
    absent = [file for file in given if not (PROJECT / file).is_file()]
    return f"no extra {unknown}, no file {absent}" if unknown or absent else None
