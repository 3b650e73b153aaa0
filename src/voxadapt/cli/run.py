"""The speaker's stages, one at a time; in a DVC project as `dvc repro` runs them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from voxadapt.cli import options as opt
from voxadapt.cli.problems import print_left_out
from voxadapt.core import launch
from voxadapt.core.paths import SPEAKER


def run_by_dvc(name: str, params_file: Path) -> bool:
    """Run a stage by DVC, so that `dvc repro` knows of it and does not run it again.

    False where that cannot be: outside a DVC project, with parameters of another file, and in a
    process of several. A stage that fails has said why, and ends the command.
    """
    in_project = Path(".dvc").is_dir() and Path("dvc.yaml").is_file()
    if not in_project or params_file != opt.PARAMS or launch.num_processes() > 1:
        return False
    # Stages depend on the clean copies of the notebooks.
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "clean", name]
    if subprocess.run(command, check=False).returncode:
        raise typer.Exit(2)
    return True


def stage(module: str, text: str, record: Path | None = None) -> Callable[..., None]:
    """Make the command of a stage of `voxadapt.pipeline` that needs nothing but parameters.

    `record` lists what the stage has left out.
    """

    def command(params_file: opt.ParamsFile = opt.PARAMS) -> None:
        params = opt.load(params_file)
        if run_by_dvc(module.replace(".", "_"), params_file):
            return
        found = import_module(f"voxadapt.pipeline.{module}").run(params)
        if record is not None:
            print_left_out(found.values, record)
        print(found.sentence)

    command.__doc__ = text
    return command


def scoring_stage(module: str, text: str, candidates: str) -> Callable[..., None]:
    """Make the command of a stage that scores one candidate; `candidates` says which there are."""

    def command(candidate: str, params_file: opt.ParamsFile = opt.PARAMS) -> None:
        from voxadapt.core.params import candidate_name

        params, which = opt.load(params_file), candidate_name(candidate)
        name = module.replace(".", "_")
        of_language = params.language.candidates if params.language else []
        tracked = of_language if name == "language_score" else params.candidates
        if which in tracked and run_by_dvc(f"{name}@{which}", params_file):
            return
        run = import_module(f"voxadapt.pipeline.{module}").run
        print(run(params, candidate).sentence)

    command.__annotations__["candidate"] = Annotated[str, typer.Argument(help=candidates)]
    command.__doc__ = text
    return command


audit = stage("audit", "Check the corpus; write manifest and splits.", SPEAKER.audit_metrics)
codes = stage("codes", "Extract codec codes; measure their round trip.")
score = scoring_stage(
    "score", "Synthesise and score the selection sentences.", "base, or an epoch number."
)
select = stage("select", "Choose the epoch by the rule in params.yaml.")
confirm = stage("confirm", "Compare the choice with the Base on held-out texts.")
report = stage("report", "Write the report page.")


def train(
    params_file: opt.ParamsFile = opt.PARAMS,
    init_model: Annotated[str | None, typer.Option(help="Base model folder or hub id.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    lr: Annotated[float | None, typer.Option(min=0.0)] = None,
    num_epochs: Annotated[int | None, typer.Option(min=1)] = None,
    speaker_name: Annotated[str | None, typer.Option()] = None,
    gradient_accumulation_steps: Annotated[int | None, typer.Option(min=1)] = None,
    dtype: Annotated[str | None, typer.Option(help="Autocast: float32 or bfloat16.")] = None,
) -> None:
    """Fine-tune the Base; one checkpoint an epoch.

    Options replace the values of params.yaml for this run only, which DVC then does not record.
    """
    from voxadapt.core.params import check_params
    from voxadapt.pipeline import train as trained

    options = {
        "batch_size": batch_size,
        "lr": lr,
        "speaker_name": speaker_name,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "compute_dtype": dtype,
    }
    given = {key: value for key, value in options.items() if value is not None}
    params = opt.load(params_file)
    if not (given or init_model or num_epochs) and run_by_dvc("train", params_file):
        return
    if given or init_model:
        tree = params.model_dump()
        tree["train"] |= given
        tree["model"] |= {"base": init_model} if init_model else {}
        params = check_params(tree, "The options")
    result = trained.run(params, num_epochs=num_epochs)
    if launch.is_main():
        print(result.sentence)
