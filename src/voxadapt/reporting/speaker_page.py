"""The report: one self-contained page that says what was chosen, why, and how sure we are.

Everything is read from files that stages wrote; nothing is measured here. The page holds its
audio and its figures, asks for nothing from any address (a content security policy forbids it)
and escapes every text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure

from voxadapt.core import paths
from voxadapt.core.files import first_by_hash, write_atomic
from voxadapt.core.params import Params
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Record
from voxadapt.core.templating import Inline, inline, new_environment
from voxadapt.reporting import figures, tables
from voxadapt.reporting.players import diff_html, read_sound
from voxadapt.reporting.records import PSEUDO, Records, flatten, load_records
from voxadapt.reporting.votes import votes_section

TEMPLATES = Path(__file__).parent / "templates"
NUM_WORST_CHOSEN, NUM_WORST_BASE = 6, 3
NUM_OPEN_SENTENCES = 3
NUM_EXTREMES = 3  # of each kind
VERDICTS = {  # confirm.json: (words on the chip, tone)
    "confirmed": ("Confirmed on unseen sentences", "good"),
    "not_confirmed": ("Not confirmed on unseen sentences", "unsure"),
    "contradicted": ("Contradicted on unseen sentences", "bad"),
    "base_kept": ("The Base is kept", "unsure"),
}


@cache
def environment() -> Environment:
    """Return the Jinja environment of the reports, with their filters."""
    env = new_environment(TEMPLATES)
    env.filters |= {
        "percent": tables.percent,
        "number": tables.number,
        "interval": tables.interval,
        "point": tables.point,
        "ends": tables.ends,
        "title_of": tables.title,
        "named": _sentence,
        "spaced": lambda text: str(text).replace("_", " "),
    }
    env.globals |= {"script_of": script, "MEASURES": tables.MEASURES}
    return env


@cache
def script(name: str) -> Inline:
    """Read a script of the templates."""
    return inline(TEMPLATES / name)


def _sentence(text: str) -> str:
    """Write a record's sentence for readers: candidates named in words, a capital to begin with."""
    text = tables.named(text)
    return text[:1].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class Cell:
    """One clip of the listening grid.

    Attributes:
        candidate: Whose clip it is.
        uri: The sound as a data URI; None when there is none.
        diff: What was heard, marked against the text.
        error: Capped error of the ranked metric.
        sim: Similarity; None when it could not be measured.
        dur_ratio: Spoken / expected duration; None when unknown.
        flags: What is odd about the clip.
        note: Which clip of its candidate it is, or why there is none.
        mel: Its spectrogram as a data URI; None when there is no sound.
        duration_s: How long the sound is; None when there is none.
    """

    candidate: str
    uri: str | None
    diff: Markup
    error: float | None
    sim: float | None
    dur_ratio: float | None
    flags: tuple[str, ...]
    note: str = ""
    mel: str | None = None
    duration_s: float | None = None


def build_page(params: Params, root: str | Path = ".") -> str:
    """Build the report's HTML.

    Args:
        params: The parameters of the run.
        root: Project folder.

    Returns:
        The page.

    Raises:
        UserError: Naming each missing file and the stage that writes it.
    """
    records = load_records(params, root)
    selection, confirm = records.selection, records.confirm
    chosen, metric = selection["chosen"], selection["rule"]["error_metric"]
    names = params.candidate_names
    cell = partial(make_cell, metric=metric)
    worst = {chosen: NUM_WORST_CHOSEN} | ({"base": NUM_WORST_BASE} if chosen != "base" else {})
    sentences = grid(
        records.rows, (*PSEUDO, *names), params.report.max_grid_sentences, cell, chosen
    )
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            params=params,
            selection=selection,
            confirm=confirm,
            chosen=chosen,
            metric=metric,
            headline=headline(selection),
            lede=lede(params, records),
            verdict=VERDICTS[confirm["verdict"]],
            listed={candidate["name"]: candidate for candidate in selection["candidates"]},
            summaries=records.summaries,
            marks=_similarity_marks(selection),
            figures=_figures(records, metric),
            stamp=stamp(params, selection, records.summaries, names),
            sentences=sentences,
            extremes=extremes(records.rows, chosen, sentences, cell, metric),
            num_open=NUM_OPEN_SENTENCES,
            worst=worst_clips(records.rows, worst, cell, metric),
            flag_counts=flag_counts(records.summaries, names),
            digits=digits(records.summaries, names),
            planning=records.planning,
            speakers=selection.get("speakers", []),
            votes=votes_section(records),
            audit=audit_facts(records.audit, records.clips),
            codes=facts({k: v for k, v in records.codes.items() if not isinstance(v, dict)}),
            train=facts(records.train),
            train_epochs=tables.train_rows(records.train),
            provenance=provenance(
                params,
                records.root,
                selection,
                {
                    "training": params.train.seed,
                    "synthesis": params.score.seed,
                    "bootstrap": params.select.seed,
                },
            ),
        )
    )


def write_report(params: Params, root: str | Path = ".") -> Path:
    """Build the page and write it to `reports/index.html`, whole or not at all."""
    path = Path(root) / paths.REPORT
    write_atomic(path, build_page(params, root))
    return path


# --- the decision in words ---------------------------------------------------------------------


def headline(selection: Record) -> str:
    """Say the decision in as few words as possible."""
    if selection["keep_base"]:
        return "Keep the Base: do not fine-tune."
    return f"Use {tables.title(selection['chosen']).lower()}."


def lede(params: Params, records: Records) -> str:
    """Say in one sentence what the choice gains, on the sentences that no decision has seen."""
    selection, confirm = records.selection, records.confirm
    name = tables.title(selection["chosen"]).lower()
    several = len(selection.get("speakers", ()))
    voice = f"its {several} speakers" if several > 1 else params.train.speaker_name
    count = f"{confirm['num_texts']} unseen sentences"
    if selection["keep_base"]:
        return (
            f"No epoch passed every gate and sounded measurably better than the zero-shot Base "
            f"as {voice}; on {count} the Base scores "
            f"{point_of(confirm, 'sim', 'base')} in similarity and "
            f"{point_of(confirm, 'wer', 'base')} in word error."
        )
    sim, error = (confirm["measures"][key] for key in ("sim", confirm["error_metric"]))
    likeness = {
        1: f"sounds more like {voice} than the zero-shot Base",
        0: f"sounds about as much like {voice} as the zero-shot Base",
        -1: f"sounds less like {voice} than the zero-shot Base",
    }[direction(sim["difference"])]
    clarity = {
        1: "It is understood less well",
        0: "It is understood about as well",
        -1: "It is understood better",
    }[direction(error["difference"])]
    level = round(100 * records.selection["rule"]["confidence"])
    return (
        f"On {count}, {name} {likeness}: similarity {point_of(confirm, 'sim', 'chosen')} against "
        f"{point_of(confirm, 'sim', 'base')}, a difference of "
        f"{tables.number(sim['difference']['point'], 3, sign=True)} "
        f"({level} % interval {tables.number(sim['difference']['low'], 3, sign=True)} to "
        f"{tables.number(sim['difference']['high'], 3, sign=True)}). {clarity}: "
        f"{confirm['error_metric'].upper()} {point_of(confirm, confirm['error_metric'], 'chosen')} "
        f"against {point_of(confirm, confirm['error_metric'], 'base')}."
    )


def point_of(confirm: Record, measure: str, side: str) -> str:
    """Write one side of a measure of `confirm.json`."""
    value = confirm["measures"][measure][side]["point"]
    share = tables.MEASURES[measure][1]
    return tables.percent(value) if share else tables.number(value)


def direction(difference: Record) -> int:
    """Return 1 or -1 when the interval excludes 0, else 0."""
    low, high = difference["low"], difference["high"]
    return 0 if low is None or high is None or low <= 0 <= high else 1 if low > 0 else -1


# --- figures -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure as SVG elements: one for wide pages, one for phones."""

    wide: Markup
    narrow: Markup


def draw(figures_of: Mapping[str, Callable[[figures.Theme], Figure]]) -> dict[str, Drawing]:
    """Draw every figure twice: for wide and for narrow pages."""
    return {
        name: Drawing(
            *(
                Markup(figures.svg(make(theme), f"{name.replace(' ', '-')}-{width}"))
                for width, theme in (("wide", figures.LIGHT), ("narrow", figures.NARROW))
            )
        )
        for name, make in figures_of.items()
    }


def _figures(records: Records, metric: str) -> dict[str, Drawing]:
    selection, other = records.selection, "cer" if metric == "wer" else "wer"
    matrices = _confusions(selection)
    return draw(
        {
            **({"confusion": partial(figures.confusion, matrices)} if matrices else {}),
            "trade_off": lambda theme: figures.trade_off(selection, theme),
            "similarity": lambda theme: figures.similarity(selection, theme),
            "error": lambda theme: figures.errors(selection, metric, theme),
            "rate": lambda theme: figures.rate(selection, theme),
            "other_error": lambda theme: figures.errors(selection, other, theme),
            "p_best": lambda theme: figures.p_best(selection, theme),
            "losses": lambda theme: figures.losses(records.train_log, theme),
        }
    )


def _confusions(selection: Record) -> dict[str, Record]:
    """Return who sounds like whom by title: recordings, the same coded, Base and chosen."""
    if not selection.get("speakers"):
        return {}
    names = dict.fromkeys(["base", selection["chosen"]])
    found = {c["name"]: c["confusion"] for c in selection["candidates"]}
    found |= selection["recordings"]
    return {tables.title(name): found[name] for name in (*PSEUDO, *names) if name in found}


def facts(record: Record) -> dict[str, Any]:
    """Return the numbers and words of a record, without lists and the ends of intervals."""
    return {
        key.removesuffix(".point"): value
        for key, value in flatten(record).items()
        if isinstance(value, str | int | float) and not key.endswith((".low", ".high", "schema"))
    }


def _similarity_marks(selection: Record) -> list[dict[str, Any]]:
    """Place floor, Base, chosen and ceilings on one line."""
    scale = selection["scale"] or {}
    by_name = {c["name"]: c["sim"]["point"] for c in selection["candidates"]}
    marks = [
        ("floor", "floor: other voices", scale.get("floor")),
        ("base", "Base, zero-shot", by_name["base"]),
        ("codec", "recordings after the codec", scale.get("codec_ceiling")),
        ("ceiling", "ceiling: recordings", scale.get("ceiling")),
    ]
    if not selection["keep_base"]:
        marks.insert(2, ("chosen", tables.title(selection["chosen"]), by_name[selection["chosen"]]))
    return on_a_line(marks, partial(tables.number, digits=2))


def on_a_line(
    marks: Sequence[tuple[str, str, float | None]],
    write: Callable[[float], str],
    lower_is_better: bool = False,
) -> list[dict[str, Any]]:
    """Place values between the worst of them (0 %) and the best (100 %).

    Args:
        marks: Kind (a CSS class), label and value; unknown values are left out.
        write: Writes a value.
        lower_is_better: For errors.

    Returns:
        Kind, label, written value and place of each; nothing where fewer than two are known.
    """
    known = [(kind, label, value) for kind, label, value in marks if value is not None]
    if len(known) < 2:
        return []
    values = [value for _, _, value in known]
    low, width = min(values), max(max(values) - min(values), 1e-9)
    return [
        {
            "kind": kind,
            "label": label,
            "value": write(value),
            "at": 100 - 100 * (value - low) / width
            if lower_is_better
            else 100 * (value - low) / width,
        }
        for kind, label, value in known
    ]


# --- listening ---------------------------------------------------------------------------------


def make_cell(row: Record | None, candidate: str, metric: str) -> Cell:
    """Make a cell from a score row; without one it says that there is no clip."""
    if row is None:
        return Cell(candidate, None, Markup(""), None, None, None, (), "no clip of this sentence")
    sound = read_sound(row["wav"]) if row["wav"] else None
    return Cell(
        candidate=candidate,
        uri=sound.uri if sound else None,
        diff=Markup(diff_html(row["text_norm"], row["hyp_norm"])),
        error=tables.error_of(row, metric),
        sim=row["sim"],
        dur_ratio=row["dur_ratio"],
        flags=tuple(row["flags"]),
        note=row["message"],
        mel=sound.mel_uri if sound else None,
        duration_s=sound.duration_s if sound else None,
    )


def sentence(
    text: str, cells: Sequence[Cell], chosen: str | None, why: Sequence[str] = ()
) -> dict[str, Any]:
    """Put a sentence's clips together with what one scans, sorts and filters them by.

    Args:
        text: The sentence.
        cells: Its clips.
        chosen: The candidate that is compared with the Base.
        why: What singled the sentence out; nothing: it is of the sample.

    Returns:
        These, with the `error` of the chosen clip and of the Base's, the `change` between the
        two (None where one is missing or the Base is chosen), `num_flagged` clips and the
        seconds of the `longest` clip.
    """
    error_by = {cell.candidate: cell.error for cell in cells}
    error, base = error_by.get(chosen or ""), error_by.get("base")
    known = chosen != "base" and error is not None and base is not None
    return {
        "text": text,
        "cells": list(cells),
        "why": list(why),
        "error": error,
        "base_error": base,
        "change": error - base if known and error is not None and base is not None else None,
        "num_flagged": sum(bool(c.flags) for c in cells if c.candidate not in PSEUDO),
        "longest": max((c.duration_s or 0.0 for c in cells), default=0.0),
    }


def grid(
    rows: Mapping[str, Sequence[Record]],
    columns: Sequence[str],
    limit: int,
    cell: Callable[[Record | None, str], Cell],
    chosen: str | None = None,
) -> list[dict[str, Any]]:
    """Lay out sentence x candidate: first take of the first sentences by hash of their text.

    Args:
        rows: Rows by candidate; those of `base` name the sentences.
        columns: Candidates in the order of the cells.
        limit: How many sentences.
        cell: Makes a cell of a row and its candidate.
        chosen: The candidate whose change against the Base is measured.
    """
    first: dict[str, dict[str, Record]] = {}
    for name in columns:
        listed = sorted(rows[name], key=lambda row: row["take"], reverse=True)
        first[name] = {row["text_norm"]: row for row in listed}
    texts = {row["text_norm"]: row["text"] for row in rows["base"]}
    return [
        sentence(texts[text], [cell(first[name].get(text), name) for name in columns], chosen)
        for text in first_by_hash(texts, limit)
    ]


def extremes(
    rows: Mapping[str, Sequence[Record]],
    chosen: str,
    sample: Sequence[Mapping[str, Any]],
    cell: Callable[[Record | None, str], Cell],
    metric: str,
    limit: int = NUM_EXTREMES,
) -> list[dict[str, Any]]:
    """Find what a sample by hash leaves out: the chosen candidate's largest changes, worst, flags.

    Args:
        rows: Rows by candidate, with those of `base` and, where they exist, of `real`.
        chosen: Whose clips are looked at.
        sample: Sentences that are shown anyway; their first takes are left out.
        cell: Makes a cell of a row and its candidate.
        metric: `wer` or `cer`.
        limit: How many of each kind.

    Returns:
        Sentences with the recording, the Base's clip and the chosen one of the same take.
    """
    shown = {item["text"] for item in sample}
    base = {(row["text_norm"], row["take"]): row for row in rows["base"]}
    real = {row["text_norm"]: row for row in reversed(rows.get("real", ()))}
    ours = [row for row in rows[chosen] if not (row["take"] == 0 and row["text"] in shown)]
    ours.sort(key=lambda row: (row["text_id"], row["take"]))
    changed = [
        (tables.error_of(row, metric) - tables.error_of(other, metric), row)
        for row in ours
        if chosen != "base" and (other := base.get((row["text_norm"], row["take"]))) is not None
    ]
    found: dict[str, list[Record]] = {
        "most worsened": [
            row for change, row in sorted(changed, key=lambda item: -item[0]) if change > 0
        ],
        "most improved": [
            row for change, row in sorted(changed, key=lambda item: item[0]) if change < 0
        ],
        "among the worst": tables.worst(ours, limit, metric),
        "flagged": sorted((row for row in ours if row["flags"]), key=lambda r: -len(r["flags"])),
    }
    picked: dict[tuple[str, int], tuple[Record, list[str]]] = {}
    for reason, listed in found.items():
        for row in listed[:limit]:
            picked.setdefault((row["text_norm"], row["take"]), (row, []))[1].append(reason)
    return [
        sentence(
            row["text"],
            [
                *([cell(real[row["text_norm"]], "real")] if row["text_norm"] in real else []),
                *([cell(base.get(key), "base")] if chosen != "base" else []),
                cell(row, chosen),
            ],
            chosen,
            why,
        )
        | {"take": row["take"] + 1}
        for key, (row, why) in picked.items()
    ]


def worst_clips(
    rows: Mapping[str, Sequence[Record]],
    wanted: Mapping[str, int],
    cell: Callable[[Record | None, str], Cell],
    metric: str,
) -> list[dict[str, Any]]:
    """List the worst clips of some candidates, as many of each as asked for."""
    return [
        {"text": row["text"], "take": row["take"], "cell": cell(row, name)}
        for name, limit in wanted.items()
        for row in tables.worst(rows[name], limit, metric)
    ]


def flag_counts(summaries: Mapping[str, Record], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count flags per candidate; flags that nobody has are left out."""
    every: dict[str, dict[str, int]] = {}
    for name in names:
        for flag, count in summaries[name]["flags"].items():
            every.setdefault(flag, dict.fromkeys(names, 0))[name] = count
    return {flag: counts for flag, counts in every.items() if any(counts.values())}


def digits(summaries: Mapping[str, Record], names: Sequence[str]) -> dict[str, Record]:
    """Return each candidate's measures on sentences with digits; empty when there are none."""
    found = {name: summaries[name].get("slices", {}).get("digits") for name in names}
    return {name: measures for name, measures in found.items() if measures}


# --- corpus and provenance ---------------------------------------------------------------------


def audit_facts(audit: Record, clips: Sequence[Record]) -> dict[str, Any]:
    """Sum the audit of recordings up: clips, minutes and findings by rule.

    Args:
        audit: Its figures.
        clips: Every raw row with its findings.
    """
    by_rule: dict[tuple[str, str], list[str]] = {}
    for clip in clips:
        for finding in clip["findings"]:
            key = (finding["severity"], finding["rule"])
            by_rule.setdefault(key, []).append(f"{clip['id']}: {finding['message']}")
    return {
        "num_clips": len(clips),
        "minutes": sum(clip["duration_s"] or 0.0 for clip in clips) / 60,
        "splits": _count(clip.get("split") or "none" for clip in clips),
        "rules": [
            {"severity": severity, "rule": rule, "count": len(found), "example": found[0]}
            for (severity, rule), found in sorted(by_rule.items(), key=lambda item: -len(item[1]))
        ],
        "corpus": [finding["message"] for finding in audit.get("corpus_warnings", [])],
        "consent": tables.consent_sentence(audit.get("consent"), len(clips)),
        "speakers": audit.get("speakers", []),
    }


def _count(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def stamp(
    params: Params,
    selection: Record,
    summaries: Mapping[str, Record],
    names: Sequence[str],
) -> list[tuple[str, str]]:
    """List what a reader of the first screen must know to quote the figures.

    Args:
        params: The parameters of the run.
        selection: The decision that the page is about.
        summaries: Summary by candidate.
        names: The candidates.
    """
    evaluator = selection["evaluator"]
    measured, expected = (
        sum(summaries[name][key] for name in names) for key in ("n_measured", "n_expected")
    )
    return [
        ("clips measured", f"{measured} of {expected}"),
        ("recogniser", evaluator["asr_id"]),
        ("normaliser", evaluator["norm_id"]),
        ("similarity", evaluator["sim_id"]),
        ("parameters", _params_sha256(params)[:12]),
    ]


def _params_sha256(params: Params) -> str:
    """Hash what decides the results: where the stages run does not."""
    return fingerprint(params.model_dump(mode="json", exclude={"executor"}))


def provenance(
    params: Params, root: Path, selection: Record, seeds: Mapping[str, int]
) -> list[tuple[str, str]]:
    """List what shaped the result.

    Nothing here is of the machine or of the moment, so that equal results give an equal page.
    `dvc.lock` holds the hash of the page, and so names the commit.

    Args:
        params: The parameters of the run.
        root: Project folder.
        selection: The decision that the page is about.
        seeds: What was seeded, and with what.
    """
    lines = [
        ("commit", "the one whose dvc.lock lists this page"),
        ("parameters", f"profile {params.profile}, sha256 {_params_sha256(params)}"),
        ("data", _data_hash(root)),
        (
            "Base model",
            params.model.base + (f" @ {params.model.revision}" if params.model.revision else ""),
        ),
        (
            "candidates' rows",
            ", ".join(f"{k} {str(v)[:12]}" for k, v in selection["inputs"].items()),
        ),
        ("seeds", ", ".join(f"{name} {seed}" for name, seed in seeds.items())),
    ]
    names = {
        "asr_id": "recogniser",
        "norm_id": "text normaliser",
        "sim_id": "similarity",
        "gen_sha": "generation settings",
    }
    lines += [(names.get(key, key), str(value)) for key, value in selection["evaluator"].items()]
    return [*lines, ("versions", "as constraints.txt of that commit pins them")]


def _data_hash(root: Path) -> str:
    """Return the hash that `data.dvc` records for the data folder."""
    try:
        pointer = yaml.safe_load((root / "data.dvc").read_text(encoding="utf-8"))
        return f"data.dvc md5 {pointer['outs'][0]['md5']}"
    except (OSError, yaml.YAMLError, KeyError, TypeError, IndexError):
        return "no data.dvc"
