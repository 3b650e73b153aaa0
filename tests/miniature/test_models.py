"""Each trainer in a few steps, and what it leaves loads with the stock libraries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from miniature import codec as codec_module
from miniature.recipe import HOP, CodecRecipe, TalkerRecipe, WhisperRecipe
from miniature.speech import Corpus, Utterance
from miniature.talker import (
    MelFeatures,
    TalkerData,
    TalkerTrainer,
    assistant_text,
    export_base,
    first_head,
    layout,
    load_base,
    train_talker,
)
from miniature.tokenizer import special_ids, train_tokenizer
from miniature.voices import BASE_VOICES
from miniature.whisper import (
    WhisperTrainer,
    attend,
    export_whisper,
    prompt_and_text,
    token_places,
    train_whisper,
    transcribe,
)
from voxadapt.core.compat import import_qwen_tts

pytestmark = pytest.mark.slow

TEXTS = ["The old man saw a car.", "A girl waited.", "Ibu beli ikan.", "My hat was red today."]
CODEC = CodecRecipe(
    steps=4, warm_steps=2, batch=2, window=4, frames=16, buckets=(8,),
    settle_steps=0, save_every=1, fit_frames=8,
    encoder_filters=4, encoder_hidden=32, layers=1, codebook_size=8, codebook_dim=32, latent=32,
    decoder_dim=32,
)  # fmt: skip
WHISPER = WhisperRecipe(steps=2, batch=2, save_every=2, state=16, heads=2, audio_layers=1,
                        text_layers=1, audio_ctx=50, text_ctx=64)  # fmt: skip
TALKER = TalkerRecipe(steps=2, batch=2, save_every=2, eval_every=2, hidden=128, layers=1,
                      text_hidden=32, predictor_hidden=64, predictor_layers=1,
                      codebook_size=8, text_vocab=320, max_new_tokens=6)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    utterances, clips = [], []
    for n in range(12):
        voice = BASE_VOICES[n % 2].name
        text = TEXTS[n % len(TEXTS)]
        utterances.append(Utterance("base", "english", voice, text, "plain"))
        clips.append((rng.normal(0, 3000, (6 + n % 3) * HOP)).astype(np.int16))
    offsets = np.cumsum([0] + [len(c) for c in clips])
    return Corpus([(utterances, offsets, np.concatenate(clips))])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, folder, 320)
    return folder


@pytest.fixture(scope="module")
def codec_folder(corpus, tmp_path_factory):
    work = tmp_path_factory.mktemp("codec")
    trainer = codec_module.train_codec(corpus, list(range(12)), CODEC, work, compiled=False)
    codec_module.export(trainer, work / "codec", half=False)
    return trainer, work


def test_tokenizer_slices_three_in_front_and_five_behind(tokenizer):
    from transformers import AutoTokenizer

    tok = AutoTokenizer.from_pretrained(tokenizer)
    for text in TEXTS:
        ids = tok(assistant_text(text)).input_ids
        assert tok.decode(ids[:3]) == "<|im_start|>assistant\n"
        assert tok.decode(ids[3:-5]) == text
        assert tok.decode(ids[-5:]) == "<|im_end|>\n<|im_start|>assistant\n"
    assert 300 < special_ids(tokenizer)["size"] <= 326


def test_fast_codec_forward_is_the_stock_one(corpus):
    trainer = codec_module.CodecTrainer(CODEC).eval()
    wave = torch.from_numpy(np.stack([corpus.clip(0)[: 6 * HOP], corpus.clip(2)[: 6 * HOP]]))
    with torch.no_grad():
        stock = trainer.model.encoder.encoder(wave[:, None])
        torch.testing.assert_close(trainer.features(wave), stock, atol=1e-4, rtol=1e-4)
        hidden = torch.randn(2, CODEC.latent, 4)
        expected = hidden
        for blocks in trainer.model.decoder.upsample:
            for block in blocks:
                expected = block(expected)
        for block in trainer.model.decoder.decoder:
            expected = block(expected)
        expected = expected[:, 0] * CODEC.output_scale
        torch.testing.assert_close(trainer.lower(hidden), expected, atol=1e-4, rtol=1e-4)


def test_exported_codec_is_what_was_trained(codec_folder, corpus):
    trainer, work = codec_folder
    stock = import_qwen_tts().Qwen3TTSTokenizer.from_pretrained(str(work / "codec"))
    clip = corpus.clip(0)
    codes = stock.encode(clip, sr=24_000).audio_codes[0]
    assert codes.shape == (len(clip) // HOP, CODEC.quantizers)
    with torch.no_grad():
        first, rest = trainer.latents(torch.from_numpy(clip)[None])
        valid = torch.ones(first.shape[:2], dtype=torch.bool)
        keep = torch.tensor([99])
        a, _, one = trainer.first(first, valid, keep, torch.Generator())
        b, _, seven = trainer.rest(rest, valid, keep, torch.Generator())
        assert torch.equal(torch.cat([one, seven], -1)[0], codes)
        wave = trainer.lower(trainer.upper(a, b))[0].clamp(-1, 1)
    decoded, rate = stock.decode([{"audio_codes": codes}])
    assert rate == 24_000
    assert len(decoded[0]) == len(clip)
    np.testing.assert_allclose(decoded[0], wave.numpy(), atol=1e-4)


def test_codec_training_resumes(codec_folder, corpus):
    trainer, work = codec_folder
    again = codec_module.train_codec(corpus, list(range(12)), CODEC, work, compiled=False)
    assert again.quantize
    assert torch.equal(trainer.rest.embed, again.rest.embed)
    for a, b in zip(trainer.reader.parameters(), again.reader.parameters(), strict=True):
        assert torch.equal(a, b)


def test_codec_starts_from_an_exported_one(codec_folder):
    trainer, work = codec_folder
    again = codec_module.CodecTrainer(replace(CODEC, seed=99))
    codec_module.load_export(again, work / "codec")
    assert again.quantize
    assert torch.equal(trainer.rest.embed, again.rest.embed)
    for a, b in zip(trainer.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_long_clips_have_several_windows(corpus):
    recipe = replace(CODEC, batch=4, frames=16)
    batch = next(codec_module.batches(corpus, list(range(12)), recipe))
    assert len(batch.wave) == 2
    assert batch.rows.tolist() == [0, 1, 0, 1]
    trainer = codec_module.CodecTrainer(recipe)
    parts = trainer(batch, torch.Generator())
    assert torch.isfinite(parts["total"])


def test_batches_depend_on_seed_and_step_alone(corpus):
    a = codec_module.batches(corpus, list(range(12)), CODEC, 5)
    b = codec_module.batches(corpus, list(range(12)), CODEC, 4)
    next(b)
    assert torch.equal(next(a).wave, next(b).wave)


def test_whisper_checkpoint_loads_and_decodes(corpus, tmp_path):
    import whisper

    trainer = train_whisper(corpus, list(range(12)), WHISPER, tmp_path)
    path = tmp_path / "model" / "miniature.pt"
    export_whisper(trainer, path)
    assert path.stat().st_size < 2_000_000
    model = whisper.load_model(str(path), device="cpu")
    assert model.dims.n_audio_ctx == 50
    table = model.decoder.token_embedding.weight
    assert int((table.abs().sum(1) > 0).sum()) == len(trainer.used)
    assert len(transcribe(model, [corpus.clip(0)], ["english"])) == 1


def test_whisper_starts_from_a_shorter_one(corpus, tmp_path):
    short = train_whisper(corpus, list(range(12)), WHISPER, tmp_path)
    export_whisper(short, tmp_path / "miniature.pt")
    longer = replace(WHISPER, audio_ctx=80, text_ctx=96, seed=5)
    trainer = WhisperTrainer(longer, [(TEXTS[0], "english"), ("Six 7", "english")])
    trainer.load_export(tmp_path / "miniature.pt")
    slot = short.slot[short.used[-1]]
    own = trainer.slot.get(short.used[-1], 0)
    torch.testing.assert_close(trainer.rows[own], short.rows[slot], atol=1e-3, rtol=1e-3)
    old, new = short.model.decoder, trainer.model.decoder
    torch.testing.assert_close(
        new.positional_embedding[:64], old.positional_embedding[:64], atol=1e-3, rtol=1e-3
    )
    item = (TEXTS[0], "english", [(TEXTS[0], 0.0, 70.0)])
    assert torch.isfinite(trainer(torch.zeros(1, 80, 160), [item])["total"])


def test_whisper_targets_are_the_text_after_four_prompt_tokens(corpus):
    trainer = WhisperTrainer(WHISPER, [(t, "english") for t in TEXTS])
    items = [(text, "english", [(text, 0.0, 45.0)]) for text in TEXTS[:2]]
    parts = trainer(torch.zeros(2, 80, 100), items)
    assert all(torch.isfinite(part) for part in parts.values())


def test_layout_equals_the_stock_prefill(tokenizer, monkeypatch):
    from transformers import AutoTokenizer

    trainer = TalkerTrainer(TALKER, tokenizer).eval()
    model = trainer.model
    ids = AutoTokenizer.from_pretrained(tokenizer)(assistant_text(TEXTS[0])).input_ids
    vector = torch.randn(TALKER.hidden)
    seen = {}

    class Stop(Exception):
        pass

    def spy(**kwargs):
        seen.update(kwargs)
        raise Stop

    monkeypatch.setattr(model.talker, "generate", spy)
    monkeypatch.setattr(model.speaker_encoder, "forward", lambda mels: vector[None])
    prompt = {"ref_code": None, "ref_spk_embedding": [vector], "x_vector_only_mode": [True],
              "icl_mode": [False]}  # fmt: skip
    for tagged in (False, True):
        for streaming in (False, True):
            with pytest.raises(Stop):
                model.generate(
                    input_ids=[torch.tensor([ids])],
                    voice_clone_prompt=prompt,
                    languages=["english" if tagged else "auto"],
                    non_streaming_mode=not streaming,
                )
            text, codec, speaker, first = layout(ids, 3, trainer.ids, tagged, streaming)
            batch = _batch(text, codec, speaker, first)
            with torch.no_grad():
                ours = trainer.embed(batch)[0]
            prefill = seen["inputs_embeds"][0]
            assert len(prefill) == first + 1
            torch.testing.assert_close(ours[: first + 1], prefill)
            trailing = seen["trailing_text_hidden"][0]
            for j in range(3):
                expected = trailing[j] if j < len(trailing) else seen["tts_pad_embed"][0, 0]
                torch.testing.assert_close(ours[first + 1 + j], expected)


def _batch(text, codec, speaker, first):
    from miniature.talker import TalkerBatch

    return TalkerBatch(
        text=torch.tensor([text]), codec=torch.tensor([codec]), speaker=torch.tensor([speaker]),
        first=torch.tensor([first]), frames=torch.tensor([3]),
        codes=torch.zeros(1, 3, TALKER.quantizers, dtype=torch.long), keep=torch.zeros(1, 3),
        mels=torch.zeros(1, 20, 128), place=torch.full((1, len(text)), torch.nan),
    )  # fmt: skip


def test_predictor_training_equals_stock_generation(tokenizer):
    trainer = TalkerTrainer(TALKER, tokenizer).eval()
    talker = trainer.model.talker
    past = torch.randn(1, TALKER.hidden)
    first = torch.tensor([[3]])
    result = talker.code_predictor.generate(
        inputs_embeds=torch.cat([past[:, None], talker.model.codec_embedding(first)], 1),
        max_new_tokens=TALKER.quantizers - 1, do_sample=False, return_dict_in_generate=True,
    )  # fmt: skip
    codes = torch.cat([first, result.sequences], 1)
    with torch.no_grad():
        assert torch.equal(trainer.predict(codes, past).argmax(-1), result.sequences)


def test_mel_features_are_the_stock_ones():
    import_qwen_tts()
    from qwen_tts.core.models.modeling_qwen3_tts import mel_spectrogram

    wave = torch.randn(2, 9_600) * 0.1
    stock = mel_spectrogram(wave, 1024, 128, 24_000, 256, 1024, 0, 12_000).transpose(1, 2)
    torch.testing.assert_close(MelFeatures()(wave), stock, atol=1e-4, rtol=1e-4)


def test_base_trains_and_speaks_with_the_stock_classes(corpus, tokenizer, codec_folder, tmp_path):
    rng = np.random.default_rng(1)
    codes = {i: rng.integers(0, 8, (6 + i % 3, 8)) for i in range(12)}
    trainer = TalkerTrainer(TALKER, tokenizer)
    free = trainer.model.talker.model.codec_embedding.weight[200]
    assert float(free.detach().norm()) < 0.02
    data = TalkerData(corpus, list(range(12)), codes, tokenizer, TALKER, trainer.ids)
    scores = []

    def evaluate(trainer, step):
        scores.append(step)
        return 1.0

    train_talker(data, trainer, tmp_path, evaluate)
    assert scores == [2]
    _, codec = codec_folder
    export_base(trainer.model, tokenizer, codec / "codec", tmp_path / "base", TALKER)
    other = TalkerTrainer(replace(TALKER, seed=7), tokenizer)
    load_base(other.model, tokenizer, tmp_path / "base")
    used = special_ids(tokenizer)["size"]
    ours, theirs = trainer.model.state_dict(), other.model.state_dict()
    for name in ours:
        rows = slice(used if name.endswith("text_embedding.weight") else None)
        torch.testing.assert_close(ours[name][rows], theirs[name][rows], atol=1e-3, rtol=1e-3)
    model = import_qwen_tts().Qwen3TTSModel.from_pretrained(
        str(tmp_path / "base"), dtype=torch.float32
    )
    waves, rate = model.generate_voice_clone(
        text=[TEXTS[0], TEXTS[1]],
        language=["English", "Auto"],
        ref_audio=(corpus.clip(0), 24_000),
        x_vector_only_mode=True,
        non_streaming_mode=True,
    )
    assert rate == 24_000
    assert all(len(w) <= 6 * HOP for w in waves)


def test_last_frame_predicts_the_end_in_every_row(corpus, tokenizer, monkeypatch):
    rng = np.random.default_rng(1)
    codes = {i: rng.integers(0, 8, (6 + i % 3, 8)) for i in range(12)}
    trainer = TalkerTrainer(replace(TALKER, predictor_share=1.0), tokenizer)
    data = TalkerData(corpus, list(range(12)), codes, tokenizer, TALKER, trainer.ids)
    batch = data.batch(0)
    targets = []
    original = torch.nn.functional.cross_entropy

    def spy(logits, target, **kwargs):
        targets.append(target)
        return original(logits, target, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", spy)
    trainer(batch, torch.Generator())
    expected = []
    for row, frames in enumerate(batch.frames.tolist()):
        expected += [*batch.codes[row, :frames, 0].tolist(), trainer.ids["eos"]]
    assert targets[0].tolist() == expected
    assert len(targets[1]) == int(batch.frames.sum()) * (TALKER.quantizers - 1)


def test_clips_said_one_after_the_other_keep_their_places(corpus, tokenizer):
    codes = {i: np.full((6 + i % 3, 8), i) for i in range(8)}
    recipe = replace(TALKER, joined_share=1.0, batch=16, mask_chance=0.0)
    data = TalkerData(
        corpus, list(range(8)), codes, tokenizer, recipe, TalkerTrainer(TALKER, tokenizer).ids
    )
    batch = data.batch(0)
    assert len(batch.frames) == 6 and batch.frames.max() > 8
    for row, frames in enumerate(batch.frames.tolist()):
        voices = {corpus.utterances[i].voice for i in batch.codes[row, :frames, 0].tolist()}
        assert len(voices) == 1
        places = batch.place[row][~batch.place[row].isnan()]
        assert places[-1] == frames or len(places) == frames + 1
        assert (places.diff() > 0).all() and places[0] < 2
    clips = [1, 3]
    ids, places = data.said(clips)
    assert len(places) == len(ids) - 8 + 1
    second = data.tokenizer(assistant_text(corpus.utterances[3].text)).input_ids[3:-5]
    assert places[-1 - len(second)] >= len(codes[1]) - 1 and places[-1] == 7 + 6


def test_first_head_is_that_of_stock_attention(tokenizer):
    trainer = TalkerTrainer(TALKER, tokenizer).eval()
    model = trainer.model.talker.model
    attention = model.layers[0].self_attn
    model.config._attn_implementation = attention.config._attn_implementation = "eager"
    seen = {}

    def note(module, args, kwargs, output):
        seen.update(kwargs, weights=output[1])

    attention.register_forward_hook(note, with_kwargs=True)
    x = torch.randn(2, 9, TALKER.hidden)
    model(inputs_embeds=x, position_ids=torch.arange(9)[None].expand(2, -1), use_cache=False)
    at = torch.tensor([[2, 5, 8], [0, 1, 7]])
    with torch.no_grad():
        ours = first_head(attention, seen["hidden_states"], seen["position_embeddings"], at)
    for row in range(2):
        torch.testing.assert_close(ours[row], seen["weights"][row, 0, at[row]].detach())


def test_led_attention_hears_what_stock_attention_hears():
    attention = WhisperTrainer(WHISPER, [("A girl waited.", "english")]).model.decoder.blocks[0]
    x, audio = torch.randn(2, 5, WHISPER.state), torch.randn(2, 9, WHISPER.state)
    heard, weights = attend(attention.cross_attn, x, audio)
    torch.testing.assert_close(heard, attention.cross_attn(x, audio)[0])
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, WHISPER.heads, 5))


def test_each_token_has_its_place_in_its_clip():
    text = "My hat was €7. A girl waited."
    _, tokens = prompt_and_text(text, "english")
    places = token_places(tokens, text, [("My hat was €7.", 0, 100), ("A girl waited.", 200, 300)])
    assert len(places) == len(tokens) and places[-1] == 300
    assert places == sorted(places)
    assert not any(100 < place < 200 for place in places)
