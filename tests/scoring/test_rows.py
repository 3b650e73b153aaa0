"""Score files are whole, fresh and of one evaluator, or they are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from rows import make_row, make_system
from voxadapt.core.errors import UserError
from voxadapt.scoring.rows import (
    ScoreRow,
    evaluator_id,
    ranked,
    read_scores,
    rows_sha,
    serialise_rows,
    write_rows,
)

KEYS = [(f"t{i:02d}", take) for i in range(4) for take in range(2)]


@pytest.fixture
def rows() -> list[ScoreRow]:
    return make_system("epoch-1", num_texts=4, takes=2)


def test_round_trip_is_byte_stable(tmp_path: Path, rows: list[ScoreRow]) -> None:
    first = write_rows(tmp_path / "a", rows).read_bytes()
    random.Random(1).shuffle(rows)
    assert write_rows(tmp_path / "b", rows).read_bytes() == first
    assert read_scores(tmp_path / "a", KEYS) == read_scores(tmp_path / "b", KEYS)
    assert rows_sha(rows) == rows_sha(reversed(rows))


def test_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="score rows"):
        read_scores(tmp_path)


def test_missing_extra_and_double_rows_are_named(tmp_path: Path, rows: list[ScoreRow]) -> None:
    write_rows(tmp_path, [*rows[1:], rows[-1], make_row("epoch-1", "stranger")])
    with pytest.raises(UserError) as caught:
        read_scores(tmp_path, KEYS)
    text = str(caught.value)
    assert "text t00, take 0: expected a row; found none" in text
    assert "text stranger" in text and "2 rows" in text


def test_stale_text_split_and_checkpoint_are_refused(tmp_path: Path, rows: list[ScoreRow]) -> None:
    write_rows(tmp_path, rows)
    fresh = {row.text_id: row.text for row in rows}
    read_scores(tmp_path, KEYS, texts=fresh, split="selection", checkpoint_sha="epoch-1")
    with pytest.raises(UserError, match="stale"):
        read_scores(tmp_path, KEYS, texts=fresh | {"t02": "another text"})
    with pytest.raises(UserError, match="split confirmation"):
        read_scores(tmp_path, KEYS, split="confirmation")
    with pytest.raises(UserError, match="checkpoint abc"):
        read_scores(tmp_path, KEYS, checkpoint_sha="abc")


def test_a_broken_line_is_named_with_its_number(tmp_path: Path, rows: list[ScoreRow]) -> None:
    path = write_rows(tmp_path, rows)
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace('"take"', '"taka"')
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"rows\.jsonl:3"):
        read_scores(tmp_path)


@pytest.mark.parametrize("name", ["norm_id", "asr_id", "sim_id", "gen_sha"])
def test_two_evaluators_are_never_mixed(name: str) -> None:
    ours = make_row()
    with pytest.raises(UserError, match=name):
        evaluator_id([ours, ours.model_copy(update={name: "other"})])


def test_a_failed_clip_has_error_one() -> None:
    row = make_row(status="failed", sim=None, message="no audio")
    assert row.wer == row.wer_raw == row.cer == 1.0
    assert row.failed


def test_cap_and_raw_differ() -> None:
    row = make_row(word_hits=0, word_substitutions=10, word_insertions=35)
    assert (row.wer, row.wer_raw) == (1.0, 4.5)
    assert make_row(flags=("rate_high",)).failed and not make_row(flags=("clipping",)).failed


def test_rows_refuse_unknown_fields_and_nan() -> None:
    with pytest.raises(ValidationError):
        make_row(similarity=1.0)
    with pytest.raises(ValidationError):
        make_row(sim=float("nan"))


def test_sentences_with_digits_are_kept_out_of_the_ranked_set() -> None:
    rows = make_system("base", num_texts=3, takes=2)
    digits = [make_row("base", f"n{take}", take, slice="digits") for take in range(2)]
    assert ranked([*rows, *digits]) == rows and ranked([]) == []
    with pytest.raises(UserError, match="sentences without digits") as caught:
        ranked(digits)
    assert "nothing to rank by" in str(caught.value) and "2 rows" in str(caught.value)
    with pytest.raises(ValidationError):
        make_row(slice="nothing")


def test_rows_of_before_slices_were_all_ranked(tmp_path: Path, rows: list[ScoreRow]) -> None:
    path = write_rows(tmp_path, rows)
    path.write_text(path.read_text().replace('"slice": "ranked", ', ""))
    assert read_scores(tmp_path, KEYS) == rows


def test_what_is_not_measured_is_not_written_and_read_back_as_nothing() -> None:
    plain = make_row()
    assert not {"speaker", "sim_to", "mos"} & json.loads(serialise_rows([plain])).keys()
    full = make_row(speaker="Aria", sim_to={"Aria": 0.5}, mos=3.5)
    written = json.loads(serialise_rows([full]))
    assert (written["speaker"], written["sim_to"], written["mos"]) == ("Aria", {"Aria": 0.5}, 3.5)


def test_rows_have_one_order_and_a_hash_of_it() -> None:
    rows = [
        make_row(name, text, take)
        for name in ("b", "a")
        for text in ("t1", "t0")
        for take in (1, 0)
    ]
    lines = serialise_rows(rows).splitlines()
    keys = [
        (json.loads(line)["candidate"], json.loads(line)["text_id"], json.loads(line)["take"])
        for line in lines
    ]
    assert keys == sorted(keys) and len(keys) == 8
    assert rows_sha(rows) == rows_sha(rows[::-1]) != rows_sha(rows[1:])


def test_a_clip_fails_by_its_status_or_a_flag_of_failure() -> None:
    for flags, failed in (((), False), (("clipping",), False), (("clipping", "rate_low"), True)):
        assert make_row(flags=flags).failed == failed
    lost = make_row(status="failed")
    assert lost.failed and lost.words.edits == 10 and lost.chars.edits == 39
    clean = make_row(word_hits=7, word_substitutions=1, word_deletions=2, word_insertions=4,
                     char_hits=30, char_substitutions=2, char_deletions=7,
                     char_insertions=1)  # fmt: skip
    assert (clean.wer, clean.wer_raw) == (0.7, 0.7) and clean.cer == pytest.approx(10 / 39)
    over = make_row(word_hits=0, word_substitutions=10, word_insertions=5)
    assert (over.wer, over.wer_raw) == (1.0, 1.5)


def test_each_language_has_one_evaluator() -> None:
    english, malay = make_row(lang="en"), make_row(lang="ms", asr_id="other", norm_id="of Malay")
    found = evaluator_id([malay, english])
    assert found["asr_id"] == "asr, other" and found["sim_id"] == "sim"
    assert evaluator_id([]) == dict.fromkeys(("norm_id", "asr_id", "sim_id", "gen_sha"), "")
    with pytest.raises(UserError, match=r"asr_id.*asr \(base\), third \(base\)"):
        evaluator_id([english, malay, make_row(asr_id="third")])


@pytest.mark.parametrize(
    ("field", "least"),
    [("ref_words", 1), ("ref_chars", 1), ("word_hits", 0), ("char_insertions", 0), ("take", 0)],
)
def test_a_count_has_its_least(field: str, least: int) -> None:
    assert (
        getattr(ScoreRow.model_validate(make_row().model_dump() | {field: least}), field) == least
    )
    with pytest.raises(ValidationError):
        ScoreRow.model_validate(make_row().model_dump() | {field: least - 1})
