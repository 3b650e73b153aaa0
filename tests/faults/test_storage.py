"""A disk that is full, read-only or over a quota: nothing is lost, and the message says what to do.

The full disk is a tmpfs of two megabytes where the tests may mount one; everywhere else the limit
on the size of a file (RLIMIT_FSIZE) stands for it.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from voxadapt.core import files
from voxadapt.core.errors import UserError, is_out_of_memory, storage_problem
from voxadapt.core.files import replacing, write_atomic, write_json
from voxadapt.core.locks import file_lock
from voxadapt.model.checkpoint import new_folder
from voxadapt.training.state import LoopState, save_state

MEGABYTE = 1 << 20


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:
        done = 1
    if done:
        pytest.skip("this user may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def state_of(number: int) -> tuple[LoopState, dict[str, torch.Tensor], torch.optim.Optimizer]:
    weights = {"w": torch.nn.Parameter(torch.full((600_000,), float(number)))}
    return LoopState(step=number), weights, torch.optim.SGD(list(weights.values()))


def refuses(text: str) -> pytest.RaisesExc:
    return pytest.raises(UserError, match=text)


def test_a_full_disk_leaves_every_earlier_file_whole_and_nothing_half(full_disk: Path) -> None:
    write_json(full_disk / "old.json", {"kept": True})
    path = full_disk / "state.pt"
    save_state(path, LoopState(), {}, torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]))
    before = path.read_bytes()
    for attempt in (
        lambda: write_atomic(full_disk / "old.json", b"x" * 3 * MEGABYTE),
        lambda: save_state(path, *state_of(1)),
        lambda: export(full_disk / "epoch-1"),
    ):
        with refuses("No space left on device|room to write") as caught:
            attempt()
        assert "repeat the command: it goes on where it was" in caught.value.problems[0].fix
    assert sorted(os.listdir(full_disk)) == ["old.json", "state.pt"]
    assert path.read_bytes() == before
    assert files.read_json(full_disk / "old.json") == {"kept": True}
    subprocess.run(["mount", "-o", "remount,size=32m", str(full_disk)], check=True)
    save_state(path, *state_of(2))
    export(full_disk / "epoch-1")
    assert torch.load(path, weights_only=True)["loop"]["step"] == 2
    assert (full_disk / "epoch-1" / "model.safetensors").stat().st_size > 2 * MEGABYTE


def export(target: Path) -> None:
    with new_folder(target) as folder:
        write_json(folder / "meta.json", {})
        save_file({"w": torch.zeros(600_000)}, folder / "model.safetensors")


def test_a_quota_is_told_as_well(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", LoopState(step=7), {}, state_of(0)[2])
    before = (tmp_path / "state.pt").read_bytes()
    for attempt in (
        lambda: write_atomic(tmp_path / "new.json", b"x" * MEGABYTE),
        lambda: save_state(tmp_path / "state.pt", *state_of(1)),
        lambda: export(tmp_path / "epoch-1"),
    ):
        with largest_file(MEGABYTE // 2), refuses("use a larger disk"):
            attempt()
    assert os.listdir(tmp_path) == ["state.pt"]
    assert (tmp_path / "state.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "Free space there"),
        (errno.EDQUOT, "Free space there"),
        (errno.EROFS, "Give this user the right"),
        (errno.EACCES, "Give this user the right"),
        (errno.EIO, "Check the disk"),
    ],
)
def test_each_error_of_the_disk_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fix: str
) -> None:
    write_atomic(tmp_path / "file", "old")

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fails)
            with refuses(fix) as caught:
                write_atomic(tmp_path / "file", "new")
        (problem,) = caught.value.problems
        assert problem.where == str(tmp_path / "file")
        assert problem.found == os.strerror(number)
        assert (tmp_path / "file").read_text() == "old"
        assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """As root no mode forbids writing, so a read-only mount or a file in the way stands for it."""
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o500)
    else:
        bind = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
        if subprocess.run(bind, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount a tmpfs")
    try:
        for attempt in (
            lambda: write_atomic(folder / "deep" / "x.json", "{}"),
            lambda: export(folder / "epoch-1"),
            lambda: file_lock(folder, "audit").__enter__(),
        ):
            with refuses("Give this user the right to it") as caught:
                attempt()
            assert str(folder) in caught.value.problems[0].where
    finally:
        if os.geteuid():
            folder.chmod(0o700)
        else:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_other_errors_are_not_taken_for_the_disk() -> None:
    for error in (ValueError("os"), FileNotFoundError(2, "no"), RuntimeError("shape mismatch")):
        assert storage_problem(error, "x") is None
        assert not is_out_of_memory(error)


@pytest.mark.slow
def test_two_writers_of_one_file_never_mix_their_bytes(tmp_path: Path) -> None:
    """Many processes write the same file with different contents: each state of it is whole."""
    path = tmp_path / "shared"
    contents = [bytes([65 + n]) * (1000 + 400 * n) for n in range(4)]
    children = []
    for content in contents:
        child = os.fork()
        if not child:
            for _ in range(40):
                write_atomic(path, content)
            os._exit(0)
        children.append(child)
    seen = set()
    while children:
        if os.waitpid(children[0], os.WNOHANG)[0]:
            children.pop(0)
        if path.is_file():
            seen.add(path.read_bytes())
    assert seen <= set(contents)
    assert os.listdir(tmp_path) == ["shared"]


def test_what_a_killed_writer_left_is_taken_over(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with replacing(tmp_path / "file") as part:
            part.write_bytes(b"half of")
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert os.listdir(tmp_path) == [".file.part"]
    write_atomic(tmp_path / "file", "whole")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_whose_replacement_was_cut_off_comes_back(tmp_path: Path) -> None:
    """Killed between taking the old folder away and putting the new one there."""
    export(tmp_path / "epoch-1")
    old = tmp_path / ".epoch-1.abc.old"
    old.mkdir()
    (tmp_path / "epoch-1").rename(old / "epoch-1")
    (tmp_path / ".epoch-1.def.part").mkdir()
    with pytest.raises(KeyError), new_folder(tmp_path / "epoch-1"):
        raise KeyError("the new one fails as well")
    assert os.listdir(tmp_path) == ["epoch-1"]
    assert (tmp_path / "epoch-1" / "meta.json").is_file()
    shutil.rmtree(tmp_path / "epoch-1")
