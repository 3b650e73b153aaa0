"""`voxadapt evaluate`: clips of any system, in any folder, without a parameter file."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from sounds import make_voice, make_whisper, silence, write
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json
from voxadapt.tools.evaluate import evaluate
from whole import voxadapt

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAYLOAD = "<script>alert(document.title)</script> and some words"


@pytest.fixture(scope="module")
def whisper_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("asr") / "tiny.pt")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two systems in a folder of their own; the working folder is another, empty one."""
    monkeypatch.delenv("WORK_DIR", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    root = tmp_path / "clips"
    for index in range(4):
        write(root / f"a{index}.wav", make_voice(2.0, 120, index))
        write(root / f"b{index}.wav", make_voice(2.0, 210, index + 50))
        write(root / "speaker" / f"{index}.wav", make_voice(2.2, 120, index + 10))
    return root


def manifest(root: Path, rows: list[dict[str, Any]], name: str = "clips.jsonl") -> Path:
    (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root / name


def two_systems(count: int = 4) -> list[dict[str, Any]]:
    words = ("alpha", "bravo", "charlie", "delta")
    return [
        {"audio": f"{system}{n}.wav", "text": f"The word {words[n]} is spoken.", "system": system}
        for system in "ab"
        for n in range(count)
    ]


def run(path: Path, whisper_file: Path, **options: Any) -> tuple[dict[str, Any], Path]:
    out = path.parent.parent / "out"
    evaluate(path, out, asr=str(whisper_file), device="cpu", **options)
    return read_json(out / "summary.json"), out


def test_two_systems_with_a_reference(folder: Path, whisper_file: Path) -> None:
    listed = [{"audio": f"speaker/{n}.wav", "text": "Some words of the speaker."} for n in range(4)]
    reference = manifest(folder, listed, "speaker.jsonl")
    rows = two_systems()
    (folder / "b2.wav").unlink()
    rows.append({"audio": "b0.wav", "text": "There are 7 of them.", "system": "a"})
    rows.append({"audio": "a0.wav", "text": PAYLOAD, "system": "b"})
    summary, out = run(manifest(folder, rows), whisper_file, reference=reference)
    first, second = summary["systems"]["a"], summary["systems"]["b"]
    assert (first["n_expected"], second["n_expected"], second["n_measured"]) == (5, 5, 4)
    assert (summary["n_expected"], summary["n_measured"]) == (10, 9)
    assert [(item["system"], item["message"]) for item in summary["missing"]] == [
        ("b", "there is no file b2.wav")
    ]
    assert set(first["slices"]) == {"ranked"}  # 7 has a word
    assert summary["comparison"]["num_texts"] == 4
    [pair] = summary["comparison"]["pairs"]
    assert pair["sim"]["difference"]["point"] < 0  # b has another voice, and a clip less
    assert summary["similarity"]["scale"]["ceiling"]["point"] > first["sim"]["point"] - 0.1
    assert summary["asr_floor"]["n_expected"] == 4 and summary["notes"] == []
    lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert len(lines) == 10 and {line["sim_ref_n"] for line in lines} == {0, 4}
    lost = [line for line in lines if line["status"] == "failed"]
    assert [line["word_deletions"] for line in lost] == [5]
    assert len((out / "reference" / "rows.jsonl").read_text().splitlines()) == 4
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html
    assert "default-src 'none'" in html and "there is no file b2.wav" in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert html.count("<audio") >= 9


def test_it_writes_the_same_twice_and_nothing_elsewhere(folder: Path, whisper_file: Path) -> None:
    path = manifest(folder, two_systems())
    _, out = run(path, whisper_file, reference=folder / "speaker")
    names = ("rows.jsonl", "summary.json", "index.html")
    before = [(out / name).read_bytes() for name in names]
    manifest(folder, two_systems())
    run(path, whisper_file, reference=folder / "speaker")
    assert [(out / name).read_bytes() for name in names] == before
    assert list((folder.parent / "elsewhere").iterdir()) == []
    assert sorted(item.name for item in folder.iterdir() if item.suffix != ".wav") == [
        "clips.jsonl", "speaker",
    ]  # fmt: skip


def test_without_a_reference_there_is_no_similarity_and_it_is_said(
    folder: Path, whisper_file: Path
) -> None:
    summary, out = run(manifest(folder, two_systems()[:4]), whisper_file)
    assert not summary["similarity"]["measured"] and summary["comparison"] is None
    assert summary["systems"]["a"]["sim_missing"] == 4
    assert any("No reference was given" in note for note in summary["notes"])
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "No reference was given" in html and "<th>Similarity</th>" not in html


def test_each_row_is_heard_in_its_own_language(folder: Path, whisper_file: Path) -> None:
    rows = two_systems()
    for row in rows[1::2]:
        row |= {
            "text": "Zwei Wörter, die alle hören.",
            "language": "German",
            "id": row["audio"][1:],
        }
    summary, out = run(manifest(folder, rows), whisper_file)
    read = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert {(row["lang"], row["asr_id"].split("/")[-2]) for row in read} == {
        ("en", "en"), ("de", "de")
    }  # fmt: skip
    assert set(summary["languages"]) == {"de", "en"}
    assert summary["languages"]["de"]["a"]["n_expected"] == 2
    assert len(summary["evaluator"]["asr_id"].split(", ")) == 2
    with pytest.raises(UserError) as caught:
        run(manifest(folder, [row | {"language": "klingon"} for row in rows]), whisper_file)
    assert [problem.where for problem in caught.value.problems] == [
        f"clips.jsonl:{n}" for n in range(1, 9)
    ]


def test_recordings_without_texts_give_a_rate_but_no_floor(
    folder: Path, whisper_file: Path
) -> None:
    path = manifest(folder, two_systems())
    summary, _ = run(path, whisper_file, reference=folder / "speaker")
    assert summary["asr_floor"] is None and summary["similarity"]["scale"] is not None
    assert any("no texts" in note for note in summary["notes"])
    two = folder / "few"
    two.mkdir()
    for n in range(2):
        shutil.copy(folder / "speaker" / f"{n}.wav", two)
    summary, _ = run(path, whisper_file, reference=two)
    assert summary["similarity"]["measured"] and summary["similarity"]["scale"] is None
    assert any("Only 2 of 2" in note for note in summary["notes"])
    assert summary["systems"]["a"]["duration_ratio"]["point"] is None


def test_clips_with_references_of_their_own(folder: Path, whisper_file: Path) -> None:
    rows = two_systems()
    for row in rows:
        if row["system"] == "a":
            row["reference"] = "speaker/0.wav"
    write(folder / "other.wav", make_voice(2.0, 210, 77))
    write(folder / "nothing.wav", silence(2.0))
    for row in rows[4:]:
        row["reference"] = ["other.wav"]
    rows[7]["reference"] = ["nothing.wav"]
    summary, out = run(manifest(folder, rows), whisper_file)
    lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    sims = {(line["candidate"], line["text"].split()[2]): line["sim"] for line in lines}
    assert sims.pop(("b", "delta")) is None
    assert all(sim > 0.7 for sim in sims.values())
    assert len({line["sim_id"] for line in lines}) == 1
    assert any("nothing.wav" in note for note in summary["notes"])


def test_what_cannot_be_measured_stays_in_the_denominator(folder: Path, whisper_file: Path) -> None:
    (folder / "a1.wav").write_bytes(b"RIFF no audio")
    sf.write(folder / "a2.wav", np.zeros(0, np.float32), 16000)
    sf.write(folder / "a3.wav", np.full(16000, np.nan, np.float32), 16000, subtype="FLOAT")
    summary, _ = run(manifest(folder, two_systems()[:4]), whisper_file)
    assert (summary["n_expected"], summary["n_measured"]) == (4, 1)
    reasons = " ".join(item["message"] for item in summary["missing"])
    assert "cannot read a1.wav" in reasons and "a2.wav: a file without samples" in reasons
    assert "a3.wav has samples that are no numbers" in reasons
    assert summary["systems"]["a"]["wer"]["point"] > 0.7


def test_a_clip_is_not_its_own_reference(folder: Path, whisper_file: Path) -> None:
    shutil.copy(folder / "a0.wav", folder / "speaker" / "again.wav")
    with pytest.raises(UserError, match="its own reference"):
        run(manifest(folder, two_systems()), whisper_file, reference=folder / "speaker")


def test_digits_alone_and_words_of_thai_are_refused(folder: Path, whisper_file: Path) -> None:
    digits = [{"audio": "a0.wav", "text": "Room 12."}, {"audio": "a1.wav", "text": "Room 13."}]
    with pytest.raises(UserError, match="nothing to rank by"):
        run(manifest(folder, digits), whisper_file, language="yo")  # without names of numbers
    thai = [{"audio": "a0.wav", "text": "สวัสดีครับ"}]
    with pytest.raises(UserError, match="without spaces between words"):
        run(manifest(folder, thai), whisper_file, language="th", metric="wer")
    summary, _ = run(manifest(folder, thai), whisper_file, language="th")
    assert summary["error_metric"] == "cer"


@pytest.mark.skipif(
    not (ROOT / "data/models/whisper/miniature.pt").is_file(),
    reason="the miniature is not here: dvc pull",
)
def test_the_documented_example_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    [commands] = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    for name in ("data", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    example, command = map(shlex.split, commands.replace("\\\n", " ").strip().splitlines())
    assert (example[0], command[0]) == ("python", "voxadapt")
    subprocess.run([sys.executable, *example[1:]], cwd=tmp_path, check=True)
    said = voxadapt(tmp_path, *command[1:])
    assert "10 of 10 clips" in said and "9 of 10 clips" in said
    assert "studio has higher similarity than telephone" in said
    summary = read_json(tmp_path / "example" / "evaluation" / "summary.json")
    assert summary["systems"]["studio"]["wer"]["point"] < 0.1
    floor = summary["similarity"]["scale"]["floor"]["point"]
    assert floor < summary["systems"]["telephone"]["sim"]["point"] + 0.1 < 0.9
    assert (tmp_path / "example" / "evaluation" / "index.html").stat().st_size < 5e6
    for named in ("rows.jsonl", "summary.json", "index.html", "reference/rows.jsonl"):
        assert f"`{named}`" in text and (tmp_path / "example" / "evaluation" / named).is_file()


def test_the_command_line_reports_user_errors_as_a_table(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "voxadapt", "evaluate", "--manifest", "none.jsonl"],
        cwd=tmp_path, text=True, capture_output=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "a JSONL file" in done.stderr and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["index.html", "summary.json", "rows.jsonl"])
def test_files_of_somebody_else_are_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / name).write_text("{}")
    with pytest.raises(UserError, match="nothing is overwritten"):
        evaluate(tmp_path / "clips.jsonl", tmp_path / "site")
    assert (tmp_path / "site" / name).read_text() == "{}"
