"""The report as its reader has it: opened from a file, in a real browser, with the network gone."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reporting.world import TEXTS, make_params, write_world
from voxadapt.core import paths
from voxadapt.core.files import read_json, read_jsonl, write_json, write_jsonl
from voxadapt.reporting import speaker_page as page

PAYLOAD = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
CLIPS_A_SENTENCE = 7  # recording, coded, Base and four epochs


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose texts, transcripts, flags and reasons try to run scripts."""
    params = make_params(4, title=PAYLOAD, max_grid_sentences=6)
    root = write_world(tmp_path_factory.mktemp("report"), params)
    for name in params.candidates:
        path = root / paths.SCORES / name / "rows.jsonl"
        rows = read_jsonl(path)
        for row in rows:
            row["hyp_norm"] = f"{row['hyp_norm']} {PAYLOAD}"
            if row["text"] == TEXTS[2]:
                row |= {"flags": [PAYLOAD], "message": PAYLOAD}
            if row["text"] == TEXTS[3]:
                row["text"] = f"{row['text']} {PAYLOAD}"
        write_jsonl(path, rows)
    reason = {"reason": f"Because {PAYLOAD}"}
    write_json(root / paths.SELECTION, read_json(root / paths.SELECTION) | reason)
    return page.write_report(params, root)


@pytest.fixture
def opened(browser_page: Any, report: Path) -> Any:
    browser_page.goto(report.resolve().as_uri())
    browser_page.locator("#listen > summary").click()
    return browser_page


def until(page: Any, expression: str) -> None:
    """Wait for an expression to hold; `wait_for_function` polls by eval, which the page forbids."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def said(opened: Any) -> list[str]:
    """Return the texts of the sentences that are shown, in order."""
    found = opened.locator("#sample .sentence:visible .said").all_inner_texts()
    return [text.split("<")[0].strip() for text in found]


def test_it_asks_for_nothing_and_runs_nothing_but_its_own_script(opened: Any) -> None:
    opened.locator("button.open").click()
    opened.wait_for_timeout(300)
    assert opened.requests == []
    assert opened.console_errors == []
    assert "document.title" in opened.title()  # the payload is shown, not run
    assert opened.locator("main script, main img[src='x']").count() == 0
    assert "<script>document.title='owned'</script>" in opened.locator("#why").inner_text()
    heard = opened.locator("#sample .cell[data-candidate=base] .heard").first.inner_text()
    assert "<script>" in re.sub(r"\s", "", heard)


def test_the_policy_stops_a_script_that_is_not_its_own(opened: Any) -> None:
    opened.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); }"
    )
    assert opened.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in opened.console_errors)


def test_one_clip_plays_at_a_time(opened: Any) -> None:
    clips = opened.locator("#sample .cell:visible")
    playing = "() => [...document.querySelectorAll('audio')].filter((a) => !a.paused).length"
    opened.evaluate(
        "() => document.querySelectorAll('audio').forEach((a) => { a.loop = true; })"
    )  # the clips are short: keep them on while they are looked at
    clips.nth(0).focus()
    opened.keyboard.press("Space")
    until(opened, f"({playing})() === 1")
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("Space")
    until(opened, f"({playing})() === 1 && document.activeElement.matches('.playing')")
    assert clips.nth(1).evaluate("(cell) => cell === document.activeElement")
    assert opened.locator(".cell.playing").count() == 1
    opened.keyboard.press("Space")
    until(opened, f"({playing})() === 0 && !document.querySelector('.playing')")


def test_every_clip_can_be_decoded(opened: Any) -> None:
    bad = opened.evaluate(
        """async () => {
          const sounds = [...document.querySelectorAll('audio')];
          await Promise.all(sounds.map((sound) => new Promise((done) => {
            sound.addEventListener('loadedmetadata', done);
            sound.addEventListener('error', done);
            sound.preload = 'metadata';
            sound.load();
          })));
          return sounds.filter((sound) => !(sound.duration > 0.3 && sound.duration < 0.6)).length;
        }"""
    )
    assert bad == 0
    empty = "() => [...document.querySelectorAll('.mel img')].filter((i) => !i.naturalWidth).length"
    assert opened.evaluate(empty) == 0


def focused(opened: Any) -> tuple[int, str]:
    """Return which of the visible sentences has the focus, and whose clip."""
    return tuple(
        opened.evaluate(
            """() => {
              const cell = document.activeElement.closest('.cell');
              const shown = [...document.querySelectorAll('#sample .sentence')];
              return [shown.indexOf(cell.closest('.sentence')), cell.dataset.candidate];
            }"""
        )
    )


def test_arrows_go_from_clip_to_clip_and_from_sentence_to_sentence(opened: Any) -> None:
    opened.locator("#sample .sentence > summary").nth(1).click()
    opened.locator("#sample .cell:visible").nth(2).focus()
    assert focused(opened) == (0, "base")
    opened.keyboard.press("ArrowRight")
    assert focused(opened) == (0, "epoch-1")
    opened.keyboard.press("ArrowDown")
    assert focused(opened) == (1, "epoch-1")
    opened.keyboard.press("ArrowLeft")
    opened.keyboard.press("ArrowUp")
    assert focused(opened) == (0, "base")
    opened.keyboard.press("Enter")  # into the player, whose own keys then hold
    assert opened.evaluate("document.activeElement.tagName") == "AUDIO"
    opened.keyboard.press("Escape")
    assert focused(opened) == (0, "base")


def test_all_clips_are_one_stop_for_tab(browser_page: Any, report: Path) -> None:
    opened = browser_page
    opened.goto(report.resolve().as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    stops = []
    for _ in range(400):
        opened.keyboard.press("Tab")
        stops.append(
            opened.evaluate(
                """() => {
                  const at = document.activeElement;
                  if (at === document.body) return '';
                  if (at.matches('a.bar')) return 'bar';
                  return at.closest('.cell') ? 'clip' : at.tagName;
                }"""
            )
        )
        if not stops[-1]:
            break
    assert stops[-1] == "" and stops.count("clip") == 1 and "bar" not in stops
    assert stops.count("INPUT") >= 2  # the slider of the differences, and the search


def test_filters_show_the_worst_the_changed_and_the_flagged(opened: Any) -> None:
    everything = said(opened)
    assert len(everything) > 4

    def values(name: str) -> list[float]:
        script = f"(items) => items.map((item) => Number(item.dataset.{name}))"
        return list(opened.locator("#sample .sentence:visible").evaluate_all(script))

    opened.get_by_text("Worst", exact=True).click()
    errors = values("error")
    assert errors == sorted(errors, reverse=True)
    assert min(errors) > 0
    assert opened.locator("#sample .sentence:visible:not([open])").count() == 0
    opened.get_by_text("Largest change", exact=True).click()
    changes = [abs(value) for value in values("change")]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 0
    opened.get_by_text("Flagged", exact=True).click()
    assert min(values("flags")) > 0
    assert len(said(opened)) < len(everything)
    opened.get_by_text("All", exact=True).click()
    assert said(opened) == everything

    opened.get_by_label("Sort").select_option("better")
    assert values("change") == sorted(values("change"))
    opened.get_by_label("Sort").select_option("drawn")
    assert said(opened) == everything
    word = everything[1].split()[-1]
    opened.get_by_label("Find").fill(word.upper())
    assert 0 < len(said(opened)) < len(everything)
    assert all(word in text for text in said(opened))
    assert re.fullmatch(r"\d+ of \d+ sentences", opened.get_by_role("status").inner_text())
    opened.get_by_label("Find").fill("")
    cells = opened.locator("#sample .sentence").first.locator(".cell:visible")
    assert cells.count() == CLIPS_A_SENTENCE
    opened.locator("[name=sample-voices]").select_option("few")
    assert cells.count() == 3
    assert opened.console_errors == []


def test_without_a_script_everything_is_there(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto(report.resolve().as_uri())
    bare.locator("#listen > summary").click()
    needing_it = bare.locator(".tools, button.turn, button.copy, .slider")
    assert needing_it.filter(visible=True).count() == 0
    assert bare.locator("#sample .sentence").filter(visible=True).count() > 4
    bare.locator("a.bar").first.click()
    assert bare.locator(".pair audio").filter(visible=True).count() == 2
    summary = bare.locator("#sample .sentence").nth(3).locator("summary")
    summary.click()
    assert bare.locator("#sample .sentence").nth(3).locator("audio").first.is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_phones_and_desks_in_light_and_dark(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    shown = context.new_page()
    shown.goto(report.resolve().as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    words = shown.evaluate(
        """() => [...document.querySelectorAll('.plot text')]
          .filter((text) => text.getClientRects().length)
          .map((text) => text.getBoundingClientRect().height)"""
    )
    assert min(words) > 8  # pixels: the words of figures stay readable
    colours = shown.evaluate(
        """() => ['body', '.plot svg path'].map((s) => document.querySelector(s))
          .map((node) => getComputedStyle(node))
          .map((style, i) => i ? style.fill : style.backgroundColor)"""
    )
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) > 384 for colour in colours]
    assert light == [scheme == "light"] * 2
    context.close()


def test_what_can_be_operated_has_a_name(opened: Any) -> None:
    opened.locator("button.open").click()
    nameless = opened.evaluate(
        """() => [...document.querySelectorAll('audio, [role=img], [role=group], [role=region]')]
          .filter((node) => !node.getAttribute('aria-label')).length
          + [...document.querySelectorAll('input, select')].filter((n) => !n.labels.length).length
          + [...document.querySelectorAll('button, a')]
              .filter((n) => !(n.textContent.trim() || n.getAttribute('aria-label'))).length
        """
    )
    assert nameless == 0
    assert json.loads(opened.evaluate("JSON.stringify([document.documentElement.lang])")) == ["en"]


WIDTHS = (390, 768, 1024, 1440)


@pytest.mark.parametrize("width", WIDTHS)
def test_labels_hide_nothing_and_the_choice_stands_beside_the_base(
    browser_page: Any, report: Path, width: int
) -> None:
    browser_page.set_viewport_size({"width": width, "height": 900})
    browser_page.goto(report.resolve().as_uri())
    places = browser_page.evaluate(
        """() => [...document.querySelectorAll('.ladder tr')].map((row) =>
          [...row.querySelectorAll('th, .track, td.num')].map((cell) => {
            const range = document.createRange();
            range.selectNodeContents(cell);
            const box = (cell.matches('.track') ? cell : range).getBoundingClientRect();
            return [box.left, box.right, box.top, box.bottom];
          }))"""
    )
    assert len(places) == 10
    for label, track, value in places:
        assert label[1] <= track[0] and track[1] <= value[0] and track[1] - track[0] > 60
    for above, below in pairwise(places):
        for one, other in zip(above, below, strict=True):
            same_card = one[0] < other[1] and other[0] < one[1]
            assert not same_card or one[3] <= other[2] + 1 or other[3] <= one[2] + 1
    rows = browser_page.evaluate(
        """() => [...document.querySelectorAll('.cells.trio, .pair.shown .cells')].map((row) =>
          ['base', 'epoch-2'].map((name) => {
            const box = row.querySelector(`[data-candidate=${name}]`).getBoundingClientRect();
            return [box.top, box.left];
          }))"""
    )
    assert len(rows) == 3
    assert all(base[0] == ours[0] and base[1] < ours[1] for base, ours in rows)


def test_headings_go_down_one_level_at_a_time(opened: Any) -> None:
    opened.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    levels = opened.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_scrolls_can_be_focused_and_has_a_name(opened: Any) -> None:
    opened.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    opened.set_viewport_size({"width": 390, "height": 800})
    lost = opened.evaluate(
        """() => [...document.querySelectorAll('*')]
          .filter((node) => node.scrollWidth > node.clientWidth + 1
            && ['auto', 'scroll'].includes(getComputedStyle(node).overflowX))
          .filter((node) => node.tabIndex !== 0 || !node.getAttribute('aria-label'))
          .map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert lost == []


def test_a_command_is_copied_as_it_stands(browser: Any, report: Path) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page_ = context.new_page()
    page_.goto(report.resolve().as_uri())
    button = page_.locator("button.copy").first
    code = button.locator("xpath=..").locator("code").inner_text()
    button.click()
    until(page_, "document.querySelector('button.copy').textContent === 'Copied'")
    assert page_.evaluate("getSelection().toString()") == code
    assert code.startswith("voxadapt say --candidate epoch-2 ")
    context.close()


def test_a_bar_plays_the_base_and_then_the_choice(opened: Any) -> None:
    bars = opened.locator("a.bar")
    assert bars.count() == len(TEXTS)
    bars.first.click()
    shown = opened.locator(".pair:visible")
    assert shown.count() == 1 and shown.get_attribute("id") == "pair-1"
    until(opened, "document.querySelector('.pair.shown .playing')?.dataset.candidate === 'base'")
    until(opened, "document.querySelector('.pair.shown .playing')?.dataset.candidate === 'epoch-2'")
    slider = opened.locator(".slider input")
    slider.focus()
    opened.keyboard.press("ArrowRight")
    assert opened.locator(".pair:visible").get_attribute("id") == "pair-2"
    assert "points" in slider.get_attribute("aria-valuetext")


def test_a_link_into_a_closed_part_opens_it(browser_page: Any, report: Path) -> None:
    browser_page.goto(f"{report.resolve().as_uri()}#gates")
    until(browser_page, "document.querySelector('#gates').open")


def test_nothing_is_cut_on_paper(opened: Any) -> None:
    opened.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    opened.set_viewport_size({"width": 703, "height": 1000})  # A4 without its margins
    opened.emulate_media(media="print")
    wide = opened.evaluate(
        """() => [...document.querySelectorAll('table, figure, .cell, pre, p, dl')]
          .filter((node) => node.getClientRects().length)
          .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
          .map((node) => node.outerHTML.slice(0, 90))"""
    )
    assert wide == []
    cells = opened.evaluate(
        "[...document.querySelectorAll('#candidates td')].every((n) => n.getClientRects().length)"
    )
    assert cells


REPORTS = (paths.REPORT, paths.LANGUAGE_REPORT)


@pytest.mark.parametrize("report_path", REPORTS, ids=lambda path: path.parent.name)
def test_the_report_of_the_pipeline_is_five_screens_and_four_pages(
    browser_page: Any, report_path: Path
) -> None:
    path = Path(__file__).parents[2] / report_path
    if not path.is_file():
        pytest.skip("no report: `make repro` has not been run here")
    browser_page.set_viewport_size({"width": 1440, "height": 900})
    browser_page.goto(path.as_uri())
    assert browser_page.evaluate("document.documentElement.scrollHeight") <= 5.5 * 900
    pdf = browser_page.pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 4


def test_the_report_of_the_pipeline_is_small_and_quiet(browser_page: Any) -> None:
    path = Path(__file__).parents[2] / paths.REPORT
    if not path.is_file():
        pytest.skip("no report: `make repro` has not been run here")
    assert path.stat().st_size <= 15e6
    browser_page.set_viewport_size({"width": 390, "height": 800})
    browser_page.goto(path.as_uri())
    browser_page.wait_for_timeout(300)
    assert browser_page.requests == []
    assert browser_page.console_errors == []
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= 390
