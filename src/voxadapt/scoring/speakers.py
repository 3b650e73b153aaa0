"""The speakers of a candidate: their rows together and one by one, and who sounds like whom.

Every speaker says the same sentences and is compared with recordings of its own. Together, the
rows of all are those of one candidate: what a speaker says of a sentence counts as further takes
of it, so that an average weighs all speakers alike and a sentence is redrawn with all who say it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxadapt.core.params import SelectParams
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Record
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow, ranked, sort_rows
from voxadapt.scoring.statistics import (
    Array,
    Interval,
    Ratio,
    mean_interval,
    paired_difference,
    resample_weights,
    rounded,
)


def speakers_in(rows: Sequence[ScoreRow]) -> tuple[str, ...]:
    """Name the speakers of rows; none where a single one speaks."""
    return tuple(sorted({row.speaker for row in rows if row.speaker is not None}))


def rows_of(rows: Sequence[ScoreRow], speaker: str) -> list[ScoreRow]:
    """Keep the rows of one speaker."""
    return [row for row in rows if row.speaker == speaker]


def pooled_sim_id(sim_ids: Mapping[str, str]) -> str:
    """Name the references of several speakers at once."""
    encoder = next(iter(sim_ids.values())).split("/")[0]
    return f"{encoder}/speakers-{fingerprint(dict(sim_ids), 8)}"


def pool(
    rows: Mapping[str, Sequence[ScoreRow]], own: Mapping[str, str], takes: int, sim_id: str
) -> list[ScoreRow]:
    """Put the rows of several speakers, by speaker, together as further takes of their sentences.

    The first takes of a sentence are those of the speaker whose recording it is (`own`, by text),
    so that clips with the same text and take are of the same voice, in every candidate and in the
    recordings; a sentence that nobody recorded is of all alike. `takes` are those of each speaker.
    """
    names = sorted(rows)
    pooled = []
    for speaker in names:
        for row in rows[speaker]:
            order = sorted(names, key=lambda name: (name != own.get(row.text_id), name))
            take = order.index(speaker) * takes + row.take
            pooled.append(
                row.model_copy(update={"speaker": speaker, "take": take, "sim_id": sim_id})
            )
    return sort_rows(pooled)


@dataclass(frozen=True, slots=True)
class Worst:
    """The statistic of the worst of several speakers, all over the same texts.

    In each resample it is the worst of that resample, so that its interval allows for another
    speaker having been the worst one. Each is measured from a level: the ceiling of its similarity,
    0 for an error.
    """

    parts: tuple[Ratio, ...]
    levels: tuple[float, ...]
    higher: bool

    def _pick(self, values: Sequence[float | Array]) -> Array:
        levelled = [value - level for value, level in zip(values, self.levels, strict=True)]
        return np.asarray((np.min if self.higher else np.max)(np.stack(levelled), axis=0))

    @property
    def point(self) -> float:
        """The worst value over all texts."""
        return float(self._pick([part.point for part in self.parts]))

    @property
    def index(self) -> int:
        """Which speaker's it is."""
        values = np.subtract([part.point for part in self.parts], self.levels)
        return int(np.argmin(values) if self.higher else np.argmax(values))

    def draws(self, weights: Array) -> Array:
        """Return the worst value of each resample, [B]."""
        return self._pick([part.draws(weights) for part in self.parts])

    def left_out(self) -> Array:
        """Return the worst value without each text in turn, [T]."""
        return self._pick([part.left_out() for part in self.parts])


class SpeakerScores:
    """The scores of all candidates: of each speaker, and of all speakers together.

    Rows, by candidate, are all of the same clips; of several speakers the scale, `similarity.json`
    as read, holds that of each.

    Attributes:
        speakers: Their names; `(None,)` where a single one speaks and rows do not name it.
        samples: Sums per text by candidate, then by speaker; None: all speakers together.
        weights: How often each of T texts is drawn in each of B resamples, [B, T].
        params: The rule.
    """

    def __init__(
        self, rows: Mapping[str, Sequence[ScoreRow]], scale: Record | None, params: SelectParams
    ) -> None:
        self._scale, self.params = scale, params
        names = speakers_in([row for found in rows.values() for row in found])
        self.speakers: tuple[str | None, ...] = names or (None,)
        together: tuple[str | None, ...] = (None,)
        self.samples: dict[str, dict[str | None, Sample]] = {
            candidate: {
                speaker: Sample(
                    found if speaker is None else rows_of(found, speaker),
                    params.error_metric,
                    self.level("floor", speaker),
                )
                for speaker in (*together, *names)
            }
            for candidate, found in rows.items()
        }
        texts = next(iter(self.samples.values()))[None].text_ids
        self.weights = resample_weights(len(texts), params.num_bootstrap, params.seed)
        self._intervals: dict[tuple[str, str | None], dict[str, Interval]] = {}

    def level(self, name: str, speaker: str | None = None) -> float | None:
        """Return a level of similarity; None where it is unknown.

        `ceiling`, `codec_ceiling`, `floor`, or `top`: the upper end of the scale, which is the
        codec's ceiling where there is one. The speaker is one of several; None: all together.
        """
        scale = self._scale
        if speaker is not None:
            scale = (scale or {}).get("speakers", {}).get(speaker)
        if scale is None:
            return None
        if name == "top":
            coded = self.level("codec_ceiling", speaker)
            return self.level("ceiling", speaker) if coded is None else coded
        point: float | None = scale[name]["point"]
        return point

    def levels(self, speaker: str | None = None) -> Record:
        """Return ceilings and floor of similarity for the record."""
        names = ("ceiling", "codec_ceiling", "floor")
        return {name: rounded(self.level(name, speaker)) for name in names}

    def intervals(self, name: str, speaker: str | None = None) -> dict[str, Interval]:
        """Return a candidate's measures with their intervals."""
        if (name, speaker) not in self._intervals:
            self._intervals[name, speaker] = self.samples[name][speaker].intervals(
                self.weights,
                self.params.confidence,
                self.level("top", speaker),
                self.level("floor", speaker),
            )
        return self._intervals[name, speaker]

    def difference(
        self, measure: str, name: str, other: str, speaker: str | None = None
    ) -> Interval:
        """Return how much a measure of one candidate exceeds that of another, paired by text."""
        ours, theirs = (
            getattr(self.samples[candidate][speaker], measure) for candidate in (name, other)
        )
        return paired_difference(ours, theirs, self.weights, self.params.confidence)[0]

    def gain(self, name: str, other: str) -> Interval:
        """Return how much a candidate exceeds another in what they are ranked by, see `worst`."""
        both = self.worst(name), self.worst(other)
        return paired_difference(*both, self.weights, self.params.confidence)[0]

    def mean(self, name: str) -> Ratio:
        """Return the primary measure over all clips: every speaker weighs the same."""
        sample = self.samples[name][None]
        return sample.sim if self.params.primary == "similarity" else sample.error

    def worst(self, name: str) -> Worst:
        """Return what the candidate is ranked by: the primary measure of its worst speaker.

        Of several speakers, similarity counts from each one's own ceiling: of a voice whose
        recordings resemble one another less, no candidate can be asked for more.
        """
        parts = [self.samples[name][speaker] for speaker in self.speakers]
        if self.params.primary != "similarity":
            return Worst(tuple(part.error for part in parts), (0.0,) * len(parts), False)
        ceilings = [
            0.0 if speaker is None else self.level("top", speaker) or 0.0
            for speaker in self.speakers
        ]
        return Worst(tuple(part.sim for part in parts), tuple(ceilings), True)

    def by_speaker(self, name: str, other: str, measures: Sequence[str]) -> dict[str, Record]:
        """Return what a record holds of each speaker that rows name, compared with another one."""
        found: dict[str, Record] = {}
        for speaker in self.speakers:
            if speaker is None:
                continue
            measured = self.intervals(name, speaker)
            sample = self.samples[name][speaker]
            versus = None
            if name != other and other in self.samples:
                versus = {
                    key: self.difference(key, name, other, speaker).as_dict(with_se=True)
                    for key in ("sim", "error", "failure_rate")
                }
            found[speaker] = {
                "n_expected": len(sample.rows),
                "n_measured": sample.num_measured,
                **{key: measured[key].as_dict() for key in measures},
                "vs_base": versus,
            }
        return found


def confusion(rows: Sequence[ScoreRow], params: SelectParams) -> Record:
    """Ask whether each speaker sounds like itself: compare its clips with everybody's recordings.

    Returns:
        `speakers`, a list of the names; `rows`, one for each speaker that was asked for, with
        `n` clips, the mean `similarity` to each speaker's recordings in the order of the names,
        how many clips are `nearest` to each, how many have no voice to compare (`none`), and the
        share of clips that are nearest to the `right` one; and that share over all clips.
        Intervals resample texts.
    """
    rows = ranked(rows)
    names = speakers_in(rows)
    table = []
    for asked in names:
        own = rows_of(rows, asked)
        nearest = [nearest_speaker(row) for row in own]
        voiced = [(row.text_id, row.sim_to) for row in own if row.sim_to is not None]
        similar = [[(text_id, to[name]) for text_id, to in voiced] for name in names]
        table.append(
            {
                "speaker": asked,
                "n": len(own),
                "similarity": [mean_interval(found, params).as_dict() for found in similar],
                "nearest": [nearest.count(name) for name in names],
                "none": nearest.count(None),
                "right": _share_right(own, params),
            }
        )
    return {"speakers": list(names), "rows": table, "right": _share_right(rows, params)}


def nearest_speaker(row: ScoreRow) -> str | None:
    """Name the speaker whose recordings a clip is most similar to; None without a voice."""
    if not row.sim_to:
        return None
    similar = row.sim_to
    return max(sorted(similar), key=lambda name: similar[name])


def _share_right(rows: Sequence[ScoreRow], params: SelectParams) -> Record:
    """Return the share of clips that are nearest to the speaker that was asked for."""
    found = [(row.text_id, float(nearest_speaker(row) == row.speaker)) for row in rows]
    return mean_interval(found, params, rate=True).as_dict()
