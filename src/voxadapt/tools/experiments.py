"""Experiments read side by side: what they chose is held against the Base and one another.

The rule that chooses an epoch chooses among the experiments' own choices as well.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.errors import UserError, raise_problems
from voxadapt.core.files import write_atomic, write_json
from voxadapt.core.params import Params, SelectParams, epoch_number, in_stage2, language_section
from voxadapt.core.problems import problem
from voxadapt.core.provenance import fingerprint, versions
from voxadapt.core.records import Record
from voxadapt.core.stage import StageResult
from voxadapt.reporting import tables
from voxadapt.reporting.compare_page import build_page
from voxadapt.scoring.rows import ScoreRow, evaluator_id, rows_sha
from voxadapt.scoring.wording import Sentences
from voxadapt.selection import select as selection
from voxadapt.selection.comparison import compare_systems
from voxadapt.tools import experiment_files as files
from voxadapt.tools.experiment_files import BASE, Experiment, Layout

SENTENCES = Sentences(Path(__file__).parent)
SCHEMA = "voxadapt-experiments/1"
TABLE, PAGE = paths.REPORTS / "compare.json", paths.REPORTS / "compare.html"
SHAPE_SCORES = ("asr", "data", "score", "split", "language.asr_language", "language.source",
                "language.split", "language.text", "language.audio", "codes")  # fmt: skip
#: What the table shows of a system.
SHOWN = ("wer", "cer", "sim", "duration_ratio", "failure_rate", "primary", "eligible", "p_best")


@dataclass(frozen=True)
class System:
    """A candidate of an experiment that takes part in the comparison."""

    label: str
    experiment: Experiment
    candidate: str

    @property
    def rows(self) -> list[ScoreRow]:
        """Its rows."""
        return self.experiment.rows[self.candidate]

    @property
    def order(self) -> tuple[bool, int, bool, str]:
        """Less training first; then what is in the workspace; then by name."""
        elsewhere = self.experiment.name != files.WORKSPACE
        return in_stage2(self.candidate), epoch_number(self.candidate), elsewhere, self.label


def compare(
    params: Params, names: Sequence[str] | None = None, *,
    candidates: Sequence[str] = (files.CHOSEN,), language: bool = False,
) -> StageResult:  # fmt: skip
    """Compare experiments; write `reports/compare.json` and `reports/compare.html`.

    The rule is that of the present parameters. `names` are experiments, commits or `workspace`;
    None stands for the workspace and every experiment of the present commit. Of each, `candidates`
    takes part: `chosen`, `all`, or some by name. Two at least have to be comparable.
    """
    rule = language_section(params).select if language else params.select
    layout = files.LANGUAGE_LAYOUT if language else files.SPEAKER_LAYOUT
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
        found = files.read_experiments(
            files.list_experiments(names), layout, candidates, Path(scratch), opened
        )
        whole = [item for item in found if not item.missing]
        _refuse_mixed(whole)
        systems, twins = _systems(whole)
        if not systems or len(whole) < 2:
            raise _nothing_to_compare(found, bool(systems))
        of_label = {BASE: whole[0]} | {system.label: system.experiment for system in systems}
        rows = {BASE: whole[0].rows[BASE]} | {system.label: system.rows for system in systems}
        record = _compared(found, systems, twins, rows, rule, layout)

        def clip(label: str, row: ScoreRow) -> str:
            return _clip(of_label[label], row, Path(scratch))

        html = build_page(record, rows, clip, files.value_in_words)
    write_json(TABLE, record)
    write_atomic(PAGE, html)
    lines = [record["reason"], record["disclosure"], *record["notes"]]
    lines += [f"{item['name']} is missing: {item['missing']}." for item in record["experiments"]
              if item["missing"]]  # fmt: skip
    return StageResult("\n".join([*lines, f"The page is {PAGE}."]), record)


def _refuse_mixed(found: Sequence[Experiment]) -> None:
    """Refuse experiments that were not scored alike, with a problem for each thing that differs."""

    def listed(values: Sequence[tuple[object, list[str]]], between: str) -> str:
        told = [f"{files.value_in_words(value)} ({', '.join(who)})" for value, who in values]
        return between.join(told)

    shaped = [
        f"{key}: {listed(values, ', ')}"
        for key, values in _grouped({item.name: item.params for item in found}).items()
        if key.startswith(tuple(f"{name}." for name in SHAPE_SCORES)) or key in SHAPE_SCORES
    ]
    hint = f" Parameters that differ and may be why: {'; '.join(shaped)}." if shaped else ""
    problems = [
        problem("tools.scored_otherwise", name, hint=hint, found=listed(values, "; "))
        for name, values in _grouped({item.name: _scored_by(item) for item in found}).items()
    ]
    raise_problems(problems, "These experiments cannot be compared.")


def _scored_by(item: Experiment) -> Record:
    """Say what an experiment's rows were measured with and on."""
    rows = [row for found in item.rows.values() for row in found]
    texts = sorted({(row.text_id, row.text) for row in rows})
    seeds = sorted({(row.text_id, row.take, row.seed) for row in rows})
    try:
        tools = evaluator_id(rows)
    except UserError as error:
        raise UserError(error.problems, f"The scores of {item.name} are mixed.") from None
    names = {"norm_id": "text normaliser", "asr_id": "recogniser", "sim_id": "similarity",
             "gen_sha": "generation"}  # fmt: skip
    return {names[key]: value for key, value in tools.items()} | {
        "split": ", ".join(sorted({row.split for row in rows})),
        "language": ", ".join(sorted({row.lang for row in rows})),
        "sentences": f"{len(texts)}, sha {fingerprint(texts, 8)}",
        "takes": str(len({row.take for row in rows})),
        "seeds": f"sha {fingerprint(seeds, 8)}",
    }


def _grouped(tables: Mapping[str, Record]) -> dict[str, list[tuple[object, list[str]]]]:
    """Return the keys whose values differ between named tables, each value with those names."""
    found = {}
    for key in sorted({key for table in tables.values() for key in table}):
        values: dict[str, tuple[object, list[str]]] = {}
        for name, table in tables.items():
            value = files.plain_number(table.get(key))
            values.setdefault(fingerprint(value), (value, []))[1].append(name)
        if len(values) > 1:
            found[key] = list(values.values())
    return found


def _systems(found: Sequence[Experiment]) -> tuple[list[System], dict[str, str]]:
    """Return what competes, in the rule's order, and which experiments repeat another's scores."""
    listed = [System(_label(item, name), item, name)
              for item in found for name in item.rows if name != BASE]  # fmt: skip
    first: dict[str, System] = {}
    twins = {}
    for system in sorted(listed, key=lambda system: system.order):
        rows = [row.model_copy(update={"candidate": "", "wav": ""}) for row in system.rows]
        same = first.setdefault(rows_sha(rows), system)
        if same is not system:
            twins[system.label] = same.label
    return list(first.values()), twins


def _label(item: Experiment, candidate: str) -> str:
    """Name a system: the experiment, and its candidate where several of them take part."""
    several = len([name for name in item.rows if name != BASE]) > 1
    name = f"experiment {item.name}" if item.name == BASE else item.name
    return f"{name} ({tables.title(candidate).lower()})" if several else name


def _nothing_to_compare(found: Sequence[Experiment], any_system: bool) -> UserError:
    """Say what is missing for a comparison."""
    problems = [
        problem("tools.no_scores", item.name, found=item.missing[0], fix=item.missing[1])
        for item in found
        if item.missing
    ]
    kind = "fewer_experiments" if any_system or len(found) < 2 else "kept_bases"
    names = ", ".join(item.name for item in found)
    fewer = problem(f"tools.{kind}", "experiments", found=names)
    return UserError(problems or fewer, "There is nothing to compare.")


def _compared(
    found: Sequence[Experiment], systems: Sequence[System], twins: Mapping[str, str],
    rows: Mapping[str, Sequence[ScoreRow]], rule: SelectParams, layout: Layout,
) -> Record:  # fmt: skip
    """Choose among the systems by the rule for epochs, and hold all pairs against each other."""
    whole = [item for item in found if not item.missing]
    # The rule knows the Base and numbered candidates: the systems are numbered in its order.
    labels = {f"epoch-{n}": system.label for n, system in enumerate(systems, start=1)}
    numbered = {BASE: rows[BASE]} | {
        alias: [row.model_copy(update={"candidate": alias}) for row in rows[label]]
        for alias, label in labels.items()
    }
    scale = files.read_json_of(whole[0].read, layout.corpus.scale)
    what = "take any of these experiments"
    made = selection.select(numbered, rule, what=what, scale=scale, setting=None)
    decision: Record = {key: _renamed(value, labels) for key, value in made.items()}
    power = decision["power"]
    power["text"] = power["text"].replace("two epochs", "two experiments")
    decision["inputs"] = {name: rows_sha(own) for name, own in rows.items()}
    floor = None if scale is None else scale["floor"]["point"]
    measured = any(row.sim is not None for row in rows[BASE])
    comparison = compare_systems(rows, rule, floor=floor, with_similarity=measured)
    winner = next((item for item in systems if item.label == decision["chosen"]), None)
    confirm = None
    if winner is not None and (winner.experiment.confirm or {}).get("chosen") == winner.candidate:
        confirm = winner.experiment.confirm
    differing = list(_grouped({item.name: item.params for item in found}))
    looked_at = frozenset[str]().union(*(item.looked_at for item in whole))
    return {
        "schema": SCHEMA,
        "path": "language" if layout is files.LANGUAGE_LAYOUT else "speaker",
        "winner": decision["chosen"],
        "winner_candidate": BASE if winner is None else winner.candidate,
        "reason": decision["reason"],
        "disclosure": SENTENCES.say(
            "disclosure", len(looked_at), len(whole), winner is not None, confirm is not None
        ),
        "notes": _notes(whole, systems, twins, decision)
        + _not_shown(decision, comparison or {"pairs": []}),
        "parameters": differing,
        "experiments": [_row(item, systems, twins, decision, differing) for item in found],
        "decision": decision,
        "comparison": comparison,
        "confirm": confirm,
        "scored_by": _scored_by(whole[0]),
        "versions": versions(),
    }


def _row(
    item: Experiment, systems: Sequence[System], twins: Mapping[str, str], decision: Record,
    differing: Sequence[str],
) -> Record:  # fmt: skip
    """Describe one experiment: what differs in its parameters, what it chose, what became of it."""
    own = item.decision or {}
    of_label = {found["name"]: found for found in decision["candidates"]}
    forgotten = own.get("forgetting", {}).get("candidates", {})
    return {
        "name": item.name,
        "commit": item.commit,
        "parameters": {key: files.plain_number(item.params.get(key)) for key in differing},
        "missing": ". ".join(item.missing).rstrip(".") if item.missing else "",
        "lacking": list(item.lacking),
        "own_choice": own.get("chosen"),
        "repeats": {
            label: twins[label]
            for name in item.rows
            if name != BASE and (label := _label(item, name)) in twins
        },
        "systems": [
            {"label": system.label, "candidate": system.candidate}
            | {key: of_label[system.label][key] for key in SHOWN}
            | {"source_language": forgotten.get(system.candidate, {}).get("verdict")}
            for system in systems
            if system.experiment is item
        ],
    }


def _notes(
    whole: Sequence[Experiment], systems: Sequence[System], twins: Mapping[str, str],
    decision: Record,
) -> list[str]:  # fmt: skip
    """Say what a reader of the table must know besides."""
    notes = []
    bases: dict[str, list[str]] = {}
    for item in whole:
        bases.setdefault(item.rows[BASE][0].checkpoint_sha, []).append(item.name)
    if len(bases) > 1:
        notes.append(SENTENCES.say("several_bases", list(bases.values()), whole[0].name))
    keep = [item.name for item in whole if (item.decision or {})["chosen"] == BASE]
    if keep:
        notes.append(f"By its own selection the Base is kept: {', '.join(keep)}.")
    notes += [f"{label} has the scores of {same}, clip for clip." for label, same in twins.items()]
    tied = [system.candidate for system in systems if system.label in decision["tied"]]
    return notes + [SENTENCES.say("tied")] * (len(set(tied)) < len(tied))


def _not_shown(decision: Record, comparison: Record) -> list[str]:
    """Name those that the winner is chosen over without being shown to be better."""
    winner = decision["chosen"]
    key = "sim" if decision["rule"]["primary"] == "similarity" else "error"
    eligible = {item["name"] for item in decision["candidates"] if item["eligible"]}
    others = [
        "the Base" if other == BASE else other
        for pair in comparison["pairs"]
        if winner in (pair["first"], pair["second"])
        and pair[key]["better"] != winner
        and (other := pair["second"] if pair["first"] == winner else pair["first"]) in eligible
    ]
    measure = "similarity" if key == "sim" else decision["rule"]["error_metric"].upper()
    return [SENTENCES.say("not_shown", measure, others)] if others else []


def _renamed(value: object, labels: Mapping[str, str]) -> object:
    """Put the systems' names where the rule has numbered candidates."""
    if isinstance(value, dict):
        return {_renamed(key, labels): _renamed(item, labels) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, labels) for item in value]
    if isinstance(value, str):
        return re.sub(r"\bepoch-\d+\b", lambda match: labels.get(match[0], match[0]), value)
    return value


def _clip(item: Experiment, row: ScoreRow, scratch: Path) -> str:
    """Copy a clip out of an experiment; return its path, or nothing where it cannot be had."""
    if not row.wav or row.status != "ok":
        return ""
    path = scratch / f"{fingerprint([item.name, row.wav])}{Path(row.wav).suffix}"
    try:
        path.write_bytes(item.read(Path(row.wav).as_posix()))
    except OSError:
        return ""
    return str(path)
