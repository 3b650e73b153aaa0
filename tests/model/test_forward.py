"""Training batches against stock generation: the same inputs, the same logits."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fakes
from voxadapt.model.forward import embed, predict, talker_hidden
from voxadapt.model.layout import IGNORE, build_layout, collate
from voxadapt.model.tokens import SpecialIds

TEXTS = ["Hello there", "A longer sentence, with more to say."]
NUM_NEW = 9  # talker steps; the last one's frame is not completed, so 8 frames
MODES = [
    pytest.param("auto", False, id="auto"),
    pytest.param("english", False, id="tagged"),
    pytest.param("auto", True, id="auto-streaming"),
    pytest.param("english", True, id="tagged-streaming"),
]


@pytest.fixture(scope="module")
def vector() -> torch.Tensor:
    return torch.randn(fakes.HIDDEN, generator=torch.Generator().manual_seed(5))


@contextmanager
def hooks(*handles: Any):
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def generate(tts: Any, texts: list[str], language: str, streaming: bool, vector: torch.Tensor):
    """Run stock greedy generation and record what went in and what came out."""
    talker = tts.model.talker
    seen = SimpleNamespace(prefill=None, c0=[], sub=[])

    def inputs(_module, _args, kwargs):
        if seen.prefill is None:
            seen.prefill = (kwargs["inputs_embeds"].clone(), kwargs["attention_mask"].clone())

    recorders = [
        talker.model.register_forward_pre_hook(inputs, with_kwargs=True),
        talker.codec_head.register_forward_hook(lambda _m, _i, out: seen.c0.append(out[:, -1])),
        *(
            head.register_forward_hook(lambda _m, _i, out: seen.sub.append(out[:, -1]))
            for head in talker.code_predictor.lm_head
        ),
    ]
    size = len(texts)
    with hooks(*recorders):
        codes, _ = tts.model.generate(
            input_ids=tts._tokenize_texts([tts._build_assistant_text(text) for text in texts]),
            voice_clone_prompt={
                "ref_code": None,
                "ref_spk_embedding": [vector] * size,
                "x_vector_only_mode": [True] * size,
                "icl_mode": [False] * size,
            },
            languages=[language] * size,
            non_streaming_mode=not streaming,
            do_sample=False,
            subtalker_dosample=False,
            repetition_penalty=1.0,
            max_new_tokens=NUM_NEW,
        )
    seen.codes = codes
    seen.c0_BSV = torch.stack(seen.c0, dim=1)
    sub = torch.stack(seen.sub, dim=1)  # [B, steps * (K-1), C]
    seen.sub_BSQC = sub.unflatten(1, (-1, fakes.NUM_CODEBOOKS - 1))
    return seen


def make_batch(
    tts: Any, texts: list[str], codes: list[torch.Tensor], language: str, streaming: bool
):
    ids = SpecialIds.from_config(tts.model.config)
    turns = [tts._tokenize_texts([tts._build_assistant_text(t)])[0][0, :-5] for t in texts]
    layouts = [
        build_layout(len(turn) - 3, len(c), ids, ids.language_id(language), streaming)
        for turn, c in zip(turns, codes, strict=True)
    ]
    return layouts, collate([str(n) for n in range(len(texts))], layouts, turns, codes, ids)


@pytest.mark.parametrize(("language", "streaming"), MODES)
def test_prefix_equals_generate_prefill(tts, vector, language, streaming):
    seen = generate(tts, TEXTS, language, streaming, vector)
    layouts, batch = make_batch(tts, TEXTS, seen.codes, language, streaming)
    with torch.no_grad():
        inputs = embed(tts.model.talker, batch, vector)
    prefill, mask = seen.prefill
    for row, layout in enumerate(layouts):
        expected = prefill[row][mask[row] == 1]  # generation pads on the left
        assert expected.shape[0] == layout.prefix_length
        torch.testing.assert_close(inputs[row, : layout.prefix_length], expected)


@pytest.mark.parametrize(("language", "streaming"), MODES)
def test_teacher_forced_talker_logits_equal_generation(tts, vector, language, streaming):
    seen = generate(tts, TEXTS, language, streaming, vector)
    # Rows of unequal length, so that the batch is padded on the right.
    codes = [seen.codes[0], seen.codes[1][:5]]
    _, batch = make_batch(tts, TEXTS, codes, language, streaming)
    with torch.no_grad():
        logits = predict(tts.model, batch, vector).c0_logits
    expected = torch.cat([seen.c0_BSV[row, : len(c) + 1] for row, c in enumerate(codes)])
    assert logits.shape == expected.shape
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("language", "streaming"), MODES)
def test_teacher_forced_code_predictor_logits_equal_generation(tts, vector, language, streaming):
    seen = generate(tts, TEXTS, language, streaming, vector)
    codes = [seen.codes[0], seen.codes[1][:5]]
    _, batch = make_batch(tts, TEXTS, codes, language, streaming)
    with torch.no_grad():
        logits = torch.stack(predict(tts.model, batch, vector).sub_logits, dim=1)
    expected = torch.cat([seen.sub_BSQC[row, : len(c)] for row, c in enumerate(codes)])
    assert logits.shape == expected.shape
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)


def test_hidden_frames_keep_their_place_without_their_codes(tts, vector):
    codes = [torch.from_numpy(fakes.make_codes(6, seed=1))]
    _, batch = make_batch(tts, TEXTS[:1], codes, "auto", False)
    talker = tts.model.talker
    with torch.no_grad():
        shown = embed(talker, batch, vector)
        kept = embed(talker, batch, vector, torch.ones_like(batch.frame_mask))
        hidden = embed(talker, batch, vector, torch.zeros_like(batch.frame_mask))
        tables = [talker.get_input_embeddings(), *talker.code_predictor.get_input_embeddings()]
        said = sum(table(c) for table, c in zip(tables, batch.codes.unbind(-1), strict=True))
    assert torch.equal(shown, kept)
    torch.testing.assert_close(shown - hidden, said * batch.frame_mask[..., None])


def test_a_row_gives_the_same_logits_alone_and_in_a_padded_batch(tts, vector):
    codes = [torch.from_numpy(fakes.make_codes(n, seed=n)) for n in (4, 30)]
    _, both = make_batch(tts, TEXTS, codes, "auto", False)
    _, alone = make_batch(tts, TEXTS[:1], codes[:1], "auto", False)
    with torch.no_grad():
        together, single = predict(tts.model, both, vector), predict(tts.model, alone, vector)
    torch.testing.assert_close(together.c0_logits[:5], single.c0_logits, atol=1e-5, rtol=1e-5)
    for mine, own in zip(together.sub_logits, single.sub_logits, strict=True):
        torch.testing.assert_close(mine[:4], own, atol=1e-5, rtol=1e-5)


def spied(tts: Any, batch: Any, vector: torch.Tensor) -> SimpleNamespace:
    """Run the training forward pass and record what the heads read."""
    talker, seen = tts.model.talker, SimpleNamespace(heads=[])
    predictor = talker.code_predictor

    def keep(name):
        return lambda _module, args, _out: setattr(seen, name, args[0])

    with (
        torch.no_grad(),
        hooks(
            talker.codec_head.register_forward_hook(keep("c0_hidden")),
            predictor.small_to_mtp_projection.register_forward_hook(keep("sub_inputs")),
            predictor.model.register_forward_hook(
                lambda _m, _a, out: setattr(seen, "sub_hidden", out.last_hidden_state)
            ),
            *(
                head.register_forward_hook(lambda _m, args, _o: seen.heads.append(args[0]))
                for head in predictor.lm_head
            ),
        ),
    ):
        seen.predictions = predict(tts.model, batch, vector)
        inputs = embed(talker, batch, vector)
        seen.hidden = talker_hidden(talker, inputs)
    return seen


@pytest.mark.parametrize("rows", [1, 2])
def test_codec_0_labels_are_shifted_exactly_once(tts, vector, rows):
    codes = [torch.from_numpy(fakes.make_codes(n, seed=n)) for n in (7, 12)][:rows]
    layouts, batch = make_batch(tts, TEXTS[:rows], codes, "auto", False)
    seen = spied(tts, batch, vector)
    read, targets = [], []
    for row, (layout, frames) in enumerate(zip(layouts, codes, strict=True)):
        p0, count = layout.prefix_length, layout.num_frames
        read.append(seen.hidden[row, p0 - 1 : p0 + count])  # bos row … last frame
        targets += [*frames[:, 0].tolist(), tts.model.config.talker_config.codec_eos_token_id]
    assert torch.equal(seen.c0_hidden, torch.cat(read))
    assert seen.predictions.c0_targets.tolist() == targets


@pytest.mark.parametrize("rows", [1, 2])
def test_end_of_speech_is_supervised_in_every_row(tts, vector, rows):
    codes = [torch.from_numpy(fakes.make_codes(n, seed=n)) for n in (7, 12)][:rows]
    _, batch = make_batch(tts, TEXTS[:rows], codes, "auto", False)
    predictions = spied(tts, batch, vector).predictions
    eos = tts.model.config.talker_config.codec_eos_token_id
    assert int((predictions.c0_targets == eos).sum()) == rows
    assert len(predictions.c0_targets) == sum(len(c) + 1 for c in codes)
    assert len(predictions.c0_logits) == int((batch.labels != IGNORE).sum())


def test_sub_talker_reads_hidden_at_p0_minus_1(tts, vector):
    codes = [torch.from_numpy(fakes.make_codes(n, seed=n)) for n in (7, 12)]
    layouts, batch = make_batch(tts, TEXTS, codes, "auto", False)
    seen = spied(tts, batch, vector)
    expected = torch.cat(
        [
            seen.hidden[
                row, layout.prefix_length - 1 : layout.prefix_length - 1 + layout.num_frames
            ]
            for row, layout in enumerate(layouts)
        ]
    )
    assert torch.equal(seen.sub_inputs[:, 0], expected)


def test_sub_talker_targets_are_all_further_codebooks_unshifted(tts, vector):
    codes = [torch.from_numpy(fakes.make_codes(n, seed=n)) for n in (7, 12)]
    _, batch = make_batch(tts, TEXTS, codes, "auto", False)
    seen = spied(tts, batch, vector)
    frames = torch.cat(codes).long()
    assert torch.equal(seen.predictions.sub_targets, frames[:, 1:])
    assert len(seen.predictions.sub_logits) == fakes.NUM_CODEBOOKS - 1
    assert all(len(logits) == len(frames) for logits in seen.predictions.sub_logits)
    talker = tts.model.talker
    tables = [talker.get_input_embeddings(), *talker.code_predictor.get_input_embeddings()]
    for k, head_input in enumerate(seen.heads):
        # Head k reads the output on codebook k's embedding and so predicts codebook k + 1.
        assert torch.equal(head_input, seen.sub_hidden[:, k + 1])
        assert torch.equal(seen.sub_inputs[:, k + 1], tables[k](frames[:, k]))


def test_text_projection_is_applied(tts, vector):
    codes = [torch.from_numpy(fakes.make_codes(5, seed=1))]
    layouts, batch = make_batch(tts, TEXTS[:1], codes, "auto", False)
    talker = tts.model.talker
    with torch.no_grad():
        inputs = embed(talker, batch, vector)
        text = talker.text_projection(talker.get_text_embeddings()(batch.text_ids))
        role = layouts[0].spans["role"]
        torch.testing.assert_close(
            inputs[0, role.start : role.stop], text[0, role.start : role.stop]
        )
        at = layouts[0].spans["codec_bos"].start
        bos = talker.get_input_embeddings()(batch.codec_ids[0, at])
        torch.testing.assert_close(inputs[0, at], text[0, at] + bos)


def test_padding_is_zero_although_text_projection_has_a_bias(tts, vector):
    codes = [torch.from_numpy(fakes.make_codes(n, seed=n)) for n in (3, 20)]
    layouts, batch = make_batch(tts, [TEXTS[0], TEXTS[0]], codes, "auto", False)
    with torch.no_grad():
        inputs = embed(tts.model.talker, batch, vector)
    assert not bool(inputs[0, len(layouts[0]) :].any())


def test_all_codebooks_of_a_frame_are_summed(tts, vector):
    codes = torch.from_numpy(fakes.make_codes(4, seed=1)).long()
    layouts, batch = make_batch(tts, TEXTS[:1], [codes], "auto", False)
    talker = tts.model.talker
    tables = [talker.get_input_embeddings(), *talker.code_predictor.get_input_embeddings()]
    with torch.no_grad():
        inputs = embed(talker, batch, vector)
        pad = talker.text_projection(
            talker.get_text_embeddings()(torch.tensor(tts.model.config.tts_pad_token_id))
        )
        expected = pad + sum(table(codes[:, k]) for k, table in enumerate(tables))
    p0 = layouts[0].prefix_length
    torch.testing.assert_close(inputs[0, p0 : p0 + 4], expected)
