"""The report of a speaker: one page that says what was chosen, why, and how sure that is."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.files import write_atomic
from voxadapt.core.params import Params
from voxadapt.core.records import Record
from voxadapt.reporting import components, figures, tables
from voxadapt.reporting.components import point_of
from voxadapt.reporting.records import PSEUDO, SpeakerRecords, load_records
from voxadapt.reporting.votes import votes_section
from voxadapt.selection import wording

KEEP = "Keep the Base: do not fine-tune."


def build_page(params: Params, root: str | Path = ".") -> str:
    """Build the report's HTML.

    Raises:
        UserError: Naming each missing file and the stage that writes it.
    """
    records = load_records(params, root)
    selection = records.selection
    seeds = {
        "training": params.train.seed,
        "synthesis": params.score.seed,
        "bootstrap": params.select.seed,
    }
    shared = components.shared_parts(params, records, seeds)
    template = components.environment().get_template("report.html.j2")
    return template.render(
        shared,
        headline=wording.headline(records.confirm, tables.title(selection["chosen"]).lower(), KEEP),
        lede=lede(params, records),
        listed={candidate["name"]: candidate for candidate in selection["candidates"]},
        marks=_similarity_marks(selection),
        figures=_figures(records),
        speakers=selection.get("speakers", []),
        votes=votes_section(records),
        train=components.facts(records.train),
        train_epochs=tables.train_rows(records.train),
    )


def write_report(params: Params, root: str | Path = ".") -> Path:
    """Build the page and write it to `reports/index.html`, whole or not at all."""
    path = Path(root) / paths.REPORT
    write_atomic(path, build_page(params, root))
    return path


# --- the decision in words ---------------------------------------------------------------------


def lede(params: Params, records: SpeakerRecords) -> str:
    """Say in one sentence what the choice gains, on the sentences that no decision has seen."""
    selection, confirm = records.selection, records.confirm
    if not components.measurable(selection):
        return str(selection["reason"])
    name = tables.title(selection["chosen"]).lower()
    several = len(selection.get("speakers", ()))
    voice = f"its {several} speakers" if several > 1 else params.train.speaker_name
    count = f"{confirm['num_texts']} unseen sentences"
    if selection["keep_base"]:
        return (
            f"No epoch passed every gate and is shown to sound more like {voice} than the "
            f"zero-shot Base; on {count} the Base scores "
            f"{point_of(confirm, 'sim', 'base')} in similarity and "
            f"{point_of(confirm, 'wer', 'base')} in word error."
        )
    sim, metric = confirm["measures"]["sim"], confirm["error_metric"]
    level = round(100 * records.selection["rule"]["confidence"])
    return (
        f"On {count}, {name} {wording.likeness(confirm, voice)}: similarity "
        f"{point_of(confirm, 'sim', 'chosen')} against {point_of(confirm, 'sim', 'base')}, a "
        f"difference of {tables.number(sim['difference']['point'], 3, sign=True)} "
        f"({level} % interval {tables.number(sim['difference']['low'], 3, sign=True)} to "
        f"{tables.number(sim['difference']['high'], 3, sign=True)}). It "
        f"{wording.clarity(confirm)}: {metric.upper()} "
        f"{point_of(confirm, metric, 'chosen')} against {point_of(confirm, metric, 'base')}."
    )


# --- figures -----------------------------------------------------------------------------------


def _figures(records: SpeakerRecords) -> dict[str, components.Drawing]:
    selection = records.selection
    metric = selection["rule"]["error_metric"]
    other = "cer" if metric == "wer" else "wer"
    matrices = _confusions(selection)
    return components.draw(
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


def _similarity_marks(selection: Record) -> list[Record]:
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
    return components.on_a_line(marks, partial(tables.number, digits=2))
