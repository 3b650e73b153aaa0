"""Audio files: what they are, their samples, and measurements of their quality.

Reading goes through libsndfile only; nothing here needs ffmpeg or torch.
"""

import io
import math
import os
from dataclasses import asdict, dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from voxadapt.core.files import sha256_bytes, write_atomic
from voxadapt.data.containers import announced_bytes, content_problem

FRAME_S = 0.025
HOP_S = 0.010
END_S = 0.020
MAX_SNR_DB = 100.0
MP3_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
FLOOR_DB = -100.0  # digital silence
SPEECH_FLOOR_DB = -65.0  # quieter than this is never speech
MAX_FRAMES = 2**40  # of a file; what libsndfile says of a FLAC without a length is more
MAX_PEAK = 8.0  # full scale is 1: more is no gain, but integers
MIN_MIXED_LEVEL = 0.25  # of the loudest channel's; less is left of channels that cancel each other
MIN_SPEECH_RUN_FRAMES = 5  # a click of one sample already fills three overlapping frames


class AudioError(ValueError):
    """An audio file that cannot be used; the message says why, without the path."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says."""

    sample_rate_hz: int  # samples per second and channel
    num_channels: int  # 1 is mono
    num_samples: int  # samples per channel
    container: str  # libsndfile's name of the file format, such as WAV or FLAC
    is_truncated: bool  # whether a RIFF or AIFF header announces more bytes than the file has

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate_hz


@dataclass(frozen=True, slots=True)
class Measurements:
    """Quality of one clip; silences and speech as `speech_frames` finds them."""

    peak: float  # largest magnitude; 1.0 is full scale
    clipped_share: float  # share of samples that lie on a flat top or at full scale
    #: Speech over noise floor, from -20 to 100 dB; 100 means digital silence in pauses.
    snr_db: float
    lead_silence_s: float  # silence before the first speech; the whole clip when there is none
    trail_silence_s: float  # silence after the last speech
    max_internal_silence_s: float  # longest pause between two stretches of speech
    speech_s: float  # time with speech in it
    dc_offset: float  # mean sample value
    num_bad_samples: int  # naN or infinite samples; they count as zeros elsewhere
    end_db: float  # level of the last `END_S` against the loud frames (95th percentile)

    def as_dict(self) -> dict[str, float]:
        """Return the fields, rounded to what they are worth."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def probe(path: str | Path) -> AudioInfo:
    """Read a file's header; raises `AudioError` for what libsndfile cannot read, or no samples."""
    try:
        info = sf.info(str(path))
    except Exception as error:  # LibsndfileError, RuntimeError, TypeError (headerless), OSError
        raise AudioError(_reason(error)) from None
    if info.samplerate < 1 or info.channels < 1:
        raise AudioError(f"a header with {info.samplerate} Hz and {info.channels} channels")
    if info.frames < 1:
        raise AudioError("a file without samples")
    if info.frames > MAX_FRAMES:
        raise AudioError("no length in its header, as of a program that streams: write it again")
    return AudioInfo(info.samplerate, info.channels, info.frames, info.format, _is_truncated(path))


def _reason(error: Exception) -> str:
    """Shorten libsndfile's message to its last sentence."""
    text = str(getattr(error, "error_string", "") or error).strip().rstrip(".")
    return f"no readable audio ({text.splitlines()[0] if text else type(error).__name__})"


def _is_truncated(path: str | Path) -> bool:
    """Say whether a header announces more bytes than the file has.

    libsndfile reads such a file as a shorter one without a word.
    """
    with open(path, "rb") as stream:
        announced = announced_bytes(stream.read(28))
        size = os.fstat(stream.fileno()).st_size
    return announced is not None and announced > size + 1  # +1: a pad byte left out


def decode(path: str | Path) -> tuple[np.ndarray, int]:
    """Read all samples of a file.

    They are [num_samples, num_channels] float32, full scale 1.0; with them comes the rate in Hz.

    Raises:
        AudioError: When decoding fails or yields nothing, or when the file holds another length
            of sound than its header says.
    """
    try:
        with sf.SoundFile(str(path)) as stream:
            container, announced, sample_rate_hz = stream.format, stream.frames, stream.samplerate
            samples = stream.read(dtype="float32", always_2d=True)
    except Exception as error:
        raise AudioError(_reason(error)) from None
    if len(samples) == 0:
        raise AudioError("a file without samples")
    refuse_part(path, AudioInfo(sample_rate_hz, 1, announced, container, False), len(samples))
    return samples, sample_rate_hz


def refuse_part(path: str | Path, info: AudioInfo, num_decoded: int) -> None:
    """Raise `AudioError` for a file that is joined, cut off, or has a wrong header."""
    with open(path, "rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as data:
        problem = content_problem(
            data, info.container, info.num_samples, num_decoded, info.sample_rate_hz
        )
    if problem is not None:
        raise AudioError(problem)


def read_audio(path: str | Path) -> tuple[np.ndarray, int]:
    """Read mono float samples, NaN ones too, and their rate; raises `AudioError`."""
    samples, sample_rate_hz = decode(path)
    return to_mono(samples), sample_rate_hz


def read_mono(path: str | Path, sample_rate_hz: int | None = None) -> tuple[np.ndarray, int]:
    """Read a file as one channel, resampled if a rate is given: [num_samples], and its rate in Hz.

    Raises:
        AudioError: When the file cannot be decoded or holds NaN or infinite samples.
    """
    samples, own_hz = decode(path)
    mono = to_mono(samples)
    if not np.isfinite(mono).all():
        raise AudioError("NaN or infinite samples")
    if sample_rate_hz is None or sample_rate_hz == own_hz:
        return mono, own_hz
    return resample(mono, own_hz, sample_rate_hz), sample_rate_hz


def encode(samples: np.ndarray, sample_rate_hz: int, container: str = "MP3") -> bytes:
    """Encode samples in memory; equal samples give equal bytes in MP3 and FLAC.

    Samples are [num_samples], full scale 1.0; MP3 knows `MP3_RATES_HZ` only.
    """
    buffer = io.BytesIO()
    sf.write(buffer, samples, sample_rate_hz, format=container)
    return buffer.getvalue()


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Average channels: [num_samples, num_channels] or [num_samples] to [num_samples]."""
    if samples.ndim == 1:
        return np.ascontiguousarray(samples, dtype=np.float32)
    return np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32))


def mixed_level(samples: np.ndarray) -> float:
    """Return the level of the channels' average against the loudest channel's.

    Of [num_samples, num_channels]: 1 where they are equal, 0.5 where one of two is silent, 0 where
    one is the other upside down. Samples that are no numbers count as zeros.
    """
    samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    loudest = float(samples.std(axis=0).max())
    return float(to_mono(samples).std()) / loudest if loudest > 0 else 1.0


def to_pcm16(samples: np.ndarray) -> np.ndarray:
    """Round samples, full scale 1.0, to 16 bits."""
    return np.asarray(np.round(np.clip(samples, -1.0, 1.0) * 32767), np.int16)


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample [num_samples] with soxr at high quality."""
    if from_hz == to_hz:
        return samples.astype(np.float32, copy=False)
    changed = soxr.resample(samples, from_hz, to_hz, "HQ")
    count = math.ceil(len(samples) * (to_hz / from_hz))
    changed = np.pad(changed[:count], (0, max(0, count - len(changed))))
    return np.ascontiguousarray(changed, dtype=np.float32)


def write_wav(path: Path, samples: np.ndarray, sample_rate_hz: int) -> None:
    """Write 16-bit PCM; equal samples give equal bytes."""
    stream = io.BytesIO()
    sf.write(stream, samples, sample_rate_hz, format="WAV", subtype="PCM_16")
    write_atomic(path, stream.getvalue())


def content_sha256(samples: np.ndarray, sample_rate_hz: int) -> str:
    """Hash what is heard: mono samples at 16 bits, so that a WAV and its FLAC copy are equal.

    Samples are [num_samples] or [num_samples, num_channels].
    """
    mono = np.nan_to_num(to_mono(samples), nan=0.0, posinf=1.0, neginf=-1.0)
    return sha256_bytes(f"{sample_rate_hz}\0".encode() + to_pcm16(mono).astype("<i2").tobytes())


def frame_levels_db(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return the level of each 25 ms frame, 10 ms apart, in dB of full scale.

    Samples are [num_samples]. Of the levels, [num_frames], there is at least one, and none is below
    -100 dB. A constant offset is removed first.
    """
    size, hop = max(1, round(FRAME_S * sample_rate_hz)), max(1, round(HOP_S * sample_rate_hz))
    centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    if len(centred) < size:
        centred = np.pad(centred, (0, size - len(centred)))
    energy = np.concatenate([[0.0], np.cumsum(centred * centred)])
    starts = np.arange(0, len(centred) - size + 1, hop)
    power = np.maximum(energy[starts + size] - energy[starts], 0.0) / size
    return np.asarray(10.0 * np.log10(np.maximum(power, 10.0 ** (FLOOR_DB / 10.0))))


def speech_frames(levels_db: np.ndarray) -> np.ndarray:
    """Say which frames hold speech, by energy.

    A frame is active when it lies 6 dB above the noise floor (10th percentile), at most 35 dB
    below the loud frames (95th percentile) and above -65 dB. In a clip without pauses the floor
    is speech itself, hence the cap 10 dB below the loud frames. Runs under 5 frames are clicks.
    """
    floor_db, loud_db = np.percentile(levels_db, [10.0, 95.0])
    threshold_db = min(max(floor_db + 6.0, loud_db - 35.0), loud_db - 10.0)
    active: np.ndarray = levels_db > max(threshold_db, SPEECH_FLOOR_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start < min(MIN_SPEECH_RUN_FRAMES, len(active)):
            active[start:stop] = False
    return active


def estimate_snr_db(levels_db: np.ndarray) -> float:
    """Estimate the signal-to-noise ratio of speech with pauses.

    Noise is the mean power of the quietest tenth of the frames; speech is the mean power of the
    active ones minus that noise. Without any pause the estimate is too low, never too high. Levels
    are those of `frame_levels_db`, [num_frames]. The result lies between -20 and 100 dB.
    """
    power = 10.0 ** (levels_db / 10.0)
    quietest = np.sort(power)[: max(1, len(power) // 10)]
    noise = float(quietest.mean())
    active = speech_frames(levels_db)
    if not active.any():
        return -20.0
    if noise <= 10.0 ** ((FLOOR_DB + 1.0) / 10.0):
        return MAX_SNR_DB
    speech = max(float(power[active].mean()) - noise, 1e-12)
    return float(np.clip(10.0 * np.log10(speech / noise), -20.0, MAX_SNR_DB))


def narrow_band_db(samples: np.ndarray, sample_rate_hz: int) -> float | None:
    """Return the level above the telephone's band against that in it, in decibels.

    That is 4.5 to 7.5 kHz against 0.3 to 3.4 kHz: -15 to -45 in speech, less than -60 where speech
    of 8 kHz was resampled. None where the rate leaves no such band. Samples are [num_samples].
    """
    size = 512 if sample_rate_hz <= 24000 else 1024
    count = len(samples) // size
    if sample_rate_hz < 15000 or count == 0:
        return None
    frames = samples[: count * size].reshape(count, size) * np.hanning(size)
    power = (np.abs(np.fft.rfft(frames, axis=1)) ** 2).mean(axis=0)
    hz = np.arange(len(power)) * sample_rate_hz / size
    low = power[(hz >= 300) & (hz <= 3400)].mean()
    high = power[(hz >= 4500) & (hz <= 7500)].mean()
    return float(10.0 * np.log10(max(high, 1e-12) / max(low, 1e-12)))


def clipped_share(samples: np.ndarray) -> float:
    """Return the share of clipped samples in [num_samples].

    Clipped are samples at full scale, and runs of three or more that stay within two 16-bit
    steps of the clip's own peak (a flat top that was turned down afterwards).
    """
    magnitude = np.abs(samples)
    peak = float(magnitude.max())
    at_limit = magnitude >= 0.9999
    if peak >= 0.05:
        top = (magnitude >= peak - 2.0 / 32768.0).astype(np.int8)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], top, [0]])))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            if stop - start >= 3:
                at_limit[start:stop] = True
    return float(at_limit.mean())


def measure(samples: np.ndarray, sample_rate_hz: int) -> Measurements:
    """Measure the quality of one clip.

    Samples are [num_samples] or [num_samples, num_channels], full scale 1.0.
    """
    bad = int((~np.isfinite(samples)).sum())
    mono = to_mono(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0))
    levels_db = frame_levels_db(mono, sample_rate_hz)
    active = speech_frames(levels_db)
    total_s = len(mono) / sample_rate_hz
    lead_s, trail_s, internal_s = total_s, 0.0, 0.0
    spoken = np.flatnonzero(active)
    if len(spoken):
        lead_s = spoken[0] * HOP_S
        trail_s = max(0.0, total_s - spoken[-1] * HOP_S - FRAME_S)
        internal_s = float((np.diff(spoken) - 1).max(initial=0)) * HOP_S
    end = mono[-max(1, round(END_S * sample_rate_hz)) :].astype(np.float64)
    end_db = 10.0 * np.log10(max(float(np.mean(end**2)), 10.0 ** (FLOOR_DB / 10.0)))
    return Measurements(
        peak=float(np.abs(mono).max()),
        clipped_share=clipped_share(mono),
        snr_db=estimate_snr_db(levels_db),
        lead_silence_s=float(lead_s),
        trail_silence_s=float(trail_s),
        max_internal_silence_s=internal_s,
        speech_s=float(active.sum()) * HOP_S,
        dc_offset=float(mono.mean(dtype=np.float64)),
        num_bad_samples=bad,
        end_db=float(end_db) - float(np.percentile(levels_db, 95.0)),
    )
