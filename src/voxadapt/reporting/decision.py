"""What both reports say first: the verdict, how far it reaches, what was decided step by step."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from voxadapt.core.files import first_by_hash
from voxadapt.core.params import Params, SelectParams
from voxadapt.core.records import Record
from voxadapt.reporting import components, tables
from voxadapt.reporting.components import make_cell, sentence
from voxadapt.reporting.records import PSEUDO, Records
from voxadapt.reporting.tables import number, percent, title
from voxadapt.scoring.rows import GUARDS, ScoreRow
from voxadapt.selection import wording
from voxadapt.selection.select import select

NUM_WORST_CHOSEN, NUM_WORST_BASE = 6, 3
MAX_HEARD = 48  # sentences of the plot of differences
HALVES, HALF_BOOTSTRAP, MIN_HALVED = 12, 400, 12
TRENDS = {"rising": "still getting better", "flat": "flat", "undecided": "without a clear trend"}
ADVICE = {
    "rising": "train longer",
    "flat": "more epochs will not help, more data may",
    "turned": "train less, or with a lower learning rate",
    "undecided": "whether more epochs would help is not shown",
}


def shared_parts(
    params: Params,
    records: Records,
    seeds: Mapping[str, int],
    choice: Record,
    name: str,
    voice: str,
) -> Record:
    """Return what the templates of both reports are given.

    Args:
        params: The parameters of the run.
        records: What the page is about.
        seeds: Of what is random, by what it is for.
        choice: The decision among the epochs, begun from the Base.
        name: The chosen candidate inside a sentence.
        voice: Whom it is to sound like.
    """
    selection, names = records.selection, records.names
    chosen, metric = selection["chosen"], selection["rule"]["error_metric"]
    worst = {chosen: NUM_WORST_CHOSEN}
    worst.setdefault("base", NUM_WORST_BASE)
    listed = differences(records, chosen, metric)
    can = selection.get("measurable")
    return {
        "params": params,
        "banner": "" if can is None else can["sentence"],
        "usable": _usable(records.confirm.get("usable")),
        "said": verdict_sentences(records, name, voice),
        "ladders": ladders(records, metric),
        "steps": steps(choice),
        "halves": halves(records, choice),
        "differences": listed,
        "hear": hear(records, listed, metric),
        "selection": selection,
        "confirm": records.confirm,
        "chosen": chosen,
        "metric": metric,
        "verdict": wording.VERDICTS[records.confirm["verdict"]],
        "summaries": records.summaries,
        "stamp": components.stamp(params, records),
        "sentences": components.grid(
            records.rows, (*PSEUDO, *names), params.report.max_grid_sentences, metric, chosen
        ),
        "worst": components.worst_clips(records.rows, worst, metric),
        "flag_counts": components.flag_counts(records.summaries, names),
        "digits": components.of_slice(records.summaries, names, "digits"),
        "sets": {
            part: found
            for part in GUARDS
            if (found := components.of_slice(records.summaries, names, part))
        },
        "planning": records.planning,
        "audit": components.audit_facts(records.audit, records.clips),
        "codes": components.facts(
            {k: v for k, v in records.codes.items() if not isinstance(v, dict)}
        ),
        "provenance": components.provenance(params, records, seeds),
    }


def _usable(record: Record | None) -> Record | None:
    """Return words, tone and reasons of how good the choice is; None where it was not judged."""
    if record is None or record["state"] == "unknown":
        return None
    opening, _, reasons = record["sentence"].partition(":")
    return {
        "words": opening.rstrip("."),
        "tone": {"ready": "good", "with_care": "unsure", "not_yet": "bad"}[record["state"]],
        "reasons": reasons.strip(),
    }


# --- the verdict in sentences --------------------------------------------------------------------


def verdict_sentences(records: Records, name: str, voice: str) -> list[tuple[str, str]]:
    """Say what became of the voice and of the words, on unseen sentences, and what lies ahead.

    Returns:
        Headings and sentences; where nothing could be measured, the reason alone.
    """
    selection, confirm = records.selection, records.confirm
    if (selection.get("measurable") or {}).get("measurable") is False:
        return [("Measured", str(selection["reason"]))]
    kept, metric = confirm["chosen"] == "base", confirm["error_metric"]
    sim, reach = confirm["measures"]["sim"], confirm["measures"].get("sim_norm")
    ours = "The Base" if kept else name[:1].upper() + name[1:]
    likeness = f"is kept; it reaches a similarity of {number(sim['base']['point'])}"
    if not kept:
        likeness = (
            f"{wording.likeness(confirm, voice)}: similarity {number(sim['chosen']['point'])} "
            f"against {number(sim['base']['point'])}"
        )
    share = (reach or {}).get("chosen", {"point": None})
    if share["point"] is not None:
        bounds = "" if share["low"] is None else f" ({tables.ends(share, True, digits=0)})"
        likeness += (
            f", {percent(share['point'], 0)}{bounds} of the way from other voices to the "
            "recordings through the codec"
        )
    error = confirm["measures"][metric]
    words = f"{metric.upper()} {percent(error['chosen']['point'])}"
    if not kept:
        words = f"It {wording.clarity(confirm)}: {words} against {percent(error['base']['point'])}"
    heard = [
        f"{label} {percent(found[metric]['point'])}"
        for key, label in (("real", "recordings"), ("codec", "coded recordings"))
        if (found := _recordings(records, key)) is not None
    ]
    said = [("Voice", f"{ours} {likeness}."),
            ("Words", f"{words}{'; ' * bool(heard)}{', '.join(heard)}.")]  # fmt: skip
    if selection.get("outlook"):
        said.append(("Outlook", outlook(selection)))
    return said


def _recordings(records: Records, kind: str) -> Record | None:
    """Return what recordings (`real` or `codec`) score on the sentences that confirm."""
    found = records.codes.get(kind)
    return found.get(records.confirm["split"]) if isinstance(found, dict) else None


def outlook(selection: Record) -> str:
    """Say whether the curves have turned, are flat or still get better, and what to do then."""
    record, metric = selection["outlook"], selection["rule"]["error_metric"].upper()
    if "trends" not in record:
        return tables.typeset(record["sentence"])
    said = []
    for key, found in record["trends"].items():
        state = TRENDS.get(found["trend"]) or f"past its best at {title(found['best']).lower()}"
        said.append(f"{metric if key == 'error' else 'similarity'} is {state}")
    last = max(len(found["epochs"]) for found in record["trends"].values())
    words = " and ".join(said)
    return f"Over the last {last} epochs {words}: {ADVICE[record['trend']]}."


# --- ladders -------------------------------------------------------------------------------------

Rung = tuple[str, str, Record | None]  # kind (a CSS class), label, interval


def ladder(heading: str, rungs: Iterable[Rung], share: bool = False) -> Record | None:
    """Place what was measured on one scale, a line each; to the right is better.

    Of a `share`, an error in per cent, less is better. Unknown rungs are left out.

    Returns:
        `heading` and `rungs` (`kind`, `label`, `value`, `interval`, and in per cent of the width
        `at`, `low`, `high`, and `beyond` where it lies left of the scale).
    """
    known = [(kind, label, v) for kind, label, v in rungs if v and v["point"] is not None]
    inner = [value[end] for kind, _, value in known for end in ("low", "point", "high")
             if value.get(end) is not None and not (share and kind == "floor")]  # fmt: skip
    if len(known) < 2 or not inner:
        return None
    spread = max(max(inner) - min(inner), 1e-6)
    worst, best = min(inner) - 0.04 * spread, max(inner) + 0.04 * spread
    if share:
        worst, best = max(inner) + 0.04 * spread, 0.0

    def at(value: float) -> float:
        return round(float(min(100.0, max(0.0, 100 * (value - worst) / (best - worst)))), 2)

    listed = []
    for kind, label, value in known:
        ends = [at(value[end]) for end in ("low", "high") if value.get(end) is not None]
        listed.append(
            {
                "kind": kind,
                "label": label,
                "value": tables.point(value, share),
                "interval": tables.ends(value, share) if ends else "",
                "at": at(value["point"]),
                "low": min(ends, default=None),
                "high": max(ends, default=None),
                "beyond": share and kind == "floor" and value["point"] > worst,
            }
        )
    return {"heading": heading, "rungs": listed}


def ladders(records: Records, metric: str) -> list[Record]:
    """Return the ladders of similarity and of error: floor, Base, chosen, codec, recordings."""
    confirm, scale = records.confirm, records.selection["scale"] or {}
    chosen, measures = confirm["chosen"], confirm["measures"]

    def rungs(
        key: str, floor: str, low: Record, coded: Record | None, real: Record | None
    ) -> list[Rung]:
        own = [] if chosen == "base" else [("chosen", title(chosen), measures[key]["chosen"])]
        return [("floor", floor, low), ("base", "Base", measures[key]["base"]), *own,
                ("codec", "Recordings, coded", coded), ("real", "Recordings", real)]  # fmt: skip

    recorded = {kind: (_recordings(records, kind) or {}).get(metric) for kind in ("real", "codec")}
    voice = {key: {"point": scale.get(key)} for key in ("floor", "codec_ceiling", "ceiling")}
    nothing = {"point": 1.0}
    found = [
        ladder("Similarity to the voice",
               rungs("sim", "Other voices", voice["floor"], voice["codec_ceiling"],
                     voice["ceiling"])),
        ladder(f"{'Word' if metric == 'wer' else 'Character'} error rate ({metric.upper()})",
               rungs(metric, "Nothing understood", nothing, recorded["codec"], recorded["real"]),
               share=True),
    ]  # fmt: skip
    return [item for item in found if item]


# --- the choice, step by step --------------------------------------------------------------------


def steps(selection: Record) -> list[Record]:
    """Walk through the rule: who was left after each step, and who went."""
    listed, start = selection["candidates"], selection.get("start", "base")
    similar = selection["rule"].get("primary", "similarity") == "similarity"
    what = "similarity" if similar else "error"
    shown = [c["name"] for c in listed if c["shown_better"] and c["eligible"]]
    stages = [("failed no gate", [c["name"] for c in listed if c["eligible"]])]
    if shown:
        stages.append((f"shown to be better than {title(start)} in {what}", shown))
        stages.append((f"that none is shown to beat in {what}",
                       list(selection.get("tied") or [selection["chosen"]])))  # fmt: skip
        stages.append((f"{'the clearest, then ' if similar else ''}the earliest",
                       [selection["chosen"]]))  # fmt: skip
    else:
        stages.append((f"none is shown to be better: {title(start)} stays", [selection["chosen"]]))
    left = [c["name"] for c in listed]
    rows = [{"step": "candidates", "count": len(left), "left": left, "went": []}]
    for step, kept in stages:
        went = [name for name in left if name not in kept]
        rows.append({"step": step, "count": len(kept), "left": kept, "went": went})
        left = kept
    return rows


def decide_again(
    selection: Record,
    rows: Mapping[str, Sequence[ScoreRow]],
    rule: SelectParams,
    real: Sequence[ScoreRow] = (),
    codec: Sequence[ScoreRow] = (),
) -> Record:
    """Decide on other rows, or by another rule, with the scale of a decision; see `select`."""
    scale = selection["scale"]
    points = None if scale is None else {key: {"point": value} for key, value in scale.items()}
    return select(rows, rule, scale=points, real=real, codec=codec)


def halves(records: Records, selection: Record) -> str:
    """Decide again on random halves of the sentences; nothing of several speakers, or too few."""
    names = [candidate["name"] for candidate in selection["candidates"]]
    rows = {
        name: [ScoreRow.model_validate(row) for row in records.rows.get(name, ())]
        for name in (*names, *PSEUDO)
    }
    texts = sorted({row.text_id for row in rows["base"]})
    if len(texts) < MIN_HALVED or selection.get("speakers"):  # each speaker has a scale of its own
        return ""
    values = {key: value for key, value in selection["rule"].items() if key != "text"}
    rule = SelectParams(**values | {"num_bootstrap": HALF_BOOTSTRAP})
    generator = np.random.default_rng(rule.seed)
    counts: Counter[str] = Counter()
    for _ in range(HALVES):
        part = set(generator.choice(texts, len(texts) // 2, replace=False))
        drawn = {n: [row for row in found if row.text_id in part] for n, found in rows.items()}
        real, codec = (drawn.pop(name) for name in PSEUDO)
        counts[decide_again(selection, drawn, rule, real, codec)["chosen"]] += 1
    same = counts.pop(selection["chosen"], 0)
    others = ", ".join(
        f"{wording.called(tables.named(name))} in {n}" for name, n in counts.most_common()
    )
    return (
        f"Would fewer sentences choose the same? Of {HALVES} random halves ({len(texts) // 2} "
        f"sentences), {same} do{f'; {others}' if others else ''}."
    )


# --- sentence by sentence ------------------------------------------------------------------------


def _takes(rows: Iterable[Record]) -> dict[str, dict[int, Record]]:
    """Return the rows of the corpus by sentence and take."""
    found: dict[str, dict[int, Record]] = {}
    for row in rows:
        if row.get("slice") not in GUARDS:
            found.setdefault(row["text_id"], {})[row["take"]] = row
    return found


def differences(records: Records, chosen: str, metric: str) -> list[Record]:
    """Compare the chosen candidate with the Base sentence by sentence, best first.

    Returns:
        `text_id`, `text`, `change` of the error (mean of the takes), `height` in per cent of the
        largest, `rows` of the take in the middle, and for at most `MAX_HEARD` of them, evenly
        spaced, `item`: its clips. Empty where the Base is kept.
    """
    if chosen == "base":
        return []
    base, ours = _takes(records.rows["base"]), _takes(records.rows[chosen])
    real = {row["text_id"]: row for row in records.rows.get("real", ())}
    listed: list[Record] = []
    for text_id in sorted(base.keys() & ours.keys()):
        pairs = [
            (tables.error_of(ours[text_id][take], metric) - tables.error_of(row, metric), take)
            for take, row in base[text_id].items()
            if take in ours[text_id]
        ]
        if pairs:
            change, take = (
                sum(value for value, _ in pairs) / len(pairs),
                sorted(pairs)[(len(pairs) - 1) // 2][1],
            )
            rows = {"base": base[text_id][take], chosen: ours[text_id][take]}
            listed.append({"text_id": text_id, "text": rows["base"]["text"], "change": change,
                           "rows": {"real": real.get(text_id), **rows}})  # fmt: skip
    listed.sort(key=lambda entry: (entry["change"], entry["text_id"]))
    largest = max((abs(entry["change"]) for entry in listed), default=0.0) or 1.0
    count = min(MAX_HEARD, len(listed))
    heard = {round(i * (len(listed) - 1) / max(1, count - 1)) for i in range(count)}
    for place, entry in enumerate(listed):
        entry["height"] = round(100 * abs(entry["change"]) / largest, 1)
        if place in heard:
            cells = [make_cell(entry["rows"][name], name, metric) for name in ("base", chosen)]
            entry["item"] = sentence(entry["text"], cells, chosen)
    return listed


def hear(records: Records, listed: Sequence[Record], metric: str) -> list[Record]:
    """Pick a typical sentence and the worst one, with the recording, the Base and the choice.

    Typical is, of those `listed` whose recording is understood best, the one with the median
    difference; where the Base is kept, the first by hash.
    """
    chosen = records.selection["chosen"]
    if not listed:
        base = _takes(records.rows["base"])
        real = _takes(records.rows.get("real", ()))
        found = []
        for text_id in first_by_hash(base, 1):
            rows = [(kind, takes[text_id]) for kind, takes in (("real", real), ("base", base))
                    if text_id in takes]  # fmt: skip
            cells = [make_cell(row[min(row)], kind, metric) for kind, row in rows]
            text = base[text_id][min(base[text_id])]["text"]
            found.append(sentence(text, cells, None, ["the first by hash"]))
        return found
    with_recording = [entry for entry in listed if entry["rows"]["real"]] or list(listed)
    errors = [tables.error_of(entry["rows"]["real"], metric) if entry["rows"]["real"] else 1.0
              for entry in with_recording]  # fmt: skip
    clear = [e for e, error in zip(with_recording, errors, strict=True) if error == min(errors)]
    worst = max(listed, key=lambda e: (tables.error_of(e["rows"][chosen], metric), e["change"]))
    picked = [(clear[(len(clear) - 1) // 2], "a typical sentence: the median difference"),
              (worst, "the worst of the choice")]  # fmt: skip
    found = []
    for entry, why in picked:
        names = [name for name in ("real", "base", chosen) if entry["rows"][name]]
        cells = [make_cell(entry["rows"][name], name, metric) for name in names]
        found.append(sentence(entry["text"], cells, chosen, [why]))
    return found[: 1 if picked[0][0] is worst else 2]


# --- what next -----------------------------------------------------------------------------------


def next_steps(
    records: Records, say: str, export: str, epochs: Mapping[str, int], text: str
) -> list[Record]:
    """Say what to do with the result: `title`, `why` and `code` to copy.

    Args:
        records: Of the run.
        say: Command that speaks, up to the text.
        export: Command that exports the choice.
        epochs: How many are trained, by the last word of the parameter that says so.
        text: A sentence of the language.
    """
    confirm, ahead = records.confirm, records.selection.get("outlook") or {}
    found = []
    if ahead.get("trend") == "rising":
        section, _, key = ahead.get("setting", "candidates").rpartition(".")
        more = epochs[key] + max(1, epochs[key] // 2)
        names = ", ".join(["base", *(f"epoch-{n + 1}" for n in range(more))])
        line = f"{key}: {f'[{names}]' if key == 'candidates' else more}"
        line += f"  # of {section}" * bool(section)
        why = "The curves have not turned. In params.yaml, then dvc repro:"
        found.append({"title": "Train longer", "code": line, "why": why})
    needed = (confirm.get("cost") or {}).get("num_texts_needed")
    if confirm["verdict"] == "cost_not_excluded" and needed:
        found.append({"title": "Record more", "code": "",
                      "why": f"About {needed} unseen sentences instead of {confirm['num_texts']} "
                             "would show the cost to be within its margin."})  # fmt: skip
    spoken = re.sub(r'["\\$`]', "", text)
    found.append({"title": "Let it speak", "code": f'{say} "{spoken}"',
                  "why": f"With {title(confirm['chosen'])}, into said.wav:"})  # fmt: skip
    unusable = (confirm.get("usable") or {}).get("state") == "not_yet"
    if confirm["verdict"] in ("confirmed", "cost_not_excluded") and not unusable:
        found.append({"title": "Pass it on", "code": export,
                      "why": "Weights and a card for the Hub:"})  # fmt: skip
    return found
