"""A corpus of several speakers: what its rows may say, and what each speaker must bring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fakes
from corpus import make_corpus, write_clip, write_rows
from voxadapt.core.errors import UserError
from voxadapt.core.params import AuditParams, SplitParams
from voxadapt.data.audit import audit_corpus, write_audit
from voxadapt.data.manifest import read_manifest, read_raw_manifest, write_manifest
from voxadapt.data.speakers import choose_speakers, folder_name, list_speakers

SPLIT = SplitParams(selection_share=0.3, confirmation_share=0.3)
LIMITS = AuditParams(min_total_minutes=0.1)


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Twenty clips, the second half of another speaker with a reference of its own."""
    path, rows = make_corpus(tmp_path, 20)
    write_clip(tmp_path / "bo.wav", 4.0, seed=998)
    rows = [row | ({"speaker": "Bo", "ref_audio": "bo.wav"} if n >= 10 else {"speaker": "Ann"})
            for n, row in enumerate(rows)]  # fmt: skip
    return write_rows(path, rows), rows


def problems_of(path: Path, rows: list[dict[str, Any]]) -> str:
    write_rows(path, rows)
    return "\n".join(map(str, read_raw_manifest(path)[1]))


@pytest.mark.slow
def test_each_speaker_has_a_reference_of_its_own(corpus: Any) -> None:
    path, rows = corpus
    read, problems = read_raw_manifest(path)
    assert problems == []
    assert [row.speaker for row in read] == ["Ann"] * 10 + ["Bo"] * 10
    found = problems_of(path, [*rows[:-1], rows[-1] | {"ref_audio": "ref.wav"}])
    assert "train_raw.jsonl:20: expected the same ref_audio in every row ('bo.wav')" in found
    found = problems_of(path, [row | {"ref_audio": "ref.wav"} for row in rows])
    assert "train_raw.jsonl:11: expected a ref_audio of this speaker's own" in found
    assert "the speaker 'Ann'" in found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [(" Bo", "no surrounding blanks"), ("", "1 to 64 characters"), ("B" * 65, "1 to 64 characters"),
     ("B\u0007", "control characters"), (7, "speaker as a string"), ("ann", "the speaker 'Ann'")],
)  # fmt: skip
def test_names_of_speakers_have_the_rules_of_speaker_name(
    corpus: Any, name: object, said: str
) -> None:
    path, rows = corpus
    found = problems_of(path, [*rows[:10], *(row | {"speaker": name} for row in rows[10:])])
    assert said in found


@pytest.mark.slow
def test_the_audit_sums_up_each_speaker(corpus: Any, tmp_path: Path) -> None:
    path, _ = corpus
    read, problems = read_raw_manifest(path)
    result = audit_corpus(read, LIMITS, SPLIT, path, problems)
    ann, bo = result.metrics["speakers"]
    assert (ann["speaker"], ann["clips"], bo["speaker"]) == ("Ann", 10, "Bo")
    assert ann["train"] + ann["selection"] + ann["confirmation"] == 10
    assert bo["minutes"] == pytest.approx(10 * 2.5 / 60, abs=1e-3)
    assert Path(bo["reference"]).name == "bo.wav"
    assert "of 2 speakers" in result.sentence
    write_audit(result, tmp_path / "m.jsonl", tmp_path / "c.jsonl", tmp_path / "a.json")
    accepted = read_manifest(tmp_path / "m.jsonl")
    assert sorted({row.speaker or "" for row in accepted}) == ["Ann", "Bo"]
    speakers = list_speakers(accepted, "Aria")
    assert [item.name for item in speakers] == ["Ann", "Bo"]
    assert Path(speakers[1].ref_audio).name == "bo.wav"


@pytest.mark.slow
def test_each_speaker_must_be_long_enough_and_measurable(corpus: Any) -> None:
    path, rows = corpus
    write_rows(path, rows[:12])
    read, problems = read_raw_manifest(path)
    with pytest.raises(UserError) as caught:
        audit_corpus(read, LIMITS, SPLIT, path, problems)
    said = str(caught.value)
    assert (
        "expected at least 0.1 min in all; found 0.08 min in 2 readable clips (speaker Bo)" in said
    )
    assert "at least 3 held-out clips" in said


@pytest.mark.slow
def test_speakers_may_say_the_same(corpus: Any) -> None:
    path, rows = corpus
    write_rows(path, [*rows[:10], *(row | {"text": rows[n]["text"]} for n, row in
                                    enumerate(rows[10:]))])  # fmt: skip
    read, problems = read_raw_manifest(path)
    result = audit_corpus(read, LIMITS, SPLIT, path, problems)
    assert "duplicate_text" not in result.metrics["warnings_by_rule"]
    splits = {row.text: set() for row in result.utterances}
    for row in result.utterances:
        splits[row.text].add(row.split)
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.slow
def test_a_corpus_of_one_speaker_is_written_as_before(tmp_path: Path) -> None:
    path, _ = make_corpus(tmp_path, 12)
    read, problems = read_raw_manifest(path)
    result = audit_corpus(read, LIMITS, SPLIT, path, problems)
    assert "speakers" not in result.metrics
    write_manifest(tmp_path / "m.jsonl", result.utterances)
    first = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])
    assert "speaker" not in first
    assert list_speakers(result.utterances, "Aria") == ()


def test_clips_that_name_nobody_are_the_default_speakers() -> None:
    rows = [fakes.make_utterance("a", "x"), fakes.make_utterance("b", "y", speaker="Bo")]
    assert [item.name for item in list_speakers(rows, "Aria")] == ["Aria", "Bo"]
    with pytest.raises(UserError, match=r"train\.speaker_name: expected another name"):
        list_speakers(rows, "bo")


def test_only_speakers_of_the_manifest_can_be_chosen() -> None:
    rows = [
        fakes.make_utterance("a", "x", speaker="Å b"),
        fakes.make_utterance("b", "y", speaker="Bo"),
    ]
    speakers = list_speakers(rows, "Aria")
    assert len({item.folder for item in speakers}) == 2
    assert all(item.folder.replace("-", "").replace("_", "").isalnum() for item in speakers)
    assert choose_speakers(speakers, None) == speakers
    assert [item.name for item in choose_speakers(speakers, ["Bo"])] == ["Bo"]
    with pytest.raises(
        UserError, match=r"train\.speakers: expected speakers of the manifest: Bo, Å b"
    ):
        choose_speakers(speakers, ["Cleo"])


def test_a_folders_name_is_plain_short_and_unique() -> None:
    assert folder_name("Aria_2-b") == "aria_2-b"
    assert folder_name("x" * 40) == "x" * 40
    long = folder_name("x" * 41)
    assert long.startswith("x" * 40 + "-") and len(long) == 49
    assert folder_name("a b") != folder_name("a_b") == "a_b"
    assert folder_name("É").startswith("_-")
