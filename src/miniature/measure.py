"""Measures the miniature world on sentences that no model was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from miniature.grammar import KINDS
from miniature.recipe import SAMPLE_RATE
from miniature.speech import Corpus
from miniature.whisper import resample, transcribe, word_error
from voxadapt.core.compat import import_qwen_tts
from voxadapt.data.respelling import load_respelling
from voxadapt.scoring.pitch import PitchTracker

RESPELLING = Path("profiles/respelling/malay.yaml")  # the project is the working folder
HELD_OUT = ("heldout_en", "heldout_target", "heldout_ms")


def resynthesise(codec: Any, waves: Sequence[np.ndarray], batch: int = 16) -> list[np.ndarray]:
    """Send 24 kHz clips through the codec and back.

    Args:
        codec: A ``Qwen3TTSTokenizer``.
        waves: Clips.
        batch: Clips at a time.

    Returns:
        The copies, cut to the clips' lengths.
    """
    out: dict[int, np.ndarray] = {}
    order = sorted(range(len(waves)), key=lambda i: len(waves[i]))
    for at in range(0, len(order), batch):
        chunk = order[at : at + batch]
        coded = codec.encode([waves[i] for i in chunk], sr=SAMPLE_RATE)
        copies, _ = codec.decode([{"audio_codes": c} for c in coded.audio_codes])
        for i, copy in zip(chunk, copies, strict=True):
            out[i] = copy[: len(waves[i])]
    return [out[i] for i in range(len(waves))]


def reference_of(corpus: Corpus, index: int, least_frames: int = 24) -> np.ndarray:
    """Return a training clip of the same voice, to clone a held-out sentence with."""
    voice = corpus.utterances[index].voice
    pool = [
        i
        for i in corpus.where("base", "target_other")
        if corpus.utterances[i].voice == voice and corpus.frames(i) >= least_frames
    ]
    return corpus.clip(pool[index % min(len(pool), 40)])


def clone(
    model: Any,
    texts: Sequence[str],
    references: Sequence[np.ndarray],
    languages: Sequence[str],
    *,
    non_streaming: bool = True,
    seed: int = 0,
    batch: int = 32,
) -> tuple[list[np.ndarray], list[bool]]:
    """Clone voices with stock ``generate_voice_clone``.

    Args:
        model: A ``Qwen3TTSModel``.
        texts: Sentences.
        references: A 24 kHz clip for each sentence.
        languages: ``English`` or ``Auto`` for each sentence.
        non_streaming: Layout.
        seed: Seed of the sampler, set before every batch.
        batch: Sentences at a time.

    Returns:
        The waves and whether each ended by itself.
    """
    waves: list[np.ndarray] = []
    limit = int(model.generate_defaults["max_new_tokens"])
    for at in range(0, len(texts), batch):
        torch.manual_seed(seed + at)
        part, _ = model.generate_voice_clone(
            text=list(texts[at : at + batch]),
            language=list(languages[at : at + batch]),
            ref_audio=[(w, SAMPLE_RATE) for w in references[at : at + batch]],
            x_vector_only_mode=True,
            non_streaming_mode=non_streaming,
        )
        waves += part
    return waves, [len(w) < (limit - 1) * 1920 for w in waves]


def embed(waves: Sequence[np.ndarray]) -> np.ndarray:
    """Return Resemblyzer embeddings of 24 kHz clips."""
    from resemblyzer import VoiceEncoder, preprocess_wav

    encoder = VoiceEncoder("cpu", verbose=False)
    return np.stack(
        [encoder.embed_utterance(preprocess_wav(w, source_sr=SAMPLE_RATE)) for w in waves]
    )


def voice_margin(
    probes: np.ndarray, bank: np.ndarray, voices: Sequence[str], same_clips: bool
) -> dict[str, float]:
    """Compare embeddings with the mean embeddings of every voice.

    Args:
        probes: Embeddings under test.
        bank: Embeddings that the means are made of, one for each probe's clip.
        voices: Voice of each row.
        same_clips: Leave the probe's own clip out of its voice's mean.

    Returns:
        Mean cosine with the own and with other voices, their difference, and the share of
        probes whose nearest mean is the own voice's.
    """
    names = sorted(set(voices))
    rows = {name: [i for i, v in enumerate(voices) if v == name] for name in names}
    own, other, right = [], [], 0
    for i, probe in enumerate(probes):
        scores = {}
        for name in names:
            use = [k for k in rows[name] if not (same_clips and k == i)]
            centre = bank[use].mean(0)
            scores[name] = float(probe @ centre / (np.linalg.norm(centre) + 1e-9))
        own.append(scores[voices[i]])
        other += [s for name, s in scores.items() if name != voices[i]]
        right += max(scores, key=lambda name: scores[name]) == voices[i]
    return {
        "own": round(float(np.mean(own)), 4),
        "other": round(float(np.mean(other)), 4),
        "margin": round(float(np.mean(own) - np.mean(other)), 4),
        "nearest_right": round(right / len(probes), 4),
        "n": len(probes),
    }


def _wer(corpus: Corpus, rows: Sequence[int], guesses: Sequence[str]) -> dict[str, Any]:
    pairs = [(corpus.utterances[i], guess) for i, guess in zip(rows, guesses, strict=True)]
    by_kind = {}
    for kind in KINDS:
        part = [(u.text, guess) for u, guess in pairs if u.kind == kind]
        if part:
            by_kind[kind] = {"wer": round(word_error(*zip(*part, strict=True)), 4), "n": len(part)}
    rate = word_error([u.text for u, _ in pairs], guesses)
    return {"wer": round(rate, 4), "n": len(pairs), "by_kind": by_kind}


@dataclass(frozen=True)
class VoiceBank:
    """Embeddings of the codec's copies of the held-out English clips.

    Attributes:
        voices: Voice of each clip.
        copies: One embedding a clip.
    """

    voices: list[str]
    copies: np.ndarray


def measure_listeners(corpus: Corpus, data: Path) -> tuple[dict[str, Any], VoiceBank]:
    """Measure Whisper and the codec.

    Args:
        corpus: All clips, with the held-out splits.
        data: The ``data`` folder.

    Returns:
        Figures with their numbers of clips, and what clones are compared with.
    """
    import whisper

    stock = import_qwen_tts()
    asr = whisper.load_model(str(data / "models" / "whisper" / "miniature.pt"), device="cpu")
    codec = stock.Qwen3TTSTokenizer.from_pretrained(
        str(data / "models" / "base" / "speech_tokenizer"), dtype=torch.float32
    )
    report: dict[str, Any] = {"whisper_real": {}, "whisper_resynthesised": {}}
    real: dict[int, np.ndarray] = {}
    copies: dict[int, np.ndarray] = {}
    for split in HELD_OUT:
        rows = corpus.where(split)
        waves = [corpus.clip(i) for i in rows]
        again = resynthesise(codec, waves)
        real.update(zip(rows, waves, strict=True))
        copies.update(zip(rows, again, strict=True))
        languages = [corpus.utterances[i].language for i in rows]
        for key, clips in (("whisper_real", waves), ("whisper_resynthesised", again)):
            guesses = transcribe(asr, [resample(w) for w in clips], languages)
            report[key][split] = _wer(corpus, rows, guesses)
    report["codec_perplexity"] = _perplexity(codec, list(real.values()))
    rows = corpus.where("heldout_en", "heldout_target")
    voices = [corpus.utterances[i].voice for i in rows]
    truth, bank = embed([real[i] for i in rows]), embed([copies[i] for i in rows])
    report["voice_real_vs_real"] = voice_margin(truth, truth, voices, True)
    report["voice_copy_vs_real"] = voice_margin(bank, truth, voices, False)
    report["voice_copy_vs_copy"] = voice_margin(bank, bank, voices, True)
    report["codec_melody"] = melody([real[i] for i in rows], [copies[i] for i in rows])
    return report, VoiceBank(voices, bank)


def melody(waves: Sequence[np.ndarray], copies: Sequence[np.ndarray]) -> dict[str, float]:
    """Compare the F0 of clips with that of their copies through the codec.

    Returns:
        Of the clips with an F0: the share whose copy has one, the median of the copy's F0 range
        over the clip's, and how many they are.
    """
    tracker = PitchTracker()
    pairs = [tuple(tracker.measure(w, SAMPLE_RATE) for w in pair)
             for pair in zip(waves, copies, strict=True)]  # fmt: skip
    pairs = [pair for pair in pairs if pair[0].range_st]
    kept = [
        copy.range_st / clip.range_st for clip, copy in pairs if copy.range_st and clip.range_st
    ]
    return {
        "voiced": round(len(kept) / len(pairs), 4),
        "range_ratio": round(float(np.median(kept)), 4) if kept else 0.0,
        "n": len(pairs),
    }


def measure_base(corpus: Corpus, data: Path, bank: VoiceBank) -> dict[str, Any]:
    """Measure the Base by cloning voices that it knows and one that it never heard.

    Args:
        corpus: All clips, with the held-out splits.
        data: The ``data`` folder.
        bank: What clones are compared with.

    Returns:
        Figures with their numbers of clips.
    """
    import whisper

    stock = import_qwen_tts()
    asr = whisper.load_model(str(data / "models" / "whisper" / "miniature.pt"), device="cpu")
    model = stock.Qwen3TTSModel.from_pretrained(str(data / "models" / "base"), dtype=torch.float32)
    report: dict[str, Any] = {}
    for name, split, streaming in (
        ("clone_known_voices", "heldout_en", False),
        ("clone_known_voices_streaming", "heldout_en", True),
        ("clone_unseen_target", "heldout_target", False),
    ):
        rows = corpus.where(split)
        texts = [corpus.utterances[i].text for i in rows]
        tags = ["English" if k % 2 else "Auto" for k in range(len(rows))]
        references = [reference_of(corpus, i) for i in rows]
        waves, ended = clone(model, texts, references, tags, non_streaming=not streaming)
        guesses = transcribe(asr, [resample(w) for w in waves], ["english"] * len(rows))
        ratio = [len(w) / SAMPLE_RATE / corpus.seconds(i) for w, i in zip(waves, rows, strict=True)]
        report[name] = {
            **_wer(corpus, rows, guesses),
            "ended_by_itself": round(float(np.mean(ended)), 4),
            "median_duration_ratio": round(float(np.median(ratio)), 4),
        }
        if not streaming:
            report[name]["similarity"] = _similarity(corpus, rows, waves, bank)
    respelling = load_respelling(RESPELLING)
    rows = corpus.where("heldout_ms")
    reference = np.concatenate([corpus.clip(i) for i in corpus.where("malay_ref")])
    for name, write in (("malay_as_written", str), ("malay_respelt", respelling.respell)):
        texts = [write(corpus.utterances[i].text) for i in rows]
        waves, ended = clone(model, texts, [reference] * len(rows), ["English"] * len(rows))
        guesses = transcribe(asr, [resample(w) for w in waves], ["malay"] * len(rows))
        report[name] = {
            **_wer(corpus, rows, guesses),
            "ended_by_itself": round(float(np.mean(ended)), 4),
        }
    return report


def measure(corpus: Corpus, data: Path) -> dict[str, Any]:
    """Measure every model in a ``data`` folder.

    Args:
        corpus: All clips, with the held-out splits.
        data: The ``data`` folder.

    Returns:
        Figures with their numbers of clips.
    """
    report, bank = measure_listeners(corpus, data)
    return {**report, **measure_base(corpus, data, bank)}


def _perplexity(codec: Any, waves: Sequence[np.ndarray]) -> list[float]:
    codes = []
    for at in range(0, len(waves), 16):
        codes += codec.encode(list(waves[at : at + 16]), sr=SAMPLE_RATE).audio_codes
    table = torch.cat(codes).numpy()
    out = []
    for column in table.T:
        share = np.bincount(column) / len(column)
        share = share[share > 0]
        out.append(round(float(np.exp(-(share * np.log(share)).sum())), 1))
    return out


def _similarity(
    corpus: Corpus,
    rows: Sequence[int],
    waves: Sequence[np.ndarray],
    bank: VoiceBank,
) -> dict[str, float]:
    """Compare clones with codec copies of real clips: the same colour on both sides."""
    names = sorted(set(bank.voices))
    rows_of = {n: [k for k, v in enumerate(bank.voices) if v == n] for n in names}
    centres = {n: bank.copies[rows_of[n]].mean(0) for n in names}
    own, other, right = [], [], 0
    kept = [(i, w) for i, w in zip(rows, waves, strict=True) if len(w) >= SAMPLE_RATE // 2]
    for (i, _), probe in zip(kept, embed([w for _, w in kept]), strict=True):
        score = {n: float(probe @ c / np.linalg.norm(c)) for n, c in centres.items()}
        voice = corpus.utterances[i].voice
        own.append(score[voice])
        other += [s for n, s in score.items() if n != voice]
        right += max(score, key=lambda n: score[n]) == voice
    return {
        "own": round(float(np.mean(own)), 4),
        "other": round(float(np.mean(other)), 4),
        "nearest_right": round(right / max(1, len(kept)), 4),
        "n": len(kept),
    }


def write_report(report: dict[str, Any], data: Path) -> None:
    """Write ``QUALITY.json``."""
    text = json.dumps(report, indent=2, sort_keys=True) + "\n"
    (data / "QUALITY.json").write_text(text, encoding="utf-8")
