"""Settings for the whole suite: repeatable property tests, quiet threads, no wait for the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import soundfile
from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The same examples every time and no deadlines: a slow machine is no failure.
settings.register_profile("voxadapt", deadline=None, derandomize=True, database=None)
settings.load_profile("voxadapt")


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> Iterator[None]:
    """Leave out what only a crash of the whole machine would show: thousands of waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr(soundfile.SoundFile, "flush", lambda sound: None)  # closing writes as well
        yield


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, unless it was asked for by its marker."""
    for item in items:
        if item.path.parent.name == "browser":  # a Chromium each
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):  # side by side: the longest files first
        items.sort(key=lambda item: not item.path.name.startswith("test_whole_"))
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
