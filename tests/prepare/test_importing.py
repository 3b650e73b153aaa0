"""Importing: every layout, what is left out, what is refused, going on."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from typer.testing import CliRunner

from corpus import sentence, speech_like, write_clip
from voxadapt.cli.app import app
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json, read_jsonl, sha256_folder
from voxadapt.data.manifest import read_raw_manifest
from voxadapt.prepare import import_corpus as corpora
from voxadapt.prepare.import_corpus import import_corpus

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data"


def ljspeech(root: Path, count: int = 4) -> Path:
    lines = []
    for n in range(count):
        write_clip(root / "wavs" / f"LJ-{n:03d}.wav", 2.5 if n else 5.0, seed=n)
        lines.append(f"LJ-{n:03d}|{sentence(n)[:-1]} & co.|{sentence(n)}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def commonvoice(root: Path, suffix: str = ".mp3") -> Path:
    lines = ["client_id\tpath\tsentence\tup_votes"]
    for n in range(6):
        who = ("aaaa1111", "bbbb2222")[n % 2]
        name = f"common_voice_{n}{suffix}"
        (root / "clips").mkdir(parents=True, exist_ok=True)
        sf.write(root / "clips" / name, speech_like(4.0, 32000, n), 32000)
        lines.append(f'{who}\t{name}\tHe said "{sentence(n)}\t2')
    (root / "validated.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def lhotse(root: Path, what: str = "cuts") -> Path:
    write_clip(root / "audio" / "long.wav", 16.0, seed=1)
    recording = {
        "id": "long", "sampling_rate": 16000, "num_samples": 256000, "duration": 16.0,
        "sources": [{"type": "file", "channels": [0],
                     "source": str((root / "audio" / "long.wav").resolve())}],
    }  # fmt: skip
    parts = [
        {"id": f"sup-{n}", "recording_id": "long", "start": 4.0 * n, "duration": 3.5,
         "channel": 0, "text": sentence(n), "speaker": "anna", "language": "English"}
        for n in range(4)
    ]  # fmt: skip
    if what == "cuts":
        rows = [
            {"id": f"cut-{n}", "start": part["start"], "duration": 4.0, "channel": 0,
             "type": "MonoCut", "recording": recording,
             "supervisions": [{**part, "start": 0.0}]}
            for n, part in enumerate(parts)
        ]  # fmt: skip
    else:
        rows = parts
        write_gz(root / "recordings.jsonl.gz", [recording])
    write_gz(root / f"{what}.jsonl.gz", rows)
    return root


def write_gz(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in rows))


def audiofolder(root: Path, kind: str = "csv") -> Path:
    rows = []
    for n in range(4):
        write_clip(root / "train" / "a" / f"{n}.wav", 3.5, seed=n)
        rows.append({"file_name": f"a/{n}.wav", "transcription": f"{sentence(n)}, yes"})
    file = root / "train" / f"metadata.{kind}"
    if kind == "csv":
        lines = [f'{row["file_name"]},"{row["transcription"]}"' for row in rows]
        file.write_text("\n".join(["file_name,transcription", *lines]) + "\n")
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def check(out: Path, count: int) -> dict[str, Any]:
    """The folder is what the audit reads, and nothing else lies in it."""
    rows, problems = read_raw_manifest(out / "train_raw.jsonl")
    assert problems == []
    assert len(rows) == count
    record = read_json(out / "import.json")
    assert record["num_imported"] == count
    allowed = {"clips", "train_raw.jsonl", "ref.wav", "refs", "import.json"}
    assert {path.name for path in out.iterdir()} <= allowed
    assert {f"clips/{path.name}" for path in (out / "clips").iterdir()} == {r.audio for r in rows}
    for row in rows:
        assert 3.0 <= sf.info(row.ref_path).duration <= 10.0
    return record


@pytest.mark.slow
def test_ljspeech_takes_the_normalised_text_and_copies_bytes(tmp_path: Path) -> None:
    source = ljspeech(tmp_path / "LJ")
    done = import_corpus([source], tmp_path / "out")
    record = check(tmp_path / "out", 3)
    assert record["format"] == "ljspeech"
    assert record["reference"]["from"] == "clips/LJ-000.wav", "the only clip of 3 to 10 s"
    rows = {row["audio"]: row["text"] for row in read_jsonl(tmp_path / "out" / "train_raw.jsonl")}
    assert rows["clips/LJ-001.wav"] == sentence(1)
    copied = (tmp_path / "out" / "clips" / "LJ-001.wav").read_bytes()
    assert copied == (source / "wavs" / "LJ-001.wav").read_bytes()
    assert done.left_out == ()
    again = import_corpus([source], tmp_path / "out")
    assert "already" in again.sentence
    other = import_corpus([source], tmp_path / "raw", text_column="text", language="english")
    assert {row["language"] for row in read_jsonl(tmp_path / "raw" / "train_raw.jsonl")} == {
        "english"
    }
    assert other.record["num_imported"] == 3


@pytest.mark.slow
def test_bad_rows_are_listed_and_the_others_imported(tmp_path: Path) -> None:
    source = ljspeech(tmp_path / "LJ")
    outside = write_clip(tmp_path / "outside.wav")
    (source / "wavs" / "text.wav").write_text("no audio")
    (source / "wavs" / "link.wav").symlink_to(outside)
    with open(source / "metadata.csv", "ab") as stream:
        for line in (
            b"gone|Some words here.", b"LJ-001|", b"../outside.wav|Some words here.", b"alone",
            b"https://a.example/x.wav|Some words here.", b"text|Some words here.",
            b"link|Some words here.", b"LJ-002|Twice the same clip.", b"caf\xe9|Latin one.",
        ):  # fmt: skip
            stream.write(line + b"\n")
    done = import_corpus([source], tmp_path / "out")
    record = check(tmp_path / "out", 3)
    assert record["num_left_out"] == len(done.left_out) == 9
    assert record["num_rows"] == 13
    lines = [int(item["where"].rpartition(":")[2]) for item in record["left_out"]]
    assert sorted(lines) == list(range(5, 14))
    told = " ".join(item["found"] for item in record["left_out"])
    for part in ("no file", "empty text", "leaves the folder", "address", "byte 0xe9", "again"):
        assert part in told, part


@pytest.mark.slow
def test_commonvoice_needs_a_voice_and_reads_mp3(tmp_path: Path) -> None:
    source = commonvoice(tmp_path / "cv")
    with pytest.raises(UserError, match=r"aaaa1111.*\(3\)"):
        import_corpus([source], tmp_path / "out")
    with pytest.raises(UserError, match="begins with zz"):
        import_corpus([source], tmp_path / "out", speaker="zz")
    import_corpus([source], tmp_path / "out", speaker="aaaa")
    record = check(tmp_path / "out", 2)
    assert (record["format"], record["speaker"]) == ("commonvoice", "aaaa1111")
    assert record["num_other_speakers"] == 3
    row = read_jsonl(tmp_path / "out" / "train_raw.jsonl")[0]
    assert row["audio"].endswith(".mp3")
    assert row["text"].startswith('He said "'), "a quotation mark in a TSV quotes nothing"


@pytest.mark.parametrize("what", ["cuts", "supervisions"])
def test_lhotse_is_cut_to_the_sample(tmp_path: Path, what: str) -> None:
    source = lhotse(tmp_path / "fbank", what)
    import_corpus([source], tmp_path / "out")
    check(tmp_path / "out", 3)
    whole, rate_hz = sf.read(source / "audio" / "long.wav", dtype="int16")
    for row in read_jsonl(tmp_path / "out" / "train_raw.jsonl"):
        n = int(Path(row["audio"]).stem[-1])
        clip, own_hz = sf.read(tmp_path / "out" / row["audio"], dtype="int16")
        assert own_hz == rate_hz
        start = round(4.0 * n * rate_hz)
        assert np.abs(clip.astype(int) - whole[start : start + len(clip)]).max() <= 1
        assert row["text"] == sentence(n) and row["language"] == "english"


@pytest.mark.slow
def test_lhotse_reads_nothing_outside_of_the_audio_folder(tmp_path: Path) -> None:
    source = lhotse(tmp_path / "fbank")
    moved = tmp_path / "elsewhere"
    shutil.move(source / "audio", moved)
    text = gzip.open(source / "cuts.jsonl.gz", "rt").read()
    text = text.replace(str((source / "audio").resolve()), str(moved.resolve()))
    broken = json.loads(text.splitlines()[0])
    broken["recording"]["sources"][0] = {"type": "url", "source": "https://a.example/x.wav"}
    with gzip.open(source / "cuts.jsonl.gz", "wt") as stream:
        stream.write(text + json.dumps(broken) + "\n[]\n{\n" + json.dumps({"id": "x"}) + "\n")
    with pytest.raises(UserError, match="--audio-root"):
        import_corpus([source], tmp_path / "out")
    import_corpus([source], tmp_path / "out", audio_root=moved)
    assert check(tmp_path / "out", 3)["num_left_out"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_audiofolder_of_hugging_face(tmp_path: Path, kind: str) -> None:
    import_corpus([audiofolder(tmp_path / "hf", kind)], tmp_path / "out")
    assert check(tmp_path / "out", 3)["format"] == "hf"
    text = read_jsonl(tmp_path / "out" / "train_raw.jsonl")[0]["text"]
    assert text.endswith(", yes")


def arrow_table(folder: Path, num_clips: int = 4) -> Any:
    """Rows as `datasets` writes them: the audio in the table, and one row without."""
    pyarrow = pytest.importorskip("pyarrow")
    rows: list[dict[str, Any]] = []
    for n in range(num_clips):
        data = write_clip(folder / "one.wav", 3.5, seed=n).read_bytes()
        audio = {"bytes": data, "path": f"/home/someone/../{n}.wav"}
        rows.append({"audio": audio, "sentence": sentence(n), "speaker_id": 7})
    rows.append({"audio": {"bytes": None, "path": "x.wav"}, "sentence": "Lost.", "speaker_id": 7})
    rows.append({**rows[0], "sentence": None})
    return pyarrow.Table.from_pylist(rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_data_sets_with_their_audio_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    table = arrow_table(tmp_path)
    (tmp_path / "pq" / "data").mkdir(parents=True)
    if kind == "parquet":
        from pyarrow import parquet

        parquet.write_table(table, tmp_path / "pq" / "data" / "train-0.parquet")
    else:
        from pyarrow import ipc

        file = tmp_path / "pq" / "data" / "data-00000-of-00001.arrow"
        with ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    record = import_corpus([tmp_path / "pq"], tmp_path / "out").record
    assert check(tmp_path / "out", 3)["num_left_out"] == 2
    assert (record["format"], record["num_rows"]) == ("hf", 6)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        import_corpus([tmp_path / "pq"], tmp_path / "none")


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "what").mkdir()
    with pytest.raises(UserError, match=r"LJSpeech.*Common Voice.*lhotse.*Hugging Face"):
        import_corpus([tmp_path / "what"], tmp_path / "out")
    with pytest.raises(UserError, match="one of ljspeech"):
        import_corpus([tmp_path / "what"], tmp_path / "out", kind="nemo")
    with pytest.raises(UserError, match="voxadapt init"):
        import_corpus([tmp_path / "nothing"], tmp_path / "out")
    (tmp_path / "what" / "validated.tsv").write_text("who\tpath\n")
    with pytest.raises(UserError, match="a column text"):
        import_corpus([tmp_path / "what"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_is_not_an_import_is_never_replaced(tmp_path: Path) -> None:
    source = ljspeech(tmp_path / "LJ")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UserError, match="other files"):
            import_corpus([source], mine, force=force)
    assert (mine / "notes.txt").read_text() == "mine"
    import_corpus([source], tmp_path / "out")
    with pytest.raises(UserError, match="--force"):
        import_corpus([source], tmp_path / "out", language="english")
    import_corpus([source], tmp_path / "out", language="english", force=True)
    check(tmp_path / "out", 3)


@pytest.mark.slow
def test_a_stopped_import_goes_on_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = lhotse(tmp_path / "fbank")
    import_corpus([source], tmp_path / "whole")
    cut, done = corpora.load_cut, []

    def stopping(item: Any, source: Path, target: Path) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(target.name)
        cut(item, source, target)

    monkeypatch.setattr(corpora, "load_cut", stopping)
    with pytest.raises(KeyboardInterrupt):
        import_corpus([source], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    written: list[str] = []
    monkeypatch.setattr(
        corpora, "load_cut", lambda item, s, t: (written.append(t.name), cut(item, s, t))
    )
    import_corpus([source], tmp_path / "out")
    assert len(written) == 2, "two clips were there"
    assert sha256_folder(tmp_path / "out") == sha256_folder(tmp_path / "whole")
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.slow
def test_a_reference_that_is_given_is_used(tmp_path: Path) -> None:
    source = ljspeech(tmp_path / "LJ")
    ref = write_clip(tmp_path / "mine.wav", 4.0, seed=77)
    import_corpus([source], tmp_path / "out", ref=ref)
    assert check(tmp_path / "out", 4)["reference"]["from"] == "mine.wav"
    with pytest.raises(UserError, match="3 to 10 s"):
        import_corpus([source], tmp_path / "two", ref=source / "wavs" / "LJ-001.wav")
    (source / "metadata.csv").write_text(f"LJ-001|{sentence(1)}\nLJ-002|{sentence(2)}\n")
    with pytest.raises(UserError, match="--ref"):
        import_corpus([source], tmp_path / "three")


# --- the page ------------------------------------------------------------------------------------


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.split("#")[0].strip() for line in text.splitlines() if line.strip()]


@pytest.mark.slow
def test_every_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ljspeech(Path("LJSpeech-1.1"))
    commonvoice(Path("cv-corpus/ms"))
    lhotse(Path("fbank"))
    audiofolder(Path("dataset"))
    for n in range(4):
        write_clip(Path("voices") / f"v{n}.wav", 3.5, seed=n)
    listed = "".join(f"v{n}|{('anna', 'bob')[n % 2]}|{sentence(n)}\n" for n in range(4))
    Path("voices/list.txt").write_text(listed)
    (tmp_path / "data").symlink_to(DATA)
    listed = commands("import.md")
    assert len(listed) >= 5
    for line in listed:
        assert line.startswith("voxadapt import "), line
        result = CliRunner().invoke(app, line.split()[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    for out in tmp_path.glob("corpus-*"):
        check(out, read_json(out / "import.json")["num_imported"])
    assert len(list(tmp_path.glob("corpus-*"))) == len(listed)
