"""What both reports say first: the verdict, how far it reaches, what was decided step by step."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np

from voxadapt.core.files import first_by_hash
from voxadapt.core.params import Params, SelectParams
from voxadapt.core.records import Record
from voxadapt.core.strict_yaml import read_yaml
from voxadapt.reporting import components, tables
from voxadapt.reporting.components import make_cell, sentence
from voxadapt.reporting.records import PSEUDO, LanguageRecords, Records
from voxadapt.reporting.tables import number, percent, title
from voxadapt.scoring.rows import GUARDS, ScoreRow, ranked
from voxadapt.scoring.wording import Sentences, side
from voxadapt.selection import wording
from voxadapt.selection.select import select

NUM_WORST_CHOSEN, NUM_WORST_BASE = 6, 3
MAX_HEARD = 48  # sentences of the plot of differences
HALVES, HALF_BOOTSTRAP, MIN_HALVED = 12, 400, 12
REMEDIES = cast("dict[str, list[str]]", read_yaml(components.TEMPLATES / "remedies.yaml"))
SENTENCES = Sentences(
    components.TEMPLATES.parent,
    {"pct": percent, "figure": number, "ends": tables.ends, "interval": tables.interval,
     "likeness": partial(wording.say, "likeness"), "clarity": partial(wording.say, "clarity")},
)  # fmt: skip


def say(macro: str, *values: object) -> str:
    """Write a sentence of `templates/sentences.j2` as the pages write."""
    return tables.typeset(SENTENCES.say(macro, *values))


def shared_parts(
    params: Params,
    records: Records,
    seeds: Mapping[str, int],
    choice: Record,
    name: str,
    voice: str,
    epochs: Mapping[str, int],
    commands: tuple[str, str],
) -> Record:
    """Return what the templates of both reports are given.

    `choice` is the decision among the epochs, begun from the Base, `name` the chosen candidate
    inside a sentence, `voice` whom it is to sound like; `epochs` as in `remedies`; `commands` are
    one that speaks, up to the text, and one that exports.
    """
    selection, names = records.selection, records.names
    chosen, metric = selection["chosen"], selection["rule"]["error_metric"]
    worst = {chosen: NUM_WORST_CHOSEN}
    worst.setdefault("base", NUM_WORST_BASE)
    listed = differences(records, chosen, metric)
    heard, cures = hear(records, listed, metric), remedies(records, epochs)
    said = verdict_sentences(records, name, voice)
    if now := what_now(records.confirm["verdict"], cures):
        said.append(("What now", now))
    text = heard[0]["text"] if heard else "…"
    return {
        "params": params,
        "banner": (selection.get("measurable") or {}).get("sentence", ""),
        "also": list(filter(None, [about_as_good(selection) or about_as_good(choice)])),
        "next_steps": cures + next_steps(records.confirm, *commands, text),
        "usable": _usable(records.confirm.get("usable")),
        "said": said,
        "ladders": ladders(records, metric),
        "steps": steps(choice),
        "halves": halves(records, choice),
        "differences": listed,
        "hear": heard,
        "selection": selection,
        "confirm": records.confirm,
        "chosen": chosen,
        "metric": metric,
        "verdict": wording.verdict(records.confirm),
        "summaries": records.summaries,
        "stamp": components.stamp(records),
        "sentences": components.grid(
            records.rows, (*PSEUDO, *names), params.report.max_grid_sentences, metric, chosen
        ),
        "worst": components.worst_clips(records.rows, worst, metric),
        "flag_counts": components.flag_counts(records.summaries, names),
        "digits": components.of_slice(records.summaries, names, "digits"),
        "languages": {
            code: components.of_slice(records.summaries, names, code, "languages")
            for code in records.summaries[chosen].get("languages", ())
        },
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
    """Say, by heading, what became of voice and words on unseen sentences, and what lies ahead."""
    selection, confirm = records.selection, records.confirm
    if (selection.get("measurable") or {}).get("measurable") is False:
        return [("Measured", str(selection["reason"]))]
    kinds = (("real", "recordings"), ("codec", "coded recordings"))
    heard = [(label, found) for key, label in kinds if (found := _recordings(records, key))]
    said = [("Voice", say("voice", confirm, name, voice)), ("Words", say("words", confirm, heard))]
    if selection.get("outlook"):
        said.append(("Outlook", outlook(selection)))
    return said


def _recordings(records: Records, kind: str) -> Record | None:
    """Return what recordings (`real` or `codec`) score on the sentences that confirm."""
    found = records.codes.get(kind)
    return found.get(records.confirm["split"]) if isinstance(found, dict) else None


def outlook(selection: Record) -> str:
    """Say whether the curves have turned, are flat or still get better."""
    record, metric = selection["outlook"], selection["rule"]["error_metric"].upper()
    if "trends" not in record:
        return tables.typeset(record["sentence"])
    return say("outlook", record["trends"], metric)


def about_as_good(selection: Record) -> str:
    """Name the candidates that are about as good as the chosen one; nothing where there is none."""
    chosen, start = selection["chosen"], selection.get("start", "base")
    if chosen == start:
        return ""
    near = [
        item["name"]
        for item in selection["candidates"]
        if item["name"] not in ("base", start)
        and selection["best"] == chosen
        and item["vs_best"]
        and not (item["shown_better"] or side(item["vs_best"]["difference"]))
    ]
    tied = [name for name in selection.get("tied") or () if name != chosen]
    return say("about_as_good", selection, tied, near)


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
    if found[0] and (voice["ceiling"]["point"] or 1.0) < (voice["codec_ceiling"]["point"] or 0.0):
        found[0]["below"] = (
            "Recordings are compared with recordings, coded ones with coded ones: coding makes "
            "clips more alike."
        )
    return [item for item in found if item]


# --- the choice, step by step --------------------------------------------------------------------


def steps(selection: Record) -> list[Record]:
    """Walk through the rule: who was left after each step, and who went.

    Nothing where nothing could be measured.
    """
    if (selection.get("measurable") or {}).get("measurable") is False:
        return []
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
        stages.append(("none is shown to be better; kept", [selection["chosen"]]))
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
    """Decide again on random halves of the sentences; sets that guard stay whole.

    Nothing for several speakers, too few sentences, and where nothing could be measured.
    """
    if not steps(selection):
        return ""
    names = [candidate["name"] for candidate in selection["candidates"]]
    rows = {
        name: [ScoreRow.model_validate(row) for row in records.rows.get(name, ())]
        for name in (*names, *PSEUDO)
    }
    texts = sorted({row.text_id for row in ranked(rows["base"])})
    if len(texts) < MIN_HALVED or selection.get("speakers"):  # each speaker has a scale of its own
        return ""
    values = {key: value for key, value in selection["rule"].items() if key != "text"}
    rule = SelectParams(**values | {"num_bootstrap": HALF_BOOTSTRAP})
    generator = np.random.default_rng(rule.seed)
    counts: Counter[str] = Counter()
    for _ in range(HALVES):
        part = set(generator.choice(texts, len(texts) // 2, replace=False))
        drawn = {
            name: [row for row in found if row.text_id in part or row.slice in GUARDS]
            for name, found in rows.items()
        }
        real, codec = (drawn.pop(name) for name in PSEUDO)
        counts[decide_again(selection, drawn, rule, real, codec)["chosen"]] += 1
    same = counts.pop(selection["chosen"], 0)
    others = [(wording.called(name), n) for name, n in counts.most_common()]
    return say("halves", HALVES, len(texts) // 2, same, others)


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
    picked = [(clear[(len(clear) - 1) // 2], "typical: its difference from the Base is the median"),
              (worst, f"the worst of {tables.named(chosen)}")]  # fmt: skip
    found = []
    for entry, why in picked:
        names = [name for name in ("real", "base", chosen) if entry["rows"][name]]
        cells = [make_cell(entry["rows"][name], name, metric) for name in names]
        found.append(sentence(entry["text"], cells, chosen, [why]))
    return found[: 1 if picked[0][0] is worst else 2]


# --- what next -----------------------------------------------------------------------------------


def remedies(records: Records, epochs: Mapping[str, int]) -> list[Record]:
    """Say what may mend what the figures lack: `title`, `why`, `how`, `code` to copy, `link`.

    `epochs` says how many are trained, by the last word of the parameter that says so.
    """
    confirm, ahead = records.confirm, records.selection.get("outlook") or {}
    verdict, trend = confirm["verdict"], ahead.get("trend")
    measures = (confirm.get("usable") or {}).get("measures", {})
    lacking = {name: item for name, item in measures.items() if item["state"] != "ready"}
    unproved = lacking or verdict in ("not_confirmed", "contradicted", "cost_not_excluded")
    language = records if isinstance(records, LanguageRecords) else None
    target = "language_report" if language else "report"
    found: list[Record] = []

    def add(which: str, code: str = "", **values: object) -> None:
        texts = (text.format(target=target, **values) for text in REMEDIES[which])
        found.append(dict(zip(("title", "why", "how", "link"), texts, strict=False), code=code))

    if verdict == "not_measurable":
        return found
    if deaf := _deaf(records, lacking):
        add("recogniser", found=deaf)
    if trend == "rising":
        section, _, key = ahead.get("setting", "candidates").rpartition(".")
        more = epochs[key] + max(1, epochs[key] // 2)
        names = ", ".join(["base", *(f"epoch-{n + 1}" for n in range(more))])
        line = f"{key}: {f'[{names}]' if key == 'candidates' else more}"
        add("longer", line + f"  # of {section}" * bool(section))
    if lacking and language and language.stage2 is None:
        add("stage2", "mode: always  # of language.stage2")
    for which, rule, findings in (
        ("minutes", "total_minutes", records.audit.get("corpus_warnings", ())),
        ("texts", "few_texts", language.texts["file_warnings"] if language else ()),
    ):
        few = [f["message"] for f in findings if f["rule"] == rule and f["value"] < f["limit"]]
        if few and unproved:
            add(which, found=" ".join(few))
    if trend == "turned" and unproved:
        add("gently", found=outlook(records.selection))
    needed, num_texts = (confirm.get("cost") or {}).get("num_texts_needed"), confirm["num_texts"]
    if verdict == "cost_not_excluded" and needed:
        add("cost", needed=needed, num_texts=num_texts)
    elif lacking and all(item["value"] <= item["limits"][0] for item in lacking.values()):
        add("limits", num_texts=num_texts)
    if unproved and not found:
        add("hear")
    return found


def _deaf(records: Records, lacking: Mapping[str, Record]) -> str:
    """Say what the recogniser mishears of recordings, where it mishears more than is allowed."""
    coded = (_recordings(records, "codec") or {}).get(records.confirm["error_metric"], {})
    can = (records.selection.get("measurable") or {}).get("recogniser", {})
    misheard = (
        value if name in lacking and (value or 0.0) > lacking[name]["limits"][end] else None
        for name, end, value in (
            ("error_above_codec", 1, coded.get("point")),
            ("wrong_language", 0, can.get("heard_as_other_language")),
        )
    )
    return say("deaf", *misheard)


def what_now(verdict: str, cures: Sequence[Record]) -> str:
    """Say in a line what to do first; nothing where nothing could be measured."""
    if verdict == "not_measurable":
        return ""
    if not cures:
        return "Use the Base." if verdict == "base_kept" else "Use it: the commands are below."
    return " ".join(f"{cure['title']}. {cure['why']}" for cure in cures[:2])


def next_steps(confirm: Record, say: str, export: str, text: str) -> list[Record]:
    """Say how the result is heard (with a text) and passed on, in the form of `remedies`."""
    spoken = re.sub(r'["\\$`]', "", text)
    found = [{"title": "Let it speak", "why": f"With {title(confirm['chosen'])}, into said.wav:",
              "how": "", "code": f'{say} "{spoken}"'}]  # fmt: skip
    unusable = (confirm.get("usable") or {}).get("state") == "not_yet"
    if confirm["verdict"] in ("confirmed", "cost_not_excluded") and not unusable:
        found.append({"title": "Pass it on", "why": "Weights and a card for the Hub:",
                      "how": "", "code": export})  # fmt: skip
    return found
