"""Whether the clips of a speaker are of one voice, by their Resemblyzer embeddings.

The centre is that of the clips that sound alike: the clip nearest to all others, and then whoever
lies near enough, until nothing changes. How near is measured on those clips themselves, so that
strangers do not widen it. Half a corpus of another voice is the most that can be told.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_CLIPS = 8  # fewer do not say how much a voice varies
MIN_SPEECH_S = 1.0  # an embedding of less says little of the voice
STEADY_S = 1.6  # of one partial; below, even the own voice is less like itself …
SHORT_ALLOWANCE = 0.1  # … by so much at 1 s
MAX_LIMIT = 0.8  # cosine at which nobody is a stranger
NUM_SPREADS = 3.5  # scaled MADs of the angle to the centre
MIN_SPREAD = 0.02  # radians
ALIKE = 0.9  # cosine of two centres: halves of one voice have .94 or more, two voices .82 or less
MAX_PAIRED = 500  # clips among which the most central one is looked for
MAX_ROUNDS = 20


@dataclass(frozen=True)
class OneVoice:
    """How like its speaker each clip is."""

    centre: NDArray[np.float32]  # unit vector of the clips that sound alike, [256]
    similarity: NDArray[np.float64]  # cosine of each clip to the centre of the others, [N]
    limits: NDArray[np.float64]  # what each clip has to reach, [N]


def compare_voices(
    embeddings: NDArray[np.float32], speech_s: NDArray[np.float64]
) -> OneVoice | None:
    """Compare each clip of a speaker with the others.

    Of unit vectors, [N, 256], and the seconds of speech behind each, [N]. None where fewer than
    `MIN_CLIPS` are there.
    """
    num = len(embeddings)
    if num < MIN_CLIPS:
        return None
    some = embeddings[np.linspace(0, num - 1, min(num, MAX_PAIRED)).astype(int)]
    central = some[np.argmax(np.median(some @ some.T, axis=1))]
    near = embeddings @ central
    kept = near >= np.median(near)
    allowance = SHORT_ALLOWANCE * np.clip((STEADY_S - speech_s) / (STEADY_S - MIN_SPEECH_S), 0, 1)
    for _ in range(MAX_ROUNDS):
        total = embeddings[kept].sum(axis=0)
        others = np.where(kept[:, None], total - embeddings, total)
        others /= np.linalg.norm(others, axis=1, keepdims=True)
        similarity = np.einsum("ij,ij->i", embeddings, others).astype(np.float64)
        angles = np.arccos(np.clip(similarity[kept], -1.0, 1.0))
        spread = max(1.4826 * float(np.median(np.abs(angles - np.median(angles)))), MIN_SPREAD)
        widest = min(float(np.median(angles)) + NUM_SPREADS * spread, np.pi / 2)
        limits = min(MAX_LIMIT, float(np.cos(widest))) - allowance
        if np.array_equal(kept, similarity >= limits):
            break
        kept = similarity >= limits
    return OneVoice(total / np.linalg.norm(total), similarity, limits)


def alike(centres: Mapping[str, NDArray[np.float32]]) -> list[tuple[str, str, float]]:
    """Return the pairs of speakers that sound like one, and the cosine of their centres."""
    names = list(centres)
    return [
        (first, second, cosine)
        for number, first in enumerate(names)
        for second in names[number + 1 :]
        if (cosine := float(np.dot(centres[first], centres[second]))) >= ALIKE
    ]
