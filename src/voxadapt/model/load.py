"""Loading models: the stock classes, with checks and one clear message each."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from voxadapt.core.compat import import_qwen_tts, keep_freed_memory
from voxadapt.core.model_folder import read_config, refuse_code
from voxadapt.core.problems import user_error
from voxadapt.data.audio import AudioError, read_mono
from voxadapt.model.codec_decoder import speed_up
from voxadapt.model.stock import SpeechTokenizer, Tts

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


def speaking_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Return the type of weights that speak: `auto` is bfloat16 on a GPU that has it."""
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    has_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_it else torch.float32


def load_tts(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    as_base: bool = False,
) -> Tts:
    """Load a model folder with the stock class.

    A fine-tuned checkpoint is loaded `as_base`, as the Base model it came from, to clone voices or
    be trained further. Attention is `sdpa`, `eager` or `flash_attention_2`.

    Raises:
        UserError: When the folder is incomplete or does not fit its config.
    """
    path = Path(path)
    config_json = read_config(path)
    _refuse_code(path)
    _refuse_code(path / "speech_tokenizer")
    keep_freed_memory()
    qwen_tts = import_qwen_tts()
    from qwen_tts.core.models import Qwen3TTSConfig

    try:
        config = Qwen3TTSConfig(**config_json)
    except Exception as error:  # of any type: the class reads what it finds
        raise _unloadable("model.unknown_config", path, error) from None
    for field in ("codec_language_id", "spk_id", "spk_is_dialect"):
        # The stock class iterates over these although its config allows null.
        if getattr(config.talker_config, field) is None:
            setattr(config.talker_config, field, {})
    if as_base:
        if not any(name.startswith("speaker_encoder.") for name in weight_files(path)):
            raise user_error("model.no_encoder", path)
        config.tts_model_type = "base"
    try:
        with _quiet():
            tts: Tts = qwen_tts.Qwen3TTSModel.from_pretrained(
                str(path),
                config=config,
                dtype=dtype,
                device_map=str(device),
                attn_implementation=attention,
                local_files_only=True,
            )
    except Exception as error:  # whatever a file of it holds that the stock classes did not expect
        raise _unloadable("model.unloadable", path, error) from None
    _check_keys(path, tts.model)
    speed_up(tts.model.speech_tokenizer.model.decoder)
    return tts


def load_speech_tokenizer(path: str | Path, device: torch.device | str = "cpu") -> SpeechTokenizer:
    """Load a model folder's codec in float32; raises `UserError` when it cannot be read."""
    folder = Path(path) / "speech_tokenizer"
    _refuse_code(folder)
    keep_freed_memory()
    qwen_tts = import_qwen_tts()
    try:
        with _quiet():
            tokenizer = qwen_tts.Qwen3TTSTokenizer.from_pretrained(
                str(folder), dtype=torch.float32, device_map=str(device), local_files_only=True
            )
    except Exception as error:  # as above
        raise _unloadable("model.no_codec", folder, error) from None
    # Its encoder looks up 32 codebooks one after another, and only the first 16 are read.
    tokenizer.model.encoder.config.num_quantizers = tokenizer.model.encoder_valid_num_quantizers
    speed_up(tokenizer.model.decoder)
    return cast(SpeechTokenizer, tokenizer)


def speaker_vector(tts: Tts, ref_audio: str | Path) -> Tensor:
    """Compute the speaker vector of a recording, `[D]` float32, as stock voice cloning does."""
    model = tts.model
    assert model.speaker_encoder is not None, "load the model with as_base=True"
    assert next(model.speaker_encoder.parameters()).dtype == torch.float32, "load it in float32"
    rate_hz = model.speaker_encoder_sample_rate
    try:
        samples, _ = read_mono(ref_audio, rate_hz)
    except AudioError as error:
        raise user_error("model.unreadable_voice", ref_audio, error=error) from None
    vector = model.extract_speaker_embedding(audio=samples, sr=rate_hz).float()
    if not bool(torch.isfinite(vector).all()):
        raise user_error("model.no_voice", ref_audio)
    return vector.clone()  # outside inference mode, so that autograd accepts it


def weight_files(path: str | Path) -> dict[str, Path]:
    """Map every tensor of a model folder to the safetensors file that holds it."""
    found: dict[str, Path] = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as stream:
                found.update(dict.fromkeys(stream.keys(), file))
        except (OSError, SafetensorError) as error:
            raise _unloadable("model.torn_weights", file, error) from None
    return found


def _refuse_code(folder: Path) -> None:
    """Refuse a folder whose weights are pickles, or whose configs bring code of their own."""
    pickles = sorted(p.name for p in folder.glob("*") if p.suffix in PICKLES)
    if pickles and not any(folder.glob("*.safetensors")):
        raise user_error("model.pickles", folder, names=", ".join(pickles[:4]))
    for file in sorted(folder.glob("*config.json")):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, RecursionError):
            continue  # the stock class says what is wrong with it
        refuse_code(file, values)


def _unloadable(kind: str, path: Path, error: Exception) -> Exception:
    """Return what is raised for a folder that the stock classes refuse; a lack of memory stays."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return error
    return user_error(kind, path, kind=type(error).__name__, error=error)


def _check_keys(path: Path, model: nn.Module) -> None:
    """Refuse a folder whose weights do not fill the model: missing ones would be random."""
    missing = sorted(set(model.state_dict()) - set(weight_files(path)))
    if missing:
        shown = ", ".join(missing[:4]) + (" …" if len(missing) > 4 else "")
        raise user_error("model.missing_weights", path, count=len(missing), shown=shown)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's load-time notes; what matters is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
