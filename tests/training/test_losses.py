from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import fakes
from voxadapt.model.forward import Predictions, predict
from voxadapt.model.load import load_tts, speaker_vector
from voxadapt.model.tokens import SpecialIds
from voxadapt.training.batches import build_examples, make_batch
from voxadapt.training.losses import LossTotals, loss_sums, total_loss


@pytest.fixture(scope="module")
def setting(world):
    tts = load_tts(world.base)
    ids = SpecialIds.from_config(tts.model.config)
    rows = [fakes.make_utterance(f"r{n}", "x" * (n + 1)) for n in range(8)]
    codes = {row.id: fakes.make_codes(3 + 4 * n, n) for n, row in enumerate(rows)}
    vector = speaker_vector(tts, world.ref)
    return tts.model, ids, build_examples(rows, codes, tts, ids), vector


def _gradients(setting, size):
    """Accumulate eight examples in batches of `size`; return loss and gradients."""
    model, ids, examples, vector = setting
    model.zero_grad()
    batches = [make_batch(examples[at : at + size], ids) for at in range(0, 8, size)]
    labels, frames = sum(b.num_labels for b in batches), sum(b.num_frames for b in batches)
    tally, total = LossTotals(), 0.0
    for batch in batches:
        sums = loss_sums(predict(model, batch, vector))
        part = total_loss(sums, labels, frames, 0.3)
        part.backward()
        total += float(part.detach())
        tally.add(sums)
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return total, tally, grads


def test_accumulation_does_not_change_loss_or_gradient(setting):
    total, tally, grads = _gradients(setting, 8)
    assert tally.loss(0.3) == pytest.approx(total, rel=1e-5)
    for size in (4, 2, 1):
        other, other_tally, other_grads = _gradients(setting, size)
        assert other == pytest.approx(total, rel=1e-5)
        assert other_tally.codebook_losses == pytest.approx(tally.codebook_losses, rel=1e-5)
        assert other_grads.keys() == grads.keys()
        for name, grad in grads.items():
            torch.testing.assert_close(other_grads[name], grad, atol=1e-5, rtol=1e-3, msg=name)


def test_losses_are_plain_cross_entropy_on_aligned_targets():
    torch.manual_seed(0)
    p = Predictions(
        torch.randn(7, 50), torch.randint(0, 50, (7,)),
        tuple(torch.randn(3, 5, 20)), torch.randint(0, 20, (5, 3)),
    )  # fmt: skip
    sums = loss_sums(p)
    torch.testing.assert_close(sums.c0_sum / 7, F.cross_entropy(p.c0_logits, p.c0_targets))
    for k in range(3):
        expected = F.cross_entropy(p.sub_logits[k], p.sub_targets[:, k])
        torch.testing.assert_close(sums.sub_sums[k] / 5, expected)
    tally = LossTotals()
    tally.add(sums)
    assert tally.sub_loss == pytest.approx(sum(tally.codebook_losses) / 3)
    assert tally.loss(0.3) == pytest.approx(float(total_loss(sums, 7, 5, 0.3)), rel=1e-6)


def test_ignored_positions_and_frozen_speaker_get_no_gradient(setting):
    model, _, _, _ = setting
    _gradients(setting, 8)
    weight = model.talker.get_input_embeddings().weight
    eos = model.config.talker_config.codec_eos_token_id
    # The end-of-speech row is an input only at the last position, which predicts nothing.
    assert not bool(weight.grad[eos].any())
    assert all(p.grad is None for p in model.speaker_encoder.parameters())
