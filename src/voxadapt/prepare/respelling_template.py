"""A respelling map to fill in: what the texts are written with, how often, and where."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from voxadapt.data.respelling import Respelling
from voxadapt.prepare.recording_script import letters

FILL_IN = "?"  # no map accepts it, so a letter that was forgotten is named
MAX_PAIRS = 12
MIN_PAIR = 3  # different words; below that a pair says nothing
PAIR_TOGETHER = 2.0  # times as often as its letters would meet by chance

HEAD = """\
# {language}, written so that a reader of {reads_as} pronounces it.
# Fill in every `reads: "{fill}"` with the vowels and consonants below that such a reader would say,
# blanks between, as in `reads: "k s"`; `reads: ""` is a silent letter. Until then the map is
# refused, letter by letter.
# profiles/respelling/malay.yaml is a finished one: it shows conditions (`before`, `after`), groups
# of letters such as "ng", and exceptions. A group wins over its letters.
#
# Counted in {num_texts} texts: {num_letters} letters and groups, {num_words} words.
language: {name}
reads_as: {reads_as}
joiner: "-"

# What a reader of {reads_as} has: take what you need.
vowels: [{vowels}]
consonants: [{consonants}]
codas: [{codas}]
clusters: [{clusters}]
glides: {{{glides}}}
filler: {filler}

graphemes:
"""


def respelling_template(language: str, texts: Sequence[str], reader: Respelling) -> str:
    """Write a map for a language, with a line for each letter that its texts are written with."""
    words = [units for text in texts for units in letters(text)]
    counts = Counter(unit for units in words for unit in units)
    examples: dict[str, list[str]] = {}
    for units in words:
        for unit in units:
            known = examples.setdefault(unit, [])
            if (word := "".join(units)) not in known and len(known) < 3:
                known.append(word)
    head = HEAD.format(
        language=language,
        name=_quoted(language),
        reads_as=reader.reads_as,
        fill=FILL_IN,
        num_texts=len(texts),
        num_letters=len(counts),
        num_words=len({"".join(units) for units in words}),
        vowels=", ".join(reader.vowels),
        consonants=", ".join(reader.consonants),
        codas=", ".join(reader.codas),
        clusters=", ".join(reader.clusters),
        glides=", ".join(f"{vowel}: {glide}" for vowel, glide in reader.glides.items()),
        filler=reader.filler,
    )
    lines = [
        f"  - {{letters: {_quoted(unit)}, reads: {_quoted(FILL_IN)}}}"
        f" # {count} times: {', '.join(examples[unit])}"
        for unit, count in sorted(counts.items())
    ]
    lines += ["", "  # These meet more often than by chance. Where two letters are one sound, take"]
    lines += ["  # away the # and fill it in."]
    lines += [
        f"  # - {{letters: {_quoted(pair)}, reads: {_quoted(FILL_IN)}}} # in {count} words: {some}"
        for pair, count, some in frequent_pairs(words)
    ]
    lines += [
        "",
        "# Whole words, in lower case, that the letters would make wrong.",
        "exceptions: {}",
    ]
    return head + "\n".join(lines) + "\n"


def frequent_pairs(words: Iterable[Sequence[str]]) -> list[tuple[str, int, str]]:
    """Return pairs of letters that meet more often than by chance: pair, count, examples.

    Counted in different words, so that one frequent word decides nothing.
    """
    known = sorted({tuple(units) for units in words})
    singles = Counter(unit for units in known for unit in units)
    found: dict[tuple[str, str], list[str]] = {}
    num_pairs = 0
    for units in known:
        num_pairs += len(units) - 1
        for pair in sorted(set(pairwise(units))):
            found.setdefault(pair, []).append("".join(units))
    ranked = []
    for (first, second), examples in found.items():
        by_chance = singles[first] * singles[second] / singles.total() ** 2 * num_pairs
        if len(examples) >= MIN_PAIR and len(examples) / by_chance >= PAIR_TOGETHER:
            ranked.append((-len(examples), first + second, examples[:3]))
    ranked.sort()
    return [(pair, -count, ", ".join(some)) for count, pair, some in ranked[:MAX_PAIRS]]


def _quoted(text: str) -> str:
    """Write a string as YAML reads it, whatever it is (such as "no")."""
    return json.dumps(text, ensure_ascii=False)
