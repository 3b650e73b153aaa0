"""Model folders at the real shapes with random weights: everything but what was learnt.

A model that was never trained says nothing, but it costs what the real one costs. Such a folder
loads with the stock class and goes through training, export and synthesis like a downloaded one,
so that memory and time can be measured where the weights are not.

The text tokenizer knows bytes only, under the ids of the real vocabulary: a text has one token a
byte, about four times as many as with the real one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.files import write_json
from voxadapt.model.checkpoint import new_folder
from voxadapt.model.shapes import (
    CODEBOOK_SIZE,
    CODEC_IDS,
    LANGUAGES,
    NUM_CODEBOOKS,
    SAMPLE_RATE_HZ,
    TEXT_IDS,
    Shape,
    config_values,
)

_SHARD_BYTES = 1 << 30
_STD = 0.02  # of matrices and embeddings, the initializer_range of the stock configs


def write_model(
    folder: str | Path,
    shape: Shape,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    codec: Literal["full", "small"] = "full",
    shard_bytes: int = _SHARD_BYTES,
) -> Path:
    """Write a Base model with random weights, in one piece, one shard in memory at a time.

    Args:
        folder: Where to write; replaced if it exists.
        shape: Sizes.
        seed: Of the weights; equal seeds give equal bytes.
        dtype: Type of the stored weights; the codec's are float32, as in the released models.
        codec: `full`: the codec's real sizes. `small`: one with codes of the same kind that costs
            next to nothing.
        shard_bytes: Largest weight file, single tensors excepted.
    """
    import_qwen_tts()
    from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

    values = config_values(shape, dtype)
    codec_config = Qwen3TTSTokenizerV2Config(**_codec_values(codec))
    with torch.device("meta"):
        model = Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**values))
        codec_model = Qwen3TTSTokenizerV2Model(codec_config)
    generator = torch.Generator().manual_seed(seed)
    with new_folder(Path(folder)) as new:
        _write_text_tokenizer(new)
        write_json(new / "config.json", values)
        write_json(new / "generation_config.json", {"max_new_tokens": 8192})
        _write_weights(new, _talker_weights(model, dtype, generator), shard_bytes)
        speech = new / "speech_tokenizer"
        speech.mkdir()
        codec_config.architectures = ["Qwen3TTSTokenizerV2Model"]
        codec_config.save_pretrained(speech)
        write_json(speech / "preprocessor_config.json", _PREPROCESSOR)
        _write_weights(speech, _codec_weights(codec_model, generator), shard_bytes)
    return Path(folder)


_PREPROCESSOR = {
    "feature_extractor_type": "EncodecFeatureExtractor",
    "chunk_length_s": None,
    "feature_size": 1,
    "overlap": None,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
    "sampling_rate": SAMPLE_RATE_HZ,
}


def _codec_values(codec: str) -> dict[str, Any]:
    """Return what the codec's config says beside the real sizes, the package's defaults."""
    if codec == "full":
        return {"encoder_config": {}, "decoder_config": {"codebook_dim": 512, "head_dim": 64}}
    return {
        "encoder_config": {
            "num_filters": 4, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "intermediate_size": 32, "codebook_dim": 8,
            "vector_quantization_hidden_dimension": 8, "upsample_groups": 32,
            "num_quantizers": NUM_CODEBOOKS,
        },
        "decoder_config": {
            "codebook_dim": 16, "hidden_size": 16, "latent_dim": 16, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 32,
            "num_hidden_layers": 1, "decoder_dim": 32,
        },
    }  # fmt: skip


def _talker_weights(
    model: nn.Module, dtype: torch.dtype, generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a Base model: those of an untrained one.

    Rows of the codec embedding that no id uses are near zero, as they are in the released models,
    where a free row is told by its norm.
    """
    used = [*CODEC_IDS.values(), *LANGUAGES.values()]
    for name, tensor in model.state_dict().items():
        if name.startswith("speaker_encoder.") and tensor.ndim > 1:
            value = _normal(tensor, _unit_gain(tensor), generator)
        elif tensor.ndim > 1:
            value = _normal(tensor, _STD, generator)
        else:
            value = torch.zeros(tensor.shape) if name.endswith("bias") else torch.ones(tensor.shape)
        if name == "talker.model.codec_embedding.weight":
            free = torch.ones(len(value), dtype=torch.bool)
            free[[*range(CODEBOOK_SIZE), *used]] = False
            value[free] *= 1e-3
        yield name, value.to(dtype)


def _codec_weights(model: nn.Module, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Yield weights of a codec whose latents neither vanish nor agree in all frames."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("embed_sum", "embedding_sum")):
            value = _normal(tensor, 0.5, generator)
        elif not tensor.is_floating_point():
            value = torch.ones(tensor.shape, dtype=tensor.dtype)
        elif tensor.ndim > 1:
            value = _normal(tensor, _unit_gain(tensor), generator)
        elif name.endswith("bias"):
            value = _normal(tensor, 0.1, generator)
        elif name.endswith((".alpha", ".beta")):  # of snake activations, kept as logarithms
            value = torch.zeros(tensor.shape)
        elif name.endswith(("scale", "gamma")):
            value = torch.full(tensor.shape, 0.3)
        else:
            value = torch.ones(tensor.shape)
        yield name, value


def _unit_gain(tensor: Tensor) -> float:
    return math.pow(tensor[0].numel(), -0.5)


def _normal(like: Tensor, std: float, generator: torch.Generator) -> Tensor:
    return torch.empty(like.shape).normal_(0.0, std, generator=generator)


def _write_weights(folder: Path, weights: Iterator[tuple[str, Tensor]], shard_bytes: int) -> None:
    """Write weights to one file, or to shards with their index when they exceed one."""
    shards: list[list[str]] = []
    pending: dict[str, Tensor] = {}
    total = held = 0

    def flush() -> None:
        save_file(pending, folder / f"part-{len(shards)}", metadata={"format": "pt"})
        shards.append(list(pending))
        pending.clear()

    for name, tensor in weights:
        size = tensor.numel() * tensor.element_size()
        if pending and held + size > shard_bytes:
            flush()
            held = 0
        pending[name] = tensor.contiguous()
        held, total = held + size, total + size
        del tensor
    flush()
    if len(shards) == 1:
        (folder / "part-0").rename(folder / "model.safetensors")
        return
    where: dict[str, str] = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"part-{number}").rename(folder / file)
        where |= dict.fromkeys(names, file)
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": where},
    )


def _write_text_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer with the real ids of bytes and special tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2TokenizerFast
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    characters = list(bytes_to_unicode().values())  # in the order of the real vocabulary
    names = dict(enumerate(characters))
    names |= {number: name for name, number in TEXT_IDS.items()}
    vocab = {names.get(n, f"<unused-{n}>"): n for n in range(max(names) + 1)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.Sequence(  # transformers replaces the first at loading
        [
            pre_tokenizers.Split(Regex(r"\s+|\S+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    special = [name for name in TEXT_IDS if name != "assistant"]
    core.add_special_tokens([AddedToken(name, special=True) for name in special])
    core.add_tokens([AddedToken("assistant")])
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=core, pad_token="<|endoftext|>", eos_token="<|im_end|>", unk_token=None
    )
    tokenizer.save_pretrained(folder)
