"""Same batches and seeds for every candidate, stock results, runaways stopped, nothing dropped."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

import fakes
from voxadapt.core.errors import UserError
from voxadapt.core.params import ScoreParams
from voxadapt.generation.decoding import Decoding, frame_rate_hz
from voxadapt.generation.synthesis import (
    Voice,
    clone_voice,
    plan_batches,
    sampling,
    speak,
    speak_candidate,
)
from voxadapt.model.load import load_tts
from voxadapt.scoring.rows import EvalClip, Sentence

PARAMS = ScoreParams(takes=2, batch_size=2, max_seconds_per_token=0.05)
SENTENCES = [
    Sentence(text_id="a", text="one two three", split="selection"),
    Sentence(text_id="b", text="hi", split="selection"),
    Sentence(text_id="c/d", text="four five", split="selection"),
]


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> Any:
    shape = fakes.TinyShape(speakers=(("aria", 950),))
    return load_tts(fakes.make_tts(tmp_path_factory.mktemp("tts") / "base", shape))


@pytest.fixture(scope="module")
def voice(tts: Any, tmp_path_factory: pytest.TempPathFactory) -> Voice:
    ref = fakes.make_wav(tmp_path_factory.mktemp("ref") / "ref.wav", 1.5)
    return clone_voice(tts, ref, None, "x_vector")


def run(tts: Any, voice: Voice, folder: Path, **fields: Any) -> list[EvalClip]:
    values: dict[str, Any] = {
        "out_dir": folder / "wavs",
        "work_dir": folder / "work",
        "root": folder,
        "checkpoint_sha": "sha",
        "lang": "en",
    }
    sentences = fields.pop("sentences", SENTENCES)
    return speak_candidate(tts, "base", sentences, voice, PARAMS, **{**values, **fields})


@pytest.mark.slow
def test_clips_equal_the_stock_call(tts: Any, voice: Voice, tmp_path: Path) -> None:
    clips = run(tts, voice, tmp_path)
    assert [(c.text_id, c.take) for c in clips] == [
        (i, k) for i in ("a", "b", "c/d") for k in (0, 1)
    ]
    batch = plan_batches(tts, SENTENCES, PARAMS)[0]
    assert [item.text_id for item in batch.sentences] == ["b", "c/d"]  # shortest first
    # The stock codec alone with the clip: in a batch the last bits of its samples differ.
    with Decoding(tts.model, batch.seeds[:1], batch.max_new_tokens[:1]):
        wavs, rate_hz = tts.generate_voice_clone(
            text=["hi"], language="Auto", voice_clone_prompt=[voice.prompt],
            non_streaming_mode=True, **sampling(PARAMS),
        )  # fmt: skip
    clip = next(c for c in clips if c.text_id == "b" and c.take == 0)
    written, written_rate = sf.read(tmp_path / clip.wav, dtype="int16")
    assert written_rate == rate_hz == 24_000
    assert np.array_equal(written, np.round(np.clip(wavs[0], -1, 1) * 32767).astype(np.int16))
    assert clip.num_frames == len(wavs[0]) // 1920 and clip.seed == batch.seeds[0]


@pytest.mark.slow
def test_samples_do_not_depend_on_the_batch(
    tts: Any, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = tts.model.speech_tokenizer
    decoded: list[list[int]] = []
    decode = codec.decode

    def spy(items: list[dict[str, torch.Tensor]]) -> Any:
        decoded.append([len(item["audio_codes"]) for item in items])
        return decode(items)

    monkeypatch.setattr(codec, "decode", spy)
    texts, seeds, limits = ["hi", "one two three", "four five"], [3, 4, 5], [12, 30, 20]
    together = speak(tts, texts, voice, PARAMS, seeds=seeds, max_new_tokens=limits)
    assert decoded == [[clip.num_frames] for clip in together]  # never two clips at once
    for text, seed, limit, clip in zip(texts, seeds, limits, together, strict=True):
        (alone,) = speak(tts, [text], voice, PARAMS, seeds=[seed], max_new_tokens=[limit])
        assert np.array_equal(alone.samples, clip.samples)


@pytest.mark.slow
def test_takes_differ_and_runs_do_not(tts: Any, voice: Voice, tmp_path: Path) -> None:
    first, second = run(tts, voice, tmp_path / "1"), run(tts, voice, tmp_path / "2")
    assert first == second
    for one, two in zip(first, second, strict=True):
        assert (tmp_path / "1" / one.wav).read_bytes() == (tmp_path / "2" / two.wav).read_bytes()
    assert (tmp_path / "1" / first[0].wav).read_bytes() != (
        tmp_path / "1" / first[1].wav
    ).read_bytes()


@pytest.mark.slow
def test_a_named_speaker_goes_through_custom_voice(
    tts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tts.model, "tts_model_type", "custom_voice")
    clips = run(tts, Voice(speaker="Aria"), tmp_path)
    assert all(clip.status == "ok" and clip.num_frames for clip in clips)
    with pytest.raises(UserError, match="aria"):
        run(tts, Voice(speaker="Nobody"), tmp_path)


def test_a_runaway_is_stopped_and_marked(tts: Any, voice: Voice) -> None:
    assert frame_rate_hz(tts) == 12.5
    eos = tts.model.config.talker_config.codec_eos_token_id

    def never_end(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor([eos]), -1e4)

    hook = tts.model.talker.codec_head.register_forward_hook(never_end)
    try:
        spoken = speak(tts, ["hi"], voice, PARAMS, seeds=[3], max_new_tokens=[20])[0]
    finally:
        hook.remove()
    assert spoken.num_frames == 19 and spoken.hit_max_tokens


@pytest.mark.slow
def test_finished_batches_are_not_made_again(
    tts: Any, voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = run(tts, voice, tmp_path)
    monkeypatch.setattr(tts, "generate_voice_clone", lambda **_: pytest.fail("generated again"))
    assert run(tts, voice, tmp_path) == clips
    monkeypatch.undo()
    done = len(list((tmp_path / "work").glob("*.npz")))
    run(tts, voice, tmp_path, checkpoint_sha="another")
    assert len(list((tmp_path / "work").glob("*.npz"))) == 2 * done


@pytest.mark.slow
def test_a_clip_that_breaks_its_batch_is_kept_as_failed(
    tts: Any, voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = tts.generate_voice_clone

    def breaks(text: list[str], **fields: Any) -> Any:
        if "hi" in text:
            raise RuntimeError("no luck")
        return stock(text=text, **fields)

    monkeypatch.setattr(tts, "generate_voice_clone", breaks)
    clips = run(tts, voice, tmp_path)
    assert len(clips) == 6
    failed = [clip for clip in clips if clip.status == "failed"]
    assert {clip.text_id for clip in failed} == {"b"}
    assert all("no luck" in clip.message and not clip.wav for clip in failed)
    monkeypatch.undo()
    assert all(clip.status == "ok" for clip in run(tts, voice, tmp_path))


def test_broken_samples_are_a_failed_clip(
    tts: Any, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = np.full(1920, np.nan, np.float32)
    left = [nan, nan[:0]]
    monkeypatch.setattr(tts.model.speech_tokenizer, "decode", lambda _: ([left.pop()], 24_000))
    found = speak(tts, ["a", "b"], voice, PARAMS, seeds=[0, 1], max_new_tokens=[9, 9])
    assert [item.samples for item in found] == [None, None] and found[0].message


def test_the_plan_depends_on_sentences_and_params_alone(tts: Any) -> None:
    plan = plan_batches(tts, SENTENCES, PARAMS)
    assert plan == plan_batches(tts, SENTENCES[::-1], PARAMS)
    assert len(plan) == 4 and len({seed for batch in plan for seed in batch.seeds}) == 6
    more_takes = plan_batches(tts, SENTENCES, PARAMS.model_copy(update={"takes": 3}))
    assert more_takes[:4] == plan  # a take more moves no other
    assert plan[0].max_new_tokens[0] > 4.0 * 12.5


def test_icl_needs_a_transcript(tts: Any, tmp_path: Path) -> None:
    ref = fakes.make_wav(tmp_path / "ref.wav", 1.0)
    with pytest.raises(UserError, match="icl"):
        clone_voice(tts, ref, None, "icl")
    icl = clone_voice(tts, ref, "hello", "icl")
    spoken = speak(tts, ["hi"], icl, PARAMS, seeds=[1], max_new_tokens=[12])[0]
    assert 0 < spoken.num_frames <= 11
    assert icl.sha != clone_voice(tts, ref, None, "x_vector").sha
    for one in (icl, clone_voice(tts, ref, None, "x_vector"), Voice("a", instruct="softly")):
        sent = pickle.dumps(one)
        assert b"qwen_tts" not in sent  # a worker would import it without its guard
        assert pickle.loads(sent).sha == one.sha


def test_unknown_languages_are_refused(tts: Any, voice: Voice, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="english"):
        run(tts, voice, tmp_path, language="klingon")


@pytest.mark.slow
def test_weights_of_half_the_width_speak_and_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fakes.make_tts(tmp_path / "base", fakes.TinyShape(speakers=(("aria", 950),)))
    ref = fakes.make_wav(tmp_path / "ref.wav", 1.5)
    said = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = load_tts(folder, dtype=dtype)
        place = tmp_path / str(dtype)
        said[dtype] = run(model, clone_voice(model, ref, None, "x_vector"), place)
        assert all(clip.message == "" and clip.num_frames > 0 for clip in said[dtype])
    shas = [{clip.gen_sha for clip in clips} for clips in said.values()]
    assert len(shas[0]) == len(shas[1]) == 1 and shas[0] != shas[1]
