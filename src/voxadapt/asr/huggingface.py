"""A Whisper in Hugging Face form, as fine-tuning leaves it, read as openai-whisper's model.

The weights are the same under other names. Only `config.json` and the weights are read: no code of
the folder runs, and pickled weights are read as tensors alone.
"""

import json
import re
from functools import partial
from pathlib import Path
from typing import Final

import torch
import whisper
from safetensors import SafetensorError
from safetensors.torch import load_file

from voxadapt.core.errors import reason
from voxadapt.core.files import sha256_bytes, sha256_file
from voxadapt.core.problems import user_error

CONFIG = "config.json"
# One of these, or the index of its shards.
WEIGHTS = (
    "model.safetensors", "pytorch_model.bin", "model.fp32.safetensors", "model.fp16.safetensors"
)  # fmt: skip
HUB_FILES = [CONFIG, "model*.safetensors", "model.safetensors.index.json"]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?<!\.pt)(?<!\.pth)(?<!\.bin)")
NUM_TOKENS = {80: 51865, 128: 51866}  # by mel bands; rows beyond are tokens that a user added
DIMS: Final = {
    "n_mels": "num_mel_bins", "n_audio_ctx": "max_source_positions", "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads", "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size", "n_text_ctx": "max_target_positions", "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads", "n_text_layer": "decoder_layers",
}  # fmt: skip
PROJECTIONS: Final = {"q": "query", "k": "key", "v": "value", "out": "out"}
RENAMED: Final = (
    (r"^model\.", ""),
    (r"^(encoder|decoder)\.layers\.", r"\1.blocks."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.self_attn\.", ".attn."),
    (r"attn\.([qkv]|out)_proj\.", lambda match: f"attn.{PROJECTIONS[match[1]]}."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"\.embed_positions\.weight$", ".positional_embedding"),
    (r"\.embed_tokens\.", ".token_embedding."),
)


def is_folder(model: str) -> bool:
    """Tell whether a path is a folder in Hugging Face form, or what is left of one."""
    return Path(model).is_dir()


def fetch(hub_id: str) -> Path:
    """Return the folder of a model on the hub; raises `UserError` when it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=HUB_FILES))
        if not _weight_files(folder):
            folder = Path(snapshot_download(hub_id, allow_patterns=[CONFIG, "pytorch_model*"]))
        return folder
    except Exception as error:  # no network, no such model, no access: many classes
        raise user_error("asr.no_hub_model", f"asr.model: {hub_id}", error=error) from None


def load_folder(folder: Path, device: str = "cpu") -> tuple[whisper.Whisper, str]:
    """Load a Whisper in Hugging Face form; raises `UserError` for what is no whole one."""
    refuse = partial(user_error, "asr.no_folder", f"asr.model: {folder}")
    if (folder / "adapter_config.json").is_file() and not (folder / CONFIG).is_file():
        raise user_error("asr.adapter", f"asr.model: {folder}")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        dims = {ours: int(config[theirs]) for ours, theirs in DIMS.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise refuse(found=f"{CONFIG}: {type(error).__name__} {error}"[:160]) from None
    if config.get("model_type") != "whisper":
        raise refuse(found=f"a model of type {config.get('model_type')!r}")
    try:
        files = _weight_files(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise refuse(found=f"the index of the weights: {type(error).__name__}") from None
    if not files:
        raise refuse(found="no weights")
    try:
        weights = {name: value for file in files for name, value in _read(file).items()}
        dims["n_vocab"] = min(dims["n_vocab"], NUM_TOKENS.get(dims["n_mels"], dims["n_vocab"]))
        model = whisper.Whisper(whisper.ModelDimensions(**dims))
        model.load_state_dict(_renamed(weights, dims["n_vocab"]))
    except Exception as error:  # any content that is no such checkpoint
        raise refuse(found=f"{type(error).__name__}: {reason(error)}") from None
    sha = sha256_bytes("".join(sha256_file(file) for file in (folder / CONFIG, *files)).encode())
    return model.to(device), sha


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that hold the weights, inside the folder."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            return [folder / Path(shard).name for shard in sorted(shards)]
    return []


def _read(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file.name}: {error}") from None
    found: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return found


def _renamed(weights: dict[str, torch.Tensor], num_tokens: int) -> dict[str, torch.Tensor]:
    """Give weights the names that openai-whisper has for them, in float32."""
    renamed = {}
    for name, value in weights.items():
        for pattern, instead in RENAMED:
            name = re.sub(pattern, instead, name)
        if name != "proj_out.weight":  # tied to the embedding
            renamed[name] = value.float()
    embedding = "decoder.token_embedding.weight"
    renamed[embedding] = renamed[embedding][:num_tokens]
    return renamed
