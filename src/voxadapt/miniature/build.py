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

from voxadapt.core.compat import import_qwen_tts
from voxadapt.miniature.codec import export, train_codec
from voxadapt.miniature.measure import (
    clone,
    measure,
    reference_of,
    selection_rows,
    write_report,
)
from voxadapt.miniature.package import replace_folder, write_corpora
from voxadapt.miniature.readme import write_readme
from voxadapt.miniature.recipe import HOP, SAMPLE_RATE, TARGET_VOICE, Recipe
from voxadapt.miniature.speech import Corpus, build_corpus, plan
from voxadapt.miniature.talker import (
    TalkerData,
    TalkerTrainer,
    export_base,
    train_talker,
)
from voxadapt.miniature.tokenizer import train_tokenizer
from voxadapt.miniature.whisper import (
    export_whisper,
    resample,
    train_whisper,
    transcribe,
    word_error,
)

log = logging.getLogger(__name__)

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
        order = sorted(indices, key=corpus.seconds)
        codes: dict[int, np.ndarray] = {}
        for at in range(0, len(order), batch):
            chunk = order[at : at + batch]
            waves = [corpus.clip(i) for i in chunk]
            coded = tokenizer.encode(waves, sr=SAMPLE_RATE).audio_codes
            for i, c in zip(chunk, coded, strict=True):
                codes[i] = c.numpy().astype(np.int16)
        keys = sorted(codes)
        lengths = [len(codes[k]) for k in keys]
        np.savez(
            path,
            keys=np.array(keys),
            lengths=np.array(lengths),
            codes=np.concatenate([codes[k] for k in keys]),
        )
    saved = np.load(path)
    ends = np.cumsum(saved["lengths"])
    parts = np.split(saved["codes"].astype(np.int64), ends[:-1])
    return dict(zip(saved["keys"].tolist(), parts, strict=True))


def listening_rows(corpus: Corpus) -> list[int]:
    """Return the clips that Whisper draws from: Malay twice, the target voice five times."""
    extra = corpus.where("target_other", "whisper_only")
    target = [i for i in extra if corpus.utterances[i].voice == TARGET_VOICE.name]
    return [*corpus.where(*HEARD), *corpus.where("malay", "whisper_only"), *target * 4]


def copied_rows(corpus: Corpus) -> list[int]:
    """Return the clips that Whisper also hears through the codec."""
    return [
        *corpus.where("base")[::12],
        *corpus.where("malay")[::4],
        *corpus.where("target_other", "whisper_only")[::4],
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
    """Return a function that scores a Base by its held-out clone word error rate.

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
    rows = selection_rows(corpus)

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
        log.info("clone %s %s", json.dumps(row), list(zip(texts, guesses, strict=True))[:3])
        return rate

    return score


def build(
    out_dir: Path | str, work_dir: Path | str, seed: int | None = None, recipe: Recipe | None = None
) -> dict[str, Any]:
    """Build the whole miniature world; finished steps are skipped.

    Args:
        out_dir: The ``data`` folder to write.
        work_dir: Folder of checkpoints and intermediate results.
        seed: Overrides the recipe's seed.
        recipe: Overrides the recipe.

    Returns:
        The quality report.
    """
    out, work = Path(out_dir), Path(work_dir)
    recipe = recipe or Recipe()
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    work.mkdir(parents=True, exist_ok=True)
    corpus = build_corpus(recipe, work)
    write_corpora(corpus, recipe, out)
    tokenizer = work / "tokenizer"
    if not (tokenizer / "tokenizer_config.json").exists():
        train_tokenizer([u.text for u in plan(recipe)], tokenizer, recipe.talker.text_vocab)
    heard = corpus.where(*HEARD)
    codec = work / "codec_export"
    if not (codec / "config.json").exists():
        export(train_codec(corpus, heard, recipe.codec, work), work / "codec_part")
        replace_folder(work / "codec_part", codec)
    listened = listening_rows(corpus)
    whisper = out / "models" / "whisper" / "miniature.pt"
    base_rows = corpus.where("base", "shifted", "respelled")
    codes = encode_clips(corpus, base_rows, codec, work, "codes_base")
    copied = encode_clips(corpus, copied_rows(corpus), codec, work, "codes_copied")
    first = work / "whisper" / "state.pt"
    train_whisper(corpus, listened, recipe.whisper, work)
    copies = codec_copies(corpus, copied, codec, work)
    tuned = replace(recipe.whisper, steps=recipe.whisper.tune_steps, lr=recipe.whisper.tune_lr)
    export_whisper(
        train_whisper(corpus, listened, tuned, work, "whisper_tuned", copies, first), whisper
    )
    trainer = TalkerTrainer(recipe.talker, tokenizer)
    data = TalkerData(corpus, base_rows, codes, tokenizer, recipe.talker, trainer.ids)
    score = clone_score(corpus, tokenizer, codec, whisper, work, recipe)
    train_talker(data, trainer, work, score)
    export_base(trainer.model, tokenizer, codec, work / "base_part", recipe.talker)
    replace_folder(work / "base_part", out / "models" / "base")
    shutil.rmtree(work / "talker" / "candidate", ignore_errors=True)
    report = measure(corpus, out)
    write_report(report, out)
    write_readme(report, recipe, out)
    return report
