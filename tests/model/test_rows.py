from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import fakes
from voxadapt.model.forward import predict
from voxadapt.model.layout import build_layout, collate
from voxadapt.model.load import load_tts
from voxadapt.model.rows import RowEmbedding, install_rows
from voxadapt.model.tokens import SpecialIds

IDS = [2, 5, 6]
GREEDY = {
    "do_sample": False, "subtalker_dosample": False, "repetition_penalty": 1.0,
    "max_new_tokens": 6,
}  # fmt: skip


def table(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Embedding(9, 4, dtype=dtype)


def values():
    return torch.randn(len(IDS), 4, generator=torch.Generator().manual_seed(1))


def patched(embedding, dtype=torch.float32):
    full = embedding.weight.detach().clone()
    full[IDS] = values().to(dtype)
    return full


@pytest.fixture
def tts(base_dirs):
    """A model of its own: rows are installed in it."""
    return load_tts(base_dirs[24])


@pytest.mark.parametrize("shape", [(7,), (2, 5), (1, 3, 4)])
def test_forward_equals_the_patched_table(shape):
    plain = table()
    rows = RowEmbedding(table(), IDS, values())
    ids = torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(rows(ids), functional.embedding(ids, patched(plain)))
    assert torch.equal(rows.weight, patched(plain))
    assert (rows.num_embeddings, rows.embedding_dim) == (9, 4)


def test_without_values_nothing_changes():
    plain, rows = table(), RowEmbedding(table(), IDS)
    ids = torch.arange(9)
    assert torch.equal(rows(ids), plain(ids))
    assert torch.equal(rows.weight, plain.weight)


def test_the_gradient_is_that_of_the_dense_table_with_repeated_ids_summed():
    rows = RowEmbedding(table(), IDS, values())
    dense = patched(table()).requires_grad_()
    ids = torch.tensor([[2, 2, 0, 5], [8, 2, 5, 1]])  # 6 does not occur
    weights = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(3))
    (rows(ids) * weights).sum().backward()
    (functional.embedding(ids, dense) * weights).sum().backward()
    assert torch.equal(rows.rows.grad, dense.grad[IDS])
    assert not rows.rows.grad[2].any()
    assert rows.table.weight.grad is None


def test_the_table_gets_no_gradient_even_if_someone_thaws_it():
    rows = RowEmbedding(table(), IDS)
    rows.requires_grad_(True)
    rows(torch.arange(9)).sum().backward()
    assert rows.table.weight.grad is None


def test_rows_are_float32_masters_of_a_half_precision_table():
    rows = RowEmbedding(table(torch.bfloat16), IDS, values())
    assert rows.rows.dtype == torch.float32
    out = rows(torch.tensor(IDS))
    assert out.dtype == rows.weight.dtype == torch.bfloat16
    assert torch.equal(out, values().bfloat16())


@pytest.mark.parametrize("ids", [[], [5, 2], [2, 2], [-1, 2], [2, 9]])
def test_rows_must_ascend_and_lie_in_the_table(ids):
    with pytest.raises(AssertionError):
        RowEmbedding(table(), ids)


def test_only_the_rows_are_trained_and_everything_else_stays_bit_for_bit(tts):
    model = tts.model
    model.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = install_rows(model, "text", [1, 40, 41])
    codec = install_rows(model, "codec", [900])
    text.rows.requires_grad_(True)
    codec.rows.requires_grad_(True)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(trained) == [
        "talker.model.codec_embedding.rows", "talker.model.text_embedding.rows"
    ]  # fmt: skip
    ids = SpecialIds.from_config(model.config)
    tagged = [build_layout(6, 8, ids, 900)]
    codes = [torch.from_numpy(fakes.make_codes(8, 1))]
    batch = collate(["a"], tagged, [torch.tensor([1, 2, 3, 40, 41, 42, 40, 1, 7])], codes, ids)
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1, weight_decay=0.0)
    predictions = predict(model, batch, torch.randn(fakes.HIDDEN))
    functional.cross_entropy(predictions.c0_logits, predictions.c0_targets).backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        if name.endswith(".rows"):
            continue
        assert torch.equal(value, before[name.replace(".table.", ".")]), name
    for module, table_name in ((text, "text"), (codec, "codec")):
        old = before[f"talker.model.{table_name}_embedding.weight"]
        moved = (module.weight != old).any(dim=1).nonzero().flatten()
        assert torch.equal(moved, module.ids)


@pytest.mark.slow
def test_stock_generation_speaks_with_the_rows(tts, base_dirs, tmp_path):
    other = load_tts(base_dirs[24])
    ids = list(tts.processor.tokenizer("Hai, apa khabar?")["input_ids"])
    ids = sorted(set(ids))
    new = torch.randn(len(ids), 24, generator=torch.Generator().manual_seed(4))
    tag = torch.randn(1, fakes.HIDDEN, generator=torch.Generator().manual_seed(5))
    english = SpecialIds.from_config(tts.model.config).languages["english"]
    text = install_rows(tts.model, "text", ids, new)
    codec = install_rows(tts.model, "codec", [english], tag)
    assert tts.model.talker.get_text_embeddings() is text
    assert tts.model.talker.get_input_embeddings() is codec
    with torch.no_grad():
        other.model.talker.model.text_embedding.weight[ids] = new
        other.model.talker.model.codec_embedding.weight[english] = tag[0]
    ref = str(fakes.make_wav(tmp_path / "ref.wav", 3.0))

    def speak(one):
        waves, _ = one.generate_voice_clone(
            "Hai, apa khabar?", language="English", ref_audio=ref, x_vector_only_mode=True, **GREEDY
        )
        return torch.from_numpy(waves[0])

    assert torch.equal(speak(tts), speak(other))
    assert not torch.equal(speak(tts), speak(load_tts(base_dirs[24])))
