"""The reference clip: proposed by what the audit measures, with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from voxadapt.core.params import AuditParams
from voxadapt.data.audio import Measurements, frame_levels_db, measure, read_mono, speech_frames
from voxadapt.data.text import num_spoken_characters

WANTED_S = (5.0, 10.0)  # the audit takes no reference above 10 s
BEST_S = 7.0
MAX_PAUSE_S = 0.7
MAX_LEVEL_DB = 3.0  # from the median of the clips
MAX_PACE = 0.15  # the same, as a share
SNR_STEP_DB = 6.0
MAX_JOINED = 4
RULE = (
    f"Of the clips of {WANTED_S[0]:g} to {WANTED_S[1]:g} s, and of 2 to {MAX_JOINED} neighbouring "
    "clips that are as long together, the one with the fewest faults: clipping, noise, a pause of "
    f"more than {MAX_PAUSE_S:g} s, a level more than {MAX_LEVEL_DB:g} dB from the median, a pace "
    f"more than {100 * MAX_PACE:.0f} % from it. Of these the one of fewest clips, then the highest "
    f"SNR in steps of {SNR_STEP_DB:g} dB, then the length nearest to {BEST_S:g} s. Where there is "
    "none, the same among clips of 3 to 10 s."
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One clip, measured."""

    clip: str  # path in the data folder
    recording: str  # name of its recording
    order: int  # place of the clip in its recording
    text: str  # transcript
    duration_s: float  # length
    found: Measurements  # what the audit measures
    level_db: float  # mean level of its speech, dB of full scale
    pace: float | None  # letters per second of speech; None without a text


@dataclass(frozen=True, slots=True)
class Proposal:
    """The proposed reference."""

    clips: tuple[str, ...]  # one clip, or neighbours that are joined
    why: str  # what speaks for it, in one sentence
    faults: tuple[str, ...]  # what speaks against it


def measure_clip(root: Path, clip: str, recording: str, order: int, text: str) -> Candidate:
    """Measure one clip.

    Raises:
        AudioError: When it cannot be read.
    """
    mono, rate_hz = read_mono(root / clip)
    found = measure(mono, rate_hz)
    levels_db = frame_levels_db(mono, rate_hz)
    active = speech_frames(levels_db)
    power = np.mean(10.0 ** (levels_db[active] / 10.0)) if active.any() else 1e-10
    pace = num_spoken_characters(text) / found.speech_s if text and found.speech_s else None
    level_db = float(10.0 * np.log10(power))
    return Candidate(clip, recording, order, text, len(mono) / rate_hz, found, level_db, pace)


def propose(candidates: Sequence[Candidate], limits: AuditParams) -> Proposal | None:
    """Propose a reference by `RULE`; None where no clip, and no neighbours, are long enough."""
    if not candidates:
        return None
    level_db = float(np.median([item.level_db for item in candidates]))
    paces = [item.pace for item in candidates if item.pace is not None]
    pace = float(np.median(paces)) if paces else None
    for low_s, high_s in (WANTED_S, limits.ref_duration_s):
        ranked = []
        for count in range(1, MAX_JOINED + 1):
            for start in range(len(candidates) - count + 1):
                run = candidates[start : start + count]
                length_s = sum(item.duration_s for item in run)
                places = [(item.recording, item.order) for item in run]
                are_neighbours = all((a[0], a[1] + 1) == b for a, b in pairwise(places))
                if not (low_s <= length_s <= high_s and are_neighbours):
                    continue
                faults = _faults(run, level_db, pace, limits)
                steps = int(min(item.found.snr_db for item in run) // SNR_STEP_DB)
                names = tuple(item.clip for item in run)
                order = (len(faults), count, -steps, abs(length_s - BEST_S), names)
                ranked.append((order, run, faults))
        if ranked:
            (*_, names), run, faults = min(ranked, key=lambda item: item[0])
            return Proposal(names, _why(run, level_db, pace, len(ranked)), faults)
    return None


def _faults(
    run: Sequence[Candidate], level_db: float, pace: float | None, limits: AuditParams
) -> tuple[str, ...]:
    """Name what a reference should not have."""
    found = []
    if max(item.found.clipped_share for item in run) > limits.max_clipped_share:
        found.append("clipped")
    if min(item.found.snr_db for item in run) < limits.min_snr_db:
        found.append("noisy")
    if max(_pause_s(item) for item in run) > MAX_PAUSE_S:
        found.append("a long pause")
    if max(abs(item.level_db - level_db) for item in run) > MAX_LEVEL_DB:
        found.append("louder or quieter than the others")
    own = [item.pace for item in run if item.pace is not None]
    if pace is not None and own and abs(float(np.mean(own)) / pace - 1.0) > MAX_PACE:
        found.append("faster or slower than the others")
    return tuple(found)


def _pause_s(item: Candidate) -> float:
    found = item.found
    return max(found.lead_silence_s, found.trail_silence_s, found.max_internal_silence_s)


def _why(run: Sequence[Candidate], level_db: float, pace: float | None, count: int) -> str:
    """Say in figures why this one."""
    clipped = max(item.found.clipped_share for item in run)
    off_db = max((item.level_db - level_db for item in run), key=abs)
    own = [item.pace for item in run if item.pace is not None]
    parts = [
        f"{sum(item.duration_s for item in run):.1f} s",
        f"SNR {min(item.found.snr_db for item in run):.0f} dB",
        f"{100 * clipped:.2g} % clipped" if clipped else "no clipping",
        f"longest pause {max(_pause_s(item) for item in run):.2f} s",
        f"level {off_db:+.1f} dB from the median",
    ]
    if own and pace is not None:
        parts.append(f"{np.mean(own):.1f} letters/s (median {pace:.1f})")
    many = f"{count} candidates" if count > 1 else "1 candidate"
    return f"{', '.join(parts)}; the best of {many}"
