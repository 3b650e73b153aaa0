"""The listening pages as files: blind, whole, the same for the same clips; and their votes."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from listening.world import (
    CHOSEN,
    change_rows,
    listening_params,
    make_votes,
    write_file,
    write_listening_world,
)
from reporting.world import make_params, make_selection
from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json, write_json
from voxadapt.data.audio import frame_levels_db, speech_frames
from voxadapt.listening import pages as listening
from voxadapt.listening.votes import read_key
from voxadapt.reporting.records import load_records
from voxadapt.reporting.votes import votes_section
from whole import voxadapt

PARAMS = listening_params(6)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_listening_world(tmp_path_factory.mktemp("original"))


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(original, tmp_path / "project")


def definition(root: Path, kind: str) -> dict[str, Any]:
    html = (root / paths.LISTEN / f"{kind}.html").read_text(encoding="utf-8")
    return json.loads(html.split('id="test">')[1].split("</script>")[0])


def decoded(uri: str) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(base64.b64decode(uri.split(",")[1])))


@pytest.mark.slow
def test_pages_of_the_same_clips_are_the_same_bytes(project: Path) -> None:
    names = ("ab.html", "mos.html", "key.json")
    listening.write_listening(PARAMS, project)
    first = [(project / paths.LISTEN / name).read_bytes() for name in names]
    listening.write_listening(PARAMS, project)
    assert first == [(project / paths.LISTEN / name).read_bytes() for name in names]


@pytest.mark.slow
def test_a_changed_clip_changes_the_page_and_its_own_ids(project: Path) -> None:
    before = listening.write_listening(PARAMS, project)
    trials = before.pages["mos"].trials.values()
    changed = next(trial for trial in trials if CHOSEN in trial.clips.values())
    wavs = project / paths.CONFIRMATION / CHOSEN / "wavs"
    noise = 0.1 * np.random.default_rng(0).normal(size=12000)
    soundfile.write(wavs / f"{changed.text_id}-{changed.take}.wav", noise, 24000)
    after = listening.write_listening(PARAMS, project)
    for kind in ("ab", "mos"):
        old, new = before.pages[kind], after.pages[kind]
        assert old.page_sha != new.page_sha
        assert len(set(old.trials) - set(new.trials)) == 1


@pytest.mark.slow
def test_the_key_knows_every_clip_and_the_page_none(project: Path) -> None:
    key = listening.write_listening(PARAMS, project)
    assert key.split == "confirmation"
    assert key.pairs == (("base", CHOSEN),)
    for kind, names in (("ab", {"base", CHOSEN}), ("mos", {"real", "base", CHOSEN})):
        page, shown = key.pages[kind], definition(project, kind)
        assert {trial["id"] for trial in shown["trials"]} == set(page.trials)
        found = [name for trial in page.trials.values() for name in trial.clips.values()]
        assert set(found) == names
        assert all(found.count(name) == len(found) / len(names) for name in names)
        assert all(trial["reference"] in shown["audio"] for trial in shown["trials"])
        html = (project / paths.LISTEN / f"{kind}.html").read_text(encoding="utf-8")
        html = re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
        assert "epoch" not in html
        assert not re.search(r"\b(base|real)\b(?!-uri)", html.split('id="test">')[1].split("<")[0])
    first = [
        trial["clips"][0] in {c for c, n in key.pages["ab"].trials[trial["id"]].clips.items()
                              if n == "base"}
        for trial in definition(project, "ab")["trials"]
    ]  # fmt: skip
    assert 0 < sum(first) < len(first), "the order of ids does not follow the candidates"


@pytest.mark.slow
def test_the_reference_is_a_recording_of_another_sentence(project: Path) -> None:
    key = listening.write_listening(PARAMS, project)
    shown = definition(project, "mos")
    real = {
        clip: trial.text_id
        for trial in key.pages["mos"].trials.values()
        for clip, name in trial.clips.items()
        if name == "real"
    }
    for trial in shown["trials"]:
        own = key.pages["mos"].trials[trial["id"]].text_id
        assert real.get(trial["reference"]) != own
    assert len({trial["reference"] for trial in shown["trials"]}) > 1


@pytest.mark.slow
def test_loudness_and_bandwidth_do_not_tell_the_clips_apart(project: Path) -> None:
    folder = project / paths.CONFIRMATION / CHOSEN / "wavs"
    for wav in folder.glob("*.wav"):
        samples, rate_hz = soundfile.read(wav)
        soundfile.write(wav, 0.05 * samples, rate_hz)
    for wav in (project / paths.SPEAKER.reference / "real" / "wavs").glob("*.wav"):
        samples, _ = soundfile.read(wav)
        soundfile.write(wav, samples[::3], 8000)
    change_rows(
        project / paths.SPEAKER.reference / "real", lambda row: row | {"sample_rate_hz": 8000}
    )
    key = listening.write_listening(PARAMS, project)
    assert key.sample_rate_hz == 8000
    for uri in definition(project, "mos")["audio"].values():
        samples, rate_hz = decoded(uri)
        assert rate_hz == 8000
        levels_db = frame_levels_db(samples.astype(np.float32), rate_hz)
        spoken = levels_db[speech_frames(levels_db)]
        level_db = 10 * np.log10(np.mean(10 ** (spoken / 10)))
        assert level_db == pytest.approx(listening.LEVEL_DBFS, abs=1.0)
        assert np.abs(samples).max() < 1.0


def test_levelling_never_clips() -> None:
    rng = np.random.default_rng(1)
    spiky = 0.001 * rng.normal(size=16000).astype(np.float32)
    spiky[8000] = 0.9
    assert np.abs(listening.levelled(spiky, 16000)).max() <= 0.9
    silent = np.zeros(16000, dtype=np.float32)
    assert np.array_equal(listening.levelled(silent, 16000), silent)


@pytest.mark.slow
def test_without_a_confirmation_the_selection_is_heard(project: Path) -> None:
    key = listening.write_listening(
        PARAMS, project, out=Path("reports/listen-2"), pairs=[("2", "runner-up")], num_sentences=3
    )
    assert key.pairs == ((CHOSEN, "epoch-3"),)
    assert key.split == "selection"
    assert len(key.pages["ab"].trials) == 3
    assert (project / "reports/listen-2/ab.html").is_file()
    assert not (project / paths.LISTEN).exists()


@pytest.mark.slow
def test_pages_that_wait_for_votes_are_not_replaced(project: Path) -> None:
    out = Path("reports/listen-2")
    first = listening.write_listening(PARAMS, project, out=out, num_sentences=3)
    assert listening.write_listening(PARAMS, project, out=out, num_sentences=3) == first
    kept = (project / out / "key.json").read_bytes()
    with pytest.raises(UserError, match="nothing is overwritten"):
        listening.write_listening(PARAMS, project, out=out, num_sentences=2)
    assert (project / out / "key.json").read_bytes() == kept
    (project / "mine").mkdir()
    (project / "mine" / "mos.html").write_text("of mine")
    with pytest.raises(UserError, match=r"mos\.html"):
        listening.write_listening(PARAMS, project, out=Path("mine"))


@pytest.mark.slow
def test_several_pairs_share_a_page(project: Path) -> None:
    params = listening_params(3, listening_pairs=[["base", "chosen"], ["chosen", "runner-up"]])
    key = listening.write_listening(params, project)
    assert key.pairs == (("base", CHOSEN), (CHOSEN, "epoch-3"))
    assert len(key.pages["ab"].trials) == 6
    assert key.candidates == ("real", "base", CHOSEN, "epoch-3")


def test_where_the_base_is_kept_it_meets_the_best_of_the_others() -> None:
    selection = make_selection(make_params(), "base", "base")
    assert listening.resolve_pairs([("base", "chosen")], selection) == [("base", "epoch-3")]


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("base", "epoch-9"), "found epoch-9"),
        (("base", "0"), "found epoch-0"),
        (("chosen", "epoch-2"), "epoch-2 twice"),
    ],
)
def test_pairs_that_cannot_be_heard_are_refused(pair: tuple[str, str], words: str) -> None:
    selection = make_selection(make_params(), CHOSEN, "epoch-3")
    with pytest.raises(UserError, match=words):
        listening.resolve_pairs([pair], selection)


def test_a_pair_that_turns_out_to_be_one_candidate_leaves_the_others() -> None:
    selection = make_selection(make_params(), CHOSEN, "epoch-3")
    pairs = [("chosen", "epoch-2"), ("base", "chosen"), ("base", "epoch-2")]
    assert listening.resolve_pairs(pairs, selection) == [("base", "epoch-2")]


def test_missing_files_name_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="voxadapt select"):
        listening.write_listening(PARAMS, tmp_path)
    write_json(tmp_path / paths.SELECTION, make_selection(make_params(), CHOSEN, CHOSEN))
    with pytest.raises(UserError) as caught:
        listening.write_listening(PARAMS, tmp_path)
    fixes = " ".join(problem.fix for problem in caught.value.problems)
    assert all(f"voxadapt {stage}" in fixes for stage in ("score base", "codes"))


@pytest.mark.slow
def test_a_clip_that_is_gone_is_an_error_not_a_shorter_page(project: Path) -> None:
    for wav in (project / paths.CONFIRMATION / "base" / "wavs").glob("utt-00[0-3]-*.wav"):
        wav.unlink()
    with pytest.raises(UserError) as caught:
        listening.write_listening(PARAMS, project)
    assert 1 <= len(caught.value.problems) <= 4
    assert not (project / paths.LISTEN).exists()


@pytest.mark.slow
def test_where_nobody_spoke_the_page_says_so_and_all_is_lost(project: Path) -> None:
    change_rows(
        project / paths.CONFIRMATION / CHOSEN, lambda row: row | {"status": "failed", "wav": ""}
    )
    key = listening.write_listening(PARAMS, project)
    assert len(key.pages["ab"].unheard) == 6
    assert definition(project, "ab")["trials"] == []
    html = (project / paths.LISTEN / "ab.html").read_text(encoding="utf-8")
    assert "there is nothing to compare" in html
    assert len(key.pages["mos"].trials) == 6, "the recordings and the Base are still rated"


def test_rows_of_other_sentences_are_refused(project: Path) -> None:
    change_rows(
        project / paths.CONFIRMATION / "base", lambda row: row | {"text": row["text"] + "!"}
    )
    with pytest.raises(UserError, match="other sentences"):
        listening.write_listening(PARAMS, project)


@pytest.mark.slow
def test_a_sentence_without_a_clip_is_lost_by_its_side(project: Path, tmp_path: Path) -> None:
    """A candidate that fails to speak must not gain from it."""
    key = listening.write_listening(PARAMS, project)
    lost = next(iter(key.pages["mos"].trials.values())).text_id
    change_rows(
        project / paths.CONFIRMATION / CHOSEN,
        lambda row: row | {"status": "failed", "wav": ""} if row["text_id"] == lost else row,
    )
    key = listening.write_listening(PARAMS, project)
    assert [item.missing for item in key.pages["ab"].unheard] == [(CHOSEN,)]
    files = [
        write_file(tmp_path / "a.json", make_votes(key, "ab", "a", lambda text, question: CHOSEN)),
        write_file(tmp_path / "m.json", make_votes(key, "mos", "a", lambda name, question: 5)),
    ]
    record = listening.write_votes(files, project / paths.LISTEN / "key.json", 0.95)
    entry = record["comparisons"][0]
    assert (entry["wins"], entry["losses"], entry["num_unheard"]) == (5, 0, 1)
    assert entry["preference"]["point"] == pytest.approx(5 / 6, abs=1e-6)
    means = {item["candidate"]: item["mean"]["point"] for item in record["ratings"]}
    assert means == {"real": 5.0, "base": 5.0, CHOSEN: pytest.approx((5 + 5 + 1) / 3, abs=1e-6)}


@pytest.mark.slow
def test_the_report_gets_the_votes_and_knows_stale_ones(project: Path, tmp_path: Path) -> None:
    key = listening.write_listening(PARAMS, project)
    records = load_records(make_params(), project)
    assert votes_section(records) is None
    file = write_file(tmp_path / "v.json", make_votes(key, "ab", "Ana", lambda t, q: CHOSEN))
    listening.write_votes([file], project / paths.LISTEN / "key.json", 0.95)
    section = votes_section(records)
    assert section is not None
    assert not section["stale"]
    assert [item["question"] for item in section["comparisons"]] == [
        "closer to the voice", "better spoken",
    ]  # fmt: skip
    assert section["comparisons"][0]["tone"] == "good"
    assert section["steadiness"] == "Of 4 answers that were asked for twice, 4 were the same."
    assert (section["num_listeners"], section["comparisons"][0]["num_texts"]) == (1, 6)
    listening.write_listening(listening_params(3), project)
    stale = votes_section(records)
    assert stale is not None
    assert stale["stale"]


@pytest.mark.slow
def test_votes_of_the_same_files_are_the_same_bytes(project: Path, tmp_path: Path) -> None:
    key = listening.write_listening(PARAMS, project)
    files = [
        write_file(tmp_path / f"{kind}-{name}.json", make_votes(key, kind, name, rule, seed))
        for seed, (kind, name, rule) in enumerate(
            [("ab", "Ana", lambda t, q: CHOSEN), ("ab", "Ben", lambda t, q: None),
             ("mos", "Ana", lambda n, q: 3), ("mos", "Ben", lambda n, q: 4)]
        )
    ]  # fmt: skip
    path = project / paths.LISTEN / "key.json"
    listening.write_votes(files, path, 0.95)
    first = (project / paths.LISTEN / "votes.json").read_bytes()
    listening.write_votes(files[::-1], path, 0.95)
    assert first == (project / paths.LISTEN / "votes.json").read_bytes()
    assert read_json(path.parent / "votes.json")["num_listeners"] == 2


@pytest.mark.slow
def test_the_commands(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    params = project / "params.yaml"
    params.write_text(yaml.safe_dump(PARAMS.model_dump(mode="json")), encoding="utf-8")

    assert "--out" in voxadapt(project, "listen", "--pair", "base", "1", code=2)
    assert "Send the pages, keep reports/listen/key.json" in voxadapt(project, "listen")
    key = read_key(project / paths.LISTEN / "key.json")
    good = write_file(project / "good.json", make_votes(key, "ab", "Ana", lambda t, q: CHOSEN))
    bad = write_file(project / "bad.json", {"schema": "voxadapt-votes/1"})
    refused = voxadapt(project, "votes", str(good), str(bad), code=2)
    assert "bad.json" in refused
    assert "Traceback" not in refused
    assert not (project / paths.LISTEN / "votes.json").exists()
    assert f"{CHOSEN} is preferred to base" in voxadapt(project, "votes", str(good))
