"""Which candidate to keep: gates, then the earliest within one standard error of the best.

The start is candidate 0 and may win: the zero-shot Base, or what an earlier stage chose. The rule
is fixed in the parameters before anything is scored; equal inputs give equal bytes, in whatever
order the rows come. Sentences with digits are checked like all others and decide nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxadapt.core.params import SelectParams, epoch_number
from voxadapt.core.records import Record
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked, rows_sha
from voxadapt.scoring.speakers import SpeakerScores, Worst, confusion
from voxadapt.scoring.statistics import (
    Array,
    Interval,
    Statistic,
    all_pairs_critical,
    detectable_difference,
    paired_difference,
    pareto_members,
    probability_best,
    ratio_interval,
    resample_weights,
    rounded,
    standard_error,
    texts_needed,
)
from voxadapt.selection import wording
from voxadapt.selection.gates import Gate, all_gates, worst_gates
from voxadapt.selection.pairing import (
    BASE,
    check_candidates,
    check_scale,
    comparable,
    in_order,
)

SCHEMA = "voxadapt-selection/1"
POWER_DIFFERENCES = {"similarity": (0.005, 0.01, 0.02), "error": (0.01, 0.02, 0.05)}
SHOWN = (
    "wer", "wer_raw", "cer", "cer_raw", "sim", "sim_norm", "duration_ratio", "failure_rate",
    "wrong_language_rate",
)  # fmt: skip
SHOWN_OF_SPEAKERS = ("wer", "cer", "sim", "sim_norm", "duration_ratio", "failure_rate")


def select(
    rows: Mapping[str, Sequence[ScoreRow]],
    params: SelectParams,
    *,
    start: str = BASE,
    what: str = "fine-tune",
    scale: Record | None = None,
    real: Sequence[ScoreRow] = (),
    codec: Sequence[ScoreRow] = (),
    kept: Collection[str] = (),
) -> Record:
    """Choose a candidate by the rule in the parameters.

    Every gate must hold for each speaker, and candidates are ranked by their worst speaker (of
    several: the one that is furthest below its own ceiling), then by the mean of all speakers.

    Args:
        rows: Rows of the selection split by candidate: the start, and what it is held against.
        params: The rule.
        start: What the gates compare with and what is kept when nothing does better: `base`, or
            the choice of the stage before.
        what: What was tried, as "Keep the Base, do not …" ends.
        scale: `similarity.json` as read, for ceiling and floor.
        real: Rows of the held-out recordings, for the ASR floor; any split is filtered.
        codec: Rows of their codec round trip.
        kept: Of several speakers, those whom the start's model had already: a further gate asks
            that their voices are not lost.

    Returns:
        The JSON-ready content of `selection.json`. Where the start is not the Base it holds
        `start` and `keep_start`, and each candidate `vs_start`; `vs_base` is always against the
        zero-shot Base, and None where that was not scored. Where rows name their speakers it says
        who they are (`speakers`), and of each candidate their measures and gates and its
        `confusion`.

    Raises:
        UserError: When candidates were not scored on the same clips by the same evaluator, or
            the error metric cannot measure the language, or no sentence is without digits.
    """
    names = in_order(rows, start)
    split = check_candidates(rows, names, params, start)
    evaluator = evaluator_id(row for name in names for row in rows[name])
    recordings = {
        name: ranked(comparable(found, split, evaluator))
        for name, found in (("real", real), ("codec", codec))
    }
    check_scale(scale, evaluator)
    inputs = {name: rows_sha(rows[name]) for name in names}
    rows = {name: ranked(rows[name]) for name in names}
    scores = SpeakerScores(rows, scale, params)
    wrong_language = None
    if recordings["real"]:
        sample = Sample(recordings["real"], params.error_metric, None)
        wrong_language = sample.wrong_language_rate.point
    gates = {name: all_gates(scores, name, start, params, wrong_language, kept) for name in names}
    worst = {name: worst_gates(gates[name]) for name in names}
    eligible = [name for name in names if all(gate.state != "failed" for gate in worst[name])]
    race = _race(eligible, scores, params) if eligible else None
    first = scores.samples[start][None]
    takes = len(first.rows) // len(first.text_ids)
    chosen = race.chosen if race else start
    result: Record = {
        "schema": SCHEMA,
        "rule": params.model_dump(mode="json") | {"text": wording.selection_rule(params, start)},
        "split": split,
        "num_texts": len(first.text_ids),
        "takes": takes,
        "evaluator": evaluator,
        "inputs": inputs,
        "asr_floor": _recorded_errors(recordings["real"], params),
        "codec_floor": _recorded_errors(recordings["codec"], params),
        "scale": None if scale is None else scores.levels(),
        "candidates": [
            {
                **_candidate(scores, name, start, params),
                **_placed(race if name in eligible else None, name),
                "eligible": name in eligible,
                "gates": [gate.as_dict() for gate in worst[name]],
            }
            for name in names
        ],
        "best": race.best if race else start,
        "chosen": chosen,
        "runner_up": race.runner_up if race else None,
        "tied": list(race.tied) if race else [],
        "clearest": race.clearest if race else None,
        "keep_base": chosen == BASE,
        "power": _power(names, scores, takes, params, start),
    }
    if start != BASE:
        result |= {"start": start, "keep_start": chosen == start}
    if scores.speakers != (None,):
        _add_speakers(result, scores, gates, rows, {"real": real, "codec": codec}, params, kept)
    result["reason"] = wording.selection_reason(result, start, what)
    return result


def _candidate(scores: SpeakerScores, name: str, start: str, params: SelectParams) -> Record:
    """Return a candidate's measures, and how it compares with the Base and the start."""
    sample, measured = scores.samples[name][None], scores.intervals(name)
    primary = ratio_interval(
        scores.worst(name), scores.weights, len(sample.rows), params.confidence
    )
    others = {"vs_base": BASE} | ({} if start == BASE else {"vs_start": start})
    return {
        "name": name,
        "epoch": epoch_number(name),
        "n_expected": len(sample.rows),
        "n_measured": sample.num_measured,
        **{key: measured[key].as_dict() for key in SHOWN},
        "primary": primary.as_dict(),
        **{key: _versus(scores, name, other, params) for key, other in others.items()},
    }


def _versus(scores: SpeakerScores, name: str, other: str, params: SelectParams) -> Record | None:
    """Compare two candidates; None for one and the same, or where the other was not scored."""
    if name == other or other not in scores.samples:
        return None
    primary, _ = paired_difference(
        scores.worst(name), scores.worst(other), scores.weights, params.confidence
    )
    found = {"primary": primary} | {
        key: scores.difference(key, name, other) for key in ("sim", "error", "failure_rate")
    }
    return {key: value.as_dict(with_se=True) for key, value in found.items()}


def _add_speakers(
    result: Record,
    scores: SpeakerScores,
    gates: Mapping[str, Mapping[str | None, Sequence[Gate]]],
    rows: Mapping[str, Sequence[ScoreRow]],
    recordings: Mapping[str, Sequence[ScoreRow]],
    params: SelectParams,
    kept: Collection[str],
) -> None:
    """Add what `selection.json` says of speakers that the rows name."""
    start = result.get("start", BASE)
    for item in result["candidates"]:
        name = item["name"]
        found = scores.by_speaker(name, start, SHOWN_OF_SPEAKERS)
        for speaker, record in found.items():
            record["gates"] = [gate.as_dict() for gate in gates[name][speaker]]
        item["speakers"] = found
        item["worst_speaker"] = scores.speakers[scores.worst(name).index]
        item["confusion"] = confusion(rows[name], params)
    result["rule"]["text"] += wording.speakers_rule(params, kept)
    result["speakers"] = [
        {"name": speaker, "kept": speaker in kept, **scores.levels(speaker)}
        for speaker in scores.speakers
    ]
    result["recordings"] = {
        name: confusion(found, params) for name, found in recordings.items() if found
    }


@dataclass(frozen=True, slots=True)
class _Race:
    """The comparison of the eligible candidates.

    Attributes:
        best: First by the primary measure.
        chosen: The one to take.
        runner_up: First of the others.
        tied: Those that cannot be told from the best, the best among them.
        clearest: Of these the one with the lowest error; None where the error is the primary.
        placed: What the record says of each one's place.
    """

    best: str
    chosen: str
    runner_up: str | None
    tied: tuple[str, ...]
    clearest: str | None
    placed: Mapping[str, Record]


def _placed(race: _Race | None, name: str) -> Record:
    """Return a candidate's place in the race; that of one that is not eligible without a race."""
    if race is not None:
        return race.placed[name]
    return {"vs_best": None, "p_best": 0.0, "pareto": False, "pareto_probability": 0.0}


def _race(eligible: Sequence[str], scores: SpeakerScores, params: SelectParams) -> _Race:
    """Find the best, the candidates that tie with it, and the one of those to take."""
    higher = params.primary == "similarity"
    primary = {name: scores.worst(name) for name in eligible}
    points = np.array([primary[name].point for name in eligible])
    # Equal to what is published: a difference in the last bits of a sum is none.
    gains = np.round(points if higher else -points, 9)
    best = int(np.argmax(gains))  # the earliest of equals
    draws = np.stack([primary[name].draws(scores.weights) for name in eligible], axis=1)
    versus_best = _versus_best(eligible, primary, draws, best, scores.weights, params)
    tie = params.similarity_tie if higher else -np.inf
    tied = [
        name
        for name, gain in zip(eligible, gains, strict=True)
        if abs(gain - gains[best]) <= tie
        or (versus_best[name]["within_one_se"] and versus_best[name]["contains_zero"])
    ]
    if len(scores.speakers) > 1:  # of those whose worst speakers tie, the best mean of all speakers
        tied = _best_means(tied, scores, params)
    clearest, remaining = None, tied
    if higher:
        # No ear hears a thousandth of similarity, but words are missed: among those that tie in
        # similarity, the error decides as far as it can.
        errors = {name: scores.samples[name][None].error for name in tied}
        clearest = min(tied, key=lambda name: round(errors[name].point, 9))
        remaining = [
            name for name in tied if _within_one_se(errors[name], errors[clearest], scores.weights)
        ]
    chosen = remaining[0]  # the earliest, as the eligible come in their order
    others = [index for index, name in enumerate(eligible) if name != chosen]
    runner_up = eligible[max(others, key=lambda i: gains[i])] if others else None
    p_best = probability_best(np.round(draws, 9), higher)
    pareto, membership = _pareto(eligible, scores)
    placed = {
        name: {
            "vs_best": versus_best[name],
            "p_best": rounded(p_best[index]),
            "pareto": bool(pareto[index]),
            "pareto_probability": rounded(membership[index]),
        }
        for index, name in enumerate(eligible)
    }
    return _Race(eligible[best], chosen, runner_up, tuple(tied), clearest, placed)


def _versus_best(
    eligible: Sequence[str],
    primary: Mapping[str, Worst],
    draws: Array,
    best: int,
    weights: Array,
    params: SelectParams,
) -> dict[str, Record]:
    """Compare every eligible candidate with the best by the primary measure.

    Args:
        eligible: Names of the C candidates.
        primary: Their primary measure.
        draws: That measure in each resample, [B, C].
        best: Position of the best.
        weights: How often each text is drawn in each resample, [B, T].
        params: The rule.
    """
    num_texts = weights.shape[1]
    points = np.array([primary[name].point for name in eligible])
    critical = all_pairs_critical(draws, points, num_texts, params.confidence)
    differences, gaps = draws - draws[:, [best]], points - points[best]
    found = {}
    for index, name in enumerate(eligible):
        difference, _ = paired_difference(
            primary[name], primary[eligible[best]], weights, params.confidence
        )
        se = standard_error(differences[:, index], num_texts)
        se = 0.0 if not np.isfinite(se) else se
        reach = critical * se
        gap = np.round(points[index], 9) - np.round(points[best], 9)
        found[name] = {
            "difference": difference.as_dict(with_se=True),
            "simultaneous_low": rounded(gaps[index] - reach),
            "simultaneous_high": rounded(gaps[index] + reach),
            "within_one_se": bool(abs(gap) <= se),
            "contains_zero": bool(abs(gaps[index]) <= reach + 1e-12),
        }
    return found


def _best_means(tied: Sequence[str], scores: SpeakerScores, params: SelectParams) -> list[str]:
    """Keep the candidates whose mean over all speakers ties with the best mean."""
    higher = params.primary == "similarity"
    sign, tie = (1.0, params.similarity_tie) if higher else (-1.0, 0.0)
    means = {name: scores.mean(name) for name in tied}
    leader = means[max(tied, key=lambda name: sign * round(means[name].point, 9))]
    return [
        name
        for name in tied
        if abs(round(means[name].point - leader.point, 9)) <= tie
        or _within_one_se(means[name], leader, scores.weights)
    ]


def _pareto(eligible: Sequence[str], scores: SpeakerScores) -> tuple[NDArray[np.bool_], Array]:
    """Tell who lies on the front of error and similarity, and in which share of resamples, [C]."""
    samples = [scores.samples[name][None] for name in eligible]
    errors = np.stack([sample.error.draws(scores.weights) for sample in samples], axis=1)
    sims = np.stack([sample.sim.draws(scores.weights) for sample in samples], axis=1)
    members = pareto_members(
        np.array([sample.error.point for sample in samples]),
        np.array([sample.sim.point for sample in samples]),
    )
    membership: Array = pareto_members(np.round(errors, 9), np.round(sims, 9)).mean(axis=0)
    return members, membership


def _within_one_se(ours: Statistic, theirs: Statistic, weights: Array) -> bool:
    """Tell whether two statistics differ by at most one paired standard error."""
    se = standard_error(ours.draws(weights) - theirs.draws(weights), weights.shape[1])
    gap = abs(round(ours.point - theirs.point, 9))
    return bool(gap <= (se if np.isfinite(se) else 0.0))


def _power(
    names: Sequence[str], scores: SpeakerScores, takes: int, params: SelectParams, start: str
) -> Record:
    """Say which difference between two epochs this set of sentences could show."""
    num_texts = scores.weights.shape[1]
    record: Record = {
        "se": None,
        "detectable_difference": None,
        "num_texts": num_texts,
        "texts_needed": [],
        "text": "A single sentence cannot show a difference.",
    }
    if num_texts < 2:
        return record
    draws = {name: scores.worst(name).draws(scores.weights) for name in names}
    epochs = [name for name in names if name not in (BASE, start)] or list(names)
    pairs = [(a, b) for i, a in enumerate(epochs) for b in epochs[i + 1 :]] or [(epochs[0], start)]
    errors = [standard_error(draws[a] - draws[b], num_texts) for a, b in pairs]
    se = float(np.median(errors))
    smallest = detectable_difference(se, num_texts, params.confidence)
    record |= {
        "se": rounded(se),
        "detectable_difference": rounded(smallest),
        "texts_needed": [
            {
                "difference": difference,
                "num_texts": texts_needed(difference, se, num_texts, params.confidence),
            }
            for difference in POWER_DIFFERENCES[params.primary]
        ],
    }
    return record | {"text": wording.power(record, smallest, takes, params)}


def _recorded_errors(rows: Sequence[ScoreRow], params: SelectParams) -> Record | None:
    """Return the error rates of recordings, which no candidate can be expected to beat."""
    if not rows:
        return None
    sample = Sample(rows, params.error_metric, None)
    weights = resample_weights(len(sample.text_ids), params.num_bootstrap, params.seed)
    found: dict[str, Interval] = {
        name: ratio_interval(getattr(sample, name), weights, len(rows), params.confidence)
        for name in ("wer", "cer")
    }
    return {name: value.as_dict() for name, value in found.items()}
