"""Refresh what the README shows of the last run: figures, picture, clips and example page.

    python docs/make_readme.py     # after `dvc repro`; needs Chromium, as tests/browser does

It writes the block of README.md between its two comments, docs/report.png and, in docs/examples,
report.html with the clips of one sentence, whose other clips are left out for their size.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

from voxadapt.selection import wording

ROOT = Path(__file__).resolve().parents[1]
REPORTS, EXAMPLES = ROOT / "reports", ROOT / "docs" / "examples"
BLOCK = re.compile(r"(<!-- figures[^>]*-->\n).*?(<!-- end of figures -->)", re.DOTALL)
#: In the picture: the verdict and the ladders; where a page has none, its head.
SHOWN = ("#verdict", "#ladders")
OTHERWISE = ("header.top h1", "header.top .scale")
WIDTH_PX = 1200
#: A clip of the page: its spectrogram, where it has one, and its player.
CLIP = re.compile(
    r'(?:<div class="mel"(?:(?!</div>).)*</div>\s*)?'
    r'<audio(?P<head>[^>]*?) src="data:audio/\w+;base64,(?P<sound>[^"]+)"[^>]*>(?:</audio>)?',
    re.DOTALL,
)
SILENT = '<span class="missing">without its sound</span>'
NOTE = (
    '<p class="warning">This is an example: the first sentence alone has its sound. The report of '
    "a run plays every clip.</p>"
)

WHO = ("base", "chosen")


def figures(selection: dict[str, Any], confirm: dict[str, Any], clips: list[str]) -> str:
    """Write the block of figures: the choice, what was measured of it, and where to hear it."""
    chosen, measures = confirm["chosen"], confirm["measures"]
    name = chosen.replace("epoch-", "epoch ")
    metric = confirm["error_metric"]
    above = confirm["usable"]["measures"]["error_above_codec"]["value"]
    coded = measures[metric]["chosen"]["point"] - above
    rows = [
        ("similarity to the voice", *(f"{measures['sim'][who]['point']:.2f}" for who in WHO),
         f"{selection['scale']['codec_ceiling']:.2f}"),
        (f"{'word' if metric == 'wer' else 'character'} error rate",
         *(f"{100 * measures[metric][who]['point']:.0f} %" for who in WHO),
         f"{100 * coded:.0f} %"),
    ]  # fmt: skip
    heard = [f"[{clip.replace('-', ' ')}](docs/examples/{clip}.mp3)" for clip in clips]
    lines = [
        f"| {confirm['num_texts']} sentences kept back from the choice | Base | {name}, chosen "
        "| recordings through the codec |",
        "|---|---:|---:|---:|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"The verdict: **{wording.verdict(confirm)[0]}**. {confirm['usable']['sentence']}",
        "",
        f"Hear one sentence: {', '.join(heard)}. The [report](docs/examples/report.html), with the "
        "sound of one sentence.",
    ]
    return "\n".join(lines) + "\n"


def example(page: str) -> tuple[str, dict[str, bytes]]:
    """Leave all clips out of a report but those of the first sentence; return these as well."""
    kept: dict[str, bytes] = {}

    def keep(found: re.Match[str]) -> str:
        label = re.search(r'aria-label="([^"]*)"', found["head"])
        name = re.sub(r"\W+", "-", (label[1] if label else "clip").split(",")[0].lower()).strip("-")
        if len(kept) < 3 and name not in kept:
            kept[name] = base64.b64decode(found["sound"])
            return found[0]
        return SILENT

    page = CLIP.sub(keep, re.sub(r'<a href="(?!#)[^"]*"', "<a", page))  # what is not beside it
    return re.sub(r"(<h2>Hear it</h2>)", rf"\1\n{NOTE}", page), kept


def photograph(page: Path, picture: Path) -> None:
    """Take the picture of the verdict and the ladders, as a wide screen shows them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH_PX, "height": 900})
        tab.goto(page.resolve().as_uri())
        names = SHOWN if all(tab.query_selector(name) for name in SHOWN) else OTHERWISE
        boxes = [box for name in names if (box := tab.locator(name).first.bounding_box())]
        left, top = (min(box[side] for box in boxes) for side in ("x", "y"))
        right = max(box["x"] + box["width"] for box in boxes)
        bottom = max(box["y"] + box["height"] for box in boxes)
        edge = 12
        clip = {"x": max(0, left - edge), "y": max(0, top - edge),
                "width": right - left + 2 * edge, "height": bottom - top + 2 * edge}  # fmt: skip
        tab.screenshot(path=str(picture), clip=clip, full_page=True)
        browser.close()


def main() -> None:
    """Refresh everything from `reports/`."""
    selection, confirm = (
        json.loads((REPORTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("selection", "confirm")
    )
    page, clips = example((REPORTS / "index.html").read_text(encoding="utf-8"))
    for old in EXAMPLES.glob("*.mp3"):
        old.unlink()
    for name, sound in clips.items():
        (EXAMPLES / f"{name}.mp3").write_bytes(sound)
    (EXAMPLES / "report.html").write_text(page, encoding="utf-8")
    photograph(REPORTS / "index.html", ROOT / "docs" / "report.png")
    readme = ROOT / "README.md"
    block = figures(selection, confirm, list(clips))
    text = BLOCK.sub(lambda found: found[1] + block + found[2], readme.read_text(encoding="utf-8"))
    epoch = re.compile(r"artifacts/checkpoints/(base|epoch-\d+)")
    readme.write_text(epoch.sub(f"artifacts/checkpoints/{confirm['chosen']}", text),
                      encoding="utf-8")  # fmt: skip


if __name__ == "__main__":
    main()
