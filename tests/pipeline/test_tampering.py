"""Nothing edited goes unseen: every file of a finished run is changed, and somebody refuses it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import sha256_file, sha256_folder, write_json, write_jsonl
from voxadapt.core.lineage import (
    MADE,
    SPEAKING,
    SPEAKING_LANGUAGE,
    check_made,
    sealed,
    write_made,
)
from voxadapt.core.params import Params, check_params, load_params
from voxadapt.core.paths import LANGUAGE, SPEAKER, Corpus
from voxadapt.tools.verify import verify

PROJECT = Path(__file__).parents[2]
CANDIDATES = ("base", "epoch-1", "epoch-2")


def small_params() -> Params:
    values = yaml.safe_load((PROJECT / "profiles" / "miniature.yaml").read_text(encoding="utf-8"))
    values["candidates"] = list(CANDIDATES)
    values["language"]["candidates"] = list(CANDIDATES[:2])
    return check_params(values, "params.yaml")


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or f"contents of {path}\n", encoding="utf-8")
    return path


def corpus_files(at: Corpus, raw: Path, params: Params, command: tuple[str, str]) -> None:
    """What audit and codes leave of a corpus of four recordings."""
    reference = write(raw.parent / "ref.wav")
    rows = []
    for number, split in enumerate(("train", "train", "selection", "confirmation")):
        audio = write(raw.parent / "wavs" / f"utt{number}.wav")
        rows.append(
            {"id": f"utt{number}", "audio": audio.as_posix(), "text": f"sentence {number}",
             "ref_audio": reference.as_posix(), "language": None, "duration_s": 1.0,
             "sample_rate_hz": 16000, "audio_sha256": sha256_file(audio), "split": split}
        )  # fmt: skip
    write(raw)
    write_jsonl(at.manifest, rows)
    write_jsonl(at.clips, [{"id": row["id"], "snr_db": 40.0} for row in rows])
    write_json(at.audit_metrics, {"num_accepted": 4})
    write_made(at.made_by_audit, command[0], [at.manifest.parent, at.audit_metrics],
               [raw, reference], params, ("asr.model", "audit", "split"))  # fmt: skip
    for path in (at.codes, at.codes_index, at.voice, at.reference / "codec" / "wavs" / "u.wav"):
        write(path)
    for name in ("real", "codec"):
        write_jsonl(at.reference / name / "rows.jsonl", [{"text_id": "utt2", "sim": 0.9}])
        write_json(at.reference / name / "summary.json", {"wer": {"point": 0.05}})
    write_json(at.scale, {"schema": "s", "floor": {"point": 0.5}})
    write_json(at.codes_metrics, {"num_clips": 4})
    write_json(at.planning, {"text": "plan"})
    write_made(at.made_by_codes, command[1], [at.codes.parent], [at.made_by_audit], params)
    write_made(at.made_reference, command[1], [at.reference, at.codes_metrics, at.planning],
               [at.made_by_audit], params, ("asr.model", "score.min_speech_s"))  # fmt: skip


def scores_files(folder: Path) -> None:
    write_jsonl(folder / "rows.jsonl", [{"text_id": "utt2", "word_substitutions": 1}])
    write_json(folder / "summary.json", {"wer": {"point": 0.1}})
    write(folder / "wavs" / "utt2-0.wav")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished project whose records are sealed as the stages seal them."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_project(small_params())
    return root


def make_project(params: Params) -> None:
    corpus_files(SPEAKER, Path(params.data.manifest), params, ("audit", "codes"))
    for name in CANDIDATES[1:]:
        for file in ("model.safetensors", "config.json", "speech_tokenizer/model.safetensors"):
            write(paths.CHECKPOINTS / name / file)
        write_json(paths.CHECKPOINTS / name / "meta.json", {"epoch": 1})
    base = write(Path(params.model.base) / "config.json").parent
    meta = {"epoch": 0, "base_sha256": sha256_folder(base)}
    write_json(paths.CHECKPOINTS / "base" / "meta.json", meta)
    write(paths.TRAIN_LOG)
    write_json(paths.TRAIN_METRICS, {"loss": 1.0})
    write_made(paths.MADE_BY_TRAIN, "train",
               [paths.CHECKPOINTS, paths.TRAIN_LOG, paths.TRAIN_METRICS],
               [SPEAKER.made_by_audit, SPEAKER.made_by_codes], params, ("train",))  # fmt: skip
    corpus = [SPEAKER.made_by_audit, SPEAKER.made_reference]
    for name in CANDIDATES:
        scores_files(paths.SCORES / name)
        write_json(paths.SCORE_METRICS / f"{name}.json", {"wer": 0.1})
        write_made(paths.SCORES / name / MADE, f"score {name}",
                   [paths.SCORES / name, paths.SCORE_METRICS / f"{name}.json"],
                   corpus, params, SPEAKING)  # fmt: skip
    write(paths.EPOCHS_TABLE)
    inputs = [*corpus, paths.MADE_BY_TRAIN, *(paths.SCORES / name / MADE for name in CANDIDATES)]
    decision = {"chosen": "epoch-1", "keep_base": False, "candidates": [{"name": "epoch-1"}]}
    write_json(paths.SELECTION, sealed(decision, "select", files=[paths.EPOCHS_TABLE],
               inputs=inputs, params=params, keys=("select",)))  # fmt: skip
    for name in CANDIDATES[:2]:
        scores_files(paths.CONFIRMATION / name)
    record = {"chosen": "epoch-1", "measures": {"sim": {"point": 0.9}}}
    write_json(paths.CONFIRM, sealed(record, "confirm", files=[paths.CONFIRMATION],
               inputs=[paths.SELECTION, *corpus], params=params, keys=SPEAKING))  # fmt: skip
    write_json(paths.LISTEN / "votes.json", sealed({"num_votes": 3}, "votes FILE …"))
    page = write(paths.LISTEN / "ab.html")
    write_json(
        paths.LISTEN / "key.json", sealed({"clips": {"a1": "base"}}, "listen", inputs=[page])
    )
    write(paths.REPORT)
    language_files(params)


def language_files(params: Params) -> None:
    assert params.language is not None
    corpus_files(LANGUAGE, Path(params.language.audio), params, ("language data",) * 2)
    corpus = [LANGUAGE.made_by_audit, LANGUAGE.made_reference]
    write(paths.LANGUAGE_STAGE1 / "epoch-1" / "delta.safetensors")
    write_json(paths.LANGUAGE_STAGE1_METRICS, {"num_rows": 5})
    write_made(paths.MADE_BY_STAGE1, "language stage1",
               [paths.LANGUAGE_STAGE1, paths.LANGUAGE_STAGE1_METRICS], corpus[:1], params,
               ("language.stage1",))  # fmt: skip
    for name in params.language.candidates:
        for part in ("target", "source"):
            scores_files(paths.LANGUAGE_SCORES / name / part)
        write_made(paths.LANGUAGE_SCORES / name / MADE, f"language score {name}",
                   [paths.LANGUAGE_SCORES / name], corpus, params, SPEAKING_LANGUAGE)  # fmt: skip
    scores = [paths.LANGUAGE_SCORES / name / MADE for name in params.language.candidates]
    first = sealed({"chosen": "epoch-1"}, "language decide", inputs=[*corpus, *scores])
    write_json(paths.LANGUAGE_CHOICE1, first)
    decided = sealed({"acts": "run"}, "language decide", inputs=[paths.LANGUAGE_CHOICE1])
    write_json(paths.LANGUAGE_DECISION, decided)
    write(paths.LANGUAGE_STAGE2 / "epoch-1" / "delta.safetensors")
    scores_files(paths.LANGUAGE_STAGE2_SCORES / "epoch-1" / "target")
    write_made(paths.MADE_BY_STAGE2, "language stage2", [paths.LANGUAGE_STAGE2], corpus[:1])
    write_made(paths.MADE_BY_STAGE2_SCORES, "language stage2-score",
               [paths.LANGUAGE_STAGE2_SCORES], corpus)  # fmt: skip
    write(paths.LANGUAGE_READINGS)
    write_made(paths.MADE_BY_READINGS, "language readings", [paths.LANGUAGE_READINGS], corpus[:1])
    chosen = sealed({"chosen": "epoch-1"}, "language confirm",
                    inputs=[paths.LANGUAGE_CHOICE1, *corpus])  # fmt: skip
    write_json(paths.LANGUAGE_SELECTION, chosen)
    scores_files(paths.LANGUAGE_CONFIRMATION / "epoch-1" / "target")
    write_json(paths.LANGUAGE_CONFIRM, sealed({"chosen": "epoch-1"}, "language confirm",
               files=[paths.LANGUAGE_CONFIRMATION], inputs=[paths.LANGUAGE_SELECTION]))  # fmt: skip
    write_json(paths.LANGUAGE_ARMS_TABLE, sealed({"arms": []}, "compare audio_rows"))
    write(paths.LANGUAGE_REPORT)


@pytest.fixture
def project(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(pristine, root)
    monkeypatch.chdir(root)
    return root


# --- the table -----------------------------------------------------------------------------------


def edit_number(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    digit = next(char for char in text if char.isdigit())
    path.write_text(text.replace(digit, str((int(digit) + 1) % 10), 1), encoding="utf-8")


def edit_last_number(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    place = max(place for place, char in enumerate(text) if char.isdigit())
    digit = str((int(text[place]) + 1) % 10)
    path.write_text(text[:place] + digit + text[place + 1 :], encoding="utf-8")


def edit_key(key: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(record | {key: value}), encoding="utf-8")

    return change


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def drop_line(path: Path) -> None:
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")


def swap_split(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace('"selection"', '"train"'), "utf-8")


def add(path: Path) -> None:
    write(path)


def delete(path: Path) -> None:
    path.unlink()


SCORE = "artifacts/scores/epoch-2"
TABLE: list[tuple[str, Callable[[Path], None], str]] = [
    ("data/speaker/train_raw.jsonl", append, "audit"),
    ("data/speaker/ref.wav", append, "audit"),
    ("data/speaker/wavs/utt0.wav", append, "audit"),
    ("data/speaker/wavs/utt2.wav", delete, "audit"),
    ("artifacts/audit/manifest.jsonl", edit_number, "audit"),
    ("artifacts/audit/manifest.jsonl", swap_split, "audit"),
    ("artifacts/audit/manifest.jsonl", drop_line, "audit"),
    ("artifacts/audit/clips.jsonl", edit_number, "audit"),
    ("artifacts/audit/made.json", edit_number, "audit"),
    ("artifacts/audit/made.json", delete, "stage"),
    ("reports/metrics/audit.json", edit_number, "audit"),
    ("artifacts/codes/codes.safetensors", append, "codes"),
    ("artifacts/codes/index.jsonl", append, "codes"),
    ("artifacts/codes/index.jsonl", delete, "codes"),
    ("artifacts/reference/similarity.json", edit_number, "codes"),
    ("artifacts/reference/voice.safetensors", append, "codes"),
    ("artifacts/reference/real/rows.jsonl", edit_number, "codes"),
    ("artifacts/reference/codec/rows.jsonl", edit_number, "codes"),
    ("artifacts/reference/codec/summary.json", edit_number, "codes"),
    ("artifacts/reference/codec/wavs/u.wav", append, "codes"),
    ("reports/metrics/codes.json", edit_number, "codes"),
    ("reports/metrics/planning.json", edit_key("text", "other"), "codes"),
    ("artifacts/checkpoints/epoch-1/model.safetensors", append, "train again"),
    ("artifacts/checkpoints/epoch-1/model.safetensors", delete, "train again"),
    ("artifacts/checkpoints/epoch-1/config.json", append, "train again"),
    ("artifacts/checkpoints/epoch-2/speech_tokenizer/model.safetensors", append, "dvc checkout"),
    ("artifacts/checkpoints/epoch-2/meta.json", edit_number, "train again"),
    ("artifacts/checkpoints/base/meta.json", edit_number, "train again"),
    ("reports/metrics/train.json", edit_number, "train again"),
    ("reports/plots/train_log.csv", append, "train again"),
    (f"{SCORE}/rows.jsonl", edit_number, "score epoch-2"),
    (f"{SCORE}/rows.jsonl", delete, "score epoch-2"),
    (f"{SCORE}/summary.json", edit_number, "score epoch-2"),
    (f"{SCORE}/wavs/utt2-0.wav", append, "score epoch-2"),
    (f"{SCORE}/wavs/utt2-0.wav", delete, "score epoch-2"),
    (f"{SCORE}/made.json", edit_last_number, "score epoch-2"),
    ("reports/metrics/scores/base.json", edit_number, "score base"),
    ("reports/selection.json", edit_key("chosen", "epoch-2"), "select"),
    ("reports/selection.json", edit_key("keep_base", True), "select"),
    ("reports/selection.json", edit_key("candidates", "all"), "select"),
    ("reports/selection.json", edit_key("made", []), "stage"),
    ("reports/plots/epochs.csv", append, "select"),
    ("artifacts/confirmation/epoch-1/rows.jsonl", edit_number, "confirm"),
    ("artifacts/confirmation/base/wavs/utt2-0.wav", append, "confirm"),
    ("reports/confirm.json", edit_number, "confirm"),
    ("reports/confirm.json", edit_key("measures", None), "confirm"),
    ("reports/listen/votes.json", edit_key("num_votes", 99), "votes"),
    ("reports/listen/key.json", edit_key("clips", {"a1": "epoch-1"}), "listen"),
    ("reports/listen/ab.html", append, "listen"),
    (f"{SCORE}/wavs/utt9-0.wav", add, "Remove"),
    ("artifacts/checkpoints/epoch-1/delta.safetensors", add, "Remove"),
    ("artifacts/checkpoints/epoch-1/speech_tokenizer/model.bin", add, "Remove"),
    ("artifacts/language/stage2/skipped.json", add, "Remove"),
    ("data/language/malay/train_raw.jsonl", append, "language data"),
    ("artifacts/language/audit/manifest.jsonl", edit_number, "language data"),
    ("artifacts/language/codes/codes.safetensors", append, "language data"),
    ("artifacts/language/reference/similarity.json", edit_number, "language data"),
    ("artifacts/language/stage1/epoch-1/delta.safetensors", append, "train again"),
    ("artifacts/language/scores/epoch-1/target/rows.jsonl", edit_number, "language score epoch-1"),
    ("artifacts/language/scores/epoch-1/source/wavs/utt2-0.wav", append, "language score epoch-1"),
    ("reports/language/stage1.json", edit_key("chosen", "base"), "language decide"),
    ("reports/language/decision.json", edit_key("acts", "skip"), "language decide"),
    ("artifacts/language/stage2/epoch-1/delta.safetensors", append, "train again"),
    (
        "artifacts/language/stage2_scores/epoch-1/target/rows.jsonl",
        edit_number,
        "language stage2-score",
    ),
    ("artifacts/language/readings.safetensors", append, "language readings"),
    ("reports/language/selection.json", edit_key("chosen", "base"), "language confirm"),
    ("artifacts/language/confirmation/epoch-1/target/rows.jsonl", edit_number, "language confirm"),
    ("reports/language/confirm.json", edit_number, "language confirm"),
    ("reports/language/arms.json", edit_key("arms", None), "compare audio_rows"),
]


def test_a_finished_run_is_what_its_stages_wrote(project: Path) -> None:
    said = verify(small_params()).sentence
    assert "speaker" in said and "language" in said and " 0 files" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "again"), TABLE, ids=[f"{n}-{c.__name__}" for n, c, _ in TABLE]
)
def test_nothing_edited_goes_unseen(
    project: Path, name: str, change: Callable[[Path], None], again: str
) -> None:
    change(Path(name))
    with pytest.raises(UserError) as caught:
        verify(small_params())
    named = [problem for problem in caught.value.problems if name in problem.where]
    assert named, str(caught.value)
    assert again in named[0].fix


@pytest.mark.parametrize(
    ("key", "value", "record"),
    [
        ("score.temperature", 0.7, f"{SCORE}/made.json"),
        ("score.seed", 9, f"{SCORE}/made.json"),
        ("asr.model", "tiny", f"{SCORE}/made.json"),
        ("select.num_bootstrap", 500, "reports/selection.json"),
        ("train.lr", 1.0, "artifacts/checkpoints/made.json"),
        ("audit.min_snr_db", 1.0, "artifacts/audit/made.json"),
        ("split.salt", "other", "artifacts/audit/made.json"),
        ("language.stage1.lr", 1.0, "artifacts/language/stage1/made.json"),
        ("train.method", "lora", "artifacts/checkpoints/made.json"),
        ("train.text_augmentation", 0.5, "artifacts/checkpoints/made.json"),
        ("model.speaker_encoder", "other", f"{SCORE}/made.json"),
    ],
)
def test_a_parameter_changed_between_two_stages_is_seen(
    project: Path, key: str, value: object, record: str
) -> None:
    values = small_params().model_dump(mode="json")
    section = values
    *parents, last = key.split(".")
    for name in parents:
        section = section[name]
    section[last] = value
    with pytest.raises(UserError, match=key) as caught:
        check_made([Path(record)], check_params(values, "params.yaml"))
    assert "Run `voxadapt" in caught.value.problems[0].fix
    check_made([Path(record)], small_params())


@pytest.mark.slow
def test_a_stage_that_ran_again_leaves_what_follows_stale(project: Path) -> None:
    """New scores, sealed as they should be, are not those that the choice was made from."""
    folder = paths.SCORES / "epoch-2"
    write(folder / "rows.jsonl", "{}\n")
    corpus = [SPEAKER.made_by_audit, SPEAKER.made_reference]
    write_made(folder / MADE, "score epoch-2", [folder], corpus, small_params(), SPEAKING)
    with pytest.raises(UserError) as caught:
        verify(small_params())
    assert [problem.where for problem in caught.value.problems] == [f"{SCORE}/made.json"]
    assert "voxadapt select" in caught.value.problems[0].fix


def test_a_base_that_is_not_the_one_that_was_adapted_is_seen(project: Path) -> None:
    append(Path(small_params().model.base) / "config.json")
    with pytest.raises(UserError, match=r"data/models/base: .*train and score again"):
        verify(small_params())


def test_the_record_of_another_folder_vouches_for_nothing(project: Path) -> None:
    for name in CANDIDATES[1:]:
        shutil.copyfile(paths.SCORES / "base" / MADE, paths.SCORES / name / MADE)
    with pytest.raises(UserError) as caught:
        check_made([paths.SCORES / name / MADE for name in CANDIDATES])
    assert [problem.where for problem in caught.value.problems] == [
        f"artifacts/scores/{name}/made.json" for name in CANDIDATES[1:]
    ]


def test_the_miniatures_parameters_are_readable() -> None:
    assert load_params(PROJECT / "params.yaml").measurable.max_error == 0.5
