"""Whether a file holds more, or less, sound than its header lets libsndfile read.

libsndfile believes headers: of joined or cut-off files, and of MP3 files without a table of their
frames, it reads a part without a word. Here the frames and pages are counted.
"""

import re
from mmap import mmap
from typing import Final, Literal

#: libsndfile's names of the formats of which it can be told whether they are whole.
CHECKED = ("WAV", "WAVEX", "RF64", "AIFF", "FLAC", "MP3", "OGG")
JOINED = "several files joined to one, of which the first would be read"
BYTE_ORDER: Final[dict[bytes, Literal["little", "big"]]] = {
    b"RIFF": "little", b"RF64": "little", b"RIFX": "big", b"FORM": "big",
}  # fmt: skip

MPEG_KBIT_S = {
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # by version (2 stands for 2.5 too) and layer
MPEG_RATES_HZ = (44100, 48000, 32000)
#: Encoder delay and padding that a decoder leaves out.
MPEG_SLACK_FRAMES = 4
MAX_STATED_BYTES = 0x7F000000  # of sound; programs that stream write more
MAX_LOOSE_SHARE = 0.05  # of a RIFF file's bytes that no chunk holds


def content_problem(
    data: bytes | mmap, container: str, announced: int, decoded: int, rate_hz: int
) -> str | None:
    """Say what is wrong with a file of which libsndfile reads a part, or None."""
    if container not in CHECKED:
        return f"a file of the kind {container}, which may be read in part: write WAV or FLAC"
    if container == "MP3":
        return _mpeg_problem(data, announced, decoded, rate_hz)
    if container == "OGG":
        return _ogg_problem(data)
    if container == "FLAC":
        return _flac_problem(data, announced, rate_hz)
    return _riff_problem(data) if data[:4] in BYTE_ORDER else None


def announced_bytes(head: bytes) -> int | None:
    """Return the length that the first 28 bytes of a RIFF, RF64 or AIFF file announce, if any.

    Sizes of 0 and 2^32-1 stand for 'unknown': programs that stream write them.
    """
    order = BYTE_ORDER.get(head[:4])
    if order is None or head[8:11] not in (b"WAV", b"AIF"):
        return None
    in_table = head[:4] == b"RF64" and head[12:16] == b"ds64"
    size = int.from_bytes(head[20:28] if in_table else head[4:8], order)
    return None if size in (0, 2**32 - 1) else size + 8


def joined_movies(data: bytes | mmap) -> bool:
    """Say whether several MP4 files (m4a, mov, 3gp) are joined to one."""
    at, count = 0, 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        count += data[at + 4 : at + 8] == b"ftyp"
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            break
        at += size
    return count > 1


def _riff_problem(data: bytes | mmap) -> str | None:
    """Walk over the chunks of a RIFF file: the sound ends where the file or a chunk does."""
    at, end, order = 12, len(data), BYTE_ORDER[data[:4]]
    while at + 8 <= end and data[at : at + 4].replace(b" ", b"").isalnum():
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], order)
        if name in BYTE_ORDER:
            return JOINED
        if name == b"data" and size == 2**32 - 1 and data[12:16] == b"ds64":
            size = int.from_bytes(data[28:36], order)
        if name == b"data" and size in (0, 2**32 - 1):
            return None  # written by a program that streams: to the end of the file
        if name == b"data" and at + 8 + size > end + 1 and size < MAX_STATED_BYTES:
            return f"cut off: {end - at - 8:,} of {size:,} bytes of sound are there"
        at += 8 + size + size % 2
    left = end - at
    if left > MAX_LOOSE_SHARE * end and data[at : at + 3] not in (b"ID3", b"TAG"):
        return f"{100 * left / end:.0f} % of its bytes lie beyond what the header announces"
    return None


def _flac_problem(data: bytes | mmap, announced: int, rate_hz: int) -> str | None:
    """Hold the length of a FLAC file against its last frame."""
    starts = [found.start() for found in re.finditer(rb"fLaC[\0\x80]\0\0\x22", data)]
    if len(starts) > 1 or (starts and data[: starts[0]].startswith(b"fLaC")):
        return JOINED
    if not starts:
        return None
    at = first = starts[0] + 4
    block, is_last = int.from_bytes(data[at + 4 : at + 6], "big"), False
    while not is_last and first + 4 <= len(data):
        is_last = bool(data[first] & 0x80)
        first += 4 + int.from_bytes(data[first + 1 : first + 4], "big")
    at = len(data)
    while (at := data.rfind(data[first : first + 2] or b"-", first, at)) >= 0:
        held = _flac_end(data[at : at + 18].ljust(18, b"\0"), data[first : first + 4], block)
        if held is not None and held != announced:
            return f"a header for {announced / rate_hz:.1f} of the {held / rate_hz:.1f} s it holds"
        if held is not None:
            break
    return None


def _flac_end(head: bytes, like: bytes, block: int) -> int | None:
    """Return the samples until the end of the FLAC frame that begins here; None for no frame.

    It is of the rate and depth of the first frame, and its header's sum is right.
    """
    if len(like) < 4 or head[2] & 15 != like[2] & 15 or head[3] & 15 != like[3] & 15:
        return None
    num_ones = 8 - (~head[4] & 0xFF).bit_length()  # as in UTF-8
    end, number = 4 + max(1, num_ones), head[4] & 0x7F >> num_ones
    for byte in head[5:end]:
        number = number << 6 | byte & 0x3F
    code, size = head[2] >> 4, 0
    if code in (6, 7):
        size = int.from_bytes(head[end : end + code - 5], "big") + 1
        end += code - 5
    elif code:
        size = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    end += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    check = 0
    for byte in head[:end]:
        check ^= byte
        for _ in range(8):
            check = (check << 1 ^ (0x07 if check & 0x80 else 0)) & 0xFF
    is_frame = size and num_ones not in (1, 8) and check == head[end]
    return (number if head[1] & 1 else number * block) + size if is_frame else None


def _mpeg_problem(data: bytes | mmap, announced: int, decoded: int, rate_hz: int) -> str | None:
    """Hold the length of an MPEG file against the frames in it."""
    if (counted := mpeg_samples(data)) is None:
        return None
    held, samples_per_frame, is_cut = counted
    slack = MPEG_SLACK_FRAMES * samples_per_frame
    if max(announced, decoded) > held + slack:
        return f"cut off: {held / rate_hz:.1f} of {announced / rate_hz:.1f} s are there"
    if decoded + slack < held:
        return f"a header for {decoded / rate_hz:.1f} of the {held / rate_hz:.1f} s that it holds"
    return "cut off: it ends amid a frame" if is_cut else None


def mpeg_samples(data: bytes | mmap) -> tuple[int, int, bool] | None:
    """Count the samples of an MPEG audio file by walking over its frames.

    Samples a channel in whole frames, samples a frame, and whether the file ends amid a frame; None
    where no whole one is found.
    """
    at, total, per_frame, has_synced, is_cut = 0, 0, 0, True, False
    while at + 4 <= len(data):
        if data[at : at + 3] == b"ID3" and at + 10 <= len(data):
            size = 0
            for byte in data[at + 6 : at + 10]:
                size = size << 7 | byte & 0x7F
            at += 10 + size
            continue
        frame = _mpeg_frame(data, at)
        if frame is not None and not has_synced:  # two bytes of a tag may look like a frame
            following = at + frame[0]
            if following + 4 <= len(data) and _mpeg_frame(data, following) is None:
                frame = None
        if frame is None:
            has_synced = False
            at = data.find(b"\xff", at + 1)
            if at < 0:
                break
            continue
        length, samples = frame
        is_cut = has_synced and at + length > len(data)
        has_synced = True
        is_table = any(tag in data[at + 4 : at + 60] for tag in (b"Xing", b"Info", b"VBRI"))
        if not is_table and at + length <= len(data):
            total, per_frame = total + samples, samples
        at += length
    return (total, per_frame, is_cut) if per_frame else None


def _mpeg_frame(data: bytes | mmap, at: int) -> tuple[int, int] | None:
    """Return bytes and samples of the frame that begins here, None where none does."""
    if data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    rate, bits = data[at + 2] >> 2 & 3, data[at + 2] >> 4
    family = 1 if version == 3 else 2
    table = MPEG_KBIT_S.get((family, layer))
    if version == 1 or table is None or rate == 3 or not 0 < bits < 15:
        return None
    rate_hz = MPEG_RATES_HZ[rate] // {3: 1, 2: 2, 0: 4}[version]
    samples = 576 if (family, layer) == (2, 3) else 1152
    return samples * 125 * table[bits - 1] // rate_hz + (data[at + 2] >> 1 & 1), samples


def _ogg_problem(data: bytes | mmap) -> str | None:
    """Walk over the pages of an Ogg file: one stream, whole, which ends."""
    at, has_begun, is_ended, following = 0, False, False, None
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        flags, count = data[at + 5], data[at + 26]
        end = at + 27 + count + sum(data[at + 27 : at + 27 + count])
        if end > len(data):
            break
        if flags & 2 and has_begun:
            return "several streams, of which the first would be read"
        number = int.from_bytes(data[at + 18 : at + 22], "little")
        if following not in (None, number):
            return f"cut off: page {following} is missing"
        has_begun, is_ended, following = has_begun or not flags & 2, bool(flags & 4), number + 1
        at = end
    return None if is_ended else "cut off: its stream has no end"
