"""A voice in two languages, by an adapter, held against the better of two Bases: every stage."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from benchmarks.speakers import TARGET, build_corpus, make_params

from pipeline.whole_path import run_speaker_path
from voxadapt.core.params import Params
from voxadapt.model.delta import read_delta
from voxadapt.tools.say import say
from whole import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DATA = PROJECT / "data"


def record(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    root = tmp_path_factory.mktemp("languages")
    base = root / "base"
    shutil.copytree(DATA / "models" / "base", base, copy_function=os.link)
    config = record(base / "config.json")
    config["talker_config"]["codec_language_id"]["german"] = 290
    (base / "config.json").unlink()
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    manifest = build_corpus(DATA, root / "corpus", {TARGET: 16})
    rows = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    for number, row in enumerate(rows):
        del row["speaker"]
        row |= {"language": ("german", "English", None)[number % 3]}
    lines = (json.dumps({k: v for k, v in row.items() if v}) + "\n" for row in rows)
    manifest.write_text("".join(lines), "utf-8")
    params = make_params(
        DATA, manifest, model__base=str(base), candidates=["base", "epoch-1"], score__takes=1,
        score__sets=["corpus"],
        select__num_bootstrap=200, report__listening_sentences=2, train__method="lora",
        train__lr=1e-3, train__text_augmentation=0.5, score__base_prompt="both",
        data__ref_text="A boy and the baker painted the hat today.", split__selection_share=0.4,
    )  # fmt: skip
    with contextlib.chdir(root):
        run_speaker_path(params)
    return root, params


def test_every_row_is_trained_and_asked_for_in_its_own_language(project: Any) -> None:
    root, _ = project
    accepted = [
        json.loads(line)
        for line in (root / "artifacts" / "audit" / "manifest.jsonl")
        .read_text("utf-8")
        .splitlines()
    ]
    own = {row["id"]: {"german": "de", "english": "en", None: "en"}[row["language"]]
           for row in accepted}  # fmt: skip
    assert set(own.values()) == {"de", "en"}
    for name in ("scores/base", "scores/epoch-1", "reference/real", "reference/codec"):
        lines = (root / "artifacts" / name / "rows.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert {row["lang"] for row in rows} == {"de", "en"}
        assert all(row["lang"] == own[row["text_id"]] for row in rows)
        assert all(f"/{row['lang']}/" in row["asr_id"] for row in rows)


def test_each_language_is_summed_up_by_itself(project: Any) -> None:
    root, _ = project
    summary = record(root / "artifacts" / "scores" / "epoch-1" / "summary.json")
    assert set(summary["languages"]) == {"de", "en"}
    parts = summary["languages"].values()
    assert sum(part["num_texts"] for part in parts) == summary["num_texts"]
    assert all(0 <= part["wer"]["point"] for part in parts)


def test_the_better_base_is_the_bar_and_is_the_one_that_is_confirmed(project: Any) -> None:
    root, _ = project
    scores = root / "artifacts" / "scores" / "base"
    found = record(scores / "summary.json")["base_prompt"]
    chosen = found["chosen"]
    assert chosen in ("x_vector", "icl")
    sims = {name: found[name]["sim"]["point"] for name in ("x_vector", "icl")}
    assert sims["x_vector"] != sims["icl"]
    kept = (scores / "rows.jsonl").read_bytes()
    assert kept == (scores / chosen / "rows.jsonl").read_bytes()
    decision = record(root / "reports" / "selection.json")
    base = next(one for one in decision["candidates"] if one["name"] == "base")
    assert base["sim"]["point"] == sims[chosen]
    assert (root / "artifacts" / "confirmation" / "base" / "rows.jsonl").is_file()


def test_the_adapter_speaks_by_name(project: Any) -> None:
    root, params = project
    delta, _ = read_delta(root / "artifacts" / "checkpoints" / "epoch-1")
    assert delta.speakers.keys() == {"aria"}
    assert delta.lora
    with contextlib.chdir(root):
        say(params, "Good morning.", Path("said.wav"), "epoch-1")
        assert Path("said.wav").stat().st_size > 1000
