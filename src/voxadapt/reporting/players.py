"""Audio players as HTML: compact, self-contained, at the loudness of the file.

Clips are embedded as MP3, whose bytes libsndfile writes deterministically (Ogg's it does not).
Nothing is normalised: loudness and clipping stay audible.
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.files import first_by_hash, read_jsonl
from voxadapt.core.params import candidate_name
from voxadapt.core.paths import SPEAKER, Corpus
from voxadapt.core.records import Record, with_wav_paths
from voxadapt.data.audio import MP3_RATES_HZ, AudioError, encode, read_mono
from voxadapt.reporting import mel
from voxadapt.reporting.tables import error_of, percent, worst


class Html(str):
    """HTML that a notebook shows as such."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class Sound:
    """A clip as a page holds it: MP3 at the file's own rate, FLAC at rates that MP3 lacks."""

    uri: str
    mel_uri: str
    duration_s: float


def read_sound(path: str | Path) -> Sound | None:
    """Encode an audio file for a page, channels averaged; None when it cannot be read whole."""
    try:
        mono, rate_hz = read_mono(path)
    except AudioError:
        return None
    kind = "MP3" if rate_hz in MP3_RATES_HZ else "FLAC"
    mime = "audio/mpeg" if kind == "MP3" else "audio/flac"
    return Sound(
        uri=f"data:{mime};base64,{base64.b64encode(encode(mono, rate_hz, kind)).decode()}",
        mel_uri=mel.picture_uri(mono, rate_hz),
        duration_s=len(mono) / rate_hz,
    )


def audio_uri(path: str | Path) -> str | None:
    """Encode an audio file as a data URI, or return None when it cannot be read."""
    sound = read_sound(path)
    return sound.uri if sound else None


def player(path: str | Path | None, label: str = "") -> Html:
    """Return an `<audio>` element with the clip inside, or a note that there is none."""
    uri = audio_uri(path) if path else None
    if uri is None:
        return Html('<span class="missing">no audio</span>')
    # A player loads nothing until it is pressed; the page stays light with a hundred of them.
    return Html(f'<audio controls preload="none" aria-label="{escape(label)}" src="{uri}"></audio>')


def diff_html(expected: str, heard: str) -> Html:
    """Mark what should be said against what was heard: `<del>` missed, `<ins>` added.

    Word by word; character by character where the script writes no blanks.
    """
    spaceless = " " not in expected.strip() and len(expected.strip()) > 12
    glue = "" if spaceless else " "
    left, right = (list(t) if spaceless else t.split() for t in (expected, heard))
    parts = []
    for _, i1, i2, j1, j2 in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        missed, added = escape(glue.join(left[i1:i2])), escape(glue.join(right[j1:j2]))
        if left[i1:i2] == right[j1:j2]:
            parts.append(missed)
            continue
        parts += [f"<del>{missed}</del>"] if i2 > i1 else []
        parts += [f"<ins>{added}</ins>"] if j2 > j1 else []
    return Html(" ".join(parts))


# --- lists of clips for notebooks --------------------------------------------------------------


def clip_list(items: Sequence[Record]) -> Html:
    """List clips with a player each.

    They have a `title`, and may have `text` and `note` (strings, escaped here), `html` (already
    safe) and `audio`: a path, or a list of (label, path).
    """
    if not items:
        return Html("<p>None.</p>")
    blocks = []
    for item in items:
        audio = item.get("audio")
        pairs = audio if isinstance(audio, list) else [("", audio)]
        players = "".join(
            f"<figure><figcaption>{escape(label)}</figcaption>{player(path, label)}</figure>"
            for label, path in pairs
        )
        lines = [f"<strong>{escape(str(item['title']))}</strong>"]
        lines += [f"<q>{escape(str(item['text']))}</q>"] if item.get("text") else []
        lines += [str(item["html"])] if item.get("html") else []
        lines += [f"<small>{escape(str(item['note']))}</small>"] if item.get("note") else []
        words = f"<div>{'<br>'.join(lines)}</div>"
        blocks.append(f'<div class="clip">{words}<div class="players">{players}</div></div>')
    return Html(f'<div class="clips">{"".join(blocks)}</div>')


def clips_with_findings(limit: int = 24, at: Corpus = SPEAKER) -> Html:
    """Play the clips that the audit remarked on, worst first, with the reasons."""
    clips = [clip for clip in read_jsonl(at.clips) if clip.get("findings")]

    def badness(clip: Record) -> tuple[int, int, str]:
        errors = sum(found["severity"] == "error" for found in clip["findings"])
        return -errors, -len(clip["findings"]), str(clip.get("id"))

    clips.sort(key=badness)
    items = [
        {
            "title": clip.get("id") or clip.get("audio") or f"line {clip.get('line', '?')}",
            "text": clip.get("text"),
            "note": "; ".join(f"{f['severity']}: {f['message']}" for f in clip["findings"]),
            "audio": clip["audio"] if clip.get("audio") else None,
        }
        for clip in clips[:limit]
    ]
    rest = len(clips) - len(items)
    more = f"<p>{rest} more in {at.clips.as_posix()}.</p>" if rest > 0 else ""
    return Html(clip_list(items) + more)


def round_trip(limit: int = 6, at: Corpus = SPEAKER) -> Html:
    """Play held-out recordings beside their codec round trip, first by hash of the text."""
    folders = {name: at.reference / name for name in ("real", "codec")}
    rows = {
        name: {
            row["text_id"]: row
            for row in with_wav_paths(read_jsonl(folder / "rows.jsonl"), folder, Path())
        }
        for name, folder in folders.items()
    }
    items = []
    for text_id in first_by_hash(list(rows["real"]), limit):
        real, codec = rows["real"][text_id], rows["codec"].get(text_id, {})
        items.append(
            {
                "title": text_id,
                "text": real["text"],
                "html": "heard after the codec: "
                + diff_html(real["text_norm"], codec.get("hyp_norm") or ""),
                "audio": [("recording", real.get("wav")), ("after the codec", codec.get("wav"))],
            }
        )
    return clip_list(items)


def worst_clips(
    candidate: str, limit: int = 8, folder: Path | None = None, metric: str = "wer"
) -> Html:
    """Play a candidate's worst clips (`folder` as in `tables.summary`), failed ones first."""
    folder = folder or paths.SCORES / candidate_name(candidate)
    rows = with_wav_paths(read_jsonl(folder / "rows.jsonl"), folder, Path())
    items = [
        {
            "title": f"{row['text_id']}, take {row['take'] + 1}",
            "html": diff_html(row["text_norm"], row.get("hyp_norm") or ""),
            "note": f"{metric.upper()} {percent(error_of(row, metric))}; "
            + ("no similarity" if row.get("sim") is None else f"similarity {row['sim']:.3f}")
            + "".join(f"; {flag}" for flag in row.get("flags", []))
            + (f"; {row['message']}" if row.get("message") else ""),
            "audio": row.get("wav"),
        }
        for row in worst(rows, limit, metric)
    ]
    return clip_list(items)


def report_link(report: Path = paths.REPORT) -> Html:
    """Link a report page: from a notebook's HTML in a folder of `reports`, or in JupyterLab."""
    in_lab = os.environ.get("JPY_SESSION_NAME")
    href = (report if in_lab else report.relative_to(paths.REPORTS)).as_posix()
    return Html(f'<p><a href="../{href}">Open the report</a> ({report.as_posix()})</p>')
