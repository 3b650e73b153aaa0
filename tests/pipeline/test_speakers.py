"""Three voices in one model through every stage, and a fourth added to it, on the miniature."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks.speakers import SECOND, TARGET, THIRD, build_corpus, make_params

from pipeline.whole_path import run_speaker_path
from voxadapt.core.errors import UserError
from voxadapt.core.params import Params
from voxadapt.pipeline import audit, codes, score, select, train
from voxadapt.tools.say import say
from whole import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DATA = PROJECT / "data"
SMALL: dict[str, Any] = {
    "candidates": ["base", "epoch-1"],
    "score__takes": 1,
    "score__sets": ["corpus"],
    "score__max_sentences": 4,
    "select__num_bootstrap": 200,
    "report__listening_sentences": 2,
}


def record(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """A run of two voices through every stage."""
    root = tmp_path_factory.mktemp("speakers")
    manifest = build_corpus(DATA, root / "corpus", {TARGET: 16, SECOND: 6})
    params = make_params(DATA, manifest, **SMALL)
    with contextlib.chdir(root):
        run_speaker_path(params)
    return root, params


def test_the_audit_has_a_table_of_the_speakers(project: Any) -> None:
    root, _ = project
    listed = record(f"{root}/reports/metrics/audit.json")["speakers"]
    assert [(one["speaker"], one["clips"]) for one in listed] == [(TARGET, 16), (SECOND, 6)]
    assert all(one["reference_duration_s"] >= 3.0 for one in listed)


def test_every_speaker_says_every_sentence_and_is_measured_against_itself(project: Any) -> None:
    root, _ = project
    for name in ("base", "epoch-1"):
        lines = (root / "artifacts" / "scores" / name / "rows.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert len(rows) == 4 * 2
        said = {speaker: {row["text_id"] for row in rows if row["speaker"] == speaker}
                for speaker in (TARGET, SECOND)}  # fmt: skip
        assert said[TARGET] == said[SECOND]
        for row in rows:
            assert set(row["sim_to"]) == {TARGET, SECOND}
            assert row["sim_to"][row["speaker"]] == row["sim"]  # both of coded recordings


def test_the_decision_names_the_worst_speaker_and_gates_for_each(project: Any) -> None:
    root, _ = project
    decision = record(f"{root}/reports/selection.json")
    assert [one["name"] for one in decision["speakers"]] == [TARGET, SECOND]
    assert all(one["floor"] < one["ceiling"] for one in decision["speakers"])
    for candidate in decision["candidates"]:
        assert candidate["worst_speaker"] in (TARGET, SECOND)
        assert candidate["confusion"]["right"]["n"] == 8
        states = [of["gates"][1]["state"] for of in candidate["speakers"].values()]
        assert candidate["gates"][1]["state"] in states
    assert decision["recordings"]["real"]["right"]["n"] >= 6
    confirmed = record(f"{root}/reports/confirm.json")
    assert set(confirmed["speakers"]) == {TARGET, SECOND}


def test_the_report_shows_both_tables_and_the_matrix(project: Any) -> None:
    root, _ = project
    page = (root / "reports" / "index.html").read_text(encoding="utf-8")
    assert 'id="speakers"' in page
    assert "Who sounds like whom" in page
    assert re.search(r'id="confusion-wide-|confusion-wide', page) or page.count("of 4") >= 4
    assert f"<th>{SECOND}</th>" in page


def test_the_stock_package_speaks_for_each_of_them(project: Any) -> None:
    from voxadapt.core.compat import import_qwen_tts

    root, _ = project
    folder = root / "artifacts" / "checkpoints" / "epoch-1"
    tts = import_qwen_tts().Qwen3TTSModel.from_pretrained(str(folder))
    assert sorted(tts.get_supported_speakers()) == [TARGET.lower(), SECOND.lower()]
    for name in (TARGET, SECOND):
        wavs, _ = tts.generate_custom_voice("Good morning.", speaker=name, max_new_tokens=12)
        assert len(wavs[0]) > 0


def test_a_speaker_that_is_nowhere_is_refused(project: Any) -> None:
    root, params = project
    only = params.train.model_copy(update={"speakers": (TARGET,)})
    with contextlib.chdir(root):
        with pytest.raises(UserError, match=f"speaker {SECOND}: expected a speaker that is learnt"):
            train.run(params.model_copy(update={"train": only}))
        with pytest.raises(UserError, match="--speaker: expected speakers of the manifest"):
            say(params, "Hello.", Path("x.wav"), "epoch-1", speaker="Nobody")


def test_a_voice_is_added_to_a_checkpoint_that_keeps_the_others(
    project: Any, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from voxadapt.model.checkpoint import CODEC_EMBEDDING

    root, _ = project
    base = root / "artifacts" / "checkpoints" / "epoch-1"
    manifest = build_corpus(DATA, tmp_path / "corpus", {TARGET: 12, SECOND: 6, THIRD: 6})
    params = make_params(
        DATA, manifest, **{**SMALL, "score__max_sentences": 2}, model__base=str(base),
        train__speakers=[THIRD],
    )  # fmt: skip
    with contextlib.chdir(tmp_path):
        audit.run(params)
        codes.run(params)
        train.run(params)
        for name in params.candidates:
            score.run(params, name)
        select.run(params)
        say(params, "Good morning.", Path("said.wav"), "epoch-1", speaker=SECOND)
        decision = record("reports/selection.json")
        meta = record("artifacts/checkpoints/epoch-1/meta.json")
    after = tmp_path / "artifacts" / "checkpoints" / "epoch-1"
    rows = json.loads((after / "config.json").read_text())["talker_config"]["spk_id"]
    assert set(rows) == {name.lower() for name in (TARGET, SECOND, THIRD)}
    tables = [load_file(folder / "model.safetensors")[CODEC_EMBEDDING] for folder in (base, after)]
    for name in (TARGET, SECOND):
        row = rows[name.lower()]
        assert tables[0][row].equal(tables[1][row])
    assert meta["kept_speakers"] == sorted([TARGET.lower(), SECOND.lower()])
    assert [one["kept"] for one in decision["speakers"]] == [True, True, False]
    for name in (TARGET, SECOND):
        of = decision["candidates"][1]["speakers"][name]
        gate = next(gate for gate in of["gates"] if gate["name"] == "kept_voice")
        assert gate["low"] <= gate["value"] <= gate["high"]
        assert of["vs_base"]["sim"]["n"] == 2
    assert (tmp_path / "said.wav").stat().st_size > 1000
