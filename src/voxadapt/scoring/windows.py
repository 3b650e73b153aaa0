"""Does a clip keep one voice from its first second to its last, and where are its words lost?

The similarity of a whole clip is an average: one second in another voice barely moves it. Each
second is therefore compared with the speaker as well, and F0 before and after each moment. A single
second is a noisy measure, so it is judged together with the halves of its neighbours. What a
speaker's own clips do, after the codec through which everything generated has passed, sets the
limits; nothing is tuned on the clips that are judged.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from rapidfuzz.distance import Levenshtein

from voxadapt.asr.normalise import characters, is_unspaced
from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.statistics import (
    DIGITS,
    Ratio,
    mean_interval,
    paired_difference,
    ratio_by_text,
    ratio_interval,
    resample_weights,
)

VOICE_FLAGS = ("other_voice", "pitch_jump")
LIMIT_SD = 3.0  # standard deviations beyond the mean of the speaker's own clips
MIN_CLIPS = 20  # fewer have no spread worth the name
STRETCH = 3  # windows that are judged together: two seconds, as windows overlap by half
#: Scale of the Gumbel distribution, which extremes follow, over its standard deviation.
GUMBEL_SCALE = 6.0**0.5 / np.pi
#: Seconds that errors are counted in: the first one, and stretches of long clips.
STRETCHES_S = ((0.0, 1.0), (1.0, 5.0), (5.0, 10.0), (10.0, 20.0), (20.0, float("inf")))


@dataclass(frozen=True, slots=True)
class VoiceLimits:
    """What the speaker's own clips reach; beyond it a clip is flagged.

    The lowest of many stretches is lower than that of few, in any voice: for clips that are longer
    than the speaker's the limits give way as the extremes of so many more stretches do (Gumbel).
    """

    #: Lowest similarity of a stretch to the speaker; None where it is not known.
    stretch_sim: float | None
    stretch_sd: float  # standard deviation of a clip's lowest stretch
    f0_jump_st: float | None  # largest jump of F0 in semitones; None where F0 cannot be measured
    f0_jump_sd: float  # standard deviation of a clip's largest jump
    num_windows: int  # seconds of a clip, overlapping by half: the median of the speaker's clips
    n: int  # clips behind the limits

    def flags(self, sims: Sequence[float] | None, jump_st: float | None) -> tuple[str, ...]:
        """Name what is beyond the limits: similarity along the clip, or a jump of F0, semitones."""
        wider = GUMBEL_SCALE * max(0.0, math.log(len(sims or (1,)) / self.num_windows))
        other = jump = False
        if sims and self.stretch_sim is not None:
            other = lowest_stretch(sims) < self.stretch_sim - wider * self.stretch_sd
        if jump_st is not None and self.f0_jump_st is not None:
            jump = jump_st > self.f0_jump_st + wider * self.f0_jump_sd
        found = zip(VOICE_FLAGS, (other, jump), strict=True)
        return tuple(flag for flag, is_wrong in found if is_wrong)


def lowest_stretch(sims: Sequence[float]) -> float:
    """Return the lowest mean of `STRETCH` windows in a row, or of all where there are fewer."""
    return float(np.min(sliding_window_view(sims, min(STRETCH, len(sims))).mean(axis=1)))


def voice_limits(rows: Sequence[ScoreRow]) -> VoiceLimits | None:
    """Set the limits by the speaker's own held-out clips; None where there are too few."""
    known = [row.window_sims for row in rows if row.window_sims]
    jumps = [row.f0_jump_st for row in rows if row.f0_jump_st is not None]
    if len(known) < MIN_CLIPS:
        return None
    lowest = [lowest_stretch(sims) for sims in known]
    # Where the codec leaves most clips without a voice, F0 is not measured on what it has coded.
    measurable = len(jumps) >= max(MIN_CLIPS, len(lowest) // 2)
    return VoiceLimits(
        stretch_sim=_beyond(lowest, -LIMIT_SD),
        stretch_sd=round(float(np.std(lowest)), DIGITS),
        f0_jump_st=_beyond(jumps, LIMIT_SD) if measurable else None,
        f0_jump_sd=round(float(np.std(jumps)), DIGITS) if measurable else 0.0,
        num_windows=int(np.median([len(sims) for sims in known])),
        n=len(known),
    )


def _beyond(values: Sequence[float], num_sd: float) -> float:
    return round(float(np.mean(values) + num_sd * np.std(values, ddof=1)), DIGITS)


def by_window(rows: Sequence[ScoreRow], params: SelectParams) -> Record:
    """Measure a candidate's voice and words along its clips.

    Returns:
        JSON-ready: similarity of the first second, of the rest and of the last second (`onset`,
        `rest`, `last`), the first minus the rest and the last minus the first, share of clips with
        each flag of `VOICE_FLAGS`, and the error rate by stretch of seconds, where words are
        placed in time by their share of the characters. Intervals resample sentences.
    """
    text_ids = sorted({row.text_id for row in rows})
    weights = resample_weights(len(text_ids), params.num_bootstrap, params.seed)

    long = [(row.text_id, own) for row in rows if len(own := row.window_sims or ()) > 2]

    def mean(value: Callable[[Sequence[float]], float]) -> Ratio:
        return ratio_by_text(text_ids, [key for key, _ in long], [value(own) for _, own in long])

    sims = {
        "onset": mean(lambda own: own[0]),
        "rest": mean(lambda own: float(np.mean(own[2:]))),  # windows overlap by half
        "last": mean(lambda own: own[-1]),
    }
    record: Record = {
        name: ratio_interval(ratio, weights, len(long), params.confidence).as_dict()
        for name, ratio in sims.items()
    }
    for name, ours, theirs in (("onset_minus_rest", "onset", "rest"), ("drift", "last", "onset")):
        gap, _ = paired_difference(sims[ours], sims[theirs], weights, params.confidence)
        record[name] = gap.as_dict()
    for flag in VOICE_FLAGS:
        found = [(row.text_id, float(flag in row.flags)) for row in rows]
        record[flag] = mean_interval(found, params, rate=True).as_dict()
    record["errors"] = []
    for low, high in STRETCHES_S:
        parts = [(row.text_id, *_errors_between(row, low, high)) for row in rows]
        kept = [(key, edits, units) for key, edits, units in parts if units]
        if kept:
            ratio = ratio_by_text(
                text_ids, [k for k, _, _ in kept], [e for _, e, _ in kept], [u for _, _, u in kept]
            )
            rate = ratio_interval(ratio, weights, len(kept), params.confidence)
            until = None if np.isinf(high) else high
            record["errors"].append({"from_s": low, "to_s": until, **rate.as_dict()})
    return record


def _errors_between(row: ScoreRow, low_s: float, high_s: float) -> tuple[float, float]:
    """Count errors and units (words, or characters of an unspaced script) in a stretch of a clip.

    A unit lies where its share of the characters puts it between the first sound and the last. A
    clip that could not be measured has all its units in the first second.
    """
    spoken, text = characters(row.text_norm), row.text_norm
    units = list(spoken) if is_unspaced(text) else text.split()
    heard = list(characters(row.hyp_norm)) if is_unspaced(text) else row.hyp_norm.split()
    wrong = np.zeros(len(units))
    for op in Levenshtein.opcodes(units, heard):
        if op.tag == "insert":
            wrong[min(op.src_start, len(units) - 1)] += op.dest_end - op.dest_start
        elif op.tag != "equal":
            wrong[op.src_start : op.src_end] += 1.0
    lead = row.lead_silence_s or 0.0
    sounding_s = max(0.0, (row.duration_s or 0.0) - lead - (row.trail_silence_s or 0.0))
    ends = np.cumsum([len(unit) for unit in units])
    middles = (ends - np.array([len(unit) for unit in units]) / 2) / max(1, ends[-1])
    inside = (middles * sounding_s >= low_s) & (middles * sounding_s < high_s)
    return float(np.minimum(wrong, 1.0)[inside].sum()), float(inside.sum())
