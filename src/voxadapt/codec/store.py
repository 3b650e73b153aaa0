"""Codes on disk: int16 arrays in one safetensors file, and an index of what they came from.

Neither side holds a corpus' codes in memory: they are written clip by clip, and read where they are
used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import read_jsonl, replacing, write_jsonl
from voxadapt.core.tensor_headers import header_bytes
from voxadapt.data.manifest import Utterance

_FIX = "Run the codes stage again: `voxadapt codes`."


class Codes(Mapping[str, np.ndarray]):
    """Codes `[N, K]` int16 by clip id, each read when it is asked for."""

    def __init__(self, names: Iterable[str], read: Callable[[str], np.ndarray]) -> None:
        self._names, self._read = dict.fromkeys(names), read

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write_codes(
    path: str | Path,
    index_path: str | Path,
    codes: Mapping[str, np.ndarray],
    clips: Iterable[Utterance],
    codec_sha256: str,
) -> None:
    """Write the codes of a corpus and their index, in the order of the clips.

    The file is safetensors, `{id: int16 [N, K]}`; the index is JSONL, `{id, num_frames,
    audio_sha256, codec_sha256}`.
    """
    clips = list(clips)
    shapes = {clip.id: codes[clip.id].shape for clip in clips}
    names, end = sorted(shapes), 0
    header: dict[str, object] = {}
    for name in names:
        start, end = end, end + 2 * int(np.prod(shapes[name]))
        header[name] = {"dtype": "I16", "shape": shapes[name], "data_offsets": [start, end]}
    with replacing(path) as part, open(part, "wb") as stream:
        stream.write(header_bytes(header))
        for name in names:
            stream.write(codes[name].astype("<i2").tobytes())
    rows = (
        {
            "id": clip.id,
            "num_frames": shapes[clip.id][0],
            "audio_sha256": clip.audio_sha256,
            "codec_sha256": codec_sha256,
        }
        for clip in clips
    )
    write_jsonl(index_path, rows)


def read_codes(
    path: str | Path,
    index_path: str | Path,
    clips: Iterable[Utterance],
    num_codebooks: int,
    codebook_size: int,
    codec_sha256: str | None = None,
) -> Codes:
    """Read the codes of a corpus, `[N, K]` int16 by clip id, and check that they belong to it.

    `num_codebooks` is the K that the talker expects; codes must be below `codebook_size`. Without
    `codec_sha256`, the hash of the codec in use, that is not checked.

    Raises:
        UserError: With one problem for each clip whose codes are missing, stale or impossible.
    """
    title = "The stored codes do not fit the corpus."
    try:
        stored = safe_open(path, "numpy")
        names = set(stored.keys())
        index = {row["id"]: row for row in read_jsonl(index_path)}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError.of(path, "codes and their index", reason, _FIX, title) from None
    problems: list[Problem] = []
    found = []
    for clip in clips:
        where = f"{Path(path).name}: {clip.id}"
        if clip.id not in names or clip.id not in index:
            problems.append(Problem(where, "the codes of this clip", "none", _FIX))
            continue
        array, row = stored.get_tensor(clip.id), index[clip.id]
        if row["audio_sha256"] != clip.audio_sha256:
            expected = f"codes of audio {clip.audio_sha256[:12]}"
            problems.append(Problem(where, expected, f"of {row['audio_sha256'][:12]}", _FIX))
        elif codec_sha256 is not None and row["codec_sha256"] != codec_sha256:
            expected = f"codes of codec {codec_sha256[:12]}"
            problems.append(Problem(where, expected, f"of {row['codec_sha256'][:12]}", _FIX))
        elif array.ndim != 2 or array.shape[1] != num_codebooks or len(array) != row["num_frames"]:
            expected = f"[{row['num_frames']}, {num_codebooks}] codes"
            problems.append(Problem(where, expected, f"{list(array.shape)}", _FIX))
        elif array.size == 0 or array.min() < 0 or array.max() >= codebook_size:
            span = f"{array.min()} to {array.max()}" if array.size else "none"
            problems.append(Problem(where, f"codes from 0 to {codebook_size - 1}", span, _FIX))
        else:
            found.append(clip.id)
    raise_problems(problems, title)
    return Codes(found, stored.get_tensor)
