"""Files of which libsndfile reads a part without a word: joined, cut off, without a table."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from corpus import speech_like
from voxadapt.data.audio import AudioError, decode, encode, probe
from voxadapt.data.containers import _mpeg_frame, mpeg_samples

HZ = 24000
SOUND = speech_like(6.0, HZ, 1)


def encoded(kind: str) -> bytes:
    if kind != "OPUS":
        return encode(SOUND, HZ, kind)
    buffer = io.BytesIO()
    sf.write(buffer, SOUND, HZ, format="OGG", subtype="OPUS")
    return buffer.getvalue()


def vbr_without_table() -> bytes:
    """5 s of speech, 10 s of silence, 5 s of speech at a variable rate, its table taken away."""
    buffer = io.BytesIO()
    long = np.concatenate([SOUND, np.zeros(10 * HZ, np.float32), SOUND])
    sf.write(buffer, long, HZ, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    data = buffer.getvalue()
    frame = _mpeg_frame(data, 0)
    assert frame is not None
    return data[frame[0] :]


def with_sizes(whole: int | None, sound: int) -> bytes:
    """A WAV whose header announces a part: the sizes of the file, and of its sound."""
    data = encoded("WAV")
    head = data[:4] + (whole.to_bytes(4, "little") if whole else data[4:8]) + data[8:40]
    return head + sound.to_bytes(4, "little") + data[44:]


BROKEN: dict[str, tuple[str, Callable[[], bytes]]] = {
    **{f"joined {kind}": (kind, lambda kind=kind: encoded(kind) * 2)
       for kind in ("MP3", "OGG", "OPUS", "FLAC", "WAV", "AIFF")},
    **{f"cut off {kind}": (kind, lambda kind=kind: encoded(kind)[: len(encoded(kind)) // 2])
       for kind in ("MP3", "OGG", "OPUS", "FLAC", "WAV", "AIFF")},
    "variable rate without a table": ("MP3", vbr_without_table),
    "a header for a part of the file": ("WAV", lambda: with_sizes(48036, 48000)),
    "a header for a part of the sound": ("WAV", lambda: with_sizes(None, 48000)),
    "joined, with a tag between": ("MP3", lambda: encoded("MP3") + b"ID3\4\0\0\0\0\0\5hello"
                                   + encoded("MP3")),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_part_is_never_taken_for_the_whole(tmp_path: Path, name: str) -> None:
    kind, make = BROKEN[name]
    path = tmp_path / f"clip.{kind.lower()}"
    path.write_bytes(make())
    try:
        truncated = probe(path).is_truncated
        decode(path)
    except AudioError as error:
        assert str(error).isprintable()
    else:
        assert truncated, "the audit refuses it"


@pytest.mark.parametrize("kind", ["MP3", "OGG", "OPUS", "FLAC", "WAV", "AIFF"])
def test_whole_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"clip.{kind.lower()}"
    for data in (encoded(kind), encoded(kind) + b"TAG" + b"x" * 125):
        if kind in ("OGG", "OPUS") and data.endswith(b"x"):
            continue  # nothing follows the pages of an Ogg file
        path.write_bytes(data)
        samples, rate_hz = decode(path)
        assert abs(len(samples) / rate_hz - 6.0) < 0.1
        assert not probe(path).is_truncated


def test_frames_are_counted_in_every_version_of_mpeg() -> None:
    for rate_hz in (8000, 16000, 22050, 24000, 44100, 48000):
        data = encode(speech_like(3.0, rate_hz, 2), rate_hz)
        counted = mpeg_samples(b"ID3\4\0\0\0\0\0\3abc" + data)
        assert counted is not None
        assert abs(counted[0] / rate_hz - 3.0) < 4 * counted[1] / rate_hz
    assert mpeg_samples(b"\xff\xfb no frame at all") is None
