"""The report of a speaker: one page that says what was chosen, why, and how sure that is."""

from functools import partial
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.files import write_atomic
from voxadapt.core.params import Params
from voxadapt.core.records import Record
from voxadapt.reporting import components, decision, figures, tables
from voxadapt.reporting.records import PSEUDO, SpeakerRecords, load_records
from voxadapt.reporting.run_page import write_run_page
from voxadapt.reporting.votes import votes_section
from voxadapt.selection import wording

KEEP = "Keep the Base: do not fine-tune."


def build_page(params: Params, root: str | Path = ".") -> str:
    """Build the report's HTML."""
    records = load_records(params, root)
    selection = records.selection
    seeds = {
        "training": params.train.seed,
        "synthesis": params.score.seed,
        "bootstrap": params.select.seed,
    }
    chosen, speakers = selection["chosen"], selection.get("speakers", [])
    name = tables.title(chosen).lower()
    voice = f"its {len(speakers)} speakers" if len(speakers) > 1 else params.train.speaker_name
    voice = speakers[0]["name"] if len(speakers) == 1 else voice
    commands = f"voxadapt say --candidate {chosen}", "voxadapt export --output my-voice"
    epochs = {"candidates": params.num_epochs}
    shared = decision.shared_parts(params, records, seeds, selection, name, voice, epochs, commands)
    template = components.environment().get_template("report.html.j2")
    return template.render(
        shared,
        headline=wording.headline(records.confirm, name, KEEP),
        figures=components.draw({"curves": partial(_curves, records)}),
        adapter=records.train.get("lora"),
        prompts=records.summaries["base"].get("base_prompt", {}),
        speakers=speakers,
        confusions=_confusions(selection),
        votes=votes_section(records),
        train=components.facts(records.train),
        train_epochs=tables.train_rows(records.train),
    )


def write_report(params: Params, root: str | Path = ".") -> Path:
    """Build the page and write it to `reports/index.html`, whole or not at all."""
    path = Path(root) / paths.REPORT
    write_atomic(path, build_page(params, root))
    write_run_page(params, path.with_name("run.html"), root)
    return path


def _curves(records: SpeakerRecords, theme: figures.Theme) -> figures.Plot:
    """Draw error, similarity and held-out loss of every candidate on one axis."""
    selection, chosen = records.selection, records.selection["chosen"]
    listed = selection["candidates"]
    losses = {f"epoch-{e['epoch']}": e["heldout"].get("loss") for e in records.train["epochs"]}
    losses["base"] = next((row["heldout_loss"] for row in records.train_log
                           if row.get("epoch") == 0 and "heldout_loss" in row), None)  # fmt: skip
    loss = figures.Panel("held-out loss", {"": {n: {"point": v} for n, v in losses.items()}})
    failed = [c["name"] for c in listed if not c["eligible"]]
    panels = [*figures.panels_of(selection), loss]
    return figures.curves(panels, [c["name"] for c in listed], chosen, failed, theme)


def _confusions(selection: Record) -> dict[str, Record]:
    """Return who sounds like whom by title: recordings, the same coded, Base and chosen."""
    if not selection.get("speakers"):
        return {}
    names = dict.fromkeys(["base", selection["chosen"]])
    found = {c["name"]: c["confusion"] for c in selection["candidates"]}
    found |= selection["recordings"]
    return {tables.title(name): found[name] for name in (*PSEUDO, *names) if name in found}
