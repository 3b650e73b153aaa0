"""Score rows: one frozen record per candidate, text and take, and the rules for reading them.

A row is self-contained: text, transcript, edit counts, similarity, flags and the identity of every
tool that measured it. Reading refuses what would make a comparison dishonest: a missing row, an
extra one, one made from another text, or rows of two evaluators.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voxadapt.asr.metrics import EditCounts
from voxadapt.asr.normalise import normalise
from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.files import sha256_bytes, write_atomic
from voxadapt.core.problems import problem, user_error
from voxadapt.data.text import has_digit

ROWS_FILE = "rows.jsonl"
SECOND_FILE = "second.jsonl"  # the same clips as a second recogniser heard them
# A clip with one of these flags failed, whatever its transcript says.
FAILURE_FLAGS = ("hit_max_tokens", "empty_transcript", "rate_low", "rate_high")
# A number whose words are not known in its language can be heard and written in several right ways:
# what holds one is scored and shown, but decides nothing.
# Sets with a purpose guard and never choose; see `pipeline.guard_sets`.
Guard = Literal["short", "long", "numbers", "names", "questions", "own"]
Slice = Literal["ranked", "digits"] | Guard
GUARDS: Final[tuple[Guard, ...]] = ("short", "long", "numbers", "names", "questions", "own")
SLICES: Final[tuple[Slice, ...]] = ("ranked", "digits", *GUARDS)


def slice_of(text: str, lang: str) -> Slice:
    """Name the slice of a sentence: `digits` where a number in it has no words in its language."""
    return "digits" if has_digit(text) and has_digit(normalise(text, lang)) else "ranked"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sentence(_Record):
    """A sentence that every candidate speaks."""

    text_id: str
    text: str = Field(min_length=1)
    split: str
    slice: Slice = "ranked"
    #: Language that the model is asked for, where it is not that of all others.
    tag: str | None = None
    lang: str | None = None  # Whisper's code of it


class EvalClip(_Record):
    """A clip to be scored: generated speech, a real recording, or a codec round trip.

    The candidate is `base`, `epoch-3`, or one of the pseudo-candidates `real` and `codec`;
    in-domain sentences carry their utterance's id. Relative paths of `wav` start at the project
    folder; it is empty where the clip failed, and `message` says why. `gen_sha` hashes what decides
    generation besides the checkpoint.
    """

    candidate: str
    split: str
    text_id: str
    take: int = Field(0, ge=0)
    seed: int = 0
    lang: str
    text: str
    slice: Slice = "ranked"
    wav: str = ""
    num_frames: int | None = None
    hit_max_tokens: bool = False
    gen_sha: str = ""
    checkpoint_sha: str = ""
    status: Literal["ok", "failed"] = "ok"
    message: str = ""


class ScoreRow(_Record):
    """Everything measured on one clip; a failed clip has a row too, with error 1.0.

    `window_sims` are the similarities of each second, `f0_…` what `scoring.pitch` measures; None
    where that was not measured.

    Where several speakers are measured, `speaker` is the one that was asked for and `sim_to` the
    similarity to each one's recordings, coded as what a model says is; otherwise both are None
    and are not written.
    """

    candidate: str
    split: str
    text_id: str
    take: int = Field(ge=0)
    seed: int
    lang: str
    text: str
    slice: Slice = "ranked"
    text_norm: str
    norm_id: str
    wav: str
    wav_sha256: str
    sample_rate_hz: int | None
    duration_s: float | None
    speech_s: float | None
    num_frames: int | None
    hit_max_tokens: bool
    gen_sha: str
    checkpoint_sha: str
    asr_id: str
    hyp: str
    hyp_norm: str
    word_hits: int = Field(ge=0)
    word_substitutions: int = Field(ge=0)
    word_deletions: int = Field(ge=0)
    word_insertions: int = Field(ge=0)
    char_hits: int = Field(ge=0)
    char_substitutions: int = Field(ge=0)
    char_deletions: int = Field(ge=0)
    char_insertions: int = Field(ge=0)
    ref_words: int = Field(ge=1)
    ref_chars: int = Field(ge=1)
    avg_logprob: float | None
    compression_ratio: float | None
    no_speech_prob: float | None
    lid: str | None
    lid_p: float | None
    sim: float | None
    sim_id: str
    sim_ref_n: int
    dur_ratio: float | None
    lead_silence_s: float | None
    trail_silence_s: float | None
    max_internal_silence_s: float | None
    clipped_share: float | None
    num_pauses: float | None
    pause_s: float | None
    window_sims: tuple[float, ...] | None
    f0_median_hz: float | None
    f0_range_st: float | None
    f0_final_st: float | None
    f0_jump_st: float | None
    flags: tuple[str, ...]
    status: Literal["ok", "failed"]
    message: str
    mos: float | None = None
    speaker: str | None = None
    sim_to: dict[str, float] | None = None

    @property
    def words(self) -> EditCounts:
        """Word edits; a failed clip has lost all its words."""
        if self.status == "failed":
            return EditCounts(0, 0, self.ref_words, 0)
        return EditCounts(
            self.word_hits, self.word_substitutions, self.word_deletions, self.word_insertions
        )

    @property
    def chars(self) -> EditCounts:
        """Character edits; a failed clip has lost all its characters."""
        if self.status == "failed":
            return EditCounts(0, 0, self.ref_chars, 0)
        return EditCounts(
            self.char_hits, self.char_substitutions, self.char_deletions, self.char_insertions
        )

    @property
    def wer_raw(self) -> float:
        """Word error without a cap."""
        return self.words.edits / self.ref_words

    @property
    def cer_raw(self) -> float:
        """Character error without a cap."""
        return self.chars.edits / self.ref_chars

    @property
    def wer(self) -> float:
        """Word error, at most 1."""
        return min(1.0, self.wer_raw)

    @property
    def cer(self) -> float:
        """Character error, at most 1."""
        return min(1.0, self.cer_raw)

    @property
    def failed(self) -> bool:
        """Whether nobody could use the clip: no audio, a runaway, no speech, or half of it."""
        return self.status == "failed" or any(flag in FAILURE_FLAGS for flag in self.flags)

    @property
    def key(self) -> tuple[str, int]:
        """What a comparison pairs on."""
        return self.text_id, self.take


def evaluator_id(rows: Iterable[ScoreRow]) -> dict[str, str]:
    """Name the one evaluator that made the rows: norm_id, asr_id, sim_id and gen_sha.

    Of each language, where there are several.

    Raises:
        UserError: When the rows come from more than one evaluator.
    """
    rows = list(rows)
    problems = []
    identity = {}
    for name in ("norm_id", "asr_id", "sim_id", "gen_sha"):
        by_language: dict[str, dict[str, str]] = {}
        for row in rows:
            found = by_language.setdefault(row.lang, {})
            found.setdefault(getattr(row, name), row.candidate)
        for found in by_language.values():
            if len(found) < 2:
                continue
            listed = ", ".join(f"{value} ({candidate})" for value, candidate in found.items())
            problems.append(problem("scoring.several_evaluators", name, found=listed))
        values = [value for _, found in sorted(by_language.items()) for value in found]
        identity[name] = ", ".join(dict.fromkeys(values))
    raise_problems(problems, "Scores made by different evaluators cannot be compared.")
    return identity


def ranked(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Keep the rows that may decide, in their order; raises `UserError` where none of them may."""
    rows = list(rows)
    kept = [row for row in rows if row.slice == "ranked"]
    if rows and not kept:
        where = f"{rows[0].candidate}, {rows[0].split}"
        raise user_error("scoring.only_digits", where, count=len(rows))
    return kept


def sort_rows(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Return the rows in their one canonical order."""
    return sorted(rows, key=lambda row: (row.candidate, row.split, row.text_id, row.take))


def serialise_rows(rows: Iterable[ScoreRow]) -> str:
    """Write rows as JSONL in canonical order: equal rows give equal bytes."""
    lines = []
    for row in sort_rows(rows):
        absent = {name for name in ("speaker", "sim_to", "mos") if getattr(row, name) is None}
        values = row.model_dump(mode="json", exclude=absent)
        lines.append(json.dumps(values, ensure_ascii=False, sort_keys=True) + "\n")
    return "".join(lines)


def rows_sha(rows: Iterable[ScoreRow]) -> str:
    """Hash rows independent of their order."""
    return sha256_bytes(serialise_rows(rows).encode())


def write_rows(folder: str | Path, rows: Iterable[ScoreRow]) -> Path:
    """Write `rows.jsonl` into a folder and return its path."""
    path = Path(folder) / ROWS_FILE
    write_atomic(path, serialise_rows(rows))
    return path


def read_scores(
    folder: str | Path,
    expected: Iterable[tuple[str, int]] | None = None,
    *,
    texts: Mapping[str, str] | None = None,
    split: str | None = None,
    checkpoint_sha: str | None = None,
    fix: str = "Run the score stage again for this candidate.",
) -> list[ScoreRow]:
    """Read one candidate's rows in canonical order, and refuse a file that is not whole.

    Every (text_id, take) that is `expected` must be there, and nothing else. Rows of another split
    are refused, and as stale those of another text (`texts` by text_id) or checkpoint than now.
    None skips a check; `fix` says for the messages what to do.

    Raises:
        UserError: For a missing file, broken lines, and missing, extra, double or stale rows.
    """
    path = Path(folder)
    path = path if path.suffix == ".jsonl" else path / ROWS_FILE
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise user_error("scoring.no_rows", path, error=error, fix=fix) from None
    rows, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(ScoreRow.model_validate_json(line))
        except ValidationError as error:
            where = f"{path}:{number}"
            problems.append(problem("scoring.no_row", where, error=error, fix=fix))
    problems += _integrity(path, rows, expected, texts, split, checkpoint_sha, fix)
    raise_problems(problems, f"The scores in {path} cannot be used.")
    evaluator_id(rows)
    return sort_rows(rows)


def _integrity(
    path: Path,
    rows: Sequence[ScoreRow],
    expected: Iterable[tuple[str, int]] | None,
    texts: Mapping[str, str] | None,
    split: str | None,
    checkpoint_sha: str | None,
    fix: str,
) -> Iterator[Problem]:
    """Find what makes the rows incomplete or stale."""

    def wrong(what: str, wanted: str, found: str) -> Problem:
        return Problem(f"{path}: {what}", wanted, found, fix)

    candidates = sorted({row.candidate for row in rows})
    if len(candidates) > 1:
        yield wrong("candidate", "one candidate", ", ".join(candidates))
    keys = Counter(row.key for row in rows)
    for key in sorted(key for key, count in keys.items() if count > 1):
        yield wrong(_name(key), "one row", f"{keys[key]} rows")
    if expected is not None:
        wanted = set(expected)
        for key in sorted(wanted - set(keys)):
            yield wrong(_name(key), "a row", "none")
        for key in sorted(set(keys) - wanted):
            yield wrong(_name(key), "no row", "one that does not belong to this comparison")
    for row in rows:
        text = row.text if texts is None else texts.get(row.text_id, row.text)
        if row.text != text:
            yield wrong(_name(row.key), f"the text {text!r}", f"{row.text!r} (stale)")
        if split is not None and row.split != split:
            yield wrong(_name(row.key), f"split {split}", row.split)
        if checkpoint_sha is not None and row.checkpoint_sha != checkpoint_sha:
            found = f"{row.checkpoint_sha[:12]} (stale)"
            yield wrong(_name(row.key), f"checkpoint {checkpoint_sha[:12]}", found)


def _name(key: tuple[str, int]) -> str:
    return f"text {key[0]}, take {key[1]}"
