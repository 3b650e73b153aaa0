"""Score rows and simulated systems for tests of scoring and selection, without torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxadapt.asr.normalise import NORM_ID
from voxadapt.scoring.rows import ScoreRow


def make_row(
    candidate: str = "base", text_id: str = "t0", take: int = 0, **fields: Any
) -> ScoreRow:
    """Return the row of a clean clip of ten words, of which the last is the sentence's own."""
    own = text_id.translate(str.maketrans("0123456789", "abcdefghij"))
    text = f"one two three four five six seven eight nine {own}"
    values: dict[str, Any] = {
        "candidate": candidate,
        "split": "selection",
        "text_id": text_id,
        "take": take,
        "seed": 1,
        "lang": "en",
        "text": text,
        "text_norm": text,
        "norm_id": NORM_ID,
        "wav": f"{candidate}/{text_id}-{take}.wav",
        "wav_sha256": "0" * 64,
        "sample_rate_hz": 24000,
        "duration_s": 3.0,
        "speech_s": 2.5,
        "num_frames": 37,
        "hit_max_tokens": False,
        "gen_sha": "gen",
        "checkpoint_sha": candidate,
        "asr_id": "asr",
        "hyp": text,
        "hyp_norm": text,
        "word_hits": 10,
        "word_substitutions": 0,
        "word_deletions": 0,
        "word_insertions": 0,
        "char_hits": 39,
        "char_substitutions": 0,
        "char_deletions": 0,
        "char_insertions": 0,
        "ref_words": 10,
        "ref_chars": 39,
        "avg_logprob": -0.1,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
        "lid": "en",
        "lid_p": 0.99,
        "sim": 0.8,
        "sim_id": "sim",
        "sim_ref_n": 20,
        "dur_ratio": 1.0,
        "lead_silence_s": 0.05,
        "trail_silence_s": 0.1,
        "max_internal_silence_s": 0.1,
        "clipped_share": 0.0,
        "num_pauses": None,
        "pause_s": None,
        "window_sims": None,
        "f0_median_hz": None,
        "f0_range_st": None,
        "f0_final_st": None,
        "f0_jump_st": None,
        "flags": (),
        "status": "ok",
        "message": "",
    }
    return ScoreRow(**{**values, **fields})


def make_system(
    candidate: str,
    num_texts: int = 24,
    takes: int = 3,
    sim: float = 0.8,
    error: float = 0.1,
    seed: int = 0,
    runaways: int = 0,
    **fields: Any,
) -> list[ScoreRow]:
    """Simulate a candidate: sentences share difficulty across candidates, takes add noise.

    Args:
        candidate: Its name; takes of two candidates are independent.
        num_texts: Sentences.
        takes: Takes of each.
        sim: Mean similarity.
        error: Mean word error.
        seed: Of the sentences' difficulty, common to all candidates.
        runaways: How many of the first sentences fail in every take.
        fields: Any field of the rows.
    """
    common = np.random.default_rng(seed)
    hard = common.normal(0.0, 0.03, num_texts)
    own = np.random.default_rng([seed, *candidate.encode()])
    rows = []
    for index in range(num_texts):
        for take in range(takes):
            wrong = int(own.binomial(10, np.clip(error + hard[index], 0.0, 1.0)))
            values: dict[str, Any] = {
                "word_hits": 10 - wrong,
                "word_substitutions": wrong,
                "sim": round(float(sim + hard[index] + own.normal(0.0, 0.02)), 6),
            }
            if index < runaways:
                values |= {
                    "word_hits": 0,
                    "word_substitutions": 10,
                    "word_insertions": 60,
                    "hit_max_tokens": True,
                    "flags": ("hit_max_tokens", "rate_high"),
                    "dur_ratio": 5.0,
                }
            rows.append(make_row(candidate, f"t{index:02d}", take, **{**values, **fields}))
    return rows
