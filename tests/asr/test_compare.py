"""What sounds the same is no error, and what does not is one, on whichever side a digit stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from properties import examples
from voxadapt.asr.languages import rules
from voxadapt.asr.metrics import char_counts, word_counts
from voxadapt.asr.normalise import Substitutions, normalise, normalise_pair
from voxadapt.asr.numbers import clock_readings, number_readings
from voxadapt.core.errors import UserError

CASES: dict[str, list[list[Any]]] = yaml.load(
    Path(__file__).with_name("sound_cases.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader
)


PROPERTIES = settings(max_examples=examples(150), deadline=None)
SPOKEN = ("de", "en", "es", "fr", "it", "ja", "ko", "ms", "pt", "ru", "zh")
COUNTED = (*SPOKEN, "ar", "hi", "id", "nl", "pl", "sv", "th", "tr", "vi")
PIECES = st.sampled_from(
    "the cat and $25 7:30 1995 3rd 5km 50% U.S. don't e-mail Dr. OK 1,000 2.5 May 5 II B2B".split()
)
TEXTS = st.lists(PIECES, min_size=1, max_size=6).map(" ".join)


def edits(lang: str, reference: str, transcript: str) -> tuple[int, int]:
    text, heard = normalise_pair(reference, transcript, lang)
    assert text == normalise(reference, lang), "a text's length does not depend on what was heard"
    return word_counts(text, heard).edits, char_counts(text, heard).edits


def pairs(kind: str) -> dict[str, list[tuple[str, str]]]:
    """Return the pairs of a kind by language, which is one test: a thousand cost seconds alone."""
    found: dict[str, list[tuple[str, str]]] = {}
    for lang, one, other in CASES[kind]:
        found.setdefault(lang, []).extend([(one, other), (other, one)])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("lang", "sounds"), pairs("same").items())
def test_one_sound_is_no_error(lang: str, sounds: list[tuple[str, str]]) -> None:
    assert [pair for pair in sounds if edits(lang, *pair) != (0, 0)] == []


@pytest.mark.parametrize(("lang", "sounds"), pairs("different").items())
def test_another_sound_is_an_error(lang: str, sounds: list[tuple[str, str]]) -> None:
    assert [pair for pair in sounds if min(edits(lang, *pair)) == 0] == []


def test_the_table_is_large_enough() -> None:
    assert len(CASES["same"]) >= 200 and len(CASES["different"]) >= 70


@pytest.mark.slow
@PROPERTIES
@given(TEXTS, TEXTS, st.sampled_from([*SPOKEN, None]))
def test_readings_only_take_edits_away(one: str, other: str, lang: str | None) -> None:
    text, heard = normalise_pair(one, other, lang)
    assert text == normalise(one, lang)
    assert word_counts(text, heard).edits <= word_counts(text, normalise(other, lang)).edits
    assert word_counts(*normalise_pair(one, one, lang)).edits == 0
    assert normalise(text, lang) == text


@pytest.mark.slow
@PROPERTIES
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(COUNTED))
def test_a_number_is_itself_and_no_other(one: int, other: int, lang: str) -> None:
    words = number_readings(str(one), lang)[0]
    assert edits(lang, words, str(one)) == (0, 0) == edits(lang, str(one), words)
    if one != other:
        assert edits(lang, words, str(other))[0] > 0 and edits(lang, str(other), words)[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("lang", COUNTED)
def test_no_two_times_of_the_day_are_one(lang: str) -> None:
    times = [(hour, minute) for hour in range(1, 13) for minute in (0, 5, 13, 15, 30, 45, 50)]
    said = {
        time: {normalise(reading, lang) for reading in clock_readings(*time, lang)}
        for time in times
    }
    for one in times:
        for other in times:
            if one < other:
                assert not said[one] & said[other], (one, other)


@pytest.mark.slow
@pytest.mark.parametrize("lang", COUNTED)
def test_spellings_lead_to_one_form(lang: str) -> None:
    for first, others in rules(lang).spelling.items():
        for other in others:
            assert edits(lang, first, other) == (0, 0) == edits(lang, other, first), (first, other)


HOSTILE = (
    f"{'9' * 400}%", f"${'9' * 400}", f"{'9' * 400} km", f"1,{'000,' * 200}000", "0" * 300, "$.5",
    "99:99", "24:00", "31/31/2025", "00/00/0000", "5/0", "½½", "-0", "1e5", "$1 million billion",
    "3.14.15", "%", "٪5", "IIII", "VIX", "1st2nd", "0th", "𝟙𝟚", "1⁄2", "1,00,000", "7h", "h30",
    "\ud800", "a\u0000b", "a-" * 300, "'" * 500, "(" * 500, "[a" * 300,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("lang", [*SPOKEN, "ar", "th", "vi", "haw", "xx", None])
def test_what_is_no_number_is_read_as_well(lang: str | None) -> None:
    for text in HOSTILE:
        normal, heard = normalise_pair(text, text, lang)
        assert normalise(normal, lang) == normal
        assert heard in (normal, ""), text


def test_a_text_of_events_alone_is_still_a_text() -> None:
    assert normalise("[laughter]", "en") == "laughter"
    assert normalise_pair("hello", "[Music]", "en") == ("hello", "")


def test_the_users_own_spellings(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("words: {Xiaomi: Shaomi, New York: NYC}\nletters: {أ: ا, إ: ا, آ: ا}\n")
    own = Substitutions.read(path)
    assert normalise_pair("a Xiaomi phone", "a shaomi phone", "en", own)[1] == "a shaomi phone"
    assert normalise("I love New  York!", "en", own) == normalise("i love nyc", "en", own)
    assert normalise("New Yorker", "en", own) == "new yorker"
    assert normalise("أحمد", "ar", own) == normalise("احمد", "ar", own)
    assert normalise("أحمد", "ar") != normalise("احمد", "ar")


@pytest.mark.parametrize(
    "text", ["word: {a: b}", "words: [a]", "words: {a: 1}", "- a", "words: {a: b", "letters: {a: }"]
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        Substitutions.read(path)
    assert caught.value.problems[0].where == str(path)
    with pytest.raises(UserError):
        Substitutions.read(tmp_path / "none.yaml")
