"""Power before training: planned from recordings, true of candidates that spread like them."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rows import make_row, make_system
from voxadapt.core.errors import UserError
from voxadapt.core.files import write_json
from voxadapt.core.params import SelectParams
from voxadapt.core.paths import SPEAKER
from voxadapt.reporting import tables
from voxadapt.scoring.planning import (
    INTERACTION,
    INTERACTION_BASE,
    SHARED,
    paired_spread,
    plan_power,
)
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.statistics import detectable_difference, power_to_show, texts_needed

RULE = SelectParams()
TEXTS = {"selection": 60, "confirmation": 40}


def recordings(
    name: str = "real", num_texts: int = 200, rate: float = 0.05, spread: float = 0.02
) -> list[ScoreRow]:
    """Return rows of recordings whose similarity has that spread; errors come one by one."""
    generator = np.random.default_rng([*name.encode()])
    rows = []
    for index in range(num_texts):
        wrong = int(generator.binomial(10, rate))
        rows.append(
            make_row(
                name, f"t{index:03d}", sim=float(generator.normal(0.9, spread)),
                word_hits=10 - wrong, word_substitutions=wrong,
            )
        )  # fmt: skip
    return rows


def planned(real: list[ScoreRow], codec: list[ScoreRow], **rule: Any) -> dict[str, Any]:
    return plan_power(real, codec, TEXTS, 3, RULE.model_copy(update=rule))


def test_similarity_is_planned_from_the_spread_of_the_recordings() -> None:
    found = planned(recordings(), recordings("codec", spread=0.03))
    assert found["measured"]["sim"]["clip"] == pytest.approx(0.02, rel=0.1)
    epochs = found["splits"]["selection"]["between_epochs"]["sim"]
    truth = detectable_difference(paired_spread(0.02, 3) / np.sqrt(60), 60)
    assert epochs["detectable_difference"] == pytest.approx(truth, rel=0.1)
    base = found["splits"]["selection"]["against_base"]["sim"]
    assert base["se"] == pytest.approx(np.hypot(0.02, 0.03) / np.sqrt(60), rel=0.1)
    confirmed = found["splits"]["confirmation"]["against_base"]["sim"]
    assert confirmed["detectable_difference"] > base["detectable_difference"]
    assert confirmed["texts_needed"] == base["texts_needed"]  # a property of the spread alone
    assert "between_epochs" not in found["splits"]["confirmation"]


def test_errors_are_planned_at_the_round_trips_rate() -> None:
    found = planned(recordings(rate=0.02), recordings("codec", rate=0.2), error_metric="wer")
    spread = found["measured"]["wer"]
    assert spread["expected"] == pytest.approx(0.2, abs=0.02)
    assert spread["clip"] == pytest.approx(np.sqrt(0.2 * 0.8 / 10), rel=0.1)  # words are apart here
    needed = found["splits"]["selection"]["between_epochs"]["wer"]["texts_needed"]
    assert [item["difference"] for item in needed] == [0.01, 0.02, 0.05]
    assert needed[0]["num_texts"] > 15 * needed[2]["num_texts"]


def test_the_plan_says_what_confirms_equal_words() -> None:
    found = planned(recordings(), recordings("codec"))["cost"]
    assert found["margin"] == 0.02 and found["power"] == 0.9
    chances = {row["takes"]: row["chance"] for row in found["rows"]}
    assert list(chances) == [1, 3, 5, 10] and sorted(chances.values()) == list(chances.values())
    for row in found["rows"]:
        spread = paired_spread(np.sqrt(0.05 * 0.95 / 10), row["takes"], INTERACTION_BASE)
        assert row["num_texts"] == pytest.approx((3.24 * spread / 0.02) ** 2, rel=0.3)
    [own] = [row for row in found["rows"] if row["takes"] == 3]
    assert f"{own['num_texts']}, or" in found["text"]
    assert planned(recordings(), recordings("codec"), primary="error")["cost"] is None


def test_recordings_without_an_error_still_plan_for_some() -> None:
    found = planned(recordings(rate=0.0), recordings("codec", rate=0.0))["measured"]["wer"]
    assert found["expected"] == pytest.approx(3 / 200, rel=0.01)  # the rule of three
    assert found["clip"] == pytest.approx(np.sqrt(3 / 200 / 10), rel=0.02)
    assert found["against_base"] == found["between_epochs"] > 0


def test_more_takes_help_only_against_the_takes_own_noise() -> None:
    assert paired_spread(1.0, 1) == pytest.approx(np.sqrt(2 * (1 - SHARED)))
    assert paired_spread(1.0, 10**9) == pytest.approx(np.sqrt(2 * INTERACTION), rel=1e-6)
    assert paired_spread(1.0, 3) < paired_spread(1.0, 2)


def test_the_sentence_names_what_is_seen_and_what_is_needed() -> None:
    text = planned(recordings(), recordings("codec"))["text"]
    assert text.startswith("With the 60 selection sentences x 3 takes you can see a difference of ")
    assert "in SIM-resemblyzer between two epochs (in 80 % of cases); for 0.005 you need" in text
    assert "With the 40 confirmation sentences" in text and "from the Base" in text
    errors = planned(recordings(), recordings("codec"), primary="error")["text"]
    assert " points in WER between two epochs" in errors


def test_a_fine_difference_that_is_seen_already_is_not_asked_for() -> None:
    enough = plan_power(recordings(), recordings("codec"), {"selection": 5000}, 3, RULE)
    assert "for 0.005 you need" in enough["text"]  # the finest of the list


def test_too_little_to_plan_from_is_said() -> None:
    few = planned(recordings(num_texts=2), recordings("codec", num_texts=2))
    assert few["measured"]["sim"] == dict.fromkeys(
        ("expected", "clip", "between_epochs", "against_base")
    )
    assert "no difference between two epochs can be promised" in few["text"]
    one = plan_power(recordings(), recordings("codec"), {"selection": 1}, 3, RULE)
    power = one["splits"]["selection"]["between_epochs"]["sim"]
    assert power == {"se": None, "detectable_difference": None, "texts_needed": []}
    deaf = [row.model_copy(update={"sim": None}) for row in recordings()]
    assert planned(deaf, recordings("codec"))["measured"]["sim"]["clip"] is None
    json.dumps([few, one], allow_nan=False)


def test_the_table_of_the_notebook_shows_both_comparisons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / SPEAKER.planning, planned(recordings(), recordings("codec")))
    table = tables.planning()
    assert list(table.index) == ["selection"] * 4 + ["confirmation"] * 2
    assert table["compared"].tolist() == ["between epochs"] * 2 + ["against base"] * 4
    assert table["can be seen"].iloc[0].startswith("0.00")
    assert table["can be seen"].iloc[1].endswith("%")
    assert re.fullmatch(r"\d+ for 0.005; \d+ for 0.01; \d+ for 0.02",
                        table["sentences needed"].iloc[0])  # fmt: skip
    assert re.search(r"\d+ for 1 %;", table["sentences needed"].iloc[1])


def test_sentences_with_digits_and_the_order_of_rows_change_nothing() -> None:
    real, codec = recordings(), recordings("codec")
    first = json.dumps(planned(real, codec))
    noisy = [make_row("real", f"d{k}", sim=0.1 * k, slice="digits") for k in range(9)]
    mixed = [*real, *noisy]
    random.Random(0).shuffle(mixed)
    again = planned(mixed, codec[::-1])
    assert json.dumps(again) == first
    with pytest.raises(UserError, match="nothing to rank"):
        planned(noisy, codec)


@pytest.mark.slow
def test_a_plan_names_the_measured_power_of_the_same_order() -> None:
    """What selection measures in the end is what was planned, where clips spread as assumed."""
    from voxadapt.selection.select import select

    systems = {
        name: make_system(name, 60, sim=sim) for name, sim in (("base", 0.7), ("epoch-1", 0.8))
    } | {"epoch-2": make_system("epoch-2", 60, sim=0.8)}
    measured = select(systems, RULE)["power"]["detectable_difference"]
    # make_system's takes spread by .02 about a sentence's effect that cancels
    assert measured == pytest.approx(
        detectable_difference(0.02 * np.sqrt(2 / 3) / np.sqrt(60), 60), rel=0.2
    )


# --- by hand -------------------------------------------------------------------------------------


def test_the_spread_is_what_a_candidate_and_a_take_add() -> None:
    assert paired_spread(0.1, 1) == pytest.approx(0.1 * np.sqrt(2 * 0.75))
    assert paired_spread(0.1, 5) == pytest.approx(0.1 * np.sqrt(2 * (0.05 + 0.7 / 5)))
    assert paired_spread(0.1, 2, 0.25) == pytest.approx(0.1 * np.sqrt(2 * (0.25 + 0.5 / 2)))
    assert INTERACTION_BASE == 0.25 and SHARED + INTERACTION == pytest.approx(0.3)


def test_every_figure_follows_from_what_was_measured() -> None:
    """Ten recordings whose similarities and errors are given, and their round trips."""
    sims, coded = np.linspace(0.8, 0.98, 10), np.linspace(0.7, 0.97, 10)[::-1]
    wrong, lost = [0, 1, 0, 2, 0, 0, 1, 0, 0, 0], [1, 2, 0, 3, 0, 1, 1, 0, 4, 0]

    def rows(name: str, voices: Any, errors: list[int]) -> list[ScoreRow]:
        return [
            make_row(name, f"t{n}", sim=float(voices[n]), word_hits=10 - errors[n],
                     word_substitutions=errors[n])
            for n in range(10)
        ]  # fmt: skip

    params = SelectParams(confidence=0.9)
    counts = {"selection": 30, "confirmation": 20}
    found = plan_power(rows("real", sims, wrong), rows("codec", coded, lost), counts, 2, params)
    measured = found["measured"]
    clip = sims.std(ddof=1)
    assert measured["sim"]["clip"] == pytest.approx(clip, abs=1e-6)
    assert measured["sim"]["expected"] == pytest.approx(sims.mean(), abs=1e-6)
    paired = (sims - coded).std(ddof=1)
    assert measured["sim"]["against_base"] == pytest.approx(paired, abs=1e-6)
    rate, coded_rate = sum(wrong) / 100, sum(lost) / 100
    assert measured["wer"]["expected"] == pytest.approx(max(coded_rate, 1 - 0.05**0.1), abs=1e-6)
    seen = np.var(np.array(wrong) / 10, ddof=1) + np.var(np.array(lost) / 10, ddof=1)
    design = seen / (rate * (1 - rate) + coded_rate * (1 - coded_rate))
    expected = measured["wer"]["expected"]
    clip_error = np.sqrt(max(0.1, design) * expected * (1 - expected))
    assert measured["wer"]["clip"] == pytest.approx(clip_error, abs=1e-6)
    for measure, spread in (("sim", clip), ("wer", clip_error)):
        assert measured[measure]["between_epochs"] == pytest.approx(
            paired_spread(spread, 2), abs=1e-6
        )
    assert measured["wer"]["against_base"] >= measured["wer"]["between_epochs"]
    split = found["splits"]["selection"]["between_epochs"]["sim"]
    se = paired_spread(clip, 2) / np.sqrt(30)
    assert split["se"] == pytest.approx(se, abs=1e-6)
    assert split["detectable_difference"] == pytest.approx(
        detectable_difference(se, 30, 0.9), abs=1e-6
    )
    assert [item["num_texts"] for item in split["texts_needed"]] == [
        texts_needed(difference, se, 30, 0.9) for difference in (0.005, 0.01, 0.02)
    ]
    cost = found["cost"]
    assert cost["margin"] == pytest.approx(max(0.02, 0.1 * expected), abs=1e-6)
    for row in cost["rows"]:
        error = paired_spread(clip_error, row["takes"], 0.25) / np.sqrt(20)
        assert row["num_texts"] == texts_needed(cost["margin"], error, 20, 0.9, 0.9)
        assert row["chance"] == pytest.approx(
            power_to_show(cost["margin"], error, 20, 0.9), abs=1e-5
        )
    assert [row["takes"] for row in cost["rows"]] == [1, 2, 3, 5, 10]
    assert found["n"] == {"real": 10, "codec": 10} and found["primary"] == "sim"
    assert found["assumptions"]["take"] == 0.7


def test_three_common_sentences_and_two_to_plan_for_are_the_least() -> None:
    real, codec = recordings(num_texts=3), recordings("codec", num_texts=3)
    assert planned(real, codec)["measured"]["sim"]["clip"] is not None
    assert planned(real, codec[:2])["measured"]["sim"]["clip"] is None
    assert planned(real, codec[:2])["cost"] is None
    for count, known in ((2, True), (1, False)):
        counts = {"selection": count, "confirmation": count}
        found = plan_power(real, codec, counts, 3, RULE)
        assert (found["splits"]["selection"]["between_epochs"]["sim"]["se"] is not None) == known
        assert (found["cost"] is not None) == known
    by_error = planned(real, codec, primary="error")
    assert by_error["cost"] is None and by_error["primary"] == "wer"


def test_a_clip_without_a_voice_says_nothing_of_the_spread() -> None:
    real, codec = recordings(num_texts=20), recordings("codec", num_texts=20)
    mute = [row.model_copy(update={"sim": None}) if n < 5 else row for n, row in enumerate(codec)]
    found, kept = planned(real, mute), planned(real[5:], codec[5:])
    assert found["measured"]["sim"] == kept["measured"]["sim"]
    assert found["measured"]["wer"] == planned(real, codec)["measured"]["wer"]
