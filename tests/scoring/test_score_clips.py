"""Clips to rows to a summary: everything measured, nothing dropped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from benchmarks.scale import Ears, Voices

from rows import make_system
from sounds import RATE_HZ, make_voice, make_whisper, silence, write
from voxadapt.asr.transcript import Transcript
from voxadapt.asr.voice_prints import Embedder, VoicePrint
from voxadapt.asr.whisper import Transcriber
from voxadapt.core.errors import UserError
from voxadapt.core.params import ScoreParams, SelectParams
from voxadapt.scoring import score_clips as score_clips_module
from voxadapt.scoring.flags import FLAGS
from voxadapt.scoring.rows import EvalClip, ScoreRow, read_scores, write_rows
from voxadapt.scoring.score_clips import _load, metrics_row, retranscribe, score_clips, summarise
from voxadapt.scoring.similarity import SimilarityScale, VoiceReference, build_scale

PARAMS = ScoreParams(min_speech_s=0.5)
SELECT = SelectParams(num_bootstrap=300)
TEXT = "the quick brown fox jumps over the lazy dog"


def make_clip(name: str, wav: str, candidate: str = "epoch-1", **fields: Any) -> EvalClip:
    values = {"candidate": candidate, "split": "selection", "text_id": name, "lang": "en"}
    return EvalClip(**{**values, "text": TEXT, "wav": wav, **fields})


Bench = tuple[Path, Transcriber, Embedder, VoiceReference, SimilarityScale]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("project")
    real = []
    for index in range(4):
        write(root / f"real{index}.wav", make_voice(2.5, 120 + index, index))
        real.append(make_clip(f"real{index}", f"real{index}.wav", "real"))
    other = write(root / "other.wav", make_voice(2.5, 250, 90))
    embedder = Embedder()
    reference, scale, _ = build_scale(
        embedder, real, {"o": [other]}, SELECT, root=root, min_speech_s=0.5
    )
    write(root / "silent.wav", silence(2.5))
    write(root / "slow.wav", np.concatenate([make_voice(6.0, 120)]))
    (root / "broken.wav").write_bytes(b"RIFFnothing")
    transcriber = Transcriber(make_whisper(root / "tiny.pt"), "en", cache_dir=root / "cache")
    return root, transcriber, embedder, reference, scale


def score(bench: Bench, clips: list[EvalClip]) -> list[ScoreRow]:
    root, transcriber, embedder, reference, scale = bench
    return score_clips(clips, transcriber, embedder, reference, scale, PARAMS, root=root)


@pytest.mark.slow
def test_every_clip_gets_a_row(bench: Bench, tmp_path: Path) -> None:
    clips = [
        make_clip("good", "real1.wav", num_frames=31),
        make_clip("silent", "silent.wav"),
        make_clip("slow", "slow.wav", hit_max_tokens=True),
        make_clip("broken", "broken.wav"),
        make_clip("absent", "nowhere.wav"),
        make_clip("never", "", status="failed", message="generation failed: out of luck"),
    ]
    rows = score(bench, clips)
    by_id = {row.text_id: row for row in rows}
    assert len(rows) == len(clips)
    good, silent = by_id["good"], by_id["silent"]
    assert good.status == "ok" and good.num_frames == 31 and len(good.wav_sha256) == 64
    assert good.dur_ratio == pytest.approx(1.0, abs=0.15)
    assert good.sim is not None and good.sim > 0.8 and good.sim_ref_n == 4
    assert good.ref_words == 9 and good.words.reference_units == 9
    assert silent.sim is None and {"too_little_speech", "rate_low"} <= set(silent.flags)
    assert silent.failed
    assert {"hit_max_tokens", "rate_high", "long_clip"} <= set(by_id["slow"].flags)
    for name in ("broken", "absent", "never"):
        assert by_id[name].status == "failed" and by_id[name].wer == by_id[name].cer == 1.0
    assert "out of luck" in by_id["never"].message and "nowhere.wav" in by_id["absent"].message
    write_rows(tmp_path, rows)
    assert read_scores(tmp_path, [(clip.text_id, 0) for clip in clips]) == rows
    assert score(bench, clips[::-1]) == rows

    summary = summarise(rows, SELECT, bench[-1])
    assert (summary["n_expected"], summary["n_measured"], summary["n_failed"]) == (6, 3, 3)
    assert summary["sim_missing"] == 4
    assert summary["failure_rate"]["point"] == pytest.approx(5 / 6, abs=1e-6)
    # Four clips without a voice count as the floor, not as nothing.
    floor = bench[-1].floor.point
    kept = [row.sim for row in rows if row.sim is not None]
    assert summary["sim"]["point"] == pytest.approx((sum(kept) + 4 * floor) / 6, abs=1e-5)  # type: ignore
    assert summary["sim_measured"]["n"] == 2


@pytest.mark.slow
def test_real_clips_are_left_out_of_their_own_reference(bench: Bench) -> None:
    as_real = score(bench, [make_clip("real1", "real1.wav", "real")])[0]
    as_candidate = score(bench, [make_clip("real1", "real1.wav", "base")])[0]
    assert as_real.sim_ref_n == 3 and as_candidate.sim_ref_n == 4
    assert as_real.sim < as_candidate.sim  # type: ignore[operator]
    assert as_real.sim_id == as_candidate.sim_id


@pytest.mark.slow
def test_a_text_without_words_is_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="nothing to be scored"):
        score(bench, [make_clip("empty", "real1.wav", text="?!")])


def test_summary_keeps_the_error_rates_apart() -> None:
    rows = make_system("epoch-1", num_texts=20, takes=2, error=0.1, runaways=2)
    summary = summarise(rows, SELECT)
    assert summary["wer_raw"]["point"] > summary["wer"]["point"] + 0.3
    assert summary["wer"]["low"] <= summary["wer"]["point"] <= summary["wer"]["high"]
    assert summary["takes"] == 2 and summary["num_texts"] == 20
    assert summary["flags"]["hit_max_tokens"] == 4 and set(summary["flags"]) == set(FLAGS)
    assert summary["failure_rate"]["point"] == pytest.approx(0.1)
    assert summary["sim_norm"]["point"] is None and summary["error_metric"] == "wer"
    assert summary["sim_worst_5pct"] == pytest.approx(np.mean(sorted(r.sim for r in rows)[:2]))
    assert summarise(rows[::-1], SELECT) == summary
    wrong = sum(row.wer > 0.5 for row in rows)
    assert summary["mostly_wrong_rate"]["point"] == pytest.approx(wrong / len(rows), abs=1e-6)


def test_slices_are_shown_apart_and_digits_move_nothing() -> None:
    rows = make_system("epoch-1", num_texts=20, takes=2, error=0.1)
    alone = summarise(rows, SELECT)
    failing = {"word_hits": 0, "word_substitutions": 10, "flags": ("rate_high",), "sim": None}
    numbers = [
        row.model_copy(update={"text_id": f"n{row.text_id}", "slice": "digits", **failing})
        for row in rows[:6]
    ]
    numbers[0] = numbers[0].model_copy(update={"status": "failed"})
    both = summarise([*numbers, *rows], SELECT)
    assert set(alone["slices"]) == {"ranked"} and set(both["slices"]) == {"ranked", "digits"}
    assert {k: v for k, v in both.items() if k != "slices"} == {
        k: v for k, v in alone.items() if k != "slices"
    }
    assert both["slices"]["ranked"] == alone["slices"]["ranked"]
    assert both["slices"]["ranked"]["wer"] == both["wer"]
    digits = both["slices"]["digits"]
    assert (digits["num_texts"], digits["n_expected"], digits["n_measured"]) == (3, 6, 5)
    assert digits["wer"]["point"] == 1.0 and digits["failure_rate"]["point"] == 1.0
    with pytest.raises(UserError, match="nothing to rank by"):
        summarise(numbers, SELECT)


@pytest.mark.slow
def test_a_sentence_keeps_its_slice_through_scoring(bench: Bench) -> None:
    rows = score(bench, [
        make_clip("words", "real1.wav"), make_clip("digits", "real1.wav", slice="digits"),
        make_clip("lost", "nowhere.wav", slice="digits"),
    ])  # fmt: skip
    assert {row.text_id: row.slice for row in rows} == {
        "words": "ranked", "digits": "digits", "lost": "digits",
    }  # fmt: skip


@pytest.mark.slow
def test_the_language_decides_how_a_row_is_normalised(bench: Bench) -> None:
    [row] = score(bench, [make_clip("zh", "real1.wav", text="漢語", lang="zh")])
    assert row.text_norm == "汉语" and "/opencc-" in row.norm_id


# --- with a recogniser and an encoder that take no time ------------------------------------------


class Hears(Ears):
    """Hears what it is told; the language stands in its name."""

    def __init__(self, said: dict[str, str], language: str = "en") -> None:
        super().__init__()
        self.said, self.asr_id = said, f"ears/{language}"

    def in_language(self, language: str) -> Transcriber:
        return Hears(self.said, language)

    def transcribe(self, paths: Any, texts: Any, executor: Any = None) -> list[Transcript]:
        return [
            Transcript(self.said.get(Path(path).stem, text), -0.5, 1.2, 0.1, "en", 0.8, 1)
            for path, text in zip(paths, texts, strict=True)
        ]


class OneVoice(Voices):
    """Hears one voice for so many seconds in every clip, and says what it was given."""

    def __init__(self, speech_s: float) -> None:
        super().__init__()
        self.speech_s, self.sizes = speech_s, []

    def embed_speech(self, speeches: Any) -> list[VoicePrint]:
        self.sizes.append(len(speeches))
        return [VoicePrint(np.eye(256, dtype=np.float32)[0], self.speech_s) for _ in speeches]

    def embed_windows(self, speeches: Any) -> list[Any]:
        return [np.eye(256, dtype=np.float32)[:2] for _ in speeches]


@pytest.fixture
def clip_files(tmp_path: Path) -> Path:
    for number in range(3):
        write(tmp_path / f"c{number}.wav", make_voice(1.0, 120, number))
    return tmp_path


AXES = np.eye(256, dtype=np.float32)
VOICE = VoiceReference(("a", "b"), np.stack([AXES[0], AXES[1]]), "stand-in")
OTHER = VoiceReference(("c", "d"), np.stack([AXES[2], AXES[2]]), "stand-in")


@pytest.mark.slow
@pytest.mark.parametrize(("speech_s", "heard"), [(0.5, True), (0.499, False)])
def test_a_voice_is_compared_with_its_own_and_with_each_of_several(
    speech_s: float, heard: bool, clip_files: Path
) -> None:
    clips = [make_clip("a", "c0.wav", "codec"), make_clip("z", "c1.wav")]
    rows = score_clips(
        clips, Hears({}), OneVoice(speech_s), VOICE, None, PARAMS, root=clip_files,
        others={"Aria": VOICE, "Bo": OTHER},
    )  # fmt: skip
    own, other = rows
    assert (own.sim_ref_n, other.sim_ref_n) == (1, 2), "a recording's round trip is left out"
    assert own.window_sims == (0.0, 1.0) and other.window_sims == (0.707, 0.707)
    assert other.dur_ratio is None and other.speech_s == speech_s
    assert ("too_little_speech" in own.flags) == (not heard)
    if heard:
        assert own.sim == 0.0 and other.sim == pytest.approx(0.5**0.5, abs=1e-6)
        assert own.sim_to == {"Aria": 0.0, "Bo": 0.0}
        assert other.sim_to == {"Aria": pytest.approx(0.5**0.5, abs=1e-6), "Bo": 0.0}
    else:
        assert own.sim is own.sim_to is other.sim is None
    [plain] = score_clips(clips[1:], Hears({}), OneVoice(1.0), None, None, PARAMS, root=clip_files)
    assert (plain.sim, plain.sim_ref_n, plain.sim_id) == (None, 0, "none")
    assert plain.window_sims is None


@pytest.mark.slow
def test_groups_are_measured_once_and_kept(
    clip_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_clips_module, "CLIPS_AT_ONCE", 2)
    clips = [make_clip(f"t{n}", f"c{n % 3}.wav") for n in range(5)]
    clips[3] = clips[3].model_copy(update={"status": "failed", "message": "lost"})
    voices = OneVoice(1.0)

    def scored() -> list[ScoreRow]:
        return score_clips(clips, Hears({}), voices, VOICE, None, PARAMS, root=clip_files,
                           work_dir=tmp_path / "kept")  # fmt: skip

    first = scored()
    assert voices.sizes == [2, 2] and scored() == first
    assert voices.sizes == [2, 2], "nothing was embedded again"
    files = sorted((tmp_path / "kept").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-9])
    assert scored() == first and voices.sizes == [2, 2, 2]


@pytest.mark.slow
def test_errors_are_those_of_what_was_heard(clip_files: Path) -> None:
    said = {"c0": "the quick brown fox jumps over the lazy cat", "c1": ""}
    clips = [make_clip(f"t{n}", f"c{n}.wav") for n in range(3)]
    rows = score_clips(clips, Hears(said), OneVoice(1.0), None, None, PARAMS, root=clip_files)
    words = [(r.word_hits, r.word_substitutions, r.word_deletions, r.word_insertions) for r in rows]
    assert words == [(8, 1, 0, 0), (0, 0, 9, 0), (9, 0, 0, 0)]
    assert [row.ref_words for row in rows] == [9] * 3 and rows[0].ref_chars == 35
    assert (rows[0].avg_logprob, rows[0].compression_ratio, rows[0].lid_p) == (-0.5, 1.2, 0.8)
    assert "empty_transcript" in rows[1].flags and rows[1].failed
    again = retranscribe(rows, Hears({"c2": "the quick brown fox"}, "second"), root=clip_files)
    assert [row.asr_id for row in again] == ["ears/en"] * 3
    assert [row.word_hits for row in again] == [9, 9, 4]
    assert "truncated_tail" in again[2].flags and "empty_transcript" not in again[1].flags
    lost = rows[0].model_copy(update={"status": "failed", "text_id": "z"})
    kept = retranscribe([*rows, lost], Hears({}), root=clip_files)
    assert [row.status for row in kept] == ["ok"] * 3 + ["failed"]
    write(clip_files / "c1.wav", make_voice(1.0, 200))
    with pytest.raises(UserError, match="the same clips"):
        retranscribe(rows, Hears({}), root=clip_files)


def test_a_summary_in_one_row() -> None:
    summary = summarise(make_system("epoch-1", num_texts=5, takes=2, error=0.123), SELECT)
    row = metrics_row(summary)
    assert set(row) == {"wer", "cer", "sim", "duration", "failures", "n"} and row["n"] == 10
    assert row["wer"] == round(summary["wer"]["point"], 5) and row["duration"] == 1.0
    assert metrics_row(summary, summary)["source_cer"] == row["cer"]


def test_a_candidate_in_two_languages_is_summed_up_in_each() -> None:
    rows = make_system("epoch-1", num_texts=6, takes=1, mos=3.5)
    malay = [
        row.model_copy(update={"lang": "ms", "text_id": f"m{row.text_id}"}) for row in rows[:2]
    ]
    both = summarise([*rows, *malay], SELECT)
    assert {lang: part["n_expected"] for lang, part in both["languages"].items()} == {
        "en": 6,
        "ms": 2,
    }
    assert "languages" not in summarise(rows, SELECT)
    assert both["mos"]["point"] == 3.5 and both["mos"]["n"] == 8
    assert "mos" not in summarise(make_system("epoch-1", num_texts=3), SELECT)
    assert both["median_duration_s"] == 3.0 and both["median_speech_s"] == 2.5
    twenty = make_system("epoch-1", num_texts=40, takes=1)
    worst = sorted(row.sim for row in twenty)[:2]  # type: ignore[type-var]
    assert summarise(twenty, SELECT)["sim_worst_5pct"] == pytest.approx(sum(worst) / 2, abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_clip_with_a_sample_that_is_no_number_is_failed(clip_files: Path) -> None:
    wave = make_voice(1.0, 120)
    wave[7] = np.nan
    soundfile.write(clip_files / "nan.wav", wave, RATE_HZ, subtype="FLOAT")
    clips = [make_clip("t0", "nan.wav"), make_clip("t1", "c0.wav")]
    bad, good = score_clips(clips, Hears({}), OneVoice(1.0), None, None, PARAMS, root=clip_files)
    assert (bad.status, good.status) == ("failed", "ok")
    assert bad.message == "nan.wav has samples that are no numbers" and bad.wav_sha256 == ""


def test_kept_measurements_with_code_in_them_are_none(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    np.savez(tmp_path / "kept.npz", numbers=np.array([Evil()], object))
    assert _load(tmp_path / "kept.npz", 1) is None
    assert not (tmp_path / "executed").exists()
