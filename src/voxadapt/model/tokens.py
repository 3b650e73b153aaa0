"""Special ids, languages and speaker rows, read from the model's config and never assumed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.problems import problem, user_error
from voxadapt.model.stock import Config

#: Inference never samples the last ids of the codec vocabulary, the end of speech excepted.
#: The number is a constant of `Qwen3TTSForConditionalGeneration.generate`, not of the config.
NUM_SUPPRESSED_IDS = 1024

#: Row that public recipes use for a fine-tuned speaker; taken here only if it is free.
USUAL_SPEAKER_ROW = 3000

#: A row counts as unused when its norm is below this share of the codes' median norm.
NEAR_ZERO_SHARE = 0.1

#: Languages whose ids lie this close may have others between them that were never released.
_NEIGHBOURS = 16


@dataclass(frozen=True)
class SpecialIds:
    """Every id and size that a training sequence needs."""

    im_start: int  # text id that opens a turn
    im_end: int  # text id that closes a turn
    tts_pad: int  # text id on positions without text
    tts_bos: int  # text id before the text
    tts_eos: int  # text id after the text
    codec_pad: int  # codec id on positions without audio
    codec_bos: int  # codec id before the first frame
    codec_eos: int  # codec id after the last frame: end of speech
    think: int  # opens a language tag
    nothink: int  # stands for "no language tag"
    think_bos: int  # second id of the tag
    think_eos: int  # last id of the tag
    num_codebooks: int  # codes in a frame (K)
    codebook_size: int  # entries in one codebook
    codec_vocab_size: int  # rows of the codec embedding
    languages: Mapping[str, int]  # lower-case language name to codec id
    speakers: Mapping[str, int]  # speaker name as stored to codec id

    @classmethod
    def from_config(cls, config: Config) -> SpecialIds:
        """Read the ids from a `Qwen3TTSConfig`."""
        talker = config.talker_config
        return cls(
            im_start=config.im_start_token_id,
            im_end=config.im_end_token_id,
            tts_pad=config.tts_pad_token_id,
            tts_bos=config.tts_bos_token_id,
            tts_eos=config.tts_eos_token_id,
            codec_pad=talker.codec_pad_id,
            codec_bos=talker.codec_bos_id,
            codec_eos=talker.codec_eos_token_id,
            think=talker.codec_think_id,
            nothink=talker.codec_nothink_id,
            think_bos=talker.codec_think_bos_id,
            think_eos=talker.codec_think_eos_id,
            num_codebooks=talker.num_code_groups,
            codebook_size=talker.code_predictor_config.vocab_size,
            codec_vocab_size=talker.vocab_size,
            languages=dict(talker.codec_language_id or {}),
            speakers=dict(talker.spk_id or {}),
        )

    @property
    def special_codec_ids(self) -> frozenset[int]:
        """Codec ids with a fixed meaning, languages and speakers left out."""
        ends = (self.codec_pad, self.codec_bos, self.codec_eos)
        return frozenset((*ends, self.think, self.nothink, self.think_bos, self.think_eos))

    @property
    def first_unsampled_id(self) -> int:
        """First codec id that is no code and that inference never samples."""
        return max(self.codebook_size, self.codec_vocab_size - NUM_SUPPRESSED_IDS)

    def language_id(self, language: str | None, where: str = "train.language") -> int | None:
        """Return the codec id of a language, or None for `auto`.

        `auto` and None mean a prefix without a tag; `where` says for the message who names it.

        Raises:
            UserError: When the model's config does not list the language.
        """
        if language is None or language.lower() == "auto":
            return None
        if language.lower() not in self.languages:
            known = ", ".join(sorted(self.languages))
            raise user_error("model.unlisted_language", where, known=known, language=language)
        return self.languages[language.lower()]


@dataclass(frozen=True)
class CodecRow:
    """A row of the codec embedding that was free, or is written anew."""

    id: int  # row, and value in the config
    norm_before: float  # the row's norm before it is written
    code_norm: float  # median norm of the rows that hold codes, for comparison

    @property
    def near_zero(self) -> bool:
        """Whether the row looks untrained."""
        return _is_near_zero(self.norm_before, self.code_norm)


@dataclass(frozen=True)
class SpeakerRow(CodecRow):
    """The row that holds a fine-tuned speaker."""

    reused: bool  # the config already had a speaker of this name


@dataclass(frozen=True)
class LanguageRow(CodecRow):
    """The row that holds the tag of a new language."""

    source: str  # languages whose rows it begins as: `mean of english, german`, or `german`


def free_codec_row(weight: Tensor, ids: SpecialIds, speaker: str) -> SpeakerRow:
    """Find the row of the codec embedding that a speaker shall occupy.

    A speaker whose name exists, whatever its case, keeps its row. Otherwise the row is one that
    inference never samples, that has no meaning in the config, and that does not lie among the
    languages (gaps there may hold languages that were trained and not released). Of those, the
    usual row 3000 is taken when it is near zero, else the one of least norm, the lowest id first.
    The codec embedding is `[V, D]`.

    Raises:
        UserError: When no row is free.
    """
    norms, code_norm = _row_norms(weight, ids)
    for name, row in ids.speakers.items():
        if name.lower() == speaker.lower():
            return SpeakerRow(int(row), float(norms[row]), code_norm, reused=True)
    free = _free_rows(ids)
    if not free:
        raise UserError(_none_free(ids, "speaker"))
    best = min(free, key=lambda row: (float(norms[row]), row))
    usual = USUAL_SPEAKER_ROW
    if usual in free and _is_near_zero(float(norms[usual]), code_norm):
        best = usual
    return SpeakerRow(best, float(norms[best]), code_norm, reused=False)


def free_language_row(
    weight: Tensor, ids: SpecialIds, name: str, row: int | None = None, init: str = "mean"
) -> LanguageRow:
    """Find the row of the codec embedding, `[V, D]`, that a new language shall occupy.

    A row that is asked for is checked. Otherwise the free row of least norm is taken, the lowest id
    first; row 3000 is left to a speaker. `init` is that of `initial_language_vector`.

    Raises:
        UserError: When the model lists the language, when the row is not free, when no row is, or
            when the row cannot begin as asked.
    """
    norms, code_norm = _row_norms(weight, ids)
    problems = language_name_problems(ids.languages, name)
    names, init_problems = _init_names(ids, init)
    problems += init_problems
    free = [one for one in _free_rows(ids) if one != USUAL_SPEAKER_ROW]
    if row is not None:
        problems += _row_problems(ids, row, norms, code_norm)
    elif free:
        row = min(free, key=lambda one: (float(norms[one]), one))
    else:
        problems.append(_none_free(ids, "language"))
    if problems or row is None:
        raise UserError(problems, "The language cannot be added.")
    source = names[0] if init.lower() != "mean" else "mean of " + ", ".join(names)
    return LanguageRow(row, float(norms[row]), code_norm, source)


def initial_language_vector(weight: Tensor, ids: SpecialIds, init: str) -> Tensor:
    """Compute what a new language's row begins as: `[D]`, float32, where `weight` is.

    The codec embedding is `[V, D]`; `init` is `mean`, of the known languages' rows, or the name of
    one of them in any case.

    Raises:
        UserError: When the model has no languages or does not list the one named.
    """
    names, problems = _init_names(ids, init)
    raise_problems(problems, "The language cannot be added.")
    return weight.detach()[[ids.languages[name] for name in names]].float().mean(dim=0)


def _row_norms(weight: Tensor, ids: SpecialIds) -> tuple[Tensor, float]:
    """Return the norm of every row `[V]`, and the median norm of the rows that hold codes."""
    norms = weight.detach().to("cpu", torch.float32).norm(dim=1)
    return norms, float(norms[: ids.codebook_size].median())


def _is_near_zero(norm: float, code_norm: float) -> bool:
    return norm <= NEAR_ZERO_SHARE * code_norm


def _free_rows(ids: SpecialIds) -> list[int]:
    """Return the rows that inference never samples and that nothing uses or may use."""
    tags = sorted(ids.languages.values())
    taken = {*ids.special_codec_ids, *ids.speakers.values(), *tags}
    for low, high in itertools.pairwise(tags):
        if high - low <= _NEIGHBOURS:
            taken.update(range(low, high))
    return [row for row in range(ids.first_unsampled_id, ids.codec_vocab_size) if row not in taken]


def _none_free(ids: SpecialIds, what: str) -> Problem:
    facts = {"first": ids.first_unsampled_id, "last": ids.codec_vocab_size - 1}
    return problem("model.no_free_id", "model.base", what=what, **facts)


def language_name_problems(known: Iterable[str], name: str) -> list[Problem]:
    """Say why a language cannot have this name."""
    lower = name.lower()
    if any(other.lower() == lower for other in known):
        return [problem("model.listed_language", "language.name", name=name)]
    if lower == "auto" or "dialect" in lower:  # inference keeps both for itself
        return [problem("model.reserved_language", "language.name", name=name)]
    return []


def _row_problems(ids: SpecialIds, row: int, norms: Tensor, code_norm: float) -> list[Problem]:
    """Say why a language cannot have the row that the user asks for."""
    first, last = ids.first_unsampled_id, ids.codec_vocab_size - 1
    holders = {number: f"the language {name}" for name, number in ids.languages.items()}
    holders |= {number: f"the speaker {name}" for name, number in ids.speakers.items()}
    holders |= dict.fromkeys(ids.special_codec_ids, "a special id")
    if row in holders:
        reason = f"which is {holders[row]}"
    elif row < ids.codebook_size:
        reason = "which is a code of the audio"
    elif not first <= row <= last:
        reason = "which lies outside"
    elif not _is_near_zero(float(norms[row]), code_norm):
        reason = f"whose norm {float(norms[row]):.3g} says that it was trained"
    else:
        return []
    facts = {"first": first, "last": last, "limit": NEAR_ZERO_SHARE * code_norm}
    return [problem("model.taken_row", "language.row", row=row, reason=reason, **facts)]


def _init_names(ids: SpecialIds, init: str) -> tuple[list[str], list[Problem]]:
    """Return the languages whose rows a new one begins as, and what is wrong with the request."""
    by_name = {name.lower(): name for name in ids.languages}
    if not by_name:
        return [], [problem("model.no_languages", "language.init")]
    if init.lower() == "mean":
        return sorted(ids.languages), []
    if init.lower() not in by_name:
        known = ", ".join(sorted(ids.languages))
        return [], [problem("model.unknown_init", "language.init", known=known, init=init)]
    return [by_name[init.lower()]], []
