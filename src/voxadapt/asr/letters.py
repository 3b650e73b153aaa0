"""Code points of a text: what one sound may be written with becomes one form, on both sides.

NFKC, casefold, punctuation and symbols out, combining marks (category M) kept, so that Thai, Hindi
or Vietnamese stay what they are. What a script may write or leave out at will vanishes: Arabic and
Persian vowel points and tatweel, Hebrew points and accents, the dots of the Russian ё. Where a
language writes one sound with several code points or in several orders, `REPLACED` and the tables
by language name the one that stays. Letters are never merged otherwise.
"""

import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Final

import regex

# Between two letters these vanish (don't -> dont); any other punctuation becomes a space.
JOINERS: Final = (
    "'\u2018\u2019\u201b\u02b9\u02bb\u02bc\u02bd\u02bf\u02be\u02c8\u2032\u055a\ua78c\uff07`\u00b4"
    "\u05f3\u05f4\u00b7\u2027"
)
HEBREW_JOINERS: Final = '"'  # stands for the gershayim of an abbreviation, between Hebrew letters
TO_SPACE: Final = ("P", "S", "Z", "Cc")
DROPPED: Final = (
    (0x0640, 0x0640),  # tatweel
    (0x0610, 0x061A), (0x064B, 0x0652), (0x0656, 0x065F), (0x0670, 0x0670),  # Arabic points; not
    (0x06D6, 0x06DC), (0x06DF, 0x06E4), (0x06E7, 0x06E8), (0x06EA, 0x06ED),  # hamza or madda
    (0x0591, 0x05BD), (0x05BF, 0x05BF), (0x05C1, 0x05C2), (0x05C4, 0x05C5), (0x05C7, 0x05C7),
    (0xFE00, 0xFE0F), (0xE0100, 0xE01EF),  # variation selectors
)  # fmt: skip
TURKIC_LANGUAGES: Final = ("az", "tr")
TURKIC_LETTERS: Final = {"I": "\u0131", "\u0130": "i"}
CHINESE_LANGUAGES: Final = ("yue", "zh")
CONVERSION: Final = "t2s"
UNSPACED: Final = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF),  # Thai and Lao, Myanmar, Khmer
    (0x3005, 0x3007), (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x3FFFF),  # Han
)  # fmt: skip


def _homorganic(block: int) -> tuple[str, str]:
    """Return the rule that a nasal before a stop of its own class is an anusvara."""
    classes = ((0x19, 0x15, 0x18), (0x1E, 0x1A, 0x1D), (0x23, 0x1F, 0x22), (0x28, 0x24, 0x27),
               (0x2E, 0x2A, 0x2D))  # fmt: skip
    virama, anusvara = chr(block + 0x4D), chr(block + 2)
    pairs = "|".join(
        f"{chr(block + nasal)}{virama}(?=[{chr(block + first)}-{chr(block + last)}])"
        for nasal, first, last in classes
    )
    return f"(?:{pairs})", anusvara


_TONE = "[\u0e48-\u0e4c]"
_LAO_TONE = "[\u0ec8-\u0ecc]"
# Whatever the language: pattern and what stands for it.
REPLACED: Final[tuple[tuple[str, str], ...]] = (
    ("i\u0307", "i"),  # casefold's İ
    ("\u0451", "\u0435"),  # ё is written or not
    # Malayalam chillu and Bengali khanda ta: the letter with a virama
    *zip("\u0d7a\u0d7b\u0d7c\u0d7d\u0d7e\u0d7f\u0d54\u0d55\u0d56",
         (f"{letter}\u0d4d" for letter in "ണനരലളകമയഴ"), strict=True),
    ("\u0d4d\u0d4d", "\u0d4d"), ("\u09ce", "\u09a4\u09cd"),
    ("\u05f0", "\u05d5\u05d5"), ("\u05f1", "\u05d5\u05d9"), ("\u05f2", "\u05d9\u05d9"),  # Yiddish
    # Hindi and its neighbours: anusvara for any nasal before its stop, and for chandrabindu
    *(_homorganic(block) for block in (0x900, 0xA80, 0xB00, 0xC00, 0xC80)),
    ("\u0901", "\u0902"), ("\u0a81", "\u0a82"), ("\u0a02", "\u0a70"), ("\u0a01", "\u0a70"),
    # Thai and Lao as typed: two sara e, vowel after tone, the parts of sara am
    ("\u0e40\u0e40", "\u0e41"), ("\u0ec0\u0ec0", "\u0ec1"),
    (f"({_TONE})([\u0e31\u0e34-\u0e3a])", r"\2\1"),
    (f"({_LAO_TONE})([\u0eb1\u0eb4-\u0ebb])", r"\2\1"),
    (f"\u0e4d({_TONE})\u0e32", "\\1\u0e4d\u0e32"), (f"\u0e4d\u0e32({_TONE})", "\\1\u0e4d\u0e32"),
    (f"\u0ecd({_LAO_TONE})\u0eb2", "\\1\u0ecd\u0eb2"),
    (f"\u0ecd\u0eb2({_LAO_TONE})", "\\1\u0ecd\u0eb2"),
    ("\u17d2\u178a", "\u17d2\u178f"),  # Khmer subscripts of one shape; vowels of two parts
    ("\u17c1\u17b8", "\u17be"), ("\u17c1\u17b6", "\u17c4"),
)  # fmt: skip
_PERSIAN = (
    ("مسؤول", "مسئول"),
    ("\u0626", "\u06cc"),
    ("\u0624", "\u0648"),
    ("[\u0623\u0625]", "\u0627"),
    ("[\u064a\u0649]", "\u06cc"),
    ("\u0643", "\u06a9"),
    ("\u06c0|\u0647\u0654", "\u0647"),
)
_CYRILLIC = dict(
    zip("абвгдђежзијклљмнњопрстћуфхцчџш",
        "a b v g d đ e ž z i j k l lj m n nj o p r s t ć u f h c č dž š".split(), strict=True)
)  # fmt: skip
#: The series of Amharic letters that sound alike, each of seven vowels: first letters.
_AMHARIC = tuple(
    (chr(ord(other) + vowel), chr(ord(first) + vowel))
    for first, others in {"ሀ": "ሐኀ", "ሰ": "ሠ", "አ": "ዐ", "ጸ": "ፀ"}.items()
    for other in others for vowel in range(7)
)  # fmt: skip
_SERBIAN = tuple(_CYRILLIC.items())
BY_LANGUAGE: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "ar": (
        ("\u0671", "\u0627"), ("\u06cc", "\u064a"), ("\u06a9", "\u0643"),
        ("[\u06be\u06c1]", "\u0647"), ("\u0645\u0627\u0626(?=[\u0629\u062a])", "\u0645\u0626"),
    ),
    "am": (*_AMHARIC, ("ኣ", "አ"), ("ሃ", "ሀ")),
    "az": (("ǝ", "ə"),),
    # borrowed accents: café, résumé
    "en": tuple((f"[{letters}]", letter) for letter, letters in (
        ("a", "àáâãäå"), ("c", "ç"), ("e", "èéêë"), ("i", "ìíîï"), ("n", "ñ"), ("o", "òóôõö"),
        ("u", "ùúûü"),
    )),
    "es": (("(?<!\\p{L})ps", "s"), ("íac", "iac")),
    "fa": _PERSIAN,
    # ph is f, and ti before -al and -ell is zi, since 1996 also as written
    "de": (("ph", "f"), ("t(?=i(?:al|ell))", "z")),
    # since 1990 written with or without circumflex, é before a mute e as è; œ as typed
    "fr": (("\u00ee", "i"), ("\u00fb", "u"), ("\u0153", "oe"), ("üe", "uë"),
           ("é(?=[bcdfglmnprstv]{1,2}e[bcdfglmnprstv]{1,2}[aeiou])", "è")),
    "hi": (("(?<=\\p{L}\\p{M}*)\u092f\u0947(?!\\p{L}|\\p{M})", "\u090f"),
           ("(?<=\\p{L}\\p{M}*)\u092f\u0940(?!\\p{L}|\\p{M})", "\u0908")),
    "it": (("\u00e9", "\u00e8"),),
    "hy": (("եւ", "եվ"),),
    # kana for a foreign v
    "ja": (("ヴァ", "バ"), ("ヴィ", "ビ"), ("ヴェ", "ベ"), ("ヴォ", "ボ"), ("ヴ", "ブ"),
           ("髙", "高"), ("﨑", "崎"), ("[邉邊]", "辺"), ("[齋斎齊](?=藤)", "斉")),
    "lo": (("ຫລ", "ຫຼ"),),
    "nl": (("é(?=é?n\\b)", "e"),),
    # Brazilian and Portuguese vowels before a nasal; the trema of before 2009
    "pt": (("ô(?=[mn]\\p{L})", "ó"), ("ê(?=[mn]\\p{L})", "é"), ("ü", "u"),
           ("é(?=i[ao])", "e"), ("ó(?=i[ac])", "o"), ("ôo", "oo"), ("êe(?=m)", "ee")),
    "th": (("ฯ", ""),),
    "mr": (("\u0931\u094d", "\u0930\u094d"),),
    "ta": (("\u0bb6\u0bcd\u0bb0\u0bc0", "\u0bb8\u0bcd\u0bb0\u0bc0"),),
    "ps": (*_PERSIAN, ("\u06d0|\u06cd", "\u06cc")),
    "sd": (("\u0643", "\u06a9"),),
    # a doachashmi he that begins a word stands for the other he
    "ur": (("(?<!\\p{L})\u06be", "\u06c1"),
           ("[\u064a\u0649]", "\u06cc"), ("\u0643", "\u06a9"), ("\u06c2|\u06c3|\u0647", "\u06c1")),
    "ro": (("\u015f", "\u0219"), ("\u0163", "\u021b")),
    "sr": _SERBIAN, "bs": _SERBIAN, "hr": _SERBIAN,
    # o and g with any apostrophe are letters of their own
    "uz": ((f"o[{regex.escape(JOINERS)}]", "õ"), (f"g[{regex.escape(JOINERS)}]", "ğ")),
    "vi": (
        ("ð", "đ"),
        # the tone mark on either vowel of an open oa, oe, uy; i or y alone after a consonant
        *((f"{first}{second}(?!\\p{{L}})", f"{plain}{marked}")
          for plain, firsts in (("o", "òóỏõọ"), ("u", "ùúủũụ"))
          for second, marks in ((("a", "àáảãạ"), ("e", "èéẻẽẹ")) if plain == "o"
                                else (("y", "ỳýỷỹỵ"),))
          for first, marked in zip(firsts, marks, strict=True)),
        *((f"(?<=(?<!\\p{{L}})(?:h|k|l|m|s|t|v|qu)){y}(?!\\p{{L}})", i)
          for y, i in zip("yỳýỷỹỵ", "iìíỉĩị", strict=True)),
    ),
    "zh": (("\u3007", "\u96f6"),), "yue": (("\u3007", "\u96f6"),),
}  # fmt: skip


def plain(text: str, lang: str | None = None) -> str:
    """Return a text's words as written, in one form of their code points."""
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
        text = _one_pass(text, lang, convert)
    return text


def _one_pass(text: str, lang: str | None, convert: Callable[[str], str] | None) -> str:
    # NFKC would make a blank with a mark of an accent that stands alone.
    text = "".join(
        c if unicodedata.category(c) != "Sk" else "'" if c in JOINERS else " "
        for c in unicodedata.normalize("NFC", text)
    )
    text = unicodedata.normalize("NFKC", text).casefold()
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c for c in text if not _is_dropped(c))
    for pattern, instead in _patterns(lang):
        text = pattern.sub(instead, text)
    if convert is not None:
        text = convert(text)
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


@cache
def _patterns(lang: str | None) -> tuple[tuple[regex.Pattern[str], str], ...]:
    rules = REPLACED + BY_LANGUAGE.get(lang or "", ())
    return tuple((regex.compile(pattern), instead) for pattern, instead in rules)


def _joins(joiner: str, before: str, after: str) -> bool:
    """Tell whether an apostrophe stands inside a word."""
    if joiner in HEBREW_JOINERS:
        return all("\u05d0" <= side <= "\u05ea" for side in (before, after))
    return all(side and unicodedata.category(side)[0] in "LMN" for side in (before, after))


def within(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    """Tell whether a character lies in one of some ranges of code points."""
    return any(low <= ord(character) <= high for low, high in ranges)


@cache
def _is_dropped(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or within(character, DROPPED)


@cache
def is_unspaced_letter(character: str) -> bool:
    """Tell whether a character is of a script written without spaces between words."""
    return within(character, UNSPACED)


def units(normalised: str) -> list[str]:
    """Divide a normalised text into what is counted: words, and characters of unspaced scripts."""
    found: list[str] = []
    for word in normalised.split():
        run = ""
        for character in word:
            if is_unspaced_letter(character):
                found += [run, character] if run else [character]
                run = ""
            else:
                run += character
        found += [run] if run else []
    return found


def joined(parts: list[str]) -> str:
    """Write units as a text: the inverse of `units`, without spaces in unspaced scripts."""
    text = ""
    for part in parts:
        if text and part and not (is_unspaced_letter(text[-1]) and is_unspaced_letter(part[0])):
            text += " "
        text += part
    return text


@cache
def _simplifier() -> Callable[[str], str]:
    import opencc  # needed for Chinese alone

    convert: Callable[[str], str] = opencc.OpenCC(CONVERSION).convert
    return convert
