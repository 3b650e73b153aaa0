"""The wheel, installed into an environment of its own and used far away from the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

from sounds import make_voice, make_whisper, write
from voxadapt import __version__

PROJECT = Path(__file__).parents[1]
BUILT_FROM = ("src", "notebooks", "profiles", "dvc.yaml", ".dvc/config", ".dvc/plots")
BUILT_FROM += (
    ".dvcignore",
    ".gitattributes",
    ".gitignore",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="paths of a virtual environment"),
]


def call(*command: str | Path, cwd: Path, code: int = 0, **environment: str) -> str:
    """Run a command without the repository on its path; return what it printed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing is left in the repository."""
    source = tmp_path_factory.mktemp("source")
    leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb_checkpoints")
    for name in BUILT_FROM:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, source / name, ignore=leave_out)
        else:
            shutil.copyfile(PROJECT / name, source / name)
    call(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps",
        "--no-index", "--wheel-dir", "dist", ".", cwd=source,
    )  # fmt: skip
    [found] = (source / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def tools(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it into a virtual environment that sees the libraries of this one."""
    place = tmp_path_factory.mktemp("venv")
    call(sys.executable, "-m", "venv", "--without-pip", ".", cwd=place)
    call(
        sys.executable, "-m", "pip", "--python", "bin/python", "install", "--quiet", "--no-deps",
        "--no-index", "--no-compile", wheel, cwd=place,
    )  # fmt: skip
    [packages] = place.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin"


def test_it_holds_all_that_it_needs_and_one_text_of_each(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    starter = "voxadapt/starter/"
    for path in ("dvc.yaml", ".dvc/config", ".gitattributes", ".gitignore", ".dvcignore"):
        assert held[starter + path] == (PROJECT / path).read_bytes()
    for pattern in (
        "notebooks/*.ipynb",
        "notebooks/explore/*.ipynb",
        "profiles/**/*.yaml",
        ".dvc/plots/*",
    ):
        paths = sorted(PROJECT.glob(pattern))
        assert paths
        for path in paths:
            assert held[starter + path.relative_to(PROJECT).as_posix()] == path.read_bytes()
    assert not any(name.startswith("miniature/") for name in held)
    sources = [path for path in (PROJECT / "src" / "voxadapt").rglob("*") if path.is_file()]
    for path in sources:
        if path.suffix in (".py", ".typed", ".j2", ".css", ".js"):
            assert path.relative_to(PROJECT / "src").as_posix() in held


def test_the_repository_gains_no_second_copy() -> None:
    assert [path.name for path in (PROJECT / "src/voxadapt/starter").iterdir()] == ["README.md"]


def test_the_installed_command_and_a_project_of_ones_own(tools: Path, tmp_path: Path) -> None:
    path = f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    voxadapt = tools / "voxadapt"
    assert "Score clips of any system" in call(voxadapt, "--help", cwd=tmp_path)
    said = call(voxadapt, "new", "my voice", "--profile", "qwen3-tts-1.7b", cwd=tmp_path)
    assert "Next: cd my voice" in said
    folder = tmp_path / "my voice"
    assert (folder / "requirements.txt").read_text() == f"voxadapt=={__version__}\n"
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["model"]["base"].endswith("1.7B-Base")
    assert params["data"]["other_voices"] is None
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    repository = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert list(stages) == list(repository)
    for name, stage in stages.items():
        assert len(stage["deps"]) == len(set(stage["deps"]))
        inside = [dep for dep in stage["deps"] if dep.startswith(("src", "data/"))]
        assert inside == []
        computes = any(dep.startswith("src/") for dep in repository[name]["deps"])
        assert ("requirements.txt" in stage["deps"]) == computes
        outputs = {key: stage[key] for key in stage if key != "deps"}
        assert outputs == {key: repository[name][key] for key in repository[name] if key != "deps"}
    # DVC takes the stages as they are, and a stage runs with the installed package.
    call("dvc", "repro", "clean", cwd=folder, PATH=path, DVC_NO_ANALYTICS="1")
    assert len(list((folder / "artifacts/notebooks").glob("*.ipynb"))) == len(
        list((PROJECT / "notebooks").glob("*.ipynb"))
    )
    said = call(voxadapt, "use", "qwen3-tts-0.6b", cwd=folder)
    assert "profiles/qwen3-tts-0.6b.yaml" in said
    assert "train_raw.jsonl" in call(voxadapt, "audit", cwd=folder, code=2)
    refused = call(voxadapt, "new", "my voice", cwd=tmp_path, code=2)
    assert "something there" in refused and "Traceback" not in refused


def test_clips_are_scored_without_the_repository(tools: Path, tmp_path: Path) -> None:
    rows = []
    for index in range(2):
        write(tmp_path / f"a{index}.wav", make_voice(2.0, 120, index))
        rows.append({"audio": f"a{index}.wav", "text": "Some words are said."})
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whisper = make_whisper(tmp_path / "tiny.pt")
    arguments = ("evaluate", "--manifest", "clips.jsonl", "--asr", whisper, "--device", "cpu")
    said = call(tools / "voxadapt", *arguments, "-o", "out", cwd=tmp_path)
    assert "2 of 2 clips" in said
    assert "<table" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
