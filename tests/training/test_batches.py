from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
from properties import examples
from voxadapt.core.errors import UserError
from voxadapt.model.forward import embed
from voxadapt.model.load import load_tts
from voxadapt.model.tokens import SpecialIds
from voxadapt.training.batches import (
    balanced_epoch,
    build_examples,
    draw_frame_keep_mask,
    epoch_windows,
    make_batch,
    share_of,
)


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


def test_a_row_of_another_language_has_its_own_tag(tts, ids):
    rows = [fakes.make_utterance(name, "hello") for name in ("one", "two", "three")]
    codes = {row.id: fakes.make_codes(4, seed=1) for row in rows}
    examples = build_examples(rows, codes, tts, ids, tags={"one": "German", "three": "english"})
    tags = [[e.layout.codec_ids[i] for i in e.layout.spans["tag"]] for e in examples]
    german, english = (ids.languages[name] for name in ("german", "english"))
    assert tags == [
        [ids.think, ids.think_bos, german, ids.think_eos],
        [ids.nothink, ids.think_bos, ids.think_eos],
        [ids.think, ids.think_bos, english, ids.think_eos],
    ]
    with pytest.raises(UserError, match="two: language: expected auto or one of english, german"):
        build_examples(rows, codes, tts, ids, tags={"two": "klingon"})


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
@settings(max_examples=examples(60), deadline=None)
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


speech_lengths = st.integers(0, 99).map(
    lambda seed: [
        int(11 + s * (12.5 + 4.0))  # frames and text tokens of read sentences
        for s in np.clip(np.random.default_rng(seed).lognormal(np.log(4.5), 0.5, 1500), 1.0, 20.0)
    ]
)


def waste(windows, lengths) -> float:
    """Share of all batches' positions that are padding."""
    batches = [[lengths[i] for i in batch] for window in windows for batch in window]
    padded = sum(len(batch) * max(batch) for batch in batches)
    return 1 - sum(map(sum, batches)) / padded


@given(speech_lengths, st.sampled_from([(8, 1), (8, 4), (4, 2), (2, 16)]), st.integers(1, 9))
@settings(max_examples=examples(25), deadline=None)
def test_no_more_than_five_percent_of_a_corpus_batches_is_padding(lengths, sizes, epoch):
    assert waste(epoch_windows(lengths, *sizes, seed=0, epoch=epoch), lengths) <= 0.05


def test_a_small_corpus_forms_other_steps_each_epoch_with_little_padding():
    rng = np.random.default_rng(0)
    lengths = [int(n) for n in 11 + rng.permutation(np.linspace(30, 200, 400))]
    epochs = [epoch_windows(lengths, 8, 1, 0, epoch) for epoch in (1, 2)]
    steps = [{frozenset(i for batch in window for i in batch) for window in e} for e in epochs]
    assert len(steps[0] & steps[1]) < 0.2 * len(steps[0])
    assert all(waste(windows, lengths) <= 0.05 for windows in epochs)
    first = [lengths[window[0][0]] for window in epochs[0]]
    assert abs(np.corrcoef(first, range(len(first)))[0, 1]) < 0.4  # short and long ones mixed


@pytest.mark.slow
@given(st.integers(1, 300), st.integers(0, 9), st.integers(1, 5), st.data())
@settings(max_examples=examples(40), deadline=None)
def test_what_is_left_of_an_epoch_hangs_on_nothing_that_ran_before(count, seed, epoch, data):
    """A run that was stopped finds the rest of its epoch: only its position is kept."""
    lengths = data.draw(st.lists(st.integers(10, 400), min_size=count, max_size=count))
    whole = epoch_windows(lengths, 4, 2, seed, epoch)
    at = data.draw(st.integers(0, len(whole)))
    np.random.seed(at)  # noqa: NPY002
    torch.manual_seed(at)
    epoch_windows(lengths, 4, 2, seed, epoch + 1)
    assert epoch_windows(lengths, 4, 2, seed, epoch)[at:] == whole[at:]


def test_no_frames_are_hidden_unless_asked_for(tts, ids):
    rows = [fakes.make_utterance("a", "hello there")]
    batch = make_batch(build_examples(rows, {"a": fakes.make_codes(9, 0)}, tts, ids), ids)
    state = torch.get_rng_state()
    assert draw_frame_keep_mask(*batch.frame_mask.shape, 0.0) is None
    assert torch.equal(torch.get_rng_state(), state)  # and nothing is drawn


def test_hidden_frames_lose_their_codes_and_nothing_else(tts, ids):
    rows = [fakes.make_utterance(name, "hello there") for name in "ab"]
    codes = {row.id: fakes.make_codes(60, n) for n, row in enumerate(rows)}
    batch = make_batch(build_examples(rows, codes, tts, ids), ids)
    torch.manual_seed(0)
    keep = draw_frame_keep_mask(*batch.frame_mask.shape, 1.0)
    hidden = batch.frame_mask & ~keep
    assert 0 < int(hidden.sum()) < batch.num_frames
    with torch.no_grad():
        whole = embed(tts.model.talker, batch, None)
        holed = embed(tts.model.talker, batch, None, keep)
        plain = embed(tts.model.talker, replace(batch, frame_mask=batch.frame_mask & keep), None)
    assert torch.equal(holed[~hidden], whole[~hidden])
    assert not torch.equal(holed[hidden], whole[hidden])
    assert torch.equal(holed, plain)


# --- several speakers, several processes, hidden frames ------------------------------------------


@pytest.mark.slow
@given(st.integers(0, 9), st.sampled_from([0.0, 0.5, 1.0]), st.data())
@settings(max_examples=examples(40))
def test_an_epoch_is_shared_by_speakers_as_the_balance_says(seed, balance, data):
    counts = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    listed = [f"s{n}" for n, count in enumerate(counts) for _ in range(count)]
    speakers = data.draw(st.permutations(listed))
    of_speakers = st.lists(st.integers(20, 40), min_size=len(listed), max_size=len(listed))
    frames = data.draw(of_speakers)
    totals = {
        name: sum(f for s, f in zip(speakers, frames, strict=True) if s == name)
        for name in speakers
    }
    scale = sum(totals.values()) / sum(total ** (1 - balance) for total in totals.values())
    epochs = [balanced_epoch(speakers, frames, balance, seed, epoch) for epoch in (1, 2, 3)]
    for name, count in ((f"s{n}", count) for n, count in enumerate(counts)):
        wanted = max(1, round(count * scale * totals[name] ** (1 - balance) / totals[name]))
        drawn = [[i for i in epoch if speakers[i] == name] for epoch in epochs]
        assert [len(clips) for clips in drawn] == [wanted] * 3
        times = Counter(i for clips in drawn for i in clips)
        most = [times[i] for i, speaker in enumerate(speakers) if speaker == name]
        assert max(most) - min(most) <= 1, "rounds go on from epoch to epoch"
        for start in range(0, 3 * wanted - count + 1, count):  # each round holds every clip once
            together = [i for clips in drawn for i in clips][start : start + count]
            assert len(set(together)) == count
    if balance == 0.0:
        assert sorted(epochs[0]) == list(range(len(speakers)))


def test_an_epoch_is_drawn_anew_each_time_and_by_the_seed_alone():
    speakers, frames = ["b"] * 20 + ["a"] * 20, [30] * 40
    first, second = (balanced_epoch(speakers, frames, 1.0, 3, epoch) for epoch in (1, 2))
    assert first != second and sorted(first) == sorted(second) == list(range(40))
    assert balanced_epoch(speakers, frames, 1.0, 3, 1) == first
    assert balanced_epoch(speakers, frames, 1.0, 4, 1) != first
    places = [[i % 20 for i in first if (i >= 20) == is_a] for is_a in (True, False)]
    assert places[0] != places[1], "each speaker has an order of its own"


@pytest.mark.slow
@given(st.integers(1, 20), st.integers(1, 6))
def test_a_batch_is_dealt_out_and_every_process_takes_part(size, num_processes):
    shares = [share_of(size, rank, num_processes) for rank in range(num_processes)]
    dealt = [share.rows for share in shares if share.factor]
    assert sorted(row for rows in dealt for row in rows) == list(range(size))
    assert all(share.factor in (0, num_processes) and share.rows for share in shares)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert all(share.rows == [0] for share in shares if not share.factor)


def test_up_to_the_largest_share_of_frames_is_hidden():
    torch.manual_seed(1)
    kept = draw_frame_keep_mask(4000, 50, 0.6)
    hidden = 1.0 - kept.float().mean(dim=1)
    assert kept.shape == (4000, 50) and kept.dtype == torch.bool
    assert float(hidden.mean()) == pytest.approx(0.3, abs=0.01)
    assert 0.5 < float(hidden.quantile(0.99)) < 0.75 and float(hidden.quantile(0.01)) < 0.05


@given(st.lists(st.integers(1, 50), min_size=1, max_size=90), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=examples(40))
def test_every_clip_is_in_one_batch_of_an_epoch(lengths, batch_size, accumulation):
    windows = epoch_windows(lengths, batch_size, accumulation, 0, 1)
    assert sorted(i for window in windows for batch in window for i in batch) == list(
        range(len(lengths))
    )
    sizes = sorted((sum(map(len, window)) for window in windows), reverse=True)
    full = batch_size * accumulation
    assert len(windows) == -(-len(lengths) // full)
    assert sizes[:-1] == [full] * (len(windows) - 1)
    for window in windows:
        inside = [lengths[i] for batch in window for i in batch]
        assert inside == sorted(inside)
        assert [len(batch) for batch in window[:-1]] == [batch_size] * (len(window) - 1)
