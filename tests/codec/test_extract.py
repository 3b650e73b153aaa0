from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile as sf
import torch

import fakes
from voxadapt.codec.extract import decode_codes, extract_codes, whole_frames
from voxadapt.core.errors import UserError
from voxadapt.model.load import load_speech_tokenizer

DURATIONS_S = (1.0, 2.37, 0.8, 1.513, 3.0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    root = tmp_path_factory.mktemp("codec")
    fakes.make_codec(root / "speech_tokenizer")
    return load_speech_tokenizer(root)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    rows = []
    for n, duration_s in enumerate(DURATIONS_S):
        rate_hz = 16_000 if n == 3 else 24_000
        fakes.make_wav(root / f"clips/c{n}.wav", duration_s, n, rate_hz)
        rows.append(fakes.make_utterance(f"c{n}", "x", duration_s=duration_s))
    return root, rows


def extract(corpus, tokenizer, work, seconds=60.0, rows=None):
    root, everything = corpus
    return extract_codes(rows or everything, tokenizer, seconds, work, "codec", root)


def test_codes_have_one_row_a_frame_and_the_order_of_the_manifest(corpus, tokenizer, tmp_path):
    codes = extract(corpus, tokenizer, tmp_path)
    assert list(codes) == [row.id for row in corpus[1]]
    for array, duration_s in zip(codes.values(), DURATIONS_S, strict=True):
        assert array.dtype == np.int16
        assert array.shape == (int(np.ceil(duration_s * 12.5)), fakes.NUM_CODEBOOKS)
        assert len(np.unique(array)) > 4


def test_codes_are_the_same_alone_and_in_any_batch(corpus, tokenizer, tmp_path):
    together = extract(corpus, tokenizer, tmp_path / "a")
    for name, array in extract(corpus, tokenizer, tmp_path / "b", seconds=0.1).items():
        assert np.array_equal(array, together[name]), name
    for name, array in extract(corpus, tokenizer, tmp_path / "c", seconds=5.0).items():
        assert np.array_equal(array, together[name]), name


@pytest.mark.slow
def test_batches_on_a_cpu_stay_in_its_caches(corpus, tokenizer, tmp_path, monkeypatch):
    root, rows = corpus
    many = [
        row.model_copy(update={"id": f"{row.id}-{n}", "audio_sha256": f"{n}{row.audio_sha256[1:]}"})
        for n in range(6)
        for row in rows
    ]
    padded_s = []
    original = tokenizer.encode

    def encode(waves, sr):  # clips were completed to whole frames after they were grouped
        padded_s.append(len(waves) * (max(map(len, waves)) - fakes.HOP) / sr)
        return original(waves, sr=sr)

    monkeypatch.setattr(tokenizer, "encode", encode)
    codes = extract((root, many), tokenizer, tmp_path, seconds=600.0)
    assert len(codes) == len(many)
    assert 4.0 < max(padded_s) <= 8.0
    for n in range(1, 6):
        for row in rows:
            assert np.array_equal(codes[f"{row.id}-{n}"], codes[f"{row.id}-0"])


def test_codes_of_whole_frames_are_those_of_stock_single_clip_encoding(corpus, tokenizer, tmp_path):
    codes = extract(corpus, tokenizer, tmp_path)
    for n in (0, 2, 4):
        samples, rate_hz = sf.read(corpus[0] / f"clips/c{n}.wav", dtype="float32")
        whole = whole_frames(samples, fakes.HOP)
        stock = tokenizer.encode(whole, sr=rate_hz).audio_codes[0].numpy()
        assert np.array_equal(codes[f"c{n}"], stock)


@pytest.mark.slow
def test_stock_encoding_of_a_partial_frame_depends_on_the_batch(tokenizer):
    """The reason for completing clips to whole frames: only their last frame is at stake."""
    rng = np.random.default_rng(0)
    waves = [
        rng.normal(0, 0.1, 9 * fakes.HOP + n).astype(np.float32) for n in range(160, 1760, 160)
    ]
    waves.append(rng.normal(0, 0.1, 20 * fakes.HOP).astype(np.float32))
    batch = tokenizer.encode(waves, sr=24_000).audio_codes
    alone = [tokenizer.encode(wave, sr=24_000).audio_codes[0] for wave in waves]
    assert all(np.array_equal(a[:9], b[:9]) for a, b in zip(alone, batch, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(alone, batch, strict=True))


def test_a_stopped_run_goes_on_with_the_clips_that_are_left(
    corpus, tokenizer, tmp_path, monkeypatch
):
    rows = corpus[1]
    first = extract(corpus, tokenizer, tmp_path, rows=rows[:3])
    calls = []
    original = tokenizer.encode

    def encode(waves, sr):
        calls.append(len(waves))
        return original(waves, sr=sr)

    monkeypatch.setattr(tokenizer, "encode", encode)
    everything = extract(corpus, tokenizer, tmp_path)
    assert sum(calls) == 2
    assert all(np.array_equal(first[name], everything[name]) for name in first)
    changed = [rows[0].model_copy(update={"audio_sha256": "f" * 64}), *rows[1:]]
    calls.clear()
    extract(corpus, tokenizer, tmp_path, rows=changed)
    assert sum(calls) == 1


def test_a_damaged_cache_entry_is_encoded_again(corpus, tokenizer, tmp_path):
    first = extract(corpus, tokenizer, tmp_path)
    path = next((tmp_path / "codes" / "codec").glob("*.npy"))
    path.write_bytes(path.read_bytes()[:50])
    again = extract(corpus, tokenizer, tmp_path)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_every_clip_that_cannot_be_encoded_is_a_problem(corpus, tokenizer, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "broken.wav").write_text("no audio")
    fakes.make_wav(tmp_path / "clips" / "short.wav", 0.05)
    names = ("missing", "broken", "short")
    bad = [fakes.make_utterance(name, "x", duration_s=n + 1) for n, name in enumerate(names)]
    with pytest.raises(UserError) as caught:
        extract((tmp_path, bad), tokenizer, tmp_path / "work")
    assert [p.where.split()[0] for p in caught.value.problems] == list(names)


@pytest.mark.slow
def test_clips_are_decoded_one_by_one(corpus, tokenizer, tmp_path, monkeypatch):
    codes = extract(corpus, tokenizer, tmp_path)
    decode, sizes = tokenizer.decode, []

    def spy(items):
        sizes.append(len(items))
        return decode(items)

    monkeypatch.setattr(tokenizer, "decode", spy)
    waves = decode_codes(codes, tokenizer)
    assert list(waves) == list(codes) and sizes == [1] * len(codes)
    for name, array in codes.items():
        ((alone,), _) = decode([{"audio_codes": torch.from_numpy(array.astype(np.int64))}])
        assert np.array_equal(waves[name], alone) and len(alone) == len(array) * fakes.HOP


@pytest.mark.slow
def test_codebooks_that_nobody_reads_are_not_looked_up(corpus, tmp_path):
    """The real codec's encoder has 32 codebooks, of which the model reads 16."""
    folder = fakes.make_codec(tmp_path / "speech_tokenizer")
    config = folder / "config.json"
    values = json.loads(config.read_text())
    values["encoder_valid_num_quantizers"] = 2
    config.write_text(json.dumps(values))
    tokenizer = load_speech_tokenizer(tmp_path)
    looked_up = []
    acoustic = tokenizer.model.encoder.quantizer.acoustic_residual_vector_quantizer.layers
    assert len(acoustic) > 1
    for number, layer in enumerate(acoustic):
        original = layer.encode
        layer.encode = lambda x, o=original, n=number: looked_up.append(n) or o(x)
    few = extract(corpus, tokenizer, tmp_path / "work")
    assert set(looked_up) == {0}  # beside the one semantic codebook
    everything = load_speech_tokenizer(fakes.make_codec(tmp_path / "b" / "speech_tokenizer").parent)
    for name, array in extract(corpus, everything, tmp_path / "other").items():
        assert np.array_equal(array[:, :2], few[name])


def test_a_gpu_encodes_with_all_bits_of_float32(corpus, tokenizer, tmp_path, monkeypatch):
    seen, encode = [], tokenizer.encode

    def watched(*args, **kwargs):
        seen.append(torch.backends.cudnn.allow_tf32)
        return encode(*args, **kwargs)

    monkeypatch.setattr(tokenizer, "encode", watched)
    before = torch.backends.cudnn.allow_tf32
    extract(corpus, tokenizer, tmp_path, rows=corpus[1][:1])
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 == before
