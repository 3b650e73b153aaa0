"""Score files are whole, fresh and of one evaluator, or they are refused."""

from __future__ import annotations

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
