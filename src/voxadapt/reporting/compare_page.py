"""The page of `voxadapt compare`: experiments, their pairs and gates, and what they sound like."""

from collections.abc import Callable, Mapping, Sequence

from voxadapt.core.files import first_by_hash
from voxadapt.core.records import Record
from voxadapt.reporting import components
from voxadapt.reporting.evaluate_page import MEASURES
from voxadapt.scoring.rows import ScoreRow

MAX_SENTENCES, NUM_OPEN = 8, 2


def build_page(
    record: Record,
    rows: Mapping[str, Sequence[ScoreRow]],
    clip: Callable[[str, ScoreRow], str],
    in_words: Callable[[object], str],
) -> str:
    """Build the page: the table, the pairs, the gates, and what some sentences sound like."""
    metric = record["decision"]["rule"]["error_metric"]
    texts = {row.text_norm: row.text for found in rows.values() for row in found}
    sentences = []
    for text in first_by_hash(texts, MAX_SENTENCES):
        cells = []
        for label, found in rows.items():
            row = min((row for row in found if row.text_norm == text), key=lambda row: row.take)
            values = row.model_dump(mode="json") | {"wav": clip(label, row)}
            cells.append(components.make_cell(values, label, metric))
        sentences.append(components.sentence(texts[text], cells, record["winner"]))
    template = components.environment().get_template("compare.html.j2")
    return template.render(
        record=record,
        decision=record["decision"],
        metric=metric,
        measures=MEASURES,
        shown=in_words,
        sentences=sentences,
        num_open=NUM_OPEN,
        provenance=_provenance(record),
    )


def _provenance(record: Record) -> list[tuple[str, str]]:
    """List what shaped the figures."""
    rule = record["decision"]["rule"]
    return [
        *record["scored_by"].items(),
        ("experiments", ", ".join(f"{item['name']} {(item['commit'] or 'files as they are')[:12]}"
                                  for item in record["experiments"])),
        ("rows", ", ".join(f"{name} {sha[:12]}"
                           for name, sha in record["decision"]["inputs"].items())),
        ("bootstrap", f"{rule['num_bootstrap']} resamples of sentences, seed {rule['seed']}, "
                      f"{100 * rule['confidence']:g} % intervals"),
        ("versions", ", ".join(f"{name} {found}" for name, found in record["versions"].items())),
    ]  # fmt: skip
