"""An exported folder: its record `voxadapt.json`, and what its tools say about it."""

import re
from collections.abc import Mapping
from pathlib import Path

from voxadapt.core.errors import UserError
from voxadapt.core.files import json_or_none, read_json
from voxadapt.core.model_folder import refuse_code
from voxadapt.core.problems import user_error
from voxadapt.core.records import Record
from voxadapt.data.lines import shown

SCHEMA = "voxadapt-export/1"
FACTS, CARD = "voxadapt.json", "README.md"
#: Types of what the tools read of a record.
KINDS = {"form": str, "name": str, "candidate": str, "files": dict, "provenance": dict,
         "licence": dict}  # fmt: skip
ADAPTED = ("config", "meta")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: Measures of a card: key, metric type on the Hub, title, factor, unit.
MEASURES = (
    ("wer", "wer", "Word error rate", 100.0, "%"),
    ("cer", "cer", "Character error rate", 100.0, "%"),
    ("sim", "cosine_similarity", "Speaker similarity (Resemblyzer)", 1.0, ""),
    ("failure_rate", "failure_rate", "Failed clips", 100.0, "%"),
    ("duration_ratio", "duration_ratio", "Duration against the speaker's rate", 1.0, ""),
)


def read_facts(folder: Path) -> Record:
    """Read the record of an export."""
    file = folder / FACTS
    try:
        found: Record = read_json(file)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']!r}")
        for key, kind in KINDS.items():
            if not isinstance(found[key], kind):
                raise ValueError(f"{key}: {type(found[key]).__name__} {shown(found[key], 40)}")
        found["consent"]
        if not isinstance(found["provenance"].get("tensors_sha256"), str):
            raise ValueError("provenance: no tensors_sha256")
        adapted = found.get("adapted")
        if adapted is not None and not all(isinstance(adapted[k], dict) for k in ADAPTED):
            raise ValueError("adapted: no config and meta")
        refuse_code(file, found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        nothing = isinstance(error, FileNotFoundError)
        what = "nothing" if nothing else f"{type(error).__name__}: {error}"
        raise user_error("tools.no_export", file, schema=SCHEMA, found=what) from None
    return found


def is_export(folder: Path) -> bool:
    """Tell whether `voxadapt export` wrote a folder."""
    return json_or_none(folder / FACTS, SCHEMA) is not None


def describe_consent(facts: Record) -> tuple[bool, str]:
    """Say whether consent was recorded with the recordings, and in which words."""
    given, total = facts["consent"], facts["audit"].get("num_accepted", 0)
    if isinstance(given, str) and given.strip():
        return True, f"Recorded with the corpus: {given}"
    stated = given.get("statements", {}) if isinstance(given, Mapping) else {}
    if not stated:
        return False, (
            "No consent of the speaker was recorded with the recordings. Whoever uses this model "
            "has to make sure that the speaker has agreed."
        )
    words = "; ".join(f"“{text}” ({count})" for text, count in stated.items())
    return True, f"As {sum(stated.values())} of {total} recordings state it: {words}."
