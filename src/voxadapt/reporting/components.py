"""What the report pages share: the frame of a page, its cells of clips, figures and provenance.

Everything is read from files that stages wrote; nothing is measured here. A page holds its audio
and its figures, asks for nothing from any address (a content security policy forbids it) and
escapes every text.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml
from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure

from voxadapt.asr.normalise import Substitutions
from voxadapt.core.files import first_by_hash
from voxadapt.core.params import Params
from voxadapt.core.records import Record, flatten
from voxadapt.core.templating import inline, new_environment
from voxadapt.reporting import figures, tables
from voxadapt.reporting.players import diff_html, read_sound
from voxadapt.reporting.records import PSEUDO, Records
from voxadapt.scoring.rows import GUARDS

TEMPLATES = Path(__file__).parent / "templates"


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
        "typeset": tables.typeset,
        "spaced": lambda text: str(text).replace("_", " "),
    }
    env.globals |= {"script_of": lambda name: inline(TEMPLATES / name), "MEASURES": tables.MEASURES}
    return env


def facts(record: Record) -> Record:
    """Return the numbers and words of a record, without lists and the ends of intervals."""
    return {
        key.removesuffix(".point"): value
        for key, value in flatten(record).items()
        if isinstance(value, str | int | float) and not key.endswith((".low", ".high", "schema"))
    }


# --- figures -----------------------------------------------------------------------------------

Drawing = dict[str, Markup]  # `wide` and `narrow`: a figure as SVG elements, the second for phones


def draw(figures_of: Mapping[str, Callable[[figures.Theme], Figure]]) -> dict[str, Drawing]:
    """Draw every figure twice: for wide and for narrow pages."""
    themes = {"wide": figures.LIGHT, "narrow": figures.NARROW}
    return {
        name: {
            width: Markup(figures.svg(make(theme), f"{name.replace(' ', '-')}-{width}"))
            for width, theme in themes.items()
        }
        for name, make in figures_of.items()
    }


# --- listening ---------------------------------------------------------------------------------


def make_cell(row: Record | None, candidate: str, metric: str) -> Record:
    """Make a clip of a page from a score row; without one it says that there is none.

    Returns:
        `candidate`, `place` (id of the sentence and number of the take, as everywhere), `diff`
        (what was heard against the text), `error` (capped), `sim`, `dur_ratio`, `flags`, `note`
        (why there is no clip), and of its sound `uri`, `mel` and `duration_s`, None without one.
    """
    found: Record = {"candidate": candidate, "uri": None, "mel": None, "duration_s": None}
    if row is None:
        return found | {"place": "", "error": None, "flags": (), "note": "no clip of this sentence"}
    if row["wav"] and (sound := read_sound(row["wav"])):
        found |= {"uri": sound.uri, "mel": sound.mel_uri, "duration_s": sound.duration_s}
    return found | {
        "place": f"{row['text_id']} · take {row['take'] + 1}",
        "diff": Markup(diff_html(row["text_norm"], row["hyp_norm"])),
        "error": tables.error_of(row, metric),
        "note": row["message"],
        **{key: row[key] for key in ("sim", "dur_ratio", "flags")},
    }


def sentence(
    text: str, cells: Sequence[Record], chosen: str | None, why: Sequence[str] = ()
) -> Record:
    """Put a sentence's clips together with what one scans, sorts and filters them by.

    Returns:
        `text`, `cells`, `why` it was singled out, the `error` of the chosen clip and of the
        Base's, the `change` between the two (None where one is missing or the Base is chosen),
        `num_flagged` clips and the seconds of the `longest`.
    """
    error_by = {cell["candidate"]: cell["error"] for cell in cells}
    error, base = error_by.get(chosen or ""), error_by.get("base")
    change = None
    if chosen != "base" and error is not None and base is not None:
        change = error - base
    return {
        "text": text,
        "cells": list(cells),
        "why": list(why),
        "error": error,
        "base_error": base,
        "change": change,
        "num_flagged": sum(bool(c["flags"]) for c in cells if c["candidate"] not in PSEUDO),
        "longest": max((c["duration_s"] or 0.0 for c in cells), default=0.0),
    }


def grid(
    rows: Mapping[str, Sequence[Record]],
    columns: Sequence[str],
    limit: int,
    metric: str,
    chosen: str | None = None,
    named_by: Iterable[str] = ("base",),
) -> list[Record]:
    """Lay out sentence x candidate: first take of the first sentences by hash of their text.

    The rows of `named_by` name the sentences; those of sets that guard have no recordings.
    """
    first: dict[str, dict[str, Record]] = {}
    for name in columns:
        listed = sorted(rows[name], key=lambda row: row["take"], reverse=True)
        first[name] = {row["text_norm"]: row for row in listed}
    texts = {
        row["text_norm"]: row["text"]
        for name in named_by
        for row in rows[name]
        if row.get("slice") not in GUARDS
    }
    listed = []
    for text in first_by_hash(texts, limit):
        cells = [make_cell(first[name].get(text), name, metric) for name in columns]
        listed.append(sentence(texts[text], cells, chosen))
    return listed


def worst_clips(
    rows: Mapping[str, Sequence[Record]], wanted: Mapping[str, int], metric: str
) -> list[Record]:
    """List the worst clips of some candidates, as many of each as asked for."""
    return [
        {"text": row["text"], "take": row["take"], "cell": make_cell(row, name, metric)}
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


def of_slice(
    summaries: Mapping[str, Record], names: Sequence[str], part: str, kind: str = "slices"
) -> dict[str, Record]:
    """Return each candidate's measures on a set of sentences; empty where none was scored."""
    found = {name: summaries[name].get(kind, {}).get(part) for name in names}
    return {name: measures for name, measures in found.items() if measures}


# --- corpus and provenance ---------------------------------------------------------------------


def audit_facts(audit: Record, clips: Sequence[Record]) -> Record:
    """Sum the audit of recordings up: clips, minutes and findings by rule."""
    return {
        "num_clips": len(clips),
        "minutes": sum(clip["duration_s"] or 0.0 for clip in clips) / 60,
        "splits": dict(Counter(clip.get("split") or "none" for clip in clips)),
        "rules": tables.findings_by_rule(clips),
        "corpus": [finding["message"] for finding in audit.get("corpus_warnings", [])],
        "consent": tables.consent_sentence(audit.get("consent"), len(clips)),
        "speakers": audit.get("speakers", []),
    }


def stamp(records: Records) -> list[tuple[str, str]]:
    """List what a reader of the first screen must know to quote the figures."""
    evaluator = records.selection["evaluator"]
    measured, expected = (
        sum(records.summaries[name][key] for name in records.names)
        for key in ("n_measured", "n_expected")
    )
    return [
        ("clips measured", f"{measured} of {expected}"),
        ("recogniser", evaluator["asr_id"]),
        ("normaliser", evaluator["norm_id"]),
        ("similarity", evaluator["sim_id"]),
    ]


def provenance(params: Params, records: Records, seeds: Mapping[str, int]) -> list[tuple[str, str]]:
    """List what shaped the result; arguments as in `shared_parts`.

    Nothing here is of the machine or of the moment, so that equal results give an equal page.
    `dvc.lock` holds the hash of the page, and so names the commit.
    """
    own, model = Substitutions.read(params.asr.substitutions), params.model
    pairs = ", ".join(f"{word} → {instead}" for word, instead in (own.words | own.letters).items())
    inputs = records.selection["inputs"].items()
    names = {"asr_id": "recogniser", "norm_id": "text normaliser", "sim_id": "similarity",
             "gen_sha": "generation settings"}  # fmt: skip
    evaluator = records.selection["evaluator"].items()
    return [
        ("commit", "the one whose dvc.lock lists this page"),
        ("parameters", f"profile {params.profile}; dvc.lock lists those of each stage"),
        ("data", _data_hash(records.root)),
        *([("read as", pairs)] if pairs else []),
        ("Base model", model.base + (f" @ {model.revision}" if model.revision else "")),
        ("candidates' rows", ", ".join(f"{name} {str(sha)[:12]}" for name, sha in inputs)),
        ("seeds", ", ".join(f"{name} {seed}" for name, seed in seeds.items())),
        *((names.get(key, key), str(value)) for key, value in evaluator),
        ("versions", "as constraints.txt of that commit pins them"),
    ]


def _data_hash(root: Path) -> str:
    """Return the hash that `data.dvc` records for the data folder."""
    try:
        pointer = yaml.safe_load((root / "data.dvc").read_text(encoding="utf-8"))
        return f"data.dvc md5 {pointer['outs'][0]['md5']}"
    except (OSError, yaml.YAMLError, KeyError, TypeError, IndexError):
        return "no data.dvc"
