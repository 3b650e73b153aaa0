"""Texts: strict reading with file and line, and an audit that learns nothing it is scored on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fakes
from voxadapt.core.errors import Problem, UserError
from voxadapt.data.respelling import load_respelling
from voxadapt.data.text import fold_text
from voxadapt.data.texts import (
    TextAudit,
    TextLine,
    audit_texts,
    outside_vocabulary,
    read_texts,
    write_texts,
)

PROJECT = Path(__file__).parents[2]
MAP = load_respelling(PROJECT / "profiles" / "respelling" / "malay.yaml")
NUMBERS = "satu dua tiga empat lima enam tujuh lapan".split()


def sentences(count: int) -> list[str]:
    """Different Malay sentences."""
    words = [f"{a} {b} {c}" for a in NUMBERS for b in NUMBERS for c in NUMBERS]
    return [f"Saya beli {w}." for w in words[:count]]


def write(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def audit(texts: list[str], **fields: Any) -> TextAudit:
    lines = [TextLine(f"text{n:04d}", t, f"texts.jsonl:{n}") for n, t in enumerate(texts, 1)]
    return audit_texts(lines, **{"path": "texts.jsonl", **fields})


def refused(texts: list[str], **fields: Any) -> list[Problem]:
    with pytest.raises(UserError) as caught:
        audit(texts, **fields)
    return list(caught.value.problems)


def rules(result: TextAudit) -> list[tuple[str, str]]:
    return [(line.id if line else "", finding.rule) for line, finding in result.findings]


# Reading


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "Saya."}\r\n\r\n{"text": " Dia \xe2\x80\x9cini\xe2\x80\x9d."}'
    )
    assert read_texts(path) == [
        TextLine("text0001", "Saya.", "texts.jsonl:1"),
        TextLine("text0003", " Dia “ini”.", "texts.jsonl:3"),
    ]


def test_a_manifest_is_a_source_of_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", [{"audio": "a.wav", "text": "Hi.", "ref_audio": "r.wav"}])
    assert [line.text for line in read_texts(path, any_field=True)] == ["Hi."]
    with pytest.raises(UserError, match="unknown key 'audio'"):
        read_texts(path)


BAD_LINES = {
    '{"text": "a",': "invalid JSON",
    '{"text": "a", "text": "b"}': "'text' twice",
    '["a"]': "list ['a']",
    '"a"': "str 'a'",
    "{}": "none",
    '{"txt": "a"}': "unknown key 'txt'",
    '{"text": "a", "language": "malay"}': "unknown key 'language'",
    '{"text": 5}': "int 5",
    '{"text": null}': "NoneType None",
    '{"text": ""}': "empty text",
    '{"text": "  "}': "empty text",
    '{"text": "a\\u0007b"}': "U+0007",
    '{"text": "a\\nb"}': "U+000A",
    '{"text": "a\\ud800"}': "U+D800",
    '{"text": "12 ?"}': "'12 ?'",
    '{"text": "<b>a</b>"}': "tags or entities",
    '{"text": "a &amp; b"}': "tags or entities",
    json.dumps({"text": "a" * 2001}): "2001 characters",
    "[" * 100_000: "deeply nested JSON",
    '{"text": ' + "9" * 5000 + "}": "invalid JSON",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:30])
def test_lines_that_cannot_be_used(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "texts.jsonl", [{"text": "Saya."}, line])
    with pytest.raises(UserError) as caught:
        read_texts(path)
    problems = caught.value.problems
    assert all(p.where == "texts.jsonl:2" for p in problems)
    assert any(BAD_LINES[line] in p.found for p in problems), problems


def test_all_lines_are_named_at_once(tmp_path: Path) -> None:
    bad = [{"text": ""}] * 12 + [{"txt": "a"}]
    with pytest.raises(UserError) as caught:
        read_texts(write(tmp_path / "texts.jsonl", bad))
    problems = caught.value.problems
    numbers = [int(p.where.rsplit(":")[-1]) for p in problems]
    assert numbers == [*range(1, 13), 13, 13]
    refused: list[Problem] = []
    lines = read_texts(write(tmp_path / "some.jsonl", [{"text": "Saya."}, *bad]), refused=refused)
    assert [line.text for line in lines] == ["Saya."] and len(refused) == 14


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="an empty file"):
        read_texts(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_texts(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="Is a directory"):
        read_texts(tmp_path)
    path = tmp_path / "texts.jsonl"
    path.write_bytes(b'{"text": "caf\xe9"}\n')
    with pytest.raises(UserError, match="byte 0xe9"):
        read_texts(path)
    path.write_bytes('{"text": "a"}'.encode("utf-16"))
    with pytest.raises(UserError, match="UTF-16"):
        read_texts(path)


# Audit


def test_sound_texts(tmp_path: Path) -> None:
    result = audit(
        sentences(120), count_tokens=len, max_tokens=100, unknown=lambda text: [],
        respelling=MAP,
    )  # fmt: skip
    assert [line.text for line in result.accepted] == sentences(120)
    assert result.findings == ()
    assert result.sentence == "120 of 120 texts accepted, 0 warnings."
    m = result.metrics
    assert m["script"] == "LATIN" and m["num_words"] == 600 and m["num_distinct_words"] == 10
    assert m["num_tokens"] == sum(map(len, sentences(120)))
    assert m["longest_tokens"] == max(map(len, sentences(120)))

    write_texts(result, tmp_path / "t.jsonl", tmp_path / "m.json")
    first = json.loads((tmp_path / "t.jsonl").read_text().split("\n")[0])
    assert first == {
        "id": "text0001", "text": "Saya beli satu satu satu.",
        "respelling": "Sah-yuh buh-lee sah-too sah-too sah-too.", "findings": [],
    }  # fmt: skip
    assert json.loads((tmp_path / "m.json").read_text()) == m
    write_texts(audit(sentences(3)), tmp_path / "t.jsonl", tmp_path / "m.json")
    assert json.loads((tmp_path / "t.jsonl").read_text().split("\n")[0])["respelling"] is None


def test_repeated_and_scored_texts_are_left_out() -> None:
    texts = [*sentences(110), "saya beli  SATU satu satu", "Dia baca buku!", "Dia baca buku."]
    held_out = {fold_text("dia baca buku"), fold_text(texts[1])}
    result = audit(texts, held_out=held_out)
    assert [line.text for line in result.accepted] == [texts[0], *texts[2:110]]
    assert rules(result) == [
        ("text0002", "held_out"),
        ("text0111", "duplicate_text"),
        ("text0112", "held_out"),
        ("text0113", "duplicate_text"),
    ]
    assert result.metrics["num_held_out"] == 2 and result.metrics["num_duplicates"] == 2
    assert result.sentence == (
        "109 of 113 texts accepted (2 repeated, 2 kept for scoring: left out), 4 warnings."
    )


def test_only_scored_texts() -> None:
    held_out = {fold_text(text) for text in sentences(3)}
    (problem,) = refused(sentences(3), held_out=held_out)
    assert problem.where == "texts.jsonl" and problem.found == "3 that are all scored"


def test_few_texts_digits_and_symbols_are_warnings() -> None:
    result = audit(["Saya beli 3 buku.", "Dia baca ☺."])
    assert rules(result) == [
        ("", "few_texts"), ("text0001", "digits"), ("text0002", "odd_characters"),
    ]  # fmt: skip
    assert "☺ U+263A" in result.findings[2][1].found
    assert len(result.accepted) == 2
    assert result.metrics["file_warnings"][0]["value"] == 2
    assert result.metrics["num_tokens"] is None


def test_wrong_script() -> None:
    (problem,) = refused([*sentences(3), "Сая бели."])
    assert problem.where == "texts.jsonl:4"
    assert "(latin)" in problem.expected and "С U+0421" in problem.found
    # A whole file in another script than the recordings' transcripts.
    problems = refused(["Сая бели.", "Диа бача."], script="LATIN")
    assert [p.where for p in problems] == ["texts.jsonl:1", "texts.jsonl:2"]
    assert audit(["Сая бели.", "Диа бача."]).metrics["script"] == "CYRILLIC"


def test_too_long_for_the_context() -> None:
    (problem,) = refused(["Saya.", "Saya beli."], count_tokens=len, max_tokens=5)
    assert problem.where == "texts.jsonl:2" and problem.found == "10 tokens"
    assert "at most 5 text tokens" in problem.expected


def test_outside_the_vocabulary() -> None:
    (problem,) = refused(["Saya.", "Zaid."], unknown=lambda text: [c for c in text if c == "Z"])
    assert problem.where == "texts.jsonl:2" and problem.found == "Z U+005A"


class Words:
    """A tokenizer of whole words, with one special token; it drops what follows a tilde."""

    unk_token_id = 0
    vocabulary = ("?", "saya", "beli", "<end>", "payung")

    def __init__(self) -> None:
        self.added_tokens_decoder = {3: SimpleNamespace(special=True)}

    def __call__(self, text: str) -> dict[str, list[int]]:
        known = {word: i for i, word in enumerate(self.vocabulary)}
        return {"input_ids": [known.get(word, 0) for word in text.split("~")[0].split()]}

    def decode(self, ids: list[int], clean_up_tokenization_spaces: bool = True) -> str:
        return " ".join(self.vocabulary[i] for i in ids)


def test_what_a_tokenizer_cannot_represent() -> None:
    words = Words()
    assert outside_vocabulary(words, 5, "saya beli payung") == []
    assert outside_vocabulary(words, 5, "saya <end> beli <end>") == ["<end>"]
    assert "p" in outside_vocabulary(words, 4, "saya beli payung")  # no row stands for it
    assert "c" in outside_vocabulary(words, 5, "saya baca")
    assert "~" in outside_vocabulary(words, 5, "saya~beli")


@pytest.mark.slow
def test_bytes_spell_anything() -> None:
    tokenizer = fakes._text_tokenizer()
    rows = len(tokenizer)
    assert outside_vocabulary(tokenizer, rows, "Saya beli 中文 e\u0301 😀.") == []
    assert outside_vocabulary(tokenizer, rows, "assistant <|im_end|> b") == ["<|im_end|>"]
    z = tokenizer("z")["input_ids"][0]
    assert outside_vocabulary(tokenizer, z, "zoo,") == ["z"]


def test_unknown_to_the_respelling_map() -> None:
    problems = refused(["Saya.", "Straße 5.", "Dll."], respelling=MAP)
    assert [(p.where, p.found) for p in problems] == [
        ("texts.jsonl:2", "ß U+00DF, 5 U+0035"),
        ("texts.jsonl:3", "Dll"),
    ]


def test_errors_of_all_lines_come_together() -> None:
    with pytest.raises(UserError) as caught:
        audit([f"Сая {n * 'а'}." for n in range(1, 9)], script="LATIN")
    assert len(caught.value.problems) == 8
    assert caught.value.title == "texts.jsonl cannot be used as it is: 8 lines have errors."


def test_single_lines_with_errors_are_left_out_and_listed() -> None:
    lines = [*sentences(4), "Сая бели."]
    result = audit(lines, on_error="drop")
    assert [line.text for line in result.accepted] == lines[:4]
    assert (result.metrics["num_lines"], result.metrics["num_dropped"]) == (5, 1)
    assert result.metrics["dropped"][0]["where"] == "texts.jsonl:5"
    assert "1 with errors" in result.sentence
    with pytest.raises(UserError, match="2 lines have errors"):
        audit(["Saya.", "Сая.", "Бели."], script="LATIN", on_error="drop")


@pytest.mark.slow
def test_the_miniature_texts_are_sound() -> None:
    path = PROJECT / "data" / "language" / "malay" / "text_only.jsonl"
    if not path.exists():
        pytest.skip("the embedded data is not restored")
    result = audit_texts(read_texts(path), respelling=MAP)
    assert result.metrics["num_accepted"] >= 300 and result.metrics["script"] == "LATIN"


@pytest.mark.parametrize(("text", "more"), [("Saya абвгд.", False), ("Saya абвгде.", True)])
def test_five_strange_letters_are_shown_and_more_are_hinted_at(text: str, more: bool) -> None:
    with pytest.raises(UserError) as caught:
        audit([text], script="LATIN")
    (problem,) = caught.value.problems
    assert "д" in problem.found and "е" not in problem.found
    assert ("…" in problem.found) == more
