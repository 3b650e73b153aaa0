"""The page of `voxadapt evaluate` in a real browser: offline, quiet, text shown as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reporting.world import TEXTS, write_tone
from rows import make_system
from voxadapt.core.params import SelectParams
from voxadapt.reporting.evaluate_page import write_page
from voxadapt.scoring.rows import ScoreRow, evaluator_id, rows_sha
from voxadapt.scoring.score_clips import summarise
from voxadapt.selection.comparison import compare_systems

PAYLOAD = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
SELECT = SelectParams(num_bootstrap=300)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("external")
    systems: dict[str, list[ScoreRow]] = {}
    for place, (name, error) in enumerate((("first", 0.1), (f"second {PAYLOAD}", 0.3))):
        systems[name] = []
        for index, row in enumerate(make_system(name, len(TEXTS), 1, error=error)):
            wav = f"{place}-{index}.wav"
            write_tone(root / wav, 10 * place + index)
            update: dict[str, Any] = {
                "text": TEXTS[index] if index else PAYLOAD, "wav": wav,
                "text_norm": TEXTS[index].lower(), "hyp_norm": f"{PAYLOAD} {TEXTS[index].lower()}",
            }  # fmt: skip
            if place and index == 3:
                update |= {"status": "failed", "wav": "", "message": f"no file {PAYLOAD}"}
            systems[name].append(row.model_copy(update=update))
    rows = [row for found in systems.values() for row in found]
    summary = {
        "manifest": {"name": "clips.jsonl", "sha256": "0" * 64},
        "language": "en",
        "error_metric": "wer",
        "evaluator": evaluator_id(rows),
        "inputs": {name: rows_sha(found) for name, found in systems.items()},
        "systems": {name: summarise(found, SELECT) for name, found in systems.items()},
        "comparison": compare_systems(systems, SELECT),
        "asr_floor": None,
        "similarity": {"measured": True, "scale": None},
        "n_expected": len(rows),
        "n_measured": len(rows) - 1,
        "missing": [{"system": row.candidate, "text_id": row.text_id, "text": row.text,
                     "take": 0, "message": row.message}
                    for row in rows if row.status == "failed"],
        "notes": [f"A note {PAYLOAD}"],
        "versions": {"python": "3"},
    }  # fmt: skip
    return write_page(root / "index.html", summary, rows, root)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_whole_quiet_and_runs_no_payload(
    browser_page: Any, page_file: Path, width: int
) -> None:
    browser_page.set_viewport_size({"width": width, "height": 800})
    browser_page.goto(page_file.as_uri())
    assert browser_page.requests == [] and browser_page.console_errors == []
    assert browser_page.title().startswith("2 systems, 16 clips")
    assert "<script>document.title='run'</script>" in browser_page.inner_text("#listen")
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= width
    assert browser_page.locator("#failed tbody tr").first.is_visible()


def test_filters_and_players_work(browser_page: Any, page_file: Path) -> None:
    browser_page.goto(page_file.as_uri())
    shown = browser_page.locator("#sample .sentence:visible")
    assert shown.count() == len(TEXTS)
    browser_page.fill("input[type=search]", "lamp")
    assert shown.count() == 1
    browser_page.fill("input[type=search]", "")
    sound = browser_page.locator("#sample .sentence[open] audio").first
    played = "sound => new Promise(done => {sound.onended = () => done(true); sound.play();})"
    assert sound.evaluate(played)
    assert browser_page.requests == [] and browser_page.console_errors == []
