"""Kinds of sources and of faults: every row comes in right, or is listed with its reason."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus import sentence, speech_like, write_clip
from properties import examples
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_jsonl
from voxadapt.data.audio import AudioError
from voxadapt.data.manifest import read_raw_manifest
from voxadapt.prepare.import_corpus import import_corpus
from voxadapt.prepare.sound import convert
from voxadapt.prepare.tables import json_rows

TEXT = [sentence(n) for n in range(8)]
NAMES = [f"u{n}" for n in range(4)]


def lines(template: str, count: int = 4) -> str:
    return "".join(
        template.format(n=n, u=f"u{n}", text=TEXT[n], who=("anna", "bob")[n % 2]) + "\n"
        for n in range(count)
    )


def dialogue(asked: str, answered: str) -> str:
    rows = [
        {"messages": [{"role": "user", "content": asked.format(text=TEXT[n])},
                      {"role": "assistant", "content": answered.format(text=TEXT[n])}],
         "audios": [f"wavs/u{n}.wav"]}
        for n in range(4)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def objects(**values: str) -> str:
    return "".join(
        json.dumps({key: value.format(n=n, text=TEXT[n], who=("anna", "bob")[n % 2])
                    for key, value in values.items()}) + "\n"
        for n in range(4)
    )  # fmt: skip


#: File and content; speakers that are kept.
KINDS: dict[str, tuple[str, str, set[str]]] = {
    "coqui": ("metadata.csv", "audio_file|text|speaker_name\n" + lines("wavs/{u}.wav|{text}|coqui"),
              set()),
    "path, text, speaker": ("metadata.csv", "path|text|speaker\n"
                            + lines("wavs/{u}.wav|{text}|{who}"), {"anna", "bob"}),
    "id, speaker, text": ("metadata.csv", "id|speaker|text\n" + lines("{u}|{who}|{text}"),
                          {"anna", "bob"}),
    "GPT-SoVITS": ("corpus.list", lines("wavs/{u}.wav|{who}|EN|{text}"), {"anna", "bob"}),
    "GPT-SoVITS of one": ("corpus.list", lines("wavs/{u}.wav|me|en|{text}"), set()),
    "StyleTTS2": ("train_list.txt", lines("wavs/{u}.wav|{text}|0"), set()),
    "VITS": ("filelist_train.txt", lines("wavs/{u}.wav|7|{text}"), set()),
    "two columns": ("metadata.csv", lines("{u}|{text}"), set()),
    "LJSpeech": ("metadata.csv", lines("{u}|{text} & more|{text}"), set()),
    "LJSpeech, none normalised": ("metadata.csv", lines("{u}|{text}|"), set()),
    "comma, header": ("corpus.csv", "audio,text\n" + lines('wavs/{u}.wav,"{text}"'), set()),
    "comma, blanks": ("corpus.csv", "audio, text\n" + lines('wavs/{u}.wav, "{text}"'), set()),
    "comma, no header": ("metadata.csv", lines('wavs/{u}.wav,"{text}"'), set()),
    "semicolon, header": ("metadata.csv", "audio;text;speaker\n"
                          + lines("wavs/{u}.wav;{text};{who}"), {"anna", "bob"}),
    "semicolon, no header": ("metadata.csv", lines("wavs/{u}.wav;{text}"), set()),
    "names in capitals": ("corpus.csv", "Audio File,Transcript,Speaker-Name\n"
                          + lines("{u}.wav,{text},{who}"), {"anna", "bob"}),
    "an index": ("corpus.csv", ",path,sentence\n" + lines("{n},wavs/{u}.wav,{text}"), set()),
    "tab": ("corpus.tsv", "path\tsentence\n" + lines("{u}.wav\t{text}"), set()),
    "ms-swift, recognition": ("data.jsonl", dialogue("<audio>What is said?", "{text}"), set()),
    "ms-swift, synthesis": ("data.jsonl", dialogue("{text}", "<audio>"), set()),
    "NeMo": ("data.jsonl", objects(audio_filepath="wavs/u{n}.wav", text="{text}"), set()),
    "NeMo's own name": ("manifest.json", objects(audio_filepath="wavs/u{n}.wav", text="{text}"),
                        set()),
    "our own manifest": ("data.jsonl", objects(audio="wavs/u{n}.wav", text="{text}",
                                               ref_audio="r.wav", speaker="{who}"),
                         {"anna", "bob"}),
    "a list": ("data.json", json.dumps([{"audio": f"wavs/u{n}.wav", "text": TEXT[n]}
                                        for n in range(4)]), set()),
    **{f"speakers as {name}": ("corpus.csv", f"audio,text,{name}\n" + lines("{u}.wav,{text},{who}"),
                               {"anna", "bob"})
       for name in ("voice", "SpeakerID", "speaker_label", "narrator", "reader_id", "Spk Name")},
    "camel case": ("corpus.csv", "audioPath;Txt;speakerName\n" + lines("{u}.wav;{text};{who}"),
                   {"anna", "bob"}),
    "WeNet": ("data.list", objects(key="u{n}", wav="wavs/u{n}.wav", txt="{text}"), set()),
    "for a spreadsheet": ("corpus.csv", "sep=;\naudio;text\n" + lines("{u}.wav;{text}"), set()),
    "lengths": ("corpus.csv", "audio,duration,text\n" + lines("wavs/{u}.wav,3.{n},{text}"), set()),
    "rounded lengths": ("corpus.csv", "audio,duration,text\n" + lines("wavs/{u}.wav,3,{text}"),
                        set()),
    "times of a longer recording": ("corpus.csv", "audio,start,end,text\n"
                                    + lines("wavs/{u}.wav,7.0,10.{n},{text}"), set()),
    "marks around every cell": ("metadata.csv", "".join(f'"u{n}"|"{TEXT[n]}"\n' for n in range(4)),
                                set()),
    "marks in a TSV": ("corpus.tsv", "path\tsentence\n" + lines('"{u}.wav"\t"{text}"'), set()),
    "comments over the header": ("corpus.csv", "# from 2020, in a studio\n# two voices\n"
                                 "audio,text,speaker\n" + lines("{u}.wav,{text},{who}"),
                                 {"anna", "bob"}),
    "another case of the suffix": ("metadata.csv", lines("wavs/{u}.WAV|{text}"), set()),
    "a name in capitals": ("METADATA.CSV", lines("{u}|{text}"), set()),
    "backslashes": ("metadata.csv", lines("wavs\\{u}.wav|{text}"), set()),
    "a list that is called jsonl": ("data.jsonl", json.dumps(
        [{"audio": f"wavs/u{n}.wav", "text": TEXT[n]} for n in range(4)], indent=0), set()),
    "one channel of one": ("data.jsonl", objects(audio="wavs/u{n}.wav", text="{text}",
                                                 channel="0"), set()),
    **{f"headers in {name}": ("corpus.csv", head + "\n" + lines("{u}.wav;{text};{who}"),
                              {"anna", "bob"})
       for name, head in (("German", "Dateiname;Transkript;Sprecher"),
                          ("French", "fichier;texte;locuteur"),
                          ("Spanish", "Archivo;Texto;Hablante"), ("Malay", "fail;teks;penutur"),
                          ("Russian", "файл;текст;диктор"), ("Chinese", "音频;文本;说话人"))},
    "Windows": ("metadata.csv", "\ufeff" + lines("{u}|{text}").replace("\n", "\r\n"), set()),
}  # fmt: skip


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings") / "wavs"
    for n in range(8):
        write_clip(folder / f"u{n}.wav", 3.0 + 0.1 * n, seed=n)
    return folder


@pytest.fixture
def source(tmp_path: Path, recordings: Path) -> Path:
    shutil.copytree(recordings, tmp_path / "source" / "wavs")
    return tmp_path / "source"


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    rows = read_jsonl(out / "train_raw.jsonl")
    assert read_raw_manifest(out / "train_raw.jsonl")[1] == []
    return {Path(row["audio"]).stem: row for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_kind(source: Path, tmp_path: Path, name: str) -> None:
    file, content, speakers = KINDS[name]
    (source / file).write_text(content, encoding="utf-8")
    done = import_corpus([source], tmp_path / "out", speaker="all" if speakers else None)
    rows = rows_of(tmp_path / "out")
    assert done.left_out == () and len(rows) == 4 - (len(speakers) or 1)
    for stem, row in rows.items():
        n = int(stem[1:])
        assert row["text"] == TEXT[n]
        assert row.get("speaker") == (("anna", "bob")[n % 2] if speakers else None)
        first, _ = sf.read(source / "wavs" / f"{stem}.wav")
        assert np.array_equal(first, sf.read(tmp_path / "out" / row["audio"])[0])


UNCLEAR = {
    "id|speaker|text": ("metadata.csv", lines("{u}|{who}|{text}")),
    "text and speaker": ("metadata.csv", lines("{u}|{text}|{who}")),
    "two texts": ("metadata.csv", lines("{u}|{text}|Another remark of somebody.")),
    "a rating": ("metadata.csv", lines("{u}|{text}|good")),
    "a name twice": ("corpus.csv", "audio,text,text\n" + lines("{u}.wav,{text},{text}")),
    "two names of texts": ("corpus.csv", "audio,text,sentence\n" + lines("{u}.wav,{text},{text}")),
    "no name of a text": ("corpus.csv", "audio,label\n" + lines("{u}.wav,{text}")),
    "times without a header": ("corpus.csv", lines("long.wav,{n}.0,3.5,{text}")),
    "times in milliseconds": (
        "corpus.csv",
        "audio,start_ms,end_ms,text\n" + lines("{u}.wav,0,3000,{text}"),
    ),
    "an unknown name of speakers": (
        "corpus.csv",
        "audio,text,name of speaker\n" + lines("{u}.wav,{text},{who}"),
    ),
    **{
        f"times as {start} and {end}": (
            "data.jsonl",
            objects(**{"audio": "{n}", start: "0", end: "24000", "text": "{text}"}),
        )
        for start, end in (
            ("start_frame", "end_frame"),
            ("frame_offset", "num_frames"),
            ("from", "to"),
            ("t0", "t1"),
            ("xmin", "xmax"),
        )
    },
    "two genders and no speaker": (
        "corpus.csv",
        "audio,text,gender\n" + lines("{u}.wav,{text},{who}"),
    ),
    "a key twice": ("data.json", '[{"audio": "u0.wav", "text": "Words.", "text": "Others."}]'),
    "phonemes": ("train_list.txt", lines("wavs/{u}.wav|ðə kˈændəl ænd ðə wˈɪndoʊ {n}|0")),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_not_clear_is_a_question(source: Path, tmp_path: Path, name: str) -> None:
    file, content = UNCLEAR[name]
    (source / file).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        import_corpus([source], tmp_path / "out", speaker="all")
    problem = caught.value.problems[0]
    assert {p.expected for p in caught.value.problems} == {problem.expected}, "one row a reason"
    assert "--" in problem.fix or "letters" in problem.fix or "Mend the file" in problem.fix
    assert not (tmp_path / "out").exists()


def test_a_channel_that_a_row_names_is_held_against_the_file(source: Path, tmp_path: Path) -> None:
    both = np.stack([speech_like(3.0, 16000, n) for n in (8, 9)], 1)
    sf.write(source / "wavs" / "u3.wav", both, 16000)
    rows = [
        {"audio": f"wavs/u{n}.wav", "text": TEXT[n], "channel": max(0, n - 1)} for n in range(5)
    ]
    (source / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = import_corpus([source], tmp_path / "out", ref=source / "wavs" / "u7.wav")
    assert set(rows_of(tmp_path / "out")) == {"u0", "u1", "u2"}
    told = {problem.where: str(problem) for problem in done.left_out}
    assert "2 channels; the row names 2" in told["data.jsonl:4"]
    assert "1 channel; the row names 3" in told["data.jsonl:5"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_may_be_written_otherwise_than_on_the_disk(tmp_path: Path, form: Any) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    for n in range(3):
        write_clip(tmp_path / "set" / normalize(form, f"Grün {n}.wav"), 3.0 + n / 10, seed=n)
    rows = [f"{normalize(other, f'Grün {n}')}|{TEXT[n]}" for n in range(3)]
    (tmp_path / "set" / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    assert import_corpus([tmp_path / "set"], tmp_path / "out").record["num_imported"] == 2


def test_languages_that_the_model_lacks_are_named(source: Path, tmp_path: Path) -> None:
    rows = [f"u{n}.wav,{TEXT[n]},{('en', 'ms')[n % 2]}\n" for n in range(4)]
    (source / "corpus.csv").write_text("audio,text,language\n" + "".join(rows))
    done = import_corpus([source], tmp_path / "out", ref=source / "wavs" / "u7.wav")
    assert done.record["other_languages"] == {"ms": 2} and done.sentence.endswith("none: ms.")
    assert [row.get("language") for row in rows_of(tmp_path / "out").values()] == [
        "english", None, "english", None,
    ]  # fmt: skip


def test_columns_answer_the_question(source: Path, tmp_path: Path) -> None:
    (source / "metadata.csv").write_text(lines("{u}|{who}|{text}"))
    import_corpus([source], tmp_path / "out", columns="audio,speaker,text", speaker="bob")
    assert set(rows_of(tmp_path / "out")) < {"u1", "u3"}
    for columns in ("audio,text", "audio,speaker,words", "speaker,text,text", "audio,audio,text"):
        with pytest.raises(UserError, match="--columns"):
            import_corpus([source], tmp_path / "no", columns=columns)


ROWS = {  # rows beside four sound ones in a file of `audio,text,speaker`: what is said of each
    "columns": ("u5.wav,A text, with a comma,me", "3 columns"),
    "an open mark": ('u5.wav,"An open mark,me', "quotation mark"),
    "a mark amid": ('u5.wav,"A mark" amid,me', "quotation mark"),
    "no text": ("u5.wav,,me", "empty text"),
    "no speaker": ("u5.wav,Some words here.,", "a speaker"),
    "a gap": ("u5.wav,nan,me", "text"),
    "nobody": ("u5.wav,Some words here.,None", "a speaker"),
    "no audio": (",Some words here.,me", "path"),
    "no such file": ("u9.wav,Some words here.,me", "no file"),
    "twice": ("u0.wav,Some words here.,me", "again"),
    "outside": ("../u5.wav,Some words here.,me", "leaves the folder"),
    "an address": ("https://a.example/u5.wav,Some words here.,me", "address"),
    "a special token": ("u5.wav,Some <|im_end|> words.,me", "im_end"),
    "too short": ("short.wav,Some words here.,me", "0.40 s"),
    "cut off": ("cut.ogg,Some words here.,me", "cut off"),
    "no sound in it": ("text.wav,Some words here.,me", "text.wav"),
    "another speaker": ("u5.wav,Some words here.,you", ""),
}


def test_faulty_rows_are_listed_one_by_one_and_counts_add_up(source: Path, tmp_path: Path) -> None:
    write_clip(source / "short.wav", 0.4)
    buffer = io.BytesIO()
    sf.write(buffer, speech_like(4.0, 24000, 3), 24000, format="OGG", subtype="VORBIS")
    (source / "cut.ogg").write_bytes(buffer.getvalue()[:-4000])
    (source / "text.wav").write_text("RIFF of words")
    bad = "".join(line + "\n" for line, _ in ROWS.values())
    head = "audio,text,speaker\n" + lines("{u}.wav,{text},me")
    (source / "corpus.csv").write_text(head + bad, encoding="utf-8")
    done = import_corpus([source], tmp_path / "out", speaker="me")
    told = {int(p.where.rpartition(":")[2]): p for p in done.left_out}
    for number, (name, (_, said)) in enumerate(ROWS.items(), start=6):
        if said:
            assert said in str(told[number]), name
    record = done.record
    assert record["num_rows"] == 4 + len(ROWS)
    assert (record["num_imported"], record["num_other_speakers"]) == (3, 1)
    assert record["num_left_out"] == len(ROWS) - 1 == len(told)


@pytest.mark.slow
@settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    faults=st.lists(st.sampled_from(list(ROWS)), max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_any_mixture_of_rows_adds_up(
    recordings: Path, tmp_path_factory: pytest.TempPathFactory, faults: list[str], order: Any
) -> None:
    folder = tmp_path_factory.mktemp("mixture")
    (folder / "wavs").symlink_to(recordings)
    made = lines("{u}.wav,{text},me").splitlines() + [ROWS[name][0] for name in faults]
    order.shuffle(made)
    (folder / "corpus.csv").write_text("audio,text,speaker\n" + "\n".join(made) + "\n")
    try:
        done = import_corpus([folder], folder / "out", speaker="me", audio_root=recordings)
    except UserError as error:
        assert error.problems
        return
    record = done.record
    parts = ("num_imported", "num_left_out", "num_other_speakers")
    assert record["num_rows"] == sum(int(str(record[key])) for key in parts) + 1, "and a reference"
    assert record["num_rows"] >= len(made) - 1, "a quoted text may take in the line after it"


def test_marks_belong_to_the_text_of_a_table_of_bars(source: Path, tmp_path: Path) -> None:
    said = '"Come in," he said.'
    told = [said, '"Come in."', '"He said ""come in"" twice"', '"One | or | two"']
    (source / "metadata.csv").write_text("".join(f"u{n}|{text}\n" for n, text in enumerate(told)))
    import_corpus([source], tmp_path / "out", ref=source / "wavs" / "u7.wav")
    rows = rows_of(tmp_path / "out")
    found = [rows[f"u{n}"]["text"] for n in range(4)]
    assert found == [*told[:2], 'He said "come in" twice', "One | or | two"]


def test_paths_in_a_table_of_columns(source: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"file_name": f"u{n}.wav", "text": TEXT[n]} for n in range(4)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), source / "metadata.parquet")
    assert import_corpus([source], tmp_path / "out").record["num_imported"] == 3


def test_a_text_in_marks_may_go_over_lines(source: Path, tmp_path: Path) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["audio", "text"])
    for n in range(4):
        writer.writerow([f"u{n}.wav", TEXT[n].replace(" and", "\nand,")])
    (source / "corpus.csv").write_text(stream.getvalue())
    assert import_corpus([source], tmp_path / "out").left_out == ()
    for stem, row in rows_of(tmp_path / "out").items():
        assert row["text"] == TEXT[int(stem[1:])].replace(" and", " and,")


def test_stretches_and_lengths_of_a_manifest_are_held_against_the_file(
    source: Path, tmp_path: Path
) -> None:
    row = {"audio_filepath": "wavs/u7.wav", "text": TEXT[7]}
    made = [
        row | {"offset": 0.0, "duration": 1.5, "text": TEXT[1]},
        row | {"offset": 1.5, "duration": 2.0, "text": TEXT[2]},
        row | {"offset": 3.0, "duration": 9.0, "text": TEXT[3]},
        {"audio_filepath": "wavs/u6.wav", "text": TEXT[6], "duration": 3.6},
        {"audio_filepath": "wavs/u5.wav", "text": TEXT[5], "duration": 9.9},
        {"audio_filepath": "wavs/u4.wav", "text": ["a", "b"]},
        {"audio": "wavs/u2.wav", "text": TEXT[2], "start": 0, "end": 1.5, "duration": 2.5},
        {"audio_filepath": "wavs/u3.wav", "text": TEXT[3], "offset": 1.0},
    ]
    (source / "data.jsonl").write_text("".join(json.dumps(item) + "\n" for item in made))
    done = import_corpus([source], tmp_path / "out", ref=source / "wavs" / "u0.wav")
    assert done.record["num_imported"] == 3
    told = " ".join(map(str, done.left_out))
    for part in ("3 s + 9 s", "the row says 9.90 s", "list ['a', 'b']", "an offset with"):
        assert part in told, part


STRETCHES = {  # of `long.wav`, 4 s each
    "start, end": ("corpus.csv", "audio,start,end,text\n", "long.wav,{at},{end},{text}\n"),
    "start_time, end_time": ("corpus.tsv", "path\tstart_time\tend_time\tsentence\n",
                             "long.wav\t{at}\t{end}\t{text}\n"),
    "offset, duration": ("corpus.csv", "audio_filepath,offset,duration,text\n",
                         "long.wav,{at},4.0,{text}\n"),
    "objects": ("data.jsonl", "", '{{"audio": "long.wav", "start": {at}, "end": {end}, '
                '"text": "{text}"}}\n'),
}  # fmt: skip


@pytest.mark.parametrize("name", STRETCHES)
def test_stretches_are_cut_as_their_columns_say(source: Path, tmp_path: Path, name: str) -> None:
    sound = np.concatenate([speech_like(4.0, seed=n) for n in range(4)])
    sf.write(source / "long.wav", sound, 16000)
    file, head, row = STRETCHES[name]
    made = [row.format(at=4.0 * n, end=4.0 * n + 4.0, text=TEXT[n]) for n in range(4)]
    bad = row.format(at="'soon'" if name != "objects" else '"soon"', end=20, text=TEXT[5])
    (source / file).write_text(head + "".join(made) + bad)
    done = import_corpus([source], tmp_path / "out", ref=source / "wavs" / "u7.wav")
    (told,) = done.left_out
    assert "soon" in told.found and "seconds" in told.expected
    for row_ in rows_of(tmp_path / "out").values():
        n = TEXT.index(row_["text"])
        clip, _ = sf.read(tmp_path / "out" / row_["audio"], dtype="float32")
        assert np.abs(clip - sound[64000 * n :][:64000]).max() < 1e-3 and len(clip) == 64000


@pytest.mark.slow
def test_what_a_table_says_of_languages_is_kept(source: Path, tmp_path: Path) -> None:
    for name, said in (("locale", "de-AT"), ("lang_code", "de"), ("Language", "German")):
        (source / "corpus.csv").write_text(f"audio,text,{name}\n" + lines("{u}.wav,{text}," + said))
        import_corpus([source], tmp_path / name)
        assert {row["language"] for row in rows_of(tmp_path / name).values()} == {"german"}


def test_columns_name_the_keys_of_objects(source: Path, tmp_path: Path) -> None:
    made = objects(key="u{n}", source="wavs/u{n}.wav", target="{text}")
    (source / "data.jsonl").write_text(made)
    with pytest.raises(UserError, match="say --columns"):
        import_corpus([source], tmp_path / "out")
    import_corpus([source], tmp_path / "out", columns="-,audio,text")
    for stem, row in rows_of(tmp_path / "out").items():
        assert row["text"] == TEXT[int(stem[1:])]


def test_a_dialogue_of_several_turns_has_no_one_text(source: Path, tmp_path: Path) -> None:
    turns = [("user", "<audio>What is said?"), ("assistant", "The words."),
             ("user", "Is it a man?"), ("assistant", "Yes, it is.")]  # fmt: skip
    several = json.dumps({"messages": [{"role": who, "content": said} for who, said in turns],
                          "audios": ["wavs/u5.wav"]})  # fmt: skip
    (source / "data.jsonl").write_text(dialogue("<audio>", "{text}") + several + "\n")
    (told,) = import_corpus([source], tmp_path / "out").left_out
    assert told.where == "data.jsonl:5" and "What is said" in told.found


def test_an_object_of_objects_is_no_list(source: Path, tmp_path: Path) -> None:
    (source / "data.json").write_text(json.dumps({"data": [{"audio": "a.wav"}]}, indent=1))
    with pytest.raises(UserError, match="a list of objects, or one a line; found dict"):
        import_corpus([source], tmp_path / "out")


def test_a_single_line_of_json_is_a_row(tmp_path: Path) -> None:
    row = {"audio": "wavs/u1.wav", "text": TEXT[1]}
    (tmp_path / "data.json").write_text(json.dumps(row) + "\n")
    assert list(json_rows(tmp_path / "data.json", "")) == [("data.json:1", row)]


LHOTSE: dict[str, tuple[dict[str, Any], str]] = {
    "a channel that is not there": ({"channel": 7, "supervision": {"channel": 7}}, "channel 7"),
    "another length of the recording": ({"recording": {"duration": 9.0, "num_samples": 144000}},
                                        "says 9.00 s"),
    "a cut beyond its recording": ({"start": 2.0}, "in a recording of 3 s"),
    "a list as a text": ({"supervision": {"text": ["a", "b"]}}, "['a', 'b']"),
    "a supervision beyond its cut": ({"supervision": {"duration": 9.0}}, "a supervision of"),
    "a command": ({"source": {"type": "command", "source": "touch /tmp/x"}}, "type command"),
    "two sources": ({"sources": 2}, "ValueError"),
    "a mixture": ({"type": "MixedCut"}, "a MixedCut"),
    "another channel's supervision": ({"supervision": {"channel": 1}}, "of channel 1"),
    "another rate": ({"recording": {"sampling_rate": 8000, "num_samples": 24000}}, "at 8000 Hz"),
    "no number of samples": ({"recording": {"num_samples": None}}, "lhotse cannot load it"),
    "a length of words": ({"recording": {"duration": "long"}}, "ValueError"),
    "a supervision of no number": ({"supervision": {"start": float("nan")}}, "supervision of nan"),
}  # fmt: skip


def cut_of(**change: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": "wavs/u0.wav"} | change.get("source", {})
    recording = {
        "id": "u0", "sampling_rate": 16000, "num_samples": 48000, "duration": 3.0,
        "sources": [source] * change.get("sources", 1),
    } | change.get("recording", {})  # fmt: skip
    part = {"id": "s0", "recording_id": "u0", "start": 0.0, "duration": 3.0, "channel": 0,
            "text": TEXT[0], "speaker": "me"} | change.get("supervision", {})  # fmt: skip
    return {
        "id": "c0", "type": change.get("type", "MonoCut"), "start": change.get("start", 0.0),
        "duration": 3.0, "channel": change.get("channel", 0), "recording": recording,
        "supervisions": [part],
    }  # fmt: skip


@pytest.mark.slow
def test_cuts_are_held_against_their_files(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("lhotse")
    good = [
        cut_of(source={"source": f"wavs/u{n}.wav"}, supervision={"text": TEXT[n], "id": f"good{n}"},
               recording={"duration": 3.0 + n / 10, "num_samples": 48000 + 1600 * n})
        for n in (1, 2)
    ]  # fmt: skip
    bad = [cut_of(**change) for change, _ in LHOTSE.values()]
    for n, cut in enumerate(bad):
        shutil.copyfile(source / "wavs" / "u0.wav", source / "wavs" / f"c{n}.wav")
        for part in cut["recording"]["sources"]:
            part["source"] = part["source"].replace("u0", f"c{n}")
    (source / "cuts.jsonl").write_text("".join(json.dumps(c) + "\n" for c in [*good, *bad]))
    done = import_corpus([source], tmp_path / "out", ref=source / "wavs" / "u7.wav")
    assert set(rows_of(tmp_path / "out")) == {"good1", "good2"}
    told = {int(p.where.rpartition(":")[2]): str(p) for p in done.left_out}
    for number, (name, (_, said)) in enumerate(LHOTSE.items(), start=3):
        assert said in told[number], name


@pytest.mark.slow
def test_tables_with_gaps_keep_their_speakers(tmp_path: Path) -> None:
    """A column of whole numbers with a gap is one of floats and NaN, as pandas writes it."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"audio": {"bytes": write_clip(tmp_path / "x.wav", 3.2, seed=n).read_bytes(), "path": None},
         "text": TEXT[n], "speaker_id": 7.0 if n < 3 else (float("nan") if n < 6 else 8.0)}
        for n in range(8)
    ]  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    done = import_corpus([tmp_path / "a.parquet"], tmp_path / "out", speaker="7")
    record = done.record
    assert (record["num_rows"], record["num_imported"], record["num_left_out"]) == (8, 2, 3)
    assert record["num_other_speakers"] == 2


@pytest.mark.parametrize("times", [{"duration": 9.0}, {"start": 0.0, "end": 9.0}])
def test_times_of_packed_audio_are_held_against_it(tmp_path: Path, times: dict[str, float]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = []
    for n in range(4):
        data = write_clip(tmp_path / "x.wav", 3.2, seed=n).read_bytes()
        stated = times if n == 3 else {key: min(value, 3.2) for key, value in times.items()}
        rows.append({"audio": {"bytes": data, "path": None}, "text": TEXT[n], **stated})
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    (told,) = import_corpus([tmp_path / "a.parquet"], tmp_path / "out").left_out
    assert told.where == "a.parquet:4" and "9" in told.found


def test_transforms_of_a_cut_are_applied(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("lhotse")
    fast = {"transforms": [{"name": "Speed", "kwargs": {"factor": 1.25}}],
            "duration": 2.4, "num_samples": 38400}  # fmt: skip
    part = {"duration": 2.4}
    cuts = [
        cut_of(recording=fast, supervision=part) | {"duration": 2.4},
        cut_of(source={"source": "wavs/u1.wav"}, supervision={"id": "s1", "text": TEXT[1]},
               recording={"duration": 3.1, "num_samples": 49600}),
    ]  # fmt: skip
    (source / "cuts.jsonl").write_text("".join(json.dumps(cut) + "\n" for cut in cuts))
    import_corpus([source], tmp_path / "out", ref=source / "wavs" / "u7.wav")
    assert sf.info(tmp_path / "out" / rows_of(tmp_path / "out")["s0"]["audio"]).duration == 2.4


@pytest.mark.parametrize(
    "home", ["/home/me/f5/", "D:\\GPT-SoVITS\\out\\", "C:/x/", "\\\\nas\\sets\\"]
)
def test_absolute_paths_of_another_machine(source: Path, tmp_path: Path, home: str) -> None:
    """What the paths share is the folder that --audio-root names; without it they are refused."""
    (source / "wavs" / "deep").mkdir()
    (source / "wavs" / "u3.wav").rename(source / "wavs" / "deep" / "u3.wav")
    rows = [f"{home}u{n}.wav" for n in range(3)] + [f"{home}deep{home[-1]}u3.wav"]
    (source / "corpus.csv").write_text(
        "audio_file|text\n" + "".join(f"{row}|{TEXT[n]}\n" for n, row in enumerate(rows))
    )
    with pytest.raises(UserError, match="--audio-root"):
        import_corpus([source], tmp_path / "out")
    for root in (source, source / "wavs"):
        out = tmp_path / f"out-{root.name}"
        import_corpus([source], out, audio_root=root, ref=source / "wavs" / "u7.wav")
        assert {stem: row["text"] for stem, row in rows_of(out).items()} == {
            f"u{n}": TEXT[n] for n in range(4)
        }


def test_links_out_of_the_source_are_not_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text(lines("{u}|{text}"))
    (source / "metadata.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(UserError, match="a link that leaves the folder"):
        import_corpus([source], tmp_path / "out")


def test_a_replaced_recording_is_imported_anew(source: Path, tmp_path: Path) -> None:
    (source / "metadata.csv").write_text(lines("{u}|{text}"))
    import_corpus([source], tmp_path / "out")
    stem, row = next(iter(rows_of(tmp_path / "out").items()))
    times = os.stat(source / "wavs" / f"{stem}.wav")
    write_clip(source / "wavs" / f"{stem}.wav", times.st_size // 2 / 16000, seed=99)
    os.utime(source / "wavs" / f"{stem}.wav", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UserError, match="--force"):
        import_corpus([source], tmp_path / "out")
    import_corpus([source], tmp_path / "out", force=True)
    new = (source / "wavs" / f"{stem}.wav").read_bytes()
    assert (tmp_path / "out" / row["audio"]).read_bytes() == new


def test_places_that_are_no_folder_to_write(source: Path, monkeypatch: Any) -> None:
    (source / "metadata.csv").write_text(lines("{u}|{text}"))
    with pytest.raises(UserError, match="a new or empty folder"):
        import_corpus([source], Path("/"))
    monkeypatch.chdir(source)
    with pytest.raises(UserError, match="a new or empty folder"):
        import_corpus([source], Path())


@pytest.mark.slow
def test_files_without_rows_end_with_a_sentence(source: Path, tmp_path: Path) -> None:
    for content in (b"", b"\n" * 1_100_000, b"\0" * 5000, b"\xff\xfea\0", b"[]", b"one word",
                    b"audio,text\ru0.wav,Words.\r"):  # fmt: skip
        (source / "metadata.csv").write_bytes(content)
        with pytest.raises(UserError) as caught:
            import_corpus([source], tmp_path / "out")
        assert str(caught.value).replace("\n", " ").isprintable()


@pytest.mark.slow
def test_silence_at_the_edges_is_trimmed_in_the_copy(source: Path, tmp_path: Path) -> None:
    rate_hz = 16000
    for n in range(3):
        quiet = np.zeros(2 * rate_hz, np.float32)
        sound = np.concatenate([quiet, speech_like(3.0, rate_hz, n), quiet])
        sf.write(source / "wavs" / f"u{n}.wav", sound, rate_hz)
    (source / "metadata.csv").write_text(lines("{u}|{text}"))
    before = (source / "wavs" / "u1.wav").read_bytes()
    done = import_corpus([source], tmp_path / "out", trim_silence=True)
    assert (source / "wavs" / "u1.wav").read_bytes() == before
    listed = {item["audio"]: item for item in done.record["trimmed"]}  # type: ignore[attr-defined]
    for row in rows_of(tmp_path / "out").values():
        if row["audio"] in listed:
            assert listed[row["audio"]]["before_s"] > 1.5
            assert sf.info(tmp_path / "out" / row["audio"]).duration < 3.5
    assert len(listed) >= 2


def test_samples_that_are_no_numbers_cannot_be_trimmed(source: Path, tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(16000), speech_like(3.0, 16000, 3)])
    sound[30000] = np.nan
    sf.write(source / "wavs" / "u3.wav", sound, 16000, subtype="FLOAT")
    (source / "metadata.csv").write_text(lines("{u}|{text}"))
    (told,) = import_corpus([source], tmp_path / "out", trim_silence=True).left_out
    assert told.where == "metadata.csv:4" and "no numbers" in told.found


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is missing")


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["m4a", "aac", "webm", "mp4"])
def test_ffmpeg_reads_what_libsndfile_cannot(source: Path, tmp_path: Path, suffix: str) -> None:
    for n in range(3):
        made = ["ffmpeg", "-v", "error", "-i", source / "wavs" / f"u{n}.wav",
                source / f"{n}.{suffix}"]  # fmt: skip
        subprocess.run(made, check=True)
    (source / "corpus.csv").write_text("audio,text\n" + lines("{n}." + suffix + ",{text}", 3))
    done = import_corpus([source], tmp_path / "out")
    assert done.left_out == () and done.record["num_imported"] == 2
    for name, row in rows_of(tmp_path / "out").items():
        assert row["audio"].endswith(".flac")
        seconds = sf.info(tmp_path / "out" / row["audio"]).duration
        assert abs(seconds - (3.0 + int(name) / 10)) < 0.15


@pytest.mark.slow
@needs_ffmpeg
def test_ffmpeg_reads_the_whole_of_joined_files(source: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    sf.write(buffer, speech_like(4.0, 24000, 1), 24000, format="MP3")
    (source / "joined.mp3").write_bytes(buffer.getvalue() * 2)
    (source / "corpus.csv").write_text(
        f"audio,text\njoined.mp3,{TEXT[5]}\n" + lines("{u}.wav,{text}")
    )
    import_corpus([source], tmp_path / "out", ref=source / "wavs" / "u7.wav")
    assert sf.info(tmp_path / "out" / "clips" / "joined.flac").duration > 7.9


@pytest.mark.slow
@needs_ffmpeg
def test_an_mp3_without_a_table_is_as_long_as_its_frames(source: Path, tmp_path: Path) -> None:
    """Its length is a guess, as ffmpeg writes it to a pipe."""
    made = ["ffmpeg", "-v", "error", "-i", source / "wavs" / "u0.wav", "-f", "mp3", "-"]
    (source / "piped.mp3").write_bytes(subprocess.run(made, capture_output=True).stdout)
    (source / "corpus.csv").write_text(f"audio,text\npiped.mp3,{TEXT[0]}\n")
    done = import_corpus([source], tmp_path / "out", ref=source / "wavs" / "u7.wav")
    assert done.left_out == () and done.record["num_imported"] == 1


@pytest.mark.slow
@needs_ffmpeg
def test_a_second_stream_of_sound_is_no_detail(tmp_path: Path) -> None:
    clips = [
        arg for n in range(2) for arg in ("-i", write_clip(tmp_path / f"{n}.wav", 3.0, seed=n))
    ]
    film = tmp_path / "film.mp4"
    made = ["ffmpeg", "-v", "error", *clips, "-map", "0", "-map", "1", "-c:a", "aac", film]
    subprocess.run(made, check=True)
    with pytest.raises(AudioError, match="several streams"):
        convert(film, tmp_path / "out.flac")


@pytest.mark.slow
@needs_ffmpeg
def test_ffmpeg_opens_no_other_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "secret.wav", 3.0)
    playlist = tmp_path / "list.m4a"
    for content in (f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/secret.wav\n",
                    f"ffconcat version 1.0\nfile '{tmp_path}/secret.wav'\n"):  # fmt: skip
        playlist.write_text(content)
        with pytest.raises(Exception, match="ffmpeg cannot read it whole"):
            convert(playlist, tmp_path / "out.flac")
    assert not (tmp_path / "out.flac").exists()


def test_without_ffmpeg_the_row_says_so(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (source / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 400)
    (source / "corpus.csv").write_text(
        "audio,text\n" + lines("{u}.wav,{text}") + "film.mp4,Film.\n"
    )
    (problem,) = import_corpus([source], tmp_path / "out").left_out
    assert "film.mp4" in problem.found and "ffmpeg" in problem.found
