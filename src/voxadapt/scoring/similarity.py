"""Speaker similarity by Resemblyzer, on a scale with ceiling and floor.

The reference is the centroid of the speaker's held-out clips: never a training clip, never the clip
that conditions the zero-shot model. The codec colours every voice that passes it, so what a model
says is compared with recordings that have passed it too, and so are the clips between which a
cosine stands: the *floor* (other voices against the centroid) and the *ceiling* (each of the
speaker's clips against the centroid of the others). The ceiling of recordings among themselves is
shown beside them. Label it `SIM-resemblyzer`; it is not comparable with other encoders' figures.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from voxadapt.asr.normalise import characters, normalise
from voxadapt.asr.voice_prints import RATE_HZ, Audio, Embedder, Wave
from voxadapt.core.files import sha256_array, sha256_file, write_atomic, write_json
from voxadapt.core.params import SelectParams
from voxadapt.core.problems import user_error
from voxadapt.core.records import Record
from voxadapt.data.audio import read_audio
from voxadapt.data.splits import MIN_REFERENCE_CLIPS
from voxadapt.scoring.flags import measure_shape
from voxadapt.scoring.rows import EvalClip, ScoreRow
from voxadapt.scoring.statistics import NOTHING, Interval, mean_interval, rounded
from voxadapt.scoring.windows import VoiceLimits, voice_limits

LABEL = "SIM-resemblyzer"
SCHEMA = "voxadapt-similarity/3"
DURATIONS_S = (1.0, 1.6, 2.0, 3.0, 4.0, 6.0, 8.0)
LETTER_NAME_CHARS = 5  # of words, that take as long as the name of a letter does


@dataclass(frozen=True)
class VoiceReference:
    """The speaker's held-out clips, ids sorted, as unit vectors of an encoder, [n, 256]."""

    ids: tuple[str, ...]
    embeddings: NDArray[np.float32]
    encoder_id: str

    @cached_property
    def centroid(self) -> NDArray[np.float32]:
        """Unit mean of all clips, [256]."""
        return _unit(self.embeddings.mean(axis=0))

    @cached_property
    def sim_id(self) -> str:
        """Identity of encoder and reference, kept in every score row."""
        return f"{self.encoder_id}/centroid-{sha256_array(self.centroid)[:8]}"

    def similarity(self, embedding: NDArray[np.float32], leave_out: str | None = None) -> float:
        """Return the cosine of a clip's unit vector, [256], to the centroid.

        `leave_out` is a real clip to take out first: the clip itself, or the recording of the same
        sentence, so that no clip is compared with itself.
        """
        return float(np.dot(embedding, self._centroid_without(leave_out)))

    def similarities(
        self, embeddings: NDArray[np.float32], leave_out: str | None = None
    ) -> tuple[float, ...]:
        """Return the cosine of each of several unit vectors, [N, 256]; see `similarity`."""
        return tuple(float(value) for value in embeddings @ self._centroid_without(leave_out))

    def num_clips(self, leave_out: str | None = None) -> int:
        """Count the clips behind the centroid."""
        return len(self.ids) - (leave_out in self.ids)

    def _centroid_without(self, leave_out: str | None) -> NDArray[np.float32]:
        if leave_out not in self.ids:
            return self.centroid
        keep = np.arange(len(self.ids)) != self.ids.index(leave_out)
        return _unit(self.embeddings[keep].mean(axis=0))

    def write(self, path: str | Path) -> None:
        """Write the reference as safetensors; equal references give equal bytes.

        All that is not a tensor is one JSON text: the order of several metadata keys is not fixed.
        """
        about = {"ids": self.ids, "encoder_id": self.encoder_id}
        text = json.dumps(about, sort_keys=True, ensure_ascii=False)
        write_atomic(path, save({"embeddings": self.embeddings}, {"voice": text}))

    @classmethod
    def read(cls, path: str | Path) -> VoiceReference:
        """Read what `write` wrote.

        Raises:
            ValueError: When the file is not whole, or not such a file.
            OSError: When it cannot be read.
        """
        try:
            with safe_open(path, "numpy") as stored:
                about = json.loads((stored.metadata() or {})["voice"])
                ids, encoder_id = tuple(about["ids"]), str(about["encoder_id"])
                embeddings = stored.get_tensor("embeddings")
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"not a voice's embeddings: {error}") from None
        if embeddings.ndim != 2 or len(ids) != len(embeddings):
            raise ValueError(f"{len(ids)} ids for embeddings of shape {embeddings.shape}")
        return cls(ids, embeddings, encoder_id)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector / np.linalg.norm(vector)


@dataclass(frozen=True, slots=True)
class SpeechRate:
    """How long the speaker takes: spoken seconds = offset + seconds_per_char * characters."""

    offset_s: float
    seconds_per_char: float
    n: int

    def expected_s(self, num_chars: int) -> float:
        """Return the seconds that the speaker would need for a text."""
        return self.offset_s + self.seconds_per_char * num_chars


def spoken_chars(text_norm: str) -> int:
    """Count a normalised text's characters as they are spoken, letters spelled out by their names.

    Three lone letters or more in a row are spelled; scripts without cases have no such names.
    """
    words = groupby(text_norm.split(), lambda word: len(word) == 1 and word.lower() != word.upper())
    runs = [len(list(run)) for alone, run in words if alone]
    spelled = sum(length for length in runs if length >= 3)
    return len(characters(text_norm)) + (LETTER_NAME_CHARS - 1) * spelled


def fit_rate(spoken_s: Sequence[float], num_chars: Sequence[int]) -> SpeechRate:
    """Fit the speaker's rate on real clips: seconds from first to last sound, and characters.

    A straight line by least squares; where the texts are too alike for one, or the line makes no
    sense (negative offset or slope), total seconds over total characters.
    """
    seconds, chars = np.asarray(spoken_s, float), np.asarray(num_chars, float)
    assert len(seconds) == len(chars) and len(chars) > 0
    slope, offset = 0.0, -1.0
    if len(chars) >= 8 and np.ptp(chars) >= 8:
        slope, offset = (float(value) for value in np.polyfit(chars, seconds, 1))
    if slope <= 0.0 or offset < 0.0:
        slope, offset = float(seconds.sum() / chars.sum()), 0.0
    return SpeechRate(offset, slope, len(chars))


class AtDuration(NamedTuple):
    """The ceiling of n clips with their speech cut to some seconds."""

    seconds: float
    point: float
    n: int


class OtherVoice(NamedTuple):
    """The mean similarity of n clips of another speaker."""

    speaker: str
    point: float
    n: int


@dataclass(frozen=True)
class SimilarityScale:
    """Ceiling, floor and rate of one speaker: what a similarity or a duration is compared with."""

    sim_id: str  # identity of encoder and reference
    reference_ids: tuple[str, ...]  # the real clips in the centroid
    ceiling: Interval  # recordings against the centroid of the other recordings
    #: The upper end of the scale with speech cut to several lengths.
    ceiling_by_duration: tuple[AtDuration, ...]
    #: Codec round trips against the centroid of the other round trips; unknown where the clips to
    #: be scored have passed no codec.
    codec_ceiling: Interval
    floor: Interval  # clips of other voices against the centroid, coded where the reference is
    floor_by_speaker: tuple[OtherVoice, ...]
    #: In which share of pairs a clip of the speaker is more like its others than a clip of another
    #: voice is: 1 where no stranger comes near, .5 where nobody is told apart. None where there are
    #: no other voices.
    separation: float | None
    rate: SpeechRate  # the speaker's rate on real clips
    #: What the speaker's own coded clips reach, for flags; None where it is not known.
    limits: VoiceLimits | None = None

    @property
    def top(self) -> Interval:
        """The upper end of the scale: the ceiling of clips like those that are scored."""
        return self.ceiling if self.codec_ceiling.point is None else self.codec_ceiling

    def normalise(self, similarity: float | None) -> float | None:
        """Map a similarity to 0 at the floor and 1 at the ceiling; None where one is unknown."""
        low, high = self.floor.point, self.top.point
        if similarity is None or low is None or high is None or high - low < 1e-6:
            return None
        return (similarity - low) / (high - low)

    def ceiling_at(self, speech_s: float) -> float | None:
        """Return the ceiling for clips of this length, between the measured lengths."""
        if not self.ceiling_by_duration:
            return self.top.point
        seconds, means, _ = zip(*self.ceiling_by_duration, strict=True)
        return float(np.interp(speech_s, seconds, means))

    def with_limits(self, rows: Sequence[ScoreRow]) -> SimilarityScale:
        """Add the voice's limits from the scored round-trip clips."""
        return replace(self, limits=voice_limits(rows))

    def as_dict(self) -> Record:
        """Return the JSON record."""
        kind = {"schema": SCHEMA, "label": LABEL, "num_reference": len(self.reference_ids)}
        return kind | {item.name: _published(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, values: Record) -> SimilarityScale:
        """Read what `as_dict` returned.

        Raises:
            UserError: When it is a record of another kind or version.
        """
        found: object = values.get("schema")
        if found == SCHEMA:
            try:
                return TypeAdapter(cls).validate_python(values)
            except ValidationError as error:
                found = error
        raise user_error("scoring.other_scale", "similarity.json", schema=SCHEMA, found=found)

    def write(self, path: str | Path) -> None:
        """Write the JSON record."""
        write_json(path, self.as_dict())


def _published(value: object) -> object:
    """Return the JSON value of a field of the scale, rounded."""
    if isinstance(value, Interval):
        return value.as_dict()
    if isinstance(value, SpeechRate | VoiceLimits):
        return {name: _published(item) for name, item in asdict(value).items()}
    if isinstance(value, AtDuration | OtherVoice):
        return {name: _published(item) for name, item in value._asdict().items()}
    if isinstance(value, tuple):
        return [_published(item) for item in value]
    return rounded(value) if isinstance(value, float) else value


class MeasuredVoice(NamedTuple):
    """A speaker as it was measured: `voice`, of coded recordings where there are such, is compared.

    `recordings` are the recordings themselves.
    """

    voice: VoiceReference
    scale: SimilarityScale
    recordings: VoiceReference


def build_scale(
    embedder: Embedder,
    real: Sequence[EvalClip],
    other_voices: Mapping[str, Sequence[Audio]],
    params: SelectParams,
    *,
    root: Path,
    min_speech_s: float,
    excluded_sha256: Collection[str] = (),
    coded: Mapping[str, Audio] | None = None,
) -> MeasuredVoice:
    """Measure the speaker's reference, ceiling, floor and rate on its held-out recordings.

    Other voices, by speaker, are coded where `coded` is given, the codec round trip of each
    recording by text id; without any the floor is unknown. Files with an excluded hash must not
    enter the reference: the clip that conditions the zero-shot model, and training clips.

    Raises:
        UserError: When fewer than three held-out clips can be used.
    """
    excluded = set(excluded_sha256)
    paths = {clip.text_id: root / clip.wav for clip in real}
    audio = {key: read_audio(p) for key, p in paths.items() if sha256_file(p) not in excluded}
    recordings, speech = _reference(embedder, audio, len(paths), min_speech_s)
    ceiling, codec_ceiling, voice = _to_others(recordings), NOTHING, recordings
    own, compared = ceiling, speech
    if coded is not None:
        round_trips = {key: coded[key] for key in recordings.ids}
        voice, compared = _reference(embedder, round_trips, len(paths), min_speech_s)
        own = _to_others(voice)
        codec_ceiling = mean_interval(own, params)
    strangers = _similarity_of_others(embedder, voice, other_voices, min_speech_s)
    # A number is longer than its digits: such sentences say nothing about seconds per character.
    clips = {clip.text_id: clip for clip in real}
    timed = [key for key in speech if clips[key].slice == "ranked"] or list(speech)
    scale = SimilarityScale(
        sim_id=voice.sim_id,
        reference_ids=voice.ids,
        ceiling=mean_interval(ceiling, params),
        ceiling_by_duration=tuple(_ceiling_by_duration(embedder, voice, compared)),
        codec_ceiling=codec_ceiling,
        floor=mean_interval(strangers, params),
        floor_by_speaker=tuple(
            OtherVoice(name, float(np.mean(found)), len(found))
            for name, group in groupby(strangers, key=itemgetter(0))
            for found in [[value for _, value in group]]
        ),
        separation=separation([value for _, value in own], [value for _, value in strangers]),
        rate=fit_rate(
            [measure_shape(*audio[key]).spoken_s for key in timed],
            [spoken_chars(normalise(clips[key].text, clips[key].lang)) for key in timed],
        ),
    )
    return MeasuredVoice(voice, scale, recordings)


def separation(own: Sequence[float], others: Sequence[float]) -> float | None:
    """Return in which share of pairs an own similarity exceeds another's; a tie counts half."""
    if not own or not others:
        return None
    gaps = np.subtract.outer(np.asarray(own, float), np.asarray(others, float))
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


def _reference(
    embedder: Embedder, clips: Mapping[str, Audio], num_clips: int, min_speech_s: float
) -> tuple[VoiceReference, dict[str, Wave]]:
    """Embed the clips of one voice that have enough speech; return their speech beside."""
    speech = {key: embedder.prepare(clips[key]) for key in sorted(clips)}
    speech = {key: wav for key, wav in speech.items() if len(wav) >= min_speech_s * RATE_HZ}
    if len(speech) < MIN_REFERENCE_CLIPS:
        facts = {"least": MIN_REFERENCE_CLIPS, "seconds": min_speech_s, "count": len(speech)}
        where = "held-out clips, as recorded and after the codec"
        raise user_error("scoring.few_clips", where, total=num_clips, **facts)
    prints = embedder.embed_speech(list(speech.values()))
    vectors = np.stack([item.embedding for item in prints if item.embedding is not None])
    return VoiceReference(tuple(speech), vectors, embedder.id), speech


def _to_others(voice: VoiceReference) -> list[tuple[str, float]]:
    """Compare each clip of a reference with the centroid of the others."""
    return [
        (key, voice.similarity(vector, leave_out=key))
        for key, vector in zip(voice.ids, voice.embeddings, strict=True)
    ]


def _ceiling_by_duration(
    embedder: Embedder, reference: VoiceReference, speech: Mapping[str, Wave]
) -> Iterator[AtDuration]:
    """Measure the ceiling with speech cut to several lengths."""
    for seconds in DURATIONS_S:
        size = round(seconds * RATE_HZ)
        long_enough = [key for key, wav in speech.items() if len(wav) >= seconds * RATE_HZ]
        if len(long_enough) < MIN_REFERENCE_CLIPS:
            return
        cut = embedder.embed_speech([speech[key][:size] for key in long_enough])
        values = [
            reference.similarity(item.embedding, leave_out=key)
            for key, item in zip(long_enough, cut, strict=True)
            if item.embedding is not None
        ]
        yield AtDuration(seconds, float(np.mean(values)), len(values))


def _similarity_of_others(
    embedder: Embedder,
    reference: VoiceReference,
    other_voices: Mapping[str, Sequence[Audio]],
    min_speech_s: float,
) -> list[tuple[str, float]]:
    """Compare clips of other voices with the reference; those without speech drop."""
    return [
        (speaker, reference.similarity(item.embedding))
        for speaker in sorted(other_voices)
        for item in embedder.embed(list(other_voices[speaker]))
        if item.embedding is not None and item.speech_s >= min_speech_s
    ]


def pooled_scale(scales: Mapping[str, SimilarityScale], sim_id: str) -> SimilarityScale:
    """Average the scales of several speakers, each of whom weighs the same.

    The ends of an average's interval lie as far out as the root of the summed squares of its
    parts' distances says: the speakers' recordings are independent of one another.
    """

    def average(parts: Sequence[Interval]) -> Interval:
        if any(part.point is None for part in parts):
            return NOTHING
        ends = [
            [part.point, *(part.point if end is None else end for end in (part.low, part.high))]
            for part in parts
        ]
        points, lows, highs = np.array(ends, float).T
        point = float(points.mean())
        low, high = (
            float(np.sqrt(np.sum(np.square(far)))) / len(parts)
            for far in (points - lows, highs - points)
        )
        return Interval(point, point - low, point + high, sum(part.n for part in parts))

    values = list(scales.values())
    separations = [scale.separation for scale in values if scale.separation is not None]
    return SimilarityScale(
        sim_id=sim_id,
        reference_ids=tuple(sorted(key for scale in values for key in scale.reference_ids)),
        ceiling=average([scale.ceiling for scale in values]),
        ceiling_by_duration=(),
        codec_ceiling=average([scale.codec_ceiling for scale in values]),
        floor=average([scale.floor for scale in values]),
        floor_by_speaker=(),
        separation=min(separations) if len(separations) == len(values) else None,
        rate=SpeechRate(
            float(np.mean([scale.rate.offset_s for scale in values])),
            float(np.mean([scale.rate.seconds_per_char for scale in values])),
            sum(scale.rate.n for scale in values),
        ),
    )
