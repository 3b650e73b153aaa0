"""The speakers of a corpus: who speaks which clips, and what each is called."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from voxadapt.core.errors import raise_problems
from voxadapt.core.problems import problem
from voxadapt.core.provenance import fingerprint
from voxadapt.data.manifest import Utterance, by_speaker


@dataclass(frozen=True, slots=True)
class Speaker:
    """One of the speakers of a corpus."""

    name: str  # as the manifest writes it, and as a model is asked for it
    folder: str  # name for folders of this speaker; empty where the manifest names nobody
    ref_audio: str  # the reference recording
    ids: frozenset[str]  # utterances

    @property
    def is_named(self) -> bool:
        """Whether the manifest names its speakers: records then say whose each clip is."""
        return bool(self.folder)


def list_speakers(utterances: Sequence[Utterance], default: str) -> tuple[Speaker, ...]:
    """List the speakers of a corpus by name.

    Raises:
        UserError: When the default and a speaker of the manifest differ in case alone, or share
            their clips' name without sharing the reference.
    """
    groups = by_speaker(utterances)
    if set(groups) <= {None}:
        return ()
    problems = []
    unnamed = groups.pop(None, [])
    if unnamed:
        for name in [other for other in groups if other and other.lower() == default.lower()]:
            facts = {"name": name, "default": default, "count": len(unnamed)}
            problems.append(problem("data.unnamed_clips", "train.speaker_name", **facts))
        groups[default] = unnamed
    raise_problems(problems, "The speakers cannot be told apart.")
    return tuple(
        Speaker(name, folder_name(name), rows[0].ref_audio, frozenset(row.id for row in rows))
        for name, rows in sorted((str(name), rows) for name, rows in groups.items())
    )


def folder_name(name: str) -> str:
    """Turn a speaker's name into a folder's, safe everywhere and still unique."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40].lower()
    return safe if safe == name.lower() else f"{safe}-{fingerprint(name, 8)}"


def choose_speakers(
    speakers: Sequence[Speaker], wanted: Sequence[str] | None, where: str = "train.speakers"
) -> tuple[Speaker, ...]:
    """Return the speakers that are asked for, all where none is; raises `UserError` for others."""
    if wanted is None:
        return tuple(speakers)
    known = {speaker.name: speaker for speaker in speakers}
    listed = ", ".join(known) or "none"
    problems = [
        problem("data.unknown_speaker", where, known=listed, name=name)
        for name in wanted
        if name not in known
    ]
    raise_problems(problems, "The manifest does not have these speakers.")
    return tuple(known[name] for name in dict.fromkeys(wanted))
