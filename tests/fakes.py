"""Tiny stand-ins in the stock layout, built on the spot; random weights, real classes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile as sf

from voxadapt.core.compat import import_qwen_tts
from voxadapt.data.manifest import Utterance

if TYPE_CHECKING:
    from voxadapt.model.tokens import SpecialIds

HIDDEN = 32
CODEBOOK_SIZE = 32
NUM_CODEBOOKS = 4
SAMPLE_RATE_HZ = 24_000
HOP = 1_920

_SPECIALS = ["<|im_start|>", "<|im_end|>", "<tts_pad>", "<tts_bos>", "<tts_eos>"]


@dataclass(frozen=True)
class TinyShape:
    """What differs between the fake models.

    Attributes:
        text_hidden: Width of the text embedding; the talker's is 32.
        predictor_hidden: Width of the code predictor; unequal to 32 adds its projection.
        speakers: Speakers that the model already has.
        dtype: Type of the stored weights.
    """

    text_hidden: int = 24
    predictor_hidden: int = 16
    speakers: tuple[tuple[str, int], ...] = ()
    dtype: str = "float32"


def make_tts(folder: Path, shape: TinyShape = TinyShape(), seed: int = 0) -> Path:
    """Write a tiny random Base model with codec and text tokenizer, and return its folder."""
    import torch

    folder = Path(folder)
    tokenizer = _text_tokenizer()
    tokenizer.save_pretrained(folder)
    (folder / "speech_tokenizer").mkdir(parents=True, exist_ok=True)
    make_codec(folder / "speech_tokenizer", seed)
    import_qwen_tts()
    from qwen_tts.core.models import Qwen3TTSForConditionalGeneration

    config = tts_config(shape, tokenizer)
    torch.manual_seed(seed)
    model = Qwen3TTSForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "speaker_encoder" not in name:
                # Wide enough that a wrong input visibly moves the logits.
                parameter.normal_(0.0, 1.0 if "embedding" in name else parameter.shape[1] ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.3)
        model.talker.model.codec_embedding.weight[900:1000] *= 1e-3  # free rows are near zero
    dtype = getattr(torch, shape.dtype)
    model.config.dtype = dtype
    model.to(dtype).save_pretrained(folder)
    _mend_config(folder / "config.json")
    (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": 64}))
    return folder


def _mend_config(path: Path) -> None:
    """Drop what `save_pretrained` adds to the speaker encoder's config and it cannot read back."""
    values = json.loads(path.read_text())
    encoder = values["speaker_encoder_config"]
    keep = ("mel_dim", "sample_rate")
    values["speaker_encoder_config"] = {
        k: v for k, v in encoder.items() if k.startswith("enc_") or k in keep
    }
    path.write_text(json.dumps(values, indent=2))


def tts_config(shape: TinyShape, tokenizer: Any) -> Any:
    """Return the config of the fake model; ids come from the tokenizer and the sizes above."""
    import_qwen_tts()
    from qwen_tts.core.models import Qwen3TTSConfig

    first = CODEBOOK_SIZE
    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in _SPECIALS}
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "interleaved": True}
    common = {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "num_code_groups": NUM_CODEBOOKS,
    }
    return Qwen3TTSConfig(
        talker_config={
            **common,
            "code_predictor_config": {
                **common,
                "vocab_size": CODEBOOK_SIZE,
                "hidden_size": shape.predictor_hidden,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
            },
            "vocab_size": CODEBOOK_SIZE + 1024,
            "text_vocab_size": len(tokenizer) + 8,
            "hidden_size": HIDDEN,
            "text_hidden_size": shape.text_hidden,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "rope_scaling": rope,
            "codec_pad_id": first + 100,
            "codec_bos_id": first + 101,
            "codec_eos_token_id": first + 102,
            "codec_think_id": first + 103,
            "codec_nothink_id": first + 104,
            "codec_think_bos_id": first + 105,
            "codec_think_eos_id": first + 106,
            "codec_language_id": {"english": first + 2, "german": first + 5},
            "spk_id": dict(shape.speakers),
            "spk_is_dialect": {name: False for name, _ in shape.speakers},
        },
        speaker_encoder_config={
            "enc_dim": HIDDEN,
            "enc_channels": [8, 8, 8, 8, 24],
            "enc_attention_channels": 4,
            "enc_res2net_scale": 2,
            "enc_se_channels": 4,
        },
        tokenizer_type="qwen3_tts_tokenizer_12hz",
        tts_model_size="0b6",
        tts_model_type="base",
        im_start_token_id=ids["<|im_start|>"],
        im_end_token_id=ids["<|im_end|>"],
        tts_pad_token_id=ids["<tts_pad>"],
        tts_bos_token_id=ids["<tts_bos>"],
        tts_eos_token_id=ids["<tts_eos>"],
    )


def make_ids() -> SpecialIds:
    """Return special ids without building a model."""
    from voxadapt.model.tokens import SpecialIds

    return SpecialIds(
        im_start=300, im_end=301, tts_pad=302, tts_bos=303, tts_eos=304,
        codec_pad=132, codec_bos=133, codec_eos=134, think=135, nothink=136,
        think_bos=137, think_eos=138, num_codebooks=NUM_CODEBOOKS, codebook_size=CODEBOOK_SIZE,
        codec_vocab_size=CODEBOOK_SIZE + 1024, languages={"english": 34, "german": 37}, speakers={},
    )  # fmt: skip


def make_codec(folder: Path, seed: int = 0) -> Path:
    """Write a tiny random codec with codes that differ between frames."""
    import torch

    import_qwen_tts()
    from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model
    from transformers import EncodecFeatureExtractor

    config = Qwen3TTSTokenizerV2Config(
        encoder_config={
            "sampling_rate": SAMPLE_RATE_HZ,
            "num_filters": 4,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 32,
            "upsampling_ratios": [8, 6, 5, 4],
            "codebook_size": CODEBOOK_SIZE,
            "codebook_dim": 8,
            "vector_quantization_hidden_dimension": 8,
            "num_quantizers": NUM_CODEBOOKS,
            "upsample_groups": 32,
            "layer_scale_initial_scale": 0.3,
        },
        decoder_config={
            "codebook_size": CODEBOOK_SIZE,
            "codebook_dim": 16,
            "num_quantizers": NUM_CODEBOOKS,
            "hidden_size": 16,
            "latent_dim": 16,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "decoder_dim": 32,
            "upsample_rates": [8, 5, 4, 3],
            "upsampling_ratios": [2, 2],
        },
        encoder_valid_num_quantizers=NUM_CODEBOOKS,
    )
    torch.manual_seed(seed)
    model = Qwen3TTSTokenizerV2Model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:  # unit gain, or the latents vanish
                parameter.normal_(0.0, float(parameter[0].numel()) ** -0.5)
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("embed_sum"):
                buffer.normal_(0.0, 0.5)
        for name, parameter in model.named_parameters():
            if name.endswith("embedding_sum"):
                parameter.normal_(0.0, 0.5)
    model.save_pretrained(folder)
    EncodecFeatureExtractor(
        feature_size=1, sampling_rate=SAMPLE_RATE_HZ, padding_value=0.0
    ).save_pretrained(folder)
    return folder


def make_codes(num_frames: int, seed: int) -> np.ndarray:
    """Return random codes `[N, K]` int16 whose codec_0 never repeats within 32 frames."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, CODEBOOK_SIZE, (num_frames, NUM_CODEBOOKS))
    order = np.concatenate([rng.permutation(CODEBOOK_SIZE) for _ in range(num_frames // 32 + 1)])
    codes[:, 0] = order[:num_frames]
    return codes.astype(np.int16)


def make_wav(path: Path, duration_s: float, seed: int = 0, sample_rate_hz: int = 24_000) -> Path:
    """Write a clip of vowel-like tones in noise."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(duration_s * sample_rate_hz)) / sample_rate_hz
    tones = sum(
        np.sin(2 * np.pi * rng.uniform(100, 900) * time_s + rng.uniform(0, 6)) for _ in range(4)
    )
    samples = 0.1 * tones * (1 + np.sin(2 * np.pi * 3 * time_s)) + rng.normal(0, 0.01, len(time_s))
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, samples.astype(np.float32), sample_rate_hz)
    return path


def make_utterance(name: str, text: str, split: str = "train", **fields: Any) -> Utterance:
    """Return an accepted utterance."""
    values = {
        "id": name,
        "audio": f"clips/{name}.wav",
        "text": text,
        "ref_audio": "ref.wav",
        "language": None,
        "duration_s": 1.0,
        "sample_rate_hz": 24_000,
        "audio_sha256": hashlib.sha256(name.encode()).hexdigest(),
        "split": split,
    }
    return Utterance(**{**values, **fields})


def _text_tokenizer() -> Any:
    """Return a byte-level tokenizer in which `assistant` is one token, as inference needs."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2TokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in _SPECIALS])
    core.add_tokens([AddedToken("assistant")])
    return Qwen2TokenizerFast(
        tokenizer_object=core, pad_token="<|im_end|>", eos_token="<|im_end|>", unk_token=None
    )


def changed_tensors(base_dir: str | Path, other_dir: str | Path) -> list[str]:
    """List the tensors that differ between two model folders in type, shape or any bit, by name."""

    import torch

    from voxadapt.model.checkpoint import iterate_weights

    def looks(folder: str | Path) -> dict[str, tuple[object, ...]]:
        return {
            name: (value.dtype, value.shape, value.reshape(-1).view(torch.uint8).tolist())
            for name, value in iterate_weights(folder)
        }

    ours, theirs = looks(base_dir), looks(other_dir)
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
