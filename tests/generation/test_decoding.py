"""The token loop: greedy codes are the stock call's, sampled ones follow its distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chi2_contingency, chisquare
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import fakes
from speaking import TEXTS, codes_of
from voxadapt.generation.decoding import Decoding
from voxadapt.generation.sampling import BELOW_ONE, Sampler
from voxadapt.model.load import load_tts

MINIATURE = Path(__file__).parents[2] / "data/models/base"


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True], ids=["text first", "streaming"])
def test_greedy_codes_equal_the_stock_loop(
    tts: Any, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"sample": False, "non_streaming_mode": not streaming}
    stock = codes_of(tts, TEXTS, monkeypatch, **fields)
    ours = codes_of(tts, TEXTS, monkeypatch, seeds=range(4), **fields)
    assert all(torch.equal(a, b) for a, b in zip(ours, stock, strict=True))
    assert max(len(item) for item in ours) == 23  # tiny random weights seldom end


@pytest.mark.slow
def test_greedy_codes_equal_the_stock_loop_where_rows_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tts = load_tts(MINIATURE)  # trained: it ends by itself, at different places
    texts = [
        "The cat sat on the warm stone.", "Yes.", "They walked home late in the rain.", "We know.",
        "Is it far?", "He said that the train would be here at noon.",
    ]  # fmt: skip
    stock = codes_of(tts, texts, monkeypatch, sample=False, limits=80)
    ours = codes_of(tts, texts, monkeypatch, sample=False, seeds=range(6), limits=80)
    assert len({len(item) for item in ours}) > 2 and min(len(item) for item in ours) < 79
    assert all(torch.equal(a, b) for a, b in zip(ours, stock, strict=True))


@pytest.mark.slow
def test_a_row_does_not_depend_on_its_company(tts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = codes_of(tts, TEXTS, monkeypatch, sample=True, seeds=[7, 8, 9, 10])
    for index, text in enumerate(TEXTS):
        (alone,) = codes_of(tts, [text], monkeypatch, sample=True, seeds=[7 + index])
        assert torch.equal(alone, together[index])
    others = codes_of(tts, TEXTS, monkeypatch, sample=True, seeds=[7, 80, 90, 100])
    assert torch.equal(others[0], together[0]) and not torch.equal(others[1], together[1])


def test_each_row_has_its_own_limit(tts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"sample": True, "seeds": [1, 2, 3, 4]}
    free = codes_of(tts, TEXTS, monkeypatch, **fields)
    cut = codes_of(tts, TEXTS, monkeypatch, limits=[6, 20, 3, 11], **fields)
    for whole, part, limit in zip(free, cut, [6, 20, 3, 11], strict=True):
        assert len(part) == min(limit - 1, len(whole))
        assert torch.equal(part, whole[: len(part)])


def test_changed_weights_are_joined_anew(tts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = tts.model.talker.model.layers[0].mlp.up_proj.weight
    fields = {"sample": False, "seeds": [0], "limits": 8}
    before = codes_of(tts, TEXTS[:1], monkeypatch, **fields)
    with torch.no_grad():
        weight.mul_(-3.0)
        try:
            ours = codes_of(tts, TEXTS[:1], monkeypatch, **fields)
            stock = codes_of(tts, TEXTS[:1], monkeypatch, sample=False, limits=8)
        finally:
            weight.div_(-3.0)
    assert torch.equal(ours[0], stock[0]) and not torch.equal(ours[0], before[0])


def test_the_stock_loop_returns_afterwards(tts: Any) -> None:
    decoding = Decoding(tts.model, [0], [9])
    with pytest.raises(KeyError), decoding:  # an error inside does not leave the loop in place
        tts.model.talker.generate(*[torch.ones(1, 2, 2)] * 4)
    assert "generate" not in vars(tts.model.talker)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (7, 1.0), (0, 0.6), (9, 0.7)])
def test_sampler_follows_the_distribution_of_generate(top_k: int, top_p: float) -> None:
    draws, size = 40_000, 12
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, size, generator=generator) * 2
    history = torch.tensor([[1, 4]])
    processors: list[Any] = [RepetitionPenaltyLogitsProcessor(1.3), TemperatureLogitsWarper(0.7)]
    processors += [TopKLogitsWarper(top_k)] if top_k else []
    processors += [TopPLogitsWarper(top_p)] if top_p < 1.0 else []
    wanted = LogitsProcessorList(processors)(history, logits.clone()).softmax(-1)[0].double()
    sampler = Sampler(True, 0.7, top_k, top_p, repetition_penalty=1.3)
    had = torch.zeros(1, size, dtype=torch.bool).scatter_(1, history, True)
    found = sampler(
        had.expand(draws, -1), logits.expand(draws, -1).clone(),
        torch.rand(draws, generator=generator),
    )  # fmt: skip
    counts = torch.bincount(found, minlength=size)
    assert (counts[wanted == 0] == 0).all()
    kept = wanted > 0
    expected = (wanted[kept] / wanted[kept].sum() * draws).numpy()
    assert chisquare(counts[kept].numpy(), expected).pvalue > 1e-3


def test_sampler_never_draws_what_is_impossible() -> None:
    sampler = Sampler(True, 1.0, 2, 1.0)
    logits = torch.tensor([[0.0, 3.0, 3.0, -torch.inf], [5.0, -torch.inf, 4.0, -torch.inf]])
    edges = torch.tensor([0.0, BELOW_ONE])
    for uniform in (edges, edges.flip(0)):
        first, second = sampler(None, logits.clone(), uniform).tolist()
        assert first in (1, 2) and second in (0, 2)


@pytest.mark.slow
def test_sampled_codes_are_distributed_as_in_the_stock_loop(
    models: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tts, rows = models[24], 400
    fields = {"sample": True, "limits": 4, "top_k": 5, "subtalker_top_k": 5}
    torch.manual_seed(11)
    stock = codes_of(tts, ["hi"] * rows, monkeypatch, **fields)
    ours = codes_of(tts, ["hi"] * rows, monkeypatch, seeds=range(rows), **fields)
    for frame in range(2):
        for codebook in (0, 1, fakes.NUM_CODEBOOKS - 1):
            a, b = (
                torch.bincount(torch.stack([row[frame, codebook] for row in codes]), minlength=64)
                for codes in (stock, ours)
            )
            table = torch.stack([a, b])[:, (a + b) >= 10]
            assert chi2_contingency(table.numpy()).pvalue > 1e-3
