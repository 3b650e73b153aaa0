"""Votes: read strictly, counted honestly, with intervals that cover what they claim to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from listening.world import make_votes, write_file
from voxadapt.core.errors import UserError
from voxadapt.core.files import write_json
from voxadapt.listening.votes import (
    SMALL_PANEL,
    KeyPage,
    KeyTrial,
    ListeningKey,
    Unheard,
    read_key,
    read_votes,
    summarise_votes,
    two_way_interval,
)

SHARES = (0.0, 1.0)


def make_key(num_texts: int = 12, unheard: tuple[Unheard, ...] = ()) -> ListeningKey:
    names = ("real", "base", "epoch-1")
    ab = {
        f"t{n}": KeyTrial(text_id=f"u{n}", take=0, clips={f"{n}x": "base", f"{n}y": "epoch-1"})
        for n in range(num_texts)
    }
    mos = {
        f"m{n}{name}": KeyTrial(text_id=f"u{n}", take=0, clips={f"{n}{name}": name})
        for n in range(num_texts // 2)
        for name in names
    }
    pages = {
        "ab": KeyPage(file="ab.html", page_sha="a" * 64, questions=("likeness", "speech"),
                      repeats=2, trials=ab, unheard=unheard),
        "mos": KeyPage(file="mos.html", page_sha="b" * 64, questions=("naturalness", "likeness"),
                       repeats=2, trials=mos),
    }  # fmt: skip
    return ListeningKey(
        split="confirmation", pairs=(("base", "epoch-1"),), candidates=names,
        inputs=dict.fromkeys(names, "0"), sample_rate_hz=24000, level_dbfs=-26.0, pages=pages,
    )  # fmt: skip


KEY = make_key()


def ab(listener: str, rule: Any, seed: int, key: ListeningKey = KEY, **changes: Any) -> Any:
    return make_votes(key, "ab", listener, rule, seed, **changes)


def summary(folder: Path, *files: Any, key: ListeningKey = KEY) -> dict[str, Any]:
    paths = [write_file(folder / f"{n}.json", votes) for n, votes in enumerate(files)]
    return summarise_votes(key, read_votes(paths, key), 0.95)


# --- reading -----------------------------------------------------------------------------------


def damaged(change: str) -> Any:
    votes = ab("Ana", lambda text, question: "epoch-1", 1)
    first = votes["trials"][0]
    other = votes["trials"][2]
    {
        "unknown field": lambda: votes.update(colour="red"),
        "other schema": lambda: votes.update(schema="voxadapt-votes/2"),
        "other page": lambda: votes.update(page_sha="c" * 64),
        "other kind": lambda: votes.update(kind="mos"),
        "no name": lambda: votes.update(listener=""),
        "seed": lambda: votes.update(seed=2**32),
        "seed as text": lambda: votes.update(seed="1"),
        "no votes": lambda: votes.update(trials=[]),
        "unknown trial": lambda: first.update(trial="t99"),
        "unknown question": lambda: first.update(question="colour"),
        "clips of another trial": lambda: first.update(shown=other["shown"], choice=None),
        "one clip": lambda: first.update(shown=first["shown"][:1], plays=[1], choice=None),
        "choice of neither": lambda: first.update(choice="5x"),
        "a rating": lambda: first.update(choice=3),
        "not played": lambda: first.update(plays=[1, 0]),
        "negative time": lambda: first.update(ms=-1),
        "fraction": lambda: first.update(ms=1.5),
        "twice": lambda: votes["trials"].append(dict(first)),
    }[change]()
    return votes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("unknown field", "colour"), ("other schema", "schema"), ("other page", "votes of page c"),
        ("other kind", "votes of page b"), ("no name", "listener"), ("seed", "seed"),
        ("seed as text", "seed"), ("no votes", "trials"), ("unknown trial", "a trial of the page"),
        ("unknown question", "a question of the page"),
        ("clips of another trial", "the clips of its trial"),
        ("one clip", "the clips of its trial"),
        ("choice of neither", "one of the two clips"), ("a rating", "one of the two clips"),
        ("not played", "has to be played"), ("negative time", "ms"), ("fraction", "ms"),
        ("twice", "one answer to a question"),
    ],
)  # fmt: skip
def test_damaged_votes_are_refused(tmp_path: Path, change: str, words: str) -> None:
    path = write_file(tmp_path / "votes.json", damaged(change))
    with pytest.raises(UserError, match=words):
        read_votes([path], KEY)


@pytest.mark.parametrize("choice", [0, 6, None, "3", 2.5, True])
def test_ratings_are_whole_numbers_from_1_to_5(tmp_path: Path, choice: Any) -> None:
    votes = make_votes(KEY, "mos", "Ana", lambda name, question: 3)
    votes["trials"][4]["choice"] = choice
    with pytest.raises(UserError):
        read_votes([write_file(tmp_path / "votes.json", votes)], KEY)


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    good = write_file(tmp_path / "good.json", ab("Ana", lambda t, q: None, 1))
    again = write_file(tmp_path / "again.json", ab(" ana ", lambda t, q: None, 2))
    seed = write_file(tmp_path / "seed.json", ab("Ben", lambda t, q: None, 1))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    missing = tmp_path / "missing.json"
    with pytest.raises(UserError) as caught:
        read_votes([good, again, seed, broken, missing, good], KEY)
    found = {(Path(problem.where).name, problem.found) for problem in caught.value.problems}
    assert ("again.json", f"the same listener as in {good}") in found
    assert ("seed.json", f"the same seed as in {good}") in found
    assert ("good.json", f"the same listener as in {good}") in found
    assert ("missing.json", "nothing") in found
    assert {"broken.json"} <= {name for name, _ in found}
    assert len(caught.value.problems) == 5


def test_one_person_may_vote_on_both_pages(tmp_path: Path) -> None:
    found = summary(
        tmp_path,
        ab("Ana", lambda t, q: None, 1),
        make_votes(KEY, "mos", "Ana", lambda n, q: 3, 1),
    )
    assert found["num_listeners"] == 1
    assert len(found["listeners"]) == 2


def test_a_key_that_is_missing_or_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="voxadapt listen"):
        read_key(tmp_path / "key.json")
    (tmp_path / "key.json").write_text("{}")
    with pytest.raises(UserError, match="the key of the listening pages"):
        read_key(tmp_path / "key.json")
    write_json(tmp_path / "key.json", KEY.model_dump(mode="json", by_alias=True))
    assert read_key(tmp_path / "key.json") == KEY


# --- counting ----------------------------------------------------------------------------------


def test_preferences_are_counted_with_ties_halved(tmp_path: Path) -> None:
    def rule(text_id: str, question: str) -> str | None:
        number = int(text_id[1:])
        if question == "speech":
            return None
        return "epoch-1" if number < 8 else "base" if number < 10 else None

    found = summary(tmp_path, ab("Ana", rule, 1), ab("Ben", rule, 2), ab("Caro", rule, 3))
    likeness, speech = found["comparisons"]
    assert (likeness["wins"], likeness["losses"], likeness["ties"]) == (24, 6, 6)
    assert likeness["preference"]["point"] == pytest.approx((24 + 3) / 36)
    assert likeness["num_listeners"] == 3
    assert likeness["num_texts"] == 12
    assert likeness["num_votes"] == 36, "repeats are not counted twice"
    assert speech["preference"]["point"] == 0.5
    assert speech["preference"]["low"] < 0.5 < speech["preference"]["high"]
    assert speech["verdict"] == "undecided"
    assert found["num_votes"] == 3 * 2 * (12 + 2)


def test_the_verdict_follows_the_interval(tmp_path: Path) -> None:
    for number, (name, verdict) in enumerate([("epoch-1", "preferred"), ("base", "rejected")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = summary(folder, *(ab(str(n), lambda t, q, name=name: name, n) for n in range(6)))
        entry = found["comparisons"][0]
        assert entry["verdict"] == verdict
        assert 0.0 <= entry["preference"]["low"] <= entry["preference"]["high"] <= 1.0
        assert entry["preference"]["high"] - entry["preference"]["low"] > 0.2, "six people only"
        assert entry["sentence"].startswith(f"{name} is preferred to ")


def test_a_failed_clip_counts_against_its_side(tmp_path: Path) -> None:
    missing = (
        Unheard(text_id="v1", take=0, candidates=("base", "epoch-1"), missing=("epoch-1",)),
        Unheard(text_id="v2", take=0, candidates=("base", "epoch-1"), missing=("base",)),
        Unheard(text_id="v3", take=0, candidates=("base", "epoch-1"), missing=("base", "epoch-1")),
    )
    key = make_key(5, missing[:1])
    entry = summary(tmp_path, ab("Ana", lambda t, q: "epoch-1", 1, key), key=key)["comparisons"][0]
    assert entry["preference"]["point"] == pytest.approx(5 / 6, abs=1e-6)
    assert entry["num_unheard"] == 1
    key = make_key(5, missing)
    entry = summary(tmp_path, ab("Ana", lambda t, q: "epoch-1", 1, key), key=key)["comparisons"][0]
    assert entry["preference"]["point"] == pytest.approx((5 + 0 + 1 + 0.5) / 8, abs=1e-6)


def test_ratings_and_their_paired_difference(tmp_path: Path) -> None:
    levels = {"real": 5, "base": 2, "epoch-1": 3}
    found = summary(
        tmp_path,
        *(
            make_votes(KEY, "mos", f"p{n}", lambda c, q, n=n: min(5, levels[c] + n % 2), n)
            for n in range(4)
        ),
    )
    means = {(r["candidate"], r["question"]): r["mean"] for r in found["ratings"]}
    assert means["real", "likeness"]["point"] == 5.0
    assert means["real", "likeness"]["high"] == 5.0
    assert means["base", "likeness"]["point"] == 2.5
    assert all(
        1.0 <= mean["low"] <= mean["point"] <= mean["high"] <= 5.0 for mean in means.values()
    )
    for entry in found["rating_differences"]:
        difference = entry["difference"]
        assert difference["point"] == 1.0
        assert -4.0 <= difference["low"] < 1.0 < difference["high"] <= 4.0


def test_steadiness_and_sides_are_reported(tmp_path: Path) -> None:
    steady = ab("Ana", lambda t, q: "epoch-1", 1)
    sided = ab("Ben", lambda t, q: "epoch-1", 2)
    for vote in sided["trials"]:
        vote["choice"] = vote["shown"][0]
    mos = make_votes(KEY, "mos", "Caro", lambda name, q: 5 if name == "real" else 2, 3)
    for vote in mos["trials"]:
        if vote["repeat"]:
            vote["choice"] = min(5, vote["choice"] + 1)
    found = {
        entry["listener"]: entry for entry in summary(tmp_path, steady, sided, mos)["listeners"]
    }
    assert (found["Ana"]["num_repeated"], found["Ana"]["num_agreed"]) == (4, 4)
    assert (found["Ben"]["num_repeated"], found["Ben"]["num_agreed"]) == (4, 0)
    assert found["Ben"]["share_first_side"] == 1.0
    assert found["Caro"]["mean_of_recordings"] == 5.0
    assert found["Caro"]["num_agreed"] < found["Caro"]["num_repeated"]
    assert found["Ana"]["num_votes"] == found["Ana"]["num_expected"]
    assert found["Ana"]["median_seconds"] == 4.0


def test_an_unfinished_session_counts_for_what_it_has(tmp_path: Path) -> None:
    votes = ab("Ana", lambda t, q: "epoch-1", 1, finished=False)
    votes["trials"] = votes["trials"][:6]
    found = summary(tmp_path, votes)
    assert [entry["num_votes"] for entry in found["comparisons"]] == [3, 3]
    assert found["listeners"][0]["num_votes"] < found["listeners"][0]["num_expected"]


def test_nobody_asked_is_said(tmp_path: Path) -> None:
    found = summary(tmp_path, make_votes(KEY, "mos", "Ana", lambda n, q: 3, 1))
    assert found["comparisons"] == []
    votes = ab("Ana", lambda t, q: None, 1)
    votes["trials"] = [vote for vote in votes["trials"] if vote["question"] == "likeness"]
    votes["finished"] = False
    speech = summary(tmp_path, votes)["comparisons"][1]
    assert speech["preference"] == {"point": None, "low": None, "high": None, "n": 0, "se": None}
    assert speech["sentence"] == "Nobody has compared epoch-1 with base."


@pytest.mark.parametrize(
    "name",
    [
        "ana",
        "ANA",
        "A\u200bna",
        "\ufeffAna",
        "Ａｎａ",
        " Ana ",
        "Ana\u2060",
        "\u00adAna",
        "Ana\ufe0f",
        "A\u034fna",
        "Ana\u3164",
        "\uffa0Ana",
        "Ana\u2800",
        "An\U000e0101a",
    ],
)
def test_names_that_look_alike_are_one_listener(tmp_path: Path, name: str) -> None:
    files = [ab("Ana", lambda t, q: "epoch-1", 1), ab(name, lambda t, q: "epoch-1", 2)]
    paths = [write_file(tmp_path / f"{n}.json", votes) for n, votes in enumerate(files)]
    with pytest.raises(UserError, match="the same listener"):
        read_votes(paths, KEY)


@pytest.mark.parametrize("lost", [1, 3, -1])
def test_a_partial_session_is_not_finished(tmp_path: Path, lost: int) -> None:
    votes = ab("Ana", lambda t, q: "epoch-1", 1)
    votes["trials"] = votes["trials"][:-lost] if lost > 0 else votes["trials"][1:]
    with pytest.raises(UserError, match="as the file says `finished`"):
        read_votes([write_file(tmp_path / "votes.json", votes)], KEY)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"listener": "Ana", "listener": "Bo"}', "'listener' twice"),
        ('{"trials": [{"choice": 1, "choice": 2}]}', "'choice' twice"),
        ("[" * 100_000, "deeply nested"),
        (" " * 5_000_000, "more than 4 MB"),
        ("not json", "Expecting value"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "votes.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_votes([path], KEY)


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(UserError, match="no regular file"):
        read_votes(["/dev/zero"], KEY)


def test_two_listeners_are_told_what_they_cannot_show(tmp_path: Path) -> None:
    votes = [ab(name, lambda t, q: "epoch-1", n) for n, name in enumerate(("Ana", "Bo"))]
    sentence = summary(tmp_path, *votes)["comparisons"][0]["sentence"]
    assert "2 listeners cannot show" in sentence and "at least 6" in sentence


# --- intervals ---------------------------------------------------------------------------------


def test_one_listener_stands_for_nobody_else(tmp_path: Path) -> None:
    found = summary(tmp_path, ab("Ana", lambda t, q: "epoch-1", 1))
    assert found["comparisons"][0]["sentence"].endswith("This holds for that person only.")


def test_a_single_vote_has_no_interval() -> None:
    found = two_way_interval({("u1", "a"): 1.0}, 0.95, SHARES)
    assert (found.point, found.low, found.high, found.n) == (1.0, None, None, 1)


def test_more_listeners_and_more_sentences_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)

    def width(num_texts: int, num_people: int) -> float:
        votes = rng.random((num_texts, num_people)) < 0.6
        cells = {(str(s), str(p)): float(v) for (s, p), v in np.ndenumerate(votes)}
        found = two_way_interval(cells, 0.95, SHARES)
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert width(40, 40) < width(40, 6) < width(10, 3)
    assert width(40, 6) < width(6, 6)


def test_voters_who_agree_with_themselves_only_are_clusters() -> None:
    """Two hundred votes of ten people who each always vote the same are ten votes."""
    steady = {(f"{s:02d}", str(p)): float(p < 7) for s in range(20) for p in range(10)}
    drawn = np.random.default_rng(0).permutation(np.repeat([0.0, 1.0], [60, 140]))
    mixed = dict(zip(steady, drawn.tolist(), strict=True))
    wide = two_way_interval(steady, 0.95, SHARES)
    narrow = two_way_interval(mixed, 0.95, SHARES)
    assert wide.point == narrow.point == 0.7
    assert wide.low is not None and wide.high is not None
    assert narrow.low is not None and narrow.high is not None
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert wide.se == pytest.approx(np.sqrt(0.21 / 9), rel=0.02)


@pytest.mark.slow
@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abcde"), st.sampled_from("xyz")),
        st.sampled_from([0.0, 0.5, 1.0]), min_size=1,
    )
)  # fmt: skip
def test_intervals_hold_their_point_and_keep_to_the_scale(
    cells: dict[tuple[str, str], float],
) -> None:
    found = two_way_interval(cells, 0.95, SHARES)
    assert found.point == pytest.approx(np.mean(list(cells.values())))
    if found.low is not None and found.high is not None:
        assert 0.0 <= found.low <= found.point <= found.high <= 1.0
    shuffled = two_way_interval(dict(reversed(cells.items())), 0.95, SHARES)
    assert shuffled == found
    swapped = two_way_interval({k: 1 - v for k, v in cells.items()}, 0.95, SHARES)
    if found.low is not None:
        assert swapped.high == pytest.approx(1 - found.low)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_texts", "num_people", "spread_texts", "spread_people", "shift"),
    [
        (20, 5, 0.5, 0.5, 0.0), (20, 5, 1.0, 0.3, 1.0), (20, 10, 0.3, 1.0, 0.5),
        (12, 8, 0.5, 0.5, 1.0), (20, 3, 0.5, 0.5, 0.0), (20, 30, 0.5, 0.5, 0.5),
    ],
)  # fmt: skip
def test_intervals_cover_the_truth(
    num_texts: int, num_people: int, spread_texts: float, spread_people: float, shift: float
) -> None:
    """A vote is a threshold on shift + sentence + listener + noise; its mean is known."""
    rng = np.random.default_rng(7)
    trials, hits = 400, 0
    truth = norm.cdf(shift / np.sqrt(1 + spread_texts**2 + spread_people**2))
    for _ in range(trials):
        votes = (
            shift
            + spread_texts * rng.normal(size=(num_texts, 1))
            + spread_people * rng.normal(size=(1, num_people))
            + rng.normal(size=(num_texts, num_people))
        ) > 0
        cells = {(f"{s:02d}", f"{p:02d}"): float(v) for (s, p), v in np.ndenumerate(votes)}
        found = two_way_interval(cells, 0.95, SHARES)
        assert found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    # 95 % less 2.3 standard errors; more is conservative, and a small panel has to be.
    assert 0.925 <= hits / trials <= (1.0 if num_people < SMALL_PANEL else 0.995)


@pytest.mark.slow
@pytest.mark.parametrize("num_people", [2, 3])
def test_a_small_panel_with_strong_tastes_decides_nothing(num_people: int) -> None:
    """Nobody is preferred, but listeners differ: two of them once decided wrongly in 9 %."""
    rng = np.random.default_rng(11)
    trials, wrong = 300, 0
    for _ in range(trials):
        taste = 2.0 * rng.normal(size=(1, num_people)) + 0.5 * rng.normal(size=(20, 1))
        votes = (taste + rng.logistic(size=(20, num_people)) > 0).astype(float)
        cells = {(f"{s:02d}", f"{p:02d}"): float(v) for (s, p), v in np.ndenumerate(votes)}
        found = two_way_interval(cells, 0.95, SHARES)
        assert found.low is not None and found.high is not None
        wrong += not found.low <= 0.5 <= found.high
    assert wrong / trials <= 0.05


@pytest.mark.slow
def test_ratings_cover_the_truth() -> None:
    rng = np.random.default_rng(3)

    def ratings(num_texts: int, num_people: int) -> Any:
        liked = 3.4 + 0.4 * rng.normal(size=(num_texts, 1)) + 0.5 * rng.normal(size=(1, num_people))
        return np.clip(np.round(liked + 0.7 * rng.normal(size=(num_texts, num_people))), 1, 5)

    truth = ratings(2000, 2000).mean()
    hits = 0
    for _ in range(300):
        cells = {(f"{s}", f"{p}"): float(v) for (s, p), v in np.ndenumerate(ratings(15, 8))}
        found = two_way_interval(cells, 0.95, (1.0, 5.0))
        assert found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 300 <= 0.995


def test_the_summary_is_json(tmp_path: Path) -> None:
    found = summary(tmp_path, ab("Ana", lambda t, q: "epoch-1", 1))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_votes_that_balance_out_are_not_certain() -> None:
    """Sums by sentence and by listener that are all equal leave the variance of single votes."""
    cells = {(str(s), str(p)): float((s + p) % 2) for s in range(6) for p in range(6)}
    found = two_way_interval(cells, 0.95, SHARES)
    assert found.se == pytest.approx(0.5 / 6)
    assert found.low is not None
    assert found.low < 0.4
