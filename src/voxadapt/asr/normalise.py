"""Script-safe text normaliser of every error rate, with an id that is kept in every score row.

The same code runs on the reference and on the transcript: NFKC, casefold, punctuation and symbols
out, combining marks (category M) kept, so that Thai, Hindi or Vietnamese stay what they are. What
a script may write or leave out at will vanishes on both sides: Arabic and Persian vowel points
and tatweel, Hebrew points and accents, the dots of the Russian ё. Letters are never merged
otherwise. Digits of every script become ASCII digits; how a number is read is not guessed, and
sentences with digits are ranked nowhere (`scoring.rows.slice_of`). No word segmenter stands behind
a ranked number.

Two languages need to be known: Turkish and Azerbaijani, whose I is not the i of others, and
Chinese, of which Whisper writes either form: traditional characters become simplified ones, by
OpenCC, in `zh` and `yue` alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache
from importlib import metadata
from typing import Final, Literal

from voxadapt.core.provenance import fingerprint

# Everything that decides the output is data here and enters the id.
VERSION: Final = 2
# Between two letters these vanish (don't -> dont); any other punctuation becomes a space.
JOINERS: Final = "'\u2018\u2019\u02bc\uff07`\u00b4\u05f3\u05f4"
HEBREW_JOINERS: Final = '"'  # stands for the gershayim of an abbreviation, between Hebrew letters
TO_SPACE: Final = ("P", "S", "Z", "Cc")
DROPPED: Final = (
    (0x0640, 0x0640),  # tatweel
    (0x0610, 0x061A), (0x064B, 0x0652), (0x0656, 0x065F), (0x0670, 0x0670),  # Arabic points; not
    (0x06D6, 0x06DC), (0x06DF, 0x06E4), (0x06E7, 0x06E8), (0x06EA, 0x06ED),  # hamza or madda
    (0x0591, 0x05BD), (0x05BF, 0x05BF), (0x05C1, 0x05C2), (0x05C4, 0x05C5), (0x05C7, 0x05C7),
    (0xFE00, 0xFE0F), (0xE0100, 0xE01EF),  # variation selectors
)  # fmt: skip
REPLACED: Final = {"i\u0307": "i", "\u0451": "\u0435"}  # casefold's İ; ё is written or not
TURKIC_LANGUAGES: Final = ("az", "tr")
TURKIC_LETTERS: Final = {"I": "\u0131", "\u0130": "i"}
CHINESE_LANGUAGES: Final = ("yue", "zh")
CONVERSION: Final = "t2s"
UNSPACED_LANGUAGES: Final = ("ja", "km", "lo", "my", "th", "yue", "zh")
UNSPACED: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0x20000, 0x3FFFF),
)
RULES: Final = {
    "version": VERSION,
    "form": "NFKC",
    "case": "casefold",
    "joiners": JOINERS,
    "hebrew_joiners": HEBREW_JOINERS,
    "to_space": TO_SPACE,
    "dropped": ("Cf", DROPPED),
    "replaced": REPLACED,
    "digits": "ASCII",
    "turkic": (TURKIC_LANGUAGES, TURKIC_LETTERS),
    "chinese": (CHINESE_LANGUAGES, CONVERSION),
    "unspaced_languages": UNSPACED_LANGUAGES,
    "unspaced_ranges": UNSPACED,
    "characters": "code points without spaces",
}
NORM_ID: Final = f"voxadapt-norm/{VERSION}+{fingerprint(RULES, 8)}"


def norm_id(lang: str | None) -> str:
    """Name the normaliser for a language: rules and, for Chinese, the converter's version."""
    if lang in CHINESE_LANGUAGES:
        return f"{NORM_ID}/opencc-{metadata.version('opencc')}-{CONVERSION}"
    return NORM_ID


def normalise(text: str, lang: str | None = None) -> str:
    """Normalise a reference or a transcript for comparison.

    Args:
        text: Any text.
        lang: Whisper's code of its language; only tr, az, zh and yue make a difference.

    Returns:
        Words separated by single spaces. Applying it again changes nothing. Empty only when the
        text has no letter, digit or mark that is kept.
    """
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate is no text, and no converter takes it
        text = text.encode("utf-8", "replace").decode()
    if lang in TURKIC_LANGUAGES:
        text = unicodedata.normalize("NFKC", text)
        for capital, small in TURKIC_LETTERS.items():
            text = text.replace(capital, small)
    convert = _simplifier() if lang in CHINESE_LANGUAGES else None
    previous = None
    while text != previous:  # dropping a character can let its neighbours compose
        previous = text
        text = _one_pass(text, convert)
    return text


def _one_pass(text: str, convert: Callable[[str], str] | None) -> str:
    # NFKC would make a blank with a mark of an accent that stands alone.
    text = "".join(
        c if unicodedata.category(c) != "Sk" else "'" if c in JOINERS else " "
        for c in unicodedata.normalize("NFC", text)
    )
    text = unicodedata.normalize("NFKC", text).casefold()
    text = unicodedata.normalize("NFKC", text)
    for found, instead in REPLACED.items():
        text = text.replace(found, instead)
    if convert is not None:
        text = convert(text)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" and not _within(c, DROPPED))
    kept: list[str] = []
    for position, character in enumerate(text):
        category = unicodedata.category(character)
        if character in JOINERS or character in HEBREW_JOINERS:
            before, after = text[:position][-1:], text[position + 1 : position + 2]
            kept.append("" if _joins(character, before, after) else " ")
        elif category[0] in TO_SPACE or category in TO_SPACE or character.isspace():
            kept.append(" ")
        elif category == "Nd":
            kept.append(str(unicodedata.decimal(character)))
        else:
            kept.append(character)
    return " ".join("".join(kept).split())


def _joins(joiner: str, before: str, after: str) -> bool:
    """Tell whether an apostrophe stands inside a word."""
    if joiner in HEBREW_JOINERS:
        return all("\u05d0" <= side <= "\u05ea" for side in (before, after))
    return all(side and unicodedata.category(side)[0] in "LMN" for side in (before, after))


def _within(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= ord(character) <= high for low, high in ranges)


@cache
def _simplifier() -> Callable[[str], str]:
    import opencc  # needed for Chinese alone

    convert: Callable[[str], str] = opencc.OpenCC(CONVERSION).convert
    return convert


def characters(normalised: str) -> str:
    """Drop the spaces, so that character errors do not depend on word separation."""
    return "".join(normalised.split())


def is_unspaced(text: str) -> bool:
    """Tell whether most letters belong to a script written without spaces between words."""
    letters = [c for c in text if unicodedata.category(c)[0] == "L"]
    return 2 * sum(_within(c, UNSPACED) for c in letters) > len(letters)


def metric_for(language: str | None, texts: list[str]) -> Literal["wer", "cer"]:
    """Name the error rate that means something for a language: WER where words are spaced.

    Args:
        language: Whisper's code, or None to decide by the texts' script alone.
        texts: References.
    """
    if language in UNSPACED_LANGUAGES:
        return "cer"
    return "cer" if is_unspaced(" ".join(texts)) else "wer"
