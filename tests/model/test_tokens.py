from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import fakes
from voxadapt.core.errors import UserError
from voxadapt.model.tokens import SpecialIds, free_codec_row

IDS = fakes.make_ids()


def weight(near_zero: tuple[int, ...] = (), rows: int = IDS.codec_vocab_size) -> torch.Tensor:
    table = torch.randn(rows, 16, generator=torch.Generator().manual_seed(0))
    table[list(near_zero)] *= 1e-3
    return table


def test_ids_are_read_from_the_config(models):
    config = models[24].model.config
    ids = SpecialIds.from_config(config)
    assert ids.codec_eos == config.talker_config.codec_eos_token_id
    assert (ids.num_codebooks, ids.codebook_size) == (fakes.NUM_CODEBOOKS, fakes.CODEBOOK_SIZE)
    assert ids.languages == {"english": 34, "german": 37}


def test_language_names_are_case_insensitive_and_auto_is_no_tag():
    assert IDS.language_id("English") == 34
    assert IDS.language_id("AUTO") is None
    assert IDS.language_id(None) is None


def test_unknown_language_lists_the_known_ones():
    with pytest.raises(UserError, match=r"english, german.*'malay'"):
        IDS.language_id("malay")


def test_a_near_zero_row_is_found_and_the_choice_is_deterministic():
    table = weight((500, 700))
    row = free_codec_row(table, IDS, "Aria")
    assert row == free_codec_row(table.clone(), IDS, "aria")
    assert row.id in (500, 700)
    assert row.near_zero
    assert not row.reused


@pytest.mark.parametrize("taken", [134, 34, 35, 36, 37, 5])
def test_rows_with_a_meaning_among_languages_or_codes_are_never_taken(taken):
    assert free_codec_row(weight((taken, 500)), IDS, "Aria").id == 500


def test_a_known_speaker_keeps_its_row_whatever_its_case():
    ids = replace(IDS, speakers={"ARIA": 200, "ben": 300})
    row = free_codec_row(weight((500,)), ids, "Aria")
    assert (row.id, row.reused) == (200, True)
    assert free_codec_row(weight((300, 500)), ids, "Cleo").id == 500


def test_row_3000_is_preferred_only_when_it_is_near_zero():
    ids = replace(IDS, codebook_size=2048, codec_vocab_size=3072)
    assert free_codec_row(weight((2900, 3000), 3072), ids, "Aria").id == 3000
    assert free_codec_row(weight((2900,), 3072), ids, "Aria").id == 2900
    taken = replace(ids, speakers={"ben": 3000})
    assert free_codec_row(weight((2900, 3000), 3072), taken, "Aria").id == 2900


def test_without_a_near_zero_row_the_smallest_is_taken_and_said_so():
    table = weight()
    row = free_codec_row(table, IDS, "Aria")
    assert not row.near_zero
    assert row.norm_before == pytest.approx(float(table[row.id].norm()))


def test_no_free_row_is_a_user_error():
    ids = replace(IDS, speakers={str(n): n for n in range(32, IDS.codec_vocab_size)})
    with pytest.raises(UserError, match="free codec id"):
        free_codec_row(weight(), ids, "Aria")
