"""What the recogniser can hear: which sounds it tells apart, and which wrong words it notices.

An error rate says nothing about a sound to which the recogniser is deaf: it then writes the same
whether the sound is right or wrong. Two sounds count as told apart by how far the transcripts of
the one differ from those of the other: the total variation distance between what is written where
the one was said and where the other was (1: never the same, 0: always). Recordings whose text is
right show this without a word being spoken anew, for a text with the one sound and a recording
with the other is what a wrong pronunciation is.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.statistics import (
    Interval,
    interval,
    rate_interval,
    ratio_by_text,
    resample_weights,
)
from voxadapt.scoring.wording import say

SCHEMA = "voxadapt-recogniser/1"
MIN_HEARD = 10  # times that a sound must have been said
MIN_DISTANCE = 0.6  # sounds whose transcripts differ less than this cannot be told apart
MAX_LISTED = 10  # pairs of sounds in the record, the hardest first
NUM_RESAMPLES = 500
OTHER = "other"
LOST = ""  # nothing was written for a sound
CLASSES = {
    "vowels": "aeiouyäöüáéíóúàèìòùâêîôûãõåæøəɛɔ",
    "plosives": "pbtdkgqcč",
    "fricatives": "fvszhxjšžçß",
    "nasals": "mnñ",
    "liquids and glides": "lrwł",
}
Kind = Literal["dropped", "doubled", "replaced", "ending", "swapped"]
KINDS: tuple[Kind, ...] = ("dropped", "doubled", "replaced", "ending")


@dataclass(frozen=True, slots=True)
class Alteration:
    """A wrong version of a sentence, as words.

    A word dropped or doubled, replaced by its neighbour in spelling, its ending cut, or one of its
    sounds swapped. Spans are the first word that differs and the one after the last, in the
    sentence and in the wrong version; the latter is empty where a word was dropped.
    """

    kind: Kind
    wrong: tuple[str, ...]
    right_span: tuple[int, int]
    wrong_span: tuple[int, int]


def sound_class(sound: str) -> str:
    """Name the class of a sound by the first of its letters; `other` beyond Latin letters."""
    return next((name for name, letters in CLASSES.items() if sound[:1] in letters), OTHER)


def split_sounds(text: str, graphemes: Sequence[str] = ()) -> list[str]:
    """Split a normalised text into sounds: groups of letters that are one, such as ng, and letters.

    Spaces are no sounds; of several groups that fit, the longest is taken.
    """
    groups = sorted((item for item in set(graphemes) if len(item) > 1), key=len, reverse=True)
    return re.findall("|".join([*map(re.escape, groups), r"\S"]), text)


def judge(rows: Sequence[ScoreRow], params: SelectParams, graphemes: Sequence[str] = ()) -> Record:
    """Judge the recogniser by its transcripts of recordings whose texts are right.

    The record says how often each sound is heard, which pairs of sounds are hardest to tell apart,
    which cannot be told apart (`blind`), and how often each kind of wrong text is noticed next to
    how often a right one is blamed.
    """
    rows = [row for row in rows if row.status == "ok"]
    said, written, counts = _confusions(rows, graphemes)
    totals = counts.sum(axis=(0, 2))
    measured = [index for index in range(len(said)) if totals[index] >= MIN_HEARD]
    pairs = _pairs(said, counts, measured, params)
    blind = [pair["sounds"] for pair in pairs if pair["told_apart"]["point"] < MIN_DISTANCE]
    sounds = {
        said[index]: _sound(said[index], counts[:, index], written, params) for index in measured
    }
    found: Record = {
        "schema": SCHEMA,
        "asr_id": rows[0].asr_id if rows else "",
        "num_clips": len(rows),
        "min_distance": MIN_DISTANCE,
        "sounds": sounds,
        "classes": _classes(said, counts, written, measured, params),
        "not_measured": {
            said[i]: int(totals[i]) for i in range(len(said)) if totals[i] < MIN_HEARD
        },
        "pairs": pairs[: max(MAX_LISTED, len(blind))],
        "blind": blind,
        "kinds": _kinds(rows, params),
    }
    return found | {"text": say("blind", found, MIN_HEARD)}


def _confusions(
    rows: Sequence[ScoreRow], graphemes: Sequence[str]
) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Count what is written for each sound: sounds, what can be written, counts [clip, S, W]."""
    aligned = [
        _aligned(split_sounds(row.text_norm, graphemes), split_sounds(row.hyp_norm, graphemes))
        for row in rows
    ]
    said = sorted({sound for pairs in aligned for sound, _ in pairs})
    written = sorted({other for pairs in aligned for _, other in pairs})
    counts = np.zeros((len(rows), len(said), len(written)))
    for clip, pairs in enumerate(aligned):
        for sound, other in pairs:
            counts[clip, said.index(sound), written.index(other)] += 1.0
    return said, written, counts


def _aligned(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str, str]]:
    """Pair each sound of the reference with what is written for it."""
    found = []
    for op in Levenshtein.opcodes(reference, hypothesis):
        ours = reference[op.src_start : op.src_end]
        theirs = list(hypothesis[op.dest_start : op.dest_end]) + [LOST] * len(ours)
        found += list(zip(ours, theirs, strict=False))
    return found


def _pairs(
    said: Sequence[str], counts: NDArray[np.float64], measured: Sequence[int], params: SelectParams
) -> list[Record]:
    """Return all pairs of measured sounds, those that are hardest to tell apart first."""
    if len(measured) < 2:
        return []
    num_clips, size = len(counts), counts.shape[1:]
    weights = resample_weights(num_clips, NUM_RESAMPLES, params.seed)
    draws = (weights @ counts.reshape(num_clips, -1)).reshape(NUM_RESAMPLES, *size)
    with np.errstate(invalid="ignore"):
        shares = draws / draws.sum(axis=2, keepdims=True)
    totals = counts.sum(axis=0)
    point = totals / totals.sum(axis=1, keepdims=True)
    found = []
    for first, second in combinations(measured, 2):
        distance = 0.5 * float(np.abs(point[first] - point[second]).sum())
        spread = 0.5 * np.abs(shares[:, first] - shares[:, second]).sum(axis=1)
        count = int(min(totals[first].sum(), totals[second].sum()))
        told = interval(distance, spread, num_clips, count, params.confidence)
        found.append({"sounds": [said[first], said[second]], "told_apart": told.as_dict()})
    return sorted(found, key=lambda pair: (pair["told_apart"]["point"], pair["sounds"]))


def _sound(
    sound: str, counts: NDArray[np.float64], written: Sequence[str], params: SelectParams
) -> Record:
    """Return how often a sound is written as it was said, and what is written otherwise."""
    totals = counts.sum(axis=0)
    others = Counter({w: int(n) for w, n in zip(written, totals, strict=True) if n and w != sound})
    return {
        "class": sound_class(sound),
        "heard": _rate(_right(sound, counts, written), counts.sum(axis=1), params).as_dict(),
        "mostly_as": others.most_common(1)[0][0] if others else None,
    }


def _classes(
    said: Sequence[str],
    counts: NDArray[np.float64],
    written: Sequence[str],
    measured: Sequence[int],
    params: SelectParams,
) -> dict[str, Record]:
    """Return how often the sounds of each class are written as they were said."""
    found = {}
    for name in sorted({sound_class(said[index]) for index in measured}):
        own = [index for index in measured if sound_class(said[index]) == name]
        hits = [_right(said[index], counts[:, index], written) for index in own]
        totals = counts[:, own].sum(axis=(1, 2))
        found[name] = _rate(np.sum(hits, axis=0), totals, params).as_dict()
    return found


def _right(sound: str, counts: NDArray[np.float64], written: Sequence[str]) -> NDArray[np.float64]:
    """Return how often a sound is written as it was said, by clip."""
    return counts[:, written.index(sound)] if sound in written else np.zeros(len(counts))


def _rate(hits: NDArray[np.float64], totals: NDArray[np.float64], params: SelectParams) -> Interval:
    """Return a share with an interval that resamples clips."""
    keys = [str(index) for index in range(len(hits))]
    ratio = ratio_by_text(keys, keys, list(hits), list(totals))
    weights = resample_weights(len(keys), NUM_RESAMPLES, params.seed)
    return rate_interval(ratio, weights, int(totals.sum()), params.confidence)


def _kinds(rows: Sequence[ScoreRow], params: SelectParams) -> dict[str, Record]:
    """Hold recordings against wrong versions of their texts; see `noticed`."""
    vocabulary = sorted({word for row in rows for word in row.text_norm.split()})
    by_kind: dict[str, list[tuple[bool, bool]]] = {kind: [] for kind in KINDS}
    for number, row in enumerate(rows):
        words, heard = row.text_norm.split(), row.hyp_norm.split()
        for item in alterations(words, vocabulary, params.seed + number):
            by_kind[item.kind].append(
                (
                    has_error(item.wrong, heard, item.wrong_span),
                    has_error(words, heard, item.right_span),
                )
            )
    return {kind: noticed(found, params) for kind, found in by_kind.items() if found}


def noticed(found: Sequence[tuple[bool, bool]], params: SelectParams) -> Record:
    """Return how often a wrong text is noticed, and how often a right one is blamed.

    Of each sentence: has the wrong version an error at the place in question, has the right one?
    """
    once = np.ones(len(found))
    wrong, right = np.array(found, float).T
    return {
        "noticed": _rate(wrong, once, params).as_dict(),
        "false_alarm": _rate(right, once, params).as_dict(),
    }


def alterations(words: Sequence[str], vocabulary: Sequence[str], seed: int) -> list[Alteration]:
    """Return one wrong version of a normalised sentence of each kind, at places drawn by the seed.

    A word is replaced by one of the sorted vocabulary.
    """
    if len(words) < 2:
        return []
    words = tuple(words)
    generator = np.random.default_rng(seed)
    found = []
    for kind in KINDS:
        i = int(generator.integers(len(words)))
        word = words[i]
        near = min(
            (other for other in vocabulary if other != word),
            key=lambda other: (Levenshtein.distance(word, other), other),
            default=None,
        )
        new = {
            "dropped": (),
            "doubled": (word, word),
            "replaced": None if near is None else (near,),
            "ending": (word[:-1],) if len(word) > 2 else None,
        }[kind]
        if new is not None:
            wrong = (*words[:i], *new, *words[i + 1 :])
            found.append(Alteration(kind, wrong, (i, i + 1), (i, i + len(new))))
    return found


def swap_sound(words: Sequence[str], graphemes: Sequence[str], seed: int) -> Alteration | None:
    """Replace a sound of a normalised sentence by another of its class; None where none has two."""
    generator = np.random.default_rng(seed)
    sounds = [split_sounds(word, graphemes) for word in words]
    known = sorted({sound for word in sounds for sound in word} | set(graphemes))
    places = [
        (at, i, others)
        for at, word in enumerate(sounds)
        for i, sound in enumerate(word)
        if sound_class(sound) != OTHER
        and (others := [o for o in known if o != sound and sound_class(o) == sound_class(sound)])
    ]
    if not places:
        return None
    at, i, others = places[int(generator.integers(len(places)))]
    new = [*sounds[at][:i], others[int(generator.integers(len(others)))], *sounds[at][i + 1 :]]
    wrong = (*words[:at], "".join(new), *words[at + 1 :])
    return Alteration("swapped", wrong, (at, at + 1), (at, at + 1))


def has_error(reference: Sequence[str], heard: Sequence[str], span: tuple[int, int]) -> bool:
    """Tell whether the words that were heard differ from a text's in a span, or just beside it.

    Words that were heard in addition count where they touch the span.
    """
    start, end = span
    for op in Levenshtein.opcodes(list(reference), list(heard)):
        touches = op.src_start <= end and op.src_end >= start
        overlaps = op.src_start < end and op.src_end > start
        if op.tag != "equal" and (overlaps or (touches and (op.tag == "insert" or start == end))):
            return True
    return False
