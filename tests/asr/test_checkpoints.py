"""A checkpoint is found by what people call it."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxadapt.asr.checkpoints import canonical

KNOWN = ("tiny", "small.en", "large-v3", "large-v3-turbo", "turbo")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("large-v3", "large-v3"), ("Large-V3", "large-v3"), ("whisper-large-v3", "large-v3"),
     ("whisper:turbo", "turbo"), ("large_v3_turbo", "large-v3-turbo"), ("tiny.pt", "tiny"),
     (" small.en ", "small.en"), ("Whisper Tiny", "tiny"), ("huge", "huge"), ("Huge", "Huge"),
     ("openai/whisper-tiny", "openai/whisper-tiny"), ("hf://me/mine", "me/mine"),
     ("https://huggingface.co/me/mine", "me/mine"), ("huggingface.co/me/mine/", "me/mine"),
     ("https://huggingface.co/me/mine/tree/main", "me/mine"), ("hf:me/mine", "me/mine"),
     ("https://hf.co/me/mine/blob/main/config.json", "me/mine")],
)  # fmt: skip
def test_names_and_pages(written: str, meant: str) -> None:
    assert canonical(written, KNOWN) == meant


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").touch()
    weights = str(folder / "model.safetensors")
    assert canonical(weights, KNOWN) == weights  # there is no config beside it
    (folder / "config.json").touch()
    for written in (weights, str(folder / "config.json"), "~/mine", f"{folder}/"):
        assert canonical(written, KNOWN) == str(folder)
    checkpoint = tmp_path / "tiny.pt"
    checkpoint.touch()
    assert canonical(str(checkpoint), KNOWN) == canonical("~/tiny.pt", KNOWN) == str(checkpoint)


def test_a_folder_of_the_cache_is_its_snapshot(tmp_path: Path) -> None:
    cached = tmp_path / "models--me--mine"
    old, new = (cached / "snapshots" / name for name in ("a1", "b2"))
    old.mkdir(parents=True)
    assert canonical(str(cached), KNOWN) == str(old)
    new.mkdir()
    assert canonical(str(cached), KNOWN) == str(cached)  # which one is not known
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("b2\n")
    assert canonical(str(cached), KNOWN) == str(new)
