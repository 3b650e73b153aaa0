"""Sets that guard: gates on failures and errors of short, long and other sentences."""

from collections.abc import Mapping, Sequence

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.rows import GUARDS, ScoreRow
from voxadapt.scoring.speakers import SpeakerScores
from voxadapt.scoring.statistics import Interval
from voxadapt.selection import wording
from voxadapt.selection.gates import Gate, State, error_margin


def guard_gates(
    rows: Mapping[str, Sequence[ScoreRow]], start: str, scale: Record | None, params: SelectParams
) -> dict[str, dict[str | None, list[Gate]]]:
    """Hold every candidate against the start on each set that guards, by candidate and speaker.

    A set has few sentences, so that a point estimate above the margin is often luck: a gate fails
    where the candidate is shown to be worse by more than the margin, with the whole interval.
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
                    gate = _gate(f"{part}_{key}", part, label, difference, margin)
                    found[name].setdefault(speaker, []).append(gate)
    return found


def _gate(name: str, part: str, label: str, difference: Interval, margin: float) -> Gate:
    point, low, high = difference.point, difference.low, difference.high
    assert point is not None
    low, high = point if low is None else low, point if high is None else high
    state: State = "failed" if low > margin else "passed" if high <= margin else "undecided"
    text = wording.say("guard_gate", part, label, point, low, high, margin)
    return Gate(name, state, difference, margin, text)
