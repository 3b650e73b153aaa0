"""Every path that a stage writes, relative to the project folder; mirrors `dvc.yaml`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ARTIFACTS = Path("artifacts")
REPORTS = Path("reports")


@dataclass(frozen=True)
class Corpus:
    """Where the stages that every corpus goes through keep their files."""

    artifacts: Path  # folder of what stages hand to each other
    reports: Path  # folder of what people read

    @property
    def manifest(self) -> Path:
        """Accepted utterances with their split."""
        return self.artifacts / "audit" / "manifest.jsonl"

    @property
    def made_by_audit(self) -> Path:
        """What the audit wrote, and from what; see `core.lineage`."""
        return self.artifacts / "audit" / "made.json"

    @property
    def made_by_codes(self) -> Path:
        """The same of the codes."""
        return self.artifacts / "codes" / "made.json"

    @property
    def made_reference(self) -> Path:
        """The same of scored recordings and similarity scale."""
        return self.artifacts / "reference" / "made.json"

    @property
    def clips(self) -> Path:
        """Every clip with its measurements and findings."""
        return self.artifacts / "audit" / "clips.jsonl"

    @property
    def audit_metrics(self) -> Path:
        """Summary of the audit."""
        return self.reports / "metrics" / "audit.json"

    @property
    def codes(self) -> Path:
        """Codes of every accepted utterance."""
        return self.artifacts / "codes" / "codes.safetensors"

    @property
    def codes_index(self) -> Path:
        """What each entry of the codes was made from."""
        return self.artifacts / "codes" / "index.jsonl"

    @property
    def codes_metrics(self) -> Path:
        """Summary of extraction and round trip."""
        return self.reports / "metrics" / "codes.json"

    @property
    def planning(self) -> Path:
        """Which differences the sentences can show, planned before training."""
        return self.reports / "metrics" / "planning.json"

    @property
    def reference(self) -> Path:
        """Scored recordings and codec round trips, and the similarity scale."""
        return self.artifacts / "reference"

    @property
    def recogniser(self) -> Path:
        """Which sounds the recogniser can tell apart, and which wrong texts it notices."""
        return self.reference / "recogniser.json"

    @property
    def scale(self) -> Path:
        """Ceiling and floor of similarity, rate of speech; of all speakers together."""
        return self.reference / "similarity.json"

    @property
    def voice(self) -> Path:
        """Embeddings that similarity is measured against, where there is one speaker."""
        return self.reference / "voice.safetensors"

    @property
    def speakers(self) -> Path:
        """What belongs to each of several speakers: a folder for each."""
        return self.reference / "speakers"

    def voice_of(self, speaker: str) -> Path:
        """Embeddings of a speaker, named by its folder; of the only one, whose folder is empty."""
        return self.speakers / speaker / "voice.safetensors" if speaker else self.voice

    def scale_of(self, speaker: str) -> Path:
        """Ceiling, floor and rate of a speaker, named by its folder."""
        return self.speakers / speaker / "similarity.json" if speaker else self.scale


SPEAKER = Corpus(ARTIFACTS, REPORTS)
LANGUAGE = Corpus(ARTIFACTS / "language", REPORTS / "language")

# audit
MANIFEST = SPEAKER.manifest
CLIPS = SPEAKER.clips
AUDIT_METRICS = SPEAKER.audit_metrics

# codes
CODES = SPEAKER.codes
CODES_INDEX = SPEAKER.codes_index
REFERENCE = SPEAKER.reference
CODES_METRICS = SPEAKER.codes_metrics
PLANNING = SPEAKER.planning

# train
CHECKPOINTS = ARTIFACTS / "checkpoints"  # epoch-1/, epoch-2/, …
MADE_BY_TRAIN = CHECKPOINTS / "made.json"
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
LANGUAGE_SELECTION = LANGUAGE.reports / "selection.json"  # the model that is kept
LANGUAGE_EPOCHS_TABLE = LANGUAGE.reports / "plots" / "epochs.csv"
LANGUAGE_CONFIRMATION = LANGUAGE.artifacts / "confirmation"
LANGUAGE_CONFIRM = LANGUAGE.reports / "confirm.json"
LANGUAGE_ARMS = LANGUAGE.artifacts / "arms"
LANGUAGE_ARMS_TABLE = LANGUAGE.reports / "arms.json"
LANGUAGE_REPORT = LANGUAGE.reports / "index.html"


def work_dir() -> Path:
    """Folder for resumable state that DVC does not track (`WORK_DIR`, default `.work`)."""
    return Path(os.environ.get("WORK_DIR", ".work"))


def seconds_dir() -> Path:
    """Folder of a note for each page: what its stage took the last time, and with what."""
    return work_dir() / "seconds"
