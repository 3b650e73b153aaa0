"""The grammar, the plan of the corpora and the shaping of clips."""

from __future__ import annotations

import itertools
import random
import shutil

import numpy as np
import pytest

from voxadapt.miniature.recipe import (
    BASE_VOICES,
    HOP,
    MALAY_VOICES,
    TARGET_VOICE,
    Recipe,
    SpeechRecipe,
)
from voxadapt.miniature.speech import (
    MissingSynthesizerError,
    english_sentence,
    malay_sentence,
    plan,
    require_synthesizers,
    shape_clip,
    stable_seed,
)

SMALL = Recipe(
    speech=SpeechRecipe(base=400, malay=80, target_other=20, heldout_en=58, heldout_ms=16)
)


@pytest.fixture(scope="module")
def utterances():
    return plan(SMALL)


def test_sentences_depend_on_the_seed_alone():
    for draw in (english_sentence, malay_sentence):
        a, b = ([draw(rng) for _ in range(30)] for rng in (random.Random(3), random.Random(3)))
        assert a == b
        assert a != [draw(random.Random(4)) for _ in range(30)]


def test_sentences_are_capitalised_and_end_with_a_full_stop():
    rng = random.Random(0)
    for draw in (english_sentence, malay_sentence):
        for _ in range(300):
            text = draw(rng)
            assert text[0].isupper()
            assert text.endswith(".")
            assert "  " not in text
            assert 3 <= len(text.split()) <= 10


def test_english_articles_agree():
    rng = random.Random(1)
    for _ in range(500):
        words = english_sentence(rng).lower().rstrip(".").split()
        for a, b in itertools.pairwise(words):
            if a in ("a", "an"):
                assert (a == "an") == (b[0] in "aeiou")


def test_plan_is_deterministic_and_has_the_sizes_asked_for(utterances):
    assert utterances == plan(SMALL)
    count = {}
    for u in utterances:
        count[u.split] = count.get(u.split, 0) + 1
    assert count["base"] == 400
    assert count["malay"] == 80
    assert count["speaker"] == 190


def test_no_sentence_is_in_two_splits(utterances):
    texts = [u.text.lower() for u in utterances]
    assert len(set(texts)) == len(texts)


def test_the_base_hears_neither_the_target_nor_malay(utterances):
    known = {v.name for v in BASE_VOICES}
    base = [u for u in utterances if u.split == "base"]
    assert {u.voice for u in base} == known
    assert len(known) >= 24
    assert TARGET_VOICE.name not in known
    assert not known & {v.name for v in MALAY_VOICES}
    assert all(u.language == "english" for u in base)


def test_every_word_of_a_held_out_sentence_is_in_training():
    full = plan(Recipe())
    heard = {w for u in full if u.split == "base" for w in u.text.lower().rstrip(".").split()}
    held = {w for u in full if u.split == "heldout_en" for w in u.text.lower().rstrip(".").split()}
    assert held <= heard


def test_clips_are_whole_frames_with_silence_around():
    rate, sizes = 16_000, SpeechRecipe()
    tone = 0.1 * np.sin(np.arange(rate) * 0.2).astype(np.float32)
    wave = np.concatenate([np.zeros(rate, np.float32), tone, np.zeros(rate, np.float32)])
    clip = shape_clip(wave, rate, sizes)
    assert clip.dtype == np.int16
    assert len(clip) % HOP == 0
    assert 24_000 < len(clip) < 24_000 * 1.35
    assert np.abs(clip[:1_000]).max() == 0
    assert np.abs(clip[-2_000:]).max() == 0
    assert 0.85 < np.abs(clip).max() / 32767 < 0.95


def test_seeds_are_stable_across_processes():
    assert stable_seed(1, "plan") == 6799041072243363546
    assert stable_seed(2, "plan") != 6799041072243363546


def test_missing_synthesizers_are_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingSynthesizerError, match="espeak-ng and flite"):
        require_synthesizers()
