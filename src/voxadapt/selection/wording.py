"""Every sentence that the decisions' records hold: rules, reasons, gates, verdicts.

Nothing is computed here but what a sentence needs to be written.
"""

from __future__ import annotations

from collections.abc import Collection

from voxadapt.core.params import SelectParams, Stage2Params
from voxadapt.core.records import Record
from voxadapt.scoring.statistics import Interval
from voxadapt.selection.pairing import BASE

SIMILARITY = "SIM-resemblyzer"
MARGINS = {
    "passed": "shown to be within the margin",
    "failed": "worse by more than the margin",
    "undecided": "within the margin, but too few sentences to show it",
}


def called(name: str) -> str:
    """Name a candidate inside a sentence."""
    return "the Base" if name == BASE else name


def signed(difference: Record) -> str:
    """Write a difference with its interval."""
    if difference["low"] is None:
        return f"{difference['point']:+.3f}"
    return f"{difference['point']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"


def points(difference: Record) -> str:
    """Write a difference of shares in points, with its interval."""
    point = f"{100 * difference['point']:+.1f} points"
    if difference["low"] is None:
        return point
    return f"{point} [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"


# --- the choice ----------------------------------------------------------------------------------


def selection_rule(params: SelectParams, start: str, set_level: float) -> str:
    """Put the rule of the selection into words."""
    metric, whose = params.error_metric.upper(), f"{called(start)}'s"
    similar = params.primary == "similarity"
    low, high = params.duration_ratio
    voice = ""
    if params.similarity_margin is not None:
        voice = f"{SIMILARITY} at most {params.similarity_margin:g} below {whose}; "
    if params.min_f0_range_ratio is not None:
        voice += f"F0 range at least {params.min_f0_range_ratio:g} of the recordings'; "
    kept = "the zero-shot Base" if start == BASE else f"{start}, where this stage begins,"
    near = f", and those within {params.similarity_tie:g} of the best" if similar else ""
    then = f" of these those that none is shown to have a lower {metric} than;" if similar else ""
    return (
        f"Eligible: every clip exists; failure rate at most {100 * params.failure_margin:g} points "
        f"above {whose}; {metric} above {whose} by at most {100 * params.error_margin:g} points or "
        f"{100 * params.error_margin_relative:g} % of it, whichever is more; {voice}median "
        f"duration ratio {low:g} to {high:g}; wrong language in at most "
        f"{100 * params.max_wrong_language:g} %. Of the eligible, those that are shown to have a "
        f"{'higher similarity' if similar else f'lower {metric}'} than {whose} "
        f"(at {50 * (1 - params.confidence):g} %, all candidates at once); without any, {kept} is "
        f"kept. Of them, those that none is shown to be better than (at {100 * set_level:g} %)"
        f"{near};{then} of these the earliest."
    )


def speakers_rule(params: SelectParams, kept: Collection[str]) -> str:
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


def error_gate(
    label: str, point: float, upper: float, margin: float, state: str, start: str
) -> str:
    """Say how an error or failure rate stands to the start's, in points."""
    return (
        f"{label} minus {called(start)}'s: {100 * point:+.1f} points (at most {100 * upper:+.1f}), "
        f"margin {100 * margin:.1f}: {MARGINS[state]}."
    )


def similarity_gate(point: float, lower: float, margin: float, state: str, start: str) -> str:
    """Say how the similarity stands to the start's."""
    return (
        f"{SIMILARITY} minus {called(start)}'s: {point:+.3f} (at least {lower:+.3f}), "
        f"margin {margin:.3f}: {MARGINS[state]}."
    )


def duration_gate(ratio: float | None, band: tuple[float, float]) -> str:
    """Say how the median duration stands to its band."""
    shown = "unknown" if ratio is None else f"{ratio:.2f}"
    return f"Median spoken/expected duration {shown}, band {band[0]:g} to {band[1]:g}."


def kept_voice_gate(found: Interval, state: str) -> str:
    """Say whether a speaker that the model had before still sounds like itself."""
    interval = ""
    if found.low is not None:
        high = found.point if found.high is None else found.high
        interval = f" [{found.low:+.3f}, {high:+.3f}]"
    verdict = {
        "passed": "the voice is kept",
        "failed": "the voice has lost",
        "undecided": "lower, but within the interval of before",
    }[state]
    return f"{SIMILARITY} minus that of before: {found.point:+.3f}{interval}: {verdict}."


def power(record: Record, smallest: float, takes: int, params: SelectParams) -> str:
    """Say which difference between two epochs the sentences could show."""
    unit = "similarity" if params.primary == "similarity" else params.error_metric.upper()
    needed = record["texts_needed"][0]
    return (
        f"With {record['num_texts']} sentences x {takes} takes a true difference of "
        f"{smallest:.3f} in {unit} between two epochs is found in 80 % of cases; a difference of "
        f"{needed['difference']:g} needs about {needed['num_texts']} sentences."
    )


def selection_reason(result: Record, start: str, what: str) -> str:
    """Put the decision into sentences."""
    by_name = {item["name"]: item for item in result["candidates"]}
    chosen = by_name[result["chosen"]]
    metric = result["rule"]["error_metric"].upper()
    out = [item for item in by_name.values() if not item["eligible"]]
    gated = f" Gated out: {', '.join(map(_failed_gates, out))}." if out else ""
    keep = f"Keep the Base, do not {what}" if start == BASE else f"Keep {called(start)}"
    if len(out) == len(by_name):
        return f"{keep}: no candidate passed every gate.{gated}"
    if chosen["name"] == start:
        kind = "epoch" if start == BASE else "candidate"
        why = f"no eligible {kind} is shown to do better than its {_score(result, chosen)}"
        return f"{keep}: {why}.{_needed(result)}{gated}"
    open_gates = [gate["name"] for gate in chosen["gates"] if gate["state"] == "undecided"]
    doubt = ""
    if open_gates:
        doubt = f" Not decided by this set: {', '.join(open_gates).replace('_', ' ')}."
    gains = [("vs_base", "the zero-shot Base")]
    if start != BASE:
        gains.insert(0, ("vs_start", called(start)))
    against = "".join(
        f" Against {other}: {SIMILARITY} {signed(chosen[key]['sim'])}, {metric} "
        f"{signed(chosen[key]['error'])}."
        for key, other in gains
        if chosen[key] is not None
    )
    name = "The Base" if chosen["name"] == BASE else chosen["name"]
    place = _place_among_ties(result, chosen, metric)
    return f"{name} is chosen: its {_score(result, chosen)} is {place}.{against}{gated}{doubt}"


def _needed(result: Record) -> str:
    """Say how many sentences would show the largest gain that is not shown."""
    found = result["would_decide"]
    if found is None:
        return ""
    similar = result["rule"]["primary"] == "similarity"
    gain = f"{found['gain']:+.3f}" if similar else f"{100 * found['gain']:+.1f} points"
    return (
        f" About {found['num_texts']} sentences instead of {result['num_texts']} would show "
        f"{called(found['candidate'])}'s {gain}, if that is its true gain."
    )


def _score(result: Record, chosen: Record) -> str:
    """Write what the chosen candidate was ranked by."""
    rule, point = result["rule"], chosen["primary"]["point"]
    similarity = rule["primary"] == "similarity"
    label = SIMILARITY if similarity else rule["error_metric"].upper()
    if "speakers" not in result:
        return f"{label} {point:.3f}"
    worst, far = chosen["worst_speaker"], f"{abs(point):.3f}"
    if not similarity:
        return f"worst speaker ({worst}: {label} {far})"
    value = chosen["speakers"][worst]["sim"]["point"]
    return f"worst speaker ({worst}: {label} {value:.3f}, {far} from its ceiling)"


def _place_among_ties(result: Record, chosen: Record, metric: str) -> str:
    """Say how the chosen candidate stands to the best, and what decided where several tie."""
    best, tied, clearest = result["best"], result["tied"], result["clearest"]
    if len(tied) == 1:
        shown = sum(item["shown_better"] for item in result["candidates"])
        return f"the best of the {shown} shown to be better" if shown > 1 else "shown to be better"
    place = f"one of {len(tied)} that none is shown to beat"
    if best == chosen["name"]:
        place = f"the best of {len(tied)} that none is shown to beat"
    elif chosen["vs_best"] is not None:
        place += f" (to the best, {called(best)}: {signed(chosen['vs_best']['difference'])})"
    if clearest is None or len(tied) == 1:  # the error is the primary measure
        return f"{place}, and the earliest of these"
    if clearest == chosen["name"]:
        return f"{place}, and its {metric} is the lowest of these"
    return (
        f"{place}, and of these it is the earliest that none is shown to have a lower {metric} "
        f"than (lowest: {called(clearest)})"
    )


def _failed_gates(candidate: Record) -> str:
    """Name a candidate with the gates that it failed."""
    failed = [gate["name"] for gate in candidate["gates"] if gate["state"] == "failed"]
    return f"{candidate['name']} ({', '.join(failed).replace('_', ' ')})"


# --- confirmation --------------------------------------------------------------------------------

DISCLOSURE = (
    "The selection split's figures are optimistic for the chosen candidate, because they "
    "chose it (winner's curse). These sentences chose nothing: quote these figures."
)


VERDICTS = {  # words, tone
    "confirmed": ("Confirmed on unseen sentences", "good"),
    "cost_not_excluded": ("Better on unseen sentences, its cost not excluded", "unsure"),
    "not_confirmed": ("Not confirmed on unseen sentences", "unsure"),
    "contradicted": ("Contradicted on unseen sentences", "bad"),
    "base_kept": ("The Base is kept", "unsure"),
    "not_measurable": ("Cannot be measured here", "bad"),
}


def headline(confirm: Record, name: str, keep: str) -> str:
    """Say in a line what to do: only what is confirmed, and usable, is recommended.

    Args:
        confirm: `confirm.json`.
        name: The chosen candidate for readers.
        keep: What to say where the Base is kept.
    """
    similar = confirm["primary"] == "similarity"
    metric = confirm["error_metric"].upper()
    better = "more similar" if similar else "better understood"
    costs = f"a higher {metric}" if similar else "a loss of similarity"
    unusable = (confirm.get("usable") or {}).get("state") == "not_yet"
    said = {
        "base_kept": keep,
        "confirmed": f"{name} is the best, but not usable yet." if unusable else f"Use {name}.",
        "cost_not_excluded": f"{name} is {better}; {costs} is not excluded.",
        "not_confirmed": f"Do not rely on {name}: its gain is not confirmed.",
        "contradicted": f"Do not use {name}: unseen sentences contradict the choice.",
        "not_measurable": "It cannot be measured here: nothing is decided.",
    }[confirm["verdict"]]
    return said[:1].upper() + said[1:]


def likeness(confirm: Record, voice: str) -> str:
    """Say how the choice compares with the Base in similarity: `sounds more like … than the Base`.

    Args:
        confirm: `confirm.json`, of a choice that is not the Base.
        voice: Whom it is to sound like.
    """
    if confirm["primary"] == "similarity":
        side = _side(confirm["gain"])
        if not side:
            return f"is not shown to sound more like {voice} than the zero-shot Base"
    else:
        side = _side(confirm["measures"]["sim"]["difference"])
        if not side and confirm["cost"] and confirm["cost"]["state"] == "shown":
            margin = confirm["cost"]["margin"]
            return f"sounds as much like {voice} as the zero-shot Base, within {margin:g}"
        if not side:
            return f"is not shown to sound as much like {voice} as the zero-shot Base"
    return f"sounds {'more' if side > 0 else 'less'} like {voice} than the zero-shot Base"


def clarity(confirm: Record) -> str:
    """Say how the choice compares with the Base in errors: `is understood better`.

    Args:
        confirm: `confirm.json`, of a choice that is not the Base.
    """
    side = _side(confirm["measures"][confirm["error_metric"]]["difference"])
    if side:
        return f"is understood {'less well' if side > 0 else 'better'} than the Base"
    cost = confirm["cost"]
    if confirm["primary"] == "error":
        return "is not shown to be understood better than the Base"
    if cost["state"] == "shown":
        return f"is understood as well as the Base, within {100 * cost['margin']:.1f} points"
    return "is not shown to be understood as well as the Base"


def _side(difference: Record) -> int:
    """Return 1 or -1 when the interval excludes 0, else 0."""
    low, high = difference["low"], difference["high"]
    return 0 if low is None or high is None or low <= 0 <= high else 1 if low > 0 else -1


def caution(confirm: Record) -> str:
    """Say what a user of the choice must know; nothing where it is confirmed and good enough."""
    said = [] if confirm["verdict"] in ("confirmed", "base_kept") else [confirm["sentence"]]
    good = confirm.get("usable")
    if good is not None and good["state"] == "not_yet":
        said.append(good["sentence"])
    return "".join(f" {sentence}" for sentence in said)


def base_confirmed(measures: Record, metric: str, num_texts: int) -> str:
    """Say what the Base reaches, where it was kept."""
    return (
        f"The Base was kept; on {num_texts} unseen sentences it reaches {SIMILARITY} "
        f"{measures['sim']['base']['point']:.3f} and {metric.upper()} "
        f"{100 * measures[metric]['base']['point']:.1f} %."
    )


def confirmation(record: Record) -> str:
    """Put `confirm.json` into words."""
    name, measures, metric = record["chosen"], record["measures"], record["error_metric"]
    if record["verdict"] == "base_kept":
        return base_confirmed(measures, metric, record["num_texts"])
    worse = record["gain"]["high"], record["gain"]["low"]
    sign = 1 if record["primary"] == "similarity" else -1
    beats = "is not shown to beat"
    if worse[0] is not None and min(sign * end for end in worse) > 0:
        beats = "beats"
    elif worse[0] is not None and max(sign * end for end in worse) < 0:
        beats = "is worse than"
    return (
        f"On {record['num_texts']} unseen sentences {name} {beats} the zero-shot Base: "
        f"{SIMILARITY} {signed(measures['sim']['difference'])}, {metric.upper()} "
        f"{signed(measures[metric]['difference'])}{_cost(record['cost'])}."
    )


def _cost(cost: Record | None) -> str:
    """Say whether the cost is shown to be within its margin, and what would show it."""
    if cost is None:
        return ""
    label = SIMILARITY if cost["measure"] == "sim" else cost["measure"].upper()
    state = {
        "shown": "is shown to be within the margin",
        "exceeded": "is shown to exceed the margin",
        "not_excluded": "is not shown to be within the margin",
    }[cost["state"]]
    shown = f"{cost['margin']:.3f}"
    if cost["measure"] != "sim":
        shown = f"{100 * cost['margin']:.1f} points"
    needed = ""
    if cost["state"] == "not_excluded":
        needed = (
            f" (about {cost['num_texts_needed']} sentences would show it, if it is what was "
            "measured)"
            if cost["num_texts_needed"]
            else " (as measured it is no smaller: more sentences will hardly show otherwise)"
        )
    return f"; its cost in {label} {state} of {shown}{needed}"


def outlook(record: Record, num_epochs: int, params: SelectParams) -> str:
    """Say what the trends over the epochs advise."""
    setting, trends = record["setting"], record["trends"]
    longer = num_epochs + max(1, num_epochs // 2)
    line = f"{setting}: {longer}"
    if setting.endswith("candidates"):
        line = f"{setting}: [base, epoch-1, …, epoch-{longer}]"
    said = []
    for key, found in trends.items():
        label, slope = ("Similarity", signed(found["slope"]))
        if key == "error":
            label, slope = params.error_metric.upper(), points(found["slope"])
        kind = {
            "rising": "is still getting better",
            "flat": "is flat",
            "turned": f"turned after {found['best']}",
            "undecided": "shows no clear trend",
        }[found["trend"]]
        said.append(f"{label} {kind} ({slope} an epoch over the last {len(found['epochs'])}).")
    advice = {
        "rising": f"Train longer: in params.yaml `{line}`.",
        "flat": "More epochs will not help; more data may.",
        "turned": "Train less, or with a lower learning rate.",
        "undecided": "Whether more epochs would help is not shown.",
    }[record["trend"]]
    return " ".join([*said, advice])


# --- Stage 2 of a language -----------------------------------------------------------------------


def stage2_rule(params: Stage2Params, select: SelectParams) -> str:
    """Put the rule of Stage 2 into words."""
    metric, limit = select.error_metric.upper(), f"{100 * params.max_gap:g} points"
    acts = "runs" if params.if_undecided == "run" else "is skipped"
    mode = {
        "auto": "The data decide.",
        "always": "stage2.mode: always runs it whatever the data say.",
        "never": "stage2.mode: never skips it whatever the data say.",
    }[params.mode]
    return (
        f"Gap: {metric} of Stage 1's choice minus {metric} of the codec's round trip of the same "
        f"sentences, with its paired {100 * select.confidence:g} % interval. Run when the whole "
        f"interval lies above {limit}; skip when none of it does; undecided otherwise, and then "
        f"Stage 2 {acts}. {mode}"
    )


def stage2_reason(record: Record) -> str:
    """Put the decision on Stage 2 into sentences."""
    rule, gap, stage1 = record["rule"], record["gap"], record["stage1"]
    metric, limit = rule["metric"], f"{100 * rule['max_gap']:g} points"
    codec = record["codec"][metric]["point"]
    data, acts = record["decision"], record["acts"]
    who = "the unadapted Base" if stage1["keep_base"] else stage1["candidate"]
    measured = (
        f"{who} reads with {metric.upper()} {100 * stage1[metric]['point']:.1f} %, "
        f"{points(gap)} against the {100 * codec:.1f} % of the codec's "
        f"round trip of the same {gap['n']} sentences"
    )
    verdict = {
        "run": f"more than the {limit} allowed",
        "skip": f"not more than the {limit} allowed",
        "undecided": f"and whether that is more than the {limit} allowed is not shown",
    }[data]
    opening = "Stage 2 runs" if acts == "run" else "Stage 2 is skipped"
    if record["mode"] != "auto" and data == acts:
        opening += f", as the data say and stage2.mode: {record['mode']} demands"
    elif record["mode"] != "auto":
        said = {"run": "would run it", "skip": "would skip it", "undecided": "do not decide"}[data]
        opening += f" because of stage2.mode: {record['mode']}; the data {said}"
    sentences = [f"{opening}: {measured}, {verdict}."]
    if data == "undecided":
        needed = record["num_texts_needed"]
        sentences.append(
            "No number of sentences can be named that would decide it."
            if needed is None
            else f"About {needed} sentences would decide it."
        )
        if record["mode"] == "auto":
            sentences.append(f"stage2.if_undecided: {rule['if_undecided']} says what to do then.")
    if stage1["keep_base"]:
        sentences.append(
            "Stage 1 kept the Base: nothing was learnt from the texts, and any Stage 2 begins with "
            "the Base's own rows."
        )
    return " ".join(sentences)


def stage2_unmeasured(record: Record) -> str:
    """Say what becomes of Stage 2 where the gap cannot be measured."""
    done = "runs" if record["acts"] == "run" else "is skipped"
    why = f"stage2.mode: {record['mode']}"
    if record["mode"] == "auto":
        why = f"stage2.if_undecided: {record['rule']['if_undecided']}"
    return f"Stage 2 is undecided and {done} because of {why}."


# --- the source language -------------------------------------------------------------------------


def forgetting_rule(metric: str, params: SelectParams, allowed: float) -> str:
    """Put the rule by which a source language counts as forgotten into words."""
    margin = f"{100 * allowed:.3g} points"
    return (
        f"Of the paired {100 * params.confidence:g} % interval of the candidate's {metric.upper()} "
        f"minus the Base's on source sentences: forgotten when it lies above 0; kept when its "
        f"upper bound is at most {margin}; undecided otherwise."
    )


def forgetting_sentence(item: Record, metric: str, lang: str, margin: float) -> str:
    """Say what became of the source language."""
    error = f"{metric.upper()} {100 * item[metric]['point']:.1f} %"
    if item["vs_base"] is None:
        return f"The Base reads {lang} with {error}."
    verdict = {
        "forgotten": "measurably worse",
        "kept": f"no worse within {100 * margin:.3g} points",
        "undecided": (
            f"not measurably worse, but too few sentences to exclude {100 * margin:.3g} points"
        ),
    }[item["verdict"]]
    return (
        f"{item['name']} reads {lang} with {error}, {points(item['vs_base'][metric])} "
        f"against the Base: {verdict}."
    )


# --- a second recogniser, and several systems ----------------------------------------------------


def second_opinion_sentence(record: Record, chosen: str, base: str) -> str:
    """Put the second opinion into words."""
    name, metric = record["asr_id"].split("+")[0].removeprefix("whisper:"), record["metric"].upper()
    if chosen == base:
        return (
            f"The second recogniser ({name}) hears the Base with {metric} "
            f"{100 * record['base']['point']:.1f} %."
        )
    both = "agree" if record["agrees"] else "do not agree"
    says = {
        "better": f"understands {chosen} better than the Base",
        "worse": f"understands {chosen} worse than the Base",
        "undecided": f"shows no difference between {chosen} and the Base",
    }[record["verdict"]]
    related = ""
    if record["correlation"] is not None:
        related = f" Their errors on single clips correlate with {record['correlation']:.2f}."
    return (
        f"The two recognisers {both}: the second ({name}) {says}, {metric} difference "
        f"{points(record['difference'])}; by the first it is "
        f"{points(record['first_difference'])}.{related}"
    )


def comparison_text(record: Record) -> str:
    """Sum the comparison of several systems up in words."""
    metric = record["error_metric"].upper()
    labels = {"error": f"lower {metric}", "sim": "higher similarity"}
    shown = [
        f"{pair[key]['better']} has {label} than "
        f"{pair['second'] if pair[key]['better'] == pair['first'] else pair['first']}"
        for key, label in labels.items()
        for pair in record["pairs"]
        if key in pair and pair[key]["better"]
    ]
    level = f"{100 * record['confidence']:g} %"
    found = f"no two systems can be told apart by {metric} or similarity."
    if shown:
        found = f"{'; '.join(shown)}."
    return (
        f"On {record['num_texts']} texts that all spoke, at {level} for all pairs at once: {found}"
    )
