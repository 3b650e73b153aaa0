"""Melody and pace of a candidate, held against the speaker's own recordings.

Everything is computed from score rows. Where a sentence was recorded, the candidate's clips are
compared with that recording; sentences without one are measured and not compared.
"""

from collections.abc import Callable, Sequence

import numpy as np

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.statistics import (
    Interval,
    Ratio,
    mean_interval,
    ratio_interval,
    resample_weights,
)

QUESTION_MARKS = tuple("?？؟;՞⸮፧")  # the third but last is the Greek one, U+037E
MIN_VOICED_SHARE = 0.5  # of coded recordings; with fewer, F0 does not survive the codec
MAX_SHIFT_ST = 2.0  # between a recording and its codec round trip
MIN_RANGE_KEPT = 0.7  # of a recording's F0 range, by its codec round trip
Value = Callable[[ScoreRow], float | None]


def is_question(text: str) -> bool:
    """Tell whether a sentence ends as a question."""
    return text.rstrip(" \t\"'”’»)」』").endswith(QUESTION_MARKS)


def semitones(row: ScoreRow) -> float | None:
    """Return a clip's median F0 in semitones above 1 Hz: differences of pitch are ratios."""
    return None if row.f0_median_hz is None else 12.0 * float(np.log2(row.f0_median_hz))


def articulation_rate(row: ScoreRow) -> float | None:
    """Return characters a second of speech, silences and pauses left out; None for failed clips."""
    if row.failed or row.duration_s is None or row.pause_s is None:
        return None
    silence_s = (row.lead_silence_s or 0.0) + (row.trail_silence_s or 0.0) + row.pause_s
    speech_s = row.duration_s - silence_s
    return row.ref_chars / speech_s if speech_s > 0 else None


def _final(question: bool) -> Value:
    return lambda row: row.f0_final_st if is_question(row.text) == question else None


# What is measured, and whether a candidate is compared by ratio or by difference.
MEASURES: dict[str, tuple[Value, str]] = {
    "f0_median_st": (semitones, "difference"),
    "f0_range_st": (lambda row: row.f0_range_st, "ratio"),
    "f0_final_statement_st": (_final(False), "difference"),
    "f0_final_question_st": (_final(True), "difference"),
    "num_pauses": (lambda row: row.num_pauses, "difference"),
    "pause_s": (lambda row: row.pause_s, "difference"),
    "articulation_rate": (articulation_rate, "ratio"),
}


def prosody(
    rows: Sequence[ScoreRow], recordings: Sequence[ScoreRow], params: SelectParams
) -> Record:
    """Measure melody and pace, and compare them with the recordings of the same sentences.

    Returns:
        For each of `MEASURES` that has values: `value`, its mean with an interval, and `vs_real`,
        the ratio to the recordings of the same sentences or the difference from them (`kind` says
        which), None where none of these sentences was recorded. Intervals resample sentences with
        all their takes.
    """
    found = {}
    for name, (value, kind) in MEASURES.items():
        measured = _means(rows, value)
        if not measured:
            continue
        against = compare(rows, recordings, name, params)
        found[name] = {
            "value": mean_interval(list(measured.items()), params).as_dict(),
            "kind": kind,
            "vs_real": None if against is None else against.as_dict(),
        }
    return found


def prosody_record(
    rows: Sequence[ScoreRow],
    real: Sequence[ScoreRow],
    codec: Sequence[ScoreRow],
    params: SelectParams,
) -> Record:
    """Return what `prosody` says, and `f0_measurable`; without F0 where that is false."""
    measurable = is_measurable(real, codec)
    found = prosody(rows, real, params)
    kept = {name: value for name, value in found.items() if measurable or name[:2] != "f0"}
    return {"f0_measurable": measurable, **kept}


def compare(
    rows: Sequence[ScoreRow], recordings: Sequence[ScoreRow], name: str, params: SelectParams
) -> Interval | None:
    """Compare a candidate with the recordings of the same sentences by one of `MEASURES`.

    Candidate over recording, or candidate minus recording; n counts sentences. None without a
    common sentence.
    """
    value, kind = MEASURES[name]
    ours, theirs = _means(rows, value), _means(recordings, value)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    mine, other = (np.array([found[key] for key in common]) for found in (ours, theirs))
    ratio = Ratio(mine, other) if kind == "ratio" else Ratio(mine - other, np.ones(len(common)))
    weights = resample_weights(len(common), params.num_bootstrap, params.seed)
    return ratio_interval(ratio, weights, len(common), params.confidence)


def is_measurable(real: Sequence[ScoreRow], codec: Sequence[ScoreRow]) -> bool:
    """Tell whether most recordings keep an F0 after the codec, its level and its range.

    Without any codec round trip nothing speaks against it.
    """
    before, after = _means(real, semitones), _means(codec, semitones)
    known = before.keys() & set(map(_sentence, codec))
    if not known:
        return True
    shifts = [abs(after[key] - before[key]) for key in known if key in after]
    if len(shifts) < MIN_VOICED_SHARE * len(known) or np.median(shifts) > MAX_SHIFT_ST:
        return False
    wide, left = (_means(rows, lambda row: row.f0_range_st) for rows in (real, codec))
    kept = [left[key] / wide[key] for key in wide if key in left and wide[key] > 0]
    return not kept or float(np.median(kept)) >= MIN_RANGE_KEPT


def _sentence(row: ScoreRow) -> str:
    """Name a sentence, and who says it: a speaker is compared with its own recordings."""
    return row.text_id if row.speaker is None else f"{row.text_id}/{row.speaker}"


def _means(rows: Sequence[ScoreRow], value: Value) -> dict[str, float]:
    """Average a value over the takes of each sentence and speaker."""
    found: dict[str, list[float]] = {}
    for row in rows:
        number = value(row)
        if number is not None:
            found.setdefault(_sentence(row), []).append(number)
    return {key: sum(numbers) / len(numbers) for key, numbers in found.items()}
