"""Which speaker says each utterance, and the recordings that give their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxadapt.core.errors import raise_problems
from voxadapt.core.files import sha256_file
from voxadapt.core.problems import problem
from voxadapt.data.manifest import Utterance
from voxadapt.training.batches import GeneratedUtterance


@dataclass(frozen=True)
class SpeakerIndex:
    """The speakers of a corpus, one or several."""

    names: tuple[str, ...]  # their names, in the order of their vectors
    references: tuple[Path, ...]  # recording of each
    of_utterance: Mapping[str, int]  # place in `names` of the speaker of each utterance, by its id
    named: bool  # the caller has named them; False for the one speaker of `params.speaker_name`

    @classmethod
    def build(
        cls,
        utterances: Sequence[Utterance | GeneratedUtterance],
        speaker_name: str,
        ref_audio: str | Path,
        recordings: Mapping[str, str | Path] | None = None,
    ) -> SpeakerIndex:
        """Find the speaker of each utterance.

        Who is named by no row is `speaker_name`; a single speaker has `ref_audio`, several have
        `recordings` by name.

        Raises:
            UserError: When a speaker has no recording, or no utterance in the train split.
        """
        if not recordings:
            index = {row.id: 0 for row in utterances}
            return cls((speaker_name,), (Path(ref_audio),), index, False)
        names = tuple(recordings)
        speaker = {row.id: getattr(row, "speaker", None) or speaker_name for row in utterances}
        in_train = {speaker[row.id] for row in utterances if row.split == "train"}
        problems = [
            problem("training.no_recording", name)
            for name in sorted(set(speaker.values()) - set(names))
        ]
        problems += [
            problem("training.no_clips", f"speaker {name}")
            for name in names
            if name not in in_train
        ]
        raise_problems(problems, "Not every speaker can be trained.")
        index = {utterance: names.index(name) for utterance, name in speaker.items()}
        return cls(names, tuple(map(Path, recordings.values())), index, True)

    def identity(self) -> dict[str, object]:
        """Return what several speakers add to a run's fingerprint; nothing for a single one."""
        if not self.named:
            return {}
        return {
            "spoken_by": dict(self.of_utterance),
            "references": [sha256_file(path) for path in self.references],
            "speakers": list(self.names),
        }
