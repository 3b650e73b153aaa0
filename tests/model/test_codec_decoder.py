"""The codec's decoder: the stock waves, whatever the length, and alone as in company."""

from __future__ import annotations

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch

import fakes
from voxadapt.model import codec_decoder
from voxadapt.model.codec_decoder import TILE, CodecDecoder, _repeats
from voxadapt.model.load import load_speech_tokenizer

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    root = tmp_path_factory.mktemp("codec")
    fakes.make_codec(root / "speech_tokenizer")
    tokenizer = load_speech_tokenizer(root)
    decoder, generator = tokenizer.model.decoder, torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.split(".")[-1] in ("alpha", "beta", "gamma", "bias"):  # as if it had learnt
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
            if name.endswith("conv2.conv.weight"):
                parameter.mul_(0.1)  # or random units make of every rounding a difference
        decoder.decoder[-1].conv.weight.mul_(0.02)  # within full scale
    return tokenizer


def decode(tokenizer, *clips):
    return tokenizer.decode([{"audio_codes": torch.from_numpy(c).long()} for c in clips])[0]


def stock(tokenizer, codes):
    """Decode by the stock layers."""
    decoder = tokenizer.model.decoder
    ours = vars(decoder).pop("forward")
    try:
        return decode(tokenizer, codes)[0]
    finally:
        decoder.forward = ours


@pytest.mark.parametrize(
    "num_frames",
    [1, 2, 3, 4, 5, 21, 72, 73, *(pytest.param(n, marks=SLOW) for n in (299, 300, 301, 650))],
)
def test_waves_are_the_stock_ones(tokenizer, num_frames):
    codes = fakes.make_codes(num_frames, seed=num_frames)
    wave, expected = decode(tokenizer, codes)[0], stock(tokenizer, codes)
    assert wave.shape == expected.shape == (num_frames * fakes.HOP,)
    assert 0.05 < np.abs(expected).max() < 1.0  # neither silent nor clipped
    assert np.abs(wave - expected).max() < 1e-5
    assert np.array_equal(wave, decode(tokenizer, codes)[0])


def test_how_many_blocks_read_a_clip_as_a_whole_changes_no_wave(tokenizer, monkeypatch):
    decoder, codes = tokenizer.model.decoder, fakes.make_codes(21, seed=1)
    waves = []
    for most in (0, decoder.config.decoder_dim):
        monkeypatch.setattr(codec_decoder, "SMALL", most)
        waves.append(CodecDecoder(decoder)(torch.from_numpy(codes).long().t()[None]))
    assert (waves[0] - waves[1]).abs().max() < 1e-6


def test_a_wave_does_not_depend_on_its_company(tokenizer):
    clips = [fakes.make_codes(n, seed=n) for n in (9, 30, 14)]
    for codes, wave in zip(clips, decode(tokenizer, *clips), strict=True):
        assert np.abs(wave - decode(tokenizer, codes)[0]).max() < 1e-6


def test_what_comes_later_changes_nothing_before(tokenizer):
    codes = fakes.make_codes(40, seed=1)
    changed = codes.copy()
    changed[23:] = fakes.make_codes(17, seed=2)
    wave, other = decode(tokenizer, codes)[0], decode(tokenizer, changed)[0]
    border = 23 * fakes.HOP
    assert np.abs(wave[:border] - other[:border]).max() < 1e-6
    assert not np.allclose(wave[border:], other[border:], atol=1e-3)


def test_a_copy_decodes_by_its_own_weights(tokenizer):
    codes = fakes.make_codes(6, seed=4)
    wave = decode(tokenizer, codes)[0]
    copy = deepcopy(tokenizer.model.decoder)
    sent = pickle.loads(pickle.dumps(tokenizer.model.decoder))
    with torch.no_grad():
        copy.decoder[-1].conv.bias.add_(0.1)
    given = torch.from_numpy(codes.T[None]).long()
    assert np.array_equal(sent(given)[0, 0].numpy(), wave)
    assert np.array_equal(decode(tokenizer, codes)[0], wave)
    del copy.forward._layers
    np.testing.assert_allclose(copy(given)[0, 0].numpy(), wave + 0.1, atol=1e-5)


def test_other_types_are_left_to_the_stock_layers(tokenizer, tmp_path):
    from voxadapt.model.codec_decoder import speed_up

    fakes.make_codec(tmp_path / "speech_tokenizer")
    decoder = load_speech_tokenizer(tmp_path).model.decoder.to(torch.bfloat16)
    del decoder.forward
    speed_up(decoder)
    assert "forward" not in vars(decoder)


def test_positions_are_cut_into_equal_tiles():
    for length in range(1, 50):
        for channels in (1, TILE // 7, TILE, 3 * TILE):
            count = _repeats(length, channels)
            assert length % count == 0 and (count == 1 or count * channels <= TILE)
