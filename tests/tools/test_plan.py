"""The plan: what it counts is what autograd keeps, and what it says is what to do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

from voxadapt.cli import start as cli
from voxadapt.codec import extract
from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.errors import UserError
from voxadapt.core.params import ModelParams, TrainParams, load_params
from voxadapt.generation import decoding
from voxadapt.model.forward import predict
from voxadapt.model.layout import build_layout, collate
from voxadapt.model.shapes import SHAPES, Shape, config_values
from voxadapt.model.tokens import SpecialIds
from voxadapt.tools import memory, sizes, timing
from voxadapt.tools import plan as budget
from voxadapt.tools.dvc_state import Pipeline
from voxadapt.tools.sizes import BatchShape, Clip, Codec, Model, num_positions
from voxadapt.training import optimizer, text_rows
from voxadapt.training.losses import loss_sums, total_loss

import_qwen_tts()
from qwen_tts.core.models import Qwen3TTSConfig  # noqa: E402

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


def small_network(talker_layers: int, predictor_layers: int):
    """Build a model of SMALL's widths with few layers and few text tokens, random weights."""
    from qwen_tts.core.models import Qwen3TTSForConditionalGeneration

    config = Qwen3TTSConfig(**config_values(SMALL))
    talker = config.talker_config
    talker.num_hidden_layers, talker.text_vocab_size = talker_layers, 64
    talker.code_predictor_config.num_hidden_layers = predictor_layers
    if getattr(talker.code_predictor_config, "layer_types", None) is not None:
        talker.code_predictor_config.layer_types = ["full_attention"] * predictor_layers
    return Qwen3TTSForConditionalGeneration(config)


def batch_for(network, shape: BatchShape):
    """Make a batch of that shape: every row as long as the longest, frames at its end."""
    ids = replace(
        SpecialIds.from_config(network.config),
        im_start=1, im_end=2, tts_pad=3, tts_bos=4, tts_eos=5,
    )  # fmt: skip
    frames = max(1, shape.num_frames // shape.num_rows)
    tokens = max(1, shape.length - len(build_layout(1, frames, ids, None)) + 1)
    layouts = [build_layout(tokens, frames, ids, None)] * shape.num_rows
    text = torch.full((tokens + 3,), 6)
    codes = torch.zeros(frames, ids.num_codebooks, dtype=torch.long)
    names = [str(row) for row in range(shape.num_rows)]
    return collate(names, layouts, [text] * shape.num_rows, [codes] * shape.num_rows, ids)


def kept_by_autograd(model: Model, shape: BatchShape, precision: str) -> int:
    """Bytes that the graph of one forward pass holds, parameters left out."""
    torch.manual_seed(0)
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    network = small_network(3, 2).train()
    for parameter in network.parameters():
        parameter.data = parameter.data.to(kind)
    batch = batch_for(network, shape)
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


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
def test_activations_are_what_autograd_keeps(small, precision):
    shape = BatchShape(4, 90, 4 * 60)
    counted = replace(
        small,
        talker=replace(small.talker, num_layers=3),
        predictor=replace(small.predictor, num_layers=2),
    )
    kept, _ = memory._kept(counted, shape, precision, False)
    casts = 0
    if precision == "autocast":
        stacks = (counted.talker, counted.predictor)
        casts = 2 * sum(stack.num_layers * stack.matrix_params for stack in stacks)
    measured = kept_by_autograd(small, shape, precision)
    assert sum(kept.values()) + casts == pytest.approx(measured, rel=0.1)


@pytest.mark.slow
def test_checkpointing_keeps_a_layer_where_all_were_kept(models):
    shape = BatchShape(8, 200, 8 * 150)
    whole, _ = memory._kept(models["1.7B"], shape, "bfloat16", False)
    light, _ = memory._kept(models["1.7B"], shape, "bfloat16", True)
    assert light["talker"] < 0.1 * whole["talker"]
    assert light["logits"] == whole["logits"]


@pytest.mark.slow
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
    need = memory.training_memory(model, given, BatchShape(1, 190, 125))
    assert need.total <= limit_gb * 1e9
    masters = memory.training_memory(
        model, params(gradient_checkpointing=True), BatchShape(1, 190, 125)
    )
    assert masters.total > 1.5 * need.total


def test_accumulation_costs_the_gradients_beside_the_activations(models):
    shape = BatchShape(8, 200, 8 * 150)
    once = memory.training_memory(models["0.6B"], params(), shape)
    more = memory.training_memory(models["0.6B"], params(gradient_accumulation_steps=4), shape)
    assert once.total < more.total <= once.total + 4 * models["0.6B"].num_trained


def test_the_codec_is_there_while_the_model_is_loaded_and_not_in_training(models):
    shape = BatchShape(1, 190, 125)
    light = memory.training_memory(models["0.6B"], params(low_memory=True), shape)
    heavy = replace(models["0.6B"], codec=replace(NONE, num_bytes=int(1e9)))
    assert memory.training_memory(heavy, params(low_memory=True), shape) == light
    heavy = replace(models["0.6B"], codec=replace(NONE, num_bytes=int(20e9)))
    whole = memory.training_memory(heavy, params(low_memory=True), shape)
    assert whole.parts["codec"] == 20e9
    assert whole.total == pytest.approx(20e9 + 4 * 914_643_008 + memory.PROCESS_BYTES["cuda"])


def test_only_text_rows_that_occur_cost_an_update_with_float32_masters(models):
    shape, model = BatchShape(1, 190, 125), models["0.6B"]
    whole = memory.training_memory(model, params(), shape)
    few = memory.training_memory(model, params(), shape, num_text_rows=1000)
    saved = whole.parts["optimizer"] - few.parts["optimizer"]
    assert saved == 8 * (151_936 - 1000) * 2048
    low = params(low_memory=True)
    assert (
        memory.training_memory(model, low, shape).parts
        == memory.training_memory(model, low, shape, num_text_rows=1000).parts
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
    values, codec, folder = budget.find_config(ModelParams(base="Qwen/Some-1.7B-not-here"))
    assert values["tts_model_size"] == "1b7" and folder is None
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


@pytest.mark.slow
def test_plan_of_the_miniature(project):
    plan = budget.plan(load_params("profiles/miniature.yaml"))
    names = [stage.name for stage in plan.stages]
    assert names[:5] == ["audit", "codes", "train", "score", "confirm"]
    assert names[5:] == [
        f"language {name}"
        for name in ("data", "readings", "stage1", "score", "stage2", "stage2_score", "confirm")
    ]
    assert all(stage.seconds is None and stage.state == "-" for stage in plan.stages)
    assert plan.fits
    assert budget.notes(plan)[-1] == "Everything fits."


@pytest.mark.slow
def test_a_project_of_a_language_alone_is_planned(project):
    given = load_params("profiles/miniature.yaml")
    absent = given.data.model_copy(update={"manifest": "data/none.jsonl"})
    alone = given.model_copy(update={"data": absent})
    names = [stage.name for stage in budget.plan(alone).stages]
    assert names[0] == "language data" and all(name.startswith("language ") for name in names)
    with pytest.raises(UserError, match="voxadapt init"):
        budget.plan(alone.model_copy(update={"language": None}))


@pytest.mark.slow
def test_plan_and_status_say_the_same_of_every_stage(project, monkeypatch):
    monkeypatch.setenv("WORK_DIR", str(project / "work"))
    given = load_params("profiles/miniature.yaml")
    families = [
        "audit", "codes", "train", "select", "confirm", "language_data", "language_readings",
        "language_stage1", "language_stage2", "language_stage2_score", "language_confirm",
    ]  # fmt: skip
    scores = [f"score@{name}" for name in given.candidates]
    scores += [f"language_score@{name}" for name in given.language.candidates]
    before = {name: () for name in (*families, *scores)} | {"confirm": ("score@epoch-6",)}
    pages = {name: f"{name}.html" for name in before}
    changed = {"score@epoch-6": ("takes changed",), "train": ("src/voxadapt/model changed",)}
    pipeline = Pipeline(before, pages, changed)
    timing.record_seconds(pages["train"], 120.0)
    timing.record_seconds(pages["score@base"], 10.0)
    plan = budget.plan(given, pipeline=pipeline)
    found = {stage.name: stage for stage in plan.stages}
    assert found["audit"].state == found["language score"].state == "up to date"
    assert found["train"].state == "stale"
    assert found["score"].state == f"stale: 1 of {len(given.candidates)}"
    assert found["confirm"].state == "waits"
    assert (found["train"].seconds, found["score"].seconds) == (120.0, 10.0)
    assert found["confirm"].seconds is None and found["audit"].seconds == 0.0
    text = "\n".join(budget.notes(plan))
    assert "dvc repro runs up to 3 of 22 stages: about 2 min 10 s one after another" in text
    assert "A stage that has not run here yet says how long it takes when it has begun." in text


def test_a_model_that_is_here_is_counted_without_building_it(project):
    params_ = load_params("profiles/miniature.yaml")
    values, codec, folder = budget.find_config(params_.model)
    read = Model.from_config(values, params_.train.frozen, codec, folder)
    assert read == Model.from_config(values, params_.train.frozen, codec)
    whisper = Path(params_.asr.model)
    loaded = torch.load(whisper, map_location="meta", weights_only=True)
    size = sum(tensor.numel() for tensor in loaded["model_state_dict"].values())
    dims = loaded["dims"]
    assert memory._whisper(str(whisper)) == (size / 1e6, dims["n_text_layer"], dims["n_text_state"])


def test_a_recogniser_of_another_form_is_counted_too(tmp_path):
    folder = tmp_path / "whisper-of-mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"decoder_layers": 3, "d_model": 64}')
    (folder / "model.safetensors").write_bytes(bytes(4_000_000))
    assert memory._whisper(str(folder)) == (1.0, 3, 64)
    (tmp_path / "other.bin").write_bytes(b"ggml")
    assert memory._whisper(str(tmp_path / "other.bin")) == memory._WHISPER["large"]


@pytest.mark.slow
def test_plan_of_a_card_that_is_too_small_says_what_to_lower(project):
    plan = budget.plan(load_params("profiles/qwen3-tts-1.7b.yaml"), memory_gb=16.0)
    assert not plan.fits
    text = "\n".join(budget.notes(plan))
    assert "train does not fit. Lower: train." in text
    assert plan.device == "a GPU of 16 GB"
    assert budget.rows(plan)[2][0] == "train"


def test_a_process_on_a_cpu_keeps_what_it_has_freed(models):
    moments = [{"sound": 3.0}, {"sound": 5.0}, {"whisper": 4.0}]
    assert memory._one_after_another(moments, "cuda") == {"sound": 5.0}
    assert memory._one_after_another(moments, "cpu") == {"sound": 5.0, "whisper": 4.0}


@pytest.mark.slow
def test_the_verb_ends_with_1_where_a_stage_does_not_fit(project, capsys):
    profile = Path("profiles/qwen3-tts-1.7b.yaml")
    with pytest.raises(typer.Exit) as caught:
        cli.plan(profile, gpu_gb=12.0)
    assert caught.value.exit_code == 1
    assert "score does not fit. Lower: asr.batch_size" in capsys.readouterr().out
    cli.plan(profile, gpu_gb=80.0)
    assert "Everything fits." in capsys.readouterr().out


@pytest.mark.slow
def test_what_other_modules_know_is_the_same_there(small):
    """They import torch, and the plan is to answer at once."""
    assert (memory.CPU_BATCH_S, memory.ROUND) == (extract.CPU_BATCH_S, decoding.ROUND)
    assert (memory.BLOCK, sizes.TEXT_EMBEDDING) == (optimizer.BLOCK, text_rows.TEXT_EMBEDDING)
    clips = [Clip("selection", tokens, 10, 40) for tokens in (30, 7)]
    given = load_params(PROJECT / "profiles" / "miniature.yaml")
    per_token = given.score.max_seconds_per_token
    assert memory._limits(clips, given) == [decoding.token_limit(n, per_token) for n in (30, 7)]
    ids = SpecialIds.from_config(Qwen3TTSConfig(**config_values(SMALL)))
    for tokens, frames, tag in ((1, 1, None), (40, 125, 5)):
        length = len(build_layout(tokens, frames, ids, tag))
        assert num_positions(tokens, frames, tag is not None) == length
