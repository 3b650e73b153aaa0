"""Measurements of sound that was made to have known properties."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from corpus import speech_like, write_clip
from voxadapt.data.audio import (
    MP3_RATES_HZ,
    AudioError,
    clipped_share,
    content_sha256,
    decode,
    encode,
    estimate_snr_db,
    frame_levels_db,
    measure,
    narrow_band_db,
    probe,
    read_mono,
    resample,
    speech_frames,
)

RATE_HZ = 16000


def burst(lead_s: float, speech_s: float, trail_s: float, noise: float = 0.0) -> np.ndarray:
    """A tone with silence (or noise) before and after it."""
    rng = np.random.default_rng(0)
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(round(speech_s * RATE_HZ)) / RATE_HZ)
    parts = [np.zeros(round(lead_s * RATE_HZ)), tone, np.zeros(round(trail_s * RATE_HZ))]
    samples = np.concatenate(parts)
    return (samples + noise * rng.standard_normal(len(samples))).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize(("lead_s", "trail_s"), [(0.5, 0.2), (0.0, 0.9), (1.2, 0.4)])
def test_silence_at_the_edges(lead_s: float, trail_s: float, noise: float) -> None:
    measured = measure(burst(lead_s, 1.5, trail_s, noise), RATE_HZ)
    assert measured.lead_silence_s == pytest.approx(lead_s, abs=0.04)
    assert measured.trail_silence_s == pytest.approx(trail_s, abs=0.04)
    assert measured.speech_s == pytest.approx(1.5, abs=0.05)
    assert measured.max_internal_silence_s == 0.0


def test_pause_inside() -> None:
    samples = np.concatenate([burst(0.2, 0.8, 0.3), burst(0.4, 0.5, 0.1)])
    measured = measure(samples, RATE_HZ)
    assert measured.max_internal_silence_s == pytest.approx(0.7, abs=0.05)
    assert measured.speech_s == pytest.approx(1.3, abs=0.05)


@pytest.mark.parametrize("snr_db", [10.0, 20.0, 30.0, 45.0])
def test_snr_is_found_again(snr_db: float) -> None:
    speech_power = 0.3**2 / 2
    noise = np.sqrt(speech_power / 10 ** (snr_db / 10))
    measured = measure(burst(0.5, 2.0, 0.5, noise), RATE_HZ)
    assert measured.snr_db == pytest.approx(snr_db, abs=1.5)


def test_snr_of_digital_silence_in_pauses_is_the_cap() -> None:
    assert measure(burst(0.5, 1.5, 0.5), RATE_HZ).snr_db == 100.0


def test_noise_alone_is_no_clean_speech() -> None:
    noise = np.random.default_rng(1).standard_normal(2 * RATE_HZ).astype(np.float32) * 0.1
    assert measure(noise, RATE_HZ).snr_db < 5.0


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_silence_has_no_speech(level: float) -> None:
    noise = np.random.default_rng(2).standard_normal(RATE_HZ).astype(np.float32) * level
    measured = measure(noise, RATE_HZ)
    assert measured.speech_s == 0.0
    assert measured.lead_silence_s == pytest.approx(1.0)
    assert measured.snr_db == -20.0


def test_clicks_are_no_speech() -> None:
    samples = burst(1.0, 1.0, 0.5)
    samples[1600] = 0.9
    assert measure(samples, RATE_HZ).lead_silence_s == pytest.approx(1.0, abs=0.04)


def test_clipping() -> None:
    clean = speech_like(2.0)
    clean = clean / np.abs(clean).max() * 0.9
    assert measure(clean, RATE_HZ).clipped_share == 0.0
    loud = np.clip(clean * 2.0, -1.0, 1.0)
    assert measure(loud, RATE_HZ).clipped_share > 0.01
    turned_down = loud * 0.5
    assert measure(turned_down, RATE_HZ).clipped_share > 0.01, "flat tops stay flat"
    normalised = clean / np.abs(clean).max()
    assert measure(normalised, RATE_HZ).clipped_share < 0.001, "one sample at full scale is none"


def test_offset_and_bad_samples() -> None:
    samples = burst(0.3, 1.0, 0.3) + np.float32(0.1)
    measured = measure(samples, RATE_HZ)
    assert measured.dc_offset == pytest.approx(0.1, abs=0.001)
    assert measured.lead_silence_s == pytest.approx(0.3, abs=0.04), "an offset is no sound"
    samples[[5, 6]] = np.nan, np.inf
    assert measure(samples, RATE_HZ).num_bad_samples == 2


@pytest.mark.slow
@given(
    st.integers(1, 3000), st.sampled_from([8000, 16000, 24000, 44100]), st.floats(0.0, 1.0),
    st.integers(0, 99),
)  # fmt: skip
def test_any_clip_is_measured(length: int, hz: int, level: float, seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(length).astype(np.float32) * level
    measured = measure(samples, hz)
    assert all(np.isfinite(value) for value in measured.as_dict().values())
    assert 0.0 <= measured.clipped_share <= 1.0
    assert -20.0 <= measured.snr_db <= 100.0
    assert len(speech_frames(frame_levels_db(samples, hz))) >= 1


def test_reading(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", 1.5, 22050)
    info = probe(path)
    assert (info.sample_rate_hz, info.num_channels, info.container) == (22050, 1, "WAV")
    assert info.duration_s == pytest.approx(1.5, abs=0.001)
    assert not info.is_truncated
    samples, hz = read_mono(path)
    assert (samples.dtype, samples.ndim, hz) == (np.float32, 1, 22050)
    assert len(samples) == info.num_samples


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = speech_like(1.0, seed=1), speech_like(1.0, seed=2)
    sf.write(tmp_path / "two.wav", np.stack([left, right], axis=1), RATE_HZ, subtype="FLOAT")
    mono, _ = read_mono(tmp_path / "two.wav")
    np.testing.assert_allclose(mono, (left + right) / 2, atol=1e-6)


def test_content_hash_is_of_the_sound(tmp_path: Path) -> None:
    samples = (speech_like(1.0) * 20000).astype(np.int16)
    for name in ("a.wav", "a.flac"):
        sf.write(tmp_path / name, samples, RATE_HZ, subtype="PCM_16")
    hashes = {content_sha256(*decode(tmp_path / name)) for name in ("a.wav", "a.flac")}
    assert len(hashes) == 1
    heard, _ = decode(tmp_path / "a.flac")
    assert content_sha256(heard, RATE_HZ) in hashes
    assert content_sha256(heard, 8000) not in hashes
    assert content_sha256(heard * 0.9, RATE_HZ) not in hashes


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.wav", b"", "no readable audio"),
        ("text.wav", b"hello " * 100, "no readable audio"),
        ("riff.wav", b"RIFF\x24\0\0\0WAVE", "readable|samples"),
        ("raw.raw", bytes(64), "no readable audio"),
    ],
)
def test_files_that_are_no_audio(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    for reader in (probe, read_mono):
        with pytest.raises(AudioError, match=message):
            reader(path)
    with pytest.raises(AudioError, match="no readable audio"):
        probe(tmp_path / "absent.wav")


def test_truncated_files(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.wav", 2.0).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    assert probe(tmp_path / "cut.wav").is_truncated
    streamed = whole[:4] + b"\xff\xff\xff\xff" + whole[8:]
    (tmp_path / "streamed.wav").write_bytes(streamed)
    assert not probe(tmp_path / "streamed.wav").is_truncated, "an unknown length is legal"
    sf.write(tmp_path / "a.flac", speech_like(2.0), RATE_HZ)
    flac = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(flac[: len(flac) // 2])
    try:
        samples, _ = decode(tmp_path / "cut.flac")
    except AudioError:
        return
    assert len(samples) < probe(tmp_path / "cut.flac").num_samples


def test_not_a_number_is_refused_when_read_for_a_model(tmp_path: Path) -> None:
    samples = speech_like(1.0)
    samples[100] = np.nan
    sf.write(tmp_path / "nan.wav", samples, RATE_HZ, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        read_mono(tmp_path / "nan.wav")


@pytest.mark.slow  # importing librosa takes seconds
@pytest.mark.parametrize("num_samples", [1, 7, 24001])
@pytest.mark.parametrize("hz", [(24000, 16000), (22050, 16000), (16000, 24000), (48000, 24000)])
def test_resampling_is_that_of_librosa(num_samples: int, hz: tuple[int, int]) -> None:
    import librosa

    samples = np.random.default_rng(0).standard_normal(num_samples).astype(np.float32)
    expected = librosa.resample(samples, orig_sr=hz[0], target_sr=hz[1], res_type="soxr_hq")
    assert np.array_equal(resample(samples, *hz), expected)


def test_resampling(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", 1.0, 16000)
    samples, hz = read_mono(path, 24000)
    assert (hz, samples.dtype) == (24000, np.float32)
    assert len(samples) == pytest.approx(24000, abs=1)
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(resample(tone, 16000, 24000)))
    assert np.argmax(spectrum) == 440


# --- numbers by hand -----------------------------------------------------------------------------


def levels(*runs: tuple[int, float]) -> np.ndarray:
    """Return levels of frames: so many of so many decibels each."""
    return np.repeat([level for _, level in runs], [count for count, _ in runs])


@pytest.mark.parametrize(
    ("runs", "spoken"),
    [
        ([(50, -60.0), (50, -20.0)], 50),
        ([(80, -60.0), (20, -53.9)], 100),  # no pause: ten below the loud frames
        ([(80, -60.0), (10, -54.1), (10, -20.0)], 10),  # six above the floor
        ([(80, -60.0), (10, -53.9), (10, -20.0)], 20),
        ([(80, -90.0), (10, -55.1), (10, -20.0)], 10),  # 35 below the loud
        ([(80, -90.0), (10, -54.9), (10, -20.0)], 20),
        ([(50, -29.9), (50, -20.0)], 100),
        ([(50, -30.1), (50, -20.0)], 50),
        ([(80, -99.0), (20, -65.0)], 0),
        ([(80, -99.0), (20, -64.9)], 20),
        ([(50, -60.0), (4, -20.0), (40, -60.0), (5, -20.0), (9, -60.0), (7, -20.0)], 12),
        ([(3, -20.0)], 3),  # a clip of three frames is no click
    ],
)
def test_speech_is_loud_enough_for_long_enough(runs: list[tuple[int, float]], spoken: int) -> None:
    frames = levels(*runs)
    active = speech_frames(frames.copy())
    assert int(active.sum()) == spoken
    assert not spoken or frames[active].min() > frames[~active].max(initial=-200.0) or spoken == 12


def test_levels_are_of_frames_of_25_ms_every_10_ms() -> None:
    samples = np.zeros(16000, np.float32)
    samples[8000:] = np.tile([0.1, -0.1], 4000)
    found = frame_levels_db(samples, RATE_HZ)
    assert len(found) == 1 + (16000 - 400) // 160
    assert found[0] == -100.0 and found[-1] == pytest.approx(-20.0, abs=1e-6)
    half = (8000 - 200) // 160  # starts 40 samples before the middle of such a frame
    share = (half * 160 + 400 - 8000) / 400
    assert found[half] == pytest.approx(-20.0 + 10 * np.log10(share))
    assert frame_levels_db(np.full(100, 0.5, np.float32), RATE_HZ).tolist() == [-100.0]
    short = frame_levels_db(np.tile([0.1, -0.1], 50), RATE_HZ)
    assert short == pytest.approx([-20.0 + 10 * np.log10(100 / 400)])
    with_offset = frame_levels_db(samples + np.float32(0.25), RATE_HZ)
    assert with_offset[-1] == pytest.approx(-20.0, abs=1e-4)


def test_the_ratio_of_signal_and_noise_is_of_their_powers() -> None:
    frames = levels((5, -60.0), (45, -50.0), (50, -20.0))
    noise = np.mean(10.0 ** (np.sort(frames)[:10] / 10))
    wanted = 10 * np.log10((0.01 - noise) / noise)
    assert estimate_snr_db(frames) == pytest.approx(wanted)
    assert estimate_snr_db(levels((50, -99.5), (50, -20.0))) == 100.0
    assert estimate_snr_db(levels((50, -98.5), (50, -20.0))) == pytest.approx(78.5, abs=0.01)
    assert estimate_snr_db(levels((50, -70.0))) == -20.0
    assert estimate_snr_db(levels((1, -60.0), (9, -20.0))) == pytest.approx(40.0, abs=0.01)
    assert estimate_snr_db(levels((9, -20.0))) == -20.0, "all is as loud as its quietest frame"


def test_silence_is_measured_to_the_hop() -> None:
    loud = np.tile([0.3, -0.3], 800)
    samples = np.concatenate([np.zeros(1600), loud, np.zeros(4800), loud, np.zeros(3200)])
    found = measure(samples.astype(np.float32), RATE_HZ)
    assert found.lead_silence_s == pytest.approx(0.08)  # the first frame that reaches the sound
    assert found.trail_silence_s == pytest.approx(0.8 - 0.59 - 0.025, abs=0.011)
    assert found.max_internal_silence_s == pytest.approx(0.28, abs=0.011)
    assert found.speech_s == pytest.approx(0.24, abs=0.021)
    assert found.peak == pytest.approx(0.3) and found.dc_offset == pytest.approx(0.0, abs=1e-9)
    assert found.end_db == pytest.approx(-100.0 + 10.46, abs=0.01)
    cut = measure(samples[:-3200].astype(np.float32), RATE_HZ)
    assert cut.end_db == pytest.approx(0.0, abs=0.01)
    assert cut.trail_silence_s == pytest.approx(0.005), "less than a hop"


@pytest.mark.parametrize(
    ("run", "peak", "clipped"),
    [
        (2, 0.5, 0),
        (3, 0.5, 3),
        (9, 0.5, 9),
        (3, 0.049, 0),
        (3, 0.051, 3),
        (2, 1.0, 2),
        (1, 0.9999, 1),
    ],
)
def test_a_flat_top_has_three_samples(run: int, peak: float, clipped: int) -> None:
    samples = np.tile(np.array([0.01, -0.01], np.float32), 50)
    samples[20 : 20 + run] = peak
    assert clipped_share(samples) == pytest.approx(clipped / 100)
    assert clipped_share(-samples) == pytest.approx(clipped / 100)


def test_a_flat_top_is_one_from_a_twentieth_of_full_scale() -> None:
    samples = np.tile([0.01, -0.01], 50)
    samples[20:23] = 0.05
    assert clipped_share(samples) == 0.03


def test_a_flat_top_is_flat_to_two_steps() -> None:
    for below, share in ((1.9, 0.03), (2.1, 0.0)):
        samples = np.zeros(100, np.float32)
        samples[20:23] = 0.5, 0.5 - below / 32768, 0.5
        assert clipped_share(samples) == pytest.approx(share)


@pytest.mark.parametrize(("rate_hz", "size"), [(16000, 512), (24000, 512), (48000, 1024)])
def test_the_upper_band_is_held_against_the_telephones(rate_hz: int, size: int) -> None:
    """Tones in the middle of bins, at the edges of both bands and beyond."""

    def tone(hz: float, level: float) -> np.ndarray:
        at = round(hz * size / rate_hz) * rate_hz / size
        return level * np.sin(2 * np.pi * at * np.arange(40 * size) / rate_hz)

    bins = np.arange(size // 2 + 1) * rate_hz / size
    low, high = ((bins >= a) & (bins <= b) for a, b in ((300, 3400), (4500, 7500)))
    spread = 10 * np.log10(low.sum() / high.sum())
    found = narrow_band_db(tone(1000, 0.5) + tone(6000, 0.05), rate_hz)
    assert found == pytest.approx(-20.0 + spread, abs=0.1)
    for inside in (400, 3200):
        assert narrow_band_db(tone(inside, 0.5) + tone(6000, 0.05), rate_hz) == pytest.approx(
            found, abs=0.1
        )
    for inside in (4700, 7300):
        assert narrow_band_db(tone(1000, 0.5) + tone(inside, 0.05), rate_hz) == pytest.approx(
            found, abs=0.1
        )
    for outside in (60, 3900, 7900):
        other = narrow_band_db(tone(1000, 0.5) + tone(6000, 0.05) + tone(outside, 0.5), rate_hz)
        assert other == pytest.approx(found, abs=0.5)


def test_without_such_a_band_nothing_is_said() -> None:
    noise = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    assert narrow_band_db(noise, 14999) is None and narrow_band_db(noise, 15000) is not None
    assert narrow_band_db(noise[:511], 16000) is None
    assert narrow_band_db(noise[:512], 16000) is not None
    assert narrow_band_db(noise[:1023], 24001) is None
    assert narrow_band_db(np.zeros(4000), 16000) == 0.0


def test_what_is_no_number_is_silence_and_what_is_too_loud_full_scale() -> None:
    samples = np.array([np.nan, np.inf, -np.inf, 0.25], np.float32)
    same = np.array([0.0, 1.0, -1.0, 0.25], np.float32)
    assert content_sha256(samples, 8000) == content_sha256(same, 8000)
    assert content_sha256(np.array([2.0, -3.0]), 8000) == content_sha256(
        np.array([1.0, -1.0]), 8000
    )
    found = measure(np.r_[samples, np.full(999, 0.25)].astype(np.float32), 8000)
    assert found.num_bad_samples == 3
    assert found.peak == 0.25 and found.dc_offset == pytest.approx(250 / 1003, abs=1e-6)
    nearest = content_sha256(np.array([1 / 32767]), 8000)
    assert nearest == content_sha256(np.array([1.4 / 32767]), 8000)
    assert nearest != content_sha256(np.array([1.6 / 32767]), 8000)


@pytest.mark.parametrize(("extra", "truncated"), [(-3, False), (0, False), (1, False), (2, True)])
@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_a_header_may_announce_a_pad_byte(
    tmp_path: Path, kind: str, extra: int, truncated: bool
) -> None:
    data = bytearray(encode(speech_like(0.2), RATE_HZ, kind))
    order = "big" if kind == "AIFF" else "little"
    data[4:8] = (len(data) - 8 + extra).to_bytes(4, order)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(data)
    assert probe(path).is_truncated == truncated
    data[4:8] = bytes(4)
    path.write_bytes(data)
    assert not probe(path).is_truncated


def test_a_file_of_one_sample_is_read_and_one_of_none_is_not(tmp_path: Path) -> None:
    sf.write(tmp_path / "one.wav", np.array([0.5]), RATE_HZ, subtype="FLOAT")
    samples, _ = decode(tmp_path / "one.wav")
    assert samples.tolist() == [[0.5]] and probe(tmp_path / "one.wav").num_samples == 1
    sf.write(tmp_path / "none.wav", np.zeros(0), RATE_HZ, subtype="FLOAT")
    for reader in (probe, decode):
        with pytest.raises(AudioError, match="without samples"):
            reader(tmp_path / "none.wav")


@pytest.mark.parametrize("rate_hz", MP3_RATES_HZ)
def test_an_mp3_has_the_rate_that_it_was_given(rate_hz: int) -> None:
    stored = sf.info(io.BytesIO(encode(np.zeros(rate_hz // 10, np.float32), rate_hz)))
    assert (stored.format, stored.samplerate) == ("MP3", rate_hz)
