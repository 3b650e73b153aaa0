"""Recordings become clips: at pauses, and where there is a text, one line of it a clip."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, log
from pathlib import Path

from voxadapt.core.errors import Problem, UserError
from voxadapt.data.audio import AudioError, probe
from voxadapt.data.audit import CONTAINERS
from voxadapt.data.manifest import check_text
from voxadapt.data.text import num_spoken_characters
from voxadapt.prepare.import_long import EDGE_S, PAUSE_S, pauses_between, windows

WINDOW_S = 60.0  # what the level of a pause is measured against
BETWEEN_S = 0.5  # a pause of this length may end a clip that could go on
SHORTEST_S = 1.5  # but leaves no shorter clip than this, where the limit allows shorter ones
RATE_SPREAD = 0.3  # of the logarithm of speech per letter, from line to line
PAUSE_COST_S = 0.3  # a pause of this length within a line costs as much as one such deviation
SENTENCE_ENDS = re.compile(r"(?<=[.!?…。！？؟।])[\"'”’»)]*\s+")
COMMENT = "#"

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a recording that becomes a clip.

    Attributes:
        start_s: First speech.
        end_s: Last speech.
        text: Its line of the text; empty without one.
        problem: Why it cannot be a clip, if it cannot.
    """

    start_s: float
    end_s: float
    text: str = ""
    problem: Problem | None = None

    @property
    def length_s(self) -> float:
        """Length of the clip, with the silence that it keeps at either end."""
        return self.end_s - self.start_s + 2 * EDGE_S


def find_recordings(folder: Path) -> tuple[list[Path], list[Problem]]:
    """Return the recordings of a folder and those below it, and what looks like one and is none.

    Args:
        folder: A folder, or one recording.

    Raises:
        UserError: When there is none.
    """
    if not folder.exists():
        raise UserError(Problem(f"--audio {folder}", "a folder", "nothing there", "Correct it."))
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    found, problems = [], []
    other = {".m4a", ".aac", ".wma", ".mp4", ".webm", ".amr", ".caf"}
    for path in files:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in CONTAINERS.keys() | other:
            continue
        try:
            probe(path)
            found.append(path)
        except (AudioError, OSError) as error:
            fix = "Convert it to WAV or FLAC (ffmpeg -i IN OUT.wav), or take it away."
            problems.append(Problem(path.name, "a recording that can be read", str(error), fix))
    if not found:
        known = ", ".join(name.lstrip(".") for name in CONTAINERS)
        raise UserError(
            problems or Problem(f"--audio {folder}", f"recordings ({known})", "none", "Add some.")
        )
    return found, problems


def lines_beside(recording: Path, scripts: Path) -> tuple[list[str], str]:
    """Return the text that was read in a recording, line by line, and the name of its file.

    The text is the file of the same name that ends in `.txt`, beside the recording or among the
    recording scripts. Blank lines, and those that begin with #, are not read.

    Raises:
        UserError: When it is not UTF-8, or a line is no transcript.
    """
    for path in (recording.with_suffix(".txt"), scripts / f"{recording.stem}.txt"):
        if path.is_file():
            return read_lines(path), path.name
    return [], ""


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are read aloud.

    Raises:
        UserError: When it is not UTF-8, or a line is no transcript.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "bytes of another encoding"
        fix = "Save it as plain text in UTF-8."
        raise UserError(Problem(str(path), "text in UTF-8", str(reason), fix)) from None
    lines: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = " ".join(line.split())
        if line and not line.startswith(COMMENT):
            problems += check_text(f"{path.name}:{number}", line)
            lines.append(line)
    if problems:
        raise UserError(problems, f"{path} cannot be used.")
    return lines


def speech_of(recording: Path) -> list[Span]:
    """Return the stretches of speech of a recording of any length, in seconds."""
    spans: list[Span] = []
    for window in windows(recording, WINDOW_S):
        for start_s, end_s in pauses_between(window.mono, window.rate_hz):
            start_s, end_s = start_s + window.start_s, end_s + window.start_s
            if spans and start_s - spans[-1][1] < PAUSE_S:
                spans[-1] = (spans[-1][0], end_s)
            else:
                spans.append((start_s, end_s))
    return spans


def cut(recording: str, spans: Sequence[Span], clip_s: Span, lines: Sequence[str]) -> list[Piece]:
    """Divide a recording into clips.

    Args:
        recording: Its name, for messages.
        spans: Its speech, from `speech_of`.
        clip_s: Shortest and longest clip.
        lines: What was read, one line a clip; nothing where that is not known.

    Returns:
        Pieces in order; those that fit no clip have a problem.
    """
    if not spans:
        fix = "Listen; take it away if it is empty."
        problem = Problem(recording, "speech", "none", fix)
        return [Piece(0.0, 0.0, problem=problem)]
    if not lines:
        pieces = [Piece(*span) for span in at_pauses(spans, clip_s)]
    else:
        placed = place_lines(spans, lines, clip_s[1])
        if placed is None:  # a line for a paragraph, perhaps
            lines = [part for line in lines for part in SENTENCE_ENDS.split(line) if part]
            placed = place_lines(spans, lines, clip_s[1])
        if placed is None:
            found = f"{len(lines)} lines for {len(spans)} stretches of speech between pauses"
            fix = "Write a line for each sentence that is heard, or take the text away."
            problem = Problem(recording, "a text that fits the recording", found, fix)
            return [Piece(spans[0][0], spans[-1][1], problem=problem)]
        pieces = [Piece(*span, line) for span, line in zip(placed, lines, strict=True)]
    return [_judged(piece, recording, clip_s) for piece in pieces]


def _judged(piece: Piece, recording: str, clip_s: Span) -> Piece:
    low_s, high_s = clip_s
    if low_s <= piece.length_s <= high_s:
        return piece
    where = f"{recording} {piece.start_s:.1f}-{piece.end_s:.1f} s"
    expected = f"{low_s:g} to {high_s:g} s between two pauses"
    fix = "Cut it by hand if it is wanted."
    return replace(piece, problem=Problem(where, expected, f"{piece.length_s:.1f} s", fix))


def at_pauses(spans: Sequence[Span], clip_s: Span) -> list[Span]:
    """Divide speech at its longest pauses, until each part is short enough and ends in a long one.

    Args:
        spans: Stretches of speech, at least one.
        clip_s: Shortest and longest clip, with the silence at its edges.
    """
    low_s, high_s = max(clip_s[0], min(SHORTEST_S, clip_s[1] / 2)), clip_s[1]
    done: list[Span] = []
    left = [(0, len(spans))]

    def length_s(first: int, end: int) -> float:
        return spans[end - 1][1] - spans[first][0] + 2 * EDGE_S

    while left:
        first, end = left.pop()
        gaps = sorted(
            ((spans[n][0] - spans[n - 1][1], -n) for n in range(first + 1, end)), reverse=True
        )
        fits = length_s(first, end) <= high_s
        at = next(
            (
                -n
                for gap_s, n in gaps
                if (not fits or gap_s >= BETWEEN_S)
                and min(length_s(first, -n), length_s(-n, end)) >= low_s
            ),
            None,
        )
        if at is None:
            done.append((spans[first][0], spans[end - 1][1]))
        else:
            left += [(at, end), (first, at)]  # the first part is taken next
    return done


def place_lines(spans: Sequence[Span], lines: Sequence[str], longest_s: float) -> list[Span] | None:
    """Give each line of a text its stretch of a recording.

    Of all ways to cut the recording into as many parts as there are lines, the cheapest is taken:
    a line costs the square of how far its length is from what its letters ask for (in units of
    `RATE_SPREAD`), and each pause within it `PAUSE_COST_S`. No recogniser is asked.

    Args:
        spans: Stretches of speech, at least one.
        lines: Texts in the order in which they were read, at least one.
        longest_s: Longest clip.

    Returns:
        Start and end of each line in seconds; None where there are fewer stretches than lines, or
        no way keeps every clip short enough.
    """
    count, total = len(lines), len(spans)
    if total < count:
        return None
    letters = [max(1, num_spoken_characters(line)) for line in lines]
    spoken_s = [0.0]
    pauses_s = [0.0, 0.0]  # before stretch 0 and stretch 1, then summed
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
