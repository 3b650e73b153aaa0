"""The parameters that a stage depends on in dvc.yaml are those that its code reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from closure import NOTEBOOKS, PROJECT, STAGES, stage_modules
from parameters_read import Reader

PARAMETERS = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
each_stage = pytest.mark.parametrize("name", NOTEBOOKS)

#: Where it runs, not what comes out: no stage depends on it.
LEFT_OUT = ("executor.",)
#: The list decides which of these stages there are; one does not depend on what others there are.
OF_ITSELF = {"score": "candidates", "language_score": "language.candidates"}
SPEAKER_KEYS = {
    "AsrParams": "asr", "AuditParams": "audit", "DataParams": "data", "ModelParams": "model",
    "ScoreParams": "score", "SelectParams": "select", "SplitParams": "split",
    "TrainParams": "train", "ReportParams": "report", "MeasurableParams": "measurable",
    "UsableParams": "usable",
}  # fmt: skip
LANGUAGE_KEYS = {
    "AsrParams": "asr", "AuditParams": "language.audit", "DataParams": "data",
    "ModelParams": "model", "ScoreParams": "score", "SelectParams": "language.select",
    "SplitParams": "language.split", "LanguageParams": "language", "ReportParams": "report",
    "SourceParams": "language.source", "MeasurableParams": "measurable", "UsableParams": "usable",
}  # fmt: skip
#: Keys of the language's track that stand elsewhere than the section that they become.
RENAMED = {
    "asr.language": "language.asr_language",
    "data.manifest": "language.audio",
    "data.ref_text": "language.ref_text",
}
TRACK = {
    False: {"candidates": "candidates", "speaker_name": "train.speaker_name",
            "tag": "train.language"},
    True: {"candidates": "language.candidates", "speaker_name": "language.name",
           "tag": "language.name"},
}  # fmt: skip


@cache
def read_keys(name: str) -> set[str]:
    """Return the keys of params.yaml that a stage's code reads."""
    [module] = stage_modules(NOTEBOOKS[name])
    of_language = name.startswith("language")
    prefixes = dict(LANGUAGE_KEYS if of_language else SPEAKER_KEYS)
    for stage in ("1", "2"):  # one function takes the section of either stage
        if name.startswith(f"language_stage{stage}"):
            prefixes[f"Stage{stage}Params"] = f"language.stage{stage}"
    if name == "language_readings":
        prefixes["Stage1Params"] = "language.stage1"
    if name == "language_decide":
        prefixes["Stage2Params"] = "language.stage2"
    found = set()
    for owner, *keys in Reader(module).reads():
        if owner == "Params":
            found.add(".".join(keys))
        elif owner == "Track":
            found.add(TRACK[of_language][keys[0]])
        elif owner in prefixes:
            key = ".".join([prefixes[owner], *keys])
            found.add(RENAMED.get(key, key) if of_language else key)
    found.discard(OF_ITSELF.get(name, ""))
    return {key for key in found if not key.startswith(LEFT_OUT)}


def declared_keys(name: str) -> set[str]:
    """Return the keys that dvc.yaml declares, each section as the keys in it."""
    found: set[str] = set()
    for entry in STAGES[name].get("params", []):
        if isinstance(entry, str):
            value: Any = PARAMETERS
            for part in entry.split("."):
                value = value[part]
            found |= set(_leaves(value, entry))
    return found


def _leaves(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}")
    else:
        yield key


@each_stage
def test_a_stage_declares_the_parameters_that_it_reads(name: str) -> None:
    sections = tuple(f"{e}." for e in STAGES[name].get("params", []) if isinstance(e, str))
    missing = {key for key in read_keys(name) - declared_keys(name)
               if not key.startswith(sections)}  # fmt: skip
    assert not missing, f"{name} reads {sorted(missing)}; add them to its params in dvc.yaml"


@each_stage
def test_a_stage_declares_no_parameters_that_it_does_not_read(name: str) -> None:
    surplus = declared_keys(name) - read_keys(name)
    assert not surplus, f"{name} does not read {sorted(surplus)}; drop them from its params"


@pytest.mark.parametrize("profile", sorted((PROJECT / "profiles").glob("*.yaml")), ids=str)
def test_a_profile_has_every_key_that_a_stage_declares(profile: Path) -> None:
    """DVC stops for a key that is not in params.yaml, whatever its default."""
    tree = yaml.safe_load(profile.read_text(encoding="utf-8"))
    for stage in STAGES.values():
        for entry in stage.get("params", []):
            value = tree
            for part in entry.split(".") if isinstance(entry, str) else []:
                assert part in value, f"{profile.name} lacks {entry}"
                value = value[part]
