"""A long text in passages that are spoken one by one: sentences, and parts of very long ones.

Sentences are found by sentencex, which knows the abbreviations of some 240 languages. What it
separates by mistake is joined again here: a pause in the middle of a sentence is worse than none
between two.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sentencex

from voxadapt.core.problems import user_error
from voxadapt.data.text import is_speakable

MAX_CHARACTERS = 240  # of a passage; wide ones, of which two or three make a word, count as 2.5
MIN_CHARACTERS = 12  # a shorter sentence is spoken with its neighbour: models stumble over a word
WIDE = 2.5
SHORT_LINE = 0.8  # of the longest: a line this short ends a paragraph, if a word would have fitted
Boundary = Literal["clause", "sentence", "paragraph"]

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_OPENING = "\"'“‘«„‚「『（([{¿¡—–―- "
_CLOSING = "\"'”’»“」』"
# What sentencex takes for the last word of a sentence; a name follows.
_TITLES = frozenset("dr mr mrs ms st sr sra dra fr en pn tn av ul ул г-н डॉ".split())
# Where a very long sentence is divided: the first of these that is found near the middle.
_DIVISIONS = (r"(?<=[;:])(?=\s)|(?<=[；：])", r"(?<=[,—–])(?=\s)|(?<=[、，،])", r"(?<=\s)")


@dataclass(frozen=True)
class Passage:
    """What is spoken in one go: one line, and what it ends with."""

    text: str
    boundary: Boundary


def read_text(path: Path) -> str:
    """Read a text file in UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise user_error("tools.no_text_file", path, found=error) from None
    except UnicodeDecodeError as error:
        raise user_error("tools.text_encoding", path, at=error.start) from None


def split_passages(text: str, language: str) -> list[Passage]:
    """Split a text at paragraphs and sentences, and very long sentences at clauses.

    Paragraphs are separated by a blank line, or by a line that ends long before the others do.
    Nothing is lost but what cannot be spoken, such as a row of asterisks. A language that is not
    known is split by its punctuation.
    """
    passages: list[Passage] = []
    for paragraph in _paragraphs(text):
        sentences = _join_short(_sentences(paragraph, language))
        for number, sentence in enumerate(sentences, start=1):
            *parts, last = _divide(sentence)
            passages += [Passage(part, "clause") for part in parts]
            passages.append(Passage(last, "sentence" if number < len(sentences) else "paragraph"))
    return passages


def _paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs on one line each, without what is invisible."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2029", "\n\n")
    text = text.replace("\u2028", "\n").replace("\u00ad", "").replace("\f", "\n\n")
    text = "".join(" " if unicodedata.category(c) == "Cc" and c != "\n" else c for c in text)
    width = max(map(len, text.split("\n")))
    for block in _BLANK_LINE.split(text):
        lines = [" ".join(line.split()) for line in block.split("\n")]
        paragraph = ""
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            paragraph = _joined(paragraph, line)
            next_word = following.split(maxsplit=1)[0][:20] if following else ""
            if len(line) + len(next_word) < SHORT_LINE * width:
                yield paragraph
                paragraph = ""
        yield paragraph


def _joined(before: str, after: str) -> str:
    """Join two texts with a blank, but for scripts that have none."""
    if not before or not after:
        return before or after
    blank = "" if _is_wide(before[-1]) and _is_wide(after[0]) else " "
    return f"{before}{blank}{after}"


def _is_wide(text: str) -> bool:
    return all(unicodedata.east_asian_width(character) in "WF" for character in text)


def _length(text: str) -> float:
    """Return the characters of a text, wide ones for as many letters as they stand for."""
    return sum(WIDE if _is_wide(character) else 1.0 for character in text)


def _sentences(paragraph: str, language: str) -> list[str]:
    """Split a paragraph into sentences; what cannot be spoken stays with a neighbour."""
    sentences: list[str] = []
    for found in sentencex.segment(language, paragraph):
        if sentences and not _begins_sentence(sentences[-1], found):
            sentences[-1] += found
        else:
            sentences.append(found)
    return [sentence.strip() for sentence in sentences if is_speakable(sentence)]


def _begins_sentence(before: str, found: str) -> bool:
    """Whether what sentencex found after a sentence is another one."""
    before, found = before.strip(), found.strip()
    if not is_speakable(found) or not is_speakable(before):
        return False
    first = found.lstrip(_OPENING)[:1]
    quoted = before[-1] in _CLOSING and found[0] not in _OPENING  # "Yes!" John said.
    if first.islower() or quoted:
        return False
    last = before.split()[-1].lstrip(_OPENING)
    if not last.endswith("."):
        return True
    word = last[:-1].casefold()
    is_initial = len(word.split(".")[-1]) == 1 and word[-1].isalpha()
    is_ordinal = word.isdigit() and len(word) <= 2
    is_reference = first.isdigit() and len(word) <= 4  # vol. 2
    return not (word in _TITLES or is_initial or is_ordinal or is_reference)


def _join_short(sentences: list[str]) -> list[str]:
    """Join very short sentences with the next one, or the last with the one before."""
    kept: list[str] = []
    for sentence in sentences:
        fits = kept and _length(kept[-1]) + _length(sentence) <= MAX_CHARACTERS
        if fits and min(_length(kept[-1]), _length(sentence)) < MIN_CHARACTERS:
            kept[-1] = _joined(kept[-1], sentence)
        else:
            kept.append(sentence)
    return kept


def _divide(sentence: str) -> list[str]:
    """Divide a sentence until no part is too long."""
    if _length(sentence) <= MAX_CHARACTERS:
        return [sentence]
    size = len(sentence)
    for pattern in _DIVISIONS:
        places = [match.start() for match in re.finditer(pattern, sentence)]
        places = [place for place in places if size / 4 < place < 3 * size / 4]
        if places:
            break
    else:
        places = [
            place for place in range(size // 2, size)
            if unicodedata.category(sentence[place])[0] != "M"
        ][:1]  # fmt: skip
    place = min(places, key=lambda place: abs(place - size / 2), default=size // 2)
    parts = [sentence[:place].strip(), sentence[place:].strip()]
    return [part for half in parts if is_speakable(half) for part in _divide(half)]
