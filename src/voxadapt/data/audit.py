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

import jiwer
import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import sha256_file, write_json, write_jsonl
from voxadapt.core.params import AuditParams, SplitParams
from voxadapt.core.problems import user_error
from voxadapt.core.progress import Progress
from voxadapt.core.records import Record
from voxadapt.data import one_voice
from voxadapt.data.audio import (
    MAX_PEAK,
    MIN_MIXED_LEVEL,
    AudioError,
    AudioInfo,
    Measurements,
    content_sha256,
    decode,
    measure,
    mixed_level,
    narrow_band_db,
    probe,
    to_mono,
)
from voxadapt.data.findings import Finding, named
from voxadapt.data.manifest import RawRow, Utterance, divide_errors, line_of, write_manifest
from voxadapt.data.one_voice import OneVoice
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
MAX_END_DB = -12.0  # the last 20 ms against the loud frames: louder ones are cut sounds
MIN_END_SILENCE_S = 0.04
MAX_LOST_LETTERS = 20  # at a cut end; what is heard before them has …
MIN_HEARD_LETTERS = 3  # … as many letters in common
MIN_SPEECH_S = 0.3  # a clip with less speech than this is empty
MAX_CHARACTERS_PER_S = 60.0  # nobody speaks faster: text and audio do not belong together
MAX_SAMPLES = 32_000_000  # of all channels: 40 s in stereo at 384 kHz; more fills the memory
MIN_BAND_DB = -60.0  # above 4 kHz against below; speech has -15 to -45 dB
MIN_CLIPS_FOR_RATE = 8
MAD_TO_SD = 1.4826
MIN_RATE_SPREAD = 0.02  # of the log rate: equal clips are no outliers of each other
MIN_HELD_OUT_TEXTS = 8
CONTAINERS = {
    ".wav": {"WAV", "WAVEX", "RF64"}, ".flac": {"FLAC"}, ".mp3": {"MP3"}, ".ogg": {"OGG"},
    ".opus": {"OGG"}, ".aiff": {"AIFF"}, ".aif": {"AIFF"},
}  # fmt: skip

Transcribe = Callable[[list[Path], list[str]], Sequence[str | None]]
#: Unit vectors [N, 256] of clips, zeros where there is no speech, and seconds of speech [N].
Embed = Callable[[list[Path]], tuple[NDArray[np.float32], NDArray[np.float64]]]


@dataclass(frozen=True, slots=True)
class AuditedClip:
    """One row of the manifest with everything that was measured on it."""

    row: RawRow
    text_norm: str  # folded transcript
    split: Split  # the clip's split
    info: AudioInfo | None = None  # header; None when the file could not be read
    measured: Measurements | None = None  # None when the samples were not read
    file_sha256: str = ""  # hash of the file
    content_sha256: str = ""  # hash of the decoded samples
    characters_per_s: float | None = None  # letters, marks and digits per second of speech
    hypothesis: str | None = None  # what Whisper transcribed; None when it was not asked
    #: Character error rate of the hypothesis; None when it was not asked.
    disagreement: float | None = None
    #: Cosine to the speaker's other clips; None when it was not measured.
    voice_similarity: float | None = None
    findings: tuple[Finding, ...] = ()  # broken rules

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
            "voice_similarity": _rounded(self.voice_similarity),
            **(self.measured.as_dict() if self.measured else {}),
            "findings": [finding.as_dict() for finding in self.findings],
            **({"consent": self.row.consent} if self.row.consent else {}),
            **({"speaker": self.row.speaker} if self.row.speaker else {}),
        }


@dataclass(frozen=True, slots=True)
class AuditResult:
    """An audited corpus without errors."""

    clips: tuple[AuditedClip, ...]  # every row with its measurements, in file order
    corpus: tuple[Finding, ...]  # warnings on the corpus as a whole
    utterances: tuple[Utterance, ...]  # the accepted clips with their split, sorted by id
    metrics: Record = field(default_factory=dict)  # counts, minutes and medians, for `audit.json`
    dropped: tuple[Problem, ...] = ()  # what is wrong with the rows that were left out

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
    embed: Embed | None = None,
) -> AuditResult:
    """Check a corpus against every rule.

    `problems` are what the reading of the manifest has refused, shown together with the audit's
    errors. `transcribe` returns the transcript of each clip, given their texts (None for a clip
    that failed), and is only asked once there is no error. From a mean character error of
    `max_error` on the recogniser hears nothing of this corpus: that is then the warning, instead of
    one for every clip. `embed` returns the voice of each clip. Without either its rules are left
    out.

    Raises:
        UserError: With every error of the reading and of the audit, in file order; with
            `audit.on_error: drop`, when an error concerns more than single rows.
    """
    manifest = Path(manifest)
    clips = audit_clips(rows, audit, split)
    errors = list(problems)
    for clip in clips:
        errors += [f.as_problem(clip.row.where) for f in clip.findings if f.severity == "error"]
    errors.sort(key=lambda item: line_of(item.where))
    dropped, errors = divide_errors(errors, {row.where for row in rows}, audit.on_error)
    rejected = {item.where for item in dropped}
    clips = [clip for clip in clips if clip.row.where not in rejected]
    groups = _groups(clips)
    corpus = [found for group in groups for found in _named(group, _check_minutes(group, audit))]
    corpus += _check_splits(clips) if clips else []
    corpus += _check_languages(clips)
    for group in groups:
        corpus += _named(group, [*_check_held_out(group), *_check_reference(group, audit)])
    if clips:
        errors += [f.as_problem(manifest.name) for f in corpus if f.severity == "error"]
    if errors:
        count = len({item.where for item in errors if line_of(item.where)})
        rows_have = "1 row has" if count == 1 else f"{count} rows have"
        title = f"{manifest} cannot be used as it is"
        title = f"{title}: {rows_have} errors." if count else f"{title}."
        raise UserError([*errors, *dropped], title)
    if not clips:
        raise user_error("data.no_clips", manifest)
    if transcribe is not None:
        clips, deaf = _check_transcripts(clips, audit, transcribe, max_error)
        corpus += deaf
    if embed is not None:
        clips, doubles = _check_voices(clips, embed)
        corpus += doubles
    utterances = tuple(sorted((_utterance(clip) for clip in clips), key=lambda u: u.id))
    metrics = _metrics(clips, corpus, dominant_script(row.text for row in rows), manifest)
    if dropped:
        metrics |= {
            "num_rows": len(clips) + len(rejected),
            "num_dropped": len(rejected),
            "dropped": [item.as_dict() for item in dropped],
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
    result: AuditResult, manifest: str | Path, clips: str | Path, metrics: str | Path
) -> None:
    """Write the accepted manifest, every clip with its findings, and the metrics."""
    write_manifest(manifest, result.utterances)
    write_jsonl(clips, (clip.as_dict() for clip in result.clips))
    write_json(metrics, result.metrics)


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
    groups: dict[str | None, list[AuditedClip]] = {}
    for clip in clips:
        groups.setdefault(clip.row.speaker, []).append(clip)
    return list(groups.values())


def _check_clip(
    row: RawRow, audit: AuditParams, split: SplitParams, script: str | None
) -> AuditedClip:
    """Apply every rule that needs one clip only."""
    text_norm = fold_text(row.text)
    clip = AuditedClip(row, text_norm, assign_split(text_norm, split))
    clip = clip.add(*_text_findings(row, script))
    try:
        info = probe(row.audio_path)
        clip = replace(clip, info=info).add(*_header_findings(row, info, audit))
        if info.duration_s > 2 * audit.clip_duration_s[1]:
            return clip  # hours of audio are not decoded to say once more that they are too long
        if (in_all := info.num_samples * info.num_channels) > MAX_SAMPLES:
            facts = {"channels": info.num_channels, "rate_hz": info.sample_rate_hz}
            return clip.add(Finding.of("too_large", in_all, MAX_SAMPLES, **facts))
        samples, rate_hz = decode(row.audio_path)
    except AudioError as error:
        return clip.add(Finding.of("unreadable", found=error))
    if len(samples) < info.num_samples and info.container != "MP3":  # without a table, a guess
        found = f"{len(samples)} of {info.num_samples} samples"
        clip = clip.add(Finding.of("unreadable", found=found))
    measured = measure(samples, rate_hz)
    pace = num_spoken_characters(row.text) / measured.speech_s if measured.speech_s else None
    clip = replace(
        clip,
        measured=measured,
        file_sha256=sha256_file(row.audio_path),
        content_sha256=content_sha256(samples, rate_hz),
        characters_per_s=pace,
    )
    clip = clip.add(*_sound_findings(measured, pace, audit), *_channel_findings(samples))
    band_db = narrow_band_db(np.nan_to_num(to_mono(samples)), rate_hz)
    if measured.speech_s >= MIN_SPEECH_S and band_db is not None and band_db < MIN_BAND_DB:
        clip = clip.add(Finding.of("narrow_band", band_db, MIN_BAND_DB))
    return clip


def _text_findings(row: RawRow, script: str | None) -> Iterator[Finding]:
    """Check the transcript."""
    for note in row.notes:
        yield Finding.of("format", found=note)
    if odd := odd_characters(row.text, script):
        facts = {"script": (script or "none").lower(), "found": named(odd)}
        yield Finding.of("odd_script", len(odd), 0, **facts)
    if has_digit(row.text):
        yield Finding.of("digits")
    if has_markup(row.text):
        yield Finding.of("markup")
    if (sentences := num_sentences(row.text)) > 1:
        yield Finding.of("several_sentences", sentences, 1)


def _header_findings(row: RawRow, info: AudioInfo, audit: AuditParams) -> Iterator[Finding]:
    """Check what the file's header says."""
    if info.sample_rate_hz < audit.min_sample_rate_hz:
        yield Finding.of("sample_rate", info.sample_rate_hz, audit.min_sample_rate_hz)
    if info.num_channels > 1:
        yield Finding.of("channels.many" if info.num_channels > 2 else "channels",
                         info.num_channels, 1)  # fmt: skip
    (shortest_s, longest_s), duration_s = audit.clip_duration_s, info.duration_s
    if duration_s <= shortest_s:
        yield Finding.of("too_short", duration_s, shortest_s)
    elif duration_s > longest_s:
        rule = "too_long.by_far" if duration_s > 2 * longest_s else "too_long"
        yield Finding.of(rule, duration_s, longest_s)
    if info.is_truncated:
        found = "fewer bytes than its header announces (cut off)"
        yield Finding.of("unreadable", found=found)
    suffix = row.audio_path.suffix.lower()
    if info.container not in CONTAINERS.get(suffix, {info.container}):
        yield Finding.of("extension", suffix=suffix, found=info.container)


def _sound_findings(m: Measurements, pace: float | None, audit: AuditParams) -> Iterator[Finding]:
    """Check what was measured on the samples."""
    if m.num_bad_samples:
        yield Finding.of("bad_samples", m.num_bad_samples, 0)
    if m.speech_s < MIN_SPEECH_S:
        yield Finding.of("silent", m.speech_s, MIN_SPEECH_S)
        return  # what follows would only describe the silence
    if pace is not None and pace > MAX_CHARACTERS_PER_S:
        yield Finding.of("impossible_rate", pace, MAX_CHARACTERS_PER_S)
    if m.clipped_share > audit.max_clipped_share:
        yield Finding.of("clipping", m.clipped_share, audit.max_clipped_share)
    if m.snr_db < audit.min_snr_db:
        yield Finding.of("noise", m.snr_db, audit.min_snr_db)
    if m.lead_silence_s > audit.max_edge_silence_s:
        yield Finding.of("lead_silence", m.lead_silence_s, audit.max_edge_silence_s)
    if m.trail_silence_s > audit.max_edge_silence_s:
        yield Finding.of("trail_silence", m.trail_silence_s, audit.max_edge_silence_s)
    if m.end_db > MAX_END_DB:
        yield Finding.of("cut_off", m.end_db, MAX_END_DB)
    if abs(m.dc_offset) > MAX_DC_OFFSET:
        yield Finding.of("dc_offset", m.dc_offset, MAX_DC_OFFSET)
    if m.peak > MAX_PEAK:
        yield Finding.of("scale", m.peak, MAX_PEAK)


def _channel_findings(samples: NDArray[np.float32]) -> Iterator[Finding]:
    """Check that the channels' average still has what they have."""
    if (level := mixed_level(samples)) < MIN_MIXED_LEVEL:
        yield Finding.of("channels.opposed", level, MIN_MIXED_LEVEL)


def _check_rates(clips: list[AuditedClip], audit: AuditParams) -> list[AuditedClip]:
    """Warn of clips whose speech rate lies far from the corpus' median.

    The rule works on the logarithm of characters per second, so that twice as fast and half as
    fast are equally far, and takes median and MAD, which outliers do not move.
    """
    logs = np.log([clip.characters_per_s for clip in clips if clip.characters_per_s])
    if len(logs) < MIN_CLIPS_FOR_RATE:
        return clips
    median = float(np.median(logs))
    spread = max(MAD_TO_SD * float(np.median(np.abs(logs - median))), MIN_RATE_SPREAD)
    checked = []
    for clip in clips:
        rate = clip.characters_per_s
        distance = abs(float(np.log(rate)) - median) / spread if rate else 0.0
        if distance > audit.rate_outlier_mads:
            facts = {"median": np.exp(median), "rate": rate}
            found = Finding.of("speech_rate", distance, audit.rate_outlier_mads, **facts)
            clip = clip.add(found)
        checked.append(clip)
    return checked


def _check_duplicates(clips: list[AuditedClip]) -> list[AuditedClip]:
    """Find equal audio (after decoding) and equal texts (after folding)."""
    by_content: dict[str, int] = {}
    by_text: dict[tuple[str | None, str], int] = {}  # speakers may say the same
    checked = list(clips)
    for number, clip in enumerate(clips):
        first = number
        if clip.content_sha256:
            first = by_content.setdefault(clip.content_sha256, number)
        if first != number:
            other = clips[first]
            if other.text_norm == clip.text_norm:
                checked[number] = clip.add(Finding.of("duplicate_audio", first=_place(other)))
            else:  # one of the two texts is wrong, either may be
                for wrong, right in ((number, other), (first, clip)):
                    found = Finding.of("duplicate_audio.other_text", first=_place(right))
                    checked[wrong] = checked[wrong].add(found)
        same = by_text.setdefault((clip.row.speaker, clip.text_norm), number)
        if same != number and first == number:
            checked[number] = clip.add(Finding.of("duplicate_text", first=_place(clips[same])))
    return checked


def _place(clip: AuditedClip) -> str:
    return f"{clip.row.id} ({clip.row.where})"


def _named(clips: Sequence[AuditedClip], findings: Iterable[Finding]) -> list[Finding]:
    """Name the speaker in findings on all clips of one, where the manifest names it."""
    speaker = clips[0].row.speaker
    if speaker is None:
        return list(findings)
    return [replace(finding, found=f"{finding.found} (speaker {speaker})") for finding in findings]


def _check_held_out(clips: Sequence[AuditedClip]) -> Iterator[Finding]:
    """Check that a speaker whom the manifest names can be measured."""
    held_out = sum(clip.split != "train" for clip in clips)
    if clips[0].row.speaker is not None and held_out < MIN_REFERENCE_CLIPS:
        yield Finding.of("held_out", held_out, MIN_REFERENCE_CLIPS)


def _check_languages(clips: Sequence[AuditedClip]) -> Iterator[Finding]:
    """Warn of languages that one setting of the recogniser cannot all fit."""
    counts = Counter(clip.row.language.lower() for clip in clips if clip.row.language)
    if len(counts) > 1:
        found = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5))
        yield Finding.of("languages", len(counts), 1, found=found)


def _check_minutes(clips: Sequence[AuditedClip], audit: AuditParams) -> Iterator[Finding]:
    """Check the total length."""
    minutes = sum(clip.info.duration_s for clip in clips if clip.info) / 60.0
    low, high = audit.recommended_total_minutes
    if minutes < audit.min_total_minutes:
        yield Finding.of("total_minutes", minutes, audit.min_total_minutes, count=len(clips))
    elif not low <= minutes <= high:
        rule, limit = ("few", low) if minutes < low else ("many", high)
        yield Finding.of(f"total_minutes.{rule}", minutes, limit, low=low, high=high)


def _check_splits(clips: Sequence[AuditedClip]) -> Iterator[Finding]:
    """Check that every split has texts."""
    for name in SPLITS:
        texts = len({clip.text_norm for clip in clips if clip.split == name})
        if texts == 0:
            yield Finding.of("split.empty", name=name)
        elif name != "train" and texts < MIN_HELD_OUT_TEXTS:
            yield Finding.of("split", texts, MIN_HELD_OUT_TEXTS, name=name)


def _check_reference(clips: Sequence[AuditedClip], audit: AuditParams) -> list[Finding]:
    """Check the reference clip: length, quality, and that it is none of the training clips."""
    row, name = clips[0].row, clips[0].row.ref_audio
    low, high = audit.ref_duration_s
    try:
        info = probe(row.ref_path)
        if not low <= info.duration_s <= high:
            limit = low if info.duration_s < low else high
            facts = {"low": low, "high": high, "name": name}
            return [Finding.of("ref_duration", info.duration_s, limit, **facts)]
        samples, rate_hz = decode(row.ref_path)
    except AudioError as error:
        return [Finding.of("ref_unreadable", name=name, found=error)]
    sound = [
        *_header_findings(row, info, audit),
        *_sound_findings(measure(samples, rate_hz), None, audit),
        *_channel_findings(samples),
    ]
    findings = [
        replace(f, rule=f"ref_{f.rule}", found=f"{f.found} in the reference {name}")
        for f in sound
        if f.rule not in ("too_short", "too_long", "extension")
    ]
    content = content_sha256(samples, rate_hz)
    return findings + [
        Finding.of("ref_among_clips", name=name,
                   clip=f"{clip.row.id} ({clip.row.where}, {clip.split})")
        for clip in clips if content == clip.content_sha256
    ]  # fmt: skip


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
            checked.append(clip.add(Finding.of("disagreement.none")))
            continue
        clip = replace(clip, hypothesis=hypothesis, disagreement=error)
        if error > audit.max_disagreement and not deaf:
            heard = " ".join(hypothesis.split())[:80] or "nothing"
            found = Finding.of("disagreement", error, audit.max_disagreement, heard=heard)
            clip = clip.add(found)
        is_found = any(finding.rule == "cut_off" for finding in clip.findings)
        heard = fold_text(hypothesis)
        if not is_found and clip.measured and loses_its_end(clip.measured, clip.text_norm, heard):
            heard = " ".join(hypothesis.split())[-40:]
            clip = clip.add(Finding.of("cut_off.heard", heard=heard))
        checked.append(clip)
    return checked, [Finding.of("recogniser", mean, max_error)] if deaf else []


def loses_its_end(measured: Measurements, text: str, heard: str) -> bool:
    """Say whether a clip that ends without silence is heard as its text, but for the end.

    Of folded texts: no way of reading the one as the other has fewer edits than that in which the
    text's last letters were not heard, and those before them were heard last.
    """
    text, heard = text.replace(" ", ""), heard.replace(" ", "")
    edits = Levenshtein.distance(text, heard)
    if measured.trail_silence_s >= MIN_END_SILENCE_S or 2 * edits > len(text):
        return False
    return any(
        heard.endswith(text[:end][-MIN_HEARD_LETTERS:])
        and Levenshtein.distance(text[:end], heard) == edits - (len(text) - end)
        for end in range(max(MIN_HEARD_LETTERS, len(text) - MAX_LOST_LETTERS), len(text))
    )


def _check_voices(
    clips: list[AuditedClip], embed: Embed
) -> tuple[list[AuditedClip], list[Finding]]:
    """Compare each clip and reference with the speaker's clips, and speakers with each other."""
    refs = {clip.row.speaker or "": clip.row for clip in clips}
    paths = [clip.row.audio_path for clip in clips] + [row.ref_path for row in refs.values()]
    embeddings, speech_s = embed(paths)
    speakers = np.array([clip.row.speaker or "" for clip in clips])
    checked, findings = list(clips), []
    voices: dict[str, tuple[NDArray[np.intp], OneVoice]] = {}
    for number, (name, row) in enumerate(refs.items(), start=len(clips)):
        enough = speech_s[: len(clips)] >= one_voice.MIN_SPEECH_S
        members = np.flatnonzero((speakers == name) & enough)
        voice = one_voice.compare_voices(embeddings[members], speech_s[members])
        if voice is None:
            continue
        voices[name] = members, voice
        similarity, limit = float(embeddings[number] @ voice.centre), float(voice.limits.max())
        if speech_s[number] >= one_voice.STEADY_S and similarity < limit:
            findings.append(Finding.of("ref_other_voice", similarity, limit, name=row.ref_audio))
    for name, (members, voice) in voices.items():
        for index, similarity, limit in zip(
            members, voice.similarity.tolist(), voice.limits.tolist(), strict=True
        ):
            clip = replace(checked[index], voice_similarity=round(similarity, 4))
            if similarity < limit:
                near = {float(embeddings[index] @ v.centre): o for o, (_, v) in voices.items()}
                other = near[max(near)]
                nearest = "" if other == name else f", {max(near):.2f} to the speaker {other}"
                found = Finding.of("other_voice", round(similarity, 4), limit, nearest=nearest)
                clip = clip.add(found)
            checked[index] = clip
    alike = one_voice.alike({name: voice.centre for name, (_, voice) in voices.items()})
    return checked, findings + [
        Finding.of("speakers_alike", cosine, one_voice.ALIKE, first=first, second=second)
        for first, second, cosine in alike
    ]


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
    rates = [clip.characters_per_s for clip in clips if clip.characters_per_s]
    found = [finding for clip in clips for finding in clip.findings]
    heard = [clip for clip in clips if clip.disagreement is not None]
    errors = [clip.disagreement for clip in heard if clip.disagreement is not None]
    splits = {}
    for name in SPLITS:
        members = [clip for clip in clips if clip.split == name]
        texts = len({clip.text_norm for clip in members})
        splits[name] = {"clips": len(members), "texts": texts, "minutes": _minutes(members)}
    transcription = {
        "n": len(errors),
        "mean_cer": round(float(np.mean(errors)), 6) if errors else None,
        "num_disagreeing": sum(
            any(finding.rule == "disagreement" for finding in clip.findings) for clip in heard
        ),
    }
    consent = Counter(clip.row.consent for clip in clips if clip.row.consent)
    return {
        "num_rows": len(clips),
        "num_accepted": len(clips),
        "num_warnings": len(found) + len(corpus),
        "num_clips_with_warnings": sum(bool(clip.findings) for clip in clips),
        "warnings_by_rule": dict(sorted(Counter(f.rule for f in [*found, *corpus]).items())),
        "corpus_warnings": [finding.as_dict() for finding in corpus],
        "minutes": _minutes(clips),
        "splits": splits,
        "median_duration_s": round(float(np.median([i.duration_s for i in infos])), 4),
        "median_snr_db": _median_snr_db(clips),
        "median_characters_per_s": round(float(np.median(rates)), 4) if rates else None,
        "sample_rates_hz": dict(sorted(Counter(str(i.sample_rate_hz) for i in infos).items())),
        "script": script,
        **_reference(clips),
        "transcription": transcription if errors else None,
        "voices": _voices(clips),
        "consent": {"num_rows": consent.total(), "statements": dict(sorted(consent.items()))},
        "manifest_sha256": sha256_file(manifest),
        **({"speakers": _speakers(clips)} if any(clip.row.speaker for clip in clips) else {}),
    }


def _voices(clips: Sequence[AuditedClip]) -> Record | None:
    """Sum up how like their speaker the clips are; None where it was not measured."""
    found = [clip.voice_similarity for clip in clips if clip.voice_similarity is not None]
    rules = Counter(finding.rule for clip in clips for finding in clip.findings)
    return {
        "n": len(found),
        "num_unmeasured": len(clips) - len(found),
        "median_similarity": round(float(np.median(found)), 4),
        "num_other_voice": rules["other_voice"],
    } if found else None  # fmt: skip


def _speakers(clips: Sequence[AuditedClip]) -> list[Record]:
    """Sum up what each speaker gives; a speaker of None stands for rows that name none."""
    return [
        {
            "speaker": group[0].row.speaker,
            "clips": len(group),
            "minutes": _minutes(group),
            **{name: sum(clip.split == name for clip in group) for name in SPLITS},
            "num_warnings": sum(len(clip.findings) for clip in group),
            "median_snr_db": _median_snr_db(group),
            **_reference(group),
        }
        for group in _groups(clips)
    ]


def _minutes(clips: Sequence[AuditedClip]) -> float:
    return round(sum(clip.info.duration_s for clip in clips if clip.info) / 60.0, 4)


def _median_snr_db(clips: Sequence[AuditedClip]) -> float:
    return round(float(np.median([clip.measured.snr_db for clip in clips if clip.measured])), 2)


def _reference(clips: Sequence[AuditedClip]) -> Record:
    path = clips[0].row.ref_path
    return {
        "reference": project_path(path),
        "reference_duration_s": round(probe(path).duration_s, 4),
    }
