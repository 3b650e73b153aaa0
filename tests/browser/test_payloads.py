"""Scripts in every text that a page shows: shown as text on every page, run on none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from listening.world import listening_params, write_listening_world
from reporting.language_world import make_language_params, write_language_world
from reporting.world import make_params, write_world
from voxadapt.core import paths
from voxadapt.core.errors import Problem
from voxadapt.core.params import Params
from voxadapt.listening import pages as listening
from voxadapt.reporting import components, players, tables
from voxadapt.reporting import language_page as language
from voxadapt.reporting import speaker_page as page
from voxadapt.tools.notebook import to_html

SCRIPT = "<script>document.title='owned'</script>"
PAYLOAD = (
    f"{SCRIPT}</script></style></textarea><img src=x onerror=\"document.title='owned'\">"
    "<svg onload=\"document.title='owned'\"><a href=\"javascript:document.title='owned'\">x</a>"
    "<iframe src=https://example.invalid></iframe><meta http-equiv=refresh content=0>"
    "\"'><base href=https://example.invalid>{{7*7}}<!--"
)
# What people, models and tools write; all of it ends on a page.
FREE = {
    "text", "hyp", "hyp_norm", "message", "reason", "respelling", "asr_id", "sim_id", "example",
    "speaker_name", "rule_text", "source", "label", "script", "flags",
}  # fmt: skip


def poison(root: Path, free: set[str] = FREE) -> int:
    """Append the payload to every free text of a project's records; return how many there were."""
    count = 0

    def change(value: Any, key: str = "") -> Any:
        nonlocal count
        if isinstance(value, dict):
            return {k: change(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [change(item, key) for item in value]
        if isinstance(value, str) and key in free and value:
            count += 1
            return f"{value} {PAYLOAD}"
        return value

    for path in sorted(root.rglob("*.json*")):
        lines = path.read_text(encoding="utf-8")
        rows = lines.splitlines() if path.suffix == ".jsonl" else [lines]
        changed = [json.dumps(change(json.loads(row)), ensure_ascii=False) for row in rows if row]
        path.write_text("".join(f"{row}\n" for row in changed), encoding="utf-8")
    return count


def poisoned(params: Params) -> Params:
    """Put the payload into the names that parameters give."""
    name = {"base": f"models/{PAYLOAD}"}
    return params.model_copy(
        update={
            "profile": f"mine {PAYLOAD}",
            "model": params.model.model_copy(update=name),
            "asr": params.asr.model_copy(update={"model": f"whisper {PAYLOAD}"}),
            "train": params.train.model_copy(update={"speaker_name": f"Aria {PAYLOAD}"}),
            "report": params.report.model_copy(update={"title": f"Title {PAYLOAD}"}),
        }
    )


def write_consent(root: Path, metrics: Path) -> None:
    path = root / metrics
    values = json.loads(path.read_text())
    values["num_rows"] = 24
    values["consent"] = {"num_rows": 2, "statements": {f"yes {PAYLOAD}": 2}}
    path.write_text(json.dumps(values))


def shown(browser_page: Any, path: Path) -> str:
    """Open a page; nothing of the payload may have become part of it. Returns its source."""
    browser_page.goto(path.resolve().as_uri())
    browser_page.evaluate("() => document.querySelectorAll('details').forEach((d) => d.open = 1)")
    browser_page.wait_for_timeout(300)
    assert browser_page.requests == []
    assert [text for text in browser_page.console_errors if "favicon" not in text] == []
    assert browser_page.title() != "owned"
    foreign = (
        '() => [...document.querySelectorAll("iframe, base, meta[http-equiv=refresh], [onerror],'
        " [onload], a[href^='javascript:'], img[src='x']\")].map((e) => e.outerHTML)"
    )
    assert browser_page.evaluate(foreign) == []
    assert browser_page.url == path.resolve().as_uri(), "the page stayed where it was"
    html = path.read_text(encoding="utf-8")
    policy = browser_page.evaluate(
        "() => document.querySelector('meta[http-equiv=Content-Security-Policy]').content"
    )
    assert policy.startswith("default-src 'none'") and "http" not in policy
    scripts = re.search(r"script-src ([^;]*)", policy)
    assert scripts is None or ("sha256-" in scripts[1] and "unsafe" not in scripts[1])
    return html


def test_report(browser_page: Any, tmp_path: Path) -> None:
    params = make_params(4, max_grid_sentences=4)
    write_world(tmp_path, params)
    assert poison(tmp_path) > 500
    write_consent(tmp_path, paths.SPEAKER.audit_metrics)
    html = shown(browser_page, page.write_report(poisoned(params), tmp_path))
    text = browser_page.inner_text("body")
    assert text.count("document.title='owned'") > 50, "the texts are there, as texts"
    assert "Consent, as 2 of 24 rows state it: “yes <script>" in text
    assert SCRIPT not in html.replace("\\u003c", "<").split("<main")[1].split("<script>")[0]


def test_language_report(
    browser_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    params = make_language_params()
    write_language_world(tmp_path, params, arms=True)
    # The page respells the sentences, which a text with markup in it would stop.
    assert poison(tmp_path, FREE - {"text"}) > 500
    shown(browser_page, language.write_language_report(poisoned(params), tmp_path))
    assert browser_page.inner_text("body").count("document.title='owned'") > 50


@pytest.mark.parametrize("kind", ["ab", "mos"])
def test_listening_pages(browser_page: Any, tmp_path: Path, kind: str) -> None:
    params = listening_params(4)
    write_listening_world(tmp_path, params)
    assert poison(tmp_path) > 500
    listening.write_listening(poisoned(params), tmp_path)
    shown(browser_page, tmp_path / "reports" / "listen" / f"{kind}.html")
    browser_page.fill("#listener", PAYLOAD[:40])
    browser_page.keyboard.press("Enter")
    browser_page.wait_for_selector("#trial:not([hidden])")
    assert "document.title='owned'" in browser_page.inner_text("#trial")
    assert browser_page.title() != "owned" and browser_page.requests == []


def test_notebook_pages(browser_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit's page, and whatever a cell of any notebook prints, shows or fails with."""
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path, make_params())
    poison(tmp_path)
    write_consent(tmp_path, paths.SPEAKER.audit_metrics)
    render = DisplayFormatter().format
    displays = [
        tables.findings(), tables.consent(), tables.splits(),
        players.clips_with_findings(), players.worst_clips("base"), players.round_trip(),
    ]  # fmt: skip
    problems = [Problem(PAYLOAD, PAYLOAD, PAYLOAD, PAYLOAD).as_dict()]
    table = components.environment().get_template("problems.html.j2")
    outputs: list[dict[str, Any]] = [
        {"output_type": "display_data", "data": render(item)[0], "metadata": {}}
        for item in displays
    ]
    outputs += [
        {"output_type": "display_data", "metadata": {},
         "data": {"text/html": table.render(title=PAYLOAD, problems=problems)}},
        {"output_type": "stream", "name": "stdout", "text": f"clip {PAYLOAD}\n"},
        {"output_type": "error", "ename": "UserError", "evalue": PAYLOAD,
         "traceback": [f"\x1b[31mUserError\x1b[0m: {PAYLOAD}"]},
    ]  # fmt: skip
    cell = {"cell_type": "code", "id": "c0", "metadata": {}, "execution_count": 1,
            "source": f"print({PAYLOAD!r})", "outputs": outputs}  # fmt: skip
    nb = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path = tmp_path / "01_audit_data.html"
    path.write_text(to_html(nb, f"01_audit_data {PAYLOAD}"), encoding="utf-8")
    html = shown(browser_page, path)
    assert "script-src" not in html.split("<body>")[0], "a notebook's page runs no script at all"
    assert browser_page.inner_text("body").count("document.title='owned'") > 20
    assert "Speak only with voices whose owners agreed" in browser_page.inner_text("body")
