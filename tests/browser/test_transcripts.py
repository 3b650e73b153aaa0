"""The page of transcripts in a real browser: clips play from beside it, and it saves the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corpus import write_clip
from voxadapt.prepare.transcript_page import build
from voxadapt.prepare.transcript_table import COLUMNS, read_table

PAYLOAD = "</textarea></script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
TEXTS = ["=SUM(1), she said.", f'The "second" {PAYLOAD}', "Third."]


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    rows = []
    for number, text in enumerate(TEXTS):
        clip = f"clips/talk #{number} 100%.wav"
        write_clip(tmp_path / clip, 1.5, seed=number)
        row = dict.fromkeys(COLUMNS, "")
        row |= {"clip": clip, "text": text, "use": "yes", "heard": PAYLOAD, "note": "mine, kept"}
        rows.append(row)
    page = tmp_path / "transcripts.html"
    page.write_text(build(rows, f"voice {PAYLOAD}", "transcripts.csv"), encoding="utf-8")
    return page


def test_texts_are_mended_beside_their_sound_and_saved(browser_page: Any, page_file: Path) -> None:
    browser_page.goto(page_file.as_uri())
    assert browser_page.requests == [] and browser_page.console_errors == []
    assert browser_page.title().startswith("voice </textarea>")
    browser_page.evaluate("document.querySelector('audio').play()")
    browser_page.wait_for_function("document.querySelector('audio').duration > 1.4")
    texts = browser_page.locator("textarea")
    assert texts.nth(1).input_value() == TEXTS[1]
    texts.nth(0).fill("What\nwas  said.")
    texts.nth(0).press("Enter")
    assert browser_page.evaluate("document.activeElement.value") == TEXTS[1], "on to the next"
    browser_page.locator("select").nth(2).select_option("no")
    assert browser_page.inner_text("#count") == "1 of 3 checked"
    with browser_page.expect_download() as download:
        browser_page.click("#save")
    assert download.value.suggested_filename == "transcripts.csv"
    saved = page_file.with_name("saved.csv")
    download.value.save_as(saved)
    found = list(read_table(saved).values())
    assert [entry.text for entry in found] == ["What was said.", *TEXTS[1:]]
    assert [(entry.checked, entry.use) for entry in found] == [
        (True, "yes"), (False, "yes"), (False, "no"),
    ]  # fmt: skip
    assert found[0].extra == {"note": "mine, kept"}
    assert browser_page.console_errors == []


def test_it_fits_a_telephone(browser_page: Any, page_file: Path) -> None:
    browser_page.set_viewport_size({"width": 390, "height": 800})
    browser_page.goto(page_file.as_uri())
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= 390
