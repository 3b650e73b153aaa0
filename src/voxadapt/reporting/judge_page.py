"""The page of `voxadapt judge`: what the recogniser can tell, and what it cannot."""

from voxadapt.core.records import Record
from voxadapt.reporting import components

KINDS = {
    "dropped": "a word dropped",
    "doubled": "a word said twice",
    "replaced": "a word replaced by the nearest in spelling",
    "ending": "the end of a word cut",
    "swapped": "a sound swapped for another of its class",
}
SOURCES = {"real": "recordings", "codec": "recordings, coded", "spoken": "spoken wrong on purpose"}


def build_page(record: Record, confidence: float) -> str:
    """Build the page of `recogniser.json` as `voxadapt judge` writes it."""
    template = components.environment().get_template("judge.html.j2")
    heard = {name: record[name] for name in ("real", "codec")}
    kinds = [
        (KINDS[kind], SOURCES[source], found)
        for kind in KINDS
        for source in SOURCES
        if source in record and (found := record[source]["kinds"].get(kind))
    ]
    classes = sorted({name for found in heard.values() for name in found["classes"]})
    return template.render(
        record=record,
        sources=SOURCES,
        heard=heard,
        classes=classes,
        kinds=kinds,
        spoken=record.get("spoken"),
        level=round(100 * confidence),
    )
