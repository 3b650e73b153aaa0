"""The speaker's stages, each without DVC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from voxadapt.cli import options as opt
from voxadapt.cli.problems import print_left_out
from voxadapt.core import launch
from voxadapt.core.errors import Problem, UserError

if TYPE_CHECKING:
    from voxadapt.core.params import Params


def audit(params_file: opt.ParamsFile = opt.PARAMS) -> None:
    """Check the corpus; write manifest and splits."""
    from voxadapt.core.paths import AUDIT_METRICS
    from voxadapt.pipeline import audit as stage

    found = stage.run(opt.load(params_file))
    print_left_out(found.values, AUDIT_METRICS)
    print(found.sentence)


def codes(params_file: opt.ParamsFile = opt.PARAMS) -> None:
    """Extract codec codes; measure their round trip."""
    from voxadapt.pipeline import codes as stage

    print(stage.run(opt.load(params_file)).sentence)


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
    from voxadapt.pipeline import train as stage

    params = _with_options(opt.load(params_file), "model", base=init_model)
    params = _with_options(
        params,
        "train",
        batch_size=batch_size,
        lr=lr,
        speaker_name=speaker_name,
        gradient_accumulation_steps=gradient_accumulation_steps,
        compute_dtype=dtype,
    )
    result = stage.run(params, num_epochs=num_epochs)
    if launch.is_main():
        print(result.sentence)


def _with_options(params: Params, section: str, **values: str | float | None) -> Params:
    """Replace parameters of one section by the options that were given, and check them.

    Raises:
        UserError: When a value cannot be used; it names the option.
    """
    from pydantic import ValidationError

    from voxadapt.core.params import Params

    tree = params.model_dump()
    tree[section].update({key: value for key, value in values.items() if value is not None})
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise UserError(
            [
                Problem(
                    "--" + str(item["loc"][-1]).replace("_", "-"),
                    item["msg"],
                    repr(item.get("input")),
                    "Change the option.",
                )
                for item in error.errors()
            ]
        ) from None


def score(
    candidate: Annotated[str, typer.Argument(help="base, or an epoch number.")],
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Synthesise and score the selection sentences."""
    from voxadapt.pipeline import score as stage

    print(stage.run(opt.load(params_file), candidate).sentence)


def select(params_file: opt.ParamsFile = opt.PARAMS) -> None:
    """Choose the epoch by the rule in params.yaml."""
    from voxadapt.pipeline import select as stage

    print(stage.run(opt.load(params_file)).sentence)


def confirm(params_file: opt.ParamsFile = opt.PARAMS) -> None:
    """Compare the choice with the Base on held-out texts."""
    from voxadapt.pipeline import confirm as stage

    print(stage.run(opt.load(params_file)).sentence)


def report(params_file: opt.ParamsFile = opt.PARAMS) -> None:
    """Write the report page."""
    from voxadapt.pipeline import report as stage

    print(stage.run(opt.load(params_file)).sentence)
