from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
from voxadapt.errors import UserError
from voxadapt.model.load import load_tts
from voxadapt.model.tokens import SpecialIds
from voxadapt.training.batches import build_examples, epoch_windows


@pytest.fixture(scope="module")
def tts(world):
    return load_tts(world.base)


@pytest.fixture(scope="module")
def ids(tts):
    return SpecialIds.from_config(tts.model.config)


def test_text_ids_are_those_that_inference_reads(tts, ids):
    row = fakes.make_utterance("a", "Hello, you!")
    (example,) = build_examples([row], {"a": fakes.make_codes(4, 0)}, tts, ids)
    turn = tts._tokenize_texts([tts._build_assistant_text(row.text)])[0]
    assert torch.equal(example.text_ids[3:], turn[0, 3:-5])
    assert torch.equal(example.text_ids[:3], turn[0, :3])
    assert example.layout.num_text_tokens == len(row.text)
    tokenizer = tts.processor.tokenizer
    assert tokenizer.convert_ids_to_tokens(example.text_ids[:2]) == ["<|im_start|>", "assistant"]


def test_one_language_prefix_for_all_rows_the_one_that_scoring_uses(tts, ids):
    rows = [fakes.make_utterance("a", "x", language="de"), fakes.make_utterance("b", "x")]
    codes = {row.id: fakes.make_codes(4, 0) for row in rows}
    tagged = build_examples(rows, codes, tts, ids, "english")
    assert [e.layout.codec_ids[5] for e in tagged] == [34, 34]
    auto = build_examples(rows, codes, tts, ids)
    assert [e.layout.codec_ids[5] for e in auto] == [ids.think_eos] * 2
    with pytest.raises(UserError, match=r"train\.language"):
        build_examples(rows, codes, tts, ids, "klingon")


def test_every_row_that_cannot_be_laid_out_is_a_problem(tts, ids):
    rows = [fakes.make_utterance(name, "x") for name in ("none", "narrow", "beyond", "fine")]
    codes = {row.id: fakes.make_codes(4, 0) for row in rows if row.id != "none"}
    codes["narrow"] = codes["narrow"][:, :2]
    codes["beyond"] = codes["beyond"] + fakes.CODEBOOK_SIZE
    with pytest.raises(UserError) as caught:
        build_examples(rows, codes, tts, ids)
    where = [problem.where for problem in caught.value.problems]
    assert where == ["none", "narrow", "beyond"]


def test_a_tokenizer_with_another_turn_is_refused(ids):
    wrong = SimpleNamespace(
        _build_assistant_text=lambda text: text,
        _tokenize_texts=lambda texts: [torch.arange(20)[None]],
    )
    with pytest.raises(UserError, match="a turn of 3 ids, the text, 5 ids"):
        build_examples([fakes.make_utterance("a", "x")], {"a": fakes.make_codes(4, 0)}, wrong, ids)


@given(
    st.lists(st.integers(10, 400), min_size=1, max_size=120),
    st.integers(1, 5), st.integers(1, 4), st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_an_epoch_holds_every_example_once_in_an_order_of_the_seed(lengths, size, steps, seed):
    windows = epoch_windows(lengths, size, steps, seed, epoch=1)
    assert sorted(i for w in windows for b in w for i in b) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for window in windows for batch in window)
    assert all(len(window) <= steps for window in windows)
    assert windows == epoch_windows(lengths, size, steps, seed, epoch=1)


def test_epochs_differ_and_steps_do_not_depend_on_how_they_are_split():
    lengths = list(range(50, 114))
    assert epoch_windows(lengths, 8, 1, 0, 1) != epoch_windows(lengths, 8, 1, 0, 2)
    whole, halves, single = (
        [sorted(i for b in w for i in b) for w in epoch_windows(lengths, b, a, 0, 1)]
        for b, a in ((8, 1), (4, 2), (1, 8))
    )
    assert whole == halves == single


def test_batches_hold_examples_of_similar_length():
    lengths = [int(n) for n in torch.randint(20, 400, (512,), generator=torch.manual_seed(0))]
    padded = used = 0
    for window in epoch_windows(lengths, 8, 1, 0, 1):
        for batch in window:
            padded += len(batch) * max(lengths[i] for i in batch)
            used += sum(lengths[i] for i in batch)
    assert used / padded > 0.85
