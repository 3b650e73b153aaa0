"""What is written in several ways and heard as one, by language: data files and their reader."""

import json
from functools import cache
from importlib import metadata, resources, util
from pathlib import Path

from babel import Locale, UnknownLocaleError
from pydantic import BaseModel, ConfigDict

from voxadapt.core.provenance import fingerprint
from voxadapt.core.strict_yaml import read_yaml

FOLDER = Path(str(resources.files(__package__)))
SHARED = {"yue": "zh", "nn": "no", "jw": "jv", "tl": "fil", "nb": "no"}  # Whisper's code: CLDR's
LIBRARIES = ("unicode-rbnf", "babel", "openai-whisper")


class Rules(BaseModel):
    """One language's file; see `en.yaml`, which has every key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spelling: dict[str, list[str]] = {}  # first form, and others that mean the same sound
    #: What may be said for one; a dot in the key must stand in the text.
    abbreviations: dict[str, list[str]] = {}
    #: Pattern of a word with an apostrophe, and what it may stand for.
    contractions: list[tuple[str, list[str]]] = []
    joiner: str = ""  # `and`, between dollars and cents; several between bars
    numbers: list[tuple[str, str]] = []  # pattern in a number's words, and what may be said instead
    #: Readings of a decimal number by its fraction (`.5`), its value (`1.5`) or its decimals (`.0`,
    #: `.00`): whole `{w}`, fraction `{f}`.
    decimals: dict[str, list[str]] = {}
    #: Patterns of a number that is an ordinal; its digits are the first group.
    ordinal: list[str] = []
    percent: list[str] = []  # readings of `{n}` per cent
    symbols: dict[str, list[str]] = {}  # words of a mark; saying nothing is right as well
    between: dict[str, list[str]] = {}  # words of a mark between two numbers
    minus: list[str] = []  # words of a minus sign
    fractions: dict[str, list[str]] = {}  # words of `1/2` and others
    #: Words such as million, and how they may be abbreviated behind an amount.
    magnitudes: dict[str, list[str]] = {}
    currency: dict[str, list[str]] = {}  # words by sign, beside those of CLDR
    cents: dict[str, list[str]] = {}  # words of the hundredth part by sign
    #: Readings of a time by minute (`30`), time (`12:00`) or `any`: hour `{h}`, minute `{m}`, the
    #: ordinals `{hth}` of the hour and `{nth}` of the `{next}` one, and the minutes left `{rest}`.
    clock: dict[str, list[str]] = {}
    clock_mark: str = ""  # what stands between hour and minute besides a colon
    clock_word: str = ""  # what may follow a time and belongs to it
    units: dict[str, list[str]] = {}  # words by sign, beside those of CLDR
    date: list[str] = []  # readings of a date: `{day}`, `{month}`; `{d}` and `{m}` are numbers
    dotted_dates: bool = False  # whether `3.10.` is a date
    date_days: str = ""  # how the ordinal of a day ends, where others are no days
    articles: list[str] = []  # before the ordinal of `Henry VIII`
    #: How an ordinal ends that is the lower part of a fraction: pattern and ending.
    parts: list[tuple[str, str]] = []
    date_year: list[str] = ["{date} {year}"]  # readings of a `{date}` with its `{year}`
    #: What makes a number an ordinal, as a pattern of what stands about it, `#`: `2 этаж`.
    ordered: str = ""
    one: list[str] = []  # what a single million or dollar may have before it; empty: nothing
    hundreds: list[str] = []  # readings of 1812 by its hundreds `{a}` and the rest `{b}`
    millions_of: list[str] = []  # before the currency of round millions
    tenths: list[str] = []  # readings of an amount with one decimal: `{w}`, `{name}`, `{c}`
    halves: list[str] = []  # readings of 2.5 million: `{0}` and the word `{1}`
    feet: list[str] = []  # readings of feet `{0}` and inches `{1}`
    #: Contractions that are another word without their apostrophe; their first reading is in full.
    apart: list[str] = []
    kana: dict[str, list[str]] = {}  # readings of a Japanese word beside the analyser's
    #: Where CLDR lacks ordinals: by the cardinal's word (the masculine form), and their endings, of
    #: which the first row names those that the others take the place of.
    ordinal_words: dict[str, str] = {}
    ordinal_forms: list[str] = []
    decades: list[tuple[str, str]] = []  # how the last word of `1990s` ends: pattern and ending


class Signs(BaseModel):
    """What every language writes alike; see `_signs.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currencies: dict[str, str]
    same_name: dict[str, str]
    sign_of: dict[str, str]
    units: dict[str, str]
    events: str


SIGNS = Signs.model_validate(read_yaml(FOLDER / "_signs.yaml"))


@cache
def rules(lang: str) -> Rules:
    """Read a language's file; an empty one where none is kept."""
    path = FOLDER / f"{SHARED.get(lang, lang)}.yaml"
    found = Rules.model_validate(read_yaml(path) if path.is_file() else {})
    if lang != "en":
        return found
    # British to American, as openai-whisper's own normaliser has them; its import needs torch.
    spec = util.find_spec("whisper")
    assert spec is not None and spec.origin is not None, "openai-whisper is a dependency"
    british = json.loads(
        (Path(spec.origin).parent / "normalizers/english.json").read_text(encoding="utf-8")
    )
    spelling = {first: list(others) for first, others in found.spelling.items()}
    for other, first in british.items():
        if other.isalpha() and first.isalpha():  # a few entries hold markup
            spelling.setdefault(first, []).append(other)
    return found.model_copy(update={"spelling": spelling})


@cache
def locale(lang: str) -> Locale | None:
    """Return what CLDR knows of a language."""
    try:
        return Locale.parse(SHARED.get(lang, lang) if lang != "yue" else lang)
    except (UnknownLocaleError, ValueError):
        return None


@cache
def rules_id(lang: str) -> str:
    """Name a language's rules: a hash of its file and the versions of the libraries."""
    versions = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    return fingerprint([rules(lang).model_dump(), SIGNS.model_dump(), versions], 8)
