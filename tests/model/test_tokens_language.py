from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import fakes
from voxadapt.core.errors import UserError
from voxadapt.model.tokens import free_codec_row, free_language_row, initial_language_vector

IDS = fakes.make_ids()
REAL = replace(IDS, codebook_size=2048, codec_vocab_size=3072, languages={"english": 2050})


def weight(near_zero: tuple[int, ...] = (), rows: int = IDS.codec_vocab_size) -> torch.Tensor:
    table = torch.randn(rows, 16, generator=torch.Generator().manual_seed(0))
    table[list(near_zero)] *= 1e-3
    return table


def problems(*arguments, **options):
    with pytest.raises(UserError) as caught:
        free_language_row(*arguments, **options)
    return caught.value.problems


def test_the_row_of_least_norm_is_taken_and_recorded():
    table = weight((500, 700))
    table[500] *= 0.5
    row = free_language_row(table, IDS, "malay")
    assert row == free_language_row(table.clone(), IDS, "malay")
    assert (row.id, row.near_zero, row.source) == (500, True, "mean of english, german")
    assert row.norm_before == pytest.approx(float(table[500].norm()))
    assert row.code_norm == pytest.approx(float(table[:32].norm(dim=1).median()))


def test_of_equal_rows_the_lowest_is_taken():
    table = weight()
    table[[800, 600, 700]] = 0.0
    assert free_language_row(table, IDS, "malay").id == 600


@pytest.mark.parametrize("taken", [134, 34, 35, 36, 37, 5, 3000])
def test_rows_with_a_meaning_among_languages_codes_or_a_speakers_are_never_taken(taken):
    ids = REAL if taken == 3000 else IDS
    table = weight((taken, 2900 if taken == 3000 else 500), ids.codec_vocab_size)
    table[taken] = 0.0
    assert free_language_row(table, ids, "malay").id in (500, 2900)


def test_without_a_near_zero_row_the_smallest_is_taken_and_said_so():
    assert not free_language_row(weight(), IDS, "malay").near_zero


def test_no_free_row_is_a_user_error():
    ids = replace(IDS, speakers={str(n): n for n in range(32, IDS.codec_vocab_size)})
    assert "free codec id" in str(problems(weight(), ids, "malay")[0])


@pytest.mark.parametrize("name", ["english", "English", "GERMAN"])
def test_a_language_that_the_model_lists_is_refused(name):
    (problem,) = problems(weight(), IDS, name)
    assert problem.where == "language.name"
    assert "the model lists it already" in problem.found
    assert problem.fix == "Leave out the language section, or name another."


@pytest.mark.parametrize("name", ["auto", "sichuan_dialect"])
def test_names_that_inference_keeps_for_itself_are_refused(name):
    assert problems(weight(), IDS, name)[0].where == "language.name"


def test_a_row_that_is_free_can_be_asked_for_even_among_the_languages():
    table = weight((35, 500))
    assert free_language_row(table, IDS, "malay", 35).id == 35


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (5, "a code of the audio"),
        (132, "a special id"),
        (34, "the language english"),
        (300, "the speaker ben"),
        (600, "it was trained"),
        (1056, "lies outside"),
        (-1, "a code of the audio"),
    ],
)
def test_a_row_that_is_not_free_is_refused_with_the_reason(row, reason):
    ids = replace(IDS, speakers={"ben": 300})
    table = weight((5, 132, 34, 300))
    (problem,) = problems(table, ids, "malay", row)
    assert problem.where == "language.row"
    assert reason in problem.found


def test_a_row_that_inference_may_sample_is_refused():
    ids = replace(IDS, codec_vocab_size=2000, languages={"english": 1500})
    (problem,) = problems(weight((40,), 2000), ids, "malay", 40)
    assert "lies outside" in problem.found
    assert "from 976 to 1999" in problem.expected
    table = weight((975, 976, 1999), 2000)
    assert [free_language_row(table, ids, "malay", row).id for row in (976, 1999)] == [976, 1999]
    assert "lies outside" in problems(table, ids, "malay", 975)[0].found


def test_all_problems_are_told_at_once():
    found = problems(weight(), IDS, "German", 5, "klingon")
    assert [p.where for p in found] == ["language.name", "language.init", "language.row"]


def test_the_vector_is_the_mean_of_the_languages_or_a_relatives():
    table = weight().half()
    mean = initial_language_vector(table, IDS, "mean")
    assert mean.dtype == torch.float32
    assert torch.allclose(mean, (table[34].float() + table[37].float()) / 2)
    assert torch.equal(initial_language_vector(table, IDS, "German"), table[37].float())
    assert free_language_row(table, IDS, "malay", init="German").source == "german"


def test_an_unknown_relative_lists_the_known_languages():
    with pytest.raises(UserError, match=r"mean, or one of english, german; found 'klingon'"):
        initial_language_vector(weight(), IDS, "klingon")


def test_a_model_without_languages_has_nothing_to_begin_from():
    with pytest.raises(UserError, match="lists no language"):
        initial_language_vector(weight(), replace(IDS, languages={}), "mean")


def test_a_language_far_from_the_others_leaves_rows_for_a_speaker():
    """Rows up to a far language are no gap among the languages."""
    table = weight((900, 1000))
    row = free_language_row(table, IDS, "malay", 1000)
    ids = replace(IDS, languages={**IDS.languages, "malay": row.id})
    assert free_codec_row(table, ids, "Aria").id == 900


def test_the_models_config_offers_what_is_needed(models):
    from voxadapt.model.tokens import SpecialIds

    model = models[24].model
    ids = SpecialIds.from_config(model.config)
    row = free_language_row(model.talker.get_input_embeddings().weight, ids, "malay")
    assert 900 <= row.id < 1000
    assert row.near_zero
