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
from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import read_json, sha256_file, write_json
from voxadapt.core.languages import whisper_language
from voxadapt.core.params import ScoreParams, SelectParams
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
from voxadapt.scoring.wording import percent
from voxadapt.selection.comparison import compare_systems

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
    metric: Literal["wer", "cer"] | None = None,
    device: str = "auto",
    batch_size: int = 16,
) -> StageResult:
    """Score the clips of a manifest and write rows, summary and page.

    Args:
        manifest: JSONL of clips; see `data.clips.read_clips`.
        out: Folder for `rows.jsonl`, `summary.json` and `index.html`.
        language: Of rows that name none, by Whisper's code or a name.
        asr: Whisper checkpoint, folder or hub id, or a name that openai-whisper can download.
        reference: Recordings of the speaker, for clips that name none of their own.
        other_voices: JSONL of other voices, for the floor of similarity.
        metric: Error rate that is ranked on; None: by the script.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Whisper windows decoded at once.

    Raises:
        UserError: For a manifest, reference, ASR or metric that cannot be used, and when no
            sentence is without digits.
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
    try:
        is_ours = read_json(out / SUMMARY)["schema"] == SCHEMA
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        is_ours = False
    names = (PAGE, SUMMARY, "rows.jsonl", REFERENCE)
    there = [name for name in names if (out / name).exists() or (out / name).is_symlink()]
    if out.exists() and not out.is_dir():
        there = [out.name]
    if there and not is_ours:
        fix = "Choose another folder; nothing is overwritten."
        expected = "a new folder, or one that `evaluate` wrote"
        raise UserError.of(f"--out {out}", expected, ", ".join(there), fix)


def _metric(
    spoken: Sequence[SpokenClip], language: str, asked: Literal["wer", "cer"] | None
) -> Literal["wer", "cer"]:
    """Return the error rate that is ranked on."""
    texts: dict[str, list[str]] = {}
    for clip in spoken:
        own = clip.language or language
        texts.setdefault(own, []).append(normalise(clip.text, own))
        if not texts[own][-1]:
            raise UserError.of(clip.text_id, "letters or digits", clip.text, "Mend the row.")
    metrics = {metric_for(own, found) for own, found in texts.items()}
    fitting: Literal["wer", "cer"] = "wer" if "wer" in metrics else "cer"
    if asked == "wer" and fitting == "cer":
        raise UserError.of(
            "--metric", f"cer: {language} is written without spaces between words", "wer",
            "Leave the option out.",
        )  # fmt: skip
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
        reference, usable = self._reference(recordings)
        speaker = _Speaker(reference, notes=self._notes(recordings, len(usable)))
        clips = self._recorded_clips(recordings)
        if min(len(usable), len(clips)) >= MIN_REFERENCE_CLIPS:
            speaker.reference, speaker.scale, _ = build_scale(
                self.embedder, clips, others, self.select,
                root=self.root, min_speech_s=self.params.min_speech_s,
            )  # fmt: skip
        with_text = {_recording_id(item) for item in recordings if item.text is not None}
        real = self._rows([clip for clip in clips if clip.text_id in with_text], speaker)
        speaker.rows = [] if all(row.slice == "digits" for row in real) else real
        return speaker

    def _notes(self, recordings: Sequence[Recording], num_usable: int) -> list[str]:
        """Say what these recordings do not let us measure."""
        notes = []
        if num_usable < MIN_REFERENCE_CLIPS:
            notes.append(
                f"Only {num_usable} of {len(recordings)} recordings have "
                f"{self.params.min_speech_s:g} s of speech: too few for a ceiling of "
                "similarity and for the speaker's rate."
            )
        if all(item.text is None for item in recordings):
            notes.append(
                "The recordings have no texts: the recogniser's own errors are unknown, and the "
                "speaker's rate is that of its transcripts."
            )
        return notes

    def _recorded_clips(self, recordings: Sequence[Recording]) -> list[EvalClip]:
        """Return recordings as clips, with their transcript where the text is unknown."""
        heard = self.transcriber.transcribe(
            [item.path for item in recordings], [item.text or ANY_LENGTH for item in recordings]
        )
        return [
            EvalClip(candidate="real", split=SPLIT, text_id=_recording_id(item), lang=self.language,
                 text=text, slice=slice_of(text, self.language), wav=str(item.path.resolve()))
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
                reference, usable = self._reference([Recording(path, None) for path in files])
                own = _Speaker(reference, speaker.scale)
                if not usable:
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

    def _reference(
        self, recordings: Sequence[Recording]
    ) -> tuple[VoiceReference | None, list[Recording]]:
        """Embed recordings; return the reference, None where nothing can be used, and the rest."""
        prints = self.embedder.embed([item.path for item in recordings])
        usable = [
            (item, found.embedding)
            for item, found in zip(recordings, prints, strict=True)
            if found.embedding is not None and found.speech_s >= self.params.min_speech_s
        ]
        if not usable:
            return None, []
        ids = tuple(_recording_id(item) for item, _ in usable)
        vectors = np.stack([vector for _, vector in usable])
        return VoiceReference(ids, vectors, self.embedder.id), [item for item, _ in usable]


def _recording_id(item: Recording) -> str:
    """Name a recording by its content."""
    return f"{item.path.stem}-{sha256_file(item.path)[:8]}"


def _refuse_evaluated_references(
    manifest: Path, spoken: Sequence[SpokenClip], recordings: Sequence[Recording]
) -> None:
    """Refuse recordings that are scored as well: a clip is like itself."""
    scored = {
        sha256_file(manifest.parent / clip.audio): clip.audio for clip in spoken if clip.exists
    }
    listed = [item.path for item in recordings] + [path for c in spoken for path in c.references]
    problems = [
        Problem(str(path), "a recording that is not scored itself", scored[sha],
                "Take it out of the manifest, or out of the reference.")
        for path in dict.fromkeys(listed)
        if (sha := sha256_file(path)) in scored
    ]  # fmt: skip
    raise_problems(problems[:50], "A clip cannot be its own reference.")


def _sentence(summary: Record, out: Path) -> str:
    """Sum up for the command line: one line a system, the comparison, where the page is."""
    metric = summary["error_metric"]
    lines = []
    for name, found in summary["systems"].items():
        sim = found["sim"]["point"]
        likeness = f", similarity {sim:.3f}" if summary["similarity"]["measured"] else ""
        lines.append(
            f"{name}: {metric.upper()} {percent(found[metric])}{likeness}, failures "
            f"{percent(found['failure_rate'])}, {found['n_measured']} of {found['n_expected']} "
            "clips."
        )
    for language, systems in summary.get("languages", {}).items():
        told = ", ".join(f"{name} {percent(found[metric])}" for name, found in systems.items())
        lines.append(f"In {language}: {told}.")
    if summary["asr_floor"] is not None:
        lines.append(f"Recordings of the speaker: {percent(summary['asr_floor'][metric])}.")
    if summary["comparison"] is not None:
        lines.append(summary["comparison"]["text"])
    lines += summary["notes"]
    return "\n".join([*lines, f"The page is {out / PAGE}."])
