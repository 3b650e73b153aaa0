"""Parameter counts of the real shapes, built without memory."""

from __future__ import annotations

import pytest
import torch

from voxadapt.core.compat import import_qwen_tts
from voxadapt.model.freezing import freeze
from voxadapt.model.rows import RowEmbedding

COMMON = {
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_code_groups": 16,
    "rope_theta": 1_000_000,
}
CASES = {
    "1b7": (2048, 6144, 1_928_677_440, 480, 175_125_760, 12_001_088, 8_392_704),
    "0b6": (1024, 3072, 914_643_008, 478, 141_570_304, 8_854_336, 6_294_528),
}
#: Talker layers; codec embedding, and codec head; share of the text embedding in %.
PARTS = {
    "1b7": (1_409_408_000, 6_291_456, 16.1),
    "0b6": (440_466_432, 3_145_728, 34.0),
}


@pytest.mark.parametrize("size", CASES)
def test_parameter_counts_of_the_real_configs(size):
    hidden, inner, total, num_tensors, predictor, encoder, projection = CASES[size]
    import_qwen_tts()
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

    config = Qwen3TTSConfig(
        talker_config={
            **COMMON,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": 28,
            "text_vocab_size": 151_936,
            "text_hidden_size": 2048,
            "vocab_size": 3072,
            "rope_scaling": {
                "rope_type": "default", "mrope_section": [24, 20, 20], "interleaved": True
            },
            "code_predictor_config": {
                **COMMON, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 5,
                "vocab_size": 2048,
            },
            "spk_id": {},
            "spk_is_dialect": {},
            "codec_language_id": {},
        },
        speaker_encoder_config={"enc_dim": hidden},
        tts_model_type="base",
        tts_model_size=size,
    )  # fmt: skip
    with torch.device("meta"):
        model = Qwen3TTSForConditionalGeneration(config)
    counts = {c.module: c for c in freeze(model, ["speaker_encoder"])}
    assert sum(c.num_params for c in counts.values()) == total
    assert len(model.state_dict()) == num_tensors
    assert counts["talker.code_predictor"].num_params == predictor
    assert counts["speaker_encoder"].num_params == encoder
    assert counts["talker.text_projection"].num_params == projection
    assert counts["talker.model.text_embedding"].num_params == 311_164_928
    assert "other" not in counts
    layers, codec, share = PARTS[size]
    assert counts["talker.model.layers"].num_params == layers
    assert counts["talker.model.codec_embedding"].num_params == codec
    assert counts["talker.codec_head"].num_params == codec
    # The folk figure of a language's Stage 1 is "4M parameters, 0.24 %".
    assert round(100 * 311_164_928 / total, 1) == share


def test_a_languages_rows_are_a_small_part_of_the_real_text_embedding():
    with torch.device("meta"):
        table = torch.nn.Embedding(151_936, 2048)
    embedding = RowEmbedding(table, range(2_000))
    trained = [p for p in embedding.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 2_000 * 2048
    assert sum(p.numel() for p in embedding.parameters()) == 311_164_928 + 2_000 * 2048
