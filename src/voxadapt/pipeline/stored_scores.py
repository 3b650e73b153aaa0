"""Reading scores that are to decide, whole and of the models that are there now; deciding."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxadapt.core import paths
from voxadapt.core.files import set_aside
from voxadapt.core.problems import user_error
from voxadapt.core.records import Record, read_record
from voxadapt.pipeline.candidates import BASE, Candidate, check_weights
from voxadapt.pipeline.tracks import HELD_OUT, Track
from voxadapt.scoring.measurable import measurable
from voxadapt.scoring.rows import ScoreRow, Sentence, read_scores
from voxadapt.selection.select import select
from voxadapt.selection.usable import without_verdict


def read_selection_scores(
    folder: Path, candidate: Candidate, sentences: Sequence[Sentence], takes: int, command: str
) -> list[ScoreRow]:
    """Read a candidate's rows on the selection sentences.

    All of `sentences` must have been spoken, `takes` times by all speakers together, with the
    candidate's present weights; `command` is what scores it again.
    Weights that are not those that were trained are refused, and a Base of which no clip could be
    measured: all others would be held against nothing.
    """
    check_weights(candidate)
    fix = f"Run `voxadapt {command}` again."
    rows = read_scores(
        folder,
        [(item.text_id, take) for item in sentences for take in range(takes)],
        texts={item.text_id: item.text for item in sentences},
        split="selection",
        checkpoint_sha=candidate.sha,
        fix=fix,
    )
    if candidate.name == BASE and all(row.status == "failed" for row in rows):
        raise user_error("pipeline.no_clip_of_base", folder, message=rows[0].message, fix=fix)
    return rows


def set_aside_unlisted(listed: Collection[str], scores: Path, metrics: Path) -> None:
    """Move scores of candidates that are not listed to `.work/unlisted`, and listed ones back.

    A shorter list of candidates, or an experiment with fewer epochs, leaves the scores of the
    others behind. They would stand beside the new ones in `dvc metrics show`. What comes back is
    held against what it was made from, as all scores are.
    """
    unlisted = [path for path in scores.glob("*") if path.is_dir() and path.name not in listed]
    unlisted += [path for path in metrics.glob("*.json") if path.stem not in listed]
    kept = paths.work_dir() / "unlisted"
    for path in sorted(unlisted):
        set_aside(path, kept / path)
    for path in [place for name in listed for place in (scores / name, metrics / f"{name}.json")]:
        if not path.exists() and (kept / path).exists():
            set_aside(kept / path, path)


def choose(track: Track, rows: Mapping[str, Sequence[ScoreRow]], **asked: Any) -> Record:
    """Choose by a track's rule, as `select` is `asked` to; nothing where nothing can be measured.

    Where a recogniser was judged, the record holds what it cannot tell apart as well: pairs of
    sounds that it takes for one another in recordings (`blind`), those in their codec round trip,
    and a sentence.
    """
    scale = track.read_scale()
    recordings = {name: read_recordings(track, name) for name in ("real", "codec")}
    real, codec = recordings["real"], recordings["codec"]
    decision = select(rows, track.rule, scale=scale, real=real, codec=codec, **asked)
    if track.corpus.recogniser.is_file():
        found = read_record(track.corpus.recogniser, "codes")
        decision["recogniser"] = {
            "blind": found["real"]["blind"],
            "blind_after_codec": found["codec"]["blind"],
            "text": found["real"]["text"],
        }
    can = measurable(recordings, scale["separation"], track.rule.error_metric, track.limits)
    return without_verdict(decision, can)


def read_recordings(track: Track, name: str) -> list[ScoreRow]:
    """Read the rows of the held-out recordings (`real`), or of their codec round trip (`codec`)."""
    expected = [(row.id, 0) for row in track.accepted() if row.split in HELD_OUT]
    return read_scores(track.corpus.reference / name, expected)
