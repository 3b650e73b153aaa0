"""Parameters: profiles load, and everything wrong is named, all of it at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from voxadapt.core.errors import UserError
from voxadapt.core.params import Params, candidate_name, epoch_number, load_params

PROJECT = Path(__file__).parents[2]
PROFILES = sorted((PROJECT / "profiles").glob("*.yaml"))
MINIATURE = yaml.safe_load((PROJECT / "profiles" / "miniature.yaml").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    """The miniature's values with one of them replaced, or removed (value is ...)."""
    tree = yaml.safe_load((PROJECT / "profiles" / "miniature.yaml").read_text())
    *parents, last = path.split(".")
    section = tree
    for name in parents:
        section = section[name]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return tree


def problems(tmp_path: Path, content: dict[str, Any] | str | bytes) -> list[str]:
    path = tmp_path / "params.yaml"
    if isinstance(content, dict):
        content = yaml.safe_dump(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert all(problem.fix for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profiles_load(path: Path) -> None:
    params = load_params(path)
    assert params.profile == path.stem
    assert params.candidates[0] == "base"
    assert params.num_epochs == len(params.candidates) - 1
    assert params.score.takes >= (2 if path.stem == "miniature" else 3)  # its takes are alike


def test_there_is_a_profile_for_each_model() -> None:
    assert [path.stem for path in PROFILES] == ["miniature", "qwen3-tts-0.6b", "qwen3-tts-1.7b"]


@pytest.mark.parametrize("size", ["0.6b", "1.7b"])
def test_real_models_are_pinned_and_trained_with_masters(size: str) -> None:
    params = load_params(PROJECT / "profiles" / f"qwen3-tts-{size}.yaml")
    assert params.model.base == f"Qwen/Qwen3-TTS-12Hz-{size.upper()}-Base"
    assert params.model.revision is not None
    assert len(params.model.revision) == 40
    assert params.asr.model == "large-v3"
    assert params.train.compute_dtype == "bfloat16"
    assert params.train.master_weights
    assert params.train.batch_size * params.train.gradient_accumulation_steps == 32
    assert params.num_epochs == 10
    sampling = params.score
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.repetition_penalty) == (
        0.9, 50, 1.0, 1.05,
    )  # fmt: skip


def test_profiles_list_every_parameter() -> None:
    """A reader sees every knob in the file, not only those that differ from a default."""
    for path in PROFILES:
        given_tree = yaml.safe_load(path.read_text())
        for name, value in load_params(path).model_dump().items():
            if isinstance(value, dict):
                missing = [k for k in value if k not in given_tree[name] and value[k] is not None]
                assert missing == [], f"{path.name}: {name}"


WRONG = {
    "misspelt": ("train.learning_rate", 1e-4, "train.learning_rate: expected a known parameter"),
    "unknown section": ("training", {}, "training: expected a known parameter"),
    "missing": ("train.speaker_name", ..., "train.speaker_name: expected a value; found nothing"),
    "no section": ("model", ..., "model: expected a value; found nothing"),
    "negative": ("train.lr", -1.0, "train.lr: "),
    "zero": ("train.batch_size", 0, "train.batch_size: "),
    "text": ("train.lr", "fast", "train.lr: "),
    "fraction": ("train.batch_size", 2.5, "train.batch_size: "),
    "NaN": ("train.lr", float("nan"), "train.lr: "),
    "share over one": ("split.selection_share", 1.2, "split.selection_share: "),
    "points for a share": ("select.error_margin", 2, "select.error_margin: "),
    "limits in points": ("usable.failure_rate", [2, 10], "usable.failure_rate"),
    "too many resamples": ("select.num_bootstrap", 10**9, "select.num_bootstrap: "),
    "nothing left to train": ("split.selection_share", 0.95, "split: "),
    "choice": ("train.compute_dtype", "float16", "train.compute_dtype: "),
    "list for a section": ("score", [1], "score: "),
    "blank around a name": ("train.speaker_name", " Aria", "train.speaker_name: "),
    "control character": ("train.speaker_name", "A\u0007", "train.speaker_name: "),
    "empty name": ("train.speaker_name", "", "train.speaker_name: "),
    "no base": ("candidates", ["epoch-1", "epoch-2"], "must start with base"),
    "base last": ("candidates", ["epoch-1", "base"], "must start with base"),
    "base twice": ("candidates", ["base", "base", "epoch-1"], "must start with base"),
    "only base": ("candidates", ["base"], "at least one epoch"),
    "epoch 0": ("candidates", ["base", "epoch-0"], "must list epochs as"),
    "unsorted": ("candidates", ["base", "epoch-2", "epoch-1"], "at least one epoch"),
    "epoch twice": ("candidates", ["base", "epoch-1", "epoch-1"], "at least one epoch"),
    "bare number": ("candidates", ["base", 1], "candidates"),
    "no list": ("candidates", 3, "candidates: "),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value(tmp_path: Path, name: str) -> None:
    path, value, message = WRONG[name]
    found = problems(tmp_path, changed(path, value))
    assert any(message in problem for problem in found), found


def test_all_problems_come_together(tmp_path: Path) -> None:
    tree = changed("train.lr", "fast")
    tree["score"]["takes"] = 0
    tree["asr"]["modle"] = "x"
    found = problems(tmp_path, tree)
    assert len(found) == 3


def test_number_without_a_point_is_explained(tmp_path: Path) -> None:
    text = (PROJECT / "profiles" / "miniature.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"  lr: \S+", "  lr: 2e-4", text))
    # YAML reads 2e-4 as text; either it is understood as the number or refused with the hint.
    try:
        assert load_params(path).train.lr == pytest.approx(2e-4)
    except UserError as error:
        assert "2.0e-5" in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "sections such as"),
        ("[1, 2]", "sections such as"),
        ("model: {", "readable YAML"),
        ("a: 1\na: 2\n", "given twice"),
        (b"\xff\xfe\x00", "readable YAML"),
        ("!!python/object/apply:os.system ['true']", "readable YAML"),
    ],
)
def test_file_that_holds_no_parameters(tmp_path: Path, content: str | bytes, message: str) -> None:
    (found,) = problems(tmp_path, content)
    assert message in found


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="voxadapt use miniature"):
        load_params(tmp_path / "params.yaml")


def test_parameters_are_frozen() -> None:
    params = load_params(PROJECT / "profiles" / "miniature.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.train.lr = 1.0  # type: ignore[misc]


def test_candidate_names() -> None:
    assert candidate_name("base") == "base"
    assert candidate_name(3) == candidate_name("3") == candidate_name("epoch-3") == "epoch-3"
    tree = changed("candidates", ["base", "epoch-1", "epoch-4", "epoch-10"])
    params = Params.model_validate(tree)
    assert params.candidates == ("base", "epoch-1", "epoch-4", "epoch-10")
    assert params.num_epochs == epoch_number("epoch-10") == 10
    assert epoch_number("base") == 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)
LEAVES = [
    f"{section}.{key}"
    for section, values in MINIATURE.items()
    if isinstance(values, dict)
    for key in values
]


@pytest.mark.slow
@given(st.sampled_from([*LEAVES, *MINIATURE]), VALUES)
def test_any_value_is_taken_or_named(tmp_path_factory: Any, name: str, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(yaml.safe_dump(changed(name, value)))
    try:
        load_params(path)
    except UserError as error:
        section = name.split(".")[0]
        assert all(section in problem.where for problem in error.problems)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("language.name", "Malay", "malay"),
        ("language.name", "bahasa melayu", "lower-case"),
        ("language.stage1.objective", "rows", "trains nothing"),
        ("language.stage1.objective", "magic", "language.stage1.objective"),
        ("language.stage2.mode", "maybe", "language.stage2.mode"),
        ("language.candidates", ["base"], "at least one epoch"),
        ("language.stage2.max_gap", -0.1, "language.stage2.max_gap"),
    ],
)
def test_a_wrong_language_section_says_what_is_wrong(
    tmp_path: Path, path: str, value: object, message: str
) -> None:
    assert any(message in line for line in problems(tmp_path, changed(path, value)))
