"""Training that diverges, or meets a clock that jumps, stops or goes on without loss."""

from __future__ import annotations

import itertools
import math
import os
import time
from pathlib import Path

import pytest
import torch

from training.conftest import World, make_world
from voxadapt.core.errors import UserError
from voxadapt.core.params import ScoreParams
from voxadapt.generation import synthesis
from voxadapt.training import trainer as loop


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "value"),
    [("loss", math.nan), ("loss", math.inf), ("gradient", math.nan), ("gradient", math.inf)],
)
def test_divergence_names_batch_and_clips_keeps_the_last_epoch_and_can_go_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, value: float
) -> None:
    world.train(tmp_path, 1)
    before = files(tmp_path / "out")
    if where == "loss":
        original = loop.loss_sums

        def broken(predictions):
            sums = original(predictions)
            return type(sums)(sums.c0_sum * value, sums.sub_sums, sums.num_labels, sums.num_frames)

        monkeypatch.setattr(loop, "loss_sums", broken)
    else:
        clip = torch.nn.utils.clip_grad_norm_

        def poisoned(parameters, *arguments, **options):
            parameters = list(parameters)
            parameters[0].grad.view(-1)[0] = value
            return clip(parameters, *arguments, **options)

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", poisoned)
    with pytest.raises(UserError, match="diverged") as caught:
        world.train(tmp_path, 2)
    (problem,) = caught.value.problems
    assert problem.where.startswith("epoch 2, step 1: clip")
    assert problem.where.count("clip") >= 3  # the batch
    assert "epoch-1 is kept" in problem.fix
    assert "Lower train.lr" in problem.fix
    assert files(tmp_path / "out") == before
    monkeypatch.undo()
    assert world.train(tmp_path, 2).resumed_step == 2, "the finished epoch is not trained again"
    for name, content in before.items():
        assert files(tmp_path / "out")[name] == content


@pytest.mark.slow
def test_a_clock_that_jumps_and_files_of_another_century_change_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.train(tmp_path / "plain", 2)
    jumps = itertools.cycle([4e9, 0.0, 1e9, -5.0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(jumps) * 1e9))
    world.train(tmp_path / "jumping", 1)
    for year, path in zip(itertools.cycle([1980, 2099]), (tmp_path / "jumping").rglob("*")):
        stamp = (year - 1970) * 31_556_952
        os.utime(path, (stamp, stamp))
    result = world.train(tmp_path / "jumping", 2)
    assert result.resumed_step == 2
    assert files(tmp_path / "jumping" / "out") == files(tmp_path / "plain" / "out")


def test_no_result_is_made_from_the_time_of_day() -> None:
    """Durations come from clocks that cannot be set; the rest of the code asks for no time."""
    source = Path(loop.__file__).parents[1]
    asked = {
        f"{path.relative_to(source)}: {word}"
        for path in source.rglob("*.py")
        if "miniature" not in path.parts
        for word in ("time.time(", "datetime.now", "date.today", "getmtime", "st_mtime ")
        if word in path.read_text(encoding="utf-8")
    }
    assert asked == set()


def test_lack_of_memory_while_speaking_is_no_failed_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would count as an error of the candidate, and change which epoch is chosen."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(synthesis, "speak", full)
    sentence = synthesis.Sentence(text_id="t", text="Words.", split="selection")
    batch = synthesis.Batch((sentence,), 0, (1,), (9,))
    with pytest.raises(UserError, match=r"Lower score\.batch_size"):
        synthesis.speak_batch(None, batch, None, ScoreParams(), "auto")  # type: ignore[arg-type]
