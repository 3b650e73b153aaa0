"""Special ids, languages and speaker rows, read from the model's config and never assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxadapt.errors import Problem, UserError

#: Inference never samples the last ids of the codec vocabulary, the end of speech excepted.
#: The number is a constant of `Qwen3TTSForConditionalGeneration.generate`, not of the config.
NUM_SUPPRESSED_IDS = 1024

#: Row that public recipes use for a fine-tuned speaker; taken here only if it is free.
USUAL_SPEAKER_ROW = 3000

#: A row counts as unused when its norm is below this share of the codes' median norm.
NEAR_ZERO_SHARE = 0.1


@dataclass(frozen=True)
class SpecialIds:
    """Every id and size that a training sequence needs.

    Attributes:
        im_start: Text id that opens a turn.
        im_end: Text id that closes a turn.
        tts_pad: Text id on positions without text.
        tts_bos: Text id before the text.
        tts_eos: Text id after the text.
        codec_pad: Codec id on positions without audio.
        codec_bos: Codec id before the first frame.
        codec_eos: Codec id after the last frame: end of speech.
        think: Opens a language tag.
        nothink: Stands for "no language tag".
        think_bos: Second id of the tag.
        think_eos: Last id of the tag.
        num_codebooks: Codes in a frame (K).
        codebook_size: Entries in one codebook.
        codec_vocab_size: Rows of the codec embedding.
        languages: Lower-case language name to codec id.
        speakers: Speaker name as stored to codec id.
    """

    im_start: int
    im_end: int
    tts_pad: int
    tts_bos: int
    tts_eos: int
    codec_pad: int
    codec_bos: int
    codec_eos: int
    think: int
    nothink: int
    think_bos: int
    think_eos: int
    num_codebooks: int
    codebook_size: int
    codec_vocab_size: int
    languages: Mapping[str, int]
    speakers: Mapping[str, int]

    @classmethod
    def from_config(cls, config: Any) -> SpecialIds:
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

    def language_id(self, language: str | None) -> int | None:
        """Return the codec id of a language, or None for `auto`.

        Args:
            language: Name in any case; `auto` and None mean a prefix without a tag.

        Raises:
            UserError: When the model's config does not list the language.
        """
        if language is None or language.lower() == "auto":
            return None
        if language.lower() not in self.languages:
            raise UserError(
                Problem(
                    "train.language",
                    "auto or one of " + ", ".join(sorted(self.languages)),
                    repr(language),
                    "Choose a listed language, or auto.",
                )
            )
        return self.languages[language.lower()]


@dataclass(frozen=True)
class SpeakerRow:
    """The row of the codec embedding that holds a fine-tuned speaker.

    Attributes:
        id: Row, and value in the config's `spk_id`.
        reused: The config already had a speaker of this name.
        norm_before: The row's norm before it is written.
        code_norm: Median norm of the rows that hold codes, for comparison.
    """

    id: int
    reused: bool
    norm_before: float
    code_norm: float

    @property
    def near_zero(self) -> bool:
        """Whether the row looks untrained."""
        return self.norm_before <= NEAR_ZERO_SHARE * self.code_norm


def free_codec_row(weight: Tensor, ids: SpecialIds, speaker: str) -> SpeakerRow:
    """Find the row of the codec embedding that a speaker shall occupy.

    A speaker whose name exists, whatever its case, keeps its row. Otherwise the row is one that
    inference never samples, that has no meaning in the config, and that does not lie among the
    languages (gaps there may hold languages that were trained and not released). Of those, the
    usual row 3000 is taken when it is near zero, else the one of least norm, the lowest id first.

    Args:
        weight: Codec embedding `[V, D]`.
        ids: Special ids of the same model.
        speaker: Name in any case.

    Raises:
        UserError: When no row is free.
    """
    norms = weight.detach().to("cpu", torch.float32).norm(dim=1)
    code_norm = float(norms[: ids.codebook_size].median())
    for name, row in ids.speakers.items():
        if name.lower() == speaker.lower():
            return SpeakerRow(int(row), True, float(norms[row]), code_norm)
    tags = sorted(ids.languages.values())
    taken = ids.special_codec_ids | set(ids.speakers.values())
    if tags:
        taken = taken | set(range(tags[0], tags[-1] + 1))
    first = max(ids.codebook_size, ids.codec_vocab_size - NUM_SUPPRESSED_IDS)
    free = [row for row in range(first, ids.codec_vocab_size) if row not in taken]
    if not free:
        raise UserError(
            Problem(
                "model.base",
                f"a free codec id from {first} to {ids.codec_vocab_size - 1} for a speaker",
                "none",
                "Start from a model with fewer speakers.",
            )
        )
    best = min(free, key=lambda row: (float(norms[row]), row))
    usual = USUAL_SPEAKER_ROW
    if usual in free and float(norms[usual]) <= NEAR_ZERO_SHARE * code_norm:
        best = usual
    return SpeakerRow(best, False, float(norms[best]), code_norm)
