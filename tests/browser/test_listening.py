"""A listener's whole session in a real Chromium, by keyboard, and back through `voxadapt votes`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from listening.world import CHOSEN, listening_params, write_listening_world
from reporting.world import TEXTS, make_params
from voxadapt.core.files import read_json
from voxadapt.listening import pages as listening
from voxadapt.listening.votes import ListeningKey, read_key
from voxadapt.pipeline.report import votes as report_votes
from voxadapt.reporting import speaker_page as page
from voxadapt.reporting.records import load_records
from voxadapt.reporting.votes import votes_section

PAYLOAD = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title=1\">"

NUM_SENTENCES = 6
HURRY = """{
    const play = HTMLMediaElement.prototype.play;
    HTMLMediaElement.prototype.play = function () { this.playbackRate = 8; return play.call(this) };
}"""


@pytest.fixture(autouse=True)
def _hurried(browser_page: Any) -> None:
    browser_page.add_init_script(HURRY)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = tuple(f"{text} {PAYLOAD}" for text in TEXTS)
    root = write_listening_world(tmp_path_factory.mktemp("listen"), texts=texts)
    listening.write_listening(listening_params(NUM_SENTENCES), root)
    return root


def key_of(project: Path) -> ListeningKey:
    return read_key(project / "reports" / "listen" / "key.json")


def clips(project: Path) -> dict[str, str]:
    """Candidate of every clip of both pages."""
    pages = key_of(project).pages.values()
    return {k: v for p in pages for trial in p.trials.values() for k, v in trial.clips.items()}


def open_page(browser_page: Any, project: Path, kind: str) -> None:
    browser_page.goto((project / "reports" / "listen" / f"{kind}.html").as_uri())


def begin(browser_page: Any, name: str) -> None:
    browser_page.fill("#listener", name)
    browser_page.keyboard.press("Enter")
    browser_page.wait_for_selector("#trial:not([hidden])")


def hear(browser_page: Any) -> None:
    """Press Space and wait until everything that the question needs has been heard."""
    browser_page.keyboard.press("Space")
    browser_page.wait_for_selector("#choices button:not(:disabled)")


def shown(browser_page: Any) -> list[str]:
    """Ids of the clips, in the order of the page, without the recording."""
    ids = browser_page.eval_on_selector_all("#players button", "all => all.map(b => b.id)")
    return [name.removeprefix("play-") for name in ids[1:]]


def export(browser_page: Any, folder: Path) -> Path:
    with browser_page.expect_download() as waiting:
        browser_page.click("#export")
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def answer_ab(browser_page: Any, whose: dict[str, str], wanted: str) -> list[str]:
    """Answer every question for one candidate; return whose clip A was, trial by trial."""
    first = []
    while browser_page.is_visible("#trial"):
        ids = shown(browser_page)
        if browser_page.inner_text("#asked").startswith("Which sounds more like"):
            first.append(whose[ids[0]])
            hear(browser_page)
            browser_page.keyboard.press("ab"[[whose[i] for i in ids].index(wanted)])
        else:
            right = whose[ids[1]] == wanted
            browser_page.keyboard.press("ArrowRight" if right else "ArrowLeft")
    return first


def test_a_session_by_keyboard_is_read_back_into_the_report(
    browser_page: Any, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whose = clips(project)
    open_page(browser_page, project, "ab")
    begin(browser_page, "Ana Maria")
    first = answer_ab(browser_page, whose, CHOSEN)
    assert len(first) == NUM_SENTENCES + listening.MIN_REPEATED
    assert {"base", CHOSEN} == set(first), "sides change"
    browser_page.wait_for_selector("#done:not([hidden])")
    ab = export(browser_page, tmp_path)
    assert ab.name == "votes-ab-Ana-Maria.json"
    votes = json.loads(ab.read_text(encoding="utf-8"))
    assert votes["finished"] is True
    assert len(votes["trials"]) == 2 * len(first)
    assert all(min(vote["plays"]) >= 1 for vote in votes["trials"])

    open_page(browser_page, project, "mos")
    begin(browser_page, "Ana Maria")
    ratings = {"real": 5, CHOSEN: 4, "base": 2}
    while browser_page.is_visible("#trial"):
        hear(browser_page)
        browser_page.keyboard.press(str(ratings[whose[shown(browser_page)[0]]]))
    mos = export(browser_page, tmp_path)

    monkeypatch.chdir(project)
    result = report_votes(make_params(), [ab, mos], Path("reports/listen/key.json"))
    assert f"{CHOSEN} is preferred to base as closer to the voice" in result.sentence
    written = read_json("reports/listen/votes.json")
    for entry in written["comparisons"]:
        assert entry["preference"]["point"] == 1.0
        assert entry["preference"]["low"] > 0.5
        assert (entry["wins"], entry["losses"], entry["ties"]) == (NUM_SENTENCES, 0, 0)
    means = {(r["candidate"], r["question"]): r["mean"]["point"] for r in written["ratings"]}
    assert means == {(n, q): v for n, v in ratings.items() for q in ("naturalness", "likeness")}
    assert [entry["num_agreed"] for entry in written["listeners"]] == [4, 4]
    assert browser_page.requests == [] == browser_page.console_errors

    section = votes_section(load_records(make_params(), project))
    assert section is not None and not section["stale"]
    html = page.build_page(make_params(4, max_grid_sentences=1), project)
    report = tmp_path / "report.html"
    report.write_text(html, encoding="utf-8")
    browser_page.goto(report.as_uri())
    text = browser_page.inner_text("body")
    assert "1 listener" in text
    assert "closer to the voice" in text
    low = written["comparisons"][0]["preference"]["low"]
    assert f"{100 * low:.1f}" in text, "the interval is shown"
    assert browser_page.requests == [] == browser_page.console_errors


def test_nothing_tells_the_sides(browser_page: Any, project: Path) -> None:
    for kind in ("ab", "mos"):
        html = (project / "reports" / "listen" / f"{kind}.html").read_text(encoding="utf-8")
        definition = json.loads(html.split('id="test">')[1].split("</script>")[0])
        definition["audio"] = dict.fromkeys(definition["audio"], "")
        for word in ("base", "epoch", "real", "candidate", ".wav", "utt-", "runner", "take"):
            assert word not in json.dumps(definition).lower(), word
        assert definition["trials"] == sorted(definition["trials"], key=lambda t: t["id"])
        assert all(trial["clips"] == sorted(trial["clips"]) for trial in definition["trials"])
        open_page(browser_page, project, kind)
        begin(browser_page, "x")
        text = browser_page.inner_text("body").lower()
        assert not any(word in text for word in ("base", "epoch", "candidate"))
        players = browser_page.inner_html("#players").lower()
        assert not any(word in players for word in ("base", "epoch", "real"))


def test_texts_are_texts(browser_page: Any, project: Path) -> None:
    for kind in ("ab", "mos"):
        open_page(browser_page, project, kind)
        begin(browser_page, "<img src=x onerror=alert(1)>")
        assert browser_page.text_content("#sentence").endswith(PAYLOAD)
        assert "owned" not in browser_page.title()
        assert browser_page.locator("img").count() == 0
    assert browser_page.requests == [] == browser_page.console_errors


def test_a_choice_waits_for_the_clips_and_can_be_undone(browser_page: Any, project: Path) -> None:
    open_page(browser_page, project, "ab")
    begin(browser_page, "Ben")
    browser_page.keyboard.press("a")
    assert browser_page.inner_text("#status") == "Hear the clips first."
    assert browser_page.locator("#choices button:disabled").count() == 3
    asked = browser_page.inner_text("#asked")
    hear(browser_page)
    browser_page.keyboard.press("a")
    assert browser_page.inner_text("#asked") != asked
    assert browser_page.evaluate("document.getElementById('bar').value") == 1
    browser_page.keyboard.press("Backspace")
    assert browser_page.inner_text("#asked") == asked
    assert browser_page.evaluate("document.getElementById('bar').value") == 0
    assert browser_page.is_disabled("#undo")
    browser_page.keyboard.press("0")  # what was heard stays heard
    assert browser_page.inner_text("#asked") != asked


def test_a_session_goes_on_after_a_reload(browser_page: Any, project: Path, tmp_path: Path) -> None:
    open_page(browser_page, project, "mos")
    begin(browser_page, "Caro")
    order = []
    for _ in range(3):
        order.append(shown(browser_page)[0])
        for _ in range(2):
            hear(browser_page)
            browser_page.keyboard.press("4")
    following = shown(browser_page)
    browser_page.reload()
    assert "Caro has given 6 of" in browser_page.inner_text("#resume-text")
    browser_page.click("#continue")
    assert shown(browser_page) == following
    browser_page.click("#stop")
    votes = json.loads(export(browser_page, tmp_path).read_text(encoding="utf-8"))
    assert votes["finished"] is False
    assert [vote["shown"][0] for vote in votes["trials"]] == [i for i in order for _ in range(2)]
    assert browser_page.input_value("#copy") == json.dumps(votes, indent=1) + "\n"


def test_without_storage_the_page_works_and_says_so(browser_page: Any, project: Path) -> None:
    browser_page.add_init_script(
        "Object.defineProperty(window, 'localStorage',"
        " { get() { throw new DOMException('no', 'SecurityError') } })"
    )
    open_page(browser_page, project, "ab")
    assert browser_page.is_visible("#no-storage")
    begin(browser_page, "Dan")
    hear(browser_page)
    browser_page.keyboard.press("b")
    assert browser_page.evaluate("document.getElementById('bar').value") == 1
    assert browser_page.console_errors == []


def test_damaged_storage_is_left_alone(browser_page: Any, project: Path) -> None:
    open_page(browser_page, project, "ab")
    sha = key_of(project).pages["ab"].page_sha
    for value in ("{", "null", '{"listener":"x","seed":-1,"answers":[]}',
                  '{"listener":"x","seed":1,"answers":[{"trial":"no"}]}'):  # fmt: skip
        browser_page.evaluate(
            "([key, value]) => localStorage.setItem(key, value)", [f"voxadapt-listen/{sha}", value]
        )
        browser_page.reload()
        assert not browser_page.is_visible("#resume")
    assert browser_page.console_errors == []


def test_listeners_hear_the_clips_in_orders_of_their_own(browser_page: Any, project: Path) -> None:
    open_page(browser_page, project, "ab")
    sha = key_of(project).pages["ab"].page_sha
    first = []
    for seed in (1, 2, 3, 4, 5, 6, 1):
        browser_page.evaluate(
            "([key, value]) => localStorage.setItem(key, JSON.stringify(value))",
            [f"voxadapt-listen/{sha}", {"listener": "x", "seed": seed, "answers": []}],
        )
        browser_page.reload()
        browser_page.click("#continue")
        first.append(tuple(shown(browser_page)))
    assert len(set(first)) >= 3
    assert first[0] == first[-1], "a session is its seed and its answers"
    seeds = set()
    for name in ("one", "two", "three"):
        browser_page.reload()
        browser_page.click("#again")
        begin(browser_page, name)
        saved = browser_page.evaluate("key => localStorage.getItem(key)", f"voxadapt-listen/{sha}")
        seeds.add(json.loads(saved)["seed"])
    assert len(seeds) == 3


@pytest.mark.parametrize("kind", ["ab", "mos"])
def test_a_phone_needs_no_sideways_scrolling(browser_page: Any, project: Path, kind: str) -> None:
    browser_page.set_viewport_size({"width": 360, "height": 740})
    for scheme in ("light", "dark"):
        browser_page.emulate_media(color_scheme=scheme)
        open_page(browser_page, project, kind)
        begin(browser_page, "Eve")
        width = browser_page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360
        heights = browser_page.eval_on_selector_all(
            "button", "all => all.filter(b => b.offsetParent).map(b => b.offsetHeight)"
        )
        assert min(heights) >= 44, "large enough for a thumb"
        if browser_page.is_visible("#again"):
            browser_page.click("#again")


def test_every_control_has_a_name(browser_page: Any, project: Path) -> None:
    open_page(browser_page, project, "mos")
    begin(browser_page, "Fay")
    nameless = browser_page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, progress")]
            .filter(e => !(e.textContent.trim() || e.labels?.length || e.ariaLabel))
            .map(e => e.outerHTML)"""
    )
    assert nameless == []


def test_the_policy_lets_nothing_else_run(browser_page: Any, project: Path, tmp_path: Path) -> None:
    html = (project / "reports" / "listen" / "ab.html").read_text(encoding="utf-8")
    assert "unsafe" not in html.split("</head>")[0].split("<style>")[0]
    more = "<script>document.title='owned'</script><img alt='' src='https://example.invalid/x'>"
    changed = tmp_path / "changed.html"
    changed.write_text(html.replace("</main>", f"{more}</main>", 1), encoding="utf-8")
    browser_page.goto(changed.as_uri())
    browser_page.wait_for_timeout(200)
    assert browser_page.title() != "owned"
    assert any("Content Security Policy" in text for text in browser_page.console_errors)


def test_every_clip_is_an_mp3_that_the_browser_decodes(browser_page: Any, project: Path) -> None:
    open_page(browser_page, project, "ab")
    lengths = browser_page.evaluate(
        """async () => {
            const test = JSON.parse(document.getElementById("test").textContent);
            const length = (uri) => new Promise((done) => {
                const audio = new Audio(uri);
                audio.onloadedmetadata = () => done(audio.duration);
                audio.onerror = () => done(-1);
            });
            return Promise.all(Object.values(test.audio).map(length));
        }"""
    )
    assert len(lengths) >= 3 * NUM_SENTENCES
    assert all(0.3 < seconds < 1.0 for seconds in lengths)
    html = (project / "reports" / "listen" / "ab.html").read_text(encoding="utf-8")
    first = html.split("data:audio/mpeg;base64,")[1][:400]
    assert base64.b64decode(first)[:1] in (b"\xff", b"I")
