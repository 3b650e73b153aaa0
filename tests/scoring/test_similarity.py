"""Batched embeddings equal the stock ones; the scale has ceiling, floor and a rate."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resemblyzer

from sounds import RATE_HZ, Wave, make_voice, silence, write
from voxadapt.asr.normalise import Substitutions
from voxadapt.asr.transcript import Transcript
from voxadapt.asr.voice_prints import MAX_PARTIALS, Embedder, speech_only
from voxadapt.core.errors import UserError
from voxadapt.core.files import sha256_file
from voxadapt.core.params import ScoreParams, SelectParams
from voxadapt.scoring.rows import EvalClip, ScoreRow
from voxadapt.scoring.score_clips import score_clips
from voxadapt.scoring.similarity import (
    AtDuration,
    SimilarityScale,
    SpeechRate,
    VoiceReference,
    build_scale,
    fit_rate,
    pooled_scale,
    separation,
    spoken_chars,
)
from voxadapt.scoring.statistics import NOTHING, Interval

RULE = SelectParams(num_bootstrap=300)
LEAST_S = 0.5


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


def make_speaker(root: Path) -> list[EvalClip]:
    """Write six recordings of a speaker."""
    clips = []
    for index in range(6):
        name = f"real{index}"
        write(root / f"{name}.wav", make_voice(2.0 + 0.3 * index, 120 + index, index))
        clips.append(
            EvalClip(
                candidate="real",
                split="selection" if index % 2 else "confirmation",
                text_id=name,
                lang="en",
                text="ten letters " * (2 + index),
                wav=f"{name}.wav",
            )
        )
    return clips


@pytest.fixture
def speaker(tmp_path: Path) -> list[EvalClip]:
    return make_speaker(tmp_path)


Bench = tuple[Path, Embedder, VoiceReference, SimilarityScale]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Bench:
    """A folder with a speaker's recordings, and the reference made of them."""
    root = tmp_path_factory.mktemp("speaker")
    scale = build_scale(embedder, make_speaker(root), {}, RULE, root=root, min_speech_s=LEAST_S)
    return root, embedder, *scale[:2]


@pytest.mark.slow
def test_embeddings_equal_the_stock_ones(embedder: Embedder) -> None:
    rng = np.random.default_rng(0)
    clips = [
        (make_voice(length, pitch, seed), RATE_HZ)
        for seed, (length, pitch) in enumerate(
            zip([0.7, 1.3, 1.6, 2.0, 2.6, 3.3, 4.1, 5.0], [90, 230, 120, 180, 100, 210, 140, 160],
                strict=True)
        )
    ]  # fmt: skip
    clips.append((np.concatenate([clips[4][0], silence(1.5), clips[5][0]]), RATE_HZ))
    clips.append((clips[3][0] * 0.003, RATE_HZ))  # quiet: loudness is raised
    clips.append((rng.normal(0, 0.05, 3 * 16_000).astype(np.float32), 16_000))
    ours = embedder.embed(clips)
    for (wave, rate_hz), found in zip(clips, ours, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            speech = resemblyzer.preprocess_wav(wave, rate_hz)
        ours_16k = speech_only(wave, rate_hz)
        assert ours_16k.shape == speech.shape
        assert np.allclose(ours_16k, speech, rtol=1e-4, atol=1e-7)
        assert found.speech_s == len(speech) / 16_000
        if not len(speech):
            assert found.embedding is None
            continue
        stock = embedder._encoder.embed_utterance(speech)
        assert found.embedding is not None
        assert np.abs(found.embedding - stock).max() < 1e-4
    assert sum(item.embedding is not None for item in ours) >= 9


@pytest.mark.slow
def test_silence_has_no_voice(embedder: Embedder) -> None:
    found = embedder.embed([(silence(2.0), RATE_HZ), (np.zeros(0, np.float32), RATE_HZ)])
    assert [item.embedding for item in found] == [None, None]
    assert [item.speech_s for item in found] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("wave", "speech"),
    [
        (silence(3.0), 0.0),
        (make_voice(3.0) * 0.0, 0.0),
        (np.full(3 * RATE_HZ, 0.2, np.float32), 0.0),  # a constant is no sound either
        (np.random.default_rng(0).normal(0, 0.01, 3 * RATE_HZ).astype(np.float32), 0.0),
        (make_voice(0.5), 0.5),
        (np.concatenate([silence(1.0), make_voice(0.5), silence(1.0)]), 0.6),
        (make_voice(0.01), 0.0),  # shorter than one window of the detector
    ],
    ids=["silence", "muted", "constant", "faint noise", "half a second", "padded", "a click"],
)
def test_too_little_speech_is_missing_and_flagged(wave: Wave, speech: float, bench: Bench) -> None:
    """Silence would score .48 against anybody: it must not score at all."""
    row = scored(wave, bench)
    assert row.speech_s == pytest.approx(speech, abs=0.25)
    assert row.sim is None and "too_little_speech" in row.flags


@pytest.mark.slow
def test_loud_noise_is_no_voice_like_the_speakers(bench: Bench) -> None:
    """Voice activity detection takes loud noise for speech; the scale puts it at a stranger's."""
    noise = np.random.default_rng(0).normal(0, 0.2, 3 * RATE_HZ).astype(np.float32)
    row = scored(noise, bench)
    assert row.sim is not None and row.sim < 0.7
    enough = scored(make_voice(3.0, 121, 77), bench)
    assert enough.sim is not None and enough.sim > row.sim + 0.1
    assert "too_little_speech" not in enough.flags


def scored(wave: Wave, bench: Bench) -> ScoreRow:
    """Score one clip of a candidate with an ASR that hears nothing."""

    class Deaf:
        asr_id, own = "deaf", Substitutions()

        def in_language(self, language: str) -> Deaf:
            return self

        def transcribe_each(self, paths: list[Path], *_: Any) -> list[Transcript]:
            return [Transcript("", 0.0, 1.0, 0.0, None, None, 1)] * len(paths)

    root, embedder, reference, scale = bench
    write(root / "candidate.wav", wave)
    clip = EvalClip(
        candidate="epoch-1", split="selection", text_id="t0", lang="en", text="ten letters",
        wav="candidate.wav",
    )  # fmt: skip
    params = ScoreParams(min_speech_s=1.0)
    return score_clips([clip], Deaf(), embedder, reference, scale, params, root=root)[0]  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_batch_changes_nothing(embedder: Embedder) -> None:
    clips = [(make_voice(2.0 + 0.5 * i, 100 + 20 * i, i), RATE_HZ) for i in range(3)]
    together = embedder.embed(clips)
    many = embedder.embed(clips * (MAX_PARTIALS // 3))  # more partials than one batch holds
    for index, (clip, found) in enumerate(zip(clips, together, strict=True)):
        alone = embedder.embed([clip])[0]
        again = many[index - 3]
        assert np.abs(alone.embedding - again.embedding).max() < 1e-5  # type: ignore[operator]
        assert np.abs(alone.embedding - found.embedding).max() < 1e-5  # type: ignore[operator]


@pytest.mark.slow
def test_scale_of_a_speaker(tmp_path: Path, embedder: Embedder, speaker: list[EvalClip]) -> None:
    others = [write(tmp_path / f"o{i}.wav", make_voice(2.5, 240, 50 + i)) for i in range(3)]
    reference, scale, _ = build_scale(
        embedder, speaker, {"other": others}, RULE, root=tmp_path, min_speech_s=LEAST_S
    )
    assert scale.ceiling.n == 6 and scale.floor.n == 3
    assert scale.ceiling.point > scale.floor.point  # type: ignore[operator]
    assert scale.normalise(scale.ceiling.point) == pytest.approx(1.0)
    assert scale.normalise(scale.floor.point) == pytest.approx(0.0)
    seconds = [item[0] for item in scale.ceiling_by_duration]
    assert seconds[0] == 1.0 and seconds == sorted(seconds)
    assert scale.ceiling_by_duration[0][1] <= scale.ceiling_at(99.0)  # type: ignore[operator]
    (short, low, _), (longer, high, _) = scale.ceiling_by_duration[:2]
    assert scale.ceiling_at((short + longer) / 2) == pytest.approx((low + high) / 2)
    assert scale.ceiling_at(0.2) == low  # no shorter length was measured
    assert [(name, n) for name, _, n in scale.floor_by_speaker] == [("other", 3)]
    # A real clip against a centroid that holds it scores higher than against the others.
    found = reference.embeddings[0]
    assert reference.similarity(found) > reference.similarity(found, leave_out="real0")
    assert reference.num_clips("real0") == 5 and reference.num_clips("stranger") == 6
    # Records survive their files.
    reference.write(tmp_path / "voice.safetensors")
    again = VoiceReference.read(tmp_path / "voice.safetensors")
    assert again.sim_id == reference.sim_id == scale.sim_id and again.ids == reference.ids
    scale.write(tmp_path / "similarity.json")
    stored = json.loads((tmp_path / "similarity.json").read_text())
    assert SimilarityScale.from_dict(stored).as_dict() == stored == scale.as_dict()


def test_identical_audio_scores_one(embedder: Embedder) -> None:
    found = embedder.embed([(make_voice(2.0), RATE_HZ)])[0].embedding
    assert found is not None
    twins = VoiceReference(("a", "b"), np.stack([found, found]), embedder.id)
    assert twins.similarity(found, leave_out="a") == pytest.approx(1.0, abs=1e-6)


@pytest.mark.slow
def test_the_conditioning_clip_never_enters_the_reference(
    tmp_path: Path, embedder: Embedder, speaker: list[EvalClip]
) -> None:
    excluded = {sha256_file(tmp_path / speaker[0].wav)}
    reference, scale, _ = build_scale(
        embedder, speaker, {}, RULE,
        root=tmp_path, min_speech_s=LEAST_S, excluded_sha256=excluded,
    )  # fmt: skip
    assert "real0" not in reference.ids and len(reference.ids) == 5
    assert scale.floor.point is None and scale.normalise(0.8) is None


@pytest.mark.slow
def test_too_few_held_out_clips_are_a_user_error(
    tmp_path: Path, embedder: Embedder, speaker: list[EvalClip]
) -> None:
    with pytest.raises(UserError, match="at least 3"):
        build_scale(embedder, speaker[:2], {}, RULE, root=tmp_path, min_speech_s=LEAST_S)


def test_rate_is_a_line_where_it_can_be() -> None:
    chars = list(range(10, 60, 5))
    fitted = fit_rate([0.3 + 0.06 * n for n in chars], chars)
    assert fitted.offset_s == pytest.approx(0.3) and fitted.seconds_per_char == pytest.approx(0.06)
    assert fitted.expected_s(100) == pytest.approx(6.3)
    few = fit_rate([1.0, 2.0], [10, 20])
    assert (few.offset_s, few.seconds_per_char) == (0.0, pytest.approx(0.1))


@pytest.mark.parametrize(
    ("text", "chars"),
    [("brown is spelled b r o w n", 14 + 25), ("i am a b", 5), ("привет а б в", 6 + 15),
     ("一 二 三", 3), ("", 0)],
)  # fmt: skip
def test_a_letter_that_is_spelled_takes_as_long_as_its_name(text: str, chars: int) -> None:
    assert spoken_chars(text) == chars


def make_scale(ceiling: Interval, floor: Interval = NOTHING, **fields: Any) -> SimilarityScale:
    values = {
        "sim_id": "x", "reference_ids": ("b",), "ceiling": ceiling, "ceiling_by_duration": (),
        "codec_ceiling": NOTHING, "floor": floor, "floor_by_speaker": (), "separation": 0.9,
        "rate": SpeechRate(0.2, 0.05, 8),
    }  # fmt: skip
    return SimilarityScale(**{**values, **fields})


def test_scales_of_speakers_together_are_their_mean() -> None:
    """Of two independent averages the ends lie the root of summed squares from the mean."""
    one = make_scale(Interval(0.9, 0.87, 0.94, 10), Interval(0.4, 0.4, 0.4, 5))
    two = make_scale(
        Interval(0.8, 0.76, None, 20), reference_ids=("a",), separation=0.7,
        rate=SpeechRate(0.4, 0.07, 4),
    )  # fmt: skip
    found = pooled_scale({"Aria": one, "Bo": two}, "both")
    assert found.sim_id == "both" and found.reference_ids == ("a", "b")
    assert found.ceiling.point == pytest.approx(0.85) and found.ceiling.n == 30
    assert found.ceiling.low == pytest.approx(0.85 - np.hypot(0.03, 0.04) / 2)
    assert found.ceiling.high == pytest.approx(0.85 + 0.04 / 2)
    assert found.floor == found.codec_ceiling == NOTHING, "one speaker's is not known"
    assert found.separation == 0.7
    assert found.rate == SpeechRate(pytest.approx(0.3), pytest.approx(0.06), 12)
    assert (
        pooled_scale({"a": one, "b": make_scale(NOTHING, separation=None)}, "x").separation is None
    )


def test_a_similarity_lies_between_the_floor_and_the_upper_end() -> None:
    ceiling, coded, floor = (Interval(point, None, None, 9) for point in (0.9, 0.8, 0.4))
    plain, through = make_scale(ceiling, floor), make_scale(ceiling, floor, codec_ceiling=coded)
    assert plain.normalise(0.65) == pytest.approx(0.5) and through.normalise(0.6) == pytest.approx(
        0.5
    )
    assert plain.top is ceiling and through.top is coded
    assert plain.normalise(None) is make_scale(ceiling).normalise(0.5) is None
    assert make_scale(floor, ceiling).normalise(0.5) is None, "upside down"
    assert plain.ceiling_at(3.0) == 0.9
    by_length = (AtDuration(1.0, 0.6, 9), AtDuration(3.0, 0.8, 9))
    assert make_scale(ceiling, ceiling_by_duration=by_length).ceiling_at(1.5) == pytest.approx(0.65)


def test_records_of_other_kinds_are_refused() -> None:
    good = make_scale(Interval(0.9, 0.8, 1.0, 9)).as_dict()
    assert SimilarityScale.from_dict(good).ceiling.point == 0.9 and good["num_reference"] == 1
    for bad in ({}, good | {"schema": "voxadapt-similarity/1"}, good | {"separation": "much"}):
        with pytest.raises(UserError, match=r"similarity\.json"):
            SimilarityScale.from_dict(bad)


def test_separation_is_the_share_of_pairs_that_are_told_apart() -> None:
    assert separation([0.9, 0.5], [0.4, 0.5, 0.6]) == pytest.approx((3 + 1.5) / 6)
    assert separation([0.9], [0.9]) == 0.5
    assert separation([], [0.5]) is separation([0.5], []) is None


def test_a_clip_is_left_out_of_what_it_is_compared_with(tmp_path: Path) -> None:
    vectors = np.eye(3, 4, dtype=np.float32)
    voice = VoiceReference(("a", "b", "c"), vectors, "encoder")
    assert voice.similarity(vectors[0]) == pytest.approx(1 / np.sqrt(3))
    assert voice.similarity(vectors[0], "a") == 0.0
    assert voice.similarities(vectors, "a") == pytest.approx((0.0, 0.5**0.5, 0.5**0.5))
    assert voice.similarities(vectors, "z") == pytest.approx((3**-0.5,) * 3)
    assert (voice.num_clips("a"), voice.num_clips(), voice.num_clips("z")) == (2, 3, 3)
    voice.write(tmp_path / "voice.safetensors")
    assert VoiceReference.read(tmp_path / "voice.safetensors").sim_id == voice.sim_id
    VoiceReference(("a", "b"), vectors, "encoder").write(tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="2 ids"):
        VoiceReference.read(tmp_path / "bad.safetensors")


def test_a_line_needs_eight_texts_of_differing_length_that_grow() -> None:
    def fitted(seconds: list[float], chars: list[int]) -> SpeechRate:
        return fit_rate(seconds, chars)

    chars = list(range(10, 19))
    assert fitted([0.5 + 0.1 * n for n in chars], chars).offset_s == pytest.approx(0.5)
    assert fitted([0.5 + 0.1 * n for n in chars[:7]], chars[:7]).offset_s == 0.0
    alike = [10, 11, 12, 13, 14, 15, 16, 17]
    assert fitted([0.5 + 0.1 * n for n in alike], alike).offset_s == 0.0
    eight = [10, 11, 12, 13, 14, 15, 16, 18]
    assert fitted([0.5 + 0.1 * n for n in eight], eight).offset_s == pytest.approx(0.5)
    assert fitted([5.0 - 0.1 * n for n in chars], chars).seconds_per_char > 0
    assert fitted([0.1 * n - 0.5 for n in chars], chars).offset_s == 0.0
