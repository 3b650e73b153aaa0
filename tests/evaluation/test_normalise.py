"""The normaliser keeps what carries meaning in every script, and says which one it is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxadapt.evaluation.normalise import NORM_ID, characters, is_unspaced, metric_for, normalise

CASES = [
    ("Hello,  WORLD!", "hello world"),
    ("Don\u2019t stop\u2014now.", "dont stop now"),
    ("'quoted' words", "quoted words"),
    ("Stra\u00dfe \u00c4RZTE", "strasse \u00e4rzte"),
    ("caf\u0065\u0301", "caf\u00e9"),
    ("\u0e17\u0e35\u0e48\u0e19\u0e35\u0e48", "\u0e17\u0e35\u0e48\u0e19\u0e35\u0e48"),  # Thai
    ("\u0939\u093f\u0928\u094d\u0926\u0940\u0964", "\u0939\u093f\u0928\u094d\u0926\u0940"),  # Hindi
    ("\u304c\u304e\u3050\u3002", "\u304c\u304e\u3050"),  # Japanese dakuten stay
    ("\uff76\uff9e", "\u30ac"),  # half-width katakana with its mark
    ("Saya suka, anda?", "saya suka anda"),
    ("soft\u00adhyphen", "softhyphen"),
    ("3,5 %", "3 5"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_known_texts(text: str, expected: str) -> None:
    assert normalise(text) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_applying_it_again_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert once == " ".join(once.split())


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_only_punctuation_and_symbols_vanish(text: str) -> None:
    result = normalise(text)
    assert not any(unicodedata.category(c)[0] in "PS" for c in result)
    if any(unicodedata.category(c)[0] in "LN" for c in text):
        assert result


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=0x0E01, max_codepoint=0x0E4E), min_size=1, max_size=20))
def test_thai_marks_are_kept(text: str) -> None:
    def marks(value: str) -> int:
        return sum(unicodedata.category(c)[0] == "M" for c in value)

    # SARA AM decomposes to a mark and a vowel: marks can become more, never fewer.
    assert marks(normalise(text)) >= marks(text)


def test_metric_follows_the_script() -> None:
    assert metric_for("en", ["hello"]) == "wer"
    assert metric_for("th", ["hello"]) == "cer"
    assert metric_for(None, ["\u4f60\u597d\u5417"]) == "cer"
    assert metric_for("ko", ["\uc548\ub155 \ud558\uc138\uc694"]) == "wer"
    assert is_unspaced("\u3053\u3093\u306b\u3061\u306f abc") and not is_unspaced("")
    assert characters("a b  c") == "abc"


def test_id_names_version_and_rules() -> None:
    assert NORM_ID.startswith("voxadapt-norm/1+") and len(NORM_ID) == len("voxadapt-norm/1+") + 8
