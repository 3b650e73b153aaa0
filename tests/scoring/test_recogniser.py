"""A recogniser that is deaf to a sound is found out by its transcripts."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from rows import make_row
from voxadapt.asr.normalise import normalise
from voxadapt.core.params import SelectParams
from voxadapt.scoring.recogniser import (
    KINDS,
    alterations,
    has_error,
    judge,
    sound_class,
    split_sounds,
    swap_sound,
)
from voxadapt.scoring.rows import ScoreRow

PARAMS = SelectParams()
MANIFEST = Path("data/speaker/train_raw.jsonl")
FREQUENT = "abdehilmnorstuw"


def transcripts(confused: tuple[str, str] | None, seed: int, how: str = "first") -> list[ScoreRow]:
    """Simulate transcripts of recordings with 3 % of letters wrong, and a confused pair."""
    generator = np.random.default_rng(seed)
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()[:160]
    rows = []
    for number, line in enumerate(lines):
        text = normalise(json.loads(line)["text"], "en")
        heard = []
        for char in text:
            if char != " " and generator.random() < 0.03:
                char = str(generator.choice(list(FREQUENT)))
            elif confused and char in confused:
                merged = {"first": confused[0], "either": str(generator.choice(list(confused)))}
                char = merged.get(how) or confused[char == confused[0]]
            heard.append(char)
        rows.append(
            make_row("real", f"t{number:03d}", text=text, text_norm=text, hyp_norm="".join(heard))
        )
    return rows


pytestmark = pytest.mark.skipif(not MANIFEST.is_file(), reason="the miniature is not here")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["first", "either"])
def test_a_confused_pair_is_named_in_twenty_of_twenty(how: str) -> None:
    pairs = list(combinations(FREQUENT, 2))
    np.random.default_rng(3).shuffle(pairs)
    for seed, (first, second) in enumerate(pairs[:20]):
        found = judge(transcripts((first, second), seed, how), PARAMS)
        assert sorted((first, second)) in found["blind"]
        assert len(found["blind"]) <= 2, found["blind"]
        assert f"{min(first, second)} from {max(first, second)}" in found["text"]


@pytest.mark.slow
def test_a_recogniser_that_hears_well_is_not_blamed() -> None:
    found = judge(transcripts(None, 1), PARAMS)
    assert found["blind"] == [] and "tells all" in found["text"]
    assert found["pairs"][0]["told_apart"]["point"] > 0.8 and len(found["pairs"]) == 10
    assert 0.94 < found["sounds"]["t"]["heard"]["point"] < 1.0
    assert found["sounds"]["t"]["class"] == "plosives" and set(found["kinds"]) == set(KINDS)
    for kind in found["kinds"].values():
        assert kind["noticed"]["point"] > kind["false_alarm"]["point"]


@pytest.mark.slow
def test_what_is_said_too_rarely_is_not_judged() -> None:
    found = judge(transcripts(None, 1)[:1], PARAMS)
    assert found["sounds"] == {} and found["blind"] == [] and "not known" in found["text"]
    assert found["not_measured"]
    assert judge([], PARAMS)["num_clips"] == 0


def test_a_sound_is_judged_from_ten_times_on() -> None:
    rows = [
        make_row("real", f"t{n}", text_norm="ab" if n else "abc", hyp_norm="ab") for n in range(10)
    ]
    found = judge(rows, PARAMS)
    assert set(found["sounds"]) == {"a", "b"} and found["not_measured"] == {"c": 1}
    [pair] = found["pairs"]
    assert pair["sounds"] == ["a", "b"] and pair["told_apart"]["point"] == 1.0
    fewer = judge(rows[1:], PARAMS)
    assert fewer["sounds"] == {} and fewer["not_measured"] == {"a": 9, "b": 9}
    assert fewer["pairs"] == [] and fewer["num_clips"] == 9


def test_what_is_written_for_a_sound_is_counted() -> None:
    """Of twenty a's four are lost and six are written as e; the o's, as they are said, and as e."""
    heard = ["a"] * 10 + [""] * 4 + ["e"] * 6
    rows = [make_row("real", f"t{n:02d}", text_norm="ao", hyp_norm=other + ("e" if n < 5 else "o"))
            for n, other in enumerate(heard)]  # fmt: skip
    found = judge(rows, PARAMS)
    assert (
        found["sounds"]["a"]["heard"]["point"] == 0.5 and found["sounds"]["a"]["mostly_as"] == "e"
    )
    assert found["sounds"]["o"]["heard"]["point"] == 0.75
    assert found["classes"]["vowels"]["point"] == pytest.approx(25 / 40)
    [pair] = found["pairs"]  # a: half a, .2 lost, .3 e; o: .75 o, .25 e
    assert pair["told_apart"]["point"] == pytest.approx((0.5 + 0.2 + 0.05 + 0.75) / 2)
    assert pair["told_apart"]["n"] == 20 and found["blind"] == []
    assert 0.5 < pair["told_apart"]["low"] < 0.75 < pair["told_apart"]["high"] <= 1.0


@pytest.mark.parametrize(
    ("span", "heard", "wrong"),
    [
        ((1, 2), "one two three", False),
        ((1, 2), "one six three", True),
        ((0, 1), "one six three", False),
        ((1, 2), "one three", True),
        ((2, 3), "one three", False),
        ((1, 2), "one six two three", True),
        ((1, 2), "one two six three", True),
        ((2, 3), "one six two three", False),
        ((1, 1), "one two three", False),
        ((1, 1), "one six three", True),
        ((1, 1), "six two three", True),
        ((0, 0), "one two six", False),
        ((3, 3), "one two three four", True),
        ((2, 2), "one two three four", False),
    ],
)
def test_an_error_is_in_a_span_or_just_beside_it(
    span: tuple[int, int], heard: str, wrong: bool
) -> None:
    assert has_error("one two three".split(), heard.split(), span) == wrong


def test_groups_of_letters_are_one_sound() -> None:
    assert split_sounds("nyanyi ngeri", ("ng", "ny")) == ["ny", "a", "ny", "i", "ng", "e", "r", "i"]
    assert split_sounds("ab c") == ["a", "b", "c"]
    assert split_sounds("schach", ("ch", "sch")) == ["sch", "a", "ch"]
    assert sound_class("ng") == "nasals" and sound_class("\u0e01") == "other"


def test_each_alteration_is_an_error_where_it_is_said_to_be() -> None:
    words = "the old king found a heavy hat".split()
    vocabulary = sorted({*words, "hot", "ring"})
    for seed in range(50):
        found = alterations(words, vocabulary, seed)
        assert {item.kind for item in found} <= set(KINDS)
        for item in found:
            assert list(item.wrong) != words
            # A recording of the right words held against the wrong text, and the other way round.
            assert has_error(item.wrong, words, item.wrong_span), item
            assert has_error(words, item.wrong, item.right_span), item
            assert not has_error(words, words, item.right_span)
            assert not has_error(item.wrong, item.wrong, item.wrong_span)
    assert alterations(["one"], vocabulary, 0) == []


def test_a_swapped_sound_is_one_other_sound_of_its_class() -> None:
    words, graphemes = "nyanyian angin di pantai".split(), ("ng", "ny")
    for seed in range(50):
        swapped = swap_sound(words, graphemes, seed)
        assert swapped is not None and swapped.right_span == swapped.wrong_span
        at = swapped.right_span[0]
        assert [*swapped.wrong[:at], *swapped.wrong[at + 1 :]] == [*words[:at], *words[at + 1 :]]
        before, after = (split_sounds(text[at], graphemes) for text in (words, swapped.wrong))
        [pair] = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert sound_class(pair[0]) == sound_class(pair[1])
    assert swap_sound(["a", "m"], (), 0) is None, "no other vowel, no other nasal"


@pytest.mark.slow
def test_equal_rows_give_equal_records() -> None:
    rows = transcripts(("b", "d"), 4)
    first = json.dumps(judge(rows, PARAMS), sort_keys=True)
    assert json.dumps(judge(rows, PARAMS), sort_keys=True) == first
