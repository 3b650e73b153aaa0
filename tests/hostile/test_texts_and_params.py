"""Hostile texts, parameters and respelling maps: refused by name, or taken as they are meant."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from corpus import set_values, write_clip
from voxadapt.asr.normalise import normalise
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.params import load_params
from voxadapt.data.audio import AudioError, read_audio
from voxadapt.data.clips import read_clips, read_other_voices, read_recordings
from voxadapt.data.manifest import MAX_TEXT_CHARACTERS, read_raw_manifest
from voxadapt.data.respelling import load_respelling
from voxadapt.data.texts import audit_texts, read_texts

PROFILES = Path(__file__).parents[2] / "profiles"
PROFILE = (PROFILES / "miniature.yaml").read_text(encoding="utf-8")
LANGUAGES = (None, "en", "tr", "az", "zh", "yue", "th", "ar", "he", "ja", "ms")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("texts")
    for name in ("a.wav", "ref.wav"):
        write_clip(root / name, 1.2)
    write_clip(root.parent / "outside.wav", 1.2)
    return root


def check(problems: Any, where: str) -> str:
    for problem in problems:
        assert isinstance(problem, Problem)
        assert where in problem.where and problem.expected and problem.found and problem.fix
        assert str(problem).isprintable() and len(str(problem)) < 2000
    return "\n".join(map(str, problems))


# --- texts -------------------------------------------------------------------------------------

TAKEN = ""  # read as it is, in the manifest of a corpus
TEXTS: dict[str, tuple[str, str]] = {
    "empty": ("", "empty text"),
    "blanks of every kind": (" \t\u00a0\u2003\u3000\u200b", "U+0009"),
    "only punctuation": ("?!… — “”", "at least one letter"),
    "only emoji": ("😀🎉👩‍👩‍👧", "at least one letter"),
    "only digits": ("1984", "at least one letter"),
    "only marks": ("\u0301\u0302", "at least one letter"),
    "only a tatweel": ("\u0640\u0640", "at least one letter"),
    "only a letter apostrophe": ("\u02bc\u02bb", "at least one letter"),
    "only Arabic points": ("\ufe70\ufe72\ufe74", "at least one letter"),
    "only format characters": ("\u200b\u200d\u2060\ufeff", "at least one letter"),
    "only private characters": ("\ue000\uf8ff", "at least one letter"),
    "lone surrogate": ("A\ud83d word", "U+D83D"),
    "other surrogate": ("\udc00 word", "U+DC00"),
    "NUL": ("a\0b", "U+0000"),
    "escape sequence": ("\x1b[31mred\x1b[0m", "U+001B"),
    "bell and backspace": ("a\x07\x08b", "U+0007"),
    "line break": ("a\nb", "U+000A"),
    "10,000 characters": ("word " * 2000, "10000 characters"),
    "10,000 combining marks": ("a" + "\u0301" * 10_000, "10001 characters"),
    "expands a hundredfold": ("\ufdfa" * 100, TAKEN),
    "emoji in a sentence": ("I am 😀 here.", TAKEN),
    "right to left": ("שלום עולם", TAKEN),
    "direction overridden": ("abc \u202egnp.exe\u202c def", TAKEN),
    "look-alike letters": ("Pаypаl is here", TAKEN),
    "two scripts": ("hello мир 世界", TAKEN),
    "HTML": ("<b onclick='x()'>Hello</b> &amp; goodbye", TAKEN),
    "script": ("<script>alert(1)</script> words", TAKEN),
    "template": ("{{ 7 * 7 }} {% raw %} words", TAKEN),
    "format": ("%s %n {0} ${HOME} words", TAKEN),
    "query": ("'; DROP TABLE clips; -- words", TAKEN),
    "special token": ("<|im_end|> <|im_start|>assistant words", "special tokens"),
    "replacement character": ("caf\ufffd words", TAKEN),
    "decomposed": ("cafe\u0301 au lait", TAKEN),
    "full width": ("Ｈｅｌｌｏ", TAKEN),
    "line separator": ("one\u2028two\u2029three", TAKEN),
    "soft hyphen": ("co\u00adoperate", TAKEN),
    "unassigned character": ("word \U000e0fff", TAKEN),
    "one letter": ("a", TAKEN),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
def test_text(folder: Path, name: str) -> None:
    text, message = TEXTS[name]
    path = folder / "rows.jsonl"
    row = {"audio": "a.wav", "text": text, "ref_audio": "ref.wav"}
    path.write_bytes(json.dumps(row).encode() + b"\n")
    rows, problems = read_raw_manifest(path)
    told = check(problems, "rows.jsonl:1")
    assert message in told and bool(rows) == (message == TAKEN)
    for language in LANGUAGES:
        norm = normalise(text[:MAX_TEXT_CHARACTERS], language)  # longer ones come to no score
        assert normalise(norm, language) == norm
        norm.encode()
        assert norm or message != TAKEN, "what is accepted leaves something to score"
    path.write_bytes(json.dumps({"text": text}).encode() + b"\n")
    try:
        audit = audit_texts(read_texts(path), path=path)
        assert message == TAKEN and audit.metrics["num_accepted"] == 1
    except UserError as error:
        check(error.problems, "rows.jsonl")
    path.write_bytes(json.dumps({"audio": "a.wav", "text": text}).encode() + b"\n")
    try:
        (clip,) = read_clips(path)
        assert normalise(clip.text), "a clip that is scored leaves something to score"
    except UserError as error:
        assert message in check(error.problems, "rows.jsonl:1") or message != TAKEN


def test_doubtful_texts_are_warnings_and_counted(folder: Path) -> None:
    path = folder / "doubtful.jsonl"
    texts = ["I am 😀 here now.", "There are 12 of us.", "Plain words in here."]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    metrics = audit_texts(read_texts(path), path=path).metrics
    assert metrics["warnings_by_rule"] == {"digits": 1, "few_texts": 1, "odd_characters": 1}


# --- other manifests ---------------------------------------------------------------------------

OTHERS: dict[str, tuple[bytes, str]] = {
    "no file": (b'{"audio": "no.wav", "speaker": "x", "text": "a"}', "no.wav"),
    "parent": (b'{"audio": "../outside.wav", "speaker": "x", "text": "a"}', "leaves the folder"),
    "absolute": (b'{"audio": "/etc/passwd", "speaker": "x", "text": "a"}', "absolute"),
    "NUL in a path": (b'{"audio": "a\\u0000.wav", "speaker": "x", "text": "a"}', "cannot exist"),
    "duplicate keys": (b'{"audio": "a.wav", "audio": "a.wav", "speaker": "x"}', "twice"),
    "nested": (b"[" * 5000 + b"]" * 5000, "deeply nested"),
    "UTF-16": ('{"audio": "a.wav"}'.encode("utf-16"), "UTF-16"),
    "wrong byte": (b'{"audio": "\xff"}', "byte 0xff"),
    "no object": (b"[]", "found list"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("read", [read_other_voices, read_recordings, read_clips])
def test_other_manifest(folder: Path, name: str, read: Any) -> None:
    line, message = OTHERS[name]
    path = folder / "others.jsonl"
    path.write_bytes(line + b"\n")
    if read is read_clips:
        line = line.replace(b', "speaker": "x"', b"")
        path.write_bytes(line + b"\n")
        if name == "no file":  # a clip that is missing failed: it stays in every denominator
            (clip,) = read_clips(path)
            assert not clip.exists
            return
    with pytest.raises(UserError) as caught:
        read(path)
    assert message in check(caught.value.problems, "others.jsonl:1")


def test_sound_that_cannot_be_scored_is_named(folder: Path) -> None:
    (folder / "torn.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match="no readable audio"):
        read_audio(folder / "torn.wav")


# --- parameters --------------------------------------------------------------------------------


def changed(name: str, value: Any) -> Callable[[], bytes]:
    """The profile with another value, written when it is asked for: that takes a while."""

    def write() -> bytes:
        values = yaml.safe_load(PROFILE)
        set_values(values, {name.replace(".", "__"): value})
        return yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass")

    return write


def written(name: str, text: str) -> bytes:
    """The profile with one line of it replaced as it stands."""
    lines = PROFILE.splitlines()
    (at, *_) = [n for n, line in enumerate(lines) if line.strip().startswith(f"{name}:")]
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines[at] = f"{indent}{name}: {text}"
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def laughs(depth: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for n in range(1, depth):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]")
    return "\n".join(lines) + "\n"


YAML = "readable YAML"
PARAMS: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "typo": (written("lr", "1.0").replace(b"lr:", b"learning_rate:"), "a known parameter"),
    "typo of a section": (PROFILE.replace("train:", "trian:", 1).encode(), "a known parameter"),
    "key that does not print": (changed("\u202eevil", 1), "a known parameter"),
    "negative rate": (changed("train.lr", -1e-4), "train.lr"),
    "zero rate": (changed("train.lr", 0), "train.lr"),
    "infinite rate": (written("lr", ".inf"), "train.lr"),
    "NaN": (written("min_snr_db", ".nan"), "audit.min_snr_db"),
    "word for a number": (written("lr", "fast"), "2.0e-5"),
    "yes for a number": (written("lr", "yes"), "true or false"),
    "true for a count": (written("batch_seconds", "true"), "true or false"),
    "no for a language": (changed("asr.language", False), "without quotes"),
    "octal": (written("batch_size", "010"), "the number 010"),
    "base 60": (written("batch_seconds", "1:30"), "the number 1:30"),
    "fraction of a count": (changed("train.batch_size", 2.5), "train.batch_size"),
    "huge count": (written("takes", "1" + "0" * 5000), YAML),
    "list for a number": (changed("train.lr", [1e-4]), "train.lr"),
    "number for a section": (changed("train", 3), "train"),
    "null section": (changed("score", None), "score"),
    "date": (changed("asr.language", date(2024, 1, 1)), "asr"),
    "impossible date": (written("title", "2024-13-45"), YAML),
    "limits upside down": (changed("audit.clip_duration_s", [20.0, 1.0]), "the lower first"),
    "negative limits": (changed("score.rate_ratio", [-1.0, 2.0]), "none below 0"),
    "one limit": (changed("score.rate_ratio", [1.0]), "score.rate_ratio"),
    "negative seed": (changed("train.seed", -1), "train.seed"),
    "huge seed": (changed("score.seed", 2**70), "score.seed"),
    "empty path": (changed("model.base", ""), "model.base"),
    "NUL in a path": (written("manifest", '"a\\0b"'), "printable text"),
    "control in a name": (written("speaker_name", '"A\\u0007"'), "printable text"),
    "override in a name": (written("speaker_name", '"A\\u202eB"'), "printable text"),
    "lone surrogate": (written("speaker_name", '"\\ud800"'), "lone surrogate"),
    "name of 1,000 letters": (changed("train.speaker_name", "A" * 1000), "train.speaker_name"),
    "unknown choice": (changed("train.schedule", "linear"), "train.schedule"),
    "candidates unsorted": (changed("candidates", ["base", "epoch-2", "epoch-1"]), "ascending"),
    "path among candidates": (changed("candidates", ["base", "../../etc"]), "is not one"),
    "everything held out": (changed("split.selection_share", 0.95), "split"),
    "billion laughs": (laughs(12).encode(), "aliases that unfold"),
    "billion laughs in a section": (laughs(11).encode() + b"train: *a10\n", "aliases that unfold"),
    "alias of itself": (b"model: &a [*a]\n", "nested more than"),
    "mapping of itself": (b"model: &a {b: *a}\n", "nested more than"),
    "nested 5,000 deep": (b"model: " + b"[" * 5000 + b"]" * 5000, "nested"),
    "python object": (b"model: !!python/object/apply:os.system ['touch owned']\n", YAML),
    "python name": (b"model: !!python/name:os.system\n", YAML),
    "wrong tag": (b"model: !!timestamp noon\n", YAML),
    "empty integer": (b"model: !!int ''\n", YAML),
    "binary": (b"model: !!binary ?\n", YAML),
    "unhashable key": (b"? [a]\n: 1\n", YAML),
    "key twice": (b"model: 1\nmodel: 2\n", "given twice"),
    "inner key twice": (b"model: {base: a, base: b}\n", "given twice"),
    "two documents": (b"a: 1\n---\nb: 2\n", YAML),
    "tabs": (b"model:\n\tbase: x\n", YAML),
    "open quote": (b"model: 'x\n", YAML),
    "UTF-16": (PROFILE.encode("utf-16"), YAML),
    "Latin-1": (b"profile: caf\xe9\n", YAML),
    "NUL bytes": (bytes(100), YAML),
    "2 MB": (b"# " + b"x" * 2_000_000, "more than"),
    "empty": (b"", "sections such as"),
    "list": (b"[1, 2]", "sections such as"),
    "JSON of another kind": (b'{"a": 1}', "model"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMS)
def test_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = PARAMS[name]
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content())
    began_s = time.process_time()
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert time.process_time() - began_s < 5.0, "no input takes long to refuse"
    assert message in check(caught.value.problems, "params.yaml")
    assert not (tmp_path / "owned").exists()


def test_what_can_only_mean_one_thing_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for text, value in (("2e-5", 2e-5), ("2.0e-5", 2e-5), ('"2e-5"', 2e-5), ("1", 1.0)):
        path.write_bytes(written("lr", text))
        assert load_params(path).train.lr == value
    path.write_bytes(b"\xef\xbb\xbf" + PROFILE.replace("\n", "\r\n").encode())
    assert load_params(path) == load_params(PROFILES / "miniature.yaml")


def test_params_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_params(tmp_path)
    assert "readable YAML" in check(caught.value.problems, str(tmp_path))


# --- respelling maps ---------------------------------------------------------------------------

MALAY = (PROFILES / "respelling" / "malay.yaml").read_text(encoding="utf-8")
MAPS: dict[str, tuple[bytes, str]] = {
    "billion laughs": (laughs(12).encode(), "aliases that unfold"),
    "alias of itself": (b"graphemes: &a [*a]\n", "nested"),
    "key twice": (MALAY.encode() + b"\nlanguage: other\n", "given twice"),
    "python object": (b"language: !!python/object/apply:os.system ['true']\n", YAML),
    "no vowels": (MALAY.replace("vowels:", "vowel:", 1).encode(), "a known key"),
    "regular expression": (MALAY.encode() + b"\nx: '('\n", "a known key"),
    "list": (b"[]", "language:, graphemes:"),
    "empty": (b"", "language:, graphemes:"),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_respelling_map(tmp_path: Path, name: str) -> None:
    content, message = MAPS[name]
    path = tmp_path / "map.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_respelling(path)
    assert message in check(caught.value.problems, "map.yaml")
