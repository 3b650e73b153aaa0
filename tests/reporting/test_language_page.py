"""The report of a language: complete on every path that the data can take."""

import re
from pathlib import Path
from typing import Any

import pytest

from reporting.language_world import (
    FORGETFUL,
    QUALITY,
    TEXTS,
    make_language_params,
    write_language_world,
)
from reporting.test_speaker_page import PAYLOAD, Reader, assert_its_script_alone_may_run
from reporting.world import make_params
from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import first_by_hash, read_json, read_jsonl, write_json, write_jsonl
from voxadapt.reporting import components, figures, players, tables
from voxadapt.reporting import language_page as language
from voxadapt.reporting.records import candidate_order, language_scores, load_language_records

NO_GAIN = QUALITY | {f"epoch-{n}": (0.95, 0.7) for n in (1, 2, 3)}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose gap is too large: Stage 2 was run, and arms were compared."""
    params = make_language_params()
    return write_language_world(tmp_path_factory.mktemp("ran"), params, arms=True)


@pytest.fixture(scope="module")
def skipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose gap is small enough."""
    return write_language_world(tmp_path_factory.mktemp("skipped"), make_language_params(0.9))


@pytest.fixture
def _plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing to the tests of the figures: it is what takes time here."""
    monkeypatch.setattr(components.figures, "svg", lambda figure, prefix: "<svg></svg>")


def joined(text: str) -> str:
    return " ".join(text.split())


def text_of(html: str) -> str:
    return joined(Reader(html).text)


@pytest.mark.slow
def test_page_is_self_contained_and_whole(ran: Path) -> None:
    params = make_language_params()
    path = language.write_language_report(params, ran)
    assert path == ran / paths.LANGUAGE_REPORT
    html = path.read_text(encoding="utf-8")
    reader = Reader(html)
    assert not reader.handlers
    assert not [url for url in reader.fetched if re.match(r"(?!data:)\w+:|//", url)]
    assert_its_script_alone_may_run(html)
    text = text_of(html)
    assert "Use epoch 1 of Stage 2 for Malay." in text
    for name in ("Base", "Epoch 1", "Epoch 3", "Stage 2, epoch 2", "Recording, coded"):
        assert name in text
    shown = text.split("candidates' rows")[0].replace("--candidate stage2-epoch-1", "")
    assert "stage2-epoch" not in shown  # but in a command, and as names of files
    for key in (paths.LANGUAGE_CHOICE1, paths.LANGUAGE_DECISION, paths.LANGUAGE_SELECTION):
        assert joined(tables.typeset(read_json(ran / key)["reason"])) in text
    assert joined(tables.typeset(read_json(ran / paths.LANGUAGE_CONFIRM)["sentence"])) in text


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_page_names_sizes_tag_texts_and_arms(ran: Path) -> None:
    text = text_of(language.build_language_page(make_language_params(), ran))
    assert "12,288" in text
    assert "1,811,840" in text
    assert "talker.code_predictor" in text
    assert "row 617 of the codec embedding" in text
    assert "LoRA on the talker" in text
    assert "8 of 10 texts were accepted" in text
    assert "line-2: Expected words; found 3." in text


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_grid_has_every_candidate_and_the_respelling(ran: Path) -> None:
    params = make_language_params()
    html = language.build_language_page(params, ran)
    order = ("base", "epoch-1", "epoch-2", "epoch-3", "stage2-epoch-1", "stage2-epoch-2")
    columns = [tables.title(name) for name in ("real", "codec", *order)]
    labels = [audio["aria-label"] for audio in Reader(html).audio]
    count = params.report.max_grid_sentences
    starts = [i for i in range(len(labels)) if labels[i : i + len(columns)] == columns]
    assert len(starts) == count
    shown = first_by_hash([text.lower().strip(".") for text in TEXTS], count)
    assert "kami makan nasi dan ikan" in shown
    assert "Kah-mee mah-kahn nah-see dahn ee-kahn." in text_of(html)


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_a_skipped_stage_2_says_why(skipped: Path) -> None:
    text = text_of(language.build_language_page(make_language_params(0.9), skipped))
    assert "of Stage 1 for Malay." in text
    assert "Stage 2 was skipped: the gap is small enough" in text
    assert "Stage 2 was skipped and trained nothing." in text
    assert "Stage 2, step by step" not in text
    assert "No other answer was measured as this page was" in text


@pytest.mark.parametrize(
    ("change", "changes", "chosen", "said"),
    [
        ((-0.2, -0.3, -0.1), {}, "stage2-epoch-1",
         "Stage 2 gained: epoch 1, its choice: CER −20.0 points (−30.0 to −10.0) against epoch 3 "
         "of Stage 1."),
        ((-0.004, -0.04, 0.03), {}, "epoch-3",
         "Stage 2 is not shown to have gained anything: epoch 1, its best: CER −0.4 points (−4.0 "
         "to +3.0) against"),
        ((0.1, 0.05, 0.2), {}, "epoch-3", "Stage 2 made things worse: epoch 1, its best: CER +10"),
        ((-0.2, -0.3, -0.1), {"eligible": False}, "epoch-3",
         "Stage 2 is not shown to have gained anything: epoch 1, its best, which failed a gate:"),
    ],
)  # fmt: skip
def test_a_stage_2_that_ran_says_what_it_gained(
    change: tuple[float, float, float], changes: dict[str, bool], chosen: str, said: str
) -> None:
    def item(name: str, point: float, low: float, high: float) -> dict[str, Any]:
        error = {"point": point, "low": low, "high": high}
        return {"name": name, "eligible": True, "vs_start": {"error": error}}

    selection = {
        "rule": {"primary": "error", "error_metric": "cer"},
        "start": "epoch-3",
        "chosen": chosen,
        "candidates": [
            item("stage2-epoch-1", *change) | changes,
            item("stage2-epoch-2", 0.3, 0.2, 0.4),
            {"name": "epoch-3", "eligible": True, "vs_start": None},
        ],
    }
    assert joined(language.stage2_gain(selection)).startswith(said)


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
@pytest.mark.parametrize(("gap", "ran"), [(0.05, True), (0.9, False)])
def test_what_is_not_usable_says_what_to_do_now(tmp_path: Path, gap: float, ran: bool) -> None:
    params = make_language_params(gap)
    write_language_world(tmp_path, params)
    confirm = read_json(tmp_path / paths.LANGUAGE_CONFIRM)
    item = {"value": 0.5, "high": 0.6, "limits": [0.05, 0.15], "state": "not_yet"}
    usable = {"state": "not_yet", "measures": {"error_above_codec": item}, "sentence": "Not yet."}
    write_json(tmp_path / paths.LANGUAGE_CONFIRM, confirm | {"usable": usable})
    html = language.build_language_page(params, tmp_path)
    head = text_of(html[html.index("<header") : html.index("</header>")])
    now = head.partition("What now")[2]
    assert ("Stage 2 gained:" in head) == ran
    assert ("Run Stage 2." in now) != ran
    assert ("Gather more texts. Expected 100 to 500 texts; found 8." in now) == ran
    assert ("mode: always # of language.stage2" in text_of(html)) != ran
    why = text_of(html[html.index('id="why"') :])
    assert why.index(joined(tables.typeset(confirm["sentence"]))) < why.index("Stage 1, from texts")


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_a_forced_stage_2_says_who_forced_it(tmp_path: Path) -> None:
    params = make_language_params(stage2={"num_epochs": 2, "max_gap": 0.9, "mode": "always"})
    write_language_world(tmp_path, params)
    assert "Stage 2 was run: mode always" in text_of(language.build_language_page(params, tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_keeping_the_base_is_a_decision(tmp_path: Path) -> None:
    params = make_language_params(0.99)
    write_language_world(tmp_path, params, NO_GAIN)
    text = text_of(language.build_language_page(params, tmp_path))
    assert "Keep the Base: nothing tried is shown to read Malay better." in text
    assert "English stays as the Base reads it" in text
    assert "nothing is kept" in text


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_stage_2_may_begin_with_the_base(tmp_path: Path) -> None:
    params = make_language_params()
    write_language_world(tmp_path, params, NO_GAIN)
    assert "start" not in read_json(tmp_path / paths.LANGUAGE_SELECTION)
    text = text_of(language.build_language_page(params, tmp_path))
    assert "of Stage 2 for Malay." in text
    assert "Stage 1 kept the Base: nothing was learnt from the texts" in text
    assert "29.45 % of the model" in text  # 1,811,840 of 6,153,216: without the rows of Stage 1


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_a_forgotten_source_language_is_a_warning(tmp_path: Path) -> None:
    params = make_language_params()
    write_language_world(tmp_path, params, source_quality=FORGETFUL)
    text = text_of(language.build_language_page(params, tmp_path))
    assert "English: partly forgotten" in text
    assert "Warning: the model that was chosen has forgotten something." in text
    assert "English is read measurably worse than before" in text


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_texts_are_escaped(tmp_path: Path) -> None:
    params = make_language_params(0.9)
    write_language_world(tmp_path, params)
    path = tmp_path / language_scores("base", "source") / "rows.jsonl"
    rows = read_jsonl(path)
    write_jsonl(path, [row | {"text": PAYLOAD, "hyp_norm": PAYLOAD} for row in rows])
    write_jsonl(tmp_path / paths.LANGUAGE_TEXTS, [
        {"id": "x", "text": PAYLOAD, "respelling": PAYLOAD,
         "findings": [{"severity": "warning", "rule": "digits", "message": PAYLOAD}]}
    ])  # fmt: skip
    decision = read_json(tmp_path / paths.LANGUAGE_DECISION)
    write_json(tmp_path / paths.LANGUAGE_DECISION, decision | {"reason": PAYLOAD})
    html = language.build_language_page(params, tmp_path)
    assert_its_script_alone_may_run(html)
    assert not Reader(html).handlers
    assert Reader(html).text.count(PAYLOAD) >= 5


@pytest.mark.slow
@pytest.mark.usefixtures("_plain_figures")
def test_page_is_the_same_for_the_same_records(skipped: Path) -> None:
    params = make_language_params(0.9)
    first, again = (language.build_language_page(params, skipped) for _ in range(2))
    assert first == again


@pytest.mark.slow
def test_missing_files_are_named_together_with_their_stage(tmp_path: Path) -> None:
    params = make_language_params()
    write_language_world(tmp_path, params)
    (tmp_path / paths.LANGUAGE_DECISION).unlink()
    (tmp_path / language_scores("epoch-1", "source") / "rows.jsonl").unlink()
    (tmp_path / language_scores("stage2-epoch-2") / "summary.json").write_text("{not json")
    with pytest.raises(UserError) as caught:
        language.build_language_page(params, tmp_path)
    fixes = {problem.where: problem.fix for problem in caught.value.problems}
    assert fixes == {
        "reports/language/decision.json": "Run `voxadapt language decide` first.",
        "artifacts/language/scores/epoch-1/source/rows.jsonl": (
            "Run `voxadapt language score epoch-1` first."
        ),
        "artifacts/language/stage2_scores/stage2-epoch-2/target/summary.json": (
            "Run `voxadapt language stage2-score` first."
        ),
    }


def change(root: Path, path: Path, **values: Any) -> None:
    write_json(root / path, read_json(root / path) | values)


@pytest.mark.slow
def test_records_of_different_runs_are_refused(tmp_path: Path) -> None:
    write_language_world(tmp_path, make_language_params())
    change(tmp_path, paths.LANGUAGE_CONFIRM, chosen="epoch-1")
    change(tmp_path, paths.LANGUAGE_DECISION, stage1={"candidate": "epoch-3"})
    fewer = make_language_params(candidates=["base", "epoch-1"])
    with pytest.raises(UserError) as caught:
        load_language_records(fewer, tmp_path)
    assert [problem.where for problem in caught.value.problems] == [
        "reports/language/stage1.json",
        "reports/language/decision.json",
        "reports/language/confirm.json",
    ]


def test_parameters_without_a_language_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="language"):
        language.build_language_page(make_params(), tmp_path)


def test_candidates_have_one_order() -> None:
    names = ("stage2-epoch-10", "epoch-10", "stage2-epoch-2", "base", "epoch-2", "base")
    assert candidate_order(names) == (
        "base", "epoch-2", "epoch-10", "stage2-epoch-2", "stage2-epoch-10"
    )  # fmt: skip
    assert tables.title("stage2-epoch-2") == "Stage 2, epoch 2"
    assert tables.named("stage2-epoch-2 beats epoch-3") == "epoch 2 of Stage 2 beats epoch 3"


@pytest.mark.slow
def test_notebook_tables(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ran)
    names = ["Base", "Epoch 1", "Epoch 2", "Epoch 3", "Stage 2, epoch 1", "Stage 2, epoch 2"]
    found = language.language_scores_table()
    assert [name.removesuffix(" (chosen)") for name in found.index] == names
    assert "Stage 2, epoch 1 (chosen)" in found.index
    assert list(language.forgetting_table().index) == names
    assert language.decision_table().loc["done", "value"] == "run"
    sizes = language.sizes_table()
    assert list(sizes["module"])[-1] == "all"
    assert sizes["trained"].iloc[-1] == "1,811,840"
    pairs = tables.pairs(path=paths.LANGUAGE_SELECTION)
    start = read_json(paths.LANGUAGE_SELECTION)["start"]
    assert f"error − {tables.title(start)}" in pairs.columns
    assert "points" in pairs.iloc[-2][f"primary − {tables.title('stage2-epoch-1')}"]
    folder, at = language_scores("stage2-epoch-1", "source"), paths.LANGUAGE
    assert tables.summary("stage2-epoch-1", folder=folder, at=at).columns[0] == names[4]
    assert players.worst_clips("base", limit=2, folder=folder, metric="cer").count("CER") == 2
    assert 'href="../language/index.html"' in players.report_link(paths.LANGUAGE_REPORT)


@pytest.mark.slow
def test_notebooks_show_the_recordings_of_the_language(
    ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ran)
    at = paths.LANGUAGE
    assert list(tables.splits(at=at)["clips"]) == [8, 8, 8]
    assert tables.findings(at=at).iloc[0]["clips"] == 3
    assert list(tables.references(at=at).index) == ["Recording", "Recording, coded"]
    assert len(tables.frames(at=at)) == len(tables.similarity_scale(at=at)) == 3
    assert players.clips_with_findings(at=at).count("<audio") == 3
    assert players.round_trip(limit=2, at=at).count("<audio") == 4
    folder = language_scores("stage2-epoch-1")
    drawn = (figures.durations(at=at), figures.weight_change(path=paths.LANGUAGE_STAGE1_METRICS),
             figures.histogram("stage2-epoch-1", folder=folder, at=at))  # fmt: skip
    assert all(figure._repr_png_().startswith(b"\x89PNG") for figure in drawn)
    assert tables.flags("base", folder=folder)["clips"].sum() > 0


def test_a_notebook_before_stage_2_shows_nothing_of_an_earlier_run(
    ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its page would hold other bytes in a project that has run before."""
    monkeypatch.chdir(ran)
    assert set(language.sizes_table(stage2=False).index) == {"Stage 1"}
    for table in (language.language_scores_table, language.forgetting_table):
        assert not any("Stage 2" in name for name in table(final=False).index)


@pytest.mark.slow
def test_notebook_tables_before_stage_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = make_language_params(0.9)
    write_language_world(tmp_path, params)
    (tmp_path / paths.LANGUAGE_SELECTION).unlink()
    (tmp_path / paths.LANGUAGE_STAGE2_METRICS).unlink()
    assert len(language.language_scores_table()) == 4
    assert set(language.sizes_table(stage2=False).index) == {"Stage 1"}
    assert language.language_grid(params, limit=2).count("<audio") == 2 * 5
    assert figures.png(language.language_curves(params)).startswith(b"\x89PNG")


def test_curves_show_both_languages_and_the_codec(
    ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ran)
    axes = language.language_curves(make_language_params()).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["Malay", "English"]
    assert {text.get_text() for text in axes.texts} == {"recordings", "coded"}
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["Base", "1", "2", "3", "S2·1", "S2·2"]


@pytest.mark.slow
def test_gap_figure_draws_without_an_interval(ran: Path) -> None:
    decision = read_json(ran / paths.LANGUAGE_DECISION)
    first, again = figures.png(figures.gap(decision)), figures.png(figures.gap(decision))
    assert first == again
    decision["gap"] |= {"low": None, "high": None}
    assert figures.png(figures.gap(decision)).startswith(b"\x89PNG")
