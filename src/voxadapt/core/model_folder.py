"""Where the Base model lies, and what its config says; nothing here loads weights."""

import json
import re
from pathlib import Path
from typing import Any

from voxadapt.core.errors import UserError
from voxadapt.core.params import ModelParams

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
DELTA = "delta.safetensors"  # in the folder of a delta
MODEL_TYPES = ("base", "custom_voice", "voice_design")


def resolve_model(params: ModelParams) -> Path:
    """Return the local folder of the Base model, fetched from the hub if need be.

    A CustomVoice model comes with the speaker encoder of the Base that `speaker_encoder` names.

    Raises:
        UserError: When the weights are neither here nor fetched, or do not fit together.
    """
    if params.speaker_encoder is not None:
        from voxadapt.core.speaker_encoder import with_speaker_encoder

        alone = params.model_copy(update={"speaker_encoder": None})
        base = ModelParams(base=params.speaker_encoder)
        return with_speaker_encoder(resolve_model(alone), resolve_model(base))
    folder = Path(params.base)
    if folder.is_dir():
        return folder
    hint = "Set model.base to a folder with config.json, model.safetensors and speech_tokenizer/."
    if not _HUB_ID.fullmatch(params.base):
        expected = "a model folder, or a hub id such as Qwen/Qwen3-TTS-12Hz-1.7B-Base"
        found = f"{params.base} (no such folder)"
        fix = f"Restore it with `dvc pull`, or correct the path. {hint}"
        raise UserError.of("model.base", expected, found, fix, "The Base model was not found.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(params.base, revision=params.revision))
    except Exception as error:  # the hub client raises a dozen unrelated types
        at = f" at revision {params.revision}" if params.revision else ""
        reason = " ".join(str(error).split())[:200]
        raise UserError.of(
            "model.base",
            f"the weights of {params.base}{at}, from https://huggingface.co/{params.base}",
            f"no local copy, and the download failed ({type(error).__name__}: {reason})",
            f"Check the network, or copy the files from another machine. {hint}",
            "The Base model could not be fetched.",
        ) from None


def refuse_code(where: str | Path, values: object) -> None:
    """Refuse a config, or a record that becomes one, that names code of its own."""
    left = [values]
    while left:
        item = left.pop()
        left += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        if isinstance(item, dict) and "auto_map" in item:
            expected = "a config of the stock classes"
            found = "auto_map, which names Python code in the model folder"
            fix = "Remove that entry, or take another copy of the model: no such code is run."
            raise UserError.of(where, expected, found, fix, "The model was not loaded.")


def read_config(path: str | Path) -> dict[str, Any]:
    """Read and check the config.json of a model folder.

    Raises:
        UserError: When it is missing, unreadable, of another kind of model, or names code.
    """
    file = Path(path) / "config.json"
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind = values.get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        found, fix = " ".join(str(error).split()), "Point model.base to a complete model folder."
        raise UserError.of(file, "the config of a Qwen3-TTS model", found, fix) from None
    if kind != "qwen3_tts" or values.get("tts_model_type") not in MODEL_TYPES:
        raise UserError.of(
            file,
            f"model_type qwen3_tts and a tts_model_type of {', '.join(MODEL_TYPES)}",
            f"{kind!r} and {values.get('tts_model_type')!r}",
            "Point model.base to a Qwen3-TTS model.",
        )
    refuse_code(file, values)
    return values
