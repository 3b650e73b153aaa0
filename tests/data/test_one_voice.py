"""Strangers among the clips of a speaker: found by simulation, at the rates that are promised."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from voxadapt.data.one_voice import ALIKE, MIN_CLIPS, alike, compare_voices

# Cosines of utterances with their own centre and with another voice's, as real speech has them.
OWN, OTHER = 0.92, 0.6


def voice(rng: np.random.Generator, near: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return a unit vector; with a cosine of `OTHER` to another one if there is one."""
    made = rng.normal(size=256)
    if near is not None:
        made -= made @ near * near
        made = OTHER * near + np.sqrt(1 - OTHER**2) * made / np.linalg.norm(made)
    return (made / np.linalg.norm(made)).astype(np.float32)


def clips(rng: np.random.Generator, centre: NDArray[np.float32], num: int) -> NDArray[np.float32]:
    cosines = np.cos(np.abs(np.arccos(OWN) + 0.07 * rng.normal(size=num)))
    noise = rng.normal(size=(num, 256))
    noise -= (noise @ centre)[:, None] * centre
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return (cosines[:, None] * centre + np.sqrt(1 - cosines**2)[:, None] * noise).astype(np.float32)


@pytest.mark.parametrize(("num_own", "num_strangers"), [(29, 0), (24, 5), (40, 1), (30, 14)])
def test_strangers_are_found_and_own_clips_left_alone(num_own: int, num_strangers: int) -> None:
    rng = np.random.default_rng(num_strangers)
    own, strange = [], []
    for _ in range(60):
        centre = voice(rng)
        parts = [clips(rng, centre, num_own)]
        if num_strangers:
            parts.append(clips(rng, voice(rng, centre), num_strangers))
        vectors = np.concatenate(parts)
        order = rng.permutation(len(vectors))
        found = compare_voices(vectors[order], np.full(len(vectors), 3.0))
        assert found is not None
        flagged = np.empty(len(vectors), bool)
        flagged[order] = found.similarity < found.limits
        own.append(flagged[:num_own].mean())
        strange += flagged[num_own:].tolist()
    assert np.mean(own) <= 0.01
    assert not strange or np.mean(strange) >= 0.95


def test_the_order_of_the_clips_decides_nothing() -> None:
    rng = np.random.default_rng(3)
    centre = voice(rng)
    vectors = np.concatenate([clips(rng, centre, 20), clips(rng, voice(rng, centre), 3)])
    speech_s, order = rng.uniform(1.0, 4.0, 23), rng.permutation(23)
    one, two = (compare_voices(vectors[o], speech_s[o]) for o in (np.arange(23), order))
    assert one is not None and two is not None
    assert np.allclose(one.similarity[order], two.similarity, atol=1e-6)
    assert (one.similarity < one.limits)[order].tolist() == (two.similarity < two.limits).tolist()


def test_short_clips_are_allowed_to_be_less_like_the_voice() -> None:
    rng = np.random.default_rng(4)
    found = compare_voices(clips(rng, voice(rng), 10), np.array([1.0, *[3.0] * 9]))
    assert found is not None
    assert found.limits[0] == pytest.approx(found.limits[1] - 0.1)
    few = clips(rng, voice(rng), MIN_CLIPS - 1)
    assert compare_voices(few, np.full(len(few), 3.0)) is None


def test_two_names_of_one_voice_are_told() -> None:
    rng = np.random.default_rng(5)
    centre = voice(rng)
    centres = {"anna": centre, "berta": voice(rng, centre), "anne": clips(rng, centre, 1)[0]}
    [(first, second, cosine)] = alike(centres)
    assert (first, second) == ("anna", "anne") and cosine >= ALIKE


def test_copies_of_one_clip_are_one_voice() -> None:
    """Their cosines may exceed 1 by a rounding error, which no angle has."""
    for seed in range(50):
        found = compare_voices(
            np.tile(voice(np.random.default_rng(seed)), (MIN_CLIPS, 1)), np.full(MIN_CLIPS, 3.0)
        )
        assert found is not None and (found.similarity >= found.limits).all()
