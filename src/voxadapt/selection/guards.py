"""Sets that guard: gates on failures and errors of short, long and other sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.rows import GUARDS, ScoreRow
from voxadapt.scoring.speakers import SpeakerScores
from voxadapt.selection import wording
from voxadapt.selection.gates import Gate, State, error_margin


def guard_gates(
    rows: Mapping[str, Sequence[ScoreRow]],
    start: str,
    scale: Record | None,
    params: SelectParams,
) -> dict[str, dict[str | None, list[Gate]]]:
    """Hold every candidate against the start on each set that guards.

    A set has few sentences, so that a point estimate above the margin is often luck: a gate fails
    where the candidate is shown to be worse by more than the margin, with the whole interval.

    Args:
        rows: All rows by candidate.
        start: What they are compared with.
        scale: `similarity.json` as read.
        params: Margins.

    Returns:
        By candidate and speaker; nothing where no set was spoken.
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
                found[name].setdefault(speaker, []).extend(
                    _gate(part, key, label, margin, scores, name, start, speaker)
                    for key, label, margin in (
                        ("failure_rate", "failure rate", params.failure_margin),
                        ("error", params.error_metric.upper(), allowed),
                    )
                )
    return found


def _gate(
    part: str,
    key: str,
    label: str,
    margin: float,
    scores: SpeakerScores,
    name: str,
    start: str,
    speaker: str | None,
) -> Gate:
    difference = scores.difference(key, name, start, speaker)
    assert difference.point is not None
    low = difference.point if difference.low is None else difference.low
    high = difference.point if difference.high is None else difference.high
    state: State = "failed" if low > margin else "passed" if high <= margin else "undecided"
    text = wording.say("guard_gate", part, label, difference.point, low, high, margin)
    return Gate(f"{part}_{key}", state, difference, margin, text)
