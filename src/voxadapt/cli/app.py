"""The command line: which commands there are, in five groups, and how it ends.

A command is a function of a topic's module; `COMMANDS` gives it its name and its group of
`voxadapt --help`. What is heavy is imported by the command that needs it: `--help`, a typo and a
wrong option load neither torch nor pandas nor pydantic.
"""

import atexit
import gc
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from voxadapt import __version__
from voxadapt.cli import advanced, language, look, run, share, start
from voxadapt.cli import options as opt
from voxadapt.cli.problems import print_problems
from voxadapt.cli.terminal import printable
from voxadapt.core.errors import Problem, UserError, storage_problem

Commands = Mapping[str, Callable[..., None]]

COMMANDS: Mapping[str, Commands] = {
    "Start": {
        "new": start.new,
        "init": start.init,
        "import": start.import_data,
        "use": start.use,
        "doctor": start.doctor,
        "plan": start.plan,
    },
    "Run": {
        "audit": run.audit,
        "codes": run.codes,
        "train": run.train,
        "score": run.score,
        "select": run.select,
        "confirm": run.confirm,
        "report": run.report,
    },
    "Look": {
        "status": look.status,
        "verify": look.verify,
        "say": look.say,
        "listen": look.listen,
        "votes": look.votes,
        "evaluate": look.evaluate,
        "judge": look.judge,
        "compare": look.compare,
        "lab": look.lab,
    },
    "Share": {
        "export": share.export,
        "certify": share.certify,
        "apply": share.apply,
        "push": share.push,
    },
    "Advanced": {"merge-lock": advanced.merge_lock},
}
LANGUAGE: Commands = {
    "data": language.data,
    "readings": language.readings,
    "stage1": language.stage1,
    "score": language.score,
    "decide": language.decide,
    "stage2": language.stage2,
    "stage2-score": language.stage2_score,
    "confirm": language.confirm,
    "report": language.report,
    "materialise": language.materialise,
    "restore": language.restore,
    "say": language.say,
    "export": language.export,
}
NOTEBOOK: Commands = {
    "run": advanced.run_notebook,
    "clean": advanced.clean_notebooks,
    "filter": advanced.filter_notebooks,
}
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}  # options of JupyterLab


class Group(TyperGroup):
    """Commands that, for a name that is none of them, suggest similar ones of every group."""

    def resolve_command(  # type: ignore[override]
        self, context: typer.Context, arguments: list[str]
    ) -> tuple[str | None, Any, list[str]]:
        """Find the command that the first argument names."""
        typed = arguments[0]
        if typed in self.commands or typed.startswith("-"):
            return super().resolve_command(context, arguments)
        known = _command_lines(context.find_root().command)  # type: ignore[arg-type]
        near = dict.fromkeys(get_close_matches(typed, [line.split()[-1] for line in known], n=3))
        lines = [line for name in near for line in known if line.endswith(f" {name}")]
        own = context.command_path.split()[1:]
        lines.sort(key=lambda line: line.split()[1:-1] != own)
        hint = f" Did you mean `{'` or `'.join(lines[:3])}`?" if lines else ""
        context.fail(f"No such command {typed!r}.{hint}")


def _command_lines(group: TyperGroup, prefix: str = "voxadapt") -> list[str]:
    """Return every command of a group and of the groups in it, as it is typed."""
    lines = []
    for name, command in group.commands.items():
        lines.append(f"{prefix} {name}")
        if isinstance(command, TyperGroup):
            lines += _command_lines(command, f"{prefix} {name}")
    return lines


def _add(group: typer.Typer, commands: Commands, panel: str | None = None) -> None:
    for name, function in commands.items():
        settings = PASSED_ON if function is look.lab else None
        group.command(name, cls=opt.ProjectCommand, rich_help_panel=panel,
                      context_settings=settings)(function)  # fmt: skip


app = typer.Typer(
    cls=Group,
    help="Adapt Qwen3-TTS to a speaker or a language; every epoch is scored, measurements choose. "
    "`dvc repro` runs every stage that is out of date; `voxadapt plan` says how long that takes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _panel, _commands in COMMANDS.items():
    _add(app, _commands, _panel)
for _name, _panel, _text, _commands in (
    ("language", "Run", "Adapt the Base to a language, stage by stage.", LANGUAGE),
    ("notebook", "Advanced", "Run and clean the pipeline's notebooks.", NOTEBOOK),
):
    _group = typer.Typer(cls=Group, help=_text, no_args_is_help=True)
    _add(_group, _commands)
    app.add_typer(_group, name=_name, rich_help_panel=_panel)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"voxadapt {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; user errors end with a table and exit code 2."""
    atexit.register(gc.freeze)  # or Python looks for cycles among all that it gives back anyway
    try:
        code = app(standalone_mode=False)  # click returns the code of typer.Exit here
        if code == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        print_problems(error)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped. Run the same command again to go on where it was.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            print(f"Error: {printable(error.format_message())}", file=sys.stderr)
            sys.exit(2)
        where = str(getattr(error, "filename", None) or "the disk")
        problem = storage_problem(error, where)
        if problem is None and isinstance(error, OSError) and error.filename and error.strerror:
            expected = "a path that can be read or written"
            problem = Problem(where, expected, error.strerror, "Correct the path.")
        if problem is None and isinstance(error, FileNotFoundError) and error.filename is None:
            gone = "a folder that is there", "one that was removed", "Change to another."
            problem = Problem("the working folder", *gone)
        if problem is None:
            raise
        print_problems(UserError(problem, "A file could not be read or written."))
        sys.exit(2)
