"""The ways in which a number may be said: every reading is right, and the first one is the default.

Cardinals, ordinals, years and decimals are CLDR's rules (unicode-rbnf), in all genders and cases;
currencies, units and months are CLDR's names (babel). What people say instead, such as half past
seven, is data of the language.
"""

from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from itertools import product

import regex
from babel import Locale
from babel.numbers import get_currency_name, get_decimal_symbol, get_group_symbol
from babel.units import format_unit
from unicode_rbnf import RbnfEngine
from unicode_rbnf.engine import RbnfError

from voxadapt.asr.languages import SHARED, SIGNS, locale, rules

MAX_READINGS = 400  # of one expression
MAX_FORMS = 8  # of a number within a longer expression
MAX_SPELT = 15  # digits; longer ones are read digit by digit
YEARS = range(1100, 2100)
YEAR_FIRST = ("da", "de", "en", "nl", "no", "sv")  # 1995 is read as a year unless counted
ORDINAL_YEARS = ("be", "bg", "pl", "ru", "uk")  # where 1995 is the 1995th year
DIGIT_YEARS = ("ja", "ko", "yue", "zh")  # whose year rules read digits, as `_by_digit` does
MONEY = (
    "{w} {name} {joiner} {c} {cent}", "{w} {name} {c} {cent}", "{w} {name} {c}",
    "{w} {name} {joiner} {c}", "{w} {c}", "{w} {c} {name}",
)  # fmt: skip
_DIGITS = regex.compile(r"\d[\d\s.,\u00a0\u202f]*")


def cardinals(number: str, lang: str) -> list[str]:
    """Return the words of a number such as `25` or `2.5`, in every gender and case."""
    return _spelt(number, lang, lambda name: "cardinal" in name or "numbering" in name)


def ordinals(number: str, lang: str) -> list[str]:
    """Return the words of an ordinal, in every gender and case."""
    found = _spelt(number, lang, lambda name: "ordinal" in name) or _declined(number, lang)
    return _changed(found, lang)


def _declined(number: str, lang: str) -> list[str]:
    """Make the ordinals that CLDR lacks of a cardinal: its last word, and the tens before ones."""
    known = rules(lang)
    if not known.ordinal_words:
        return []
    words = (cardinals(number, lang) or [""])[0].split()
    last = 2 if len(words) > 1 and (known.ordinal_words.get(" ".join(words[-2:])) or (
        int(number) % 10 and int(number) % 100 > 20)) else 1  # fmt: skip
    whole = known.ordinal_words.get(" ".join(words[-last:]))
    new = [whole] if whole else [known.ordinal_words.get(word, "") for word in words[-last:]]
    if not all(new):
        return []
    found = []
    for form in known.ordinal_forms:
        ending = dict(zip(known.ordinal_forms[0].split(), form.split(), strict=True))
        made = [next(w.removesuffix(e) + ending[e] for e in ending if w.endswith(e)) for w in new]
        found.append(" ".join([*words[:-last], *made]))
    return found


def number_readings(written: str, lang: str) -> list[str]:
    """Return what may be said for digits.

    They may have separators: `1995`, `1,000`, `2.5`, `007`; `lang` is Whisper's code. The default
    comes first, the digits as written last, alone where the language's numbers are not known.
    """
    return list(_number_readings(written, lang))


@lru_cache(maxsize=4096)
def _number_readings(written: str, lang: str) -> tuple[str, ...]:
    found: list[str] = []
    is_code = written.isdecimal() and written.startswith("0") and len(written) > 1
    if is_code:
        found += _by_digit(written, lang)
        rest = written.lstrip("0")
        zeros = _by_digit("0" * (len(written) - len(rest)), lang)
        found += _combined("{a} {b}", a=zeros, b=cardinals(rest, lang) if rest else [])
    values = _values(written, lang)
    for value in values:
        if len(value.replace(".", "")) > MAX_SPELT:
            found += _by_digit(value, lang)
            continue
        spelt = _changed(cardinals(value, lang), lang)
        if "." in value:
            whole, _, fraction = value.partition(".")
            zeros = _changed(_with_zeros(value, lang), lang)
            found += _decimals(value, lang) + (spelt if fraction.strip("0") else []) + zeros
            found += [] if found else spelt
            if len(values) == 1 and not fraction.startswith("0"):
                a, b = cardinals(whole, lang)[:MAX_FORMS], cardinals(fraction, lang)[:MAX_FORMS]
                found += _changed(_combined(f"{{a}} {_point(lang)} {{b}}", a=a, b=b), lang)
                found += _combined("{a} {b}", a=a, b=b)
                found += _by_digit(whole + fraction, lang) if lang == "ko" else []  # 육이오
            continue
        year = []
        if written == value and int(value) in YEARS:
            as_ordinal = ordinals(value, lang) if lang in ORDINAL_YEARS else []
            year = _changed(years(value, lang) + as_ordinal, lang)
            century, rest = cardinals(value[:2], lang), str(int(value[2:]))
            if value[1] != "0" and rest != "0":  # eighteen hundred and twelve
                spelt += _filled(rules(lang).hundreds, a=century, b=cardinals(rest, lang))
            if lang in YEAR_FIRST and value[2] == "0" != rest:  # twenty oh eight
                spelt += _combined("{a} {b}", a=century, b=_by_digit(value[2:], lang))
        elif lang in YEAR_FIRST and int(value) in range(1100, 10_000, 100):
            spelt += years(value, lang)  # fifteen hundred
        found += [*year, *spelt] if lang in YEAR_FIRST else [*spelt, *year]
        if written.isdecimal():
            if 2 <= len(value) <= MAX_SPELT:
                found += _by_digit(written, lang)
            if len(written) in (3, 4) and not is_code and written[-2] != "0":
                pair = cardinals(written[-2:].lstrip("0") or "0", lang)
                found += _combined("{a} {b}", a=cardinals(written[:-2], lang), b=pair)
    return _unique([*found, regex.sub(r"(?<=\d)[.,'’\s\u00a0\u202f](?=\d{3})", "", written)])


def _decimals(value: str, lang: str) -> list[str]:
    """Return the readings of a decimal number that the language's file has."""
    whole, _, fraction = value.partition(".")
    templates = rules(lang).decimals.get(f"{whole}.{fraction}", [])
    templates = templates + rules(lang).decimals.get(f".{fraction}", [])
    templates = templates + rules(lang).decimals.get("." + "0" * len(fraction), [])
    parts = cardinals(fraction.lstrip("0") or "0", lang)
    return _filled(templates, w=cardinals(whole, lang), f=parts)


@cache
def _point(lang: str) -> str:
    """Return the word between a whole number and its decimals, where CLDR has one."""
    half, zero, five = (cardinals(value, lang) for value in ("0.5", "0", "5"))
    if not half or not (half[0].startswith(zero[0]) and half[0].endswith(five[0])):
        return ""
    return half[0].removeprefix(zero[0]).removesuffix(five[0]).strip()


def _with_zeros(value: str, lang: str) -> list[str]:
    """Return the readings of a decimal number that ends with zeros, which CLDR leaves out."""
    if not value.endswith("0"):
        return []
    longer = ((said, one) for said in cardinals(f"{value}1", lang) for one in cardinals("1", lang))
    return [said.removesuffix(one).strip() for said, one in longer if said.endswith(one)]


def parts(number: str, lang: str) -> list[str]:
    """Return the words of the lower part of a fraction, such as `eighths`."""
    return [
        regex.sub(pattern, ending, word, count=1)
        for pattern, ending in rules(lang).parts
        for word in ordinals(number, lang)
        if regex.search(pattern, word)
    ]


def years(number: str, lang: str) -> list[str]:
    """Return how a year is said, where CLDR has a rule for it."""
    if lang in DIGIT_YEARS:
        return []
    return _spelt(number, lang, lambda name: "year" in name)


@lru_cache(maxsize=1024)
def money_readings(sign: str, amount: str, magnitude: str, lang: str) -> list[str]:
    """Return what may be said for an amount."""
    known, cents = rules(lang), []
    names = known.currency.get(sign, known.currency.get(SIGNS.sign_of.get(sign, ""), []))
    values = _values(amount, lang)
    names = _currency_names(SIGNS.currencies[sign], values[0], names, lang)
    numbers = number_readings(amount, lang)
    if magnitude or any(value.endswith("000000") for value in values):
        names += [f"{of}{name}" for of in known.millions_of for name in names]
    if magnitude:
        numbers += known.one if amount == "1" else []
        large = [
            form
            for word, short in known.magnitudes.items()
            if magnitude.casefold() in (word, *short)
            for form in (word, *short)
        ] or [magnitude]
        return _combined("{n} {large} {name}", n=numbers, large=large, name=names)
    readings: list[str] = []
    for value in values:
        whole, _, hundredths = value.partition(".")
        said = _changed(cardinals(whole, lang), lang)[:MAX_FORMS]
        said += known.one if whole == "1" else []
        if set(hundredths) <= {"0"}:
            readings += _combined("{w} {name}", w=said, name=names)
            continue
        tenths = _filled(known.tenths, w=said, c=cardinals(hundredths[0], lang), name=names)
        if whole == "0":
            tenths = _filled(known.tenths[1:], w=[""], c=cardinals(hundredths[0], lang), name=[""])
        if len(hundredths) == 2:
            parts = _changed(cardinals(hundredths.lstrip("0"), lang), lang)[:MAX_FORMS]
            cents = known.cents.get(sign, known.cents.get(SIGNS.sign_of.get(sign, ""), []))
            sets = {"w": said[:4], "c": parts[:3], "name": names[:5], "cent": cents}
            readings += _filled(MONEY, **sets, joiner=known.joiner.split("|"))
            if whole == "0":
                readings = _combined("{c} {cent}", c=parts, cent=cents) + readings
        if hundredths[1:] in ("", "0"):
            readings += tenths
    readings += _combined("{n} {name}", n=numbers, name=names)
    return list(_unique(readings))


@lru_cache(maxsize=1024)
def unit_readings(sign: str, amount: str, lang: str) -> list[str]:
    """Return what may be said for a quantity such as `5 km`; the sign may be spelt as well."""
    numbers = number_readings(amount, lang)
    known = list(rules(lang).units.get(sign, []))
    for other, unit in SIGNS.units.items():  # as another sign of the same unit is said
        known += rules(lang).units.get(other, []) if unit == SIGNS.units[sign] else []
    templates = [name if "{n}" in name else f"{{n}} {name}" for name in known]
    found = locale(lang)
    if found is not None:
        templates += _unit_templates(SIGNS.units[sign], _values(amount, lang)[0], found)
    if sign in ("°C", "℃", "°F", "℉"):  # of degrees nobody has to say which
        degrees = rules(lang).symbols.get("°", [])
        templates += [regex.sub(rf" (?:{'|'.join(degrees)})(?= )", "", one) for one in templates]
        templates += [f"{{n}} {word}" for word in degrees]
    letters = [sign.replace("°", " "), " ".join(sign)] if sign != "°" else []
    whole, _, fraction = _values(amount, lang)[0].partition(".")
    pair = {"w": cardinals(whole, lang), "f": cardinals(fraction.lstrip("0") or "0", lang)}
    is_height = SIGNS.units[sign] == "length-meter" and len(fraction) == 2
    apart = [f"{template.replace('{n}', '{w}')} {{f}}" for template in templates if is_height]
    return _filled(
        [*templates, *(f"{{n}} {letter}" for letter in letters), *apart], n=numbers, **pair
    )


@cache
def currency_words(lang: str) -> dict[str, str]:
    """Map the names of currencies with hundredths to their signs."""
    return {
        name.casefold(): sign
        for sign in rules(lang).cents
        for name in _currency_names(
            SIGNS.currencies[sign], "2", rules(lang).currency.get(sign, []), lang
        )
    }


def percent_readings(amount: str, lang: str) -> list[str]:
    """Return what may be said for a number of per cent."""
    found = locale(lang)
    templates = list(rules(lang).percent)
    if found is not None:
        templates += _unit_templates("concentr-percent", _values(amount, lang)[0], found)
    return _filled(templates or ["{n}"], n=number_readings(amount, lang))


@lru_cache(maxsize=1024)
def clock_readings(hour: int, minute: int, lang: str) -> list[str]:
    """Return what may be said for a time of day."""
    known = rules(lang).clock or {"any": ["{h} {m}"], "00": ["{h}"]}
    hours = [hour, hour - 12 if hour > 12 else 12 if hour == 0 else hour]
    following = [(value + 1 if value < 24 else 1) for value in hours]
    following += [value - 12 for value in following if value > 12]
    minutes = _changed(cardinals(str(minute), lang), lang)
    if 0 < minute < 10:
        minutes = _by_digit(f"0{minute}", lang) + minutes
    exact = known.get(f"{hour}:{minute:02}", []) + known.get(f"{minute:02}", [])
    general = known.get("any", []) if minute else []
    ordered = exact + general if minute == 0 else general[:1] + exact + general[1:]
    return _filled(
        ordered or known.get("any", []),
        h=_words(hours, lang), m=minutes, rest=_words([60 - minute], lang),
        next=_words(following, lang),
        nth=[word for value in following for word in ordinals(str(value), lang)],
        hth=[word for value in hours for word in ordinals(str(value), lang)],
    )  # fmt: skip


@lru_cache(maxsize=1024)
def date_readings(day: int, month: int, year: str, lang: str) -> list[str]:
    """Return what may be said for a date; `year` is empty where it is not written."""
    known, found = rules(lang), locale(lang)
    days = ordinals(str(day), lang)
    if known.date_days:
        days = [word for word in days if regex.search(known.date_days, word)]
    days = days + cardinals(str(day), lang)
    names = [] if found is None else [
        found.months[use]["wide"][month] for use in ("format", "stand-alone")
    ]  # fmt: skip
    numbers = {"d": cardinals(str(day), lang), "m": cardinals(str(month), lang)}
    if known.dotted_dates:
        numbers = {"d": days, "m": numbers["m"] + ordinals(str(month), lang)}
    names = [name for name in names if not any(c.isdecimal() for c in name)] or numbers["m"]
    dates = _filled(known.date or ["{day} {month}"], day=days, month=names, **numbers)
    if year:
        said = (years(year, lang) if lang != "ru" else ordinals(year, lang)) or []
        said = said + number_readings(year, lang)
        dates = _filled(known.date_year, date=dates[: MAX_READINGS // 8], year=_unique(said))
    if year:
        numbers["y"] = number_readings(year, lang)
    orders = [("{d} {m}", "{m} {d}"), ("{d} {m} {y}", "{m} {d} {y}", "{y} {m} {d}")][bool(year)]
    return list(_unique([*dates, *(r for order in orders for r in _combined(order, **numbers))]))


def decade_readings(number: str, lang: str) -> list[str]:
    """Return what may be said for the `1990` of `1990s`, or nothing where there is no rule."""
    endings = rules(lang).decades
    said = (years(number, lang) if len(number) == 4 else []) + cardinals(number, lang)
    return [
        regex.sub(pattern, ending, word, count=1)
        for word in said
        for pattern, ending in endings[:2]
        if regex.search(pattern, word)
    ]


def _words(numbers: Iterable[int], lang: str) -> list[str]:
    return list(_unique(word for n in numbers for word in cardinals(str(n), lang)))


def _values(written: str, lang: str) -> list[str]:
    """Return what digits with separators may mean, with a decimal point: the likely one first."""
    written = regex.sub(r"[\s'’\u00a0\u202f]", "", written)
    marks = [mark for mark in written if mark in ".,"]
    if not marks:
        return [written.lstrip("0") or "0"]
    last = marks[-1]
    whole, _, fraction = written.rpartition(last)
    decimal = regex.sub("[.,]", "", whole).lstrip("0") or "0", fraction
    as_decimal = ".".join(decimal)
    as_whole = regex.sub("[.,]", "", written).lstrip("0") or "0"
    is_grouped = regex.fullmatch(r"\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*|\d{1,2}(?:,\d\d)+,\d{3}",
                                 written)  # fmt: skip
    if is_grouped is None:
        return [as_decimal]
    if len(marks) > 1:
        return [as_whole]
    both = [as_whole, as_decimal]
    return both[::-1] if last == symbols(lang)[0] else both


@cache
def symbols(lang: str) -> tuple[str, str]:
    """Return what a language writes before decimals and between thousands."""
    found = locale(lang)
    if found is None:
        return ".", ","
    return get_decimal_symbol(found), get_group_symbol(found)


def _by_digit(number: str, lang: str) -> list[str]:
    """Read digits one after the other."""
    digits = [cardinals(digit, lang) for digit in number if digit.isdecimal()]
    if not all(digits):
        return []
    return _changed([" ".join(words[0] for words in digits)], lang)


def _changed(readings: Iterable[str], lang: str) -> list[str]:
    """Add what people say instead of some words of a number."""
    found = list(readings)
    for pattern, instead in rules(lang).numbers:
        found += [regex.sub(pattern, instead, reading) for reading in found]
        found = list(_unique(found))[:MAX_READINGS]
    return found


@cache
def _engine(lang: str) -> RbnfEngine | None:
    try:
        return RbnfEngine.for_language(SHARED.get(lang, lang) if lang != "yue" else lang)
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _all_spelt(number: str, lang: str) -> dict[str, str]:
    engine = _engine(lang)
    if engine is None:
        return {}
    names = [
        name
        for name, ruleset in engine.rulesets.items()
        if not ruleset.is_private
        and not name.startswith("digits")
        and not regex.search("financial|days", name)
    ]
    # the plain form comes first: it is the default
    names.sort(key=lambda name: (
        name != "spellout-numbering", "verbose" in name, name.count("-"), name
    ))  # fmt: skip
    try:
        return dict(engine.format_number(number, ruleset_names=names).text_by_ruleset)
    except (RbnfError, ValueError, OverflowError):
        return {}


def _spelt(number: str, lang: str, wanted: Callable[[str], bool]) -> list[str]:
    found = _all_spelt(number, lang)
    kept = [
        found[name].replace("\u200b", "") for name in found
        if wanted(name) and ("year" not in name or wanted("year"))
    ]  # fmt: skip
    return list(_unique(kept))


def _currency_names(code: str, number: str, own: list[str], lang: str) -> list[str]:
    """Return a currency's names, with and without the country's."""
    found = locale(lang)
    short: list[str] = []
    full: list[str] = []
    for count in (min(float(number), 1e15), 1, 2, 5):
        if found is None:
            break
        try:
            name = get_currency_name(code, count=count, locale=found)
            other = get_currency_name(
                SIGNS.same_name.get(code, code), count=float(count), locale=found
            )
        except (KeyError, ValueError):
            continue
        short += _common(name, other)
        words = name.split()
        if len(words) > 1 and not own and not short:
            short += [words[-1], words[0]]
        full.append(name)
    return list(_unique([*short, *own, *full]))


def _common(name: str, other: str) -> list[str]:
    """Return what two names of currencies have in common: dollars, of US and Australian ones."""
    if name == other:
        return []
    others = regex.split(r"[\s\-\u2010・]+", other)
    if shared := [word for word in regex.split(r"[\s\-\u2010]+", name) if word in others]:
        return [" ".join(shared)]
    ending = 0
    while ending < min(len(name), len(other)) and name[-1 - ending] == other[-1 - ending]:
        ending += 1
    return [name[-ending:]] if ending > 1 else []


@lru_cache(maxsize=1024)
def _unit_templates(unit: str, number: str, found: Locale) -> list[str]:
    templates = []
    for count in (min(float(number), 1e15), 1, 2, 5, 1.5):  # babel's plurals end somewhere
        try:
            text = format_unit(count, unit, length="long", locale=found, numbering_system="latn")
        except (KeyError, ValueError):
            continue
        template = " ".join(_DIGITS.sub(" {n} ", text, count=1).split())
        # babel shows its own key for what CLDR lacks, and CLDR a sign for what it has no word for
        if unit not in text and regex.search(r"\p{L}", template.replace("{n}", "", 1)):
            templates.append(template)
    return list(_unique(templates))


def _filled(templates: Iterable[str], **sets: Iterable[str]) -> list[str]:
    """Fill every template in every way."""
    kept = {name: list(words) for name, words in sets.items()}
    return list(_unique(r for template in templates for r in _combined(template, **kept)))


def _combined(template: str, **sets: Iterable[str]) -> list[str]:
    names = [name for name in sets if f"{{{name}}}" in template]
    chosen = product(*(sets[name] for name in names))
    found = []
    for words in chosen:
        found.append(template.format(**dict(zip(names, words, strict=True))))
        if len(found) == MAX_READINGS:
            break
    return found


def _unique(readings: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(readings))[:MAX_READINGS]
