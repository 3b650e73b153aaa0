"""A respelling map to fill in: what the texts are written with, how often, and where."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from voxadapt.core.templating import new_environment
from voxadapt.data.respelling import Respelling
from voxadapt.prepare.recording_script import letters

FILL_IN = "?"  # no map accepts it, so a letter that was forgotten is named
MAX_PAIRS = 12
MIN_PAIR = 3  # different words; below that a pair says nothing
PAIR_TOGETHER = 2.0  # times as often as its letters would meet by chance

TEMPLATES = new_environment(
    Path(__file__).parent / "templates", autoescape=False, lstrip_blocks=False,
    keep_trailing_newline=True,
)  # fmt: skip
#: Writes a string as YAML reads it, whatever it is (such as "no").
TEMPLATES.filters["quoted"] = partial(json.dumps, ensure_ascii=False)


def respelling_template(language: str, texts: Sequence[str], reader: Respelling) -> str:
    """Write a map for a language, with a line for each letter that its texts are written with."""
    words = [units for text in texts for units in letters(text)]
    counts = Counter(unit for units in words for unit in units)
    examples: dict[str, dict[str, None]] = {}
    for units in words:
        for unit in units:
            examples.setdefault(unit, {})["".join(units)] = None
    return TEMPLATES.get_template("respelling.yaml.j2").render(
        language=language,
        reader=reader,
        fill=FILL_IN,
        num_texts=len(texts),
        num_words=len({"".join(units) for units in words}),
        units=[(unit, n, ", ".join([*examples[unit]][:3])) for unit, n in sorted(counts.items())],
        pairs=frequent_pairs(words),
    )


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
