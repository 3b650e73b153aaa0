"""Are a change of voice within a clip, a moved pitch and a flattened melody found?

    python -m benchmarks.defects data [seed] [--coded | --melody]

Defects are planted into recordings of the miniature's speaker. The limits come from other
recordings of the same speaker and are not touched. `--coded` sends all of them through the codec
first, as all generated speech is; `--melody` flattens and transposes instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import librosa
import numpy as np
from benchmarks.results import table, write_section
from numpy.typing import NDArray
from scipy.stats import beta

from voxadapt.asr.voice_prints import Embedder
from voxadapt.core.params import SelectParams
from voxadapt.data.audio import read_audio, resample
from voxadapt.model.load import load_speech_tokenizer
from voxadapt.scoring.pitch import RATE_HZ, PitchTracker
from voxadapt.scoring.prosody import compare
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.similarity import VoiceReference
from voxadapt.scoring.windows import voice_limits

Wave = NDArray[np.float32]
NUM_CALIBRATION, NUM_CLEAN, NUM_PLANTED = 160, 200, 64
SEAM = RATE_HZ // 100  # samples over which two voices meet
SENTENCES_OF_A_SET = 20  # that melody is compared on, as few as a small test set has
LEAST_RATIO, LEAST_SHIFT_ST = 0.9, 0.5  # what a change must exceed, with its whole interval
CLIPS_IN_A_LONG_ONE, PAUSE_S = 8, 0.4
KINDS = (
    "another voice for the first second",
    "a slow change to another voice",
    "pitch raised by 30 % from the middle",
    "pitch lowered by 30 % from the middle",
)


def splice(wave: Wave, other: Wave) -> Wave:
    """Let another voice speak the first second."""
    wave, other = _trimmed(wave), _as_loud(_trimmed(other), wave)[:RATE_HZ]
    rest = wave[min(RATE_HZ, len(wave) // 2) :]
    ramp = np.linspace(0.0, 1.0, SEAM, dtype=np.float32)
    seam = other[-SEAM:] * (1 - ramp) + rest[:SEAM] * ramp
    return np.concatenate([other[:-SEAM], seam, rest[SEAM:]])


def crossfade(wave: Wave, other: Wave) -> Wave:
    """Pass from one voice to another over the whole clip."""
    wave, other = _trimmed(wave), _trimmed(other)
    length = min(len(wave), len(other))
    wave, other = wave[:length], _as_loud(other[:length], wave)
    ramp = np.linspace(0.0, 1.0, length, dtype=np.float32)
    return np.asarray(wave * np.sqrt(1 - ramp) + other * np.sqrt(ramp))


def shift_half(wave: Wave, ratio: float) -> Wave:
    """Multiply the pitch of the second half, as a phase vocoder does."""
    wave = _trimmed(wave)
    moved = librosa.effects.pitch_shift(wave, sr=RATE_HZ, n_steps=12 * np.log2(ratio))
    ramp = np.clip((np.arange(len(wave)) - len(wave) // 2) / SEAM, 0.0, 1.0).astype(np.float32)
    return np.asarray(wave * (1 - ramp) + moved.astype(np.float32) * ramp)


def flatten(wave: Wave, f0_hz: NDArray[np.float64], hop: int, keep: float) -> Wave:
    """Bring F0 nearer to its median, in semitones, by overlapping and adding pitch periods.

    Args:
        wave: Samples at 16 kHz, [N].
        f0_hz: F0 every `hop` samples, nan where unvoiced; from another tracker than the one that
            is judged.
        hop: See there.
        keep: Share of the distance from the median that stays: 1 changes nothing, 0 is a monotone.
    """
    known = np.flatnonzero(np.isfinite(f0_hz))
    track = np.interp(np.arange(len(wave)) / hop, known, f0_hz[known])
    voiced = np.isfinite(f0_hz)[np.minimum(np.arange(len(wave)) // hop, len(f0_hz) - 1)]
    median = np.median(f0_hz[known])
    wanted = median * (track / median) ** keep
    marks = [0]
    while marks[-1] + RATE_HZ / track[marks[-1]] < len(wave) - 1:
        step = RATE_HZ / track[marks[-1]]
        start = round(marks[-1] + 0.7 * step)
        stop = min(len(wave), round(marks[-1] + 1.3 * step) + 1)
        best = start + int(np.argmax(wave[start:stop])) if voiced[marks[-1]] else 0
        marks.append(best if best > marks[-1] else round(marks[-1] + step))
    periods = np.array(marks[1:-1])
    out, weight, at = np.zeros(len(wave)), np.zeros(len(wave)), float(periods[0])
    while at < len(wave) - 1:
        source = int(periods[np.argmin(np.abs(periods - at))])
        half = round(RATE_HZ / track[source])
        low = min(half, source, int(at))
        high = min(half, len(wave) - source - 1, len(wave) - int(at) - 1)
        window = np.hanning(2 * half + 1)[half - low : half + high + 1]
        out[int(at) - low : int(at) + high + 1] += window * wave[source - low : source + high + 1]
        weight[int(at) - low : int(at) + high + 1] += window
        at += RATE_HZ / (wanted[int(at)] if voiced[int(at)] else track[int(at)])
    return np.asarray(out / np.maximum(weight, 0.3), np.float32)


def long_clips(
    waves: Sequence[Wave],
    others: Mapping[str, Sequence[Wave]] | None,
    generator: np.random.Generator,
) -> list[Wave]:
    """Join recordings, with pauses; the last but one of each clip in another voice, if given."""
    found: list[Wave] = []
    for start in range(0, len(waves) - CLIPS_IN_A_LONG_ONE + 1, CLIPS_IN_A_LONG_ONE // 2):
        parts = [_trimmed(wave) for wave in waves[start : start + CLIPS_IN_A_LONG_ONE]]
        if others is not None:
            names = sorted(others)
            clips = others[names[len(found) % len(names)]]
            parts[-2] = _as_loud(_trimmed(clips[int(generator.integers(len(clips)))]), parts[0])
        pause = np.zeros(round(PAUSE_S * RATE_HZ), np.float32)
        found.append(np.concatenate([piece for part in parts for piece in (part, pause)]))
    return found


def _trimmed(wave: Wave) -> Wave:
    return np.asarray(librosa.effects.trim(wave, top_db=35)[0])


def _as_loud(wave: Wave, like: Wave) -> Wave:
    return np.asarray(wave * np.sqrt(np.mean(like**2) / np.mean(wave**2)), np.float32)


def exact(hits: int, total: int) -> str:
    """Write a share with its exact 95 % interval."""
    low = beta.ppf(0.025, hits, total - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, total - hits) if hits < total else 1.0
    return f"{100 * hits / total:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


class Meter:
    """Measures waves as scoring does, without a recogniser.

    Args:
        coded: Whether they pass the codec of a model folder first.
        model: The folder.
    """

    def __init__(self, coded: bool, model: Path) -> None:
        self._codec = load_speech_tokenizer(model) if coded else None
        self.embedder, self.tracker = Embedder(), PitchTracker()
        self.reference: VoiceReference | None = None

    def code(self, wave: Wave) -> Wave:
        """Send a wave through the codec, or return it."""
        if self._codec is None:
            return wave
        rate = self._codec.get_input_sample_rate()
        up = resample(wave, RATE_HZ, rate)
        up = np.pad(up, (0, -len(up) % self._codec.get_encode_downsample_rate()))
        codes = self._codec.encode([up], sr=rate).audio_codes[0]
        return resample(self._codec.decode([{"audio_codes": codes}])[0][0], rate, RATE_HZ)

    def refer_to(self, waves: Sequence[Wave]) -> None:
        """Take clips, as they are or already coded, as the speaker's reference."""
        found = self.embedder.embed([(wave, RATE_HZ) for wave in waves])
        vectors = [item.embedding for item in found if item.embedding is not None]
        ids = tuple(f"r{index:04d}" for index in range(len(vectors)))
        self.reference = VoiceReference(ids, np.stack(vectors), self.embedder.id)

    def step_st(self, wave: Wave) -> float:
        """Return the F0 of the second half over that of the first, in semitones."""
        f0_hz = self.tracker.f0_hz(wave, RATE_HZ)
        first, second = (
            np.nanmedian(half) if np.isfinite(half).any() else np.nan
            for half in np.array_split(f0_hz, 2)
        )
        return float(12 * np.log2(second / first))

    def row(self, name: str, wave: Wave, leave_out: str | None = None) -> ScoreRow:
        """Measure a clip, as it is or already coded."""
        assert self.reference is not None
        [windows] = self.embedder.embed_windows([self.embedder.prepare((wave, RATE_HZ))])
        pitch = self.tracker.measure(wave, RATE_HZ)
        values: dict[str, Any] = {
            "text_id": name,
            "window_sims": self.reference.similarities(windows, leave_out),
            **{f"f0_{key}": value for key, value in asdict(pitch).items()},
        }
        return ScoreRow.model_construct(**values)


def voices(data: Path) -> dict[str, list[Wave]]:
    """Read the other voices."""
    found: dict[str, list[Wave]] = {}
    for line in (data / "voices/voices.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        wave = resample(*read_audio(data / "voices" / row["audio"]), RATE_HZ)
        found.setdefault(row["speaker"], []).append(wave)
    return found


def recordings(data: Path, seed: int) -> list[Wave]:
    """Read the speaker's recordings in an order drawn by the seed."""
    lines = (data / "speaker/train_raw.jsonl").read_text(encoding="utf-8").splitlines()
    order = np.random.default_rng(seed).permutation(len(lines))
    return [
        resample(*read_audio(data / "speaker" / json.loads(lines[i])["audio"]), RATE_HZ)
        for i in order[: NUM_CALIBRATION + NUM_CLEAN]
    ]


def main() -> None:
    """Plant, measure, write the section."""
    data, coded = Path(sys.argv[1]), "--coded" in sys.argv
    numbers = [int(word) for word in sys.argv[2:] if word.isdecimal()]
    seed = numbers[0] if numbers else 1
    generator = np.random.default_rng(seed)
    waves, others = recordings(data, seed), voices(data)
    meter = Meter(coded, data / "models/base")
    calibration = [meter.code(wave) for wave in waves[:NUM_CALIBRATION]]
    clean = waves[NUM_CALIBRATION:]
    meter.refer_to(calibration)
    if "--melody" in sys.argv:
        chosen = clean[:NUM_PLANTED]
        measured = [meter.row(str(i), wave) for i, wave in enumerate(chosen)]
        write_section("Flattened and transposed melody", melody(meter, chosen, measured, seed))
        return
    known = [meter.row(f"r{i:04d}", wave, f"r{i:04d}") for i, wave in enumerate(calibration)]
    limits = voice_limits(known)
    assert limits is not None
    names = sorted(others)
    drawn = [
        others[names[i % len(names)]][int(generator.integers(len(others[names[i % len(names)]])))]
        for i in range(NUM_PLANTED)
    ]
    plants: list[Callable[[Wave, Wave], Wave]] = [
        splice,
        crossfade,
        lambda wave, _: shift_half(wave, 1.3),
        lambda wave, _: shift_half(wave, 0.7),
    ]

    def flagged(rows: Sequence[ScoreRow]) -> int:
        return sum(bool(limits.flags(row.window_sims, row.f0_jump_st)) for row in rows)

    clean_rows = [meter.row(str(i), meter.code(wave)) for i, wave in enumerate(clean)]
    rows = [["none", exact(flagged(clean_rows), len(clean_rows)), str(len(clean_rows))]]
    left = []
    for kind, plant in zip(KINDS, plants, strict=True):
        planted = [plant(wave, other) for wave, other in zip(clean, drawn, strict=False)]
        heard = [meter.code(wave) for wave in planted]
        found = [meter.row(str(i), wave) for i, wave in enumerate(heard)]
        rows.append([kind, exact(flagged(found), len(found)), str(len(found))])
        print(*rows[-1], sep="  ", flush=True)
        if kind.startswith("pitch"):
            steps = [np.nanmedian([meter.step_st(wave) for wave in group])
                     for group in (clean[: len(heard)], planted, heard)]  # fmt: skip
            left.append(f"{kind}: {steps[0]:+.1f} semitones between the halves before, "
                        f"{steps[1]:+.1f} planted, {steps[2]:+.1f} in what is judged")  # fmt: skip
    for kind, voices_ in (
        ("none, in long clips", None),
        ("another voice late in long clips", others),
    ):
        found = [
            meter.row(str(i), meter.code(wave))
            for i, wave in enumerate(long_clips(clean, voices_, generator))
        ]
        rows.append([kind, exact(flagged(found), len(found)), str(len(found))])
    jump = "not measured" if limits.f0_jump_st is None else f"{limits.f0_jump_st:.2f} semitones"
    where = "coded recordings" if coded else "recordings"
    write_section(
        f"Defects of the voice within a clip, {where}",
        [
            f"Limits from {limits.n} {where} of the speaker (similarity of two seconds at least "
            f"{limits.stretch_sim:.3f}, jump of F0 at most {jump}); defects in others of the same "
            f"speaker, 8 other voices, seed {seed}; exact 95 % intervals: "
            f"`python -m benchmarks.defects data {seed}{' --coded' if coded else ''}`. Wanted: "
            "at least 95 % of each defect flagged, at most 2 % of clean clips. Medians of "
            f"{'; '.join(left)}.",
            "",
            *table(["planted", "flagged", "clips"], rows),
        ],
    )


def melody(meter: Meter, clean: Sequence[Wave], rows: Sequence[ScoreRow], seed: int) -> list[str]:
    """Plant changes of melody into sets of sentences; see whether the interval excludes none."""
    tracks = [
        librosa.pyin(wave, fmin=60, fmax=500, sr=RATE_HZ, frame_length=1024, hop_length=256)[0]
        for wave in clean
    ]
    sets = {
        "resynthesised without a change": (
            "f0_range_st",
            lambda w, f: flatten(w, f, 256, 1.0),
        ),
        "range cut by 45 %": ("f0_range_st", lambda w, f: flatten(w, f, 256, 0.55)),
        "range cut by 30 %": ("f0_range_st", lambda w, f: flatten(w, f, 256, 0.7)),
        "monotone": ("f0_range_st", lambda w, f: flatten(w, f, 256, 0.0)),
        "transposed by 2 semitones": (
            "f0_median_st",
            lambda w, f: librosa.effects.pitch_shift(w, sr=RATE_HZ, n_steps=2).astype(np.float32),
        ),
    }
    generator, params = np.random.default_rng(seed), SelectParams(num_bootstrap=1000)
    lines = []
    for name, (measure, plant) in sets.items():
        planted = [
            meter.row(row.text_id, plant(wave, track))
            for row, wave, track in zip(rows, clean, tracks, strict=False)
        ]
        found, points = 0, []
        for _ in range(200):
            chosen = generator.choice(len(planted), SENTENCES_OF_A_SET, replace=False)
            against = compare(
                [planted[i] for i in chosen], [rows[i] for i in chosen], measure, params
            )
            assert against is not None and against.point is not None and against.low is not None
            assert against.high is not None
            less = against.high < LEAST_RATIO
            found += less if measure == "f0_range_st" else against.low > LEAST_SHIFT_ST
            points.append(against.point)
        lines.append([name, measure, f"{np.median(points):.2f}", exact(found, 200)])
        print(*lines[-1], sep="  ", flush=True)
    return [
        f"200 sets of {SENTENCES_OF_A_SET} sentences each, drawn from {len(tracks)}; changed by "
        "overlapping and adding pitch periods, which pYIN placed; measured with SwiftF0, paired "
        "with the recording of the sentence. Found: the whole 95 % interval is below "
        f"{LEAST_RATIO}, or above {LEAST_SHIFT_ST} semitones. Wanted: at least 95 %, and hardly "
        f"ever where nothing was changed. Seed {seed}.",
        "",
        *table(["planted", "measure", "median of the sets", "found"], lines),
    ]


if __name__ == "__main__":
    main()
