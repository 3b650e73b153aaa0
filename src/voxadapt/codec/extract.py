"""Audio to codes and back, in batches that change nothing.

The codec's encoder is causal, and it has no padding mask: a clip's codes do not depend on what
follows it, *if* every convolution meets whole strides. A clip whose length is not a multiple of
the hop is completed inside each layer when it is encoded alone, and by the batch's zeros when it
is not, and the latent of its last frame then differs (by 0.4 to 60 % in a measurement). So every
clip is completed with zeros to whole frames first; after that the latents are the same alone and
in any batch, to 1e-15 in float64, which tests check on the codes.

What remains is rounding: kernels may sum in another order for another batch shape, by 1e-7 or
so, and a code changes only where two codebook entries are equally near to that precision.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxadapt.data.audio import AudioError, read_mono
from voxadapt.data.manifest import Utterance
from voxadapt.errors import Problem, UserError
from voxadapt.progress import Progress
from voxadapt.provenance import write_atomic

#: Longest padded audio of a batch on a CPU: from there on its activations leave the caches, and a
#: batch takes longer than its clips do one after another.
CPU_BATCH_S = 8.0


def extract_codes(
    utterances: Sequence[Utterance],
    tokenizer: Any,
    batch_seconds: float,
    work_dir: str | Path,
    codec_sha256: str,
    root: str | Path = ".",
) -> dict[str, np.ndarray]:
    """Encode every clip, resuming where an earlier run stopped.

    Each clip's codes are kept in `work_dir` under the hashes of its audio and of the codec, so a
    clip that has not changed is never encoded twice.

    Args:
        utterances: Clips; `audio` is a path relative to `root`.
        tokenizer: `qwen_tts.Qwen3TTSTokenizer`.
        batch_seconds: Longest padded audio of a batch, in seconds; on a CPU at most 8.
        work_dir: Folder for resumable state.
        codec_sha256: Hash of the codec's folder.
        root: Project folder.

    Returns:
        Codes `[N, K]` int16 by clip id, in the order of `utterances`.

    Raises:
        UserError: With one problem for each clip that cannot be read or is shorter than a frame.
    """
    cache = Path(work_dir) / "codes" / codec_sha256[:16]
    cache.mkdir(parents=True, exist_ok=True)
    found: dict[str, np.ndarray] = {}
    waiting: list[Utterance] = []
    for clip in utterances:
        array = _read_cached(cache / f"{clip.audio_sha256}.npy")
        if array is None:
            waiting.append(clip)
        else:
            found[clip.id] = array
    if waiting:
        rate_hz = tokenizer.get_input_sample_rate()
        hop = tokenizer.get_encode_downsample_rate()
        problems: list[Problem] = []
        progress = Progress("codes", len(waiting), "clips")
        if torch.device(tokenizer.device).type == "cpu":
            batch_seconds = min(batch_seconds, CPU_BATCH_S)
        for group in _groups(waiting, batch_seconds):
            waves, faults = _read(group, Path(root), rate_hz, hop)
            problems.extend(faults)
            if waves and not problems:
                for (clip, _), codes in zip(waves, _encode(waves, tokenizer, hop), strict=True):
                    _write_cached(cache / f"{clip.audio_sha256}.npy", codes)
                    found[clip.id] = codes
            progress.advance(len(group))
        if problems:
            raise UserError(problems, "Some clips cannot be encoded.")
    return {clip.id: found[clip.id] for clip in utterances}


def decode_codes(
    codes: Mapping[str, np.ndarray], tokenizer: Any, batch_seconds: float = 60.0
) -> dict[str, np.ndarray]:
    """Turn codes back into sound, in batches of similar length.

    Args:
        codes: `[N, K]` by id.
        tokenizer: `qwen_tts.Qwen3TTSTokenizer`.
        batch_seconds: Longest padded audio of a batch, in seconds.

    Returns:
        Mono float32 samples by id, at `tokenizer.get_output_sample_rate()` hertz, in the order
        of `codes`.
    """
    rate_hz = tokenizer.get_output_sample_rate()
    frame_s = tokenizer.get_decode_upsample_rate() / rate_hz
    names = sorted(codes, key=lambda name: (len(codes[name]), name))
    waves: dict[str, np.ndarray] = {}
    progress = Progress("decode", len(names), "clips")
    for group in _split(names, [len(codes[n]) * frame_s for n in names], batch_seconds):
        items = [{"audio_codes": torch.from_numpy(codes[n].astype(np.int64))} for n in group]
        decoded, _ = tokenizer.decode(items)
        waves.update(zip(group, decoded, strict=True))
        progress.advance(len(group))
    return {name: waves[name] for name in codes}


def whole_frames(samples: np.ndarray, hop: int) -> np.ndarray:
    """Complete samples with zeros to a multiple of the hop."""
    return np.pad(samples, (0, -len(samples) % hop))


def _groups(clips: Sequence[Utterance], batch_seconds: float) -> list[list[Utterance]]:
    """Group clips of similar duration."""
    ordered = sorted(clips, key=lambda clip: (clip.duration_s, clip.id))
    return _split(ordered, [clip.duration_s for clip in ordered], batch_seconds)


def _split(items: Sequence[Any], durations_s: Sequence[float], batch_seconds: float) -> list[Any]:
    """Cut a list, sorted by duration, so that size x longest stays within the limit."""
    groups: list[list[Any]] = []
    for item, duration_s in zip(items, durations_s, strict=True):
        if groups and (len(groups[-1]) + 1) * duration_s <= batch_seconds:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def _read(
    clips: Sequence[Utterance], root: Path, rate_hz: int, hop: int
) -> tuple[list[tuple[Utterance, np.ndarray]], list[Problem]]:
    """Read the clips of one batch, completed to whole frames."""
    waves: list[tuple[Utterance, np.ndarray]] = []
    problems: list[Problem] = []
    for clip in clips:
        try:
            samples, _ = read_mono(root / clip.audio, rate_hz)
        except AudioError as error:
            problems.append(
                Problem(f"{clip.id} ({clip.audio})", "audio", str(error), "Run the audit again.")
            )
            continue
        if len(samples) < hop:
            problems.append(
                Problem(
                    f"{clip.id} ({clip.audio})",
                    f"audio of at least one frame ({1000 * hop // rate_hz} ms)",
                    f"{len(samples)} samples at {rate_hz} Hz",
                    "Remove the clip from the corpus and run the audit again.",
                )
            )
            continue
        waves.append((clip, whole_frames(samples, hop)))
    return waves, problems


def _encode(
    waves: Sequence[tuple[Utterance, np.ndarray]], tokenizer: Any, hop: int
) -> list[np.ndarray]:
    """Encode one batch and check what comes back."""
    encoded = tokenizer.encode([wave for _, wave in waves], sr=tokenizer.get_input_sample_rate())
    arrays = []
    for (clip, wave), codes in zip(waves, encoded.audio_codes, strict=True):
        array = codes.cpu().numpy()
        assert len(array) == len(wave) // hop, f"{clip.id}: {len(array)} frames"
        assert array.min() >= 0, f"{clip.id}: negative code"
        assert array.max() <= np.iinfo(np.int16).max, f"{clip.id}: code beyond int16"
        arrays.append(array.astype(np.int16))
    return arrays


def _read_cached(path: Path) -> np.ndarray | None:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # absent, or torn: encode again


def _write_cached(path: Path, codes: np.ndarray) -> None:
    stream = io.BytesIO()
    np.save(stream, codes)
    write_atomic(path, stream.getvalue())
