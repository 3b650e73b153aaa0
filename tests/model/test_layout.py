from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
from properties import examples
from voxadapt.model.layout import IGNORE, NONE, build_layout, collate

IDS = fakes.make_ids()

sequences = st.tuples(
    st.integers(1, 80), st.integers(1, 400), st.sampled_from([None, 34]), st.booleans()
)


def _layout(case: tuple[int, int, int | None, bool], **options):
    num_text, num_frames, language_id, streaming = case
    return build_layout(num_text, num_frames, IDS, language_id, streaming, **options)


def _batch(cases):
    layouts = [_layout(case) for case in cases]
    text = [torch.arange(1000, 1000 + 3 + case[0]) for case in cases]
    codes = [torch.from_numpy(fakes.make_codes(case[1], seed=n)) for n, case in enumerate(cases)]
    names = [str(n) for n in range(len(cases))]
    return layouts, text, codes, collate(names, layouts, text, codes, IDS)


@given(sequences, st.booleans())
@settings(max_examples=examples(60), deadline=None)
def test_spans_are_disjoint_and_cover_the_sequence(case, has_speaker):
    layout = _layout(case, has_speaker=has_speaker)
    covered = [position for span in layout.spans.values() for position in span]
    assert covered == list(range(len(layout)))


@given(sequences)
@settings(max_examples=examples(60), deadline=None)
def test_prefix_has_the_length_that_inference_prefills(case):
    num_text, num_frames, language_id, streaming = case
    layout = _layout(case)
    tagged = language_id is not None
    assert layout.prefix_length == (9 if streaming else 10 + num_text) + tagged
    assert len(layout) == layout.prefix_length + num_frames + 1


@given(sequences)
@settings(max_examples=examples(60), deadline=None)
def test_every_text_token_lies_once_and_in_order_where_it_fits(case):
    num_text, num_frames, _, streaming = case
    layout = _layout(case)
    placed = [index for index in layout.text_index if index != NONE]
    fits = min(num_text, num_frames + 2) if streaming else num_text
    assert placed == list(range(3 + fits))
    ends = [at for at, text_id in enumerate(layout.text_ids) if text_id == IDS.tts_eos]
    assert len(ends) == (1 if not streaming or num_text < num_frames + 2 else 0)
    if ends:
        assert layout.text_index[ends[0] - 1] == 2 + num_text


@given(sequences)
@settings(max_examples=examples(60), deadline=None)
def test_role_has_no_codec_id_and_every_other_position_one_source(case):
    layout = _layout(case)
    for position in range(len(layout)):
        sources = [
            layout.codec_ids[position] != NONE,
            layout.frame_index[position] != NONE,
            position == layout.speaker_position,
        ]
        assert sum(sources) == (0 if position in layout.spans["role"] else 1)
        assert (layout.text_ids[position] == NONE) != (layout.text_index[position] == NONE)


@given(st.lists(sequences, min_size=1, max_size=4))
@settings(max_examples=examples(40), deadline=None)
def test_mask_counts_equal_span_lengths_and_padding_contributes_nothing(cases):
    layouts, text, codes, batch = _batch(cases)
    for row, layout in enumerate(layouts):
        spans, size = layout.spans, len(layout)
        assert int(batch.attention_mask[row].sum()) == size
        assert int(batch.frame_mask[row].sum()) == len(spans["frames"])
        assert int(batch.speaker_mask[row].sum()) == 1
        assert int(batch.text_mask[row].sum()) == size
        assert int(batch.codec_mask[row].sum()) == size - 3 - 1 - len(spans["frames"])
        assert int((batch.labels[row] != IGNORE).sum()) == layout.num_frames + 1
        for mask in (batch.text_mask, batch.codec_mask, batch.frame_mask, batch.speaker_mask):
            assert not bool(mask[row, size:].any())
        assert bool((batch.labels[row, size:] == IGNORE).all())
        # build -> locate round trip
        placed = batch.codes[row][batch.frame_mask[row]]
        assert torch.equal(placed, codes[row].long())
        assert torch.equal(batch.text_ids[row, spans["role"].start : 3], text[row][:3])


@given(st.lists(sequences, min_size=1, max_size=4))
@settings(max_examples=examples(40), deadline=None)
def test_end_of_speech_is_a_target_in_every_row(cases):
    layouts, _, codes, batch = _batch(cases)
    for row, layout in enumerate(layouts):
        labels = batch.labels[row][batch.labels[row] != IGNORE].tolist()
        assert labels == [*codes[row][:, 0].tolist(), IDS.codec_eos]
        assert batch.labels[row, layout.spans["codec_eos"].start] == IDS.codec_eos


def test_places_move_with_a_batch_and_are_not_looked_up_where_it_goes():
    """On torch's meta device, which has no values to look at, as a GPU has them too late."""
    *_, batch = _batch([(4, 9, None, False), (7, 5, 34, False)])
    moved = batch.to("meta")
    assert [places.shape for places in moved.label_places] == [(batch.num_labels,)] * 2
    assert [places.shape for places in moved.frame_places] == [(batch.num_frames,)] * 2
    assert moved.frame_places[0].device.type == "meta"
    again = batch.to("cpu")
    assert torch.equal(again.labels[again.label_places], batch.labels[batch.labels != IGNORE])
    assert torch.equal(again.codes[again.frame_places], batch.codes[batch.frame_mask])


def test_auto_layout_is_the_documented_table():
    layout = build_layout(2, 3, IDS)
    assert {name: (span.start, span.stop) for name, span in layout.spans.items()} == {
        "role": (0, 3), "tag": (3, 6), "speaker": (6, 7), "tts_bos": (7, 8), "text": (8, 10),
        "tts_eos": (10, 11), "codec_bos": (11, 12), "frames": (12, 15), "codec_eos": (15, 16),
    }  # fmt: skip
    assert layout.codec_ids[3:6] == (IDS.nothink, IDS.think_bos, IDS.think_eos)


def test_tagged_layout_names_the_language():
    layout = build_layout(2, 3, IDS, language_id=34)
    assert layout.codec_ids[3:7] == (IDS.think, IDS.think_bos, 34, IDS.think_eos)
    assert layout.prefix_length == 2 + 11


def test_empty_text_or_no_frames_is_a_programming_error():
    with pytest.raises(AssertionError, match="text token"):
        build_layout(0, 3, IDS)
    with pytest.raises(AssertionError, match="frame"):
        build_layout(3, 0, IDS)
