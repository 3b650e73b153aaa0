"""The plan: what it counts is what autograd keeps, and what it says is what to do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

from voxadapt.cli.app import main as cli
from voxadapt.core.errors import UserError
from voxadapt.core.params import ModelParams, TrainParams, load_params
from voxadapt.model.forward import predict
from voxadapt.model.shapes import SHAPES, Shape, config_values
from voxadapt.tools import plan as budget
from voxadapt.tools import sizes
from voxadapt.tools.plan import BatchShape, Clip, Codec, Model
from voxadapt.training.losses import loss_sums, total_loss

PROJECT = Path(__file__).parents[2]
SMALL = Shape(
    "0b6", hidden=256, intermediate=768, num_heads=4, num_kv_heads=2, head_dim=64,
    text_hidden=256, predictor_hidden=128, predictor_intermediate=384, encoder_channels=16,
)  # fmt: skip
NONE = Codec(0, 64, 96)
TEXT = "talker.model.text_embedding"


def params(**changed) -> TrainParams:
    return TrainParams(**{"speaker_name": "A", "compute_dtype": "bfloat16", **changed})


@pytest.fixture(scope="module")
def small() -> Model:
    return Model.from_config(config_values(SMALL), [], NONE)


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {
        name: Model.from_config(config_values(shape), [], NONE) for name, shape in SHAPES.items()
    }


def kept_by_autograd(model: Model, shape: BatchShape, precision: str) -> int:
    """Bytes that the graph of one forward pass holds, parameters left out."""
    torch.manual_seed(0)
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    network = sizes.small_model(model, 3, 2).train()
    for parameter in network.parameters():
        parameter.data = parameter.data.to(kind)
    batch = sizes.small_batch(network, shape)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"),
    ):
        sums = loss_sums(predict(network, batch, None))
    loss = total_loss(sums, sums.num_labels, sums.num_frames, 0.3)
    kept = sum(found.values())
    assert bool(torch.isfinite(loss))
    return kept


@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
def test_activations_are_what_autograd_keeps(small, precision):
    shape = BatchShape(4, 90, 4 * 60)
    counted = Model(
        small.config,
        replace(small.talker, num_layers=3),
        replace(small.predictor, num_layers=2),
        small.counts,
        NONE,
    )
    kept, _ = budget._kept(counted, shape, precision, False)
    casts = 0
    if precision == "autocast":
        stacks = (counted.talker, counted.predictor)
        casts = 2 * sum(stack.num_layers * stack.matrix_params for stack in stacks)
    measured = kept_by_autograd(small, shape, precision)
    assert sum(kept.values()) + casts == pytest.approx(measured, rel=0.1)


def test_checkpointing_keeps_a_layer_where_all_were_kept(models):
    shape = BatchShape(8, 200, 8 * 150)
    whole, _ = budget._kept(models["1.7B"], shape, "bfloat16", False)
    light, _ = budget._kept(models["1.7B"], shape, "bfloat16", True)
    assert light["talker"] < 0.1 * whole["talker"]
    assert light["logits"] == whole["logits"]


def test_real_models_have_their_parameters(models):
    assert models["1.7B"].num_params == 1_928_677_440
    assert models["0.6B"].num_params == 914_643_008
    assert models["1.7B"].num_trained == 1_928_677_440 - 12_001_088
    frozen = Model.from_config(config_values(SHAPES["1.7B"]), [TEXT], NONE)
    assert models["1.7B"].num_trained - frozen.num_trained == 311_164_928


@pytest.mark.parametrize(("name", "limit_gb"), [("1.7B", 16.0), ("0.6B", 10.0)])
def test_full_training_with_low_memory_fits_the_cards_that_it_is_for(models, name, limit_gb):
    """Ten seconds of speech a clip, everything trained, the codec loaded beside."""
    given = params(low_memory=True, gradient_checkpointing=True, batch_size=1,
                   gradient_accumulation_steps=32)  # fmt: skip
    model = replace(models[name], codec=replace(NONE, num_bytes=int(0.7e9)))
    need = budget.training_memory(model, given, BatchShape(1, 190, 125))
    assert need.total <= limit_gb * 1e9
    masters = budget.training_memory(
        model, params(gradient_checkpointing=True), BatchShape(1, 190, 125)
    )
    assert masters.total > 1.5 * need.total


def test_accumulation_costs_the_gradients_beside_the_activations(models):
    shape = BatchShape(8, 200, 8 * 150)
    once = budget.training_memory(models["0.6B"], params(), shape)
    more = budget.training_memory(models["0.6B"], params(gradient_accumulation_steps=4), shape)
    assert once.total < more.total <= once.total + 4 * models["0.6B"].num_trained


def test_the_codec_is_there_while_the_model_is_loaded_and_not_in_training(models):
    shape = BatchShape(1, 190, 125)
    light = budget.training_memory(models["0.6B"], params(low_memory=True), shape)
    heavy = replace(models["0.6B"], codec=replace(NONE, num_bytes=int(1e9)))
    assert budget.training_memory(heavy, params(low_memory=True), shape) == light
    heavy = replace(models["0.6B"], codec=replace(NONE, num_bytes=int(20e9)))
    whole = budget.training_memory(heavy, params(low_memory=True), shape)
    assert whole.parts["codec"] == 20e9
    assert whole.total == pytest.approx(20e9 + 4 * 914_643_008 + budget.PROCESS_BYTES["cuda"])


def test_only_text_rows_that_occur_cost_an_update_with_float32_masters(models):
    shape, model = BatchShape(1, 190, 125), models["0.6B"]
    whole = budget.training_memory(model, params(), shape)
    few = budget.training_memory(model, params(), shape, num_text_rows=1000)
    saved = whole.parts["optimizer"] - few.parts["optimizer"]
    assert saved == 8 * (151_936 - 1000) * 2048
    low = params(low_memory=True)
    assert (
        budget.training_memory(model, low, shape).parts
        == budget.training_memory(model, low, shape, num_text_rows=1000).parts
    )


def test_largest_batch_is_that_of_the_longest_clips():
    clips = [Clip("train", 5, frames, frames + 20) for frames in (10, 90, 30, 80)]
    assert budget.largest_batch(clips, 2) == BatchShape(2, 110, 170)
    with pytest.raises(UserError, match="clips to train on"):
        budget.largest_batch([], 2)


def test_the_setting_named_is_the_first_with_which_it_fits(models):
    clips = [Clip("train", 40, 125, 180)] * 20
    given = params(batch_size=8, gradient_accumulation_steps=4)

    def named(capacity_gb: float) -> str:
        return budget._train_setting(models["1.7B"], given, clips, "cuda", capacity_gb * 1e9)

    assert named(80) == "train.batch_size: 4, train.gradient_accumulation_steps: 8"
    assert "train.low_memory: true" in named(16)
    assert "batch_size" not in named(24)
    assert "freeze more" in named(4)


def test_a_model_that_is_not_here_is_known_by_its_name():
    values, codec = budget.find_config(ModelParams(base="Qwen/Some-1.7B-not-here"))
    assert values["tts_model_size"] == "1b7"
    assert 0.5e9 < codec.num_bytes < 1.1e9
    assert (codec.encoder_width, codec.decoder_width) == (64, 96)
    for unknown in ("nobody/knows", "no/such/folder-1.7B"):
        with pytest.raises(UserError, match=r"model\.base"):
            budget.find_config(ModelParams(base=unknown))


@pytest.fixture
def project(tmp_path, monkeypatch):
    if not (PROJECT / "data" / "speaker" / "train_raw.jsonl").is_file():
        pytest.skip("data/ is not restored")
    (tmp_path / "data").symlink_to(PROJECT / "data")
    shutil.copytree(PROJECT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_plan_of_the_miniature(project):
    plan = budget.plan(load_params("profiles/miniature.yaml"), measure=False)
    names = [stage.name for stage in plan.stages]
    assert names[:5] == ["audit", "codes", "train", "score", "confirm"]
    assert names[5:] == [
        f"language {name}" for name in ("data", "stage1", "score", "stage2", "confirm")
    ]
    assert all(stage.seconds is None for stage in plan.stages)
    assert plan.fits
    lines = budget.describe(plan)
    assert lines[-1] == "Everything fits."
    assert any("0 of 6 epochs" in line for line in lines)


def test_plan_of_a_card_that_is_too_small_says_what_to_lower(project):
    plan = budget.plan(load_params("profiles/qwen3-tts-1.7b.yaml"), memory_gb=16.0)
    assert not plan.fits
    text = "\n".join(budget.describe(plan))
    assert "train does not fit. Lower: train." in text
    assert "a GPU of 16 GB" in text


def test_parts_of_the_time_are_said_when_asked_for():
    stage = budget.Stage("train", budget.Memory({}), {"imports": 4.0, "steps": 61.23}, "", "")
    silent = budget.Stage("score", budget.Memory({}), None, "", "")
    plan = budget.Plan("a machine", 1e9, (stage, silent))
    assert stage.seconds == pytest.approx(65.23)
    assert "train, seconds: steps 61.2, imports 4.0." in budget.describe(plan, itemised=True)
    assert not any("seconds:" in line for line in budget.describe(plan))


def test_a_process_on_a_cpu_keeps_what_it_has_freed(models):
    moments = [{"sound": 3.0}, {"sound": 5.0}, {"whisper": 4.0}]
    assert budget._one_after_another(moments, "cuda") == {"sound": 5.0}
    assert budget._one_after_another(moments, "cpu") == {"sound": 5.0, "whisper": 4.0}


def test_the_verb_ends_with_1_where_a_stage_does_not_fit(project, capsys):
    profile = Path("profiles/qwen3-tts-1.7b.yaml")
    with pytest.raises(typer.Exit) as caught:
        cli.plan(profile, gpu_gb=12.0, measure=False)
    assert caught.value.exit_code == 1
    assert "score does not fit. Lower: asr.batch_size" in capsys.readouterr().out
    cli.plan(profile, gpu_gb=80.0, measure=False)
    assert "Everything fits." in capsys.readouterr().out
