"""What each test costs in CPU time, its processes included; a busy machine changes it little.

    python -m pytest -n 0 -p benchmarks.cpu_times -m "not slow"

Prints the thirty dearest tests, fixtures counted where they are made, and the sum of each file.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator

import pytest

_tests: Counter[str] = Counter()
_start = 0.0


def _spent_s() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure a test with its setup and teardown."""
    before = _spent_s()
    result = yield
    _tests[item.nodeid] += _spent_s() - before  # type: ignore[assignment]
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    files: Counter[str] = Counter()
    for name, spent_s in _tests.items():
        files[name.split("::")[0]] += spent_s
    for title, counted in (("tests", _tests), ("files", files)):
        terminalreporter.section(f"CPU seconds of {title}")
        for name, spent_s in counted.most_common(30 if title == "tests" else None):
            terminalreporter.line(f"{spent_s:8.2f}  {name}")
    terminalreporter.line(
        f"{sum(_tests.values()):8.2f}  all, {_spent_s():.2f} with what is imported"
    )
