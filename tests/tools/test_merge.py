"""A git merge that stops at dvc.lock is ended stage by stage."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from voxadapt.core.errors import UserError
from voxadapt.tools.merge import merge_entries, merge_lock

LOCKS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))


@pytest.mark.slow
@given(base=LOCKS, ours=LOCKS, theirs=LOCKS)
def test_every_entry_is_of_a_side_that_changed_it(base, ours, theirs):
    merged = merge_entries(base, ours, theirs)
    for name in {*base, *ours, *theirs}:
        was, here, there = base.get(name), ours.get(name), theirs.get(name)
        if name in merged.dropped:
            assert len({was, here, there}) == 3 or (here != there and was not in (here, there))
            assert name not in merged.entries
        elif here == there:
            assert merged.entries.get(name) == here
        else:
            assert merged.entries.get(name) == (there if here == was else here)


@given(base=LOCKS, ours=LOCKS, theirs=LOCKS)
def test_the_side_does_not_matter(base, ours, theirs):
    one, other = merge_entries(base, ours, theirs), merge_entries(base, theirs, ours)
    assert one.entries == other.entries
    assert set(one.dropped) == set(other.dropped)


def git(folder: Path, *arguments: str, code: int = 0) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, check=False)
    assert done.returncode == code, done.stderr


def lock(folder: Path, **md5: str) -> None:
    stages = {name: {"cmd": name, "outs": [{"path": name, "md5": md5[name]}]} for name in md5}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


@pytest.fixture
def merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A merge in conflict: `train` ran on both branches, `audit` here, `report` there."""
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "reports").mkdir()
    metrics = tmp_path / "reports" / "train.json"
    for branch, md5, value in (
        ("main", {"audit": "0", "train": "0", "report": "0"}, "0"),
        ("there", {"audit": "0", "train": "2", "report": "2"}, "2"),
        ("main", {"audit": "1", "train": "1", "report": "0"}, "1"),
    ):
        git(tmp_path, "checkout", "-q", *(["-b"] if branch == "there" else []), branch,
            code=1 if branch == "main" and value == "0" else 0)  # fmt: skip
        lock(tmp_path, **md5)
        metrics.write_text(value)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", branch)
    git(tmp_path, "merge", "there", code=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_stage_that_one_side_ran_keeps_its_record(merging):
    merged = merge_lock()
    assert merged.dropped == ("train",)
    stages = yaml.safe_load((merging / "dvc.lock").read_text())["stages"]
    assert {name: entry["outs"][0]["md5"] for name, entry in stages.items()} == {
        "audit": "1",
        "report": "2",
    }
    assert (merging / "reports" / "train.json").read_text() == "1"
    git(merging, "commit", "-qm", "merged")


def test_a_side_without_a_lock_takes_no_record_away(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "-b", "main")
    lock(tmp_path, audit="0", train="0")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "both")
    git(tmp_path, "checkout", "-q", "-b", "there")
    git(tmp_path, "rm", "-q", "dvc.lock")
    git(tmp_path, "commit", "-q", "-m", "there")
    git(tmp_path, "checkout", "-q", "main")
    lock(tmp_path, audit="0", train="1")
    git(tmp_path, "commit", "-q", "-a", "-m", "here")
    git(tmp_path, "merge", "there", code=1)
    monkeypatch.chdir(tmp_path)
    merged = merge_lock()
    assert merged.dropped == () and merged.entries["train"]["outs"][0]["md5"] == "1"
    assert set(merged.entries) == {"audit", "train"}


def test_without_a_conflict_nothing_is_written(merging):
    merge_lock()
    with pytest.raises(UserError, match="no conflict"):
        merge_lock()


@pytest.mark.slow
def test_a_lock_that_is_no_lock_is_named(merging):
    git(merging, "merge", "--abort")
    (merging / "dvc.lock").write_text("stages: [1]\n")
    git(merging, "commit", "-qam", "broken")
    git(merging, "merge", "there", code=1)
    with pytest.raises(UserError, match="this branch"):
        merge_lock()
