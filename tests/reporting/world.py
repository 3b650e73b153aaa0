"""A synthetic project on disk, in the shapes that the stages write; no model is involved."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from voxadapt.core import paths
from voxadapt.core.files import write_json, write_jsonl
from voxadapt.core.params import Params
from voxadapt.core.paths import SPEAKER, Corpus

TEXTS = (
    "The harbour was quiet before the storm came in.",
    "She counted the steps and lost her way twice.",
    "A small lamp burned in the window all night.",
    "They planted apple trees along the narrow road.",
    "Nobody had told the driver about the bridge.",
    "The letter arrived a year after it was sent.",
    "He keeps the old clock wound every Sunday.",
    "Rain fell on the roof like handfuls of sand.",
)
QUALITY = {  # word loss, similarity: an adaptation that helps until it overfits
    "base": (0.14, 0.62), "epoch-1": (0.12, 0.70), "epoch-2": (0.09, 0.77),
    "epoch-3": (0.09, 0.79), "epoch-4": (0.15, 0.79), "real": (0.01, 0.88), "codec": (0.05, 0.81),
}  # fmt: skip
SCALE = {"ceiling": 0.88, "codec_ceiling": 0.81, "floor": 0.55}
EVALUATOR = {
    "norm_id": "script-safe-1+ab12cd34", "asr_id": "whisper-miniature+0011aabb",
    "sim_id": "resemblyzer-0.1.4+17171717/centroid-99887766", "gen_sha": "f00dfeedf00dfeed",
}  # fmt: skip


def make_params(epochs: int = 4, **report: Any) -> Params:
    """Make parameters with the given number of epochs."""
    return Params.model_validate(
        {
            "model": {"base": "data/models/base"},
            "asr": {"model": "data/models/whisper/miniature.pt", "language": "en"},
            "data": {"manifest": "data/speaker/train_raw.jsonl"},
            "train": {"speaker_name": "Aria"},
            "candidates": ["base", *(f"epoch-{n}" for n in range(1, epochs + 1))],
            "report": report,
        }
    )


def interval(point: float | None, spread: float = 0.02, n: int = 24) -> dict[str, Any]:
    """Make an interval record."""
    if point is None:
        return {"point": None, "low": None, "high": None, "n": n}
    return {"point": point, "low": max(0.0, point - spread), "high": point + spread, "n": n}


def difference(point: float, se: float = 0.01, n: int = 8) -> dict[str, Any]:
    """Make a paired difference."""
    return {"point": point, "low": point - 2 * se, "high": point + 2 * se, "se": se, "n": n}


def write_tone(path: Path, seed: int, seconds: float = 0.4, rate_hz: int = 24000) -> None:
    """Write a short tone with a seeded pitch and formant-like overtones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    pitch_hz = 90 + seed % 120
    tone = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in (1, 2, 3, 5, 8))
    soundfile.write(path, 0.15 * tone * np.hanning(len(t)), rate_hz)


def make_row(
    candidate: str, index: int, take: int, text: str, wav: str,
    quality: Mapping[str, tuple[float, float]] = QUALITY, lang: str = "en",
) -> dict[str, Any]:  # fmt: skip
    """Make a score row whose transcript loses words at the candidate's rate."""
    rng = random.Random(f"{candidate}/{index}/{take}")
    loss, sim = quality[candidate]
    words = "".join(c for c in text.lower() if c not in ".,'").split()
    heard, substituted, deleted = [], 0, 0
    for word in words:
        draw = rng.random()
        if draw < loss / 2:
            heard.append(word[::-1])
            substituted += 1
        elif draw < loss:
            deleted += 1
        else:
            heard.append(word)
    num_chars = len("".join(words))
    edits = min(num_chars, 3 * substituted + 4 * deleted)
    flags = ["rate_high"] if rng.random() < loss / 2 else []
    return {
        "candidate": candidate, "split": "selection", "text_id": f"utt-{index:03d}", "take": take,
        "seed": 1000 * index + take, "lang": lang, "text": text, "text_norm": " ".join(words),
        "norm_id": EVALUATOR["norm_id"], "wav": wav, "wav_sha256": "0" * 64,
        "sample_rate_hz": 24000, "duration_s": 2.9, "speech_s": 2.4, "num_frames": 36,
        "hit_max_tokens": False, "gen_sha": EVALUATOR["gen_sha"], "checkpoint_sha": "c" * 16,
        "asr_id": EVALUATOR["asr_id"], "hyp": " ".join(heard), "hyp_norm": " ".join(heard),
        "word_hits": len(words) - substituted - deleted, "word_substitutions": substituted,
        "word_deletions": deleted, "word_insertions": 0, "char_hits": num_chars - edits,
        "char_substitutions": edits, "char_deletions": 0, "char_insertions": 0,
        "ref_words": len(words), "ref_chars": num_chars, "avg_logprob": -0.3,
        "compression_ratio": 1.1, "no_speech_prob": 0.01, "lid": lang, "lid_p": 0.99,
        "sim": round(sim + rng.uniform(-0.05, 0.05), 4), "sim_id": EVALUATOR["sim_id"],
        "sim_ref_n": 16, "dur_ratio": round(rng.uniform(0.9, 1.15), 3), "lead_silence_s": 0.1,
        "trail_silence_s": 0.1, "max_internal_silence_s": 0.2, "clipped_share": 0.0,
        "num_pauses": None, "pause_s": None, "window_sims": None, "f0_median_hz": None,
        "f0_range_st": None, "f0_final_st": None, "f0_jump_st": None,
        "flags": flags, "status": "ok", "message": "",
    }  # fmt: skip


def make_summary(candidate: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a summary in the shape of `evaluation.scoring.summarise`."""
    loss, sim = QUALITY[candidate]
    counted = {"hit_max_tokens": 0, "empty_transcript": 0}
    counted["rate_high"] = sum("rate_high" in row["flags"] for row in rows)
    norm = (sim - SCALE["floor"]) / (SCALE["ceiling"] - SCALE["floor"])
    return {
        "schema": "voxadapt-summary/1", "candidate": candidate, "split": "selection", "lang": "en",
        "error_metric": "wer", "num_texts": len({row["text_id"] for row in rows}), "takes": 3,
        "n_expected": len(rows), "n_measured": len(rows), "n_failed": 0, "evaluator": EVALUATOR,
        "checkpoint_sha": "c" * 16, "wer": interval(loss), "wer_raw": interval(loss),
        "wer_mean_of_clips": interval(loss), "cer": interval(loss / 2),
        "cer_raw": interval(loss / 2), "cer_mean_of_clips": interval(loss / 2),
        "sim": interval(sim), "sim_measured": interval(sim), "sim_missing": 0,
        "sim_norm": interval(norm, 0.06), "sim_worst_5pct": sim - 0.1,
        "sim_ceiling_matched": 0.87, "duration_ratio": interval(1.02), "median_duration_s": 2.9,
        "median_speech_s": 2.4, "failure_rate": interval(counted["rate_high"] / len(rows)),
        "mostly_wrong_rate": interval(0.25),
        "slices": {"short": {
            "num_texts": 8, "n_expected": 24, "n_measured": 24, "wer": interval(0.4321),
            "cer": interval(0.2), "sim": interval(sim), "failure_rate": interval(0.01, 0.01),
        }},
        "windows": {
            "onset": interval(sim - 0.05), "rest": interval(sim), "last": interval(sim),
            "onset_minus_rest": interval(-0.05), "drift": interval(0.05),
            "other_voice": interval(0.375), "pitch_jump": interval(0.0),
            "errors": [{"from_s": 0.0, "to_s": 1.0, **interval(0.125)}],
        },
        "wrong_language_rate": interval(0.0, 0.0), "flags": counted, "confidence": 0.95,
        "num_bootstrap": 4000, "bootstrap_seed": 2,
    }  # fmt: skip


def make_selection(params: Params, chosen: str, best: str) -> dict[str, Any]:
    """Make a decision record."""
    names = params.candidates
    p_best = {"base": 0.0, "epoch-1": 0.01, "epoch-2": 0.38, "epoch-3": 0.61, "epoch-4": 0.0}
    candidates = []
    for index, name in enumerate(names):
        loss, sim = QUALITY[name]
        eligible = name != "epoch-4"
        names_of_gates = ("coverage", "failure_rate", "duration_ratio", "wrong_language", "error")
        states = dict.fromkeys(names_of_gates, "passed")
        states["error"] = "passed" if eligible else "failed"
        gates = [
            {"name": gate, "state": state, "value": 0.031, "low": 0.01, "high": 0.06,
             "limit": [0.8, 1.25] if gate == "duration_ratio" else 0.02,
             "text": f"{gate}: {state}; the value is 0.031 and the limit 0.02."}
            for gate, state in states.items()
        ]  # fmt: skip
        sim_difference = difference(sim - QUALITY["base"][1])
        candidates.append(
            {
                "name": name, "epoch": index, "eligible": eligible, "gates": gates,
                "wer": interval(loss), "cer": interval(loss / 2), "sim": interval(sim),
                "sim_norm": interval(0.5), "duration_ratio": interval(1.02),
                "failure_rate": interval(0.01, 0.01), "wrong_language_rate": interval(0.0, 0.0),
                "primary": interval(sim),
                "prosody": {
                    "f0_measurable": True,
                    "f0_range_st": {"value": interval(3.0), "kind": "ratio",
                                    "vs_real": interval(0.55)},
                },
                "vs_base": None if name == "base" else {
                    "primary": sim_difference, "sim": sim_difference,
                    "error": difference(loss - QUALITY["base"][0]),
                    "failure_rate": difference(0.0),
                },
                "vs_best": {
                    "difference": difference(sim - QUALITY[best][1]),
                    "tied": name in (chosen, best),
                } if eligible else None,
                "p_better": None if name == "base" else 0.01, "shown_better": name != "base",
                "p_best": p_best[name] if eligible else 0.0, "pareto": eligible,
                "pareto_probability": 0.7 if eligible else 0.0,
            }
        )  # fmt: skip
    return {
        "schema": "voxadapt-selection/2",
        "rule": params.select.model_dump(mode="json") | {
            "text": "Gates first; then the earliest of those shown to be better on similarity."
        },
        "split": "selection", "num_texts": len(TEXTS), "takes": 3, "evaluator": EVALUATOR,
        "inputs": {name: f"{index:064x}" for index, name in enumerate(names)},
        "asr_floor": {"wer": interval(0.01, 0.01), "cer": interval(0.005, 0.005)},
        "codec_floor": {"wer": interval(0.05), "cer": interval(0.025)},
        "recogniser": {"blind": [["b", "p"]], "blind_after_codec": [["d", "t"]],
                       "text": "The recogniser cannot tell b from p (40 recordings)."},
        "scale": SCALE, "candidates": candidates, "best": best, "chosen": chosen,
        "runner_up": None if chosen == best else best, "keep_base": chosen == "base",
        "reason": f"{best} has the highest similarity; {chosen} is not shown to be behind it.",
        "would_decide": None,
        "outlook": {"trend": "flat", "sentence": "Flat: more epochs will not help."},
        "power": {"se": 0.006, "detectable_difference": 0.017, "num_texts": len(TEXTS),
                  "texts_needed": [{"difference": 0.01, "num_texts": 87}],
                  "text": "With 8 sentences and 3 takes, differences of 0.017 can be seen."},
    }  # fmt: skip


def make_cost(verdict: str) -> dict[str, Any] | None:
    """Make what a confirmation says of the cost in words."""
    if verdict == "base_kept":
        return None
    state = {"confirmed": "shown", "contradicted": "exceeded"}.get(verdict, "not_excluded")
    return {"measure": "wer", "state": state, "worse": 0.0, "at_least": -0.01, "at_most": 0.01,
            "margin": 0.02, "num_texts_needed": 120}  # fmt: skip


def make_confirm(chosen: str, verdict: str) -> dict[str, Any]:
    """Make a confirmation record."""

    def measure(base: float, other: float) -> dict[str, Any]:
        return {"base": interval(base), "chosen": interval(other),
                "difference": difference(other - base),
                "selection_difference": difference(other - base)}  # fmt: skip

    (base_loss, base_sim), (loss, sim) = QUALITY["base"], QUALITY[chosen]
    return {
        "schema": "voxadapt-confirm/1", "split": "confirmation", "base": "base", "chosen": chosen,
        "num_texts": 8, "takes": 3, "evaluator": EVALUATOR, "inputs": {"base": "0", chosen: "1"},
        "measures": {
            "sim": measure(base_sim, sim - 0.01), "sim_norm": measure(0.2, 0.65),
            "wer": measure(base_loss, loss), "cer": measure(base_loss / 2, loss / 2),
            "failure_rate": measure(0.04, 0.0), "duration_ratio": measure(1.0, 1.01),
        },
        "primary": "similarity", "error_metric": "wer", "verdict": verdict,
        "gain": difference(sim - 0.01 - base_sim), "cost": make_cost(verdict),
        "sentence": f"On sentences that no decision has seen, {chosen} keeps its lead.",
        "disclosure": "The selection figures are optimistic: the best of several is partly luck.",
    }  # fmt: skip


def make_train_metrics(params: Params) -> dict[str, Any]:
    """Make the summary of a training run."""

    def epoch_record(epoch: int) -> dict[str, Any]:
        drift = {"talker.model": 0.004 * epoch, "talker.code_predictor": 0.006 * epoch}
        return {
            "epoch": epoch, "step": 20 * epoch,
            "train": {"loss": 6.0 - 0.3 * epoch, "c0_loss": 4.0, "sub_loss": 5.0},
            "heldout": {"num_labels": 300, "codebook_losses": [5.0], "loss": 6.2 - 0.2 * epoch},
            "lost_update_share": 0.0004, "lost_update_share_trained": 0.0003,
            "drift": {k: {"relative": v, "changed_share": 0.9} for k, v in drift.items()},
        }  # fmt: skip

    return {
        "run": "0123456789abcdef", "speaker_name": "Aria", "lr": 2e-4, "base_sha256": "b" * 64,
        "modules": [{"name": "talker.model", "trained": 1000}],
        "epochs": [epoch_record(epoch) for epoch in range(1, params.num_epochs + 1)],
    }  # fmt: skip


def write_corpus(root: Path, at: Corpus, texts: Sequence[str], folder: str) -> None:
    """Write what the audit of a corpus and the extraction of its codes write."""
    manifest, clips = [], []
    for index in range(24):
        split = ("train", "selection", "confirmation")[index % 3]
        audio = f"{folder}/clips/utt-{index:03d}.wav"
        write_tone(root / audio, 7)
        entry = {"id": f"utt-{index:03d}", "audio": audio, "text": texts[index % len(texts)]}
        manifest.append(
            {**entry, "ref_audio": f"{folder}/ref.wav", "language": None,
             "duration_s": 2.0 + index / 8, "sample_rate_hz": 24000, "audio_sha256": "a" * 64,
             "split": split}
        )  # fmt: skip
        findings = [
            {"severity": "warning", "rule": "low_snr", "value": 14.0, "limit": 20.0,
             "message": "Expected at least 20 dB; found 14 dB. Record in a quieter room."}
        ] if index % 9 == 4 else []  # fmt: skip
        clips.append({**manifest[-1], "line": index + 1, "findings": findings})
    write_jsonl(root / at.manifest, manifest)
    write_jsonl(root / at.clips, clips)
    write_json(root / at.audit_metrics, {
        "num_accepted": 24, "minutes": 1.3, "num_warnings": 3,
        "corpus_warnings": [{"severity": "warning", "rule": "total_minutes", "value": 1.3,
                             "message": "Expected 10 to 30 min in all; found 1.3 min.",
                             "limit": 10.0}],
    })  # fmt: skip
    write_jsonl(root / at.codes_index, (
        {"id": row["id"], "num_frames": round(12.5 * row["duration_s"]),
         "audio_sha256": row["audio_sha256"], "codec_sha256": "d" * 64} for row in manifest
    ))  # fmt: skip
    recorded = {
        kind: {"confirmation": {"wer": interval(loss), "cer": interval(loss / 2)}}
        for kind, loss in (("real", 0.01), ("codec", 0.05))
    }
    write_json(root / at.codes_metrics,
               {"num_clips": 24, "num_frames": 712, "wer_codec": 0.05, **recorded})  # fmt: skip
    write_json(root / at.scale, {
        "schema": "voxadapt-similarity/1", "label": "SIM-resemblyzer", "num_reference": 16,
        **{key: interval(value) for key, value in SCALE.items()},
    })  # fmt: skip


def write_world(root: Path, params: Params, chosen: str = "epoch-2", best: str = "epoch-3") -> Path:
    """Write every file that the report reads, and return the root."""
    write_corpus(root, SPEAKER, TEXTS, "data/speaker")
    write_json(root / paths.TRAIN_METRICS, make_train_metrics(params))
    write_log(root / paths.TRAIN_LOG)
    for name in ("real", "codec", *params.candidates):
        pseudo = name in ("real", "codec")
        folder = (paths.SPEAKER.reference if pseudo else paths.SCORES) / name
        rows = write_rows(root, folder, name, TEXTS, 1 if pseudo else 3)
        write_json(root / folder / "summary.json", make_summary(name, rows))
    write_json(root / paths.SELECTION, make_selection(params, chosen, best))
    verdict = "base_kept" if chosen == "base" else "confirmed"
    write_json(root / paths.CONFIRM, make_confirm(chosen, verdict))
    return root


def write_rows(
    root: Path, folder: Path, name: str, texts: Sequence[str], takes: int,
    quality: Mapping[str, tuple[float, float]] = QUALITY, lang: str = "en",
) -> list[dict[str, Any]]:  # fmt: skip
    """Write a candidate's clips and score rows, and return the rows."""
    rows: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        for take in range(takes):
            wav = f"wavs/utt-{index:03d}-{take}.wav"
            write_tone(root / folder / wav, 31 * index + take + len(rows))
            rows.append(make_row(name, index, take, text, wav, quality, lang))
    write_jsonl(root / folder / "rows.jsonl", rows)
    return rows


def write_log(path: Path) -> None:
    """Write a training log of four epochs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        names = ("loss", "c0_loss", "sub_loss")
        writer.writerow(("step", "epoch", *names, *(f"heldout_{n}" for n in names), "lr"))
        writer.writerow((0, 0, "", "", "", 7.9, 5.9, 6.1, ""))
        for step in range(1, 81):
            c0, sub = 3.2 + 2.5 * 0.96**step, 4.6 + 1.4 * 0.97**step + 0.1 * rng.random()
            row = [f"{value:.4f}" for value in (c0 + 0.3 * sub, c0, sub)]
            heldout = row if step % 20 == 0 else ["", "", ""]
            writer.writerow((step, 1 + (step - 1) // 20, *row, *heldout, 2e-4))
