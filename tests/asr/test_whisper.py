"""Whisper on the spot: tiny random weights, real decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import whisper

from sounds import make_voice, make_whisper, write
from voxadapt.asr.whisper import Transcriber, split_at_pauses
from voxadapt.core.errors import UserError

TEXTS = ["one two three", "four", "five six seven eight nine", "ten eleven"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper") / "tiny.pt")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [
        write(folder / f"{i}.wav", make_voice(1.0 + 0.7 * i, 100 + 30 * i, i)) for i in range(4)
    ]


@pytest.mark.slow
def test_batched_equals_stock_one_by_one(checkpoint: Path, clips: list[Path]) -> None:
    transcriber = Transcriber(checkpoint, "en", batch_size=4)
    found = transcriber.transcribe(clips, TEXTS)
    model = whisper.load_model(str(checkpoint), device="cpu").eval()
    import librosa
    import soundfile as sf

    for path, text, heard in zip(clips, TEXTS, found, strict=True):
        wave, rate_hz = sf.read(path, dtype="float32")
        wave = librosa.resample(wave, orig_sr=rate_hz, target_sr=16_000)
        mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(wave, 250 * 320))
        options = whisper.DecodingOptions(
            language="en", temperature=0.0, without_timestamps=True, fp16=False,
            sample_len=transcriber._limit(text),
        )  # fmt: skip
        stock = whisper.decode(model, mel, options)
        assert heard.text == stock.text.strip()
        assert heard.avg_logprob == pytest.approx(stock.avg_logprob, abs=1e-4)
        assert heard.no_speech_prob == pytest.approx(stock.no_speech_prob, abs=1e-5)
        language, _ = max(model.detect_language(mel)[1].items(), key=lambda item: item[1])
        assert heard.lid == language and heard.num_windows == 1


@pytest.mark.slow
def test_one_encoder_pass_serves_language_and_text(checkpoint: Path, clips: list[Path]) -> None:
    transcriber = Transcriber(checkpoint, "en", batch_size=2)
    passes = []
    encoder = transcriber._model.encoder
    encoder.register_forward_hook(lambda module, given, made: passes.append(len(made)))
    transcriber.transcribe(clips, ["one two three"] * 4)
    assert passes == [2, 2]


@pytest.mark.parametrize("seconds", [1.0, 2.337, 4.99, 5.0, 7.0])
def test_silence_behind_a_clip_is_as_if_it_were_transformed(
    checkpoint: Path, seconds: float
) -> None:
    transcriber = Transcriber(checkpoint, "en")
    wave = make_voice(seconds, 120)[: round(seconds * 16_000)].astype(np.float32)
    size = transcriber.window_samples
    padded = whisper.pad_or_trim(wave, size)
    assert torch.equal(transcriber._mel([wave])[0], whisper.log_mel_spectrogram(padded))


@pytest.mark.parametrize("steps", [1, 4])
def test_the_text_decoder_gives_the_stock_logits(checkpoint: Path, steps: int) -> None:
    model, stock = Transcriber(checkpoint, "en")._model, whisper.load_model(str(checkpoint))
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(3, model.dims.n_audio_ctx, model.dims.n_audio_state, generator=generator)
    tokens = torch.randint(0, 50_000, (3, 5), generator=generator)
    found = []
    for one in (model, stock.eval()):
        cache, hooks = one.install_kv_cache_hooks()
        with torch.no_grad():
            parts = [tokens[:, :steps], *tokens[:, steps:].split(1, dim=1)]
            found.append(torch.cat([one.decoder(part, audio, cache) for part in parts], dim=1))
        for hook in hooks:
            hook.remove()
    assert found[0].shape == (3, 5, model.dims.n_vocab)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_audio_ctx", [50, 400])
def test_any_window_will_do(tmp_path: Path, clips: list[Path], num_audio_ctx: int) -> None:
    path = make_whisper(tmp_path / "window.pt", num_audio_ctx=num_audio_ctx)
    transcriber = Transcriber(path, "en")
    found = transcriber.transcribe([clips[3]], [TEXTS[3]])[0]
    seconds = num_audio_ctx / 50
    assert transcriber.window_samples == seconds * 16_000
    assert found.num_windows >= 3.1 / seconds and found.lid is not None


@pytest.mark.slow
def test_transcripts_are_cached_by_content(
    checkpoint: Path, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber = Transcriber(checkpoint, "en", cache_dir=tmp_path)
    first = transcriber.transcribe([*clips, clips[0]], [*TEXTS, TEXTS[0]])
    assert first[0] == first[-1]
    copy = tmp_path / "renamed.wav"
    copy.write_bytes(clips[0].read_bytes())
    monkeypatch.setattr(transcriber, "_read", lambda *_: pytest.fail("decoded again"))
    assert transcriber.transcribe([copy, *clips[1:]], TEXTS) == first[:4]
    for stored in tmp_path.rglob("*.json"):
        stored.write_text("{")  # what a crash of the disk would leave
    monkeypatch.undo()
    assert transcriber.transcribe(clips, TEXTS) == first[:4]


@pytest.mark.slow
def test_the_identity_names_weights_and_options(checkpoint: Path, tmp_path: Path) -> None:
    ours = Transcriber(checkpoint, "en").asr_id
    assert ours == Transcriber(checkpoint, "en").asr_id
    assert ours.startswith("whisper:tiny+")
    others = [
        Transcriber(checkpoint, "ms").asr_id,
        Transcriber(checkpoint, "en", batch_size=3).asr_id,
        Transcriber(make_whisper(tmp_path / "tiny.pt", seed=1), "en").asr_id,
    ]
    assert len({ours, *others}) == 4


@pytest.mark.slow
def test_a_long_clip_is_read_in_windows(checkpoint: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", make_voice(11.0))
    found = Transcriber(checkpoint, "en").transcribe([path], ["a long text"])[0]
    assert found.num_windows == 3


def test_seams_lie_in_pauses_and_nothing_is_lost() -> None:
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, 12 * 16_000).astype(np.float32)
    wave[int(4.5 * 16_000) : int(4.7 * 16_000)] = 0.0
    pieces = split_at_pauses(wave, 5 * 16_000)
    assert np.array_equal(np.concatenate(pieces), wave)
    assert all(len(piece) <= 5 * 16_000 for piece in pieces)
    assert 4.5 < len(pieces[0]) / 16_000 < 4.7


def test_the_limit_stays_within_the_text_context(checkpoint: Path) -> None:
    transcriber = Transcriber(checkpoint, "en")
    assert transcriber._limit("word " * 500) == 64 - 4
    assert transcriber._limit("a") == 32


@pytest.mark.parametrize("content", [None, b"no checkpoint", b""])
def test_a_checkpoint_that_is_none_says_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"asr\.model") as caught:
        Transcriber(path, "en")
    assert "path of the .pt file" in str(caught.value)


def test_weights_out_of_reach_name_their_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(whisper, "load_model", offline)
    with pytest.raises(UserError, match=r"openaipublic.*no route to host"):
        Transcriber("tiny", "en")


def test_languages_that_the_model_lacks_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"asr\.language"):
        Transcriber(checkpoint, "xx")
    english = make_whisper(tmp_path / "english.pt", num_vocab=51864)
    with pytest.raises(UserError, match="only language"):
        Transcriber(english, "ms")


@pytest.mark.slow
def test_a_language_that_the_checkpoint_lacks_is_a_table(checkpoint: Path) -> None:
    with pytest.raises(UserError) as caught:
        Transcriber(checkpoint, "Cantonese")
    (problem,) = caught.value.problems
    assert problem.where == "asr.language" and problem.found == "yue"
    assert "99 languages" in problem.expected and "large-v3" in problem.fix
    assert Transcriber(checkpoint, "Burmese").language == "my"


@pytest.mark.slow
def test_each_clip_is_read_in_its_own_language(checkpoint: Path, clips: list[Path]) -> None:
    texts = ["some words"] * len(clips)
    whisper = Transcriber(checkpoint, "en")
    languages = ["en", "German"] * len(clips)
    found = whisper.transcribe_each(clips, texts, languages[: len(clips)])
    english, german = (
        Transcriber(checkpoint, code).transcribe(clips, texts) for code in ("en", "de")
    )
    for n, one in enumerate(found):
        expected = (english, german)[n % 2][n]
        assert one.text == expected.text
        assert one.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-4)
    other = whisper.in_language("de")
    assert other.asr_id == Transcriber(checkpoint, "de").asr_id != whisper.asr_id
    assert whisper.in_language("English") is whisper and whisper.language == "en"
    with pytest.raises(UserError):
        whisper.in_language("klingon")
