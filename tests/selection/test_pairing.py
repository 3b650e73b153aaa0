"""Rows that may be compared, and every way in which they may not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rows import make_row
from voxadapt.core.errors import UserError
from voxadapt.core.params import SelectParams
from voxadapt.scoring.rows import ScoreRow
from voxadapt.selection.pairing import (
    check_candidates,
    check_pairs,
    check_scale,
    comparable,
    in_order,
)

EVALUATOR = {"norm_id": "n", "asr_id": "asr, second", "sim_id": "sim", "gen_sha": "gen"}


def clips(name: str, num_texts: int = 5, takes: int = 2, **fields: Any) -> list[ScoreRow]:
    return [
        make_row(name, f"t{n}", take, **fields) for n in range(num_texts) for take in range(takes)
    ]


def wrong(rows: list[ScoreRow], start: str = "base") -> list[tuple[str, str, str]]:
    found = check_pairs({start: clips(start), "epoch-1": rows}, ["epoch-1"], start)
    return [(problem.where, problem.expected, problem.found) for problem in found]


def changed(row: ScoreRow, **fields: Any) -> ScoreRow:
    return row.model_copy(update=fields)


def test_the_start_comes_first_then_the_base_then_epochs_of_each_stage() -> None:
    names = ["epoch-2", "base", "epoch-10", "stage2-epoch-1", "epoch-9"]
    ordered = ["epoch-9", "base", "epoch-2", "epoch-10", "stage2-epoch-1"]
    for seed in range(5):
        shuffled = random.Random(seed).sample(names, len(names))
        assert in_order(shuffled, "epoch-9") == ordered
    assert in_order(names, "base") == ["base", "epoch-2", "epoch-9", "epoch-10", "stage2-epoch-1"]


def test_the_same_clips_in_any_order_are_pairs() -> None:
    assert wrong(clips("epoch-1")) == []
    assert wrong(clips("epoch-1")[::-1]) == []
    assert wrong(clips("epoch-1"), start="epoch-3") == []


def test_what_is_missing_and_what_is_extra_is_counted() -> None:
    rows = clips("epoch-1")
    wanted = "the 10 clips of base"
    assert wrong(rows[1:]) == [("epoch-1", wanted, "1 missing, 0 extra")]
    extra = [make_row("epoch-1", "t9", take) for take in range(2)]
    assert wrong([*rows, *extra]) == [("epoch-1", wanted, "0 missing, 2 extra")]
    assert wrong([*rows[3:], *extra]) == [("epoch-1", wanted, "3 missing, 2 extra")]


@pytest.mark.parametrize("fields", [{"text": "another"}, {"split": "confirmation"}])
def test_another_text_or_split_under_the_same_name_is_seen(fields: dict[str, str]) -> None:
    rows = clips("epoch-1")
    rows[4] = changed(rows[4], **fields)
    [found] = wrong(rows)
    assert found == ("epoch-1", "the texts of base", "other texts or splits")


def test_double_foreign_and_mixed_rows_are_named() -> None:
    rows = clips("epoch-1")
    assert wrong([*rows, rows[0]]) == [("epoch-1, text t0", "one row a take", "two")]
    assert wrong([changed(rows[0], candidate="epoch-2"), *rows[1:]]) == [
        ("epoch-1", "rows of epoch-1", "epoch-2")
    ]
    mixed = [changed(rows[0], checkpoint_sha="f" * 64), *rows[1:]]
    assert wrong(mixed) == [("epoch-1", "rows of one checkpoint", f"epoch-1, {'f' * 12}")]
    assert wrong([changed(row, checkpoint_sha="f" * 64) for row in rows]) == []


def test_a_start_without_rows_is_refused() -> None:
    for start, named in (("base", "the zero-shot base"), ("epoch-3", "epoch-3")):
        with pytest.raises(UserError, match=f"{named} with its rows"):
            check_pairs({start: [], "epoch-1": clips("epoch-1")}, ["epoch-1"], start)


def test_one_split_and_as_many_takes_of_every_text() -> None:
    both = [*clips("base", 3), *clips("base", 2, split="confirmation")]
    both = [changed(row, text_id=f"{row.split[0]}{row.text_id}") for row in both]
    assert [p.where for p in check_pairs({"base": both}, ["base"])] == ["split"]
    uneven = clips("base")[:-1]
    [problem] = check_pairs({"base": uneven}, ["base"])
    assert (problem.where, problem.found) == ("takes", "[1, 2]")
    assert check_pairs({"base": clips("base", takes=1)}, ["base"]) == []


@pytest.mark.parametrize(
    ("metric", "lang", "text", "refused"),
    [("wer", "en", "one two three", False), ("wer", "zh", "今天天气很好", True),
     ("cer", "zh", "今天天气很好", False), ("cer", "en", "one two three", False)],
)  # fmt: skip
def test_words_are_not_counted_where_none_are_written(
    metric: Any, lang: str, text: str, refused: bool
) -> None:
    fields = {"lang": lang, "text": text, "text_norm": text}
    rows = {name: clips(name, **fields) for name in ("base", "epoch-1")}
    params = SelectParams(error_metric=metric)
    if refused:
        with pytest.raises(UserError, match=r"select\.error_metric"):
            check_candidates(rows, list(rows), params, "base")
    else:
        assert check_candidates(rows, list(rows), params, "base") == "selection"


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_words_are_counted_where_one_of_several_languages_writes_them(order: slice) -> None:
    chinese = {"lang": "zh", "text": "今天天气很好", "text_norm": "今天天气很好"}
    rows = {name: [*clips(name)[:-2], *(changed(row, **chinese) for row in clips(name)[-2:])][order]
            for name in ("base", "epoch-1")}  # fmt: skip
    assert check_candidates(rows, list(rows), SelectParams(), "base") == "selection"


def test_a_language_of_which_nothing_was_spoken_may_be_among_the_recordings() -> None:
    spoken = {"norm_id": "n/en-1", "asr_id": "w/en/1", "sim_id": "s", "gen_sha": "g"}
    english = clips("codec", norm_id="n/en-1", asr_id="w/en/1", sim_id="s")
    german = {"lang": "de", "norm_id": "n/de-2", "asr_id": "w/de/2"}
    both = [*english[:-2], *(changed(row, **german) for row in english[-2:])]
    assert comparable(both, "selection", spoken) == both
    with pytest.raises(UserError, match="codec: asr_id"):
        comparable(both, "selection", spoken | {"asr_id": "w/de/1, w/en/1"})
    with pytest.raises(UserError, match="codec: norm_id"):  # nothing is shared
        comparable([row for row in both if row.lang == "de"], "selection", spoken)


def test_recordings_of_another_split_are_left_out_and_of_another_evaluator_refused() -> None:
    rows = [*clips("codec", norm_id="n"), *clips("codec", norm_id="n", split="confirmation")]
    kept = comparable(rows, "selection", EVALUATOR)
    assert len(kept) == 10 and {row.split for row in kept} == {"selection"}
    assert comparable([], "selection", EVALUATOR) == []
    assert comparable(clips("codec", norm_id="n", asr_id="second"), "selection", EVALUATOR)
    for name in ("norm_id", "asr_id", "sim_id"):
        with pytest.raises(UserError, match=f"codec: {name}"):
            comparable(clips("codec", **{"norm_id": "n", name: "x"}), "selection", EVALUATOR)


def test_recordings_without_the_codec_have_a_similarity_of_their_own() -> None:
    rows = clips("real", norm_id="n", sim_id="of recordings")
    assert comparable(rows, "selection", EVALUATOR) == rows
    with pytest.raises(UserError, match="real: asr_id"):
        comparable(clips("real", norm_id="n", asr_id="x"), "selection", EVALUATOR)


def test_a_scale_of_another_centroid_is_refused() -> None:
    for scale in (None, {}, {"sim_id": "sim"}):
        check_scale(scale, EVALUATOR)
    with pytest.raises(UserError, match=r"similarity\.json"):
        check_scale({"sim_id": "other"}, EVALUATOR)
