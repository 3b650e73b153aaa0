"""The sentences that come with the package pass the project's own audit of texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxadapt import data
from voxadapt.asr.normalise import normalise
from voxadapt.core.strict_yaml import read_yaml
from voxadapt.data.text import fold_text, num_sentences, num_spoken_characters
from voxadapt.data.texts import TextLine, audit_texts

FOLDER = Path(data.__file__).parent / "sets"
LANGUAGES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
NAMES = ("short", "long", "numbers", "names", "questions")
CHARACTERS_PER_S = {"zh": 4.2, "ja": 5.5, "ko": 4.8}  # elsewhere about 12 letters a second


def sentence_set(language: str, name: str) -> list[str]:
    found = read_yaml(FOLDER / f"{language}.yaml")
    assert isinstance(found, dict) and list(found) == list(NAMES)
    assert all(isinstance(line, str) for line in found[name])
    return list(found[name])


def test_the_languages_of_the_model_and_malay_are_there() -> None:
    assert LANGUAGES == "de en es fr it ja ko ms pt ru zh".split()


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_every_set(language: str) -> None:
    texts = {name: sentence_set(language, name) for name in NAMES}
    for name, lines in texts.items():
        assert 20 <= len(lines) <= 40, name
        numbered = [TextLine(str(i), line, f"{name}:{i}") for i, line in enumerate(lines)]
        audit = audit_texts(numbered)  # raises for letters of another script
        rules = {finding.rule for line, finding in audit.findings if line is not None}
        assert len(audit.accepted) == len(lines)
        expected = {"digits", "odd_characters"} if name == "numbers" else set()  # odd: ° alone
        assert rules <= expected and ("digits" in rules) == bool(expected), (name, rules)
    whole = [fold_text(line) for lines in texts.values() for line in lines]
    assert len(set(whole)) == len(whole)


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_each_set_is_what_its_name_says(language: str) -> None:
    rate = CHARACTERS_PER_S.get(language, 12.0)
    for line in sentence_set(language, "short"):
        assert len(line.split()) <= 3 and num_spoken_characters(line) / rate <= 3.0, line
    for line in sentence_set(language, "long"):
        assert num_sentences(line) >= 3 and 20 <= num_spoken_characters(line) / rate <= 60, line
    for line in sentence_set(language, "numbers"):
        assert any(c.isdecimal() for c in line), line
        assert not any(c.isdecimal() for c in normalise(line, language)), line
    asks = "か" if language == "ja" else ""
    for line in sentence_set(language, "questions"):
        assert line.rstrip("。").endswith(("?", "？", asks or "?")), line
