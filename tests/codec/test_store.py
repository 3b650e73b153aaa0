from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

import fakes
from voxadapt.codec.store import read_codes, write_codes
from voxadapt.core.errors import UserError

ROWS = [fakes.make_utterance(f"c{n}", "x") for n in range(5)]
CODES = {row.id: fakes.make_codes(5 + n, n) for n, row in enumerate(ROWS)}


@pytest.fixture
def paths(tmp_path):
    found = tmp_path / "codes.safetensors", tmp_path / "index.jsonl"
    write_codes(*found, CODES, ROWS, "codec")
    return found


def read(paths, rows=ROWS, **options):
    given = {"num_codebooks": fakes.NUM_CODEBOOKS, "codebook_size": fakes.CODEBOOK_SIZE}
    return read_codes(*paths, rows, **{**given, **options})


def test_what_is_written_is_read_back_and_bytes_do_not_vary(paths, tmp_path):
    found = read(paths, codec_sha256="codec")
    assert list(found) == [row.id for row in ROWS]
    for name, array in found.items():
        assert array.dtype == np.int16
        assert np.array_equal(array, CODES[name])
    assert paths[0].read_bytes() == save(CODES)  # as the library writes them
    assert "c0" in found and "c9" not in found
    with pytest.raises(KeyError):
        found["c9"]
    again = tmp_path / "again.safetensors", tmp_path / "again.jsonl"
    write_codes(*again, dict(reversed(CODES.items())), ROWS, "codec")
    assert again[0].read_bytes() == paths[0].read_bytes()
    assert again[1].read_bytes() == paths[1].read_bytes()


def test_stale_audio_is_a_user_error_that_names_the_clip(paths):
    rows = [ROWS[0].model_copy(update={"audio_sha256": "0" * 64}), *ROWS[1:]]
    with pytest.raises(UserError, match=r"c0: expected codes of audio 000000000000"):
        read(paths, rows)


def test_all_misfits_are_reported_together(paths):
    rows = [*ROWS, fakes.make_utterance("new", "x")]
    with pytest.raises(UserError) as caught:
        read(paths, rows, codebook_size=20)
    assert len(caught.value.problems) == 1 + sum(int(a.max()) >= 20 for a in CODES.values())
    with pytest.raises(UserError, match=r"\[5, 16\] codes"):
        read(paths, num_codebooks=16)
    with pytest.raises(UserError, match="codes of codec other"):
        read(paths, codec_sha256="other")


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_missing_or_damaged_store_says_what_to_run(paths, damage):
    if damage == "missing":
        paths[0].unlink()
    else:
        paths[0].write_bytes(paths[0].read_bytes()[:40])
    with pytest.raises(UserError, match="voxadapt codes"):
        read(paths)


@pytest.mark.parametrize(
    ("lowest", "highest", "shape", "fine"),
    [(0, 2047, (3, 16), True), (0, 2048, (3, 16), False), (-1, 5, (3, 16), False),
     (0, 5, (3, 15), False), (0, 5, (48,), False), (0, 5, (0, 16), False)],
)  # fmt: skip
def test_codes_are_of_the_codebooks_and_no_others(tmp_path, lowest, highest, shape, fine):
    array = np.zeros(shape, np.int16)
    array.flat[:1], array.flat[-1:] = lowest, highest
    clip = fakes.make_utterance("a", "x")
    paths = tmp_path / "codes.safetensors", tmp_path / "index.jsonl"
    write_codes(*paths, {"a": array}, [clip], "codec")
    if fine:
        found = read_codes(*paths, [clip], 16, 2048, "codec")
        assert np.array_equal(found["a"], array) and list(found) == ["a"] and len(found) == 1
        assert "a" in found and "b" not in found
        with pytest.raises(KeyError):
            found["b"]
    else:
        with pytest.raises(UserError, match=r"codes\.safetensors: a"):
            read_codes(*paths, [clip], 16, 2048, "codec")
