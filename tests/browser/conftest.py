"""A real Chromium for the pages: offline, as a reader opens them, with everything it asked for.

The browser is the machine's own, or Playwright's. Without one these tests are skipped, with the
reason; where one has to be there (`VOXADAPT_BROWSER=required`, as in `.ci/run`), they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSIDE = ("file:", "data:", "blob:", "about:")
SWITCHES = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-sync",
    # Asked for or not, nothing outside of this machine is reached.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--mute-audio",
    "--no-first-run",
)


def without_browser(reason: str) -> None:
    """Skip the test, or fail it where a browser is required."""
    if os.environ.get("VOXADAPT_BROWSER") == "required":
        pytest.fail(f"VOXADAPT_BROWSER=required, but {reason}", pytrace=False)
    pytest.skip(f"{reason}; install Chromium, or run `playwright install chromium`")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests, a Playwright `Browser`."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        without_browser(f"Playwright cannot be imported ({error})")
        raise
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = next(filter(None, map(shutil.which, NAMES)), None)
        if found is None and not own.is_file():
            without_browser(f"there is no browser ({', '.join(NAMES)})")
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        instance = playwright.chromium.launch(
            executable_path=found or str(own),
            args=[*SWITCHES, *(["--no-sandbox"] if root else [])],
        )
        yield instance
        instance.close()


@pytest.fixture
def browser_page(browser: Any) -> Iterator[Any]:
    """A fresh Playwright `Page` with its own storage; downloads are accepted.

    Two lists of strings hang on it: `requests`, the address of everything that the page tried to
    get from outside (also where its content security policy stopped it), and `console_errors`,
    messages of the console's error level and errors that no script caught.
    """
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)  # a slow machine is no failure
    page = context.new_page()
    page.requests, page.console_errors = [], []

    def asked(request: Any) -> None:
        if not request.url.startswith(INSIDE):
            page.requests.append(request.url)

    def said(message: Any) -> None:
        if message.type == "error":
            page.console_errors.append(message.text)

    page.on("request", asked)
    page.on("console", said)
    page.on("pageerror", lambda error: page.console_errors.append(str(error)))
    yield page
    context.close()
