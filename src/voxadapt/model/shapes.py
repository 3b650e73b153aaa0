"""Sizes and configs of the released models, for planning where their weights are not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

#: Text tokens by id, as in the vocabulary of the released models.
TEXT_IDS = {
    "assistant": 77091, "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645,
    "<tts_pad>": 151671, "<tts_text_bos>": 151672, "<tts_text_eod>": 151673,
}  # fmt: skip
CODEC_IDS = {
    "codec_pad_id": 2148, "codec_bos_id": 2149, "codec_eos_token_id": 2150,
    "codec_think_id": 2154, "codec_nothink_id": 2155, "codec_think_bos_id": 2156,
    "codec_think_eos_id": 2157,
}  # fmt: skip
LANGUAGES = {
    "english": 2050, "german": 2053, "spanish": 2054, "chinese": 2055, "japanese": 2058,
    "french": 2061, "korean": 2064, "russian": 2069, "italian": 2070, "portuguese": 2071,
}  # fmt: skip
SAMPLE_RATE_HZ = 24_000
CODEBOOK_SIZE, NUM_CODEBOOKS = 2048, 16


@dataclass(frozen=True)
class Shape:
    """Sizes in which models of the family differ; vocabularies and ids are the same in all."""

    size: str  # `tts_model_size` in the config
    hidden: int  # width of the talker, and of the speaker vector
    intermediate: int  # width of its feed-forward layers
    num_layers: int = 28  # its layers
    num_heads: int = 16  # its attention heads
    num_kv_heads: int = 8  # its key and value heads
    head_dim: int = 128  # width of a head; a multiple of 16
    text_hidden: int = 2048  # width of the text embedding
    predictor_hidden: int = 1024  # width of the code predictor
    predictor_intermediate: int = 3072  # width of its feed-forward layers
    predictor_layers: int = 5  # its layers
    text_vocab: int = 151_936  # rows of the text embedding
    encoder_channels: int = 512  # width of the speaker encoder's blocks


#: The released models.
SHAPES: Mapping[str, Shape] = {
    "0.6B": Shape("0b6", hidden=1024, intermediate=3072),
    "1.7B": Shape("1b7", hidden=2048, intermediate=6144),
}


def config_values(shape: Shape, dtype: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """Return the `config.json` of a Base model."""
    common = {"num_code_groups": NUM_CODEBOOKS, "rope_theta": 1_000_000, "rms_norm_eps": 1e-6}
    heads = {
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
    }
    half = shape.head_dim // 2  # shared by time, height and width as 24 : 20 : 20
    section = [half - 2 * (half * 5 // 16), half * 5 // 16, half * 5 // 16]
    width = shape.encoder_channels
    return {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": shape.size,
        "tts_model_type": "base",
        "dtype": str(dtype).removeprefix("torch."),
        "im_start_token_id": TEXT_IDS["<|im_start|>"],
        "im_end_token_id": TEXT_IDS["<|im_end|>"],
        "assistant_token_id": TEXT_IDS["assistant"],
        "tts_pad_token_id": TEXT_IDS["<tts_pad>"],
        "tts_bos_token_id": TEXT_IDS["<tts_text_bos>"],
        "tts_eos_token_id": TEXT_IDS["<tts_text_eod>"],
        "talker_config": {
            **common,
            **heads,
            **CODEC_IDS,
            "vocab_size": CODEBOOK_SIZE + 1024,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.num_layers,
            "text_vocab_size": shape.text_vocab,
            "text_hidden_size": shape.text_hidden,
            "max_position_embeddings": 32_768,
            "rope_scaling": {
                "rope_type": "default", "type": "default", "mrope_section": section,
                "interleaved": True,
            },
            "codec_language_id": dict(LANGUAGES),
            "spk_id": {},
            "spk_is_dialect": {},
            "code_predictor_config": {
                **common,
                **heads,
                "vocab_size": CODEBOOK_SIZE,
                "hidden_size": shape.predictor_hidden,
                "intermediate_size": shape.predictor_intermediate,
                "num_hidden_layers": shape.predictor_layers,
                "max_position_embeddings": 65_536,
            },
        },
        "speaker_encoder_config": {
            "enc_dim": shape.hidden,
            "enc_channels": [width] * 4 + [3 * width],
            "sample_rate": SAMPLE_RATE_HZ,
        },
    }  # fmt: skip
