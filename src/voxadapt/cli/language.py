"""`voxadapt language`: the stages and tools of adapting the Base to a language."""

from pathlib import Path
from typing import Annotated

import typer

from voxadapt.cli import options as opt
from voxadapt.cli.run import scoring_stage, stage
from voxadapt.core.paths import LANGUAGE_TEXT_METRICS

data = stage(
    "language.data", "Check texts and recordings; extract codec codes.", LANGUAGE_TEXT_METRICS
)
readings = stage("language.readings", "Have the Base read texts, as targets for Stage 1.")
stage1 = stage("language.stage1", "Adapt text embedding rows; one small delta an epoch.")
score = scoring_stage(
    "language.score",
    "Synthesise and score both languages' sentences.",
    "base, or an epoch of Stage 1.",
)
decide = stage("language.decide", "Choose Stage 1's epoch; decide whether Stage 2 runs.")
stage2 = stage("language.stage2", "Adapt the code predictor, if decided so.")
stage2_score = stage("language.stage2_score", "Speak and score with every epoch of Stage 2.")
confirm = stage("language.confirm", "Compare what is kept with the Base on held-out texts.")
report = stage("language.report", "Write the language's report page.")


def materialise(
    output: opt.Folder, candidate: opt.Chosen = None, params_file: opt.ParamsFile = opt.PARAMS
) -> None:
    """Write the chosen model whole, for stock qwen_tts."""
    from voxadapt.tools import deltas

    print(deltas.materialise(opt.load(params_file), output, candidate).sentence)


def restore(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that materialise wrote.")],
    candidate: Annotated[str, typer.Argument(help="Candidate that it was made from.")],
    output: opt.Folder,
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Take a delta out again: the Base, bit for bit."""
    from voxadapt.tools import deltas

    params = opt.load(params_file)
    print(deltas.restore(params, checkpoint, candidate, output).sentence)


def say(
    text: opt.SpokenText = None,
    file: opt.TextFile = None,
    output: opt.SoundFile = Path("said.wav"),
    candidate: opt.Chosen = None,
    takes: opt.NumTakes = 1,
    pick: opt.Pick = False,
    seed: opt.Seed = 0,
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Speak a sentence of the language, or a file of any length."""
    from voxadapt.tools import say as speech

    said_text, how = opt.spoken_text(text, file), speech.Takes(takes, pick, seed)
    said = speech.say(opt.load(params_file), said_text, output, candidate, how, language=True)
    print(said.sentence)


def export(
    output: opt.Folder,
    candidate: Annotated[
        str | None,
        typer.Argument(help="Stage 1's best epoch, or stage2-epoch-N; default: the kept."),
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="Best epoch of this arm of `voxadapt compare` instead.")
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
    """Write the adapted Base for the Hub, with a card."""
    from voxadapt.tools.export import Terms
    from voxadapt.tools.export import export as export_model

    terms = Terms(name, licence, base_license, data_license, base_model)
    print(export_model(opt.load(params_file), output, candidate, terms, language=True, arm=arm,
                       delta=delta, force=force).sentence)  # fmt: skip
