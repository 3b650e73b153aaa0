"""One candidate's rows as statistics: sums per text for errors, similarity and failures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from voxadapt.asr.normalise import metric_for
from voxadapt.core.errors import Problem
from voxadapt.core.params import SelectParams
from voxadapt.core.problems import problem
from voxadapt.core.records import Record
from voxadapt.scoring.rows import ScoreRow, sort_rows
from voxadapt.scoring.statistics import (
    Array,
    Interval,
    Ratio,
    error_interval,
    median_interval,
    rate_interval,
    ratio_by_text,
    ratio_interval,
    resample_weights,
)

Value = Callable[[ScoreRow], float]
ERRORS: dict[str, tuple[Value, Value]] = {  # what is summed, and over what
    "wer": (lambda row: row.words.capped_edits, lambda row: row.ref_words),
    "cer": (lambda row: row.chars.capped_edits, lambda row: row.ref_chars),
    "wer_mean_of_clips": (lambda row: row.wer, lambda row: 1.0),
    "cer_mean_of_clips": (lambda row: row.cer, lambda row: 1.0),
}


def fitting_metric(texts: Iterable[tuple[str, str]]) -> Literal["wer", "cer"]:
    """Name the error rate that means something for normalised texts, each with its language.

    WER where a language among them has spaces: a character of another then counts as a word.
    """
    by_language: dict[str, list[str]] = {}
    for lang, text in texts:
        by_language.setdefault(lang, []).append(text)
    return max(metric_for(lang, found) for lang, found in by_language.items())


def refuse_words(texts: Iterable[tuple[str, str]], metric: Literal["wer", "cer"]) -> list[Problem]:
    """Refuse to count words where none are written; texts are as of `fitting_metric`."""
    texts = list(texts)
    if metric == "cer" or fitting_metric(texts) == "wer":
        return []
    lang = ", ".join(sorted({lang for lang, _ in texts}))
    return [problem("scoring.unspaced", "select.error_metric", lang=lang)]


class Sample:
    """All rows of one candidate on one split.

    A clip whose similarity is missing counts as the floor, the similarity of other voices (0 where
    it is unknown): what nobody could recognise is worth a stranger's voice, and a candidate gains
    nothing by saying too little. `error` is the rate that the selection uses, `usable_error` the
    same of the clips that did not fail, or of all where none is left.
    """

    def __init__(
        self, rows: Sequence[ScoreRow], error_metric: Literal["wer", "cer"], floor: float | None
    ) -> None:
        self.rows = sort_rows(rows)
        self.num_measured = sum(row.status == "ok" for row in self.rows)
        self.text_ids = sorted({row.text_id for row in self.rows})
        self.keys = [row.text_id for row in self.rows]
        stand_in = 0.0 if floor is None else floor
        self.wer, self.cer, self.wer_mean_of_clips, self.cer_mean_of_clips = (
            self._sum(*parts) for parts in ERRORS.values()
        )
        self.wer_raw = self._sum(lambda row: row.words.edits, lambda row: row.ref_words)
        self.cer_raw = self._sum(lambda row: row.chars.edits, lambda row: row.ref_chars)
        self.sim = self._sum(lambda row: stand_in if row.sim is None else row.sim)
        self.sim_measured = self._sum(lambda row: row.sim or 0.0, lambda row: row.sim is not None)
        self.failure_rate = self._sum(lambda row: row.failed)
        self.wrong_language_rate = self._sum(lambda row: "wrong_language" in row.flags)
        mostly_wrong = {"wer": lambda row: row.wer > 0.5, "cer": lambda row: row.cer > 0.5}
        self.mostly_wrong_rate = self._sum(mostly_wrong[error_metric])
        self.error = self.wer if error_metric == "wer" else self.cer
        edits, units = ERRORS[error_metric]
        self.usable_error = self._sum(
            lambda row: 0 if row.failed else edits(row), lambda row: 0 if row.failed else units(row)
        )
        if not self.usable_error.denominator.any():
            self.usable_error = self.error

    def _sum(self, numerator: Value, denominator: Value = lambda row: 1.0) -> Ratio:
        return ratio_by_text(
            self.text_ids,
            self.keys,
            [float(numerator(row)) for row in self.rows],
            [float(denominator(row)) for row in self.rows],
        )

    def error_interval(self, name: str, weights: Array, confidence: float) -> Interval:
        """Return one of `ERRORS` with its interval."""
        edits, units = ERRORS[name]
        usable = self._sum(lambda row: 0 if row.failed else edits(row), units)
        failed = self._sum(lambda row: edits(row) if row.failed else 0, units)
        failures, count = self.failure_rate, len(self.rows)
        return error_interval(usable, failed, failures, weights, count, confidence)

    def intervals(
        self, weights: Array, confidence: float, ceiling: float | None, floor: float | None
    ) -> dict[str, Interval]:
        """Return every measure with its interval; ceiling and floor are of the calibrated scale."""
        count = len(self.rows)
        found = {name: self.error_interval(name, weights, confidence) for name in ERRORS}
        found["sim"] = ratio_interval(self.sim, weights, count, confidence)
        for name in ("wer_raw", "cer_raw"):  # one runaway outweighs a set: no interval would hold
            found[name] = Interval(getattr(self, name).point, None, None, count)
        measured = sum(row.sim is not None for row in self.rows)
        found["sim_measured"] = ratio_interval(self.sim_measured, weights, measured, confidence)
        found["sim_norm"] = calibrated(found["sim"], ceiling, floor)
        ratios = [(row.text_id, row.dur_ratio) for row in self.rows if row.dur_ratio is not None]
        found["duration_ratio"] = median_interval(
            self.text_ids, [key for key, _ in ratios], [r for _, r in ratios], weights, confidence
        )
        for name in ("failure_rate", "wrong_language_rate", "mostly_wrong_rate"):
            found[name] = rate_interval(getattr(self, name), weights, count, confidence)
        return found


def calibrated(
    value: Interval, ceiling: float | None, floor: float | None, difference: bool = False
) -> Interval:
    """Put a similarity, or a difference of two, on the scale from floor (0) to ceiling (1)."""
    if ceiling is None or floor is None or ceiling - floor < 1e-6:
        return Interval(None, None, None, value.n)
    span, zero = ceiling - floor, 0.0 if difference else floor

    def scaled(number: float | None) -> float | None:
        return None if number is None else (number - zero) / span

    return replace(
        value,
        point=scaled(value.point),
        low=scaled(value.low),
        high=scaled(value.high),
        se=None if value.se is None else value.se / span,
    )


def error_rates(rows: Sequence[ScoreRow], params: SelectParams) -> Record:
    """Return word and character error of rows of one candidate or of recordings, with intervals."""
    sample = Sample(rows, params.error_metric, None)
    weights = resample_weights(len(sample.text_ids), params.num_bootstrap, params.seed)
    return {
        name: sample.error_interval(name, weights, params.confidence).as_dict()
        for name in ("wer", "cer")
    }
