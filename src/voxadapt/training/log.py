"""Log rows, epoch summaries, and the messages of divergence and lack of memory."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from voxadapt.core.errors import UserError, is_out_of_memory
from voxadapt.core.files import write_csv
from voxadapt.core.params import TrainParams
from voxadapt.core.problems import user_error
from voxadapt.core.sums import ordered_sum
from voxadapt.model.freezing import ModuleCount
from voxadapt.training.batches import Example
from voxadapt.training.losses import LossTotals
from voxadapt.training.state import LogRow, LoopState

COLUMNS = (
    "step", "epoch", "loss", "c0_loss", "sub_loss", "heldout_loss", "heldout_c0_loss",
    "heldout_sub_loss", "lr", "grad_norm", "lost_update_share", "lost_update_share_trained",
    "num_labels", "num_frames",
)  # fmt: skip
SPEED = "frames_per_s"  # read off a clock: kept out of the log, which git tracks


def write_log(path: str | Path, rows: Sequence[LogRow]) -> None:
    """Write the CSV log: one line per optimizer step, blanks where nothing was measured.

    Equal training gives equal bytes: how fast it was goes to `write_speed`.
    """
    names = {name for row in rows for name in row} - {*COLUMNS, SPEED}
    _write_csv(path, [*COLUMNS, *sorted(names, key=lambda name: (len(name), name))], rows)


def write_speed(path: str | Path, rows: Sequence[LogRow]) -> None:
    """Write the frames per second of each optimizer step, as CSV."""
    _write_csv(path, ["step", SPEED], [row for row in rows if SPEED in row])


def _write_csv(path: str | Path, columns: Sequence[str], rows: Sequence[LogRow]) -> None:
    def cell(value: float | None) -> object:
        return f"{value:.6g}" if isinstance(value, float) else value

    write_csv(path, [columns, *([cell(row.get(name)) for name in columns] for row in rows)])


def epoch_summary(
    epoch: int, state: LoopState, heldout: LossTotals, params: TrainParams
) -> dict[str, object]:
    """Sum up one epoch: losses are means over all of its tokens."""
    rows = [row for row in state.rows if row["epoch"] == epoch and "loss" in row]
    c0_loss = _weighted_mean(rows, "c0_loss", "num_labels")
    sub_loss = _weighted_mean(rows, "sub_loss", "num_frames")
    return {
        "epoch": epoch,
        "step": state.step,
        "train": {
            "loss": c0_loss + params.sub_talker_weight * sub_loss,
            "c0_loss": c0_loss,
            "sub_loss": sub_loss,
        },
        "heldout": {
            "num_labels": heldout.num_labels,
            "codebook_losses": list(heldout.codebook_losses) if heldout.num_frames else [],
            **{k.removeprefix("heldout_"): v for k, v in heldout_columns(heldout, params).items()},
        },
        **{
            key: ordered_sum(shares) / len(shares)
            for key in ("lost_update_share", "lost_update_share_trained")
            if (shares := _measured(rows, key))
        },
    }


def _measured(rows: Sequence[LogRow], key: str) -> list[float]:
    return [value for row in rows if (value := row[key]) is not None]


def _weighted_mean(rows: Sequence[LogRow], key: str, weight: str) -> float:
    weights = _measured(rows, weight)
    values = zip(_measured(rows, key), weights, strict=True)
    return ordered_sum(value * weight for value, weight in values) / ordered_sum(weights)


def heldout_columns(totals: LossTotals, params: TrainParams) -> dict[str, float | None]:
    """Return the held-out losses as log columns; a split without utterances leaves blanks."""
    if not totals.num_frames:
        return {"heldout_loss": None, "heldout_c0_loss": None, "heldout_sub_loss": None}
    return {
        "heldout_loss": totals.loss(params.sub_talker_weight),
        "heldout_c0_loss": totals.c0_loss,
        "heldout_sub_loss": totals.sub_loss,
    }


def codebook_columns(totals: LossTotals) -> dict[str, float]:
    """Return the mean loss of each further codebook as log columns."""
    return {f"c{k + 1}_loss": value for k, value in enumerate(totals.codebook_losses)}


def not_finite(
    epoch: int, number: int, loss: float, grad_norm: float, names: list[str], last_good: int
) -> UserError:
    """Name the step and clips of a NaN or infinite loss, and what is left."""
    where = f"epoch {epoch}, step {number + 1}: {', '.join(names)}"
    facts = {"loss": loss, "grad_norm": grad_norm, "kept": _kept(last_good)}
    return user_error("training.diverged", where, **facts)


def _kept(last_good: int) -> str:
    return f"epoch-{last_good} is kept" if last_good else "no epoch was finished"


@contextmanager
def explain_memory(
    params: TrainParams | None = None,
    examples: Sequence[Example] = (),
    state: LoopState | None = None,
) -> Iterator[None]:
    """Turn an out-of-memory error into a message that names the setting to lower.

    `params` are None while the model is being loaded.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if params is None or state is None:
            kind = "training.no_memory_for_model"
            raise user_error(kind, "model.device", error=error) from None
        fix = _lower(params, examples, state)
        raise user_error("training.no_memory", "train.batch_size", error=error, fix=fix) from None


def _lower(params: TrainParams, examples: Sequence[Example], state: LoopState) -> str:
    """Say which settings take less memory, those first that leave the result as it is."""
    steps = []
    if params.batch_size > 1:
        steps.append(
            "lower train.batch_size and raise train.gradient_accumulation_steps by the same "
            "factor (the result is the same)"
        )
    if not params.gradient_checkpointing:
        steps.append("set train.gradient_checkpointing: true (the same, more slowly)")
    if not params.low_memory and params.method == "full":
        steps.append("set train.low_memory: true (7 bytes a trained weight instead of 16)")
        steps.append("set train.method: lora (an adapter alone is trained)")
    longest = max(examples, key=lambda e: len(e.layout))
    steps.append(f"shorten the longest clip, {longest.id} ({longest.layout.num_frames} frames)")
    text = "; or ".join(steps)
    return f"{text[0].upper()}{text[1:]}. `voxadapt plan` predicts what fits; {_kept(state.epoch)}."


def describe(
    params: TrainParams,
    precision: Mapping[str, str],
    counts: Sequence[ModuleCount],
    what: str,
    num_processes: int = 1,
) -> str:
    """Say in a line what is trained; a learning rate means nothing without its dtype."""
    total = sum(count.num_params for count in counts)
    trainable = sum(count.num_trainable for count in counts)
    together = f"; {num_processes} processes share each batch" if num_processes > 1 else ""
    return (
        f"train: lr {params.lr:.2g} with {precision['master_dtype']} weights, compute in "
        f"{precision['compute_dtype']}, stored as {precision['stored_dtype']}; "
        f"{trainable:,} of {total:,} parameters; {what}{together}"
    )


def say(line: str) -> None:
    """Print a line to stderr, except in CI and in executed notebooks."""
    if not (os.environ.get("CI") or os.environ.get("VOXADAPT_QUIET")):
        print(line, file=sys.stderr, flush=True)
