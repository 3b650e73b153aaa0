"""Several speakers in one candidate: their rows together and apart, and who sounds like whom.

Every speaker says the same sentences and is compared with recordings of its own. Together, the
rows of all are those of one candidate: what a speaker says of a sentence counts as further takes
of it, so that an average weighs all speakers alike and a sentence is redrawn with all who say it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxadapt.core.params import SelectParams
from voxadapt.core.provenance import fingerprint
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow, ranked, sort_rows
from voxadapt.scoring.statistics import (
    Array,
    Ratio,
    paired_difference,
    rate_interval,
    ratio_by_text,
    ratio_interval,
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
    """Name the references of several speakers at once.

    Args:
        sim_ids: Identity of encoder and reference by speaker.
    """
    encoder = next(iter(sim_ids.values())).split("/")[0]
    return f"{encoder}/speakers-{fingerprint(dict(sim_ids), 8)}"


def pool(
    rows: Mapping[str, Sequence[ScoreRow]], own: Mapping[str, str], takes: int, sim_id: str
) -> list[ScoreRow]:
    """Put the rows of several speakers together as further takes of their sentences.

    The first takes of a sentence are those of the speaker whose recording it is, so that clips
    with the same text and take are of the same voice, in every candidate and in the recordings.

    Args:
        rows: Rows by speaker, takes counted from 0 for each.
        own: Whose sentence each text is.
        takes: Takes of each speaker.
        sim_id: Identity of all references, see `pooled_sim_id`.
    """
    names = sorted(rows)
    pooled = []
    for speaker in names:
        for row in rows[speaker]:
            order = sorted(names, key=lambda name: (name != own[row.text_id], name))
            take = order.index(speaker) * takes + row.take
            pooled.append(
                row.model_copy(update={"speaker": speaker, "take": take, "sim_id": sim_id})
            )
    return sort_rows(pooled)


@dataclass(frozen=True, slots=True)
class Worst:
    """The worst of several speakers' statistics; stands in for a `Ratio`.

    In each resample it is the worst of that resample, so that its interval knows that another
    speaker might have been the worst one.

    Attributes:
        parts: The statistic of each speaker, over the same texts.
        levels: What each is measured from: the ceiling of its similarity, 0 for an error.
        higher: Whether higher is better.
    """

    parts: tuple[Ratio, ...]
    levels: tuple[float, ...]
    higher: bool

    def _pick(self, values: Sequence[Any]) -> Any:
        levelled = [value - level for value, level in zip(values, self.levels, strict=True)]
        return (np.min if self.higher else np.max)(np.stack(levelled), axis=0)

    @property
    def point(self) -> float:
        """The worst value over all texts."""
        return float(self._pick([np.asarray(part.point) for part in self.parts]))

    @property
    def index(self) -> int:
        """Which speaker's it is."""
        values = [part.point - level for part, level in zip(self.parts, self.levels, strict=True)]
        return int(np.argmin(values) if self.higher else np.argmax(values))

    def draws(self, weights: Array) -> Array:
        """Return the worst value of each resample, [B]."""
        return np.asarray(self._pick([part.draws(weights) for part in self.parts]))

    def left_out(self) -> Array:
        """Return the worst value without each text in turn, [T]."""
        return np.asarray(self._pick([part.left_out() for part in self.parts]))


@dataclass(frozen=True, slots=True)
class Apart:
    """Several speakers of the same candidates, one by one.

    Attributes:
        speakers: Their names.
        samples: Statistics by candidate, then by speaker.
        scales: Ceiling, ceiling of the codec and floor by speaker; empty where none is known.
        higher: Whether similarity is what is ranked by.
    """

    speakers: tuple[str, ...]
    samples: Mapping[str, Mapping[str, Sample]]
    scales: Mapping[str, Mapping[str, Any]]
    higher: bool

    @classmethod
    def of(
        cls,
        rows: Mapping[str, Sequence[ScoreRow]],
        scale: Mapping[str, Any] | None,
        params: SelectParams,
    ) -> Apart | None:
        """Take rows of several speakers apart; None where a single one speaks.

        Args:
            rows: Rows by candidate.
            scale: `similarity.json` as read; it holds the scale of each speaker.
            params: The rule.
        """
        speakers = speakers_in([row for found in rows.values() for row in found])
        if not speakers:
            return None
        scales = (scale or {}).get("speakers", {})
        samples = {
            name: {
                speaker: Sample(
                    rows_of(found, speaker),
                    params.error_metric,
                    _point(scales.get(speaker), "floor"),
                )
                for speaker in speakers
            }
            for name, found in rows.items()
        }
        return cls(speakers, samples, scales, params.primary == "similarity")

    def worst(self, name: str, params: SelectParams) -> Worst:
        """Return what the candidate is ranked by: its worst speaker.

        Similarity counts from each speaker's own ceiling: of a voice whose recordings resemble
        one another less, no candidate can be asked for more.
        """
        parts = [self.samples[name][speaker] for speaker in self.speakers]
        if not self.higher:
            return Worst(tuple(part.error for part in parts), (0.0,) * len(parts), False)
        ceilings = [_point(self.scales.get(speaker), "ceiling") or 0.0 for speaker in self.speakers]
        return Worst(tuple(part.sim for part in parts), tuple(ceilings), True)

    def intervals(self, name: str, speaker: str, weights: Array, confidence: float) -> Any:
        """Return a speaker's measures with their intervals."""
        scale = self.scales.get(speaker)
        return self.samples[name][speaker].intervals(
            weights, confidence, _point(scale, "ceiling"), _point(scale, "floor")
        )

    def difference(
        self, name: str, other: str, speaker: str, weights: Array, confidence: float
    ) -> dict[str, Any] | None:
        """Return how a speaker differs between two candidates; None for one and the same."""
        if name == other or other not in self.samples:
            return None
        ours, theirs = self.samples[name][speaker], self.samples[other][speaker]
        return {
            key: paired_difference(getattr(ours, key), getattr(theirs, key), weights, confidence)[
                0
            ].as_dict(with_se=True)
            for key in ("sim", "error", "failure_rate")
        }

    def record(
        self,
        name: str,
        start: str,
        gates: Mapping[str, Sequence[Any]],
        weights: Array,
        rows: Sequence[ScoreRow],
        params: SelectParams,
    ) -> dict[str, Any]:
        """Return what `selection.json` says of a candidate's speakers."""
        shown = ("wer", "cer", "sim", "sim_norm", "duration_ratio", "failure_rate")
        found = {}
        for speaker in self.speakers:
            measured = self.intervals(name, speaker, weights, params.confidence)
            sample = self.samples[name][speaker]
            found[speaker] = {
                "n_expected": len(sample.rows),
                "n_measured": sample.num_measured,
                **{key: measured[key].as_dict() for key in shown},
                "gates": [gate.as_dict() for gate in gates[speaker]],
                "vs_base": self.difference(name, start, speaker, weights, params.confidence),
            }
        return {
            "speakers": found,
            "worst_speaker": self.speakers[self.worst(name, params).index],
            "confusion": confusion(rows, params),
        }

    def described(self, kept: Collection[str]) -> list[dict[str, Any]]:
        """Say who the speakers are, and between which ends their similarity lies."""
        return [
            {
                "name": speaker,
                "kept": speaker in kept,
                **{
                    key: rounded(_point(self.scales.get(speaker), key))
                    for key in ("ceiling", "codec_ceiling", "floor")
                },
            }
            for speaker in self.speakers
        ]


def _point(scale: Mapping[str, Any] | None, name: str) -> float | None:
    return None if scale is None else scale[name]["point"]


def confusion(rows: Sequence[ScoreRow], params: SelectParams) -> dict[str, Any]:
    """Ask whether each speaker sounds like itself: compare its clips with everybody's recordings.

    Args:
        rows: Rows of several speakers of one candidate, with similarities to all of them.
        params: Bootstrap size, confidence and seed.

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
        heard = [row for row in own if row.sim_to is not None]
        nearest = [nearest_speaker(row) for row in own]
        weights = _weights(own, params)
        measured = _weights(heard, params) if heard else None
        similarity = []
        for name in names:
            if measured is None:
                similarity.append({"point": None, "low": None, "high": None, "n": 0})
                continue
            texts, drawn = measured
            values = [(row.sim_to or {})[name] for row in heard]
            ratio = ratio_by_text(texts, [row.text_id for row in heard], values)
            similarity.append(ratio_interval(ratio, drawn, len(heard), params.confidence).as_dict())
        table.append(
            {
                "speaker": asked,
                "n": len(own),
                "similarity": similarity,
                "nearest": [nearest.count(name) for name in names],
                "none": nearest.count(None),
                "right": _share(own, weights, params),
            }
        )
    return {
        "speakers": list(names),
        "rows": table,
        "right": _share(rows, _weights(rows, params), params),
    }


def nearest_speaker(row: ScoreRow) -> str | None:
    """Name the speaker whose recordings a clip is most similar to; None without a voice."""
    if not row.sim_to:
        return None
    similar = row.sim_to
    return max(sorted(similar), key=lambda name: similar[name])


def _weights(rows: Sequence[ScoreRow], params: SelectParams) -> tuple[list[str], Array]:
    texts = sorted({row.text_id for row in rows})
    return texts, resample_weights(len(texts), params.num_bootstrap, params.seed)


def _share(
    rows: Sequence[ScoreRow], weights: tuple[list[str], Array], params: SelectParams
) -> dict[str, Any]:
    """Return the share of clips that are nearest to the speaker that was asked for."""
    texts, drawn = weights
    right = [float(nearest_speaker(row) == row.speaker) for row in rows]
    ratio = ratio_by_text(texts, [row.text_id for row in rows], right)
    return rate_interval(ratio, drawn, len(rows), params.confidence).as_dict()
