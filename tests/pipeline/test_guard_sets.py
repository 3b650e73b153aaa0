"""Sets that guard: which sentences are taken, and that they stay within half of the corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from voxadapt.core.errors import UserError
from voxadapt.core.params import ScoreParams
from voxadapt.pipeline import guard_sets
from voxadapt.pipeline.guard_sets import guard_sentences
from voxadapt.scoring.rows import Sentence

CORPUS = [
    Sentence(text_id=f"u{i:02d}", text=f"Sentence number {i} of the corpus.", split="selection")
    for i in range(40)
]


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {
        "short": [f"Word {i}." for i in range(30)] + [CORPUS[0].text],
        "long": [f"This is paragraph {i}. " + "It goes on and on. " * 20 for i in range(30)],
    }
    (tmp_path / "en.yaml").write_text(json.dumps(sets), encoding="utf-8")
    monkeypatch.setattr(guard_sets, "FOLDER", tmp_path)


def taken(*sets: object, salt: str = "s") -> list[Sentence]:
    return guard_sentences(ScoreParams(sets=("corpus", *sets)), "en", CORPUS, salt, Path("none"))


def test_the_corpus_alone_has_no_guards() -> None:
    assert taken() == []


def test_sets_are_named_distinct_and_within_the_budget() -> None:
    found = taken("short", "long")
    assert {item.slice for item in found} == {"short", "long"}
    assert len({item.text_id for item in found}) == len({item.text for item in found}) == len(found)
    assert CORPUS[0].text not in {item.text for item in found}
    total = sum(len(item.text) for item in found)
    assert total <= 0.5 * sum(len(item.text) for item in CORPUS)
    assert sum(item.slice == "short" for item in found) == 30


def test_a_set_that_does_not_fit_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    found = guard_sentences(
        ScoreParams(sets=("corpus", "short", "long")), "en", CORPUS[:3], "s", Path("none")
    )
    assert {item.slice for item in found} == {"short"}
    assert "no 'long' sentence for 'en'" in capsys.readouterr().err


def test_equal_parameters_take_equal_sentences_and_another_salt_others() -> None:
    assert taken("long") == taken("long")
    assert {item.text for item in taken("long")} != {item.text for item in taken("long", salt="t")}


@pytest.mark.parametrize("name", ["own.txt", "own.jsonl"])
def test_own_sentences_are_taken_in_their_order(tmp_path: Path, name: str) -> None:
    lines = ["Call me at noon.", "The lift is broken."]
    text = "\n\n".join(lines if name == "own.txt" else [json.dumps({"text": t}) for t in lines])
    (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    found = taken({"own": str(tmp_path / name)})
    assert [item.text for item in found] == lines and {item.slice for item in found} == {"own"}


def test_own_sentences_are_taken_before_those_that_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("The lift of the house is broken.\n", encoding="utf-8")
    own = {"own": str(tmp_path / "own.txt")}
    score = ScoreParams(sets=("corpus", "short", "long", own))
    found = guard_sentences(score, "en", CORPUS[:3], "s", Path("none"))
    assert {item.slice for item in found} == {"own", "short"}


def test_a_mark_of_byte_order_is_not_said(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("\ufeffCall me at noon.\n", encoding="utf-8")
    assert [item.text for item in taken({"own": str(tmp_path / "own.txt")})] == ["Call me at noon."]


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe\x00bad", b"Call <|im_end|> me.", b"Call\x07 me.", b"..."]
)
def test_a_file_of_own_sentences_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "own.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        taken({"own": str(path)})
    assert "own.txt" in str(caught.value)


def test_a_set_that_is_not_shipped_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert {item.slice for item in taken("names", "short")} == {"short"}
    assert "no 'names' sentence for 'en'" in capsys.readouterr().err
    score = ScoreParams(sets=("corpus", "short"))
    assert guard_sentences(score, "xx", CORPUS, "s", Path("none")) == []
    assert "no 'short' sentence for 'xx'" in capsys.readouterr().err


def test_a_set_of_the_corpus_goes_before_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "short.jsonl").write_text('{"text": "Mine."}\n', encoding="utf-8")
    score = ScoreParams(sets=("corpus", "short", "long"))
    found = guard_sentences(score, "en", CORPUS, "s", tmp_path)
    assert [item.text for item in found if item.slice == "short"] == ["Mine."]
    assert sum(item.slice == "long" for item in found) > 0


@pytest.mark.parametrize(
    "sets",
    [(), ("short",), ("corpus", "short", "short"), ("corpus", "none"), ("corpus", {"own": ""})],
)
def test_the_list_of_sets_is_checked(sets: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError):
        ScoreParams(sets=sets)
