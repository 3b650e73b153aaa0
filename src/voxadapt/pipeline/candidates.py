"""Candidates: which model folder, or which delta on the Base, a name means."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.files import sha256_folder
from voxadapt.core.lineage import check_made
from voxadapt.core.model_folder import DELTA, read_config, resolve_model
from voxadapt.core.params import STAGE2, ModelParams, candidate_name, epoch_number, in_stage2
from voxadapt.core.paths import LANGUAGE
from voxadapt.core.problems import user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.data.speakers import Speaker
from voxadapt.pipeline.tracks import Track

BASE = "base"


@dataclass(frozen=True)
class Candidate:
    """A model that is scored."""

    name: str  # `base`, `epoch-1`, …, or `stage2-epoch-1`, …
    base: Path  # folder of the Base
    folder: Path  # folder of the whole model; the Base's own for `base`
    delta: Path | None = None  # folder of what is laid over the Base; None for a whole model

    @cached_property
    def sha(self) -> str:
        """Identity of the weights, config and tokenizer that speak."""
        if self.delta is None:
            return sha256_folder(self.folder)
        return fingerprint([sha256_folder(self.base), sha256_folder(self.delta)], 64)


def check_weights(candidate: Candidate) -> None:
    """Refuse weights that are not those that the training wrote."""
    folder = candidate.delta or candidate.folder
    made = {
        paths.CHECKPOINTS: paths.MADE_BY_TRAIN,
        paths.LANGUAGE_STAGE1: paths.MADE_BY_STAGE1,
        paths.LANGUAGE_STAGE2: paths.MADE_BY_STAGE2,
    }.get(folder.parent)
    if made is not None:  # the Base is held to its hash in every row
        check_made([made], within=folder)


def find_candidate(track: Track, name: str) -> Candidate:
    """Find a candidate of a track by its name; raises `UserError` when it has not been trained."""
    return (find_delta if track.corpus is LANGUAGE else find_checkpoint)(track.model, name)


def find_checkpoint(model: ModelParams, name: str) -> Candidate:
    """Find an epoch of the speaker's, or the Base; raises `UserError` when it is not trained."""
    base = resolve_model(model)
    if name == BASE:
        return Candidate(name, base, base)
    folder = paths.CHECKPOINTS / name
    if not (folder / "meta.json").is_file():
        raise user_error("pipeline.no_checkpoint", folder, epoch=epoch_number(name))
    if (folder / DELTA).is_file():  # an adapter: train.method lora
        return Candidate(name, base, base, folder)
    return Candidate(name, base, folder)


def find_delta(model: ModelParams, name: str, folder: Path | None = None) -> Candidate:
    """Find an epoch of either stage of the language, or the Base.

    An epoch of an arm has its delta in a `folder` of its own.

    Raises:
        UserError: When it has not been trained.
    """
    base = resolve_model(model)
    if name == BASE:
        return Candidate(name, base, base)
    if folder is None:
        parent = paths.LANGUAGE_STAGE2 if in_stage2(name) else paths.LANGUAGE_STAGE1
        folder = parent / candidate_name(name).removeprefix(STAGE2)
    if not (folder / "meta.json").is_file():
        raise user_error("pipeline.no_delta", folder, stage=2 if in_stage2(name) else 1)
    return Candidate(name, base, base, folder)


def check_name(asked: str | int, listed: Sequence[str], fix: str = "Name one of them.") -> str:
    """Return a candidate's name as it is listed (3 is epoch-3), or raise `UserError`."""
    name = candidate_name(asked)
    if name not in listed:
        facts = {"listed": ", ".join(listed), "name": name, "fix": fix}
        raise user_error("pipeline.no_candidate", "candidate", **facts)
    return name


def speakers_of_model(folder: Path) -> set[str]:
    """Name the speakers that a model folder speaks for, in lower case; a Base has none."""
    config = read_config(folder)
    if config["tts_model_type"] != "custom_voice":
        return set()
    return {name.lower() for name in config["talker_config"].get("spk_id") or {}}


def kept_speakers(model: ModelParams, speakers: Sequence[Speaker]) -> set[str]:
    """Name the speakers of a manifest that the model to be adapted has already."""
    if not speakers[0].is_named:
        return set()
    there = speakers_of_model(resolve_model(model))
    return {who.name for who in speakers if who.name.lower() in there}
