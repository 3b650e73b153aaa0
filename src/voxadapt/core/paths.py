"""Every path that a stage writes, relative to the project folder; mirrors `dvc.yaml`."""

import os
from pathlib import Path

ARTIFACTS = Path("artifacts")
REPORTS = Path("reports")


class Corpus:
    """Where the stages that every corpus goes through keep their files."""

    def __init__(self, artifacts: Path, reports: Path) -> None:
        self.artifacts = artifacts  # what stages hand to each other
        self.reports = reports  # what people read
        self.manifest = artifacts / "audit" / "manifest.jsonl"  # accepted utterances with split
        self.clips = artifacts / "audit" / "clips.jsonl"  # each with measurements and findings
        self.made_by_audit = artifacts / "audit" / "made.json"  # see `core.lineage`
        self.audit_metrics = reports / "metrics" / "audit.json"
        self.codes = artifacts / "codes" / "codes.safetensors"  # of every accepted utterance
        self.codes_index = artifacts / "codes" / "index.jsonl"  # what each was made from
        self.made_by_codes = artifacts / "codes" / "made.json"
        self.codes_metrics = reports / "metrics" / "codes.json"  # extraction and round trip
        self.planning = reports / "metrics" / "planning.json"  # what differences can be shown
        self.reference = artifacts / "reference"  # recordings and codec round trips, scored
        self.made_reference = self.reference / "made.json"
        self.recogniser = self.reference / "recogniser.json"  # sounds that it can tell apart
        self.scale = self.reference / "similarity.json"  # of all speakers together
        self.voice = self.reference / "voice.safetensors"  # where there is one speaker
        self.speakers = self.reference / "speakers"  # of several: a folder for each
        self.decision = reports / "selection.json"  # the model that is kept
        self.confirmation = artifacts / "confirmation"  # scores of the Base and of that model
        self.confirm = reports / "confirm.json"

    def voice_of(self, speaker: str) -> Path:
        """Embeddings of a speaker, named by its folder; of the only one, whose folder is empty."""
        return self.speakers / speaker / "voice.safetensors" if speaker else self.voice

    def scale_of(self, speaker: str) -> Path:
        """Ceiling, floor and rate of a speaker, named by its folder."""
        return self.speakers / speaker / "similarity.json" if speaker else self.scale


SPEAKER = Corpus(ARTIFACTS, REPORTS)
LANGUAGE = Corpus(ARTIFACTS / "language", REPORTS / "language")

# train
CHECKPOINTS = ARTIFACTS / "checkpoints"  # epoch-1/, epoch-2/, …
MADE_BY_TRAIN = CHECKPOINTS / "made.json"
TRAIN_LOG = REPORTS / "plots" / "train_log.csv"
TRAIN_METRICS = REPORTS / "metrics" / "train.json"

# score, select, confirm
SCORES = ARTIFACTS / "scores"  # base/, epoch-1/, … each rows.jsonl and wavs/
SCORE_METRICS = REPORTS / "metrics" / "scores"  # base.json, epoch-1.json, …
SELECTION = SPEAKER.decision
EPOCHS_TABLE = REPORTS / "plots" / "epochs.csv"
CONFIRMATION = SPEAKER.confirmation
CONFIRM = SPEAKER.confirm

# report
NOTEBOOK_HTML = REPORTS / "notebooks"
REPORT = REPORTS / "index.html"
LISTEN = REPORTS / "listen"  # ab.html, mos.html and their key.json; votes.json when there are votes

# language: texts, Stage 1, scores, decision, Stage 2, confirmation
LANGUAGE_TEXTS = LANGUAGE.artifacts / "audit" / "texts.jsonl"  # accepted texts, with respelling
LANGUAGE_TEXT_METRICS = LANGUAGE.reports / "metrics" / "texts.json"
LANGUAGE_READINGS = LANGUAGE.artifacts / "readings.safetensors"  # texts as the Base reads them
MADE_BY_READINGS = LANGUAGE.artifacts / "readings.json"
LANGUAGE_STAGE1 = LANGUAGE.artifacts / "stage1"  # base/, epoch-1/, … each a delta and meta.json
MADE_BY_STAGE1 = LANGUAGE_STAGE1 / "made.json"
LANGUAGE_STAGE1_METRICS = LANGUAGE.reports / "metrics" / "stage1.json"
LANGUAGE_STAGE1_LOG = LANGUAGE.reports / "plots" / "stage1_log.csv"
LANGUAGE_SCORES = LANGUAGE.artifacts / "scores"  # base/, epoch-1/, … each target/ and source/
LANGUAGE_SCORE_METRICS = LANGUAGE.reports / "metrics" / "scores"
LANGUAGE_CHOICE1 = LANGUAGE.reports / "stage1.json"  # the best epoch of Stage 1
LANGUAGE_DECISION = LANGUAGE.reports / "decision.json"  # run, skip or undecided, and why
LANGUAGE_STAGE2 = LANGUAGE.artifacts / "stage2"  # epoch-1/, … or skipped.json
MADE_BY_STAGE2 = LANGUAGE_STAGE2 / "made.json"
LANGUAGE_STAGE2_SKIPPED = LANGUAGE_STAGE2 / "skipped.json"  # why it was not run
LANGUAGE_STAGE2_SCORES = LANGUAGE.artifacts / "stage2_scores"
MADE_BY_STAGE2_SCORES = LANGUAGE_STAGE2_SCORES / "made.json"
LANGUAGE_STAGE2_METRICS = LANGUAGE.reports / "metrics" / "stage2.json"
LANGUAGE_STAGE2_LOG = LANGUAGE.reports / "plots" / "stage2_log.csv"
LANGUAGE_SELECTION = LANGUAGE.decision
LANGUAGE_EPOCHS_TABLE = LANGUAGE.reports / "plots" / "epochs.csv"
LANGUAGE_CONFIRMATION = LANGUAGE.confirmation
LANGUAGE_CONFIRM = LANGUAGE.confirm
LANGUAGE_ARMS = LANGUAGE.artifacts / "arms"
LANGUAGE_ARMS_TABLE = LANGUAGE.reports / "arms.json"
LANGUAGE_REPORT = LANGUAGE.reports / "index.html"


def work_dir() -> Path:
    """Folder for resumable state that DVC does not track (`WORK_DIR`, default `.work`)."""
    return Path(os.environ.get("WORK_DIR", ".work"))


def seconds_dir() -> Path:
    """Folder of a note for each page: what its stage took the last time, and with what."""
    return work_dir() / "seconds"
