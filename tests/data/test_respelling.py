"""Respelling: syllables of the map and nothing else, text between words kept, gaps named."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from miniature.grammar import CODAS, KINDS, ONSETS, VOWELS, sentence
from voxadapt.core.errors import Problem, UserError
from voxadapt.data.respelling import Respelling, load_respelling

MALAY = Path(__file__).parents[2] / "profiles" / "respelling" / "malay.yaml"
MAP = load_respelling(MALAY)
LETTERS = "abcdefghijklmnopqrstuvwxyzéê"

WORDS = {
    "saya": "sah-yuh",  # an open last a is a schwa
    "beli": "buh-lee",
    "payung": "pah-yohng",  # u is lower in a closed last syllable
    "kecil": "kuh-chayl",
    "merah": "may-rah",  # an exception; h is silent after its vowel
    "rumah": "roo-mah",
    "bahru": "bah-roo",
    "lihat": "lee-haht",
    "dua": "doo-wuh",  # glides
    "setiap": "suh-tee-yahp",
    "maaf": "mah-ahf",
    "bunga": "boo-nguh",
    "tunggu": "toong-goo",  # ng + g
    "nyanyi": "nyah-nyee",
    "syarikat": "shah-ree-kaht",
    "khabar": "kah-bahr",
    "pandai": "pahn-deye",
    "baik": "bah-ayk",  # no diphthong in a closed syllable
    "saudara": "sow-dah-ruh",
    "laut": "lah-oht",
    "iklan": "eek-lahn",  # clusters are divided within a word
    "program": "prohg-rahm",
    "ekspres": "uhks-prays",
    "skrip": "skreep",
    "Allah": "Ah-lah",
    "Qur'an": "Koo-rahn",
    "xilofon": "zee-loh-fohn",
    "takhta": "tahk-tuh",
    "békas": "bay-kahs",
    "BAHASA": "Bah-hah-suh",
}


@pytest.mark.parametrize("word", WORDS)
def test_malay_words(word: str) -> None:
    assert MAP.respell(word) == WORDS[word]


def test_text_between_words_stays() -> None:
    text = "  “Saya\tbeli payung,” kata-Nya; 'ya' …\n"
    respelt = MAP.respell(text)
    assert respelt == "  “Sah-yuh\tbuh-lee pah-yohng,” kah-tuh-Nyuh; 'yah' …\n"


def test_the_miniature_can_read_its_malay() -> None:
    """Its Base was trained on these syllables, with an onset in every one but a word's first."""
    first = {o + v + c for o in ONSETS for v in VOWELS for c in CODAS}
    later = {o + v + c for o in ONSETS if o for v in VOWELS for c in CODAS}
    rng = random.Random(0)
    texts = [sentence("malay", kind, rng) for kind in KINDS for _ in range(1_000)]
    for word in {word for text in texts for word in re.findall(r"\w+", text)}:
        head, *tail = MAP.respell(word).lower().split("-")
        assert head in first and set(tail) <= later, word


def pronounceable(word: str) -> bool:
    """Whether a word has a vowel that is read: not so in `ywh`."""
    return not MAP.unknown([word])


words = st.text(LETTERS, min_size=1, max_size=12).filter(pronounceable)


@given(words)
def test_words_become_syllables_of_the_map(word: str) -> None:
    for part in MAP.respell(word).split("-"):
        assert MAP.syllable.fullmatch(part), (word, part)


@pytest.mark.slow
@given(st.text(LETTERS + LETTERS.upper() + " .,!?-'’…\n", max_size=40))
def test_texts_of_known_letters(text: str) -> None:
    unknown = MAP.unknown([text])
    assert all(len(item) == text.count(item) or re.search(r"\w", item) for item in unknown)
    if unknown:
        with pytest.raises(UserError, match=re.escape(next(iter(unknown)))):
            MAP.respell(text)
        return
    respelt = MAP.respell(text)
    assert respelt == load_respelling(MALAY).respell(text)
    assert len(respelt.split()) == len(text.split())
    marks = ".,!?…\n "
    assert [c for c in respelt if c in marks] == [c for c in text if c in marks]


@given(st.text(" .,;:!?…“”‘’()\n\t-–", max_size=20))
def test_punctuation_is_kept(text: str) -> None:
    assert MAP.respell(text) == text


@pytest.mark.slow
@given(st.text(max_size=20))
def test_pieces_never_fail(piece: str) -> None:
    assert isinstance(MAP.respell_piece(piece), str)


def test_pieces_of_words() -> None:
    pieces = [" saya", "ung", "ng", " K", "7", ". ", "中a"]
    assert [MAP.respell_piece(p) for p in pieces] == [
        " sah-yuh", "oong", "ng", " K", "7", ". ", "中a",
    ]  # fmt: skip


def test_unknown_characters_and_words_are_counted() -> None:
    unknown = MAP.unknown(["Straße 5", "5 % dll. dll", "кот", "saya & dia"])
    assert unknown == {
        "ß": 1, "5": 2, "%": 1, "dll": 2, "к": 1, "о": 1, "т": 1, "&": 1,
    }  # fmt: skip
    with pytest.raises(UserError) as caught:
        MAP.check(["Straße 5", "5 % dll. dll"], "texts.jsonl")
    (problem,) = caught.value.problems
    assert problem.where == "texts.jsonl"
    assert problem.found == "5 (2×), dll (2×), ß U+00DF (1×), % (1×)"
    letters = [chr(code) for code in range(ord("а"), ord("а") + 21)]
    for count, more in ((20, False), (21, True)):
        with pytest.raises(UserError) as caught:
            MAP.check(letters[:count])
        shown = caught.value.problems[0].found
        assert shown.count("(1×)") == 20 and shown.endswith(" …") == more


def changed(**fields: Any) -> dict[str, Any]:
    values = yaml.safe_load(MALAY.read_text(encoding="utf-8"))
    return {key: value for key, value in {**values, **fields}.items() if value is not None}


def refused(tmp_path: Path, content: Any) -> list[Problem]:
    path = tmp_path / "map.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    with pytest.raises(UserError) as caught:
        load_respelling(path)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("fields", "where", "found"),
    [
        ({"graphems": []}, "map.yaml: graphems", "unknown"),
        ({"language": None}, "map.yaml: language", "nothing"),
        ({"graphemes": []}, "map.yaml: graphemes", "[]"),
        ({"graphemes": [{"letters": "a", "reads": "aah"}]}, "map.yaml", "a reads 'aah'"),
        ({"graphemes": [{"letters": "A", "reads": "ah"}]}, "graphemes.0", "lower case"),
        (
            {"graphemes": [{"letters": "a", "reads": "ah", "before": "("}]},
            "graphemes.0", "regular expression",
        ),
        ({"graphemes": [{"letters": "a", "reads": False}]}, "graphemes.0.reads", "False"),
        ({"consonants": ["ah", "b"]}, "map.yaml", "'ah' is both"),
        ({"codas": ["n", "q"]}, "map.yaml", "codas: 'q'"),
        ({"clusters": ["pr"]}, "map.yaml", "clusters: 'pr'"),
        ({"glides": {"ee": "ah"}}, "map.yaml", "glides: ee"),
        ({"filler": "b"}, "map.yaml", "filler 'b'"),
        ({"exceptions": {"Merah": "may-rah"}}, "map.yaml", "'Merah'"),
        ({"exceptions": {"di sini": "dee"}}, "map.yaml", "'di sini'"),
        ({"exceptions": {"merah": "may-rahx"}}, "map.yaml", "'may-rahx'"),
    ],
)  # fmt: skip
def test_maps_that_cannot_be_used(
    tmp_path: Path, fields: dict[str, Any], where: str, found: str
) -> None:
    problems = refused(tmp_path, changed(**fields))
    assert any(where in p.where and found in p.found for p in problems), problems


def test_files_that_are_no_map(tmp_path: Path) -> None:
    assert refused(tmp_path, "a: [")[0].expected == "readable YAML in UTF-8"
    assert refused(tmp_path, "- a")[0].found == "['a']"
    (tmp_path / "map.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="YAML"):
        load_respelling(tmp_path / "map.yaml")
    with pytest.raises(UserError, match="no such file"):
        load_respelling(tmp_path / "none.yaml")


def test_another_script() -> None:
    """Vowel signs are combining marks; an apostrophe may be a letter."""
    hindi = Respelling(
        language="hindi", reads_as="english", vowels=["ah", "ee", "uh"], consonants=["k", "n"],
        codas=["n"], filler="uh",
        graphemes=[
            {"letters": "क", "reads": "k", "before": "[ाी]"}, {"letters": "क", "reads": "k uh"},
            {"letters": "न", "reads": "n", "before": "[ाी]"}, {"letters": "न", "reads": "n uh"},
            {"letters": "ा", "reads": "ah"}, {"letters": "ी", "reads": "ee"},
            {"letters": "'", "reads": "k uh"},
        ],
    )  # fmt: skip
    assert hindi.respell("नाक की' न") == "nah-kuh kee-kuh nuh"
    assert hindi.unknown(["कि"]) == {"ि": 1}


def test_what_is_wrong_is_shown_in_eighty_characters(tmp_path: Path) -> None:
    values = yaml.safe_load(MALAY.read_text(encoding="utf-8")) | {"vowels": "a" * 200}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_respelling(tmp_path / "map.yaml")
    assert [problem.found for problem in caught.value.problems] == ["'" + "a" * 79]
    (tmp_path / "map.yaml").write_text("x" * 200)
    with pytest.raises(UserError) as caught:
        load_respelling(tmp_path / "map.yaml")
    assert [problem.found for problem in caught.value.problems] == ["'" + "x" * 59]


def test_syllables_take_what_may_close_and_open_them() -> None:
    """A map of a few letters, so that each rule can be read off."""
    made = Respelling.model_validate({
        "language": "x", "reads_as": "y", "vowels": ["a", "o"], "consonants": ["t", "s", "r", "w"],
        "codas": ["s", "s t"], "clusters": ["t r", "s t r"], "glides": {"o": "w"}, "filler": "o",
        "graphemes": [{"letters": letters, "reads": reads} for letters, reads in
                      [("a", "a"), ("o", "o"), ("t", "t"), ("s", "s"), ("r", "r"), ("w", "w")]],
    })  # fmt: skip
    for word, respelt in {
        "ta": "ta", "tata": "ta-ta", "asta": "as-ta", "astta": "as-ta", "astra": "ast-ra",
        "stra": "stra", "tsra": "to-so-ra", "atra": "a-tra", "astrta": "ast-ro-ta", "at": "a-to",
        "ast": "ast", "astr": "ast-ro", "oa": "o-wa", "ao": "a-o", "atta": "a-ta", "oo": "o-wo",
    }.items():  # fmt: skip
        assert made.respell(word) == respelt, word
