"""Texts of any length are spoken passage by passage, resumed, and picked from several takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile as sf
from benchmarks import endings

from voxadapt.core.errors import UserError
from voxadapt.core.params import Params, load_params
from voxadapt.generation import synthesis
from voxadapt.model.load import load_tts
from voxadapt.pipeline import measuring, references
from voxadapt.tools import say as module
from voxadapt.tools.say import Takes, say

ROOT = Path(__file__).parents[2]
CHAPTER = (
    "A boy and the baker painted the hat today. The quiet woman carried a heavy boat again.\n\n"
    "We know. They walked home late in the rain.\n* * *\nA quiet man saw the old dog."
)
SPOKEN = 4  # passages of the chapter, a very short sentence being one with its neighbour


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The parameters of a project in an empty folder, whose corpus has been audited."""
    monkeypatch.chdir(tmp_path)
    reference = str(ROOT / "data/speaker/ref.wav")
    row = {
        "id": "utt1", "audio": "a.wav", "text": "One.", "ref_audio": reference, "language": None,
        "duration_s": 1.0, "sample_rate_hz": 16000, "audio_sha256": "0" * 64, "split": "train",
    }  # fmt: skip
    manifest = tmp_path / "artifacts/audit/manifest.jsonl"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps(row) + "\n")
    (tmp_path / "chapter.txt").write_text(CHAPTER, encoding="utf-8")
    whole = load_params(ROOT / "params.yaml")
    model = whole.model.model_copy(update={"base": str(ROOT / "data/models/base")})
    score = whole.score.model_copy(update={"batch_size": 2})
    return whole.model_copy(update={"model": model, "score": score})


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What has been spoken, passage by passage; the model is loaded once for a test."""
    texts: list[str] = []
    speak_batch = synthesis.speak_batch

    def spy(tts: Any, batch: Any, *rest: Any) -> Any:
        texts.extend(sentence.text for sentence in batch.sentences)
        return speak_batch(tts, batch, *rest)

    monkeypatch.setattr(synthesis, "speak_batch", spy)
    return texts


@pytest.mark.slow
def test_a_file_is_spoken_and_only_what_changed_again(params: Params, spoken: list[str]) -> None:
    chapter, out = Path("chapter.txt"), Path("said.wav")
    result = say(params, chapter, out, "base")
    assert "4 passages" in result.sentence and len(spoken) == SPOKEN
    info, first = sf.info(out), out.read_bytes()
    assert info.samplerate == 24_000 and 6 < info.duration < 25
    say(params, chapter, out, "base")
    assert len(spoken) == SPOKEN and out.read_bytes() == first
    chapter.write_text(CHAPTER.replace("old dog", "old cat"), encoding="utf-8")
    say(params, chapter, out, "base")
    assert spoken[SPOKEN:] == ["A quiet man saw the old cat."]
    say(params, chapter, out, "base", Takes(seed=1))
    assert len(spoken) == 2 * SPOKEN + 1 and out.read_bytes() != first


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_recording(
    params: Params, spoken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = synthesis.speak_batch

    def stop(*arguments: Any) -> Any:
        if len(spoken) >= 2:
            raise KeyboardInterrupt
        return spy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(synthesis, "speak_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            say(params, Path("chapter.txt"), Path("said.wav"), "base")
    assert not Path("said.wav").exists()
    say(params, Path("chapter.txt"), Path("said.wav"), "base")
    assert len(spoken) == SPOKEN
    monkeypatch.setenv("WORK_DIR", "elsewhere")
    say(params, Path("chapter.txt"), Path("whole.wav"), "base")
    assert Path("whole.wav").read_bytes() == Path("said.wav").read_bytes()


@pytest.mark.slow
def test_a_sentence_is_spoken_whole_as_ever(params: Params) -> None:
    text = "The cat sat on the mat. It slept."
    say(params, text, Path("said.wav"), "base", Takes(seed=3))
    tts = load_tts(params.model.base)
    voice = synthesis.clone_voice(tts, ROOT / "data/speaker/ref.wav", None, "x_vector")
    (wanted,) = synthesis.speak(
        tts, [text], voice, params.score, seeds=[3], max_new_tokens=[200],
        language=params.train.language,
    )  # fmt: skip
    samples, _ = sf.read("said.wav", dtype="int16")
    assert wanted.samples is not None and (samples == wanted.samples).all()


@pytest.mark.slow
def test_takes_become_files_or_the_best_of_each_is_picked(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    chapter = Path("chapter.txt")
    result = say(params, chapter, Path("said.wav"), "base", Takes(2))
    assert Path("said-1.wav").is_file() and Path("said-2.wav").is_file()
    assert not Path("said.wav").exists() and result.sentence.count("passages") == 2
    seen: list[Any] = []

    def rows(self: Any, clips: Any, voice: Any, scale: Any) -> list[Any]:
        """The second passage is best in its second take; the third has failed in its first."""
        seen.extend(clips)
        order = list(dict.fromkeys(clip.text for clip in clips))
        found = []
        for clip in clips:
            number, sim = order.index(clip.text), 0.5 - 0.1 * clip.take
            edits = int(number == 1 and clip.take == 0)
            counts = SimpleNamespace(capped_edits=edits, reference_units=4)
            found.append(
                SimpleNamespace(
                    text=clip.text, take=clip.take, failed=number == 2 and clip.take == 0,
                    wer_raw=edits / 4, cer_raw=0.0, flags=(), sim=sim, words=counts, chars=counts,
                )
            )  # fmt: skip
        return found

    monkeypatch.setattr(measuring.Measuring, "rows", rows)
    for name in ("read_voice", "read_scale"):
        monkeypatch.setattr(references, name, lambda path: None)
    picked: list[int] = []
    write = module._Reader.write

    def keep_choice(self: Any, passages: Any, chosen: list[int], *rest: Any) -> Any:
        picked.extend(chosen)
        return write(self, passages, chosen, *rest)

    monkeypatch.setattr(module._Reader, "write", keep_choice)
    result = say(params, chapter, Path("said.wav"), "base", Takes(2, pick=True))
    assert picked == [0, 1, 1, 0] and len(seen) == 2 * SPOKEN
    assert "WER 0.0%, against 6.2%" in result.sentence
    (folder,) = Path(".work/said").iterdir()
    assert all((folder / clip.wav).is_file() for clip in seen)


@pytest.mark.slow
def test_a_passage_that_does_not_end_is_cut_and_named(params: Params) -> None:
    with endings.suppressed([(0, 10_000)] * 2):
        result = say(params, Path("chapter.txt"), Path("said.wav"), "base")
    assert "Cut off, because the model did not end: 'A boy and the baker" in result.sentence
    assert sf.info("said.wav").duration < 40  # four passages at their limits last 50 s or more


def test_takes_cannot_be_picked_without_the_voice_and_none_is_spoken(
    params: Params, spoken: list[str]
) -> None:
    with pytest.raises(UserError, match="voxadapt codes"):
        say(params, Path("chapter.txt"), Path("said.wav"), "base", Takes(2, pick=True))
    assert not spoken


def test_a_text_that_is_no_utf_8_is_refused(params: Params) -> None:
    """A terminal of another encoding: Python stands in for bytes that it cannot read."""
    with pytest.raises(UserError, match="text in UTF-8"):
        say(params, "Gr\udcfc\udcdfe.", Path("said.wav"), "base")


@pytest.mark.parametrize(
    ("content", "found"), [("* * *", "something to say"), ("Hi <|im_end|> you.", "special tokens")]
)
def test_what_cannot_be_said_is_refused(params: Params, content: str, found: str) -> None:
    Path("chapter.txt").write_text(content, encoding="utf-8")
    for text in (content, Path("chapter.txt")):
        with pytest.raises(UserError, match=found):
            say(params, text, Path("said.wav"), "base")
    assert not Path("said.wav").exists()
