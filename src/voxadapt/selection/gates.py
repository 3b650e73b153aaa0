"""The conditions that a candidate must meet, each for every speaker.

How a paired gate (failure rate, error, similarity) is read, with d = how much worse the candidate
is than the start and margin m: *passed* when the upper bound of d is at most m (shown to be no
worse); *failed* when d itself is above m; *undecided* in between. Undecided candidates stay
eligible and the record says so: with 30 sentences one failed clip already lifts the upper bound
above a margin of .02, and dropping every such candidate would choose by luck. The error is that of
the clips that did not fail: with few sentences a single failed one would decide both gates.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.prosody import compare, is_measurable
from voxadapt.scoring.rows import GUARDS, ScoreRow
from voxadapt.scoring.speakers import SpeakerScores
from voxadapt.scoring.statistics import NOTHING, Interval, rounded
from voxadapt.selection import wording

State = Literal["passed", "undecided", "failed"]
STATES: tuple[State, ...] = ("passed", "undecided", "failed")  # from best to worst


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition, what was measured and its limit, and the result as state and sentence."""

    name: str
    state: State
    measured: Interval
    limit: float | tuple[float, float]
    text: str

    def as_dict(self) -> Record:
        """Return JSON-ready values."""
        return {
            "name": self.name,
            "state": self.state,
            "value": rounded(self.measured.point),
            "low": rounded(self.measured.low),
            "high": rounded(self.measured.high),
            "limit": list(self.limit) if isinstance(self.limit, tuple) else rounded(self.limit),
            "text": self.text,
        }

    @property
    def badness(self) -> tuple[int, float]:
        """How bad the result is, for comparison with the same gate of another speaker."""
        value = self.measured.point
        if value is None:
            return STATES.index(self.state), -np.inf
        if self.name == "duration_ratio":
            value = abs(float(np.log(value))) if value > 0 else np.inf
        elif self.name in ("coverage", "similarity", "kept_voice", "f0_range"):  # higher is better
            value = -value
        return STATES.index(self.state), value


def all_gates(
    scores: SpeakerScores,
    name: str,
    start: str,
    params: SelectParams,
    real_wrong_language: float | None,
    kept: Collection[str] = (),
) -> dict[str | None, list[Gate]]:
    """Hold every speaker of a candidate against every gate, in the same order.

    `real_wrong_language` is the share of recordings whose language Whisper mistakes, where it is
    known; `kept` are speakers whom the start's model had already.
    """
    found: dict[str | None, list[Gate]] = {}
    for speaker in scores.speakers:
        sample, measured = scores.samples[name][speaker], scores.intervals(name, speaker)
        gates = [_coverage(sample.num_measured, len(sample.rows))]
        allowed = error_margin(params, scores.samples[start][speaker].usable_error.point)
        for key, of, label, margin in (
            ("failure_rate", "failure_rate", "failure rate", params.failure_margin),
            ("error", "usable_error", f"{params.error_metric.upper()} of usable clips", allowed),
        ):
            difference = scores.difference(of, name, start, speaker)
            gates.append(_not_above(key, label, difference, margin, start))
        if params.similarity_margin is not None:
            difference = scores.difference("sim", name, start, speaker)
            gates.append(_not_below(difference, params.similarity_margin, start))
        gates.append(_duration(measured["duration_ratio"], params.duration_ratio))
        gates.append(_language(measured["wrong_language_rate"], params, real_wrong_language))
        if speaker in kept:
            difference = scores.difference("sim", name, start, speaker)
            gates.append(_kept_voice(difference, params.similarity_tie))
        elif kept:
            gates.append(Gate("kept_voice", "passed", NOTHING, 0.0, "A new voice."))
        found[speaker] = gates
    return found


def worst_gates(by_speaker: Mapping[str | None, Sequence[Gate]]) -> list[Gate]:
    """Return each gate as it stands for the speaker that does worst by it."""
    worst = []
    for gates in zip(*by_speaker.values(), strict=True):
        speaker, gate = max(zip(by_speaker, gates, strict=True), key=lambda item: item[1].badness)
        worst.append(gate if speaker is None else replace(gate, text=f"{speaker}: {gate.text}"))
    return worst


def error_margin(params: SelectParams, error: float) -> float:
    """Return by how much an error may exceed this one, of what a candidate is compared with."""
    return max(params.error_margin, round(params.error_margin_relative * error, 9))


def margin_state(worse: float, at_most: float, margin: float) -> State:
    """Hold how much worse a candidate is, and the upper bound of that, against the margin."""
    if at_most <= margin:
        return "passed"
    return "failed" if worse > margin else "undecided"


def _coverage(num_measured: int, total: int) -> Gate:
    state: State = "passed" if num_measured == total else "failed"
    share = Interval(num_measured / total, None, None, total)
    text = f"{num_measured} of {total} clips exist and could be measured."
    return Gate("coverage", state, share, 1.0, text)


def _not_above(name: str, label: str, found: Interval, margin: float, start: str) -> Gate:
    """Limit a paired difference of errors or failures, where higher is worse."""
    assert found.point is not None
    upper = found.point if found.high is None else found.high
    state = margin_state(found.point, upper, margin)
    text = wording.say("error_gate", label, found.point, upper, margin, state, start)
    return Gate(name, state, found, margin, text)


def _not_below(found: Interval, margin: float, start: str) -> Gate:
    """Limit a paired difference of similarities, where lower is worse."""
    assert found.point is not None
    lower = found.point if found.low is None else found.low
    state = margin_state(-found.point, -lower, margin)
    text = wording.say("similarity_gate", found.point, lower, margin, state, start)
    return Gate("similarity", state, found, -margin, text)


def _duration(ratio: Interval, band: tuple[float, float]) -> Gate:
    """Ask for a median spoken/expected duration within a band."""
    inside = ratio.point is not None and band[0] <= ratio.point <= band[1]
    text = wording.say("duration_gate", ratio.point, band)
    return Gate("duration_ratio", "passed" if inside else "failed", ratio, band, text)


def _language(rate: Interval, params: SelectParams, real_wrong_language: float | None) -> Gate:
    """Limit the share of clips that Whisper hears in another language."""
    limit = params.max_wrong_language
    assert rate.point is not None
    state: State = "passed" if rate.point <= limit else "failed"
    if real_wrong_language is not None and real_wrong_language > limit:
        state = "undecided"
    text = wording.say("language_gate", rate.point, limit, real_wrong_language)
    return Gate("wrong_language", state, rate, limit, text)


def _kept_voice(found: Interval, tie: float) -> Gate:
    """Ask that a speaker whom the model had already is not shown to have lost its voice."""
    assert found.point is not None
    high = found.point if found.high is None else found.high
    state: State = "passed" if found.point >= -tie else "failed" if high < 0.0 else "undecided"
    return Gate(
        "kept_voice", state, found, -tie, wording.say("kept_voice_gate", found.as_dict(), state)
    )


def f0_range_gate(
    rows: Sequence[ScoreRow],
    real: Sequence[ScoreRow],
    codec: Sequence[ScoreRow],
    limit: float,
    params: SelectParams,
) -> Gate:
    """Ask that a candidate's F0 range is not below a share of the speaker's own.

    Passed where the whole interval is above the limit, failed where the ratio itself is below. The
    codec's round trips say whether F0 survives the codec.
    """
    measurable = is_measurable(real, codec)
    found = (compare(rows, real, "f0_range_st", params) if measurable else None) or NOTHING
    lower = found.point if found.low is None else found.low
    state: State = "undecided"
    if found.point is not None and lower is not None:
        state = "passed" if lower >= limit else "failed" if found.point < limit else "undecided"
    text = wording.say("f0_range_gate", measurable, found, lower, limit)
    return Gate("f0_range", state, found, limit, text)


def guard_gates(
    rows: Mapping[str, Sequence[ScoreRow]], start: str, scale: Record | None, params: SelectParams
) -> dict[str, dict[str | None, list[Gate]]]:
    """Hold every candidate against the start on each set that guards, by candidate and speaker.

    A set has few sentences, so that a point estimate above the margin is often luck: a gate fails
    where the candidate is shown to be worse by more than the margin, with the whole interval. A
    single sentence, which has none, shows nothing.
    """
    found: dict[str, dict[str | None, list[Gate]]] = {name: {} for name in rows}
    for part in GUARDS:
        kept = {name: [row for row in all_ if row.slice == part] for name, all_ in rows.items()}
        if not kept[start]:
            continue
        scores = SpeakerScores(kept, scale, params)
        for name in rows:
            for speaker in scores.speakers:
                allowed = error_margin(params, scores.samples[start][speaker].error.point)
                for key, label, margin in (
                    ("failure_rate", "failure rate", params.failure_margin),
                    ("error", params.error_metric.upper(), allowed),
                ):
                    difference = scores.difference(key, name, start, speaker)
                    gate = _guard_gate(f"{part}_{key}", part, label, difference, margin)
                    found[name].setdefault(speaker, []).append(gate)
    return found


def _guard_gate(name: str, part: str, label: str, difference: Interval, margin: float) -> Gate:
    point, low, high = difference.point, difference.low, difference.high
    assert point is not None
    state: State = "passed" if point <= margin else "undecided"
    if low is not None and high is not None:  # of two sentences they may lie beyond what a rate can
        low, high = max(low, -1.0), min(high, 1.0)
        state = "failed" if low > margin else "passed" if high <= margin else "undecided"
        difference = replace(difference, low=low, high=high)
    text = wording.say("guard_gate", part, label, point, low, high, margin)
    return Gate(name, state, difference, margin, text)
