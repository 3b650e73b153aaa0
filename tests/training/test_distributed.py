"""Several processes take the steps that one takes, and go on where another number stopped.

The file is also what `accelerate launch` runs: each process of the launch works through `SCENES`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import _filter_args, prepare_multi_gpu_env
from safetensors.torch import load_file
from torch.distributed import run as torchrun

from training.conftest import World, make_world, open_world
from voxadapt.core import launch as processes
from voxadapt.core.errors import UserError
from voxadapt.core.params import load_params
from voxadapt.pipeline import audit
from voxadapt.training import trainer as loop
from voxadapt.training.batches import share_of

PROJECT = Path(__file__).parents[2]
CONFIGS = PROJECT / "profiles" / "accelerate"
BOTH = CONFIGS / "two_cpus.yaml"

#: Options of a run of two epochs, by name. A batch of one row leaves a process without any.
SCENES: dict[str, dict[str, Any]] = {
    "plain": {"frame_dropout": 0.5},
    "accumulated": {"batch_size": 2, "gradient_accumulation_steps": 3, "warmup_steps": 2},
    "compact": {
        "compute_dtype": "bfloat16", "low_memory": True, "gradient_checkpointing": True,
    },
}  # fmt: skip
RESUMED = {"frame_dropout": 0.5, "gradient_checkpointing": True}


# --- what a process of the launch does -----------------------------------------------------------


def stop_in(step: int, how: Any) -> None:
    """Have training end, by `how`, in the middle of an optimizer step."""
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def clipped(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == step:
            torch.nn.utils.clip_grad_norm_ = clip
            how()
        return clip(*arguments, **options)

    torch.nn.utils.clip_grad_norm_ = clipped


def forbid_writing() -> None:
    """Have this process fail where it would write a file or say something."""
    for name in ("clear_stale", "write_json", "save_state", "publish", "measure_drift"):
        setattr(loop, name, None)
    loop.log.write_log = loop.log.say = None


def summary(run: Any) -> dict[str, Any]:
    return {"rows": run.rows, "resumed_step": run.resumed_step}


def work(root: Path) -> None:
    """Run every scene in this process; the main one's results and all errors are kept."""
    world = open_world(root)
    rank = processes.rank()
    if rank == 1:
        forbid_writing()
    found: dict[str, Any] = {}
    for name, options in SCENES.items():
        found[name] = summary(world.train(root / "two" / name, **options))
    found["resumed"] = summary(world.train(root / "resumed", **RESUMED))
    try:
        world.train(root / "two" / "refused", batch_size=1)
    except UserError as error:
        found["refused"] = str(error)
    original = loop.loss_sums

    def broken(predictions: Any) -> Any:
        sums = original(predictions)
        return replace(sums, c0_sum=sums.c0_sum * float("nan"))

    if rank == 1:
        loop.loss_sums = broken
    try:
        world.train(root / "two" / "nan", 1)
    except UserError as error:
        found["nan"] = str(error)
    loop.loss_sums = original
    (root / f"found-{rank}.json").write_text(json.dumps(found))
    if rank == 1:
        stop_in(4, lambda: os.kill(os.getpid(), signal.SIGKILL))
    world.train(root / "killed", save_every_s=0.0, **RESUMED)


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Launch two processes on the CPU."""
    paths = [PROJECT / "src", PROJECT / "tests", PROJECT]
    inherited = {key: value for key, value in os.environ.items() if key != "CI"}  # quiet there
    return subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(BOTH),
            "--main_process_port", "0", *arguments,
        ],
        cwd=folder,
        env={**inherited, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )  # fmt: skip


# --- two processes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def root(world: World) -> Path:
    return world.base.parent


class Interrupt(KeyboardInterrupt):
    pass


def interrupt() -> None:
    raise Interrupt


@pytest.fixture(scope="module")
def launched(world: World, root: Path) -> list[dict[str, Any]]:
    """What the two processes of a launch found, after one process had begun a run."""
    stop_in(2, interrupt)
    with pytest.raises(Interrupt):
        world.train(root / "resumed", save_every_s=0.0, **RESUMED)
    done = launch(root, __file__, str(root))
    assert (root / "found-1.json").is_file(), done.stderr
    assert done.returncode != 0, "the last scene kills a process"
    return [json.loads((root / f"found-{rank}.json").read_text()) for rank in range(2)]


def weights(folder: Path, epoch: int = 2) -> dict[str, torch.Tensor]:
    return load_file(folder / "out" / f"epoch-{epoch}" / "model.safetensors")


def distance(one: Path, other: Path, base: Path) -> float:
    """How far two runs' last epochs are apart, as a share of the way that training went."""
    first, second, start = weights(one), weights(other), load_file(base / "model.safetensors")
    apart = sum(float((first[n].double() - second[n].double()).square().sum()) for n in start)
    moved = sum(float((first[n].double() - start[n].double()).square().sum()) for n in start)
    return (apart / moved) ** 0.5


def losses(rows: Any, key: str = "loss") -> list[float]:
    return [row[key] for row in rows if row.get(key) is not None]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_two_processes_have_the_losses_and_weights_of_one(
    world: World, root: Path, launched: list[dict[str, Any]], name: str
) -> None:
    one = world.train(root / "one" / name, **SCENES[name])
    two = launched[0][name]
    rounding = 2e-2 if name == "compact" else 1e-4  # bfloat16 keeps 8 bits
    for key in ("loss", "heldout_loss", "grad_norm", "c1_loss"):
        assert losses(two["rows"], key) == pytest.approx(losses(one.rows, key), abs=rounding), key
    for key in ("num_labels", "num_frames", "lr"):
        assert losses(two["rows"], key) == losses(one.rows, key)
    assert distance(root / "one" / name, root / "two" / name, world.base) < 5 * rounding
    assert losses(launched[1][name]["rows"]) == losses(two["rows"]), "all processes say the same"


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_two(
    world: World, root: Path, launched: list[dict[str, Any]]
) -> None:
    whole = world.train(root / "whole", **RESUMED)
    assert launched[0]["resumed"]["resumed_step"] == 1
    found = losses(launched[0]["resumed"]["rows"])
    assert found == pytest.approx(losses(whole.rows), abs=1e-4)
    assert distance(root / "whole", root / "resumed", world.base) < 1e-4


@pytest.mark.slow
def test_a_run_of_two_processes_that_was_killed_goes_on_in_one(
    world: World, root: Path, launched: list[dict[str, Any]]
) -> None:
    whole = world.train(root / "whole", **RESUMED)
    rest = world.train(root / "killed", **RESUMED)
    assert rest.resumed_step == 3
    assert losses(rest.rows) == pytest.approx(losses(whole.rows), abs=1e-4)
    assert distance(root / "whole", root / "killed", world.base) < 1e-4


@pytest.mark.slow
def test_what_one_process_meets_stops_all_with_the_same_words(
    root: Path, launched: list[dict[str, Any]]
) -> None:
    first, second = (found["nan"] for found in launched)
    assert first == second
    assert "Training has diverged" in first and "epoch 1, step 1: clip" in first
    assert not (root / "two" / "nan" / "out").exists()


@pytest.mark.slow
def test_a_batch_smaller_than_the_processes_names_both_settings(
    launched: list[dict[str, Any]],
) -> None:
    for found in launched:
        assert "train.batch_size: expected at least 2" in found["refused"]
        assert "num_processes" in found["refused"]


@pytest.mark.slow
def test_the_train_stage_is_launched_and_leaves_what_one_process_leaves(
    world: World, tmp_path: Path
) -> None:
    project = make_project(world, tmp_path)
    done = launch(project, "-m", "voxadapt", "train")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 checkpoints of speaker Aria") == 1, "one process speaks"
    assert "2 processes share each batch" in done.stderr
    assert sorted(p.name for p in (project / "artifacts/checkpoints").iterdir()) == [
        "base", "epoch-1", "epoch-2", "made.json"
    ]  # fmt: skip
    metrics = json.loads((project / "reports/metrics/train.json").read_text())
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2]
    assert all(epoch["drift"] for epoch in metrics["epochs"])
    left = [path for path in project.rglob("*") if path.name.endswith((".part", ".old"))]
    assert left == []


def make_project(world: World, folder: Path) -> Path:
    """Write what the train stage reads."""
    from voxadapt.codec.store import write_codes
    from voxadapt.core import paths
    from voxadapt.core.files import sha256_folder
    from voxadapt.core.lineage import write_made
    from voxadapt.data.manifest import write_manifest

    values = yaml.safe_load((PROJECT / "profiles" / "miniature.yaml").read_text(encoding="utf-8"))
    values["model"]["base"] = str(world.base)
    values["train"] |= {"batch_size": 4, "warmup_steps": 0}
    values["candidates"] = ["base", "epoch-1", "epoch-2"]
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (folder / "ref.wav").write_bytes(world.ref.read_bytes())
    write_manifest(folder / paths.SPEAKER.manifest, world.utterances)
    write_codes(
        folder / paths.SPEAKER.codes, folder / paths.SPEAKER.codes_index, world.codes,
        world.utterances, sha256_folder(world.base / "speech_tokenizer"),
    )  # fmt: skip
    with contextlib.chdir(folder):
        write_made(paths.SPEAKER.made_by_audit, "audit", [paths.SPEAKER.manifest])
        write_made(
            paths.SPEAKER.made_by_codes, "codes", [paths.SPEAKER.codes, paths.SPEAKER.codes_index]
        )
    return folder


# --- one process ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count"), [(8, 1), (8, 2), (7, 3), (1, 4), (16, 16)])
def test_every_row_falls_to_one_process(size: int, count: int) -> None:
    shares = [share_of(size, rank, count) for rank in range(count)]
    assert sorted(r for share in shares if share.factor for r in share.rows) == list(range(size))
    assert all(share.rows for share in shares), "all take part"
    counts = [len(share.rows) for share in shares if share.factor]
    assert max(counts) - min(counts) <= 1


def test_launches_that_cannot_be_trained_are_refused_all_reasons_together(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched_as(monkeypatch, rank=9, count=16, here=8)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UserError) as caught:
        loop.engine.start(loop.TrainParams(speaker_name="A", batch_size=8), torch.device("cuda:3"))
    where = [problem.where for problem in caught.value.problems]
    assert where == [
        "distributed_type of the launch configuration", "train.batch_size", "model.device",
        "num_processes of the launch configuration",
    ]  # fmt: skip
    assert "low_memory" in caught.value.problems[0].fix


def test_each_process_may_have_the_only_gpu_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for count, refused in ((2, False), (3, True)):
        launched_as(monkeypatch, rank=0, count=count, here=count)
        params = loop.TrainParams(speaker_name="A", batch_size=count)
        with pytest.raises(UserError, match="at most 2") if refused else contextlib.nullcontext():
            loop.engine._check(params, torch.device("cuda"))


def test_processes_that_read_different_states_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = Namespace(device="cpu", gather=lambda own: torch.cat([own, own + 3]))
    with pytest.raises(UserError, match="steps 4, 7"):
        loop.engine.same_everywhere(accelerator, 4, "work")


def test_other_stages_are_not_launched_on_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched_as(monkeypatch, rank=1, count=2)
    monkeypatch.chdir(tmp_path)
    params = load_params(PROJECT / "profiles" / "miniature.yaml")
    with pytest.raises(UserError, match="run this one without a launcher"):
        audit.run(params)
    assert not list(tmp_path.iterdir())


def test_only_the_first_process_of_a_machine_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from voxadapt.cli.problems import print_problems
    from voxadapt.core.errors import Problem

    error = UserError([Problem("a", "b", "c", "d"), Problem("e", "f", "g", "h")])
    launched_as(monkeypatch, rank=8, count=16, here=8)
    print_problems(error)
    assert "2 problems" in capsys.readouterr().err
    launched_as(monkeypatch, rank=9, count=16, here=8)
    print_problems(error)
    assert capsys.readouterr().err == "Process 9: a: expected b; found c. d\n"


def test_a_world_size_without_a_launcher_means_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters set it in containers in which nobody has launched anything."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (processes.num_processes(), processes.rank()) == (1, 0)
    assert processes.is_main() and processes.is_local_main()


def launched_as(monkeypatch: pytest.MonkeyPatch, rank: int, count: int, here: int = 2) -> None:
    """Make this process look like one of a launch."""
    given = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank % here, "LOCAL_WORLD_SIZE": here}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))


# --- configurations ------------------------------------------------------------------------------


def dry_run(words: list[str]) -> tuple[Namespace, Any]:
    """Parse a launch as Accelerate and torchrun do; None for a launch of one process."""
    arguments = launch_command_parser().parse_args(words)
    arguments, *_ = _validate_launch_command(arguments)
    if not arguments.multi_gpu:
        return arguments, None
    prepare_multi_gpu_env(arguments)
    given = ["--training_script", arguments.training_script]
    filtered = _filter_args(arguments, torchrun.get_args_parser(), given)
    return arguments, torchrun.config_from_args(filtered)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_launch_the_train_stage(path: Path) -> None:
    nodes, local = {
        "one_gpu": (1, 1), "two_cpus": (1, 2), "eight_gpus": (1, 8), "two_nodes": (2, 8),
    }[path.stem]  # fmt: skip
    config = load_config_from_file(str(path))
    assert config.num_processes == nodes * local
    assert config.mixed_precision == "no"
    shown = re.search(r"#   (accelerate launch (?:.*\\\n#)*.*)\n", path.read_text(encoding="utf-8"))
    assert shown is not None
    words = shlex.split(shown[1].replace("\\\n#", " "))
    assert str(PROJECT / words[3]) == str(path)
    words[3] = str(path)
    arguments, launch_config = dry_run(words[2:])
    assert arguments.module and arguments.training_script == "voxadapt"
    assert arguments.training_script_args == ["train"]
    if launch_config is not None:
        plan, _, command = launch_config
        assert (plan.min_nodes, plan.max_nodes, plan.nproc_per_node) == (nodes, nodes, local)
        assert command[-3:] == ["-m", "voxadapt", "train"]


def test_the_launches_of_the_page_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("SLURM_NODEID", "1")
    monkeypatch.setenv("MAIN", "node-0")
    text = (PROJECT / "docs" / "scale.md").read_text(encoding="utf-8").replace("\\\n", " ")
    shown = re.findall(r"accelerate launch ([^\n'`]*-m voxadapt train)", text)
    assert len(shown) > 3
    for line in shown:
        arguments, _ = dry_run(shlex.split(os.path.expandvars(line)))
        assert arguments.training_script_args == ["train"], line


if __name__ == "__main__":
    work(Path(sys.argv[1]))
