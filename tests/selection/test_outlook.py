"""Whether more training would help, on planted curves."""

from __future__ import annotations

import numpy as np
import pytest

from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.scoring.speakers import Worst
from voxadapt.scoring.statistics import Array, Ratio, resample_weights
from voxadapt.selection.outlook import find_outlook

NUM_TEXTS = 60
WEIGHTS = resample_weights(NUM_TEXTS, 600, 0)


def worst(values: Array, primary: str = "similarity") -> Worst:
    """Take values by text for the measure of a single speaker."""
    return Worst((Ratio(values, np.ones(len(values))),), (0.0,), primary == "similarity")


def outlook(curve: list[float], primary: str, noise: float, seed: int = 0) -> Record:
    """Read the trend of a curve whose sentences spread by `noise` about it."""
    generator = np.random.default_rng(seed)
    text = generator.standard_normal(NUM_TEXTS) * 0.05
    key = "sim" if primary == "similarity" else "error"
    epochs = {
        f"epoch-{n}": worst(value + text + noise * generator.standard_normal(NUM_TEXTS), primary)
        for n, value in enumerate(curve, start=1)
    }
    params = SelectParams(primary=primary)  # type: ignore[arg-type]
    found = find_outlook({key: epochs}, WEIGHTS, params, "candidates")
    assert found is not None and found["trends"][key]["trend"] == found["trend"]
    return found | found["trends"][key]


@pytest.mark.parametrize("primary", ["similarity", "error"])
@pytest.mark.parametrize(
    ("curve", "trend"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "rising"),
        ([0.1, 0.3, 0.5, 0.5, 0.5, 0.5], "flat"),
        ([0.1, 0.3, 0.5, 0.4, 0.3, 0.2], "turned"),
        ([0.5, 0.4], "turned"),
        ([0.4, 0.5], "rising"),
        ([0.5, 0.5, 0.5], "flat"),
    ],
)
def test_a_planted_trend_is_found(curve: list[float], trend: str, primary: str) -> None:
    values = curve if primary == "similarity" else [1.0 - value for value in curve]
    found = outlook(values, primary, noise=0.003)
    assert found["trend"] == trend
    if trend == "turned":
        assert found["best"] == f"epoch-{1 + int(np.argmax(curve))}"
        assert f"turned after {found['best']}" in found["sentence"]
    if trend == "rising":
        longer = len(curve) + max(1, len(curve) // 2)
        assert f"`candidates: [base, epoch-1, …, epoch-{longer}]`" in found["sentence"]


def test_words_that_get_clearer_are_a_reason_to_go_on() -> None:
    generator = np.random.default_rng(1)

    def curve(values: list[float], primary: str) -> dict[str, Worst]:
        noise = [value + 0.003 * generator.standard_normal(NUM_TEXTS) for value in values]
        return {f"epoch-{n}": worst(item, primary) for n, item in enumerate(noise, start=1)}

    flat, falling = curve([0.6] * 4, "similarity"), curve([0.5, 0.4, 0.3, 0.2], "error")
    found = find_outlook({"sim": flat, "error": falling}, WEIGHTS, SelectParams(), "candidates")
    assert found is not None and found["trend"] == "rising"
    assert found["trends"]["sim"]["trend"] == "flat"
    assert "WER is still getting better (-10.0 points" in found["sentence"]
    lost = curve([0.2, 0.3, 0.4, 0.5], "error")
    found = find_outlook({"sim": flat, "error": lost}, WEIGHTS, SelectParams(), "candidates")
    assert found is not None and found["trend"] == "turned"


@pytest.mark.slow
def test_noise_is_no_trend() -> None:
    trends = [outlook([0.5] * 6, "similarity", 0.05, seed)["trend"] for seed in range(100)]
    assert trends.count("rising") <= 5 and trends.count("turned") <= 10
    assert trends.count("undecided") >= 80


def test_one_epoch_or_one_sentence_has_no_trend() -> None:
    one = {"epoch-1": worst(np.ones(5))}
    weights = resample_weights(5, 50, 0)
    assert find_outlook({"sim": one}, weights, SelectParams(), "candidates") is None
    two = one | {"epoch-2": worst(np.ones(5))}
    assert find_outlook({"sim": two}, weights, SelectParams(), None) is None
    found = find_outlook({"sim": two}, weights, SelectParams(), "language.stage2.num_epochs")
    assert found is not None and found["trend"] == "flat"


@pytest.mark.parametrize(
    ("names", "window"),
    [
        (["epoch-1", "epoch-2"], ["epoch-1", "epoch-2"]),
        (["epoch-1", "epoch-2", "epoch-3"], ["epoch-2", "epoch-3"]),
        (["epoch-1", "epoch-2", "epoch-4", "epoch-8"], ["epoch-4", "epoch-8"]),
        (
            ["epoch-1", "epoch-2", "epoch-3", "epoch-5", "epoch-9"],
            ["epoch-3", "epoch-5", "epoch-9"],
        ),
    ],
)
def test_the_slope_is_a_line_through_the_last_half(names: list[str], window: list[str]) -> None:
    """By least squares over the numbers of the epochs, sentence by sentence."""
    generator = np.random.default_rng(5)
    values = {name: generator.normal(0.5, 0.1, NUM_TEXTS) for name in names}
    found = find_outlook(
        {"sim": {name: worst(item, "similarity") for name, item in values.items()}},
        WEIGHTS, SelectParams(), "candidates",
    )  # fmt: skip
    assert found is not None
    trend = found["trends"]["sim"]
    assert trend["epochs"] == window
    numbers = [int(name[6:]) for name in window]
    of_texts = np.polyfit(numbers, np.array([values[name] for name in window]), 1)[0]
    assert trend["slope"]["point"] == pytest.approx(of_texts.mean(), abs=1e-6)
    se = of_texts.std(ddof=1) / np.sqrt(NUM_TEXTS)
    assert trend["slope"]["se"] == pytest.approx(se, rel=0.15)
    assert trend["slope"]["high"] - trend["slope"]["low"] == pytest.approx(4 * se, rel=0.2)


@pytest.mark.parametrize(
    ("step", "primary", "trend"),
    [
        (0.0049, "similarity", "flat"),
        (0.0051, "similarity", "rising"),
        (-0.0049, "similarity", "turned"),
        (-0.0099, "error", "flat"),
        (-0.0101, "error", "rising"),
        (0.0099, "error", "turned"),
    ],
)
def test_a_slope_is_too_small_to_matter_within_the_tie(
    step: float, primary: str, trend: str
) -> None:
    """Every sentence changes alike, so that the slope is known."""
    values = {f"epoch-{n}": worst(np.full(NUM_TEXTS, 0.5 + step * n), primary) for n in (1, 2, 3)}
    params = SelectParams(primary=primary)  # type: ignore[arg-type]
    key = "sim" if primary == "similarity" else "error"
    found = find_outlook({key: values}, WEIGHTS, params, "candidates")
    assert found is not None and found["trend"] == trend
    assert found["trends"][key]["best"] == ("epoch-1" if trend == "turned" else "epoch-3")
