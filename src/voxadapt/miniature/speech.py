"""Grammar and synthetic speech of the miniature world."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from voxadapt.miniature.recipe import (
    BASE_VOICES,
    FLOOR_VOICES,
    HOP,
    MALAY_TARGET,
    MALAY_VOICES,
    SAMPLE_RATE,
    SHIFTED_VOICES,
    TARGET_VOICE,
    Recipe,
    SpeechRecipe,
    Voice,
)


class MissingSynthesizerError(RuntimeError):
    """``espeak-ng`` or ``flite`` is not installed."""


_EN = {
    "det": ("the", "a", "my", "our"),
    "adj": ("old", "young", "happy", "little", "quiet", "tall"),
    "who": (
        "man", "woman", "boy", "girl", "teacher",
        "farmer", "doctor", "king", "sailor", "baker",
    ),
    "did": ("saw", "found", "bought", "carried", "opened", "painted", "washed", "dropped"),
    "slept": ("slept", "waited", "laughed", "worked"),
    "look": ("red", "green", "blue", "big", "small", "new", "heavy", "empty"),
    "what": (
        "book", "box", "door", "car", "boat", "horse",
        "apple", "letter", "table", "bottle", "window", "hat",
    ),
    "where": (
        "near the river", "in the garden", "behind the school",
        "at the market", "by the window", "on the table",
    ),
    "when": (
        "today", "yesterday", "again", "in the morning", "after dinner",
        "before winter", "on Sunday", "at night", "with a friend", "this summer",
    ),
}  # fmt: skip

_MS = {
    "who": ("saya", "dia", "kami", "ayah", "ibu", "adik", "guru", "jiran", "kawan", "nenek"),
    "did": ("beli", "bawa", "baca", "lihat", "buka", "cuci", "jual", "simpan"),
    "many": ("dua", "tiga", "lima"),
    "what": (
        "buku", "ikan", "kereta", "surat", "pintu", "bunga",
        "roti", "baju", "kotak", "rumah", "payung",
    ),
    "look": ("merah", "besar", "kecil", "baru", "lama", "putih"),
    "this": ("itu", "ini"),
    "where": ("di pasar", "di sekolah", "di rumah", "di bandar", "di taman"),
    "when": ("hari ini", "pagi tadi", "setiap malam", "sekarang", "semalam", "dengan kawan"),
}  # fmt: skip


def _article(words: list[str]) -> list[str]:
    fixed = list(words)
    for i, word in enumerate(fixed[:-1]):
        if word == "a" and fixed[i + 1][0] in "aeiou":
            fixed[i] = "an"
    return fixed


def _finish(words: Iterable[str]) -> str:
    text = " ".join(words)
    return text[0].upper() + text[1:] + "."


def english_sentence(rng: random.Random) -> str:
    """Draw one English sentence of 3 to 10 words.

    Args:
        rng: Source of randomness.

    Returns:
        The sentence, capitalised, with a full stop.
    """
    pick = lambda key: rng.choice(_EN[key])  # noqa: E731
    who = [pick("det"), *([pick("adj")] if rng.random() < 0.45 else []), pick("who")]
    what = [pick("det"), *([pick("look")] if rng.random() < 0.5 else []), pick("what")]
    shape = rng.random()
    if shape < 0.62:
        words = [*who, pick("did"), *what]
    elif shape < 0.76:
        words = [*who, pick("slept")]
    elif shape < 0.90:
        words = [*what, "was", *pick("where").split()]
    else:
        words = [*who, "and", pick("det"), pick("who"), pick("did"), *what]
    room = 9 - len(words)
    tails = [t for key in ("when", "where") for t in _EN[key] if len(t.split()) <= room]
    if shape < 0.76 and tails and rng.random() < 0.7:
        tail = rng.choice(tails).split()
        front = tail[0] in ("today", "yesterday", "in", "on", "at", "after", "before")
        words = [*tail, *words] if front and rng.random() < 0.3 else [*words, *tail]
    elif shape >= 0.76 and room >= 1 and rng.random() < 0.4:
        words = [*words, rng.choice(("today", "yesterday", "again"))]
    return _finish(_article(words))


def malay_sentence(rng: random.Random) -> str:
    """Draw one Malay sentence of 3 to 9 words.

    Args:
        rng: Source of randomness.

    Returns:
        The sentence, capitalised, with a full stop.
    """
    pick = lambda key: rng.choice(_MS[key])  # noqa: E731
    who = [pick("who")]
    if who[0] in ("ayah", "ibu", "adik", "guru", "kawan", "nenek") and rng.random() < 0.4:
        who.append("saya")
    if rng.random() < 0.3:
        what = [pick("many"), pick("what")]
    else:
        what = [pick("what")]
    if rng.random() < 0.6:
        what.append(pick("look"))
    if rng.random() < 0.4:
        what.append(pick("this"))
    words = [*who, pick("did"), *what]
    tail = rng.random()
    if tail < 0.45:
        words += pick("when").split()
    elif tail < 0.8:
        words += pick("where").split()
    return _finish(words)


#: Syllables of invented words: what is written, and espeak's code for how it is said.
_ONSETS = {
    "": "", "b": "b", "d": "d", "f": "f", "g": "g", "h": "h", "j": "dZ", "k": "k", "l": "l",
    "m": "m", "n": "n", "p": "p", "r": "r", "s": "s", "t": "t", "w": "w", "y": "j", "z": "z",
    "ch": "tS", "sh": "S", "ny": "nj", "ng": "N",
}  # fmt: skip
_VOWELS = {
    "ah": "A:", "ee": "i:", "oo": "u:", "uh": "@", "oh": "oU", "ay": "eI", "eye": "aI", "ow": "aU",
}  # fmt: skip
_CODAS = {
    "": "", "n": "n", "m": "m", "ng": "N", "t": "t", "k": "k", "p": "p", "r": "r", "l": "l",
    "s": "s",
}  # fmt: skip
_VOWEL_SHARES = (5, 3, 3, 4, 1.5, 1, 1, 1)


def _invented_word(rng: random.Random) -> tuple[str, str]:
    """Draw an invented word: its spelling and its phonemes, stressed on the last but one."""
    count = rng.choices((1, 2, 3), (1, 5, 3))[0]
    written, said = [], []
    for n in range(count):
        onset = rng.choice([key for key in _ONSETS if n == 0 or key])
        vowel = rng.choices(list(_VOWELS), _VOWEL_SHARES)[0]
        coda = rng.choice(list(_CODAS)) if rng.random() < (0.5 if n + 1 == count else 0.2) else ""
        written.append(onset + vowel + coda)
        stress = "'" if n == max(count - 2, 0) else ""
        said.append(_ONSETS[onset] + stress + _VOWELS[vowel] + _CODAS[coda])
    return "-".join(written), f"[[{''.join(said)}]]"


def respelled_sentence(rng: random.Random) -> tuple[str, str]:
    """Draw a sentence of invented words, two in five with English words among them.

    Args:
        rng: Source of randomness.

    Returns:
        The sentence, and what espeak is to be given: the same with phonemes for the invented
        words.
    """
    if rng.random() < 0.6:
        words = [_invented_word(rng) for _ in range(rng.choice((2, 3, 3, 4, 4, 5)))]
    else:
        plain = english_sentence(rng).rstrip(".").lower().split()[:6]
        words = [(word, word) for word in plain]
        for at in rng.sample(range(len(words)), k=min(2, len(words))):
            words[at] = _invented_word(rng)
    return _finish(written for written, _ in words), " ".join(said for _, said in words) + "."


SENTENCES = {"english": english_sentence, "malay": malay_sentence}


def stable_seed(*parts: object) -> int:
    """Derive a seed from any printable parts, equal on every machine.

    Args:
        *parts: What the seed depends on.

    Returns:
        A non-negative 63-bit integer.
    """
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Utterance:
    """One sentence spoken by one voice.

    Attributes:
        split: Corpus that it belongs to.
        language: ``english`` or ``malay``.
        voice: Name of the voice.
        text: What is said.
        spoken: What the synthesiser is given, where it is not the text.
    """

    split: str
    language: str
    voice: str
    text: str
    spoken: str = ""


def _distinct(language: str, rng: random.Random, taken: set[str]) -> Iterator[str]:
    while True:
        text = SENTENCES[language](rng)
        key = text.lower()
        if key not in taken:
            taken.add(key)
            yield text


def _long_enough(texts: Iterator[str], least: int) -> Iterator[str]:
    return (text for text in texts if len(text.split()) >= least)


def plan(recipe: Recipe) -> list[Utterance]:
    """List every utterance of the world; no sentence occurs in two splits.

    Args:
        recipe: Sizes and seed.

    Returns:
        Utterances in a fixed order.
    """
    sizes: SpeechRecipe = recipe.speech
    rng = random.Random(stable_seed(recipe.seed, "plan"))
    taken: set[str] = set()
    english = _distinct("english", rng, taken)
    malay = _distinct("malay", rng, taken)
    base, target = [v.name for v in BASE_VOICES], TARGET_VOICE.name
    out: list[Utterance] = []

    def add(split: str, language: str, voice: str, texts: Iterator[str], count: int) -> None:
        out.extend(Utterance(split, language, voice, next(texts)) for _ in range(count))

    for i in range(sizes.heldout_en):
        add("heldout_en", "english", base[i % len(base)], english, 1)
    add("heldout_target", "english", target, english, sizes.heldout_target)
    for i in range(sizes.heldout_ms):
        add("heldout_ms", "malay", MALAY_VOICES[i % len(MALAY_VOICES)].name, malay, 1)
    add("speaker_ref", "english", target, _long_enough(english, 9), 2)
    add("speaker", "english", target, _long_enough(english, 5), sizes.speaker)
    add("malay_ref", "malay", MALAY_TARGET.name, _long_enough(malay, 8), 2)
    add("malay_corpus", "malay", MALAY_TARGET.name, _long_enough(malay, 4), sizes.malay_corpus)
    for voice in FLOOR_VOICES:
        add("floor", "english", voice, _long_enough(english, 6), sizes.floor_clips)
    add("malay_text", "malay", "", malay, sizes.malay_text)
    add("target_other", "english", target, english, sizes.target_other)
    for i in range(sizes.malay):
        add("malay", "malay", MALAY_VOICES[i % len(MALAY_VOICES)].name, malay, 1)
    for i in range(sizes.base):
        add("base", "english", base[i % len(base)], english, 1)
    # The recorded voices are few and the hardest to read: Whisper hears more of them.
    add("whisper_only", "english", target, english, sizes.whisper_target)
    flite = [v.name for v in BASE_VOICES if v.engine == "flite"]
    for i in range(sizes.whisper_flite):
        add("whisper_only", "english", flite[i % len(flite)], english, 1)
    add("speaker_more", "english", target, _long_enough(english, 5), sizes.speaker_more)
    for i in range(sizes.shifted):
        add("shifted", "english", SHIFTED_VOICES[i % len(SHIFTED_VOICES)].name, english, 1)
    reading = [v.name for v in BASE_VOICES if v.engine == "espeak"]
    for i in range(sizes.respelled):
        text, spoken = respelled_sentence(rng)
        out.append(Utterance("respelled", "english", reading[i % len(reading)], text, spoken))
    add("speaker_rest", "english", target, _long_enough(english, 5), sizes.speaker_rest)
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
            manner = ["-v", voice.code, "-s", f"{voice.speed:.0f}", "-p", str(voice.pitch)]
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


@dataclass(frozen=True)
class Corpus:
    """All clips of the world in one array.

    Attributes:
        utterances: What each clip is.
        offsets: Start of each clip, with the end of the last one appended.
        samples: 16-bit samples of all clips, one after the other.
    """

    utterances: list[Utterance]
    offsets: np.ndarray
    samples: np.ndarray

    def clip(self, index: int) -> np.ndarray:
        """Return one clip as float32 samples in [-1, 1]."""
        raw = self.samples[self.offsets[index] : self.offsets[index + 1]]
        return raw.astype(np.float32) / 32767

    def where(self, *splits: str) -> list[int]:
        """Return the indices of the clips of some splits."""
        return [i for i, u in enumerate(self.utterances) if u.split in splits]

    def seconds(self, index: int) -> float:
        """Return the length of one clip in seconds."""
        return float(self.offsets[index + 1] - self.offsets[index]) / SAMPLE_RATE


def all_voices() -> dict[str, Voice]:
    """Return every voice by name."""
    return {v.name: v for v in (*BASE_VOICES, *SHIFTED_VOICES, TARGET_VOICE, *MALAY_VOICES)}


def build_corpus(recipe: Recipe, work: Path, workers: int = 2) -> Corpus:
    """Synthesise every utterance once; later calls read the result.

    Args:
        recipe: Sizes and seed.
        work: Folder of the intermediate results.
        workers: Synthesisers that run at a time.

    Returns:
        The corpus.
    """
    folder = work / "speech"
    if not (folder / "index.json").exists():
        require_synthesizers()
        folder.mkdir(parents=True, exist_ok=True)
        voices = all_voices()
        spoken = [u for u in plan(recipe) if u.voice]
        kept: list[Utterance] = []
        lengths = [0]
        with (
            ThreadPoolExecutor(workers) as pool,
            open(folder / "samples.part", "wb") as sink,
        ):
            raw = pool.map(lambda u: synthesize(u.spoken or u.text, voices[u.voice]), spoken)
            for utterance, (samples, rate) in zip(spoken, raw, strict=True):
                clip = shape_clip(samples, rate, recipe.speech)
                if len(clip) > recipe.speech.max_s * SAMPLE_RATE:
                    continue
                sink.write(clip.tobytes())
                kept.append(utterance)
                lengths.append(len(clip))
        os.replace(folder / "samples.part", folder / "samples.i16")
        index = {
            "offsets": np.cumsum(lengths).tolist(),
            "utterances": [asdict(u) for u in kept],
        }
        (folder / "index.json").write_text(json.dumps(index))
    return load_corpus(work)


def load_corpus(work: Path) -> Corpus:
    """Read a corpus that :func:`build_corpus` has written.

    Args:
        work: Folder of the intermediate results.

    Returns:
        The corpus, its samples mapped from disk.
    """
    folder = work / "speech"
    index = json.loads((folder / "index.json").read_text())
    return Corpus(
        utterances=[Utterance(**u) for u in index["utterances"]],
        offsets=np.asarray(index["offsets"], dtype=np.int64),
        samples=np.memmap(folder / "samples.i16", dtype=np.int16, mode="r"),
    )
