"""Choosing among a language's candidates, and what each has forgotten of the source language."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from voxadapt.core.params import Params, language_scoring
from voxadapt.core.records import Record
from voxadapt.pipeline.candidates import BASE, Candidate
from voxadapt.pipeline.language.sentences import SOURCE, TARGET, source_sentences, target_sentences
from voxadapt.pipeline.stored_scores import choose, read_selection_scores
from voxadapt.pipeline.tracks import Track, language_track
from voxadapt.scoring.rows import ScoreRow
from voxadapt.selection.forgetting import forgetting


@dataclass(frozen=True)
class LanguageScores:
    """Rows of candidates on the selection sentences."""

    track: Track  # the language's
    target: dict[str, list[ScoreRow]]  # rows in the language, by candidate
    source: dict[str, list[ScoreRow]]  # rows in the source language, by candidate

    def choose(self, setting: str, what: str = "fine-tune", start: str = BASE) -> Record:
        """Choose by the rule of the language; see `select`."""
        return choose(self.track, self.target, setting=setting, what=what, start=start)

    def forgotten(self, chosen: str) -> Record:
        """Compare each candidate's source language with the Base's; see `forgetting`."""
        rule, scale = self.track.rule, self.track.read_scale()
        return forgetting(self.source[BASE], self.source, rule, chosen=chosen, scale=scale)


def read_language_scores(params: Params, candidates: Mapping[Path, Candidate]) -> LanguageScores:
    """Read candidates' rows in both languages and refuse what is not whole.

    Candidates are given by the folder of their scores.
    """
    rows: dict[str, dict[str, list[ScoreRow]]] = {TARGET: {}, SOURCE: {}}
    for part, of_part in ((TARGET, target_sentences), (SOURCE, source_sentences)):
        sentences = of_part(params, "selection").sentences
        for folder, candidate in candidates.items():
            name, takes = candidate.name, params.score.takes
            rows[part][name] = read_selection_scores(
                folder / part, candidate, sentences, takes, language_scoring(name)
            )
    return LanguageScores(language_track(params), rows[TARGET], rows[SOURCE])
