"""What to record first: sentences that hold every sound of a language soonest.

The measure is of *sounds* and of *pairs* of neighbouring sounds within a word, whose edges count as
neighbours. A sound is a vowel or consonant of the respelling map where there is a complete one, and
a letter with its marks otherwise. One after another, the sentence is taken that brings most per
letter: each sound or pair counts one over the number of sentences that hold it, so that the rare
ones decide, and half of that each time that it has been taken.
"""

import heapq
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from voxadapt.core.files import write_atomic, write_csv
from voxadapt.data.respelling import Respelling
from voxadapt.data.text import fold_text, has_digit, has_markup, num_spoken_characters

PAGE = 20  # sentences that are read in one recording
READABLE_LETTERS = (12, 100)  # about 1 to 8 s of speech
EDGE = "·"  # the edge of a word
COVERAGE = "coverage.csv"
HEAD = Path(__file__).parent / "templates" / "script.txt"  # of a page

Sounds = Callable[[str], list[list[str]]]


@dataclass(frozen=True, slots=True)
class Choice:
    """A sentence of the recording script."""

    text: str  # the sentence
    brings: tuple[str, ...]  # sounds and pairs that no sentence before it holds, the rarest first
    covered: float  # share of all sounds and pairs that have occurred by now


@dataclass(frozen=True, slots=True)
class Coverage:
    """A recording script and how far it goes."""

    choices: tuple[Choice, ...]  # sentences in the order in which they are to be read
    num_units: int  # sounds and pairs of all texts that can be read
    num_covered: int  # those that the script holds
    unit: str  # what a sound is: `sounds of the map` or `letters`

    def after(self, count: int) -> float:
        """Return the share of sounds and pairs that the first `count` sentences hold."""
        return self.choices[min(count, len(self.choices)) - 1].covered if self.choices else 0.0


def letters(text: str) -> list[list[str]]:
    """Return the letters of each word of a folded text; marks stay with their letter."""
    words = []
    for word in fold_text(text).split():
        units: list[str] = []
        for character in unicodedata.normalize("NFC", word):
            if unicodedata.category(character)[0] == "M" and units:
                units[-1] += character
            else:
                units.append(character)
        words.append(units)
    return words


def sounds_of(texts: Sequence[str], respelling: Respelling | None) -> tuple[Sounds, str]:
    """Return what divides a text into sounds, and what these are called."""
    if respelling is not None and not respelling.unknown(texts):
        return respelling.sounds, "sounds of the map"
    return letters, "letters"


def units(text: str, sounds: Sounds) -> frozenset[str]:
    """Return the sounds of a text, and the pairs of neighbours with a hyphen between."""
    found: set[str] = set()
    for word in sounds(text):
        around = [EDGE, *word, EDGE]
        found |= set(word)
        found |= {f"{a}-{b}" for a, b in pairwise(around)}
    return frozenset(found)


def is_readable(text: str) -> bool:
    """Say whether a sentence can be read aloud from a script: of middle length, in words."""
    low, high = READABLE_LETTERS
    return low <= num_spoken_characters(text) <= high and not (has_digit(text) or has_markup(text))


def choose(
    texts: Sequence[str],
    count: int,
    sounds: Sounds,
    unit: str = "letters",
    first: Sequence[str] = (),
) -> Coverage:
    """Choose sentences that cover the rarest sounds and pairs first."""
    unique = {fold_text(text): text for text in first}
    for text in texts:
        if is_readable(text):
            unique.setdefault(fold_text(text), text)
    pool, num_first = list(unique.values()), len({fold_text(text) for text in first})
    held = [units(text, sounds) for text in pool]
    num_with = Counter(unit for found in held for unit in found)
    taken: Counter[str] = Counter()
    choices: list[Choice] = []

    def gain(number: int) -> float:
        brought = sum(0.5 ** taken[u] / num_with[u] for u in sorted(held[number]))
        return brought / max(1, num_spoken_characters(pool[number]))

    def take(number: int) -> None:
        new = sorted((u for u in held[number] if not taken[u]), key=lambda u: (num_with[u], u))
        taken.update(held[number])
        choices.append(Choice(pool[number], tuple(new), len(taken) / len(num_with)))

    for number in range(num_first):
        take(number)
    # Gains only fall as sentences are taken: one that still leads after a new look is the best.
    heap = [(-gain(number), number) for number in range(num_first, len(pool))]
    heapq.heapify(heap)
    while heap and len(choices) < count:
        _, number = heapq.heappop(heap)
        now = (-gain(number), number)
        if heap and now > heap[0]:
            heapq.heappush(heap, now)
        else:
            take(number)
    return Coverage(tuple(choices), len(num_with), len(taken), unit)


def share_held(texts: Sequence[str], count: int, sounds: Sounds) -> float:
    """Return the share of sounds and pairs that the first readable sentences of a file hold."""
    held = [units(text, sounds) for text in texts if is_readable(text)]
    return len(frozenset().union(*held[:count])) / len(frozenset().union(*held))


def scripted(folder: Path, read: Callable[[Path], list[str]]) -> list[str]:
    """Return the sentences of the pages that were written before, in order."""
    return [line for path in sorted(folder.glob("script-*.txt")) for line in read(path)]


def write_script(folder: Path, coverage: Coverage, num_before: int) -> int:
    """Write pages for the sentences that no page holds yet, and the table of what each brings."""
    pages = len(list(folder.glob("script-*.txt")))
    new = coverage.choices[num_before:]
    for start in range(0, len(new), PAGE):
        pages += 1
        part = [choice.text for choice in new[start : start + PAGE]]
        stem = f"script-{pages:02d}"
        minutes = sum(num_spoken_characters(text) / 13.0 + 1.5 for text in part) / 60.0
        head = HEAD.read_text(encoding="utf-8").format(stem=stem, count=len(part), minutes=minutes)
        write_atomic(folder / f"{stem}.txt", head + "\n" + "\n".join(part) + "\n")
    rows = [
        (number, choice.text, f"{100 * choice.covered:.1f}", " ".join(choice.brings))
        for number, choice in enumerate(coverage.choices, start=1)
    ]
    write_csv(folder / COVERAGE, [("number", "sentence", "covered_percent", "brings"), *rows])
    return pages
