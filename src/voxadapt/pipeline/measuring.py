"""Measuring clips with Whisper and the speaker encoder, each loaded when it is first needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from voxadapt.asr.voice_prints import Embedder
from voxadapt.asr.whisper import Transcriber
from voxadapt.core.params import AsrParams, ScoreParams
from voxadapt.pipeline.context import ROOT, Context
from voxadapt.scoring.rows import EvalClip, ScoreRow
from voxadapt.scoring.score_clips import score_clips
from voxadapt.scoring.similarity import SimilarityScale, VoiceReference


@dataclass(frozen=True)
class Measuring:
    """The harness that every clip of a stage goes through."""

    context: Context  # where it runs
    asr: AsrParams  # Whisper, with the language that it is told to transcribe
    score: ScoreParams  # thresholds of the flags
    root: Path = ROOT  # folder that the clips' paths are relative to

    @cached_property
    def transcriber(self) -> Transcriber:
        """Whisper."""
        context = self.context
        return Transcriber.from_params(self.asr, str(context.device), context.work_dir)

    @cached_property
    def embedder(self) -> Embedder:
        """The speaker encoder."""
        return Embedder(str(self.context.device))

    def rows(
        self,
        clips: Sequence[EvalClip],
        voice: VoiceReference,
        scale: SimilarityScale,
        others: Mapping[str, VoiceReference] | None = None,
    ) -> list[ScoreRow]:
        """Measure clips of one speaker; see `score_clips`."""
        return score_clips(
            clips, self.transcriber, self.embedder, voice, scale, self.score, root=self.root,
            others=others, executor=self.context.executor, work_dir=self.context.embeddings_dir,
        )  # fmt: skip
