"""Reading DVC experiments: their parameters, decisions and scores, without touching the workspace.

Every experiment is a commit with a lock of its outputs. They are read from there and from DVC's
cache. An experiment that failed, or has not run, still has a lock: that of the commit it started
from. Reading it would show the baseline's scores under the experiment's parameters, so that such
an experiment is a missing one.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import dvc.api
import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import RevError, resolve_rev
from dvc_data.index import DataIndexError
from scmrepo.exceptions import SCMError

from voxadapt.core import paths
from voxadapt.core.errors import UserError, raise_problems
from voxadapt.core.paths import LANGUAGE, SPEAKER, Corpus
from voxadapt.core.problems import problem, user_error
from voxadapt.core.progress import Progress
from voxadapt.core.records import Record, flatten
from voxadapt.reporting.records import scores_folder
from voxadapt.scoring.rows import ROWS_FILE, ScoreRow, read_scores, rows_sha

WORKSPACE, BASE = "workspace", "base"
CHOSEN, EVERY = "chosen", "all"  # what --candidates may say besides a candidate's name
NOT_DONE = {
    "Failed": ("it failed", "See `dvc queue logs {}`."),
    "Queued": ("it has not run yet", "Run `dvc exp run --run-all`."),
    "Running": ("it is still running", "Wait for it: `dvc queue status`."),
}
Read = Callable[[str], bytes]  # of a file of an experiment, by its path in the project


@dataclass(frozen=True)
class Layout:
    """Where one path of the pipeline keeps what is compared."""

    corpus: Corpus
    choices: tuple[Path, ...]  # records of decisions before the last one, the corpus' own
    candidates: str  # parameter that lists what is scored
    stages: tuple[str, ...]  # whose parameters must be those that the lock records


SPEAKER_LAYOUT = Layout(SPEAKER, (), "candidates", ("audit", "codes", "train", "score", "select"))
LANGUAGE_LAYOUT = Layout(
    LANGUAGE, (paths.LANGUAGE_CHOICE1,), "language.candidates",
    ("language_data", "language_readings", "language_stage1", "language_score", "language_decide",
     "language_stage2", "language_stage2_score", "language_confirm"),
)  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """One experiment as it was found."""

    name: str
    commit: str | None  # None for the workspace
    params: Record  # flat
    decision: Record | None = None
    confirm: Record | None = None
    rows: Mapping[str, list[ScoreRow]] = field(default_factory=dict)  # of what is compared
    looked_at: frozenset[str] = frozenset()  # hashes of the rows that its decisions chose from
    lacking: tuple[str, ...] = ()  # candidates that were asked for and are not there
    missing: tuple[str, str] | tuple[()] = ()  # why nothing can be compared, and what to do
    read: Read = field(default=lambda path: b"", repr=False)


def list_experiments(names: Sequence[str] | None) -> list[tuple[str, str | None, str]]:
    """List what is to be read: name, commit (None for the workspace) and state."""
    try:
        known = {
            row["Experiment"] or row["rev"]: (row["rev"], row["State"] or "")
            for row in dvc.api.exp_show()
            if row["typ"] != "baseline"
        }
        with Repo() as repo:
            scm = repo.scm
            listed, unknown = [], []
            for name in dict.fromkeys([WORKSPACE, *sorted(known)] if names is None else names):
                rev, state = known.get(name, (name, ""))
                try:
                    commit = None if name == WORKSPACE else resolve_rev(scm, rev)
                    listed.append((name, commit, state))
                except RevError:
                    unknown.append(name)
    except (DvcException, SCMError) as error:
        raise user_error("tools.no_experiments", Path.cwd(), found=error) from None
    problems = [problem("tools.unknown_experiment", name, workspace=WORKSPACE) for name in unknown]
    raise_problems(problems, "These experiments cannot be read.")
    return listed


def read_experiments(
    listed: Sequence[tuple[str, str | None, str]],
    layout: Layout,
    candidates: Sequence[str],
    scratch: Path,
    opened: ExitStack,
) -> list[Experiment]:
    """Read every experiment that is listed; they stay open for their clips."""
    progress, found = Progress("Reading experiments", len(listed), "experiments"), []
    for index, (name, commit, state) in enumerate(listed):
        read = (lambda path: Path(path).read_bytes()) if commit is None else _reader(commit, opened)
        place = scratch / str(index)
        found.append(_experiment(name, commit, state, read, layout, candidates, place))
        progress.advance()
    return found


def _reader(commit: str, opened: ExitStack) -> Read:
    """Return what reads a file of a commit, from git or from DVC's cache."""
    files = dvc.api.DVCFileSystem(".", rev=commit)
    opened.callback(files.close)

    def read(path: str) -> bytes:
        try:
            content: bytes = files.read_bytes(path)
        except (DvcException, DataIndexError):  # in the lock, but in no cache or remote
            raise FileNotFoundError(2, "not in the cache", path) from None
        return content

    return read


def _experiment(
    name: str, commit: str | None, state: str, read: Read, layout: Layout,
    candidates: Sequence[str], scratch: Path,
) -> Experiment:  # fmt: skip
    """Read one experiment; what cannot be read makes it a missing one."""
    params = flatten(_yaml(read, "params.yaml"))
    if state in NOT_DONE:
        why, fix = NOT_DONE[state]
        return Experiment(name, commit, params, missing=(why, fix.format(name)))
    again = f"Run `dvc repro {layout.stages[-1]}`." if commit is None else "Queue it again."
    stale = _stale(params, _yaml(read, "dvc.lock"), layout)
    if stale:
        return Experiment(name, commit, params, missing=(stale, again))
    try:
        files = (*layout.choices, layout.corpus.decision)
        choices = [json.loads(read(path.as_posix())) for path in files]
        decision, inputs = choices[-1], [made["inputs"].items() for made in choices]
        looked_at = frozenset(sha for made in inputs for item, sha in made if item != BASE)
        chosen, scored = decision["chosen"], [item["name"] for item in decision["candidates"]]
        asked = [chosen if item == CHOSEN else item for item in candidates]
        wanted = list(dict.fromkeys([BASE, *(scored if EVERY in asked else asked)]))
        there = [item for item in wanted if item in scored]
        rows = {item: _rows(read, layout, item, decision, scratch) for item in there}
    except (OSError, ValueError, KeyError) as error:
        if commit is not None:
            again = f"Fetch it (`dvc exp pull origin {name}`) or queue it again."
        missing = (f"it cannot be read ({_reason(error)})", again)
        return Experiment(name, commit, params, missing=missing)
    lacking = tuple(item for item in wanted if item not in scored)
    if lacking and len(lacking) == len([item for item in wanted if item != BASE]):
        why = f"it has no scores of {', '.join(lacking)}"
        return Experiment(name, commit, params, decision, missing=(why, "Name other candidates."))
    confirm = read_json_of(read, layout.corpus.confirm)
    return Experiment(name, commit, params, decision, confirm, rows, looked_at, lacking, (), read)


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):  # it names a temporary file
        return f"expected {error.problems[0].expected}, found {error.problems[0].found}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} is not there"
    return str(error)


def read_json_of(read: Read, path: Path) -> Record | None:
    """Read a record of an experiment; None where it is not there."""
    try:
        record: Record = json.loads(read(path.as_posix()))
    except (OSError, ValueError):
        return None
    return record


def _rows(
    read: Read, layout: Layout, candidate: str, decision: Record, scratch: Path
) -> list[ScoreRow]:
    """Read a candidate's rows and hold them to the decision that was made from them."""
    place = scratch / candidate / ROWS_FILE
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(read((scores_folder(layout.corpus, candidate) / ROWS_FILE).as_posix()))
    rows = read_scores(place, split=decision["split"])
    if rows_sha(rows) != decision["inputs"][candidate]:
        raise ValueError(f"its decision was made from other scores of {candidate}")
    return rows


def _yaml(read: Read, path: str) -> Record:
    """Read a mapping; an absent or broken file is an empty one."""
    try:
        found = yaml.safe_load(read(path))
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _stale(params: Record, lock: Record, layout: Layout) -> str:
    """Say which parameter is not the one that the results were made with; "" when none is."""
    for name, stage in sorted(lock.get("stages", {}).items()):
        if name.split("@")[0] not in layout.stages:
            continue
        if "@" in name and name.split("@")[1] not in params.get(layout.candidates, []):
            continue  # a candidate that is no longer listed
        made_with = flatten(stage.get("params", {}).get("params.yaml", {}))
        for key, value in made_with.items():
            if key in params and plain_number(params[key]) != plain_number(value):
                made, now = value_in_words(value), value_in_words(params[key])
                return f"its results are those of {key} {made}, not of {now}"
    return ""


def plain_number(value: object) -> object:
    """Read `2e-06` as the number that it is: DVC writes it so, and YAML 1.1 takes it for text."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return [plain_number(item) for item in value] if isinstance(value, list) else value


def value_in_words(value: object) -> str:
    """Write a parameter's value for people."""
    value = plain_number(value)
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return ", ".join(value_in_words(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
