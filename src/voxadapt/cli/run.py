"""The speaker's stages, each without DVC."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from voxadapt.cli import options as opt
from voxadapt.cli.problems import print_left_out
from voxadapt.core import launch
from voxadapt.core.errors import Problem, UserError

if TYPE_CHECKING:
    from voxadapt.core.params import Params


def stage(module: str, text: str, record: str | None = None) -> Callable[..., None]:
    """Make the command of a stage of `voxadapt.pipeline` that needs nothing but parameters.

    `record` names the record of `core.paths` that lists what the stage has left out.
    """

    def command(params_file: opt.ParamsFile = opt.PARAMS) -> None:
        found = import_module(f"voxadapt.pipeline.{module}").run(opt.load(params_file))
        if record is not None:
            print_left_out(found.values, getattr(import_module("voxadapt.core.paths"), record))
        print(found.sentence)

    command.__doc__ = text
    return command


def scoring_stage(module: str, text: str, candidates: str) -> Callable[..., None]:
    """Make the command of a stage that scores one candidate; `candidates` says which there are."""

    def command(candidate: str, params_file: opt.ParamsFile = opt.PARAMS) -> None:
        run = import_module(f"voxadapt.pipeline.{module}").run
        print(run(opt.load(params_file), candidate).sentence)

    command.__annotations__["candidate"] = Annotated[str, typer.Argument(help=candidates)]
    command.__doc__ = text
    return command


audit = stage("audit", "Check the corpus; write manifest and splits.", "AUDIT_METRICS")
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

    Options replace the values of params.yaml for this run only.
    """
    from voxadapt.pipeline import train as trained

    options = {
        "batch_size": batch_size,
        "lr": lr,
        "speaker_name": speaker_name,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "compute_dtype": dtype,
    }
    params = _with_options(opt.load(params_file), model={"base": init_model}, train=options)
    result = trained.run(params, num_epochs=num_epochs)
    if launch.is_main():
        print(result.sentence)


def _with_options(params: Params, **sections: dict[str, str | float | None]) -> Params:
    """Replace parameters by the options that were given, and check them."""
    from pydantic import ValidationError

    from voxadapt.core.params import Params

    tree = params.model_dump()
    for section, values in sections.items():
        tree[section].update({key: value for key, value in values.items() if value is not None})
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        problems = [
            Problem("--" + str(item["loc"][-1]).replace("_", "-"), item["msg"],
                    repr(item.get("input")), "Change the option.")
            for item in error.errors()
        ]  # fmt: skip
        raise UserError(problems) from None
