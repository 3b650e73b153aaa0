"""What a recogniser returns for a clip; separate from Whisper, so that flags need no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transcript:
    """The transcript of one clip, with the recogniser's own measures of confidence."""

    text: str  # transcript, as decoded
    avg_logprob: float  # mean log-probability of its tokens; the lowest of several windows
    compression_ratio: float  # of the text by zlib; high where it repeats itself
    no_speech_prob: float  # the highest of several windows
    lid: str | None  # most probable language, None for a model of one language
    lid_p: float | None  # its probability
    num_windows: int  # windows read
