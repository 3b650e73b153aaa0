"""The whole path: train on two clips, export, let stock generation speak them."""

from __future__ import annotations

from typing import Any

import pytest

import fakes
from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.params import TrainParams
from voxadapt.training.trainer import train

TEXTS = ("hello there", "good day to you")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text_hidden", "language"), [(24, "auto"), (fakes.HIDDEN, "english")], ids=["0.6B", "1.7B"]
)
def test_overfitted_model_regenerates_exactly_its_codes_by_greedy_decoding(
    tmp_path, text_hidden: int, language: str
):
    base = fakes.make_tts(
        tmp_path / "base", fakes.TinyShape(text_hidden, 16 if text_hidden == 24 else 32)
    )
    two = (fakes.make_codes(9, seed=1), fakes.make_codes(13, seed=2))
    # Copies of two clips, so that one epoch has many steps.
    rows = [fakes.make_utterance(f"u{n:03d}", TEXTS[n % 2]) for n in range(240)]
    result = train(
        TrainParams(speaker_name="Aria", batch_size=2, lr=4e-3, warmup_steps=5, language=language),
        model_path=base,
        utterances=rows,
        codes={row.id: two[n % 2] for n, row in enumerate(rows)},
        ref_audio=fakes.make_wav(tmp_path / "ref.wav", 3.0),
        out_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        num_epochs=1,
    )
    assert result.rows[-1]["loss"] < 0.1
    tts = import_qwen_tts().Qwen3TTSModel.from_pretrained(str(result.checkpoints[0]))
    spoken: list[Any] = []
    generate = tts.model.generate

    def spy(*args: Any, **kwargs: Any) -> Any:
        codes, hidden = generate(*args, **kwargs)
        spoken.extend(codes)
        return codes, hidden

    tts.model.generate = spy
    tts.generate_custom_voice(
        list(TEXTS), speaker="Aria", language=language, do_sample=False, subtalker_dosample=False,
        repetition_penalty=1.0, max_new_tokens=30,
    )  # fmt: skip
    assert [codes.tolist() for codes in spoken] == [codes.tolist() for codes in two]
