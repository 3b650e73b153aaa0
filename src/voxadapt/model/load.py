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
from voxadapt.core.errors import UserError
from voxadapt.core.model_folder import read_config, refuse_code
from voxadapt.data.audio import AudioError, read_mono
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

    Args:
        path: Folder in the layout of `qwen_tts`.
        device: Where the weights go.
        dtype: Type of the weights in memory.
        attention: `sdpa`, `eager` or `flash_attention_2`.
        as_base: Load a fine-tuned checkpoint as the Base model it came from, with its speaker
            encoder, so that it clones voices and can be trained further.

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
        raise _unloadable(path, "a config that qwen_tts understands", error) from None
    for field in ("codec_language_id", "spk_id", "spk_is_dialect"):
        # The stock class iterates over these although its config allows null.
        if getattr(config.talker_config, field) is None:
            setattr(config.talker_config, field, {})
    if as_base:
        if not any(name.startswith("speaker_encoder.") for name in weight_files(path)):
            expected = "speaker_encoder weights, to clone voices or train further"
            fix = (
                "Let model.speaker_encoder name the Base of the same size, or use a checkpoint "
                "that VoxAdapt exported, or a Base."
            )
            title = "The checkpoint cannot be loaded as a Base model."
            raise UserError.of(path, expected, "none", fix, title)
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
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        raise _unloadable(path, "a model folder that qwen_tts can load", error) from None
    _check_keys(path, tts.model)
    return tts


def load_speech_tokenizer(path: str | Path, device: torch.device | str = "cpu") -> SpeechTokenizer:
    """Load the codec of a model folder in float32.

    Raises:
        UserError: When it is missing or unreadable.
    """
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
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        expected = "the codec: config.json, preprocessor_config.json and model.safetensors"
        raise _unloadable(folder, expected, error, "The codec cannot be loaded.") from None
    # Its encoder looks up 32 codebooks one after another, and only the first 16 are read.
    tokenizer.model.encoder.config.num_quantizers = tokenizer.model.encoder_valid_num_quantizers
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
        raise UserError.of(
            ref_audio, "readable audio", str(error), "Restore or re-encode the file."
        ) from None
    vector = model.extract_speaker_embedding(audio=samples, sr=rate_hz).float()
    if not bool(torch.isfinite(vector).all()):
        expected = "a recording with a finite speaker vector"
        fix = "Use another ref_audio: 3-10 s of clean speech."
        raise UserError.of(ref_audio, expected, "NaN or infinity", fix)
    return vector.clone()  # outside inference mode, so that autograd accepts it


def weight_files(path: str | Path) -> dict[str, Path]:
    """Map every tensor of a model folder to the safetensors file that holds it."""
    found: dict[str, Path] = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as stream:
                found.update(dict.fromkeys(stream.keys(), file))
        except (OSError, SafetensorError) as error:
            raise _unloadable(file, "a whole safetensors file", error) from None
    return found


def _refuse_code(folder: Path) -> None:
    """Refuse a folder whose weights are pickles, or whose configs bring code of their own."""
    pickles = sorted(p.name for p in folder.glob("*") if p.suffix in PICKLES)
    if pickles and not any(folder.glob("*.safetensors")):
        expected = "weights as *.safetensors"
        found = f"{', '.join(pickles[:4])}, which can run code when it is read"
        fix = "Take the model's safetensors, or convert it where nothing can be harmed."
        raise UserError.of(folder, expected, found, fix, "The model was not loaded.")
    for file in sorted(folder.glob("*config.json")):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, RecursionError):
            continue  # the stock class says what is wrong with it
        refuse_code(file, values)


def _unloadable(
    path: Path, expected: str, error: Exception, title: str = "The model cannot be loaded."
) -> UserError:
    reason = " ".join(str(error).split())[:300]
    fix = "Restore or download the folder again; `voxadapt doctor` checks the installation."
    return UserError.of(path, expected, f"{type(error).__name__}: {reason}", fix, title)


def _check_keys(path: Path, model: nn.Module) -> None:
    """Refuse a folder whose weights do not fill the model: missing ones would be random."""
    missing = sorted(set(model.state_dict()) - set(weight_files(path)))
    if missing:
        shown = ", ".join(missing[:4]) + (" …" if len(missing) > 4 else "")
        expected = "weights for every parameter of the config"
        found = f"{len(missing)} missing ({shown})"
        fix = "Restore or download the folder again; config and weights must belong together."
        raise UserError.of(path, expected, found, fix, "The model is incomplete.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's load-time notes; what matters is checked here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
