"""Files of which libsndfile reads a part without a word: joined, cut off, without a table."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import speech_like
from properties import examples
from voxadapt.data.audio import AudioError, decode, encode, probe
from voxadapt.data.containers import (
    _mpeg_frame,
    announced_bytes,
    content_problem,
    joined_movies,
    mpeg_samples,
)

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


def written(kind: str, subtype: str = "PCM_16", **options: str) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, SOUND, HZ, format=kind, subtype=subtype, **options)
    return buffer.getvalue()


def flac_of(num_samples: int) -> bytes:
    """6 s of FLAC whose header announces another length."""
    data = encoded("FLAC")
    return data[:22] + num_samples.to_bytes(4, "big") + data[26:]


def ogg_without_a_page(kind: str) -> bytes:
    pages = encoded(kind).split(b"OggS")
    return b"OggS".join(pages[:4] + pages[5:])


TAG = b"ID3\4\0\0\0\0\0\5hello"


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
    "a cut-off file whose length was mended": ("WAV", lambda: with_sizes(144036, 288000)[:144044]),
    **{f"{how} {kind}": (kind, lambda kind=kind, cut=cut: written(kind)[:cut] * (1 if cut else 2))
       for kind in ("AU", "W64", "CAF", "NIST", "VOC", "RF64")
       for how, cut in (("joined", None), ("cut off", -100_000))},
    "joined, big-endian": ("WAV", lambda: written("WAV", endian="BIG") * 2),
    "cut off, big-endian": ("WAV", lambda: written("WAV", endian="BIG")[:-100_000]),
    "joined, tagged FLAC": ("FLAC", lambda: (TAG + encoded("FLAC")) * 2),
    "a header for a part of a FLAC": ("FLAC", lambda: flac_of(3 * HZ)),
    "a header for more than a FLAC": ("FLAC", lambda: flac_of(12 * HZ)),
    "a FLAC without a length": ("FLAC", lambda: flac_of(0)),
    "a page of OGG missing": ("OGG", lambda: ogg_without_a_page("OGG")),
    "a page of OPUS missing": ("OPUS", lambda: ogg_without_a_page("OPUS")),
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
    variants = [encoded(kind)]
    if kind not in ("OGG", "OPUS"):  # nothing follows the pages of an Ogg file
        variants.append(encoded(kind) + b"TAG" + b"x" * 125)
    if kind == "FLAC":
        variants.append(TAG + encoded(kind))
    if kind == "WAV":
        variants += [written("RF64"), written("WAV", endian="BIG"), written("WAV", "PCM_24")]
    for data in variants:
        path.write_bytes(data)
        samples, rate_hz = decode(path)
        assert abs(len(samples) / rate_hz - 6.0) < 0.1
        assert not probe(path).is_truncated


@settings(max_examples=examples(20), deadline=None)
@given(
    num_samples=st.integers(16, 40_000),
    rate_hz=st.sampled_from([8000, 11_000, 12_345, 16_000, 22_050, 44_100, 66_150]),
    subtype=st.sampled_from(["PCM_16", "PCM_24"]),
    level=st.sampled_from([0.0, 0.5]),
)
def test_the_length_of_any_flac_is_found_in_its_last_frame(
    num_samples: int, rate_hz: int, subtype: str, level: float
) -> None:
    noise = level * np.random.default_rng(num_samples).uniform(-1, 1, num_samples)
    buffer = io.BytesIO()
    sf.write(buffer, noise, rate_hz, format="FLAC", subtype=subtype)
    data = buffer.getvalue()
    assert content_problem(data, "FLAC", num_samples, num_samples, rate_hz) is None
    assert content_problem(data, "FLAC", num_samples - 1, 0, rate_hz) is not None


@pytest.mark.slow
def test_frames_are_counted_in_every_version_of_mpeg() -> None:
    for rate_hz in (8000, 16000, 22050, 24000, 44100, 48000):
        data = encode(speech_like(3.0, rate_hz, 2), rate_hz)
        counted = mpeg_samples(b"ID3\4\0\0\0\0\0\3abc" + data)
        assert counted is not None
        assert abs(counted[0] / rate_hz - 3.0) < 4 * counted[1] / rate_hz
    assert mpeg_samples(b"\xff\xfb no frame at all") is None


# --- written byte by byte ------------------------------------------------------------------------

RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
STEPS = [*range(64, 128, 16), *range(128, 256, 32)]
KBIT_S = {  # ISO 11172-3 and 13818-3, as runs of equal steps
    (True, 3): [*range(32, 64, 8), *STEPS, 256, 320],
    (True, 2): [32, *range(48, 64, 8), *STEPS, *range(256, 385, 64)],
    (False, 3): [*range(8, 64, 8), *range(64, 161, 16)],
    (False, 2): [*range(8, 64, 8), *range(64, 161, 16)],
}


def head(version: int, layer: int, bits: int, rate: int, padded: int = 0) -> bytes:
    """Return the four bytes that begin an MPEG frame; version 3 is MPEG 1."""
    return bytes(
        [0xFF, 0xE1 | version << 3 | (4 - layer) << 1, bits << 4 | rate << 2 | padded << 1, 0]
    )


@pytest.mark.parametrize("version", [3, 2, 0])
@pytest.mark.parametrize("layer", [2, 3])
def test_every_frame_has_the_length_that_the_standard_gives_it(version: int, layer: int) -> None:
    samples = 576 if layer == 3 and version != 3 else 1152
    for index, kbit_s in enumerate(KBIT_S[version == 3, layer], start=1):
        for rate, rate_hz in enumerate(RATES_HZ[version]):
            for padded in (0, 1):
                length = samples * kbit_s * 1000 // 8 // rate_hz + padded
                data = b"x" + head(version, layer, index, rate, padded)
                assert _mpeg_frame(data, 1) == (length, samples)


@pytest.mark.parametrize(
    "data",
    [head(1, 3, 9, 0), head(3, 1, 9, 0), head(3, 4, 9, 0), head(3, 3, 0, 0), head(3, 3, 15, 0),
     head(3, 3, 9, 3), b"\xfe\xfb\x90\0", b"\xff\xdb\x90\0", b"\xff\x1b\x90\0"],
)  # fmt: skip
def test_what_no_frame_begins_with_is_none(data: bytes) -> None:
    """A reserved version, layer, rate and bit rate, and bytes that are no sync word."""
    assert _mpeg_frame(data, 0) is None


HEAD = head(3, 3, 9, 0)  # 128 kbit/s at 44.1 kHz: 417 bytes, 1152 samples
FRAME = HEAD + bytes(413)


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (FRAME, 1),
        (FRAME * 7, 7),
        (FRAME * 7 + FRAME[:-1], 7),  # the last one is cut off
        (FRAME * 7 + FRAME[:3], 7),
        (FRAME * 2 + b"\xff", 2),
        (b"ID3\4\0\0\0\0\1\2" + FRAME[:130] + FRAME * 3, 3),  # a tag of 130 bytes
        (b"ID3\4\0\0\0\0\1\2" + bytes(129) + b"\xff" + FRAME * 3, 3),
        (b"ID3\4\0\0\0\0\6\x42" + FRAME * 5, 3),  # a tag of 834 bytes that look like two frames
        (FRAME + b"ID3\4\0\0\0\0\6\x42" + FRAME * 4, 3),
        (b"noise" + FRAME * 3, 3),
        (b"noise" + HEAD + b"noise" + FRAME * 3, 3),  # looks like a frame, and none follows
        (b"noise" + FRAME, 1),  # nothing follows the last one
        (FRAME * 2 + b"\xff\xfbnoise" + FRAME * 2, 4),
        (HEAD + b"Xing" + bytes(409) + FRAME * 3, 3),  # the table of the others
        (HEAD + bytes(32) + b"Info" + bytes(377) + FRAME * 3, 3),
        (HEAD + bytes(52) + b"VBRI" + bytes(357) + FRAME * 3, 3),
        (HEAD + bytes(53) + b"VBRI" + bytes(356) + FRAME * 3, 4),  # too far inside for a table
    ],
)
def test_frames_are_walked_over(data: bytes, frames: int) -> None:
    counted = mpeg_samples(data)
    assert counted is not None and counted[:2] == (1152 * frames, 1152)


@pytest.mark.parametrize("data", [b"", b"\xff", b"ID3\4\0\0\0\0\0", FRAME[:-1], b"\xff" * 9])
def test_without_a_whole_frame_nothing_is_counted(data: bytes) -> None:
    assert mpeg_samples(data) is None


@pytest.mark.parametrize(
    ("announced", "decoded", "problem"),
    [
        (14 * 1152, 14 * 1152, None),  # four frames more than there are: a decoder's delay
        (14 * 1152 + 1, 0, "cut off: 0.3 of 0.4 s"),
        (0, 14 * 1152 + 1, "cut off: 0.3 of 0.0 s"),
        (10 * 1152, 6 * 1152, None),
        (10 * 1152, 6 * 1152 - 1, "a header for 0.2 of the 0.3 s"),
    ],
)
def test_a_length_may_differ_by_a_decoders_delay(
    announced: int, decoded: int, problem: str | None
) -> None:
    found = content_problem(FRAME * 10, "MP3", announced, decoded, 44100)
    assert (found is None) if problem is None else (found is not None and problem in found)
    assert content_problem(FRAME * 10, "AIFF", announced, decoded, 44100) is None


def test_a_file_without_a_table_that_ends_amid_a_frame_is_cut_off() -> None:
    for data, problem in (
        (FRAME * 9, None),
        (FRAME * 9 + b"TAG" + bytes(125), None),
        (FRAME * 9 + b"APETAGEX" + HEAD + bytes(40), None),  # in a tag that looks like a frame
        (FRAME * 9 + FRAME[:200], "cut off: it ends amid a frame"),
        (FRAME * 9 + FRAME[:-1], "cut off: it ends amid a frame"),
    ):
        assert content_problem(data, "MP3", 9 * 1152, 9 * 1152, 44100) == problem


def riff(*chunks: tuple[bytes, bytes], after: bytes = b"") -> bytes:
    """Return a RIFF file of chunks."""
    body = b"".join(
        name + len(data).to_bytes(4, "little") + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WAVE" + body + after


FORMAT, SAMPLES = (b"fmt ", bytes(16)), (b"data", bytes(956))  # 1000 bytes with the header


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (riff(FORMAT, SAMPLES), None),
        (riff(FORMAT, (b"LIST", b"odd"), SAMPLES), None),
        (riff(FORMAT, SAMPLES, after=b"\0" * 52), None),  # 52 of 1052 bytes: 4.9 %
        (riff(FORMAT, SAMPLES, after=b"\0" * 53), "5 % of its bytes"),
        (riff(FORMAT, SAMPLES, after=b"\0" * 1000), "50 % of its bytes"),
        (riff(FORMAT, SAMPLES, after=b"ID3" + b"\0" * 1000), None),
        (riff(FORMAT, SAMPLES, after=b"TAG" + b"\0" * 1000), None),
        (riff(FORMAT, SAMPLES) * 2, "several files joined"),
        (riff(FORMAT, (b"data", b""), after=b"\0" * 1000), None),  # written as it came
    ],
)  # fmt: skip
def test_chunks_of_a_wav_are_walked_over(data: bytes, problem: str | None) -> None:
    for container in ("WAV", "WAVEX"):
        found = content_problem(data, container, 0, 0, 8000)
        assert (found is None) if problem is None else (found is not None and problem in found)
    assert content_problem(b"RIFX" + data[4:], "WAV", 0, 0, 8000) is None


def test_a_stream_of_unknown_length_goes_to_the_end() -> None:
    data = riff(FORMAT, SAMPLES, after=bytes(1000))
    at = data.index(b"data") + 4
    for size, is_fine in ((2**32 - 1, True), (0, True), (956, False), (1, False)):
        changed = data[:at] + size.to_bytes(4, "little") + data[at + 4 :]
        assert (content_problem(changed, "WAV", 0, 0, 8000) is None) == is_fine


def page(flags: int, *segments: int) -> bytes:
    """Return an Ogg page with segments of zeros."""
    return (
        b"OggS\0"
        + bytes([flags])
        + bytes(20)
        + bytes([len(segments), *segments])
        + bytes(sum(segments))
    )


def numbered(data: bytes) -> bytes:
    """Number the pages of a file from 0 on."""
    first, *pages = data.split(b"OggS")
    done = [page[:14] + n.to_bytes(4, "little") + page[18:] for n, page in enumerate(pages)]
    return b"OggS".join([first, *done])


FIRST, INNER, LAST = page(2, 19), page(0, 255, 40), page(4, 7)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (FIRST + INNER * 3 + LAST, None),
        (FIRST + page(4), None),
        (FIRST + INNER + page(1, 255, 30) + page(5, 9), None),  # pages that go on with a packet
        (FIRST + INNER, "cut off"),
        (FIRST + INNER + LAST[:-1], "cut off"),
        (FIRST + INNER + LAST[:26], "cut off"),
        (FIRST + INNER[:-1], "cut off"),
        ((FIRST + INNER + LAST) * 2, "several streams"),
        (FIRST + FIRST + INNER + LAST, None),  # two streams side by side begin together
        (FIRST + INNER + b"junk" + LAST, "cut off"),
        (FIRST + LAST + INNER, "cut off"),
        (b"", "cut off"),
    ],
)
def test_pages_of_an_ogg_file_are_walked_over(data: bytes, problem: str | None) -> None:
    found = content_problem(numbered(data), "OGG", 0, 0, 8000)
    assert (found is None) if problem is None else (found is not None and problem in found)


def test_a_page_that_is_missing_is_named() -> None:
    data = numbered(FIRST + INNER * 3 + LAST)
    without = data.replace(data[len(FIRST) :][: len(INNER)], b"")
    assert "page 1 is missing" in str(content_problem(without, "OGG", 0, 0, 8000))


@pytest.mark.parametrize("last", [b"\0", b"\x80"])
def test_a_second_flac_in_the_file_is_seen(last: bytes) -> None:
    one = b"fLaC" + last + b"\0\0\x22" + bytes(40)
    assert content_problem(one, "FLAC", 0, 0, 8000) is None
    for between in (b"", b"x", b"xyz"):
        assert "joined" in str(content_problem(one + between + one, "FLAC", 0, 0, 8000))
    assert "joined" in str(content_problem(b"fLaC" + one, "FLAC", 0, 0, 8000))
    assert content_problem(one + b"fLaC" + bytes(40), "FLAC", 0, 0, 8000) is None


@pytest.mark.parametrize(
    ("head", "announced"),
    [
        (b"RIFF" + (36).to_bytes(4, "little") + b"WAVEfmt ", 44),
        (b"FORM" + (36).to_bytes(4, "big") + b"AIFFCOMM", 44),
        (b"RF64" + b"\xff" * 4 + b"WAVEds64" + bytes(4) + (5 << 32).to_bytes(8, "little"),
         (5 << 32) + 8),
        (b"RIFF" + b"\xff" * 4 + b"WAVEfmt ", None),
        (b"RIFF" + (36).to_bytes(4, "little") + b"AVI LIST", None),
    ],
)  # fmt: skip
def test_the_length_that_a_header_announces(head: bytes, announced: int | None) -> None:
    assert announced_bytes(head.ljust(28, b"\0")) == announced


def test_movies_are_walked_box_by_box() -> None:
    def box(kind: bytes, size: int) -> bytes:
        return (8 + size).to_bytes(4, "big") + kind + bytes(size)

    one = box(b"ftyp", 300) + box(b"mdat", 1000)
    assert not joined_movies(one) and joined_movies(one + one)
