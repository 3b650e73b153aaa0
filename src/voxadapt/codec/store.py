"""Codes on disk: int16 arrays in one safetensors file, and an index of what they came from.

Neither side holds a corpus' codes in memory: they are written clip by clip, and read where they are
used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.files import read_jsonl, replacing, write_jsonl
from voxadapt.core.problems import problem, user_error
from voxadapt.core.tensor_headers import header_bytes
from voxadapt.data.manifest import Utterance


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
    try:
        stored = safe_open(path, "numpy")
        names = set(stored.keys())
        index = {row["id"]: row for row in read_jsonl(index_path)}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise user_error("codec.unread_codes", path, error=error) from None
    problems: list[Problem] = []
    found = []
    for clip in clips:
        where = f"{Path(path).name}: {clip.id}"
        if clip.id not in names or clip.id not in index:
            problems.append(problem("codec.no_codes", where))
            continue
        array, row = stored.get_tensor(clip.id), index[clip.id]
        shape = [row["num_frames"], num_codebooks]
        if row["audio_sha256"] != clip.audio_sha256:
            facts = {"wanted": clip.audio_sha256[:12], "found": row["audio_sha256"][:12]}
            problems.append(problem("codec.other_audio", where, **facts))
        elif codec_sha256 is not None and row["codec_sha256"] != codec_sha256:
            facts = {"wanted": codec_sha256[:12], "found": row["codec_sha256"][:12]}
            problems.append(problem("codec.other_codec", where, **facts))
        elif list(array.shape) != shape:
            problems.append(problem("codec.other_shape", where, wanted=shape, found=[*array.shape]))
        elif array.size == 0 or array.min() < 0 or array.max() >= codebook_size:
            span = f"{array.min()} to {array.max()}" if array.size else "none"
            facts = {"largest": codebook_size - 1, "found": span}
            problems.append(problem("codec.other_range", where, **facts))
        else:
            found.append(clip.id)
    raise_problems(problems, "The stored codes do not fit the corpus.")
    return Codes(found, stored.get_tensor)
