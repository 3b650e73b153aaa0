"""The report page: self-contained, escaped, complete, and clear about what is missing."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reporting.world import (
    EVALUATOR,
    TEXTS,
    interval,
    make_confirm,
    make_params,
    make_selection,
    write_world,
)
from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json, read_jsonl, write_json, write_jsonl
from voxadapt.reporting import components, decision, tables
from voxadapt.reporting import speaker_page as page
from voxadapt.reporting.records import load_records
from voxadapt.scoring.rows import ScoreRow
from voxadapt.selection import select as selection
from voxadapt.selection import wording
from voxadapt.selection.confirm import confirm

PAYLOAD = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
FETCHING = {"src", "href", "srcset", "poster", "action", "data", "background"}


class Reader(HTMLParser):
    """Collect tags, attributes and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.handlers: list[str] = []
        self.audio: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in FETCHING]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag == "audio":
            self.audio.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_its_script_alone_may_run(html: str) -> None:
    """The policy names the one script of the page by its hash, and nothing else."""
    (code,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in html
    assert html.count("<script") == 1
    assert "default-src 'none'" in html


@pytest.fixture(scope="module")
def html(world: Path) -> str:
    return page.build_page(make_params(), world)


@pytest.mark.slow
def test_page_fetches_nothing(html: str) -> None:
    reader = Reader(html)
    assert not reader.handlers
    assert not [url for url in reader.fetched if re.match(r"(?!data:)\w+:|//", url)]
    assert not re.search(r"(src|href|import|url)\W{0,3}https?://", html)
    assert_its_script_alone_may_run(html)


def test_ids_are_unique_and_whatever_is_referred_to_exists(html: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    without_style = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    used = re.findall(r'(?:href="|url\()#([^")]+)', without_style)
    assert len(used) > 100
    assert set(used) <= set(ids)


def test_the_first_screen_is_the_verdict_and_the_last_says_what_measured_it(html: str) -> None:
    header = Reader(html[html.index("<header") : html.index("</header>")]).text
    for fact in (
        "Use epoch 2.",
        "More similar than the Base",
        "Voice",
        "Words",
        "What now",
        "profile",
    ):
        assert fact in header
    footer = Reader(html[html.index("<footer") :]).text
    for fact in ("120 of 120", *list(EVALUATOR.values())[:3]):
        assert fact in footer


def test_clips_of_a_sentence_share_one_scale_of_time(html: str) -> None:
    shares = [float(share) for share in re.findall(r'class="mel"[^>]*width: ([\d.]+)%', html)]
    assert len(shares) == html.count("<audio")
    assert max(shares) == 100.0


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_sections_that_depend_on_a_record_appear_with_it(world: Path, tmp_path: Path) -> None:
    params = make_params(1, max_grid_sentences=1)
    write_world(tmp_path, params, chosen="epoch-1", best="epoch-1")
    bare = " ".join(Reader(page.build_page(params, tmp_path)).text.split())
    confirm = read_json(tmp_path / paths.CONFIRM)
    gap = interval(-0.03) | {"low": -0.05, "high": -0.01}
    second = {"asr_id": "second+99", "metric": "wer", "base": interval(0.2),
              "chosen": interval(0.17), "difference": gap, "agrees": False,
              "sentence": "The second recogniser hears epoch-1 otherwise."}  # fmt: skip
    write_json(tmp_path / paths.CONFIRM, confirm | {"second_asr": second})
    write_json(tmp_path / paths.SPEAKER.planning, {
        "schema": "voxadapt-planning/1", "power": 0.8, "text": "You can see a difference of 0.012.",
        "assumptions": {"text": "Takes are alike."},
        "splits": {"selection": {"num_texts": 8, "takes": 3, "between_epochs": {
            "sim": {"se": 0.004, "detectable_difference": 0.0123,
                    "texts_needed": [{"difference": 0.005, "num_texts": 48}]},
            "wer": {"se": None, "detectable_difference": None, "texts_needed": []}}}},
    })  # fmt: skip
    for name in params.candidates:
        path = tmp_path / paths.SCORES / name / "summary.json"
        numbers = {
            "num_texts": 2,
            "n_expected": 6,
            "n_measured": 5,
            "wer": interval(0.5),
            "cer": interval(0.4),
            "sim": interval(0.7),
            "failure_rate": interval(0.1),
        }
        spoken = {"languages": {"de": numbers, "en": numbers}}
        write_json(path, read_json(path) | {"slices": {"digits": numbers}} | spoken)
    one = {"wer": interval(0.31), "sim": interval(0.71), "failure_rate": interval(0.1)}
    two = {"wer": interval(0.32), "sim": interval(0.72), "failure_rate": interval(0.1)}
    path = tmp_path / paths.SCORES / "base" / "summary.json"
    ways = {"chosen": "icl", "x_vector": one, "icl": two}
    write_json(path, read_json(path) | {"base_prompt": ways})
    adapter = {"lora": {"rank": 16, "alpha": 32.0, "targets": ["talker", "code_predictor"]}}
    path = tmp_path / paths.TRAIN_METRICS
    write_json(path, read_json(path) | adapter)
    full = " ".join(Reader(page.build_page(params, tmp_path)).text.split())
    for words in ("Languages of the corpus", "de · 2en · 2", "10.0 % failedsimilarity 0.700",
                  "LoRA): rank 16, alpha 32, on talker and code predictor.",
                  "A second recogniser", "It does not agree", "second+99",
                  "hears epoch 1 otherwise",
                  "Planned before training", "0.005: 48 sentences",
                  "Takes are alike", "Sentences with digits", "5 of 6",
                  "by its speaker vector the weaker way",
                  "with the transcript the stronger way"):  # fmt: skip
        assert words in full, words
        assert words not in bare
    assert "Nobody has voted yet" in bare


def test_page_shows_every_candidate_and_names_the_choice(html: str) -> None:
    text = Reader(html).text
    assert "Use epoch 2." in text
    for name in ("Base", "Epoch 1", "Epoch 2", "Epoch 3", "Epoch 4", "Recording", "coded"):
        assert name in text
    assert "similarity 0.760 against 0.620" in " ".join(text.split())
    assert "More similar than the Base on unseen sentences" in text
    for identity in EVALUATOR.values():
        assert identity in text


def test_page_plays_every_cell_of_the_grid_with_the_recording_first(html: str) -> None:
    reader = Reader(html)
    columns = ["Recording", "Recording, coded", "Base", *(f"Epoch {n}" for n in range(1, 5))]
    labels = [audio["aria-label"] for audio in reader.audio]
    assert labels[:6] == ["Recording", "Base", "Epoch 2"] * 2  # typical, then worst
    pairs = labels[6 : 6 + 2 * len(TEXTS)]
    assert pairs == ["Base", "Epoch 2"] * len(TEXTS)
    grid = labels[6 + len(pairs) : 6 + len(pairs) + len(TEXTS) * len(columns)]
    assert grid == columns * len(TEXTS)
    assert {audio["preload"] for audio in reader.audio} == {"none"}
    assert all(str(audio["src"]).startswith("data:audio/mpeg;base64,") for audio in reader.audio)


@pytest.fixture
def _plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing to the tests of the figures: it is what takes time here."""
    monkeypatch.setattr(components.figures, "svg", lambda figure, prefix: "<svg></svg>")


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_page_is_the_same_for_the_same_records(world: Path) -> None:
    params = make_params(4, max_grid_sentences=2)
    assert page.build_page(params, world) == page.build_page(params, world)


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_texts_are_escaped(tmp_path: Path) -> None:
    params = make_params(1, title=PAYLOAD, max_grid_sentences=2)
    write_world(tmp_path, params, chosen="epoch-1", best="epoch-1")
    path = tmp_path / paths.SCORES / "base" / "rows.jsonl"
    rows = read_jsonl(path)
    for row in rows:
        row |= {"text": PAYLOAD, "hyp_norm": PAYLOAD, "flags": [PAYLOAD], "message": PAYLOAD}
    rows[0] |= {"wav": "", "status": "failed"}
    write_jsonl(path, rows)
    clips = read_jsonl(tmp_path / paths.SPEAKER.clips)
    clips[0]["findings"] = [{"severity": "warning", "rule": PAYLOAD, "message": PAYLOAD}]
    write_jsonl(tmp_path / paths.SPEAKER.clips, clips)
    decision = make_selection(params, "epoch-1", "epoch-1") | {"reason": PAYLOAD}
    write_json(tmp_path / paths.SELECTION, decision)
    html = page.build_page(params, tmp_path)
    reader = Reader(html)
    assert_its_script_alone_may_run(html)
    assert not reader.handlers
    assert reader.text.count(PAYLOAD) >= 5


@pytest.mark.slow
def test_missing_files_are_named_together_with_their_stage(tmp_path: Path) -> None:
    params = make_params(1)
    write_world(tmp_path, params, chosen="epoch-1", best="epoch-1")
    (tmp_path / paths.CONFIRM).unlink()
    (tmp_path / paths.SCORES / "epoch-1" / "rows.jsonl").unlink()
    (tmp_path / paths.TRAIN_METRICS).write_text("{not json")
    with pytest.raises(UserError) as caught:
        page.build_page(params, tmp_path)
    problems = {problem.where: problem for problem in caught.value.problems}
    assert set(problems) == {
        "artifacts/scores/epoch-1/rows.jsonl",
        "reports/confirm.json",
        "reports/metrics/train.json",
    }
    assert "voxadapt score epoch-1" in problems["artifacts/scores/epoch-1/rows.jsonl"].fix
    assert problems["reports/confirm.json"].found == "nothing"


@pytest.mark.slow
def test_records_of_different_runs_are_refused(tmp_path: Path) -> None:
    params = make_params(2)
    write_world(tmp_path, params, chosen="epoch-1", best="epoch-1")
    write_json(tmp_path / paths.CONFIRM, make_confirm("epoch-2", "confirmed"))
    with pytest.raises(UserError, match=r"confirmation of epoch-1, which is chosen"):
        load_records(params, tmp_path)
    stale = make_selection(make_params(1), "epoch-1", "epoch-1")
    write_json(tmp_path / paths.SELECTION, stale)
    with pytest.raises(UserError, match=r"base, epoch-1, epoch-2; found base, epoch-1"):
        load_records(params, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("confirmed", "Use epoch 1."),
        ("cost_not_excluded", "Epoch 1 is more similar; a higher WER is not excluded."),
        ("not_confirmed", "Do not rely on epoch 1: its gain is not confirmed."),
        ("contradicted", "Do not use epoch 1: unseen sentences contradict the choice."),
    ],
)
def test_the_headline_follows_the_verdict(tmp_path: Path, verdict: str, said: str) -> None:
    params = make_params(1, max_grid_sentences=1)
    write_world(tmp_path, params, chosen="epoch-1", best="epoch-1")
    write_json(tmp_path / paths.CONFIRM, make_confirm("epoch-1", verdict))
    text = " ".join(Reader(page.build_page(params, tmp_path)).text.split())
    assert said in text and ("Use epoch 1." in text) == (verdict == "confirmed")


def test_what_is_not_usable_yet_is_not_recommended() -> None:
    confirm = make_confirm("epoch-1", "confirmed") | {"usable": {"state": "not_yet"}}
    said = wording.headline(confirm, "epoch 1", "Keep the Base.")
    assert said == "Epoch 1 is better than the Base, but not usable yet."


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_keeping_the_base_is_a_decision(tmp_path: Path) -> None:
    params = make_params(1, max_grid_sentences=1)
    write_world(tmp_path, params, chosen="base", best="base")
    text = " ".join(Reader(page.build_page(params, tmp_path)).text.split())
    assert "Keep the Base: do not fine-tune." in text
    assert "The Base is kept" in text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.2, "sounds more like"),
        (-0.1, 0.1, "is not shown to sound more like"),
        (-0.3, -0.1, "sounds less like"),
    ],
)
def test_the_first_sentence_follows_the_interval(
    world: Path, low: float, high: float, words: str
) -> None:
    records = load_records(make_params(), world)
    records.confirm["gain"] |= {"low": low, "high": high}
    said = dict(decision.verdict_sentences(records, "epoch 2", "Aria"))
    assert f"Epoch 2 {words}" in said["Voice"]


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_a_lost_recording_is_shown_as_missing_not_dropped(tmp_path: Path) -> None:
    params = make_params(1)
    write_world(tmp_path, params, chosen="epoch-1", best="epoch-1")
    for wav in (tmp_path / paths.SCORES / "epoch-1" / "wavs").glob("*.wav"):
        wav.unlink()
    reader = Reader(page.build_page(params, tmp_path))
    assert reader.text.count("no audio") >= len(TEXTS)


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_page_shows_what_the_evaluation_really_writes(tmp_path: Path) -> None:
    """The synthetic records above are copies of a schema; these come from its owner."""
    params = make_params(2, max_grid_sentences=1)
    write_world(tmp_path, params, chosen="epoch-1", best="epoch-1")
    rows = {
        name: [ScoreRow.model_validate_json(json.dumps(row)) for row in read_jsonl(path)]
        for name in params.candidates
        if (path := tmp_path / paths.SCORES / name / "rows.jsonl")
    }
    scale = read_json(tmp_path / paths.SPEAKER.reference / "similarity.json")
    rule = params.select.model_copy(update={"num_bootstrap": 200})
    chosen = selection.select(rows, rule, scale=scale)
    write_json(tmp_path / paths.SELECTION, chosen)
    kept = {
        name: [row.model_copy(update={"split": "confirmation"}) for row in rows[name]]
        for name in {"base", chosen["chosen"]}
    }
    confirmed = confirm(kept["base"], kept[chosen["chosen"]], rule, scale=scale, selection=chosen)
    write_json(tmp_path / paths.CONFIRM, confirmed)
    text = " ".join(Reader(page.build_page(params, tmp_path)).text.split())
    name = tables.title(chosen["chosen"]).lower()
    assert wording.headline(confirmed, name, page.KEEP) in text
    reason = " ".join(tables.typeset(chosen["reason"]).split())
    confirmation = " ".join(tables.typeset(confirmed["sentence"]).split())
    assert text.index(confirmation) < text.index(reason), "what flatters comes second"


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_report_is_written_where_the_pipeline_expects_it(world: Path) -> None:
    path = page.write_report(make_params(4, max_grid_sentences=1), world)
    assert path == world / paths.REPORT
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_synthetic_rows_are_rows_that_the_evaluation_writes(world: Path) -> None:
    for path in (world / paths.SCORES).glob("*/rows.jsonl"):
        for row in read_jsonl(path):
            ScoreRow.model_validate_json(json.dumps(row))


@pytest.mark.slow
def test_reporting_needs_no_torch() -> None:
    code = (
        "import sys; import voxadapt.reporting.speaker_page, voxadapt.reporting.players, "
        "voxadapt.reporting.language_page; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_what_averages_hide_stands_beside_them(world: Path) -> None:
    text = Reader(page.build_page(make_params(), world)).text
    assert "Within a clip" in text and "37.5" in text and "0.550" in text
    assert (
        "cannot tell b from p" in text
        and "After the codec it takes for one another: d and t." in text
    )
    assert "F0 cannot be measured" not in text
    assert "Sets of sentences" in text and "43.2" in text
    record = read_json(world / paths.SELECTION)
    for candidate in record["candidates"]:
        candidate["prosody"] = {"f0_measurable": False}
    write_json(world / paths.SELECTION, record)
    lost = Reader(page.build_page(make_params(), world)).text
    assert "F0 cannot be measured here" in lost
    assert re.search(r"35\.5\sto\s39\.50\.0", text), "its jumps"
    assert re.search(r"35\.5\sto\s39\.5\s*–", lost), "and not without F0"


@pytest.mark.slow
def test_gates_of_the_choice_and_failed_ones_are_told_and_the_rest_is_folded(
    tmp_path: Path,
) -> None:
    params = make_params()
    write_world(tmp_path, params)
    record = read_json(tmp_path / paths.SELECTION)
    for candidate in record["candidates"]:
        gate = next(item for item in candidate["gates"] if item["name"] == "failure_rate")
        gate |= {"state": "undecided", "text": f"undecided for {candidate['name']}."}
    write_json(tmp_path / paths.SELECTION, record)
    told = Reader(page.build_page(params, tmp_path)).text
    shown, _, folded = told.partition("What is undecided for the others")
    assert "Undecided for epoch 2." in shown and "Undecided for epoch 2." not in folded
    assert "error: failed" in shown.replace("Error", "error")
    assert all(f"Undecided for epoch {number}." in folded for number in (1, 3, 4))
    assert "undecided +3.1 points" in shown.replace("\u00a0", " ")
    assert "passed 3.1 %" in shown.replace("\u00a0", " ")  # of clips there are, of languages
