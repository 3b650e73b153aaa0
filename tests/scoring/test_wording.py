"""How figures are written in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from voxadapt.scoring.wording import (
    Sentences,
    number,
    percent,
    points,
    points_of,
    score_sentence,
    side,
    signed,
)


def ends(
    point: float | None, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    return {"point": point, "low": low, "high": high}


def test_shares_and_similarities() -> None:
    assert percent(ends(0.1234, 0.1, 0.15)) == "12.3 % [10.0, 15.0]"
    assert percent(ends(0.1234)) == "12.3 %" and percent(ends(None)) == "not measured"
    assert number(0.12345) == "0.123" and number(None) == "not measured"
    assert points_of(0.025) == "2.5" and points_of(0.0251, "+.1f") == "+2.5"


def test_differences_have_their_sign() -> None:
    assert signed(ends(0.0123, -0.01, 0.03)) == "+0.012 [-0.010, +0.030]"
    assert signed(ends(-0.0123)) == "-0.012"
    assert points(ends(0.0123, -0.01, 0.03)) == "+1.2 points [-1.0, +3.0]"


@pytest.mark.parametrize(
    ("low", "high", "which"),
    [(0.01, 0.02, 1), (-0.02, -0.01, -1), (-0.01, 0.01, 0), (0.0, 0.01, 0), (-0.01, 0.0, 0),
     (None, 0.01, 0), (0.01, None, 0)],
)  # fmt: skip
def test_a_side_is_where_the_whole_interval_lies(
    low: float | None, high: float | None, which: int
) -> None:
    assert side(ends(0.0, low, high)) == which


def test_a_macro_is_one_line_with_these_filters(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "sentences.j2").write_text(
        "{% macro both(a, b) %}\n  {{ a|points_of('.1f') }} and\n\n"
        "  {{ named }} <{{ b|number }}>{{ a|fmt('.2f') }}\n{% endmacro %}\n"
        "{% macro lost() %}{{ absent }}{% endmacro %}"
    )
    sentences = Sentences(tmp_path, {"named": "more"})
    assert sentences.say("both", 0.125, None) == "12.5 and more <not measured>0.12"
    assert sentences.say("both", b=0.5, a=1.0) == "100.0 and more <0.500>1.00"
    with pytest.raises(UndefinedError):
        sentences.say("lost")


def test_a_score_in_a_sentence_quotes_its_figures() -> None:
    from rows import make_system
    from voxadapt.core.params import SelectParams
    from voxadapt.scoring.score_clips import summarise

    summary = summarise(make_system("epoch-1"), SelectParams(num_bootstrap=200))
    said = score_sentence("epoch-1", summary)
    assert "epoch-1" in said and percent(summary["wer"]) in said
