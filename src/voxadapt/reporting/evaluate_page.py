"""The page of `voxadapt evaluate`: clips of any systems, measured and heard side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from voxadapt.core.files import write_atomic
from voxadapt.core.records import Record
from voxadapt.reporting import components
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
            measures=MEASURES,
            digits=components.of_slice(summary["systems"], names, "digits"),
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


def _sentences(by_system: Mapping[str, Sequence[Record]], metric: str) -> list[Record]:
    """Lay out sentence x system: first take of the first sentences by hash of their text."""
    listed = components.grid(by_system, list(by_system), MAX_SENTENCES, metric, None, by_system)
    for item in listed:
        item["cells"] = [cell for cell in item["cells"] if cell["place"]]  # by whom it is spoken
        item["error"] = max(cell["error"] for cell in item["cells"])
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
