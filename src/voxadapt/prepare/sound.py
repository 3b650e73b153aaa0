"""Sound of a source as clips: cut, converted by ffmpeg, loaded by lhotse, trimmed."""

import io
import shutil
import subprocess
from collections.abc import Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from voxadapt.core.files import replacing, write_atomic
from voxadapt.core.problems import user_error
from voxadapt.data.audio import (
    HOP_S,
    MAX_PEAK,
    MIN_MIXED_LEVEL,
    AudioError,
    decode,
    measure,
    mixed_level,
    probe,
    refuse_part,
    to_mono,
)
from voxadapt.data.containers import JOINED, joined_movies

#: Formats that ffmpeg may read: no playlists, which name other files.
FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav,webm"
)
OTHER_CONTAINERS = {
    ".m4a", ".aac", ".wma", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".amr", ".caf", ".3gp",
}  # fmt: skip
#: What libsndfile refuses of these, ffmpeg reads in part.
LIBSNDFILE = (b"RIFF", b"RIFX", b"FORM", b"fLaC", b"RF64")
CONTAINERS = ("MP3", "OGG")  # of which ffmpeg reads what libsndfile does not
NO_FFMPEG = "ffmpeg, which reads it, is not installed"
LENGTH_SLACK_S = 0.1
TRIM_FROM_S = 0.3  # a longer silence at an edge is trimmed
TRIM_TO_S = 0.15


def needs_ffmpeg(path: Path) -> bool:
    """Tell whether ffmpeg has to read a file, because libsndfile reads a part of it, or nothing.

    Raises:
        AudioError: When the file is broken or no audio, or when there is no ffmpeg.
    """
    container = CONTAINERS[0]
    try:
        info = probe(path)
        container = info.container
        if info.is_truncated:
            raise AudioError("cut off: fewer bytes than its header announces")
        refuse_part(path, info, info.num_samples)  # recordings of hours are not decoded for it
        return False
    except AudioError as error:
        with open(path, "rb") as stream:
            magic = stream.read(4)
        if "cut off" in str(error) or magic in LIBSNDFILE or container not in CONTAINERS:
            raise
        if shutil.which("ffmpeg") is None:
            raise AudioError(f"libsndfile cannot read it whole; {NO_FFMPEG}") from None
        if _stated(path, "stream=codec_type") == "":
            raise
        return True


def convert(source: Path, target: Path) -> None:
    """Write the first audio stream of a file as FLAC at its own rate, with ffmpeg.

    Raises:
        AudioError: When ffmpeg cannot read the file whole.
    """
    with open(source, "rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as data:
        if joined_movies(data):
            raise AudioError(JOINED)
    if len(set((_stated(source, "stream=index", "a") or "").split())) > 1:
        raise AudioError("several streams of sound, of which the first would be read")
    with replacing(target) as part:
        command = [
            "ffmpeg", "-nostdin", "-v", "error", "-xerror", "-y", "-protocol_whitelist", "file",
            "-format_whitelist", FFMPEG_FORMATS, "-i", f"file:{source.resolve()}",
            "-map", "0:a:0", "-vn", "-f", "flac", "-bitexact", f"file:{part.resolve()}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip().splitlines()
            raise AudioError(f"ffmpeg cannot read it whole ({(told or ['no audio'])[-1][:100]})")
        read_s = probe(part).duration_s
        is_guessed = source.suffix.lower() in (".mp3", ".aac")  # without a header for the whole
        try:
            stated_s = 0.0 if is_guessed else float(_stated(source, "format=duration") or 0.0)
        except ValueError:
            stated_s = 0.0
        if read_s < 0.98 * stated_s - 0.5:
            raise AudioError(f"cut off: {read_s:.1f} of {stated_s:.1f} s are there")


def _stated(source: Path, entry: str, streams: str = "a:0") -> str | None:
    """Return what ffprobe says of streams, empty where there is none; None without ffprobe."""
    program = shutil.which("ffprobe")
    if program is None:
        return None
    command = [
        program, "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", FFMPEG_FORMATS,
        "-select_streams", streams, "-show_entries", entry, "-of", "csv=p=0",
        f"file:{source.resolve()}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def cut_clip(source: Path, target: Path, start_s: float, length_s: float) -> None:
    """Write a part of a file as FLAC, at its own rate.

    Raises:
        AudioError: When the part leaves the file, or is no sound.
    """
    with sf.SoundFile(source) as stream:
        total_s = stream.frames / stream.samplerate
        if start_s + length_s > total_s + LENGTH_SLACK_S:
            raise AudioError(f"{start_s:g} s + {length_s:g} s in a file of {total_s:.2f} s")
        stream.seek(min(round(start_s * stream.samplerate), stream.frames - 1))
        samples = stream.read(round(length_s * stream.samplerate), dtype="float32", always_2d=True)
        rate_hz, subtype = stream.samplerate, stream.subtype
    write_sound(target, sound_mono(samples), rate_hz, "FLAC", depth(subtype))


def sound_mono(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average channels, [num_samples, num_channels] to [num_samples].

    Raises:
        AudioError: When they cancel each other, are no numbers, or integers.
    """
    if not np.abs(samples).max(initial=0.0) <= MAX_PEAK:
        raise AudioError("samples that are no numbers, or not of -1 to 1")
    if (level := mixed_level(samples)) < MIN_MIXED_LEVEL:
        raise AudioError(f"channels that cancel each other: {100 * level:.0f} % is left")
    return to_mono(samples)


def load_cut(cut: Mapping[str, Any], source: Path, target: Path) -> None:
    """Write a cut as lhotse loads it, transforms and all, as FLAC.

    Raises:
        AudioError: When lhotse cannot load it, or finds another length or channel.
        UserError: When lhotse is not installed.
    """
    try:
        from lhotse.serialization import deserialize_item
    except ImportError:
        raise user_error("prepare.lhotse", "lhotse") from None
    info = probe(source)
    try:
        recording = dict(cut["recording"])
        recording["sources"] = [{**recording["sources"][0], "source": str(source)}]
        stated_s = recording["num_samples"] / recording["sampling_rate"]
        stated = f"{stated_s:.2f} s at {recording['sampling_rate']} Hz"
        is_other = info.sample_rate_hz != recording["sampling_rate"]
        if not recording.get("transforms") and (
            is_other or abs(info.duration_s - stated_s) > LENGTH_SLACK_S
        ):
            told = f"{info.duration_s:.2f} s at {info.sample_rate_hz} Hz"
            raise AudioError(f"{told}; its recording says {stated}")
        channels = recording["sources"][0].get("channels", [0])
        if cut["channel"] not in channels or len(channels) != info.num_channels:
            raise AudioError(
                f"{info.num_channels} channels; the cut has channel {cut['channel']} of {channels}"
            )
        loaded = deserialize_item({**cut, "recording": recording})
        samples, rate_hz = loaded.load_audio(), loaded.sampling_rate
    except AudioError:
        raise
    except Exception as error:  # lhotse's own types, assertions, those of its back-ends
        reason = " ".join(str(error).split())[:100]
        raise AudioError(f"lhotse cannot load it ({type(error).__name__}: {reason})") from None
    seconds = samples.shape[-1] / rate_hz
    if abs(seconds - cut["duration"]) > LENGTH_SLACK_S or len(samples) != 1:
        raise AudioError(f"{seconds:.2f} s; the cut says {cut['duration']:.2f} s")
    write_sound(target, samples[0], rate_hz, "FLAC", depth(sf.info(source).subtype))


def depth(subtype: str) -> str:
    """Return the PCM subtype that holds what libsndfile's `subtype` does, as far as FLAC can."""
    return "PCM_24" if subtype in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE") else "PCM_16"


def write_sound(
    target: Path, samples: NDArray[np.float32], rate_hz: int, kind: str, subtype: str
) -> None:
    """Write [num_samples] as a file of libsndfile's `kind` and `subtype`, whole or not at all.

    Raises:
        AudioError: When samples are no numbers.
    """
    if not np.isfinite(samples).all():
        raise AudioError("samples that are no numbers")
    stream = io.BytesIO()
    sf.write(stream, np.clip(samples, -1.0, 1.0), rate_hz, format=kind, subtype=subtype)
    write_atomic(target, stream.getvalue())


def trim(path: Path, target: Path) -> tuple[float, float]:
    """Write a clip without long silence at its edges as FLAC.

    Seconds taken away before and after the speech are returned; nothing is written for none.

    Raises:
        AudioError: When it cannot be read.
    """
    samples, rate_hz = decode(path)
    found = measure(samples, rate_hz)
    lead_s, trail_s = (
        max(0.0, edge_s - TRIM_TO_S) if edge_s > TRIM_FROM_S and found.speech_s else 0.0
        for edge_s in (found.lead_silence_s, found.trail_silence_s)
    )
    if max(lead_s, trail_s) < HOP_S:
        return 0.0, 0.0
    first, end = round(lead_s * rate_hz), len(samples) - round(trail_s * rate_hz)
    write_sound(target, samples[first:end], rate_hz, "FLAC", depth(sf.info(path).subtype))
    return round(lead_s, 3), round(trail_s, 3)
