"""Where the Base model lies, and what its config says; nothing here loads weights."""

import json
import re
from pathlib import Path
from typing import Any

from voxadapt.core.params import ModelParams
from voxadapt.core.problems import user_error
from voxadapt.core.speaker_encoder import with_speaker_encoder

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
        model = resolve_model(params.model_copy(update={"speaker_encoder": None}))
        base = resolve_model(ModelParams(base=params.speaker_encoder))
        encoder = read_config(base).get("speaker_encoder_config") or {}
        return with_speaker_encoder(model, read_config(model), base, encoder)
    folder = Path(params.base)
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(params.base):
        raise user_error("core.no_model", "model.base", base=params.base)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(params.base, revision=params.revision))
    except Exception as error:  # the hub client raises a dozen unrelated types
        at = f" at revision {params.revision}" if params.revision else ""
        facts = {"base": params.base, "at": at, "kind": type(error).__name__, "error": error}
        raise user_error("core.no_download", "model.base", **facts) from None


def refuse_code(where: str | Path, values: object) -> None:
    """Refuse a config, or a record that becomes one, that names code of its own."""
    left = [values]
    while left:
        item = left.pop()
        left += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        if isinstance(item, dict) and "auto_map" in item:
            raise user_error("core.own_code", where)


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the config.json of a model folder; raises `UserError` for another kind of model."""
    file = Path(path) / "config.json"
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind = values.get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise user_error("core.no_config", file, error=error) from None
    found = values.get("tts_model_type")
    if kind != "qwen3_tts" or found not in MODEL_TYPES:
        facts = {"known": ", ".join(MODEL_TYPES), "kind": kind, "found": found}
        raise user_error("core.other_model", file, **facts)
    refuse_code(file, values)
    return values
