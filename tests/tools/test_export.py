"""Exporting: the card's facts, the folder, deltas and the way back, publishing."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import soundfile as sf
import torch
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import fakes
from reporting.language_world import make_language_params
from reporting.world import TEXTS, interval, make_confirm, make_selection, write_corpus, write_rows
from voxadapt.cli.app import app
from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json, read_jsonl, sha256_folder, write_json, write_jsonl
from voxadapt.core.lineage import sealed, write_made
from voxadapt.core.paths import LANGUAGE, SPEAKER
from voxadapt.core.provenance import fingerprint
from voxadapt.explore.project import find_candidate
from voxadapt.model.checkpoint import export_checkpoint, iterate_weights, tensors_sha256
from voxadapt.model.delta import Delta, materialise, write_delta
from voxadapt.model.load import load_tts
from voxadapt.model.tokens import SpecialIds, free_codec_row
from voxadapt.pipeline.candidates import find_checkpoint
from voxadapt.scoring.rows import read_scores, rows_sha
from voxadapt.tools.apply_delta import apply
from voxadapt.tools.export import Terms, export
from voxadapt.tools.publish import check_export, push

ROOT = Path(__file__).parents[2]
TEXT = "talker.model.text_embedding.weight"
WHOLE = "talker.model.layers.0.self_attn.q_proj.weight"
CONSENT = {"num_rows": 20, "statements": {"written, 2026-01-03 | <b>held</b> by X": 20}}


def confirmed(root: Path, record: Path, rows: Path, name: str, sha: str) -> None:
    """Write a confirmation whose figures are those of rows of this very checkpoint."""
    listed = write_rows(root, rows, name, TEXTS, 1)
    write_jsonl(
        root / rows / "rows.jsonl",
        ({**row, "split": "confirmation", "checkpoint_sha": sha} for row in listed),
    )
    found = make_confirm(name, "confirmed")
    found["inputs"][name] = rows_sha(read_scores(root / rows))
    write_json(root / record, found)


def quieten(codec: Path) -> None:
    """Keep a random codec within full scale: beyond it, rounding is a thousand times as loud."""
    tensors = load_file(codec)
    layers = {
        int(n.split(".")[2]) for n in tensors if re.match(r"decoder\.decoder\.\d+\.conv\.", n)
    }
    for name in ("weight", "bias"):
        tensors[f"decoder.decoder.{max(layers)}.conv.{name}"] *= 1e-4
    save_file(tensors, codec, {"format": "pt"})


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished project around a tiny Base: a speaker in two epochs, a language in two."""
    root = tmp_path_factory.mktemp("project")
    base = fakes.make_tts(
        root / "data" / "models" / "base",
        fakes.TinyShape(dtype="bfloat16", speakers=(("bo", 700),)),
    )
    quieten(base / "speech_tokenizer" / "model.safetensors")
    params = make_language_params()
    tree = params.model_dump(mode="json")
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    base_sha = sha256_folder(base)
    tts = load_tts(base)
    ids = SpecialIds.from_config(tts.model.config)
    row = free_codec_row(tts.model.talker.get_input_embeddings().weight, ids, "Aria")
    weights = dict(iterate_weights(base))
    for epoch in (1, 2):
        text = weights[TEXT].clone()
        text[epoch : epoch + 3] += 0.25
        state = {TEXT: text, WHOLE: weights[WHOLE] * 1.5}
        meta = {"speaker_name": "Aria", "base_sha256": base_sha, "epoch": epoch, "lr": 2e-6}
        export_checkpoint(
            root / paths.CHECKPOINTS / f"epoch-{epoch}", base, state, "Aria", row,
            torch.full((fakes.HIDDEN,), 0.5), meta,
        )  # fmt: skip
        rows = (torch.tensor([3, 5]), weights[TEXT][[3, 5]] + epoch)
        write_delta(
            root / paths.LANGUAGE_STAGE1 / f"epoch-{epoch}", base,
            Delta(rows={TEXT: rows}, language=("Malay", 950)), meta,
        )  # fmt: skip
    for at, record in ((SPEAKER, paths.SELECTION), (LANGUAGE, paths.LANGUAGE_SELECTION)):
        write_corpus(root, at, TEXTS, "data/clips")
        metrics = read_json(root / at.audit_metrics)
        write_json(root / at.audit_metrics, metrics | {"warnings_by_rule": {"low_snr": 2}})
        decision = make_selection(params, "epoch-2", "epoch-2")
        decision["forgetting"] = {
            "num_texts": 16, "metric": "cer",
            "candidates": {"epoch-2": {"sentence": "English is kept within the margin."}},
        }  # fmt: skip
        write_json(root / record, decision)
    confirmed(root, paths.CONFIRM, paths.CONFIRMATION / "epoch-2", "epoch-2",
              sha256_folder(root / paths.CHECKPOINTS / "epoch-2"))  # fmt: skip
    delta_sha = sha256_folder(root / paths.LANGUAGE_STAGE1 / "epoch-2")
    confirmed(root, paths.LANGUAGE_CONFIRM, paths.LANGUAGE_CONFIRMATION / "epoch-2" / "target",
              "epoch-2", fingerprint([base_sha, delta_sha], 64))  # fmt: skip
    return root


@pytest.fixture
def project(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(original, root)
    monkeypatch.chdir(root)
    write_made(paths.MADE_BY_TRAIN, "train", [paths.CHECKPOINTS])
    write_made(paths.MADE_BY_STAGE1, "language stage1", [paths.LANGUAGE_STAGE1])
    for record in (
        paths.SELECTION, paths.CONFIRM, paths.LANGUAGE_SELECTION, paths.LANGUAGE_CONFIRM,
    ):  # fmt: skip
        seal(record)
    return root


def seal(path: Path, **changes: Any) -> None:
    """Write a record as its stage does, with other values in it."""
    found = {key: value for key, value in read_json(path).items() if key != "made"}
    write_json(path, sealed(found | changes, path.stem))


@pytest.fixture
def params() -> Any:
    return make_language_params()


def card(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def python_block(folder: Path) -> str:
    return re.search(r"```python\n(.*?)```", card(folder)[1], re.S).group(1)  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_chosen_speaker_for_the_hub(project: Path, params: Any) -> None:
    metrics = read_json(SPEAKER.audit_metrics)
    write_json(SPEAKER.audit_metrics, metrics | {"consent": CONSENT})
    terms = Terms("Aria <1>", "cc-by-4.0", "apache-2.0", "own recordings", "Qwen/Qwen3-TTS-Base")
    out = project / "hub" / "aria"
    done = export(params, out, None, terms)
    source = project / paths.CHECKPOINTS / "epoch-2"
    for file in source.rglob("*"):
        if file.is_file():
            assert (out / file.relative_to(source)).read_bytes() == file.read_bytes()
    front, body = card(out)
    confirm = read_json(paths.CONFIRM)
    assert front["license"] == "cc-by-4.0"
    assert front["base_model"] == "Qwen/Qwen3-TTS-Base"
    assert front["base_model_relation"] == "finetune"
    assert front["pipeline_tag"] == "text-to-speech"
    assert front["language"] == ["en"]
    name, results = model_index_to_eval_results(front["model-index"])
    assert name == "Aria <1>"
    by_type = {result.metric_type: result for result in results}
    wer = confirm["measures"]["wer"]["chosen"]
    assert by_type["wer"].metric_value == pytest.approx(100 * wer["point"])
    assert by_type["wer"].metric_args["low"] == pytest.approx(100 * wer["low"])
    assert {result.dataset_split for result in results} == {"confirmation"}
    for part in ("own recordings", "apache-2.0", confirm["sentence"], "low\\_snr: 2", "1.3 minutes",
                 "24 clips", "# Aria &lt;1&gt;", "held&lt;/b&gt; by X", "Limits"):  # fmt: skip
        assert part in body, part
    assert "<b>" not in body
    facts = read_json(out / "voxadapt.json")
    assert facts["scores"]["measures"]["wer"]["chosen"] == wer
    assert facts["consent"] == CONSENT
    assert facts["provenance"]["checkpoint_sha256"] == sha256_folder(source)
    assert done.values["files"].keys() == facts["files"].keys()
    assert str(project) not in (out / "README.md").read_text() + json.dumps(facts)
    assert "No consent" not in body


@pytest.mark.slow
def test_stock_qwen_tts_speaks_as_the_card_says(
    project: Path, params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voxadapt.core.compat import import_qwen_tts

    import_qwen_tts()
    export(params, project / "hub" / "aria")
    export(params, project / "hub" / "malay", language=True)
    for folder in (project / "hub" / "aria", project / "hub" / "malay"):
        monkeypatch.chdir(folder)
        sf.write("voice.wav", np.random.default_rng(0).normal(0, 0.1, 24000 * 3), 24000)
        code = python_block(folder).replace("…", "Saya beli payung.")
        assert ("generate_voice_clone" in code) == (folder.name == "malay")
        exec(code, {})
        assert sf.info("said.wav").frames > 0


def test_a_language_is_asked_for_by_name(project: Path, params: Any) -> None:
    export(params, project / "malay", language=True)
    front, body = card(project / "malay")
    assert front["language"] == ["ms", "en"]
    assert front["license"] == "unknown"
    assert 'language="Malay"' in body
    assert "English is kept within the margin." in body
    assert "No consent of the speaker was recorded" in body
    config = read_json(project / "malay" / "config.json")
    assert config["talker_config"]["codec_language_id"]["malay"] == 950
    assert not list((project).glob("**/.*malay*"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["speaker", "language"])
def test_a_delta_makes_the_model_again_bit_for_bit(project: Path, params: Any, kind: str) -> None:
    base = project / "data" / "models" / "base"
    if kind == "speaker":
        whole = project / paths.CHECKPOINTS / "epoch-2"
        export(params, project / "delta", delta=True)
        facts = read_json(project / "delta" / "meta.json")
        assert facts["tensors"][TEXT] == {"kind": "rows", "num_rows": 3, "num_values": 3 * 24}
        assert len(facts["tensors"]) == 3, "two that were trained, and the speaker's row"
    else:
        whole = materialise(base, project / paths.LANGUAGE_STAGE1 / "epoch-2", project / "whole")
        export(params, project / "delta", delta=True, language=True)
    names = {path.name for path in (project / "delta").iterdir()}
    assert names == {"README.md", "delta.safetensors", "meta.json", "voxadapt.json"}
    assert "voxadapt apply" in card(project / "delta")[1]
    apply(project / "delta", str(base), project / "again")
    assert fakes.changed_tensors(whole, project / "again") == []
    assert tensors_sha256(whole) == tensors_sha256(project / "again")
    for file in ("config.json", "meta.json"):
        assert (project / "again" / file).read_bytes() == (whole / file).read_bytes()
    assert sha256_folder(project / "again" / "speech_tokenizer") == sha256_folder(
        base / "speech_tokenizer"
    )
    assert fakes.changed_tensors(base, project / "again") != []


@pytest.mark.slow
def test_a_low_rank_arm_is_a_delta_too(project: Path, params: Any) -> None:
    base = project / "data" / "models" / "base"
    factors = (torch.full((2, 32), 0.05), torch.full((32, 2), 0.05))
    meta = {"base_sha256": sha256_folder(base)}
    source = project / paths.LANGUAGE_ARMS / "talker_lora" / "deltas" / "epoch-3"
    lora = Delta(lora={WHOLE: factors}, lora_scale=2.0, language=("malay", 950))
    write_delta(source, base, lora, meta)
    shown = {key: interval(0.3) for key in ("wer", "cer", "sim", "failure_rate", "duration_ratio")}
    entries = [
        {"name": "stages"},
        {
            "name": "talker_lora",
            "epoch": "epoch-3",
            **shown,
            "forgetting": {"sentence": "English is forgotten."},
        },
    ]
    write_json(paths.LANGUAGE_ARMS_TABLE, {"arms": entries})
    with pytest.raises(UserError, match="one of talker_lora"):
        export(params, project / "delta", arm="full_talker", language=True)
    export(params, project / "delta", arm="talker_lora", delta=True, language=True)
    front, body = card(project / "delta")
    assert "model-index" not in front
    assert "not the model that the measurements chose" in body
    assert "English is forgotten." in body
    done = apply(project / "delta", str(base), project / "again")
    assert "bit for bit" in done.sentence, "the same machine multiplies alike"
    assert fakes.changed_tensors(base, project / "again") == [WHOLE]


@pytest.mark.slow
def test_a_delta_that_was_changed_or_is_of_another_base_is_refused(
    project: Path, params: Any
) -> None:
    base = project / "data" / "models" / "base"
    other = fakes.make_tts(project / "other", fakes.TinyShape(dtype="bfloat16"), seed=1)
    export(params, project / "delta", delta=True)
    with pytest.raises(UserError, match="does not belong"):
        apply(project / "delta", str(other), project / "again")
    file = project / "delta" / "voxadapt.json"
    facts = read_json(file)
    facts["provenance"]["tensors_sha256"] = "0" * 64
    write_json(file, facts)
    with pytest.raises(UserError, match="not the model that was exported"):
        apply(project / "delta", str(base), project / "again")
    with open(project / "delta" / "delta.safetensors", "r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x01")
    with pytest.raises(UserError, match="damaged"):
        apply(project / "delta", str(base), project / "again")
    assert not (project / "again").exists()
    export(params, project / "whole")
    with pytest.raises(UserError, match="a whole model"):
        apply(project / "whole", str(base), project / "again")
    with pytest.raises(UserError, match="new or empty"):
        apply(project / "delta", str(base), project / "whole")


@pytest.mark.slow
def test_the_base_is_not_exported_unless_an_epoch_is_named(project: Path, params: Any) -> None:
    seal(paths.SELECTION, chosen="base", keep_base=True)
    with pytest.raises(UserError, match="keep the Base"):
        export(params, project / "out")
    with pytest.raises(UserError, match="published by its makers"):
        export(params, project / "out", "base")
    with pytest.raises(UserError, match="one of base, epoch-1"):
        export(params, project / "out", "epoch-9")
    assert not (project / "out").exists()
    export(params, project / "out", "1")
    front, body = card(project / "out")
    assert "model-index" not in front, "selection's figures are not given as results"
    assert "not the model that the measurements chose" in body
    assert "Nothing\nconfirms these figures" in body
    [words] = [line for line in body.splitlines() if line.startswith("| Word error rate")]
    assert "–" not in words.split("|")[2], "the Base stands beside it"


def test_figures_of_another_checkpoint_are_refused(project: Path, params: Any) -> None:
    meta = project / paths.CHECKPOINTS / "epoch-2" / "meta.json"
    text = meta.read_text()
    meta.write_text(text + " ")
    with pytest.raises(UserError, match="train again"):
        export(params, project / "out")
    write_made(paths.MADE_BY_TRAIN, "train", [paths.CHECKPOINTS])  # another one, not confirmed
    with pytest.raises(UserError, match="voxadapt confirm"):
        export(params, project / "out")
    meta.write_text(text)
    write_made(paths.MADE_BY_TRAIN, "train", [paths.CHECKPOINTS])
    rows = project / paths.CONFIRMATION / "epoch-2" / "rows.jsonl"
    listed = read_jsonl(rows)
    write_jsonl(rows, listed[:-1])
    with pytest.raises(UserError, match="figures of others"):
        export(params, project / "out")
    paths.CONFIRM.unlink()
    with pytest.raises(UserError, match=r"confirm\.json"):
        export(params, project / "out")


@pytest.mark.parametrize("out", [".", "..", "artifacts/checkpoints/epoch-2", "data", "reports"])
def test_no_force_puts_an_export_in_the_place_of_a_project(
    project: Path, params: Any, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "data").mkdir(exist_ok=True)
    (project / "data" / "notes.txt").write_text("mine")
    (project / paths.REPORTS).mkdir(exist_ok=True)
    before = sorted(path.relative_to(project) for path in project.rglob("*"))
    with pytest.raises(UserError, match="Nothing was written"):
        export(params, Path(out), force=True)
    monkeypatch.setenv("PWD", str(project / "sub" / "deep"))  # of a command in a sub-folder
    (project / "sub").mkdir()
    (project / "sub" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="Nothing was written"):
        export(params, Path("sub"), force=True)
    left = {path.relative_to(project) for path in project.rglob("*")}
    assert left >= set(before) and (project / "data" / "notes.txt").read_text() == "mine"


def test_only_what_export_wrote_is_replaced(project: Path, params: Any) -> None:
    out = project / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="--force"):
        export(params, out)
    assert (out / "notes.txt").read_text() == "mine"
    export(params, out, force=True)
    assert not (out / "notes.txt").exists()
    export(params, out, "1")
    assert read_json(out / "voxadapt.json")["candidate"] == "epoch-1"
    with pytest.raises(UserError, match=r"--license(.|\n)*--base-model"):
        export(params, out, None, Terms(licence="All mine!", base_model="no name"))


# --- push ----------------------------------------------------------------------------------------


class FakeHub:
    """What `push` asks of `huggingface_hub.HfApi`."""

    def __init__(self, public: bool = False, error: Exception | None = None, **_: Any) -> None:
        self.public, self.error, self.calls = public, error, []

    def create_repo(self, repo: str, **options: Any) -> None:
        self.calls.append(("create", repo, options))

    def repo_info(self, repo: str) -> Any:
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, **options: Any) -> str:
        if self.error:
            raise self.error
        self.calls.append(("upload", options["repo_id"], options))
        return f"https://huggingface.co/{options['repo_id']}/commit/1"


@pytest.mark.slow
def test_push_checks_before_it_publishes(
    project: Path, params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = project / "hub"
    export(params, out)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    hub = FakeHub()
    listed = push(out, "me/aria", dry_run=True, api=hub).sentence
    assert "model.safetensors" in listed and "no consent" in listed and "no licence" in listed
    with pytest.raises(UserError, match="HF_TOKEN"):
        push(out, "me/aria", api=hub)
    with pytest.raises(UserError, match="owner/name"):
        push(out, "aria", api=hub)
    assert hub.calls == []
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    done = push(out, "me/aria", private=True, api=hub)
    assert "commit/1" in done.sentence
    assert [call[0] for call in hub.calls] == ["create", "upload"]
    assert hub.calls[0][2] == {"private": True, "exist_ok": True}
    assert hub.calls[1][2]["folder_path"] == str(out)
    with pytest.raises(UserError, match="a public one"):
        push(out, "me/aria", private=True, api=FakeHub(public=True))
    with pytest.raises(UserError, match="403 no rights"):
        push(out, "me/aria", api=FakeHub(error=OSError("403 no rights")))


def test_push_refuses_recordings_and_what_was_changed(project: Path, params: Any) -> None:
    out = project / "hub"
    export(params, out)
    (out / "README.md").write_text((out / "README.md").read_text() + "\nMore about it.\n")
    assert len(check_export(out)[1]) == len(read_json(out / "voxadapt.json")["files"]) + 1
    (out / "clips").mkdir()
    (out / "clips" / "utt.FLAC").write_bytes(b"x")
    (out / "manifest.jsonl").write_text("{}")
    (out / "config.json").write_text("{}")
    (out / "generation_config.json").unlink()
    (out / "README.md").write_text("No metadata.")
    with pytest.raises(UserError) as caught:
        push(out, "me/aria", dry_run=True)
    where = {problem.where for problem in caught.value.problems}
    assert where == {"clips/utt.FLAC", "manifest.jsonl", "config.json", "generation_config.json",
                     "README.md"}  # fmt: skip
    with pytest.raises(UserError, match="voxadapt export"):
        push(project / "data" / "models" / "base", "me/base", dry_run=True)


# --- the page ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_command_of_the_page_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: hub)
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.S)
    lines = [line for line in "\n".join(blocks).replace("\\\n", " ").splitlines() if line.strip()]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line.replace("~/port/bin/python", sys.executable), comments=True)
        assert words[0] == "voxadapt", line
        result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert [call[0] for call in hub.calls] == ["create", "upload"]


@pytest.mark.slow
def test_an_export_shares_no_file_with_what_it_was_made_from(project: Path, params: Any) -> None:
    export(params, project / "voice")
    export(params, project / "language", language=True)
    export(params, project / "delta", delta=True)
    apply(project / "delta", str(project / "data" / "models" / "base"), project / "again")
    for folder in ("voice", "language", "delta", "again"):
        for path in (project / folder).rglob("*"):
            assert path.is_dir() or path.stat().st_nlink == 1, path


def spoilt(**change: Any) -> Any:
    return lambda facts: {**facts, **change}


RECORDS: dict[str, Any] = {
    "a list": lambda facts: [],
    "a number": lambda facts: 7,
    "null": lambda facts: None,
    "no schema": lambda facts: {},
    "a form that is none": spoilt(form=3),
    "a name that is none": spoilt(name=None),
    "files as a list": spoilt(files=[]),
    "a provenance of words": spoilt(provenance="here"),
    "no hash": spoilt(provenance={"tensors_sha256": 5}),
    "an adapted model of words": spoilt(adapted="words"),
    "an adapted model without a config": spoilt(adapted={"meta": {}}),
    "an adapted config of numbers": spoilt(adapted={"meta": {}, "config": [1]}),
}
METAS: dict[str, Any] = {
    **{name: RECORDS[name] for name in ("a list", "a number", "null", "no schema")},
    "a scale of words": spoilt(lora_scale="much"),
    "an endless scale": spoilt(lora_scale="inf"),
    "a language of numbers": spoilt(language=[1]),
    "an id of words": spoilt(language={"name": "malay", "id": "x"}),
    "no hash of the Base": spoilt(base_weights_sha256=None),
    "a hash of numbers": spoilt(base_weights_sha256=7),
    "no hash of itself": spoilt(delta_sha256=[]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RECORDS, *(f"meta: {name}" for name in METAS)])
def test_records_that_are_spoilt_end_in_a_table(project: Path, params: Any, name: str) -> None:
    export(params, project / "delta", delta=True)
    is_meta = name.startswith("meta: ")
    file = project / "delta" / ("meta.json" if is_meta else "voxadapt.json")
    change = METAS[name.removeprefix("meta: ")] if is_meta else RECORDS[name]
    write_json(file, change(read_json(file)))
    with pytest.raises(UserError):
        apply(project / "delta", str(project / "data" / "models" / "base"), project / "again")
    assert not (project / "again").exists()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["config", "meta"])
def test_code_in_a_record_is_not_written_through(project: Path, params: Any, where: str) -> None:
    export(params, project / "delta", delta=True)
    file = project / "delta" / "voxadapt.json"
    facts = read_json(file)
    facts["adapted"][where]["deep"] = [{"auto_map": {"AutoModel": "evil.Model"}}]
    write_json(file, facts)
    base = project / "data" / "models" / "base"
    with pytest.raises(UserError, match="auto_map"):
        apply(project / "delta", str(base), project / "again")
    config = read_json(base / "config.json")
    write_json(base / "config.json", config | {"auto_map": {"AutoModel": "evil.Model"}})
    with pytest.raises(UserError, match="auto_map"):
        materialise(base, project / paths.LANGUAGE_STAGE1 / "epoch-2", project / "language")
    assert not (project / "again").exists() and not (project / "language").exists()


@pytest.mark.slow
def test_an_epoch_that_is_an_adapter_is_exported_whole_or_as_it_is(
    project: Path, params: Any
) -> None:
    base, folder = project / "data" / "models" / "base", project / paths.CHECKPOINTS / "epoch-1"
    shutil.rmtree(folder)
    height, width = dict(iterate_weights(base))[WHOLE].shape
    adapter = Delta(
        rows={"talker.model.codec_embedding.weight":
              (torch.tensor([950]), torch.full((1, fakes.HIDDEN), 0.5))},
        lora={WHOLE: (torch.ones(2, width), torch.full((height, 2), 0.1))},
        speakers={"aria": 950},
    )  # fmt: skip
    meta = {"speaker_name": "Aria", "base_sha256": sha256_folder(base), "epoch": 1, "lr": 2e-6}
    write_delta(folder, base, adapter, meta)
    write_made(paths.MADE_BY_TRAIN, "train", [paths.CHECKPOINTS])
    whole = materialise(base, folder, project / "whole")
    assert find_candidate(params, 1)[1].name == find_checkpoint(params.model, "epoch-1").sha[:16]
    assert not fakes.changed_tensors(find_candidate(params, 1)[1], whole)
    export(params, project / "full", "epoch-1")
    assert not fakes.changed_tensors(project / "full", whole)
    assert set(load_tts(project / "full").get_supported_speakers() or []) == {"aria", "bo"}
    export(params, project / "delta", "epoch-1", delta=True)
    assert (project / "delta" / "delta.safetensors").stat().st_size < 100_000
    apply(project / "delta", str(base), project / "again")
    assert not fakes.changed_tensors(project / "again", whole)
    assert read_json(project / "again" / "config.json") == read_json(whole / "config.json")


def test_a_card_names_every_language_and_every_voice(
    project: Path, params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_jsonl(SPEAKER.manifest)
    write_jsonl(SPEAKER.manifest, (row | {"language": "german"} for row in rows))
    monkeypatch.setattr("voxadapt.tools.export.speakers_of_model", lambda _: {"vivian", "aria"})
    export(params, project / "out", "epoch-1")
    front, body = card(project / "out")
    assert front["language"] == ["en", "de"]
    assert "2 voices, Aria, vivian" in body


def test_rows_that_were_set_and_not_trained_are_exported(project: Path, params: Any) -> None:
    file = paths.LANGUAGE_STAGE1 / "epoch-1" / "meta.json"
    write_json(file, {k: v for k, v in read_json(file).items() if k != "base_sha256"})
    write_made(paths.MADE_BY_STAGE1, "language stage1", [paths.LANGUAGE_STAGE1])
    done = export(params, project / "out", "epoch-1", language=True)
    assert done.values["base"]["sha256"] == sha256_folder("data/models/base")
