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
    SimilarityScale,
    VoiceReference,
    build_scale,
    fit_rate,
)

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


def test_a_batch_changes_nothing(embedder: Embedder) -> None:
    clips = [(make_voice(2.0 + 0.5 * i, 100 + 20 * i, i), RATE_HZ) for i in range(3)]
    together = embedder.embed(clips)
    many = embedder.embed(clips * (MAX_PARTIALS // 3))  # more partials than one batch holds
    for index, (clip, found) in enumerate(zip(clips, together, strict=True)):
        alone = embedder.embed([clip])[0]
        again = many[index - 3]
        assert np.abs(alone.embedding - again.embedding).max() < 1e-5  # type: ignore[operator]
        assert np.abs(alone.embedding - found.embedding).max() < 1e-5  # type: ignore[operator]


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
