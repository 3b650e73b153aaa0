"""Hearing candidates and looking inside one, on a tiny Base and a checkpoint of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fakes
from sounds import make_voice, make_whisper, write
from voxadapt.asr.voice_prints import Embedder
from voxadapt.codec.store import write_codes
from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import sha256_folder, write_json
from voxadapt.core.params import Params, SelectParams
from voxadapt.core.paths import SPEAKER
from voxadapt.data.manifest import read_manifest, write_manifest
from voxadapt.explore import sentence
from voxadapt.explore import teacher_forcing as forced
from voxadapt.model.checkpoint import export_checkpoint
from voxadapt.model.load import load_tts
from voxadapt.model.tokens import SpecialIds, free_codec_row
from voxadapt.scoring.rows import EvalClip
from voxadapt.scoring.similarity import build_scale

pytestmark = pytest.mark.slow

TEXTS = ("come in please", "it rains today", "who is it", "yes I do")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Base, one epoch, four held-out recordings with codes, a voice to compare with."""
    root = tmp_path_factory.mktemp("project")
    base = fakes.make_tts(root / "base")
    tts = load_tts(base)
    ids = SpecialIds.from_config(tts.model.config)
    row = free_codec_row(tts.model.talker.get_input_embeddings().weight, ids, "Aria")
    export_checkpoint(root / paths.CHECKPOINTS / "epoch-1", base, {}, "Aria", row,
                      torch.full((fakes.HIDDEN,), 0.5), {"epoch": 1})  # fmt: skip
    write_json(root / paths.SELECTION, {"chosen": "epoch-1", "runner_up": None})
    make_whisper(root / "whisper.pt")
    fakes.make_wav(root / "ref.wav", 3.0)
    utterances, clips, codes = [], [], {}
    for index, text in enumerate(TEXTS):
        name = f"utt{index}"
        write(root / f"clips/{name}.wav", make_voice(2.0, 120 + index, index))
        utterances.append(fakes.make_utterance(name, text, "selection"))
        clips.append(EvalClip(candidate="real", split="selection", text_id=name, lang="en",
                              text=text, wav=f"clips/{name}.wav"))  # fmt: skip
        codes[name] = fakes.make_codes(20 + index, seed=index)
    other = write(root / "other.wav", make_voice(2.0, 250, 90))
    voice, scale, _ = build_scale(
        Embedder(), clips, {"other": [other]}, SelectParams(num_bootstrap=200),
        root=root, min_speech_s=0.5,
    )  # fmt: skip
    voice.write(root / SPEAKER.voice)
    scale.write(root / SPEAKER.scale)
    write_manifest(root / SPEAKER.manifest, utterances)
    write_codes(root / SPEAKER.codes, root / SPEAKER.codes_index, codes, utterances,
                sha256_folder(base / "speech_tokenizer"))  # fmt: skip
    return root


@pytest.fixture
def params(project: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(project)
    tree: dict[str, Any] = {
        "model": {"base": "base", "device": "cpu", "num_threads": 1},
        "asr": {"model": "whisper.pt", "language": "en"},
        "data": {"manifest": "train_raw.jsonl"},
        "train": {"speaker_name": "Aria"},
        "score": {"max_seconds_per_token": 0.05, "min_speech_s": 0.1},
        "candidates": ["base", "epoch-1"],
    }
    return Params.model_validate(tree)


def test_two_candidates_say_a_sentence_and_are_measured(params: Params) -> None:
    found = sentence.speak(params, "Nobody has written this.", ["base", "chosen"], takes=2)
    assert found.names == ("base", "epoch-1")
    assert [(row.candidate, row.take) for row in found.rows] == [
        ("base", 0), ("base", 1), ("epoch-1", 0), ("epoch-1", 1),
    ]  # fmt: skip
    assert [row.seed for row in found.of("base")] == [row.seed for row in found.of("epoch-1")]
    assert {row.text for row in found.rows} == {"Nobody has written this."}
    html = found.players()
    assert html.count("<audio") == sum(row.wav != "" for row in found.rows) == 4
    assert html.count("<tr>") == 3
    table = found.table()
    assert list(table.index) == ["Base", "Base", "Epoch 1", "Epoch 1"]
    assert "nobody" in found.lost_words().index  # a Whisper of random weights hears no word
    stamps = {path: path.stat().st_mtime_ns for path in (paths.work_dir() / "speech").iterdir()}
    again = sentence.speak(params, "Nobody has written this.", ["base", "chosen"], takes=2)
    assert again.rows == found.rows
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    folder = str(paths.CHECKPOINTS / "epoch-1")
    other = sentence.speak(params, "Nobody has written this.", [folder], takes=1, seed=5)
    assert other.rows[0].seed != found.rows[0].seed


def test_one_of_several_speakers_says_it(
    params: Params, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project, tmp_path / "named")
    monkeypatch.chdir(tmp_path / "named")
    rows = [row.model_copy(update={"speaker": ("Bo", "Aria")[n % 2], "ref_audio": "ref.wav"})
            for n, row in enumerate(read_manifest(SPEAKER.manifest))]  # fmt: skip
    write_manifest(SPEAKER.manifest, rows)
    for name in ("aria", "bo"):
        SPEAKER.voice_of(name).parent.mkdir(parents=True)
        shutil.copy(SPEAKER.voice, SPEAKER.voice_of(name))
        shutil.copy(SPEAKER.scale, SPEAKER.scale_of(name))
    SPEAKER.voice.unlink()
    found = sentence.speak(params, "Good day.", ["base", "epoch-1"], 1, speaker="Aria")
    assert [row.candidate for row in found.rows] == ["base", "epoch-1"]
    with pytest.raises(UserError, match="speaker: expected"):
        sentence.speak(params, "Good day.", ["base"], 1, speaker="Nobody")


@pytest.mark.parametrize(
    ("text", "candidates", "takes", "where"),
    [
        ("…", ["base"], 0, {"text", "takes"}),
        ("Good day.", ["epoch-7"], 1, {"candidate"}),
        ("Good day.", ["runner-up"], 1, {"candidate"}),
    ],
)
def test_what_cannot_be_said_is_a_user_error(
    params: Params, text: str, candidates: list[str], takes: int, where: set[str]
) -> None:
    with pytest.raises(UserError) as caught:
        sentence.speak(params, text, candidates, takes)
    assert {problem.where for problem in caught.value.problems} == where


def test_inside_agrees_with_what_the_model_computes(params: Params) -> None:
    base, seen = (
        forced.predict_recording(params, "utt2", "base"),
        forced.predict_recording(params, "utt2"),
    )
    assert (base.candidate, seen.candidate) == ("base", "epoch-1")
    assert "".join(seen.tokens) == TEXTS[2]
    assert seen.codes.shape == seen.surprise.shape == (22, fakes.NUM_CODEBOOKS)
    assert seen.p_end.shape == (23,) and ((seen.p_end > 0) & (seen.p_end < 1)).all()
    assert seen.attention.shape == (2, 2, 22, len(TEXTS[2]))
    # Same weights but for the speaker's row: only what hangs on the voice differs.
    assert not np.allclose(base.surprise, seen.surprise)
    assert np.array_equal(base.codes, seen.codes)
    on_text = seen.attention.sum(axis=-1)
    assert (on_text > 0).all() and (on_text <= 1 + 1e-5).all()
    layer, head = seen.monotonic_head()
    assert 0 <= layer < 2 and 0 <= head < 2


def test_surprise_is_the_loss_of_training(params: Params) -> None:
    from voxadapt.model.forward import predict
    from voxadapt.model.load import speaker_vector
    from voxadapt.pipeline.corpus_codes import read_corpus_codes
    from voxadapt.training.batches import build_examples, make_batch
    from voxadapt.training.losses import LossTotals, loss_sums

    seen = forced.predict_recording(params, "utt1", "base")
    tts = load_tts("base", attention="eager")
    ids = SpecialIds.from_config(tts.model.config)
    codes = read_corpus_codes(Path("base"), [seen.utterance], SPEAKER)
    batch = make_batch(build_examples([seen.utterance], codes, tts, ids), ids)
    tally = LossTotals()
    with torch.inference_mode():
        tally.add(loss_sums(predict(tts.model, batch, speaker_vector(tts, "ref.wav"))))
    assert list(seen.surprise.mean(axis=0)[1:]) == pytest.approx(tally.codebook_losses, rel=1e-4)


def test_text_on_the_frames_is_shown_too(params: Params) -> None:
    score = params.score.model_copy(update={"non_streaming_mode": False})
    seen = forced.predict_recording(params.model_copy(update={"score": score}), "utt0", "base")
    assert seen.layout.streaming and "text" not in forced.spans(seen).index
    assert "".join(seen.tokens) == TEXTS[0]
    # A token that comes later has not been seen yet.
    assert seen.attention[:, :, 0, 2:].sum() == 0
    for draw in (forced.sequence, forced.attention):
        assert draw(seen)._repr_png_().startswith(b"\x89PNG")


def test_figures_and_tables_of_one_utterance(params: Params) -> None:
    seen = forced.predict_recording(params, None, "chosen")
    assert seen.utterance.id in {f"utt{n}" for n in range(4)}
    assert forced.spans(seen)["count"].sum() == len(seen.layout)
    assert forced.surprise_table(seen, seen).shape == (2, fakes.NUM_CODEBOOKS)
    assert seen.players().count("<audio") == 1
    figures = [draw(seen) for draw in (forced.sequence, forced.timeline, forced.attention)]
    figures += [forced.attention(seen, layer=1), forced.end_probabilities(seen, seen)]
    for figure in figures:
        assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="no such head"):
        forced.attention(seen, layer=2, head=9)
    with pytest.raises(UserError, match="the id of an accepted clip"):
        forced.predict_recording(params, "utt99")


def test_what_has_not_run_is_named(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        sentence.speak(params, "Good day.", ["base"])
    assert {p.fix.split("`")[1] for p in caught.value.problems} == {
        "dvc repro audit", "dvc repro codes",
    }  # fmt: skip
    with pytest.raises(UserError, match="dvc repro codes"):
        forced.predict_recording(params)
