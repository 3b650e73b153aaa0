"""Audio to codes and back, in batches that change nothing.

The codec's encoder is causal, and it has no padding mask: a clip's codes do not depend on what
follows it, *if* every convolution meets whole strides. A clip whose length is not a multiple of
the hop is completed inside each layer when it is encoded alone, and by the batch's zeros when it
is not, and the latent of its last frame then differs (by 0.4 to 60 % in a measurement). So every
clip is completed with zeros to whole frames first; after that the latents are the same alone and
in any batch, to 1e-15 in float64, which tests check on the codes.

What remains is rounding: kernels may sum in another order for another batch shape, by 1e-7 or
so, and a code changes only where two codebook entries are equally near to that precision. So
that it is as little on a GPU, its convolutions keep all bits of float32, which by default they cut
to ten.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from voxadapt.codec.store import Codes
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.executor import LOCAL, Executor
from voxadapt.core.files import replacing
from voxadapt.core.problems import problem
from voxadapt.core.progress import Progress
from voxadapt.data.audio import AudioError, read_mono
from voxadapt.data.manifest import Utterance
from voxadapt.model.stock import SpeechTokenizer

#: Longest padded audio of a batch on a CPU: from there on its activations leave the caches, and a
#: batch takes longer than its clips do one after another.
CPU_BATCH_S = 8.0

Waves = list[tuple[Utterance, np.ndarray]]  # clips with their samples, in whole frames


def extract_codes(
    utterances: Sequence[Utterance],
    tokenizer: SpeechTokenizer,
    batch_seconds: float,
    work_dir: str | Path,
    codec_sha256: str,
    root: str | Path = ".",
    *,
    executor: Executor = LOCAL,
    load: Callable[[], SpeechTokenizer] | None = None,
) -> Codes:
    """Encode every clip, resuming where an earlier run stopped.

    Each clip's codes are kept in `work_dir` under the hashes of its audio and of the codec, so a
    clip that has not changed is never encoded twice. A batch has at most `batch_seconds` of padded
    audio, on a CPU 8. `load` loads the tokenizer in a worker elsewhere; without it `tokenizer` is
    sent.

    Returns:
        Codes by clip id, in the order of `utterances`, read from `work_dir` where they are used.

    Raises:
        UserError: With one problem for each clip that cannot be read or is shorter than a frame.
    """
    cache = Path(work_dir) / "codes" / codec_sha256[:16]
    cache.mkdir(parents=True, exist_ok=True)
    files = {clip.id: cache / f"{clip.audio_sha256}.npy" for clip in utterances}
    waiting = [clip for clip in utterances if _read_cached(files[clip.id]) is None]
    if waiting:
        rate_hz = tokenizer.get_input_sample_rate()
        hop = tokenizer.get_encode_downsample_rate()
        progress = Progress("codes", len(waiting), "clips")
        if torch.device(tokenizer.device).type == "cpu":
            batch_seconds = min(batch_seconds, CPU_BATCH_S)
        groups = _groups(waiting, batch_seconds)
        left = dict(enumerate(groups))
        read = partial(_read, root=Path(root), rate_hz=rate_hz, hop=hop)
        work = partial(_encode_whole, hop=hop)
        for number, (arrays, faults) in executor.run(groups, read, work, tokenizer, load):
            if faults:  # encoding ends, and every other clip that cannot be read is named as well
                problems = [problem for group in left.values() for problem in read(group)[1]]
                raise UserError(problems or faults, "Some clips cannot be encoded.")
            for clip, codes in zip(left.pop(number), arrays, strict=True):
                _write_cached(files[clip.id], codes)
            progress.advance(len(arrays))
    return Codes(files, lambda name: np.load(files[name], allow_pickle=False))


def decode_codes(
    codes: Mapping[str, np.ndarray],
    tokenizer: SpeechTokenizer,
    executor: Executor = LOCAL,
    load: Callable[[], SpeechTokenizer] | None = None,
) -> dict[str, np.ndarray]:
    """Turn codes back into sound, clip by clip, as generated speech is.

    What the codec holds is then bounded by its own window, and a clip's samples do not depend on
    its company. On a CPU it is faster than a batch. Codes are `[N, K]` by id. `load` loads the
    tokenizer in a worker elsewhere; without it `tokenizer` is sent.

    Returns:
        Mono float32 samples by id, at `tokenizer.get_output_sample_rate()` hertz, in the order
        of `codes`.
    """
    names, arrays = list(codes), list(codes.values())
    waves: dict[int, np.ndarray] = {}
    progress = Progress("decode", len(codes), "clips")
    for number, wave in executor.run(arrays, _as_tensor, _decode, tokenizer, load):
        waves[number] = wave
        progress.advance()
    return {name: waves[number] for number, name in enumerate(names)}


def _as_tensor(codes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(codes.astype(np.int64))


def _decode(tokenizer: SpeechTokenizer, codes: torch.Tensor) -> np.ndarray:
    """Decode one clip."""
    wave: np.ndarray = tokenizer.decode([{"audio_codes": codes}])[0][0]
    return wave


def whole_frames(samples: np.ndarray, hop: int) -> np.ndarray:
    """Complete samples with zeros to a multiple of the hop."""
    return np.pad(samples, (0, -len(samples) % hop))


def _groups(clips: Sequence[Utterance], batch_seconds: float) -> list[list[Utterance]]:
    """Group clips of similar duration: size x longest stays within the limit."""
    groups: list[list[Utterance]] = []
    for clip in sorted(clips, key=lambda clip: (clip.duration_s, clip.id)):
        if groups and (len(groups[-1]) + 1) * clip.duration_s <= batch_seconds:
            groups[-1].append(clip)
        else:
            groups.append([clip])
    return groups


def _read(
    clips: Sequence[Utterance], root: Path, rate_hz: int, hop: int
) -> tuple[Waves, list[Problem]]:
    """Read the clips of one batch, completed to whole frames."""
    waves: Waves = []
    problems: list[Problem] = []
    for clip in clips:
        try:
            samples, _ = read_mono(root / clip.audio, rate_hz)
        except AudioError as error:
            problems.append(problem("codec.unreadable", f"{clip.id} ({clip.audio})", error=error))
            continue
        if len(samples) < hop:
            facts = {"least_ms": 1000 * hop // rate_hz, "count": len(samples), "rate_hz": rate_hz}
            problems.append(problem("codec.short_clip", f"{clip.id} ({clip.audio})", **facts))
            continue
        waves.append((clip, whole_frames(samples, hop)))
    return waves, problems


def _encode_whole(
    tokenizer: SpeechTokenizer, batch: tuple[Waves, list[Problem]], hop: int
) -> tuple[list[np.ndarray], list[Problem]]:
    """Encode a batch of which every clip could be read."""
    waves, problems = batch
    return ([] if problems else _encode(waves, tokenizer, hop)), problems


def _encode(waves: Waves, tokenizer: SpeechTokenizer, hop: int) -> list[np.ndarray]:
    """Encode one batch and check what comes back."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, allow_tf32=False):
        encoded = tokenizer.encode(
            [wave for _, wave in waves], sr=tokenizer.get_input_sample_rate()
        )
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
        codes: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # absent, or torn: encode again
    return codes


def _write_cached(path: Path, codes: np.ndarray) -> None:
    with replacing(path) as part, open(part, "wb") as stream:
        np.save(stream, codes)
