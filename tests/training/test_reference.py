"""The loss of a padded batch against a plain one: one utterance at a time, every logit computed.

What stands here knows the sequence from its description alone. It shares no code with the
package's layout, batches, masks or losses, and computes what the package leaves out: padding
aside, the logits of all positions, of which the targets choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fakes
from voxadapt.model.forward import predict
from voxadapt.model.load import load_tts
from voxadapt.model.tokens import SpecialIds
from voxadapt.training.batches import build_examples, epoch_windows, make_batch
from voxadapt.training.losses import LossTotals, loss_sums

TEXTS = ("hello there", "good day to you, and to you all", "no", "it rains in the north", "yes")
SUB_TALKER_WEIGHT = 0.3


def plain_losses(model: Any, text_ids: Tensor, codes: Tensor, vector: Tensor, tag: str | None):
    """Return the losses of one utterance: codec_0 targets `[N + 1]`, further codes `[N, K - 1]`."""
    config, talker = model.config, model.talker
    codec = config.talker_config
    predictor = talker.code_predictor
    text_table, codec_table = talker.get_text_embeddings(), talker.get_input_embeddings()

    def text(token: int) -> Tensor:
        return talker.text_projection(text_table.weight[token])

    def special(token: int) -> Tensor:
        return codec_table.weight[token]

    pad = text(config.tts_pad_token_id)
    prefix = [codec.codec_nothink_id, codec.codec_think_bos_id, codec.codec_think_eos_id]
    if tag is not None:
        language = codec.codec_language_id[tag]
        prefix = [
            codec.codec_think_id, codec.codec_think_bos_id, language, codec.codec_think_eos_id
        ]  # fmt: skip
    steps = [text(token) for token in text_ids[:3].tolist()]
    steps += [pad + special(token) for token in prefix]
    steps += [pad + vector]
    steps += [text(config.tts_bos_token_id) + special(codec.codec_pad_id)]
    steps += [text(token) + special(codec.codec_pad_id) for token in text_ids[3:].tolist()]
    steps += [text(config.tts_eos_token_id) + special(codec.codec_pad_id)]
    steps += [pad + special(codec.codec_bos_id)]
    first_frame = len(steps)
    tables = [codec_table, *predictor.get_input_embeddings()]
    for frame in codes.tolist():
        summed = [table.weight[code] for table, code in zip(tables, frame, strict=True)]
        steps.append(pad + torch.stack(summed).sum(0))
    steps.append(pad + special(codec.codec_eos_token_id))
    assert first_frame == len(text_ids) - 3 + (10 if tag is None else 11)

    inputs = torch.stack(steps)[None]
    hidden = talker.model(inputs_embeds=inputs, use_cache=False).last_hidden_state[0]
    every_logit = talker.codec_head(hidden)
    c0 = []
    sub = []
    for n, frame in enumerate([*codes, None]):
        before = first_frame + n - 1
        target = codec.codec_eos_token_id if frame is None else int(frame[0])
        c0.append(F.cross_entropy(every_logit[before], torch.tensor(target)))
        if frame is None:
            continue
        row = [hidden[before]]
        row += [tables[k].weight[int(frame[k])] for k in range(len(frame) - 1)]
        sequence = predictor.small_to_mtp_projection(torch.stack(row)[None])
        outputs = predictor.model(inputs_embeds=sequence, use_cache=False).last_hidden_state[0]
        heads = predictor.get_output_embeddings()
        sub.append(
            torch.stack(
                [
                    F.cross_entropy(heads[k](outputs[k + 1]), frame[k + 1])
                    for k in range(len(frame) - 1)
                ]
            )
        )
    return torch.stack(c0), torch.stack(sub)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "tag"),
    [(fakes.TinyShape(24, 16), None), (fakes.TinyShape(fakes.HIDDEN, fakes.HIDDEN), "english")],
    ids=["0.6B-auto", "1.7B-tagged"],
)
def test_the_loss_of_a_padded_batch_is_that_of_the_plain_implementation(tmp_path, shape, tag):
    tts = load_tts(fakes.make_tts(tmp_path / "base", shape))
    model, ids = tts.model, SpecialIds.from_config(tts.model.config)
    rows = [fakes.make_utterance(f"r{n}", text) for n, text in enumerate(TEXTS)]
    codes = {row.id: fakes.make_codes(3 + 7 * n, n) for n, row in enumerate(rows)}
    vector = torch.randn(fakes.HIDDEN, generator=torch.Generator().manual_seed(1))
    examples = build_examples(rows, codes, tts, ids, tag or "auto")

    model.zero_grad()
    sums = loss_sums(predict(model, make_batch(examples, ids), vector))
    fast_loss = sums.c0_sum / sums.num_labels + SUB_TALKER_WEIGHT * sums.sub_sums.sum() / (
        sums.num_frames * len(sums.sub_sums)
    )
    fast_loss.backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.zero_grad()
    found = [plain_losses(model, e.text_ids, e.codes.long(), vector, tag) for e in examples]
    c0, sub = torch.cat([c for c, _ in found]), torch.cat([s for _, s in found])
    plain_loss = c0.mean() + SUB_TALKER_WEIGHT * sub.mean()
    plain_loss.backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    assert fast_loss.item() == pytest.approx(plain_loss.item(), abs=1e-4)
    tally = LossTotals()
    tally.add(sums)
    assert tally.c0_loss == pytest.approx(c0.mean().item(), abs=1e-4)
    assert tally.codebook_losses == pytest.approx(sub.mean(0).tolist(), abs=1e-4)
    for name, grad in plain.items():
        torch.testing.assert_close(fast[name], grad, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (8, 4), (2, 16)])
def test_batches_of_the_real_profiles_are_padded_by_no_more_than_five_percent(
    batch_size, accumulation
):
    rng = np.random.default_rng(0)
    seconds = np.clip(rng.lognormal(np.log(4.5), 0.5, 3000), 1.0, 20.0)
    lengths = [int(n) for n in 11 + seconds * (12.5 + 4.0)]  # frames and text tokens
    batches = [
        batch for step in epoch_windows(lengths, batch_size, accumulation, 0, 1) for batch in step
    ]
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert 1 - sum(lengths) / padded <= 0.05
