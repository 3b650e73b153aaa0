"""What clips, batches and models weigh, counted without loading a model.

Parameters are read from the header of the weights, or, where a model is not here, taken from the
stock class on torch's meta device, which holds shapes only.

Shape legend: B rows, L positions, M frames, D width, I feed-forward width, Q and G widths of all
query heads and of all key heads.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from voxadapt.core.params import LoraParams, TrainParams
from voxadapt.core.records import Record
from voxadapt.core.tensor_headers import read_header

FRAME_RATE_HZ = 12.5  # of the codec
TEXT_EMBEDDING = "talker.model.text_embedding.weight"
_FIXED_TEXT_TOKENS = 6  # that every sequence has: a turn's role, padding, begin and end
_FIXED_POSITIONS = 11  # of a training sequence, besides its text, its frames and a language tag

Precision = Literal["float32", "autocast", "bfloat16"]


@dataclass(frozen=True)
class Clip:
    """What a clip weighs: text tokens, codec frames, positions of its training sequence."""

    split: str
    num_text_tokens: int
    num_frames: int
    num_positions: int


@dataclass(frozen=True)
class BatchShape:
    """A right-padded batch."""

    num_rows: int  # B
    length: int  # L, padding included
    num_frames: int  # M, padding not included


@dataclass(frozen=True)
class Stack:
    """Sizes of the talker's or of the code predictor's layers."""

    width: int
    inner: int
    num_layers: int
    queries: int
    keys: int

    @classmethod
    def from_config(cls, config: Record) -> Stack:
        """Read them from a section of a `config.json`."""
        sizes = (config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
        heads = (config[key] for key in ("num_attention_heads", "num_key_value_heads"))
        return cls(*sizes, *(num * config["head_dim"] for num in heads))

    @property
    def matrix_params(self) -> int:
        """Weights of one layer's products."""
        attention = self.width * (2 * self.queries + 2 * self.keys)
        return attention + 3 * self.width * self.inner

    @property
    def adapter_params(self) -> int:
        """Weights of an adapter of rank 1 on one layer's products."""
        return 7 * self.width + 2 * self.queries + 2 * self.keys + 3 * self.inner

    def kept_bytes(self, precision: Precision) -> int:
        """Return what autograd keeps of one position in one layer."""
        D, I, Q, G = self.width, self.inner, self.queries, self.keys  # noqa: E741
        if precision == "float32":
            # two norms (input, scaled, output), heads (product, scaled, turned), attention
            return 24 * D + 16 * Q + 16 * G + 16 * I
        heads = 10 * Q + 10 * G
        norms = 16 if precision == "bfloat16" else 26  # autocast: the sums stay in float32
        return norms * D + heads + 8 * I


@dataclass(frozen=True)
class Codec:
    """What the codec weighs: bytes of float32 weights; channels at the full rate of the audio."""

    num_bytes: int
    encoder_width: int
    decoder_width: int


@dataclass(frozen=True)
class Model:
    """What the prediction needs to know of a model."""

    talker: Stack
    predictor: Stack
    num_codebooks: int  # K
    codebook_size: int  # C
    codec_vocab: int  # V
    text_width: int
    counts: dict[str, tuple[int, bool]]  # parameters by name, and whether they are trained
    codec: Codec

    @classmethod
    def from_config(
        cls, values: Record, frozen: Sequence[str], codec: Codec, folder: Path | None = None
    ) -> Model:
        """Count the parameters of a model.

        Without a folder of its weights it is built, which takes seconds.
        """
        sizes = _built_sizes(values) if folder is None else _stored_sizes(folder)
        prefixes = tuple(f"{prefix}." for prefix in (*frozen, "speaker_encoder"))
        counts = {n: (size, not f"{n}.".startswith(prefixes)) for n, size in sizes.items()}
        talker = values["talker_config"]
        predictor = talker["code_predictor_config"]
        stacks = Stack.from_config(talker), Stack.from_config(predictor)
        codes = talker["num_code_groups"], predictor["vocab_size"], talker["vocab_size"]
        return cls(*stacks, *codes, talker["text_hidden_size"], counts, codec)

    @property
    def num_params(self) -> int:
        """All parameters."""
        return sum(count for count, _ in self.counts.values())

    @property
    def num_trained(self) -> int:
        """Those that are trained."""
        return sum(count for count, trained in self.counts.values() if trained)

    def with_adapter(self, lora: LoraParams) -> Model:
        """Return the model with an adapter, which is all that is trained."""
        counts = {name: (count, False) for name, (count, _) in self.counts.items()}
        for target, prefix, stack in (
            ("talker", "talker.model.layers.", self.talker),
            ("code_predictor", "talker.code_predictor.", self.predictor),
        ):
            if target in lora.targets:
                count = lora.rank * stack.adapter_params * stack.num_layers
                counts[f"{prefix}lora"] = (count, True)
        return replace(self, counts=counts)

    def updated(self, full: bool, num_text_rows: int | None) -> dict[str, int]:
        """Count by name what the optimizer holds.

        With float32 masters (`full`) only the rows of the text embedding that occur are held.
        """
        held = {name: count for name, (count, trained) in self.counts.items() if trained}
        if full and num_text_rows is not None and TEXT_EMBEDDING in held:
            rows = num_text_rows * self.text_width
            held[TEXT_EMBEDDING] = min(rows, held[TEXT_EMBEDDING])
        return held


def precision_of(params: TrainParams) -> Precision:
    """Return how a run computes."""
    without_masters = not params.master_weights or params.method == "lora"
    if params.low_memory or (without_masters and params.compute_dtype == "bfloat16"):
        return "bfloat16"
    return "autocast" if params.compute_dtype == "bfloat16" else "float32"


def text_rows(clips: Sequence[Clip]) -> int:
    """Return how many text tokens occur at most."""
    return sum(clip.num_text_tokens for clip in clips) + _FIXED_TEXT_TOKENS


def num_positions(num_text_tokens: int, num_frames: int, tagged: bool = False) -> int:
    """Return the length of a training sequence; a language tag takes one position more."""
    return num_text_tokens + num_frames + _FIXED_POSITIONS + tagged


def _stored_sizes(folder: Path) -> dict[str, int]:
    """Count parameters by name from the headers of a folder's weights."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        entries, _ = read_header(path)
        found |= {name: math.prod(entry["shape"]) for name, entry in entries.items()}
    return found


def _built_sizes(values: Record) -> dict[str, int]:
    """Count parameters by name from the stock class."""
    import torch

    from voxadapt.core.compat import import_qwen_tts

    import_qwen_tts()
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

    config = Qwen3TTSConfig(**copy.deepcopy(values))
    for field in ("codec_language_id", "spk_id", "spk_is_dialect"):
        if getattr(config.talker_config, field) is None:
            setattr(config.talker_config, field, {})
    config.tts_model_type = "base"
    with torch.device("meta"):
        model = Qwen3TTSForConditionalGeneration(config)
    return {name: parameter.numel() for name, parameter in model.named_parameters()}
