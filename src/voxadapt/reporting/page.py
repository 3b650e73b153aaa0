"""The report: one self-contained page that says what was chosen, why, and how sure we are.

Everything is read from files that stages wrote; nothing is measured here. The page holds its
audio and its figures, asks for nothing from any address (a content security policy forbids it)
and escapes every text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from voxadapt import paths
from voxadapt.params import Params
from voxadapt.provenance import fingerprint, git_commit, versions, write_atomic
from voxadapt.reporting import figures, tables
from voxadapt.reporting.players import audio_uri, diff_html
from voxadapt.reporting.records import PSEUDO, Record, Records, flatten, load_records

TEMPLATES = Path(__file__).parent / "templates"
NUM_WORST_CHOSEN, NUM_WORST_BASE = 6, 3
NUM_OPEN_SENTENCES = 3
VERDICTS = {  # confirm.json: (words on the chip, tone)
    "confirmed": ("Confirmed on unseen sentences", "good"),
    "not_confirmed": ("Not confirmed on unseen sentences", "unsure"),
    "contradicted": ("Contradicted on unseen sentences", "bad"),
    "base_kept": ("The Base is kept", "unsure"),
}


@cache
def environment() -> Environment:
    """Return the Jinja environment of the pages: autoescape on, undefined names are errors."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "percent": tables.percent,
        "number": tables.number,
        "interval": tables.interval,
        "title_of": tables.title,
        "named": _sentence,
        "spaced": lambda text: str(text).replace("_", " "),
    }
    return env


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
    """

    candidate: str
    uri: str | None
    diff: Markup
    error: float | None
    sim: float | None
    dur_ratio: float | None
    flags: tuple[str, ...]
    note: str = ""


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
    cell = partial(_cell, metric=metric)
    sentences = _grid(params, records, cell)
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
            marks=_scale_marks(selection),
            figures=_figures(records, metric),
            sentences=sentences,
            num_open=NUM_OPEN_SENTENCES,
            worst=_worst(records, cell, metric),
            flag_counts=_flag_counts(params, records),
            confirmation=tables.confirmation_rows(confirm),
            audit=_audit(records),
            codes=_figures_of({k: v for k, v in records.codes.items() if not isinstance(v, dict)}),
            train=_figures_of(records.train),
            train_epochs=tables.train_rows(records.train),
            provenance=_provenance(params, records),
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
    count = f"{confirm['num_texts']} unseen sentences"
    if selection["keep_base"]:
        return (
            f"No epoch passed every gate and sounded measurably better than the zero-shot Base "
            f"as {params.train.speaker_name}; on {count} the Base scores "
            f"{_point(confirm, 'sim', 'base')} in similarity and "
            f"{_point(confirm, 'wer', 'base')} in word error."
        )
    sim, error = (confirm["measures"][key] for key in ("sim", confirm["error_metric"]))
    likeness = {
        1: f"sounds more like {params.train.speaker_name} than the zero-shot Base",
        0: f"sounds about as much like {params.train.speaker_name} as the zero-shot Base",
        -1: f"sounds less like {params.train.speaker_name} than the zero-shot Base",
    }[_direction(sim["difference"])]
    clarity = {
        1: "It is understood less well",
        0: "It is understood about as well",
        -1: "It is understood better",
    }[_direction(error["difference"])]
    level = round(100 * records.selection["rule"]["confidence"])
    return (
        f"On {count}, {name} {likeness}: similarity {_point(confirm, 'sim', 'chosen')} against "
        f"{_point(confirm, 'sim', 'base')}, a difference of "
        f"{tables.number(sim['difference']['point'], 3, sign=True)} "
        f"({level} % interval {tables.number(sim['difference']['low'], 3, sign=True)} to "
        f"{tables.number(sim['difference']['high'], 3, sign=True)}). {clarity}: "
        f"{confirm['error_metric'].upper()} {_point(confirm, confirm['error_metric'], 'chosen')} "
        f"against {_point(confirm, confirm['error_metric'], 'base')}."
    )


def _point(confirm: Record, measure: str, side: str) -> str:
    value = confirm["measures"][measure][side]["point"]
    share = tables.MEASURES[measure][1]
    return tables.percent(value) if share else tables.number(value)


def _direction(difference: Record) -> int:
    """Return 1 or -1 when the interval excludes 0, else 0."""
    low, high = difference["low"], difference["high"]
    return 0 if low is None or high is None or low <= 0 <= high else 1 if low > 0 else -1


# --- figures -----------------------------------------------------------------------------------


def _figures(records: Records, metric: str) -> dict[str, dict[str, str]]:
    """Draw every figure twice: for light and for dark pages."""
    other = "cer" if metric == "wer" else "wer"
    drawn: dict[str, dict[str, str]] = {}
    for tone, theme in (("light", figures.LIGHT), ("dark", figures.DARK)):
        for name, figure in (
            ("similarity", figures.similarity(records.selection, theme)),
            ("error", figures.errors(records.selection, metric, theme)),
            ("other_error", figures.errors(records.selection, other, theme)),
            ("p_best", figures.p_best(records.selection, theme)),
            ("losses", figures.losses(records.train_log, theme)),
        ):
            drawn.setdefault(name, {})[tone] = figures.png_uri(figure)
    return drawn


def _figures_of(record: Record) -> dict[str, Any]:
    """Return the numbers and words of a record, without lists and the ends of intervals."""
    return {
        key.removesuffix(".point"): value
        for key, value in flatten(record).items()
        if isinstance(value, str | int | float) and not key.endswith((".low", ".high", "schema"))
    }


def _scale_marks(selection: Record) -> list[dict[str, Any]]:
    """Place floor, Base, chosen and ceilings on one line, from 0 to 100 %."""
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
    known = [(kind, label, value) for kind, label, value in marks if value is not None]
    if len(known) < 2:
        return []
    values = [value for _, _, value in known]
    low, width = min(values), max(max(values) - min(values), 1e-9)
    return [
        {"kind": kind, "label": label, "value": value, "at": 100 * (value - low) / width}
        for kind, label, value in known
    ]


# --- listening ---------------------------------------------------------------------------------


def _cell(row: Record | None, candidate: str, metric: str) -> Cell:
    if row is None:
        return Cell(candidate, None, Markup(""), None, None, None, (), "no clip of this sentence")
    return Cell(
        candidate=candidate,
        uri=audio_uri(row["wav"]) if row["wav"] else None,
        diff=Markup(diff_html(row["text_norm"], row["hyp_norm"])),
        error=tables.error_of(row, metric),
        sim=row["sim"],
        dur_ratio=row["dur_ratio"],
        flags=tuple(row["flags"]),
        note=row["message"],
    )


def _grid(params: Params, records: Records, cell: Any) -> list[dict[str, Any]]:
    """Lay out sentence x candidate: first take of the first sentences by hash of their text."""
    columns = (*PSEUDO, *params.candidate_names)
    first: dict[str, dict[str, Record]] = {}
    for name in columns:
        rows = sorted(records.rows[name], key=lambda row: row["take"], reverse=True)
        first[name] = {row["text_norm"]: row for row in rows}
    texts = {row["text_norm"]: row["text"] for row in records.rows["base"]}
    return [
        {"text": texts[text], "cells": [cell(first[name].get(text), name) for name in columns]}
        for text in tables.uncurated(texts, params.report.max_grid_sentences)
    ]


def _worst(records: Records, cell: Any, metric: str) -> list[dict[str, Any]]:
    """List the worst clips of the chosen candidate and of the Base."""
    chosen = records.selection["chosen"]
    wanted = {chosen: NUM_WORST_CHOSEN} | ({"base": NUM_WORST_BASE} if chosen != "base" else {})
    return [
        {"text": row["text"], "take": row["take"], "cell": cell(row, name)}
        for name, limit in wanted.items()
        for row in tables.worst(records.rows[name], limit, metric)
    ]


def _flag_counts(params: Params, records: Records) -> dict[str, dict[str, int]]:
    """Count flags per candidate; flags that nobody has are left out."""
    names = params.candidate_names
    every: dict[str, dict[str, int]] = {}
    for name in names:
        for flag, count in records.summaries[name]["flags"].items():
            every.setdefault(flag, dict.fromkeys(names, 0))[name] = count
    return {flag: counts for flag, counts in every.items() if any(counts.values())}


# --- corpus and provenance ---------------------------------------------------------------------


def _audit(records: Records) -> dict[str, Any]:
    """Sum the audit up: clips, minutes and findings by rule."""
    by_rule: dict[tuple[str, str], list[str]] = {}
    for clip in records.clips:
        for finding in clip["findings"]:
            key = (finding["severity"], finding["rule"])
            by_rule.setdefault(key, []).append(f"{clip['id']}: {finding['message']}")
    return {
        "num_clips": len(records.clips),
        "minutes": sum(clip["duration_s"] or 0.0 for clip in records.clips) / 60,
        "splits": _count(clip.get("split") or "none" for clip in records.clips),
        "rules": [
            {"severity": severity, "rule": rule, "count": len(found), "example": found[0]}
            for (severity, rule), found in sorted(by_rule.items(), key=lambda item: -len(item[1]))
        ],
        "corpus": [finding["message"] for finding in records.audit.get("corpus_warnings", [])],
    }


def _count(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _provenance(params: Params, records: Records) -> list[tuple[str, str]]:
    """List what shaped the result."""
    commit, tree = git_commit(), params.model_dump(mode="json")
    evaluator = records.selection["evaluator"]
    seeds = {"training": params.train.seed, "synthesis": params.score.seed}
    seeds |= {"bootstrap": params.select.seed}
    lines = [
        ("commit", commit["commit"] + (", with local changes" if commit["modified"] else "")),
        ("parameters", f"profile {params.profile}, sha256 {fingerprint(tree)}"),
        ("data", _data_hash(records.root)),
        (
            "Base model",
            params.model.base + (f" @ {params.model.revision}" if params.model.revision else ""),
        ),
        (
            "candidates' rows",
            ", ".join(f"{k} {str(v)[:12]}" for k, v in records.selection["inputs"].items()),
        ),
        ("seeds", ", ".join(f"{name} {seed}" for name, seed in seeds.items())),
    ]
    names = {
        "asr_id": "recogniser",
        "norm_id": "text normaliser",
        "sim_id": "similarity",
        "gen_sha": "generation settings",
    }
    lines += [(names.get(key, key), str(value)) for key, value in evaluator.items()]
    lines.append(
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items()))
    )
    return lines


def _data_hash(root: Path) -> str:
    """Return the hash that `data.dvc` records for the data folder."""
    try:
        pointer = yaml.safe_load((root / "data.dvc").read_text(encoding="utf-8"))
        return f"data.dvc md5 {pointer['outs'][0]['md5']}"
    except (OSError, yaml.YAMLError, KeyError, TypeError, IndexError):
        return "no data.dvc"
