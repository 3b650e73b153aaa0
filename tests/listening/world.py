"""A synthetic project that can be listened to, and a listener who answers by a rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reporting.world import TEXTS, make_params, write_rows, write_world
from voxadapt.core import paths
from voxadapt.core.files import read_jsonl, write_jsonl
from voxadapt.core.params import Params
from voxadapt.listening.votes import ListeningKey

CHOSEN = "epoch-2"
Rule = Callable[[str, str], Any]


def listening_params(num_sentences: int = 4, **report: Any) -> Params:
    return make_params(4, max_grid_sentences=2, listening_sentences=num_sentences, **report)


def write_listening_world(
    root: Path, params: Params | None = None, texts: tuple[str, ...] = TEXTS
) -> Path:
    """Write what `voxadapt listen` reads: the world, and clips of the confirmation split."""
    write_world(root, params or listening_params(), chosen=CHOSEN)
    folders = [paths.CONFIRMATION / name for name in ("base", CHOSEN)]
    for folder in [*folders, paths.SPEAKER.reference / "real"]:
        takes = 1 if folder.name == "real" else 3
        rows = write_rows(root, folder, folder.name, texts, takes)
        change_rows(root / folder, lambda row: row | {"split": "confirmation"})
        assert rows
    return root


def change_rows(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite every row of a folder."""
    path = folder / "rows.jsonl"
    write_jsonl(path, [change(row) for row in read_jsonl(path)])


def make_votes(
    key: ListeningKey, kind: str, listener: str, rule: Rule, seed: int = 1, **changes: Any
) -> dict[str, Any]:
    """Answer every trial of a page by a rule.

    Args:
        key: Of the page.
        kind: ab or mos.
        listener: A name.
        rule: Gives a candidate (or None) of a text and a question; for mos, a rating of a
            candidate and a question.
        seed: Of the session.
        changes: Replaces fields of the file.
    """
    page = key.pages[kind]  # type: ignore[index]
    answers = []
    again = sorted(page.trials)[: page.repeats]
    for repeat, listed in ((False, sorted(page.trials)), (True, again)):
        for trial_id in listed:
            trial = page.trials[trial_id]
            shown = sorted(trial.clips, reverse=repeat)
            for question in page.questions:
                answers.append(
                    {
                        "trial": trial_id, "repeat": repeat, "question": question, "shown": shown,
                        "choice": _choice(kind, trial.text_id, trial.clips, question, rule),
                        "ms": 4000, "plays": [1] * len(shown),
                    }
                )  # fmt: skip
    return {
        "schema": "voxadapt-votes/1", "kind": kind, "page_sha": page.page_sha,
        "listener": listener, "seed": seed, "finished": True, "trials": answers, **changes,
    }  # fmt: skip


def _choice(kind: str, text_id: str, clips: Mapping[str, str], question: str, rule: Rule) -> Any:
    if kind == "mos":
        (candidate,) = clips.values()
        return rule(candidate, question)
    wanted = rule(text_id, question)
    return next((clip for clip, candidate in clips.items() if candidate == wanted), None)


def write_file(path: Path, votes: Any) -> Path:
    path.write_text(json.dumps(votes), encoding="utf-8")
    return path
