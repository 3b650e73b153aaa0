"""What this machine has and lacks: one line per part, with what to do about it.

Heavy packages are imported inside the checks, and a check that breaks becomes a failed line, so
that the doctor works on the machines that need one. Nothing is downloaded, and without `online`
nothing outside the machine is asked.
"""

import configparser
import contextlib
import importlib
import importlib.util
import io
import os
import platform
import re
import shutil
import sys
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import cast

from voxadapt.asr.checkpoints import canonical
from voxadapt.core.compat import import_qwen_tts, torchaudio_problem
from voxadapt.core.executor import num_cores
from voxadapt.core.model_folder import read_config
from voxadapt.core.params import Params
from voxadapt.core.strict_yaml import read_yaml
from voxadapt.core.tensor_headers import read_header

FAULTS = cast("dict[str, list[str]]", read_yaml(Path(__file__).with_suffix(".yaml")))
MIN_PYTHON = (3, 11)
TORCH = "2.13.0"
TRANSFORMERS = "4.57.3"
GIB = 2**30
HUB_MODEL_GIB = 5.0  # a 1.7B model in bf16, where the size is not known yet
SPARE_GIB = 2.0  # audio, scores, notebooks
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the machine: what was found, and what to do about it."""

    status: str  # ok, warn (it works, but read it) or fail
    found: str
    fix: str = ""
    name: str = ""


def diagnose(params: Params, online: bool = False) -> Iterator[Check]:
    """Yield a check of every part that these parameters need, in a fixed order, as it is made.

    A part that is missing or broken raises nothing. `online` also asks whether missing weights can
    be fetched.
    """
    checks: dict[str, Callable[[], Check]] = {
        "python": _python,
        "torch": lambda: _torch(params),
        "torchaudio": _torchaudio,
        "qwen_tts": _qwen_tts,
        "transformers": _transformers,
        "webrtcvad": _webrtcvad,
        "resemblyzer": _resemblyzer,
        "libsndfile": _libsndfile,
        "ffmpeg": _ffmpeg,
        "disk": lambda: _disk(params),
        "cpu threads": lambda: _threads(params),
        "dvc remote": _dvc,
        "data": lambda: _data(params),
        "parameters": lambda: _parameters(params),
        "model weights": lambda: _model(params, online),
        "asr weights": lambda: _asr(params.asr.model, online),
    }
    if (second := params.asr.second) is not None:
        checks["second asr weights"] = lambda: _asr(second, online)
    for name, check in checks.items():
        yield replace(_guarded(check), name=name)


def _fault(kind: str, **facts: object) -> Check:
    """Say what is amiss in the words of `doctor.yaml`."""
    return Check(*(words.format(**facts) for words in FAULTS[kind]))


def _guarded(check: Callable[[], Check]) -> Check:
    """Run a check; whatever it raises becomes a failed line."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return check()
    except ImportError as error:
        return _fault("not_imported", error=_short(error))
    except Exception as error:  # a broken part may raise anything; the others still count
        return _fault("broken_check", error=f"{type(error).__name__}: {_short(error)}")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _import(name: str) -> ModuleType:
    return importlib.import_module(name)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Check:
    found = f"{platform.python_version()} ({sys.executable})"
    is_old = sys.version_info < MIN_PYTHON
    return _fault("old_python", found=found) if is_old else Check("ok", found)


def _torch(params: Params) -> Check:
    torch = _import("torch")
    version, cuda, wanted = str(torch.__version__), torch.version.cuda, params.model.device
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = "CPU only" if cuda is None else f"a build for CUDA {cuda}, but no usable GPU"
    if num_gpus:
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
        device = f"CUDA {cuda}, {num_gpus} x {torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    found = f"{version}, {device}"
    if version.split("+")[0] != TORCH:
        return _fault("other_torch", found=found, tested=TORCH)
    if wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= num_gpus:
        return _fault("no_cuda", found=found, wanted=wanted)
    if wanted == "mps" and not torch.backends.mps.is_available():
        return _fault("no_mps", found=found)
    if not num_gpus and wanted != "cpu" and shutil.which("nvidia-smi"):
        return _fault("unused_gpu", found=found, tested=TORCH)
    if not num_gpus and is_hub_id(params.model.base):
        return _fault("slow_cpu", found=found)
    return Check("ok", found)


def _torchaudio() -> Check:
    problem, version = torchaudio_problem(), _version("torchaudio")
    if version is None:
        return _fault("no_torchaudio")
    if problem is None:
        return Check("ok", version)
    return Check("ok", f"{version}, does not load beside this torch: a stand-in takes its "
                 "place, as only the 25 Hz tokenizer, which is not used, needs it")  # fmt: skip


def _qwen_tts() -> Check:
    import_qwen_tts()
    return Check("ok", str(_version("qwen-tts")))


def _transformers() -> Check:
    found = _version("transformers") or "not installed"
    if found != TRANSFORMERS:
        return _fault("other_transformers", found=found, tested=TRANSFORMERS)
    return Check("ok", found)


def _webrtcvad() -> Check:
    version = _version("setuptools")
    try:
        _import("webrtcvad")
    except ImportError as error:
        return _fault("no_webrtcvad", error=_short(error), version=version)
    return Check("ok", f"{_version('webrtcvad')}, setuptools {version}")


def _resemblyzer() -> Check:
    spec = importlib.util.find_spec("resemblyzer")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        return _fault("no_resemblyzer")
    if not (Path(folders[0]) / "pretrained.pt").is_file():
        return _fault("no_voice_weights")
    return Check("ok", f"{_version('resemblyzer')}, with its weights")


def _libsndfile() -> Check:
    soundfile, numpy = _import("soundfile"), _import("numpy")
    missing = []
    for container in ("WAV", "FLAC", "MP3"):
        try:
            soundfile.write(io.BytesIO(), numpy.zeros(2400), 24000, format=container)
        except Exception:  # any failure means that this format cannot be written
            missing.append(container)
    found = f"{soundfile.__libsndfile_version__} (soundfile {soundfile.__version__})"
    if missing:
        kind = "no_mp3" if missing == ["MP3"] else "no_format"
        return _fault(kind, found=found, formats=", ".join(missing))
    return Check("ok", f"{found}, writes WAV, FLAC and MP3")


def _ffmpeg() -> Check:
    path = shutil.which("ffmpeg")
    use = "`import` and `init` read m4a, AAC, webm, video and wrong MP3 headers with it"
    return Check("ok", f"{path or 'not found'}: {use}")


def _folder_gib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / GIB


def _disk(params: Params) -> Check:
    base, epochs = Path(params.model.base), params.num_epochs
    is_remote = is_hub_id(params.model.base)
    model_gib = HUB_MODEL_GIB if is_remote else _folder_gib(base) if base.is_dir() else 0.0
    needed = SPARE_GIB + model_gib * (epochs + (2 if is_remote else 1))
    free = shutil.disk_usage(Path.cwd()).free / GIB
    found = f"{free:.1f} GiB free; about {needed:.1f} GiB needed for all checkpoints"
    if not os.access(Path.cwd(), os.W_OK):
        return _fault("read_only")
    if free < needed:
        return _fault("no_space" if free < SPARE_GIB else "little_space", found=found)
    return Check("ok", found)


def _threads(params: Params) -> Check:
    cores, wanted = num_cores(), params.model.num_threads
    variable = os.environ.get("OMP_NUM_THREADS")
    found = f"{cores} usable" + (f", OMP_NUM_THREADS={variable}" if variable else "")
    if wanted is not None and wanted > cores:
        return _fault("many_threads", found=found, wanted=wanted, cores=cores)
    return Check("ok", found)


def _dvc() -> Check:
    version = _version("dvc")
    if version is None:
        return _fault("no_dvc")
    if not Path(".dvc").is_dir():
        return _fault("no_project", version=version)
    config = configparser.ConfigParser(strict=False, interpolation=None)
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    remotes = {
        match.group(1): config[section].get("url", "")
        for section in config.sections()
        if (match := re.fullmatch(r"'?remote \"(.+)\"'?", section))
    }
    default = config.get("core", "remote", fallback=next(iter(remotes), ""))
    if default not in remotes:
        return _fault("no_remote", version=version)
    url = remotes[default]
    if "://" in url:
        return Check("ok", f"dvc {version}, {default} = {url} (not contacted)")
    folder = Path(os.path.normpath(Path(".dvc") / url))
    if not folder.is_dir():
        return _fault("no_store", version=version, name=default, folder=folder)
    return Check("ok", f"dvc {version}, {default} = {folder}")


def _data(params: Params) -> Check:
    manifest, voices = Path(params.data.manifest), params.data.other_voices
    language = params.language
    if not manifest.is_file():
        if language is not None and Path(language.audio).is_file():
            return Check("ok", f"{language.audio}; no {manifest}: a project of a language alone")
        return _fault("no_manifest", manifest=manifest)
    if voices is not None and not Path(voices).is_file():
        return _fault("no_voices", manifest=manifest, voices=voices)
    with open(manifest, "rb") as stream:
        count = sum(bool(line.strip()) for line in stream)
    floor = "" if voices else "; no other voices, so no floor"
    return Check("ok", f"{manifest}, {count} rows{floor}")


def _parameters(params: Params) -> Check:
    """Hold names against what has them, and paths against the disk: stages refuse them late."""
    language, base = params.language, Path(params.model.base)
    codes = {"asr.language": params.asr.language}
    texts = {"asr.substitutions": params.asr.substitutions}
    own = [item.own for item in params.score.sets if not isinstance(item, str)]
    texts |= {f"score.sets, {path}": path for path in own}
    if language is not None and (Path(language.text).is_file() or Path(language.audio).is_file()):
        codes |= {"language.asr_language": language.asr_language}
        texts |= {"language.text": language.text, "language.respelling": language.respelling}
    recognised = _import("whisper.tokenizer").LANGUAGES
    wrong = [f"{key}: Whisper knows no {code}" for key, code in codes.items()
             if code not in recognised]  # fmt: skip
    wrong += [f"{key}: no file {path}" for key, path in texts.items()
              if path is not None and not Path(path).is_file()]  # fmt: skip
    if base.is_dir():
        config, manifest = read_config(base), Path(params.data.manifest)
        tags = {"auto", *config["talker_config"]["codec_language_id"]}
        if params.score.base_prompt != "x_vector" and config["tts_model_type"] == "base":
            if manifest.is_file() and b'"speaker"' in manifest.read_bytes():
                wrong.append("score.base_prompt: several speakers are cloned by their vectors")
        names = [name for file in base.glob("model*.safetensors") for name in read_header(file)[0]]
        names += ["speaker_encoder"] if params.model.speaker_encoder else []
        if params.train.language.lower() not in tags:
            wrong.append(f"train.language: {base} knows no {params.train.language}")
        wrong += [f"train.frozen: {base} has no {prefix}" for prefix in params.train.frozen
                  if not any(f"{name}.".startswith(f"{prefix}.") for name in names)]  # fmt: skip
    if wrong:
        return _fault("wrong_names", found="; ".join(wrong))
    return Check("ok", "the names in them are known")


def is_hub_id(base: str) -> bool:
    """Say whether a model name is a hub id (owner/name) and no local path."""
    if Path(base).exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base):
        return False
    return not Path(base.split("/")[0]).is_dir()


def _model(params: Params, online: bool) -> Check:
    base, revision = params.model.base, params.model.revision
    needed = ("config.json", "speech_tokenizer/config.json")
    if not is_hub_id(base):
        folder = Path(base)
        if not folder.is_dir():
            return _fault("no_model_folder", base=base)
        missing = [file for file in needed if not (folder / file).is_file()]
        missing += [] if list(folder.glob("model*.safetensors")) else ["model.safetensors"]
        if missing:
            return _fault("partial_model", base=base, missing=", ".join(missing))
        return Check("ok", f"{base}, {_folder_gib(folder) * 1024:.0f} MiB")
    hub = _import("huggingface_hub")
    cached = [hub.try_to_load_from_cache(base, file, revision=revision)
              for file in (*needed, "model.safetensors")]  # fmt: skip
    found = f"{base} will be downloaded from the hub (not asked; use --online)"
    if all(isinstance(file, str) for file in cached):
        found = f"{base} is in the cache"
    elif os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return _fault("model_offline", base=base)
    elif online:
        try:
            hub.HfApi().model_info(base, revision=revision, timeout=TIMEOUT_S)
        except Exception as error:  # network, permission, unknown revision: all mean the same here
            return _fault("model_out_of_reach", base=base, error=_short(error))
        found = f"{base} will be downloaded; the hub has it"
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        return _fault("loose_revision", found=found, revision=revision or "null")
    return Check("ok", f"{found}, revision {revision}")


def _asr(model: str, online: bool) -> Check:
    whisper = _import("whisper")
    model = canonical(model, whisper.available_models())
    if Path(model).is_file():
        return Check("ok", f"{model}, {Path(model).stat().st_size / 2**20:.0f} MiB")
    if Path(model).is_dir():
        names = [file.name for file in Path(model).iterdir()]
        weights = re.compile(r"(model|pytorch_model).*\.(safetensors|bin)$")
        if "config.json" in names and any(map(weights.match, names)):
            return Check("ok", f"{model}, in Hugging Face form")
        return _fault("partial_asr", model=model)
    if is_hub_id(model) and not model.endswith((".pt", ".pth", ".bin")):
        hub = _import("huggingface_hub")
        kept = isinstance(hub.try_to_load_from_cache(model, "config.json"), str)
        told = "is in the cache" if kept else "will be downloaded from the hub (not asked)"
        return Check("ok", f"{model} {told}")
    if model.endswith(".pt") or "/" in model or "\\" in model:
        return _fault("no_asr_file", model=model)
    if model not in whisper.available_models():
        return _fault("unknown_asr", model=model, known=", ".join(whisper.available_models()))
    url = getattr(whisper, "_MODELS", {}).get(model, f"{model}.pt")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "whisper"
    file = cache / url.rsplit("/", 1)[-1]
    if file.is_file():
        return Check("ok", f"{model} is in the cache ({file})")
    if not online:
        return Check("ok", f"{model} will be downloaded (not asked; use --online)")
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
    except Exception as error:  # as above
        facts = {"model": model, "file": file.name, "cache": cache}
        return _fault("asr_out_of_reach", error=_short(error), **facts)
    return Check("ok", f"{model} will be downloaded; it is reachable")
