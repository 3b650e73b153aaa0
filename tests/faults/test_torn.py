"""A file that was cut anywhere is never read as good: it is made again, or the error names it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fakes
from rows import make_row
from training.conftest import make_world
from voxadapt.asr.transcript import Transcript
from voxadapt.asr.whisper import Transcriber
from voxadapt.codec import extract
from voxadapt.codec.store import read_codes, write_codes
from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import write_json, write_jsonl
from voxadapt.core.paths import SPEAKER
from voxadapt.core.records import read_record
from voxadapt.data.manifest import write_manifest
from voxadapt.generation import readings as reading
from voxadapt.generation import synthesis
from voxadapt.model.checkpoint import read_meta
from voxadapt.pipeline.language.texts import accepted_texts
from voxadapt.pipeline.references import read_voice
from voxadapt.pipeline.tracks import read_accepted
from voxadapt.scoring.rows import read_scores, write_rows
from voxadapt.scoring.similarity import VoiceReference

ROWS = [fakes.make_utterance(f"c{n}", f"text {n}") for n in range(5)]
CODES = {row.id: fakes.make_codes(5 + n, n) for n, row in enumerate(ROWS)}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cuts(path: Path) -> Iterator[bytes]:
    """Yield the beginnings of a file: random ones, and those that end with a line."""
    whole = path.read_bytes()
    draw = random.Random(path.name)
    lengths = {0, 1, len(whole) // 2, *(draw.randrange(len(whole)) for _ in range(25))}
    lengths |= {at + 1 for at, byte in enumerate(whole[:-1]) if byte == 10}
    for length in sorted(lengths):
        yield whole[:length]
    path.write_bytes(whole)


def is_noticed(path: Path, read: Callable[[], Any], good: Callable[[Any], bool]) -> int:
    """Cut a file in many places; every time it must be refused or seen as absent.

    Args:
        path: The file.
        read: Reads it; raises a UserError, or returns None, when it is torn.
        good: Whether what was read is what was written: a cut closing line break is no loss.
    """
    assert good(read())
    count = 0
    for part in cuts(path):
        path.write_bytes(part)
        count += 1
        try:
            found = read()
        except UserError as error:
            text = str(error)
            assert any(verb in text for verb in ("Run ", "Delete", "run again")), text
            continue
        assert found is None or good(found), f"{path.name} cut to {len(part)} bytes is read as good"
    return count


def test_codes_of_a_clip(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    extract._write_cached(path, CODES["c4"])
    good = lambda found: np.array_equal(found, CODES["c4"])  # noqa: E731
    assert is_noticed(path, lambda: extract._read_cached(path), good) >= 20


@pytest.mark.parametrize("name", ["codes.safetensors", "index.jsonl"])
def test_codes_of_a_corpus_and_their_index(tmp_path: Path, name: str) -> None:
    files = tmp_path / "codes.safetensors", tmp_path / "index.jsonl"
    write_codes(*files, CODES, ROWS, "codec")

    def read() -> Any:
        return read_codes(*files, ROWS, fakes.NUM_CODEBOOKS, fakes.CODEBOOK_SIZE, "codec")

    is_noticed(tmp_path / name, read, lambda found: set(found) == set(CODES))


def test_spoken_batches(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    samples = np.arange(500, dtype=np.int16)
    synthesis.store_spoken(path, [synthesis.Spoken(samples, 3, False)] * 2)

    def good(found: Any) -> bool:
        return all(np.array_equal(item.samples, samples) for item in found)

    is_noticed(path, lambda: synthesis.load_spoken(path, 2), good)


def test_read_batches(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    codes = torch.arange(48).reshape(3, 16)
    reading._store(path, [reading.Reading(codes, True), reading.Reading(None, False)])

    def good(found: Any) -> bool:
        return torch.equal(found[0].codes, codes) and found[1] == reading.Reading(None, False)

    is_noticed(path, lambda: reading._load(path, 2), good)


def test_transcripts(tmp_path: Path) -> None:
    transcriber = object.__new__(Transcriber)
    transcriber._cache = tmp_path
    heard = Transcript("some words", -0.5, 1.1, 0.0, "en", 0.9, 1)
    transcriber._remember("x", heard)
    is_noticed(tmp_path / "x.json", lambda: transcriber._cached("x"), lambda found: found == heard)


def test_manifest_also_when_it_is_cut_between_two_lines() -> None:
    write_manifest(SPEAKER.manifest, ROWS)
    write_jsonl(SPEAKER.clips, ({"id": row.id} for row in ROWS))
    for path in (SPEAKER.manifest, SPEAKER.clips):
        is_noticed(path, lambda: read_accepted(SPEAKER), lambda found: len(found) == len(ROWS))


def test_texts_of_a_language() -> None:
    write_jsonl(paths.LANGUAGE_TEXTS, ({"id": f"t{n}", "text": f"Satu {n}."} for n in range(9)))
    write_json(paths.LANGUAGE_TEXT_METRICS, {"num_accepted": 9})
    for path in (paths.LANGUAGE_TEXTS, paths.LANGUAGE_TEXT_METRICS):
        is_noticed(path, accepted_texts, lambda found: len(found) == 9)


def test_scores(tmp_path: Path) -> None:
    rows = [make_row(text_id=f"t{n}") for n in range(4)]
    path = write_rows(tmp_path, rows)
    keys = [row.key for row in rows]
    is_noticed(path, lambda: read_scores(path, keys), lambda found: len(found) == 4)


def test_voice_and_records() -> None:
    voice = VoiceReference(("a", "b"), np.ones((2, 8), np.float32), "encoder")
    voice.write(SPEAKER.voice)
    is_noticed(SPEAKER.voice, lambda: read_voice(SPEAKER.voice), lambda v: v.ids == ("a", "b"))
    record = {"chosen": "epoch-3", "candidates": [{"name": "base"}] * 3}
    write_json(paths.SELECTION, record)
    is_noticed(
        paths.SELECTION,
        lambda: read_record(paths.SELECTION, "select"),
        lambda found: found == record,
    )
    write_json(Path("epoch-1/meta.json"), record)
    is_noticed(Path("epoch-1/meta.json"), lambda: read_meta("epoch-1"), lambda f: f == record)


@pytest.mark.slow
def test_training_state_weights_and_published_epochs(tmp_path: Path) -> None:
    """Whatever is cut, the run refuses it by name or ends with the files of a whole run."""
    world = make_world(tmp_path / "world")
    world.train(tmp_path / "whole", 1)
    expected = {
        p.relative_to(tmp_path / "whole"): p.read_bytes()
        for p in (tmp_path / "whole" / "out").rglob("*.*")
    }
    (work,) = (tmp_path / "whole" / "work" / "train").iterdir()
    published = tmp_path / "whole" / "out" / "epoch-1"
    draw = random.Random(0)
    refused = 0
    for path in (work / "state.pt", work / "epoch-1" / "model.safetensors",
                 work / "epoch-1" / "meta.json", work / "epoch-1" / "config.json",
                 published / "model.safetensors", published / "meta.json"):  # fmt: skip
        for _ in range(2):
            again = tmp_path / "again"
            shutil.copytree(tmp_path / "whole", again)
            torn = again / path.relative_to(tmp_path / "whole")
            torn.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])
            try:
                world.train(again, 1)
            except UserError as error:
                assert torn.name == "state.pt" and "Delete the file" in str(error)
                refused += 1
            else:
                for name, content in expected.items():
                    assert (again / name).read_bytes() == content, f"{name} after {torn.name}"
            shutil.rmtree(again)
    assert refused == 2


def test_a_cut_score_row_is_never_a_better_score() -> None:
    """The fields of a row are all required: half a row is not a row with defaults."""
    row = make_row()
    whole = json.loads(row.model_dump_json())
    for key in whole:
        if key in ("slice", "mos", "speaker", "sim_to"):  # absent where they are not asked for
            continue
        with pytest.raises(ValueError, match=key):
            type(row).model_validate({k: v for k, v in whole.items() if k != key})
