"""The audit: each rule on a corpus with one fault, and the table of everything that stops it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from corpus import make_corpus, sentence, speech_like, write_clip, write_rows
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.params import AuditParams, SplitParams
from voxadapt.data import audit as audit_module
from voxadapt.data.audio import AudioInfo, Measurements, resample
from voxadapt.data.audit import (
    AuditResult,
    Transcribe,
    audit_clips,
    audit_corpus,
    disagreement,
    loses_its_end,
    write_audit,
)
from voxadapt.data.findings import Finding
from voxadapt.data.manifest import RawRow, read_manifest, read_raw_manifest
from voxadapt.data.one_voice import MIN_SPEECH_S
from voxadapt.data.splits import assign_split
from voxadapt.data.text import fold_text

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_paths_are_relative_to_the_project(
    corpus: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = corpus
    monkeypatch.chdir(path.parent.parent)
    first = audit(Path("corpus/train_raw.jsonl")).utterances[0]
    assert first.audio == "corpus/clips/utt000.wav"
    assert first.ref_audio == "corpus/ref.wav"


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_text_that_cannot_fit_the_clip(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = corpus
    write_rows(path, [rows[0] | {"text": "word and word " * 40}, *rows[1:]])
    assert "characters/s" in str(refused(path)[0])


@pytest.mark.slow
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


@pytest.mark.slow
def test_wrong_extension(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, _ = corpus
    clip = path.parent / "clips" / "utt003.wav"
    clip.unlink()
    sf.write(clip, speech_like(2.5, seed=3), HZ, format="FLAC")
    assert "extension" in found_rules(audit(path))["utt003"]


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_total_length(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, _ = corpus
    (problem,) = refused(path, AuditParams())
    assert problem.where == "train_raw.jsonl"
    assert "at least 5 min" in problem.expected
    assert "0.50 min in 12 readable clips" in problem.found
    limits = LIMITS.model_copy(update={"recommended_total_minutes": (1.0, 2.0)})
    assert "total_minutes" in found_rules(audit(path, limits))[""]


@pytest.mark.slow
def test_a_split_without_texts_is_an_error(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = corpus
    write_rows(path, [row | {"text": "One and the same text."} for row in rows])
    problems = [str(problem) for problem in refused(path)]
    assert len(problems) == 2
    assert all("at least one text in the" in problem for problem in problems)


@pytest.mark.slow
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
    assert result.metrics["transcription"]["num_disagreeing"] == 2
    assert asked[0][1] == [row["text"] for row in rows]
    assert audit(path).metrics["transcription"] is None


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_notes_of_the_reader_are_warnings(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    path, _ = corpus
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert found_rules(audit(path))["utt000"] == ["format", "format"]


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("text", "heard", "loses"),
    [
        ("where is our green basket", "where is our green bas", True),
        ("where is our green basket", "were is hour green", True),  # misheard before
        ("where is our green basket", "where is our green basket", False),
        ("where is our green basket", "where is our green hat", False),  # another word
        ("where is our green basket", "", False),
        ("where is our green basket", "green", False),
        ("ja", "j", False),
        ("今天天气很好", "今天天气", True),
    ],
)
def test_a_transcript_may_lack_the_end(text: str, heard: str, loses: bool) -> None:
    assert loses_its_end(replace(FINE, trail_silence_s=0.0), text, heard) == loses
    assert not loses_its_end(FINE, text, heard), "it ends with silence"


def _of_rule(result: AuditResult, rule: str) -> list[tuple[int, Finding]]:
    return [
        (clip.row.line, found) for clip, found in result.warnings if clip and found.rule == rule
    ]


# --- each limit: a clip is what it is said to be -------------------------------------------------

FINE = Measurements(
    peak=0.5, clipped_share=0.0, snr_db=40.0, lead_silence_s=0.1, trail_silence_s=0.1,
    max_internal_silence_s=0.1, speech_s=2.0, dc_offset=0.0, num_bad_samples=0, end_db=-40.0,
)  # fmt: skip
INFO = AudioInfo(24000, 1, 72000, "WAV", False)
RULE = AuditParams()
TEXT = "a plain text of words"  # 17 letters


class Said:
    """Audits rows whose sound is what the test says instead of a file's."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.info, self.measured, self.band_db = {}, {}, {}
        patch.setattr(audit_module, "probe", lambda path: self.info.get(path.stem, INFO))
        patch.setattr(audit_module, "decode", self._decode)
        patch.setattr(
            audit_module, "measure", lambda samples, hz: self._of(self.measured, samples, FINE)
        )
        patch.setattr(
            audit_module, "narrow_band_db", lambda mono, hz: self._of(self.band_db, mono, -30.0)
        )
        patch.setattr(audit_module, "sha256_file", lambda path: "0" * 64)
        self.names: list[str] = []
        self.decoded = 0

    def _decode(self, path: Path) -> tuple[np.ndarray, int]:
        self.decoded += 1
        self.names.append(path.stem)
        samples = np.full((self.info.get(path.stem, INFO).num_samples, 1), 0.0, np.float32)
        samples[0] = len(self.names) / 1000  # no two clips sound the same
        return samples, 24000

    def _of(self, said: dict[str, Any], samples: np.ndarray, usual: Any) -> Any:
        number = round(float(np.ravel(samples)[0]) * 1000)
        return said.get(self.names[number - 1], usual)

    def rules(self, *rows: RawRow, limits: AuditParams = RULE) -> list[list[tuple[str, str]]]:
        """Return each row's findings, with their severity."""
        clips = audit_clips(rows or (make_raw("clip"),), limits, SplitParams())
        return [[(found.rule, found.severity) for found in clip.findings] for clip in clips]


def make_raw(
    name: str, line: int = 1, text: str = TEXT, suffix: str = "wav", **fields: Any
) -> RawRow:
    path = Path(f"{name}.{suffix}")
    return RawRow(f"rows.jsonl:{line}", line, name, path.name, text, "ref.wav", None, path,
                  Path("ref.wav"), **fields)  # fmt: skip


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    return Said(monkeypatch)


def test_what_is_fine_is_fine(said: Said) -> None:
    assert said.rules() == [[]]


def test_a_clips_row_is_rounded_to_a_millionth(said: Said) -> None:
    said.info["clip"] = replace(INFO, num_samples=72001)
    said.measured["clip"] = replace(FINE, speech_s=1.7, snr_db=30.12345678)
    [clip] = audit_clips([make_raw("clip", consent="Yes.", speaker="Bo")], RULE, SplitParams())
    row = clip.as_dict()
    assert row["duration_s"] == 3.000042 and row["snr_db"] == 30.123457
    assert row["characters_per_s"] == 10.0 and row["sample_rate_hz"] == 24000
    assert (row["num_channels"], row["container"], row["line"]) == (1, "WAV", 1)
    assert row["hypothesis"] is row["disagreement"] is row["voice_similarity"] is None
    assert row["consent"] == "Yes." and row["speaker"] == "Bo"
    [plain] = audit_clips([make_raw("clip")], RULE, SplitParams())
    assert not {"consent", "speaker"} & set(plain.as_dict())


@pytest.mark.parametrize(
    ("field", "limit", "side", "rule", "severity"),
    [
        ("clipped_share", RULE.max_clipped_share, 1, "clipping", "warning"),
        ("snr_db", RULE.min_snr_db, -1, "noise", "warning"),
        ("lead_silence_s", RULE.max_edge_silence_s, 1, "lead_silence", "warning"),
        ("trail_silence_s", RULE.max_edge_silence_s, 1, "trail_silence", "warning"),
        ("end_db", -12.0, 1, "cut_off", "warning"),
        ("dc_offset", 0.02, 1, "dc_offset", "warning"),
        ("dc_offset", -0.02, -1, "dc_offset", "warning"),
        ("num_bad_samples", 0, 1, "bad_samples", "error"),
    ],
)
def test_a_sound_at_its_limit_is_fine_and_one_beyond_is_told(
    said: Said, field: str, limit: float, side: int, rule: str, severity: str
) -> None:
    for value, expected in ((limit, []), (limit + side * 1e-4, [(rule, severity)])):
        said.measured["clip"] = replace(FINE, **{field: value})
        assert said.rules() == [expected]


def test_a_clip_with_too_little_speech_is_silent_and_no_more_is_said(said: Said) -> None:
    said.measured["clip"] = replace(FINE, speech_s=0.3, snr_db=-5.0)
    assert said.rules(make_raw("clip", text="a b")) == [[("noise", "warning")]]
    said.band_db["clip"] = -90.0
    found = said.rules(make_raw("clip", text="a b"))
    assert found == [[("noise", "warning"), ("narrow_band", "warning")]]
    said.measured["clip"] = replace(FINE, speech_s=0.299, snr_db=-5.0)
    said.band_db["clip"] = -90.0
    assert said.rules() == [[("silent", "error")]]
    said.measured["clip"] = replace(FINE, speech_s=0.0)
    assert said.rules() == [[("silent", "error")]], "nothing is divided by no speech"


@pytest.mark.parametrize(("speech_s", "told"), [(0.5, False), (0.499, True)])
def test_nobody_says_more_than_sixty_letters_a_second(
    said: Said, speech_s: float, told: bool
) -> None:
    said.measured["clip"] = replace(FINE, speech_s=speech_s)
    found = said.rules(make_raw("clip", text="abcde " * 6))
    assert found == [[("impossible_rate", "error")] if told else []]


@pytest.mark.parametrize(("band_db", "told"), [(-60.0, False), (-60.1, True), (None, False)])
def test_speech_without_a_high_band_is_told(said: Said, band_db: float | None, told: bool) -> None:
    said.band_db["clip"] = band_db
    assert said.rules() == [[("narrow_band", "warning")] if told else []]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"num_samples": 24001}, []),
        ({"num_samples": 24000}, [("too_short", "error")]),
        ({"num_samples": 20 * 24000}, []),
        ({"num_samples": 20 * 24000 + 1}, [("too_long", "warning")]),
        ({"num_samples": 40 * 24000}, [("too_long", "warning")]),
        ({"num_samples": 40 * 24000 + 1}, [("too_long", "error")]),
        ({"sample_rate_hz": 16000}, []),
        ({"sample_rate_hz": 15999}, [("sample_rate", "error")]),
        ({"num_channels": 2}, [("channels", "warning")]),
        ({"num_channels": 3}, [("channels", "error")]),
        ({"is_truncated": True}, [("unreadable", "error")]),
        ({"container": "WAVEX"}, []),
        ({"container": "FLAC"}, [("extension", "warning")]),
    ],
)
def test_a_header_at_its_limit_is_fine(
    said: Said, fields: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    said.info["clip"] = replace(INFO, **fields)
    assert said.rules() == [found]
    assert said.decoded == (fields.get("num_samples") != 40 * 24000 + 1), "hours are not decoded"


def test_what_fills_the_memory_is_not_decoded(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "MAX_SAMPLES", 144_000)
    said.info["clip"] = replace(INFO, num_channels=2)
    assert said.rules() == [[("channels", "warning")]] and said.decoded == 1
    said.info["clip"] = replace(INFO, num_channels=2, num_samples=72_001)
    assert said.rules() == [[("channels", "warning"), ("too_large", "error")]]
    assert said.decoded == 1


def test_a_file_of_another_suffix_is_of_any_container(said: Said) -> None:
    said.info["clip"] = replace(INFO, container="CAF")
    assert said.rules(make_raw("clip", suffix="caf")) == [[]]
    assert said.rules(make_raw("clip", suffix="MP3"))[0][0][0] == "extension"


@pytest.mark.parametrize(
    ("count", "away", "told"), [(8, 5.0, True), (8, 3.5, False), (7, 5.0, False)]
)
def test_a_rate_is_far_from_the_median_by_scaled_deviations(
    said: Said, count: int, away: float, told: bool
) -> None:
    """Rates whose logarithms lie evenly; the last one is so many scaled MADs away."""
    logs = np.linspace(-0.2, 0.2, count - 1)
    every = np.append(logs, 0.2)  # where the outlier counts as a large one
    spread = 1.4826 * np.median(np.abs(every - np.median(every)))
    for side in (1, -1):
        last = side * np.median(every) + side * away * spread
        for number, log in enumerate([*(side * logs), last]):
            said.measured[f"c{number}"] = replace(FINE, speech_s=2.0 / np.exp(log))
        rows = [make_raw(f"c{n}", n + 1, f"{TEXT} {'abcdefghi'[n]}") for n in range(count)]
        found = said.rules(*rows)
        assert found == [[]] * (count - 1) + [[("speech_rate", "warning")] if told else []]


def test_equal_rates_are_no_outliers_of_each_other(said: Said) -> None:
    rows = [make_raw(f"c{n}", n + 1, f"{TEXT} {'abcdefghi'[n]}") for n in range(8)]
    said.measured["c0"] = replace(FINE, speech_s=2.0 * np.exp(3.9 * 0.02))
    assert said.rules(*rows) == [[]] * 8
    said.measured["c0"] = replace(FINE, speech_s=2.0 * np.exp(4.1 * 0.02))
    assert said.rules(*rows) == [[("speech_rate", "warning")], *[[]] * 7]


def test_the_same_text_again_is_told_of_one_speaker(said: Said) -> None:
    rows = [make_raw("a", 1), make_raw("b", 2, TEXT.upper() + "!"), make_raw("c", 3, speaker="Bo")]
    assert said.rules(*rows) == [[], [("duplicate_text", "warning")], []]


WORDS = "one two three four five six seven eight nine ten eleven twelve more few no all"
HELD_OUT_TEXTS = [f"a plain text of {word} words" for word in WORDS.split()]


@pytest.mark.parametrize(("speaker", "told"), [("Bo", True), (None, False)])
def test_a_named_speaker_has_three_clips_to_be_measured_by(
    said: Said, speaker: str | None, told: bool
) -> None:
    """Another speaker has all that the corpus needs."""
    texts = {split: [t for t in HELD_OUT_TEXTS if assign_split(fold_text(t), SPLIT) == split]
             for split in ("train", "selection", "confirmation")}  # fmt: skip
    assert all(len(found) > 1 for found in texts.values())
    others = [make_raw(f"o{n}", n + 1, t, speaker="Aria") for n, t in enumerate(HELD_OUT_TEXTS)]
    held = [*texts["selection"], *texts["confirmation"]]
    for count in (2, 3):
        own = [make_raw(f"b{n}", 50 + n, t, speaker=speaker)
               for n, t in enumerate([*texts["train"], *held[:count]])]  # fmt: skip
        limits = AuditParams(min_total_minutes=0.1, on_error="stop")
        if told and count < 3:
            with pytest.raises(UserError, match="speaker Bo"):
                audit_corpus([*others, *own], limits, SPLIT, "rows.jsonl")
        else:
            result = audit_corpus([*others, *own], limits, SPLIT, "rows.jsonl")
            assert "held_out" not in [found.rule for found in result.corpus]
    if told:
        with pytest.raises(UserError, match="speaker Bo"):
            audit_corpus([*others, own[0]], limits, SPLIT, "rows.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("minutes", "told"),
    [(4.99, "error"), (5.0, "few"), (9.99, "few"), (10.0, None), (30.0, None), (30.05, "many")],
)
def test_the_total_length_at_its_limits(said: Said, minutes: float, told: str | None) -> None:
    count = len(HELD_OUT_TEXTS)
    long = AuditParams(clip_duration_s=(1.0, 500.0))
    each = replace(INFO, sample_rate_hz=16000, num_samples=round(minutes * 60 * 16000 / count))
    said.info |= {f"o{n}": each for n in range(count)} | {"ref": replace(INFO, num_samples=96000)}
    rows = [make_raw(f"o{n}", n + 1, text) for n, text in enumerate(HELD_OUT_TEXTS)]
    if told == "error":
        with pytest.raises(UserError, match="min"):
            audit_corpus(rows, long, SPLIT, "rows.jsonl")
        return
    rules = [found for found in audit_corpus(rows, long, SPLIT, "rows.jsonl").corpus
             if found.rule == "total_minutes"]  # fmt: skip
    assert [found.limit for found in rules] == {"few": [10.0], "many": [30.0], None: []}[told]


@pytest.mark.parametrize(
    ("seconds", "limit"), [(3.0, None), (10.0, None), (2.99, 3.0), (10.01, 10.0)]
)
def test_the_references_length_at_its_limits(
    said: Said, seconds: float, limit: float | None
) -> None:
    said.info["ref"] = replace(INFO, num_samples=round(seconds * 24000))
    rows = [make_raw(f"o{n}", n + 1, text) for n, text in enumerate(HELD_OUT_TEXTS)]
    limits = AuditParams(min_total_minutes=0.1, recommended_total_minutes=(0.1, 9.0))
    if limit is not None:
        with pytest.raises(UserError) as caught:
            audit_corpus(rows, limits, SPLIT, "rows.jsonl")
        assert f"{limit:g}" in str(caught.value)
    else:
        assert "ref_duration" not in [f.rule for f in audit_corpus(rows, limits, SPLIT, "r").corpus]


@pytest.mark.parametrize(("num_bad", "kept"), [(8, True), (9, False)])
def test_up_to_half_of_the_rows_are_left_out(said: Said, num_bad: int, kept: bool) -> None:
    texts = sorted(HELD_OUT_TEXTS, key=lambda text: assign_split(fold_text(text), SPLIT))
    order = [*texts[::2], *texts[1::2]]  # each half has texts of every split
    rows = [make_raw(f"o{n}", n + 1, text) for n, text in enumerate(order)]
    for n in range(num_bad):
        said.measured[f"o{n}"] = replace(FINE, num_bad_samples=1)
    limits = AuditParams(min_total_minutes=0.1, recommended_total_minutes=(0.1, 9.0))
    if kept:
        result = audit_corpus(rows, limits, SPLIT, "rows.jsonl")
        assert len(result.clips) == 8 and len(result.dropped) == 8
        assert "8 of 16 rows left out" in result.sentence
    else:
        with pytest.raises(UserError, match="9 rows have errors"):
            audit_corpus(rows, limits, SPLIT, "rows.jsonl")


def test_a_clip_in_another_speakers_voice_names_that_speaker(said: Said) -> None:
    """One of Aria's clips is in Bo's voice and one in a stranger's; Bo's reference is Aria's."""
    aria, bo, stranger = np.eye(3, 256)
    names = [f"a{n}" for n in range(10)] + [f"b{n}" for n in range(10)]
    voices = {name: aria if name[0] == "a" else bo for name in names}
    voices |= {"a3": 0.2 * aria + bo, "a7": 0.3 * aria + stranger, "ref": aria}

    def embed(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        vectors = np.array([voices[path.stem] for path in paths])
        vectors = vectors + 0.01 * rng.normal(size=vectors.shape) / np.sqrt(256)
        seconds = [{"a9": 0.9, "a8": MIN_SPEECH_S}.get(path.stem, 2.0) for path in paths]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.array(seconds)

    words = "one two three four five six seven eight nine ten".split()
    rows = [
        make_raw(name, n + 1, f"a plain text of {words[n % 10]} words", speaker=speaker)
        for n, name in enumerate(names)
        for speaker in [{"a": "Aria", "b": "Bo"}[name[0]]]
    ]
    limits = AuditParams(min_total_minutes=0.1, recommended_total_minutes=(0.1, 9.0))
    result = audit_corpus(rows, limits, SPLIT, "rows.jsonl", embed=embed)
    told = {clip.row.id: found for clip, found in result.warnings if clip and "voice" in found.rule}
    assert set(told) == {"a3", "a7"}
    assert "0.98 to the speaker Bo" in told["a3"].found and "Bo" not in told["a7"].found
    assert result.sentence.startswith("20 clips of 2 speakers accepted")
    unmeasured = [clip.row.id for clip in result.clips if clip.voice_similarity is None]
    assert unmeasured == ["a9"], "it has too little speech"
    of_corpus = {found.rule: found for found in result.corpus}
    assert "ref_other_voice" in of_corpus and "speakers_alike" not in of_corpus
    voices |= dict.fromkeys([name for name in names if name[0] == "b"], 0.95 * aria + 0.3 * bo)
    again = audit_corpus(rows, limits, SPLIT, "rows.jsonl", embed=embed)
    [alike] = [found for found in again.corpus if found.rule == "speakers_alike"]
    assert "Aria" in alike.message and "Bo" in alike.message


def test_an_audit_is_summed_up(said: Said) -> None:
    rows = [make_raw(f"o{n}", n + 1, text) for n, text in enumerate(HELD_OUT_TEXTS)]
    for n in range(16):
        said.info[f"o{n}"] = replace(INFO, num_samples=24000 * (2 + n % 4) + 1)
        said.measured[f"o{n}"] = replace(FINE, snr_db=30.0 + n, speech_s=1.0 + 0.1 * n)
    said.measured["o1"] = replace(FINE, dc_offset=0.5)

    def transcribe(paths: list[Path], texts: list[str]) -> list[str | None]:
        return [None, "", *[text if n else text[:-1] for n, text in enumerate(texts[2:])]]

    limits = AuditParams(min_total_minutes=0.1, recommended_total_minutes=(0.1, 9.0))
    wide = limits.model_copy(update={"rate_outlier_mads": 99.0})
    result = audit_corpus(rows, wide, SPLIT, "rows.jsonl", transcribe=transcribe)
    found = result.metrics
    assert found["num_rows"] == found["num_accepted"] == 16
    assert found["minutes"] == round(16 * 3.5 / 60, 4) and found["median_duration_s"] == 3.5
    assert sum(part["clips"] for part in found["splits"].values()) == 16
    assert found["transcription"]["n"] == 15, "one was not heard at all"
    assert found["transcription"]["num_disagreeing"] == 1
    lost = 1 / len(fold_text(HELD_OUT_TEXTS[2]))
    assert found["transcription"]["mean_cer"] == pytest.approx((1.0 + lost) / 15, abs=1e-6)
    assert found["num_clips_with_warnings"] == 2, "dc offset and nothing heard; disagreement"
    rates = [len(fold_text(text).replace(" ", "")) / said.measured[f"o{n}"].speech_s
             for n, text in enumerate(HELD_OUT_TEXTS)]  # fmt: skip
    assert found["median_characters_per_s"] == pytest.approx(np.median(rates), abs=1e-4)
    assert found["sample_rates_hz"] == {"24000": 16} and found["script"] == "LATIN"
    assert found["num_warnings"] == len(result.warnings) and found["voices"] is None
    assert "16 clips accepted (0.9 min:" in result.sentence


@pytest.mark.parametrize(("max_error", "deaf"), [(0.49, True), (0.51, False)])
def test_a_recogniser_that_hears_nothing_is_the_warning(
    said: Said, max_error: float, deaf: bool
) -> None:
    rows = [make_raw(f"o{n}", n + 1, text) for n, text in enumerate(HELD_OUT_TEXTS)]
    limits = AuditParams(min_total_minutes=0.1, recommended_total_minutes=(0.1, 9.0))

    def transcribe(paths: list[Path], texts: list[str]) -> list[str | None]:
        return [text if n % 2 else 9 * text for n, text in enumerate(texts)]  # an error counts once

    result = audit_corpus(rows, limits, SPLIT, "r", transcribe=transcribe, max_error=max_error)
    rules = [found.rule for clip, found in result.warnings]
    assert ("recogniser" in rules) == deaf
    assert rules.count("disagreement") == (0 if deaf else 8)
