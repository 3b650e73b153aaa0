"""A clip that misses its end is cut there; a clip that is free to end stays as it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import endings
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.test_cuda_graph import recorded
from voxadapt.core.params import ScoreParams
from voxadapt.generation import decoding, synthesis
from voxadapt.generation.end_watch import PLAUSIBLE, STARVED, EndWatch
from voxadapt.model.load import load_tts
from voxadapt.scoring.rows import FAILURE_FLAGS

__all__ = ["recorded"]
DATA = Path(__file__).parents[2] / "data"
TEXTS = [
    "The cat sat on the warm stone.", "A boy and the baker painted the hat today.",
    "They walked home late in the rain.", "A quiet woman carried a heavy boat again.",
]  # fmt: skip
SAMPLING = (0.6, 30)
PROBABILITIES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40)


def watch_rows(ends_TS: torch.Tensor) -> tuple[EndWatch, torch.Tensor, torch.Tensor]:
    """Watch rows that are never allowed to end: what is known, who goes on, and for how long."""
    watch = EndWatch(ends_TS.shape[1], ends_TS.device)
    active_S = torch.ones(ends_TS.shape[1], dtype=torch.bool)
    frames_S = torch.zeros(ends_TS.shape[1])
    for frame, end_S in enumerate(ends_TS):
        active_S &= watch.observe(end_S, active_S, torch.tensor([frame]))
        frames_S += active_S
    return watch, active_S, frames_S


@pytest.mark.slow
@given(PROBABILITIES)
@settings(deadline=None)
def test_the_cut_lies_where_most_equal_rows_would_have_ended(ends: list[float]) -> None:
    watch, active_S, frames_S = watch_rows(torch.tensor(ends, dtype=torch.float32)[:, None])
    shares, speaking = [], 1.0
    for end in ends:
        shares.append(speaking * end)
        speaking *= 1 - end
        if speaking < STARVED * 0.99:
            break
    assert shares[int(watch.likeliest_S)] == pytest.approx(max(shares), abs=1e-6)
    if speaking < STARVED * 0.99:
        assert not active_S and watch.missed(1) and frames_S == len(shares) - 1
    if speaking > STARVED * 1.01:
        assert (active_S and bool(watch.missed(1)) == (max(shares) >= PLAUSIBLE)) or math.isclose(
            max(shares), PLAUSIBLE, rel_tol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("hazard", ["even", "a peak and a drop", "certain", "rising"])
def test_rows_that_are_free_to_end_are_cut_as_seldom_as_promised(hazard: str) -> None:
    rows, length = 400_000, 200
    ends_T = {
        "even": torch.full((length,), 0.08),
        "a peak and a drop": torch.cat([torch.tensor([0.0] * 10 + [0.9]), torch.full((189,), 0.2)]),
        "certain": torch.tensor([0.0] * 30 + [0.999] * 170),
        "rising": torch.linspace(0, 0.5, length),
    }[hazard]
    generator = torch.Generator().manual_seed(5)
    watch = EndWatch(rows, torch.device("cpu"))
    active = torch.ones(rows, dtype=torch.bool)
    cut = torch.zeros(rows, dtype=torch.bool)
    for frame, end in enumerate(ends_T):
        ends = torch.rand(rows, generator=generator) < end
        goes_on = watch.observe(end.expand(rows), active, torch.tensor([frame]))
        cut |= active & ~ends & ~goes_on
        active &= ~ends & goes_on
    # 400,000 rows at one in 10,000: 40 are expected at most, with a deviation of 6.3.
    assert int(cut.sum()) <= rows * STARVED + 4 * math.sqrt(rows * STARVED)


def test_rows_that_move_keep_what_is_known_of_them() -> None:
    watch, _, _ = watch_rows(torch.tensor([[0.0, 0.5, 0.0], [0.2, 0.1, 0.9]]))
    watch.keep(torch.tensor([2, 1]))
    assert watch.likeliest_S[:2].tolist() == [1, 0]
    assert watch.speaking_S[:2].tolist() == pytest.approx([0.1, 0.45])
    watch.reset()
    assert not watch.missed(3).any() and watch.likeliest_S.tolist() == [0, 0, 0]


@pytest.fixture(scope="module")
def base() -> Any:
    return load_tts(DATA / "models/base")


def speak(base: Any, texts: list[str] = TEXTS, **fields: Any) -> list[endings.Clip]:
    voice = endings.voice_of(base, DATA / "speaker/ref.wav")
    return endings.speak(base, voice, texts, range(len(texts)), *SAMPLING, **fields)


@pytest.mark.slow
@pytest.mark.parametrize("graph", [False, True], ids=["loop", "recorded"])
def test_a_suppressed_end_is_found_and_healthy_codes_stay(
    base: Any, graph: bool, request: pytest.FixtureRequest
) -> None:
    if graph:
        request.getfixturevalue("recorded")
    decoding.forget()
    with endings.without_watch():
        free = speak(base)
    assert all(clip.ended and not clip.rescued for clip in free)
    decoding.forget()
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(free, speak(base), strict=True))
    ends = [len(clip.codes) for clip in free]
    spans = [(end, end + k) for end, k in zip(ends, (400, 12, 0, 400), strict=True)]
    decoding.forget()
    with endings.suppressed(spans):
        late = speak(base)
    decoding.forget()
    assert [clip.rescued for clip in late] == [True, True, False, True]
    assert [clip.ended for clip in late] == [False, False, True, False]
    for clip, true in zip(late, free, strict=True):
        assert abs(len(clip.codes) - len(true.codes)) <= 3
        kept = min(len(clip.codes), len(true.codes))
        assert torch.equal(clip.codes[:kept], true.codes[:kept])


@pytest.mark.slow
def test_without_the_watch_a_suppressed_end_runs_to_the_limit(base: Any) -> None:
    with endings.without_watch(), endings.suppressed([(5, 10_000)]):
        (clip,) = speak(base, TEXTS[:1])
    assert not clip.ended and not clip.rescued and len(clip.codes) > 80


def test_a_missed_peak_is_where_a_clip_at_its_limit_is_cut() -> None:
    ends_TS = torch.tensor([[0.0, 0.0]] * 7 + [[0.6, 0.04]] + [[0.0, 0.0]] * 30)
    watch, active_S, _ = watch_rows(ends_TS)
    assert active_S.all()  # neither is starved: both run on
    assert watch.missed(2).tolist() == [True, False] and int(watch.likeliest_S[0]) == 7


@pytest.mark.slow
def test_a_rescued_clip_counts_as_failed(base: Any) -> None:
    voice = synthesis.clone_voice(base, DATA / "speaker/ref.wav", None, "x_vector")
    params = ScoreParams(temperature=SAMPLING[0], top_k=SAMPLING[1], top_p=1.0)
    with endings.suppressed([(0, 10_000)] * 2):
        spoken = synthesis.speak(
            base, TEXTS[:2], voice, params, seeds=[0, 1], max_new_tokens=[200, 200]
        )
    assert all(clip.hit_max_tokens and clip.num_frames < 100 for clip in spoken)
    assert "hit_max_tokens" in FAILURE_FLAGS
