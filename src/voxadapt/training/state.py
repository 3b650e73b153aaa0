"""Resumable state: written in one piece, read as tensors and plain values only."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from voxadapt.core.files import (
    json_or_none,
    read_json,
    replacing,
    set_aside,
    sha256_array,
    sha256_file,
)
from voxadapt.core.params import TrainParams
from voxadapt.core.problems import user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.data.manifest import Utterance
from voxadapt.model.checkpoint import META
from voxadapt.training.batches import GeneratedUtterance
from voxadapt.training.optimizer import CompactAdamW

LogRow = dict[str, float | None]  # a row of the CSV log; None where nothing was measured

STATE_FORMAT = 2  # part of every fingerprint; raise it when a saved state means something else


@dataclass
class LoopState:
    """Where the loop stands, weights and optimizer aside."""

    epoch: int = 0  # epochs finished
    window: int = 0  # optimizer steps finished in the epoch under way
    step: int = 0  # optimizer steps finished in all
    #: Log rows; the first, of step 0, holds the Base's loss on the selection split.
    rows: list[LogRow] = field(default_factory=list)
    epochs: list[dict[str, object]] = field(default_factory=list)  # summary of each finished epoch


class SavedState(TypedDict):
    """Content of `state.pt`.

    `loop`: a `LoopState` as a dictionary; `weights`: trained parameters by name; `rng` and
    `cuda_rng`: states of the random streams on the CPU and on each GPU.
    """

    loop: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    rng: Tensor
    cuda_rng: list[Tensor]


def run_identity(
    params: TrainParams,
    base_sha256: str,
    utterances: Sequence[Utterance | GeneratedUtterance],
    codes: Mapping[str, np.ndarray],
    ref_audio: str | Path,
    attention: str,
    num_epochs: int,
    adaptation: Mapping[str, object],
) -> dict[str, object]:
    """Gather what decides a run's result: equal identities may share state and checkpoints.

    The number of epochs counts only where the schedule depends on it.

    Args:
        params: `train` section.
        base_sha256: Hash of the Base's folder.
        utterances: Rows that are trained on or measured.
        codes: Their codes by id.
        ref_audio: Recording of the speaker vector.
        attention: Attention implementation.
        num_epochs: Epochs asked for.
        adaptation: What the adaptation, tags and several speakers add; empty for one speaker.
    """
    rows = [(r.id, r.text, r.language, r.split, sha256_array(codes[r.id])) for r in utterances]
    # A parameter that is younger than the runs it left unchanged does not count while it is off.
    listed = params.model_dump(mode="json", exclude=None if params.low_memory else {"low_memory"})
    if params.method == "lora":
        listed["lora"].pop("export_scale")
    return {
        "format": STATE_FORMAT,
        "params_sha256": fingerprint(listed, 64),
        "base_sha256": base_sha256,
        "data_sha256": fingerprint(rows, 64),
        "ref_audio_sha256": sha256_file(ref_audio),
        "attention": attention,
        "num_epochs": num_epochs if params.schedule == "cosine" else None,
        **({"adaptation_sha256": fingerprint(adaptation, 64)} if adaptation else {}),
    }


def save_state(
    path: Path,
    state: LoopState,
    trained: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | CompactAdamW,
) -> None:
    """Write everything that a resumed run needs, in one piece."""
    with replacing(path) as part:
        torch.save(
            {
                "loop": asdict(state),
                "weights": {name: p.detach() for name, p in trained.items()},
                "optimizer": optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
            part,
        )


def load_state(folder: Path) -> SavedState | None:
    """Read the state of an earlier run, if it is there with all the epochs that it has finished.

    Where an epoch is missing or torn, the run is to begin anew.

    Raises:
        UserError: When the file is damaged.
    """
    path = folder / "state.pt"
    if not path.exists():
        return None
    try:
        saved: SavedState = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise user_error("training.torn_state", path, error=error) from None
    epochs = [folder / f"epoch-{n}" for n in range(1, saved["loop"]["epoch"] + 1)]
    return saved if all(_is_whole(path) for path in epochs) else None


@torch.no_grad()
def restore_state(
    saved: SavedState,
    trained: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | CompactAdamW,
) -> None:
    """Put weights, optimizer and random streams where the saved run stood."""
    for name, parameter in trained.items():
        parameter.copy_(saved["weights"][name])
    optimizer.load_state_dict(saved["optimizer"])  # type: ignore[arg-type]
    torch.set_rng_state(saved["rng"])
    if any(
        parameter.is_cuda for parameter in trained.values()
    ):  # another machine may have more GPUs, or fewer
        for index, rng in enumerate(saved["cuda_rng"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(rng, index)


def _is_whole(epoch: Path) -> bool:
    """Tell whether an epoch's records end, and its weights have every byte that they announce."""
    try:
        for file in epoch.glob("*.json"):
            read_json(file)
        for file in epoch.glob("*.safetensors"):
            with safe_open(file, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return (epoch / META).exists() and any(epoch.glob("*.safetensors"))


def clear_stale(out_dir: Path, run_folder: Path, num_epochs: int) -> None:
    """Take out epochs that another run wrote or that are no longer asked for.

    No epoch is lost: one that is whole stays, or is put, under the folder of its own run. State and
    epochs of other runs lie beside `run_folder`.
    """
    for path in out_dir.glob("epoch-*"):
        number = path.name.removeprefix("epoch-")
        run = str((json_or_none(path / META) or {}).get("run", ""))
        if run == run_folder.name and number.isdigit() and 1 <= int(number) <= num_epochs:
            continue
        kept = run_folder.parent / Path(run).name / path.name
        if run and _is_whole(path) and not _is_whole(kept):
            set_aside(path, kept)
        else:
            shutil.rmtree(path)
    for path in out_dir.glob(".epoch-*"):  # what a killed run left
        shutil.rmtree(path)
