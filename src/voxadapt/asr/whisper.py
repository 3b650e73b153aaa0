"""Transcription by openai-whisper: greedy, language forced, batched, cached by content.

One encoder pass serves decoding and language identification. Nothing is sampled and nothing is
tried again at a higher temperature: log-probability, compression ratio and no-speech probability
are kept as numbers instead. Any checkpoint that `whisper.load_model` reads will do, or a Whisper in
Hugging Face form, with any `n_audio_ctx`; clips longer than its window are read in several windows,
never cut silently.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from whisper.audio import HOP_LENGTH, SAMPLE_RATE, log_mel_spectrogram, pad_or_trim
from whisper.timing import find_alignment
from whisper.tokenizer import LANGUAGES, get_tokenizer

from voxadapt.asr import huggingface
from voxadapt.asr.checkpoints import canonical
from voxadapt.asr.normalise import NOTHING, Substitutions
from voxadapt.asr.transcript import Transcript
from voxadapt.core.compat import keep_freed_memory
from voxadapt.core.executor import LOCAL, Executor, worker_device
from voxadapt.core.files import sha256_file, write_atomic
from voxadapt.core.languages import whisper_language
from voxadapt.core.params import AsrParams
from voxadapt.core.problems import user_error
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.data.audio import read_audio, resample

TOKENS_PER_REFERENCE_TOKEN = 4  # a transcript longer than this (plus 16) only repeats itself
LIMIT_STEP = 32  # limits are rounded up, so that batches share one and caches stay valid
SILENT_COLUMNS = 4  # behind a clip, of which the last ones see nothing of it
TYPICAL_WINDOWS = 16  # of a batch, for which a CPU's weight is packed
# One window: what was decoded, the language and its probability.
Decoded = tuple[whisper.DecodingResult, str | None, float | None]
SEAM_S = 0.1  # long clips are divided at the quietest stretch of this length …
SEAM_SHARE = 0.25  # … within this last share of a window


class Transcriber:
    """A Whisper checkpoint with fixed decoding options.

    The model is the path of a checkpoint, a folder or hub id in Hugging Face form, or a name that
    openai-whisper can download; the language, Whisper's code or a name of it, is always forced.
    `batch_size` windows are decoded at once; it is recorded, because near-ties can flip with it.
    Without `cache_dir` no transcripts are kept.

    Raises:
        UserError: When the checkpoint cannot be had or read, or the language is unknown to it.
    """

    def __init__(
        self,
        model: str | Path,
        language: str,
        device: str = "cpu",
        batch_size: int = 16,
        cache_dir: str | Path | None = None,
    ) -> None:
        self.batch_size, self.own = batch_size, NOTHING
        self._model, self._name, self._sha = load_whisper(model, device)
        self._model.eval()
        _speed_up(self._model)
        self._fp16 = self._model.device.type == "cuda"
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        self.window_samples = self._model.dims.n_audio_ctx * 2 * HOP_LENGTH
        self._load = partial(Transcriber, model, device=worker_device(device))
        self._set_language(language, str(model))

    def _set_language(self, language: str, model: str) -> None:
        """Take a language: the tokenizer, the identity and the cache are its own."""
        language = whisper_language(language)
        _check_language(language, self._model, model)
        self.language, self._given = language, model
        self._tokenizer = get_tokenizer(
            self._model.is_multilingual,
            num_languages=self._model.num_languages,
            language=language,
            task="transcribe",
        )
        self._max_tokens = self._model.dims.n_text_ctx - len(
            self._tokenizer.sot_sequence_including_notimestamps
        )
        options = {
            "language": language,
            "temperature": 0,
            "timestamps": False,
            "dtype": "float16" if self._fp16 else "float32",
            "batch_size": self.batch_size,
            "windows": 1,
            "whisper": metadata.version("openai-whisper"),
        }
        self.asr_id = f"whisper:{self._name}+{self._sha[:12]}/{language}/{fingerprint(options, 8)}"
        self.options = options | {"model": self._name, "sha256": self._sha}
        folder = self._cache_dir
        self._cache = None if folder is None else folder / fingerprint(self.asr_id)
        self._reload = partial(self._load, language=language, batch_size=self.batch_size)

    def in_language(self, language: str) -> Transcriber:
        """Return the same checkpoint for another language, or raise `UserError`."""
        if whisper_language(language) == self.language:
            return self
        other = copy(self)
        other._set_language(language, self._given)
        return other

    @classmethod
    def from_params(
        cls, asr: AsrParams, device: str, work_dir: Path, model: str | None = None
    ) -> Transcriber:
        """Load the Whisper model that the parameters name."""
        transcriber = cls(
            model or asr.model, asr.language, device, asr.batch_size, work_dir / "transcripts"
        )
        transcriber.own = Substitutions.read(asr.substitutions)
        return transcriber

    def transcribe(
        self, paths: Sequence[str | Path], texts: Sequence[str], executor: Executor = LOCAL
    ) -> list[Transcript]:
        """Transcribe clips.

        Files have any rate. Of their texts only the length is used, to bound the transcript.

        Raises:
            OSError: When a file is not there.
            AudioError: When it cannot be decoded.
        """
        limits = [self._limit(text) for text in texts]
        names = [f"{sha256_file(path)}-{limit}" for path, limit in zip(paths, limits, strict=True)]
        done = {name: found for name in set(names) if (found := self._cached(name)) is not None}
        missing = {name: index for index, name in enumerate(names) if name not in done}
        # Clips of one limit and similar length share a batch: its longest transcript holds it.
        order = sorted(missing.values(), key=lambda i: (limits[i], len(texts[i]), names[i]))
        progress = Progress("Transcribing", len(order)) if order else None
        batches = []
        for limit in sorted({limits[i] for i in order}):
            group = [i for i in order if limits[i] == limit]
            for start in range(0, len(group), self.batch_size):
                batches.append((limit, group[start : start + self.batch_size]))
        shards = [(limit, [paths[i] for i in batch]) for limit, batch in batches]
        read = partial(_read_windows, window=self.window_samples)
        for number, transcripts in executor.run(
            shards, read, _transcribe_batch, self, self._reload
        ):
            batch = batches[number][1]
            for index, found in zip(batch, transcripts, strict=True):
                done[names[index]] = found
                self._remember(names[index], found)
            assert progress is not None
            progress.advance(len(batch))
        return [done[name] for name in names]

    def transcribe_each(
        self,
        paths: Sequence[str | Path],
        texts: Sequence[str],
        languages: Sequence[str],
        executor: Executor = LOCAL,
    ) -> list[Transcript]:
        """Transcribe clips as `transcribe` does, each in its own language."""
        found: dict[int, Transcript] = {}
        for language in dict.fromkeys(languages):
            at = [i for i, own in enumerate(languages) if own == language]
            transcriber = self.in_language(language)
            heard = transcriber.transcribe([paths[i] for i in at], [texts[i] for i in at], executor)
            found |= zip(at, heard, strict=True)
        return [found[i] for i in range(len(paths))]

    @torch.no_grad()
    def words(
        self, wave: NDArray[np.float32]
    ) -> tuple[list[tuple[str, float, float, float]], str | None]:
        """Transcribe one window and place its words in time.

        Of samples at 16 kHz, [N], at most `window_samples` are read. Words have start and end in
        seconds and a probability; where there are none to be trusted, it is said why.
        """
        mel = self._mel([wave])[0]
        result = whisper.decode(self._model, mel, self._options())
        text = result.text.strip()
        if not text:
            return [], "no words"
        if result.no_speech_prob > 0.6 and result.avg_logprob < -1.0:
            return [], f"probably no speech ({text[:40]})"
        if result.compression_ratio > 2.4:
            return [], f"a text that repeats itself ({text[:40]})"
        tokens = [token for token in result.tokens if token < self._tokenizer.eot]
        num_frames = min(len(wave), self.window_samples) // HOP_LENGTH
        placed = find_alignment(self._model, self._tokenizer, tokens, mel, num_frames)
        words = [(w.word, float(w.start), float(w.end), float(w.probability)) for w in placed]
        return words, None if words else "no words"

    def _mel(self, windows: Sequence[NDArray[np.float32]]) -> torch.Tensor:
        """Return what the encoder takes of windows, [B, num_mels, num_frames]."""
        size, num_mels = self.window_samples, self._model.dims.n_mels
        found = []
        for wave in windows:
            # The last column is one of the silence that fills the window: it is repeated.
            length = min(size, HOP_LENGTH * (math.ceil(len(wave) / HOP_LENGTH) + SILENT_COLUMNS))
            mel = log_mel_spectrogram(pad_or_trim(wave, length), num_mels)
            rest = (size - length) // HOP_LENGTH
            found.append(torch.nn.functional.pad(mel, (0, rest), mode="replicate"))
        mel = torch.stack(found)
        mel = mel.to(self._model.device)
        return mel.half() if self._fp16 else mel

    def _options(self, limit: int | None = None) -> whisper.DecodingOptions:
        """Return how all is decoded; None leaves the length of a transcript to Whisper."""
        return whisper.DecodingOptions(
            language=self.language,
            temperature=0.0,
            without_timestamps=True,
            fp16=self._fp16,
            sample_len=limit,
        )

    def _limit(self, text: str) -> int:
        """Return how many tokens a transcript of this reference may have."""
        expected: int = len(self._tokenizer.encode(" " + text.strip()))
        wanted = TOKENS_PER_REFERENCE_TOKEN * expected + 16
        return int(min(self._max_tokens, math.ceil(wanted / LIMIT_STEP) * LIMIT_STEP))

    def _read(self, clips: list[list[NDArray[np.float32]]], limit: int) -> list[Transcript]:
        """Transcribe one batch of clips, each in its windows."""
        windows = [window for clip in clips for window in clip]
        decoded: list[Decoded] = []
        for start in range(0, len(windows), self.batch_size):
            decoded += self._decode(windows[start : start + self.batch_size], limit)
        transcripts, start = [], 0
        for clip in clips:
            transcripts.append(_join(decoded[start : start + len(clip)]))
            start += len(clip)
        return transcripts

    @torch.no_grad()
    def _decode(self, windows: Sequence[NDArray[np.float32]], limit: int) -> list[Decoded]:
        """Encode once, then identify the language and decode."""
        model = self._model
        features = model.encoder(self._mel(windows))
        languages: list[tuple[str | None, float | None]] = [(None, None)] * len(windows)
        if model.is_multilingual:
            _, probabilities = whisper.detect_language(model, features, self._tokenizer)
            best = [max(p, key=p.get) for p in probabilities]
            languages = [(code, p[code]) for code, p in zip(best, probabilities, strict=True)]
        results = whisper.decode(model, features, self._options(limit))
        return [(result, *found) for result, found in zip(results, languages, strict=True)]

    def _cached(self, name: str) -> Transcript | None:
        if self._cache is None:
            return None
        try:
            stored = json.loads((self._cache / f"{name}.json").read_text(encoding="utf-8"))
            return Transcript(**stored)
        except (OSError, ValueError, TypeError):  # absent, or left by another version
            return None

    def _remember(self, name: str, transcript: Transcript) -> None:
        if self._cache is not None:
            text = json.dumps(asdict(transcript), ensure_ascii=False, sort_keys=True)
            write_atomic(self._cache / f"{name}.json", text + "\n")


def _read_windows(
    batch: tuple[int, Sequence[str | Path]], window: int
) -> tuple[int, list[list[NDArray[np.float32]]]]:
    """Read the clips of one batch at Whisper's rate, each in windows."""
    limit, paths = batch
    clips = []
    for path in paths:
        wav, sample_rate_hz = read_audio(path)
        clips.append(split_at_pauses(resample(wav, sample_rate_hz, SAMPLE_RATE), window))
    return limit, clips


def _transcribe_batch(
    transcriber: Transcriber, batch: tuple[int, list[list[NDArray[np.float32]]]]
) -> list[Transcript]:
    """Transcribe one batch that was read."""
    limit, clips = batch
    return transcriber._read(clips, limit)


def split_at_pauses(wav: NDArray[np.float32], window: int) -> list[NDArray[np.float32]]:
    """Divide a clip into pieces of at most `window` samples, at its quietest moments.

    Samples are at 16 kHz, [N].
    """
    pieces = []
    seam = round(SEAM_S * SAMPLE_RATE)
    while len(wav) > window:
        first = round(window * (1 - SEAM_SHARE))
        tail = wav[first:window].astype(np.float64) ** 2
        energy = np.convolve(tail, np.ones(min(seam, len(tail))), "valid")
        cut = first + int(np.argmin(energy)) + min(seam, len(tail)) // 2
        pieces.append(wav[:cut])
        wav = wav[cut:]
    return [*pieces, wav]


def _join(decoded: Sequence[Decoded]) -> Transcript:
    """Make one transcript of a clip's windows."""
    results = [result for result, _, _ in decoded]
    text = " ".join(result.text.strip() for result in results if result.text.strip())
    _, lid, lid_p = max(decoded, key=lambda item: item[2] or 0.0)
    silence = max(result.no_speech_prob for result in results)
    return Transcript(
        text=text,
        avg_logprob=round(float(min(result.avg_logprob for result in results)), 6),
        compression_ratio=round(float(whisper.utils.compression_ratio(text)), 6),
        no_speech_prob=round(float(silence), 6) if math.isfinite(silence) else 0.0,
        lid=lid,
        lid_p=None if lid_p is None else round(float(lid_p), 6),
        num_windows=len(results),
    )


def load_whisper(model: str | Path, device: str = "cpu") -> tuple[whisper.Whisper, str, str]:
    """Load a Whisper checkpoint: the model, its name and the sha256 of its files.

    Raises:
        UserError: What is missing, where it would come from, and how to use a local copy.
    """
    name = canonical(str(model), whisper.available_models())
    where = f"asr.model: {name}"
    keep_freed_memory()
    if name in whisper.available_models():
        url = whisper._MODELS[name]
        try:
            return _load(name, device), name, url.split("/")[-2]
        except (OSError, RuntimeError) as error:  # URLError is an OSError
            raise user_error("asr.no_download", where, url=url, error=error) from None
    if huggingface.is_folder(name) or (
        huggingface.HUB_ID.fullmatch(name) and not Path(name).exists()
    ):
        folder = Path(name) if huggingface.is_folder(name) else huggingface.fetch(name)
        loaded, sha = huggingface.load_folder(folder, device)
        return loaded, Path(name).name, sha
    if not Path(name).is_file():
        raise user_error("asr.no_model", where, known=", ".join(whisper.available_models()))
    sha = sha256_file(name)
    try:
        loaded = _load(name, device)
        for part, values in loaded.named_parameters():
            if not bool(torch.isfinite(values).all()):
                raise ValueError(f"{part} is not finite")
        return loaded, Path(name).stem, sha
    except Exception as error:  # any content that is no checkpoint: pickle, zip, keys, shapes
        facts = {"kind": type(error).__name__, "error": error}
        raise user_error("asr.no_checkpoint", where, **facts) from None


def _load(name: str, device: str) -> whisper.Whisper:
    """Load a model; to an Apple GPU by way of the CPU, because it takes no sparse tensors."""
    if not device.startswith("mps"):
        return whisper.load_model(name, device=device)
    model = whisper.load_model(name, device="cpu")
    heads = model.get_buffer("alignment_heads").to_dense()
    model.register_buffer("alignment_heads", heads, persistent=False)
    return model.to(device)


def _speed_up(model: whisper.Whisper) -> None:
    """Let a CPU do once what the text decoder does anew for each token; its results are the same.

    What it attends to in the audio is laid out by head, and the embedding, which is the last
    product's weight, is packed.
    """
    decoder = model.decoder
    if model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return

    def by_head(_: object, __: object, states_BTD: torch.Tensor) -> torch.Tensor:
        heads: torch.Tensor = states_BTD.unflatten(-1, (model.dims.n_text_head, -1)).transpose(1, 2)
        return heads.contiguous().transpose(1, 2)

    for block in decoder.blocks:
        block.cross_attn.key.register_forward_hook(by_head)
        block.cross_attn.value.register_forward_hook(by_head)
    embedding, ops = decoder.token_embedding, torch.ops.mkldnn
    packed = ops._reorder_linear_weight(embedding.weight.detach(), TYPICAL_WINDOWS)

    def forward(
        tokens: torch.Tensor,
        audio: torch.Tensor,
        kv_cache: dict[object, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        start = next(iter(kv_cache.values())).shape[1] if kv_cache else 0
        places = slice(start, start + tokens.shape[-1])
        states = embedding(tokens) + decoder.positional_embedding[places]
        for block in decoder.blocks:
            states = block(states, audio, mask=decoder.mask, kv_cache=kv_cache)
        states = decoder.ln(states)
        made: torch.Tensor = ops._linear_pointwise.default(
            states.flatten(0, 1), packed, None, "none", [], ""
        )
        return made.view(*tokens.shape, -1)

    decoder.forward = forward


def _check_language(language: str, model: whisper.Whisper, name: str) -> None:
    """Refuse a language that the checkpoint has no token for."""
    known = list(LANGUAGES)[: model.num_languages] if model.is_multilingual else ["en"]
    if language in known:
        return
    facts = {"found": language, "model": name, "count": len(known)}
    if not model.is_multilingual:
        raise user_error("asr.one_language", "asr.language", **facts)
    if language not in LANGUAGES:
        raise user_error("asr.no_language", "asr.language", **facts)
    also = ", or set asr.language: zh" if language == "yue" else ""
    raise user_error("asr.younger_language", "asr.language", also=also, **facts)
