"""The form in which a text and its transcript are compared, with an id kept in every score row.

The same rules serve both sides. Code points: `letters`. What is heard but not said (`[laughter]`)
is dropped. Numbers, abbreviations and spellings are read by the rules of the language
(`readings`, `languages/*.yaml`), and where several readings are right, the transcript is given the
one that the text has (`compare`). No word segmenter stands behind a ranked number. Chinese is
simplified by OpenCC; Japanese words are known by their kana where Sudachi is installed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import cached_property
from importlib import metadata, util
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from voxadapt.asr import compare, letters, readings
from voxadapt.asr.languages import SIGNS, rules_id
from voxadapt.asr.letters import CHINESE_LANGUAGES, CONVERSION, is_unspaced_letter, plain
from voxadapt.core.problems import user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.core.strict_yaml import read_yaml

# Everything that decides the output is data and enters the id.
VERSION: Final = 4
UNSPACED_LANGUAGES: Final = ("ja", "km", "lo", "my", "th", "yue", "zh")
RULES: Final = {
    "version": VERSION,
    "form": "NFKC",
    "case": "casefold",
    "joiners": letters.JOINERS,
    "hebrew_joiners": letters.HEBREW_JOINERS,
    "to_space": letters.TO_SPACE,
    "dropped": ("Cf", letters.DROPPED),
    "replaced": letters.REPLACED,
    "by_language": letters.BY_LANGUAGE,
    "digits": "ASCII",
    "turkic": (letters.TURKIC_LANGUAGES, letters.TURKIC_LETTERS),
    "chinese": (CHINESE_LANGUAGES, CONVERSION),
    "unspaced_languages": UNSPACED_LANGUAGES,
    "unspaced_ranges": letters.UNSPACED,
    "events": SIGNS.events,
    "spacing": (compare.SPACING_LANGUAGES, compare.MIN_JOINED, compare.MAX_JOINED),
    "characters": "code points without spaces",
    "words": "characters in unspaced scripts",
}
NORM_ID: Final = f"voxadapt-norm/{VERSION}+{fingerprint(RULES, 8)}"


def norm_id(lang: str | None, own: Substitutions | None = None) -> str:
    """Name the normaliser for a language: rules, data, libraries and the user's substitutions."""
    name = NORM_ID
    if lang is not None:
        name += f"/{lang}-{rules_id(lang)}"
    if lang in CHINESE_LANGUAGES:
        name += f"/opencc-{metadata.version('opencc')}-{CONVERSION}"
    if lang == "ja" and util.find_spec("sudachipy") is not None:
        name += f"/sudachi-{metadata.version('sudachidict-small')}"
    if own is not None and (own.words or own.letters):
        name += f"/own-{own.id}"
    return name


class Substitutions(BaseModel):
    """What a user's corpus writes in several ways and means as one: `asr.substitutions`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: What stands in a text or transcript, and what to read instead; whole words.
    words: dict[str, str] = {}
    #: Characters, and what to read instead, such as Arabic hamza: `{أ: ا}`.
    letters: dict[str, str] = {}

    @classmethod
    def read(cls, path: str | Path | None) -> Substitutions:
        """Read a YAML file; None: nothing is replaced.

        Raises:
            UserError: When it cannot be read, or holds something else.
        """
        if path is None:
            return cls()
        try:
            return cls.model_validate(read_yaml(path) or {})
        except (OSError, ValueError) as error:
            raise user_error("asr.no_substitutions", path, error=error) from None

    @cached_property
    def id(self) -> str:
        """Hash of the table."""
        return fingerprint(self.model_dump(), 8)

    def pairs(self, lang: str | None) -> tuple[tuple[str, str], ...]:
        """Return the words, both sides normalised."""
        found = {plain(key, lang): plain(value, lang) for key, value in self.words.items()}
        return tuple((key, value) for key, value in found.items() if key and key != value)

    def apply_letters(self, text: str) -> str:
        """Replace characters, in one pass."""
        table: Mapping[str, str] = self.letters
        if not table:
            return text
        return "".join(table.get(c, c) for c in unicodedata.normalize("NFC", text))


NOTHING: Final = Substitutions()


def _reading(text: str, lang: str | None, own: Substitutions) -> readings.Reading:
    text = own.apply_letters(text)
    return readings.read(text, lang, own.pairs(lang))


def _reference(text: str, lang: str | None, own: Substitutions) -> readings.Reading:
    found = _reading(readings.without_events(text), lang, own)
    return found if found.text else _reading(text, lang, own)


def normalise(text: str, lang: str | None = None, own: Substitutions = NOTHING) -> str:
    """Normalise a text for comparison: its words as they are said by default, with single spaces.

    Without `lang`, Whisper's code, digits and spellings stay as written. Applying it again changes
    nothing. Empty only when the text has no letter, digit or mark that is kept.
    """
    return _reference(text, lang, own).text


def normalise_pair(
    reference: str, transcript: str, lang: str | None = None, own: Substitutions = NOTHING
) -> tuple[str, str]:
    """Normalise a text and what was heard of it, which is written in the text's own way.

    Returns:
        `normalise(reference)`, and the transcript in the reading with the fewest edits from it.
        Where both may be said in the same way, they are equal.
    """
    expected = _reference(reference, lang, own)
    heard = _reading(readings.without_events(transcript), lang, own)
    return expected.text, compare.heard_as(expected, heard)


def characters(normalised: str) -> str:
    """Drop the spaces, so that character errors do not depend on word separation."""
    return "".join(normalised.split())


def is_unspaced(text: str) -> bool:
    """Tell whether most letters belong to a script written without spaces between words."""
    found = [c for c in text if unicodedata.category(c)[0] == "L"]
    return 2 * sum(map(is_unspaced_letter, found)) > len(found)


def metric_for(language: str | None, texts: list[str]) -> Literal["wer", "cer"]:
    """Name the error rate that means something for a language: WER where words are spaced."""
    if language in UNSPACED_LANGUAGES:
        return "cer"
    return "cer" if is_unspaced(" ".join(texts)) else "wer"
