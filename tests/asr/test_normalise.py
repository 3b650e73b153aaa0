"""The normaliser keeps what carries meaning in every script, and says which one it is."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
import regex
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from properties import examples
from voxadapt.asr.letters import DROPPED, JOINERS
from voxadapt.asr.metrics import char_counts, word_counts
from voxadapt.asr.normalise import (
    NORM_ID,
    Substitutions,
    characters,
    is_unspaced,
    metric_for,
    norm_id,
    normalise,
    normalise_pair,
)
from voxadapt.scoring.rows import slice_of

CASES: dict[str, list[list[Any]]] = yaml.load(
    Path(__file__).with_name("normaliser_cases.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader
)
PROPERTIES = settings(max_examples=examples(300), deadline=None)
LANGUAGES = st.sampled_from(
    [None, "en", "tr", "zh", "ar", "th", "ja", "de", "fr", "ru", "ms", "ko", "vi", "hi"]
)


def within(character: str, ranges: Any) -> bool:
    return any(low <= ord(character) <= high for low, high in ranges)


def names(cases: list[list[Any]]) -> list[str]:
    return [f"{i}-{case[0]}" for i, case in enumerate(cases)]


@pytest.mark.parametrize(
    ("lang", "text", "expected"), CASES["normalised"], ids=names(CASES["normalised"])
)
def test_known_texts(lang: str, text: str, expected: str) -> None:
    assert normalise(text, lang) == expected
    assert normalise(unicodedata.normalize("NFD", text), lang) == expected


@pytest.mark.parametrize(
    ("lang", "reference", "hypothesis", "metric", "words", "chars"),
    CASES["errors"],
    ids=names(CASES["errors"]),
)
def test_known_errors(
    lang: str, reference: str, hypothesis: str, metric: str, words: list[int], chars: list[int]
) -> None:
    reference, hypothesis = normalise_pair(reference, hypothesis, lang)
    by_word, by_char = word_counts(reference, hypothesis), char_counts(reference, hypothesis)
    assert [by_word.edits, by_word.reference_units] == words
    assert [by_char.edits, by_char.reference_units] == chars
    assert metric_for(lang, [reference]) == metric


@pytest.mark.parametrize(("lang", "text", "expected"), CASES["slices"])
def test_known_slices(lang: str, text: str, expected: str) -> None:
    assert slice_of(text, lang) == expected


def test_the_cases_cover_the_scripts() -> None:
    covered = {case[0] for case in CASES["normalised"]}
    assert len(CASES["normalised"]) >= 60 and len(CASES["errors"]) >= 30
    assert covered >= set("ar de el en fr he hi ja ko ms ru th tr vi zh".split())


@pytest.mark.slow
@PROPERTIES
@given(st.text(max_size=40), LANGUAGES)
def test_applying_it_again_changes_nothing(text: str, lang: str | None) -> None:
    once = normalise(text, lang)
    assert normalise(once, lang) == once
    assert once == " ".join(once.split())


@pytest.mark.slow
@PROPERTIES
@given(st.text(max_size=40), LANGUAGES)
def test_only_punctuation_and_symbols_vanish(text: str, lang: str | None) -> None:
    result = normalise(text, lang)
    assert not any(unicodedata.category(c)[0] in "PS" for c in result)
    if any(unicodedata.category(c)[0] in "LN" and not within(c, DROPPED) for c in text):
        assert result


@pytest.mark.slow
@PROPERTIES
@given(st.text(max_size=40), LANGUAGES)
def test_composition_makes_no_difference(text: str, lang: str | None) -> None:
    forms = {normalise(unicodedata.normalize(form, text), lang) for form in ("NFC", "NFD")}
    assert len(forms) == 1


@pytest.mark.slow
@PROPERTIES
@given(
    st.lists(st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd"]), min_size=1), min_size=1),
    st.lists(st.sampled_from([", ", ". ", " - ", "! ", "\u3002", "\u060c ", "\u0964 ", " \u00ab"])),
)
def test_punctuation_between_words_is_a_space(words: list[str], marks: list[str]) -> None:
    marks = (marks or [" "]) * len(words)
    joined = "".join(word + mark for word, mark in zip(words, marks, strict=False))
    assert normalise(joined) == normalise(" ".join(words))


@pytest.mark.slow
@PROPERTIES
@given(st.text(st.sampled_from("abcdefgh\u00e9\u0434\u05d0\u0628 "), max_size=30))
def test_case_makes_no_difference(text: str) -> None:
    assert normalise(text.upper()) == normalise(text)


@pytest.mark.parametrize(
    ("first", "last"),
    [(0x0E01, 0x0E4E), (0x0900, 0x094D), (0x0B80, 0x0BCD), (0x1780, 0x17D3), (0x1000, 0x103E)],
    ids=["thai", "devanagari", "tamil", "khmer", "burmese"],
)
def test_marks_of_scripts_that_need_them_are_kept(first: int, last: int) -> None:
    @PROPERTIES
    @given(st.text(st.characters(min_codepoint=first, max_codepoint=last), min_size=1, max_size=20))
    def check(text: str) -> None:
        def marks(value: str) -> int:
            return sum(unicodedata.category(c)[0] == "M" for c in value)

        # Khmer has two vowels that are format characters in all but name (U+17B4, U+17B5).
        # SARA AM decomposes, and vowel signs of two parts compose: compare what NFKC leaves.
        text = (
            unicodedata.normalize("NFKC", text)
            .replace("\u17c1\u17b8", "")
            .replace("\u17c1\u17b6", "")
        )
        text = regex.sub("[\u0919\u091e\u0923\u0928\u092e]\u094d", "", text)  # an anusvara instead
        assert marks(normalise(text)) == marks(text)

    check()


def test_the_same_word_in_three_notations_of_arabic_is_one_word() -> None:
    plain, pointed, stretched = "سلام", "سَلَامٌ", "ســلام"
    assert normalise(plain) == normalise(pointed) == normalise(stretched)
    assert normalise("سأل") != normalise("سال")  # hamza is a letter


def test_joiners_join_inside_words_only() -> None:
    for mark in JOINERS:
        assert normalise(f"a{mark}b") == "ab" and normalise(f"a {mark}b{mark} c") == "a b c"


def test_metric_follows_the_script() -> None:
    assert metric_for("en", ["hello"]) == "wer"
    assert metric_for("th", ["hello"]) == "cer"
    assert metric_for(None, ["你好吗"]) == "cer"
    assert metric_for("ko", ["안녕 하세요"]) == "wer"
    assert is_unspaced("こんにちは abc") and not is_unspaced("")
    assert characters("a b  c") == "abc"


def test_id_names_version_and_rules() -> None:
    assert NORM_ID.startswith("voxadapt-norm/4+") and len(NORM_ID) == len("voxadapt-norm/4+") + 8
    assert norm_id(None) == NORM_ID and norm_id("en").startswith(f"{NORM_ID}/en-")
    assert norm_id("en") != norm_id("de") and norm_id("zh").count("/opencc-") == 1
    own = Substitutions(words={"a": "b"})
    assert norm_id("en", own).startswith(f"{norm_id('en')}/own-")
    assert norm_id("en", own) != norm_id("en", Substitutions(words={"a": "c"}))
    assert norm_id("en", Substitutions()) == norm_id("en")
