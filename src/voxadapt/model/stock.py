"""Types of the stock `qwen_tts` classes, as far as this package uses them.

Declarations for readers and for mypy: nothing here is instantiated. `load.py` returns the stock
objects under these names.

Shape legend: N frames, K codebooks, D width of the talker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn


class PredictorConfig(Protocol):
    """`Qwen3TTSTalkerCodePredictorConfig`."""

    vocab_size: int


class TalkerConfig(Protocol):
    """`Qwen3TTSTalkerConfig`."""

    hidden_size: int
    vocab_size: int
    num_code_groups: int
    code_predictor_config: PredictorConfig
    codec_pad_id: int
    codec_bos_id: int
    codec_eos_token_id: int
    codec_think_id: int
    codec_nothink_id: int
    codec_think_bos_id: int
    codec_think_eos_id: int
    codec_language_id: Mapping[str, int] | None
    spk_id: Mapping[str, int] | None


class Config(Protocol):
    """`Qwen3TTSConfig`."""

    talker_config: TalkerConfig
    im_start_token_id: int
    im_end_token_id: int
    tts_pad_token_id: int
    tts_bos_token_id: int
    tts_eos_token_id: int


class RmsNorm(nn.Module):
    """`Qwen3TTSRMSNorm`."""

    weight: nn.Parameter
    variance_epsilon: float


class Attention(nn.Module):
    """Self-attention of the talker or the code predictor."""

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear
    q_norm: RmsNorm
    k_norm: RmsNorm
    head_dim: int
    scaling: float


class FeedForward(nn.Module):
    """Feed-forward block of the talker or the code predictor."""

    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear
    act_fn: Callable[[Tensor], Tensor]


class DecoderLayer(nn.Module):
    """Decoder layer of the talker or the code predictor."""

    self_attn: Attention
    mlp: FeedForward
    input_layernorm: RmsNorm
    post_attention_layernorm: RmsNorm


class Rotary(nn.Module):
    """Rotary position embedding."""

    inv_freq: Tensor
    attention_scaling: float


class Decoder(nn.Module):
    """`Qwen3TTSTalkerModel` or `Qwen3TTSTalkerCodePredictorModel`."""

    layers: nn.ModuleList
    norm: RmsNorm
    rotary_emb: Rotary
    text_embedding: nn.Embedding
    codec_embedding: nn.Embedding


class CodePredictor(nn.Module):
    """`Qwen3TTSTalkerCodePredictorModelForConditionalGeneration`."""

    model: Decoder
    small_to_mtp_projection: nn.Module
    get_input_embeddings: Callable[[], Sequence[nn.Embedding]]  # of codebooks 1 … K-1
    get_output_embeddings: Callable[[], Sequence[nn.Linear]]


class Talker(nn.Module):
    """`Qwen3TTSTalkerForConditionalGeneration`."""

    config: TalkerConfig
    device: torch.device
    model: Decoder
    text_projection: nn.Module
    codec_head: nn.Linear
    code_predictor: CodePredictor
    get_text_embeddings: Callable[[], nn.Embedding]
    get_input_embeddings: Callable[[], nn.Embedding]  # of codebook 0 and the special codec ids
    generate: Callable[..., object]


class TtsModel(nn.Module):
    """`Qwen3TTSForConditionalGeneration`."""

    config: Config
    dtype: torch.dtype
    tts_model_type: str
    tts_model_size: str
    talker: Talker
    speaker_encoder: nn.Module | None
    speaker_encoder_sample_rate: int
    speech_tokenizer: SpeechTokenizer
    gradient_checkpointing_enable: Callable[[dict[str, bool]], None]
    extract_speaker_embedding: Callable[..., Tensor]  # `[D]`, of samples and their rate
    generate: Callable[..., tuple[list[Tensor], object]]


class Processor(Protocol):
    """The text processor; its ids are those of the talker's text embedding."""

    tokenizer: Tokenizer

    def __call__(self, *, text: list[str]) -> Mapping[str, list[list[int]]]:
        """Return `input_ids` of each text."""


class Tokenizer(Protocol):
    """The text tokenizer."""

    decode: Callable[[list[int]], str]

    def __call__(self, text: str) -> Mapping[str, list[int]]:
        """Return `input_ids` of a text."""


class ClonePrompt(Protocol):
    """One item of `create_voice_clone_prompt`."""

    ref_text: str | None
    x_vector_only_mode: bool


Sound = tuple[list[np.ndarray], int]  # mono float32 samples of each clip, and their rate in hertz


class Tts(Protocol):
    """`Qwen3TTSModel`: model, text processor and the calls that speak."""

    model: TtsModel
    processor: Processor
    device: torch.device

    _build_assistant_text: Callable[[str], str]
    _tokenize_texts: Callable[[list[str]], list[Tensor]]
    get_supported_languages: Callable[[], list[str] | None]
    get_supported_speakers: Callable[[], list[str] | None]
    generate_custom_voice: Callable[..., Sound]
    generate_voice_clone: Callable[..., Sound]
    create_voice_clone_prompt: Callable[..., list[ClonePrompt]]


class Encoded(Protocol):
    """What the codec's encoder returns."""

    audio_codes: list[Tensor]  # `[N, K]` of each clip


class Codec(nn.Module):
    """`Qwen3TTSTokenizerV2Model`."""

    decoder: nn.Module


class SpeechTokenizer(Protocol):
    """`Qwen3TTSTokenizer`, the codec."""

    model: Codec
    device: torch.device
    decode: Callable[[Sequence[Mapping[str, Tensor]]], Sound]

    encode: Callable[..., Encoded]  # of samples and their rate
    get_input_sample_rate: Callable[[], int]
    get_output_sample_rate: Callable[[], int]
    get_encode_downsample_rate: Callable[[], int]
    get_decode_upsample_rate: Callable[[], int]
