"""Stage `report`: write the listening pages and the page that says what was chosen, and why."""

from collections.abc import Sequence
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.params import Params
from voxadapt.core.stage import StageResult, stage
from voxadapt.listening.pages import write_listening, write_votes
from voxadapt.listening.votes import VOTES_FILE
from voxadapt.pipeline.finished import check_finished, speaker_records
from voxadapt.reporting.speaker_page import write_report


@stage("report")
def run(params: Params) -> StageResult:
    """Write the listening pages and the report page from what the other stages wrote."""
    check_finished(speaker_records(params), params)
    listen(params)
    write_report(params)
    return StageResult(f"The report is {paths.REPORT}.", paths.REPORT)


def listen(
    params: Params,
    pairs: Sequence[tuple[str, str]] | None = None,
    num_sentences: int | None = None,
    out: Path = paths.LISTEN,
) -> StageResult:
    """Write the blind listening pages and their key.

    Pairs and number of sentences are the parameters' where they are not given.
    """
    key = write_listening(params, out=out, pairs=pairs, num_sentences=num_sentences)
    compared = ", ".join(f"{first} with {second}" for first, second in key.pairs)
    return StageResult(
        f"{out / 'ab.html'} compares {compared} on {key.split} sentences in "
        f"{len(key.pages['ab'].trials)} trials, {out / 'mos.html'} has "
        f"{len(key.pages['mos'].trials)} clips to rate. Send the pages, keep {out / 'key.json'}.",
        key,
    )


def votes(params: Params, files: Sequence[Path], key: Path) -> StageResult:
    """Read votes that listeners exported; show them in the report, where there is one."""
    summary = write_votes(files, key, params.select.confidence)
    lines = [entry["sentence"] for entry in summary["comparisons"]]
    lines.append(
        f"{summary['num_votes']} votes of {summary['num_listeners']} listeners: "
        f"{key.parent / VOTES_FILE}."
    )
    if key.parent == paths.LISTEN and paths.REPORT.is_file():
        write_report(params)
        lines.append(f"The report is {paths.REPORT}.")
    return StageResult("\n".join(lines), summary)
