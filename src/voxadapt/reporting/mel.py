"""Mel spectrograms small enough for a page with a hundred clips: pictures of time and loudness.

One scale for all: the same decibels, the same bands, the same seconds per pixel until a clip is
so long that its columns are merged. The picture is one colour with the level as its opacity, so
that it can be read on light and on dark paper. Nothing here depends on an imaging library, whose
next version might write other bytes.
"""

import base64
import struct
import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

NUM_BANDS = 48
MAX_COLUMNS = 240
HOP_S = 0.016
WINDOW_S = 0.04
BAND_RANGE_HZ = (80.0, 7600.0)
LEVELS_DB = (-72.0, -10.0)  # transparent and opaque, against a full-scale sine in one band
COLOUR = (0x24, 0x8F, 0x83)
NUM_LEVELS = 12
BITS = 4  # a pixel


@cache
def _bands(num_bins: int, rate_hz: int) -> NDArray[np.float64]:
    """Return triangular mel filters, [bands, bins]; above half the rate they are empty."""

    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        return 2595.0 * np.log10(1.0 + hz / 700.0)

    low, high = mel(np.asarray(BAND_RANGE_HZ))
    edges = np.linspace(low, high, NUM_BANDS + 2)
    bins = mel(np.linspace(0.0, rate_hz / 2, num_bins))
    rise = (bins - edges[:-2, None]) / (edges[1] - edges[0])
    fall = (edges[2:, None] - bins) / (edges[1] - edges[0])
    filters: NDArray[np.float64] = np.clip(np.minimum(rise, fall), 0.0, None)
    return filters


def levels(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.uint8]:
    """Measure the level of each band over time, in steps from 0 (silence) to `NUM_LEVELS` - 1.

    Returns:
        Steps, [bands from high to low, columns], at most `MAX_COLUMNS` columns.
    """
    window, hop = max(16, round(WINDOW_S * rate_hz)), max(1, round(HOP_S * rate_hz))
    padded = np.pad(np.asarray(samples, dtype=np.float64), (0, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: len(samples) : hop]
    taper = np.hanning(window)
    power = np.abs(np.fft.rfft(frames * taper, axis=1) / (taper.sum() / 2)) ** 2
    bands = _bands(power.shape[1], rate_hz) @ power.T
    merged = -(-bands.shape[1] // MAX_COLUMNS)
    starts = np.arange(0, bands.shape[1], merged)
    bands = np.maximum.reduceat(bands, starts, axis=1)
    low_db, high_db = LEVELS_DB
    share = (10 * np.log10(np.maximum(bands, 1e-12)) - low_db) / (high_db - low_db)
    return np.round(np.clip(share, 0.0, 1.0) * (NUM_LEVELS - 1)).astype(np.uint8)[::-1]


def picture_uri(samples: NDArray[np.float32], rate_hz: int) -> str:
    """Draw a clip of one channel as a PNG data URI, one pixel a band and column."""
    return "data:image/png;base64," + base64.b64encode(_png(levels(samples, rate_hz))).decode()


def _png(steps: NDArray[np.uint8]) -> bytes:
    """Write steps as a PNG with a palette, two pixels a byte; opacity is the step."""
    height, width = steps.shape
    even = np.pad(steps, ((0, 0), (0, width % 2)))
    rows = even[:, ::2] << BITS | even[:, 1::2]
    raw = b"".join(b"\x00" + row.tobytes() for row in rows)
    opacity = bytes(round(255 * step / (NUM_LEVELS - 1)) for step in range(NUM_LEVELS))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, BITS, 3, 0, 0, 0)),
        (b"PLTE", bytes(COLOUR) * NUM_LEVELS),
        (b"tRNS", opacity),
        (b"IDAT", zlib.compress(raw, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
