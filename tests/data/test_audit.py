"""The audit: each rule on a corpus with one fault, and the table of everything that stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from corpus import make_corpus, sentence, speech_like, write_clip, write_rows
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.params import AuditParams, SplitParams
from voxadapt.data.audio import resample
from voxadapt.data.audit import (
    AuditResult,
    Transcribe,
    audit_corpus,
    disagreement,
    write_audit,
)
from voxadapt.data.findings import Finding
from voxadapt.data.manifest import read_manifest, read_raw_manifest

LIMITS = AuditParams(min_total_minutes=0.1, recommended_total_minutes=(0.2, 30.0), on_error="stop")
# With this salt and these shares the twelve sentences fall into all three splits.
SPLIT = SplitParams(selection_share=0.3, confirmation_share=0.3)
HZ = 16000


def audit(
    path: Path, limits: AuditParams = LIMITS, transcribe: Transcribe | None = None
) -> AuditResult:
    rows, problems = read_raw_manifest(path)
    return audit_corpus(rows, limits, SPLIT, path, problems, transcribe)


def refused(path: Path, limits: AuditParams = LIMITS) -> list[Problem]:
    with pytest.raises(UserError) as caught:
        audit(path, limits)
    return list(caught.value.problems)


def found_rules(result: AuditResult) -> dict[str, list[str]]:
    """Rules by clip id; the corpus is the empty id."""
    rules: dict[str, list[str]] = {}
    for clip, finding in result.warnings:
        rules.setdefault(clip.row.id if clip else "", []).append(finding.rule)
    return rules


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    return make_corpus(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A sound corpus that the test may spoil."""
    return make_corpus(tmp_path / "corpus")


def test_clean_corpus(clean: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    path, rows = clean
    result = audit(path)
    assert {rule for rules in found_rules(result).values() for rule in rules} <= {"split"}
    assert len(result.utterances) == len(rows) == result.metrics["num_accepted"]
    assert result.metrics["minutes"] == pytest.approx(12 * 2.5 / 60, abs=0.01)
    assert result.metrics["reference_duration_s"] == pytest.approx(5.0, abs=0.01)
    counts = {name: part["clips"] for name, part in result.metrics["splits"].items()}
    assert sum(counts.values()) == 12
    assert all(counts.values())
    assert result.sentence.startswith("12 clips accepted (0.5 min: ")

    write_audit(result, tmp_path / "m.jsonl", tmp_path / "c.jsonl", tmp_path / "a.json")
    utterances = read_manifest(tmp_path / "m.jsonl")
    assert tuple(utterances) == result.utterances
    assert [u.id for u in utterances] == sorted(u.id for u in utterances)
    clips = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [clip["line"] for clip in clips] == list(range(1, 13))
    assert {"duration_s", "snr_db", "peak", "split", "findings"} <= set(clips[0])
    assert json.loads((tmp_path / "a.json").read_text()) == result.metrics
    before = (tmp_path / "m.jsonl").read_bytes()
    write_audit(audit(path), tmp_path / "m.jsonl", tmp_path / "c.jsonl", tmp_path / "a.json")
    assert (tmp_path / "m.jsonl").read_bytes() == before


def test_paths_are_relative_to_the_project(
    corpus: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = corpus
    monkeypatch.chdir(path.parent.parent)
    first = audit(Path("corpus/train_raw.jsonl")).utterances[0]
    assert first.audio == "corpus/clips/utt000.wav"
    assert first.ref_audio == "corpus/ref.wav"


def test_the_table_of_bad_rows(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    """Every bad row of the issue at once: one error, all problems, with file and line."""
    path, rows = corpus
    folder = path.parent
    write_clip(folder / "second_ref.wav", 5.0, seed=77)
    write_clip(folder / "one_second.wav", 1.0, seed=78)
    stereo = np.stack([speech_like(2.5, 8000, 1), speech_like(2.5, 8000, 2)], axis=1)
    sf.write(folder / "narrow.wav", stereo, 8000)
    (folder / "broken.wav").write_bytes(b"RIFF, but nothing of the kind" * 50)
    bad: list[dict[str, Any] | str] = [
        rows[0] | {"audio": "clips/missing.wav"},
        rows[0] | {"audio": "broken.wav"},
        '{"audio": "clips/utt000.wav", ',
        rows[0] | {"mood": "x"},
        rows[1] | {"text": "  "},
        rows[2] | {"ref_audio": "second_ref.wav"},
        {"audio": "one_second.wav", "text": "A word.", "ref_audio": "ref.wav"},
        {"audio": "narrow.wav", "text": "Another one.", "ref_audio": "ref.wav"},
    ]
    write_rows(path, [*rows[3:], *bad])
    problems = refused(path)
    start = len(rows[3:])
    expected = {
        1: "no file",
        2: "no readable audio",
        3: "invalid JSON",
        4: "unknown key 'mood'",
        5: "empty text",
        6: "the same ref_audio in every row",
        7: "1.00 s",
        8: "8000 Hz",
    }
    lines = [problem.where for problem in problems if ":" in problem.where]
    assert lines == [f"train_raw.jsonl:{start + i}" for i in expected], "sorted, one each"
    for problem, message in zip(problems, expected.values(), strict=False):
        assert message in str(problem)
        assert problem.fix
    with pytest.raises(UserError, match="8 rows have errors"):
        audit(path)


def spoil(samples: np.ndarray, how: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    if how == "noise":
        return samples + (0.08 * rng.standard_normal(len(samples))).astype(np.float32)
    if how == "clipping":
        return np.clip(samples * 8, -1, 1)
    if how == "lead_silence":
        return np.concatenate([1e-3 * rng.standard_normal(HZ), samples]).astype(np.float32)
    if how == "trail_silence":
        return np.concatenate([samples, 1e-3 * rng.standard_normal(HZ)]).astype(np.float32)
    assert how == "dc_offset"
    return samples + np.float32(0.1)


@pytest.mark.parametrize(
    "rule", ["noise", "clipping", "lead_silence", "trail_silence", "dc_offset"]
)
def test_warnings_of_sound(corpus: tuple[Path, list[dict[str, Any]]], rule: str) -> None:
    path, _ = corpus
    clip = path.parent / "clips" / "utt004.wav"
    sf.write(clip, spoil(speech_like(2.5, seed=4), rule), HZ, subtype="FLOAT")
    result = audit(path)
    assert rule in found_rules(result)["utt004"]
    finding = next(f for c, f in result.warnings if c and c.row.id == "utt004" and f.rule == rule)
    assert finding.value is not None
    assert finding.limit is not None
    assert "Expected" in finding.message
    others = [name for name, rules in found_rules(result).items() if rule in rules]
    assert others == ["utt004"]
    assert result.metrics["warnings_by_rule"][rule] == 1


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("odd_script", "The аmber basket candle."),
        ("odd_script", "The amber basket candle 😀."),
        ("digits", "The 12 amber baskets in all."),
        ("markup", "The <b>amber</b> basket candle."),
        ("several_sentences", "The amber basket. The candle burns."),
        ("duplicate_text", sentence(0).upper()),
        ("speech_rate", "Amber basket candle dinner engine forest garden " * 2),
        ("speech_rate", "Oh."),
    ],
)
def test_warnings_of_text(corpus: tuple[Path, list[dict[str, Any]]], rule: str, text: str) -> None:
    path, rows = corpus
    write_rows(path, [*rows[:4], rows[4] | {"text": text}, *rows[5:]])
    rules = found_rules(audit(path))
    assert rule in rules["utt004"]
    assert all(rule not in names for name, names in rules.items() if name not in ("utt004", ""))


def test_errors_of_sound(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, _ = corpus
    clips = path.parent / "clips"
    bad = speech_like(2.5)
    bad[7] = np.nan
    sf.write(clips / "utt000.wav", bad, HZ, subtype="FLOAT")
    sf.write(clips / "utt001.wav", np.zeros(2 * HZ), HZ)
    sf.write(clips / "utt002.wav", np.zeros((2 * HZ, 3)) + speech_like(2.0)[:, None], HZ)
    sf.write(clips / "utt003.wav", speech_like(45.0), HZ)
    whole = (clips / "utt004.wav").read_bytes()
    (clips / "utt004.wav").write_bytes(whole[: len(whole) * 3 // 4])
    problems = [str(problem) for problem in refused(path)]
    for line, message in enumerate(
        ["1 NaN or infinite", "0.00 s", "3 channels", "45.0 s", "cut off"], start=1
    ):
        assert any(p.startswith(f"train_raw.jsonl:{line}:") and message in p for p in problems)


def test_a_stereo_clip_and_a_rather_long_one_are_warnings(
    corpus: tuple[Path, list[dict[str, Any]]],
) -> None:
    path, _ = corpus
    clips = path.parent / "clips"
    two = np.stack([speech_like(2.5, seed=1), speech_like(2.5, seed=1)], axis=1)
    sf.write(clips / "utt001.wav", two, HZ)
    sf.write(clips / "utt002.wav", speech_like(22.0, seed=2), HZ)
    rules = found_rules(audit(path))
    assert "channels" in rules["utt001"]
    assert "too_long" in rules["utt002"]


def test_text_that_cannot_fit_the_clip(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = corpus
    write_rows(path, [rows[0] | {"text": "word and word " * 40}, *rows[1:]])
    assert "characters/s" in str(refused(path)[0])


def test_speech_of_a_telephone_and_several_languages_are_warned_of(
    corpus: tuple[Path, list[dict[str, Any]]],
) -> None:
    path, rows = corpus
    clip = path.parent / "clips" / "utt002.wav"
    wide, _ = sf.read(clip, dtype="float32")
    narrow = resample(resample(wide, HZ, 8000), 8000, HZ)
    sf.write(clip, narrow, HZ)
    named = [row | {"language": ("thai", "lao", "Thai")[n % 3]} for n, row in enumerate(rows)]
    write_rows(path, named)
    found = found_rules(audit(path))
    assert [name for name, rules in found.items() if "narrow_band" in rules] == ["utt002"]
    assert "languages" in found[""]
    write_rows(path, [row | {"language": "thai"} for row in rows])
    assert "languages" not in found_rules(audit(path)).get("", [])


def test_wrong_extension(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, _ = corpus
    clip = path.parent / "clips" / "utt003.wav"
    clip.unlink()
    sf.write(clip, speech_like(2.5, seed=3), HZ, format="FLAC")
    assert "extension" in found_rules(audit(path))["utt003"]


def test_duplicate_sound(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = corpus
    folder = path.parent
    samples, _ = sf.read(folder / "clips" / "utt000.wav", dtype="int16")
    sf.write(folder / "copy.flac", samples, HZ)
    copy = {"audio": "copy.flac", "text": rows[0]["text"].upper(), "ref_audio": "ref.wav"}
    write_rows(path, [*rows, copy])
    result = audit(path)
    assert found_rules(result)["copy"] == ["duplicate_audio"]
    splits = {u.id: u.split for u in result.utterances}
    assert splits["copy"] == splits["utt000"], "no text is in two splits"
    write_rows(path, [*rows, copy | {"text": "Something else entirely."}])
    first, problem = refused(path)
    assert "the same sound as copy" in first.found, "nobody knows which of the two is right"
    assert "the same sound as utt000 (train_raw.jsonl:1) with another text" in problem.found


def test_reference(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = corpus
    folder = path.parent
    write_clip(folder / "ref.wav", 2.0)
    assert "a reference of 3 to 10 s" in str(refused(path)[0])
    write_clip(folder / "ref.wav", 11.0)
    assert "11.00 s" in str(refused(path)[0])
    sf.write(folder / "ref.wav", np.zeros(5 * HZ), HZ)
    assert "in the reference ref.wav" in str(refused(path)[0])
    sf.write(folder / "ref.wav", speech_like(5.0, 8000), 8000)
    assert "8000 Hz" in str(refused(path)[0])
    write_clip(folder / "ref.wav", 4.0, seed=3)
    write_clip(folder / "clips" / "utt003.wav", 4.0, seed=3)
    write_rows(path, rows)
    assert "ref_among_clips" in found_rules(audit(path))[""]


def test_total_length(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, _ = corpus
    (problem,) = refused(path, AuditParams())
    assert problem.where == "train_raw.jsonl"
    assert "at least 5 min" in problem.expected
    assert "0.50 min in 12 readable clips" in problem.found
    limits = LIMITS.model_copy(update={"recommended_total_minutes": (1.0, 2.0)})
    assert "total_minutes" in found_rules(audit(path, limits))[""]


def test_a_split_without_texts_is_an_error(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = corpus
    write_rows(path, [row | {"text": "One and the same text."} for row in rows])
    problems = [str(problem) for problem in refused(path)]
    assert len(problems) == 2
    assert all("at least one text in the" in problem for problem in problems)


def test_what_whisper_hears(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = corpus
    asked: list[tuple[list[Path], list[str]]] = []

    def transcribe(paths: list[Path], texts: list[str]) -> list[str | None]:
        asked.append((paths, texts))
        heard: list[str | None] = [text.upper().rstrip(".") for text in texts]
        heard[1], heard[2], heard[3] = "nothing of the sort at all", None, ""
        return heard

    result = audit(path, transcribe=transcribe)
    rules = found_rules(result)
    assert [name for name in rules if "disagreement" in rules[name]] == [
        "utt001", "utt002", "utt003",
    ]  # fmt: skip
    assert result.clips[0].disagreement == 0.0
    assert result.clips[2].disagreement is None
    assert result.clips[3].disagreement == 1.0
    assert result.metrics["transcription"]["n"] == 11
    assert result.metrics["transcription"]["num_disagreeing"] == 3
    assert asked[0][1] == [row["text"] for row in rows]
    assert audit(path).metrics["transcription"] is None


def test_single_rows_with_errors_are_left_out_and_listed(
    corpus: tuple[Path, list[dict[str, Any]]],
) -> None:
    path, rows = corpus
    write_clip(path.parent / "short.wav", 0.5, seed=78)
    short = rows[2] | {"audio": "short.wav", "text": "A word."}
    whole = audit(path).metrics
    write_rows(path, ["{", rows[0] | {"text": ""}, *rows[1:], short, rows[0] | {"mood": "x"}])
    drop = LIMITS.model_copy(update={"on_error": "drop"})
    result = audit(path, limits=drop)
    found = result.metrics
    assert found["num_rows"] == len(rows) + 3 == found["num_accepted"] + found["num_dropped"]
    assert [item["where"].rpartition(":")[2] for item in found["dropped"]] == [
        "1", "2", str(len(rows) + 2), str(len(rows) + 3),
    ]  # fmt: skip
    assert "4 of" in result.sentence and "left out" in result.sentence
    assert "dropped" not in whole, "the records of a corpus without errors keep their keys"
    # More than half of the rows is no matter of single rows.
    write_rows(path, [*rows[:4], *[row | {"text": ""} for row in rows[4:]]])
    with pytest.raises(UserError, match="8 rows have errors"):
        audit(path, limits=drop)


def test_whisper_is_not_asked_while_there_are_errors(
    corpus: tuple[Path, list[dict[str, Any]]],
) -> None:
    path, rows = corpus
    write_rows(path, [*rows, "{"])

    def transcribe(paths: list[Path], texts: list[str]) -> list[str]:
        raise AssertionError("asked")

    with pytest.raises(UserError):
        audit(path, transcribe=transcribe)


def test_disagreement_may_exceed_one() -> None:
    assert disagreement("abc", "abc") == 0.0
    assert disagreement("abc", "abd") == pytest.approx(1 / 3)
    assert disagreement("abc", "") == 1.0
    assert disagreement("ab", "abcdefgh") == 3.0


def test_empty_and_absent_manifests(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    for name in ("empty.jsonl", "none.jsonl"):
        with pytest.raises(UserError):
            audit(tmp_path / name)


def test_notes_of_the_reader_are_warnings(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, _ = corpus
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert found_rules(audit(path))["utt000"] == ["format", "format"]


def test_a_stranger_and_two_names_of_one_voice_are_told(
    corpus: tuple[Path, list[dict[str, Any]]],
) -> None:
    path, rows = corpus
    rng = np.random.default_rng(0)
    voices = np.linalg.qr(rng.normal(size=(256, 2)))[0].T
    write_rows(path, rows)

    def audited(embeddings: dict[str, int]) -> AuditResult:
        def embed(clips: list[Path]) -> tuple[np.ndarray, np.ndarray]:
            made = [voices[embeddings.get(clip.name, 0)] for clip in clips]
            noise = 0.02 * rng.normal(size=(len(clips), 256))
            vectors = np.array(made) + noise
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            return vectors.astype(np.float32), np.full(len(clips), 2.0)

        found, problems = read_raw_manifest(path)
        return audit_corpus(found, LIMITS, SPLIT, path, problems, embed=embed)

    names = [Path(str(row["audio"])).name for row in rows]
    result = audited({names[3]: 1})
    flagged = [clip.row.line for clip, finding in result.warnings
               if finding.rule == "other_voice" and clip]  # fmt: skip
    assert flagged == [4]
    assert result.metrics["voices"]["num_other_voice"] == 1
    assert result.metrics["voices"]["n"] == len(rows)
    assert json.loads(json.dumps(result.clips[3].as_dict()))["voice_similarity"] < 0.5
    result = audited({"ref.wav": 1})
    assert [found.rule for found in result.corpus if "voice" in found.rule] == ["ref_other_voice"]


def test_a_clip_that_ends_within_a_sound_is_told(
    corpus: tuple[Path, list[dict[str, Any]]],
) -> None:
    path, rows = corpus
    clip = path.parent / str(rows[2]["audio"])
    samples, rate_hz = sf.read(clip)
    loud = np.flatnonzero(np.abs(samples) > 0.5 * np.abs(samples).max())[-1]
    sf.write(clip, samples[:loud], rate_hz)
    other = path.parent / str(rows[5]["audio"])
    samples, rate_hz = sf.read(other)
    sounding = np.flatnonzero(np.abs(samples) > 0.02)[-1]
    faded = samples[:sounding].copy()
    faded[-rate_hz // 20 :] *= np.linspace(1.0, 0.0, len(faded[-rate_hz // 20 :])) ** 2
    sf.write(other, faded, rate_hz)
    assert {line for line, finding in _of_rule(audit(path), "cut_off")} == {3}

    def transcribe(paths: list[Path], texts: list[str]) -> list[str | None]:
        return [text[:-3] for text in texts]

    found = _of_rule(audit(path, transcribe=transcribe), "cut_off")
    assert {line for line, finding in found} == {3, 6}
    assert "the last that is heard" in dict(found)[6].message


def _of_rule(result: AuditResult, rule: str) -> list[tuple[int, Finding]]:
    return [
        (clip.row.line, found) for clip, found in result.warnings if clip and found.rule == rule
    ]
