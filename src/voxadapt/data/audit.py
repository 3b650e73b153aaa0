"""The data audit: every rule for a speaker's corpus, measured clip by clip.

Errors stop the pipeline, all of them shown together with file and line. Warnings are kept with
the clip, the measured value and the limit, for the report. Nothing is repaired in silence.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import jiwer
import numpy as np

from voxadapt.core import paths
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import sha256_file, write_json, write_jsonl
from voxadapt.core.params import AuditParams, SplitParams
from voxadapt.core.progress import Progress
from voxadapt.core.records import Record
from voxadapt.data.audio import (
    AudioError,
    AudioInfo,
    Measurements,
    content_sha256,
    decode,
    measure,
    narrow_band_db,
    probe,
    to_mono,
)
from voxadapt.data.manifest import RawRow, Utterance, by_speaker, write_manifest
from voxadapt.data.splits import MIN_REFERENCE_CLIPS, SPLITS, Split, assign_split
from voxadapt.data.text import (
    dominant_script,
    fold_text,
    has_digit,
    has_markup,
    num_sentences,
    num_spoken_characters,
    odd_characters,
)

MAX_DC_OFFSET = 0.02
MIN_SPEECH_S = 0.3  # a clip with less speech than this is empty
MAX_CHARACTERS_PER_S = 60.0  # nobody speaks faster: text and audio do not belong together
MAX_SAMPLES = 32_000_000  # of all channels: 40 s in stereo at 384 kHz; more fills the memory
MIN_BAND_DB = -60.0  # above 4 kHz against below; speech has -15 to -45 dB
MIN_CLIPS_FOR_RATE = 8
MAD_TO_SD = 1.4826
MIN_RATE_SPREAD = 0.02  # of the log rate: equal clips are no outliers of each other
MIN_HELD_OUT_TEXTS = 8
MAX_DROPPED_SHARE = 0.5  # more rows with errors than this concern the corpus as a whole
CONTAINERS = {
    ".wav": {"WAV", "WAVEX", "RF64"},
    ".flac": {"FLAC"},
    ".mp3": {"MP3"},
    ".ogg": {"OGG"},
    ".opus": {"OGG"},
    ".aiff": {"AIFF"},
    ".aif": {"AIFF"},
}

Transcribe = Callable[[list[Path], list[str]], Sequence[str | None]]


Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that a clip, or the corpus, breaks.

    Attributes:
        severity: Errors stop the pipeline; warnings are listed.
        rule: Short name of the rule.
        expected: What the rule asks for.
        found: What is there.
        fix: What to do.
        value: The measured number or text.
        limit: The limit that it was held against.
    """

    severity: Severity
    rule: str
    expected: str
    found: str
    fix: str
    value: float | str | None = None
    limit: float | str | None = None

    @property
    def message(self) -> str:
        """The finding in one sentence and a hint."""
        return f"Expected {self.expected}; found {self.found}. {self.fix}"

    def as_dict(self) -> Record:
        """Return what `clips.jsonl` holds of it."""
        value = round(self.value, 6) if isinstance(self.value, float) else self.value
        return {
            "severity": self.severity,
            "rule": self.rule,
            "message": self.message,
            "value": value,
            "limit": self.limit,
        }

    def as_problem(self, where: str) -> Problem:
        """Turn an error into a row of the table that stops the pipeline."""
        return Problem(where, self.expected, self.found, self.fix)


DIGITS = Finding(
    "warning", "digits", "numbers in words", "digits",
    "A number can be read in several ways: write it in words.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AuditedClip:
    """One row of the manifest with everything that was measured on it.

    Attributes:
        row: The row.
        text_norm: Folded transcript.
        info: Header; None when the file could not be read.
        measured: None when the samples were not read.
        file_sha256: Hash of the file.
        content_sha256: Hash of the decoded samples.
        characters_per_s: Letters, marks and digits per second of speech.
        hypothesis: What Whisper transcribed; None when it was not asked.
        disagreement: Character error rate of the hypothesis; None when it was not asked.
        split: The clip's split.
        findings: Broken rules.
    """

    row: RawRow
    text_norm: str
    split: Split
    info: AudioInfo | None = None
    measured: Measurements | None = None
    file_sha256: str = ""
    content_sha256: str = ""
    characters_per_s: float | None = None
    hypothesis: str | None = None
    disagreement: float | None = None
    findings: tuple[Finding, ...] = ()

    def add(self, *findings: Finding) -> AuditedClip:
        """Return the clip with more findings."""
        return replace(self, findings=(*self.findings, *findings))

    def as_dict(self) -> Record:
        """Return a row of `clips.jsonl`."""
        info = self.info
        return {
            "id": self.row.id,
            "where": self.row.where,
            "line": self.row.line,
            "audio": project_path(self.row.audio_path),
            "text": self.row.text,
            "language": self.row.language,
            "split": self.split,
            "sample_rate_hz": info.sample_rate_hz if info else None,
            "num_channels": info.num_channels if info else None,
            "container": info.container if info else None,
            "duration_s": round(info.duration_s, 6) if info else None,
            "audio_sha256": self.file_sha256,
            "characters_per_s": _rounded(self.characters_per_s),
            "hypothesis": self.hypothesis,
            "disagreement": _rounded(self.disagreement),
            **(self.measured.as_dict() if self.measured else {}),
            "findings": [finding.as_dict() for finding in self.findings],
            **({"consent": self.row.consent} if self.row.consent else {}),
            **({"speaker": self.row.speaker} if self.row.speaker else {}),
        }


@dataclass(frozen=True, slots=True)
class AuditResult:
    """An audited corpus without errors.

    Attributes:
        clips: Every row with its measurements, in file order.
        corpus: Warnings on the corpus as a whole.
        utterances: The accepted clips with their split, sorted by id.
        metrics: Counts, minutes and medians, for `audit.json`.
        dropped: What is wrong with the rows that were left out.
    """

    clips: tuple[AuditedClip, ...]
    corpus: tuple[Finding, ...]
    utterances: tuple[Utterance, ...]
    metrics: Record = field(default_factory=dict)
    dropped: tuple[Problem, ...] = ()

    @property
    def warnings(self) -> list[tuple[AuditedClip | None, Finding]]:
        """Every warning with its clip; None stands for the corpus."""
        whole: list[tuple[AuditedClip | None, Finding]] = [(None, found) for found in self.corpus]
        return whole + [(clip, found) for clip in self.clips for found in clip.findings]

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        n, warnings = self.metrics, len(self.warnings)
        per_split = ", ".join(f"{n['splits'][name]['clips']} {name}" for name in SPLITS)
        voices = f" of {len(n['speakers'])} speakers" if len(n.get("speakers", ())) > 1 else ""
        left = f", {n['num_dropped']} of {n['num_rows']} rows left out" if self.dropped else ""
        return (
            f"{n['num_accepted']} clips{voices} accepted ({n['minutes']:.1f} min: {per_split})"
            f"{left}, {warnings} warning{'' if warnings == 1 else 's'}."
            + "".join(f" {f.message}" for f in self.corpus if f.rule == "recogniser")
        )


def project_path(path: Path) -> str:
    """Write a path relative to the project folder, or absolute when it lies outside."""
    relative = Path(os.path.relpath(path))
    return (Path(path).absolute() if ".." in relative.parts else relative).as_posix()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def audit_corpus(
    rows: Sequence[RawRow],
    audit: AuditParams,
    split: SplitParams,
    manifest: str | Path,
    problems: Sequence[Problem] = (),
    transcribe: Transcribe | None = None,
    max_error: float = 1.0,
) -> AuditResult:
    """Check a corpus against every rule.

    Args:
        rows: Sound rows from `read_raw_manifest`.
        audit: Limits.
        split: Shares and salt.
        manifest: Path of the user's manifest, for messages.
        problems: What `read_raw_manifest` refused; shown together with the audit's errors.
        transcribe: Takes clips and their transcripts, returns the transcript of each (None for a
            clip that failed). Only asked once there is no error; None leaves the rule out.
        max_error: Mean character error of the transcripts, from where on the recogniser hears
            nothing of this corpus: that is then the warning, instead of one for every clip.

    Raises:
        UserError: With every error of the reading and of the audit, in file order; with
            `audit.on_error: drop`, when an error concerns more than single rows.
    """
    manifest = Path(manifest)
    clips = audit_clips(rows, audit, split)
    errors = list(problems)
    for clip in clips:
        errors += [f.as_problem(clip.row.where) for f in clip.findings if f.severity == "error"]
    errors.sort(key=lambda problem: _line(problem.where))
    rejected = {problem.where for problem in errors if _line(problem.where)}
    dropped: list[Problem] = []
    if audit.on_error == "drop" and len(rejected) <= MAX_DROPPED_SHARE * (
        len(rejected | {row.where for row in rows})
    ):
        dropped = [problem for problem in errors if problem.where in rejected]
        errors = [problem for problem in errors if problem.where not in rejected]
        clips = [clip for clip in clips if clip.row.where not in rejected]
    groups = _groups(clips)
    corpus = [found for group in groups for found in _named(group, _check_minutes(group, audit))]
    corpus += _check_splits(clips) if clips else []
    corpus += _check_languages(clips)
    for group in groups:
        corpus += _named(group, _check_held_out(group) + _check_reference(group, audit))
    if clips:
        errors += [f.as_problem(manifest.name) for f in corpus if f.severity == "error"]
    if errors:
        count = len({problem.where for problem in errors if _line(problem.where)})
        rows_have = "1 row has" if count == 1 else f"{count} rows have"
        title = f"{manifest} cannot be used as it is"
        title = f"{title}: {rows_have} errors." if count else f"{title}."
        raise UserError([*errors, *dropped], title)
    if not clips:
        fix = "Give one clip a line."
        raise UserError(Problem(str(manifest), "at least one row", "none", fix))
    if transcribe is not None:
        clips, deaf = _check_transcripts(clips, audit, transcribe, max_error)
        corpus += deaf
    utterances = tuple(sorted((_utterance(clip) for clip in clips), key=lambda u: u.id))
    metrics = _metrics(clips, corpus, dominant_script(row.text for row in rows), manifest)
    if dropped:
        metrics |= {
            "num_rows": len(clips) + len(rejected),
            "num_dropped": len(rejected),
            "dropped": [problem.as_dict() for problem in dropped],
        }
    return AuditResult(tuple(clips), tuple(corpus), utterances, metrics, tuple(dropped))


def audit_clips(
    rows: Sequence[RawRow], audit: AuditParams, split: SplitParams
) -> list[AuditedClip]:
    """Apply every rule that concerns single clips, and those that hold them against each other."""
    script = dominant_script(row.text for row in rows)
    progress = Progress("audit", len(rows), "clips")
    clips = []
    for row in rows:
        clips.append(_check_clip(row, audit, split, script))
        progress.advance()
    groups = [_check_rates(group, audit) for group in _groups(clips)]
    checked = {clip.row.line: clip for group in groups for clip in group}
    return _check_duplicates([checked[clip.row.line] for clip in clips])


def write_audit(
    result: AuditResult,
    manifest: str | Path = paths.MANIFEST,
    clips: str | Path = paths.CLIPS,
    metrics: str | Path = paths.AUDIT_METRICS,
) -> None:
    """Write the accepted manifest, every clip with its findings, and the metrics."""
    write_manifest(manifest, result.utterances)
    write_jsonl(clips, (clip.as_dict() for clip in result.clips))
    write_json(metrics, result.metrics)


def _line(where: str) -> int:
    tail = where.rsplit(":", 1)[-1]
    return int(tail) if tail.isdigit() else 0


def _utterance(clip: AuditedClip) -> Utterance:
    assert clip.info is not None, "an accepted clip was read"
    return Utterance(
        id=clip.row.id,
        audio=project_path(clip.row.audio_path),
        text=clip.row.text,
        ref_audio=project_path(clip.row.ref_path),
        language=clip.row.language,
        duration_s=round(clip.info.duration_s, 6),
        sample_rate_hz=clip.info.sample_rate_hz,
        audio_sha256=clip.file_sha256,
        split=clip.split,
        speaker=clip.row.speaker,
    )


def _groups(clips: Sequence[AuditedClip]) -> list[list[AuditedClip]]:
    """Return the clips of each speaker, in the order of their first rows."""
    by_line = {clip.row.line: clip for clip in clips}
    groups = by_speaker([clip.row for clip in clips]).values()
    return [[by_line[row.line] for row in group] for group in groups]


def _check_clip(
    row: RawRow, audit: AuditParams, split: SplitParams, script: str | None
) -> AuditedClip:
    """Apply every rule that needs one clip only."""
    text_norm = fold_text(row.text)
    clip = AuditedClip(row, text_norm, assign_split(text_norm, split))
    clip = clip.add(*_text_findings(row, script))
    try:
        info = probe(row.audio_path)
    except AudioError as error:
        return clip.add(_unreadable(str(error)))
    clip = replace(clip, info=info).add(*_header_findings(row, info, audit))
    if info.duration_s > 2 * audit.clip_duration_s[1]:
        return clip  # hours of audio are not decoded to say once more that they are too long
    if info.num_samples * info.num_channels > MAX_SAMPLES:
        return clip.add(_too_large(info))
    try:
        samples, sample_rate_hz = decode(row.audio_path)
    except AudioError as error:
        return clip.add(_unreadable(str(error)))
    if len(samples) < info.num_samples:
        clip = clip.add(_unreadable(f"{len(samples)} of {info.num_samples} samples"))
    measured = measure(samples, sample_rate_hz)
    rate = num_spoken_characters(row.text) / measured.speech_s if measured.speech_s else None
    clip = replace(
        clip,
        measured=measured,
        file_sha256=sha256_file(row.audio_path),
        content_sha256=content_sha256(samples, sample_rate_hz),
        characters_per_s=rate,
    )
    clip = clip.add(*_sound_findings(measured, rate, audit))
    band_db = narrow_band_db(np.nan_to_num(to_mono(samples)), sample_rate_hz)
    if measured.speech_s >= MIN_SPEECH_S and band_db is not None and band_db < MIN_BAND_DB:
        clip = clip.add(_narrow_band(band_db))
    return clip


def _narrow_band(band_db: float) -> Finding:
    return Finding(
        "warning", "narrow_band", "speech with sound above 4 kHz", "none: speech of a telephone",
        "Take the recording before it was resampled to 8 kHz; the model would learn the muffle.",
        band_db, MIN_BAND_DB,
    )  # fmt: skip


def _unreadable(found: str) -> Finding:
    fix = "Replace it by a WAV or FLAC file that plays."
    return Finding("error", "unreadable", "audio that can be read whole", found, fix)


def _too_large(info: AudioInfo) -> Finding:
    samples = info.num_samples * info.num_channels
    return Finding(
        "error", "too_large", f"at most {MAX_SAMPLES:,} samples in all channels",
        f"{samples:,} ({info.num_channels} channels at {info.sample_rate_hz} Hz)",
        "Export it as one channel at 24 or 48 kHz.", float(samples), float(MAX_SAMPLES),
    )  # fmt: skip


def _text_findings(row: RawRow, script: str | None) -> Iterator[Finding]:
    """Check the transcript."""
    for note in row.notes:
        yield Finding(
            "warning", "format", "a plain UTF-8 manifest", note, "Nothing needs to be done."
        )
    if odd := odd_characters(row.text, script):
        shown = ", ".join(f"{c if c.isprintable() else ''} U+{ord(c):04X}".strip() for c in odd[:5])
        yield Finding(
            "warning", "odd_script",
            f"a transcript in the corpus' script ({(script or 'none').lower()})", shown,
            "Write what is said, in one script; look-alike letters count as another one.",
            float(len(odd)), 0.0,
        )  # fmt: skip
    if has_digit(row.text):
        yield DIGITS
    if has_markup(row.text):
        fix = "Keep only what is said."
        yield Finding("warning", "markup", "plain text", "tags or entities", fix)
    if (sentences := num_sentences(row.text)) > 1:
        yield Finding(
            "warning", "several_sentences", "one sentence a clip", f"about {sentences}",
            "One sentence a file trains best; cut the clip where it pauses.", float(sentences), 1.0,
        )  # fmt: skip


def _header_findings(row: RawRow, info: AudioInfo, audit: AuditParams) -> Iterator[Finding]:
    """Check what the file's header says."""
    if info.sample_rate_hz < audit.min_sample_rate_hz:
        yield Finding(
            "error", "sample_rate", f"at least {audit.min_sample_rate_hz} Hz",
            f"{info.sample_rate_hz} Hz",
            "Record again at 24 kHz or more; upsampling adds nothing.",
            float(info.sample_rate_hz), float(audit.min_sample_rate_hz),
        )  # fmt: skip
    if info.num_channels > 1:
        many = info.num_channels > 2
        yield Finding(
            "error" if many else "warning", "channels", "one channel",
            f"{info.num_channels} channels",
            "Give the channel with the voice." if many else "The two channels are averaged.",
            float(info.num_channels), 1.0,
        )  # fmt: skip
    (shortest_s, longest_s), duration_s = audit.clip_duration_s, info.duration_s
    if duration_s <= shortest_s:
        yield Finding(
            "error", "too_short", f"more than {shortest_s:g} s", f"{duration_s:.2f} s",
            "Drop the row, or give a whole sentence.", duration_s, shortest_s,
        )  # fmt: skip
    elif duration_s > longest_s:
        yield Finding(
            "error" if duration_s > 2 * longest_s else "warning", "too_long",
            f"at most {longest_s:g} s", f"{duration_s:.1f} s", "Cut it into sentences.",
            duration_s, longest_s,
        )  # fmt: skip
    if info.is_truncated:
        yield _unreadable("fewer bytes than its header announces (cut off)")
    suffix = row.audio_path.suffix.lower()
    if info.container not in CONTAINERS.get(suffix, {info.container}):
        fix = "It is read by its content; rename it."
        yield Finding("warning", "extension", f"content that fits {suffix}", info.container, fix)


def _sound_findings(m: Measurements, rate: float | None, audit: AuditParams) -> Iterator[Finding]:
    """Check what was measured on the samples."""
    if m.num_bad_samples:
        yield Finding(
            "error", "bad_samples", "finite samples", f"{m.num_bad_samples} NaN or infinite ones",
            "Export the clip again.", float(m.num_bad_samples), 0.0,
        )  # fmt: skip
    if m.speech_s < MIN_SPEECH_S:
        yield Finding(
            "error", "silent", f"at least {MIN_SPEECH_S:g} s of speech", f"{m.speech_s:.2f} s",
            "Drop the row, or record it again.", m.speech_s, MIN_SPEECH_S,
        )  # fmt: skip
        return  # what follows would only describe the silence
    if rate is not None and rate > MAX_CHARACTERS_PER_S:
        yield Finding(
            "error", "impossible_rate", f"at most {MAX_CHARACTERS_PER_S:g} characters/s",
            f"{rate:.0f} characters/s", "Text and audio do not belong together: mend the row.",
            rate, MAX_CHARACTERS_PER_S,
        )  # fmt: skip
    if m.clipped_share > audit.max_clipped_share:
        yield Finding(
            "warning", "clipping", f"at most {100 * audit.max_clipped_share:g} % clipped",
            f"{100 * m.clipped_share:.2f} %", "Record with less gain; clipping cannot be undone.",
            m.clipped_share, audit.max_clipped_share,
        )  # fmt: skip
    if m.snr_db < audit.min_snr_db:
        yield Finding(
            "warning", "noise", f"an SNR of at least {audit.min_snr_db:g} dB",
            f"about {m.snr_db:.0f} dB",
            "Listen for noise, music or echo; record in a quieter place.",
            m.snr_db, audit.min_snr_db,
        )  # fmt: skip
    for rule, place, silence_s in (
        ("lead_silence", "before", m.lead_silence_s),
        ("trail_silence", "after", m.trail_silence_s),
    ):
        if silence_s > audit.max_edge_silence_s:
            yield Finding(
                "warning", rule, f"at most {audit.max_edge_silence_s:g} s of silence",
                f"{silence_s:.2f} s {place} the speech", "Trim it: long silences are learnt.",
                silence_s, audit.max_edge_silence_s,
            )  # fmt: skip
    if abs(m.dc_offset) > MAX_DC_OFFSET:
        yield Finding(
            "warning", "dc_offset", f"an offset within {MAX_DC_OFFSET:g}", f"{m.dc_offset:+.3f}",
            "Apply a high-pass filter, or mend the recording chain.", m.dc_offset, MAX_DC_OFFSET,
        )  # fmt: skip


def _check_rates(clips: list[AuditedClip], audit: AuditParams) -> list[AuditedClip]:
    """Warn of clips whose speech rate lies far from the corpus' median.

    The rule works on the logarithm of characters per second, so that twice as fast and half as
    fast are equally far, and takes median and MAD, which outliers do not move.
    """
    rates = [clip.characters_per_s for clip in clips]
    logs = np.log([rate for rate in rates if rate])
    if len(logs) < MIN_CLIPS_FOR_RATE:
        return clips
    median = float(np.median(logs))
    spread = max(MAD_TO_SD * float(np.median(np.abs(logs - median))), MIN_RATE_SPREAD)
    checked = []
    for clip, rate in zip(clips, rates, strict=True):
        distance = abs(float(np.log(rate)) - median) / spread if rate else 0.0
        if rate and distance > audit.rate_outlier_mads:
            odd = Finding(
                "warning", "speech_rate", f"about {np.exp(median):.1f} characters/s",
                f"{rate:.1f} ({distance:.1f} scaled MADs away)",
                "Check that the transcript is complete and belongs to the clip.",
                distance, audit.rate_outlier_mads,
            )  # fmt: skip
            clip = clip.add(odd)
        checked.append(clip)
    return checked


def _check_duplicates(clips: list[AuditedClip]) -> list[AuditedClip]:
    """Find equal audio (after decoding) and equal texts (after folding)."""
    by_content: dict[str, AuditedClip] = {}
    by_text: dict[tuple[str | None, str], AuditedClip] = {}  # speakers may say the same
    checked = []
    doubtful: dict[int, AuditedClip] = {}  # one of two texts of a sound is wrong, either may be
    for clip in clips:
        first = by_content.setdefault(clip.content_sha256, clip) if clip.content_sha256 else clip
        if first is not clip:
            severity: Severity = "warning"
            found = f"the same sound as {first.row.id} ({first.row.where})"
            fix = "Drop one: a clip given twice counts twice."
            if first.text_norm != clip.text_norm:
                severity, found = "error", f"{found} with another text"
                fix = "One of the two transcripts is wrong: drop that row."
                doubtful[first.row.line] = clip
            clip = clip.add(Finding(severity, "duplicate_audio", "each recording once", found, fix))
        same = by_text.setdefault((clip.row.speaker, clip.text_norm), clip)
        if same.row is not clip.row and first is clip:
            fix = "Equal texts stay in one split; different texts teach more."
            found = f"the text of {same.row.id} ({same.row.where})"
            clip = clip.add(Finding("warning", "duplicate_text", "each text once", found, fix))
        checked.append(clip)
    for number, clip in enumerate(checked):
        if (other := doubtful.get(clip.row.line)) is not None:
            found = f"the same sound as {other.row.id} ({other.row.where}) with another text"
            fix = "One of the two transcripts is wrong: drop that row."
            one = Finding("error", "duplicate_audio", "each recording once", found, fix)
            checked[number] = clip.add(one)
    return checked


def _named(clips: Sequence[AuditedClip], findings: Iterable[Finding]) -> list[Finding]:
    """Name the speaker in findings on all clips of one, where the manifest names it."""
    speaker = clips[0].row.speaker
    if speaker is None:
        return list(findings)
    return [replace(finding, found=f"{finding.found} (speaker {speaker})") for finding in findings]


def _check_held_out(clips: Sequence[AuditedClip]) -> list[Finding]:
    """Check that a speaker whom the manifest names can be measured."""
    held_out = sum(clip.split != "train" for clip in clips)
    if clips[0].row.speaker is None or held_out >= MIN_REFERENCE_CLIPS:
        return []
    few = Finding(
        "error", "held_out",
        f"at least {MIN_REFERENCE_CLIPS} held-out clips to measure similarity with", str(held_out),
        "Add clips, or raise split.selection_share or split.confirmation_share.",
        float(held_out), float(MIN_REFERENCE_CLIPS),
    )  # fmt: skip
    return [few]


def _check_languages(clips: Sequence[AuditedClip]) -> list[Finding]:
    """Warn of languages that one setting of the recogniser cannot all fit."""
    named = Counter(clip.row.language.lower() for clip in clips if clip.row.language)
    if len(named) < 2:
        return []
    found = ", ".join(f"{name} ({count})" for name, count in named.most_common(5))
    return [
        Finding("warning", "languages", "one language, for one asr.language", found,
                "The recogniser takes all clips for one language: its errors mean little for the "
                "others.", float(len(named)), 1.0)
    ]  # fmt: skip


def _check_minutes(clips: Sequence[AuditedClip], audit: AuditParams) -> Iterator[Finding]:
    """Check the total length."""
    minutes = sum(clip.info.duration_s for clip in clips if clip.info) / 60.0
    low, high = audit.recommended_total_minutes
    if minutes < audit.min_total_minutes:
        yield Finding(
            "error", "total_minutes", f"at least {audit.min_total_minutes:g} min in all",
            f"{minutes:.2f} min in {len(clips)} readable clips",
            "Record more, or lower audit.min_total_minutes knowing that the voice suffers.",
            minutes, audit.min_total_minutes,
        )  # fmt: skip
    elif not low <= minutes <= high:
        few = minutes < low
        yield Finding(
            "warning", "total_minutes", f"{low:g} to {high:g} min in all", f"{minutes:.1f} min",
            "More clean audio helps." if few else "Clean audio beats more audio: keep the best.",
            minutes, low if few else high,
        )  # fmt: skip


def _check_splits(clips: Sequence[AuditedClip]) -> Iterator[Finding]:
    """Check that every split has texts."""
    for name in SPLITS:
        texts = len({clip.text_norm for clip in clips if clip.split == name})
        if texts == 0:
            fix = "Add clips, or change the shares in params.yaml (split)."
            yield Finding("error", "split", f"at least one text in the {name} split", "none", fix)
        elif name != "train" and texts < MIN_HELD_OUT_TEXTS:
            yield Finding(
                "warning", "split", f"at least {MIN_HELD_OUT_TEXTS} texts for {name}", str(texts),
                "The decision will be uncertain; add clips or raise the share.",
                float(texts), float(MIN_HELD_OUT_TEXTS),
            )  # fmt: skip


def _check_reference(clips: Sequence[AuditedClip], audit: AuditParams) -> list[Finding]:
    """Check the reference clip: length, quality, and that it is none of the training clips."""
    path = clips[0].row.ref_path
    name = clips[0].row.ref_audio
    try:
        info = probe(path)
        low, high = audit.ref_duration_s
        if not low <= info.duration_s <= high:
            other = Finding(
                "error", "ref_duration", f"a reference of {low:g} to {high:g} s",
                f"{info.duration_s:.2f} s ({name})", "Choose one clear sentence of that length.",
                info.duration_s, low if info.duration_s < low else high,
            )  # fmt: skip
            return [other]
        samples, sample_rate_hz = decode(path)
    except AudioError as error:
        fix = "Replace it by a WAV or FLAC file that plays."
        return [Finding("error", "ref_unreadable", "a readable reference", f"{name}: {error}", fix)]
    measured = measure(samples, sample_rate_hz)
    sound = [*_header_findings(clips[0].row, info, audit), *_sound_findings(measured, None, audit)]
    skip = ("too_short", "too_long", "extension")
    findings = [
        replace(f, rule=f"ref_{f.rule}", found=f"{f.found} in the reference {name}")
        for f in sound
        if f.rule not in skip
    ]
    content = content_sha256(samples, sample_rate_hz)
    for clip in clips:
        if content == clip.content_sha256:
            fix = "Take another recording as reference, or drop that row: it would be seen twice."
            found = f"{name} is also {clip.row.id} ({clip.row.where}, {clip.split})"
            findings.append(
                Finding("warning", "ref_among_clips", "a reference that is no clip", found, fix)
            )
    return findings


def _check_transcripts(
    clips: list[AuditedClip], audit: AuditParams, transcribe: Transcribe, max_error: float
) -> tuple[list[AuditedClip], list[Finding]]:
    """Compare what Whisper hears with the transcripts; a clip that fails is a warning."""
    hypotheses = list(
        transcribe([clip.row.audio_path for clip in clips], [clip.row.text for clip in clips])
    )
    assert len(hypotheses) == len(clips), f"{len(hypotheses)} hypotheses for {len(clips)} clips"
    errors = [
        1.0 if found is None else disagreement(clip.text_norm, fold_text(found))
        for clip, found in zip(clips, hypotheses, strict=True)
    ]
    mean = float(np.mean([min(1.0, error) for error in errors]))
    deaf = mean > max_error
    checked = []
    for clip, hypothesis, error in zip(clips, hypotheses, errors, strict=True):
        if hypothesis is None:
            fix = "Listen to the clip."
            checked.append(
                clip.add(Finding("warning", "disagreement", "a transcription", "none", fix))
            )
            continue
        clip = replace(clip, hypothesis=hypothesis, disagreement=error)
        if error > audit.max_disagreement and not deaf:
            heard_text = " ".join(hypothesis.split())[:80] or "nothing"
            finding = Finding(
                "warning", "disagreement",
                f"Whisper within {100 * audit.max_disagreement:.0f} % of the transcript",
                f"{100 * error:.0f} % (heard: {heard_text})",
                "Listen, and mend the transcript or drop the row.",
                error, audit.max_disagreement,
            )  # fmt: skip
            clip = clip.add(finding)
        checked.append(clip)
    if not deaf:
        return checked, []
    return checked, [
        Finding(
            "warning", "recogniser", f"Whisper within {100 * max_error:g} % of the transcripts",
            f"{100 * mean:.0f} % over all clips: it cannot be measured with this recogniser",
            "Check asr.language (or language.asr_language) and the transcripts, take another "
            "asr.model, or a Whisper that was fine-tuned on the language.",
            mean, max_error,
        )
    ]  # fmt: skip


def disagreement(reference_norm: str, hypothesis_norm: str) -> float:
    """Return the character error rate of two folded texts; it may exceed 1."""
    assert reference_norm, "a transcript has at least one letter"
    if not hypothesis_norm:
        return 1.0
    return float(jiwer.process_characters(reference_norm, hypothesis_norm).cer)


def _metrics(
    clips: Sequence[AuditedClip], corpus: Sequence[Finding], script: str | None, manifest: Path
) -> Record:
    """Sum an accepted corpus up."""
    infos = [clip.info for clip in clips if clip.info]
    measured = [clip.measured for clip in clips if clip.measured]
    rates = [clip.characters_per_s for clip in clips if clip.characters_per_s]
    found = [finding for clip in clips for finding in clip.findings]
    errors = [clip.disagreement for clip in clips if clip.disagreement is not None]
    splits = {}
    for name in SPLITS:
        members = [clip for clip in clips if clip.split == name]
        seconds = sum(clip.info.duration_s for clip in members if clip.info)
        splits[name] = {
            "clips": len(members),
            "texts": len({clip.text_norm for clip in members}),
            "minutes": round(seconds / 60.0, 4),
        }
    seconds = sum(info.duration_s for info in infos)
    return {
        "num_rows": len(clips),
        "num_accepted": len(clips),
        "num_warnings": len(found) + len(corpus),
        "num_clips_with_warnings": sum(bool(clip.findings) for clip in clips),
        "warnings_by_rule": dict(sorted(Counter(f.rule for f in [*found, *corpus]).items())),
        "corpus_warnings": [finding.as_dict() for finding in corpus],
        "minutes": round(seconds / 60.0, 4),
        "splits": splits,
        "median_duration_s": round(float(np.median([i.duration_s for i in infos])), 4),
        "median_snr_db": round(float(np.median([m.snr_db for m in measured])), 2),
        "median_characters_per_s": round(float(np.median(rates)), 4) if rates else None,
        "sample_rates_hz": dict(sorted(Counter(str(i.sample_rate_hz) for i in infos).items())),
        "script": script,
        "reference": project_path(clips[0].row.ref_path),
        "reference_duration_s": round(probe(clips[0].row.ref_path).duration_s, 4),
        "transcription": {
            "n": len(errors),
            "mean_cer": round(float(np.mean(errors)), 6),
            "num_disagreeing": sum(f.rule == "disagreement" for f in found),
        }
        if errors
        else None,
        "consent": _consent(clips),
        "manifest_sha256": sha256_file(manifest),
        **({"speakers": _speakers(clips)} if any(clip.row.speaker for clip in clips) else {}),
    }


def _speakers(clips: Sequence[AuditedClip]) -> list[Record]:
    """Sum up what each speaker gives; a speaker of None stands for rows that name none."""
    return [
        {
            "speaker": group[0].row.speaker,
            "clips": len(group),
            "minutes": round(sum(clip.info.duration_s for clip in group if clip.info) / 60.0, 4),
            **{name: sum(clip.split == name for clip in group) for name in SPLITS},
            "num_warnings": sum(len(clip.findings) for clip in group),
            "median_snr_db": round(
                float(np.median([clip.measured.snr_db for clip in group if clip.measured])), 2
            ),
            "reference": project_path(group[0].row.ref_path),
            "reference_duration_s": round(probe(group[0].row.ref_path).duration_s, 4),
        }
        for group in _groups(clips)
    ]


def _consent(clips: Sequence[AuditedClip]) -> Record:
    """Count the rows that say how the speaker agreed, by what they say."""
    given = Counter(clip.row.consent for clip in clips if clip.row.consent)
    return {"num_rows": given.total(), "statements": dict(sorted(given.items()))}
