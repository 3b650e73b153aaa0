"""What a recogniser returns for a clip; separate from Whisper, so that flags need no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transcript:
    """The transcript of one clip, with the recogniser's own measures of confidence.

    Attributes:
        text: Transcript, as decoded.
        avg_logprob: Mean log-probability of its tokens; the lowest of several windows.
        compression_ratio: Of the text by zlib; high where it repeats itself.
        no_speech_prob: The highest of several windows.
        lid: Most probable language, None for a model of one language.
        lid_p: Its probability.
        num_windows: Windows read.
    """

    text: str
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    lid: str | None
    lid_p: float | None
    num_windows: int
