"""`voxadapt judge`: the record and its page; speech that is wrong on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rows import make_row
from voxadapt.core.errors import UserError
from voxadapt.core.files import write_json
from voxadapt.core.params import SelectParams, load_params
from voxadapt.scoring.recogniser import judge as judge_rows
from voxadapt.scoring.recogniser import noticed, swap_sound
from voxadapt.tools.judge import judge

PROJECT = Path(__file__).parents[2]
PARAMS = load_params(PROJECT / "params.yaml")
WORDS = "a bad dog and a big bed hid the dead bird".split()


def write_record(root: Path, heard: str) -> None:
    rows = [
        make_row(
            "real", f"t{i}", text=" ".join(WORDS), text_norm=" ".join(WORDS),
            hyp_norm=" ".join(WORDS).replace("b", heard),
        )
        for i in range(8)
    ]  # fmt: skip
    found = judge_rows(rows, SelectParams())
    write_json(root / "artifacts/reference/recogniser.json", {"real": found, "codec": found})


@pytest.mark.slow
def test_a_deaf_recogniser_is_named_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path, "d")
    result = judge(PARAMS)
    assert "cannot tell b from d" in result.sentence
    html = Path("reports/recogniser.html").read_text(encoding="utf-8")
    assert "b and d" in html and "judge --speak" in html and "http" not in html.split("<main>")[1]
    record = json.loads(Path("reports/recogniser.json").read_text(encoding="utf-8"))
    assert record["real"]["blind"] == [["b", "d"]]


def test_what_is_heard_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path, "<script>")
    judge(PARAMS)
    assert "<script>" not in Path("reports/recogniser.html").read_text(encoding="utf-8")


def test_without_measured_recordings_the_stage_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for language, stage in ((False, "codes"), (True, "language data")):
        with pytest.raises(UserError) as caught:
            judge(PARAMS, language=language)
        assert f"voxadapt {stage}" in str(caught.value)


def test_a_swapped_sound_stays_in_its_class() -> None:
    for seed in range(30):
        found = swap_sound(WORDS, (), seed)
        assert found is not None
        (at, end) = found.right_span
        assert end == at + 1 and len(found.wrong) == len(WORDS)
        assert sum(a != b for a, b in zip(WORDS, found.wrong, strict=True)) == 1
        assert len(found.wrong[at]) == len(WORDS[at])
    assert swap_sound(["\u0e01\u0e02", "\u0e03"], (), 0) is None
    assert swap_sound(["nga"], ("ng", "ny"), 1).wrong in {("nya",), ("na",)}  # type: ignore[union-attr]


def test_rates_have_intervals_that_hold_the_share() -> None:
    found = noticed([(True, False)] * 15 + [(False, True)] * 5, SelectParams())
    assert found["noticed"]["point"] == 0.75 and found["false_alarm"]["point"] == 0.25
    assert found["noticed"]["low"] < 0.75 < found["noticed"]["high"] and found["noticed"]["n"] == 20
