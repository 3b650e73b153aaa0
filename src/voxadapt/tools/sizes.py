"""What clips, batches and models weigh, counted without loading a model.

Parameters come from the stock class on torch's meta device, which holds shapes only. What takes
memory (`voxadapt.tools.plan`) and what takes time (`voxadapt.tools.timing`) is told from the same
counts.

Shape legend: B rows, L positions, M frames, D width, I feed-forward width, Q and G widths of all
query heads and of all key heads.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.params import TrainParams
from voxadapt.model.freezing import freeze
from voxadapt.model.layout import build_layout, collate
from voxadapt.model.tokens import SpecialIds
from voxadapt.training.occurring import TEXT_EMBEDDING

FRAME_RATE_HZ = 12.5  # of the codec
_FIXED_TEXT_TOKENS = 6  # that every sequence has: a turn's role, padding, begin and end

Precision = Literal["float32", "autocast", "bfloat16"]


@dataclass(frozen=True)
class Clip:
    """What a clip weighs.

    Attributes:
        split: `train`, `selection` or `confirmation`.
        num_text_tokens: Of its text.
        num_frames: Codec frames.
        num_positions: Of its training sequence.
    """

    split: str
    num_text_tokens: int
    num_frames: int
    num_positions: int


@dataclass(frozen=True)
class BatchShape:
    """A right-padded batch.

    Attributes:
        num_rows: B.
        length: L, padding included.
        num_frames: M, padding not included.
    """

    num_rows: int
    length: int
    num_frames: int


@dataclass(frozen=True)
class Stack:
    """Sizes of the talker's or of the code predictor's layers."""

    width: int
    inner: int
    num_layers: int
    queries: int
    keys: int

    @classmethod
    def from_config(cls, config: Any) -> Stack:
        """Read them from a stock config."""
        size = config.head_dim
        return cls(
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
            config.num_attention_heads * size,
            config.num_key_value_heads * size,
        )

    @property
    def matrix_params(self) -> int:
        """Weights of one layer's products."""
        attention = self.width * (2 * self.queries + 2 * self.keys)
        return attention + 3 * self.width * self.inner

    def kept_bytes(self, precision: Precision) -> int:
        """Return what autograd keeps of one position in one layer.

        Args:
            precision: Types of weights and products.
        """
        D, I, Q, G = self.width, self.inner, self.queries, self.keys  # noqa: E741
        if precision == "float32":
            # two norms (input, scaled, output), heads (product, scaled, turned), attention
            return 24 * D + 16 * Q + 16 * G + 16 * I
        heads = 10 * Q + 10 * G
        norms = 16 if precision == "bfloat16" else 26  # autocast: the sums stay in float32
        return norms * D + heads + 8 * I


@dataclass(frozen=True)
class Codec:
    """What the codec weighs.

    Attributes:
        num_bytes: Of its weights, float32.
        encoder_width: Channels of its encoder at the full rate of the audio.
        decoder_width: Channels of its decoder there.
    """

    num_bytes: int
    encoder_width: int
    decoder_width: int


@dataclass(frozen=True)
class Model:
    """What the prediction needs to know of a model.

    Attributes:
        config: Stock `Qwen3TTSConfig`.
        talker: Its layers.
        predictor: The code predictor's layers.
        counts: Parameters by name: how many, and whether they are trained.
        codec: Its codec.
    """

    config: Any
    talker: Stack
    predictor: Stack
    counts: dict[str, tuple[int, bool]]
    codec: Codec

    @classmethod
    def from_config(cls, values: dict[str, Any], frozen: Sequence[str], codec: Codec) -> Model:
        """Count the parameters of a `config.json`.

        Args:
            values: Its content.
            frozen: Module prefixes that are not trained.
            codec: The model's codec.
        """
        import_qwen_tts()
        from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

        config = Qwen3TTSConfig(**copy.deepcopy(values))
        for field in ("codec_language_id", "spk_id", "spk_is_dialect"):
            if getattr(config.talker_config, field) is None:
                setattr(config.talker_config, field, {})
        config.tts_model_type = "base"
        with torch.device("meta"):
            model = Qwen3TTSForConditionalGeneration(config)
        freeze(model, {*frozen, "speaker_encoder"})
        counts = {name: (p.numel(), p.requires_grad) for name, p in model.named_parameters()}
        talker = config.talker_config
        stacks = Stack.from_config(talker), Stack.from_config(talker.code_predictor_config)
        return cls(config, *stacks, counts, codec)

    @property
    def num_params(self) -> int:
        """All parameters."""
        return sum(count for count, _ in self.counts.values())

    @property
    def num_trained(self) -> int:
        """Those that are trained."""
        return sum(count for count, trained in self.counts.values() if trained)

    def updated(self, full: bool, num_text_rows: int | None) -> dict[str, int]:
        """Count by name what the optimizer holds.

        Args:
            full: Masters are float32; then only the rows of the text embedding that occur are held.
            num_text_rows: How many occur at most; None: all.
        """
        held = {name: count for name, (count, trained) in self.counts.items() if trained}
        if full and num_text_rows is not None and TEXT_EMBEDDING in held:
            rows = num_text_rows * self.config.talker_config.text_hidden_size
            held[TEXT_EMBEDDING] = min(rows, held[TEXT_EMBEDDING])
        return held


def precision_of(params: TrainParams) -> Precision:
    """Return how a run computes."""
    if params.low_memory or (not params.master_weights and params.compute_dtype == "bfloat16"):
        return "bfloat16"
    return "autocast" if params.compute_dtype == "bfloat16" else "float32"


def batch_of(clips: Sequence[Clip]) -> BatchShape:
    """Return the shape of a batch of clips."""
    lengths = [clip.num_positions for clip in clips]
    frames = sum(clip.num_frames for clip in clips)
    return BatchShape(len(clips), max(lengths), frames)


def text_rows(clips: Sequence[Clip]) -> int:
    """Return how many text tokens occur at most."""
    return sum(clip.num_text_tokens for clip in clips) + _FIXED_TEXT_TOKENS


def small_model(model: Model, talker_layers: int, predictor_layers: int) -> Any:
    """Build a model of the same widths with few layers and few text tokens, random weights."""
    import_qwen_tts()
    from qwen_tts.core.models import Qwen3TTSForConditionalGeneration

    config = copy.deepcopy(model.config)
    talker = config.talker_config
    talker.num_hidden_layers, talker.text_vocab_size = talker_layers, 64
    talker.code_predictor_config.num_hidden_layers = predictor_layers
    if getattr(talker.code_predictor_config, "layer_types", None) is not None:
        talker.code_predictor_config.layer_types = ["full_attention"] * predictor_layers
    return Qwen3TTSForConditionalGeneration(config)


def small_batch(model: Any, shape: BatchShape) -> Any:
    """Make a batch of that shape for it: every row as long as the longest, frames at its end."""
    ids = replace(
        SpecialIds.from_config(model.config),
        im_start=1, im_end=2, tts_pad=3, tts_bos=4, tts_eos=5,
    )  # fmt: skip
    frames = max(1, shape.num_frames // shape.num_rows)
    tokens = max(1, shape.length - len(build_layout(1, frames, ids, None)) + 1)
    layouts = [build_layout(tokens, frames, ids, None)] * shape.num_rows
    text = torch.full((tokens + 3,), 6)
    codes = torch.zeros(frames, ids.num_codebooks, dtype=torch.long)
    names = [str(row) for row in range(shape.num_rows)]
    return collate(names, layouts, [text] * shape.num_rows, [codes] * shape.num_rows, ids)
