"""Script-safe text normaliser of every error rate, with an id that is kept in every score row.

The same code runs on the reference and on the transcript: NFKC, casefold, punctuation and symbols
out, combining marks (category M) kept, so that Thai, Hindi or Vietnamese stay what they are.
Numbers are left as they are written; no word segmenter stands behind a ranked number.
"""

from __future__ import annotations

import unicodedata
from typing import Final, Literal

from voxadapt.provenance import fingerprint

# Everything that decides the output is data here and enters the id.
RULES: Final = {
    "version": 1,
    "form": "NFKC",
    "case": "casefold",
    # Between two letters these vanish (don't -> dont); any other punctuation becomes a space.
    "joiners": "'\u2018\u2019\u02bc\uff07`\u00b4",
    "to_space": ["P", "S", "Z", "Cc"],
    "dropped": ["Cf"],
    "dropped_range": [0xFE00, 0xFE0F],  # variation selectors
    "unspaced_languages": ["ja", "km", "lo", "my", "th", "yue", "zh"],
    "unspaced_ranges": [
        [0x0E00, 0x0EFF],  # Thai, Lao
        [0x1000, 0x109F],  # Myanmar
        [0x1780, 0x17FF],  # Khmer
        [0x3040, 0x30FF],  # Hiragana, Katakana
        [0x3400, 0x4DBF],  # Han
        [0x4E00, 0x9FFF],
        [0x20000, 0x3FFFF],
    ],
    "characters": "code points without spaces",
}
NORM_ID: Final = f"voxadapt-norm/{RULES['version']}+{fingerprint(RULES, 8)}"

_JOINERS: Final = frozenset(str(RULES["joiners"]))
_TO_SPACE: Final = ("P", "S", "Z", "Cc")
_UNSPACED: Final = tuple((low, high) for low, high in RULES["unspaced_ranges"])  # type: ignore


def normalise(text: str) -> str:
    """Normalise a reference or a transcript for comparison.

    Args:
        text: Any text.

    Returns:
        Words separated by single spaces. Applying it again changes nothing. Empty only when the
        text has no letter, digit or mark.
    """
    previous = None
    while text != previous:  # dropping a character can let its neighbours compose
        previous = text
        text = _one_pass(text)
    return text


def _one_pass(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    text = unicodedata.normalize("NFKC", text)
    kept: list[str] = []
    for position, character in enumerate(text):
        category = unicodedata.category(character)
        if character in _JOINERS:
            inside = 0 < position < len(text) - 1 and (
                _is_word(text[position - 1]) and _is_word(text[position + 1])
            )
            kept.append("" if inside else " ")
        elif category == "Cf" or 0xFE00 <= ord(character) <= 0xFE0F:
            continue
        elif category[0] in _TO_SPACE or category in _TO_SPACE or character.isspace():
            kept.append(" ")
        else:
            kept.append(character)
    return " ".join("".join(kept).split())


def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def characters(normalised: str) -> str:
    """Drop the spaces, so that character errors do not depend on word separation."""
    return "".join(normalised.split())


def is_unspaced(text: str) -> bool:
    """Tell whether most letters belong to a script written without spaces between words."""
    letters = [c for c in text if unicodedata.category(c)[0] == "L"]
    unspaced = sum(any(low <= ord(c) <= high for low, high in _UNSPACED) for c in letters)
    return 2 * unspaced > len(letters)


def metric_for(language: str | None, texts: list[str]) -> Literal["wer", "cer"]:
    """Name the error rate that means something for a language: WER where words are spaced.

    Args:
        language: Whisper's code, or None to decide by the texts' script alone.
        texts: References.
    """
    if language in RULES["unspaced_languages"]:  # type: ignore[operator]
        return "cer"
    return "cer" if is_unspaced(" ".join(texts)) else "wer"
