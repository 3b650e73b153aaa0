"""Capped corpus error, raw corpus error and mean of clips are three numbers."""

from __future__ import annotations

import pytest

from rows import make_row
from voxadapt.scoring.measures import Sample


def test_one_runaway_cannot_outweigh_the_rest() -> None:
    clean = [make_row(text_id=f"t{n}", word_hits=10, ref_words=10) for n in range(9)]
    runaway = make_row(text_id="t9", word_hits=0, word_substitutions=10, word_insertions=70)
    sample = Sample([*clean, runaway], "wer", None)
    assert sample.wer.point == pytest.approx(0.1)
    assert sample.wer_raw.point == pytest.approx(0.8)
    assert len(sample.rows) == 10


def test_corpus_error_is_not_the_mean_of_clips() -> None:
    wrong = make_row(text_id="t0", ref_words=1, word_hits=0, word_substitutions=1)
    sample = Sample([wrong, make_row(text_id="t1", ref_words=9, word_hits=9)], "wer", None)
    assert sample.wer.point == pytest.approx(0.1)
    assert sample.wer_mean_of_clips.point == pytest.approx(0.5)
