"""Names of languages: whatever people call one becomes Whisper's code."""

import re
import unicodedata
from collections.abc import Collection
from functools import cache
from typing import Final

# What neither CLDR's aliases nor its English names know, or Whisper calls otherwise.
TO_WHISPER: Final = {
    "jv": "jw", "fil": "tl", "nb": "no", "mandarin": "zh", "mandarin chinese": "zh",
    "simplified chinese": "zh", "traditional chinese": "zh", "putonghua": "zh", "zh-yue": "yue",
    "zh-hk": "yue", "myanmar": "my", "flemish": "nl", "valencian": "ca", "castilian": "es",
    "haitian": "ht", "letzeburgesch": "lb", "pushto": "ps", "panjabi": "pa", "moldavian": "ro",
    "moldovan": "ro", "mo": "ro", "sinhalese": "si", "farsi": "fa", "tagalog": "tl", "bahasa": "id",
    "bahasa indonesia": "id", "bahasa melayu": "ms", "bahasa malaysia": "ms", "malaysian": "ms",
    "maori": "mi", "bengali": "bn", "bangla": "bn", "nynorsk": "nn",
    "bokmål": "no", "odia": "or", "uighur": "ug", "kirghiz": "ky",
    "zlm": "ms", "castellano": "es", "粤语": "yue", "普通话": "zh", "國語": "zh", "国语": "zh",
    "汉语": "zh", "漢語": "zh", "standard chinese": "zh", "taiwanese mandarin": "zh",
    "cantonese": "yue", "廣東話": "yue", "广东话": "yue", "hong kong": "yue",
    "jp": "ja", "kr": "ko",
    "sh": "sr", "pbt": "ps", "arz": "ar", "ary": "ar", "apc": "ar", "afb": "ar", "acm": "ar",
    "greek": "el", "modern greek": "el", "brazilian": "pt", "brazilian portuguese": "pt",
}  # fmt: skip

#: Languages that the published models speak, as their configuration names them.
MODEL_LANGUAGES: Final = {
    "zh": "chinese", "en": "english", "ja": "japanese", "ko": "korean", "de": "german",
    "fr": "french", "ru": "russian", "pt": "portuguese", "es": "spanish", "it": "italian",
}  # fmt: skip


def model_language(
    name: str, known: Collection[str] = frozenset(MODEL_LANGUAGES.values())
) -> str | None:
    """Return a language as the model's configuration names it; None for one that it lacks.

    The name is such as `German`, `de-AT`, `Mandarin` or `beijing_dialect`.
    """
    key = "_".join(name.casefold().split())
    if key in known:
        return key
    found = MODEL_LANGUAGES.get(whisper_language(name))
    return found if found in known else None


def whisper_language(name: str) -> str:
    """Return Whisper's code of a language.

    The name is a code of two or three letters, perhaps with a region (`pt-BR`, `zsm`), or the
    language's in English or in itself: `Burmese`, `Mandarin`, `Deutsch`. What nobody knows comes
    back as it was given.
    """
    key = " ".join(name.casefold().removeprefix("<|").removesuffix("|>").split())
    if key not in TO_WHISPER:  # Portuguese (Brazil), Chinese (Cantonese), Catalan; Valencian
        for inner in re.findall(r"\(([^()]*)\)", key):
            if found := next((p for p in re.split(", ?", inner) if p in TO_WHISPER), None):
                return TO_WHISPER[found]
        key = " ".join(re.split("[;,]", re.sub(r"\([^()]*\)", " ", key))[0].split()) or key
        key = re.sub(r"(?:.* (?=arabic$))| (?:language|язык)$", "", key)
    if key in TO_WHISPER:
        return TO_WHISPER[key]
    if re.fullmatch(r"[a-z]{2}", key) and key not in ("iw", "in", "ji", "sh"):
        return key
    code = re.match(r"([a-z]{2,3})(?:[-_][a-z0-9]+)*$", key)
    if code is not None and key.replace("_", "-") in TO_WHISPER:
        return TO_WHISPER[key.replace("_", "-")]
    from babel.core import get_global

    short = code[1] if code is not None else key
    found = str(get_global("language_aliases").get(short, short)).split("_")[0]
    if code is None or len(found) > 3 or (len(short) == 3 and found == short != "yue"):
        found = _names().get(key, found).split("_")[0]
    if code is None and found == key:
        first = re.match("([a-z]+)[-_][a-z]{2}$", key)  # english-us
        return whisper_language(first[1]) if first and first[1] in _names() else name
    return TO_WHISPER.get(found, found)


@cache
def _names() -> dict[str, str]:
    """Return codes by name: CLDR's English one, and each language's own."""
    from babel import Locale
    from babel.localedata import locale_identifiers

    english = Locale.parse("en").languages
    names = {str(name).casefold(): str(code) for code, name in english.items()}
    for code in locale_identifiers():
        if "_" not in code and (own := Locale.parse(code).languages.get(code)):
            names.setdefault(str(own).casefold(), code)
    for name, code in list(names.items()):  # as typed without accents
        parts = unicodedata.normalize("NFD", name)
        names.setdefault("".join(c for c in parts if not unicodedata.combining(c)), code)
    return names
