"""`voxadapt language`: the stages and tools of adapting the Base to a language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voxadapt.cli.options import (
    PARAMS,
    BaseLicence,
    BaseOnHub,
    Chosen,
    DataLicence,
    DeltaOnly,
    Folder,
    Licence,
    ModelName,
    ParamsFile,
    Replace,
    Seed,
    SoundFile,
    SpokenText,
    load,
)


def data(params_file: ParamsFile = PARAMS) -> None:
    """Check texts and recordings; extract codec codes."""
    from voxadapt.pipeline.language import data as stage

    print(stage.run(load(params_file)).sentence)


def stage1(params_file: ParamsFile = PARAMS) -> None:
    """Adapt text embedding rows; one small delta an epoch."""
    from voxadapt.pipeline.language import stage1 as stage

    print(stage.run(load(params_file)).sentence)


def score(
    candidate: Annotated[str, typer.Argument(help="base, or an epoch of Stage 1.")],
    params_file: ParamsFile = PARAMS,
) -> None:
    """Synthesise and score both languages' sentences."""
    from voxadapt.pipeline.language import score as stage

    print(stage.run(load(params_file), candidate).sentence)


def decide(params_file: ParamsFile = PARAMS) -> None:
    """Choose Stage 1's epoch; decide whether Stage 2 runs."""
    from voxadapt.pipeline.language import decide as stage

    print(stage.run(load(params_file)).sentence)


def stage2(params_file: ParamsFile = PARAMS) -> None:
    """Adapt the code predictor and score it, if decided so."""
    from voxadapt.pipeline.language import stage2 as stage

    print(stage.run(load(params_file)).sentence)


def confirm(params_file: ParamsFile = PARAMS) -> None:
    """Compare what is kept with the Base on held-out texts."""
    from voxadapt.pipeline.language import confirm as stage

    print(stage.run(load(params_file)).sentence)


def report(params_file: ParamsFile = PARAMS) -> None:
    """Write the language's report page."""
    from voxadapt.pipeline.language import report as stage

    print(stage.run(load(params_file)).sentence)


def materialise(output: Folder, candidate: Chosen = None, params_file: ParamsFile = PARAMS) -> None:
    """Write the chosen model whole, for stock qwen_tts."""
    from voxadapt.tools import deltas

    print(deltas.materialise(load(params_file), output, candidate).sentence)


def restore(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that materialise wrote.")],
    candidate: Annotated[str, typer.Argument(help="Candidate that it was made from.")],
    output: Folder,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Take a delta out again: the Base, bit for bit."""
    from voxadapt.tools import deltas

    params = load(params_file)
    print(deltas.restore(params, checkpoint, candidate, output).sentence)


def say(
    text: SpokenText,
    output: SoundFile = Path("said.wav"),
    candidate: Chosen = None,
    seed: Seed = 0,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Speak a sentence of the language."""
    from voxadapt.tools.say import say_language

    print(say_language(load(params_file), text, output, candidate, seed).sentence)


def export(
    output: Folder,
    candidate: Annotated[
        str | None, typer.Argument(help="An epoch, or stage2-epoch-N; default: the kept one.")
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="Best epoch of this arm of `voxadapt compare` instead.")
    ] = None,
    delta: DeltaOnly = False,
    force: Replace = False,
    name: ModelName = None,
    licence: Licence = None,
    base_license: BaseLicence = None,
    data_license: DataLicence = None,
    base_model: BaseOnHub = None,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Write the adapted Base for the Hub, with a card."""
    from voxadapt.tools.export import Terms, export_language

    terms = Terms(name, licence, base_license, data_license, base_model)
    params = load(params_file)
    result = export_language(params, output, candidate, terms, arm=arm, delta=delta, force=force)
    print(result.sentence)
