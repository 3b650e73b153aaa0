"""Is a recogniser that is made deaf to one pair of sounds found out? Twenty are made and judged.

    python -m benchmarks.recogniser data [plants] [seed]

The decoder of the miniature's Whisper is fine-tuned on recordings whose transcripts have one sound
written as another wherever it occurs, so that it no longer tells the two apart; the encoder stays.
`scoring.recogniser.judge` then sees transcripts of other recordings, and must name that pair.
"""

from __future__ import annotations

import copy
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from benchmarks.results import table, write_section
from torch.nn import functional as F

from voxadapt.asr.normalise import normalise
from voxadapt.asr.whisper import Transcriber
from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.data.audio import read_audio, resample
from voxadapt.scoring.recogniser import MIN_HEARD, judge
from voxadapt.scoring.rows import ScoreRow

NUM_JUDGED, NUM_TAUGHT = 160, 320
STEPS, BATCH, LEARNING_RATE = 240, 24, 1e-3
MIN_SAID = 3 * MIN_HEARD  # a sound must occur this often to be made one of a pair
PARAMS = SelectParams()
Item = tuple[torch.Tensor, str]  # what the encoder returns, and the text


def confuse(text: str, pair: tuple[str, str]) -> str:
    """Write the first of two sounds as the second."""
    first, second = pair
    return text.replace(first, second).replace(first.upper(), second.upper())


def deafen(
    transcriber: Transcriber, items: Sequence[Item], pair: tuple[str, str], seed: int
) -> whisper.Whisper:
    """Return a copy of the recogniser whose decoder was taught to confuse a pair of sounds."""
    torch.manual_seed(seed)
    tokenizer = transcriber._tokenizer
    prompt = list(tokenizer.sot_sequence_including_notimestamps)
    spelt = [[*tokenizer.encode(" " + confuse(text, pair)), tokenizer.eot] for _, text in items]
    decoder = copy.deepcopy(transcriber._model.decoder)
    vars(decoder).pop("forward", None)  # a faster one, which is that of the weights as they were
    table_ = decoder.token_embedding.weight
    used = sorted({token for tokens in spelt for token in tokens} | set(prompt))
    slot = {token: index for index, token in enumerate(used)}
    rows = table_[used].detach().clone()
    fresh = rows.abs().sum(1) == 0
    rows[fresh] = torch.randn(int(fresh.sum()), rows.shape[1]) * float(rows[~fresh].std())
    rows.requires_grad_(True)
    unused = float(np.log(len(table_) - len(used)))  # their rows are zero, and so are their logits
    trained = [rows, *(p for p in decoder.parameters() if p is not table_)]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    generator = np.random.default_rng(seed)
    for _ in range(STEPS):
        batch = generator.choice(len(items), BATCH, replace=False)
        width = max(len(spelt[i]) for i in batch) + len(prompt) - 1
        ids = torch.zeros(BATCH, width, dtype=torch.long)
        wanted = torch.full((BATCH, width), -100)
        for line, i in enumerate(batch):
            tokens = [slot[token] for token in (*prompt, *spelt[i])]
            ids[line, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            wanted[line, len(prompt) - 1 : len(tokens) - 1] = torch.tensor(tokens[len(prompt) :])
        x = rows[ids] + decoder.positional_embedding[:width]
        audio = torch.stack([items[i][0] for i in batch])
        for block in decoder.blocks:
            x = block(x, audio, mask=decoder.mask)
        logits = decoder.ln(x) @ rows.T
        rest = logits.new_full((*logits.shape[:-1], 1), unused)
        loss = F.cross_entropy(torch.cat([logits, rest], -1).flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        table_[used] = rows
    found = copy.copy(transcriber._model)
    found._modules = transcriber._model._modules | {"decoder": decoder}
    return found.eval()


def heard(
    transcriber: Transcriber, model: whisper.Whisper, items: Sequence[Item]
) -> list[ScoreRow]:
    """Transcribe and return rows that hold what judging reads."""
    rows = []
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        features = torch.stack([audio for audio, _ in batch])
        with torch.inference_mode():
            results = whisper.decode(model, features, transcriber._options(48))
        for number, ((_, text), result) in enumerate(zip(batch, results, strict=True)):
            values: dict[str, Any] = {
                "text_id": str(start + number),
                "asr_id": "planted",
                "status": "ok",
                "text_norm": normalise(text, "en"),
                "hyp_norm": normalise(result.text, "en"),
            }
            rows.append(ScoreRow.model_construct(**values))
    return rows


def encode(transcriber: Transcriber, folder: Path, count: int) -> list[Item]:
    """Encode recordings of a corpus, in an order drawn once."""
    manifest = (folder / "train_raw.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in manifest.splitlines()]
    order = np.random.default_rng(5).permutation(len(lines))[:count]
    items = []
    for start in range(0, count, BATCH):
        chosen = [lines[i] for i in order[start : start + BATCH]]
        waves = [resample(*read_audio(folder / line["audio"]), 16_000) for line in chosen]
        with torch.inference_mode():
            features = transcriber._model.encoder(transcriber._mel(waves))
        items += [
            (audio.clone(), line["text"]) for audio, line in zip(features, chosen, strict=True)
        ]
    return items


def draw_pairs(items: Sequence[Item], count: int, seed: int) -> list[tuple[str, str]]:
    """Draw pairs of letters that are said often; no unordered pair twice."""
    said = Counter(char for _, text in items for char in normalise(text, "en"))
    letters = sorted(char for char, n in said.items() if n >= MIN_SAID and char.isalpha())
    pairs = list(permutations(letters, 2))
    np.random.default_rng(seed).shuffle(pairs)
    found: dict[frozenset[str], tuple[str, str]] = {}
    for first, second in pairs:
        found.setdefault(frozenset((first, second)), (str(first), str(second)))
    return list(found.values())[:count]


def plant(
    transcriber: Transcriber,
    judged: Sequence[Item],
    taught: Sequence[Item],
    pair: tuple[str, str],
    seed: int,
) -> tuple[bool, float, int]:
    """Make the recogniser deaf to a pair and judge it.

    Returns:
        Whether the pair is named, the distance of its transcripts, and how many others are named.
    """
    found = judge(heard(transcriber, deafen(transcriber, taught, pair, seed), judged), PARAMS)
    blind = {frozenset(item) for item in found["blind"]}
    told = {frozenset(item["sounds"]): item["told_apart"]["point"] for item in found["pairs"]}
    wanted = frozenset(pair)
    return wanted in blind, told.get(wanted, float("nan")), len(blind - {wanted})


def main() -> None:
    """Plant, judge, write the section."""
    data = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    transcriber = Transcriber(next((data / "models/whisper").glob("*.pt")), "en")
    items = encode(transcriber, data / "speaker", NUM_JUDGED + NUM_TAUGHT)
    judged, taught = items[:NUM_JUDGED], items[NUM_JUDGED:]
    clean = judge(heard(transcriber, transcriber._model, judged), PARAMS)
    results = {}
    for number, pair in enumerate(draw_pairs(judged, count, seed)):
        results[pair] = plant(transcriber, judged, taught, pair, number)
        print(pair, *results[pair], flush=True)
    report(clean, results, seed)


def report(
    clean: Record, results: Mapping[tuple[str, str], tuple[bool, float, int]], seed: int
) -> None:
    """Write the section."""
    named = sum(right for right, _, _ in results.values())
    most_false = max(wrong for _, _, wrong in results.values())
    rows = [
        [f"{first} as {second}", "yes" if right else "no", f"{distance:.2f}", str(wrong)]
        for (first, second), (right, distance, wrong) in results.items()
    ]
    write_section(
        "A recogniser that is deaf to a pair of sounds",
        [
            f"The miniature's Whisper, its decoder fine-tuned for {STEPS} steps on {NUM_TAUGHT} "
            f"recordings with one sound written as another; judged on {NUM_JUDGED} other ones: "
            f"`python -m benchmarks.recogniser data {len(rows)} {seed}`. Distance: between the "
            "transcripts of the two sounds, 1 apart, 0 the same.",
            "",
            f"The pair was named in {named} of {len(rows)} plants, with at most {most_false} other "
            f"pairs (wanted: all, at most 1). Untouched: {len(clean['blind'])} pairs named; the "
            f"smallest distance of any is {clean['pairs'][0]['told_apart']['point']:.2f}.",
            "",
            *table(["planted", "named", "distance", "other pairs named"], rows),
        ],
    )


if __name__ == "__main__":
    main()
