"""Speech of every candidate for the same sentences, by the stock `qwen_tts` calls.

A fine-tuned checkpoint speaks by `generate_custom_voice`, the Base by `generate_voice_clone`; the
token loop below them is that of `voxadapt.generation.decoding`, in which every clip draws from a
random stream of its own. A clip's seed depends on its text and take alone, so all candidates get
the same random numbers, and so do their comparisons. The batches (which sentences, in which order)
are the same for every candidate as well: the last bits of a matrix product depend on the shape of
the batch.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxadapt.core.compat import import_qwen_tts
from voxadapt.core.errors import is_out_of_memory, out_of_memory, raise_problems
from voxadapt.core.executor import LOCAL, Executor, as_it_is
from voxadapt.core.files import TORN, replacing, sha256_array
from voxadapt.core.params import ScoreParams
from voxadapt.core.problems import problem, user_error
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.data.audio import to_pcm16, write_wav
from voxadapt.generation.decoding import VERSION as DECODING_VERSION
from voxadapt.generation.decoding import (
    Decoding,
    forget,
    frame_rate_hz,
    stream_seed,
    text_tokens,
    token_limit,
)
from voxadapt.model.stock import ClonePrompt, Sound, SpeechTokenizer, Tts
from voxadapt.scoring.rows import EvalClip, Sentence

Prompt = Literal["x_vector", "icl"]


@dataclass(frozen=True)
class Voice:
    """Which voice a model speaks with: a named speaker, or a cloning prompt."""

    speaker: str | None = None  # name in a fine-tuned checkpoint
    #: What the Base's `create_voice_clone_prompt` returned, one item.
    prompt: ClonePrompt | None = None
    instruct: str | None = None  # how a named speaker shall speak, in words

    def __post_init__(self) -> None:
        assert (self.speaker is None) != (self.prompt is None), "a speaker or a prompt, not both"

    def __reduce__(self) -> tuple[Callable[..., "Voice"], tuple[object, ...]]:
        """Travel to a worker as plain values, which `qwen_tts` is imported for by its guard."""
        prompt = None if self.prompt is None else vars(self.prompt)
        return _rebuilt_voice, (self.speaker, prompt, self.instruct)

    @property
    def sha(self) -> str:
        """Hash of what the voice adds to the checkpoint."""
        if self.speaker is not None:
            instruct = {"instruct": self.instruct} if self.instruct else {}
            return fingerprint({"speaker": self.speaker, **instruct})
        assert self.prompt is not None
        values: dict[str, object] = {
            "text": self.prompt.ref_text,
            "x_vector": self.prompt.x_vector_only_mode,
        }
        for name in ("ref_spk_embedding", "ref_code"):
            tensor = getattr(self.prompt, name)
            if tensor is not None:
                values[name] = sha256_array(tensor.detach().float().cpu().numpy())
        return fingerprint(values)


def _rebuilt_voice(
    speaker: str | None, prompt: Mapping[str, object] | None, instruct: str | None
) -> Voice:
    """Make a voice again of what `Voice.__reduce__` gave."""
    item = None if prompt is None else import_qwen_tts().VoiceClonePromptItem(**prompt)
    return Voice(speaker, item, instruct)


@dataclass(frozen=True)
class Batch:
    """Sentences generated together, for one take."""

    sentences: tuple[Sentence, ...]  # in their fixed order
    take: int  # 0, 1, 2 …
    seeds: tuple[int, ...]  # of each sentence's random stream
    #: Where each sentence stops; one more than the frames it can give.
    max_new_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Spoken:
    """One generated clip, or why there is none."""

    samples: NDArray[np.int16] | None
    num_frames: int = 0
    hit_max_tokens: bool = False
    message: str = ""


def clone_voice(tts: Tts, ref_audio: str | Path, ref_text: str | None, mode: Prompt) -> Voice:
    """Make the Base's cloning prompt from the reference clip.

    `mode` is the speaker vector alone, or reference text and codes as well, which needs the clip's
    text.
    """
    if mode == "icl" and not ref_text:
        raise user_error("generation.no_ref_text", "score.base_prompt")
    items = tts.create_voice_clone_prompt(
        ref_audio=str(ref_audio),
        ref_text=ref_text if mode == "icl" else None,
        x_vector_only_mode=mode == "x_vector",
    )
    return Voice(prompt=items[0])


def generation_sha(
    sentences: Sequence[Sentence], params: ScoreParams, frames_per_s: float, dtype: str
) -> str:
    """Hash what decides generation and is common to all candidates.

    The set of sentences is part of it, because the other rows of a batch can change the last bits
    of a product. The number of takes is not: takes are generated separately. Nor is the language
    tag: a model that was trained on a language is asked for it; the Base, which cannot be, is
    compared with it.
    """
    return fingerprint(
        {
            "decoding": DECODING_VERSION,
            "dtype": dtype,
            "sampling": sampling(params),
            "non_streaming_mode": params.non_streaming_mode,
            "seed": params.seed,
            "batch_size": params.batch_size,
            "max_seconds_per_token": params.max_seconds_per_token,
            "frames_per_s": frames_per_s,
            "sentences": sorted((item.text_id, item.text) for item in sentences),
        }
    )


def sampling(params: ScoreParams) -> dict[str, object]:
    """Return the sampling arguments of the stock calls, the same for talker and sub-talker."""
    return {
        "do_sample": True,
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "repetition_penalty": params.repetition_penalty,
        "subtalker_dosample": True,
        "subtalker_temperature": params.temperature,
        "subtalker_top_k": params.top_k,
        "subtalker_top_p": params.top_p,
    }


def plan_batches(tts: Tts, sentences: Sequence[Sentence], params: ScoreParams) -> list[Batch]:
    """Lay out batches of about equal size: by length, then id; the same for every candidate."""
    frames_per_s = frame_rate_hz(tts)
    lengths = {item.text_id: text_tokens(tts, item.text) for item in sentences}
    ordered = sorted(sentences, key=lambda item: (lengths[item.text_id], item.text_id))
    num_groups = math.ceil(len(ordered) / params.batch_size)
    edges = [round(len(ordered) * number / max(1, num_groups)) for number in range(num_groups + 1)]
    return [
        Batch(
            sentences=tuple(ordered[start:stop]),
            take=take,
            seeds=tuple(
                stream_seed(params.seed, take, item.text_id) for item in ordered[start:stop]
            ),
            max_new_tokens=tuple(
                token_limit(lengths[item.text_id], params.max_seconds_per_token, frames_per_s)
                for item in ordered[start:stop]
            ),
        )
        for take in range(params.takes)
        for start, stop in itertools.pairwise(edges)
    ]


def speak(
    tts: Tts,
    texts: Sequence[str],
    voice: Voice,
    params: ScoreParams,
    *,
    seeds: Sequence[int],
    max_new_tokens: Sequence[int],
    language: str | Sequence[str] = "Auto",
) -> list[Spoken]:
    """Generate one batch.

    `language` is one that the model lists, or Auto; or that of each text.

    Returns:
        One clip a text. `hit_max_tokens` is set where the limit ended a clip, not the model.
    """
    arguments = {
        "text": list(texts),
        "language": language if isinstance(language, str) else list(language),
        "non_streaming_mode": params.non_streaming_mode,
        **sampling(params),
    }
    codec = tts.model.speech_tokenizer
    with Decoding(tts.model, seeds, max_new_tokens) as decoding, one_by_one(codec):
        if voice.speaker is not None:
            wavs, _ = tts.generate_custom_voice(
                speaker=voice.speaker, instruct=voice.instruct, **arguments
            )
        else:
            wavs, _ = tts.generate_voice_clone(voice_clone_prompt=[voice.prompt], **arguments)
    spoken = []
    for wav, ending in zip(wavs, decoding.endings, strict=True):
        if not len(wav) or not np.isfinite(wav).all():
            spoken.append(Spoken(None, message="the model gave no audio, or values that are none"))
            continue
        samples = to_pcm16(wav)
        spoken.append(Spoken(samples, ending.num_frames, not ending.ended))
    return spoken


@contextmanager
def one_by_one(codec: SpeechTokenizer) -> Iterator[None]:
    """Let a codec decode each clip of a batch by itself.

    What it holds is then bounded by its own window (300 frames and their context), not by the
    batch, and a clip's samples do not depend on the length of others. On a CPU it is no slower:
    what is worked on stays in the caches.
    """
    decode = codec.decode

    def each(items: Sequence[Mapping[str, Tensor]]) -> Sound:
        decoded = [decode([item]) for item in items]
        return [wav for wavs, _ in decoded for wav in wavs], decoded[0][1]

    codec.decode = each
    try:
        yield
    finally:
        codec.decode = decode


def speak_candidate(
    tts: Tts,
    candidate: str,
    sentences: Sequence[Sentence],
    voice: Voice,
    params: ScoreParams,
    *,
    out_dir: Path,
    work_dir: Path,
    root: Path,
    checkpoint_sha: str,
    lang: str,
    language: str = "Auto",
    executor: Executor = LOCAL,
    load: Callable[[], Tts] | None = None,
) -> list[EvalClip]:
    """Speak every sentence `params.takes` times and write the clips.

    Args:
        tts: Stock `Qwen3TTSModel` of the candidate.
        candidate: Its name.
        sentences: The same for all candidates.
        voice: Speaker or cloning prompt.
        params: Sampling, batches, seeds, takes.
        out_dir: Folder for the wavs.
        work_dir: Folder for finished batches; an interrupted run goes on from there.
        root: Project folder, which the wavs' paths are relative to.
        checkpoint_sha: Identity of the checkpoint.
        lang: Whisper's code of the language, kept in the clips; a sentence's own goes before.
        language: Language given to the model, or Auto; a sentence's own goes before.
        executor: Where batches are spoken.
        load: How a worker elsewhere loads the candidate; None sends `tts`.

    Returns:
        One clip a sentence and take, failed ones included, sorted by text and take.

    Raises:
        UserError: When the model does not know the speaker or the language, or cannot clone.
    """
    for spoken_in in dict.fromkeys(item.tag or language for item in sentences):
        check_voice(tts, voice, spoken_in)
    texts = [item.text_id for item in sentences]
    assert len(set(texts)) == len(texts), "text ids must be unique"
    rate_hz = tts.model.speech_tokenizer.get_output_sample_rate()
    gen_sha = generation_sha(sentences, params, frame_rate_hz(tts), str(tts.model.dtype))
    tag = language.lower()
    identity = [checkpoint_sha, gen_sha, tag, voice.sha, str(tts.device)]
    batches = plan_batches(tts, sentences, params)
    progress = Progress(f"Speaking ({candidate})", sum(len(b.sentences) for b in batches))
    clips = []

    def keep(batch: Batch, spoken: Sequence[Spoken]) -> None:
        for sentence, seed, result in zip(batch.sentences, batch.seeds, spoken, strict=True):
            path = Path(out_dir) / f"{_file_name(sentence.text_id)}-{batch.take}.wav"
            if result.samples is not None:
                write_wav(path, result.samples, rate_hz)
            clips.append(
                EvalClip(
                    candidate=candidate,
                    split=sentence.split,
                    text_id=sentence.text_id,
                    take=batch.take,
                    seed=seed,
                    lang=sentence.lang or lang,
                    text=sentence.text,
                    slice=sentence.slice,
                    wav="" if result.samples is None else relative(path, root),
                    num_frames=None if result.samples is None else result.num_frames,
                    hit_max_tokens=result.hit_max_tokens,
                    gen_sha=gen_sha,
                    checkpoint_sha=checkpoint_sha,
                    status="failed" if result.samples is None else "ok",
                    message=result.message,
                )
            )
        progress.advance(len(batch.sentences))

    waiting: list[tuple[Path, Batch]] = []
    for batch in batches:
        path = _stored_at(batch, work_dir, identity)
        stored = load_spoken(path, len(batch.sentences))
        if stored is None:
            waiting.append((path, batch))
        else:
            keep(batch, stored)
    work = partial(speak_batch, voice=voice, params=params, language=language)
    shards = [batch for _, batch in waiting]
    for number, spoken in executor.run(shards, as_it_is, work, tts, load):
        path, batch = waiting[number]
        if all(item.samples is not None for item in spoken):
            store_spoken(path, spoken)
        keep(batch, spoken)
    forget()
    return sorted(clips, key=lambda clip: (clip.text_id, clip.take))


def _stored_at(batch: Batch, work_dir: Path, identity: Sequence[str]) -> Path:
    """Name the file of a finished batch by all that decides it."""
    lines = [item.text for item in batch.sentences]
    tags = [item.tag for item in batch.sentences]
    key = fingerprint(
        [
            *identity,
            batch.take,
            batch.seeds,
            batch.max_new_tokens,
            lines,
            *([tags] if any(tags) else []),
        ]
    )
    return Path(work_dir) / f"{key}.npz"


def speak_batch(
    tts: Tts, batch: Batch, voice: Voice, params: ScoreParams, language: str
) -> list[Spoken]:
    """Generate a batch; one that fails is spoken singly, and its clips say why they failed."""
    lines = [item.text for item in batch.sentences]
    languages = [item.tag or language for item in batch.sentences]

    def spoken_rows(rows: slice) -> list[Spoken]:
        return speak(
            tts,
            lines[rows],
            voice,
            params,
            seeds=batch.seeds[rows],
            max_new_tokens=batch.max_new_tokens[rows],
            language=languages[rows],
        )

    try:
        spoken = spoken_rows(slice(None))
    except Exception as broken:  # one row can break a batch; the clips say which one did
        if is_out_of_memory(broken):
            raise out_of_memory(broken, "score.batch_size") from None
        spoken = []
        for index in range(len(lines)):
            try:
                spoken += spoken_rows(slice(index, index + 1))
            except Exception as error:
                reason = f"generation failed: {type(error).__name__}: {error}"
                spoken.append(Spoken(None, message=" ".join(reason.split())[:300]))
    return spoken


def store_spoken(path: Path, spoken: Sequence[Spoken]) -> None:
    """Write clips that have samples, whole or not at all."""
    arrays = {f"clip{i}": item.samples for i, item in enumerate(spoken) if item.samples is not None}
    arrays["num_frames"] = np.array([item.num_frames for item in spoken])
    arrays["hit_max_tokens"] = np.array([item.hit_max_tokens for item in spoken])
    with replacing(path) as part, open(part, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def load_spoken(path: Path, count: int) -> list[Spoken] | None:
    """Read clips that `store_spoken` wrote; None where they are absent or torn."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [
                Spoken(
                    stored[f"clip{i}"],
                    int(stored["num_frames"][i]),
                    bool(stored["hit_max_tokens"][i]),
                )
                for i in range(count)
            ]
    except TORN:
        return None  # absent, or torn: speak again


def relative(path: Path, root: Path) -> str:
    """Write a path relative to the project folder, with forward slashes."""
    return Path(path).resolve().relative_to(Path(root).resolve()).as_posix()


def _file_name(text_id: str) -> str:
    """Turn an id into a file name that is safe everywhere and still unique."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", text_id)[:80]
    return safe if safe == text_id else f"{safe}-{fingerprint(text_id, 8)}"


def check_voice(tts: Tts, voice: Voice, language: str) -> None:
    """Refuse what the stock calls would refuse for every single clip."""
    problems = []
    known = sorted(tts.get_supported_languages() or [])
    if known and language.lower() not in known:
        facts = {"known": ", ".join(known), "found": language}
        problems.append(problem("generation.unknown_language", "language", **facts))
    kind = tts.model.tts_model_type
    wanted = "base" if voice.speaker is None else "custom_voice"
    if kind != wanted:
        facts = {"wanted": wanted, "found": kind}
        problems.append(problem("generation.other_type", "tts_model_type", **facts))
    elif voice.speaker is not None:
        speakers = sorted(tts.get_supported_speakers() or [])
        if voice.speaker.lower() not in speakers:
            facts = {"known": ", ".join(speakers), "found": voice.speaker}
            problems.append(problem("generation.unknown_speaker", "train.speaker_name", **facts))
    if voice.instruct and (voice.speaker is None or tts.model.tts_model_size == "0b6"):
        what = "a voice that is cloned" if voice.speaker is None else "a model of 0.6B"
        problems.append(problem("generation.no_instruct", "--instruct", found=what))
    raise_problems(problems, "The model cannot speak these sentences.")
