"""A text as a row of slots, each with every way in which it may be spelt or said.

`$25` is a slot whose readings are "twenty five dollars", "twenty five dollar", …; "well-known" may
be two words or one. The first reading is the default. What stands between the slots is as `plain`
leaves it. Two texts say the same when they share a reading, on whichever side a digit stands.
"""

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product

import regex

from voxadapt.asr import japanese, numbers
from voxadapt.asr.languages import SIGNS, locale, rules
from voxadapt.asr.letters import JOINERS, TURKIC_LANGUAGES, is_unspaced_letter, joined, plain, units

MAX_PRODUCT = 64
ROMAN = {"I": 1, "ı": 1, "V": 5, "X": 10, "L": 50, "C": 100}
# Letters that may not touch a number; those of other scripts may.
_S = r"\p{Latin}\p{Greek}\p{Cyrillic}"
_W = r"\p{L}\p{M}\p{N}"
_APOSTROPHE = f"[{regex.escape(JOINERS)}]"
_HYPHEN = "[-\u2010\u2011\u2043\u058a\u05be\u30fb]"
#: What stands before a single I that is a numeral: a noun, or a name.
_NUMBERED = (
    r"\b(?:War|Part|Chapter|Act|Scene|Volume|Book|Phase|Type|Class|Level|Stage|Grade|Division"
    r"|Elizabeth|Charles|James|George|William|Peter|Nicholas|Napoleon|Alexander|Mary|Francis)\s"
)
_NAMED = r"\p{Lu}\p{Ll}+\s"
PARTS_FIRST = ("分之", "分の", "분의")  # what stands between the lower and the upper number
SPLITTING = ("yue", "zh")  # which put a unit before its decimals
REDUPLICATES = ("id", "ms")  # whose `rumah2` is rumah-rumah
BESIDE = "#"  # ends what is an abbreviation only where a number stands beside it
EVENTS = tuple(SIGNS.events.split())
_BRACKETED = regex.compile(
    r"\[[^\[\]]*\]|【[^【】]*】|［[^［］]*］|</?[\p{L}_][^<>]*>|<\|[^<>|]*\|>"
    r"|(?P<round>\([^()]{1,60}\)|（[^（）]{1,60}）|\*[^*\n]{1,60}\*|\{[^{}]{1,60}\})"
)


@dataclass(frozen=True, slots=True)
class Slot:
    """A part of a text with its readings, each in units (`letters.units`); the first is default."""

    readings: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as slots."""

    text: str  # normalised, in the default readings
    slots: tuple[Slot, ...]  # in order; their default readings are the units of `text`
    language: str | None  # Whisper's code, or None

    @property
    def units(self) -> list[str]:
        """The default reading in units."""
        return [unit for slot in self.slots for unit in slot.readings[0]]

    @property
    def has_choice(self) -> bool:
        """Whether any slot can be read in two ways."""
        return any(len(slot.readings) > 1 for slot in self.slots)


def without_events(text: str) -> str:
    """Drop what is heard but not said: `[laughter]`, `<sigh>`, `(coughs)`, `*laughs*`."""

    def instead(match: regex.Match[str]) -> str:
        if match["round"] is None:
            return " "
        words = regex.findall(r"[\p{L}\p{M}]+", match[0].casefold())
        is_event = 0 < len(words) <= 3 and any(word.startswith(EVENTS) for word in words)
        return " " if is_event else match[0]

    return str(_BRACKETED.sub(instead, text))


@lru_cache(maxsize=4096)
def read(text: str, lang: str | None, own: tuple[tuple[str, str], ...] = ()) -> Reading:
    """Divide a text into slots.

    The text has no events; without `lang`, Whisper's code, nothing has a second reading. Both sides
    of the user's substitutions are normalised by `plain`.
    """
    found = _read(text, lang, own)
    for _ in range(4):  # a default reading may itself have another spelling
        again = _read(found.text, lang, own)
        if again.text == found.text:
            break
        found = again
    return found


def _read(text: str, lang: str | None, own: tuple[tuple[str, str], ...]) -> Reading:
    if lang is None and not own:
        whole = plain(text)
        return Reading(whole, tuple(Slot(((unit,),)) for unit in units(whole)), None)
    tag = lang or ""
    text = _prepared(text, lang)
    pieces: list[Piece] = []
    position = 0
    for start, end, readings in _matches(text, tag, own):
        pieces += _gap(text, position, start, tag, pieces)
        kept = _slot(tuple(readings), lang)
        default = joined(list(kept.readings[0]))
        is_apart = (
            text[start - 1 : start].isspace() if start == position else _is_apart(text, start)
        )
        pieces.append((default, [kept], is_apart))
        position = end
    pieces += _gap(text, position, len(text), tag, pieces)
    whole, slots = "", []
    for piece, parts, is_apart in pieces:
        slots += parts
        if piece:
            close = not is_apart and whole and joined([whole[-1], piece[0]]) == whole[-1] + piece[0]
            whole += piece if close or not whole else f" {piece}"
    return Reading(whole, tuple(slots), lang)


def _prepared(text: str, lang: str | None) -> str:
    """Compose a text, with ASCII digits, fractions of digits, and units' exponents kept."""
    text = text.encode("utf-8", "replace").decode()
    text = unicodedata.normalize("NFC", text)
    text = regex.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = regex.sub(r"(?<!\S)(?=\.\d)", "0", text)
    if lang:
        text = regex.sub(r"(?<=\d)(?=[ap]\.\s?m\.)|(?<=[nN][°º])(?=\d)", " ", text)
        text = regex.sub(r"(?<=\d)x(?=\d)", " x ", text)
        text = regex.sub(r"(?<![\d.,] ?)(\d{1,3})((?: 000)+)(?![\d.,]\d)",
                         lambda m: m[1] + m[2].replace(" ", ""), text)  # fmt: skip
        if numbers.symbols(lang)[0] == ",":
            text = regex.sub(r"(?<![\d.,])([12])\s?m\s?(\d\d)(?!\d|\s?\p{L})", r"\1,\2 m", text)
    if lang in TURKIC_LANGUAGES:
        text = text.replace("I", "ı").replace("İ", "i")
    made = []
    for character in text:
        if character in "²³℃℉ºª№":
            made.append(character)
        elif unicodedata.category(character) == "Nd":
            made.append(str(unicodedata.decimal(character)))
        elif unicodedata.category(character) == "Sk":
            made.append(character)
        else:
            plainer = unicodedata.normalize("NFKC", character).replace("\u2044", "/")
            if plainer[-1] in "23" and "square" in unicodedata.decomposition(character):  # ㎡
                plainer = plainer[:-1] + "²³"["23".index(plainer[-1])]
            made.append(plainer)
    return unicodedata.normalize("NFC", "".join(made)).replace("٫", ".").replace("٬", ",")


Piece = tuple[str, list[Slot], bool]  # text, slots, and whether a blank stands before it


def _gap(text: str, start: int, end: int, lang: str, before: list[Piece]) -> list[Piece]:
    """Read what stands between two slots: words of one spelling."""
    same = _same_words(lang)
    words = [same.get(word, word) for word in plain(text[start:end], lang or None).split()]
    if not words:
        return []
    whole = " ".join(words)
    slots = [Slot(((unit,),)) for unit in units(whole)]
    is_apart = _is_apart(text, start)
    if lang == "ja":
        last = before[-1][0] if before and not is_apart else ""
        slots = [Slot(readings) for readings in japanese.words(whole, last)]
    return [(whole, slots, is_apart)]


def _is_apart(text: str, position: int) -> bool:
    """Tell whether a blank or a punctuation mark stands at a seam."""
    sides = text[max(0, position - 1) : position + 1]
    return any(side.isspace() or unicodedata.category(side)[0] == "P" for side in sides)


@lru_cache(maxsize=4096)
def _slot(readings: tuple[str, ...], lang: str | None) -> Slot:
    ready = [tuple(units(plain(reading, lang))) for reading in readings]
    if lang == "ja":
        ready += [kana for reading in ready for kana in japanese.kana("".join(reading))]
    return Slot(tuple(dict.fromkeys(ready)))


# Matches in a text: where, and what they may be read as.
Rule = tuple[str, Callable[[regex.Match[str], str], list[str]]]


def _matches(
    text: str, lang: str, own: tuple[tuple[str, str], ...]
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the places of a text that have readings of their own, in order."""
    pattern, readers = _grammar(lang, own)
    position = 0
    while (match := pattern.search(text, position)) is not None:
        assert match.lastgroup is not None
        name = next(name for name in readers if match[name] is not None)
        readings = [r for r in readers[name](match, lang) if r is not None]
        position = max(match.end(), match.start() + 1)
        if readings and match.end() > match.start():
            yield match.start(), match.end(), readings


@lru_cache(maxsize=64)
def _grammar(
    lang: str, own: tuple[tuple[str, str], ...]
) -> tuple[regex.Pattern[str], dict[str, Callable[[regex.Match[str], str], list[str]]]]:
    """Return one pattern of everything that has readings, and what reads each of its groups."""
    known = rules(lang)
    space = "\u00a0\u202f\u2009" + (" " if numbers.symbols(lang)[1].isspace() else "")
    number = (
        rf"(?:\d{{1,3}}(?:(?P<sep>[.,'’{space}])\d{{3}})(?:(?P=sep)\d{{3}})*(?!\d)(?:[.,]\d+)?"
        r"|\d{1,2}(?:,\d\d)+,\d{3}(?!\d)|\d+(?:[.,]\d+)?)"
    )

    def num(name: str) -> str:
        return f"(?P<{name}>{number.replace('sep', name + '_sep')})"

    start, end = rf"(?<![{_S}\d]|\d[.,])", rf"(?![{_S}]|[.,]?\d)"
    sign = "|".join(regex.escape(s) for s in sorted(SIGNS.currencies, key=len, reverse=True))
    large = "|".join(
        regex.escape(word)
        for word in sorted(
            {w for word, short in known.magnitudes.items() for w in (word, *short)}
            | {"million", "billion"}, key=len, reverse=True,
        )
    )  # fmt: skip
    named = numbers.currency_words(lang)
    words = "|".join(map(regex.escape, named))
    unit = "|".join(regex.escape(u) for u in sorted(SIGNS.units, key=len, reverse=True))
    months = "|".join(sorted(map(regex.escape, _months(lang)), key=len, reverse=True)) or r"(?!)"
    word = rf"\s?(?i:{known.clock_word})" if known.clock_word else r"(?!)"
    hourly = "|".join(filter(None, (known.clock_mark, known.clock_word))) or r"(?!)"
    mark = rf"(?::|\s?[{known.clock_mark}]\s?)" if known.clock_mark else ":"
    numerals = "".join(japanese.NUMERALS)
    of = r"(?:\s(?:of|de|di|do|del|ke))?"
    one_before = _NUMBERED if lang == "en" else _NAMED
    groups: dict[str, tuple[str, Callable[[regex.Match[str], str], list[str]]]] = {
        "own": (_own_pattern(own), lambda m, _: [dict(own)[plain(m[0], lang or None)]]),
        "span": (
            rf"{start}(?P<s_sign>{sign})\s?{num('s')}\s?[-−–]\s?(?P<s_to>\d[\d.,]*)(?<=\d){end}",
            lambda m, _: _product([
                numbers.money_readings(m["s_sign"], m["s_to"], "", lang),
                [*known.between.get("-", []), ""], numbers.number_readings(m["s"], lang)[:4],
            ], "{2} {1} {0}"),
        ),
        "money": (
            rf"{start}(?P<m_sign>{sign})\s?{num('m_a')}(?:\s?(?P<m_large>(?i:{large}))(?![{_W}]))?{end}"
            rf"|{start}{num('m_b')}(?:\s?(?P<m_large2>(?i:{large}))\.?)?\s?(?P<m_sign2>{sign})(?![{_S}])",
            lambda m, _: numbers.money_readings(
                m["m_sign"] or m["m_sign2"], m["m_a"] or m["m_b"],
                m["m_large"] or m["m_large2"] or "", lang,
            )
            # $5 to $10: the first may lack its dollars
            + (numbers.number_readings(m["m_a"], lang)[:8] if m["m_a"] and regex.match(
                rf"\s?(?:{'|'.join(['[-−–]', *filter(None, known.between.get('-', []))])})\s?"
                + regex.escape(m["m_sign"]), m.string, pos=m.end()) else []),
        ),
        "amount": (
            rf"{start}(?P<a>\d+[.,]\d\d)\s(?P<a_name>(?i:{words}))(?![{_W}])" if named else "",
            lambda m, _: [
                *_product([numbers.number_readings(m["a"], lang), [m["a_name"]]]),
                *numbers.money_readings(named[m["a_name"].casefold()], m["a"], "", lang),
            ],
        ),
        "half": (
            rf"{start}(?P<h>\d+[.,]5)\s(?P<h_of>(?i:{large}))(?![{_W}])" if known.halves else "",
            lambda m, _: _product([numbers.number_readings(m["h"], lang), [m["h_of"]]]) + [
                r for form in known.halves for r in _product(
                    [numbers.cardinals(m["h"][:-2], lang), [m["h_of"]]], form)
            ],
        ),
        "split": (  # 1.8米 is 一米八, 1.5个 一个半
            r"(?<![\d.])(?P<z>\d+)\.(?P<z_f>\d\d?)(?P<z_of>[米度个])" if lang in SPLITTING else "",
            _split,
        ),
        "date": (
            r"(?<![\d.,/:-])(?:(?P<d_y>\d{4})(?P<d_s>[-./])(?P<d_m>\d{1,2})(?P=d_s)(?P<d_d>\d{1,2})"
            r"|(?P<d_1>\d{1,2})(?P<d_t>[-./])(?P<d_2>\d{1,2})(?P=d_t)(?P<d_z>\d{4}|\d\d)"
            + (r"|(?P<d_e>[0-3]?\d)\.\s?(?P<d_n>[01]?\d)\." if known.dotted_dates else "")
            + r")(?![\d/:-])",
            _date,
        ),
        "clock": (
            rf"{start}(?P<t_h>[01]?\d|2[0-4])(?P<t_mark>{mark}|\.)(?P<t_m>[0-5]\d)(?::(?P<t_s>[0-5]\d))?"
            rf"(?:{word}(?![{_W}]))?(?![{_S}\d]|[.,:]\d|\s?%)"
            rf"|{start}(?P<t_o>[01]?\d|2[0-4])\s?(?:{hourly})(?![{_W}])",
            _clock,
        ),
        "feet": (
            rf"{start}(?P<ft>\d)['’′]\s?(?P<ft_in>\d\d?)(?:[\"”]|[′']{{2}}|(?!\d))"
            if known.feet else "",
            lambda m, _: [
                r for form in known.feet for r in _product([
                    numbers.cardinals(m["ft"], lang), numbers.cardinals(m["ft_in"], lang)], form)
            ],
        ),
        "fraction": (
            rf"{start}(?:(?P<f_w>\d+)\s)?(?P<f>\d\d?/(?:\d\d?|100|1000))(?![\d/])", _fraction,
        ),
        "percent": (rf"{start}{num('p')}\s?[%٪％]|[%٪％]\s?{num('p_after')}{end}",
                    lambda m, _: numbers.percent_readings(m["p"] or m["p_after"], lang)),
        "decade": (r"(?<!\w)['’]?(?P<dec>\d{4}|\d0)['’]?s\b" if known.decades else "",
                   lambda m, _: [*numbers.decade_readings(m["dec"], lang), m["dec"] + "s"]),
        "myriad": (rf"{num('w')}(?P<w_l>[万億亿만억])", _myriad),
        "unit": (rf"{start}{num('u')}\s?(?P<u_sign>{unit})(?![{_W}²³]|\.m)",
                 lambda m, _: numbers.unit_readings(m["u_sign"], m["u"], lang) + (
                     numbers.ordinals(m["u"], lang)
                     if m["u_sign"] == "°" and any("°" in o for o in known.ordinal) else [])),
        "counted": (
            rf"(?:{num('c')}|[{numerals}]+)(?P<c_of>[{''.join(japanese.COUNTERS)}])(?!\p{{Han}})"
            if lang == "ja" else "", _counted,
        ),
        "ordinal": (
            "|".join(rf"(?<![{_S}\d])(?:{o})(?![{_S}\d])" for o in known.ordinal), _ordinal,
        ),
        "day": (
            rf"{start}(?P<day_a>3[01]|[12]\d|[1-9])(?=\.?{of}\s?(?:{months})(?![{_W}]))\.?"
            rf"|(?<=(?:{months})\.?\s)(?P<day_b>3[01]|[12]\d|[1-9])(?!\d|[.,:]\d|[{_S}])",
            _day,
        ),
        "minus": (r"(?<![\p{L}\p{N})\]]|\p{N} )[-−–](?=[$€£]?\d)",
                  lambda m, _: known.minus + [""] * (m[0] == "–")),
        "between": (
            rf"(?<=\d)\s?[{regex.escape(''.join(known.between))}−–]\s?(?=\d)"
            rf"|(?<=\p{{L}})[./](?=\p{{L}})|(?<=[\d\p{{Sc}}%])/(?=\p{{L}})|(?<!\S)\.(?=\p{{L}}{{2}})",
            lambda m, _: known.between.get(regex.sub("[−–]", "-", m[0].strip()), [""]),
        ),
        "number": (rf"{start}{num('n')}{end}|{start}(?P<n_all>\d+){end}",
                   _number),
        "mixed": (rf"(?<![{_S}\d])(?:[{_S}]*+\d[{_S}\d]*[{_S}][{_S}\d]*|[{_S}]++\d+)", _mixed),
        "digits": (r"\d+", lambda m, _: numbers.number_readings(m[0], lang)),
        "phrase": (_phrase_pattern(lang), _phrase),
        "initials": (
            r"(?<![\p{L}\p{N}])(?:\p{L}\p{M}*\.\s?){2,}(?:\p{L}(?![\p{L}\p{N}]))?", _initials,
        ),
        "compound": (
            rf"(?<![{_W}])(?:[{_W}]++(?:(?:{_APOSTROPHE}(?!\d)|{_HYPHEN})[{_W}]++)+{_APOSTROPHE}?"
            rf"|{_APOSTROPHE}[{_W}]+|[{_W}]++{_APOSTROPHE}(?![{_W}]))(?!\.\p{{L}}\.)", _compound,
        ),
        "roman": (
            rf"(?<![{_S}\d])(?:(?=[IVXLC]{{2}})|(?<=\p{{L}}\s?)(?=[VX])|(?<={one_before})(?=I))"
            r"C{0,3}(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
            rf"(?P<r_end>e|è?me|er|re|th|st|nd|rd)?(?![{_S}\d])".replace(
                "I", "I" if lang not in TURKIC_LANGUAGES else "ı"
            ), _roman,
        ),
        "capitals": (r"(?<![\p{L}\p{N}])\p{Lu}{2,5}(?![\p{L}\p{N}])", _capitals),
        "symbol": (
            f"[{regex.escape(''.join(known.symbols))}]" if known.symbols else "",
            lambda m, _: [*known.symbols[m[0]], ""],
        ),
    }  # fmt: skip
    kept = {name: reader for name, (pattern, reader) in groups.items() if pattern}
    pattern = "|".join(f"(?P<{name}>{groups[name][0]})" for name in kept)
    return regex.compile(pattern), kept


def _number(match: regex.Match[str], lang: str) -> list[str]:
    """Read a number; what follows it may take an ordinal, or leave a single one unsaid."""
    known, written = rules(lang), match["n"] or match["n_all"]
    found, after = numbers.number_readings(written, lang), match.string[match.end() :].lstrip()
    if written == "1" and known.one:
        large = {word for words in known.magnitudes.values() for word in words}
        if (word := regex.match(r"\p{L}+", after)) and word[0].casefold() in large:
            found = found + known.one
    before = match.string[max(0, match.start() - 20) : match.start()]
    if known.ordered and regex.search(rf"(?i:{known.ordered})", f"{before}#{after}"):
        found = found + numbers.ordinals(written, lang)
    return found


def _counted(match: regex.Match[str], lang: str) -> list[str]:
    if match["c"] is None:
        return [match[0]]
    return [said + match["c_of"] for said in numbers.number_readings(match["c"], lang)]


def _split(match: regex.Match[str], lang: str) -> list[str]:
    of, whole = match["z_of"], numbers.number_readings(match["z"], lang)
    digits = "".join(numbers.cardinals(digit, lang)[0] for digit in match["z_f"])
    said = [n + of for n in numbers.number_readings(f"{match['z']}.{match['z_f']}", lang)]
    if of != "个":
        return said + [n + of + digits for n in whole]
    return said + ([n + of + "半" for n in whole] if match["z_f"] == "5" else [])


def _myriad(match: regex.Match[str], lang: str) -> list[str]:
    """Read `1.2万`: the number as it is written, and the whole one that it stands for."""
    large = match["w_l"]
    said = _product([numbers.number_readings(match["w"], lang), [large]])
    value = float(match["w"].replace(",", "")) * (10**4 if large in "万만" else 10**8)
    whole = numbers.number_readings(str(round(value)), lang) if value == round(value) else []
    return [reading.replace(" ", "") for reading in said] + said + whole


def _date(match: regex.Match[str], lang: str) -> list[str]:
    if match["d_y"]:
        parts = [(int(match["d_d"]), int(match["d_m"]), match["d_y"])]
    elif "d_e" in match.groupdict() and match["d_e"]:
        parts = [(int(match["d_e"]), int(match["d_n"]), "")]
    else:
        first, second, year = int(match["d_1"]), int(match["d_2"]), match["d_z"]
        parts = [(first, second, year), (second, first, year)]
        if lang == "en" and match["d_t"] == "/":
            parts.reverse()
    found = [
        reading
        for day, month, year in parts
        if 1 <= month <= 12 and 1 <= day <= 31
        for reading in numbers.date_readings(day, month, year, lang)
    ]
    pieces = regex.findall(r"\d+", match[0])
    return found + _product([numbers.number_readings(piece, lang) for piece in pieces])


def _clock(match: regex.Match[str], lang: str) -> list[str]:
    if match["t_o"]:
        return numbers.clock_readings(int(match["t_o"]), 0, lang)
    hour, minute = match["t_h"], match["t_m"]
    found = numbers.clock_readings(int(hour), int(minute), lang)
    if match["t_s"]:
        seconds = numbers.number_readings(match["t_s"], lang)
        return _product([found, seconds])
    if match["t_mark"] == ".":  # a decimal number first; a time where that is the writing
        return numbers.number_readings(f"{hour}.{minute}", lang) + found
    apart = [numbers.number_readings(part, lang) for part in (hour, minute)]
    ratio = rules(lang).between.get(":", [])
    return found + [r for word in ratio for r in _product([apart[0], [word], apart[1]])]


def _fraction(match: regex.Match[str], lang: str) -> list[str]:
    said = list(rules(lang).fractions.get(match["f"], []))
    over, under = (numbers.number_readings(part, lang) for part in match["f"].split("/"))
    said += _product([over[:4], numbers.parts(match["f"].split("/")[1], lang)])
    for word in rules(lang).between.get("/", [""]):
        order = [under, [word], over] if word in PARTS_FIRST else [over, [word], under]
        said += _product(order)
    if not match["f_w"]:
        return said
    whole = numbers.number_readings(match["f_w"], lang)
    return _product([[*rules(lang).joiner.split("|"), ""], whole[:4], said[:8]], "{1} {0} {2}")


def _ordinal(match: regex.Match[str], lang: str) -> list[str]:
    digits = regex.sub(r"\D", "", match[0])
    said = numbers.ordinals(digits, lang)
    if before := regex.split(r"\d", match[0])[0]:  # 第3, ke-5
        said += [before + word for word in numbers.cardinals(digits, lang)]
        said.sort(key=lambda word: not word.startswith(before.strip("-").lower()))
    if said and match[0] != f"{digits}.":
        return [*said, match[0]]
    return said + numbers.number_readings(digits, lang)  # a full stop may be no more than that


def _day(match: regex.Match[str], lang: str) -> list[str]:
    day = match["day_a"] or match["day_b"]
    kinds = [numbers.ordinals(day, lang), numbers.number_readings(day, lang)]
    first, second = kinds if match["day_b"] else kinds[::-1]
    is_after = bool(match["day_b"])
    forms = [
        form.replace("{month}", "").strip()
        for form in rules(lang).date
        if "{month}" in form and (form.index("{month}") < form.index("{day}")) == is_after
    ]
    return (
        first
        + second
        + [form.format(day=word, d="", m="") for form in forms for word in kinds[0] + kinds[1]]
    )


def _mixed(match: regex.Match[str], lang: str) -> list[str]:
    """Read a word of letters and digits, such as `B2B`, `7am` or `mp3`."""
    parts: list[list[str]] = []
    for part in regex.findall(r"\d+|\D+", match[0]):
        if part.isdecimal():
            parts.append(numbers.number_readings(part, lang))
        else:
            letters = [part, " ".join(part)] if len(part) <= 4 else [part]
            letters = _same_reading(part, lang) + letters
            parts.append(letters[::-1] if part.isupper() else letters)
    said = [*_product(parts), match[0]]
    if lang in REDUPLICATES and (word := regex.fullmatch(r"(\p{L}{3,})2", match[0])):
        said.insert(0, f"{word[1]} {word[1]}")
    return said


def _initials(match: regex.Match[str], lang: str) -> list[str]:
    whole = regex.sub(r"[.\s]", "", match[0])
    return [" ".join(whole), whole, *_same_reading(whole, lang)]


def _compound(match: regex.Match[str], lang: str) -> list[str]:
    """Read a word with an apostrophe or a hyphen inside."""
    text = match[0]
    straight = regex.sub(_APOSTROPHE, "'", text).casefold()
    said = [] if straight in rules(lang).apart else [text]
    for pattern, words in rules(lang).contractions:
        if regex.fullmatch(pattern, straight):
            said += [regex.sub(f"^(?:{pattern})$", word, straight) for word in words]
            break
    if straight in rules(lang).apart:
        return said
    whole = regex.sub(_HYPHEN, "", text)
    said += [regex.sub(f"{_APOSTROPHE}|{_HYPHEN}", " ", text), whole, *_same_reading(whole, lang)]
    if regex.search(r"\d", text):
        pieces = regex.split(_HYPHEN, text)
        said = (
            _product(
                [
                    numbers.number_readings(piece, lang) if piece.isdecimal() else [piece]
                    for piece in pieces
                ]
            )
            + said
        )
    return said


def _roman(match: regex.Match[str], lang: str) -> list[str]:
    numeral = match[0].removesuffix(match["r_end"] or "")
    values = [ROMAN[letter] for letter in numeral]
    signed = zip(values, [*values[1:], 0], strict=True)
    value = str(sum(-v if v < after else v for v, after in signed))
    the = [f"{a} {word}" for a in rules(lang).articles for word in numbers.ordinals(value, lang)]
    if match["r_end"]:
        return [*numbers.ordinals(value, lang), match[0]]
    said = numbers.number_readings(value, lang) + numbers.ordinals(value, lang) + the
    return [numeral, " ".join(numeral), *said]


def _capitals(match: regex.Match[str], lang: str) -> list[str]:
    word = plain(match[0], lang or None)
    return [*(_same_reading(word, lang) or [match[0]]), match[0], " ".join(match[0])]


def _same_reading(word: str, lang: str) -> list[str]:
    """Return the one spelling of a word, where it has several."""
    key = plain(word, lang or None)
    found = _same_words(lang).get(key)
    phrases = _phrases(lang).get(key, [])
    return ([found] if found else []) + phrases


def _product(parts: list[list[str]], template: str = "") -> list[str]:
    found = []
    for words in product(*parts):
        found.append(template.format(*words) if template else " ".join(words))
        if len(found) == MAX_PRODUCT:
            break
    return found


@cache
def _months(lang: str) -> frozenset[str]:
    found = locale(lang)
    if found is None:
        return frozenset()
    names = {
        name.rstrip(".")
        for use in ("format", "stand-alone")
        for width in ("wide", "abbreviated")
        for name in found.months[use][width].values()
    }
    return frozenset(name for name in names if len(name) > 1 and not regex.search(r"\d", name))


def _short_months(lang: str) -> Iterator[tuple[str, str]]:
    """Yield abbreviated months, without their dot, and their names."""
    found = locale(lang)
    if found is None:
        return
    for month, short in found.months["format"]["abbreviated"].items():
        name, short = found.months["format"]["wide"][month], short.rstrip(".")
        if short != name and not regex.search(r"\d", short + name) and len(short) > 2:
            yield short, name


def _phrase(match: regex.Match[str], lang: str) -> list[str]:
    found, key = _phrases(lang), _key(match[0])
    return next(found[k] for k in (key, key + BESIDE, key.rstrip(".") + BESIDE) if k in found)


def _key(text: str) -> str:
    """Return the form in which phrases are looked up: apostrophes of one kind, and blanks."""
    text = regex.sub(_APOSTROPHE, "'", text).casefold()
    return str(regex.sub(r"(?<=\.) ", "", " ".join(text.replace("-", " ").split())))


def _is_word(text: str, lang: str) -> bool:
    """Tell whether a spelling is one word between blanks, without marks."""
    word = plain(text, lang)
    return word == _key(text) and units(word) == [word] and not is_unspaced_letter(word[0])


@cache
def _phrases(lang: str) -> dict[str, list[str]]:
    """Return what is looked up with its blanks, dots and apostrophes, and its readings."""
    found: dict[str, list[str]] = {}
    for first, others in rules(lang).spelling.items():
        for other in others:
            if not _is_word(other, lang):
                found[_key(other)] = [first]
    for short, name in _short_months(lang):
        found[f"{_key(short)}{BESIDE}"] = [name, short]
    for short, words in rules(lang).abbreviations.items():
        key = _key(short)
        bare = key.rstrip(f".{BESIDE}")
        same = [first for first, others in rules(lang).spelling.items() if bare in others]
        found[key] = [*words, bare, *same]
        if not key.endswith((".", BESIDE)):
            found[f"{key}."] = found[key]
    return found


@cache
def _phrase_pattern(lang: str) -> str:
    keys = sorted(_phrases(lang), key=len, reverse=True)
    if not keys:
        return ""
    found = []
    for key in keys:
        inside = regex.sub(r"\\? ", r"[\\s-]+", regex.escape(key.rstrip(BESIDE)))
        inside = regex.sub(r"\\\.(?=\w)", r"\\.[\\s-]*", inside.replace("'", _APOSTROPHE))
        if key.endswith(BESIDE):  # in front of a number, or behind it as in "5 de dez."
            behind = rf"(?<=\d\.?\s(?:d[ei]\s)?){inside}\.?|{inside}\.(?=\s(?-i:\p{{Ll}}))"
            if _phrases(lang)[key][0][0].isupper():
                behind += rf"|(?-i:(?=\p{{Lu}})){inside}\."
            inside = rf"(?:{inside}\.?(?=,?\s?\d)|{behind})"
        found.append(inside)
    inside = "|".join(found)
    if lang in ("zh", "yue", "ja"):
        return f"(?:{inside})"
    return rf"(?<![{_W}'’-])(?i:{inside})(?:(?<=\.)(?=\d)|(?!['’-]?[{_W}]))"


@cache
def _same_words(lang: str) -> dict[str, str]:
    """Return the one spelling of every single word that has several."""
    found = {}
    for first, others in rules(lang).spelling.items():
        for other in others:
            if _is_word(other, lang):
                found[plain(other, lang)] = plain(first, lang)
    for word in found:  # to the end of a chain
        seen = {word}
        while (after := found.get(found[word])) is not None and after not in seen:
            seen.add(after)
            found[word] = after
    return {word: first for word, first in found.items() if word != first}


def _own_pattern(own: tuple[tuple[str, str], ...]) -> str:
    if not own:
        return ""
    keys = sorted((key for key, _ in own), key=len, reverse=True)
    inside = "|".join(r"[\s\p{P}]+".join(map(regex.escape, key.split())) for key in keys)
    return rf"(?<![{_W}])(?i:{inside})(?![{_W}])"
