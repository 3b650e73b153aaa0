"""The doctor: names every part, survives every missing one, asks nobody outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from voxadapt.core.params import Params, load_params
from voxadapt.tools import doctor
from voxadapt.tools.doctor import Check, diagnose, is_hub_id

PROJECT = Path(__file__).parents[2]
PARTS = [
    "python", "torch", "torchaudio", "qwen_tts", "transformers", "webrtcvad", "resemblyzer",
    "libsndfile", "ffmpeg", "disk", "cpu threads", "dvc remote", "data", "parameters",
    "model weights", "asr weights",
]  # fmt: skip
SHA = "0123456789abcdef0123456789abcdef01234567"


def params(profile: str = "miniature", **changes: Any) -> Params:
    tree = load_params(PROJECT / "profiles" / f"{profile}.yaml").model_dump()
    for name, value in changes.items():
        section, key = name.split("__")
        tree[section][key] = value
    return Params.model_validate(tree)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing in it, on a machine without a network or caches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, lambda *_: pytest.fail("the network was asked"))
    return tmp_path


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(doctor, "_import", absent)
    monkeypatch.setattr(doctor, "import_qwen_tts", lambda: absent("qwen_tts"))
    monkeypatch.setattr(doctor, "torchaudio_problem", lambda: "OSError: libc10_cuda.so")
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)


def one(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


@pytest.mark.usefixtures("nothing_installed", "empty")
@pytest.mark.parametrize("profile", ["miniature", "qwen3-tts-1.7b"])
def test_bare_machine(profile: str) -> None:
    checks = list(diagnose(params(profile)))
    assert [check.name for check in checks] == PARTS
    for check in checks:
        assert check.found, check.name
        assert check.status == "ok" or check.fix, f"{check.name} says what to do"
    failed = {check.name for check in checks if check.status == "fail"}
    assert {"torch", "qwen_tts", "transformers", "webrtcvad", "resemblyzer", "libsndfile"} <= failed
    assert "data" in failed
    assert one(checks, "ffmpeg").status == "ok", "nothing here needs it"
    assert one(checks, "python").status == "ok"
    assert one(checks, "dvc remote").status == "warn", "stages run without DVC"


@pytest.mark.usefixtures("nothing_installed", "empty")
def test_a_check_that_breaks_is_a_failed_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_python", lambda: 1 / 0)
    check = next(diagnose(params()))
    assert (check.name, check.status) == ("python", "fail")
    assert "ZeroDivisionError" in check.found


@pytest.mark.slow
def test_names_that_stages_would_refuse_late_are_refused_now() -> None:
    """A language of nobody, a module that the model lacks, files that are not there."""
    changes = {
        "train__language": ("klingon", "train.language: "),
        "asr__language": ("tlh", "asr.language: Whisper knows no tlh"),
        "train__frozen": (["speaker_encodr"], "has no speaker_encodr"),
        "asr__substitutions": ("none.yaml", "asr.substitutions: no file none.yaml"),
        "score__sets": (["corpus", {"own": "mine.txt"}], ": no file mine.txt"),
        "language__respelling": ("x.yaml", "language.respelling: no file x.yaml"),
        "language__asr_language": ("tlh", "language.asr_language: Whisper knows no tlh"),
    }  # fmt: skip
    for key, (value, said) in changes.items():
        check = doctor._parameters(params(**{key: value}))
        assert check.status == "fail" and said in check.found and ";" not in check.found, key
    assert doctor._parameters(params()).status == "ok"


def test_several_speakers_and_a_prompt_for_one_are_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    (tmp_path / "train_raw.jsonl").write_text('{"audio": "a.wav", "speaker": "Ann"}\n')
    several = {"data__manifest": str(tmp_path / "train_raw.jsonl"), "score__base_prompt": "both"}
    check = doctor._parameters(params(**several))
    assert check.status == "fail" and "score.base_prompt: several speakers" in check.found
    assert doctor._parameters(params(score__base_prompt="both")).status == "ok"


def test_what_a_custom_voice_model_is_given_may_be_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    read = doctor.read_header

    def without(file: Path) -> tuple[Any, ...]:
        header, *rest = read(file)
        return {n: v for n, v in header.items() if not n.startswith("speaker_encoder")}, *rest

    monkeypatch.setattr(doctor, "read_header", without)
    assert doctor._parameters(params()).status == "fail"
    assert doctor._parameters(params(model__speaker_encoder="data/models/base")).status == "ok"


def fake_torch(version: str, cuda: str | None, gpus: int) -> SimpleNamespace:
    properties = SimpleNamespace(total_memory=24 * 2**30)
    return SimpleNamespace(
        __version__=version,
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            is_available=lambda: gpus > 0,
            device_count=lambda: gpus,
            get_device_name=lambda _: "GPU",
            get_device_properties=lambda _: properties,
        ),
    )


@pytest.mark.parametrize(
    ("torch", "profile", "device", "driver", "status", "message"),
    [
        (("2.13.0+cpu", None, 0), "miniature", "cpu", None, "ok", "CPU only"),
        (("2.13.0", "13.0", 1), "qwen3-tts-1.7b", "auto", "smi", "ok", "1 x GPU, 24 GiB"),
        (("2.12.0", None, 0), "miniature", "cpu", None, "warn", "tested with 2.13.0"),
        (("2.13.0+cpu", None, 0), "miniature", "cuda", None, "fail", "asks for cuda"),
        (("2.13.0", "13.0", 1), "miniature", "cuda:1", "smi", "fail", "asks for cuda:1"),
        (("2.13.0+cpu", None, 0), "qwen3-tts-1.7b", "auto", "smi", "warn", "NVIDIA driver"),
        (("2.13.0+cpu", None, 0), "qwen3-tts-1.7b", "auto", None, "warn", "CPU only"),
    ],
)
def test_torch(
    monkeypatch: pytest.MonkeyPatch, torch: tuple[str, str | None, int], profile: str,
    device: str, driver: str | None, status: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(doctor, "_import", lambda name: fake_torch(*torch))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: driver)
    check = doctor._torch(params(profile, model__device=device))
    assert check.status == status
    assert message in check.found


@pytest.mark.parametrize(
    ("problem", "version", "status", "message"),
    [
        (None, "2.11.0", "ok", "2.11.0"),
        ("OSError: libc10_cuda.so", "2.11.0", "ok", "stand-in"),
        ("ModuleNotFoundError: torchaudio", None, "warn", "not installed"),
    ],
)
def test_torchaudio(
    monkeypatch: pytest.MonkeyPatch, problem: str | None, version: str | None, status: str,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(doctor, "torchaudio_problem", lambda: problem)
    monkeypatch.setattr(doctor, "_version", lambda name: version)
    check = doctor._torchaudio()
    assert (check.status, message in check.found) == (status, True)


def test_new_setuptools_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'pkg_resources'")

    monkeypatch.setattr(doctor, "_import", absent)
    monkeypatch.setattr(doctor, "_version", lambda name: "84.2.1")
    check = doctor._webrtcvad()
    assert check.status == "fail"
    assert "84.2.1" in check.found
    assert "setuptools<81" in check.fix


def test_libsndfile_writes_what_the_pages_need() -> None:
    assert doctor._libsndfile().status == "ok"


def test_wrong_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "5.0.0")
    check = doctor._transformers()
    assert check.status == "fail"
    assert "4.57.3" in check.found


def test_dvc_remote(empty: Path) -> None:
    (empty / ".dvc").mkdir()
    assert "no default remote" in doctor._dvc().found
    config = "[core]\n    remote = embedded\n['remote \"embedded\"']\n    url = ../.dvcstore\n"
    (empty / ".dvc" / "config").write_text(config)
    assert "no such folder" in doctor._dvc().found
    (empty / ".dvcstore").mkdir()
    assert doctor._dvc().status == "ok"
    (empty / ".dvc" / "config").write_text(config.replace("../.dvcstore", "s3://bucket/x"))
    assert "not contacted" in doctor._dvc().found


def test_data(empty: Path) -> None:
    settings = params(data__manifest="corpus/rows.jsonl", data__other_voices=None)
    assert doctor._data(settings).status == "fail"
    (empty / "corpus").mkdir()
    (empty / "corpus" / "rows.jsonl").write_text("{}\n\n{}\n")
    check = doctor._data(settings)
    assert check.status == "ok"
    assert "2 rows" in check.found
    missing = params(data__manifest="corpus/rows.jsonl", data__other_voices="voices.jsonl")
    assert "no voices.jsonl" in doctor._data(missing).found


def test_hub_ids_and_paths(empty: Path) -> None:
    assert is_hub_id("Qwen/Qwen3-TTS-12Hz-0.6B-Base")
    (empty / "data" / "base").mkdir(parents=True)
    for path in (
        "data/base",
        "data/gone",
        "data/models/base",
        "/models/base",
        "./base",
        "base",
        ".",
    ):
        assert not is_hub_id(path), path


def test_local_model(empty: Path) -> None:
    settings = params(model__base="models/base")
    assert "no folder" in doctor._model(params(model__base="a/b/c"), False).found
    folder = empty / "models" / "base"
    (folder / "speech_tokenizer").mkdir(parents=True)
    assert "lacks config.json" in doctor._model(settings, False).found
    for name in ("config.json", "speech_tokenizer/config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    assert doctor._model(settings, False).status == "ok"


def fake_hub(cached: bool, reachable: bool = True) -> SimpleNamespace:
    class Api:
        def model_info(self, *_: Any, **__: Any) -> None:
            if not reachable:
                raise OSError("no route to host")

    path = "/cache/file" if cached else None
    return SimpleNamespace(try_to_load_from_cache=lambda *_, **__: path, HfApi=Api)


@pytest.mark.usefixtures("empty")
def test_hub_model(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = params(model__base="Qwen/x", model__revision=SHA)
    monkeypatch.setattr(doctor, "_import", lambda name: fake_hub(cached=False))
    check = doctor._model(pinned, online=False)
    assert (check.status, "will be downloaded" in check.found) == ("ok", True)
    for revision in (None, "main"):
        loose = doctor._model(params(model__base="Qwen/x", model__revision=revision), False)
        assert (loose.status, "not pinned" in loose.found) == ("warn", True)
    assert "the hub has it" in doctor._model(pinned, online=True).found
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor._model(pinned, online=False).status == "fail"
    monkeypatch.setattr(doctor, "_import", lambda name: fake_hub(cached=True))
    assert "in the cache" in doctor._model(pinned, online=False).found
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(doctor, "_import", lambda name: fake_hub(cached=False, reachable=False))
    check = doctor._model(pinned, online=True)
    assert check.status == "fail"
    assert "no route to host" in check.found
    assert "point model.base" in check.fix


def test_asr(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whisper = SimpleNamespace(
        available_models=lambda: ["tiny", "large-v3"],
        _MODELS={"large-v3": "https://example.invalid/sha/large-v3.pt"},
    )
    monkeypatch.setattr(doctor, "_import", lambda name: whisper)
    assert "will be downloaded" in doctor._asr("large-v3", False).found
    assert doctor._asr("huge", False).status == "fail"
    assert "no file" in doctor._asr("data/w.pt", False).found
    (empty / "cache" / "whisper").mkdir(parents=True)
    (empty / "cache" / "whisper" / "large-v3.pt").write_bytes(b"x")
    assert "in the cache" in doctor._asr("large-v3", False).found
    (empty / "own.pt").write_bytes(b"x")
    assert doctor._asr("own.pt", False).status == "ok"
    folder = empty / "own"
    for name in ("config.json", "model.safetensors"):
        assert doctor._asr(str(folder), False).status == "fail"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"{}")
    assert "Hugging Face" in doctor._asr(str(folder), False).found


def test_a_recogniser_on_the_hub_is_no_missing_file(empty: Path) -> None:
    found = doctor._asr("nobody/whisper-of-nobody", False)
    assert found.status == "ok" and "from the hub" in found.found


@pytest.mark.usefixtures("empty")
def test_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=60 * 2**30)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert doctor._disk(params("qwen3-tts-1.7b")).status == "warn", "ten checkpoints need more"
    usage.free = 2**30
    assert doctor._disk(params()).status == "fail"
    usage.free = 10**13
    assert doctor._disk(params("qwen3-tts-1.7b")).status == "ok"


def test_more_threads_than_cores() -> None:
    assert doctor._threads(params(model__num_threads=10_000)).status == "warn"
    assert doctor._threads(params(model__num_threads=1)).status == "ok"


@pytest.mark.slow
def test_the_module_itself_needs_nothing_heavy() -> None:
    """A fresh interpreter imports it without torch and its kind, so that it can say they lack."""
    code = "import sys, voxadapt.tools.doctor; print(sorted(set(sys.modules) & set(sys.argv[1:])))"
    heavy = ["torch", "transformers", "whisper", "qwen_tts", "soundfile", "huggingface_hub", "dvc"]
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_second_recogniser_is_checked_too(empty: Path) -> None:
    checks = doctor.diagnose(params(asr__second="other.pt"))
    (second,) = (check for check in checks if check.name == "second asr weights")
    assert second.status == "fail" and "no file other.pt" in second.found
