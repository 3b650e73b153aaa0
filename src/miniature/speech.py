"""The plan of the corpora, and the synthetic speech of the miniature world."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from miniature.grammar import KIND_SHARES, PHRASES, respelled_sentence, sentence, sounded, spoken
from miniature.recipe import HOP, SAMPLE_RATE, Recipe, SpeechRecipe
from miniature.voices import (
    BASE_VOICES,
    FLOOR_VOICES,
    KNOWN_VOICES,
    MALAY_VOICES,
    TARGET_VOICE,
    Voice,
    all_voices,
)

log = logging.getLogger(__name__)


class MissingSynthesizerError(RuntimeError):
    """``espeak-ng`` or ``flite`` is not installed."""


def stable_seed(*parts: object) -> int:
    """Derive a seed from any printable parts, equal on every machine.

    Args:
        *parts: What the seed depends on.

    Returns:
        A non-negative 63-bit integer.
    """
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def alike(
    rng: np.random.Generator, pool: Sequence[int], length: Callable[[int], int], size: int
) -> list[int]:
    """Draw clips of similar length, so that little of a batch is padding.

    Args:
        rng: Source of randomness.
        pool: Clips to draw from.
        length: Length of a clip.
        size: Clips wanted.
    """
    drawn = sorted(rng.choice(pool, size=size * 8).tolist(), key=length)
    at = int(rng.integers(8)) * size
    return drawn[at : at + size]


def one_after_the_other(
    rng: np.random.Generator,
    pools: Sequence[Sequence[int]],
    length: Callable[[int], int],
    size: int,
    longest: int,
) -> list[list[int]]:
    """Draw groups of up to four clips to be joined, as the sentences of a long text are.

    Args:
        rng: Source of randomness.
        pools: Clips that may stand in one group (of one voice, of one language).
        length: Length of a clip.
        size: Number of groups.
        longest: The most that the clips of a group have together.

    Returns:
        Indices of the clips of each group.
    """
    weights = np.array([len(pool) for pool in pools]) / sum(map(len, pools))
    groups = []
    for pool in rng.choice(len(pools), size=size, p=weights).tolist():
        drawn = rng.choice(pools[pool], size=4).tolist()
        ends = np.cumsum([length(i) for i in drawn])
        groups.append(drawn[: max(1, int((ends <= longest).sum()))])
    return groups


def hard_twice(corpus: Corpus, indices: Sequence[int]) -> list[int]:
    """Return clips to draw from: each of them, and those of the kinds misread most once more."""
    return [*indices, *(i for i in indices if corpus.utterances[i].kind in HARD)]


@dataclass(frozen=True)
class Utterance:
    """One sentence spoken by one voice.

    Attributes:
        split: Corpus that it belongs to.
        language: ``english`` or ``malay``.
        voice: Name of the voice; empty where nothing is spoken.
        text: The sentence as it is written.
        kind: Kind of sentence.
        sounds: What the synthesiser is given, where that is not ``sounded(text)``.
    """

    split: str
    language: str
    voice: str
    text: str
    kind: str
    sounds: str = ""


#: Kinds of the shipped corpora: middle-length sentences, as people record them.
_CORPUS_SHARES = {"plain": 64, "question": 14, "number": 10, "name": 12}
_PLAIN = {"plain": 1}
#: Kind of each shipped test set.
HARD = ("short", "long", "number", "name")
TEST_SETS = {
    "short": "short", "long": "long", "numbers": "number", "names": "name",
    "questions": "question",
}  # fmt: skip


def sentence_key(text: str) -> str:
    """Return what makes a sentence the same: its words as they are said."""
    return " ".join(re.findall(r"[a-z']+", spoken(text).lower()))


class _Sentences:
    """Draws sentences; those reserved for one corpus are never drawn again."""

    def __init__(self, recipe: Recipe) -> None:
        self.seed = recipe.seed
        self.reserved: set[str] = set()

    def draw(
        self,
        split: str,
        language: str,
        shares: dict[str, int],
        count: int,
        least_words: int = 1,
        reserve: bool = True,
    ) -> list[tuple[str, str]]:
        """Return sentences with their kinds."""
        rng = random.Random(stable_seed(self.seed, split, language))
        out: list[tuple[str, str]] = []
        while len(out) < count:
            kind = rng.choices(list(shares), list(shares.values()))[0]
            text = sentence(language, kind, rng)
            key = sentence_key(text)
            if key in self.reserved or len(key.split()) < least_words:
                continue
            if reserve:
                if text in PHRASES:
                    continue
                self.reserved.add(key)
            out.append((text, kind))
        return out


def plan(recipe: Recipe) -> list[Utterance]:
    """List every utterance of the world.

    A sentence of a held-out or shipped corpus occurs in that corpus alone, whether it is written
    with digits or in words. The corpora that models learn from may share sentences.

    Args:
        recipe: Sizes and seed.

    Returns:
        Utterances in a fixed order, what the codec learns from before what it does not need.
    """
    sizes: SpeechRecipe = recipe.speech
    sentences = _Sentences(recipe)
    base, known = [v.name for v in BASE_VOICES], [v.name for v in KNOWN_VOICES]
    malay, target = [v.name for v in MALAY_VOICES], TARGET_VOICE.name
    out: list[Utterance] = []

    def add(
        split: str,
        language: str,
        voices: Sequence[str],
        shares: dict[str, int],
        count: int,
        least_words: int = 1,
        reserve: bool = True,
    ) -> None:
        drawn = sentences.draw(split, language, shares, count, least_words, reserve)
        out.extend(
            Utterance(split, language, voices[i % len(voices)], text, kind)
            for i, (text, kind) in enumerate(drawn)
        )

    add("heldout_en", "english", known, KIND_SHARES, sizes.heldout_en)
    add("heldout_target", "english", [target], KIND_SHARES, sizes.heldout_target)
    add("heldout_ms", "malay", malay, KIND_SHARES, sizes.heldout_ms)
    add("selection_en", "english", known, KIND_SHARES, sizes.selection_en)
    for name, kind in TEST_SETS.items():
        for language in ("english", "malay"):
            add(f"set_{name}", language, [""], {kind: 1}, sizes.test_set)
    add("speaker_ref", "english", [target], _PLAIN, 2, 9)
    add("speaker", "english", [target], _CORPUS_SHARES, sizes.speaker, 5)
    add("malay_ref", "malay", malay[:1], _PLAIN, 2, 7)
    add("malay_corpus", "malay", malay[:1], _CORPUS_SHARES, sizes.malay_corpus, 4)
    add("malay_text", "malay", [""], _CORPUS_SHARES, sizes.malay_text, 4)
    floor = sizes.floor_clips * len(FLOOR_VOICES)
    add("floor", "english", FLOOR_VOICES, _PLAIN, floor, 6)
    # Learnt from: each voice in turn, so that the first part of a corpus has all of them.
    add("target_other", "english", [target], KIND_SHARES, sizes.target_other, reserve=False)
    add("malay", "malay", malay, KIND_SHARES, sizes.malay, reserve=False)
    add("base", "english", base, KIND_SHARES, sizes.base, reserve=False)
    rng = random.Random(stable_seed(recipe.seed, "respelled"))
    reading = [v.name for v in BASE_VOICES if v.engine == "espeak"]
    for i in range(sizes.respelled):
        text, sounds = respelled_sentence(rng)
        voice = reading[i % len(reading)]
        out.append(Utterance("respelled", "english", voice, text, "respelled", sounds))
    return out


def require_synthesizers() -> None:
    """Check that the synthesisers are installed.

    Raises:
        MissingSynthesizerError: One is not on the path.
    """
    missing = [name for name in ("espeak-ng", "flite") if shutil.which(name) is None]
    if missing:
        raise MissingSynthesizerError(
            f"{' and '.join(missing)} not found: rebuilding the miniature needs espeak-ng and "
            "flite (Debian: apt-get install espeak-ng flite). The shipped data does not."
        )


def synthesize(text: str, voice: Voice) -> tuple[np.ndarray, int]:
    """Speak one sentence.

    Args:
        text: What to say.
        voice: Who says it.

    Returns:
        Mono samples in [-1, 1] and their rate.

    Raises:
        RuntimeError: The synthesiser failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.wav")
        if voice.engine == "espeak":
            speed = f"{voice.speed / voice.shift:.0f}"
            manner = ["-v", voice.code, "-s", speed, "-p", str(voice.pitch)]
            command = ["espeak-ng", *manner, "-w", path, text]
        else:
            manner = [
                "-voice",
                voice.code,
                "--setf",
                f"duration_stretch={voice.speed * voice.shift}",
            ]
            if voice.pitch:
                manner += ["--setf", f"int_f0_target_mean={voice.pitch}"]
            command = ["flite", *manner, "-t", text, "-o", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not os.path.exists(path):
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        samples, rate = sf.read(path, dtype="float32")
    return samples, round(rate * voice.shift)


def shape_clip(samples: np.ndarray, rate: int, sizes: SpeechRecipe) -> np.ndarray:
    """Resample, trim, normalise and pad a clip to whole codec frames.

    Args:
        samples: Mono samples.
        rate: Their rate.
        sizes: Lead-in and tail.

    Returns:
        16-bit samples at the codec's rate, a multiple of its hop.
    """
    import soxr

    wave = soxr.resample(samples, rate, SAMPLE_RATE) if rate != SAMPLE_RATE else samples
    window = SAMPLE_RATE // 100
    frames = len(wave) // window
    level = np.sqrt(np.mean(wave[: frames * window].reshape(frames, window) ** 2, axis=1))
    loud = np.flatnonzero(level > 0.01 * level.max())
    wave = wave[loud[0] * window : (loud[-1] + 1) * window]
    wave = wave * (0.9 / np.abs(wave).max())
    lead, tail = round(sizes.lead_s * SAMPLE_RATE), round(sizes.tail_s * SAMPLE_RATE)
    total = -(-(lead + len(wave) + tail) // HOP) * HOP
    out = np.zeros(total, dtype=np.float32)
    out[lead : lead + len(wave)] = wave
    return np.round(out * 32767).astype(np.int16)


class Corpus:
    """All clips of the world, one memory-mapped file a corpus.

    Attributes:
        utterances: What each clip is.
    """

    def __init__(self, parts: Sequence[tuple[list[Utterance], np.ndarray, np.ndarray]]) -> None:
        """Join corpora.

        Args:
            parts: Utterances of a corpus, the start of each clip with the end of the last one
                appended, and the 16-bit samples of all clips, one after the other.
        """
        self.utterances = [u for utterances, _, _ in parts for u in utterances]
        self._clips = [
            samples[start:end]
            for _, offsets, samples in parts
            for start, end in itertools.pairwise(offsets.tolist())
        ]

    def clip(self, index: int) -> np.ndarray:
        """Return one clip as float32 samples in [-1, 1]."""
        return self._clips[index].astype(np.float32) / 32767

    def where(self, *splits: str) -> list[int]:
        """Return the indices of the clips of some splits."""
        return [i for i, u in enumerate(self.utterances) if u.split in splits]

    def frames(self, index: int) -> int:
        """Return the length of one clip in codec frames."""
        return len(self._clips[index]) // HOP

    def seconds(self, index: int) -> float:
        """Return the length of one clip in seconds."""
        return len(self._clips[index]) / SAMPLE_RATE


def build_corpus(
    recipe: Recipe, work: Path, splits: Sequence[str] | None = None, workers: int = 2
) -> Corpus:
    """Synthesise every utterance once; later calls read the result.

    Args:
        recipe: Sizes and seed.
        work: Folder of the intermediate results.
        splits: Corpora wanted; all by default.
        workers: Synthesisers that run at a time.

    Returns:
        The corpus.
    """
    by_split: dict[str, list[Utterance]] = {}
    for utterance in plan(recipe):
        if utterance.voice and (splits is None or utterance.split in splits):
            by_split.setdefault(utterance.split, []).append(utterance)
    folder = work / "speech"
    folder.mkdir(parents=True, exist_ok=True)
    for split, utterances in by_split.items():
        if not (folder / f"{split}.json").exists():
            require_synthesizers()
            log.info("speaking %s: %d utterances", split, len(utterances))
            _speak(utterances, folder / split, recipe.speech, workers)
    return Corpus([_load(folder / split) for split in by_split])


def _speak(utterances: list[Utterance], path: Path, sizes: SpeechRecipe, workers: int) -> None:
    voices = all_voices()

    def speak(utterance: Utterance) -> np.ndarray:
        said = utterance.sounds or sounded(utterance.text)
        return shape_clip(*synthesize(said, voices[utterance.voice]), sizes)

    kept: list[Utterance] = []
    offsets = [0]
    part = path.with_suffix(".part")
    with ThreadPoolExecutor(workers) as pool, open(part, "wb") as sink:
        for utterance, clip in zip(utterances, pool.map(speak, utterances), strict=True):
            if len(clip) > sizes.max_s * SAMPLE_RATE:
                continue
            sink.write(clip.tobytes())
            kept.append(utterance)
            offsets.append(offsets[-1] + len(clip))
    os.replace(part, path.with_suffix(".i16"))
    index = {"offsets": offsets, "utterances": [asdict(u) for u in kept]}
    part.write_text(json.dumps(index))
    os.replace(part, path.with_suffix(".json"))


def _load(path: Path) -> tuple[list[Utterance], np.ndarray, np.ndarray]:
    index = json.loads(path.with_suffix(".json").read_text())
    samples = np.asarray(np.memmap(path.with_suffix(".i16"), dtype=np.int16, mode="r"))
    return [Utterance(**u) for u in index["utterances"]], np.array(index["offsets"]), samples
