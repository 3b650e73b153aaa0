"""The gate on F0 range, and melody and pace in the record of a decision."""

from __future__ import annotations

from collections.abc import Sequence

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.prosody import compare, is_measurable, prosody
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.statistics import Interval
from voxadapt.selection.gates import Gate, State

NAME = "f0_range"


def f0_range_gate(
    rows: Sequence[ScoreRow],
    real: Sequence[ScoreRow],
    codec: Sequence[ScoreRow],
    limit: float,
    params: SelectParams,
) -> Gate:
    """Ask that a candidate's F0 range is not below a share of the speaker's own.

    Passed where the whole interval is above the limit, failed where the ratio itself is below.

    Args:
        rows: Of one candidate and one speaker.
        real: Rows of the speaker's recordings of the same sentences.
        codec: Rows of their codec round trip, which say whether F0 survives the codec.
        limit: Smallest ratio.
        params: Bootstrap size, confidence and seed.
    """
    found = compare(rows, real, "f0_range_st", params) if is_measurable(real, codec) else None
    if found is None or found.point is None:
        text = "F0 cannot be measured: the codec's round trip does not keep it."
        if is_measurable(real, codec):
            text = "No sentence with an F0 has a recording to compare with."
        return Gate(NAME, "undecided", Interval(None, None, None, 0), limit, text)
    lower = found.point if found.low is None else found.low
    state: State = "passed" if lower >= limit else "failed" if found.point < limit else "undecided"
    text = (
        f"F0 range {found.point:.2f} of the recordings' (at least {lower:.2f}), "
        f"limit {limit:.2f}, {found.n} sentences."
    )
    return Gate(NAME, state, found, limit, text)


def prosody_record(
    rows: Sequence[ScoreRow],
    real: Sequence[ScoreRow],
    codec: Sequence[ScoreRow],
    params: SelectParams,
) -> Record:
    """Return a candidate's melody and pace against the recordings, for the record of a decision.

    Args:
        rows: Of one candidate; of several speakers, each is compared with its own recordings.
        real: Rows of the recordings.
        codec: Rows of their codec round trip.
        params: Bootstrap size, confidence and seed.

    Returns:
        What `prosody` returns, and `f0_measurable`; without F0 where that is false.
    """
    measurable = is_measurable(real, codec)
    found = prosody(rows, real, params)
    kept = {name: value for name, value in found.items() if measurable or name[:2] != "f0"}
    return {"f0_measurable": measurable, **kept}
