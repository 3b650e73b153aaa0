"""What the stages wrote, read once for the report pages."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.files import read_jsonl
from voxadapt.core.params import (
    LanguageParams,
    Params,
    epoch_number,
    in_stage2,
    language_scoring,
    language_section,
)
from voxadapt.core.paths import LANGUAGE, Corpus
from voxadapt.core.records import Files, Record

Log = list[dict[str, float | None]]
PSEUDO = ("real", "codec")  # scored like candidates: recordings, and their codec round trip
TITLE = "The report cannot be written."


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What the report of a speaker and that of a language both show.

    Attributes:
        root: Project folder; paths in rows are found from here.
        clips: Every raw row of the recordings with measurements and findings.
        planning: Which differences the sentences can show; None when it was not planned.
        summaries: Summary by candidate, pseudo-candidates included where they exist.
        rows: Score rows by candidate; `wav` is replaced by a path that can be opened.
    """

    root: Path
    names: tuple[str, ...]
    audit: Record
    clips: list[Record]
    codes: Record
    planning: Record | None
    selection: Record
    confirm: Record
    summaries: dict[str, Record]
    rows: dict[str, list[Record]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerRecords(Records):
    """Everything that the report of a speaker shows."""

    train: Record
    train_log: Log


def load_records(params: Params, root: str | Path = ".") -> SpeakerRecords:
    """Read what a speaker's report needs; raises `UserError` that names every missing file."""
    files = Files(Path(root))
    folders = {name: (paths.SCORES / name, f"score {name}") for name in params.candidates}
    folders |= {name: (paths.SPEAKER.reference / name, "codes") for name in PSEUDO}
    summaries, rows = _read_scores(files, folders)
    records = SpeakerRecords(
        root=files.root,
        names=params.candidates,
        **_read_corpus(files, paths.SPEAKER, "audit", "codes"),
        train=files.read(paths.TRAIN_METRICS, "train"),
        train_log=files.read(paths.TRAIN_LOG, "train", read_log, []),
        selection=files.read(paths.SELECTION, "select"),
        confirm=files.read(paths.CONFIRM, "confirm"),
        summaries=summaries,
        rows=rows,
    )
    problems = files.problems or _disagreements(params, records)
    raise_problems(problems, TITLE)
    return records


Scores = tuple[dict[str, Record], dict[str, list[Record]]]


def _read_corpus(files: Files, at: Corpus, audit: str, codes: str) -> Record:
    """Read what stages wrote of a corpus, given the names of those that audit and encode it."""
    return {
        "audit": files.read(at.audit_metrics, audit),
        "clips": files.read(at.clips, audit, read_jsonl, []),
        "codes": files.read(at.codes_metrics, codes),
        "planning": files.optional(at.planning, codes),
    }


def _read_scores(files: Files, folders: Mapping[str, tuple[Path, str]]) -> Scores:
    """Read summary and rows of candidates, given their folders and the stages that write them."""
    summaries, rows = {}, {}
    for name, (folder, stage) in folders.items():
        if name not in PSEUDO or (files.root / folder / "summary.json").is_file():
            summaries[name] = files.read(folder / "summary.json", stage)
        rows[name] = files.rows(folder, stage)
    return summaries, rows


Claim = tuple[Path, str, str, bool]  # of a file: what was expected and found, whether they agree


def _disagreements(params: Params, records: SpeakerRecords) -> list[Problem]:
    """Find records of different runs: other candidates, or another epoch confirmed."""
    selected = [candidate["name"] for candidate in records.selection["candidates"]]
    chosen, confirmed = records.selection["chosen"], records.confirm["chosen"]
    return _disagreeing(
        (paths.SELECTION, f"the candidates of params.yaml: {', '.join(params.candidates)}",
         ", ".join(selected), selected == list(params.candidates)),
        (paths.CONFIRM, f"a confirmation of {chosen}, which is chosen", f"one of {confirmed}",
         confirmed == chosen),
    )  # fmt: skip


def _disagreeing(*claims: Claim) -> list[Problem]:
    target = {path: "language_report" for path, *_ in claims if LANGUAGE.reports in path.parents}
    return [
        Problem(path.as_posix(), expected, found, f"Run `dvc repro {target.get(path, 'report')}`.")
        for path, expected, found, fine in claims
        if not fine
    ]


# --- a language --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageRecords(Records):
    """Everything that the report of a language shows; summaries and rows are in the new language.

    Attributes:
        texts: Figures of the text audit; `text_rows` are the accepted texts with their respelling.
        stage2: Figures of Stage 2's training; None when it was skipped, and `skipped` says why.
        choice1: The choice among Stage 1's epochs and the Base.
        decision: Whether Stage 2 is to run, with the numbers behind it.
        arms: Other answers to what must learn a language; None when none was tried.
    """

    texts: Record
    text_rows: list[Record]
    stage1: Record
    stage1_log: Log
    stage2: Record | None
    stage2_log: Log
    skipped: Record | None
    choice1: Record
    decision: Record
    arms: Record | None
    source_summaries: dict[str, Record]
    source_rows: dict[str, list[Record]]

    def candidate(self, name: str) -> Record:
        """Return a candidate's entry of the choice of its own stage."""
        for record in (self.choice1, self.selection):
            for entry in record["candidates"]:
                if entry["name"] == name:
                    return dict(entry)
        raise KeyError(name)


def stage_and_epoch(name: str) -> tuple[int, int]:
    """Return a candidate's stage and its epoch there; the Base is epoch 0 of Stage 1."""
    return (2 if in_stage2(name) else 1), epoch_number(name)


def language_scores(name: str, part: str = "target") -> Path:
    """Return the folder of a candidate's scores in the new language (`target`) or in `source`."""
    stage, _ = stage_and_epoch(name)
    folder = paths.LANGUAGE_STAGE2_SCORES if stage == 2 else paths.LANGUAGE_SCORES
    return folder / name / part


def scores_folder(corpus: Corpus, name: str) -> Path:
    """Return the folder of a candidate's scores in what it is adapted to."""
    return language_scores(name) if corpus == LANGUAGE else paths.SCORES / name


def candidate_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort candidates: base, the epochs of Stage 1, those of Stage 2; each once."""
    return tuple(sorted(set(names), key=stage_and_epoch))


def load_language_records(params: Params, root: str | Path = ".") -> LanguageRecords:
    """Read what a language's report needs; raises `UserError` that names every missing file."""
    language = language_section(params)
    files = Files(Path(root))
    choice1 = files.read(paths.LANGUAGE_CHOICE1, "language decide")
    selection = files.read(paths.LANGUAGE_SELECTION, "language confirm")
    names = candidate_order(
        entry["name"] for record in (choice1, selection) for entry in record.get("candidates", [])
    )
    stages = {name: language_scoring(name) for name in names or language.candidates}
    target, source = (
        {name: (language_scores(name, part), stages[name]) for name in stages}
        for part in ("target", "source")
    )
    target |= {name: (LANGUAGE.reference / name, "language data") for name in PSEUDO}
    (summaries, rows), (source_summaries, source_rows) = (
        _read_scores(files, folders) for folders in (target, source)
    )
    skipped = files.optional(paths.LANGUAGE_STAGE2 / "skipped.json", "language stage2")
    stage2, log2 = None, None
    if skipped is None:
        stage2 = files.read(paths.LANGUAGE_STAGE2_METRICS, "language stage2")
    if not skipped:
        log2 = files.optional(paths.LANGUAGE_STAGE2_LOG, "language stage2", read_log)
    records = LanguageRecords(
        root=files.root,
        names=names,
        texts=files.read(paths.LANGUAGE_TEXT_METRICS, "language data"),
        text_rows=files.read(paths.LANGUAGE_TEXTS, "language data", read_jsonl, []),
        **_read_corpus(files, LANGUAGE, "language data", "language data"),
        stage1=files.read(paths.LANGUAGE_STAGE1_METRICS, "language stage1"),
        stage1_log=files.optional(paths.LANGUAGE_STAGE1_LOG, "language stage1", read_log) or [],
        stage2=stage2,
        stage2_log=log2 or [],
        skipped=skipped,
        choice1=choice1,
        decision=files.read(paths.LANGUAGE_DECISION, "language decide"),
        selection=selection,
        confirm=files.read(paths.LANGUAGE_CONFIRM, "language confirm"),
        arms=files.optional(paths.LANGUAGE_ARMS_TABLE, "compare"),
        summaries=summaries,
        rows=rows,
        source_summaries=source_summaries,
        source_rows=source_rows,
    )
    problems = files.problems or _language_disagreements(language, records)
    raise_problems(problems, TITLE)
    return records


def _language_disagreements(language: LanguageParams, records: LanguageRecords) -> list[Problem]:
    """Find records of different runs: other candidates, another start, or another confirmed."""
    listed = {entry["name"] for entry in records.selection["candidates"]}
    ranked = [entry["name"] for entry in records.choice1["candidates"]]
    first = records.choice1["chosen"]
    chosen = records.selection["chosen"]
    return _disagreeing(
        (paths.LANGUAGE_CHOICE1, f"the candidates of params.yaml: {', '.join(language.candidates)}",
         ", ".join(ranked), set(ranked) == set(language.candidates)),
        (paths.LANGUAGE_DECISION, f"a decision about {first}, which Stage 1 chose",
         f"one about {records.decision['stage1']['candidate']}",
         records.decision["stage1"]["candidate"] == first),
        (paths.LANGUAGE_STAGE2, f"what the decision says: {records.decision['acts']} Stage 2",
         "skip" if records.skipped else "run",
         records.decision["acts"] == ("skip" if records.skipped else "run")),
        (paths.LANGUAGE_SELECTION, f"{first}, which Stage 1 chose, among the candidates",
         ", ".join(sorted(listed)), first in listed),
        (paths.LANGUAGE_CONFIRM, f"a confirmation of {chosen}, which is chosen",
         f"one of {records.confirm['chosen']}", records.confirm["chosen"] == chosen),
    )  # fmt: skip


# --- files -------------------------------------------------------------------------------------


def read_log(path: str | Path) -> Log:
    """Read a CSV of numbers; an empty cell is None, a word is dropped."""
    with open(path, encoding="utf-8", newline="") as stream:
        return [{key: _number(cell) for key, cell in row.items()} for row in csv.DictReader(stream)]


def _number(cell: str | None) -> float | None:
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if json.dumps(value) not in ("NaN", "Infinity", "-Infinity") else None
