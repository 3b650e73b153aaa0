from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fakes
from voxadapt.core.params import TrainParams
from voxadapt.training.trainer import TrainResult, train

TEXTS = ("hello there", "good day to you", "it rains", "who is it", "come in", "no", "yes, I do")


@dataclass(frozen=True)
class World:
    """A tiny Base with a corpus of nine clips, two of them held out."""

    base: Path
    ref: Path
    utterances: tuple[Any, ...]
    codes: dict[str, Any]

    def train(self, root: Path, num_epochs: int = 2, **options: Any) -> TrainResult:
        given = {"speaker_name": "Aria", "batch_size": 4, "lr": 1e-3, "seed": 3}
        others = ("save_every_s", "utterances", "codes", "tags")
        keep = {k: options.pop(k) for k in others if k in options}
        return train(
            TrainParams(**{**given, **options}),
            **{
                "model_path": self.base, "utterances": self.utterances, "codes": self.codes,
                "ref_audio": self.ref, "out_dir": root / "out", "work_dir": root / "work",
                "num_epochs": num_epochs, "log_path": root / "log.csv", **keep,
            },
        )  # fmt: skip

    def train_with_a_pause(self, root: Path, **options: Any) -> tuple[TrainResult, bytes, bytes]:
        """Train two epochs at once, and one after the other; return the weights of both."""
        whole = self.train(root / "whole", 2, **options)
        self.train(root / "paused", 1, **options)
        self.train(root / "paused", 2, **options)
        at_once, paused = (
            (root / name / "out" / "epoch-2" / "model.safetensors").read_bytes()
            for name in ("whole", "paused")
        )
        return whole, at_once, paused


def make_world(root: Path, **shape: Any) -> World:
    fakes.make_tts(root / "base", fakes.TinyShape(**shape))
    fakes.make_wav(root / "ref.wav", 3.0)
    return open_world(root)


def open_world(root: Path) -> World:
    """Return the world that `make_world` has written."""
    rows = [fakes.make_utterance(f"clip{n}", text) for n, text in enumerate(TEXTS)]
    rows += [fakes.make_utterance(f"held{n}", f"held out {n}", "selection") for n in range(2)]
    codes = {row.id: fakes.make_codes(5 + 2 * n, seed=n) for n, row in enumerate(rows)}
    return World(root / "base", root / "ref.wav", tuple(rows), codes)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), dtype="bfloat16")


@pytest.fixture(scope="session")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """Two epochs of an ordinary run, interrupted by nothing."""
    root = tmp_path_factory.mktemp("finished")
    return root, world.train(root)
