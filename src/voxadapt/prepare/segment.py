"""Cuts recordings into clips: at pauses, by the lines of a text, or by the sentences in them.

Speech is first divided at its pauses. Where nothing is known of what is said, clips end at the
longest pauses; where the lines that were read are known, each line gets its part of the speech;
where Whisper has transcribed the recording, clips end with sentences.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, log
from pathlib import Path
from statistics import median

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from voxadapt.core.errors import Problem
from voxadapt.core.problems import problem
from voxadapt.data.audio import FRAME_S, HOP_S, frame_levels_db, speech_frames, to_mono
from voxadapt.data.lines import shown
from voxadapt.data.text import dominant_script, num_spoken_characters

PAUSE_S = 0.2  # silence at which a recording may be cut
EDGE_S = 0.15  # silence that a clip keeps at either end
WINDOW_S = 60.0  # what the level of a pause is measured against
BETWEEN_S = 0.5  # a pause of this length may end a clip that could go on
MAX_GAP_S = 1.5  # a longer pause always ends a clip of transcribed speech
SHORTEST_S = 1.5  # no shorter clip is made by choice, where the limit allows shorter ones
RATE_SPREAD = 0.3  # of the logarithm of speech per letter, from line to line
PAUSE_COST_S = 0.3  # a pause of this length within a line costs as much as one such deviation
SENTENCE_MARKS = ".!?…。！？؟।"
INNER_MARKS = re.compile(rf"[{SENTENCE_MARKS},;:—–،、，；：-]")
#: Letters, marks and digits in a second of speech, the slowest and the fastest readers' by script.
LETTERS_PER_S = {
    "": (5.0, 28.0), "ARABIC": (3.5, 24.0), "HEBREW": (3.5, 24.0),
    "HAN/KANA": (1.5, 14.0), "HANGUL": (1.5, 14.0),
}  # fmt: skip
MIN_LETTERS = 12  # fewer say little of a rate
MIN_TORN_PACE = 0.85  # of the lines' median, of one with a long pause that no mark explains
BETWEEN_SENTENCES = re.compile(rf"(?<=[{SENTENCE_MARKS}])[\"'”’»)]*\s+")

Span = tuple[float, float]  # start and end, seconds
Word = tuple[str, float, float, float]  # word, start, end and probability
Mono = NDArray[np.float32]  # [num_samples]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a recording that becomes a clip."""

    start_s: float  # first speech
    end_s: float  # last speech
    text: str = ""  # what is said; empty where it is not known
    probability: float | None = None  # of the least sure phrase, where Whisper has transcribed it
    problem: Problem | None = None  # why it cannot be a clip, if it cannot

    @property
    def length_s(self) -> float:
        """Length of the clip, with the silence that it keeps at either end."""
        return self.end_s - self.start_s + 2 * EDGE_S


@dataclass(frozen=True, slots=True)
class Phrase:
    """Transcribed speech between two pauses of a recording."""

    start_s: float  # first speech, from the beginning of the recording
    end_s: float  # last speech
    text: str  # words; may be empty
    probability: float  # mean probability of the words; 0 without any
    is_open: bool = False  # whether it ends where a window was cut without a pause, and goes on


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a recording that ends in a pause, where there is one."""

    start: int  # first sample
    mono: Mono  # samples, [num_samples]; those that are no numbers are zeros
    rate_hz: int  # their rate
    is_clean: bool  # whether it ends in a pause, or with the recording

    @property
    def start_s(self) -> float:
        """Seconds of the recording before it."""
        return self.start / self.rate_hz

    @property
    def end_s(self) -> float:
        """Seconds of the recording until its end."""
        return (self.start + len(self.mono)) / self.rate_hz


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


def speech_spans(mono: Mono, rate_hz: int) -> list[Span]:
    """Return the spans of speech that pauses of `PAUSE_S` or more divide, in seconds.

    Samples are [num_samples].
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


def _window_end(mono: Mono, rate_hz: int) -> tuple[int, bool]:
    """Return where to end a window: in the longest pause of its second half, if there is one."""
    spans = speech_spans(mono, rate_hz)
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


def speech_of(recording: Path) -> list[Span]:
    """Return the spans of speech of a recording of any length, in seconds."""
    spans: list[Span] = []
    for window in windows(recording, WINDOW_S):
        for start_s, end_s in speech_spans(window.mono, window.rate_hz):
            start_s, end_s = start_s + window.start_s, end_s + window.start_s
            if spans and start_s - spans[-1][1] < PAUSE_S:
                spans[-1] = (spans[-1][0], end_s)
            else:
                spans.append((start_s, end_s))
    return spans


def cut(recording: str, spans: Sequence[Span], clip_s: Span, lines: Sequence[str]) -> list[Segment]:
    """Divide a recording into clips.

    `clip_s` is the shortest and the longest clip; `lines` are what was read, one a clip, if that is
    known.
    """
    if not spans:
        return [Segment(0.0, 0.0, problem=problem("prepare.no_speech", recording))]
    if not lines:
        pieces = [Segment(*span) for span in at_pauses(spans, clip_s)]
    else:
        placed = place_lines(spans, lines, clip_s[1])
        if placed is None:  # a line for a paragraph, perhaps
            lines = [part for line in lines for part in BETWEEN_SENTENCES.split(line) if part]
            placed = place_lines(spans, lines, clip_s[1])
        if placed is None:
            found = f"{len(lines)} lines for {len(spans)} stretches of speech between pauses"
            wrong = problem("prepare.fewer_stretches", recording, found=found)
            return [Segment(spans[0][0], spans[-1][1], problem=wrong)]
        pieces = [Segment(*span, line) for span, line in zip(placed, lines, strict=True)]
        if mismatch := _mismatch(spans, pieces):
            wrong = problem("prepare.lines_do_not_fit", recording, found=mismatch)
            return [Segment(spans[0][0], spans[-1][1], problem=wrong)]
    return [_judged(piece, recording, clip_s) for piece in pieces]


def _mismatch(spans: Sequence[Span], pieces: Sequence[Segment]) -> str | None:
    """Say why these lines cannot be what was read, None where they can.

    Nobody reads so fast or so slowly, or pauses so often within a line as between lines.
    """
    gaps = [(start_s, start_s - end_s) for (_, end_s), (start_s, _) in pairwise(spans)]
    edges = {piece.start_s for piece in pieces}
    between = [gap_s for start_s, gap_s in gaps if start_s in edges]
    long_s = max(BETWEEN_S, 0.75 * median(between)) if between else 2 * BETWEEN_S
    paces, torn = [], []
    for piece in pieces:
        inside = [span for span in spans if piece.start_s <= span[0] < piece.end_s]
        speech_s = sum(end_s - start_s for start_s, end_s in inside)
        letters = num_spoken_characters(piece.text)
        paces.append(letters / max(speech_s, 1e-3))
        pauses = sum(after[0] - before[1] >= long_s for before, after in pairwise(inside))
        torn.append(pauses > _num_marks(piece.text))
        script = dominant_script([piece.text]) or ""
        low, high = LETTERS_PER_S.get(script, LETTERS_PER_S[""])
        if letters >= MIN_LETTERS and not low <= letters / max(speech_s, 1e-3) <= high:
            return f"{letters} letters in {speech_s:.1f} s of speech: {shown(piece.text, 40)}"
    for piece, pace, is_torn in zip(pieces, paces, torn, strict=True):
        if is_torn and len(pieces) > 2 and pace < MIN_TORN_PACE * median(paces):
            return f"a long pause within a line that has speech for more: {shown(piece.text, 40)}"
    marks = sum(_num_marks(piece.text) for piece in pieces)
    num_long = sum(gap_s >= long_s for start_s, gap_s in gaps if start_s not in edges)
    if num_long > max(1, marks):
        return f"{len(pieces)} lines for {num_long + len(pieces)} stretches between long pauses"
    return None


def _num_marks(line: str) -> int:
    """Count the marks within a line at which a reader may pause."""
    return len(INNER_MARKS.findall(line.strip()[:-1]))


def join_phrases(
    phrases: Iterable[Phrase | Problem], recording: str, clip_s: Span
) -> list[Segment]:
    """Join transcribed phrases into clips.

    A clip ends at a pause: at the end of a sentence once it is `SHORTEST_S` long, before a pause of
    more than `MAX_GAP_S`, or where the next phrase would make it too long.
    """
    low_s, high_s = clip_s
    found: list[Segment] = []
    current: list[Phrase] = []

    def end_clip() -> None:
        """Make one clip of the phrases so far, of which those without words are left out."""
        if spoken := [phrase for phrase in current if phrase.text]:
            text = " ".join(phrase.text for phrase in spoken)
            probability = round(min(phrase.probability for phrase in spoken), 4)
            segment = Segment(spoken[0].start_s, spoken[-1].end_s, text, probability)
            found.append(_judged(segment, recording, clip_s, spoken[-1].is_open))
        current.clear()

    for phrase in phrases:
        if isinstance(phrase, Problem):
            end_clip()
            found.append(Segment(0.0, 0.0, problem=phrase))
            continue
        if current and not current[-1].is_open:
            is_far = phrase.start_s - current[-1].end_s > MAX_GAP_S
            if is_far or phrase.end_s - current[0].start_s + 2 * EDGE_S > high_s:
                end_clip()
        current.append(phrase)
        length_s = phrase.end_s - current[0].start_s + 2 * EDGE_S
        ends = phrase.text.endswith(tuple(SENTENCE_MARKS)) and not phrase.is_open
        if ends and length_s >= max(low_s, SHORTEST_S):
            end_clip()
    end_clip()
    return found


def _judged(segment: Segment, recording: str, clip_s: Span, is_open: bool = False) -> Segment:
    """Note a segment that is too short or too long, or does not end in a pause."""
    low_s, high_s = clip_s
    if low_s <= segment.length_s <= high_s and not is_open:
        return segment
    where = f"{recording} {segment.start_s:.1f}-{segment.end_s:.1f} s"
    found = f"{segment.length_s:.1f} s"
    if segment.probability is not None:
        found += f": {shown(segment.text)}"
    wrong = problem("prepare.other_length", where, low=low_s, high=high_s, found=found)
    return replace(segment, problem=wrong)


def place_words(words: Sequence[Word], spans: Sequence[Span]) -> list[list[Word]]:
    """Give each word to the span of speech that it overlaps most, in order.

    Whisper lets a word last through the pause before or after it, which is no overlap.
    """
    placed: list[list[Word]] = [[] for _ in spans]
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


def at_pauses(spans: Sequence[Span], clip_s: Span) -> list[Span]:
    """Divide speech at its longest pauses until each part is short and ends in a long one."""
    low_s, high_s = max(clip_s[0], min(SHORTEST_S, clip_s[1] / 2)), clip_s[1]
    done: list[Span] = []
    left = [(0, len(spans))]

    def length_s(first: int, end: int) -> float:
        return spans[end - 1][1] - spans[first][0] + 2 * EDGE_S

    while left:
        first, end = left.pop()
        least_s = BETWEEN_S if length_s(first, end) <= high_s else 0.0
        gaps = {n: spans[n][0] - spans[n - 1][1] for n in range(first + 1, end)}
        may_end = [n for n, gap_s in gaps.items() if gap_s >= least_s
                   and min(length_s(first, n), length_s(n, end)) >= low_s]  # fmt: skip
        if may_end:
            at = max(may_end, key=lambda n: (gaps[n], -n))
            left += [(at, end), (first, at)]  # the first part is taken next
        else:
            done.append((spans[first][0], spans[end - 1][1]))
    return done


def place_lines(spans: Sequence[Span], lines: Sequence[str], longest_s: float) -> list[Span] | None:
    """Find the part of a recording in which each line of a text is read.

    Of all ways to cut the recording into as many parts as there are lines, the cheapest is taken:
    a line costs the square of how far its length is from what its letters ask for (in units of
    `RATE_SPREAD`), and each pause within it `PAUSE_COST_S`. No recogniser is asked.

    Returns:
        Start and end of each line in seconds; None where there are fewer spans than lines, or
        no way keeps every clip short enough.
    """
    count, total = len(lines), len(spans)
    if total < count:
        return None
    letters = [max(1, num_spoken_characters(line)) for line in lines]
    spoken_s = [0.0]
    pauses_s = [0.0, 0.0]  # before span 0 and span 1, then summed
    for number, (start_s, end_s) in enumerate(spans):
        spoken_s.append(spoken_s[-1] + end_s - start_s)
        if number:
            pauses_s.append(pauses_s[-1] + start_s - spans[number - 1][1])
    per_letter_s = spoken_s[-1] / sum(letters)
    best = [0.0] + [inf] * total
    back: list[list[int]] = []
    for line in range(count):
        new, origin = [inf] * (total + 1), [0] * (total + 1)
        for end in range(line + 1, total - (count - line - 1) + 1):
            for first in range(end - 1, line - 1, -1):
                if spans[end - 1][1] - spans[first][0] + 2 * EDGE_S > longest_s:
                    break
                if best[first] == inf:
                    continue
                ratio = (spoken_s[end] - spoken_s[first]) / (letters[line] * per_letter_s)
                inside_s = pauses_s[end] - pauses_s[first + 1]
                cost = best[first] + (log(ratio) / RATE_SPREAD) ** 2 + inside_s / PAUSE_COST_S
                if cost < new[end]:
                    new[end], origin[end] = cost, first
        best = new
        back.append(origin)
    if best[total] == inf:
        return None
    found: list[Span] = []
    end = total
    for origin in reversed(back):
        first = origin[end]
        found.append((spans[first][0], spans[end - 1][1]))
        end = first
    return found[::-1]
