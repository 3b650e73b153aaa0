"""Scores for clips of any system: the pipeline's harness without the pipeline.

It works from any folder and needs no parameter file: a manifest of clips with their texts, an ASR
and, for similarity, recordings of the speaker. Several systems in one manifest are compared.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from voxadapt.asr.normalise import metric_for, normalise
from voxadapt.asr.voice_prints import Embedder
from voxadapt.asr.whisper import Transcriber
from voxadapt.core import paths
from voxadapt.core.device import resolve_device
from voxadapt.core.errors import raise_problems
from voxadapt.core.files import json_or_none, sha256_file, write_json
from voxadapt.core.languages import whisper_language
from voxadapt.core.params import ScoreParams, SelectParams
from voxadapt.core.problems import problem, user_error
from voxadapt.core.provenance import fingerprint, versions
from voxadapt.core.records import Record
from voxadapt.core.stage import StageResult
from voxadapt.data.clips import (
    Recording,
    SpokenClip,
    read_clips,
    read_other_voices,
    read_recordings,
)
from voxadapt.data.splits import MIN_REFERENCE_CLIPS
from voxadapt.reporting.evaluate_page import write_page
from voxadapt.scoring.rows import (
    EvalClip,
    ScoreRow,
    evaluator_id,
    ranked,
    rows_sha,
    slice_of,
    sort_rows,
    write_rows,
)
from voxadapt.scoring.score_clips import NO_REFERENCE, score_clips, summarise
from voxadapt.scoring.similarity import LABEL, SimilarityScale, VoiceReference, build_scale
from voxadapt.scoring.wording import Sentences, percent
from voxadapt.selection.comparison import compare_systems

Metric = Literal["wer", "cer"]
SENTENCES = Sentences(Path(__file__).parent)
SCHEMA = "voxadapt-evaluation/1"
SPLIT = "clips"
SUMMARY, PAGE, REFERENCE = "summary.json", "index.html", "reference"
TRANSCRIPTS = "transcripts"  # cached, unless WORK_DIR names a place for such things
ANY_LENGTH = "a " * 200  # bounds the transcript of a recording whose text is unknown


def evaluate(
    manifest: Path,
    out: Path,
    *,
    language: str = "en",
    asr: str = "large-v3",
    reference: Path | None = None,
    other_voices: Path | None = None,
    metric: Metric | None = None,
    device: str = "auto",
    batch_size: int = 16,
) -> StageResult:
    """Score the clips of a manifest (see `data.clips.read_clips`); write rows, summary and page.

    `language` is that of rows that name none, `reference` holds recordings of the speaker for clips
    that name none, `other_voices` is a JSONL for the floor of similarity. Without a `metric` the
    script of the texts decides which error rate ranks; `batch_size` counts Whisper's windows.
    """
    _refuse_foreign(out)
    from whisper.tokenizer import LANGUAGES

    spoken = read_clips(manifest, LANGUAGES)
    named = {clip.language for clip in spoken}
    only = next(iter(named)) if len(named) == 1 else None
    language = whisper_language(only or language)
    recordings = [] if reference is None else read_recordings(reference)
    _refuse_evaluated_references(manifest, spoken, recordings)
    others = {} if other_voices is None else read_other_voices(other_voices)
    score, select = ScoreParams(), SelectParams(error_metric=_metric(spoken, language, metric))
    place = str(resolve_device(device))
    cache = paths.work_dir() / TRANSCRIPTS if "WORK_DIR" in os.environ else out / TRANSCRIPTS
    transcriber = Transcriber(asr, language, place, batch_size, cache)
    harness = _Harness(manifest.parent, language, transcriber, Embedder(place), score, select)
    speaker = harness.measure_speaker(recordings, others)
    rows = harness.score(spoken, speaker)
    if all(row.sim_id == NO_REFERENCE for row in rows):
        speaker.notes.append("No reference was given: similarity to the speaker was not measured.")
    summary = {
        "schema": SCHEMA,
        "manifest": {"name": manifest.name, "sha256": sha256_file(manifest)},
        "language": language,
        **_measures(rows, speaker, select),
        "notes": speaker.notes,
        "versions": versions(),
    }
    write_rows(out, rows)
    if speaker.rows:
        write_rows(out / REFERENCE, speaker.rows)
    write_json(out / SUMMARY, summary)
    write_page(out / PAGE, summary, rows, manifest.parent)
    return StageResult(_sentence(summary, out), summary)


def _refuse_foreign(out: Path) -> None:
    """Refuse a folder whose files would be overwritten although `evaluate` did not write them."""
    names = (PAGE, SUMMARY, "rows.jsonl", REFERENCE)
    there = [name for name in names if (out / name).exists() or (out / name).is_symlink()]
    if out.exists() and not out.is_dir():
        there = [out.name]
    if there and json_or_none(out / SUMMARY, SCHEMA) is None:
        raise user_error("tools.foreign_evaluation", f"--out {out}", found=", ".join(there))


def _metric(spoken: Sequence[SpokenClip], language: str, asked: Metric | None) -> Metric:
    """Return the error rate that is ranked on."""
    texts: dict[str, list[str]] = {}
    for clip in spoken:
        own = clip.language or language
        texts.setdefault(own, []).append(normalise(clip.text, own))
        if not texts[own][-1]:
            raise user_error("tools.no_letters", clip.text_id, found=clip.text)
    metrics = {metric_for(own, found) for own, found in texts.items()}
    fitting: Metric = "wer" if "wer" in metrics else "cer"
    if asked == "wer" and fitting == "cer":
        raise user_error("tools.no_words", "--metric", language=language)
    return asked or fitting


def _measures(rows: Sequence[ScoreRow], speaker: _Speaker, select: SelectParams) -> Record:
    """Return what the summary says of the clips: by system, compared, and what is missing."""
    scale = speaker.scale
    systems = sorted({row.candidate for row in rows})
    by_system = {name: [row for row in rows if row.candidate == name] for name in systems}
    measured = any(row.sim is not None for row in rows)
    floor = None if scale is None else scale.floor.point
    languages = {
        language: {
            name: summarise(own, select, scale)
            for name, found in by_system.items()
            if ranked(own := [row for row in found if row.lang == language])
        }
        for language in sorted({row.lang for row in rows if row.slice == "ranked"})
    }
    missing = [
        {"system": row.candidate, "text_id": row.text_id, "text": row.text, "take": row.take,
         "message": row.message}
        for row in rows if row.status == "failed"
    ]  # fmt: skip
    return {
        "error_metric": select.error_metric,
        "evaluator": evaluator_id(rows),
        "inputs": {name: rows_sha(found) for name, found in by_system.items()},
        "systems": {name: summarise(found, select, scale) for name, found in by_system.items()},
        **({"languages": languages} if len(languages) > 1 else {}),
        "comparison": compare_systems(by_system, select, floor=floor, with_similarity=measured),
        "asr_floor": summarise(speaker.rows, select, scale) if speaker.rows else None,
        "similarity": {
            "label": LABEL,
            "measured": measured,
            "scale": None if scale is None else scale.as_dict(),
        },
        "n_expected": len(rows),
        "n_measured": len(rows) - len(missing),
        "missing": missing,
    }


@dataclass
class _Speaker:
    """What is known of the speaker from recordings."""

    reference: VoiceReference | None = None  # None where nothing can be used
    scale: SimilarityScale | None = None  # None where there is too little for one
    rows: list[ScoreRow] = field(default_factory=list)  # of recordings whose text is known
    notes: list[str] = field(default_factory=list)  # what could not be measured


@dataclass(frozen=True)
class _Harness:
    """What every clip of a manifest is measured with."""

    root: Path
    language: str
    transcriber: Transcriber
    embedder: Embedder
    params: ScoreParams
    select: SelectParams

    def measure_speaker(
        self, recordings: Sequence[Recording], others: Mapping[str, Sequence[Path]]
    ) -> _Speaker:
        """Measure the speaker's recordings, and the floor of similarity by other voices."""
        if not recordings:
            return _Speaker()
        speaker = _Speaker(self._reference([item.path for item in recordings]))
        num_usable = 0 if speaker.reference is None else len(speaker.reference.embeddings)
        if num_usable < MIN_REFERENCE_CLIPS:
            counts = num_usable, len(recordings), self.params.min_speech_s
            speaker.notes.append(SENTENCES.say("little_speech", *counts))
        if all(item.text is None for item in recordings):
            speaker.notes.append(SENTENCES.say("no_texts"))
        clips = self._recorded_clips(recordings)
        if min(num_usable, len(clips)) >= MIN_REFERENCE_CLIPS:
            speaker.reference, speaker.scale, _ = build_scale(
                self.embedder, clips, others, self.select,
                root=self.root, min_speech_s=self.params.min_speech_s,
            )  # fmt: skip
        with_text = {_recording_id(item.path) for item in recordings if item.text is not None}
        real = self._rows([clip for clip in clips if clip.text_id in with_text], speaker)
        speaker.rows = [] if all(row.slice == "digits" for row in real) else real
        return speaker

    def _recorded_clips(self, recordings: Sequence[Recording]) -> list[EvalClip]:
        """Return recordings as clips, with their transcript where the text is unknown."""
        heard = self.transcriber.transcribe(
            [item.path for item in recordings], [item.text or ANY_LENGTH for item in recordings]
        )
        return [
            EvalClip(candidate="real", split=SPLIT, text_id=_recording_id(item.path), text=text,
                     lang=self.language, slice=slice_of(text, self.language),
                     wav=str(item.path.resolve()))
            for item, found in zip(recordings, heard, strict=True)
            if (text := item.text or found.text).strip()
        ]  # fmt: skip

    def score(self, spoken: Sequence[SpokenClip], speaker: _Speaker) -> list[ScoreRow]:
        """Score every clip against its own recordings, or else against the speaker's."""
        groups: dict[tuple[Path, ...], list[EvalClip]] = {}
        for clip in spoken:
            groups.setdefault(clip.references, []).append(self._spoken_clip(clip))
        rows, identities = [], []
        for files in sorted(groups):
            own = speaker
            if files:
                own = _Speaker(self._reference(files), speaker.scale)
                if own.reference is None:
                    names = ", ".join(path.name for path in files[:3])
                    speaker.notes.append(f"{names}: too little speech for a reference.")
            found = self._rows(groups[files], own)
            identities.append(found[0].sim_id)
            rows += found
        if len(groups) > 1:
            # One name for all references together: every clip has its own by the same rule.
            common = f"{self.embedder.id}/references-{fingerprint(sorted(identities), 8)}"
            known = any(item != NO_REFERENCE for item in identities)
            update = {"sim_id": common if known else NO_REFERENCE}
            rows = [row.model_copy(update=update) for row in rows]
        return sort_rows(rows)

    def _spoken_clip(self, clip: SpokenClip) -> EvalClip:
        lang = clip.language or self.language
        return EvalClip(
            candidate=clip.system, split=SPLIT, text_id=clip.text_id, take=clip.take, lang=lang,
            text=clip.text, slice=slice_of(clip.text, lang), wav=clip.audio,
            status="ok" if clip.exists else "failed",
            message="" if clip.exists else f"there is no file {clip.audio}",
        )  # fmt: skip

    def _rows(self, clips: Sequence[EvalClip], speaker: _Speaker) -> list[ScoreRow]:
        return score_clips(
            clips, self.transcriber, self.embedder, speaker.reference, speaker.scale, self.params,
            root=self.root,
        )  # fmt: skip

    def _reference(self, files: Sequence[Path]) -> VoiceReference | None:
        """Embed recordings; None where nothing can be used."""
        usable = [
            (_recording_id(file), found.embedding)
            for file, found in zip(files, self.embedder.embed(files), strict=True)
            if found.embedding is not None and found.speech_s >= self.params.min_speech_s
        ]
        if not usable:
            return None
        ids, vectors = zip(*usable, strict=True)
        return VoiceReference(ids, np.stack(vectors), self.embedder.id)


def _recording_id(file: Path) -> str:
    """Name a recording by its content."""
    return f"{file.stem}-{sha256_file(file)[:8]}"


def _refuse_evaluated_references(
    manifest: Path, spoken: Sequence[SpokenClip], recordings: Sequence[Recording]
) -> None:
    """Refuse recordings that are scored as well: a clip is like itself."""
    audio = [clip.audio for clip in spoken if clip.exists]
    scored = {sha256_file(manifest.parent / name): name for name in audio}
    listed = [item.path for item in recordings] + [path for c in spoken for path in c.references]
    problems = [
        problem("tools.scored_reference", path, found=scored[sha])
        for path in dict.fromkeys(listed)
        if (sha := sha256_file(path)) in scored
    ]
    raise_problems(problems[:50], "A clip cannot be its own reference.")


def _sentence(summary: Record, out: Path) -> str:
    """Sum up for the command line: one line a system, the comparison, where the page is."""
    metric, measured = summary["error_metric"], summary["similarity"]["measured"]
    lines = [SENTENCES.say("scored", name, found, metric, measured)
             for name, found in summary["systems"].items()]  # fmt: skip
    lines += [SENTENCES.say("in_language", language, systems, metric)
              for language, systems in summary.get("languages", {}).items()]  # fmt: skip
    if summary["asr_floor"] is not None:
        lines.append(f"Recordings of the speaker: {percent(summary['asr_floor'][metric])}.")
    if summary["comparison"] is not None:
        lines.append(summary["comparison"]["text"])
    return "\n".join([*lines, *summary["notes"], f"The page is {out / PAGE}."])
