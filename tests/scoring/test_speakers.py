"""Several speakers in one candidate: who sounds like whom, gates for each, the worst first."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rows import make_row, make_system
from voxadapt.core.params import SelectParams
from voxadapt.scoring.rows import ScoreRow, serialise_rows
from voxadapt.scoring.similarity import (
    Interval,
    SimilarityScale,
    SpeechRate,
    pooled_scale,
)
from voxadapt.scoring.speakers import Worst, confusion, pool, pooled_sim_id, rows_of
from voxadapt.scoring.statistics import Ratio, resample_weights
from voxadapt.selection.confirm import confirm
from voxadapt.selection.select import select

RULE = SelectParams(num_bootstrap=400, error_margin=0.05)
TEXTS = 20
OWN = {f"t{n:02d}": "Bo" if n % 4 == 0 else "Aria" for n in range(TEXTS)}
SCALE = {
    "sim_id": "both", "ceiling": {"point": 0.9}, "codec_ceiling": {"point": 0.85},
    "floor": {"point": 0.5},
    "speakers": {
        name: {"ceiling": {"point": top}, "codec_ceiling": {"point": top - 0.05},
               "floor": {"point": 0.5}}
        for name, top in (("Aria", 0.95), ("Bo", 0.85))
    },
}  # fmt: skip


def together(candidate: str, takes: int = 2, **sims: float) -> list[ScoreRow]:
    """A candidate whose speakers have these similarities to their own recordings."""
    apart = {}
    for name, sim in sims.items():
        rows = make_system(candidate, TEXTS, takes, sim=sim, seed=1)
        other = "Bo" if name == "Aria" else "Aria"
        apart[name] = [
            row.model_copy(update={"sim_to": {name: row.sim, other: 0.6}}) for row in rows
        ]
    return pool(apart, OWN, takes, "both")


def test_rows_of_one_speaker_are_written_without_new_keys() -> None:
    plain = json.loads(serialise_rows([make_row()]))
    assert not {"speaker", "sim_to"} & set(plain)
    several = json.loads(serialise_rows([make_row(speaker="Bo", sim_to={"Bo": 0.5})]))
    assert (several["speaker"], several["sim_to"]) == ("Bo", {"Bo": 0.5})


def test_the_first_takes_of_a_sentence_are_those_of_whose_recording_it_is() -> None:
    rows = together("base", Aria=0.7, Bo=0.7)
    assert len({row.key for row in rows}) == len(rows) == TEXTS * 2 * 2
    for row in rows:
        assert (row.take < 2) == (row.speaker == OWN[row.text_id])
    assert {row.sim_id for row in rows} == {"both"}


def test_references_together_have_a_name_that_depends_on_each() -> None:
    one = pooled_sim_id({"a": "enc/centroid-1", "b": "enc/centroid-2"})
    assert one.startswith("enc/speakers-")
    assert one == pooled_sim_id({"b": "enc/centroid-2", "a": "enc/centroid-1"})
    assert one != pooled_sim_id({"a": "enc/centroid-1", "b": "enc/centroid-3"})


def test_the_matrix_counts_whom_clips_resemble_and_misses_nobody() -> None:
    def row(text: str, take: int, speaker: str, **sims: float) -> ScoreRow:
        return make_row("base", text, take, speaker=speaker, sim_to=sims or None)

    rows = [
        row("t0", 0, "Aria", Aria=0.9, Bo=0.5), row("t0", 1, "Bo", Aria=0.7, Bo=0.6),
        row("t1", 0, "Aria", Aria=0.7, Bo=0.5), row("t1", 1, "Bo", Aria=0.5, Bo=0.8),
        row("t2", 0, "Aria"), row("t2", 1, "Bo", Aria=0.6, Bo=0.7),
    ]  # fmt: skip
    found = confusion(rows, RULE)
    aria, bo = found["rows"]
    assert found["speakers"] == ["Aria", "Bo"]
    assert (aria["nearest"], aria["none"], aria["n"]) == ([2, 0], 1, 3)
    assert (bo["nearest"], bo["none"], bo["n"]) == ([1, 2], 0, 3)
    assert [value["point"] for value in aria["similarity"]] == pytest.approx([0.8, 0.5])
    assert aria["similarity"][0]["n"] == 2
    assert [value["point"] for value in bo["similarity"]] == pytest.approx([0.6, 0.7])
    assert aria["right"]["point"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["right"]["point"] == pytest.approx(4 / 6, abs=1e-6)
    assert found["right"]["low"] < found["right"]["point"] < found["right"]["high"]
    assert found["right"]["n"] == 6


def test_a_perfect_share_still_has_an_interval() -> None:
    right = confusion(together("base", Aria=0.9, Bo=0.9), RULE)["right"]
    assert right["point"] == right["high"] == 1.0
    assert 0.7 < right["low"] < 1.0


def test_the_worst_speaker_is_found_anew_in_every_resample() -> None:
    rng = np.random.default_rng(0)
    parts = tuple(Ratio(rng.normal(mean, 0.3, 12), np.ones(12)) for mean in (0.8, 0.8, 0.9))
    weights = resample_weights(12, 300, 0)
    worst = Worst(parts, (0.0, 0.0, 0.3), True)
    expected = np.min([part.draws(weights) - level for part, level in
                       zip(parts, worst.levels, strict=True)], axis=0)  # fmt: skip
    assert np.allclose(worst.draws(weights), expected)
    assert worst.index == 2
    assert worst.point == pytest.approx(parts[2].point - 0.3)
    assert len(worst.left_out()) == 12
    assert Worst(parts, (0.0, 0.0, 0.0), False).point == max(part.point for part in parts)


def decide(rows: dict[str, Any], **options: Any) -> dict[str, Any]:
    return select(rows, options.pop("rule", RULE), scale=SCALE, **options)


@pytest.mark.slow
def test_the_better_worst_speaker_wins_over_the_better_mean() -> None:
    rows = {
        "base": together("base", Aria=0.6, Bo=0.6),
        "epoch-1": together("epoch-1", Aria=0.93, Bo=0.64),
        "epoch-2": together("epoch-2", Aria=0.80, Bo=0.70),
    }
    found = decide(rows)
    one, two = found["candidates"][1:]
    assert one["sim"]["point"] > two["sim"]["point"]
    assert one["worst_speaker"] == "Bo"
    assert found["chosen"] == "epoch-2"
    assert two["primary"]["point"] == pytest.approx(
        min(
            two["speakers"][name]["sim"]["point"] - levels["codec_ceiling"]["point"]
            for name, levels in SCALE["speakers"].items()
        ),
        abs=1e-5,
    )
    assert "worst speaker" in found["reason"]
    assert "furthest below its own ceiling" in found["rule"]["text"]
    assert [item["name"] for item in found["speakers"]] == ["Aria", "Bo"]
    backwards = {name: list(reversed(listed)) for name, listed in reversed(rows.items())}
    assert decide(backwards) == found


def test_the_mean_decides_where_the_worst_speakers_tie() -> None:
    def measured(candidate: str, aria: float) -> list[ScoreRow]:
        rows = together(candidate, Aria=aria, Bo=0.5)
        bo = {(row.text_id, row.take): row.sim for row in together("x", Aria=aria, Bo=0.5)
              if row.speaker == "Bo"}  # fmt: skip
        return [row if row.speaker == "Aria" else row.model_copy(update={"sim": bo[row.key]})
                for row in rows]  # fmt: skip

    rows = {"base": together("base", Aria=0.4, Bo=0.4), "epoch-1": measured("epoch-1", 0.7),
            "epoch-2": measured("epoch-2", 0.9)}  # fmt: skip
    found = decide(rows)
    one, two = found["candidates"][1:]
    assert one["primary"]["point"] == two["primary"]["point"]
    assert found["chosen"] == "epoch-2"


def test_a_gate_must_hold_for_every_speaker() -> None:
    good = together("epoch-1", Aria=0.9, Bo=0.8)
    broken = [
        row.model_copy(update={"word_hits": 2, "word_substitutions": 8})
        if row.speaker == "Bo" else row
        for row in good
    ]  # fmt: skip
    found = decide({"base": together("base", Aria=0.6, Bo=0.6), "epoch-1": broken})
    error = next(gate for gate in found["candidates"][1]["gates"] if gate["name"] == "error")
    assert error["state"] == "failed"
    assert error["text"].startswith("Bo: ")
    states = {name: of["gates"][2]["state"] for name, of in
              found["candidates"][1]["speakers"].items()}  # fmt: skip
    assert states == {"Aria": "passed", "Bo": "failed"}
    assert found["keep_base"]


@pytest.mark.parametrize(
    ("sim", "state"), [(0.80, "passed"), (0.84, "passed"), (0.70, "failed")]
)  # fmt: skip
def test_a_voice_that_was_there_before_must_not_be_lost(sim: float, state: str) -> None:
    rows = {
        "base": together("base", Aria=0.8, Bo=0.4),
        "epoch-1": together("epoch-1", Aria=sim, Bo=0.8),
    }
    found = decide(rows, kept=["Aria"])
    gates = {name: {gate["name"]: gate for gate in of["gates"]} for name, of in
             found["candidates"][1]["speakers"].items()}  # fmt: skip
    assert gates["Aria"]["kept_voice"]["state"] == state
    assert gates["Bo"]["kept_voice"]["state"] == "passed"
    assert found["candidates"][1]["eligible"] == (state != "failed")
    assert [item["kept"] for item in found["speakers"]] == [True, False]
    difference = found["candidates"][1]["speakers"]["Aria"]["vs_base"]["sim"]
    assert difference["low"] <= difference["point"] <= difference["high"]
    assert difference["n"] == TEXTS
    assert "must not be shown" in found["rule"]["text"]


def test_confirmation_compares_each_speaker_and_its_place_in_the_matrix() -> None:
    record = confirm(
        together("base", Aria=0.6, Bo=0.55),
        together("epoch-1", Aria=0.9, Bo=0.8),
        RULE,
        scale=SCALE,
    )
    assert set(record["speakers"]) == {"Aria", "Bo"}
    assert record["speakers"]["Bo"]["sim"]["difference"]["low"] > 0.1
    assert record["confusion"]["right"]["n"] == TEXTS * 2 * 2


def test_a_speaker_alone_has_the_statistics_of_its_rows() -> None:
    rows = together("base", Aria=0.7, Bo=0.6)
    assert len(rows_of(rows, "Bo")) == TEXTS * 2
    found = decide({"base": rows, "epoch-1": together("epoch-1", Aria=0.7, Bo=0.6)})
    mean = np.mean([row.sim for row in rows_of(rows, "Bo")])
    assert found["candidates"][0]["speakers"]["Bo"]["sim"]["point"] == pytest.approx(mean, abs=1e-6)


def test_scales_together_are_their_mean_with_a_narrower_interval() -> None:
    def scale(point: float) -> SimilarityScale:
        part = Interval(point, point - 0.04, point + 0.03, 10)
        rate, nothing = SpeechRate(0.1, 0.05, 10), Interval(None, None, None, 0)
        return SimilarityScale("x", (f"{point}",), part, (), part, nothing, (), None, rate)

    found = pooled_scale({"a": scale(0.8), "b": scale(0.9)}, "both")
    assert found.ceiling.point == pytest.approx(0.85)
    assert found.ceiling.low == pytest.approx(0.85 - 0.04 / np.sqrt(2))
    assert found.ceiling.high == pytest.approx(0.85 + 0.03 / np.sqrt(2))
    assert found.ceiling.n == 20
    assert found.floor.point is None


@pytest.mark.slow
def test_the_report_shows_a_value_and_a_count_in_every_cell() -> None:
    from voxadapt.reporting.components import environment

    rows = together("base", Aria=0.9, Bo=0.8)
    found = decide({"base": rows, "epoch-1": together("epoch-1", Aria=0.95, Bo=0.85)})
    table = confusion(rows, RULE)
    parts = environment().get_template("parts.html.j2").module
    html = str(parts.speakers(found, {}, {"Base": table}, found["chosen"], "wer"))  # type: ignore[attr-defined]
    matrix = html[html.index('<table class="confusion">') :]
    for row in table["rows"]:
        assert f"<th>{row['speaker']}</th>" in matrix
        for value, near in zip(row["similarity"], row["nearest"], strict=True):
            assert f"{value['point']:.2f}<small>{near} of {row['n']}</small>" in matrix
