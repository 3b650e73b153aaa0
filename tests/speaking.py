"""Codes that a model hands to its codec, by the stock token loop or by ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from voxadapt.generation.decoding import Decoding

TEXTS = ["one two three", "hi", "four five", "six seven eight nine ten eleven"]
SAMPLING = {"temperature": 0.8, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.2}
SUB = {"subtalker_temperature": 0.8, "subtalker_top_k": 20, "subtalker_top_p": 0.95}


def codes_of(
    tts: Any,
    texts: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    sample: bool,
    seeds: Sequence[int] | None = None,
    limits: Sequence[int] | int = 24,
    **fields: Any,
) -> list[torch.Tensor]:
    """Codes that the cloning call hands to the codec; of the stock loop without seeds."""
    from qwen_tts.inference.qwen3_tts_model import VoiceClonePromptItem

    given: list[torch.Tensor] = []
    codec = tts.model.speech_tokenizer

    def spy(items: list[dict[str, torch.Tensor]]) -> Any:
        given.extend(item["audio_codes"] for item in items)
        return [torch.zeros(1).numpy() for _ in items], 24_000

    width = tts.model.config.talker_config.hidden_size
    vector = torch.randn(width, generator=torch.Generator().manual_seed(5))
    call = {
        "text": list(texts), "language": "English", "non_streaming_mode": True,
        "voice_clone_prompt": [VoiceClonePromptItem(None, vector, True, False)],
        "do_sample": sample, "subtalker_dosample": sample, **SAMPLING, **SUB, **fields,
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(codec, "decode", spy)
        if seeds is None:
            tts.generate_voice_clone(**call, max_new_tokens=limits)
        else:
            sizes = [limits] * len(texts) if isinstance(limits, int) else list(limits)
            with Decoding(tts.model, seeds, sizes) as decoding:
                tts.generate_voice_clone(**call)
            assert [len(item) for item in given] == [e.num_frames for e in decoding.endings]
    return given
