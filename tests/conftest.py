"""Settings for the whole suite: repeatable property tests, quiet threads, no wait for the disk."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import soundfile
from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
#: Where most of the time goes: begun first, or one of two workers waits at the end.
LONGEST = (
    "pipeline/test_whole_language.py", "pipeline/test_whole_speaker.py", "tools/test_counted.py",
    "scoring/test_deaf_recogniser.py", "faults/test_kills.py", "training/test_distributed.py",
    "pipeline/test_speakers.py", "pipeline/test_two_languages.py", "training/test_optimizer.py",
    "browser/test_lab.py", "tools/test_certify.py", "tools/test_experiments.py",
)  # fmt: skip
MOST_S = 8.0  # of a test that is not slow; ten times what the dearest one takes
# The same examples every time and no deadlines: a slow machine is no failure.
settings.register_profile("voxadapt", deadline=None, derandomize=True, database=None)
settings.register_profile("loop", settings.get_profile("voxadapt"), max_examples=20)
settings.load_profile("voxadapt")


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> Iterator[None]:
    """Leave out what only a crash of the whole machine would show: thousands of waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr(soundfile.SoundFile, "flush", lambda sound: None)  # closing writes as well
        yield


@pytest.hookimpl(tryfirst=True)  # before xdist reads the options
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run on two cores where no files are named and nobody wants to look in."""
    if hasattr(config, "workerinput"):  # one of the two
        return
    option = config.option
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    looks_in = option.usepdb or option.collectonly or option.capture == "no"
    if whole and not looks_in and option.numprocesses is None and (os.cpu_count() or 1) > 1:
        option.numprocesses, option.dist, option.loadscopereorder = 2, "loadfile", False


def pytest_configure(config: pytest.Config) -> None:
    """Try a fifth of the examples of a property where the slow tests are left out."""
    if config.getoption("-m") == "not slow":
        settings.load_profile("loop")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import nothing of a file that is slow as a whole when the slow ones are left out."""
    if config.getoption("-m") != "not slow" or not collection_path.match("test_*.py"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    whole = re.search(r"^pytestmark = (\[\s*)?pytest\.mark\.slow\b", text, flags=re.MULTILINE)
    return True if whole or collection_path.parent.name == "browser" else None


def pytest_collection_finish() -> None:
    """Let the garbage collector leave alone what was imported: a million objects of torch."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Collect once what the ten collections of pytest's farewell would walk over."""
    pytest_collection_finish()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that takes long and is not marked so: the loop while one works stays short."""
    before = _spent_s()
    result = yield
    if item.get_closest_marker("slow") is None and _spent_s() - before > MOST_S:
        pytest.fail(f"took {_spent_s() - before:.1f} s of CPU time: mark it slow", pytrace=False)
    return result


def _spent_s() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, unless it was asked for by its marker."""
    for item in items:
        if item.path.parent.name == "browser":  # a Chromium each
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):  # side by side: the longest files first
        place = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get("/".join(item.path.parts[-2:]), len(place)))
    asked = config.getoption("-m") or ""
    if "network" not in asked:
        skip = pytest.mark.skip(reason="needs the internet: run with -m network")
        for item in items:
            if "network" in item.keywords:
                item.add_marker(skip)
    gpu_items = [item for item in items if "gpu" in item.keywords]
    if gpu_items:
        import torch

        if not torch.cuda.is_available():
            for item in gpu_items:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
