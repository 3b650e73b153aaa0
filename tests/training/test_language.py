"""What the stages of a language train, and what they leave alone, on a tiny Base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fakes
from voxadapt.core.errors import UserError
from voxadapt.core.params import LanguageParams, SelectParams, SourceParams, TrainParams
from voxadapt.model.checkpoint import iterate_weights
from voxadapt.model.delta import materialise, read_delta, restore
from voxadapt.model.load import load_tts
from voxadapt.training.adaptations.language import (
    CODEC_TABLE,
    TALKER,
    TEXT_TABLE,
    LanguageAdaptation,
    TrainedParts,
    occurring_tokens,
    respelled_rows,
)
from voxadapt.training.trainer import TrainResult, train

LANGUAGE = LanguageParams(
    name="malay",
    asr_language="ms",
    text="texts.jsonl",
    audio="audio.jsonl",
    respelling="map.yaml",
    source=SourceParams(text="source.jsonl"),
    select=SelectParams(primary="error", error_metric="cer"),
)


def adapt(
    world: Any,
    root: Path,
    what: TrainedParts,
    epochs: int = 1,
    label: str = "stage 1",
    **options: Any,
) -> TrainResult:
    given = {"speaker_name": "malay", "language": "malay", "batch_size": 4, "lr": 1e-2,
             "frozen": (), "seed": 3}  # fmt: skip
    save = {"save_every_s": options.pop("save_every_s")} if "save_every_s" in options else {}
    return train(
        TrainParams(**{**given, **options}),
        model_path=world.base,
        utterances=world.utterances,
        codes=world.codes,
        ref_audio=world.ref,
        out_dir=root / "out",
        work_dir=root / "work",
        num_epochs=epochs,
        adaptation=LanguageAdaptation(LANGUAGE, world.base, what, label),
        **save,
    )


def tokens_of(world: Any) -> tuple[int, ...]:
    texts = [row.text for row in world.utterances if row.split == "train"]
    return occurring_tokens(load_tts(world.base), texts)


@pytest.fixture(scope="module")
def stage1(world: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    root = tmp_path_factory.mktemp("stage1")
    return root, adapt(world, root, TrainedParts(token_ids=tokens_of(world)), 2)


@pytest.mark.slow
def test_stage_1_trains_the_rows_that_occur_and_the_tag(
    world: Any, stage1: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    root, result = stage1
    delta, _ = read_delta(root / "out" / "epoch-2")
    index, values = delta.rows[TEXT_TABLE]
    assert set(index.tolist()) <= set(tokens_of(world))
    base = dict(iterate_weights(world.base))
    assert (values != base[TEXT_TABLE][index]).any(1).all()
    assert delta.language is not None
    assert delta.rows[CODEC_TABLE][0].tolist() == [delta.language[1]]
    full = materialise(world.base, root / "out" / "epoch-2", tmp_path / "full")
    assert fakes.changed_tensors(world.base, full) == sorted([CODEC_TABLE, TEXT_TABLE])
    assert result.metrics["num_rows"] == len(tokens_of(world)) + 1
    assert result.metrics["num_params"] == sum(t.numel() for t in base.values())


def test_without_the_delta_the_base_is_back(
    world: Any, stage1: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    delta = stage1[0] / "out" / "epoch-1"
    full = materialise(world.base, delta, tmp_path / "full")
    restore(full, delta, world.base, tmp_path / "back")
    files = sorted(p.relative_to(world.base) for p in world.base.rglob("*") if p.is_file())
    assert files
    for file in files:
        assert (tmp_path / "back" / file).read_bytes() == (world.base / file).read_bytes()


@pytest.mark.slow
def test_stage_1_lowers_the_loss(world: Any, tmp_path: Path) -> None:
    one = replace(world, utterances=world.utterances[:1])
    result = adapt(one, tmp_path, TrainedParts(token_ids=tokens_of(one)), 20, lr=2e-2)
    losses = [epoch["train"]["loss"] for epoch in result.metrics["epochs"]]
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.slow
def test_stage_2_trains_the_code_predictor_and_keeps_the_rows(
    world: Any, stage1: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    start = stage1[0] / "out" / "epoch-2"
    what = TrainedParts(modules=("talker.code_predictor",), start=start)
    result = adapt(world, tmp_path, what, label="stage 2")
    before, _ = read_delta(start)
    after, _ = read_delta(tmp_path / "out" / "epoch-1")
    for name in (TEXT_TABLE, CODEC_TABLE):
        for one, other in zip(before.rows[name], after.rows[name], strict=True):
            assert torch.equal(one, other)
    assert after.full
    assert all(name.startswith("talker.code_predictor.") for name in after.full)
    assert result.metrics["num_rows"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "prefixes"),
    [
        (TrainedParts(modules=("talker.text_projection",)), ("talker.text_projection.",)),
        (TrainedParts(modules=TALKER), tuple(name + "." for name in TALKER)),
        (TrainedParts(lora_rank=2), ("talker.model.layers.",)),
    ],
    ids=["text_projection", "full_talker", "talker_lora"],
)
def test_arms_train_what_they_are_named_after(
    world: Any, tmp_path: Path, what: TrainedParts, prefixes: tuple[str, ...]
) -> None:
    adapt(world, tmp_path, what)
    delta = tmp_path / "out" / "epoch-1"
    full = materialise(world.base, delta, tmp_path / "full")
    changed = [name for name in fakes.changed_tensors(world.base, full) if name != CODEC_TABLE]
    assert changed
    assert all(name.startswith(prefixes) for name in changed), changed


@pytest.mark.slow
def test_a_stopped_stage_goes_on_where_it_was(
    world: Any, stage1: tuple[Path, TrainResult], tmp_path: Path, monkeypatch: Any
) -> None:
    from voxadapt.training import trainer as loop

    what = TrainedParts(token_ids=tokens_of(world))
    real, calls = loop.predict, []

    def stop(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(loop, "predict", stop)
    with pytest.raises(KeyboardInterrupt):
        adapt(world, tmp_path, what, 2, save_every_s=0.0)
    monkeypatch.setattr(loop, "predict", real)
    result = adapt(world, tmp_path, what, 2, save_every_s=0.0)
    assert result.resumed_step > 0
    for epoch in ("epoch-1", "epoch-2"):
        one = (stage1[0] / "out" / epoch / "delta.safetensors").read_bytes()
        assert (tmp_path / "out" / epoch / "delta.safetensors").read_bytes() == one


@pytest.mark.slow
def test_other_rows_are_another_run(world: Any, tmp_path: Path) -> None:
    tokens = tokens_of(world)
    first = adapt(world, tmp_path, TrainedParts(token_ids=tokens))
    second = adapt(world, tmp_path, TrainedParts(token_ids=tokens[1:]))
    assert second.resumed_step == 0
    assert first.metrics["run"] != second.metrics["run"]


def test_a_language_that_exists_is_refused(world: Any, tmp_path: Path) -> None:
    known = sorted(load_tts(world.base).model.config.talker_config.codec_language_id)[0]
    language = LANGUAGE.model_copy(update={"name": known})
    with pytest.raises(UserError, match="lists it already"):
        train(
            TrainParams(speaker_name="x", language=known, frozen=()),
            model_path=world.base, utterances=world.utterances, codes=world.codes,
            ref_audio=world.ref, out_dir=tmp_path / "out", work_dir=tmp_path / "work",
            num_epochs=1, adaptation=LanguageAdaptation(language, world.base, TrainedParts(), "x"),
        )  # fmt: skip


@pytest.mark.slow
def test_rows_of_a_respelling_are_the_mean_of_its_tokens(world: Any) -> None:
    tts = load_tts(world.base)
    table = tts.model.talker.model.text_embedding.weight.detach().float()
    tokens = tokens_of(world)[:3]
    pieces = {tts.processor.tokenizer.decode([token]): token for token in tokens}
    respelt = dict.fromkeys(pieces, "hello")
    ids = tts.processor.tokenizer("hello")["input_ids"]
    rows = respelled_rows(tts, tokens, lambda piece: respelt[piece])
    torch.testing.assert_close(rows, table[torch.tensor(ids)].mean(0).expand(3, -1))
    torch.testing.assert_close(
        respelled_rows(tts, tokens, lambda piece: piece), table[list(tokens)]
    )
