"""Respelling: a language written so that a reader of another one pronounces it.

A map (YAML, one a language) says what each grapheme reads and what syllables are made of. Words
become syllables joined by a hyphen, as dictionaries print a pronunciation; everything between
words stays. A Base model that knows the other language can then read the text aloud.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.problems import problem, user_error
from voxadapt.core.strict_yaml import read_yaml

_APOSTROPHES = "'\u2018\u2019\u02bc"
_SPOKEN_MARKS = frozenset("%&@#*/\\+=")  # punctuation to Unicode, words to a reader
MAX_SHOWN = 20  # unknown characters and words in one message


class Grapheme(BaseModel):
    """What one letter, or a group of letters, reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    letters: str = Field(min_length=1)  # in lower case
    reads: str  # vowels and consonants of the map with blanks between; empty for a silent letter
    before: str = ""  # regular expression that the rest of the word must begin with
    #: Regular expression that what precedes in the word must end with; a lone ``^`` is the
    #: beginning of the word.
    after: str = ""

    @model_validator(mode="after")
    def _check(self) -> Grapheme:
        if self.letters != self.letters.lower() or not self.letters.strip():
            raise ValueError(f"letters must be in lower case, not {self.letters!r}")
        for name in ("before", "after"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise ValueError(f"{name} must be a regular expression ({error})") from None
        return self

    @cached_property
    def units(self) -> tuple[str, ...]:
        """Vowels and consonants, in order."""
        return tuple(self.reads.split())

    def fits(self, word: str, start: int) -> bool:
        """Say whether the grapheme stands at a place of a word and its conditions hold."""
        end = start + len(self.letters)
        return (
            word.startswith(self.letters, start)
            and self._before.match(word[end:]) is not None
            and self._after.search(word[:start]) is not None
        )

    @cached_property
    def _before(self) -> re.Pattern[str]:
        return re.compile(self.before)

    @cached_property
    def _after(self) -> re.Pattern[str]:
        return re.compile(f"(?:{self.after})$" if self.after else "")


class Respelling(BaseModel):
    """The map of one language."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    language: str = Field(min_length=1)  # whose spelling is read
    reads_as: str = Field(min_length=1)  # whose reader the result is written for
    joiner: str = "-"  # between the syllables of a word
    vowels: list[str] = Field(min_length=1)  # what syllables have in their middle
    consonants: list[str] = Field(min_length=1)  # what may open a syllable
    codas: list[str] = []  # what may close one; several consonants with blanks between
    #: Several consonants that open a word; within a word only where those before could not close a
    #: syllable.
    clusters: list[str] = []
    glides: dict[str, str] = {}  # consonant between a vowel and a vowel that follows at once
    filler: str  # vowel of a consonant that fits into no syllable
    #: The longest that fits is taken, of equals the first.
    graphemes: list[Grapheme] = Field(min_length=1)
    exceptions: dict[str, str] = {}  # whole words in lower case, and how they are respelt

    @model_validator(mode="after")
    def _check(self) -> Respelling:
        vowels, consonants = set(self.vowels), set(self.consonants)
        wrong = []
        if both := sorted(vowels & consonants):
            wrong.append(f"{both[0]!r} is both a vowel and a consonant")
        for grapheme in self.graphemes:
            for unit in grapheme.units:
                if unit not in vowels | consonants:
                    wrong.append(
                        f"{grapheme.letters} reads {unit!r}, which is neither vowel nor consonant"
                    )
        for name in ("codas", "clusters"):
            for entry in getattr(self, name):
                if not entry.split() or set(entry.split()) - consonants:
                    wrong.append(f"{name}: {entry!r} is not made of consonants")
        for vowel, glide in self.glides.items():
            if vowel not in vowels or glide not in consonants:
                wrong.append(f"glides: {vowel}: {glide} must be a vowel and a consonant")
        if self.filler not in vowels:
            wrong.append(f"filler {self.filler!r} is no vowel")
        for word, respelt in self.exceptions.items():
            if self._key(word) != word or not self._word.fullmatch(word):
                wrong.append(f"exceptions: {word!r} must be one word in lower case")
            if not all(self.syllable.fullmatch(part) for part in respelt.split(self.joiner)):
                wrong.append(f"exceptions: {word}: {respelt!r} is not made of the map's syllables")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @cached_property
    def syllable(self) -> re.Pattern[str]:
        """What a syllable looks like: consonant or cluster, vowel, coda."""

        def alternatives(entries: Iterable[str]) -> str:
            joined = {"".join(entry.split()) for entry in entries}
            return "|".join(map(re.escape, sorted(joined, key=lambda text: (-len(text), text))))

        onset = alternatives([*self.consonants, *self.clusters])
        coda = alternatives(self.codas) if self.codas else "(?!)"
        return re.compile(f"(?:{onset})?(?:{alternatives(self.vowels)})(?:{coda})?")

    def respell(self, text: str) -> str:
        """Respell a text word by word.

        Capitals at the beginning of a word stay, and so does everything between words.
        """
        self.check([text])
        return self._word.sub(lambda found: self._respell_word(found[0]), _nfc(text))

    def respell_piece(self, piece: str) -> str:
        """Respell a piece of a text, such as a token, as if its letters were whole words.

        Consonants without a vowel are read as they are, without syllables; what the map does not
        know stays.
        """
        return self._word.sub(
            lambda found: found[0] if self._strange(found[0]) else self._respell_word(found[0]),
            _nfc(piece),
        )

    def sounds(self, text: str) -> list[list[str]]:
        """Return the vowels and consonants that each word of a text reads, glides included."""
        return [self._units(self._key(found[0])) for found in self._word.finditer(_nfc(text))]

    def unknown(self, texts: Iterable[str]) -> Counter[str]:
        """Count what the map cannot respell.

        Returns:
            Characters that would be read aloud and are in no grapheme (letters, digits, symbols
            such as %), and words without a vowel, such as abbreviations.
        """
        found: Counter[str] = Counter()
        for text in map(_nfc, texts):
            for match in self._word.finditer(text):
                word = match[0]
                strange = self._strange(word)
                found.update(strange)
                if not strange and self._key(word) not in self.exceptions:
                    if not set(self._units(self._key(word))) & set(self.vowels):
                        found[word] += 1
            between = self._word.sub(" ", text)
            found.update(
                c for c in between if unicodedata.category(c)[0] in "LNMS" or c in _SPOKEN_MARKS
            )
        return found

    def check(self, texts: Iterable[str], where: str = "language.text") -> None:
        """Refuse texts that the map cannot respell."""
        if unknown := self.unknown(texts):
            names = [f"{_visible(item)} ({count}×)" for item, count in unknown.most_common()]
            found = ", ".join(names[:MAX_SHOWN]) + (" …" if len(names) > MAX_SHOWN else "")
            raise user_error("data.not_respelt", where, language=self.language, found=found)

    def _strange(self, word: str) -> list[str]:
        """Return the letters of a word that no grapheme has."""
        return [c for c in self._key(word) if c not in self._letters]

    def _key(self, word: str) -> str:
        """Return what a word is looked up by: lower case, without apostrophes."""
        silent = set(_APOSTROPHES) - self._letters
        return "".join(c for c in _nfc(word.lower()) if c not in silent)

    @cached_property
    def _word(self) -> re.Pattern[str]:
        """A word: letters and whatever else graphemes are made of; apostrophes inside."""
        letter = rf"(?:[^\W\d_]|[{re.escape(''.join(sorted(self._letters)))}])"
        return re.compile(rf"{letter}+(?:[{_APOSTROPHES}]{letter}+)*")

    @cached_property
    def _letters(self) -> frozenset[str]:
        return frozenset("".join(grapheme.letters for grapheme in self.graphemes))

    @cached_property
    def _known(self) -> dict[str, str]:
        """Words respelt so far."""
        return dict(self.exceptions)

    @cached_property
    def _by_length(self) -> list[Grapheme]:
        return sorted(self.graphemes, key=lambda grapheme: -len(grapheme.letters))

    def _respell_word(self, word: str) -> str:
        key = self._key(word)
        if key not in self._known:
            units = self._units(key)
            if set(units) & set(self.vowels):
                self._known[key] = self.joiner.join(map("".join, self._syllables(units)))
            else:
                self._known[key] = "".join(units)
        respelt = self._known[key]
        return respelt[:1].upper() + respelt[1:] if word[0].isupper() else respelt

    def _units(self, word: str) -> list[str]:
        """Read a word: vowels and consonants, glides included, doubled consonants once."""
        units: list[str] = []
        at = 0
        while at < len(word):
            grapheme = next((g for g in self._by_length if g.fits(word, at)), None)
            at += len(grapheme.letters) if grapheme else 1  # no condition held: silent
            for unit in grapheme.units if grapheme else ():
                if units and unit in self.vowels and units[-1] in self.glides:
                    units.append(self.glides[units[-1]])
                if unit in self.vowels or units[-1:] != [unit]:
                    units.append(unit)
        return units

    def _syllables(self, units: Sequence[str]) -> list[list[str]]:
        """Cut a word with at least one vowel into syllables."""
        syllables: list[list[str]] = []
        run: list[str] = []
        for unit in units:
            if unit not in self.vowels:
                run.append(unit)
                continue
            coda, rest, onset = self._divide(run, at_start=not syllables)
            if syllables:
                syllables[-1] += coda
            syllables += [[consonant, self.filler] for consonant in rest]
            syllables.append([*onset, unit])
            run = []
        coda = self._coda(run)
        syllables[-1] += coda
        syllables += [[consonant, self.filler] for consonant in run[len(coda) :]]
        return syllables

    def _divide(self, run: list[str], *, at_start: bool) -> tuple[list[str], list[str], list[str]]:
        """Divide the consonants before a vowel: what closes, what needs a filler, what opens."""
        if not run:
            return [], [], []
        clusters = sorted(
            (n for n in range(2, len(run) + 1) if " ".join(run[-n:]) in self.clusters),
            reverse=at_start,  # as long as possible there, as short as needed within a word
        )
        if at_start:
            size = clusters[0] if clusters else 1
            return [], run[:-size], run[-size:]
        for size in [1, *clusters]:
            if len(self._coda(run[:-size])) == len(run) - size:
                return run[:-size], [], run[-size:]
        coda = self._coda(run[:-1])
        return coda, run[len(coda) : -1], run[-1:]

    def _coda(self, run: list[str]) -> list[str]:
        """Return as many of the first consonants as may close a syllable."""
        sizes = [n for n in range(1, len(run) + 1) if " ".join(run[:n]) in self.codas]
        return run[: max(sizes, default=0)]


def load_respelling(path: str | Path) -> Respelling:
    """Read a respelling map; raises `UserError` with a problem for each entry that is wrong."""
    path = Path(path)
    wrong: list[Problem] = []
    try:
        return Respelling.model_validate(read_yaml(path))
    except FileNotFoundError:
        wrong.append(problem("data.no_map", path))
    except ValidationError as error:
        wrong += [_problem(path, item) for item in error.errors()]
    except (OSError, ValueError) as error:
        wrong.append(problem("data.unreadable_map", path, error=error))
    raise UserError(wrong, f"{path} cannot be used as a respelling map.")


def _problem(path: Path, item: ErrorDetails) -> Problem:
    """Turn one pydantic error into a problem that names the entry."""
    name = ".".join(map(str, item["loc"]))
    where = f"{path.name}: {name}" if name else path.name
    if item["type"] == "extra_forbidden":
        return problem("data.map_key", where)
    if item["type"] == "missing":
        return problem("data.map_value", where)
    found = item["msg"].removeprefix("Value error, ")
    if not item["loc"] and item["type"] != "value_error":
        return problem("data.not_a_map", where, found=repr(item["input"])[:60])
    if item["type"] == "value_error":
        return problem("data.map_disagrees", where, found=found)
    return problem("data.map_entry", where, expected=found, found=repr(item.get("input"))[:80])


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _visible(item: str) -> str:
    """Show an unknown character or word."""
    if len(item) > 1 or unicodedata.category(item)[0] != "L":
        return item if item.isprintable() and item.strip() else f"U+{ord(item[0]):04X}"
    return f"{item} U+{ord(item):04X}"
