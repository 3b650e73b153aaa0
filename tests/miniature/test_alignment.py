"""Where a text is about said."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from miniature.alignment import letter_places, stray_cost

texts = st.text(alphabet="ab 7$%é.", min_size=1, max_size=12)


@pytest.mark.slow
@given(st.lists(texts, min_size=1, max_size=4))
def test_each_letter_lies_in_its_clip_and_none_before_the_last(parts):
    spans = [(text, 10.0 * k, 10.0 * k + 8) for k, text in enumerate(parts)]
    places = letter_places(spans)
    assert len(places) == len(" ".join(parts))
    assert places == sorted(places)
    at = 0
    for text, begin, end in spans:
        assert all(begin < place < end for place in places[at : at + len(text)])
        at += len(text) + 1


def test_a_number_takes_the_time_of_its_words():
    a, seven, b = letter_places([("a7b", 0.0, 7.0)])
    assert (a, seven, b) == (0.5, 3.5, 6.5)


def test_attention_costs_with_its_distance():
    place = torch.tensor([[5.0], [float("nan")]])
    cost = stray_cost(place, torch.arange(21.0), near=2, width=4)
    assert torch.equal(cost[0, 3:8], torch.zeros(5))
    assert (cost[0, 7:].diff() > 0).all() and cost[0, 20] > 0.98
    assert torch.equal(cost[1], torch.ones(21))
