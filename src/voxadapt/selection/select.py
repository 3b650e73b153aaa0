"""Which candidate to keep: gates, then those that are shown to be better than the start.

The start is candidate 0, the zero-shot Base or what an earlier stage chose, and is kept unless
another one is shown to be better. The rule is fixed in the parameters before anything is scored;
equal inputs give equal bytes, in whatever order the rows come. Sentences with digits are
checked like all others and decide nothing.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from voxadapt.core.params import SelectParams, epoch_number
from voxadapt.core.records import Record
from voxadapt.scoring.measures import Sample, error_rates
from voxadapt.scoring.prosody import prosody_record
from voxadapt.scoring.rows import ScoreRow, evaluator_id, ranked, rows_sha
from voxadapt.scoring.speakers import SpeakerScores, confusion
from voxadapt.scoring.statistics import (
    Array,
    detectable_difference,
    pareto_members,
    probability_best,
    ratio_interval,
    rounded,
    standard_error,
    texts_needed,
)
from voxadapt.selection import wording
from voxadapt.selection.gates import Gate, all_gates, f0_range_gate, guard_gates, worst_gates
from voxadapt.selection.outlook import find_outlook
from voxadapt.selection.pairing import BASE, check_candidates, check_scale, comparable, in_order
from voxadapt.selection.race import SET_LEVEL, Race, run_race, single_measure

SCHEMA = "voxadapt-selection/2"
OUT = {"vs_best": None, "p_best": 0.0, "pareto": False, "pareto_probability": 0.0}
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
    setting: str | None = "candidates",
) -> Record:
    """Choose a candidate by the rule in the parameters; return the content of `selection.json`.

    Every gate must hold for each speaker, and candidates are ranked by their worst speaker (of
    several: the one that is furthest below its own ceiling), then by the mean of all speakers. The
    start, `base` or the choice of the stage before, is what the gates compare with and what is kept
    when nothing does better. Where it is not the Base, the record has `start` and `keep_start`, and
    each candidate `vs_start`; `vs_base` is None where the Base has no scores.

    Args:
        rows: Rows of the selection split by candidate: the start, and what it is held against.
        params: The rule.
        start: Name of the start.
        what: What was tried, as "Keep the Base, do not …" ends.
        scale: `similarity.json` as read, for ceiling and floor.
        real: Rows of the held-out recordings, for the ASR floor; any split is filtered.
        codec: Rows of their codec round trip.
        kept: Speakers whom the start's model had already, whose voices a gate asks to be kept.
        setting: The parameter that says how many epochs are trained, for the outlook; None where
            the candidates are no epochs of one training.

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
    guards = guard_gates({name: rows[name] for name in names}, start, scale, params)
    rows = {name: ranked(rows[name]) for name in names}
    scores = SpeakerScores(rows, scale, params)
    gates = _all_gates(scores, names, start, recordings, kept)
    for name, speaker in product(names, scores.speakers):
        gates[name][speaker] += guards[name].get(speaker, [])
    worst = {name: worst_gates(gates[name]) for name in names}
    eligible = [name for name in names if all(gate.state != "failed" for gate in worst[name])]
    race = run_race(
        {name: scores.worst(name) for name in names},
        eligible,
        start,
        params,
        means={n: scores.mean(n) for n in names} if len(scores.speakers) > 1 else None,
        errors={name: scores.samples[name][None].error for name in names}
        if params.primary == "similarity"
        else None,
    )
    placed = _placed(eligible, race, scores, start, setting is not None)
    first = scores.samples[start][None]
    takes = len(first.rows) // (len(first.text_ids) * len(scores.speakers))
    chosen = race.chosen
    result: Record = {
        "schema": SCHEMA,
        "rule": params.model_dump(mode="json")
        | {"text": wording.say("selection_rule", params, start, SET_LEVEL)},
        "split": split,
        "num_texts": len(first.text_ids),
        "takes": takes,
        "evaluator": evaluator,
        "inputs": inputs,
        **{
            key: error_rates(recordings[name], params) if recordings[name] else None
            for key, name in (("asr_floor", "real"), ("codec_floor", "codec"))
        },
        "scale": None if scale is None else scores.levels(),
        "candidates": [
            {
                **_candidate(scores, name, start),
                **placed.get(name, OUT),
                "p_better": rounded(race.p_values.get(name)),
                "shown_better": name in race.shown,
                "eligible": name in eligible,
                "gates": [gate.as_dict() for gate in worst[name]],
                "prosody": prosody_record(
                    rows[name], recordings["real"], recordings["codec"], params
                ),
            }
            for name in names
        ],
        "best": race.best,
        "chosen": chosen,
        "runner_up": race.runner_up,
        "tied": list(race.tied),
        "clearest": race.clearest,
        "keep_base": chosen == BASE,
        "would_decide": _would_decide(names, worst, scores, start) if chosen == start else None,
        "outlook": _outlook(names, scores, start, setting),
        "power": _power(names, scores, takes, start),
    }
    if start != BASE:
        result |= {"start": start, "keep_start": chosen == start}
    if scores.speakers != (None,):
        _add_speakers(result, scores, gates, rows, {"real": real, "codec": codec}, kept)
    result["reason"] = wording.say("selection_reason", result, start, what)
    return result


def _all_gates(
    scores: SpeakerScores,
    names: Sequence[str],
    start: str,
    recordings: Mapping[str, Sequence[ScoreRow]],
    kept: Collection[str],
) -> dict[str, dict[str | None, list[Gate]]]:
    """Hold every candidate against the gates of ranked sentences, by speaker."""
    params, wrong_language = scores.params, None
    real, codec = recordings["real"], recordings["codec"]
    if real:
        wrong_language = Sample(real, params.error_metric, None).wrong_language_rate.point
    gates = {name: all_gates(scores, name, start, params, wrong_language, kept) for name in names}
    if (limit := params.min_f0_range_ratio) is not None:
        for name, speaker in product(names, scores.speakers):
            rows = scores.samples[name][speaker].rows
            gates[name][speaker].append(f0_range_gate(rows, real, codec, limit, params))
    return gates


def _candidate(scores: SpeakerScores, name: str, start: str) -> Record:
    """Return a candidate's measures, and how it compares with the Base and the start."""
    sample, measured, params = scores.samples[name][None], scores.intervals(name), scores.params
    primary = measured[params.error_metric]
    if params.primary == "similarity" or len(scores.speakers) > 1:
        worst, count = scores.worst(name), len(sample.rows)
        primary = ratio_interval(worst, scores.weights, count, params.confidence)
    others = {"vs_base": BASE} | ({} if start == BASE else {"vs_start": start})
    return {
        "name": name,
        "epoch": epoch_number(name),
        "n_expected": len(sample.rows),
        "n_measured": sample.num_measured,
        **{key: measured[key].as_dict() for key in SHOWN},
        "primary": primary.as_dict(),
        **{key: _versus(scores, name, other) for key, other in others.items()},
    }


def _versus(scores: SpeakerScores, name: str, other: str) -> Record | None:
    """Compare two candidates; None for one and the same, or where the other was not scored."""
    if name == other or other not in scores.samples:
        return None
    found = {"primary": scores.gain(name, other)} | {
        key: scores.difference(key, name, other) for key in ("sim", "error", "failure_rate")
    }
    return {key: value.as_dict(with_se=True) for key, value in found.items()}


def _add_speakers(
    result: Record,
    scores: SpeakerScores,
    gates: Mapping[str, Mapping[str | None, Sequence[Gate]]],
    rows: Mapping[str, Sequence[ScoreRow]],
    recordings: Mapping[str, Sequence[ScoreRow]],
    kept: Collection[str],
) -> None:
    """Add what `selection.json` says of speakers that the rows name."""
    start, params = result.get("start", BASE), scores.params
    for item in result["candidates"]:
        name = item["name"]
        found = scores.by_speaker(name, start, SHOWN_OF_SPEAKERS)
        for speaker, record in found.items():
            record["gates"] = [gate.as_dict() for gate in gates[name][speaker]]
        item["speakers"] = found
        item["worst_speaker"] = scores.speakers[scores.worst(name).index]
        item["confusion"] = confusion(rows[name], params)
    result["rule"]["text"] += " " + wording.say("speakers_rule", params, kept)
    result["speakers"] = [
        {"name": speaker, "kept": speaker in kept, **scores.levels(speaker)}
        for speaker in scores.speakers
    ]
    result["recordings"] = {
        name: confusion(found, params) for name, found in recordings.items() if found
    }


def _placed(
    names: Sequence[str],
    race: Race,
    scores: SpeakerScores,
    start: str,
    ordered: bool,
) -> dict[str, Record]:
    """Return what the record says of each eligible candidate's place."""
    if not names:
        return {}
    higher = scores.params.primary == "similarity"
    draws = np.stack([scores.worst(name).draws(scores.weights) for name in names], axis=1)
    apart = [index for index, name in enumerate(names) if name in (BASE, start)]
    p_best = probability_best(draws, higher, apart, ordered)
    pareto, membership = _pareto(names, scores)
    placed = {}
    for index, name in enumerate(names):
        difference = scores.gain(name, race.best)
        placed[name] = {
            "vs_best": {"difference": difference.as_dict(with_se=True), "tied": name in race.tied},
            "p_best": rounded(p_best[index]),
            "pareto": bool(pareto[index]),
            "pareto_probability": rounded(membership[index]),
        }
    return placed


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


def _power(names: Sequence[str], scores: SpeakerScores, takes: int, start: str) -> Record:
    """Say which difference between two epochs this set of sentences could show."""
    num_texts, params = scores.weights.shape[1], scores.params
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
    pairs = list(combinations(epochs, 2)) or [(epochs[0], start)]
    se = float(np.median([standard_error(draws[a] - draws[b], num_texts) for a, b in pairs]))
    if not rounded(se):
        return record | {"text": "The epochs do not differ: nothing tells what could be seen."}
    smallest = detectable_difference(se, num_texts, params.confidence)
    record |= {
        "se": rounded(se),
        "detectable_difference": rounded(smallest),
        "texts_needed": [
            {"difference": gap, "num_texts": texts_needed(gap, se, num_texts, params.confidence)}
            for gap in POWER_DIFFERENCES[params.primary]
        ],
    }
    return record | {"text": wording.say("power", record, smallest, takes, params)}


def _outlook(
    names: Sequence[str], scores: SpeakerScores, start: str, setting: str | None
) -> Record | None:
    """Ask the curves over the epochs whether more training would help."""
    params = scores.params
    epochs = [name for name in names if name not in (BASE, start)]
    if not epochs:
        return None
    measures = {"error": {name: scores.worst(name) for name in epochs}}
    if params.primary == "similarity":
        errors = {name: scores.samples[name][None].error for name in epochs}
        measures = {"sim": measures["error"], "error": single_measure(errors, higher=False)}
    return find_outlook(measures, scores.weights, params, setting)


def _would_decide(
    names: Sequence[str],
    gates: Mapping[str, Sequence[Gate]],
    scores: SpeakerScores,
    start: str,
) -> Record | None:
    """Say how many sentences would show (in 80 % of cases) the gain that needs fewest of them.

    None where no candidate that fails no gate gains a thousandth.
    """
    params = scores.params
    sign, others = (1.0 if params.primary == "similarity" else -1.0), len(names) - 1
    # As strict as the test that holds for all of them at once.
    confidence = 1.0 - (1.0 - params.confidence) / max(1, others)
    fewest = math.ceil(-math.log2((1.0 - params.confidence) / 2.0))  # signs that can be flipped
    listed = []
    for name in names:
        if name == start or any(gate.state == "failed" for gate in gates[name]):
            continue
        found = scores.gain(name, start)
        if found.point is not None and found.se and sign * found.point > 0.001:
            needed = texts_needed(sign * found.point, found.se, found.n, confidence)
            listed.append((max(needed, fewest, found.n + 1), name, found.point))
    if not listed:
        return None
    needed, name, gain = min(listed, key=lambda item: item[0])
    return {"candidate": name, "gain": rounded(gain), "num_texts": needed}
