"""Commands that pass a model on: export, certify, apply, push."""

from pathlib import Path
from typing import Annotated

import typer

from voxadapt.cli import options as opt


def export(
    output: opt.Folder,
    candidate: Annotated[
        str | None, typer.Argument(help="An epoch; default: the chosen one.")
    ] = None,
    delta: opt.DeltaOnly = False,
    force: opt.Replace = False,
    name: opt.ModelName = None,
    licence: opt.Licence = None,
    base_license: opt.BaseLicence = None,
    data_license: opt.DataLicence = None,
    base_model: opt.BaseOnHub = None,
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Write the chosen checkpoint for the Hub, with a card."""
    from voxadapt.tools.export import Terms
    from voxadapt.tools.export import export as export_model

    terms = Terms(name, licence, base_license, data_license, base_model)
    params = opt.load(params_file)
    print(export_model(params, output, candidate, terms, delta=delta, force=force).sentence)


def certify(
    folder: Annotated[Path, typer.Argument(help="Model folder, as `export` writes it.")],
    python: Annotated[
        Path | None, typer.Option(help="Interpreter of another environment; default: this one.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON to write.")] = Path(
        "certificate.json"
    ),
) -> None:
    """Check that another qwen_tts or transformers computes the same."""
    from voxadapt.tools.certify import certify as compare

    print(compare(folder, python, output).sentence)


def apply(
    delta: Annotated[Path, typer.Argument(help="Folder that `export --delta` wrote.")],
    base: Annotated[str, typer.Option(help="The Base: a folder, or its id on the Hub.")],
    output: opt.Folder,
    revision: Annotated[str | None, typer.Option(help="Commit of the Base on the Hub.")] = None,
    speaker_encoder: Annotated[
        str | None, typer.Option(help="Of an adapted CustomVoice model: model.speaker_encoder.")
    ] = None,
) -> None:
    """Join an exported delta and its Base; check each tensor."""
    from voxadapt.tools.apply_delta import apply as apply_delta

    print(apply_delta(delta, base, output, revision, speaker_encoder).sentence)


def push(
    folder: Annotated[Path, typer.Argument(help="Folder that `export` wrote.")],
    repo: Annotated[str, typer.Option(help="owner/name on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and list only.")] = False,
) -> None:
    """Publish an exported folder on the Hub."""
    from voxadapt.tools import publish

    print(publish.push(folder, repo, private=private, dry_run=dry_run).sentence)
