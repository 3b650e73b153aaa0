"""From clips to score rows, and from rows to a candidate's summary.

Candidates, held-out recordings (`real`) and their codec round trip (`codec`) go through the same
function. Nothing is dropped: a clip that could not be made or read keeps its row, with error 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxadapt.evaluation.asr import Transcriber
from voxadapt.evaluation.flags import FLAGS, Shape, clip_flags, measure_shape
from voxadapt.evaluation.measures import Sample
from voxadapt.evaluation.metrics import char_counts, word_counts
from voxadapt.evaluation.normalise import NORM_ID, characters, metric_for, normalise
from voxadapt.evaluation.results import Clip, ScoreRow, evaluator_id, sort_rows
from voxadapt.evaluation.similarity import (
    Embedder,
    SimilarityScale,
    VoiceReference,
    read_audio,
)
from voxadapt.evaluation.statistics import resample_weights, rounded
from voxadapt.params import ScoreParams, SelectParams
from voxadapt.provenance import sha256_file

PSEUDO_CANDIDATES = ("real", "codec")
WORST_SHARE = 0.05


def score_clips(
    clips: Sequence[Clip],
    transcriber: Transcriber,
    embedder: Embedder,
    reference: VoiceReference,
    scale: SimilarityScale,
    params: ScoreParams,
    *,
    root: Path,
) -> list[ScoreRow]:
    """Measure clips.

    Args:
        clips: Of one or several candidates. For `real` and `codec`, whose text_id names a
            recording in the reference, that recording is left out of the centroid.
        transcriber: The ASR.
        embedder: The speaker encoder.
        reference: The speaker's held-out real clips.
        scale: The speaker's rate comes from here.
        params: Thresholds of the flags.
        root: Folder that relative paths start from.

    Returns:
        One row a clip, in canonical order.
    """
    assert reference.encoder_id == embedder.id, "the reference was made by another encoder"
    failed: dict[int, str] = {
        i: clip.message for i, clip in enumerate(clips) if clip.status != "ok"
    }
    audio = {}
    for index, clip in enumerate(clips):
        if index not in failed:
            try:
                audio[index] = read_audio(root / clip.wav)
            except (OSError, RuntimeError) as error:  # soundfile's errors are RuntimeErrors
                failed[index] = f"cannot read {clip.wav}: {' '.join(str(error).split())}"
    usable = sorted(audio)
    transcripts = dict(
        zip(
            usable,
            transcriber.transcribe(
                [root / clips[i].wav for i in usable], [clips[i].text for i in usable]
            ),
            strict=True,
        )
    )
    prints = dict(zip(usable, embedder.embed([audio[i] for i in usable]), strict=True))
    rows = []
    for index, clip in enumerate(clips):
        values = _identity(clip, transcriber.asr_id, reference)
        text_norm = values["text_norm"]
        if index in failed:
            rows.append(_failed_row(values, clip, failed[index]))
            continue
        wav, sample_rate_hz = audio[index]
        heard, voice = transcripts[index], prints[index]
        shape = measure_shape(wav, sample_rate_hz)
        hyp_norm = normalise(heard.text)
        words, chars = word_counts(text_norm, hyp_norm), char_counts(text_norm, hyp_norm)
        ratio = shape.spoken_s / scale.rate.expected_s(values["ref_chars"])
        leave_out = clip.text_id if clip.candidate in PSEUDO_CANDIDATES else None
        similarity = None
        if voice.embedding is not None and voice.speech_s >= params.min_speech_s:
            similarity = reference.similarity(voice.embedding, leave_out)
        rows.append(
            ScoreRow(
                **values,
                wav=clip.wav,
                wav_sha256=sha256_file(root / clip.wav),
                sample_rate_hz=sample_rate_hz,
                hyp=heard.text,
                hyp_norm=hyp_norm,
                word_hits=words.hits,
                word_substitutions=words.substitutions,
                word_deletions=words.deletions,
                word_insertions=words.insertions,
                char_hits=chars.hits,
                char_substitutions=chars.substitutions,
                char_deletions=chars.deletions,
                char_insertions=chars.insertions,
                avg_logprob=heard.avg_logprob,
                compression_ratio=heard.compression_ratio,
                no_speech_prob=heard.no_speech_prob,
                lid=heard.lid,
                lid_p=heard.lid_p,
                speech_s=rounded(voice.speech_s),
                sim=rounded(similarity),
                sim_ref_n=reference.num_clips(leave_out),
                dur_ratio=rounded(ratio),
                **_shape_values(shape),
                flags=clip_flags(
                    params,
                    shape,
                    text_norm=text_norm,
                    hyp_norm=hyp_norm,
                    lang=clip.lang,
                    lid=heard.lid,
                    lid_p=heard.lid_p,
                    dur_ratio=ratio,
                    speech_s=voice.speech_s,
                    hit_max_tokens=clip.hit_max_tokens,
                    num_windows=heard.num_windows,
                ),
                status="ok",
                message=clip.message,
            )
        )
    return sort_rows(rows)


def _identity(clip: Clip, asr_id: str, reference: VoiceReference) -> dict[str, Any]:
    """Return what a row holds whether or not the clip could be measured."""
    text_norm = normalise(clip.text)
    if not text_norm:
        raise ValueError(f"text {clip.text_id} ({clip.text!r}) has nothing to be scored")
    return {
        "candidate": clip.candidate,
        "split": clip.split,
        "text_id": clip.text_id,
        "take": clip.take,
        "seed": clip.seed,
        "lang": clip.lang,
        "text": clip.text,
        "text_norm": text_norm,
        "norm_id": NORM_ID,
        "ref_words": len(text_norm.split()),
        "ref_chars": len(characters(text_norm)),
        "num_frames": clip.num_frames,
        "hit_max_tokens": clip.hit_max_tokens,
        "gen_sha": clip.gen_sha,
        "checkpoint_sha": clip.checkpoint_sha,
        "asr_id": asr_id,
        "sim_id": reference.sim_id,
    }


def _shape_values(shape: Shape) -> dict[str, float | None]:
    return {
        "duration_s": rounded(shape.duration_s),
        "lead_silence_s": rounded(shape.lead_silence_s),
        "trail_silence_s": rounded(shape.trail_silence_s),
        "max_internal_silence_s": rounded(shape.max_internal_silence_s),
        "clipped_share": rounded(shape.clipped_share),
    }


def _failed_row(values: dict[str, Any], clip: Clip, message: str) -> ScoreRow:
    """Return the row of a clip that is not there: every word and character is lost."""
    measured = (
        "sample_rate_hz", "duration_s", "speech_s", "avg_logprob", "compression_ratio",
        "no_speech_prob", "lid", "lid_p", "sim", "dur_ratio", "lead_silence_s", "trail_silence_s",
        "max_internal_silence_s", "clipped_share",
    )  # fmt: skip
    counts = ("hits", "substitutions", "insertions")
    return ScoreRow(
        **values,
        **dict.fromkeys(measured),
        **{f"{unit}_{name}": 0 for unit in ("word", "char") for name in counts},
        word_deletions=values["ref_words"],
        char_deletions=values["ref_chars"],
        wav=clip.wav,
        wav_sha256="",
        hyp="",
        hyp_norm="",
        sim_ref_n=0,
        flags=("hit_max_tokens",) if clip.hit_max_tokens else (),
        status="failed",
        message=message or "no audio",
    )


def summarise(
    rows: Sequence[ScoreRow], params: SelectParams, scale: SimilarityScale | None = None
) -> dict[str, Any]:
    """Summarise one candidate on one split; see the README for every key.

    Args:
        rows: All rows of the candidate.
        params: Bootstrap size, confidence and seed.
        scale: Ceiling and floor, for the calibrated similarity.

    Returns:
        JSON-ready values; intervals resample texts with all their takes.
    """
    rows = sort_rows(rows)
    assert rows and len({(row.candidate, row.split) for row in rows}) == 1
    floor = None if scale is None else scale.floor.point
    sample = Sample(rows, params.error_metric, floor)
    weights = resample_weights(len(sample.text_ids), params.num_bootstrap, params.seed)
    measured = [row for row in rows if row.status == "ok"]
    similarities = sorted(row.sim for row in rows if row.sim is not None)
    worst = similarities[: max(1, round(WORST_SHARE * len(similarities)))]
    speech = [row.speech_s for row in measured if row.speech_s is not None]
    durations = [row.duration_s for row in measured if row.duration_s is not None]
    median_speech = float(np.median(speech)) if speech else None
    matched = None
    if scale is not None and median_speech is not None:
        matched = scale.ceiling_at(median_speech)
    counts = Counter(flag for row in rows for flag in row.flags)
    ceiling = None if scale is None else scale.ceiling.point
    intervals = sample.intervals(weights, params.confidence, ceiling, floor)
    return {
        "schema": "voxadapt-summary/1",
        "candidate": rows[0].candidate,
        "split": rows[0].split,
        "lang": rows[0].lang,
        "error_metric": metric_for(rows[0].lang, [row.text_norm for row in rows]),
        "num_texts": len(sample.text_ids),
        "takes": max(row.take for row in rows) + 1,
        "n_expected": len(rows),
        "n_measured": len(measured),
        "n_failed": len(rows) - len(measured),
        "evaluator": evaluator_id(rows),
        "checkpoint_sha": rows[0].checkpoint_sha,
        **{name: value.as_dict() for name, value in intervals.items()},
        "sim_missing": len(rows) - len(similarities),
        "sim_worst_5pct": rounded(float(np.mean(worst))) if similarities else None,
        "sim_ceiling_matched": rounded(matched),
        "median_duration_s": rounded(float(np.median(durations))) if durations else None,
        "median_speech_s": rounded(median_speech),
        "flags": {flag: counts[flag] for flag in FLAGS},
        "confidence": params.confidence,
        "num_bootstrap": params.num_bootstrap,
        "bootstrap_seed": params.seed,
    }
