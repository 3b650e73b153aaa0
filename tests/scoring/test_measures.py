"""Capped corpus error, raw corpus error and mean of clips are three numbers."""

from __future__ import annotations

import numpy as np
import pytest

from rows import make_row
from voxadapt.core.params import SelectParams
from voxadapt.scoring.measures import Sample, calibrated, error_rates
from voxadapt.scoring.statistics import (
    Interval,
    Ratio,
    error_interval,
    rate_interval,
    ratio_interval,
    resample_weights,
)


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


PARAMS = SelectParams(num_bootstrap=300)
#: Three texts: a clean clip, one that failed, one without a voice, and one in another language.
ROWS = [
    make_row(text_id="b", word_hits=8, word_substitutions=2, ref_words=10, char_hits=35,
             char_substitutions=4, ref_chars=39, sim=0.9, dur_ratio=1.2),
    make_row(text_id="b", take=1, word_hits=0, word_substitutions=10, word_insertions=5,
             ref_words=10, char_hits=9, char_substitutions=30, char_insertions=20, ref_chars=39,
             sim=0.5, flags=("rate_high",), dur_ratio=3.0),
    make_row(text_id="a", word_hits=2, word_deletions=2, ref_words=4, char_hits=10,
             char_deletions=10, ref_chars=20, sim=None, dur_ratio=None),
    make_row(text_id="c", word_hits=1, word_substitutions=3, ref_words=4, char_hits=19,
             char_substitutions=1, ref_chars=20, sim=0.7, flags=("wrong_language",), dur_ratio=0.9),
]  # fmt: skip


def test_every_sum_is_what_the_rows_say() -> None:
    sample = Sample(ROWS[::-1], "wer", 0.4)
    assert sample.text_ids == ["a", "b", "c"] and sample.keys == ["a", "b", "b", "c"]
    points = {
        "wer": (2 + 10 + 2 + 3) / 28, "wer_raw": (2 + 15 + 2 + 3) / 28,
        "cer": (4 + 39 + 10 + 1) / 118, "cer_raw": (4 + 50 + 10 + 1) / 118,
        "wer_mean_of_clips": (0.2 + 1.0 + 0.5 + 0.75) / 4,
        "cer_mean_of_clips": (4 / 39 + 1.0 + 0.5 + 0.05) / 4,
        "sim": (0.9 + 0.5 + 0.4 + 0.7) / 4, "sim_measured": (0.9 + 0.5 + 0.7) / 3,
        "failure_rate": 1 / 4, "wrong_language_rate": 1 / 4,
        "mostly_wrong_rate": 2 / 4,  # one half is not most
        "usable_error": (2 + 2 + 3) / 18,
    }  # fmt: skip
    for name, point in points.items():
        assert getattr(sample, name).point == pytest.approx(point), name
    assert sample.error is sample.wer and sample.num_measured == 4
    assert Sample(ROWS, "wer", None).sim.point == pytest.approx(2.1 / 4)
    chars = Sample(ROWS, "cer", None)
    assert chars.error is chars.cer and chars.mostly_wrong_rate.point == 0.25
    assert chars.usable_error.point == pytest.approx((4 + 10 + 1) / 79)


def test_where_every_clip_failed_their_error_is_that_of_all() -> None:
    failed = [row.model_copy(update={"flags": ("rate_high",)}) for row in ROWS]
    sample = Sample(failed, "wer", None)
    assert sample.usable_error is sample.error
    lost = Sample([ROWS[0].model_copy(update={"status": "failed"})], "wer", None)
    assert (lost.num_measured, lost.wer.point, lost.failure_rate.point) == (0, 1.0, 1.0)


def test_intervals_are_of_what_they_say() -> None:
    sample, weights = Sample(ROWS, "wer", 0.4), resample_weights(3, 300, 2)
    found = sample.intervals(weights, 0.95, ceiling=0.9, floor=0.4)
    assert found["sim"] == ratio_interval(sample.sim, weights, 4, 0.95)
    assert found["sim_measured"] == ratio_interval(sample.sim_measured, weights, 3, 0.95)
    assert found["failure_rate"] == rate_interval(sample.failure_rate, weights, 4, 0.95)
    assert found["duration_ratio"].point == 1.2 and found["duration_ratio"].n == 3
    assert found["wer_raw"].point == sample.wer_raw.point and found["wer_raw"].low is None
    usable = Ratio(np.array([2.0, 2.0, 3.0]), np.array([4.0, 20.0, 4.0]))
    failed = Ratio(np.array([0.0, 10.0, 0.0]), np.array([4.0, 20.0, 4.0]))
    wer = error_interval(usable, failed, sample.failure_rate, weights, 4, 0.95)
    assert found["wer"] == wer == sample.error_interval("wer", weights, 0.95)
    assert found["sim_norm"].point == pytest.approx((sample.sim.point - 0.4) / 0.5)
    rates = error_rates(ROWS, PARAMS)
    assert rates["wer"] == wer.as_dict() and set(rates) == {"wer", "cer"}


def test_the_scale_goes_from_the_floor_to_the_ceiling() -> None:
    value = Interval(0.7, 0.5, None, 9, 0.1)
    found = calibrated(value, 0.9, 0.4)
    assert (found.point, found.low, found.high) == (pytest.approx(0.6), pytest.approx(0.2), None)
    assert found.se == pytest.approx(0.2) and found.n == 9
    assert calibrated(value, 0.9, 0.4, difference=True).point == pytest.approx(1.4)
    assert calibrated(Interval(0.7, 0.5, None, 9), 0.9, 0.4).se is None
    for ceiling, floor in ((None, 0.4), (0.9, None), (0.4, 0.4), (0.3, 0.4)):
        assert calibrated(value, ceiling, floor) == Interval(None, None, None, 9)
