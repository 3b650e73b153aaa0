"""Whether anything can be measured: recognisers that hear nothing, voices that are alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rows import make_row
from sounds import RATE_HZ, make_voice, write
from voxadapt.core.params import MeasurableParams, SelectParams
from voxadapt.scoring.measurable import measurable
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.similarity import separation

LIMITS = MeasurableParams()


def recordings(real: int, codec: int, lid: str = "en") -> dict[str, list[ScoreRow]]:
    """Recordings of ten words each, of which so many are misheard."""
    return {
        name: [
            make_row(name, f"t{n}", word_hits=10 - wrong, word_substitutions=wrong, lid=lid)
            for n in range(12)
        ]
        for name, wrong in (("real", real), ("codec", codec))
    }


@pytest.mark.parametrize(
    ("real", "codec", "fine"), [(0, 1, True), (4, 5, True), (2, 6, False), (9, 10, False)]
)
def test_a_recogniser_that_hears_nothing_measures_nothing(
    real: int, codec: int, fine: bool
) -> None:
    found = measurable(recordings(real, codec), 0.99, "wer", LIMITS)
    assert found["measurable"] is fine and found["recogniser"]["fine"] is fine
    assert found["recogniser"]["real"] == pytest.approx(real / 10)
    assert ("Cannot be measured with this recogniser" in found["sentence"]) is not fine
    if not fine:
        assert "asr.model" in found["sentence"] and "fine-tuned" in found["sentence"]


def test_a_wrong_language_is_named_beside_the_error() -> None:
    found = measurable(recordings(9, 9, lid="ms"), None, "wer", LIMITS)
    assert "another language" in found["sentence"]
    heard = measurable(recordings(1, 1, lid="ms"), None, "wer", LIMITS)
    assert heard["measurable"] and heard["recogniser"]["heard_as_other_language"] == 1.0


@pytest.mark.parametrize(("apart", "fine"), [(0.99, True), (0.8, True), (0.55, False)])
def test_a_reference_that_tells_nobody_apart_measures_nothing(apart: float, fine: bool) -> None:
    found = measurable(recordings(0, 0), apart, "wer", LIMITS)
    assert found["measurable"] is fine
    assert ("Cannot be measured with this reference" in found["sentence"]) is not fine


def test_without_other_voices_the_reference_is_unknown() -> None:
    found = measurable(recordings(0, 0), None, "wer", LIMITS)
    assert found["measurable"] and found["reference"]["fine"] is None


def test_separation_is_the_share_of_pairs() -> None:
    assert separation([0.9, 0.8], [0.1, 0.2]) == 1.0
    assert separation([0.5], [0.5]) == 0.5
    assert separation([], [0.5]) is None
    rng = np.random.default_rng(0)
    alike = separation(list(rng.normal(size=400)), list(rng.normal(size=400)))
    assert alike == pytest.approx(0.5, abs=0.05)


def coloured(wave: np.ndarray) -> np.ndarray:
    """A codec that colours every voice alike: a strong low-pass and a hum."""
    kernel = np.ones(24, np.float32) / 24
    hum = 0.05 * np.sin(2 * np.pi * 180 * np.arange(len(wave)) / RATE_HZ)
    return (np.convolve(wave, kernel, "same") + hum).astype(np.float32)


@pytest.mark.slow
def test_ceiling_and_floor_are_of_coded_clips(tmp_path: Path) -> None:
    """The shifted floor: against uncoded recordings the speaker's own coded voice looks strange."""
    similarity = pytest.importorskip("voxadapt.scoring.similarity")
    from voxadapt.scoring.rows import EvalClip

    embedder = similarity.Embedder("cpu")
    real, coded = [], {}
    for n in range(5):
        wave = make_voice(2.5, 120, n)
        name = f"r{n}"
        write(tmp_path / f"{name}.wav", wave)
        real.append(
            EvalClip(candidate="real", split="selection", text_id=name, lang="en",
                     text="a sentence of some words", wav=f"{name}.wav")
        )  # fmt: skip
        coded[name] = (coloured(wave), RATE_HZ)
    others = {"other": [(make_voice(2.5, 240, 50 + n), RATE_HZ) for n in range(4)]}
    coded_others = {"other": [(coloured(wave), RATE_HZ) for wave, _ in others["other"]]}
    rule = SelectParams(num_bootstrap=200)
    found = similarity.build_scale(
        embedder, real, coded_others, rule, root=tmp_path, min_speech_s=1.0, coded=coded
    )
    scale = found.scale
    assert found.voice.sim_id == scale.sim_id != found.recordings.sim_id
    assert scale.top == scale.codec_ceiling and scale.codec_ceiling.n == 5
    # What a model says passes the codec: a perfect copy lies at the top, not below a stranger.
    [spoken] = embedder.embed([(coloured(make_voice(2.5, 120, 9)), RATE_HZ)])
    like = scale.normalise(found.voice.similarity(spoken.embedding))
    unlike = scale.normalise(found.recordings.similarity(spoken.embedding))
    assert like is not None and unlike is not None
    assert like > 0.7 > unlike
    assert scale.separation == 1.0
