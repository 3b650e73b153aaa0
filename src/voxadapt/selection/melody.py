"""The gate on F0 range, and melody and pace in the record of a decision."""

from collections.abc import Sequence

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.prosody import compare, is_measurable, prosody
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.statistics import NOTHING
from voxadapt.selection import wording
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

    The codec's round trips say whether F0 survives the codec.
    """
    measurable = is_measurable(real, codec)
    found = (compare(rows, real, "f0_range_st", params) if measurable else None) or NOTHING
    lower = found.point if found.low is None else found.low
    state: State = "undecided"
    if found.point is not None and lower is not None:
        state = "passed" if lower >= limit else "failed" if found.point < limit else "undecided"
    text = wording.say("f0_range_gate", measurable, found, lower, limit)
    return Gate(NAME, state, found, limit, text)


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
