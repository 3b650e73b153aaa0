"""Training the text rows that occur is training the whole table, bit for bit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import fakes
from voxadapt.model.load import load_tts
from voxadapt.model.tokens import SpecialIds
from voxadapt.training import trainer as loop
from voxadapt.training.batches import build_examples
from voxadapt.training.text_rows import TEXT_EMBEDDING, occurring_rows

UNCLIPPED = {"max_grad_norm": 1e9}  # the norm's rounding depends on how many zeros it sums


@pytest.mark.slow
def test_weights_and_losses_are_those_of_training_the_whole_table(world, tmp_path, monkeypatch):
    compact = world.train(tmp_path / "compact", 2, weight_decay=0.1, **UNCLIPPED)
    monkeypatch.setattr(loop, "occurring_rows", lambda *_arguments: None)
    whole = world.train(tmp_path / "whole", 2, weight_decay=0.1, **UNCLIPPED)
    assert [r["loss"] for r in compact.rows if r["step"]] == [
        r["loss"] for r in whole.rows if r["step"]
    ]
    for one, other in zip(compact.checkpoints, whole.checkpoints, strict=True):
        a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
        assert all(torch.equal(a[name], b[name]) for name in b)
    base = load_file(world.base / "model.safetensors")[TEXT_EMBEDDING]
    assert not torch.equal(a[TEXT_EMBEDDING], base)


def test_the_optimizer_holds_no_row_that_does_not_occur(world):
    tts = load_tts(world.base)
    ids = SpecialIds.from_config(tts.model.config)
    row = fakes.make_utterance("a", "abba")
    examples = build_examples([row], {"a": fakes.make_codes(4, 0)}, tts, ids)
    trained = dict(tts.model.named_parameters())
    held = occurring_rows(tts.model, trained, examples)
    # Role (3), a and b, and three special ids.
    assert held is not None and len(held.rows) == 8
    before = trained[TEXT_EMBEDDING].detach().clone()
    with torch.no_grad():
        held.rows.add_(1.0)
    assert torch.equal(trained[TEXT_EMBEDDING], before)
    held.write_back()
    assert int((trained[TEXT_EMBEDDING] != before).any(1).sum()) == 8


def test_a_frozen_text_embedding_is_left_alone(world):
    tts = load_tts(world.base)
    trained = {n: p for n, p in tts.model.named_parameters() if n != TEXT_EMBEDDING}
    assert occurring_rows(tts.model, trained, []) is None
    assert isinstance(tts.model.talker.model.text_embedding, torch.nn.Embedding)
