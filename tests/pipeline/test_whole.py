"""The whole pipeline on the miniature, as a user runs it: DVC, notebooks, then the commands.

A copy of the project in an empty git repository restores `data/` from the embedded remote, runs
`dvc repro` with few sentences and one epoch, and is then driven through what the README shows.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
COPIED = ("src", "notebooks", "profiles", ".dvc/config", ".dvc/.gitignore", ".dvcignore")
COPIED += (".gitignore", "dvc.yaml", "data.dvc", "README.md", "reports/language/arms.json")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(folder: Path, *command: str, code: int = 0) -> str:
    """Run a command in a project and return what it printed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_WAIT_POLICY": "PASSIVE",
        "DVC_NO_ANALYTICS": "1",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == code, f"{' '.join(command)} gave {done.returncode}\n{printed[-4000:]}"
    return printed


def voxadapt(folder: Path, *arguments: str, code: int = 0) -> str:
    return run(folder, sys.executable, "-m", "voxadapt", *arguments, code=code)


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def edit(folder: Path, **changes: object) -> None:
    """Change parameters given as section__key=value."""
    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        *sections, key = name.split("__")
        target = values
        for section in sections:
            target = target[section]
        target[key] = value
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def take_a_part(source: Path, target: Path, count: int) -> None:
    """Copy the first clips of a corpus: the whole of it would take minutes."""
    rows = (source / "train_raw.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    (target / "clips").mkdir(parents=True)
    shutil.copyfile(source / "ref.wav", target / "ref.wav")
    for row in rows:
        name = json.loads(row)["audio"]
        shutil.copyfile(source / name, target / name)
    (target / "train_raw.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of everything by `dvc repro`."""
    folder = tmp_path_factory.mktemp("whole") / "project"
    for name in COPIED:
        source, target = PROJECT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "remote", "modify", "embedded", "url", str(PROJECT / ".dvcstore"))
    run(folder, "dvc", "pull", "--quiet", "data.dvc")
    voxadapt(folder, "use", "miniature")
    take_a_part(folder / "data" / "speaker", folder / "small" / "speaker", 170)
    texts = (folder / "data" / "language" / "malay" / "text_only.jsonl").read_text().splitlines()
    (folder / "small" / "texts.jsonl").write_text("\n".join(texts[:100]) + "\n")
    edit(
        folder,
        data__manifest="small/speaker/train_raw.jsonl",
        split__selection_share=0.2,
        split__confirmation_share=0.15,
        language__text="small/texts.jsonl",
        language__source__text="small/speaker/train_raw.jsonl",
        candidates=["base", "epoch-1"],
        score__takes=2,
        score__max_sentences=6,
        select__num_bootstrap=400,
        language__candidates=["base", "epoch-1"],
        language__source__max_sentences=3,
        language__select__num_bootstrap=400,
        language__stage2__num_epochs=1,
        language__stage2__max_gap=1.0,  # no error can exceed it: Stage 2 is skipped
    )
    run(folder, "dvc", "repro", "--quiet")
    return folder


def test_data_is_restored_from_the_embedded_remote(project: Path) -> None:
    assert (project / "data" / "speaker" / "train_raw.jsonl").is_file()
    assert (project / "data" / "models" / "base" / "config.json").is_file()


def test_every_stage_leaves_its_page_and_its_metrics(project: Path) -> None:
    pages = sorted(path.stem for path in (project / "reports" / "notebooks").glob("*.html"))
    notebooks = sorted(path.stem for path in (project / "notebooks").glob("*.ipynb"))
    assert [name for name in notebooks if not any(page.startswith(name) for page in pages)] == []
    decision = json.loads((project / "reports" / "selection.json").read_text())
    assert decision["chosen"] in ("base", "epoch-1")
    assert [item["name"] for item in decision["candidates"]] == ["base", "epoch-1"]
    for item in decision["candidates"]:
        assert item["wer"]["n"] == 12  # 6 sentences x 2 takes, none dropped


def test_second_repro_runs_nothing(project: Path) -> None:
    printed = run(project, "dvc", "repro")
    assert "Running stage" not in printed
    assert "up to date" in printed


def test_dvc_shows_metrics_and_plots(project: Path) -> None:
    table = run(project, "dvc", "metrics", "show")
    assert "base.json" in table
    assert "epoch-1.json" in table
    run(project, "dvc", "plots", "show", "--json")


def test_report_is_one_offline_page_with_audio(project: Path) -> None:
    page = (project / "reports" / "index.html").read_text(encoding="utf-8")
    assert page.count("<audio") >= 6
    assert not re.search(r"""(?:src|href|@import)\s*=?\s*["']?(?:https?:)?//""", page)
    for name in ("base", "epoch-1"):
        assert name in page


def test_stock_package_speaks_from_the_checkpoint_with_a_capital_in_the_name(project: Path) -> None:
    from voxadapt.compat import import_qwen_tts

    folder = project / "artifacts" / "checkpoints" / "epoch-1"
    tts = import_qwen_tts().Qwen3TTSModel.from_pretrained(str(folder))
    wavs, sample_rate_hz = tts.generate_custom_voice(
        text="Good morning.", speaker="Aria", max_new_tokens=40
    )
    assert sample_rate_hz == 24000
    assert len(wavs[0]) % 1920 == 0


def test_commands_of_the_readme_run_without_dvc(project: Path) -> None:
    """Every `voxadapt` command that the README shows, in its order."""
    blocks = re.findall(r"```bash\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    shown = [line for line in lines if line.startswith("voxadapt ")]
    assert {line.split()[1] for line in shown} >= {"audit", "codes", "train", "score", "say", "use"}
    kept = (project / "params.yaml").read_bytes()
    before = (project / "reports" / "selection.json").read_bytes()
    tools = ("use", "doctor", "say")
    stages = [line for line in shown if line.split()[1] not in tools]
    last = [line for line in shown if line.split()[1] in ("say", "doctor")]
    for line in stages + last:
        words = re.findall(r'"([^"]*)"|(\S+)', line)
        voxadapt(project, *[quoted or plain for quoted, plain in words][1:])
    assert (project / "said.wav").stat().st_size > 10_000
    assert (project / "reports" / "selection.json").read_bytes() == before
    for line in (line for line in shown if line.split()[1] == "use"):
        voxadapt(project, *line.split()[1:], "--force")
    (project / "params.yaml").write_bytes(kept)


def language_record(project: Path, name: str) -> dict[str, Any]:
    return json.loads((project / "reports" / "language" / f"{name}.json").read_text())


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
    from voxadapt.model.delta import changed_tensors, read_delta
    from voxadapt.training.language import CODEC_TABLE, TEXT_TABLE

    base, full, back = project / "data" / "models" / "base", tmp_path / "full", tmp_path / "back"
    voxadapt(project, "language", "materialise", "--candidate", "1", "-o", str(full))
    assert changed_tensors(base, full) == sorted([CODEC_TABLE, TEXT_TABLE])
    delta, meta = read_delta(project / "artifacts" / "language" / "stage1" / "epoch-1")
    assert meta["size_bytes"] < 1_000_000
    assert len(delta.rows[CODEC_TABLE][0]) == 1
    voxadapt(project, "language", "restore", str(full), "1", "-o", str(back))
    assert hashes(back) == hashes(base)


def test_stock_package_lists_and_speaks_the_language(project: Path, tmp_path: Path) -> None:
    from voxadapt.compat import import_qwen_tts

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


def test_a_narrower_gap_opens_stage_2(project: Path) -> None:
    """The other branch, by the threshold alone; Stage 1 is neither trained nor scored again."""
    edit(project, language__stage2__max_gap=0.0, language__stage2__if_undecided="run")
    printed = run(project, "dvc", "repro", "language_report")
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
    from voxadapt.model.delta import changed_tensors

    base, full, back = project / "data" / "models" / "base", tmp_path / "full", tmp_path / "back"
    voxadapt(project, "language", "materialise", "--candidate", "stage2-epoch-1", "-o", str(full))
    changed = changed_tensors(base, full)
    rows = {"talker.model.codec_embedding.weight", "talker.model.text_embedding.weight"}
    others = [name for name in changed if name not in rows]
    assert others
    assert all(name.startswith("talker.code_predictor.") for name in others)
    voxadapt(project, "language", "restore", str(full), "stage2-epoch-1", "-o", str(back))
    assert hashes(back) == hashes(base)
    again = run(project, "dvc", "repro")
    assert "Running stage" not in again


def test_the_rest_of_the_readme_is_what_the_makefile_does() -> None:
    """Commands other than `voxadapt` are those by which this very suite was set up."""
    makefile = (PROJECT / "Makefile").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    others = [line for line in lines if line and not line.startswith("voxadapt ")]
    for line in others:
        if line.startswith("make "):
            assert f"\n{line.split()[1]}:" in makefile
        elif line.startswith("pip install"):
            assert "constraints.txt" in line or "torch==2.13.0" in line
        else:
            assert line.split()[0] in ("python3", ".", "dvc", "pytest"), line


def test_an_added_epoch_leaves_the_earlier_checkpoint_alone(project: Path) -> None:
    checkpoints = project / "artifacts" / "checkpoints"
    before = hashes(checkpoints / "epoch-1")
    scored = (project / "artifacts" / "scores" / "epoch-1" / "rows.jsonl").read_bytes()
    edit(project, candidates=["base", "epoch-1", "epoch-2"])
    printed = run(project, "dvc", "repro")
    assert hashes(checkpoints / "epoch-1") == before
    assert (project / "artifacts" / "scores" / "epoch-1" / "rows.jsonl").read_bytes() == scored
    assert "Running stage 'score@epoch-2'" in printed
    assert "Running stage 'score@epoch-1'" not in printed
    assert "Running stage 'score@base'" not in printed


def test_scores_of_an_unlisted_epoch_are_an_error(project: Path) -> None:
    shutil.copytree(
        project / "artifacts" / "scores" / "base", project / "artifacts" / "scores" / "epoch-9"
    )
    printed = voxadapt(project, "select", code=2)
    shutil.rmtree(project / "artifacts" / "scores" / "epoch-9")
    assert "epoch-9" in printed
    assert "Traceback" not in printed


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
