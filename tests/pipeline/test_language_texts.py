"""The texts of a language: cheap checks come before anything is transcribed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from voxadapt.core.errors import UserError
from voxadapt.core.params import load_params
from voxadapt.pipeline.language import data

PROJECT = Path(__file__).parents[2]


def test_texts_are_read_before_anything_is_transcribed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(PROJECT / "profiles" / "miniature.yaml")
    assert params.language is not None
    monkeypatch.chdir(tmp_path)
    respelling = Path(params.language.respelling)
    respelling.parent.mkdir(parents=True)
    respelling.write_bytes((PROJECT / respelling).read_bytes())
    texts = Path(params.language.text)
    texts.parent.mkdir(parents=True, exist_ok=True)

    def transcribing(params: Any) -> None:
        raise AssertionError("a recording was read first")

    monkeypatch.setattr(data, "_name_problems", lambda params, language: [])
    monkeypatch.setattr(data, "_audit_recordings", transcribing)
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("Сая.", "", "Saya.")))
    with pytest.raises(UserError, match=r"text_only\.jsonl"):
        data.audit(params)
    good = [{"text": text} for text in ("Saya beli payung.", "Saya baca buku.", "Сая бели.")]
    texts.write_text("".join(json.dumps(row) + "\n" for row in good))
    with pytest.raises(AssertionError, match="a recording"):
        data.audit(params)  # one line of three is no reason to stop
