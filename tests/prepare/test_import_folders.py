"""Kaldi's data directories and texts beside clips: every row comes in right, or with its reason."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile as sf

from corpus import sentence, speech_like, write_clip
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_jsonl
from voxadapt.prepare.import_corpus import import_corpus

NAMES = [f"{who}_{n}" for who in ("anna", "bob") for n in range(3)]
TEXT = {name: sentence(n) for n, name in enumerate(NAMES)}


def write_lines(file: Path, *lines: str) -> None:
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def kaldi(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for n, name in enumerate(NAMES):
        write_clip(folder / "wavs" / f"{name}.wav", 3.0 + 0.2 * n, seed=n)
    write_lines(folder / "wav.scp", *(f"{name} wavs/{name}.wav" for name in NAMES))
    write_lines(folder / "text", *(f"{name} {TEXT[name]}" for name in NAMES))
    write_lines(folder / "utt2spk", *(f"{name} {name.split('_')[0]}" for name in NAMES))
    return folder


def rows_of(out: Path) -> list[dict[str, str]]:
    return read_jsonl(out / "train_raw.jsonl")


@pytest.mark.slow
def test_kaldi_names_recordings_texts_and_speakers(kaldi: Path, tmp_path: Path) -> None:
    done = import_corpus([kaldi], tmp_path / "out", speaker="all")
    rows = rows_of(tmp_path / "out")
    assert done.left_out == () and done.record["format"] == "kaldi"
    assert len(rows) == 4, "two are the references"
    for row in rows:
        name = Path(row["audio"]).stem
        assert row["text"] == TEXT[name] and row["speaker"] == name.split("_")[0]


@pytest.mark.slow
def test_columns_of_kaldi_may_be_parted_by_tabs(kaldi: Path, tmp_path: Path) -> None:
    for name in ("wav.scp", "text", "utt2spk"):
        (kaldi / name).write_text((kaldi / name).read_text().replace(" ", "\t", 6))
    done = import_corpus([kaldi], tmp_path / "out", speaker="all")
    assert done.left_out == () and len(rows_of(tmp_path / "out")) == 4


def test_the_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_clip(tmp_path / "set" / folder / "u.wav", 3.0)
        write_lines(tmp_path / "set" / folder / "metadata.csv", "file_name,text", "u.wav,Words.")
    broken = mock.Mock(side_effect=[OSError("gone"), []])
    with mock.patch("voxadapt.prepare.tables.read_table", broken):
        with pytest.raises(UserError) as stop:
            import_corpus([tmp_path / "set"], tmp_path / "out", kind="hf")
    assert stop.value.problems[0].where.endswith("a/metadata.csv")


@pytest.mark.slow
def test_segments_are_parts_of_a_recording(kaldi: Path, tmp_path: Path) -> None:
    sound = np.concatenate([speech_like(4.0, seed=n) for n in range(6)])
    sf.write(kaldi / "long.wav", sound, 16_000)
    write_lines(kaldi / "wav.scp", "long long.wav")
    spans = [f"{name} long {4 * n:.2f} {4 * n + 4:.2f}" for n, name in enumerate(NAMES)]
    write_lines(kaldi / "segments", *spans[:4], "bob_1 long 16 then", "bob_2 long 20 26")
    done = import_corpus([kaldi], tmp_path / "out", speaker="all")
    for row in rows_of(tmp_path / "out"):
        n = NAMES.index(Path(row["audio"]).stem)
        clip, _ = sf.read(tmp_path / "out" / row["audio"], dtype="float32")
        assert np.abs(clip - sound[64_000 * n :][: len(clip)]).max() < 1e-3
        assert len(clip) == 64_000
    told = {problem.where: str(problem) for problem in done.left_out}
    assert "16 then" in told["text:5"] and "text:6" in told, "this one ends after its recording"


def test_nothing_of_wav_scp_is_run(kaldi: Path, tmp_path: Path) -> None:
    lines = [f"{name} wavs/{name}.wav" for name in NAMES[:4]]
    made = f"bob_1 touch {tmp_path}/ran |"
    write_lines(kaldi / "wav.scp", *lines, made, lines[0])
    done = import_corpus([kaldi], tmp_path / "out", speaker="all")
    assert not (tmp_path / "ran").exists()
    said = [str(problem) for problem in done.left_out]
    assert any("commands are not run" in words for words in said)
    assert any("wav.scp:6" in words for words in said)
    assert any("text:6" in words and "none" in words for words in said), "bob_2 has no recording"


@pytest.mark.parametrize("ending", [".normalized.txt", ".txt", ".lab"])
def test_texts_beside_clips_at_any_depth(tmp_path: Path, ending: str) -> None:
    source = tmp_path / "train-clean"
    for n, name in enumerate(NAMES):
        folder = source / name.split("_")[0] / "chapter"
        write_clip(folder / f"{name}.wav", 3.0 + 0.2 * n, seed=n)
        write_lines(folder / f"{name}.original.txt", "another writing")
        write_lines(folder / f"{name}{ending}", *TEXT[name].split(" ", 1))
    write_clip(source / "bob" / "silent.wav", 3.0, seed=9)
    done = import_corpus([source], tmp_path / "out", speaker="bob")
    rows = rows_of(tmp_path / "out")
    assert {row["text"] for row in rows} < {TEXT[name] for name in NAMES[3:]} and len(rows) == 2
    assert done.record["num_other_speakers"] == 3
    (told,) = done.left_out
    assert told.where == "bob/silent.wav" and "silent.normalized.txt" in told.expected


@pytest.mark.parametrize(
    "line",
    ["0 500000 sil", "0.000000\t1.500000\thello", "0 46797 She had",
     "0,0\t1,5\thello", "00:00:00,000 --> 00:00:01,500",
     "WEBVTT\n\n00:00.000 --> 00:01.500\nHello"],
)  # fmt: skip
def test_labels_with_times_are_no_transcripts(tmp_path: Path, line: str) -> None:
    """Of HTS, Audacity, TIMIT and subtitles."""
    for n in range(4):
        write_clip(tmp_path / "set" / f"u{n}.wav", 3.0 + 0.2 * n, seed=n)
        write_lines(tmp_path / "set" / f"u{n}.lab", line if n == 3 else TEXT[NAMES[n]])
    (told,) = import_corpus([tmp_path / "set"], tmp_path / "out").left_out
    assert told.where == "u3.lab" and "labels" in told.found


@pytest.mark.slow
def test_speakers_and_languages_of_kaldi(kaldi: Path, tmp_path: Path) -> None:
    (kaldi / "utt2spk").unlink()
    write_lines(kaldi / "spk2utt", *(f"{who} {who}_0 {who}_1 {who}_2" for who in ("anna", "bob")))
    write_lines(kaldi / "utt2lang", *(f"{name} de" for name in NAMES))
    import_corpus([kaldi], tmp_path / "out", speaker="all")
    for row in rows_of(tmp_path / "out"):
        assert row["speaker"] == Path(row["audio"]).stem.split("_")[0]
        assert row["language"] == "german"


def test_a_channel_of_a_telephone_recording_is_not_the_average(kaldi: Path, tmp_path: Path) -> None:
    both = np.stack([speech_like(3.0, seed=n) for n in (8, 9)], 1)
    sf.write(kaldi / "wavs" / "anna_2.wav", both, 16_000)
    write_lines(kaldi / "reco2file_and_channel", *(f"{name}\t{name} A" for name in NAMES))
    done = import_corpus([kaldi], tmp_path / "out", speaker="all")
    (told,) = done.left_out
    assert told.where == "text:3" and "2 channels; the row names A" in told.found


def test_a_source_of_which_no_row_can_be_read_says_why(kaldi: Path, tmp_path: Path) -> None:
    write_lines(kaldi / "wav.scp", *(f"{name} cat {name}.wav |" for name in NAMES))
    with pytest.raises(UserError) as stop:
        import_corpus([kaldi], tmp_path / "out", speaker="all")
    assert {problem.expected[:17] for problem in stop.value.problems} == {"a file in wav.scp"}


@pytest.mark.parametrize("homes", [("anna", "bob"), ("train", "test")])
def test_a_table_in_each_folder_is_a_voice_or_a_part(
    tmp_path: Path, homes: tuple[str, str]
) -> None:
    for n, name in enumerate(NAMES):
        folder = tmp_path / "set" / homes[n // 3]
        write_clip(folder / "wavs" / f"{name}.wav", 3.0 + 0.2 * n, seed=n)
        with (folder / "metadata.csv").open("a") as stream:
            stream.write(f"{name}|{TEXT[name]}|{TEXT[name]}\n")
    if homes == ("anna", "bob"):
        with pytest.raises(UserError, match="one speaker; found 2: 'anna'"):
            import_corpus([tmp_path / "set"], tmp_path / "out")
    import_corpus([tmp_path / "set"], tmp_path / "out", speaker="all")
    speakers = {row.get("speaker") for row in rows_of(tmp_path / "out")}
    assert speakers == (set(homes) if homes == ("anna", "bob") else {None})


@pytest.mark.slow
def test_one_folder_is_one_voice(tmp_path: Path) -> None:
    for n, name in enumerate(NAMES):
        write_clip(tmp_path / "mine" / "wavs" / f"{name}.wav", 3.0 + 0.2 * n, seed=n)
        write_lines(tmp_path / "mine" / "wavs" / f"{name}.txt", TEXT[name])
    import_corpus([tmp_path / "mine"], tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 5
    assert "speaker" not in rows_of(tmp_path / "out")[0]


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", ".cache"])
def test_hidden_copies_are_no_clips(tmp_path: Path, hidden: str) -> None:
    """Of notebooks, of archives made on a Mac: the only folder there would be the speaker."""
    for folder in (tmp_path / "mine", tmp_path / "mine" / hidden):
        for n, name in enumerate(NAMES[:3]):
            write_clip(folder / f"{name}.wav", 3.0 + 0.2 * n, seed=n)
            write_lines(folder / f"{name}.txt", TEXT[name])
    (tmp_path / "mine" / "._anna_0.wav").write_bytes(b"\0\5\26\7")
    done = import_corpus([tmp_path / "mine"], tmp_path / "out")
    assert done.left_out == () and done.record["num_imported"] == 2


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    write_clip(tmp_path / "mine" / "u.wav", 3.0)
    os.mkfifo(tmp_path / "mine" / "metadata.csv")
    write_lines(tmp_path / "mine" / "._list.csv", "resource fork")
    with pytest.raises(UserError, match="layout of the source is not known"):
        import_corpus([tmp_path / "mine"], tmp_path / "out")


def test_few_texts_are_no_layout(tmp_path: Path) -> None:
    for n, name in enumerate(NAMES):
        write_clip(tmp_path / "mine" / f"{name}.wav", 3.0, seed=n)
    write_lines(tmp_path / "mine" / "anna_0.txt", TEXT["anna_0"])
    with pytest.raises(UserError) as stop:
        import_corpus([tmp_path / "mine"], tmp_path / "out")
    assert "a text beside each recording" in str(stop.value)
