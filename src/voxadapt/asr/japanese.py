"""Japanese by reading: the kana of words, and of numbers with what they count.

Words are known by Sudachi where it is installed. Numbers are read here, since what a numeral and
its counter do to each other (三本 is さんぼん, 六匹 ろっぴき, 二十日 はつか) is lost in its parts.
"""

from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from itertools import islice, product

import regex

from voxadapt.asr.languages import rules
from voxadapt.asr.letters import units

MAX_READINGS = 24  # of a number
# Pairs: what is written, and what it may sound like.
NUMERALS = dict(
    pair.split("=") for pair in """
    一=いち 二=に 三=さん 四=よん,し,よ 五=ご 六=ろく 七=なな,しち 八=はち 九=きゅう,く 十=じゅう
    百=ひゃく 千=せん 万=まん
    """.split()
)  # fmt: skip
COUNTERS = dict(
    pair.split("=") for pair in """
    つ=つ 人=にん 日=にち 歳=さい 才=さい 本=ほん 匹=ひき 杯=はい 冊=さつ 枚=まい 個=こ 回=かい
    階=かい 時=じ 分=ふん,ぶん 月=がつ 年=ねん 円=えん 番=ばん 度=ど 秒=びょう 台=だい
    """.split()
)  # fmt: skip
IRREGULAR = dict(
    pair.split("=") for pair in """
    一つ=ひとつ 二つ=ふたつ 三つ=みっつ 四つ=よっつ 五つ=いつつ 六つ=むっつ 七つ=ななつ 八つ=やっつ
    九つ=ここのつ 一人=ひとり 二人=ふたり 一日=ついたち 二日=ふつか 三日=みっか 四日=よっか
    五日=いつか 六日=むいか 七日=なのか 八日=ようか 九日=ここのか 十日=とおか 十四日=じゅうよっか
    二十日=はつか
    二十四日=にじゅうよっか 二十歳=はたち 二十才=はたち
    """.split()
)  # fmt: skip
# What two sounds become where they meet: every one may stay as well.
_VOICED, _PLOSIVE = (str.maketrans("はひふへほ", row) for row in ("ばびぶべぼ", "ぱぴぷぺぽ"))
MEETINGS: tuple[tuple[regex.Pattern[str], Callable[[regex.Match[str]], str]], ...] = (
    (regex.compile("さん[はひふへほ]"), lambda m: m[0].translate(_VOICED)),
    (regex.compile("[さよ]ん[はひふへほ]"), lambda m: m[0].translate(_PLOSIVE)),
    (regex.compile("さんせん"), lambda m: "さんぜん"),
    (regex.compile("さんかい"), lambda m: "さんがい"),
    (
        regex.compile("(い|ろ|は|じゅ)[ちくう]([はひふへほ])"),
        lambda m: f"{m[1]}っ{m[2].translate(_PLOSIVE)}",
    ),
    (regex.compile("(い|は|じゅ)[ちう](?=[かこさせた])"), lambda m: f"{m[1]}っ"),
    (regex.compile("ろく(?=[かこ])"), lambda m: "ろっ"),
    (regex.compile("じゅっ"), lambda m: "じっ"),
)


@lru_cache(maxsize=4096)
def counted(text: str) -> list[str]:
    """Return what kanji numerals and a counter may sound like, in Hiragana; nothing for others."""
    parts = [NUMERALS.get(c) or COUNTERS.get(c) for c in text]
    if not text or text[0] not in NUMERALS or None in parts:
        return []
    found = ["".join(said) for said in product(*(p.split(",") for p in parts if p is not None))]
    found = found[:MAX_READINGS]
    for pattern, instead in MEETINGS:
        found += [pattern.sub(instead, kana) for kana in found if pattern.search(kana)]
    irregular = [IRREGULAR[text]] if text in IRREGULAR else []
    return [*irregular, *islice(dict.fromkeys(found), 4 * MAX_READINGS)]


def kana(text: str) -> list[tuple[str, ...]]:
    """Return what a text with kanji or Katakana may sound like, each in units."""
    found = [tuple(said) for said in counted(text)]
    analyse = _analyser()
    if analyse is not None and regex.search(r"[\p{Han}\p{Katakana}]", text):
        found.append(tuple(hiragana("".join(reading for _, reading in analyse(text)))))
    return found


def words(text: str, before: str) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Yield the readings of a text's words, each in units; what stands before it decides some."""
    analyse = _analyser()
    if analyse is None:
        yield from (((unit,),) for unit in units(text))
        return
    skipped = len(before)
    for part in text.split():
        for surface, reading in analyse(before + part):
            if skipped > 0:
                skipped -= len(surface)
                surface = surface[len(surface) + skipped :] if skipped < 0 else ""
                reading = surface
            readings = [tuple(units(surface))]
            if regex.search(r"[\p{Han}\p{Katakana}]", surface):
                readings.append(tuple(hiragana(reading)))
                readings += map(tuple, rules("ja").kana.get(surface, []))
            if surface:
                yield tuple(dict.fromkeys(readings))
        before = ""


@cache
def _analyser() -> Callable[[str], list[tuple[str, str]]] | None:
    """Return Sudachi, which names the kana of Japanese words; None where it is not installed."""
    try:
        from sudachipy import Dictionary, SplitMode
    except ImportError:
        return None
    tokenizer = Dictionary(dict="small").create()

    def analyse(text: str) -> list[tuple[str, str]]:
        return [
            (word.surface(), word.reading_form()) for word in tokenizer.tokenize(text, SplitMode.A)
        ]

    return analyse


def hiragana(text: str) -> str:
    """Write Katakana as Hiragana."""
    return "".join(chr(ord(c) - 0x60) if "ァ" <= c <= "ヶ" else c for c in text)
