"""Every path that a stage writes, relative to the project folder; mirrors `dvc.yaml`."""

from __future__ import annotations

import os
from pathlib import Path

ARTIFACTS = Path("artifacts")
REPORTS = Path("reports")

# audit
MANIFEST = ARTIFACTS / "audit" / "manifest.jsonl"  # accepted utterances with their split
CLIPS = ARTIFACTS / "audit" / "clips.jsonl"  # every clip with its measurements and findings
AUDIT_METRICS = REPORTS / "metrics" / "audit.json"

# codes
CODES = ARTIFACTS / "codes" / "codes.safetensors"
CODES_INDEX = ARTIFACTS / "codes" / "index.jsonl"
REFERENCE = ARTIFACTS / "reference"  # scored real and codec round-trip clips, similarity scale
CODES_METRICS = REPORTS / "metrics" / "codes.json"

# train
CHECKPOINTS = ARTIFACTS / "checkpoints"  # epoch-1/, epoch-2/, …
TRAIN_LOG = REPORTS / "plots" / "train_log.csv"
TRAIN_METRICS = REPORTS / "metrics" / "train.json"

# score, select, confirm
SCORES = ARTIFACTS / "scores"  # base/, epoch-1/, … each rows.jsonl and wavs/
SCORE_METRICS = REPORTS / "metrics" / "scores"  # base.json, epoch-1.json, …
SELECTION = REPORTS / "selection.json"
EPOCHS_TABLE = REPORTS / "plots" / "epochs.csv"
CONFIRMATION = ARTIFACTS / "confirmation"  # base/ and the chosen candidate's scores
CONFIRM = REPORTS / "confirm.json"

# report
NOTEBOOK_HTML = REPORTS / "notebooks"
REPORT = REPORTS / "index.html"


def work_dir() -> Path:
    """Folder for resumable state that DVC does not track (`WORK_DIR`, default `.work`)."""
    return Path(os.environ.get("WORK_DIR", ".work"))
