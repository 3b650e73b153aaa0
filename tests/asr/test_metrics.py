"""Edit counts per script, the cap, and three corpus figures that stay apart."""

from __future__ import annotations

import pytest

from voxadapt.asr.letters import units
from voxadapt.asr.metrics import char_counts, word_counts
from voxadapt.asr.normalise import normalise


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "chars"),
    [
        ("the cat sat", "the cat sat", 0, 0),
        ("the cat sat", "the bat", 2, 4),
        ("the cat sat", "", 3, 9),
        ("the cat", "the cat the cat the cat", 4, 12),
        ("saya suka nasi", "saya suka", 1, 4),
        # A missing Thai tone mark is one character error, not none.
        ("\u0e17\u0e35\u0e48", "\u0e17\u0e35", 1, 1),
        # Characters of unspaced scripts are words: the mixed error rate.
        ("我用iPhone打电话", "我用 iphone 打电", 1, 1),
        ("我 用iPhone打", "我用 phone 打", 1, 1),
        # Spaces do not count as characters.
        ("ice cream", "icecream", 2, 0),
    ],
)
def test_known_counts(reference: str, hypothesis: str, words: int, chars: int) -> None:
    reference, hypothesis = normalise(reference), normalise(hypothesis)
    assert word_counts(reference, hypothesis).edits == words
    assert char_counts(reference, hypothesis).edits == chars
    assert word_counts(reference, hypothesis).reference_units == len(units(reference))


@pytest.mark.parametrize("count", [word_counts, char_counts])
def test_an_empty_reference_is_refused(count: object) -> None:
    with pytest.raises(ValueError, match="empty reference"):
        count("  ", "something")  # type: ignore[operator]
