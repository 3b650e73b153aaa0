"""The report of a language adaptation, and its tables for notebooks.

What was learnt from texts, whether recordings were needed as well, what it cost the language that
the Base knew, and how sure all of that is. Everything is read from files that stages wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from voxadapt.core import paths
from voxadapt.core.files import first_by_hash, read_json, read_jsonl, write_atomic
from voxadapt.core.params import LanguageParams, Params, in_stage2, language_section
from voxadapt.core.records import Record, with_wav_paths
from voxadapt.data.respelling import load_respelling
from voxadapt.reporting import components, decision, figures, tables
from voxadapt.reporting.players import Html, clip_list
from voxadapt.reporting.records import (
    LanguageRecords,
    candidate_order,
    language_scores,
    load_language_records,
    stage_and_epoch,
)
from voxadapt.reporting.run_page import write_run_page
from voxadapt.reporting.tables import NONE, interval, percent, title
from voxadapt.selection import wording

if TYPE_CHECKING:
    import pandas

NUM_WORST_SOURCE, NUM_SOURCE_SENTENCES, NUM_EXAMPLES = 3, 4, 5
CANDIDATE_COLUMNS = {key: tables.COLUMNS[key] for key in ("CER", "WER", "similarity")}
CANDIDATE_COLUMNS |= tables.COLUMNS
VERDICTS = {  # of forgetting: (words, tone of a chip, class of a cell)
    "kept": ("kept", "good", "passed"),
    "undecided": ("not shown to be kept", "unsure", "undecided"),
    "forgotten": ("partly forgotten", "bad", "failed"),
}


def write_language_report(params: Params, root: str | Path = ".") -> Path:
    """Build the page and write it to `reports/language/index.html`, whole or not at all."""
    path = Path(root) / paths.LANGUAGE_REPORT
    write_atomic(path, build_language_page(params, root))
    write_run_page(params, path.with_name("run.html"), root, language=True)
    return path


def build_language_page(params: Params, root: str | Path = ".") -> str:
    """Build the page's HTML; arguments and errors as in `write_language_report`."""
    language = language_section(params)
    records = load_language_records(params, root)
    respelling = load_respelling(records.root / language.respelling)
    selection, choice1 = records.selection, records.choice1
    chosen = selection["chosen"]
    seeds = {
        "Stage 1": language.stage1.seed,
        "Stage 2": language.stage2.seed,
        "synthesis": params.score.seed,
        "bootstrap": language.select.seed,
    }
    name = placed(chosen)
    commands = (
        f"voxadapt language say --candidate {chosen}",
        "voxadapt language export --output my-language",
    )
    epochs = {"candidates": language.num_epochs, "num_epochs": language.stage2.num_epochs}
    shared = decision.shared_parts(
        params, records, seeds, choice1, name, "the reference", epochs, commands
    )
    if records.stage2 is not None:
        shared["also"].append(stage2_gain(selection))
    for item in (*shared["sentences"], *shared["hear"]):
        item["respelling"] = respelling.respell(item["text"])
    metric, source = shared["metric"], spoken(language.source.language)
    memory, forgotten = remembered(choice1, selection), selection["forgetting"]["metric"]
    own = [] if chosen == "base" else [("chosen", title(chosen), memory[chosen][forgotten])]
    third = decision.ladder(
        f"{source}, to be kept: {forgotten.upper()}",
        [("base", "Base", memory["base"][forgotten]), *own],
        share=True,
    )
    if third:
        note = f"on {selection['forgetting']['num_texts']} sentences of the choice"
        shared["ladders"].append(third | {"note": note})
    if shared["said"][0][0] != "Measured":
        shared["said"].insert(2, (source, cost(language, records)))
    arms, old = measured_arms(records.arms, selection["evaluator"])
    template = components.environment().get_template("language.html.j2")
    accepted = {row["text"]: row for row in records.text_rows}
    return template.render(
        shared,
        language=language,
        target=spoken(language.name),
        source=source,
        choice1=choice1,
        decision=records.decision,
        stage2_ran=records.stage2 is not None,
        steps2=decision.steps(selection),
        headline=wording.headline(
            records.confirm,
            f"{name} for {spoken(language.name)}",
            f"Keep the Base: nothing tried is shown to read {spoken(language.name)} better.",
        ),
        cost=cost(language, records),
        stage2_words=decision.say("stage2_words", records.decision),
        candidates=[records.candidate(name) for name in records.names],
        forgetting=memory,
        forgetting_record=selection["forgetting"],
        forgetting_words=VERDICTS,
        figures=components.draw(
            {
                "curves": partial(_curves, language, (choice1, selection), records),
                "gap": lambda theme: figures.gap(records.decision, theme),
            }
        ),
        source_sentences=components.grid(
            records.source_rows,
            candidate_order(("base", choice1["chosen"], chosen)),
            NUM_SOURCE_SENTENCES,
            metric,
            chosen,
        ),
        source_worst=components.worst_clips(
            records.source_rows, {chosen: NUM_WORST_SOURCE}, metric
        ),
        decision_rows=decision_rows(records.decision),
        sizes=size_rows(records.stage1, records.stage2),
        trained=_trained(records),
        arms=arms,
        size_in_words=size_in_words,
        old_arms=old,
        stages=_stages(records),
        texts=records.texts,
        text_findings=text_findings(records.texts, records.text_rows),
        text_examples=[accepted[text] for text in first_by_hash(accepted, NUM_EXAMPLES)],
    )


# --- in words ----------------------------------------------------------------------------------


def spoken(name: str) -> str:
    """Name a language in a sentence: `malay` becomes `Malay`."""
    return name[:1].upper() + name[1:]


def placed(candidate: str) -> str:
    """Name a candidate in a sentence with its stage: `epoch 3 of Stage 1`."""
    if candidate == "base":
        return "the unadapted Base"
    named = tables.named(candidate)
    return named if "Stage" in named else f"{named} of Stage 1"


def cost(language: LanguageParams, records: LanguageRecords) -> str:
    """Say in a sentence what became of the source language."""
    name, selection = spoken(language.source.language), records.selection
    memory, metric = selection["forgetting"]["candidates"], selection["forgetting"]["metric"]
    return decision.say("source_cost", name, metric, memory[selection["chosen"]], memory["base"])


def stage2_gain(selection: Record) -> str:
    """Say what Stage 2 gained over what it began with: its choice, or else its best epoch."""
    similar = selection["rule"]["primary"] == "similarity"
    key, sign = ("sim", 1) if similar else ("error", -1)
    ours = [item for item in selection["candidates"] if in_stage2(item["name"])]
    changes = {item["name"]: (item.get("vs_start") or item["vs_base"])[key] for item in ours}
    kept = [item for item in ours if item["name"] == selection["chosen"]]
    best = max(kept or ours, key=lambda item: sign * changes[item["name"]]["point"])
    start = placed(selection.get("start", "base"))
    return decision.say("stage2_gain", selection, best, changes[best["name"]], start)


def size_in_words(size_bytes: int | None) -> str:
    """Write a file's size: `0.12 MB`."""
    return NONE if size_bytes is None else f"{size_bytes / 1e6:.2f} MB"


# --- what the records hold ---------------------------------------------------------------------


def remembered(*selections: Record) -> dict[str, Record]:
    """Return each candidate's entry on the source language; later records replace earlier ones."""
    memory: dict[str, Record] = {}
    for selection in selections:
        memory |= selection["forgetting"]["candidates"]
    return memory


def _trained(records: LanguageRecords) -> Record:
    """Sum up what the chosen model has trained, and the size of its delta."""
    chosen = records.selection["chosen"]
    # Where Stage 1 kept the Base, Stage 2 began without its rows.
    used = [] if "base" in (chosen, records.choice1["chosen"]) else [records.stage1]
    if stage_and_epoch(chosen)[0] == 2 and records.stage2 is not None:
        used.append(records.stage2)
    count = sum(metrics["num_trainable"] for metrics in used)
    return {
        "num_trainable": count,
        "num_params": records.stage1["num_params"],
        "share": count / records.stage1["num_params"],
        "delta": size_in_words(used[-1]["delta_bytes"]) if used else NONE,
    }


def _stages(records: LanguageRecords) -> list[Record]:
    """Describe the training of each stage that ran."""
    found = [("Stage 1", records.stage1, records.stage1_log)]
    if records.stage2 is not None:
        found.append(("Stage 2", records.stage2, records.stage2_log))
    return [
        {
            "title": name,
            "epochs": tables.train_rows(metrics) if log else [],
            "row": metrics.get("language_row"),
            "facts": components.facts({k: v for k, v in metrics.items() if k != "language_row"}),
        }
        for name, metrics, log in found
    ]


def _curves(
    language: LanguageParams,
    choices: Sequence[Record],
    records: LanguageRecords | None = None,
    theme: figures.Theme = figures.LIGHT,
) -> figures.Plot:
    """Draw the error in both languages, and with records of a run all else, per candidate."""
    ranked, memory, last = _ranked(choices), remembered(*choices), choices[-1]
    metric, names = last["rule"]["error_metric"], list(ranked)
    both = {
        spoken(language.name): {name: entry[metric] for name, entry in ranked.items()},
        spoken(language.source.language): {name: memory[name][metric] for name in names},
    }
    everyone = last | {"candidates": list(ranked.values())}
    error, similar = figures.panels_of(everyone)
    panels = [replace(error, series=both)]
    if records is not None:
        stages = (("epoch", records.stage1), ("stage2-epoch", records.stage2 or {"epochs": []}))
        losses = {
            f"{prefix}-{epoch['epoch']}": {"point": epoch["heldout"].get("loss")}
            for prefix, metrics in stages
            for epoch in metrics["epochs"]
        }
        panels += [similar, figures.Panel("held-out loss", {"": losses})] if losses else [similar]
    failed = [name for name, entry in ranked.items() if not (entry["eligible"] or name == "base")]
    return figures.curves(panels, names, last["chosen"], failed, theme)


def text_findings(texts: Record, rows: Sequence[Record]) -> list[Record]:
    """Count what the audit of the texts remarked, by rule, with an example of each."""
    examples = {finding["rule"]: finding["message"] for finding in texts["file_warnings"]}
    for row in reversed(rows):
        for finding in row["findings"]:
            examples[finding["rule"]] = f"{row['id']}: {finding['message']}"
    return [
        {"rule": rule, "texts": count, "example": examples.get(rule, "left out")}
        for rule, count in texts["warnings_by_rule"].items()
    ]


# --- rows of tables ----------------------------------------------------------------------------


def score_rows(
    ranked: Sequence[Record], memory: Mapping[str, Record], chosen: str | None
) -> list[dict[str, str]]:
    """Return candidates as rows of text: what they reach, and what became of the source."""
    return [
        {
            "candidate": title(entry["name"]) + (" (chosen)" if entry["name"] == chosen else ""),
            **tables.measured(entry, CANDIDATE_COLUMNS),
            "source CER": interval(known["cer"], share=True) if known else NONE,
            "source": VERDICTS[known["verdict"]][0] if known else NONE,
            "eligible": tables.yes_no(entry["eligible"]),
        }
        for entry in ranked
        for known in [memory.get(entry["name"])]
    ]


def forgetting_rows(memory: Mapping[str, Record]) -> list[dict[str, str]]:
    """Return what each candidate does with the source language, against the Base."""
    rows = []
    for name in candidate_order(memory):
        entry, change = memory[name], memory[name]["vs_base"]
        row = {"candidate": title(name), **tables.measured(entry, CANDIDATE_COLUMNS)}
        del row["duration"]  # not measured against the Base's
        row |= {f"{metric.upper()} − Base": interval((change or {}).get(metric), True, sign=True)
                for metric in ("cer", "wer")}  # fmt: skip
        rows.append(row | {"verdict": VERDICTS[entry["verdict"]][0] if change else NONE})
    return rows


def decision_rows(decision: Record) -> list[dict[str, str]]:
    """Return the numbers behind the decision about Stage 2."""
    rule, metric = decision["rule"], decision["rule"]["metric"]
    stage1, needed = decision["stage1"], decision["num_texts_needed"]
    short = metric.upper()
    rows = [
        (f"{short} of {placed(stage1['candidate'])}", interval(stage1[metric], share=True)),
        (f"{short} of the recordings after the codec", interval(decision["codec"][metric], True)),
        ("gap between the two", interval(decision["gap"], share=True, sign=True)),
        ("gap that is allowed", f"{100 * rule['max_gap']:g} points"),
        ("sentences measured", str(decision["gap"]["n"])),
        ("sentences needed to decide", NONE if needed is None else f"about {needed}"),
        ("the data say", decision["decision"]),
        ("mode", decision["mode"]),
        ("done", decision["acts"]),
    ]
    return [{"figure": figure, "value": value} for figure, value in rows]


def size_rows(stage1: Record, stage2: Record | None) -> list[dict[str, str]]:
    """Return what each stage trained, module by module, counted in the model itself."""
    rows = []
    for name, metrics in (("Stage 1", stage1), ("Stage 2", stage2)):
        if metrics is None:
            continue
        total = metrics["num_params"]
        whole = {key: metrics[key] for key in ("num_trainable", "num_params")} | {"module": "all"}
        for module in [*metrics["modules"], whole]:
            trained, last = module["num_trainable"], module is whole
            if trained or last:
                rows.append(
                    {
                        "stage": name,
                        "module": module["module"],
                        "trained": f"{trained:,}",
                        "of": f"{module['num_params']:,}",
                        "share of the module": ""
                        if last
                        else percent(trained / module["num_params"], 2),
                        "share of the model": percent(trained / total, 2),
                        "rows": str(metrics["num_rows"]) if last else "",
                        "delta": size_in_words(metrics["delta_bytes"]) if last else "",
                    }
                )
    return rows


def _measured_alike(arm: Record, evaluator: Record) -> bool:
    """Tell whether an arm was measured by what measured this page; generation may differ."""
    found = arm.get("evaluator", {})
    return all(found.get(key) == evaluator[key] for key in ("norm_id", "asr_id", "sim_id"))


def measured_arms(arms: Record | None, evaluator: Record) -> tuple[list[Record], list[str]]:
    """Return every answer to what must learn a language, the Base first, and who is left out.

    Left out is what was measured otherwise than the selection: it cannot stand beside it.
    """
    listed = [] if arms is None or not arms["arms"] else [arms["base"], *arms["arms"]]
    for arm in listed:
        arm.setdefault("title", title(arm["name"]))
    alike = [arm for arm in listed if _measured_alike(arm, evaluator)]
    old = [arm["title"] for arm in listed if not _measured_alike(arm, evaluator)]
    return (alike if len(alike) > 1 else []), old


# --- for notebooks -----------------------------------------------------------------------------


def _choices(final: bool = True) -> list[Record]:
    """Read the choice of Stage 1, and the final one where it is made and not of an earlier run."""
    records = [paths.LANGUAGE_CHOICE1, *([paths.LANGUAGE_SELECTION] if final else [])]
    return [read_json(path) for path in records if path.is_file()]


def _ranked(choices: Sequence[Record]) -> dict[str, Record]:
    """Return the entry of each candidate in the last choice that ranked it, in their order."""
    ranked = {entry["name"]: entry for record in choices for entry in record["candidates"]}
    return {name: ranked[name] for name in candidate_order(ranked)}


def language_scores_table(final: bool = True) -> pandas.DataFrame:
    """Show all candidates that were ranked, with intervals, in both languages."""
    choices = _choices(final)
    listed = list(_ranked(choices).values())
    rows = score_rows(listed, remembered(*choices), choices[-1]["chosen"])
    return tables.frame(rows, "candidate")


def forgetting_table(final: bool = True) -> pandas.DataFrame:
    """Show what each candidate does with the source language."""
    return tables.frame(forgetting_rows(remembered(*_choices(final))), "candidate")


def decision_table() -> pandas.DataFrame:
    """Show whether Stage 2 is to run, and the numbers behind that."""
    rows = decision_rows(read_json(paths.LANGUAGE_DECISION))
    return tables.frame(rows, "figure")


def sizes_table(stage2: bool = True) -> pandas.DataFrame:
    """Show what each stage trained; without `stage2`, which may be of an earlier run, the first."""
    first = read_json(paths.LANGUAGE_STAGE1_METRICS)
    second = read_json(paths.LANGUAGE_STAGE2_METRICS) if stage2 else {"skipped": True}
    return tables.frame(size_rows(first, None if second.get("skipped") else second), "stage")


def language_curves(params: Params, final: bool = True) -> figures.Plot:
    """Draw the error in both languages for the candidates that were ranked so far."""
    return _curves(language_section(params), _choices(final))


def language_grid(params: Params, limit: int = 6) -> Html:
    """Play sentences by the recording and every candidate, with the respelling below the text."""
    respelling = load_respelling(language_section(params).respelling)
    folders = {"real": paths.LANGUAGE.reference / "real"}
    folders |= {name: language_scores(name) for name in _ranked(_choices())}
    clips: dict[str, dict[str, Record]] = {}
    for name, folder in folders.items():
        rows = with_wav_paths(read_jsonl(folder / "rows.jsonl"), folder, Path())
        clips[name] = {row["text_id"]: row for row in rows if row["take"] == 0}
    texts = {row["text_norm"]: row for row in clips["base"].values()}
    items = []
    for norm in first_by_hash(texts, limit):
        text, key = texts[norm]["text"], texts[norm]["text_id"]
        items.append(
            {
                "title": text,
                "note": respelling.respell(text),
                "audio": [(title(name), clips[name].get(key, {}).get("wav")) for name in folders],
            }
        )
    return clip_list(items)
