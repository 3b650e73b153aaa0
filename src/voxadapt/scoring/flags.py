"""What is wrong with a clip: silence, clipping, rate, runaways, repetitions, lost endings, doubt.

Thresholds come from `params.score`; those that no user has reason to change are named below.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from numpy.typing import NDArray

from voxadapt.asr.normalise import characters, is_unspaced
from voxadapt.asr.transcript import Transcript
from voxadapt.core.params import ScoreParams

FLAGS = (
    "hit_max_tokens", "empty_transcript", "wrong_language", "rate_low", "rate_high",
    "leading_silence", "trailing_silence", "internal_silence", "abrupt_end", "clipping",
    "repeated_ngram", "truncated_tail", "too_little_speech", "high_compression", "low_logprob",
    "no_speech", "long_clip", "other_voice", "pitch_jump",
)  # fmt: skip

MIN_PAUSE_S = 0.15  # shorter silences are those of plosives
FRAME_S = 0.02  # energy is measured in frames of this length
QUIET_DB = 40.0  # a frame this far below the clip's loud frames (95th percentile) is silent
FLOOR_DBFS = -60.0  # and so is any frame below this
ABRUPT_DB = 15.0  # a clip ends in the middle of a sound when its last frame is this near the loud
CLIPPED_AT = 0.999  # of full scale
MAX_CLIPPED_SHARE = 0.001
MIN_LANGUAGE_PROBABILITY = 0.5  # below this, language identification has no opinion
MIN_REPEATS = 3  # of words; characters of unspaced scripts need one more
TAIL_SHARE = 0.2  # of the reference, at least two words, missing at the end
# Beyond these openai-whisper doubts its own transcript and samples another; here it is only said.
MAX_COMPRESSION_RATIO = 2.4
MIN_AVG_LOGPROB = -1.0
MAX_NO_SPEECH_PROB = 0.6


@dataclass(frozen=True, slots=True)
class Shape:
    """The outline of a waveform.

    Where nothing sounds the leading silence is the whole clip. Pauses are silences in between of at
    least 0.15 s, `pause_s` their length together; `end_db` is the level of the last frame, loud
    frames being 0, and None where nothing sounds.
    """

    duration_s: float
    lead_silence_s: float
    trail_silence_s: float
    max_internal_silence_s: float
    clipped_share: float
    num_pauses: int = 0
    pause_s: float = 0.0
    end_db: float | None = None

    @property
    def spoken_s(self) -> float:
        """Seconds from the first sound to the last."""
        return max(0.0, self.duration_s - self.lead_silence_s - self.trail_silence_s)


def measure_shape(wav: NDArray[np.float32], sample_rate_hz: int) -> Shape:
    """Measure silence, clipping and length of mono samples in [-1, 1], [N]."""
    duration_s = len(wav) / sample_rate_hz
    step = round(FRAME_S * sample_rate_hz)
    num_frames = len(wav) // step
    clipped = float(np.mean(np.abs(wav) >= CLIPPED_AT)) if len(wav) else 0.0
    if num_frames == 0:
        return Shape(duration_s, duration_s, 0.0, 0.0, clipped)
    frames = wav[: num_frames * step].astype(np.float64).reshape(num_frames, step)
    level_db = 10.0 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    loud_db = float(np.percentile(level_db, 95))
    threshold = max(FLOOR_DBFS, loud_db - QUIET_DB)
    loud = np.flatnonzero(level_db > threshold)
    if len(loud) == 0:
        return Shape(duration_s, duration_s, 0.0, 0.0, clipped)
    gaps = np.diff(loud) - 1
    pauses = gaps[gaps * FRAME_S >= MIN_PAUSE_S - 1e-9]
    end_db = 10.0 * np.log10(np.mean(wav[-step:].astype(np.float64) ** 2) + 1e-12)
    return Shape(
        duration_s=duration_s,
        lead_silence_s=float(loud[0] * FRAME_S),
        trail_silence_s=duration_s - float((loud[-1] + 1) * FRAME_S),
        max_internal_silence_s=float(gaps.max() * FRAME_S) if len(gaps) else 0.0,
        clipped_share=clipped,
        num_pauses=len(pauses),
        pause_s=float(pauses.sum() * FRAME_S),
        end_db=float(end_db) - loud_db,
    )


def longest_repeat(units: list[str] | str, max_length: int = 6) -> int:
    """Return how often the most repeated n-gram follows itself without a break."""
    best = 1 if units else 0
    for length in range(1, max_length + 1):
        run = 0
        for position in range(length, len(units)):
            run = run + 1 if units[position] == units[position - length] else 0
            best = max(best, run // length + 1)
    return best


def has_repeats(reference: str, hypothesis: str) -> bool:
    """Tell whether the transcript repeats an n-gram that the reference does not."""
    if is_unspaced(reference):
        ours, theirs = characters(hypothesis), characters(reference)
        return longest_repeat(ours) > max(MIN_REPEATS, longest_repeat(theirs))
    found = longest_repeat(hypothesis.split())
    return found >= MIN_REPEATS and found > longest_repeat(reference.split())


def missing_tail(reference: str, hypothesis: str) -> int:
    """Count the words (characters in unspaced scripts) of the reference lost at its very end."""
    if is_unspaced(reference):
        reference, hypothesis = characters(reference), characters(hypothesis)
        if not hypothesis:
            return len(reference)
        chunks = jiwer.process_characters(reference, hypothesis).alignments[0]
    else:
        if not hypothesis:
            return len(reference.split())
        chunks = jiwer.process_words(reference, hypothesis).alignments[0]
    last = chunks[-1]
    return last.ref_end_idx - last.ref_start_idx if last.type == "delete" else 0


def clip_flags(
    params: ScoreParams,
    shape: Shape,
    transcript: Transcript,
    *,
    hyp_norm: str,
    text_norm: str,
    lang: str,
    dur_ratio: float | None,
    speech_s: float,
    hit_max_tokens: bool,
    voice: Sequence[str] = (),
) -> tuple[str, ...]:
    """Name what is wrong with a clip, in the order of `FLAGS`.

    `dur_ratio` is spoken over expected seconds, None where there is no expectation; `speech_s` by
    voice activity detection; `voice` holds flags of a voice that does not stay the same, see
    `scoring.windows`.
    """
    slow, fast = params.rate_ratio[1], params.rate_ratio[0]
    wrong = {
        "hit_max_tokens": hit_max_tokens,
        "rate_low": dur_ratio is not None and dur_ratio < fast,
        "rate_high": dur_ratio is not None and dur_ratio > slow,
        "leading_silence": shape.lead_silence_s > params.max_silence_s,
        "trailing_silence": shape.trail_silence_s > params.max_silence_s,
        "internal_silence": shape.max_internal_silence_s > params.max_silence_s,
        "abrupt_end": shape.end_db is not None and shape.end_db > -ABRUPT_DB,
        "clipping": shape.clipped_share > MAX_CLIPPED_SHARE,
        "too_little_speech": speech_s < params.min_speech_s,
        **_transcript_flags(transcript, hyp_norm, text_norm, lang),
        **dict.fromkeys(voice, True),
    }
    return tuple(flag for flag in FLAGS if wrong.get(flag))


def retranscribed_flags(
    flags: tuple[str, ...], transcript: Transcript, *, hyp_norm: str, text_norm: str, lang: str
) -> tuple[str, ...]:
    """Return a clip's flags by the first recogniser after another one has transcribed it."""
    wrong = dict.fromkeys(flags, True) | _transcript_flags(transcript, hyp_norm, text_norm, lang)
    return tuple(flag for flag in FLAGS if wrong.get(flag))


def _transcript_flags(
    transcript: Transcript, hyp_norm: str, text_norm: str, lang: str
) -> dict[str, bool]:
    """Tell which of the flags that a recogniser gives a clip has."""
    units = len(characters(text_norm) if is_unspaced(text_norm) else text_norm.split())
    other = transcript.lid is not None and transcript.lid != lang
    lost = missing_tail(text_norm, hyp_norm)
    return {
        "empty_transcript": not hyp_norm,
        "wrong_language": other and (transcript.lid_p or 0.0) >= MIN_LANGUAGE_PROBABILITY,
        "repeated_ngram": has_repeats(text_norm, hyp_norm),
        "truncated_tail": lost >= max(2, TAIL_SHARE * units),
        "high_compression": transcript.compression_ratio > MAX_COMPRESSION_RATIO,
        "low_logprob": transcript.avg_logprob < MIN_AVG_LOGPROB,
        "no_speech": transcript.no_speech_prob > MAX_NO_SPEECH_PROB,
        "long_clip": transcript.num_windows > 1,
    }
