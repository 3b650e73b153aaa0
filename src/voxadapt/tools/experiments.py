"""Sweeps: DVC experiments read side by side, without touching the workspace.

Every experiment is a commit with a lock of its outputs. Its scores, its decision and its parameters
are read from there and from DVC's cache; what the experiments chose is then held against the Base
and against each other by the rule that chooses an epoch.

An experiment that failed, or has not run, still has a lock: that of the commit it started from.
Reading it would show the baseline's scores under the experiment's parameters, so that such an
experiment stays in the table as missing.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from voxadapt.core import paths
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import first_by_hash, write_atomic, write_json
from voxadapt.core.params import Params, SelectParams, epoch_number, in_stage2
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint, versions
from voxadapt.pipeline.stages import StageResult
from voxadapt.reporting import components, tables
from voxadapt.reporting.evaluate_page import MEASURES
from voxadapt.reporting.records import flatten
from voxadapt.scoring.rows import ROWS_FILE, ScoreRow, evaluator_id, read_scores, rows_sha
from voxadapt.selection import select as selection
from voxadapt.selection.comparison import compare_systems
from voxadapt.selection.pairing import BASE

SCHEMA = "voxadapt-experiments/1"
WORKSPACE = "workspace"
TABLE, PAGE = paths.REPORTS / "compare.json", paths.REPORTS / "compare.html"
CHOSEN, EVERY = "chosen", "all"  # what --candidates may say besides a candidate's name
MAX_SENTENCES, NUM_OPEN = 8, 2
SHAPE_SCORES = ("asr", "data", "score", "split", "language.asr_language", "language.source",
                "language.split", "language.text", "language.audio", "codes")  # fmt: skip
NOT_DONE = {
    "Failed": ("it failed", "See `dvc queue logs {}`."),
    "Queued": ("it has not run yet", "Run `dvc exp run --run-all`."),
    "Running": ("it is still running", "Wait for it: `dvc queue status`."),
}
MEASURES_SHOWN = ("wer", "cer", "sim", "duration_ratio", "failure_rate", "primary")


@dataclass(frozen=True)
class Layout:
    """Where one path of the pipeline keeps what is compared.

    Attributes:
        scores: Folders of candidates' scores; those of Stage 2 lie in a folder of their own.
        part: Folder inside a candidate's, or an empty string.
        choices: Records of decisions; the last one is the experiment's.
        confirm: Its confirmation on unseen sentences.
        reference: Scored recordings and the similarity scale.
        candidates: Parameter that lists what is scored.
        stages: Stages whose parameters must be those that the lock records.
    """

    scores: tuple[Path, ...]
    part: str
    choices: tuple[Path, ...]
    confirm: Path
    reference: Path
    candidates: str
    stages: tuple[str, ...]

    def rows_of(self, candidate: str) -> str:
        """Return the path of a candidate's rows."""
        folder = self.scores[-1 if in_stage2(candidate) else 0]
        return (folder / candidate / self.part / ROWS_FILE).as_posix()


VOICE = Layout(
    (paths.SCORES,), "", (paths.SELECTION,), paths.CONFIRM, paths.REFERENCE, "candidates",
    ("audit", "codes", "train", "score", "select"),
)  # fmt: skip
LANGUAGE = Layout(
    (paths.LANGUAGE_SCORES, paths.LANGUAGE_STAGE2_SCORES),
    "target",
    (paths.LANGUAGE_CHOICE1, paths.LANGUAGE_SELECTION),
    paths.LANGUAGE_CONFIRM,
    paths.LANGUAGE.reference,
    "language.candidates",
    ("language_data", "language_stage1", "language_score", "language_decide", "language_stage2",
     "language_confirm"),
)  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """One experiment as it was found.

    Attributes:
        name: What people call it.
        commit: Its commit; None for the workspace.
        params: Its parameters, flat.
        decision: Its own selection record; None where it is missing.
        confirm: Its own confirmation; None where there is none.
        rows: Rows by candidate: the Base, and what is compared.
        looked_at: Hashes of the rows of every candidate that its decisions chose from.
        lacking: Candidates that were asked for and are not there.
        missing: Why nothing of it can be compared, and what to do; empty when it can.
        read: Reads a file of it.
    """

    name: str
    commit: str | None
    params: Mapping[str, Any]
    decision: Mapping[str, Any] | None = None
    confirm: Mapping[str, Any] | None = None
    rows: Mapping[str, list[ScoreRow]] = field(default_factory=dict)
    looked_at: frozenset[str] = frozenset()
    lacking: tuple[str, ...] = ()
    missing: tuple[str, str] | tuple[()] = ()
    read: Callable[[str], bytes] = field(default=lambda path: b"", repr=False)


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
    def place(self) -> tuple[bool, int, bool, str]:
        """Less training first; then what is in the workspace; then by name."""
        second = in_stage2(self.candidate)
        here = self.experiment.name != WORKSPACE
        return second, epoch_number(self.candidate), here, self.label


def compare(
    params: Params,
    names: Sequence[str] | None = None,
    *,
    candidates: Sequence[str] = (CHOSEN,),
    language: bool = False,
) -> StageResult:
    """Compare experiments; write `reports/compare.json` and `reports/compare.html`.

    Args:
        params: The present parameters; `select` (or `language.select`) is the rule.
        names: Experiments, commits, or `workspace`; None: the workspace and every experiment of
            the present commit.
        candidates: Of each experiment: `chosen`, `all`, or candidates by name.
        language: Compare the language's path instead of the speaker's.

    Returns:
        The outcome in sentences, and the record.

    Raises:
        UserError: When a name is unknown, the experiments were scored differently, or fewer than
            two candidates can be compared.
    """
    if language and params.language is None:
        raise UserError(
            Problem("language", "a section in params.yaml", "none", "Leave --language out.")
        )
    rule = params.language.select if language and params.language else params.select
    layout = LANGUAGE if language else VOICE
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
        found = _read_all(_listed(names), layout, candidates, Path(scratch), opened)
        whole = [item for item in found if not item.missing]
        _refuse_mixed(whole)
        systems, twins = _systems(whole)
        _require_something(found, systems)
        record = _compared(found, whole, systems, twins, rule, layout, language)
        html = _page(record, whole[0], systems, Path(scratch))
    write_json(TABLE, record)
    write_atomic(PAGE, html)
    lines = [record["reason"], record["disclosure"], *record["notes"]]
    lines += [f"{item['name']} is missing: {item['missing']}." for item in record["experiments"]
              if item["missing"]]  # fmt: skip
    return StageResult("\n".join([*lines, f"The page is {PAGE}."]), record)


# --- reading -------------------------------------------------------------------------------------


def _listed(names: Sequence[str] | None) -> list[tuple[str, str | None, str]]:
    """List what is to be read: name, commit (None for the workspace) and state.

    Raises:
        UserError: Outside of a DVC project in git, and for names that mean nothing there.
    """
    import dvc.api
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import RevError, resolve_rev
    from scmrepo.exceptions import SCMError

    try:
        known = {
            row["Experiment"] or row["rev"]: (row["rev"], row["State"] or "")
            for row in dvc.api.exp_show()
            if row["typ"] != "baseline"
        }
        with Repo() as repo:
            scm = repo.scm
            if names is None:
                listed = [(name, resolve_rev(scm, rev), state)
                          for name, (rev, state) in sorted(known.items())]  # fmt: skip
                return [(WORKSPACE, None, ""), *listed]
            listed, problems = [], []
            for name in dict.fromkeys(names):
                rev, state = known.get(name, (name, ""))
                try:
                    commit = None if name == WORKSPACE else resolve_rev(scm, rev)
                except RevError:
                    problems.append(
                        Problem(name, f"{WORKSPACE}, an experiment or a commit", "nothing",
                                "`dvc exp list --all-commits` names the experiments.")
                    )  # fmt: skip
                    continue
                listed.append((name, commit, state))
    except (DvcException, SCMError) as error:
        raise UserError(
            Problem(str(Path.cwd()), "a DVC project in a git repository with a commit",
                    " ".join(str(error).split()) or type(error).__name__,
                    "Run it in the project folder; see docs/sweeps.md.")
        ) from None  # fmt: skip
    if problems:
        raise UserError(problems, "These experiments cannot be read.")
    return listed


def _read_all(
    listed: Sequence[tuple[str, str | None, str]],
    layout: Layout,
    candidates: Sequence[str],
    scratch: Path,
    opened: ExitStack,
) -> list[Experiment]:
    """Read every experiment that is listed; they stay open for their clips."""
    progress, found = Progress("Reading experiments", len(listed), "experiments"), []
    for index, (name, commit, state) in enumerate(listed):
        read = _read_file if commit is None else _reader(commit, opened)
        found.append(
            _experiment(name, commit, state, read, layout, candidates, scratch / str(index))
        )
        progress.advance()
    return found


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()


def _reader(commit: str, opened: ExitStack) -> Callable[[str], bytes]:
    """Return what reads a file of a commit, from git or from DVC's cache."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexError

    files = DVCFileSystem(".", rev=commit)
    opened.callback(files.close)

    def read(path: str) -> bytes:
        try:
            return files.read_bytes(path)
        except (DvcException, DataIndexError):  # in the lock, but in no cache or remote
            raise FileNotFoundError(2, "not in the cache", path) from None

    return read


def _experiment(
    name: str,
    commit: str | None,
    state: str,
    read: Callable[[str], bytes],
    layout: Layout,
    candidates: Sequence[str],
    scratch: Path,
) -> Experiment:
    """Read one experiment; what cannot be read makes it a missing one."""
    params = flatten(_yaml(read, "params.yaml"))
    if state in NOT_DONE:
        why, fix = NOT_DONE[state]
        return Experiment(name, commit, params, missing=(why, fix.format(name)))
    again = "Run `dvc repro`." if commit is None else "Queue it again."
    stale = _stale(params, _yaml(read, "dvc.lock"), layout)
    if stale:
        return Experiment(name, commit, params, missing=(stale, again))
    try:
        choices = [json.loads(read(path.as_posix())) for path in layout.choices]
        decision = choices[-1]
        looked_at = {
            sha for made in choices for item, sha in made["inputs"].items() if item != BASE
        }
        chosen, scored = decision["chosen"], [item["name"] for item in decision["candidates"]]
        asked = [chosen if item == CHOSEN else item for item in candidates]
        wanted = dict.fromkeys([BASE, *(scored if EVERY in asked else asked)])
        lacking = tuple(item for item in wanted if item not in scored)
        rows = {
            item: _rows(read, layout, item, decision, scratch) for item in wanted if item in scored
        }
    except (OSError, ValueError, KeyError) as error:
        why = str(error)
        if isinstance(error, UserError):  # it names a temporary file
            why = f"expected {error.problems[0].expected}, found {error.problems[0].found}"
        elif isinstance(error, OSError) and error.filename:
            why = f"{error.filename} is not there"
        if commit is not None:
            again = f"Fetch it (`dvc exp pull origin {name}`) or queue it again."
        return Experiment(name, commit, params, missing=(f"it cannot be read ({why})", again))
    if lacking and len(lacking) == len([item for item in wanted if item != BASE]):
        why = f"it has no scores of {', '.join(lacking)}"
        return Experiment(name, commit, params, decision, missing=(why, "Name other candidates."))
    try:
        confirm = json.loads(read(layout.confirm.as_posix()))
    except (OSError, ValueError):
        confirm = None
    return Experiment(
        name, commit, params, decision, confirm, rows, frozenset(looked_at), lacking, (), read
    )


def _rows(
    read: Callable[[str], bytes],
    layout: Layout,
    candidate: str,
    decision: Mapping[str, Any],
    scratch: Path,
) -> list[ScoreRow]:
    """Read a candidate's rows and hold them to the decision that was made from them."""
    place = scratch / candidate / ROWS_FILE
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(read(layout.rows_of(candidate)))
    rows = read_scores(place, split=decision["split"])
    if rows_sha(rows) != decision["inputs"][candidate]:
        raise ValueError(f"its decision was made from other scores of {candidate}")
    return rows


def _yaml(read: Callable[[str], bytes], path: str) -> dict[str, Any]:
    """Read a mapping; an absent or broken file is an empty one."""
    try:
        found = yaml.safe_load(read(path))
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _stale(params: Mapping[str, Any], lock: Mapping[str, Any], layout: Layout) -> str:
    """Say which parameter is not the one that the results were made with; "" when none is."""
    for name, stage in sorted(lock.get("stages", {}).items()):
        if name.split("@")[0] not in layout.stages:
            continue
        if "@" in name and name.split("@")[1] not in params.get(layout.candidates, []):
            continue  # a candidate that is no longer listed
        made_with = flatten(stage.get("params", {}).get("params.yaml", {}))
        for key, value in made_with.items():
            if key in params and _number(params[key]) != _number(value):
                return (
                    f"its results are those of {key} {_shown(value)}, not of {_shown(params[key])}"
                )
    return ""


def _number(value: Any) -> Any:
    """Read `2e-06` as the number that it is: DVC writes it so, and YAML 1.1 takes it for text."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return [_number(item) for item in value] if isinstance(value, list) else value


# --- what may be compared ------------------------------------------------------------------------


def _refuse_mixed(found: Sequence[Experiment]) -> None:
    """Refuse experiments that were not scored alike, in one table.

    Raises:
        UserError: With a problem for each thing that differs.
    """
    shaped = [
        f"{key}: " + ", ".join(f"{_shown(value)} ({_names(who)})" for value, who in values)
        for key, values in _differing(found).items()
        if key.startswith(tuple(f"{name}." for name in SHAPE_SCORES)) or key in SHAPE_SCORES
    ]
    hint = f" Parameters that differ and may be why: {'; '.join(shaped)}." if shaped else ""
    seen: dict[str, dict[str, list[str]]] = {}
    for item in found:
        for name, value in _scored_by(item).items():
            seen.setdefault(name, {}).setdefault(value, []).append(item.name)
    problems = [
        Problem(
            name,
            "the same in all experiments",
            "; ".join(f"{value} ({_names(who)})" for value, who in values.items()),
            "Name experiments that were scored alike, or queue the others again." + hint,
        )
        for name, values in seen.items()
        if len(values) > 1
    ]
    if problems:
        raise UserError(problems, "These experiments cannot be compared.")


def _scored_by(item: Experiment) -> dict[str, str]:
    """Say what an experiment's rows were measured with and on."""
    rows = [row for found in item.rows.values() for row in found]
    texts = sorted({(row.text_id, row.text) for row in rows})
    takes = sorted({row.take for row in rows})
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
        "takes": str(len(takes)),
        "seeds": f"sha {fingerprint(seeds, 8)}",
    }


def _differing(
    found: Sequence[Experiment],
) -> dict[str, list[tuple[Any, list[str]]]]:
    """Return the parameters that are not the same in all experiments: values and who has them."""
    keys = sorted({key for item in found for key in item.params})
    table = {}
    for key in keys:
        values: dict[str, tuple[Any, list[str]]] = {}
        for item in found:
            value = _number(item.params.get(key))
            values.setdefault(fingerprint(value), (value, []))[1].append(item.name)
        if len(values) > 1:
            table[key] = list(values.values())
    return table


def _systems(found: Sequence[Experiment]) -> tuple[list[System], dict[str, str]]:
    """Return what competes, in the rule's order, and which experiments repeat another's scores."""
    listed = sorted(
        (
            System(_label(item, name), item, name)
            for item in found
            for name in item.rows
            if name != BASE
        ),
        key=lambda system: system.place,
    )
    first: dict[str, System] = {}
    twins = {}
    for system in listed:
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


def _require_something(found: Sequence[Experiment], systems: Sequence[System]) -> None:
    """Refuse to compare nothing, and say what is missing."""
    if systems and sum(not item.missing for item in found) > 1:
        return
    problems = [
        Problem(item.name, "an experiment with scores", item.missing[0], item.missing[1])
        for item in found
        if item.missing
    ]
    if not problems:
        present = ", ".join(item.name for item in found)
        kept = " Each of them keeps the Base." if not systems else ""
        problems = [
            Problem("experiments", "two that can be compared", f"{present}.{kept}",
                    "Queue some (docs/sweeps.md), or name those of another commit; "
                    "`dvc exp list --all-commits` lists them.")
        ]  # fmt: skip
    raise UserError(problems, "There is nothing to compare.")


# --- comparing -----------------------------------------------------------------------------------


def _compared(
    found: Sequence[Experiment],
    whole: Sequence[Experiment],
    systems: Sequence[System],
    twins: Mapping[str, str],
    rule: SelectParams,
    layout: Layout,
    language: bool,
) -> dict[str, Any]:
    """Choose among the systems by the rule for epochs, and hold all pairs against each other."""
    start = whole[0]
    # The rule knows the Base and numbered candidates: the systems are numbered in its order.
    labels = {f"epoch-{n}": system.label for n, system in enumerate(systems, start=1)}
    numbered = {
        alias: [row.model_copy(update={"candidate": alias}) for row in system.rows]
        for alias, system in zip(labels, systems, strict=True)
    }
    reference = layout.reference.as_posix()
    scale = _json(start.read, f"{reference}/similarity.json")
    decision = selection.select(
        {BASE: start.rows[BASE], **numbered},
        rule,
        what="take any of these experiments",
        scale=scale,
    )
    decision = _renamed(decision, labels)
    power = decision["power"]
    power["text"] = power["text"].replace("two epochs", "two experiments")
    decision["inputs"] = {BASE: rows_sha(start.rows[BASE])} | {
        system.label: rows_sha(system.rows) for system in systems
    }
    floor = None if scale is None else scale["floor"]["point"]
    comparison = compare_systems(
        {BASE: start.rows[BASE], **{system.label: system.rows for system in systems}},
        rule,
        floor=floor,
        with_similarity=any(row.sim is not None for row in start.rows[BASE]),
    )
    winner = next((item for item in systems if item.label == decision["chosen"]), None)
    confirm = None if winner is None else winner.experiment.confirm
    if confirm is not None and winner is not None and confirm["chosen"] != winner.candidate:
        confirm = None
    looked_at = frozenset[str]().union(*(item.looked_at for item in whole))
    return {
        "schema": SCHEMA,
        "path": "language" if language else "speaker",
        "winner": decision["chosen"],
        "winner_candidate": BASE if winner is None else winner.candidate,
        "reason": decision["reason"],
        "disclosure": _disclosure(len(looked_at), len(whole), winner, confirm),
        "notes": _notes(whole, systems, twins, decision)
        + _not_shown(decision, comparison or {"pairs": []}),
        "parameters": list(_differing(found)),
        "experiments": [_row(item, systems, twins, decision, _differing(found)) for item in found],
        "decision": decision,
        "comparison": comparison,
        "confirm": confirm,
        "scored_by": _scored_by(start),
        "versions": versions(),
    }


def _row(
    item: Experiment,
    systems: Sequence[System],
    twins: Mapping[str, str],
    decision: Mapping[str, Any],
    differing: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe one experiment: what differs in its parameters, what it chose, what became of it."""
    own = item.decision or {}
    compared = [system for system in systems if system.experiment is item]
    repeats = {
        label: twins[label]
        for name in item.rows
        if name != BASE and (label := _label(item, name)) in twins
    }
    shown = {
        found["name"]: {key: found[key] for key in (*MEASURES_SHOWN, "eligible", "p_best")}
        for found in decision["candidates"]
    }
    forgotten = own.get("forgetting", {}).get("candidates", {})
    return {
        "name": item.name,
        "commit": item.commit,
        "parameters": {key: _number(item.params.get(key)) for key in differing},
        "missing": ". ".join(item.missing).rstrip(".") if item.missing else "",
        "lacking": list(item.lacking),
        "own_choice": own.get("chosen"),
        "keeps_base": own.get("chosen") == BASE,
        "repeats": repeats,
        "systems": [
            {"label": system.label, "candidate": system.candidate}
            | shown[system.label]
            | {"source_language": forgotten.get(system.candidate, {}).get("verdict")}
            for system in compared
        ],
    }


def _disclosure(
    looked_at: int, experiments: int, winner: System | None, confirm: Mapping[str, Any] | None
) -> str:
    """Say why the winner's figures are too good, and which to quote instead."""
    if winner is None:
        return (
            f"{looked_at} candidates of {experiments} experiments were looked at; the figures of "
            "the best of them are optimistic, because they were picked for being high."
        )
    instead = (
        "Quote its confirmation, made on sentences that chose nothing."
        if confirm is not None
        else "Confirm it on unseen sentences before quoting anything: apply the experiment and "
        "run the confirm stage."
    )
    return (
        f"The winner's figures are optimistic (winner's curse): it was chosen on these sentences, "
        f"from {looked_at} candidates of {experiments} experiments, first within its experiment "
        f"and then among all. {instead}"
    )


def _notes(
    whole: Sequence[Experiment],
    systems: Sequence[System],
    twins: Mapping[str, str],
    decision: Mapping[str, Any],
) -> list[str]:
    """Say what a reader of the table must know besides."""
    notes = []
    bases: dict[str, list[str]] = {}
    for item in whole:
        bases.setdefault(item.rows[BASE][0].checkpoint_sha, []).append(item.name)
    if len(bases) > 1:
        groups = "; ".join(_names(who) for who in bases.values())
        notes.append(
            f"The experiments start from different Bases ({groups}): the gates and the Base's "
            f"figures are those of {whole[0].name}."
        )
    keep = [item.name for item in whole if (item.decision or {})["chosen"] == BASE]
    if keep:
        notes.append(f"By its own selection the Base is kept: {_names(keep)}.")
    notes += [f"{label} has the scores of {same}, clip for clip." for label, same in twins.items()]
    tied = [name for name in decision["tied"] if name != BASE]
    trained = {system.label: system.candidate for system in systems}
    if len({trained[name] for name in tied}) < len(tied):
        notes.append(
            "Of experiments that tie after equally many epochs the workspace comes first, then "
            "the alphabet: the rule cannot tell them apart."
        )
    return notes


def _not_shown(decision: Mapping[str, Any], comparison: Mapping[str, Any]) -> list[str]:
    """Name those that the winner is chosen over without being shown to be better."""
    winner = decision["chosen"]
    key = "sim" if decision["rule"]["primary"] == "similarity" else "error"
    eligible = {item["name"] for item in decision["candidates"] if item["eligible"]}
    others = [
        other
        for pair in comparison["pairs"]
        if winner in (pair["first"], pair["second"])
        and pair[key]["better"] != winner
        and (other := pair["second"] if pair["first"] == winner else pair["first"]) in eligible
    ]
    if not others:
        return []
    measure = "similarity" if key == "sim" else decision["rule"]["error_metric"].upper()
    return [
        f"The rule takes one, but the intervals for all pairs do not show that it has the better "
        f"{measure} than: {_names(['the Base' if name == BASE else name for name in others])}."
    ]


def _renamed(value: Any, labels: Mapping[str, str]) -> Any:
    """Put the systems' names where the rule has numbered candidates."""
    if isinstance(value, dict):
        return {_renamed(key, labels): _renamed(item, labels) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, labels) for item in value]
    if isinstance(value, str):
        return re.sub(r"\bepoch-\d+\b", lambda match: labels.get(match[0], match[0]), value)
    return value


def _json(read: Callable[[str], bytes], path: str) -> Any:
    try:
        return json.loads(read(path))
    except (OSError, ValueError):
        return None


def _names(listed: Sequence[str]) -> str:
    return ", ".join(listed)


def _shown(value: Any) -> str:
    """Write a parameter's value for people."""
    value = _number(value)
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- the page ------------------------------------------------------------------------------------


def _page(
    record: Mapping[str, Any], start: Experiment, systems: Sequence[System], scratch: Path
) -> str:
    """Build the page: the table, the pairs, the gates, and what some sentences sound like."""
    metric = record["decision"]["rule"]["error_metric"]
    by_label = {BASE: (start, start.rows[BASE])} | {
        system.label: (system.experiment, system.rows) for system in systems
    }
    return (
        components.environment()
        .get_template("compare.html.j2")
        .render(
            record=record,
            decision=record["decision"],
            metric=metric,
            measures=MEASURES,
            shown=_shown,
            sentences=_sentences(by_label, record["winner"], metric, scratch),
            num_open=NUM_OPEN,
            provenance=_provenance(record),
        )
    )


def _sentences(
    by_label: Mapping[str, tuple[Experiment, Sequence[ScoreRow]]],
    winner: str,
    metric: str,
    scratch: Path,
) -> list[dict[str, Any]]:
    """Lay out sentence x system: first take of the first sentences by hash of their text."""
    texts = {row.text_norm: row.text for _, rows in by_label.values() for row in rows}
    listed = []
    for text in first_by_hash(texts, MAX_SENTENCES):
        cells = []
        for label, (item, rows) in by_label.items():
            row = min((row for row in rows if row.text_norm == text), key=lambda row: row.take)
            values = row.model_dump(mode="json")
            values["wav"] = _clip(item, row, scratch)
            cells.append(components.make_cell(values, label, metric))
        listed.append(components.sentence(texts[text], cells, winner))
    return listed


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


def _provenance(record: Mapping[str, Any]) -> list[tuple[str, str]]:
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
