"""Which candidate to keep: gates, the earliest within one standard error, confirmation.

The start is candidate 0 and may win: the zero-shot Base, or what an earlier stage chose. The rule
is fixed in the parameters before anything is scored; equal inputs give equal bytes, in whatever
order the rows come. Sentences with digits are checked like all others and decide nothing.

How a paired gate (failure rate, error, similarity) is read, with d = how much worse the candidate
is than the start and margin m: *passed* when the upper bound of d is at most m (shown to be no
worse); *failed* when d itself is above m; *undecided* in between. Undecided candidates stay
eligible and the record says so: with 30 sentences one failed clip already lifts the upper bound
above a margin of .02, and dropping every such candidate would choose by luck.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from voxadapt.asr.normalise import metric_for
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.params import SelectParams, epoch_number, in_stage2
from voxadapt.scoring.measures import Sample, calibrated
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked, rows_sha
from voxadapt.scoring.speakers import Apart, confusion
from voxadapt.scoring.statistics import (
    Array,
    Interval,
    Ratio,
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

BASE = "base"
SCHEMA = "voxadapt-selection/1"
POWER_DIFFERENCES = {"similarity": (0.005, 0.01, 0.02), "error": (0.01, 0.02, 0.05)}


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition that a candidate must meet."""

    name: str
    state: str
    value: float | None
    low: float | None
    high: float | None
    limit: float | tuple[float, float]
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        limit = list(self.limit) if isinstance(self.limit, tuple) else self.limit
        return {
            "name": self.name,
            "state": self.state,
            "value": rounded(self.value),
            "low": rounded(self.low),
            "high": rounded(self.high),
            "limit": limit,
            "text": self.text,
        }


def select(
    rows: Mapping[str, Sequence[ScoreRow]],
    params: SelectParams,
    *,
    start: str = BASE,
    what: str = "fine-tune",
    scale: Mapping[str, Any] | None = None,
    real: Sequence[ScoreRow] = (),
    codec: Sequence[ScoreRow] = (),
    kept: Collection[str] = (),
) -> dict[str, Any]:
    """Choose a candidate by the rule in the parameters.

    Where several speakers speak, every gate must hold for each of them, and the candidates are
    ranked by the speaker that is furthest below its own ceiling, then by the mean of all.

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
        zero-shot Base, and None where that was not scored. Of several speakers it says who they
        are (`speakers`), and of each candidate their measures and gates and its `confusion`.

    Raises:
        UserError: When candidates were not scored on the same clips by the same evaluator, or
            the error metric cannot measure the language, or no sentence is without digits.
    """
    names = sorted(rows, key=lambda name: _place(name, start))
    split = _check(rows, names, params, start)
    everything = [row for name in names for row in rows[name]]
    evaluator = evaluator_id(everything)
    recordings = {"real": real, "codec": codec}  # of all splits
    real = ranked(comparable(real, split, evaluator))
    codec = ranked(comparable(codec, split, evaluator))
    _same_reference(scale, evaluator)
    inputs = {name: rows_sha(rows[name]) for name in names}
    rows = {name: ranked(rows[name]) for name in names}
    ceiling, floor = _point(scale, "ceiling"), _point(scale, "floor")
    samples = {name: Sample(rows[name], params.error_metric, floor) for name in names}
    first = samples[start]
    weights = resample_weights(len(first.text_ids), params.num_bootstrap, params.seed)
    confidence = params.confidence
    takes = len(first.rows) // len(first.text_ids)

    higher = params.primary == "similarity"
    primary: dict[str, Any] = {name: s.sim if higher else s.error for name, s in samples.items()}
    measured = {
        name: sample.intervals(weights, confidence, ceiling, floor)
        for name, sample in samples.items()
    }
    real_rate = Sample(real, params.error_metric, floor).wrong_language_rate.point if real else None
    apart = Apart.of(rows, scale, params)
    if apart is None:
        gates = {
            name: _gates(samples[name], first, measured[name], weights, params, real_rate, start)
            for name in names
        }
    else:
        means, primary = primary, {name: apart.worst(name, params) for name in names}
        by_speaker = {
            name: _gates_by_speaker(apart, name, weights, params, real_rate, start, kept)
            for name in names
        }
        gates = {name: _worst_gates(found) for name, found in by_speaker.items()}
    eligible = [n for n in names if all(gate.state != "failed" for gate in gates[n])]

    comparison = _compare(
        eligible, primary, samples, weights, higher, confidence, params.similarity_tie,
        None if apart is None else means,
    )  # fmt: skip
    best = comparison.best if comparison else start
    chosen = comparison.chosen if comparison else start
    runner_up = comparison.runner_up if comparison else None
    clearest = comparison.clearest if comparison else None
    tied = list(comparison.tied) if comparison else []
    metric = params.error_metric

    def versus(name: str, other: str) -> dict[str, Any] | None:
        if name == other or other not in samples:
            return None
        ours, theirs = samples[name], samples[other]
        pairs = {
            "primary": (primary[name], primary[other]),
            "sim": (ours.sim, theirs.sim),
            "error": (ours.error, theirs.error),
            "failure_rate": (ours.failure_rate, theirs.failure_rate),
        }
        return {
            key: paired_difference(*pair, weights, confidence)[0].as_dict(with_se=True)
            for key, pair in pairs.items()
        }

    candidates = []
    for name in names:
        shown = ("wer", "wer_raw", "cer", "cer_raw", "sim", "sim_norm", "duration_ratio",
                 "failure_rate", "wrong_language_rate")  # fmt: skip
        in_race = comparison is not None and name in eligible
        candidates.append(
            {
                "name": name,
                "epoch": epoch_number(name),
                "eligible": name in eligible,
                "n_expected": len(samples[name].rows),
                "n_measured": samples[name].num_measured,
                "gates": [gate.as_dict() for gate in gates[name]],
                **{key: measured[name][key].as_dict() for key in shown},
                "primary": (
                    measured[name]["sim" if higher else metric]
                    if apart is None
                    else ratio_interval(primary[name], weights, len(samples[name].rows), confidence)
                ).as_dict(),
                "vs_base": versus(name, BASE),
                **({} if start == BASE else {"vs_start": versus(name, start)}),
                "vs_best": comparison.versus_best[name] if comparison and in_race else None,
                "p_best": rounded(comparison.p_best[name]) if comparison and in_race else 0.0,
                "pareto": bool(comparison and in_race and comparison.pareto[name]),
                "pareto_probability": (
                    rounded(comparison.pareto_probability[name]) if comparison and in_race else 0.0
                ),
                **({} if apart is None else apart.record(name, start, by_speaker[name], weights,
                                                         rows[name], params)),
            }
        )  # fmt: skip
    rule = _rule_text(params, start)
    if apart is not None:
        rule += _rule_of_speakers(params, kept)
    result = {
        "schema": SCHEMA,
        "rule": params.model_dump(mode="json") | {"text": rule},
        "split": split,
        "num_texts": len(first.text_ids),
        "takes": takes,
        "evaluator": evaluator,
        "inputs": inputs,
        "asr_floor": _floor(real, params),
        "codec_floor": _floor(codec, params),
        "scale": None
        if scale is None
        else {key: rounded(_point(scale, key)) for key in ("ceiling", "codec_ceiling", "floor")},
        "candidates": candidates,
        "best": best,
        "chosen": chosen,
        "runner_up": runner_up,
        "tied": tied,
        "clearest": clearest,
        "keep_base": chosen == BASE,
        **({} if start == BASE else {"start": start, "keep_start": chosen == start}),
        "power": _power(names, primary, weights, takes, params, start),
    }
    if apart is not None:
        result["speakers"] = apart.described(kept)
        result["recordings"] = {
            name: confusion(found, params) for name, found in recordings.items() if found
        }
    result["reason"] = _reason(result, start, what)
    return result


def _gates(
    sample: Sample,
    first: Sample,
    measured: Mapping[str, Interval],
    weights: Array,
    params: SelectParams,
    real_wrong_language: float | None,
    start: str,
) -> list[Gate]:
    """Hold one candidate against every gate."""
    total, measurable = len(sample.rows), sample.num_measured
    gates = [
        Gate(
            "coverage",
            "passed" if measurable == total else "failed",
            measurable / total,
            None,
            None,
            1.0,
            f"{measurable} of {total} clips exist and could be measured.",
        )
    ]
    for name, label, margin in (
        ("failure_rate", "failure rate", params.failure_margin),
        ("error", params.error_metric.upper(), params.error_margin),
    ):
        ours, theirs = getattr(sample, name), getattr(first, name)
        found, _ = paired_difference(ours, theirs, weights, params.confidence)
        gates.append(_paired_gate(name, label, found, margin, start))
    if params.similarity_margin is not None:
        found, _ = paired_difference(sample.sim, first.sim, weights, params.confidence)
        gates.append(_similarity_gate(found, params.similarity_margin, start))
    ratio = measured["duration_ratio"]
    low, high = params.duration_ratio
    inside = ratio.point is not None and low <= ratio.point <= high
    shown = "unknown" if ratio.point is None else f"{ratio.point:.2f}"
    gates.append(
        Gate(
            "duration_ratio",
            "passed" if inside else "failed",
            ratio.point,
            ratio.low,
            ratio.high,
            params.duration_ratio,
            f"Median spoken/expected duration {shown}, band {low:g} to {high:g}.",
        )
    )
    gates.append(_language_gate(measured["wrong_language_rate"], params, real_wrong_language))
    return gates


def _paired_gate(name: str, label: str, found: Interval, margin: float, start: str) -> Gate:
    """Read a paired difference against its margin; see the module's docstring."""
    assert found.point is not None
    upper = found.point if found.high is None else found.high
    difference = f"{label} minus {_called(start)}'s: {100 * found.point:+.1f} points"
    state, verdict = _against_margin(found.point, upper, margin)
    text = f"{difference} (at most {100 * upper:+.1f}), margin {100 * margin:.1f}: {verdict}."
    return Gate(name, state, found.point, found.low, found.high, margin, text)


def _similarity_gate(found: Interval, margin: float, start: str) -> Gate:
    """Read a paired difference of similarities, where lower is worse, against its margin."""
    assert found.point is not None
    lower = found.point if found.low is None else found.low
    state, verdict = _against_margin(-found.point, -lower, margin)
    text = (
        f"SIM-resemblyzer minus {_called(start)}'s: {found.point:+.3f} (at least {lower:+.3f}), "
        f"margin {margin:.3f}: {verdict}."
    )
    return Gate("similarity", state, found.point, found.low, found.high, -margin, text)


def _against_margin(worse: float, at_most: float, margin: float) -> tuple[str, str]:
    """Name the state of a paired gate.

    Args:
        worse: How much worse the candidate is.
        at_most: Upper bound of that.
        margin: How much is allowed.
    """
    if at_most <= margin:
        return "passed", "shown to be within the margin"
    if worse > margin:
        return "failed", "worse by more than the margin"
    return "undecided", "within the margin, but too few sentences to show it"


def _language_gate(rate: Interval, params: SelectParams, real_wrong_language: float | None) -> Gate:
    """Limit the share of clips that Whisper hears in another language."""
    limit = params.max_wrong_language
    assert rate.point is not None
    if real_wrong_language is not None and real_wrong_language > limit:
        state = "undecided"
        text = (
            f"Whisper mistakes the language of {100 * real_wrong_language:.0f} % of the real "
            "clips: it cannot judge."
        )
    else:
        state = "passed" if rate.point <= limit else "failed"
        text = f"Another language heard in {100 * rate.point:.1f} %, limit {100 * limit:.1f} %."
    return Gate("wrong_language", state, rate.point, rate.low, rate.high, limit, text)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The race among eligible candidates.

    Attributes:
        best: First by the primary measure.
        chosen: The one to take.
        runner_up: First of the others.
        tied: Those that cannot be told from the best, the best among them.
        clearest: Of these the one with the lowest error; None where the error is the primary.
        versus_best: Differences to the best.
        p_best: Share of resamples in which a candidate is the best.
        pareto: Whether it lies on the front of error and similarity.
        pareto_probability: Share of resamples in which it does.
    """

    best: str
    chosen: str
    runner_up: str | None
    tied: tuple[str, ...]
    clearest: str | None
    versus_best: dict[str, dict[str, Any]]
    p_best: dict[str, float]
    pareto: dict[str, bool]
    pareto_probability: dict[str, float]


def _compare(
    eligible: Sequence[str],
    primary: Mapping[str, Any],
    samples: Mapping[str, Sample],
    weights: Array,
    higher: bool,
    confidence: float,
    similarity_tie: float,
    means: Mapping[str, Ratio] | None = None,
) -> _Comparison | None:
    """Find the best, the candidates that tie with it, and the one of those to take."""
    if not eligible:
        return None
    num_texts = weights.shape[1]
    points = np.array([primary[name].point for name in eligible])
    # Equal to what is published: a difference in the last bits of a sum is none.
    gains = np.round(points if higher else -points, 9)
    best_index = int(np.argmax(gains))  # the earliest of equals
    best = eligible[best_index]
    draws = np.stack([primary[name].draws(weights) for name in eligible], axis=1)
    differences = draws - draws[:, [best_index]]
    gaps = points - points[best_index]
    critical = all_pairs_critical(draws, points, num_texts, confidence)
    versus_best, tied = {}, []
    for index, name in enumerate(eligible):
        found, _ = paired_difference(primary[name], primary[best], weights, confidence)
        se = standard_error(differences[:, index], num_texts)
        se = 0.0 if not np.isfinite(se) else se
        reach = critical * se
        within = bool(abs(gains[index] - gains[best_index]) <= se)
        contains = bool(abs(gaps[index]) <= reach + 1e-12)
        alike = higher and abs(gains[index] - gains[best_index]) <= similarity_tie
        if alike or (within and contains):
            tied.append(name)
        versus_best[name] = {
            "difference": found.as_dict(with_se=True),
            "simultaneous_low": rounded(gaps[index] - reach),
            "simultaneous_high": rounded(gaps[index] + reach),
            "within_one_se": within,
            "contains_zero": contains,
        }
    if means is not None:  # of those whose worst speakers tie, the best of all speakers together
        sign = 1.0 if higher else -1.0
        leader = max(tied, key=lambda name: sign * round(means[name].point, 9))
        tie = similarity_tie if higher else 0.0
        tied = [
            name
            for name in tied
            if abs(round(means[name].point - means[leader].point, 9)) <= tie
            or _within_one_se(means[name], means[leader], weights, num_texts)
        ]
    clearest, remaining = None, tied
    if higher:
        # No ear hears a thousandth of similarity, but words are missed: among those that tie in
        # similarity, the error decides as far as it can.
        errors_of = {name: samples[name].error for name in tied}
        clearest = min(tied, key=lambda name: round(errors_of[name].point, 9))
        remaining = [
            name
            for name in tied
            if _within_one_se(errors_of[name], errors_of[clearest], weights, num_texts)
        ]
    chosen = remaining[0]  # the earliest, as the eligible come in their order
    others = [index for index, name in enumerate(eligible) if name != chosen]
    runner_up = eligible[max(others, key=lambda i: gains[i])] if others else None
    errors = np.stack([samples[name].error.draws(weights) for name in eligible], axis=1)
    sims = np.stack([samples[name].sim.draws(weights) for name in eligible], axis=1)
    members = pareto_members(
        np.array([samples[name].error.point for name in eligible]),
        np.array([samples[name].sim.point for name in eligible]),
    )
    probabilities = probability_best(np.round(draws, 9), higher)
    membership = pareto_members(np.round(errors, 9), np.round(sims, 9)).mean(axis=0)
    return _Comparison(
        best,
        chosen,
        runner_up,
        tuple(tied),
        clearest,
        versus_best,
        dict(zip(eligible, probabilities.tolist(), strict=True)),
        dict(zip(eligible, members.tolist(), strict=True)),
        dict(zip(eligible, membership.tolist(), strict=True)),
    )


def _within_one_se(ours: Ratio, theirs: Ratio, weights: Array, num_texts: int) -> bool:
    """Tell whether two statistics differ by at most one paired standard error."""
    se = standard_error(ours.draws(weights) - theirs.draws(weights), num_texts)
    gap = abs(round(ours.point - theirs.point, 9))
    return bool(gap <= (se if np.isfinite(se) else 0.0))


def _power(
    names: Sequence[str],
    primary: Mapping[str, Any],
    weights: Array,
    takes: int,
    params: SelectParams,
    start: str,
) -> dict[str, Any]:
    """Say which difference between two epochs this set of sentences could show."""
    num_texts = weights.shape[1]
    if num_texts < 2:
        text = "A single sentence cannot show a difference."
        return {"se": None, "detectable_difference": None, "num_texts": num_texts,
                "texts_needed": [], "text": text}  # fmt: skip
    draws = {name: primary[name].draws(weights) for name in names}
    epochs = [name for name in names if name not in (BASE, start)] or list(names)
    pairs = [(a, b) for i, a in enumerate(epochs) for b in epochs[i + 1 :]] or [(epochs[0], start)]
    errors = [standard_error(draws[a] - draws[b], num_texts) for a, b in pairs]
    se = float(np.median(errors))
    smallest = detectable_difference(se, num_texts, params.confidence)
    unit = "similarity" if params.primary == "similarity" else params.error_metric.upper()
    needed = [
        {
            "difference": difference,
            "num_texts": texts_needed(difference, se, num_texts, params.confidence),
        }
        for difference in POWER_DIFFERENCES[params.primary]
    ]
    return {
        "se": rounded(se),
        "detectable_difference": rounded(smallest),
        "num_texts": num_texts,
        "texts_needed": needed,
        "text": (
            f"With {num_texts} sentences x {takes} takes a true difference of {smallest:.3f} in "
            f"{unit} between two epochs is found in 80 % of cases; a difference of "
            f"{needed[0]['difference']:g} needs about {needed[0]['num_texts']} sentences."
        ),
    }


def _reason(result: Mapping[str, Any], start: str, what: str) -> str:
    """Put the decision into sentences."""
    by_name = {item["name"]: item for item in result["candidates"]}
    chosen, best, rule = by_name[result["chosen"]], result["best"], result["rule"]
    metric = rule["error_metric"].upper()
    label = "SIM-resemblyzer" if rule["primary"] == "similarity" else metric
    out = [name for name, item in by_name.items() if not item["eligible"]]
    gated = f" Gated out: {', '.join(_gate_names(by_name[name]) for name in out)}." if out else ""
    open_gates = [gate["name"] for gate in chosen["gates"] if gate["state"] == "undecided"]
    doubt = (
        f" Not decided by this set: {', '.join(open_gates).replace('_', ' ')}."
        if open_gates
        else ""
    )
    score = f"{label} {chosen['primary']['point']:.3f}"
    if "speakers" in result:
        worst = chosen["worst_speaker"]
        far = f"{abs(chosen['primary']['point']):.3f}"
        if rule["primary"] == "similarity":
            value = chosen["speakers"][worst]["sim"]["point"]
            score = f"worst speaker ({worst}: {label} {value:.3f}, {far} from its ceiling)"
        else:
            score = f"worst speaker ({worst}: {label} {far})"
    keep = f"Keep the Base, do not {what}" if start == BASE else f"Keep {_called(start)}"
    if len(out) == len(by_name):
        return f"{keep}: no candidate passed every gate.{gated}"
    if chosen["name"] == start:
        if best == start:
            kind = "epoch" if start == BASE else "candidate"
            why = f"no eligible {kind} does better than its {score}"
        else:
            why = f"its {score} is {_place_among_ties(result, chosen, metric)}"
        return f"{keep}: {why}.{gated}{doubt}"
    place = _place_among_ties(result, chosen, metric)
    gains = [("vs_base", "the zero-shot Base")]
    if start != BASE:
        gains.insert(0, ("vs_start", _called(start)))
    against = "".join(
        f" Against {other}: SIM-resemblyzer {_signed(chosen[key]['sim'])}, {metric} "
        f"{_signed(chosen[key]['error'])}."
        for key, other in gains
        if chosen[key] is not None
    )
    name = "The Base" if chosen["name"] == BASE else chosen["name"]
    return f"{name} is chosen: its {score} is {place}.{against}{gated}{doubt}"


def _place_among_ties(result: Mapping[str, Any], chosen: Mapping[str, Any], metric: str) -> str:
    """Say how the chosen candidate stands to the best, and what decided where several tie."""
    best, tied, clearest = result["best"], result["tied"], result["clearest"]
    if clearest is None:  # the error is the primary measure
        if best == chosen["name"]:
            return "the best, and no earlier candidate is within one standard error of it"
        return (
            f"the earliest within one standard error of the best, {_called(best)} "
            f"(difference {_signed(chosen['vs_best']['difference'])})"
        )
    if len(tied) == 1:
        return "the best, and no other candidate ties with it"
    if best == chosen["name"]:
        place = f"the best of {len(tied)} that sound alike"
    else:
        place = (
            f"one of {len(tied)} that sound alike (to the best, {_called(best)}: "
            f"{_signed(chosen['vs_best']['difference'])})"
        )
    if clearest == chosen["name"]:
        return f"{place}, and its {metric} is the lowest of these"
    return (
        f"{place}, and of these it is the earliest whose {metric} is within one standard error of "
        f"the lowest, {_called(clearest)}'s"
    )


def _called(name: str) -> str:
    """Name a candidate inside a sentence."""
    return "the Base" if name == BASE else name


def _gate_names(candidate: Mapping[str, Any]) -> str:
    failed = [gate["name"].replace("_", " ") for gate in candidate["gates"]
              if gate["state"] == "failed"]  # fmt: skip
    return f"{candidate['name']} ({', '.join(failed)})"


def _signed(difference: Mapping[str, Any]) -> str:
    """Write a difference with its interval."""
    if difference["low"] is None:
        return f"{difference['point']:+.3f}"
    return f"{difference['point']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"


def _rule_text(params: SelectParams, start: str) -> str:
    """Put the rule into words."""
    metric = params.error_metric.upper()
    goal = "highest similarity" if params.primary == "similarity" else f"lowest {metric}"
    low, high = params.duration_ratio
    whose = f"{_called(start)}'s"
    voice = ""
    if params.similarity_margin is not None:
        voice = f"SIM-resemblyzer at most {params.similarity_margin:g} below {whose}; "
    last = "the zero-shot Base" if start == BASE else f"{start}, where this stage begins,"
    then = near = ""
    if params.primary == "similarity":
        near = f", or within {params.similarity_tie:g} of it"
        then = (
            f"those within one paired standard error of the lowest {metric} among them; of those "
        )
    return (
        f"Eligible: every clip exists; failure rate at most {100 * params.failure_margin:g} points "
        f"and {metric} at most {100 * params.error_margin:g} points above {whose}; {voice}median "
        f"duration ratio {low:g} to {high:g}; wrong language in at most "
        f"{100 * params.max_wrong_language:g} %. Among these, of all within one paired standard "
        f"error of the {goal} and with 0 in the simultaneous {100 * params.confidence:g} % "
        f"interval{near}, {then}the earliest; {last} is the earliest of all."
    )


def _gates_by_speaker(
    apart: Apart,
    name: str,
    weights: Array,
    params: SelectParams,
    real_wrong_language: float | None,
    start: str,
    kept: Collection[str],
) -> dict[str, list[Gate]]:
    """Hold every speaker of a candidate against every gate."""
    found = {}
    for speaker in apart.speakers:
        ours, theirs = apart.samples[name][speaker], apart.samples[start][speaker]
        measured = apart.intervals(name, speaker, weights, params.confidence)
        gates = _gates(ours, theirs, measured, weights, params, real_wrong_language, start)
        if kept:
            if speaker in kept:
                lost, _ = paired_difference(ours.sim, theirs.sim, weights, params.confidence)
                gates.append(_kept_gate(lost, params.similarity_tie))
            else:
                gates.append(Gate("kept_voice", "passed", None, None, None, 0.0, "A new voice."))
        found[speaker] = gates
    return found


def _kept_gate(found: Interval, tie: float) -> Gate:
    """Ask that a speaker whom the model had already is not shown to have lost its voice."""
    assert found.point is not None
    high = found.point if found.high is None else found.high
    difference = f"SIM-resemblyzer minus that of before: {found.point:+.3f}"
    interval = "" if found.low is None else f" [{found.low:+.3f}, {high:+.3f}]"
    if found.point >= -tie:
        state, verdict = "passed", "the voice is kept"
    elif high < 0.0:
        state, verdict = "failed", "the voice has lost"
    else:
        state, verdict = "undecided", "lower, but within the interval of before"
    text = f"{difference}{interval}: {verdict}."
    return Gate("kept_voice", state, found.point, found.low, found.high, -tie, text)


_STATES = ("passed", "undecided", "failed")


def _worst_gates(by_speaker: Mapping[str, Sequence[Gate]]) -> list[Gate]:
    """Return each gate as it stands for the speaker that does worst by it."""

    def badness(item: tuple[str, Gate]) -> tuple[int, float]:
        gate = item[1]
        value = 0.0 if gate.value is None else gate.value
        if gate.name == "duration_ratio":
            value = abs(float(np.log(value))) if value > 0 else np.inf
        elif gate.name in ("coverage", "similarity", "kept_voice"):
            value = -value
        return _STATES.index(gate.state), -np.inf if gate.value is None else value

    names = list(by_speaker)
    worst = []
    for gates in zip(*by_speaker.values(), strict=True):
        speaker, gate = max(zip(names, gates, strict=True), key=badness)
        worst.append(replace(gate, text=f"{speaker}: {gate.text}"))
    return worst


def _rule_of_speakers(params: SelectParams, kept: Collection[str]) -> str:
    """Put what the rule means for several speakers into words."""
    if params.primary == "similarity":
        ranked_by, mean = "of the speaker that is furthest below its own ceiling", "similarity"
    else:
        ranked_by, mean = "of the speaker with the highest error", params.error_metric.upper()
    old = (
        f" A speaker whom the model had before ({', '.join(sorted(kept))}) must not be shown to "
        f"have lost more than {params.similarity_tie:g} of similarity."
        if kept
        else ""
    )
    return (
        f" There are several speakers: every gate must hold for each of them, and what is ranked "
        f"by is that {ranked_by}. Of the candidates that tie in it, those remain that tie with the "
        f"best mean {mean} of all speakers; what follows is read of this mean.{old}"
    )


def confirm(
    base: Sequence[ScoreRow],
    chosen: Sequence[ScoreRow],
    params: SelectParams,
    *,
    scale: Mapping[str, Any] | None = None,
    selection: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compare the chosen candidate with the Base on sentences that chose nothing.

    Args:
        base: The Base's rows of the confirmation split.
        chosen: The chosen candidate's rows; the Base's own where the Base was kept.
        params: The rule.
        scale: `similarity.json` as read.
        selection: `selection.json` as read, to show both splits' differences side by side.

    Returns:
        The JSON-ready content of `confirm.json`.

    Raises:
        UserError: When both were not scored on the same clips by the same evaluator.
    """
    name = chosen[0].candidate
    rows = {BASE: base, name: chosen}
    split = _check(rows, list(rows), params, BASE)
    evaluator = evaluator_id([*base, *chosen])
    _same_reference(scale, evaluator)
    inputs = {key: rows_sha(value) for key, value in rows.items()}
    base, chosen = ranked(base), ranked(chosen)
    ceiling, floor = _point(scale, "ceiling"), _point(scale, "floor")
    ours = Sample(chosen, params.error_metric, floor)
    theirs = Sample(base, params.error_metric, floor)
    weights = resample_weights(len(ours.text_ids), params.num_bootstrap, params.seed)
    confidence = params.confidence
    both = [s.intervals(weights, confidence, ceiling, floor) for s in (theirs, ours)]
    earlier = _earlier(selection, name)
    measures = {}
    for key in ("sim", "wer", "wer_raw", "cer", "cer_raw", "failure_rate"):
        difference, _ = paired_difference(
            getattr(ours, key), getattr(theirs, key), weights, confidence
        )
        measures[key] = {
            "base": both[0][key].as_dict(),
            "chosen": both[1][key].as_dict(),
            "difference": difference.as_dict(with_se=True),
            "selection_difference": earlier.get(key),
        }
        if key == "sim":
            scaled = calibrated(difference, ceiling, floor, difference=True)
            measures["sim_norm"] = {
                "base": both[0]["sim_norm"].as_dict(),
                "chosen": both[1]["sim_norm"].as_dict(),
                "difference": scaled.as_dict(with_se=True),
                "selection_difference": None,
            }
    measures["duration_ratio"] = {
        "base": both[0]["duration_ratio"].as_dict(),
        "chosen": both[1]["duration_ratio"].as_dict(),
        "difference": None,
        "selection_difference": None,
    }
    verdict, sentence = _verdict(name, measures, params, len(ours.text_ids))
    apart = Apart.of({BASE: base, name: chosen}, scale, params)
    return {
        "schema": "voxadapt-confirm/1",
        "split": split,
        "base": BASE,
        "chosen": name,
        "num_texts": len(ours.text_ids),
        "takes": len(ours.rows) // len(ours.text_ids),
        "n_expected": {BASE: len(theirs.rows), name: len(ours.rows)},
        "n_measured": {BASE: theirs.num_measured, name: ours.num_measured},
        "evaluator": evaluator,
        "inputs": inputs,
        "measures": measures,
        "primary": params.primary,
        "error_metric": params.error_metric,
        "verdict": verdict,
        "sentence": sentence,
        "disclosure": (
            "The selection split's figures are optimistic for the chosen candidate, because they "
            "chose it (winner's curse). These sentences chose nothing: quote these figures."
        ),
        **({} if apart is None else _confirmed_speakers(apart, name, chosen, weights, params)),
    }


def _confirmed_speakers(
    apart: Apart,
    name: str,
    chosen: Sequence[ScoreRow],
    weights: Array,
    params: SelectParams,
) -> dict[str, Any]:
    """Compare each of several speakers with the Base on the sentences that chose nothing."""
    found = {}
    for speaker in apart.speakers:
        both = {
            key: apart.intervals(key, speaker, weights, params.confidence) for key in (BASE, name)
        }
        difference = apart.difference(name, BASE, speaker, weights, params.confidence)
        found[speaker] = {
            key: {
                "base": both[BASE][key].as_dict(),
                "chosen": both[name][key].as_dict(),
                "difference": None
                if difference is None
                else difference["sim" if key == "sim" else "error"],
            }
            for key in ("sim", params.error_metric)
        }
    return {"speakers": found, "confusion": confusion(chosen, params)}


def _verdict(
    name: str, measures: Mapping[str, Any], params: SelectParams, num_texts: int
) -> tuple[str, str]:
    """Read the confirmation split: is the gain on the primary measure shown?"""
    metric = params.error_metric
    sim, error = measures["sim"]["difference"], measures[metric]["difference"]
    if name == BASE:
        return "base_kept", (
            f"The Base was kept; on {num_texts} unseen sentences it reaches SIM-resemblyzer "
            f"{measures['sim']['base']['point']:.3f} and {metric.upper()} "
            f"{100 * measures[metric]['base']['point']:.1f} %."
        )
    found, sign = (sim, 1) if params.primary == "similarity" else (error, -1)
    bounds = [sign * found[key] for key in ("low", "high") if found[key] is not None]
    if bounds and min(bounds) > 0:
        verdict, words = "confirmed", f"{name} beats the zero-shot Base"
    elif bounds and max(bounds) < 0:
        verdict, words = "contradicted", f"{name} is worse than the zero-shot Base"
    else:
        verdict, words = "not_confirmed", f"{name} is not shown to beat the zero-shot Base"
    cost, sayings = (
        "",
        {
            "passed": "no worse within the margin",
            "failed": "worse by more than the margin",
            "undecided": "within the margin, though too few sentences to show it",
        },
    )
    if params.primary == "similarity":
        upper = error["point"] if error["high"] is None else error["high"]
        state, _ = _against_margin(error["point"], upper, params.error_margin)
        cost = f"; its {metric.upper()} is {sayings[state]}"
    elif params.similarity_margin is not None:
        lower = sim["point"] if sim["low"] is None else sim["low"]
        state, _ = _against_margin(-sim["point"], -lower, params.similarity_margin)
        cost = f"; its similarity is {sayings[state]}"
    else:
        state = "passed"
    if state == "failed" and verdict == "confirmed":
        verdict = "not_confirmed"
    return verdict, (
        f"On {num_texts} unseen sentences {words}: SIM-resemblyzer {_signed(sim)}, "
        f"{metric.upper()} {_signed(error)}{cost}."
    )


def _earlier(selection: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """Find the chosen candidate's differences on the selection split."""
    if selection is None:
        return {}
    if selection["schema"] != SCHEMA:
        raise UserError(
            Problem("selection", SCHEMA, str(selection["schema"]), "Run `voxadapt select` again.")
        )
    for item in selection["candidates"]:
        if item["name"] == name and item["vs_base"] is not None:
            found = item["vs_base"]
            return {
                "sim": found["sim"],
                selection["rule"]["error_metric"]: found["error"],
                "failure_rate": found["failure_rate"],
            }
    return {}


def check_pairs(
    rows: Mapping[str, Sequence[ScoreRow]], names: Sequence[str], start: str = BASE
) -> list[Problem]:
    """Find what keeps rows from being paired with those of the start.

    Args:
        rows: Rows by candidate.
        names: The candidates to check.
        start: The candidate that the others are compared with.

    Returns:
        The problems; none where every candidate spoke the same takes of the same texts.

    Raises:
        UserError: When the start has no rows.
    """
    problems = []
    if not rows.get(start):
        which = "the zero-shot base" if start == BASE else start
        raise UserError(
            Problem("candidates", f"{which} with its rows", "none", f"Score {start} first.")
        )
    expected = {row.key: (row.text, row.split) for row in rows[start]}
    for name in names:
        found: dict[tuple[str, int], tuple[str, str]] = {}
        for row in rows[name]:
            if row.candidate != name:
                problems.append(
                    Problem(name, f"rows of {name}", row.candidate, "Score this candidate again.")
                )
            if row.key in found:
                problems.append(
                    Problem(f"{name}, text {row.text_id}", "one row a take", "two", "Score again.")
                )
            found[row.key] = (row.text, row.split)
        models = sorted({row.checkpoint_sha for row in rows[name]})
        if len(models) > 1:
            shown = ", ".join(model[:12] or "none" for model in models)
            problems.append(
                Problem(name, "rows of one checkpoint", shown, "Score this candidate again.")
            )
        missing, extra = len(expected.keys() - found.keys()), len(found.keys() - expected.keys())
        if missing or extra:
            problems.append(
                Problem(
                    name,
                    f"the {len(expected)} clips of {start}",
                    f"{missing} missing, {extra} extra",
                    "Score this candidate again.",
                )
            )
        elif found != expected:
            problems.append(
                Problem(name, f"the texts of {start}", "other texts or splits", "Score it again.")
            )
    splits = sorted({split for _, split in expected.values()})
    if len(splits) > 1:
        problems.append(Problem("split", "one split", ", ".join(splits), "Pass one split."))
    takes = {text_id: 0 for text_id, _ in expected}
    for text_id, _ in expected:
        takes[text_id] += 1
    if len(set(takes.values())) > 1:
        problems.append(
            Problem(
                "takes",
                "as many takes of every text",
                str(sorted(set(takes.values()))),
                "Score again.",
            )
        )
    return problems


def _check(
    rows: Mapping[str, Sequence[ScoreRow]],
    names: Sequence[str],
    params: SelectParams,
    start: str,
) -> str:
    """Refuse rows that cannot be paired or measured so, and return their split."""
    problems = check_pairs(rows, names, start)
    row = rows[start][0]
    fitting = metric_for(row.lang, [item.text_norm for item in rows[start]])
    if params.error_metric == "wer" and fitting == "cer":
        problems.append(
            Problem(
                "select.error_metric",
                f"cer: {row.lang} is written without spaces between words",
                "wer",
                "Set select.error_metric: cer.",
            )
        )
    if problems:
        raise UserError(problems[:50], "The candidates cannot be compared.")
    return row.split


def comparable(
    rows: Sequence[ScoreRow], split: str, evaluator: Mapping[str, str]
) -> list[ScoreRow]:
    """Keep the rows of the split, and refuse those of another evaluator.

    Args:
        rows: Rows of recordings or of their codec round trip.
        split: The split to keep.
        evaluator: What `evaluator_id` says of the candidates.

    Raises:
        UserError: When they were normalised, transcribed or compared by something else.
    """
    kept = [row for row in rows if row.split == split]
    for name in ("norm_id", "asr_id", "sim_id"):
        other = {getattr(row, name) for row in kept} - {evaluator[name]}
        if other:
            raise UserError(
                Problem(
                    f"{kept[0].candidate}: {name}",
                    evaluator[name],
                    ", ".join(sorted(other)),
                    "Run the codes stage again.",
                ),
                "Scores made by different evaluators cannot be compared.",
            )
    return kept


def _same_reference(scale: Mapping[str, Any] | None, evaluator: Mapping[str, str]) -> None:
    """Refuse a ceiling and floor that were measured against another centroid than the rows."""
    found = None if scale is None else scale.get("sim_id")
    if found is not None and found != evaluator["sim_id"]:
        raise UserError(
            Problem("similarity.json: sim_id", evaluator["sim_id"], str(found),
                    "Score all candidates anew."),
            "Scores made by different evaluators cannot be compared.",
        )  # fmt: skip


def _floor(rows: Sequence[ScoreRow], params: SelectParams) -> dict[str, Any] | None:
    """Return the error rates of recordings, which no candidate can be expected to beat."""
    if not rows:
        return None
    sample = Sample(rows, params.error_metric, None)
    weights = resample_weights(len(sample.text_ids), params.num_bootstrap, params.seed)
    return {
        name: ratio_interval(getattr(sample, name), weights, len(rows), params.confidence).as_dict()
        for name in ("wer", "cer")
    }


def _point(scale: Mapping[str, Any] | None, name: str) -> float | None:
    return None if scale is None else scale[name]["point"]


def _place(name: str, start: str) -> tuple[bool, bool, bool, int]:
    """Sort the start first, then the Base, then the epochs of each stage."""
    return name != start, name != BASE, in_stage2(name), epoch_number(name)
