"""A track: a corpus on its way through the stages, the speaker's or the language's.

Both are audited, encoded, scored and chosen by the same code; what differs between them is here.
"""

from dataclasses import dataclass

from voxadapt.core.errors import raise_problems
from voxadapt.core.files import cached_sha256, read_jsonl
from voxadapt.core.languages import MODEL_LANGUAGES, whisper_language
from voxadapt.core.params import (
    AsrParams,
    AuditParams,
    DataParams,
    MeasurableParams,
    ModelParams,
    Params,
    ScoreParams,
    SelectParams,
    SplitParams,
    language_section,
)
from voxadapt.core.paths import LANGUAGE, SPEAKER, Corpus
from voxadapt.core.problems import problem, user_error
from voxadapt.core.records import Record, read_record
from voxadapt.data.manifest import Utterance, read_manifest
from voxadapt.data.speakers import Speaker, list_speakers

HELD_OUT = ("selection", "confirmation")


@dataclass(frozen=True)
class Track:
    """What the stages need to know of the corpus that they work on."""

    corpus: Corpus  # where its files are kept
    model: ModelParams  # the Base
    data: DataParams  # manifest of the recordings, transcript of the reference clip, other voices
    asr: AsrParams  # Whisper, with the language that it is told to transcribe
    audit: AuditParams  # limits of the audit
    split: SplitParams  # shares and salt of the splits
    score: ScoreParams  # sampling and scoring
    rule: SelectParams  # how a candidate is chosen
    limits: MeasurableParams  # beyond which nothing can be measured
    candidates: tuple[str, ...]  # names of the candidates that are scored, the Base first
    speaker_name: str  # who speaks clips that name nobody
    tag: str  # language that adapted models are asked for
    codes_command: str  # which `voxadapt` command writes the corpus' codes and references

    def accepted(self) -> list[Utterance]:
        """Read the accepted utterances; see `read_accepted`."""
        return read_accepted(self.corpus)

    def language_of(self, row: Utterance) -> str | None:
        """Name a row's own language as the model does; None where it has that of the track."""
        return row.language if self.corpus is SPEAKER else None

    def code_of(self, row: Utterance) -> str:
        """Return Whisper's code of a row's language, or of the track's where it has none."""
        own = self.language_of(row)
        published = own in MODEL_LANGUAGES.values()
        return whisper_language(own) if own and published else self.asr.language

    def speakers(self) -> tuple[Speaker, ...]:
        """List the speakers; the only one has no folder where the manifest names nobody."""
        utterances = self.accepted()
        only = Speaker(
            self.speaker_name, "", utterances[0].ref_audio, frozenset(row.id for row in utterances)
        )
        return list_speakers(utterances, self.speaker_name) or (only,)

    def read_scale(self) -> Record:
        """Read ceiling, floor and rate of the corpus as a record."""
        return read_record(self.corpus.scale, self.codes_command)


def speaker_track(params: Params) -> Track:
    """Return the track of the speaker's corpus."""
    return Track(
        corpus=SPEAKER,
        model=params.model,
        data=params.data,
        asr=params.asr,
        audit=params.audit,
        split=params.split,
        score=params.score,
        rule=params.select,
        limits=params.measurable,
        candidates=params.candidates,
        speaker_name=params.train.speaker_name,
        tag=params.train.language,
        codes_command="codes",
    )


def language_track(params: Params) -> Track:
    """Return the track of the language's recordings."""
    language, score = language_section(params), params.score
    if score.base_prompt == "both":  # all of a language's candidates clone: one way for all
        score = score.model_copy(update={"base_prompt": "x_vector"})
    return Track(
        corpus=LANGUAGE,
        model=params.model,
        data=DataParams(
            manifest=language.audio,
            ref_text=language.ref_text,
            other_voices=params.data.other_voices,
        ),
        asr=params.asr.model_copy(update={"language": language.asr_language}),
        audit=language.audit,
        split=language.split,
        score=score,
        rule=language.select,
        limits=params.measurable,
        candidates=language.candidates,
        speaker_name=language.name,
        tag=language.name,
        codes_command="language data",
    )


def check_recordings(track: Track) -> None:
    """Refuse recordings that are not those that the audit accepted."""
    problems = []
    for row in track.accepted():
        try:
            fine = cached_sha256(row.audio) == row.audio_sha256
        except OSError:
            fine = False
        if not fine:
            problems.append(problem("pipeline.changed_recording", row.audio))
    raise_problems(problems, f"{len(problems)} recordings have changed since the audit.")


def read_accepted(corpus: Corpus) -> list[Utterance]:
    """Read a corpus' accepted utterances and hold them to the audit's list of clips.

    Raises:
        UserError: When the manifest is absent or a file torn, or when the two do not name the
            same clips: a manifest cut between two lines would otherwise be a smaller corpus.
    """
    utterances = read_manifest(corpus.manifest)
    if not corpus.clips.is_file():
        return utterances
    try:
        listed = {row["id"] for row in read_jsonl(corpus.clips)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise user_error("pipeline.torn_clips", corpus.clips, error=error) from None
    if listed != {row.id for row in utterances}:
        facts = {"count": len(listed), "file": corpus.clips.name, "found": len(utterances)}
        raise user_error("pipeline.other_clips", corpus.manifest, **facts)
    return utterances
