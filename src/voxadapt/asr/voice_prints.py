"""Voices by Resemblyzer: one unit vector a clip, batched over clips.

Embeddings are those of the stock `preprocess_wav` and `embed_utterance`: the same resampling,
loudness, voice activity detection and 1.6 s partials. The LSTM runs on the partials of many clips
at once, spectra are taken in one call a clip, and window and mel filters are built once. What then
remains is the LSTM's arithmetic at the processor's own limit: see benchmarks/RESULTS.md.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

with warnings.catch_warnings():
    # webrtcvad imports pkg_resources, Resemblyzer a deprecated scipy name; nothing to act on.
    warnings.simplefilter("ignore")
    import resemblyzer
    import webrtcvad
    from resemblyzer import hparams

from voxadapt.core.executor import worker_device
from voxadapt.core.files import sha256_file
from voxadapt.data.audio import read_audio, resample

PARTIALS_PER_SECOND = 1.3  # default of embed_utterance
MIN_COVERAGE = 0.75
WINDOW_FRAMES, WINDOW_STEP = 100, 50  # of spectra, 10 ms each: windows of a second, overlapping
MAX_PARTIALS = 32  # per LSTM batch: states and gates of more do not stay in a core's cache
RATE_HZ = hparams.sampling_rate
FFT_SIZE = RATE_HZ * hparams.mel_window_length // 1000
HOP = RATE_HZ * hparams.mel_window_step // 1000

Wave = NDArray[np.float32]
Audio = str | Path | tuple[Wave, int]  # a file, or samples with their rate in hertz


def speech_only(wav: Wave, sample_rate_hz: int) -> Wave:
    """Resample to 16 kHz, raise to -30 dBFS and cut long silences, as `preprocess_wav` does.

    Of mono samples, [N]; the result is empty when no voice is found.
    """
    wav = resample(wav, sample_rate_hz, RATE_HZ)
    power = float(np.mean((wav * 32767) ** 2)) if len(wav) else 0.0
    if power == 0.0:
        return np.zeros(0, np.float32)
    gain_db = hparams.audio_norm_target_dBFS - 20 * np.log10(np.sqrt(power) / 32767)
    if gain_db > 0:
        wav = wav * np.float32(10 ** (gain_db / 20))
    window = hparams.vad_window_length * RATE_HZ // 1000
    wav = wav[: len(wav) - len(wav) % window]
    if not len(wav):
        return np.zeros(0, np.float32)
    pcm = np.round(wav * 32767).astype(np.int16).tobytes()
    detector = webrtcvad.Vad(mode=3)
    size = 2 * window  # bytes
    frames = [pcm[start : start + size] for start in range(0, len(pcm), size)]
    voiced = np.array([detector.is_speech(frame, RATE_HZ) for frame in frames], dtype=float)
    width = hparams.vad_moving_average_width
    padded = np.concatenate([np.zeros((width - 1) // 2), voiced, np.zeros(width // 2)])
    totals = np.cumsum(padded)
    totals[width:] -= totals[:-width].copy()
    keep = np.round(totals[width - 1 :] / width).astype(bool)
    keep = binary_dilation(keep, np.ones(hparams.vad_max_silence_length + 1))
    return np.asarray(wav[np.repeat(keep, window)])


@dataclass(frozen=True)
class VoicePrint:
    """The voice of one clip."""

    #: Unit vector, [256]; None when the clip has no speech at all.
    embedding: NDArray[np.float32] | None
    speech_s: float  # seconds of speech behind it
    #: Unit vectors of each second of it, see `Embedder.embed_windows`, [W, 256]; None where they
    #: were not asked for.
    windows: NDArray[np.float32] | None = None


class Embedder:
    """Resemblyzer's encoder with its own weights, run on many clips at once.

    Its `id` names version and weights; `reload` loads the same encoder in another process.
    """

    def __init__(self, device: str = "cpu") -> None:
        weights = Path(resemblyzer.__file__).with_name("pretrained.pt")
        # Resemblyzer unpickles this file as torch's defaults and environment have it; a file that
        # is plain weights runs nothing however it is read.
        torch.load(weights, map_location="cpu", weights_only=True)
        self._encoder = resemblyzer.VoiceEncoder(device, verbose=False).eval()
        self._filters = _mel_filters()
        turns = np.linspace(-np.pi, np.pi, FFT_SIZE + 1)[:-1]
        self._window = (0.5 + 0.5 * np.cos(turns)).astype(np.float32)  # Hann's
        version = metadata.version("Resemblyzer")
        self.id = f"resemblyzer-{version}+{sha256_file(weights)[:8]}"
        self.device = worker_device(device)
        self.reload = partial(Embedder, self.device)

    def prepare(self, audio: Audio) -> Wave:
        """Return the speech of a file, or of samples with their rate, at 16 kHz."""
        wav, sample_rate_hz = audio if isinstance(audio, tuple) else read_audio(audio)
        return speech_only(wav, sample_rate_hz)

    def embed(self, clips: Sequence[Audio]) -> list[VoicePrint]:
        """Embed files, or samples with their rate."""
        return self.embed_speech([self.prepare(clip) for clip in clips])

    def embed_speech(self, speeches: Sequence[Wave]) -> list[VoicePrint]:
        """Embed clips that `prepare` has returned: speech at 16 kHz, one array a clip."""
        owners: list[int] = []
        partials: list[NDArray[np.float32]] = []
        for index, speech in enumerate(speeches):
            if len(speech):
                found = self._partials(speech)
                partials.extend(found)
                owners.extend([index] * len(found))
        sums = np.zeros((len(speeches), hparams.model_embedding_size), np.float32)
        counts = np.bincount(np.array(owners, np.intp), minlength=len(speeches))
        np.add.at(sums, owners, self._encode(partials))
        prints = []
        for speech, total, count in zip(speeches, sums, counts, strict=True):
            unit = total / np.linalg.norm(total) if count else None
            prints.append(VoicePrint(unit, len(speech) / RATE_HZ))
        return prints

    def embed_windows(self, speeches: Sequence[Wave]) -> list[NDArray[np.float32]]:
        """Embed each second of clips that `prepare` has returned.

        Of each clip: unit vectors of windows of one second that begin every half second, the last
        one at the clip's end, [W, 256]; none for a clip that is shorter.
        """
        counts, windows = [], []
        for speech in speeches:
            mel = self._mel(speech)
            last = len(mel) - WINDOW_FRAMES
            starts = sorted({*range(0, last + 1, WINDOW_STEP), last}) if last >= 0 else []
            windows += [mel[start : start + WINDOW_FRAMES] for start in starts]
            counts.append(len(starts))
        return np.split(self._encode(windows), np.cumsum(counts)[:-1])

    def _encode(self, partials: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Run the LSTM on spectra of one length: unit vectors, [N, 256]."""
        vectors = [np.zeros((0, hparams.model_embedding_size), np.float32)]
        for start in range(0, len(partials), MAX_PARTIALS):
            batch = torch.from_numpy(np.stack(partials[start : start + MAX_PARTIALS]))
            with torch.inference_mode():
                vectors.append(self._encoder(batch.to(self._encoder.device)).cpu().numpy())
        return np.concatenate(vectors)

    def _partials(self, speech: Wave) -> list[NDArray[np.float32]]:
        """Cut a clip into overlapping mel partials, [160, 40] each."""
        wav_slices, mel_slices = self._encoder.compute_partial_slices(
            len(speech), PARTIALS_PER_SECOND, MIN_COVERAGE
        )
        mel = self._mel(speech, wav_slices[-1].stop)
        return [mel[part] for part in mel_slices]

    def _mel(self, speech: Wave, num_samples: int = 0) -> NDArray[np.float32]:
        """Return mel spectra every 10 ms, [N, 40], of a clip that is completed with zeros."""
        edge = FFT_SIZE // 2
        padded = np.pad(speech, (edge, max(0, num_samples - len(speech)) + edge))
        frames = sliding_window_view(padded, FFT_SIZE)[::HOP]
        spectrum = np.fft.rfft(frames * self._window)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        return np.asarray(power @ self._filters)


def _mel_filters() -> NDArray[np.float32]:
    """Return `librosa.filters.mel` of these sizes, `[201, 40]`, whose import takes a second.

    Triangles between points of Slaney's mel scale, which is a line up to 1 kHz, of equal area.
    """
    line_end, log_step = 1000.0 / (200.0 / 3), np.log(6.4) / 27.0
    highest = line_end + np.log(RATE_HZ / 2 / 1000.0) / log_step
    mels = np.linspace(0.0, highest, hparams.mel_n_channels + 2)
    above = 1000.0 * np.exp(log_step * (mels - line_end))
    points_hz = np.where(mels >= line_end, above, 200.0 / 3 * mels)
    ramps = np.subtract.outer(points_hz, np.fft.rfftfreq(FFT_SIZE, 1.0 / RATE_HZ))
    widths = np.diff(points_hz)[:, None]
    rising, falling = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]
    filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2.0 / (points_hz[2:] - points_hz[:-2]))[:, None]
    return np.ascontiguousarray(filters.T)
