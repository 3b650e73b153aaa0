"""The fixture sees what it is there to see: otherwise "no request" would mean nothing."""

from pathlib import Path
from typing import Any


def show(page: Any, folder: Path, html: str) -> None:
    path = folder / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8>{html}", encoding="utf-8")
    page.goto(path.as_uri())
    page.wait_for_timeout(200)


def test_requests_are_seen(browser_page: Any, tmp_path: Path) -> None:
    show(browser_page, tmp_path, '<img alt="" src="https://example.invalid/a.png">')
    assert browser_page.requests == ["https://example.invalid/a.png"]


def test_requests_that_the_policy_stops_are_seen(browser_page: Any, tmp_path: Path) -> None:
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    show(browser_page, tmp_path, f'{policy}<img alt="" src="https://example.invalid/a.png">')
    assert browser_page.requests == ["https://example.invalid/a.png"]
    assert any("Content Security Policy" in text for text in browser_page.console_errors)


def test_errors_of_scripts_are_seen(browser_page: Any, tmp_path: Path) -> None:
    show(browser_page, tmp_path, "<script>console.error('said'); nothing.here()</script>")
    assert any("said" in text for text in browser_page.console_errors)
    assert any("nothing is not defined" in text for text in browser_page.console_errors)


def test_a_quiet_page_is_quiet(browser_page: Any, tmp_path: Path) -> None:
    show(browser_page, tmp_path, "<p>Nothing.</p>")
    assert browser_page.requests == [] == browser_page.console_errors
