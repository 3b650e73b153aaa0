"""What similarity is measured against: each speaker's recordings, and their scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxadapt.core.paths import Corpus
from voxadapt.core.problems import user_error
from voxadapt.core.records import read_record
from voxadapt.data.speakers import Speaker
from voxadapt.scoring.similarity import SimilarityScale, VoiceReference


@dataclass(frozen=True)
class Reference:
    """What a speaker's clips are compared with."""

    voice: VoiceReference  # held-out recordings after the codec
    scale: SimilarityScale  # ceiling, floor and rate of speech


def read_references(corpus: Corpus, speakers: Sequence[Speaker]) -> dict[str, Reference]:
    """Read the reference of each speaker, by name."""
    found = {}
    for who in speakers:
        voice, scale = corpus.voice_of(who.folder), corpus.scale_of(who.folder)
        found[who.name] = Reference(read_voice(voice), read_scale(scale))
    return found


def read_voice(path: Path) -> VoiceReference:
    """Read what similarity is measured against; raises `UserError` for an absent or torn file."""
    try:
        return VoiceReference.read(path)
    except (OSError, ValueError) as error:
        raise user_error("pipeline.no_voice", path, error=error) from None


def read_scale(path: Path) -> SimilarityScale:
    """Read a scale of similarity."""
    return SimilarityScale.from_dict(read_record(path, "codes"))


def voices_to_tell_apart(
    references: Mapping[str, Reference], speakers: Sequence[Speaker]
) -> dict[str, VoiceReference] | None:
    """Return everybody's reference by name; None where there is a single speaker."""
    if not speakers[0].is_named:
        return None
    return {name: reference.voice for name, reference in references.items()}
