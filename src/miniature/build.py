"""Builds the miniature world from nothing but two speech synthesisers."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from miniature.codec import export, train_codec
from miniature.measure import clone, measure, reference_of, write_report
from miniature.package import replace_folder, write_corpora
from miniature.readme import write_readme
from miniature.recipe import HOP, SAMPLE_RATE, Recipe
from miniature.speech import Corpus, build_corpus, plan
from miniature.talker import TalkerData, TalkerTrainer, export_base, load_base, train_talker
from miniature.tokenizer import train_tokenizer
from miniature.whisper import (
    export_whisper,
    resample,
    train_whisper,
    transcribe,
    word_error,
)
from voxadapt.core.compat import import_qwen_tts

log = logging.getLogger(__name__)

#: What is built, in order.
STEPS = ("speech", "codec", "codes", "whisper", "base", "measure")
HEARD = ("base", "malay", "target_other")


def encode_clips(
    corpus: Corpus, indices: Sequence[int], codec: Path, work: Path, name: str, batch: int = 16
) -> dict[int, np.ndarray]:
    """Encode clips with the stock codec; later calls read the result.

    Args:
        corpus: All clips.
        indices: Clips to encode.
        codec: Folder of the codec.
        work: Folder of the intermediate results.
        name: Name of the result.
        batch: Clips at a time.

    Returns:
        Codes of each clip, frames x codebooks.
    """
    path = work / f"{name}.npz"
    if not path.exists():
        stock = import_qwen_tts()
        tokenizer = stock.Qwen3TTSTokenizer.from_pretrained(str(codec), dtype=torch.float32)
        order = sorted(indices, key=corpus.frames)
        codes: dict[int, np.ndarray] = {}
        for at in range(0, len(order), batch):
            chunk = order[at : at + batch]
            waves = [corpus.clip(i) for i in chunk]
            coded = tokenizer.encode(waves, sr=SAMPLE_RATE).audio_codes
            for i, c in zip(chunk, coded, strict=True):
                codes[i] = c.numpy().astype(np.int16)
        keys = sorted(codes)
        part = path.with_suffix(".part.npz")
        np.savez(
            part,
            keys=np.array(keys),
            lengths=np.array([len(codes[k]) for k in keys]),
            codes=np.concatenate([codes[k] for k in keys]),
        )
        part.rename(path)
    saved = np.load(path)
    ends = np.cumsum(saved["lengths"])
    parts = np.split(saved["codes"].astype(np.int64), ends[:-1])
    return dict(zip(saved["keys"].tolist(), parts, strict=True))


def listening_rows(corpus: Corpus) -> list[int]:
    """Return the clips that Whisper draws from: Malay twice, the target voice three times."""
    target = corpus.where("target_other")
    return [*corpus.where(*HEARD), *corpus.where("malay"), *target, *target]


def copied_rows(corpus: Corpus) -> list[int]:
    """Return the clips that Whisper also hears through the codec."""
    return [
        *corpus.where("base")[::6],
        *corpus.where("malay")[::3],
        *corpus.where("target_other")[::2],
    ]


def codec_copies(
    corpus: Corpus, codes: dict[int, np.ndarray], codec: Path, work: Path
) -> dict[int, np.ndarray]:
    """Decode clips with the stock codec; later calls read the result.

    Args:
        corpus: All clips.
        codes: Codes of the clips.
        codec: Folder of the codec.
        work: Folder of the intermediate results.

    Returns:
        The copies, 24 kHz.
    """
    path = work / "copies.i16"
    chosen = sorted(codes)
    offsets = np.cumsum([0] + [len(codes[i]) * HOP for i in chosen])
    if not path.exists():
        stock = import_qwen_tts()
        tokenizer = stock.Qwen3TTSTokenizer.from_pretrained(str(codec), dtype=torch.float32)
        part = path.with_suffix(".part")
        store = np.memmap(part, dtype=np.int16, mode="w+", shape=(int(offsets[-1]),))
        order = sorted(range(len(chosen)), key=lambda n: len(codes[chosen[n]]))
        for at in range(0, len(order), 16):
            chunk = order[at : at + 16]
            waves, _ = tokenizer.decode([{"audio_codes": codes[chosen[n]]} for n in chunk])
            for n, wave in zip(chunk, waves, strict=True):
                size = int(offsets[n + 1] - offsets[n])
                store[offsets[n] : offsets[n + 1]] = np.round(wave[:size] * 32767).astype(np.int16)
        store.flush()
        part.rename(path)
    samples = np.fromfile(path, dtype=np.int16)
    return {
        i: samples[offsets[n] : offsets[n + 1]].astype(np.float32) / 32767
        for n, i in enumerate(chosen)
    }


def clone_score(
    corpus: Corpus, tokenizer: Path, codec: Path, whisper: Path, work: Path, recipe: Recipe
) -> Callable[[TalkerTrainer, int], float]:
    """Return a function that scores a Base by its clone word error rate on sentences of their own.

    Args:
        corpus: All clips.
        tokenizer: Folder of the text tokenizer.
        codec: Folder of the codec.
        whisper: Recogniser.
        work: Folder for the candidate.
        recipe: The recipe.
    """
    import whisper as asr_library

    stock = import_qwen_tts()
    rows = corpus.where("selection_en")

    def score(trainer: TalkerTrainer, step: int) -> float:
        folder = work / "talker" / "candidate"
        export_base(trainer.model, tokenizer, codec, folder, recipe.talker)
        model = stock.Qwen3TTSModel.from_pretrained(str(folder), dtype=torch.float32)
        texts = [corpus.utterances[i].text for i in rows]
        references = [reference_of(corpus, i) for i in rows]
        tags = ["English" if k % 2 else "Auto" for k in range(len(rows))]
        waves, ended = clone(model, texts, references, tags)
        asr = asr_library.load_model(str(whisper), device="cpu")
        guesses = transcribe(asr, [resample(w) for w in waves], ["english"] * len(rows))
        rate = word_error(texts, guesses)
        row = {"step": step, "wer": round(rate, 4), "n": len(rows),
               "ended": round(float(np.mean(ended)), 3)}  # fmt: skip
        with open(work / "talker" / "score.jsonl", "a") as sink:
            sink.write(json.dumps(row) + "\n")
        log.info("clone %s %s", json.dumps(row), list(zip(texts, guesses, strict=True))[:3])
        return rate

    return score


def build(
    out_dir: Path | str,
    work_dir: Path | str,
    start: Path | None = None,
    until: str = STEPS[-1],
    recipe: Recipe | None = None,
) -> dict[str, Any] | None:
    """Build the whole miniature world; what is finished is skipped, what was stopped goes on.

    Args:
        out_dir: The ``data`` folder to write.
        work_dir: Folder of checkpoints and intermediate results.
        start: Folder with the models of an earlier build of the same shapes, to start from.
        until: Last step to take.
        recipe: Overrides the recipe.

    Returns:
        The quality report, once everything is built.
    """
    out, work = Path(out_dir), Path(work_dir)
    recipe = recipe or Recipe()
    last = STEPS.index(until)
    work.mkdir(parents=True, exist_ok=True)
    corpus = build_corpus(recipe, work)
    tokenizer = work / "tokenizer"
    if not (tokenizer / "tokenizer_config.json").exists():
        train_tokenizer([u.text for u in plan(recipe)], tokenizer, recipe.talker.text_vocab)
    codec = work / "codec_export"
    if last >= STEPS.index("codec") and not (codec / "config.json").exists():
        before = start / "base" / "speech_tokenizer" if start else None
        trainer = train_codec(corpus, corpus.where(*HEARD), recipe.codec, work, before)
        export(trainer, work / "codec_part")
        replace_folder(work / "codec_part", codec)
    if last < STEPS.index("codes"):
        return None
    base_rows = corpus.where("base", "respelled")
    codes = encode_clips(corpus, base_rows, codec, work, "codes_base")
    copied = encode_clips(corpus, copied_rows(corpus), codec, work, "codes_copied")
    copies = codec_copies(corpus, copied, codec, work)
    if last < STEPS.index("whisper"):
        return None
    listened = listening_rows(corpus)
    before = start / "whisper" / "miniature.pt" if start else None
    train_whisper(corpus, listened, recipe.whisper, work, start=before)
    tuned = replace(recipe.whisper, steps=recipe.whisper.tune_steps, lr=recipe.whisper.tune_lr)
    first = work / "whisper" / "state.pt"
    whisper = out / "models" / "whisper" / "miniature.pt"
    export_whisper(
        train_whisper(corpus, listened, tuned, work, "whisper_tuned", copies, first), whisper
    )
    if last < STEPS.index("base"):
        return None
    base = TalkerTrainer(recipe.talker, tokenizer)
    if start is not None:
        load_base(base.model, tokenizer, start / "base")
    data = TalkerData(corpus, base_rows, codes, tokenizer, recipe.talker, base.ids)
    score = clone_score(corpus, tokenizer, codec, whisper, work, recipe)
    train_talker(data, base, work, score)
    export_base(base.model, tokenizer, codec, work / "base_part", recipe.talker)
    replace_folder(work / "base_part", out / "models" / "base")
    shutil.rmtree(work / "talker" / "candidate", ignore_errors=True)
    write_corpora(corpus, recipe, out)
    if last < STEPS.index("measure"):
        return None
    report = measure(corpus, out)
    write_report(report, out)
    write_readme(report, recipe, out, work)
    return report
