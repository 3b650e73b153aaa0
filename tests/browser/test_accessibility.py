"""Both reports under axe-core, the checker that browsers and audits use: every part opened."""

from pathlib import Path
from typing import Any

import pytest

from reporting.language_world import make_language_params, write_language_world
from reporting.world import make_params, write_world
from voxadapt.reporting import language_page, speaker_page


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    params = make_params(4, max_grid_sentences=2)
    voice = write_world(tmp_path_factory.mktemp("voice"), params)
    spoken = make_language_params()
    language = write_language_world(tmp_path_factory.mktemp("language"), spoken, arms=True)
    return {
        "speaker": speaker_page.write_report(params, voice),
        "language": language_page.write_language_report(spoken, language),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["speaker", "language"])
def test_no_serious_barrier(
    browser_page: Any, reports: dict[str, Path], which: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    browser_page.set_default_timeout(120_000)  # the checker looks at every element
    browser_page.emulate_media(color_scheme=scheme)
    browser_page.goto(reports[which].resolve().as_uri())
    browser_page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    found = axe.run(browser_page).response
    assert len(found["passes"]) > 20, "axe has looked at the page"
    serious = [
        f"{item['id']} ({item['impact']}): {node['html'][:200]} {node.get('failureSummary', '')}"
        for item in found["violations"]
        if item["impact"] in ("serious", "critical")
        for node in item["nodes"][:5]
    ]
    assert not serious, "\n".join(serious)
