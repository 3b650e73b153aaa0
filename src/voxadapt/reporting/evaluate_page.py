"""The page of `voxadapt evaluate`: clips of any systems, measured and heard side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from voxadapt.core.files import first_by_hash, write_atomic
from voxadapt.core.records import Record
from voxadapt.reporting import components, tables
from voxadapt.scoring.rows import ScoreRow

MAX_SENTENCES = 12
NUM_OPEN = 3
NUM_WORST = 6  # of each system, as long as there are few
MAX_WORST = 24
MAX_MISSING = 20
MEASURES = {"error": ("", True), "sim": ("similarity", False), "failure_rate": ("failures", True)}


def build_page(summary: Record, rows: Sequence[ScoreRow], root: Path) -> str:
    """Build the components."""
    metric = summary["error_metric"]
    names = list(summary["systems"])
    by_system: dict[str, list[Record]] = {name: [] for name in names}
    for row in rows:
        values = row.model_dump(mode="json")
        values["wav"] = str(root / row.wav) if row.wav and row.status == "ok" else ""
        by_system[row.candidate].append(values)
    worst = min(NUM_WORST, max(1, MAX_WORST // len(names)))
    return (
        components.environment()
        .get_template("evaluate.html.j2")
        .render(
            summary=summary,
            metric=metric,
            names=names,
            headline=_headline(summary),
            pairs=_pairs(summary),
            digits=components.digits(summary["systems"], names),
            sentences=_sentences(by_system, metric),
            num_open=NUM_OPEN,
            worst=components.worst_clips(by_system, dict.fromkeys(names, worst), metric),
            flag_counts=components.flag_counts(summary["systems"], names),
            missing=summary["missing"][:MAX_MISSING],
            num_more_missing=max(0, len(summary["missing"]) - MAX_MISSING),
            provenance=_provenance(summary),
        )
    )


def write_page(path: Path, summary: Record, rows: Sequence[ScoreRow], root: Path) -> Path:
    """Build the page and write it, whole or not at all."""
    write_atomic(path, build_page(summary, rows, root))
    return path


def _headline(summary: Record) -> str:
    """Say in few words what was measured."""
    systems, metric = summary["systems"], summary["error_metric"]
    if len(systems) > 1:
        return f"{len(systems)} systems, {summary['n_expected']} clips"
    [(name, found)] = systems.items()
    return f"{name}: {metric.upper()} {tables.percent(found[metric]['point'])}"


def _pairs(summary: Record) -> list[Record]:
    """Lay the pairs out as rows of a table, with intervals that hold for all of them at once."""
    found = []
    for pair in (summary["comparison"] or {"pairs": []})["pairs"]:
        for key, (label, share) in MEASURES.items():
            if key not in pair:
                continue
            measure = pair[key]
            found.append(
                {
                    "first": pair["first"],
                    "second": pair["second"],
                    "measure": label or summary["error_metric"].upper(),
                    "share": share,
                    "better": measure["better"],
                    "difference": {
                        "point": measure["difference"]["point"],
                        "low": measure["simultaneous_low"],
                        "high": measure["simultaneous_high"],
                    },
                }
            )
    return found


def _sentences(by_system: Mapping[str, Sequence[Record]], metric: str) -> list[Record]:
    """Lay out sentence x system: first take of the first sentences by hash of their text."""
    first: dict[str, dict[str, Record]] = {}
    texts: dict[str, str] = {}
    for name, rows in by_system.items():
        first[name] = {}
        for row in sorted(rows, key=lambda row: row["take"], reverse=True):
            first[name][row["text_norm"]] = row
            texts[row["text_norm"]] = row["text"]
    listed = []
    for text in first_by_hash(texts, MAX_SENTENCES):
        spoken = [name for name in by_system if text in first[name]]
        cells = [components.make_cell(first[name][text], name, metric) for name in spoken]
        item = components.sentence(texts[text], cells, None)
        errors = [tables.error_of(first[name][text], metric) for name in spoken]
        listed.append(item | {"error": max(errors)})
    return listed


def _provenance(summary: Record) -> list[tuple[str, str]]:
    """List what shaped the figures."""
    first = next(iter(summary["systems"].values()))
    evaluator = summary["evaluator"]
    listed = [
        ("manifest", f"{summary['manifest']['name']}, sha256 {summary['manifest']['sha256'][:16]}"),
        ("recogniser", evaluator["asr_id"]),
        ("text normaliser", evaluator["norm_id"]),
        ("similarity", evaluator["sim_id"]),
        ("rows", ", ".join(f"{name} {sha[:12]}" for name, sha in summary["inputs"].items())),
        ("bootstrap", f"{first['num_bootstrap']} resamples of texts, seed "
                      f"{first['bootstrap_seed']}, {100 * first['confidence']:g} % intervals"),
        ("versions", ", ".join(f"{name} {found}" for name, found in summary["versions"].items())),
    ]  # fmt: skip
    return listed
