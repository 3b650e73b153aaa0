"""Nobody can choose an epoch by scores that are stale, mixed, partial or in another order."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rows import make_row, make_system
from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import sha256_folder, write_json, write_jsonl
from voxadapt.core.lineage import MADE, write_made
from voxadapt.core.params import Params, SelectParams, Stage2Params, load_params
from voxadapt.pipeline import confirm as confirming
from voxadapt.pipeline import select as stage
from voxadapt.scoring.rows import ROWS_FILE, ScoreRow, read_scores, write_rows
from voxadapt.scoring.similarity import SimilarityScale
from voxadapt.selection.confirm import confirm
from voxadapt.selection.forgetting import forgetting
from voxadapt.selection.select import select
from voxadapt.selection.stage2 import decide_stage2

PROFILE = Path(__file__).parents[2] / "profiles" / "miniature.yaml"
RULE = SelectParams(num_bootstrap=200)
CANDIDATES = ("base", "epoch-1", "epoch-2")
NUM_TEXTS, TAKES = 6, 2
SIZE = {"num_texts": NUM_TEXTS, "takes": TAKES}
SYSTEMS = {
    name: make_system(name, sim=0.6 + 0.1 * index, **SIZE) for index, name in enumerate(CANDIDATES)
}


# --- in memory -----------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=15)
@given(seed=st.randoms(use_true_random=False))
def test_the_order_of_rows_and_candidates_changes_no_byte(seed: random.Random) -> None:
    names = list(SYSTEMS)
    seed.shuffle(names)
    mixed = {name: seed.sample(SYSTEMS[name], len(SYSTEMS[name])) for name in names}
    assert json.dumps(select(mixed, RULE)) == json.dumps(select(SYSTEMS, RULE))
    ours, theirs = mixed["epoch-2"], mixed["base"]
    assert json.dumps(confirm(theirs, ours, RULE)) == json.dumps(
        confirm(SYSTEMS["base"], SYSTEMS["epoch-2"], RULE)
    )


EVALUATOR = ("norm_id", "asr_id", "sim_id", "gen_sha")


@pytest.mark.slow
@given(
    name=st.sampled_from(CANDIDATES),
    index=st.integers(0, NUM_TEXTS * TAKES - 1),
    field=st.sampled_from([*EVALUATOR, "checkpoint_sha", "text", "split", "candidate"]),
)
def test_one_foreign_row_is_enough_to_refuse(name: str, index: int, field: str) -> None:
    rows = list(SYSTEMS[name])
    rows[index] = rows[index].model_copy(update={field: "other"})
    with pytest.raises(UserError):
        select(SYSTEMS | {name: rows}, RULE)
    ours = rows if name != "base" else SYSTEMS["epoch-1"]
    theirs = rows if name == "base" else SYSTEMS["base"]
    if field != "candidate" or index:  # the first row of the chosen one says who it is
        with pytest.raises(UserError):
            confirm(theirs, ours, RULE)
    with pytest.raises(UserError):
        forgetting(theirs, {ours[-1].candidate: ours}, RULE, chosen="base")


@given(name=st.sampled_from(CANDIDATES), index=st.integers(0, NUM_TEXTS * TAKES - 1))
def test_a_row_too_few_or_too_many_is_refused(name: str, index: int) -> None:
    rows = SYSTEMS[name]
    with pytest.raises(UserError):
        select(SYSTEMS | {name: rows[:index] + rows[index + 1 :]}, RULE)
    with pytest.raises(UserError):
        select(SYSTEMS | {name: [*rows, rows[index]]}, RULE)


@pytest.mark.parametrize("field", ["norm_id", "asr_id", "sim_id"])
def test_recordings_of_another_evaluator_are_refused(field: str) -> None:
    real = make_system("codec", NUM_TEXTS, takes=1, **{field: "other"})
    with pytest.raises(UserError, match=field):
        select(SYSTEMS, RULE, codec=real)
    with pytest.raises(UserError, match=field):
        decide_stage2(SYSTEMS["epoch-1"], real, Stage2Params(), RULE)


def test_recordings_without_a_codec_have_a_reference_of_their_own() -> None:
    select(SYSTEMS, RULE, real=make_system("real", NUM_TEXTS, takes=1, sim_id="recordings"))


@pytest.mark.slow
@settings(max_examples=15)
@given(lost=st.sets(st.integers(0, NUM_TEXTS * TAKES - 1), min_size=1))
def test_lost_clips_stay_in_the_denominator(lost: set[int]) -> None:
    rows = [
        row.model_copy(update={"status": "failed", "sim": None}) if index in lost else row
        for index, row in enumerate(SYSTEMS["epoch-2"])
    ]
    result = select(SYSTEMS | {"epoch-2": rows}, RULE)
    found = next(item for item in result["candidates"] if item["name"] == "epoch-2")
    assert (found["n_expected"], found["n_measured"]) == (12, 12 - len(lost))
    assert found["wer"]["n"] == found["sim"]["n"] == 12
    wrong = sum(10 if i in lost else row.words.edits for i, row in enumerate(SYSTEMS["epoch-2"]))
    assert found["wer"]["point"] == pytest.approx(wrong / 120, abs=1e-6)
    assert not found["eligible"]
    record = confirm(SYSTEMS["base"], rows, RULE)
    assert record["n_measured"] == {"base": 12, "epoch-2": 12 - len(lost)}


@pytest.mark.slow
def test_sentences_with_digits_decide_nothing_but_are_checked() -> None:
    def with_digits(name: str, **fields: Any) -> list[ScoreRow]:
        extra = make_row(name, "d0", text="in 1999", text_norm="in 1999", slice="digits", **fields)
        return [*SYSTEMS[name], *(extra.model_copy(update={"take": k}) for k in range(TAKES))]

    fine = {name: with_digits(name) for name in CANDIDATES}
    bad = fine | {"epoch-2": with_digits("epoch-2", status="failed", sim=None)}
    plain, first, second = (select(rows, RULE) for rows in (SYSTEMS, fine, bad))
    assert first["candidates"] == second["candidates"] == plain["candidates"]
    assert first["num_texts"] == NUM_TEXTS and first["chosen"] == plain["chosen"]
    assert first["inputs"] != second["inputs"]  # the record still says what was read
    digits, base = (
        confirm(rows["base"], rows["epoch-2"], RULE)["measures"] for rows in (bad, SYSTEMS)
    )
    assert digits == base
    lost = forgetting(bad["base"], {"epoch-2": bad["epoch-2"]}, RULE, chosen="base")
    assert lost["num_texts"] == NUM_TEXTS
    with pytest.raises(UserError, match="asr_id"):
        select(fine | {"epoch-2": with_digits("epoch-2", asr_id="other")}, RULE)
    only = {name: fine[name][-TAKES:] for name in CANDIDATES}
    with pytest.raises(UserError, match="nothing to rank"):
        select(only, RULE)


def test_a_scale_of_another_reference_is_refused() -> None:
    scale = {key: {"point": 0.5} for key in ("ceiling", "codec_ceiling", "floor")}
    select(SYSTEMS, RULE, scale=scale | {"sim_id": "sim"})
    for compare in (
        lambda found: select(SYSTEMS, RULE, scale=found),
        lambda found: confirm(SYSTEMS["base"], SYSTEMS["epoch-2"], RULE, scale=found),
    ):
        with pytest.raises(UserError, match="sim_id"):
            compare(scale | {"sim_id": "another voice"})


@pytest.mark.parametrize("field", ["norm_id", "asr_id", "sim_id"])
def test_what_confirms_is_measured_as_what_chose(field: str) -> None:
    chose = select(SYSTEMS, RULE)
    changed = {
        name: [row.model_copy(update={field: "other"}) for row in SYSTEMS[name]]
        for name in ("base", "epoch-2")
    }
    with pytest.raises(UserError, match=field):
        confirm(changed["base"], changed["epoch-2"], RULE, selection=chose)
    confirm(SYSTEMS["base"], SYSTEMS["epoch-2"], RULE, selection=chose)


def test_records_of_another_version_are_refused() -> None:
    selection = select(SYSTEMS, RULE) | {"schema": "voxadapt-selection/1"}
    with pytest.raises(UserError, match="voxadapt-selection/2"):
        confirm(SYSTEMS["base"], SYSTEMS["epoch-2"], RULE, selection=selection)
    with pytest.raises(UserError, match="voxadapt-similarity/3"):
        SimilarityScale.from_dict({"schema": "voxadapt-similarity/9"})
    with pytest.raises(UserError, match="voxadapt-similarity/3"):
        SimilarityScale.from_dict({})


# --- on disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"dur_ratio": 1.0', '"dur_ratio": Infinity'),
        ('"dur_ratio": 1.0', '"dur_ratio": NaN'),
        ('"dur_ratio": 1.0', '"dur_ratio": -Infinity'),
        ('"take": 0', '"take": -1'),
        ('"ref_words": 10', '"ref_words": 0'),
        ('"status": "ok"', '"status": "fine"'),
        ('"asr_id": "asr", ', ""),
        ('"take": 0', '"take": 0, "opinion": 1'),
    ],
)
def test_a_row_that_is_no_measurement_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = write_rows(tmp_path, SYSTEMS["epoch-1"])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=r"rows\.jsonl:\d+"):
        read_scores(tmp_path)


@given(cut=st.integers(1, 400))
@settings(max_examples=15)
def test_a_file_cut_short_is_never_read_as_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path = write_rows(folder, SYSTEMS["epoch-1"])
    path.write_bytes(path.read_bytes()[: -1 - cut])
    keys = [row.key for row in SYSTEMS["epoch-1"]]
    with pytest.raises(UserError):
        read_scores(folder, keys)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project folder with a corpus, checkpoints and scores, as the stages leave them."""
    monkeypatch.chdir(tmp_path)
    params = load_params(PROFILE)
    params = params.model_copy(
        update={
            "candidates": CANDIDATES,
            "select": RULE,
            "score": params.score.model_copy(update={"takes": TAKES, "sets": ("corpus",)}),
            "model": params.model.model_copy(update={"base": "base-model"}),
        }
    )
    texts = {row.text_id: row.text for row in SYSTEMS["base"]}
    write_jsonl(
        paths.SPEAKER.manifest,
        [
            {
                "id": text_id, "audio": f"clips/{text_id}.wav", "text": text,
                "ref_audio": "ref.wav", "duration_s": 2.0, "sample_rate_hz": 24000,
                "audio_sha256": "0" * 64, "split": "selection",
            }
            for text_id, text in texts.items()
        ],
    )  # fmt: skip
    for name in CANDIDATES:
        folder = Path("base-model") if name == "base" else paths.CHECKPOINTS / name
        write_json(folder / "meta.json", {"epoch": name})
        score(name)
    for name in ("real", "codec"):
        write_rows(paths.SPEAKER.reference / name, make_system(name, NUM_TEXTS, takes=1))
    point = {"point": 0.5, "low": None, "high": None, "n": 3}
    write_json(
        paths.SPEAKER.scale,
        {"schema": "voxadapt-similarity/3", "sim_id": "sim", "floor": point,
         "ceiling": point | {"point": 0.9}, "codec_ceiling": point | {"point": 0.85},
         "separation": 0.99},
    )  # fmt: skip
    return params


def score(name: str, **fields: Any) -> None:
    """Write a candidate's scores as of the checkpoint that is there now."""
    folder = Path("base-model") if name == "base" else paths.CHECKPOINTS / name
    update = {"checkpoint_sha": sha256_folder(folder), **fields}
    write_rows(paths.SCORES / name, [row.model_copy(update=update) for row in SYSTEMS[name]])


def run(params: Params) -> None:
    """Choose from what is there, sealed as it is: what the rows themselves say counts as well."""
    corpus, keys = paths.SPEAKER, ("score",)
    write_made(corpus.made_by_audit, "audit", [paths.SPEAKER.manifest])
    write_made(corpus.made_reference, "codes", [paths.SPEAKER.reference])
    write_made(paths.MADE_BY_TRAIN, "train", [paths.CHECKPOINTS])
    for name in params.candidates:
        folder = paths.SCORES / name
        write_made(folder / MADE, f"score {name}", [folder], params=params, keys=keys)
    stage.run(params)


def record() -> dict[str, Any]:
    """Read the choice without the hashes of what it was made from."""
    found = json.loads(paths.SELECTION.read_text())
    return {key: value for key, value in found.items() if key != "made"}


@pytest.mark.slow
def test_equal_scores_give_an_equal_selection_file_in_any_order(project: Params) -> None:
    run(project)
    first = record()
    assert first["chosen"] == "epoch-2"
    for name in CANDIDATES:
        path = paths.SCORES / name / ROWS_FILE
        lines = path.read_text().splitlines()
        random.Random(name).shuffle(lines)
        path.write_text("".join(line + "\n" for line in lines))
    backwards = project.model_copy(update={"candidates": tuple(reversed(CANDIDATES))})
    for params in (project, backwards):
        paths.SELECTION.unlink()
        run(params)
        assert record() == first


def refused(params: Params, match: str) -> None:
    with pytest.raises(UserError, match=match):
        run(params)
    assert not paths.SELECTION.exists()


def test_a_checkpoint_that_changed_after_scoring_makes_its_scores_stale(project: Params) -> None:
    write_json(paths.CHECKPOINTS / "epoch-1" / "meta.json", {"trained": "again"})
    refused(project, "stale")
    score("epoch-1")
    run(project)


def test_a_base_that_changed_after_scoring_makes_its_scores_stale(project: Params) -> None:
    write_json(Path("base-model") / "config.json", {})
    refused(project, "stale")


def test_a_missing_score_file_is_an_error(project: Params) -> None:
    (paths.SCORES / "epoch-2" / ROWS_FILE).unlink()
    refused(project, "voxadapt score epoch-2")


def test_scores_of_a_candidate_that_is_not_listed_are_set_aside(project: Params) -> None:
    write_rows(paths.SCORES / "epoch-9", make_system("epoch-9", **SIZE))
    run(project)
    assert not (paths.SCORES / "epoch-9").exists()
    assert (paths.work_dir() / "unlisted" / paths.SCORES / "epoch-9").is_dir()


def test_scores_of_a_candidate_that_is_listed_again_come_back(project: Params) -> None:
    run(project)
    first = paths.SELECTION.read_bytes()
    fewer = project.model_copy(update={"candidates": project.candidates[:-1]})
    stage.run(fewer)
    assert not (paths.SCORES / project.candidates[-1]).exists()
    stage.run(project)
    assert paths.SELECTION.read_bytes() == first


def test_scores_by_another_evaluator_are_an_error(project: Params) -> None:
    score("epoch-1", asr_id="whisper-other")
    refused(project, "different evaluators")


def test_scores_of_texts_that_changed_are_an_error(project: Params) -> None:
    text = paths.SPEAKER.manifest.read_text().replace(SYSTEMS["base"][0].text, "another text", 1)
    paths.SPEAKER.manifest.write_text(text)
    refused(project, "stale")


def test_nothing_is_held_against_a_base_that_made_no_clip(project: Params) -> None:
    score("epoch-1", status="failed", sim=None)
    run(project)
    assert record()["chosen"] == "epoch-2"
    paths.SELECTION.unlink()
    score("base", status="failed", sim=None, message="no audio")
    refused(project, "none: no audio")


def test_the_models_and_settings_that_chose_are_those_that_confirm(
    project: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Speaking(Exception):
        pass

    def open_context(params: Params) -> None:
        raise Speaking

    def refuses(params: Params, match: str) -> None:
        with pytest.raises(UserError, match=match):
            confirming.run(params)

    monkeypatch.setattr(confirming, "open_context", open_context)
    run(project)
    with pytest.raises(Speaking):
        confirming.run(project)
    hotter = project.score.model_copy(update={"temperature": 0.9})
    refuses(project.model_copy(update={"score": hotter}), r"score\.temperature")
    added = paths.CHECKPOINTS / "epoch-2" / "delta.safetensors"
    added.write_bytes(b"another model")
    refuses(project, "added since")
    added.unlink()
    write_json(Path("base-model") / "config.json", {})
    refuses(project, "Restore the model, or run `voxadapt score base`")
