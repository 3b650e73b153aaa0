"""Whether a file holds more, or less, sound than its header lets libsndfile read.

libsndfile believes headers: of joined or cut-off files, and of MP3 files without a table of their
frames, it reads a part without a word. Here the frames and pages are counted.
"""

from mmap import mmap

MPEG_KBIT_S = {
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # by version (2 stands for 2.5 too) and layer
MPEG_RATES_HZ = (44100, 48000, 32000)
#: Encoder delay and padding that a decoder leaves out.
MPEG_SLACK_FRAMES = 4
MAX_LOOSE_SHARE = 0.05  # of a RIFF file's bytes that no chunk holds


def content_problem(
    data: bytes | mmap, container: str, announced: int, decoded: int, rate_hz: int
) -> str | None:
    """Say what is wrong with a file of which libsndfile reads a part, or None."""
    if container == "MP3" and (counted := mpeg_samples(data)) is not None:
        held, samples_per_frame = counted
        slack = MPEG_SLACK_FRAMES * samples_per_frame
        if max(announced, decoded) > held + slack:
            return f"cut off: {held / rate_hz:.1f} of {announced / rate_hz:.1f} s are there"
        if decoded + slack < held:
            return (
                f"a header for {decoded / rate_hz:.1f} of the {held / rate_hz:.1f} s that it holds"
            )
    if container == "OGG":
        return _ogg_problem(data)
    if container == "FLAC" and any(
        data.find(b"fLaC" + last + b"\0\0\x22", 4) > 0 for last in (b"\0", b"\x80")
    ):
        return "several files joined to one, of which the first would be read"
    if data[:4] == b"RIFF" and container in ("WAV", "WAVEX"):
        return _riff_problem(data)
    return None


def _riff_problem(data: bytes | mmap) -> str | None:
    """Walk over the chunks of a RIFF file: the sound ends where the file or a chunk does."""
    at, end = 12, len(data)
    while at + 8 <= end and data[at : at + 4].replace(b" ", b"").isalnum():
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"RIFF":
            return "several files joined to one, of which the first would be read"
        if name == b"data" and size in (0, 2**32 - 1):
            return None  # written by a program that streams: to the end of the file
        at += 8 + size + size % 2
    left = end - at
    if left > MAX_LOOSE_SHARE * end and data[at : at + 3] not in (b"ID3", b"TAG"):
        return f"{100 * left / end:.0f} % of its bytes lie beyond what the header announces"
    return None


def mpeg_samples(data: bytes | mmap) -> tuple[int, int] | None:
    """Count the samples of an MPEG audio file by walking over its frames.

    Samples a channel in whole frames, and samples a frame; None where no frame is found.
    """
    at, total, per_frame, has_synced = 0, 0, 0, True
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
        has_synced = True
        is_table = any(tag in data[at + 4 : at + 60] for tag in (b"Xing", b"Info", b"VBRI"))
        if not is_table and at + length <= len(data):
            total, per_frame = total + samples, samples
        at += length
    return (total, per_frame) if per_frame else None


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
    """Walk over the pages of an Ogg file: one stream, which ends."""
    at, has_begun, is_ended = 0, False, False
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        flags, count = data[at + 5], data[at + 26]
        end = at + 27 + count + sum(data[at + 27 : at + 27 + count])
        if end > len(data):
            break
        if flags & 2 and has_begun:
            return "several streams, of which the first would be read"
        has_begun, is_ended = has_begun or not flags & 2, bool(flags & 4)
        at = end
    return None if is_ended else "cut off: its stream has no end"
