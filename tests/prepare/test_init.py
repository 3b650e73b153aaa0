"""`voxadapt init`: cutting, the table, the reference, the script, the map, and going on."""

from __future__ import annotations

import csv
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from corpus import sentence, speech, write_clip
from voxadapt.asr.whisper import Transcriber
from voxadapt.cli.app import app
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json, read_jsonl, sha256_folder
from voxadapt.core.params import AuditParams, Params, load_params
from voxadapt.data.respelling import load_respelling
from voxadapt.data.text import num_spoken_characters
from voxadapt.pipeline import audit
from voxadapt.prepare import drafts
from voxadapt.prepare import init as project
from voxadapt.prepare import recording_script as script
from voxadapt.prepare.import_corpus import import_corpus
from voxadapt.prepare.init import init
from voxadapt.prepare.init_options import InitOptions
from voxadapt.prepare.reference import measure_clip, propose
from voxadapt.prepare.respelling_template import respelling_template
from voxadapt.prepare.segment import at_pauses, cut, place_lines, speech_of
from voxadapt.prepare.sources import find_recordings, read_lines
from voxadapt.prepare.transcribe import LazyTranscriber
from voxadapt.prepare.transcript_table import read_table, write_table
from voxadapt.prepare.workspace import with_values

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data"
WHISPER = str(DATA / "models/whisper/miniature.pt")
MALAY = ROOT / "profiles" / "respelling" / "malay.yaml"


def change(table: Path, **columns: dict[str, str]) -> None:
    """Edit a table as a spreadsheet does: by column and clip."""
    text = table.read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(text.splitlines(), delimiter=max(",;", key=text[:30].count)))
    for column, values in columns.items():
        for row in rows:
            row[column] = values.get(row["clip"], row.get(column, ""))
    with open(table, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


# --- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(",", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-16")]
)
def test_a_table_comes_back_as_spreadsheets_write_it(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    rows = [
        {"clip": "clips/a.flac", "text": '=SUM(A1), she said; "well"', "use": "yes", "note": "x"},
        {"clip": "clips/b.flac", "text": "'tis größer", "use": "reference", "checked": "yes"},
    ]
    write_table(tmp_path / "t.csv", rows, ["note"])
    assert (tmp_path / "t.csv").read_bytes().startswith(b"\xef\xbb\xbfclip,text,")
    with open(tmp_path / "t.csv", encoding="utf-8-sig", newline="") as stream:
        cells = list(csv.reader(stream))
    assert cells[1][1].startswith("'="), "a spreadsheet shows it and computes nothing"
    with open(tmp_path / "u.csv", "w", encoding=encoding, newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([*cells, ["", ""]])
    found = read_table(tmp_path / "u.csv")
    assert [(entry.text, entry.checked, entry.use) for entry in found.values()] == [
        ('=SUM(A1), she said; "well"', False, "yes"), ("'tis größer", True, "reference"),
    ]  # fmt: skip
    assert found["clips/a.flac"].extra == {"note": "x"}


def test_a_table_that_cannot_be_read_names_every_row(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("clip,text,checked,use\na,x,perhaps,\na,y,,never\nb,z,,,more\n")
    with pytest.raises(UserError) as caught:
        read_table(table)
    assert [problem.where for problem in caught.value.problems] == [
        "t.csv, row 2", "t.csv, row 3", "t.csv, row 3", "t.csv, row 4",
    ]  # fmt: skip
    for text, told in (("clip;name\na;b\n", "column text"), ('clip,text\na,"b\n', "quotation")):
        table.write_text(text)
        with pytest.raises(UserError, match=told):
            read_table(table)
    table.write_bytes(b"clip,text\na,caf\xe9\n")
    with pytest.raises(UserError, match="0xe9"):
        read_table(table)


# --- cutting -------------------------------------------------------------------------------------


def test_recordings_are_cut_at_their_longest_pauses() -> None:
    spans = [(0.0, 2.0), (2.3, 4.0), (5.0, 7.0), (7.25, 15.0), (16.0, 16.2), (30.0, 45.0)]
    assert at_pauses(spans, (1.0, 20.0)) == [(0.0, 4.0), (5.0, 16.2), (30.0, 45.0)]
    assert at_pauses(spans[:4], (1.0, 6.0)) == [(0.0, 4.0), (5.0, 7.0), (7.25, 15.0)]
    pieces = cut("talk.wav", spans[:4], (1.0, 6.0), [])
    assert [piece.problem is None for piece in pieces] == [True, True, False]
    assert "7.0-" not in str(pieces[2].problem) and "talk.wav 7.2-15.0 s" in str(pieces[2].problem)
    assert cut("talk.wav", [], (1.0, 6.0), [])[0].problem is not None


@given(st.integers(0, 10_000))
def test_lines_find_their_place_without_a_recogniser(seed: int) -> None:
    """Sentences of one to three stretches, read at a pace that varies, pauses between them."""
    rng = np.random.default_rng(seed)
    lines = [sentence(int(n)) for n in rng.choice(50, 6, replace=False)]
    spans, truth, now = [], [], 0.0
    for line in lines:
        length_s = num_spoken_characters(line) / 14.0 * rng.uniform(0.85, 1.15)
        parts = rng.integers(1, 4)
        start = now
        for _ in range(parts):
            spans.append((now, now + length_s / parts))
            now += length_s / parts + rng.uniform(0.2, 0.35)
        truth.append((start, spans[-1][1]))
        now += rng.uniform(0.4, 1.2)
    found = place_lines(spans, lines, 20.0)
    assert found is not None and np.allclose(found, truth)


def test_texts_that_do_not_fit_are_told() -> None:
    spans = [(0.0, 2.0), (2.5, 4.5), (5.0, 7.0)]
    assert place_lines(spans, ["One."] * 4, 20.0) is None
    assert place_lines(spans, ["All of it in one line."], 5.0) is None
    whole = "The first sentence. The second sentence! The third sentence?"
    assert [p.text for p in cut("a.wav", spans, (1.0, 5.0), [whole])] == [
        "The first sentence.", "The second sentence!", "The third sentence?",
    ]  # fmt: skip
    [piece] = cut("a.wav", spans, (1.0, 5.0), ["One."] * 4)
    assert piece.problem is not None and "4 lines for 3 stretches" in piece.problem.found


# --- the reference -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_reference_is_clean_level_and_typical(tmp_path: Path) -> None:
    made = []
    for number in range(8):
        write_clip(tmp_path / f"{number}.wav", 6.0 + 0.2 * number, seed=number)
        made.append(f"{number}.wav")
    for name, damage in (
        ("2.wav", lambda x: np.clip(4.0 * x, -0.3, 0.3)),
        ("3.wav", lambda x: 0.2 * x),
        ("4.wav", lambda x: x + np.random.default_rng(0).normal(0, 0.05, len(x))),
    ):
        samples, rate_hz = sf.read(tmp_path / name)
        sf.write(tmp_path / name, damage(samples), rate_hz)
    texts = [sentence(1) * 2] * 7 + [sentence(1)]
    found = propose(
        [measure_clip(tmp_path, name, "one", n, texts[n]) for n, name in enumerate(made)],
        AuditParams(),
    )
    assert found is not None and found.clips == ("5.wav",) and found.faults == ()
    assert "7.0 s" in found.why and "no clipping" in found.why and "of 8 candidates" in found.why
    worse = propose(
        [measure_clip(tmp_path, name, "one", 0, "") for name in made[2:3]], AuditParams()
    )
    assert worse is not None and "clipped" in worse.faults
    short = [write_clip(tmp_path / f"s{n}.wav", 2.4, seed=n).name for n in range(4)]
    measured = [measure_clip(tmp_path, name, "ab"[n // 3], n, "") for n, name in enumerate(short)]
    joined = propose(measured, AuditParams())
    assert joined is not None and joined.clips == ("s0.wav", "s1.wav", "s2.wav")
    assert propose(measured[3:], AuditParams()) is None


# --- the script and the map ----------------------------------------------------------------------


def plain_greedy(texts: list[str], count: int) -> list[str]:
    """The rule of `script.choose` as it is said, without the heap."""
    held = {text: script.units(text, script.letters) for text in texts}
    num_with = {
        u: sum(u in found for found in held.values()) for found in held.values() for u in found
    }
    taken = dict.fromkeys(num_with, 0)
    chosen: list[str] = []

    def gain(text: str) -> float:
        brought = sum(0.5 ** taken[u] / num_with[u] for u in sorted(held[text]))
        return brought / num_spoken_characters(text)

    while len(chosen) < min(count, len(texts)):
        best = max((t for t in texts if t not in chosen), key=lambda t: (gain(t), -texts.index(t)))
        chosen.append(best)
        for unit in held[best]:
            taken[unit] += 1
    return chosen


def test_the_script_takes_what_brings_most_and_goes_on(tmp_path: Path) -> None:
    texts = [row["text"] for row in read_jsonl(DATA / "language/malay/text_only.jsonl")]
    texts = [text for text in texts if script.is_readable(text)][:60]
    found = script.choose(
        [*texts, texts[0].upper(), "Ya.", "Ada 3 kucing di sini."], 45, script.letters
    )
    chosen = [choice.text for choice in found.choices]
    assert chosen == plain_greedy(texts, 45)
    assert found.num_covered == found.num_units and found.choices[-1].covered == 1.0
    assert found.after(10) >= script.share_held(texts, 10, script.letters) - 0.05
    rare = script.choose([*texts, "Xilofon zebra."], 1, script.letters).choices[0]
    assert rare.text == "Xilofon zebra." and "z-e" in rare.brings
    assert script.write_script(tmp_path, found, 0) == 3
    pages = {path.name: path.read_bytes() for path in tmp_path.glob("script-*.txt")}
    before = script.scripted(tmp_path, read_lines)
    assert before == chosen
    longer = script.choose(texts, 60, script.letters, first=before)
    assert [choice.text for choice in longer.choices[:45]] == chosen
    assert script.write_script(tmp_path, longer, 45) == 4
    assert pages.items() <= {p.name: p.read_bytes() for p in tmp_path.glob("*.txt")}.items()


def test_marks_stay_with_their_letter_and_the_map_gives_sounds() -> None:
    assert script.letters("কি Ñu") == [["কি"], ["ñ", "u"]]
    respelling = load_respelling(MALAY)
    assert respelling.sounds("payung itu") == [
        ["p", "ah", "y", "oh", "ng"], ["ee", "t", "oo"],
    ]  # fmt: skip
    sounds, unit = script.sounds_of(["Saya beli payung."], respelling)
    assert unit == "sounds of the map" and "oh-ng" in script.units("payung", sounds)
    assert script.sounds_of(["Ça va."], respelling)[1] == "letters"


def test_a_template_is_refused_until_it_is_filled_in(tmp_path: Path) -> None:
    texts = [row["text"] for row in read_jsonl(DATA / "language/malay/text_only.jsonl")]
    reader = load_respelling(MALAY)
    path = tmp_path / "no.yaml"
    path.write_text(respelling_template("no", ["Øy yes", *texts], reader), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_respelling(path)
    assert "reads '?'" in str(caught.value)
    text = path.read_text(encoding="utf-8")
    assert '{letters: "y", reads: "?"} # ' in text and '# - {letters: "ng", reads: "?"}' in text
    path.write_text(text.replace('"?"', '"s"').replace("language: no", 'language: "no"'))
    filled = load_respelling(path)
    assert {item.letters for item in filled.graphemes} >= set("aeiouøy")
    assert yaml.safe_load(path.read_text())["language"] == "no"


def test_values_are_replaced_and_comments_stay() -> None:
    text = (ROOT / "profiles" / "qwen3-tts-0.6b.yaml").read_text(encoding="utf-8")
    values = {"language.name": "norwegian", "language.asr_language": "no", "asr.language": "de"}
    changed = with_values(text, values | {"train.speaker_name": "Ann # Lee"})
    tree = yaml.safe_load(changed)
    assert tree["language"]["asr_language"] == "no" and tree["asr"]["language"] == "de"
    assert tree["train"]["speaker_name"] == "Ann # Lee"
    lines = [pair for pair in zip(text.splitlines(), changed.splitlines(), strict=True)]
    assert sum(old != new for old, new in lines) == 4
    assert [old.partition("#")[2] for old, new in lines if "#" in old and "Ann" not in new] == [
        new.partition("#")[2] for old, new in lines if "#" in old and "Ann" not in new
    ]
    assert with_values(text, {"train.speaker": "x"}) == text


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Path, list[str]]:
    """A project of two recordings: one with a text, one without."""
    speech(tmp_path / "rec" / "monday.wav", 0, 12)
    texts = speech(tmp_path / "rec" / "sub" / "tuesday.wav", 12, 12)
    text = "# a slip in line 3\n\n" + "\n".join(texts) + "\n"
    (tmp_path / "rec" / "sub" / "tuesday.txt").write_text(text)
    (tmp_path / "rec" / "cover.jpg").write_bytes(b"no sound")
    (tmp_path / "rec" / "phone.m4a").write_bytes(b"no sound that is read")
    return tmp_path, texts


@pytest.mark.slow
def test_a_folder_becomes_a_project_and_corrections_are_taken_over(
    begun: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path, texts = begun
    folder = tmp_path / "my-voice"
    found = init(folder, InitOptions(audio=tmp_path / "rec", speaker_name="Ann"))
    home = folder / "data" / "speaker"
    assert [problem.where for problem in found.left_out] == ["phone.m4a"]
    told = {problem.where: problem for problem in found.missing}
    assert {"transcripts", "consent", "minutes", "the clips"} == set(told)
    assert load_params(folder / "params.yaml").train.speaker_name == "Ann"
    table = read_table(home / "transcripts.csv")
    written = [entry.text for name, entry in table.items() if "tuesday" in name]
    assert written == texts, "cut by lines, without a recogniser"
    rows = read_jsonl(home / "train_raw.jsonl")
    reference = [name for name, entry in table.items() if entry.use == "reference"]
    num_read = sum("tuesday" in name for name in reference)
    assert len(rows) == 12 - num_read and 5.0 <= sf.info(home / "ref.wav").duration <= 10.0
    record = read_json(home / "init.json")
    assert record["reference"]["clips"] == reference and "SNR" in record["reference"]["why"]

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("nothing is done twice")

    for name in ("cut_clip", "probe"):
        monkeypatch.setattr(drafts, name, never)
    monkeypatch.setattr(project, "measure_clip", never)
    before = sha256_folder(home)
    init(folder, InitOptions(audio=tmp_path / "rec"))
    assert sha256_folder(home) == before
    monday = [name for name in table if "monday" in name]
    change(
        home / "transcripts.csv",
        text={monday[0]: "What I said.", monday[1]: "=1 said.", monday[2]: "x" * 3000},
        use={monday[0]: "yes", monday[3]: "no"},
        mine={monday[0]: "a note"},
    )
    with pytest.raises(UserError, match="at most 2000 characters"):
        init(folder, InitOptions())
    change(home / "transcripts.csv", text={monday[2]: ""})
    init(folder, InitOptions(consent="Ann agreed on 3 May"))
    rows = read_jsonl(home / "train_raw.jsonl")
    assert {"What I said.", "=1 said."} <= {row["text"] for row in rows}
    assert {row["consent"] for row in rows} == {"Ann agreed on 3 May"}
    again = read_table(home / "transcripts.csv")
    assert again[monday[0]].checked and again[monday[0]].extra == {"mine": "a note"}
    assert again[monday[3]].use == "no"


@pytest.mark.slow
def test_more_recordings_are_added_and_deleted_rows_stay_out(begun: tuple[Path, list[str]]) -> None:
    tmp_path, _ = begun
    folder = tmp_path / "my-voice"
    init(folder, InitOptions(audio=tmp_path / "rec"))
    home = folder / "data" / "speaker"
    lines = (home / "transcripts.csv").read_text(encoding="utf-8-sig").splitlines()
    gone = lines.pop(
        next(n for n, line in enumerate(lines) if "tuesday" in line and ",yes," in line)
    )
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    shutil.copy(tmp_path / "rec" / "monday.wav", tmp_path / "rec" / "copy.wav")
    texts = speech(tmp_path / "rec" / "new" / "monday.wav", 30, 3)
    (tmp_path / "rec" / "new" / "monday.txt").write_text(" ".join(texts))
    options = InitOptions(audio=tmp_path / "rec", table=tmp_path / "mine.csv", clip_s=(1.0, 6.0))
    found = init(folder, options)
    assert any("the same bytes" in problem.found for problem in found.left_out)
    table = read_table(home / "transcripts.csv")
    assert table[gone.split(",")[0]].use == "no"
    assert sorted(texts) == sorted(
        e.text for name, e in table.items() if "monday-" in name and e.text
    )
    assert len(read_json(home / "init.json")["recordings"]) == 3
    name = next(name for name, entry in table.items() if entry.use == "yes" and entry.text)
    change(home / "transcripts.csv", use={name: "reference"} | {
        other: "yes" for other, entry in table.items() if entry.use == "reference"
    })  # fmt: skip
    with pytest.raises(UserError, match="3 to 10 s together"):
        init(folder, InitOptions())
    ref = write_clip(tmp_path / "ref.wav", 5.0)
    init(folder, InitOptions(ref=ref))
    assert read_json(home / "init.json")["reference"]["from"] == "ref.wav"
    init(folder, InitOptions())
    assert read_json(home / "init.json")["reference"]["from"] == "ref.wav", "it stays"


@pytest.mark.slow
def test_files_of_others_are_not_touched(begun: tuple[Path, list[str]]) -> None:
    tmp_path, _ = begun
    with pytest.raises(UserError, match="--audio FOLDER"):
        init(tmp_path / "new", InitOptions())
    with pytest.raises(UserError, match="nothing there"):
        init(tmp_path / "new", InitOptions(audio=tmp_path / "none"))
    with pytest.raises(UserError) as caught:
        init(
            tmp_path / "new",
            InitOptions(audio=tmp_path / "rec", clip_s=(5.0, 2.0), source_text=MALAY),
        )
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "new").exists(), "nothing is begun with wrong options"
    folder = tmp_path / "my-voice"
    init(folder, InitOptions(audio=tmp_path / "rec"))
    home = folder / "data" / "speaker"
    with open(home / "train_raw.jsonl", "a") as stream:
        stream.write("\n")
    with pytest.raises(UserError, match=r"belong into transcripts.csv"):
        init(folder, InitOptions())
    shutil.move(home / "init.json", tmp_path / "init.json")
    with pytest.raises(UserError, match="a file of your own"):
        init(folder, InitOptions(audio=tmp_path / "rec"))


@pytest.mark.slow
@pytest.mark.usefixtures("python_alignment")
def test_whisper_drafts_and_checks_once_and_the_audit_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = speech(tmp_path / "rec" / "talk.wav", 0, 5)
    read = speech(tmp_path / "rec" / "read.wav", 6, 4)
    (tmp_path / "rec" / "read.txt").write_text("\n".join(read))
    ref = DATA / "speaker" / "ref.wav"
    folder = tmp_path / "my-voice"
    options = InitOptions(
        audio=tmp_path / "rec", transcribe=True, asr=WHISPER, asr_language="en",
        clip_s=(1.0, 6.0), window_s=4.0, device="cpu", ref=ref,
    )  # fmt: skip
    stopped: list[int] = []
    transcribe = LazyTranscriber.transcribe

    def stopping(self: Any, *given: Any) -> Any:
        if not stopped:
            stopped.append(1)
            raise KeyboardInterrupt
        return transcribe(self, *given)

    monkeypatch.setattr(LazyTranscriber, "transcribe", stopping)
    with pytest.raises(KeyboardInterrupt):
        init(folder, options)
    monkeypatch.setattr(Transcriber, "words", None)  # what was heard is kept
    found = init(folder, options)
    home = folder / "data" / "speaker"
    table = read_table(home / "transcripts.csv")
    talk = [entry.text for name, entry in table.items() if "talk" in name]
    assert sum(text in texts for text in talk) >= 3, "it hears its own speaker"
    assert [entry.text for name, entry in table.items() if "read" in name] == read
    unsure = next(p for p in found.missing if p.where == "transcripts")
    assert unsure.found == f"{len(talk)} drafts by Whisper", "lines that it hears too are checked"
    monkeypatch.setattr(LazyTranscriber, "_transcriber", None)
    init(folder, options)  # nothing is left to hear, so Whisper is not loaded

    tree = load_params(ROOT / "params.yaml").model_dump()
    tree["data"]["manifest"] = str(home / "train_raw.jsonl")
    tree["audit"]["min_total_minutes"] = 0.01
    tree["split"] |= {"selection_share": 0.3, "confirmation_share": 0.3}
    tree["asr"]["model"] = WHISPER
    monkeypatch.chdir(tmp_path)
    result = audit.run(Params.model_validate(tree))
    assert "clips accepted" in result.sentence


@pytest.mark.slow
def test_a_language_is_prepared_from_texts_to_recordings(tmp_path: Path) -> None:
    rows = read_jsonl(DATA / "language/malay/train_raw.jsonl")
    by_text = {row["text"]: row["audio"] for row in rows}
    text = tmp_path / "texts.txt"
    text.write_text("\n".join([*by_text, "Ada 3 kucing.", "<b>Ya</b>", ""]), encoding="utf-8")
    folder = tmp_path / "my-language"
    found = init(folder, InitOptions(language="Dusun Tengah", text=text, sentences=20))
    home = folder / "data" / "language" / "dusun_tengah"
    assert len(found.left_out) == 2
    where = [problem.where for problem in found.missing]
    assert where[1:] == ["language.source.text", "language.asr_language", "recordings"]
    assert where[0].endswith("dusun_tengah.yaml")
    params = load_params(folder / "params.yaml").language
    assert params is not None and params.name == "dusun_tengah"
    assert (folder / params.text) == home / "text_only.jsonl"
    assert len(read_jsonl(home / "text_only.jsonl")) == len(by_text)
    page = home / "script" / "script-01.txt"
    lines = read_lines(page)
    assert len(lines) == 20 and page.read_text().startswith("# script-01: 20 sentences")
    parts: list[np.ndarray] = []
    for line in lines:
        samples, rate_hz = sf.read(DATA / "language/malay" / by_text[line], dtype="float32")
        parts += [samples, np.zeros(round(0.8 * rate_hz), np.float32)]
    (tmp_path / "read").mkdir()
    sf.write(tmp_path / "read" / "script-01.wav", np.concatenate(parts), rate_hz)
    filled = MALAY.read_text().replace("language: malay", "language: dusun_tengah")
    (folder / "profiles/respelling/dusun_tengah.yaml").write_text(filled)
    (tmp_path / "english.txt").write_text("He sat down.\nShe stood up.\n")
    found = init(
        folder,
        InitOptions(language="dusun_tengah", audio=tmp_path / "read", consent="agreed",
               source_text=tmp_path / "english.txt", asr_language="ms"),
    )  # fmt: skip
    table = read_table(home / "transcripts.csv")
    assert [entry.text for entry in table.values()] == lines
    row = read_jsonl(home / "train_raw.jsonl")[0]
    assert row["language"] == "dusun_tengah" and row["consent"] == "agreed"
    told = {problem.where for problem in found.missing}
    assert "language.source.text" in told, "params.yaml was edited: init says what to write"
    assert "language.asr_language" not in told, "a close language was named"
    assert not any(where.endswith(".yaml") for where in told), "the map is complete"


@pytest.mark.slow
def test_import_takes_consent(tmp_path: Path) -> None:
    (tmp_path / "lj").mkdir()
    for number in range(3):
        write_clip(tmp_path / "lj" / "wavs" / f"{number}.wav", 3.5, seed=number)
    lines = [f"{number}|{sentence(number)}" for number in range(3)]
    (tmp_path / "lj" / "metadata.csv").write_text("\n".join(lines) + "\n")
    import_corpus([tmp_path / "lj"], tmp_path / "out", consent="agreed on 3 May")
    rows = read_jsonl(tmp_path / "out" / "train_raw.jsonl")
    assert [row["consent"] for row in rows] == ["agreed on 3 May"] * 2
    for bad in ("", "x" * 201, "a\nb"):
        with pytest.raises(UserError, match="consent in 1 to 200"):
            import_corpus([tmp_path / "lj"], tmp_path / "two", consent=bad)
    with pytest.raises(UserError, match="consent in 1 to 200"):
        init(tmp_path / "two", InitOptions(audio=tmp_path / "lj" / "wavs", consent=""))
    options = ["-o", str(tmp_path / "three"), "--consent", "in writing"]
    done = CliRunner().invoke(app, ["import", str(tmp_path / "lj"), *options])
    assert done.exit_code == 0, done.output
    assert read_jsonl(tmp_path / "three" / "train_raw.jsonl")[0]["consent"] == "in writing"


# --- the walkthroughs ----------------------------------------------------------------------------


def without_numbers(page: str) -> list[str]:
    """A page's words: figures may differ in the last digit between machines."""
    return re.sub(r"[\d.]+", "0", re.sub(r"-{3,}", "--", page)).split()


@pytest.mark.slow
@pytest.mark.usefixtures("python_alignment")
@pytest.mark.parametrize("name", ["your-voice.md", "your-language.md"])
def test_a_walkthrough_prints_what_its_commands_print(name: str) -> None:
    walk = runpy.run_path(str(ROOT / "docs" / "walk.py"))
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    printed = walk["STEP"].findall(text)
    assert len(printed) >= 4 and all("\n```text\n```" not in after for _, after in printed)
    assert without_numbers(walk["walk"](text)) == without_numbers(text), "run python docs/walk.py"


# --- lines that cannot be what was read -----------------------------------------------------------


def read_aloud(lengths_s: list[float], pause_s: float = 0.8) -> list[tuple[float, float]]:
    spans, at = [], 0.2
    for length_s in lengths_s:
        spans.append((at, at + length_s))
        at += length_s + pause_s
    return spans


LINE = "The candle and the window are yellow in the evening."  # 42 letters: 3 s
PAIRINGS: dict[str, tuple[list[float], list[str], bool]] = {
    "a line a sentence": ([3.0] * 4, [LINE] * 4, True),
    "a quick reader": ([1.9] * 4, [LINE] * 4, True),
    "a slow reader": ([7.0] * 4, [LINE] * 4, True),
    "two sentences a line": ([3.0] * 8, [f"{LINE} {LINE}"] * 4, True),
    "a pause at a comma": ([1.4, 1.6, 3.0, 3.0], [LINE.replace(" and", ", and"), LINE, LINE], True),
    "Chinese": ([3.0] * 3, ["今天天气很好我们去公园散步"] * 3, True),
    "thirteen sentences, four lines": ([3.0] * 13, [LINE] * 4, False),
    "eight sentences, four lines": ([3.0] * 8, [LINE] * 4, False),
    "six words for long speech": ([11.8], ["Six words for such long speech"], False),
    "73 letters for two seconds": ([2.0, 3.0], [LINE + " And the rest of all the words too.",
                                               LINE], False),
    "four sentences, thirteen lines": ([3.0] * 4, [LINE] * 13, False),
    "a sentence that no line has": ([3.0] * 6, [LINE] * 5, False),
    "a last sentence that no line has": ([3.0] * 3 + [2.0] * 2, [LINE] * 3 + [LINE[:34]], False),
    "one line, a long talk": ([3.0] * 6, [LINE], False),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRINGS)
def test_lines_are_paired_with_speech_that_they_can_be(name: str) -> None:
    lengths_s, lines, fits = PAIRINGS[name]
    made = cut("talk.wav", read_aloud(lengths_s), (1.0, 20.0), lines)
    assert all(piece.problem is None for piece in made) == fits
    if not fits:
        (piece,) = made
        assert piece.problem is not None and "fits the recording" in piece.problem.expected


@pytest.mark.slow
def test_one_sentence_without_a_line_is_seen(tmp_path: Path) -> None:
    """Its speech would go to a neighbour; nine in ten are seen, and no right text is refused."""
    seen = []
    for first in range(0, 45, 9):
        texts = speech(tmp_path / "talk.wav", first, 9)
        spans = speech_of(tmp_path / "talk.wav")
        assert [p.text for p in cut("talk.wav", spans, (0.8, 20.0), texts)] == texts
        for gap in range(9):
            lines = [text for number, text in enumerate(texts) if number != gap]
            seen.append(cut("talk.wav", spans, (0.8, 20.0), lines)[0].problem is not None)
    assert sum(seen) >= 0.9 * len(seen)


@pytest.mark.parametrize(
    "line", ["{n}. {text}", "utt_{n:03d} {text}", "a{n}|{text}", "[00:0{n}.50] {text}",
             "( arctic_a000{n} \"{text}\" )", "Ann: {text}", "{n}.5\t{n}.9\t{text}",
             "00:00:0{n},000 --> 00:00:0{n},900\n{text}"],
)  # fmt: skip
def test_what_stands_before_a_line_is_not_read_aloud(tmp_path: Path, line: str) -> None:
    told = [line.format(n=n, text=sentence(n)) for n in range(4)]
    (tmp_path / "talk.txt").write_text("\n".join(told))
    with pytest.raises(UserError, match="found labels"):
        read_lines(tmp_path / "talk.txt")
    (tmp_path / "talk.txt").write_text("12 men came.\nNote: it rained.\nThen 3 left.")
    assert len(read_lines(tmp_path / "talk.txt")) == 3


@pytest.mark.parametrize("damage", ["nan", "integers", "opposed"])
def test_sound_that_would_be_spoilt_in_the_clip_is_left_out(tmp_path: Path, damage: str) -> None:
    lines = speech(tmp_path / "rec" / "talk.wav", 0, 3)
    sound, rate_hz = sf.read(tmp_path / "rec" / "talk.wav")
    made = {
        "nan": np.where(np.arange(len(sound)) % 9000 == 0, np.nan, sound),
        "integers": sound * 32767, "opposed": np.stack([sound, -0.9 * sound], 1),
    }  # fmt: skip
    sf.write(tmp_path / "rec" / "talk.wav", made[damage], rate_hz, subtype="FLOAT")
    (tmp_path / "rec" / "talk.TXT").write_text("\n".join(lines))
    found = init(tmp_path / "mine", InitOptions(audio=tmp_path / "rec"))
    assert len(found.left_out) == 3 and all("talk.wav" in item.where for item in found.left_out)
    with pytest.raises(UserError, match="--ref"):
        init(tmp_path / "mine", InitOptions(ref=tmp_path / "rec" / "talk.wav"))


def test_too_few_lines_for_real_speech_are_refused(tmp_path: Path) -> None:
    texts = speech(tmp_path / "talk.wav", 0, 9)
    spans = speech_of(tmp_path / "talk.wav")
    right = cut("talk.wav", spans, (0.8, 20.0), texts)
    assert [piece.text for piece in right if piece.problem is None] == texts
    for lines in (texts[:3], texts[2:5], texts[::3]):
        assert all(p.problem is not None for p in cut("talk.wav", spans, (0.8, 20.0), lines)), lines


def test_recordings_behind_links_out_of_the_folder_are_not_read(tmp_path: Path) -> None:
    write_clip(tmp_path / "mine.wav", 3.0)
    write_clip(tmp_path / "in" / "a.wav", 3.0)
    (tmp_path / "in" / "b.wav").symlink_to(tmp_path / "mine.wav")
    (tmp_path / "in" / "c.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 400)
    found, problems = find_recordings(tmp_path / "in")
    assert [path.name for path in found if path.suffix == ".wav"] == ["a.wav"]
    assert "a link that leaves the folder" in problems[0].found
