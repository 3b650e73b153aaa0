"""What git or DVC tracks does not depend on the clock, nor on which Python wrote it."""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from voxadapt.core.params import TrainParams
from voxadapt.core.sums import ordered_sum
from voxadapt.scoring.similarity import VoiceReference
from voxadapt.training import log
from voxadapt.training.losses import LossTotals
from voxadapt.training.state import LoopState

SOURCE = Path(log.__file__).parents[1]
#: Modules that archive arrays with numpy: resumable state in `.work/`, which nothing tracks.
RESUMABLE = {"generation/readings.py", "generation/synthesis.py", "scoring/score_clips.py"}
LOSSES = [0.1] * 10
# Between a process and the one of another environment that it compares itself with.
PASSED_ON = {"tools/certify.py", "tools/certify_probe.py"}


def compensated(values: Iterable[float], start: float = 0) -> float:
    """Add as the builtin `sum` does from Python 3.12 on; before, it added from left to right."""
    total, lost = start, 0.0
    for value in values:
        after = total + value
        lost += (total - after) + value if abs(total) >= abs(value) else (value - after) + total
        total = after
    return total + lost if isinstance(total, float) else total


def plain(values: Iterable[float], start: float = 0) -> float:
    for value in values:
        start = start + value
    return start


def rows(frames_per_s: float) -> list[dict[str, float | None]]:
    return [
        {
            "step": step, "epoch": 1, "loss": loss, "c0_loss": loss, "sub_loss": 3 * loss,
            "num_labels": 7, "num_frames": 11, "lost_update_share": loss,
            "lost_update_share_trained": loss, "c1_loss": loss, "frames_per_s": frames_per_s,
        }
        for step, loss in enumerate(LOSSES, 1)
    ]  # fmt: skip


def test_a_training_log_holds_no_speed(tmp_path: Path) -> None:
    for name, speed in (("slow", 1.5), ("fast", 900.25)):
        log.write_log(tmp_path / f"{name}.csv", rows(speed))
        log.write_speed(tmp_path / f"{name}-speed.csv", [{"step": 0}, *rows(speed)])
    assert (tmp_path / "slow.csv").read_bytes() == (tmp_path / "fast.csv").read_bytes()
    speeds = (tmp_path / "fast-speed.csv").read_text().splitlines()
    assert speeds == ["step,frames_per_s", *(f"{step},900.25" for step in range(1, 11))]


def test_records_of_training_are_the_same_on_every_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compensated(LOSSES) != plain(LOSSES) == ordered_sum(LOSSES)
    params = TrainParams(speaker_name="A")
    heldout = LossTotals(c0_sum=1.3, sub_sums=tuple(LOSSES), num_labels=7, num_frames=3)
    state = LoopState(rows=[*rows(1.0)])
    texts = set()
    for add in (plain, compensated):
        monkeypatch.setattr(builtins, "sum", add)
        texts.add(json.dumps(log.epoch_summary(1, state, heldout, params)))
    monkeypatch.undo()
    assert len(texts) == 1


def test_a_voice_is_the_same_on_every_python(tmp_path: Path) -> None:
    embeddings = np.arange(512, dtype=np.float32).reshape(2, 256)
    VoiceReference(("a", "bé"), embeddings, "encoder").write(tmp_path / "voice.safetensors")
    data = (tmp_path / "voice.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == VOICE_SHA256


@pytest.mark.slow
def test_only_resumable_state_is_kept_in_archives() -> None:
    """A zip archive holds the version of Python that wrote it, and numpy's holds such headers."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("savez", "savez_compressed"):
                found.add(path.relative_to(SOURCE).as_posix())
    assert {name for name in found if not name.startswith("miniature/")} == RESUMABLE | PASSED_ON


VOICE_SHA256 = "17a9179ad3d314e6e6a1d1b893a447749e669eb5ea55c18c60cf2246000102b0"
