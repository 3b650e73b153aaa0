"""The language's path on the miniature, as a user runs it: DVC, notebooks, then the commands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from starter import quick_starts
from whole import (
    edit,
    hashes,
    is_of_language,
    readme_commands,
    repro,
    run,
    small_project,
    voxadapt,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small run of the language's path."""
    folder = small_project(tmp_path_factory.mktemp("language") / "project")
    run(folder, "dvc", "repro", "language_data")  # in processes that a user has started
    with quick_starts(folder):
        repro(folder, "language_report")
        yield folder


def language_record(project: Path, name: str) -> dict[str, Any]:
    return json.loads((project / "reports" / "language" / f"{name}.json").read_text())


def test_every_stage_leaves_its_page(project: Path) -> None:
    pages = sorted(path.stem for path in (project / "reports" / "notebooks").glob("*.html"))
    notebooks = sorted(path.stem for path in (project / "notebooks").glob("*.ipynb"))[7:]
    assert notebooks[0] == "08_language_data"
    assert [name for name in notebooks if not any(page.startswith(name) for page in pages)] == []


def test_stage_2_is_skipped_when_the_gap_may_be_this_wide(project: Path) -> None:
    decision = language_record(project, "decision")
    assert (decision["decision"], decision["acts"]) == ("skip", "skip")
    assert decision["gap"]["high"] <= decision["rule"]["max_gap"] == 1.0
    assert (project / "artifacts" / "language" / "stage2" / "skipped.json").is_file()
    assert language_record(project, "selection")["stage2_ran"] is False
    page = (project / "reports" / "language" / "index.html").read_text(encoding="utf-8")
    assert page.count("<audio") >= 6
    assert not re.search(r"""(?:src|href|@import)\s*=?\s*["']?(?:https?:)?//""", page)


def test_stage_1_changes_rows_alone_and_comes_out_again(project: Path, tmp_path: Path) -> None:
    """Frozen tensors are bit-identical; without its delta the model is the Base again."""
    from fakes import changed_tensors
    from voxadapt.model.delta import read_delta
    from voxadapt.training.adaptations.language import CODEC_TABLE, TEXT_TABLE

    base, full, back = project / "data" / "models" / "base", tmp_path / "full", tmp_path / "back"
    voxadapt(project, "language", "materialise", "--candidate", "1", "-o", str(full))
    assert changed_tensors(base, full) == sorted([CODEC_TABLE, TEXT_TABLE])
    delta, meta = read_delta(project / "artifacts" / "language" / "stage1" / "epoch-1")
    assert meta["size_bytes"] < 1_000_000
    assert len(delta.rows[CODEC_TABLE][0]) == 1
    voxadapt(project, "language", "restore", str(full), "1", "-o", str(back))
    assert hashes(back) == hashes(base)


def test_stock_package_lists_and_speaks_the_language(project: Path, tmp_path: Path) -> None:
    from voxadapt.core.compat import import_qwen_tts

    folder = tmp_path / "malay"
    voxadapt(project, "language", "materialise", "--candidate", "1", "-o", str(folder))
    tts = import_qwen_tts().Qwen3TTSModel.from_pretrained(str(folder))
    assert "malay" in tts.get_supported_languages()
    wavs, sample_rate_hz = tts.generate_voice_clone(
        text="Saya beli payung.",
        language="Malay",
        ref_audio=str(project / "data" / "language" / "malay" / "ref.wav"),
        x_vector_only_mode=True,
        max_new_tokens=40,
    )
    assert sample_rate_hz == 24000
    assert len(wavs[0]) % 1920 == 0


def test_bad_texts_and_names_give_one_table(project: Path, tmp_path: Path) -> None:
    lines = ['{"text": "Saya beli ikan."}', '{"text": "\u042f \u043a\u0443\u043f\u0438\u043b."}',
             '{"text": ""}', "{", json.dumps({"text": "buku " * 2000})]  # fmt: skip
    (tmp_path / "texts.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "empty.jsonl").write_text("")
    for name, texts, wanted in (
        ("malay", "texts.jsonl", ("texts.jsonl:3", "texts.jsonl:4")),
        ("malay", "empty.jsonl", ("empty.jsonl",)),
        ("english", "texts.jsonl", ("language.name",)),
    ):
        params = yaml.safe_load((project / "params.yaml").read_text())
        params["language"] |= {"name": name, "text": str(tmp_path / texts)}
        path = tmp_path / "bad.yaml"
        path.write_text(yaml.safe_dump(params))
        printed = voxadapt(project, "language", "data", "--params", str(path), code=2)
        assert "Traceback" not in printed
        for part in wanted:
            assert part in printed.replace("\n", ""), printed


def test_commands_of_the_readme_run(project: Path) -> None:
    """Every command of the language that the README shows, in its order."""
    shown = [arguments for arguments in readme_commands() if is_of_language(arguments)]
    assert {arguments[1] for arguments in shown if arguments[1:]} >= {"stage1", "decide", "say"}
    before = (project / "reports" / "language" / "selection.json").read_bytes()
    for arguments in shown:
        voxadapt(project, *arguments)
    assert (project / "reports" / "language" / "selection.json").read_bytes() == before
    assert hashes(project / "base-again") == hashes(project / "data" / "models" / "base")


def test_a_narrower_gap_opens_stage_2(project: Path) -> None:
    """The other branch, by the threshold alone; Stage 1 is neither trained nor scored again."""
    edit(project, language__stage2__max_gap=0.0, language__stage2__if_undecided="run")
    printed = repro(project, "language_report")
    decision = language_record(project, "decision")
    assert decision["acts"] == "run"
    for name in ("language_decide", "language_stage2", "language_confirm", "language_report"):
        assert f"Running stage '{name}'" in printed
    for name in ("language_stage1", "language_score@base", "language_data", "train"):
        assert f"Running stage '{name}'" not in printed
    selection = language_record(project, "selection")
    assert selection["stage2_ran"] is True
    assert "stage2-epoch-1" in {item["name"] for item in selection["candidates"]}


def test_stage_2_changes_the_code_predictor_alone(project: Path, tmp_path: Path) -> None:
    from fakes import changed_tensors

    base, full, back = project / "data" / "models" / "base", tmp_path / "full", tmp_path / "back"
    voxadapt(project, "language", "materialise", "--candidate", "stage2-epoch-1", "-o", str(full))
    changed = changed_tensors(base, full)
    rows = {"talker.model.codec_embedding.weight", "talker.model.text_embedding.weight"}
    others = [name for name in changed if name not in rows]
    assert others
    assert all(name.startswith("talker.code_predictor.") for name in others)
    voxadapt(project, "language", "restore", str(full), "stage2-epoch-1", "-o", str(back))
    assert hashes(back) == hashes(base)
    again = repro(project, "language_report")
    assert "Running stage" not in again
