"""The speaker's path on the miniature, as a user runs it: DVC, notebooks, then the commands.

A small copy of the project restores `data/` from the embedded remote, runs `dvc repro report`, and
is then driven through what the README shows. The language's path has a file of its own, so that
both can run side by side.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from starter import quick_starts
from whole import (
    PROJECT,
    edit,
    hashes,
    is_of_language,
    other_commands,
    readme_commands,
    repro,
    run,
    small_project,
    voxadapt,
    without_dvc,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small run of the speaker's path."""
    folder = small_project(tmp_path_factory.mktemp("speaker") / "project")
    run(folder, "dvc", "repro", "audit")  # in processes that a user has started
    with quick_starts(folder):
        repro(folder, "report")
        yield folder


def test_data_is_restored_from_the_embedded_remote(project: Path) -> None:
    assert (project / "data" / "speaker" / "train_raw.jsonl").is_file()
    assert (project / "data" / "models" / "base" / "config.json").is_file()


def test_every_stage_leaves_its_page_and_its_metrics(project: Path) -> None:
    pages = sorted(path.stem for path in (project / "reports" / "notebooks").glob("*.html"))
    notebooks = sorted(path.stem for path in (project / "notebooks").glob("0[1-7]_*.ipynb"))
    assert [name for name in notebooks if not any(page.startswith(name) for page in pages)] == []
    decision = json.loads((project / "reports" / "selection.json").read_text())
    assert decision["chosen"] in ("base", "epoch-1")
    assert [item["name"] for item in decision["candidates"]] == ["base", "epoch-1"]
    for item in decision["candidates"]:
        assert item["wer"]["n"] == 12  # 6 sentences x 2 takes, none dropped


def test_second_repro_runs_nothing(project: Path) -> None:
    printed = repro(project, "report")
    assert "Running stage" not in printed
    assert "up to date" in printed


def test_a_finished_run_verifies_until_something_is_edited(project: Path) -> None:
    assert "are what the stages wrote" in voxadapt(project, "verify")
    rows = project / "artifacts" / "scores" / "epoch-1" / "rows.jsonl"
    text = rows.read_bytes()
    rows.unlink()  # a link into DVC's cache is not written through
    rows.write_bytes(text.replace(b'"take": 0', b'"take": 1', 1))
    for command in ("verify", "select", "report"):
        assert "voxadapt score epoch-1" in without_dvc(project, command, code=2)
    rows.write_bytes(text)
    voxadapt(project, "verify")


def test_dvc_shows_metrics_and_plots(project: Path) -> None:
    table = run(project, "dvc", "metrics", "show")
    assert "base.json" in table
    assert "epoch-1.json" in table
    assert max(map(len, table.splitlines())) <= 120
    run(project, "dvc", "plots", "show", "--json")


def test_report_is_one_offline_page_with_audio(project: Path) -> None:
    page = (project / "reports" / "index.html").read_text(encoding="utf-8")
    assert page.count("<audio") >= 6
    assert not re.search(r"""(?:src|href|@import)\s*=?\s*["']?(?:https?:)?//""", page)
    for name in ("base", "epoch-1"):
        assert name in page


def test_stock_package_speaks_from_the_checkpoint_with_a_capital_in_the_name(project: Path) -> None:
    from voxadapt.core.compat import import_qwen_tts

    folder = project / "artifacts" / "checkpoints" / "epoch-1"
    tts = import_qwen_tts().Qwen3TTSModel.from_pretrained(str(folder))
    wavs, sample_rate_hz = tts.generate_custom_voice(
        text="Good morning.", speaker="Aria", max_new_tokens=40
    )
    assert sample_rate_hz == 24000
    assert len(wavs[0]) % 1920 == 0


def test_commands_of_the_readme_run(project: Path) -> None:
    """Every `voxadapt` command that the README shows, but those of the language, in its order."""
    shown = [arguments for arguments in readme_commands() if not is_of_language(arguments)]
    assert {arguments[0] for arguments in shown} >= {"audit", "codes", "train", "score", "say"}
    kept = (project / "params.yaml").read_bytes()
    before = (project / "reports" / "selection.json").read_bytes()
    last = [arguments for arguments in shown if arguments[0] in ("say", "doctor")]
    profiles = [arguments for arguments in shown if arguments[0] == "use"]
    assert profiles
    for arguments in [item for item in shown if item not in last + profiles] + last:
        voxadapt(project, *arguments)
    assert (project / "said.wav").stat().st_size > 10_000
    assert (project / "reports" / "selection.json").read_bytes() == before
    for arguments in profiles:
        voxadapt(project, *arguments, "--force")
    (project / "params.yaml").write_bytes(kept)


def test_the_rest_of_the_readme_is_what_the_makefile_does() -> None:
    """Commands other than `voxadapt` are those by which this very suite was set up."""
    makefile = (PROJECT / "Makefile").read_text()
    for line in other_commands():
        if line.startswith("make "):
            assert f"\n{line.split()[1]}:" in makefile
        elif line.startswith("pip install"):
            assert "constraints.txt" in line or "torch==2.13.0" in line
        else:
            assert line.split()[0] in ("python3", ".", "cd", "dvc", "pytest"), line


def test_an_added_epoch_leaves_the_earlier_checkpoint_alone(project: Path) -> None:
    checkpoints = project / "artifacts" / "checkpoints"
    before = hashes(checkpoints / "epoch-1")
    scored = (project / "artifacts" / "scores" / "epoch-1" / "rows.jsonl").read_bytes()
    edit(project, candidates=["base", "epoch-1", "epoch-2"])
    printed = repro(project, "select")
    assert hashes(checkpoints / "epoch-1") == before
    assert (project / "artifacts" / "scores" / "epoch-1" / "rows.jsonl").read_bytes() == scored
    assert "Running stage 'score@epoch-2'" in printed
    assert "Running stage 'score@epoch-1'" not in printed
    assert "Running stage 'score@base'" not in printed


def test_scores_of_an_unlisted_epoch_are_moved_out_of_the_way(project: Path) -> None:
    scores, metrics = project / "artifacts" / "scores", project / "reports" / "metrics" / "scores"
    shutil.copytree(scores / "base", scores / "epoch-9")
    shutil.copy(metrics / "base.json", metrics / "epoch-9.json")
    without_dvc(project, "select")
    assert not (scores / "epoch-9").exists()
    assert not (metrics / "epoch-9.json").exists()
    kept = project / ".work" / "unlisted"
    assert (kept / "artifacts" / "scores" / "epoch-9" / "rows.jsonl").is_file()
    assert (kept / "reports" / "metrics" / "scores" / "epoch-9.json").is_file()


def test_fewer_epochs_choose_among_those_that_are_left(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    scored = project / "artifacts" / "scores" / "epoch-2"
    edit(project, candidates=["base", "epoch-1"])
    repro(project, "select")
    decision = json.loads((project / "reports" / "selection.json").read_text())
    assert [item["name"] for item in decision["candidates"]] == ["base", "epoch-1"]
    assert not scored.exists()
    (project / "params.yaml").write_text(before)
    printed = repro(project, "select")  # the longer list again: restored, not spoken again
    assert scored.is_dir()
    assert "Running stage 'score@epoch-2'" not in printed


def test_bad_rows_stop_the_audit_with_one_table(project: Path, tmp_path: Path) -> None:
    import numpy as np
    import soundfile as sf

    corpus = tmp_path / "corpus"
    corpus.mkdir()
    tone = 0.3 * np.sin(np.arange(48000) / 20)
    sf.write(corpus / "ref.wav", np.tile(tone, 2), 24000)
    sf.write(corpus / "good.wav", tone, 24000)
    sf.write(corpus / "short.wav", tone[:24000], 24000)
    sf.write(corpus / "narrow.wav", np.stack([tone, tone], axis=1), 8000)
    (corpus / "broken.wav").write_bytes(b"RIFF broken")
    row = {"audio": "good.wav", "text": "A good row.", "ref_audio": "ref.wav"}
    rows = [
        json.dumps(row),
        json.dumps({**row, "audio": "missing.wav"}),
        json.dumps({**row, "audio": "broken.wav"}),
        "{not json",
        json.dumps({**row, "audio": "short.wav", "speed": 1}),
        json.dumps({**row, "audio": "short.wav", "text": " "}),
        json.dumps({**row, "audio": "short.wav", "ref_audio": "good.wav"}),
        json.dumps({**row, "audio": "short.wav", "text": "One second."}),
        json.dumps({**row, "audio": "narrow.wav", "text": "Narrow and wide."}),
    ]
    (corpus / "train_raw.jsonl").write_text("\n".join(rows) + "\n")
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["manifest"] = str(corpus / "train_raw.jsonl")
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(params))
    printed = voxadapt(project, "audit", "--params", str(path), code=2)
    assert "Traceback" not in printed
    for line in (2, 3, 4, 5, 6, 7):
        assert f"train_raw.jsonl:{line}" in printed.replace("\n", ""), printed
