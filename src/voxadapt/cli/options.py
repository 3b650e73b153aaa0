"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from voxadapt.core.params import Params

PARAMS = Path("params.yaml")

ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file.")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")]
SoundFile = Annotated[Path, typer.Option("--output", "-o", help="WAV file to write.")]
SpokenText = Annotated[str, typer.Argument(help="What to say.")]
Seed = Annotated[int, typer.Option()]
Chosen = Annotated[str | None, typer.Option(help="Default: the chosen one.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
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


def load(path: Path) -> Params:
    """Read a parameter file; pydantic is imported no earlier than this."""
    from voxadapt.core.params import load_params

    return load_params(path)
