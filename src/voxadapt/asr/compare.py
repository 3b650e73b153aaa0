"""A transcript held against a text: where both may mean the same, the text's own words stand.

The text keeps its default reading, so that its length does not depend on what was heard. Every
place of it that has other readings accepts them whole; of the transcript's readings those are
taken that leave the fewest edits. What is written differently and may be the same sound is thus no
error, whichever side a digit, an abbreviation or a hyphen stands on.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from voxadapt.asr.letters import joined
from voxadapt.asr.readings import Reading

EDIT = 1000  # of a unit; characters decide between readings of equally many units
SPACING_LANGUAGES = ("ko",)  # whose blanks are written or not, also around a single letter
MIN_JOINED = 2  # letters of a word that may be written apart: `website`, but not `us` for `u s`
MAX_JOINED = 4  # words of a text that may be written as one


Way = tuple[int, tuple[str, ...]]  # of reading a place: where it ends, and its units


@dataclass(slots=True)
class _Graph:
    """Every way through a transcript: edges (unit, next node) by node, in topological order."""

    edges: list[list[tuple[str, int]]]

    def ends(self, node: int, words: tuple[str, ...]) -> Iterator[int]:
        """Yield the nodes where reading exactly these units from a node can end."""
        if not words:
            yield node
            return
        for unit, after in self.edges[node]:
            if not unit:
                yield from self.ends(after, words)
            elif unit == words[0]:
                yield from self.ends(after, words[1:])

    def ends_of_letters(self, node: int, letters: str, least: int) -> Iterator[int]:
        """Yield the nodes where reading exactly these letters, in words of `least`, can end."""
        if not letters:
            yield node
            return
        for unit, after in self.edges[node]:
            if letters.startswith(unit) and (not unit or len(unit) >= least):
                yield from self.ends_of_letters(after, letters[len(unit) :], least)


def _graph(heard: Reading) -> _Graph:
    edges: list[list[tuple[str, int]]] = [[]]
    node = 0
    for slot in heard.slots:
        last: list[tuple[int, str]] = []  # edges into the slot's end
        branches: dict[tuple[int, str], int] = {}
        for reading in slot.readings:
            at = node
            for unit in reading[:-1]:
                if (at, unit) not in branches:
                    edges.append([])
                    branches[at, unit] = len(edges) - 1
                    edges[at].append((unit, len(edges) - 1))
                at = branches[at, unit]
            last.append((at, reading[-1] if reading else ""))
        edges.append([])
        node = len(edges) - 1
        for at, unit in last:
            edges[at].append((unit, node))
    return _Graph(edges)


def _joined(words: list[str]) -> dict[str, set[tuple[int, ...]]]:
    """Map what neighbouring words are as one to the lengths of the words that it is made of."""
    found: dict[str, set[tuple[int, ...]]] = {}
    for start in range(len(words)):
        for end in range(start + 1, min(start + MAX_JOINED, len(words)) + 1):
            if len(words[end - 1]) < MIN_JOINED:
                break
            part = words[start:end]
            found.setdefault("".join(part), set()).add(tuple(map(len, part)))
    return found


def _with_neighbours(jumps: list[list[Way]], at: int, expected: list[str], least: int) -> list[Way]:
    """Return a place's readings, also with the words about them, which may be written as one."""
    found = list(jumps[at])
    for after, reading in jumps[at]:
        if all(len(word) >= least for word in reading):
            for stop in range(after + 1, min(after + MAX_JOINED, len(expected) + 1)):
                if len(expected[stop - 1]) < least:
                    break
                found.append((stop, (*reading, *expected[after:stop])))
    if least == 1 and at < len(expected):
        found += [(after, (expected[at], *reading)) for after, reading in jumps[at + 1]]
    return found


def heard_as(reference: Reading, heard: Reading) -> str:
    """Write a transcript in the words of a text, where they may mean the same."""
    if reference.text == heard.text:
        return heard.text
    expected = reference.units
    least = 1 if reference.language in SPACING_LANGUAGES else MIN_JOINED
    if least > 1 and not (reference.has_choice or heard.has_choice):
        ours, theirs = _joined(expected), _joined(heard.units)
        if all(len(ours[word] | theirs[word]) == 1 for word in ours.keys() & theirs.keys()):
            return heard.text
    graph = _graph(heard)
    jumps: list[list[Way]] = [[] for _ in range(len(expected) + 1)]
    position = 0
    for slot in reference.slots:
        after = position + len(slot.readings[0])
        jumps[position] += [(after, reading) for reading in slot.readings[1:]]
        position = after
    ways = [_with_neighbours(jumps, at, expected, least) for at in range(len(jumps))]
    # cost, and the step that led there: (position, node, units that the transcript shows)
    Step = tuple[int, int, tuple[str, ...]]
    best: list[dict[int, tuple[int, Step | None]]] = [{} for _ in range(len(expected) + 1)]
    best[0][0] = (0, None)

    def reach(at: int, node: int, cost: int, step: Step) -> None:
        known = best[at].get(node)
        if known is None or cost < known[0]:
            best[at][node] = (cost, step)

    for at in range(len(expected) + 1):
        for node in range(len(graph.edges)):
            if node not in best[at]:
                continue
            cost = best[at][node][0]
            for after, reading in ways[at]:
                found = (
                    graph.ends_of_letters(node, "".join(reading), least)
                    if all(len(word) >= least for word in reading)
                    else graph.ends(node, reading)
                )
                for end in found:
                    if (after, end) != (at, node):
                        reach(after, end, cost, (at, node, tuple(expected[at:after])))
            for after in range(at + 1, min(at + MAX_JOINED, len(expected)) + 1):
                if len(expected[after - 1]) < least:
                    break
                for end in graph.ends_of_letters(node, "".join(expected[at:after]), least):
                    reach(after, end, cost, (at, node, tuple(expected[at:after])))
            if at < len(expected):
                reach(at + 1, node, cost + EDIT + len(expected[at]), (at, node, ()))
            for unit, end in graph.edges[node]:
                shown = (unit,) if unit else ()
                reach(at, end, cost + (EDIT + len(unit) if unit else 0), (at, node, shown))
                if at < len(expected) and unit:
                    same = unit == expected[at]
                    edit = 0 if same else EDIT + Levenshtein.distance(unit, expected[at])
                    reach(at + 1, end, cost + edit, (at, node, shown))
    units: list[str] = []
    at, node = len(expected), len(graph.edges) - 1
    while (step := best[at][node][1]) is not None:
        at, node = step[0], step[1]
        units[:0] = step[2]
    return joined(units)
