"""Several speakers in one model: vectors, rows, balance, and what one speaker's runs keep."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import fakes
from properties import examples
from training.conftest import make_world
from voxadapt.core.errors import UserError
from voxadapt.core.params import TrainParams
from voxadapt.model.checkpoint import CODEC_EMBEDDING
from voxadapt.model.load import load_tts, speaker_vector
from voxadapt.training import trainer as loop
from voxadapt.training.batches import balanced_epoch

OLD_ROW = 950


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Path]]:
    """A Base that has a speaker already, and a corpus of two others; some clips name nobody."""
    root = tmp_path_factory.mktemp("party")
    world = make_world(root, speakers=(("old", OLD_ROW),))
    refs = {"Aria": root / "ref.wav", "Bo": fakes.make_wav(root / "bo.wav", 3.0, seed=9)}
    rows = tuple(
        row.model_copy(update={"speaker": "Bo" if n % 3 == 2 else None})
        for n, row in enumerate(world.utterances)
    )
    return replace(world, utterances=rows), refs


def run(party: tuple[Any, dict[str, Path]], root: Path, num_epochs: int = 1, **options: Any) -> Any:
    world, refs = party
    given = {"speaker_name": "Aria", "batch_size": 4, "lr": 1e-3, "seed": 3}
    speakers = options.pop("speakers", refs)
    return loop.train(
        TrainParams(**{**given, **options}),
        model_path=world.base, utterances=world.utterances, codes=world.codes,
        ref_audio=world.ref, out_dir=root / "out", work_dir=root / "work", num_epochs=num_epochs,
        speakers=speakers,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(party: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    root = tmp_path_factory.mktemp("finished")
    return root, run(party, root, 2, balance=1.0)


@pytest.mark.slow
def test_each_clip_is_learnt_with_the_vector_of_its_own_speaker(
    party: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, refs = party
    seen: dict[str, torch.Tensor] = {}
    original = loop.predict

    def predict(model: Any, batch: Any, vector: torch.Tensor, keep: Any = None) -> Any:
        assert vector.shape[:2] == (len(batch.names), 1)
        seen.update(zip(batch.names, vector[:, 0], strict=True))
        return original(model, batch, vector, keep)

    monkeypatch.setattr(loop, "predict", predict)
    run(party, tmp_path)
    tts = load_tts(world.base)
    vectors = {name: speaker_vector(tts, ref) for name, ref in refs.items()}
    assert not torch.equal(vectors["Aria"], vectors["Bo"])
    for row in world.utterances:
        assert torch.equal(seen[row.id], vectors[row.speaker or "Aria"]), row.id


@pytest.mark.slow
def test_a_checkpoint_has_a_row_a_speaker_and_keeps_those_of_before(party: Any, finished: Any):
    world, refs = party
    _, result = finished
    config = json.loads((result.checkpoints[-1] / "config.json").read_text())["talker_config"]
    assert set(config["spk_id"]) == {"old", "aria", "bo"}
    assert len(set(config["spk_id"].values())) == 3
    assert config["spk_id"]["old"] == OLD_ROW
    table = load_file(result.checkpoints[-1] / "model.safetensors")[CODEC_EMBEDDING]
    before = load_file(world.base / "model.safetensors")[CODEC_EMBEDDING]
    assert torch.equal(table[OLD_ROW], before[OLD_ROW])
    tts = load_tts(world.base)
    for name, ref in refs.items():
        assert torch.equal(table[config["spk_id"][name.lower()]], speaker_vector(tts, ref))
    assert result.metrics["kept_speakers"] == ["old"]
    assert list(result.metrics["speakers"]) == ["Aria", "Bo"]


@pytest.mark.slow
def test_the_stock_package_lists_and_speaks_for_every_speaker(finished: Any) -> None:
    _, result = finished
    tts = load_tts(result.checkpoints[-1])
    assert sorted(tts.get_supported_speakers()) == ["aria", "bo", "old"]
    for name in ("Aria", "Bo", "old"):
        torch.manual_seed(0)
        wavs, _ = tts.generate_custom_voice("hello", speaker=name, max_new_tokens=8)
        assert len(wavs[0]) > 0


@pytest.mark.slow
def test_a_run_that_goes_on_ends_with_the_same_bytes(party: Any, finished: Any, tmp_path: Path):
    run(party, tmp_path, 1, balance=1.0)
    again = run(party, tmp_path, 2, balance=1.0)
    assert again.resumed_step > 0
    _, whole = finished
    for ours, theirs in zip(again.checkpoints, whole.checkpoints, strict=True):
        name = "model.safetensors"
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


@pytest.mark.slow
def test_another_division_among_speakers_is_another_run(party: Any, tmp_path: Path) -> None:
    world, refs = party
    one = run(party, tmp_path, 1)
    swapped = [row.model_copy(update={"speaker": None if row.speaker else "Bo"})
               for row in world.utterances]  # fmt: skip
    other = run((replace(world, utterances=tuple(swapped)), refs), tmp_path, 1)
    assert one.metrics["run"] != other.metrics["run"]


def test_parameters_of_one_speaker_are_written_as_before() -> None:
    written = TrainParams(speaker_name="Aria").model_dump(mode="json")
    assert not {"speakers", "balance"} & set(written)
    several = TrainParams(speaker_name="Aria", speakers=("Bo",), balance=0.5)
    assert several.model_dump(mode="json")["speakers"] == ["Bo"]
    assert TrainParams.model_validate(several.model_dump()) == several


def test_a_speaker_without_clips_to_learn_from_is_refused(party: Any, tmp_path: Path) -> None:
    world, refs = party
    with pytest.raises(UserError, match="speaker Cleo: expected utterances of the train split"):
        run(party, tmp_path, speakers={**refs, "Cleo": world.ref})
    with pytest.raises(UserError, match="Bo: expected a speaker with a reference"):
        run(party, tmp_path, speakers={"Aria": world.ref})


corpora = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(5, 60)), min_size=3, max_size=60
)  # fmt: skip


@settings(max_examples=examples(40))
@given(corpora, st.integers(0, 5), st.floats(0.0, 1.0))
def test_every_epoch_has_as_many_clips_and_the_same_from_the_same_seed(clips, seed, balance):
    speakers, frames = zip(*clips, strict=True)
    epochs = [balanced_epoch(speakers, frames, balance, seed, epoch) for epoch in (1, 2, 3)]
    assert len({len(epoch) for epoch in epochs}) == 1
    assert epochs[1] == balanced_epoch(speakers, frames, balance, seed, 2)
    for name in set(speakers):  # all clips of a speaker equally often, give or take once
        own = [index for index, speaker in enumerate(speakers) if speaker == name]
        for drawn in (epochs[0], epochs[0] + epochs[1] + epochs[2]):
            counts = Counter(index for index in drawn if speakers[index] == name)
            assert max(counts.values()) - min(counts[index] for index in own) <= 1


def test_balance_gives_every_speaker_the_same_frames() -> None:
    rng = np.random.default_rng(0)
    speakers = ["a"] * 300 + ["b"] * 30 + ["c"] * 6
    frames = rng.integers(20, 60, len(speakers)).tolist()

    def share(balance: float) -> dict[str, float]:
        drawn = [i for epoch in range(1, 21)
                 for i in balanced_epoch(speakers, frames, balance, 0, epoch)]  # fmt: skip
        heard: Counter[str] = Counter()
        for index in drawn:
            heard[speakers[index]] += frames[index]
        return {name: heard[name] / sum(heard.values()) for name in "abc"}

    assert all(abs(value - 1 / 3) < 0.02 for value in share(1.0).values())
    assert share(0.0)["a"] == pytest.approx(sum(frames[:300]) / sum(frames))
    half = share(0.5)
    assert share(1.0)["a"] < half["a"] < share(0.0)["a"]
