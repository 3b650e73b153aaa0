"""Votes of listeners: read strictly, matched with the key, summed up with intervals.

A listening page knows its clips by opaque ids only; the key, which stays with whoever made the
page, says which candidate each id is. A vote belongs to a sentence and to a listener, and both are
samples: other sentences and other people would have voted differently. Intervals are therefore
clustered both ways (Cameron, Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136).

Shapes: S sentences, L listeners.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.special import expit
from scipy.stats import t

from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.lineage import check_made
from voxadapt.core.problems import problem, user_error
from voxadapt.core.records import Record
from voxadapt.data.lines import parse_object
from voxadapt.scoring.statistics import Interval, rounded
from voxadapt.scoring.wording import Sentences

SENTENCES = Sentences(Path(__file__).parent)
Array = NDArray[np.float64]
Kind = Literal["ab", "mos"]
SUMMARY_SCHEMA = "voxadapt-votes-summary/1"
REAL = "real"  # the hidden recordings
MOS_RANGE = (1, 5)
KEY_FILE, VOTES_FILE = "key.json", "votes.json"
TITLE = "The votes cannot be used."
MAX_BYTES = 4_000_000  # of a file of votes: a page of 500 trials gives a tenth
#: Fewer listeners than this tell nothing of how much listeners differ. Simulated with strong
#: tastes (2 on the logit scale) and no preference, two decided wrongly in 9 %, three in 6 %.
SMALL_PANEL = 4
ENOUGH_LISTENERS = 6


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True
    )


class KeyTrial(_Strict):
    """A trial of a page: sentence, take, and candidate by the opaque id of its clip."""

    text_id: str
    take: int = Field(ge=0)
    clips: dict[str, str]


class Unheard(_Strict):
    """A take that listeners were not given: of its `candidates`, those `missing` have no clip."""

    text_id: str
    take: int = Field(ge=0)
    candidates: tuple[str, ...] = Field(strict=False)
    missing: tuple[str, ...] = Field(min_length=1, strict=False)


class KeyPage(_Strict):
    """The key of one page: `page_sha` is of all that it shows, `repeats` are trials given twice."""

    file: str
    page_sha: str
    questions: tuple[str, ...] = Field(strict=False)
    repeats: int = Field(ge=0)
    trials: dict[str, KeyTrial]
    unheard: tuple[Unheard, ...] = Field((), strict=False)


class ListeningKey(_Strict):
    """Which candidate each clip of the listening pages is."""

    schema_id: Literal["voxadapt-listening-key/1"] = Field(
        "voxadapt-listening-key/1", alias="schema"
    )
    split: str
    pairs: tuple[tuple[str, str], ...] = Field(strict=False)  # is the second preferred?
    candidates: tuple[str, ...] = Field(strict=False)  # who is rated, the recordings included
    inputs: dict[str, str]  # hash of the score rows of each candidate
    sample_rate_hz: int
    level_dbfs: float
    pages: dict[Kind, KeyPage]
    made: Record | None = None  # hashes of the pages, and a seal; none in earlier versions


def read_key(path: str | Path) -> ListeningKey:
    """Read the key that was written with the pages; neither may have been changed since."""
    try:
        key = ListeningKey.model_validate_json(Path(path).read_bytes())
    except (OSError, ValidationError) as error:
        raise user_error("listening.no_key", path, found=error) from None
    if key.made is not None:
        check_made([Path(path)])
    return key


# --- votes -------------------------------------------------------------------------------------

UNSEEN = ("Cf", "Cc", "Cn", "Co", "Cs")  # zero-width and other signs that nobody can tell apart
#: Letters, marks and a symbol that are drawn as nothing: joiners, fillers, variation selectors.
INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800") | {
    chr(code) for code in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}


class Vote(_Strict):
    """One answer."""

    trial: str
    repeat: bool  # whether the trial was heard for the second time
    question: str
    #: Clips in the order of the page: A and B, or the one that was rated.
    shown: tuple[str, ...] = Field(min_length=1, max_length=2, strict=False)
    choice: str | int | None  # clip preferred, null for no difference; a whole number when rated
    ms: int = Field(ge=0, le=7 * 86_400_000)  # from the first sound to the answer, milliseconds
    plays: tuple[int, ...] = Field(strict=False)  # how often each clip was started

    @model_validator(mode="after")
    def _plays_of_each(self) -> Vote:
        if len(self.plays) != len(self.shown) or min(self.plays) < 1:
            raise ValueError("every clip that is judged has to be played")
        return self


class Votes(_Strict):
    """What one listener exported from one page; `seed` decided the order and the sides."""

    schema_id: Literal["voxadapt-votes/1"] = Field("voxadapt-votes/1", alias="schema")
    kind: Kind
    page_sha: str
    listener: str = Field(min_length=1, max_length=80)
    seed: int = Field(ge=0, lt=2**32)
    finished: bool
    trials: tuple[Vote, ...] = Field(min_length=1, strict=False)

    @property
    def person(self) -> str:
        """The listener's name as names are compared: without case, width and what is not seen."""
        text = unicodedata.normalize("NFKC", self.listener).casefold()
        seen = "".join(
            s for s in text if unicodedata.category(s) not in UNSEEN and s not in INVISIBLE
        )
        return " ".join(unicodedata.normalize("NFKC", seen).split())


def read_votes(files: Sequence[str | Path], key: ListeningKey) -> list[Votes]:
    """Read exported votes, sorted by kind and listener; refuse all that do not fit the key."""
    problems: list[Problem] = []
    found: list[Votes] = []
    seen: dict[tuple[str, object], int] = {}
    for number, file in enumerate(files):
        path = str(file)
        try:
            votes = Votes.model_validate(_read_object(Path(file)))
        except FileNotFoundError:
            problems.append(problem("listening.no_votes", path))
            continue
        except (OSError, ValueError) as error:
            problems.append(problem("listening.other_file", path, found=error))
            continue
        problems += _faults(path, votes, key)
        for what, value in (("listener", votes.person), ("seed", votes.seed)):
            other = seen.setdefault((f"{votes.kind} {what}", value), number)
            if other != number:
                problems.append(
                    problem("listening.same_listener", path, what=what, other=files[other])
                )
                break
        found.append(votes)
    raise_problems(problems, TITLE)
    return sorted(found, key=lambda votes: (votes.kind, votes.person))


def _read_object(path: Path) -> Record:
    """Read a JSON object of a bounded size.

    Raises:
        ValueError: When it is something else; an OSError when it cannot be read.
    """
    if path.exists() and not path.is_file():  # a device or a pipe may never end
        raise ValueError("no regular file")
    with open(path, "rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES // 1_000_000} MB")
    found = parse_object(path.name, data.decode("utf-8"), "an object")
    if isinstance(found, Problem):
        raise ValueError(found.found)
    return found


def _faults(path: str, votes: Votes, key: ListeningKey) -> list[Problem]:
    """Collect what does not agree with the key."""
    page = key.pages.get(votes.kind)
    if page is None or votes.page_sha != page.page_sha:
        wanted = page.page_sha[:12] if page else "(none)"
        return [problem("listening.other_page", path, page=wanted, found=votes.page_sha[:12])]
    problems = []

    def add(number: int, expected: str, found: str) -> None:
        where = f"{path}: vote {number}"
        problems.append(problem("listening.wrong_vote", where, expected=expected, found=found))

    counts: Counter[tuple[str, str, bool]] = Counter()
    for number, vote in enumerate(votes.trials, start=1):
        trial = page.trials.get(vote.trial)
        if trial is None:
            add(number, "a trial of the page", vote.trial[:40])
            continue
        if vote.question not in page.questions:
            add(number, f"a question of the page ({', '.join(page.questions)})", vote.question[:40])
        if sorted(vote.shown) != sorted(trial.clips):
            add(number, "the clips of its trial", ", ".join(vote.shown)[:80])
        choice = vote.choice
        if votes.kind == "ab" and not (choice is None or choice in vote.shown):
            add(number, "one of the two clips, or null", repr(choice)[:40])
        if votes.kind == "mos" and (
            not isinstance(choice, int) or not MOS_RANGE[0] <= choice <= MOS_RANGE[1]
        ):
            add(number, "a whole number from 1 to 5", repr(choice)[:40])
        counts[vote.trial, vote.question, vote.repeat] += 1
        if counts[vote.trial, vote.question, vote.repeat] == 2:
            add(number, "one answer to a question", "a second one")
    answered = sum(not repeat for _, _, repeat in counts)
    again = sum(repeat for _, _, repeat in counts)
    answers, repeats = (n * len(page.questions) for n in (len(page.trials), page.repeats))
    if votes.finished and not problems and (answered, again) != (answers, repeats):
        facts = {"answers": answers, "repeats": repeats, "found": f"{answered} and {again}"}
        problems.append(problem("listening.unfinished", path, **facts))
    return problems


# --- statistics --------------------------------------------------------------------------------

Cells = Mapping[tuple[str, str], float]  # a vote by (sentence, listener)


def two_way_interval(cells: Cells, confidence: float, limits: tuple[float, float]) -> Interval:
    """Return the mean of votes with an interval for other sentences and other listeners.

    It is made on the logit scale between `limits`, the least and the largest possible mean, and
    stays within. Where all votes are the same it is as wide as for as many independent votes as the
    fewer of sentences and listeners (the rule of three, at 95 %). With one listener it is clustered
    by sentence, with one sentence by listener; a single vote has no bounds.
    """
    import pandas

    votes = len(cells)
    if not votes:
        return Interval(None, None, None, 0)
    mean = sum(cells.values()) / votes
    table = pandas.Series(cells).unstack()
    errors = ((table - mean) / votes).fillna(0.0).to_numpy()  # [S, L]
    axes = [axis for axis in (0, 1) if errors.shape[axis] > 1]
    if not axes:
        return Interval(mean, None, None, votes)
    sizes = [errors.shape[axis] for axis in axes]
    parts = [  # variance by sentence, by listener
        float((errors.sum(axis=1 - axis) ** 2).sum()) * size / (size - 1)
        for axis, size in zip(axes, sizes, strict=True)
    ]
    single = float((errors**2).sum())
    variance = max(sum(parts) - (single if len(parts) == 2 else 0.0), *parts, single)
    low, high = limits
    if variance <= 1e-18:
        bound = (high - low) * (1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / min(sizes)))
        return Interval(mean, max(low, mean - bound), min(high, mean + bound), votes, 0.0)
    spread = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
    freedom = min(variance**2 / spread if spread > 0 else math.inf, votes - 1.0)
    se = math.sqrt(variance)
    share = (mean - low) / (high - low)
    freedom = max(freedom, min(sizes) - 1.0)
    if len(sizes) == 2 and sizes[1] < SMALL_PANEL:
        freedom = sizes[1] - 1.0
    reach = float(t.ppf((1.0 + confidence) / 2.0, freedom))
    wide = reach * se / (high - low) / (share * (1.0 - share))
    logit = math.log(share / (1.0 - share))
    ends = [low + (high - low) * float(expit(logit + side * wide)) for side in (-1, 1)]
    return Interval(mean, ends[0], ends[1], votes, se)


# --- the record --------------------------------------------------------------------------------


def summarise_votes(key: ListeningKey, sessions: Sequence[Votes], confidence: float) -> Record:
    """Sum votes up: preferences, mean opinion scores, and how steady the listeners were.

    Returns:
        `votes.json`: `comparisons` (pair, question, preference for the second with interval,
        wins, losses, ties, verdict), `ratings` (candidate, question, mean with interval),
        `rating_differences`, `listeners`, and the counts.
    """
    ab = [votes for votes in sessions if votes.kind == "ab"]
    mos = [votes for votes in sessions if votes.kind == "mos"]
    return {
        "schema": SUMMARY_SCHEMA,
        "pages": {kind: page.page_sha for kind, page in sorted(key.pages.items())},
        "split": key.split,
        "confidence": confidence,
        "num_listeners": len({votes.person for votes in sessions}),
        "num_votes": sum(len(votes.trials) for votes in sessions),
        "comparisons": _comparisons(key, ab, confidence) if ab else [],
        **(_ratings(key, mos, confidence) if mos else {"ratings": [], "rating_differences": []}),
        "listeners": [_listener(key.pages[votes.kind], votes) for votes in sessions],
        "method": SENTENCES.say("method"),
    }


def _comparisons(key: ListeningKey, sessions: Sequence[Votes], confidence: float) -> list[Record]:
    page = key.pages["ab"]
    found = []
    for first, second in key.pairs:
        unheard = [item for item in page.unheard if set(item.candidates) == {first, second}]
        for question in page.questions:
            cells: dict[tuple[str, str], float] = {}
            counts: Counter[float] = Counter()
            for votes in sessions:
                for vote in votes.trials:
                    trial = page.trials[vote.trial]
                    if vote.repeat or vote.question != question:
                        continue
                    if set(trial.clips.values()) != {first, second}:
                        continue
                    choice = None if vote.choice is None else trial.clips[str(vote.choice)]
                    value = {None: 0.5, first: 0.0, second: 1.0}[choice]
                    cells[trial.text_id, votes.person] = value
                    counts[value] += 1
                for item in unheard:
                    lost = 0.5 * ((first in item.missing) - (second in item.missing))
                    cells[item.text_id, votes.person] = 0.5 + lost
            interval = two_way_interval(cells, confidence, (0.0, 1.0))
            low, high = interval.low or 0.0, 1.0 if interval.high is None else interval.high
            record = {
                "pair": [first, second],
                "question": question,
                "preference": interval.as_dict(with_se=True),
                "wins": counts[1.0],
                "losses": counts[0.0],
                "ties": counts[0.5],
                "num_votes": sum(counts.values()),
                "num_listeners": len({person for _, person in cells}),
                "num_texts": len({text for text, _ in cells}),
                "num_unheard": len(unheard),
                "verdict": "preferred" if low > 0.5 else "rejected" if high < 0.5 else "undecided",
            }
            said = SENTENCES.say("comparison", record, SMALL_PANEL, ENOUGH_LISTENERS)
            found.append({**record, "sentence": said})
    return found


def _ratings(key: ListeningKey, sessions: Sequence[Votes], confidence: float) -> Record:
    page = key.pages["mos"]
    low, high = (float(limit) for limit in MOS_RANGE)
    cells: dict[tuple[str, str], dict[tuple[str, str], float]] = {
        (candidate, question): {} for candidate in key.candidates for question in page.questions
    }
    for votes in sessions:
        for vote in votes.trials:
            trial = page.trials[vote.trial]
            if vote.repeat or not isinstance(vote.choice, int):
                continue
            (candidate,) = trial.clips.values()
            cells[candidate, vote.question][trial.text_id, votes.person] = float(vote.choice)
        for item in page.unheard:
            for candidate in item.missing:
                for question in page.questions:
                    cells[candidate, question][item.text_id, votes.person] = low
    ratings = [
        {
            "candidate": candidate,
            "question": question,
            "mean": two_way_interval(values, confidence, (low, high)).as_dict(with_se=True),
            "num_votes": len(values),
            "num_listeners": len({person for _, person in values}),
            "num_texts": len({text for text, _ in values}),
            "num_unheard": sum(candidate in item.missing for item in page.unheard),
        }
        for (candidate, question), values in cells.items()
    ]
    differences = []
    for (first, second), question in product(key.pairs, page.questions):
        ours, theirs = cells[second, question], cells[first, question]
        shared = {place: ours[place] - theirs[place] for place in ours if place in theirs}
        found = two_way_interval(shared, confidence, (low - high, high - low))
        difference = found.as_dict(with_se=True)
        differences.append(
            {"pair": [first, second], "question": question, "difference": difference}
        )
    return {"ratings": ratings, "rating_differences": differences}


def _listener(page: KeyPage, votes: Votes) -> Record:
    """Say how steady a listener was; nobody is left out because of it."""
    first = {(v.trial, v.question): v.choice for v in votes.trials if not v.repeat}
    again = [v for v in votes.trials if v.repeat and (v.trial, v.question) in first]
    answers = [(first[v.trial, v.question], v.choice) for v in again]
    gaps = [  # steps of a rating; 1 for another choice
        abs(old - new) if isinstance(old, int) and isinstance(new, int) else int(old != new)
        for old, new in answers
    ]
    sided = [v for v in votes.trials if not v.repeat and isinstance(v.choice, str)]
    expected = (len(page.trials) + page.repeats) * len(page.questions)
    record: Record = {
        "listener": votes.listener,
        "kind": votes.kind,
        "seed": votes.seed,
        "num_votes": len(votes.trials),
        "num_expected": expected,
        "num_repeated": len(again),
        "num_agreed": sum(gap == 0 for gap in gaps),
        "median_seconds": rounded(float(np.median([v.ms / 1000 for v in votes.trials]))),
    }
    if votes.kind == "ab":
        chosen_first = sum(v.choice == v.shown[0] for v in sided)
        record["share_first_side"] = rounded(chosen_first / len(sided)) if sided else None
    else:
        record["mean_gap"] = rounded(sum(gaps) / len(gaps)) if gaps else None
        anchors = [v.choice for v in votes.trials if not v.repeat and isinstance(v.choice, int)
                   and REAL in page.trials[v.trial].clips.values()]  # fmt: skip
        record["mean_of_recordings"] = rounded(sum(anchors) / len(anchors)) if anchors else None
    return record
