"""Options and arguments that several commands take."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from voxadapt.cli.terminal import Printable

if TYPE_CHECKING:
    from voxadapt.core.params import Params

PARAMS = Path("params.yaml")
PLACES = ("asr", "base", "profile")  # options that are names or paths
OUTSIDE = ("new", "init", "use")  # commands that name their project, or make it


class ProjectCommand(TyperCommand):
    """Runs in the project that holds the working folder; paths that are typed keep their place."""

    def invoke(self, context: typer.Context) -> Any:  # type: ignore[override]
        """Run the command; control characters in what it says are shown, not obeyed."""
        here = Path.cwd()
        root = next((p for p in (here, *here.parents) if (p / PARAMS).is_file()), here)
        if root != here and self.name not in OUTSIDE and (root / "dvc.yaml").is_file():
            for name, value in context.params.items():
                typed = context.get_parameter_source(name)
                if typed is not None and typed.name == "COMMANDLINE":
                    context.params[name] = _from(root, here, name, value)
            os.chdir(root)
        with redirect_stdout(Printable(sys.stdout)), redirect_stderr(Printable(sys.stderr)):
            return super().invoke(context)


def _from(root: Path, here: Path, name: str, value: Any) -> Any:
    """Write a path that was typed in one folder as it is reached from another."""
    if isinstance(value, list | tuple):
        return type(value)(_from(root, here, name, item) for item in value)
    is_path = isinstance(value, Path)
    if is_path or (name in PLACES and isinstance(value, str) and (here / value).exists()):
        moved = os.path.relpath(here / value, root)
        return Path(moved) if is_path else moved
    return value


ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file.")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")]
SoundFile = Annotated[
    Path, typer.Option("--output", "-o", help="Sound file to write: WAV, FLAC, OGG or MP3.")
]
SpokenText = Annotated[str | None, typer.Argument(help="What to say, in one go.")]
TextFile = Annotated[
    Path | None, typer.Option("--file", "-f", help="A text of any length, said in passages.")
]
NumTakes = Annotated[
    int, typer.Option(min=1, help="How often it is said; without --pick, a file a take.")
]
Pick = Annotated[
    bool, typer.Option("--pick", help="Keep the best take of each passage, as scoring measures.")
]
Seed = Annotated[int, typer.Option(help="Of the random numbers; another one speaks otherwise.")]
Chosen = Annotated[str | None, typer.Option(help="Default: the chosen one.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Consent = Annotated[
    str | None, typer.Option(help="For each row: how the speaker agreed, in a few words.")
]
DeltaOnly = Annotated[bool, typer.Option("--delta", help="Only what differs from the Base.")]
Replace = Annotated[bool, typer.Option("--force", help="Replace any folder there.")]
ModelName = Annotated[str | None, typer.Option(help="Of the model; default: the folder's.")]
Licence = Annotated[
    str | None, typer.Option("--license", help="Of these weights, as the Hub names it.")
]
BaseLicence = Annotated[str | None, typer.Option(help="Of the Base.")]
DataLicence = Annotated[str | None, typer.Option(help="Of the recordings, in words.")]
BaseOnHub = Annotated[str | None, typer.Option(help="The Base's id on the Hub.")]


def spoken_text(text: str | None, file: Path | None) -> str | Path:
    """Return what is said: a text, or else the file of one."""
    from voxadapt.core.errors import UserError

    given = [item for item in (text, file) if item is not None]
    if len(given) != 1:
        expected, found = "a text, or --file with the name of one", "both" if given else "neither"
        raise UserError.of("what to say", expected, found, "Give one.")
    return given[0]


def load(path: Path) -> Params:
    """Read a parameter file; pydantic is imported no earlier than this."""
    from voxadapt.core.params import load_params

    return load_params(path)
