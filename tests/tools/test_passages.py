"""Long texts are split where a reader would pause, and nothing of them is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from voxadapt.core.errors import UserError
from voxadapt.data.text import fold_text
from voxadapt.tools import passages as module
from voxadapt.tools.passages import read_text, split_passages

CASES = yaml.safe_load(Path(__file__).with_name("passages.yaml").read_text("utf-8"))


@pytest.mark.parametrize("language", CASES)
def test_sentences_of_every_script(language: str) -> None:
    blank = "" if language in ("zh", "ja") else " "
    for sentences in CASES[language]:
        found = split_passages(blank.join(sentences), language)
        assert [passage.text for passage in found] == sentences
        boundaries = [passage.boundary for passage in found]
        assert boundaries == ["sentence"] * (len(sentences) - 1) + ["paragraph"]


@pytest.mark.parametrize("language", CASES)
def test_hard_wrapped_lines_and_paragraphs(language: str) -> None:
    blank = "" if language in ("zh", "ja") else " "
    paragraphs = [blank.join(sentences) for sentences in CASES[language]]
    wide = "\r\n\r\n".join(paragraphs)
    wrapped = "\n\n".join(_wrap(paragraph, blank) for paragraph in paragraphs)
    assert split_passages(wide, language) == split_passages(wrapped, language)
    ends = sum(passage.boundary == "paragraph" for passage in split_passages(wide, language))
    assert ends == len(paragraphs)


def _wrap(text: str, blank: str) -> str:
    """Break lines at 30 characters, or after the word that reaches them."""
    words, lines = (text.split(" ") if blank else list(text)), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 30:
            lines.append("")
        lines[-1] = lines[-1] + (blank if lines[-1] else "") + word
    return "\n".join(lines)


def test_one_paragraph_a_line_and_what_cannot_be_spoken() -> None:
    text = (
        "\ufeffChapter One\nIt was a dark and stormy night in the old town by the sea.\n* * *\nYes."
    )
    found = [(p.text, p.boundary) for p in split_passages(text.lstrip("\ufeff"), "en")]
    assert found[0] == ("Chapter One", "paragraph") and found[-1] == ("Yes.", "paragraph")
    assert len(found) == 3


def test_short_sentences_are_spoken_with_their_neighbour() -> None:
    found = [
        passage.text for passage in split_passages("No. We will not go there today. Yes!", "en")
    ]
    assert found == ["No. We will not go there today. Yes!"]


@pytest.mark.parametrize(
    "sentence",
    [
        "the cat sat on the mat, and " * 30 + "it slept.",
        "word " * 200 + "end.",
        "x" * 700 + ".",
        "他去了公园，然后他回家了，" * 30 + "他睡了。",
        "ก" + "า" * 900,
    ],
)
def test_a_very_long_sentence_is_divided(sentence: str) -> None:
    found = split_passages(sentence, "en")
    assert len(found) > 1 and {passage.boundary for passage in found[:-1]} == {"clause"}
    assert max(module._length(passage.text) for passage in found) <= module.MAX_CHARACTERS
    assert fold_text("".join(p.text for p in found)).replace(" ", "") == fold_text(
        sentence
    ).replace(" ", "")


@given(
    st.lists(
        st.sampled_from(["One two.", "三。", "\n", "\n\n", "Dr. X", " ", "¡A!", "“", "”", "é", "…"])
    ),
    st.sampled_from(["en", "zh", "xx", "ms"]),
)
def test_nothing_that_is_spoken_is_lost(parts: list[str], language: str) -> None:
    text = "".join(parts)
    found = split_passages(text, language)
    spoken = fold_text("".join(passage.text for passage in found)).replace(" ", "")
    assert spoken == fold_text(text).replace(" ", "")
    assert not found or found[-1].boundary == "paragraph"
    assert all(passage.text == " ".join(passage.text.split()) for passage in found)


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "text file"), (b"\xff\xfe\x00a", "UTF-8")]
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: Any, expected: str) -> None:
    path = tmp_path / "chapter.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=expected):
        read_text(path)
