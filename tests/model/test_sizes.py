"""Parameter counts of the real shapes, built without memory."""

from __future__ import annotations

import pytest
import torch

from voxadapt.compat import import_qwen_tts
from voxadapt.model.freezing import freeze

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
