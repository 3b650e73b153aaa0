"""Long recordings: heard by Whisper, cut at pauses, heard again, audited; texts are drafts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import read_json, sha256_file, write_json, write_jsonl
from voxadapt.core.params import AuditParams, SplitParams
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.data.audio import (
    FRAME_S,
    HOP_S,
    AudioError,
    frame_levels_db,
    probe,
    resample,
    speech_frames,
    to_mono,
)
from voxadapt.data.audit import audit_corpus, disagreement
from voxadapt.data.lines import shown
from voxadapt.data.manifest import (
    check_text,
    read_raw_manifest,
)
from voxadapt.data.text import fold_text
from voxadapt.prepare.folder import (
    DRAFTS,
    MANIFEST,
    Clip,
    Imported,
    begin,
    choose_reference,
    cut_clip,
    finish,
    manifest_rows,
    readable_reference,
)

PAUSE_S = 0.2  # silence at which a recording may be cut
EDGE_S = 0.15  # silence that a clip keeps at either end
MAX_GAP_S = 1.5  # a longer pause always ends a clip
SENTENCE_S = 2.0  # the end of a sentence ends a clip that is as long as this
SENTENCE_ENDS = tuple(".?!…。？！؟।")
MAX_DRAFT_DISAGREEMENT = 0.15  # character error of the cut clip's transcript against the draft


@dataclass(frozen=True)
class Hearing:
    """How long recordings are heard and cut.

    Attributes:
        asr: Whisper checkpoint, or a name.
        language: Whisper's code.
        clip_s: Shortest and longest clip.
        window_s: What Whisper hears at once; never more than the checkpoint's own window.
        device: auto, cpu, cuda or cuda:N.
    """

    asr: str = "large-v3"
    language: str = "en"
    clip_s: tuple[float, float] = (1.0, 20.0)
    window_s: float = 30.0
    device: str = "auto"


@dataclass(frozen=True)
class Stretch:
    """Speech between two pauses of a recording, with the words that Whisper heard in it.

    Attributes:
        start_s: First speech, from the beginning of the recording.
        end_s: Last speech.
        text: Words; may be empty.
        probability: Mean probability of the words; 0 without any.
        is_open: Whether it ends where a window was cut without a pause, and goes on.
    """

    start_s: float
    end_s: float
    text: str
    probability: float
    is_open: bool = False


def import_long(
    sources: Sequence[Path],
    out: Path,
    hearing: Hearing,
    *,
    ref: Path | None = None,
    language: str | None = None,
    consent: str | None = None,
    force: bool = False,
) -> Imported:
    """Cut long recordings into clips at pauses, with transcripts by Whisper as drafts.

    Windows of the recording are transcribed and their words placed in time. A clip begins and
    ends in a pause, at the end of a sentence where there is one. The cut clips go through the
    audit's rules and are heard a second time: what fails or is heard otherwise is left out.

    Args:
        sources: Recordings of one voice.
        out: Folder to write.
        hearing: Whisper, and how long clips may be.
        ref: Reference clip; chosen by `REF_RULE` when None.
        language: Name of the language, for each row.
        consent: How the speaker agreed, for each row.
        force: Replace an earlier import.

    Raises:
        UserError: When a recording cannot be read, or no clip is left.
    """
    low_s, high_s = hearing.clip_s
    problems = []
    if not 0.5 <= low_s < high_s <= 30.0:
        problems.append(
            Problem("--clip-s", "0.5 <= shortest < longest <= 30", f"{low_s:g} {high_s:g}",
                    "Correct it.")
        )  # fmt: skip
    if not sources:
        problems.append(Problem("SOURCE", "recordings", "none", "Name one or more files."))
    for source in sources:
        try:
            probe(source)
        except (AudioError, OSError) as error:
            fix = "Name a WAV, FLAC, OGG or MP3; convert others first."
            problems.append(Problem(str(source), "a recording", str(error), fix))
    if problems:
        raise UserError(problems)
    hashes = [sha256_file(source) for source in sources]
    options = {
        "recordings": hashes, "asr": hearing.asr, "asr_language": hearing.language,
        "clip_s": hearing.clip_s, "window_s": hearing.window_s, "language": language,
        "ref": None if ref is None else sha256_file(readable_reference(ref)),
    }  # fmt: skip
    staging, done = begin(out, options, consent, force)
    if done is not None:
        return done
    listener = Listener(hearing, staging)
    drafts: dict[str, dict[str, Any]] = {}
    left_out: list[Problem] = []
    clips: list[Clip] = []
    taken: Counter[str] = Counter()
    for source, sha in zip(sources, hashes, strict=True):
        stem = re.sub(r"[^\w.-]", "_", source.stem)[:60].strip("._") or "recording"
        taken[stem] += 1
        stem = stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
        groups, lost = group(listener.hear(source, sha), source.name, hearing.clip_s)
        left_out += lost
        total_s = probe(source).duration_s
        for parts in groups:
            start_s = max(0.0, parts[0].start_s - EDGE_S)
            end_s = min(total_s, parts[-1].end_s + EDGE_S)
            text = " ".join(part.text for part in parts if part.text)
            name = f"clips/{stem}-{round(1000 * start_s):08d}.flac"
            if not (staging / name).is_file():
                cut_clip(source, staging / name, start_s, end_s - start_s)
            clips.append(Clip(name, text, probe(staging / name).duration_s))
            drafts[name] = {
                "audio": name, "text": text, "status": "draft", "recording": source.name,
                "start_s": round(start_s, 3), "end_s": round(end_s, 3),
                "probability": round(min(part.probability for part in parts if part.text), 4),
            }  # fmt: skip
    clips, lost = _heard_again(clips, drafts, staging, listener, hearing)
    left_out += lost
    if not clips:
        raise UserError(
            left_out or [Problem("SOURCE", "speech", "none heard", "Check the recordings.")],
            "No clip is left.",
        )
    num_heard = len(clips)
    clips, reference = choose_reference(clips, staging, ref)
    clips, lost = _audited(clips, drafts, staging, hearing, language)
    left_out += lost
    if not clips:
        raise UserError(left_out, "No clip is left after the audit.")
    write_jsonl(staging / DRAFTS, (drafts[clip.audio] for clip in clips))
    facts = {
        "format": "long", "source": [source.name for source in sources],
        "files": dict(zip([source.name for source in sources], hashes, strict=True)),
        "num_rows": num_heard, "num_other_speakers": 0, "speaker": None, "reference": reference,
        "transcripts": "draft", "asr_id": listener.asr_id,
    }  # fmt: skip
    return finish(out, staging, clips, left_out, facts, language, consent)


class Listener:
    """Whisper with times of words, on windows of a recording of any length.

    Args:
        hearing: Which checkpoint, language and window.
        work: Folder that keeps what was heard, window by window.
    """

    def __init__(self, hearing: Hearing, work: Path) -> None:
        from voxadapt.asr.whisper import Transcriber
        from voxadapt.core.device import resolve_device

        device = str(resolve_device(hearing.device))
        self._transcriber = Transcriber(
            hearing.asr, hearing.language, device, cache_dir=work / "transcripts"
        )
        self.asr_id = self._transcriber.asr_id
        self._window_s = min(hearing.window_s, self._transcriber.window_samples / 16000)
        self._work = work / "heard" / fingerprint(self.asr_id)

    def again(self, paths: Sequence[Path], texts: Sequence[str]) -> list[str]:
        """Transcribe clips as the audit and the scores do."""
        return [heard.text for heard in self._transcriber.transcribe(paths, texts)]

    def hear(self, recording: Path, sha: str) -> Iterator[Stretch | Problem]:
        """Yield stretches of speech with their words; a problem for speech without any."""
        total_s = max(1, int(probe(recording).duration_s))
        progress = Progress(f"hearing {recording.name}", total_s, "s")
        for window in windows(recording, self._window_s):
            cut, start_s = len(window.mono), window.start_s
            file = self._work / f"{sha[:16]}-{window.start}-{cut}.json"
            try:
                found = read_json(file)
            except (OSError, ValueError):
                found = self._window(window.mono, window.rate_hz)
                write_json(file, found)
            if found["problem"] is not None:
                where = f"{recording.name} {start_s:.1f}-{start_s + cut / window.rate_hz:.1f} s"
                fix = "Listen; cut and write it by hand if it is wanted."
                yield Problem(where, "speech that Whisper reads", found["problem"], fix)
            for index, item in enumerate(found["stretches"]):
                last = index == len(found["stretches"]) - 1
                yield Stretch(
                    start_s + item["start_s"], start_s + item["end_s"], item["text"],
                    item["probability"], is_open=last and not window.is_clean,
                )  # fmt: skip
            progress.advance(min(cut // window.rate_hz, progress.total - progress.done))
        if progress.done < progress.total:
            progress.advance(progress.total - progress.done)

    def _window(self, mono: np.ndarray, rate_hz: int) -> dict[str, Any]:
        """Transcribe one window, and place its words between the pauses."""
        spans = pauses_between(mono, rate_hz)
        if not spans:
            return {"stretches": [], "problem": None}
        words, problem = self._transcriber.words(resample(mono, rate_hz, 16000))
        if problem is not None:
            return {"stretches": [], "problem": problem}
        stretches = []
        for (start_s, end_s), own in zip(spans, place_words(words, spans), strict=True):
            stretches.append(
                {
                    "start_s": start_s, "end_s": end_s,
                    "text": " ".join("".join(word for word, *_ in own).split()),
                    "probability": float(np.mean([p for *_, p in own])) if own else 0.0,
                }
            )  # fmt: skip
        return {"stretches": stretches, "problem": None}


@dataclass(frozen=True)
class Window:
    """A part of a recording that ends in a pause, where there is one.

    Attributes:
        start: First sample.
        mono: Samples, [num_samples]; those that are no numbers are zeros.
        rate_hz: Their rate.
        is_clean: Whether it ends in a pause, or with the recording.
    """

    start: int
    mono: np.ndarray
    rate_hz: int
    is_clean: bool

    @property
    def start_s(self) -> float:
        """Seconds before it."""
        return self.start / self.rate_hz


def windows(recording: Path, window_s: float) -> Iterator[Window]:
    """Read a recording of any length in windows of at most `window_s`."""
    with sf.SoundFile(recording) as stream:
        rate_hz, total = stream.samplerate, stream.frames
        start = 0
        while start < total:
            stream.seek(start)
            mono = to_mono(stream.read(round(window_s * rate_hz), dtype="float32", always_2d=True))
            if len(mono) == 0:  # a header that announces more than there is
                break
            mono = np.nan_to_num(mono, nan=0.0, posinf=0.0, neginf=0.0)
            cut, clean = len(mono), True
            if start + len(mono) < total:
                cut, clean = _window_end(mono, rate_hz)
            yield Window(start, mono[:cut], rate_hz, clean)
            start += cut


def pauses_between(mono: np.ndarray, rate_hz: int) -> list[tuple[float, float]]:
    """Return stretches of speech that pauses of `PAUSE_S` or more divide, in seconds.

    Args:
        mono: Samples, [num_samples].
        rate_hz: Their rate.
    """
    active = speech_frames(frame_levels_db(mono, rate_hz))
    spoken = np.flatnonzero(active)
    if not len(spoken):
        return []
    breaks = np.flatnonzero(np.diff(spoken) * HOP_S >= PAUSE_S)
    firsts = [spoken[0], *spoken[breaks + 1]]
    lasts = [*spoken[breaks], spoken[-1]]
    total_s = len(mono) / rate_hz
    return [
        (float(first * HOP_S), min(total_s, float(last * HOP_S + FRAME_S)))
        for first, last in zip(firsts, lasts, strict=True)
    ]


def place_words(
    words: Sequence[tuple[str, float, float, float]], spans: Sequence[tuple[float, float]]
) -> list[list[tuple[str, float, float, float]]]:
    """Give each word to the stretch of speech that it overlaps most, in order.

    Whisper lets a word last through the pause beside it; the pause itself counts for nothing.

    Args:
        words: Word, start, end and probability.
        spans: Stretches of speech, at least one.
    """
    placed: list[list[tuple[str, float, float, float]]] = [[] for _ in spans]
    at = 0
    for word in words:
        _, start_s, end_s, _ = word
        overlap = [min(end_s, high) - max(start_s, low) for low, high in spans[at:]]
        best = at + int(np.argmax(overlap))
        if re.fullmatch(r"\W*", word[0]):  # punctuation stays with the word before it
            best = at
        placed[best].append(word)
        at = best
    return placed


def _window_end(mono: np.ndarray, rate_hz: int) -> tuple[int, bool]:
    """Return where to end a window: in the longest pause of its second half, if there is one."""
    spans = pauses_between(mono, rate_hz)
    total_s = len(mono) / rate_hz
    gaps = [(after[0] - before[1], (before[1] + after[0]) / 2) for before, after in pairwise(spans)]
    if not spans:
        return len(mono), True
    if total_s - spans[-1][1] >= PAUSE_S:
        gaps.append((total_s - spans[-1][1], spans[-1][1] + min(PAUSE_S, total_s - spans[-1][1])))
    late = [gap for gap in gaps if gap[1] >= total_s / 2]
    if late:
        return min(len(mono), round(max(late)[1] * rate_hz)), True
    levels = frame_levels_db(mono, rate_hz)
    first = 3 * len(levels) // 4
    quietest = first + int(np.argmin(levels[first:]))
    return max(1, min(len(mono), round(quietest * HOP_S * rate_hz))), False


def group(
    stretches: Iterable[Stretch | Problem],
    recording: str,
    clip_s: tuple[float, float],
    sentence_s: float = SENTENCE_S,
) -> tuple[list[list[Stretch]], list[Problem]]:
    """Join stretches of speech into clips.

    A clip ends at a pause: at the end of a sentence once it is `sentence_s` long, before a pause of
    more than 1.5 s, or where the next stretch would make it too long.

    Args:
        stretches: In order.
        recording: Its name, for messages.
        clip_s: Shortest and longest clip, with the silence at its edges.
        sentence_s: Length from which the end of a sentence ends a clip.

    Returns:
        The clips, and a problem for each stretch that fits in none.
    """
    low_s, high_s = clip_s
    clips: list[list[Stretch]] = []
    problems: list[Problem] = []
    current: list[Stretch] = []

    def length_s(parts: Sequence[Stretch]) -> float:
        return parts[-1].end_s - parts[0].start_s + 2 * EDGE_S

    def close() -> None:
        nonlocal current
        while current and not current[-1].text:
            current.pop()
        while current and not current[0].text:
            current.pop(0)
        if current:
            seconds, text = length_s(current), " ".join(p.text for p in current if p.text)
            where = f"{recording} {current[0].start_s:.1f}-{current[-1].end_s:.1f} s"
            if low_s <= seconds <= high_s and not current[-1].is_open:
                clips.append(current)
            else:
                fix = "Cut it by hand if it is wanted."
                problems.append(
                    Problem(where, f"{low_s:g} to {high_s:g} s between two pauses",
                            f"{seconds:.1f} s: {shown(text)}", fix)
                )  # fmt: skip
        current = []

    for item in stretches:
        if isinstance(item, Problem):
            close()
            problems.append(item)
            continue
        joined = current and current[-1].is_open
        if current and not joined:
            gap_s = item.start_s - current[-1].end_s
            if gap_s > MAX_GAP_S or length_s([*current, item]) > high_s:
                close()
        current = [*current, item]
        if (
            item.text.endswith(SENTENCE_ENDS)
            and not item.is_open
            and length_s(current) >= max(low_s, sentence_s)
        ):
            close()
    close()
    return clips, problems


def _heard_again(
    clips: Sequence[Clip],
    drafts: Mapping[str, dict[str, Any]],
    staging: Path,
    listener: Listener,
    hearing: Hearing,
) -> tuple[list[Clip], list[Problem]]:
    """Keep clips in which Whisper, hearing them alone, hears the same text."""
    heard = listener.again([staging / c.audio for c in clips], [c.text for c in clips])
    kept, problems = [], []
    for clip, text in zip(clips, heard, strict=True):
        draft = drafts[clip.audio]
        where = f"{draft['recording']} {draft['start_s']:.1f}-{draft['end_s']:.1f} s"
        reference = fold_text(clip.text)
        told = check_text(where, clip.text)
        if told or not reference:
            problems.append(told[0] if told else Problem(where, "words", shown(clip.text), "Drop."))
            continue
        error = disagreement(reference, fold_text(text))
        draft |= {"second_hearing": text, "disagreement": round(error, 4)}
        if error > MAX_DRAFT_DISAGREEMENT:
            problems.append(
                Problem(
                    where,
                    f"the same text heard twice, within {100 * MAX_DRAFT_DISAGREEMENT:.0f} %",
                    f"{shown(clip.text)}, then {shown(text)}",
                    "Listen; cut and write it by hand if it is wanted.",
                )
            )
        else:
            kept.append(clip)
    return kept, problems


def _audited(
    clips: Sequence[Clip],
    drafts: Mapping[str, dict[str, Any]],
    staging: Path,
    hearing: Hearing,
    language: str | None,
) -> tuple[list[Clip], list[Problem]]:
    """Keep clips without an error by the audit's rules; note its warnings with the drafts.

    Rules about the corpus as a whole are left to `voxadapt audit`.
    """
    limits = AuditParams(min_total_minutes=1e-6, clip_duration_s=hearing.clip_s)
    kept, problems = list(clips), []
    while kept:
        manifest = staging / MANIFEST
        write_jsonl(manifest, manifest_rows(kept, language))
        rows, refused = read_raw_manifest(manifest)
        try:
            result = audit_corpus(rows, limits, SplitParams(), manifest, refused)
        except UserError as error:
            wrong = {int(tail): problem for problem in error.problems
                     if (tail := problem.where.rpartition(":")[2]).isdigit()}  # fmt: skip
            if not wrong:  # of the corpus alone: too few texts for three splits, perhaps
                break
            for number, problem in wrong.items():
                draft = drafts[kept[number - 1].audio]
                where = f"{draft['recording']} {draft['start_s']:.1f}-{draft['end_s']:.1f} s"
                problems.append(replace(problem, where=where))
            kept = [clip for n, clip in enumerate(kept, start=1) if n not in wrong]
            continue
        for checked in result.clips:
            messages = [finding.as_dict()["message"] for finding in checked.findings]
            drafts[checked.row.audio] |= {"warnings": messages} if messages else {}
        break
    return kept, problems
