"""The sentences of the miniature world: statements, questions, numbers, names, short and long.

Every sentence is drawn from a small grammar, so that its words are known to the small models
while the sentence itself may be new to them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable

KINDS = ("plain", "short", "question", "number", "name", "exclaim", "long")

#: How often each kind is drawn for a corpus.
KIND_SHARES = {
    "plain": 34, "short": 12, "question": 14, "number": 16, "name": 12, "exclaim": 4, "long": 8,
}  # fmt: skip

_EN = {
    "det": ("the", "a", "my", "our"),
    "adj": (
        "old", "young", "happy", "little", "quiet", "tall", "kind", "angry", "tired", "clever",
    ),
    "who": (
        "man", "woman", "boy", "girl", "teacher", "farmer", "doctor", "king", "sailor", "baker",
        "driver", "painter", "nurse", "queen", "judge", "student", "brother", "sister", "uncle",
        "mother",
    ),
    "slept": ("slept", "waited", "laughed", "worked", "danced", "cried", "smiled", "walked"),
    "sleep": ("sleep", "wait", "laugh", "work", "dance", "cry", "smile", "walk"),
    "look": (
        "red", "green", "blue", "big", "small", "new", "heavy", "empty", "yellow", "black",
        "white", "broken", "cheap", "wooden", "dirty",
    ),
    "what": (
        "book", "box", "door", "car", "boat", "horse", "apple", "letter", "table", "bottle",
        "window", "hat", "chair", "lamp", "clock", "cup", "basket", "coat", "shoe", "ring", "key",
        "map", "picture", "blanket", "bicycle", "umbrella", "mirror", "candle", "ladder", "guitar",
    ),
    "where": (
        "near the river", "in the garden", "behind the school", "at the market", "by the window",
        "on the table", "under the bridge", "in the kitchen", "at the station", "on the hill",
        "next to the church", "in front of the house",
    ),
    "when": (
        "today", "yesterday", "again", "in the morning", "after dinner", "before winter",
        "on Sunday", "at night", "with a friend", "this summer", "on Monday", "last week",
        "at noon",
    ),
    "soon": ("tomorrow", "tonight", "next week", "on Friday", "soon", "after lunch"),
    "weather": ("cold", "warm", "windy", "rainy", "dark", "sunny"),
    "first": (
        "Anna", "Peter", "Tom", "Maria", "David", "Laura", "Henry", "Emma", "Jack", "Lucy",
        "Simon", "Helen", "Oliver", "Martin", "Julia", "Robert", "Alice", "Daniel", "Victor",
        "Nina", "Felix", "Gina", "Zara",
    ),
    "last": (
        "Brown", "Miller", "Carter", "Walker", "Wilson", "Parker", "Taylor", "Cooper", "Harris",
        "Turner", "Quinn",
    ),
    "place": (
        "London", "Paris", "Boston", "Berlin", "Dublin", "Texas", "Canada", "Spain", "Madrid",
        "India",
    ),
}  # fmt: skip

#: Verbs with an object: past and infinitive.
_DID = {
    "saw": "see", "found": "find", "bought": "buy", "carried": "carry", "opened": "open",
    "painted": "paint", "washed": "wash", "dropped": "drop", "sold": "sell", "cleaned": "clean",
    "broke": "break", "closed": "close", "moved": "move", "lost": "lose", "fixed": "fix",
    "brought": "bring",
}  # fmt: skip

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = {
    1: "first", 2: "second", 3: "third", 5: "fifth", 8: "eighth", 9: "ninth", 12: "twelfth",
    20: "twentieth", 30: "thirtieth",
}  # fmt: skip
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_UNITS = {"km": "kilometers", "kg": "kilograms", "cm": "centimeters", "%": "percent"}
_TITLES = {"Mr.": "Mister", "Mrs.": "Missus", "Dr.": "Doctor"}
_INITIALS = {"a.m.": "A M", "p.m.": "P M"}
_SIGNS = {"$": ("dollar", "cent"), "€": ("euro", "cent")}
_LETTERS = dict(zip(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    ("ay bee see dee ee eff jee aitch eye jay kay ell em en oh pee cue are ess tee you vee "
     "double-you ex why zee").split(), strict=True,
))  # fmt: skip

_MS = {
    "who": (
        "saya", "dia", "kami", "ayah", "ibu", "adik", "guru", "jiran", "kawan", "nenek", "abang",
        "kakak", "doktor", "petani", "murid", "polis",
    ),
    "did": (
        "beli", "bawa", "baca", "lihat", "buka", "cuci", "jual", "simpan", "cari", "ambil",
        "tutup", "jumpa", "suka", "pegang",
    ),
    "many": ("dua", "tiga", "lima"),
    "what": (
        "buku", "ikan", "kereta", "surat", "pintu", "bunga", "roti", "baju", "kotak", "rumah",
        "payung", "kerusi", "jam", "topi", "kasut", "lampu", "kunci", "gambar", "pisang", "telur",
        "meja", "basikal",
    ),
    "look": (
        "merah", "besar", "kecil", "baru", "lama", "putih", "hitam", "hijau", "murah", "mahal",
        "panjang", "bersih",
    ),
    "this": ("itu", "ini"),
    "where": (
        "di pasar", "di sekolah", "di rumah", "di bandar", "di taman", "di dapur", "di pejabat",
        "di kampung", "di kedai", "di tepi sungai",
    ),
    "when": (
        "hari ini", "pagi tadi", "setiap malam", "sekarang", "semalam", "dengan kawan",
        "minggu lepas", "petang ini", "esok", "selepas makan",
    ),
    "first": (
        "Ali", "Siti", "Aminah", "Hassan", "Rahman", "Jamil", "Nora", "Farid", "Salmah", "Kamal",
        "Rosli", "Zaiton",
    ),
    "place": ("Melaka", "Ipoh", "Johor", "Pahang", "Kedah", "Perlis"),
}  # fmt: skip
_MS_ONES = (
    "kosong", "satu", "dua", "tiga", "empat", "lima", "enam", "tujuh", "lapan", "sembilan",
)  # fmt: skip
_MS_MONTHS = ("Januari", "Mac", "April", "Julai", "Jun", "Ogos", "Oktober", "Disember")

#: Whole utterances that everyone says; they are learnt, and so belong to no held-out corpus.
_EN_SHORT = (
    "Yes.", "No.", "Maybe.", "Good morning.", "Good night.", "Thank you.", "Come in.", "Hello.",
    "Goodbye.", "Not today.", "Wait here.", "Stop!", "Look!", "Help me!", "Of course.", "Really?",
    "Who is it?", "What happened?", "Why not?", "Very good.", "Not yet.", "Never again.",
    "See you tomorrow.", "I know.", "Sit down.",
)  # fmt: skip
_MS_SHORT = (
    "Ya.", "Tidak.", "Mungkin.", "Terima kasih.", "Selamat pagi.", "Selamat malam.", "Sila masuk.",
    "Apa khabar?", "Siapa itu?", "Mari sini.", "Tunggu sekejap.", "Tolong saya!", "Belum lagi.",
    "Sudah tentu.", "Jumpa lagi.", "Tidak apa.",
)  # fmt: skip


PHRASES = frozenset((*_EN_SHORT, *_MS_SHORT))


def number_words(number: int) -> str:
    """Return a whole number below a million in English words.

    Args:
        number: The number.
    """
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
    base, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    high, low = divmod(number, base)
    return f"{number_words(high)} {name}" + (f" {number_words(low)}" if low else "")


def ordinal_words(number: int) -> str:
    """Return an ordinal below one hundred in English words.

    Args:
        number: The number.
    """
    if number in _ORDINALS:
        return _ORDINALS[number]
    if number > 20:
        return f"{_TENS[number // 10]}-{ordinal_words(number % 10)}"
    return number_words(number) + "th"


def malay_number_words(number: int) -> str:
    """Return a number from 0 to 999 in Malay words.

    Args:
        number: The number.
    """
    if number < 10:
        return _MS_ONES[number]
    if number < 20:
        return {10: "sepuluh", 11: "sebelas"}.get(number) or f"{_MS_ONES[number - 10]} belas"
    if number < 100:
        tens, ones = divmod(number, 10)
        return f"{_MS_ONES[tens]} puluh" + (f" {_MS_ONES[ones]}" if ones else "")
    high, low = divmod(number, 100)
    head = "seratus" if high == 1 else f"{_MS_ONES[high]} ratus"
    return head + (f" {malay_number_words(low)}" if low else "")


def _count(number: int, one: str) -> str:
    return f"{number_words(number)} {one}" + ("" if number == 1 else "s")


def _money(match: re.Match[str]) -> str:
    whole, part = _SIGNS[match[1]]
    said = _count(int(match[2]), whole)
    return said + (f" and {_count(int(match[3]), part)}" if match[3] else "")


def _time(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    if not minute:
        return f"{number_words(hour)} o'clock"
    return f"{number_words(hour)} {'oh ' if minute < 10 else ''}{number_words(minute)}"


def _year(match: re.Match[str]) -> str:
    high, low = divmod(int(match[1]), 100)
    if low < 10:
        return number_words(int(match[1]))
    return f"{number_words(high)} {number_words(low)}"


def spoken(text: str) -> str:
    """Write a sentence of the grammar as it is said: digits, signs and abbreviations in words.

    Args:
        text: English text; Malay of the grammar has none of these and stays as it is.

    Returns:
        The same with words alone, single letters in capitals.
    """
    for short, full in _TITLES.items():
        text = text.replace(short, full)
    for short, full in _INITIALS.items():  # their stop ends the sentence too
        text = re.sub(re.escape(short) + r"(?=$| [A-Z])", full + ".", text).replace(short, full)
    text = re.sub(r"\b([A-Z](?:-[A-Z])+)\b", lambda m: m[1].replace("-", " "), text)
    text = re.sub(r"([$€])(\d+)(?:\.(\d\d))?", _money, text)
    text = re.sub(r"\b(\d{1,2}):(\d\d)\b", _time, text)
    months = "|".join(_MONTHS)
    text = re.sub(rf"\b({months}) (\d{{1,2}})\b(?!\d)",
                  lambda m: f"{m[1]} {ordinal_words(int(m[2]))}", text)  # fmt: skip
    text = re.sub(r"\b(\d{1,2})(?:st|nd|rd|th)\b", lambda m: ordinal_words(int(m[1])), text)
    text = re.sub(r"(?<=\d) ?(km|kg|cm|%)(?!\w)", lambda m: " " + _UNITS[m[1]], text)
    text = re.sub(r"\b(1[89]\d\d|20\d\d)\b", _year, text)
    return re.sub(r"\d{1,6}", lambda m: number_words(int(m[0])), text)


def sounded(text: str) -> str:
    """Write a sentence for a speech synthesiser: :func:`spoken`, and letters by their names.

    Args:
        text: A sentence of either language.
    """
    words = re.sub(r"\b([A-Z]) (?=[A-Z]\b)", r"\1, ", spoken(text))
    return re.sub(r"\b[B-HJ-Z]\b|\bA(?=,)|(?<=, )[AI]\b", lambda m: _LETTERS[m[0]], words)


def _article(words: list[str]) -> list[str]:
    fixed = list(words)
    for i, word in enumerate(fixed[:-1]):
        if word == "a" and fixed[i + 1][0] in "aeiou":
            fixed[i] = "an"
    return fixed


def _finish(words: Iterable[str], end: str = ".") -> str:
    text = " ".join(_article(" ".join(words).split()))
    text = text[0].upper() + text[1:]
    return text if end == "." and text.endswith(".") else text + end


def plural(noun: str) -> str:
    """Return the plural of a noun of the grammar."""
    return noun + ("es" if noun.endswith(("x", "s", "ch")) else "s")


class _English:
    """Draws English sentences of each kind."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def pick(self, key: str) -> str:
        return self.rng.choice(_EN[key])

    def who(self) -> list[str]:
        adjective = [self.pick("adj")] if self.rng.random() < 0.45 else []
        return [self.pick("det"), *adjective, self.pick("who")]

    def what(self) -> list[str]:
        look = [self.pick("look")] if self.rng.random() < 0.5 else []
        return [self.pick("det"), *look, self.pick("what")]

    def past(self) -> str:
        return self.rng.choice(list(_DID))

    def infinitive(self) -> str:
        return self.rng.choice(list(_DID.values()))

    def tail(self, words: list[str], keys: tuple[str, ...], most: int = 10) -> list[str]:
        room = most - len(words)
        tails = [t for key in keys for t in _EN[key] if len(t.split()) <= room]
        return self.rng.choice(tails).split() if tails else []

    def plain(self) -> str:
        shape = self.rng.random()
        if shape < 0.42:
            words = [*self.who(), self.past(), *self.what()]
        elif shape < 0.54:
            words = [*self.who(), self.pick("slept")]
        elif shape < 0.66:
            return _finish([*self.what(), "was", self.pick("where")])
        elif shape < 0.74:
            words = [*self.who(), "and", self.pick("det"), self.pick("who"), self.past(),
                     *self.what()]  # fmt: skip
        elif shape < 0.88:
            helper = self.rng.choice(("will", "can", "has to", "wants to", "should"))
            words = [*self.who(), *helper.split(), self.infinitive(), *self.what()]
            if self.rng.random() < 0.5:
                words += self.tail(words, ("soon", "where"))
            return _finish(words)
        elif shape < 0.94:
            end = self.rng.choice((self.pick("look"), self.pick("where")))
            return _finish([self.pick("det"), self.pick("what"), "is", "very" if " " not in end
                            and self.rng.random() < 0.4 else "", end])  # fmt: skip
        else:
            end = self.pick("where") if self.rng.random() < 0.5 else self.pick("when")
            return _finish(["it was", self.pick("weather"), end])
        if self.rng.random() < 0.7:
            tail = self.tail(words, ("when", "where"))
            front = tail and tail[0] in ("today", "yesterday", "in", "on", "at", "after", "before")
            words = [*tail, *words] if front and self.rng.random() < 0.3 else [*words, *tail]
        return _finish(words)

    def short(self) -> str:
        shape = self.rng.random()
        if shape < 0.12:
            return self.rng.choice(_EN_SHORT)
        if shape < 0.17:
            key = self.rng.choice(("what", "look", "weather", "first", "place"))
            return _finish([self.pick(key)])
        if shape < 0.24:
            return _finish([number_words(self.rng.randrange(1, 100))])
        if shape < 0.55:
            return _finish([self.pick("det"), self.pick("look"), self.pick("what")])
        if shape < 0.68:
            return _finish([self.pick("det"), self.pick("adj"), self.pick("who")])
        if shape < 0.76:
            places = [t for t in _EN["where"] if len(t.split()) <= 3]
            return _finish([self.rng.choice(places + list(_EN["soon"]))])
        if shape < 0.86:
            return _finish([self.rng.choice(("he", "she", "we", "they")), self.past(), "it"])
        if shape < 0.93:
            return _finish([self.infinitive(), self.rng.choice(("the", "my", "your")),
                            self.pick("what")])  # fmt: skip
        return _finish([self.rng.choice(("very", "too", "not", "so")), self.pick("look")],
                       self.rng.choice(".?"))  # fmt: skip

    def question(self) -> str:
        shape = self.rng.random()
        if shape < 0.26:
            words = ["did", *self.who(), self.infinitive(), *self.what()]
        elif shape < 0.38:
            words = ["is", self.pick("det"), self.pick("what"), self.rng.choice(
                (self.pick("look"), self.pick("where")))]  # fmt: skip
            return _finish(words, "?")
        elif shape < 0.48:
            words = ["where", self.rng.choice(("is", "was")), *self.what()]
            return _finish(words, "?")
        elif shape < 0.60:
            words = ["who", self.past(), *self.what()]
        elif shape < 0.72:
            words = ["what", "did", *self.who(), self.infinitive()]
        elif shape < 0.82:
            words = [self.rng.choice(("can", "will", "should")),
                     self.rng.choice(("you", "we", "they", "she", "he")), self.infinitive(),
                     *self.what()]  # fmt: skip
            if self.rng.random() < 0.4:
                words += self.tail(words, ("soon",))
            return _finish(words, "?")
        elif shape < 0.91:
            words = ["why did", *self.who(), self.pick("sleep")]
        else:
            return _finish(["how many", plural(self.pick("what")), "did",
                            self.rng.choice(("you", "they", "she", "he")), self.infinitive()],
                           "?")  # fmt: skip
        if self.rng.random() < 0.4:
            words += self.tail(words, ("when", "where"))
        return _finish(words, "?")

    def exclaim(self) -> str:
        shape = self.rng.random()
        if shape < 0.35:
            return _finish(["what a", self.pick("look"), self.pick("what")], "!")
        if shape < 0.65:
            return _finish(["look at", *self.what()], "!")
        if shape < 0.85:
            return _finish(["please", self.infinitive(), self.rng.choice(("the", "my", "our")),
                            self.pick("look"), self.pick("what")], "!")  # fmt: skip
        return _finish(["do not", self.infinitive(), self.rng.choice(("the", "my", "our")),
                        self.pick("what")], "!")  # fmt: skip

    def person(self) -> str:
        shape = self.rng.random()
        if shape < 0.5:
            return self.pick("first")
        if shape < 0.75:
            return f"{self.pick('first')} {self.pick('last')}"
        return f"{self.rng.choice(list(_TITLES))} {self.pick('last')}"

    def name(self) -> str:
        shape = self.rng.random()
        if shape < 0.22:
            words = [self.person(), self.past(), *self.what()]
            if self.rng.random() < 0.4:
                words += self.tail(words, ("when",))
            return _finish(words)
        if shape < 0.36:
            return _finish([self.person(), "and", self.person(), self.rng.choice(
                (self.pick("slept"), "live", "met", "stayed")), "in", self.pick("place")]
            )  # fmt: skip
        if shape < 0.48:
            return _finish(["my name is", self.pick("first"), self.pick("last")])
        if shape < 0.62:
            how = self.rng.choice(("wrote to", "called", "visited", "waited for", "came with"))
            return _finish([self.person(), how, self.person()])
        if shape < 0.72:
            return _finish([self.person(), "comes from", self.pick("place")])
        if shape < 0.80:
            return _finish(["is", self.person(), "in", self.pick("place")], "?")
        name = self.pick(self.rng.choice(("first", "first", "last", "place")))
        letters = "-".join(name.upper())
        if shape < 0.92:
            return _finish([name, self.rng.choice(("is spelled", "is written")), letters])
        return _finish(["please spell it", letters])

    def written(self, digits: str) -> str:
        """Return a number as digits, three times in four, or else in words."""
        return digits if self.rng.random() < 0.75 else spoken(digits)

    def number(self) -> str:
        rng, shape = self.rng, self.rng.random()
        small = rng.randrange(2, 100)
        if shape < 0.20:
            count = rng.randrange(2, 10) if rng.random() < 0.3 else small
            often = number_words(count) if count < 10 else self.written(str(count))
            return _finish([*self.who(), self.past(), often, plural(self.pick("what"))])
        if shape < 0.40:
            sign = "$" if rng.random() < 0.8 else "€"
            cents = f".{rng.choice((10, 25, 50, 75, 99))}" if rng.random() < 0.25 else ""
            price = self.written(f"{sign}{rng.randrange(1, 100)}{cents}")
            if rng.random() < 0.6:
                return _finish([*self.what(), rng.choice(("costs", "was")), price])
            return _finish([rng.choice(("he", "she", "we", self.pick("first"))), "paid", price,
                            "for", *self.what()])  # fmt: skip
        if shape < 0.58:
            clock = f"{rng.randrange(1, 13)}:{rng.choice((0, 5, 10, 15, 20, 30, 40, 45)):02d}"
            kind = rng.random()
            if kind < 0.2:
                hour = number_words(rng.randrange(1, 13))
                clock = f"{rng.choice(('half past', 'a quarter to', 'a quarter past'))} {hour}"
            elif kind < 0.4:
                clock = f"{rng.randrange(1, 13)} {rng.choice(('a.m.', 'p.m.'))}"
            else:
                clock = self.written(clock)
            front = rng.choice(("it is now", "the train leaves at", "come back at",
                                f"{' '.join(self.who())} {self.pick('slept')} until"))  # fmt: skip
            return _finish([front, clock])
        if shape < 0.72:
            month = rng.choice(_MONTHS)
            date = f"{month} {rng.randrange(1, 32 if month != 'February' else 30)}"
            if rng.random() < 0.35:
                year = self.written(str(rng.choice((rng.randrange(1911, 2000),
                                                    rng.randrange(2010, 2030)))))  # fmt: skip
                return _finish([*self.what(), "was", rng.choice(("sold", "made", "found")), "in",
                                year])  # fmt: skip
            front = rng.choice(("today is", "we met on", "she was born on", "come on"))
            return _finish([front, self.written(date)])
        if shape < 0.84:
            unit = rng.choice(("km", "kg", "cm", "%"))
            amount = self.written(f"{small}%" if unit == "%" else f"{small} {unit}")
            if unit == "%":
                return _finish([amount, "of the", plural(self.pick("what")), "are",
                                self.pick("look")])  # fmt: skip
            if unit == "km":
                return _finish([*self.who(), "walked", amount])
            return _finish([*self.what(), "is" if unit == "cm" else "weighs", amount,
                            "long" if unit == "cm" else ""])  # fmt: skip
        if shape < 0.92:
            large = rng.choice((rng.randrange(100, 1000), 100 * rng.randrange(1, 10),
                                1000 * rng.randrange(1, 10)))  # fmt: skip
            return _finish([rng.choice(("there are", "we need", "they sold")),
                            self.written(str(large)), plural(self.pick("what"))])  # fmt: skip
        if shape < 0.96:
            day = rng.randrange(1, 32)
            ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day not in (11, 12, 13) else 0,
                                                     "th")  # fmt: skip
            return _finish(["open the", self.written(f"{day}{ending}"),
                            rng.choice(("door", "box", "window", "letter"))])  # fmt: skip
        return _finish(["read page", self.written(str(small)), "of", *self.what()[:1], "book"])

    def long(self) -> str:
        count = self.rng.choice((2, 2, 3, 3, 4))
        kinds = self.rng.choices(("plain", "question", "number", "name", "exclaim"),
                                 (10, 3, 3, 3, 1), k=count)  # fmt: skip
        return " ".join(getattr(self, kind)() for kind in kinds)


class _Malay:
    """Draws Malay sentences of each kind."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def pick(self, key: str) -> str:
        return self.rng.choice(_MS[key])

    def who(self) -> list[str]:
        who = [self.pick("who")]
        if who[0] not in ("saya", "dia", "kami") and self.rng.random() < 0.3:
            who.append("saya")
        return who

    def what(self) -> list[str]:
        many = [self.pick("many")] if self.rng.random() < 0.3 else []
        look = [self.pick("look")] if self.rng.random() < 0.6 else []
        this = [self.pick("this")] if self.rng.random() < 0.4 else []
        return [*many, self.pick("what"), *look, *this]

    def tail(self) -> list[str]:
        shape = self.rng.random()
        return [self.pick("when" if shape < 0.45 else "where")] if shape < 0.8 else []

    def plain(self) -> str:
        shape = self.rng.random()
        if shape < 0.75:
            return _finish([*self.who(), self.pick("did"), *self.what(), *self.tail()])
        if shape < 0.88:
            helper = self.rng.choice(("akan", "mahu", "boleh", "perlu"))
            return _finish([*self.who(), helper, self.pick("did"), *self.what()])
        return _finish([self.pick("what"), self.pick("this"), "ada", self.pick("where")])

    def short(self) -> str:
        shape = self.rng.random()
        if shape < 0.12:
            return self.rng.choice(_MS_SHORT)
        if shape < 0.20:
            return _finish([self.pick(self.rng.choice(("what", "look", "first", "place")))])
        if shape < 0.28:
            return _finish([malay_number_words(self.rng.randrange(1, 100))])
        if shape < 0.62:
            return _finish([self.pick("what"), self.pick("look"), self.pick("this")])
        if shape < 0.80:
            return _finish([self.pick("what"), self.pick("look")])
        if shape < 0.9:
            return _finish([self.pick("where")])
        return _finish([self.pick("did"), self.pick("what"), self.pick("this")])

    def question(self) -> str:
        shape = self.rng.random()
        if shape < 0.25:
            return _finish(["adakah", *self.who(), self.pick("did"), *self.what()], "?")
        if shape < 0.45:
            return _finish(["siapa yang", self.pick("did"), *self.what()], "?")
        if shape < 0.6:
            return _finish(["di mana", self.pick("what"), self.pick("look"), self.pick("this")],
                           "?")  # fmt: skip
        if shape < 0.75:
            return _finish(["berapa harga", self.pick("what"), self.pick("look"),
                            self.pick("this")], "?")  # fmt: skip
        if shape < 0.9:
            return _finish(["apa yang", *self.who(), self.pick("did"), self.pick("where")], "?")
        return _finish(["bila", *self.who(), "akan", self.pick("did"), self.pick("what")], "?")

    def exclaim(self) -> str:
        if self.rng.random() < 0.5:
            return _finish(["tolong", self.pick("did"), self.pick("what"), self.pick("look"),
                            self.pick("this")], "!")  # fmt: skip
        return _finish(["jangan", self.pick("did"), self.pick("what"), self.pick("this")], "!")

    def name(self) -> str:
        shape = self.rng.random()
        if shape < 0.4:
            return _finish([self.pick("first"), self.pick("did"), *self.what(), *self.tail()])
        if shape < 0.55:
            return _finish(["nama saya", self.pick("first")])
        if shape < 0.75:
            return _finish([self.pick("first"), "dan", self.pick("first"), "tinggal di",
                            self.pick("place")])  # fmt: skip
        return _finish([self.pick("first"), "datang dari", self.pick("place"), *self.tail()[:1]])

    def number(self) -> str:
        rng, shape = self.rng, self.rng.random()
        small = malay_number_words(rng.randrange(2, 100))
        if shape < 0.3:
            price = malay_number_words(rng.randrange(2, 400))
            return _finish(["harga", self.pick("what"), self.pick("this"), price, "ringgit"])
        if shape < 0.6:
            return _finish([*self.who(), self.pick("did"), small, self.pick("what")])
        if shape < 0.8:
            hour = malay_number_words(rng.randrange(1, 13))
            half = " setengah" if rng.random() < 0.3 else ""
            when = rng.choice((" pagi", " malam", " petang", ""))
            return _finish([rng.choice(("sekarang", "kedai itu buka", "mari sini")),
                            f"pukul {hour}{half}{when}"])  # fmt: skip
        day = malay_number_words(rng.randrange(1, 32))
        return _finish([rng.choice(("hari ini", "esok", "kami jumpa pada")), day,
                        rng.choice(_MS_MONTHS)])  # fmt: skip

    def long(self) -> str:
        count = self.rng.choice((2, 2, 3, 3))
        kinds = self.rng.choices(("plain", "question", "number", "name", "exclaim"),
                                 (10, 3, 3, 3, 1), k=count)  # fmt: skip
        return " ".join(getattr(self, kind)() for kind in kinds)


_GRAMMARS: dict[str, Callable[[random.Random], _English | _Malay]] = {
    "english": _English,
    "malay": _Malay,
}


def sentence(language: str, kind: str, rng: random.Random) -> str:
    """Draw one sentence.

    Args:
        language: ``english`` or ``malay``.
        kind: One of :data:`KINDS`.
        rng: Source of randomness.

    Returns:
        The sentence with its punctuation; kind ``long`` has two to four sentences.
    """
    draw: Callable[[], str] = getattr(_GRAMMARS[language](rng), kind)
    return draw()


#: Syllables of invented words: what is written, and espeak's code for how it is said.
ONSETS = {
    "": "", "b": "b", "d": "d", "f": "f", "g": "g", "h": "h", "j": "dZ", "k": "k", "l": "l",
    "m": "m", "n": "n", "p": "p", "r": "r", "s": "s", "t": "t", "w": "w", "y": "j", "z": "z",
    "ch": "tS", "sh": "S", "ny": "nj", "ng": "N",
}  # fmt: skip
VOWELS = {
    "ah": "A:", "ee": "i:", "oo": "u:", "uh": "@", "oh": "oU", "ay": "eI", "eye": "aI", "ow": "aU",
    "oy": "OI",
}  # fmt: skip
CODAS = {
    "": "", "n": "n", "m": "m", "ng": "N", "t": "t", "k": "k", "p": "p", "r": "r", "l": "l",
    "s": "s", "b": "b", "d": "d", "f": "f", "g": "g", "z": "z", "ch": "tS", "sh": "S",
}  # fmt: skip
_CODA_SHARES = (*(4,) * 10, *(1,) * 7)
_VOWEL_SHARES = (5, 3, 3, 4, 1.5, 1, 1, 1, 0.5)


def _invented_word(rng: random.Random) -> tuple[str, str]:
    """Draw an invented word: its spelling and its phonemes, stressed on the last but one."""
    count = rng.choices((1, 2, 3, 4), (2, 8, 5, 1))[0]
    written, said = [], []
    for n in range(count):
        onset = rng.choice([key for key in ONSETS if n == 0 or key])
        vowel = rng.choices(list(VOWELS), _VOWEL_SHARES)[0]
        closed = rng.random() < (0.5 if n + 1 == count else 0.2)
        coda = rng.choices(list(CODAS), _CODA_SHARES)[0] if closed else ""
        written.append(onset + vowel + coda)
        stress = "'" if n == max(count - 2, 0) else ""
        said.append(ONSETS[onset] + stress + VOWELS[vowel] + CODAS[coda])
    return "-".join(written), f"[[{''.join(said)}]]"


def respelled_sentence(rng: random.Random) -> tuple[str, str]:
    """Draw a sentence of invented words, two in five with English words among them.

    Args:
        rng: Source of randomness.

    Returns:
        The sentence, and what espeak is to be given: the same with phonemes for the invented
        words.
    """
    end = rng.choices(".?!", (8, 2, 1))[0]
    if rng.random() < 0.6:
        words = [_invented_word(rng) for _ in range(rng.choice((1, 2, 3, 3, 4, 4, 5, 6, 8)))]
    else:
        plain = sentence("english", "plain", rng).rstrip(".").lower().split()[:7]
        words = [(word, word) for word in plain]
        for at in rng.sample(range(len(words)), k=min(2, len(words))):
            words[at] = _invented_word(rng)
    return _finish((w for w, _ in words), end), " ".join(said for _, said in words) + end
