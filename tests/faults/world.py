"""A very small project, and a process that runs its commands in forked, killable children.

Importing torch, qwen_tts, whisper and resemblyzer takes seconds and loading compiled kernels
longer, so the parent imports them once, stays with one thread, and forks a child for each
attempt. A child runs `voxadapt.cli.app.main`, as a user's command would.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from corpus import set_values, take_a_part

PROJECT = Path(__file__).parents[2]
WRITTEN = ("artifacts", "reports", ".work")
#: Command line of every stage of dvc.yaml, in an order in which each finds what it reads.
STAGES: dict[str, tuple[str, ...]] = {
    "clean": ("notebook", "clean"),
    "audit": ("audit",),
    "codes": ("codes",),
    "train": ("train", "--num-epochs", "2"),
    "score@base": ("score", "base"),
    "score@epoch-1": ("score", "1"),
    "select": ("select",),
    "confirm": ("confirm",),
    "report": ("report",),
    "language_data": ("language", "data"),
    "language_readings": ("language", "readings"),
    "language_stage1": ("language", "stage1"),
    "language_score@base": ("language", "score", "base"),
    "language_score@epoch-1": ("language", "score", "1"),
    "language_decide": ("language", "decide"),
    "language_stage2": ("language", "stage2"),
    "language_stage2_score": ("language", "stage2-score"),
    "language_confirm": ("language", "confirm"),
    "language_report": ("language", "report"),
}


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: Exit code; minus the signal for a killed one.
        seconds: How long it ran.
        printed: Its stdout and stderr.
        work: Units of work that it did, by kind.
    """

    code: int
    seconds: float
    printed: str
    work: Counter[str]


def build(folder: Path, **changes: Any) -> Path:
    """Write a project with few clips, sentences and epochs; its data are links.

    Args:
        folder: New folder.
        changes: Further parameters as section__key=value.
    """
    folder.mkdir(parents=True)
    (folder / "data").symlink_to(PROJECT / "data")
    for name in ("profiles", "notebooks"):
        shutil.copytree(PROJECT / name, folder / name)
    take_a_part(PROJECT / "data" / "speaker", folder / "small" / "speaker", 24)
    take_a_part(PROJECT / "data" / "language" / "malay", folder / "small" / "malay", 16)
    texts = (PROJECT / "data/language/malay/text_only.jsonl").read_text(encoding="utf-8")
    kept = "".join(texts.splitlines(keepends=True)[:6])
    (folder / "small" / "texts.jsonl").write_text(kept, encoding="utf-8")
    given: dict[str, Any] = {
        "data__manifest": "small/speaker/train_raw.jsonl",
        "data__other_voices": None,
        "audit__min_total_minutes": 0.1,
        "audit__recommended_total_minutes": [0.1, 10.0],
        "split__selection_share": 0.2,
        "split__confirmation_share": 0.15,
        "asr__batch_size": 4,
        # A kill is timed by one process's processor seconds, and costs that one's batch.
        "executor__num_workers": 1,
        "codes__batch_seconds": 12.0,
        "candidates": ["base", "epoch-1"],
        "score__takes": 1,
        "score__max_sentences": 2,
        "score__min_speech_s": 0.5,
        "score__batch_size": 1,
        "select__num_bootstrap": 200,
        "report__listening_sentences": 2,
        "language__text": "small/texts.jsonl",
        "language__audio": "small/malay/train_raw.jsonl",
        "language__source__text": "small/speaker/train_raw.jsonl",
        "language__source__max_sentences": 1,
        "language__split__selection_share": 0.25,
        "language__split__confirmation_share": 0.2,
        "language__audit__min_total_minutes": 0.1,
        "language__audit__recommended_total_minutes": [0.1, 10.0],
        "language__candidates": ["base", "epoch-1"],
        "language__select__num_bootstrap": 200,
        "language__stage2__mode": "always",
        "language__stage2__num_epochs": 1,
    }
    values = yaml.safe_load((PROJECT / "profiles" / "miniature.yaml").read_text(encoding="utf-8"))
    set_values(values, given | changes)
    text = yaml.safe_dump(values, sort_keys=False)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder


# --- children ------------------------------------------------------------------------------------


def warm_up() -> None:
    """Import what stages import, so that a forked child begins at once."""
    import librosa
    import numpy as np
    import torch

    torch.set_num_threads(1)
    from voxadapt.core.compat import import_qwen_tts

    import_qwen_tts()
    librosa.resample(np.zeros(4000, np.float32), orig_sr=24000, target_sr=16000)
    librosa.feature.melspectrogram(y=np.zeros(4000, np.float32), sr=16000)


def start(folder: Path, *arguments: str, before: Callable[[], None] | None = None) -> int:
    """Fork a child that runs a command in a project; return its process id.

    What it prints goes to `printed.txt` beside the project, the work that it does, one line a
    unit, to `work.txt`.

    Args:
        folder: The project.
        arguments: Of `voxadapt`.
        before: Called in the child first.
    """
    folder = folder.resolve()
    number = os.fork()
    if number:
        return number
    code = 70
    try:  # nothing of this child may return into the parent's code
        os.setpgid(0, 0)
        os.chdir(folder)
        printed = os.open(folder.parent / "printed.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        count_work(folder.parent / "work.txt")
        if before is not None:
            before()
        sys.argv = ["voxadapt", *arguments]
        from voxadapt.cli.app import main

        main()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(bool(left.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(number: int, folder: Path, began: float, limit_s: float | None = None) -> Ended | None:
    """Wait for a child; None when it still runs after `limit_s` seconds."""
    while True:
        ended, status = os.waitpid(number, 0 if limit_s is None else os.WNOHANG)
        if ended:
            break
        if limit_s is not None and time.monotonic() - began >= limit_s:
            return None
        time.sleep(0.002)
    return Ended(
        os.waitstatus_to_exitcode(status),
        time.monotonic() - began,
        (folder.parent / "printed.txt").read_text(encoding="utf-8", errors="replace"),
        read_work(folder),
    )


def run(
    folder: Path,
    *arguments: str,
    kill_after_s: float | None = None,
    number: int = signal.SIGKILL,
    before: Callable[[], None] | None = None,
) -> Ended:
    """Run a command in a child; send it a signal after a while, if it still runs then."""
    (folder.parent / "work.txt").unlink(missing_ok=True)
    (folder.parent / "printed.txt").unlink(missing_ok=True)
    began = time.monotonic()
    child = start(folder, *arguments, before=before)
    ended = None
    if kill_after_s is not None:
        ended = wait(child, folder, began, kill_after_s)
        if ended is None:
            os.kill(child, number)
    return ended or wait(child, folder, began)


def count_work(path: Path) -> None:
    """Have this process write a line for every unit of work that is kept between runs."""
    from voxadapt.asr import whisper as asr
    from voxadapt.codec import extract
    from voxadapt.core.progress import Progress
    from voxadapt.generation import readings as reading
    from voxadapt.generation import synthesis

    stream = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def count(owner: Any, name: str, kind: str, units: Callable[..., int]) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            found = original(*args, **options)
            os.write(stream, f"{kind} {units(*args)}\n".encode())
            return found

        setattr(owner, name, counted)

    count(extract, "_encode", "clips encoded", lambda waves, *_: len(waves))
    count(synthesis, "speak", "clips spoken", lambda _, texts, *__: len(texts))
    count(asr.Transcriber, "_read", "clips transcribed", lambda _, found, *__: len(found))
    count(reading, "_store", "texts read", lambda _, readings: len(readings))
    advance = Progress.advance

    def advanced(self: Progress, units: int = 1, note: str = "") -> None:
        if self.label.startswith("train "):
            os.write(stream, f"steps trained {units}\n".encode())
        advance(self, units, note)

    Progress.advance = advanced  # type: ignore[method-assign]


def read_work(folder: Path) -> Counter[str]:
    """Add up what a child wrote about its work."""
    found: Counter[str] = Counter()
    with suppress(FileNotFoundError):
        for line in (folder.parent / "work.txt").read_text().splitlines():
            kind, _, units = line.rpartition(" ")
            found[kind] += int(units)
    return found


# --- files ---------------------------------------------------------------------------------------


def link_tree(source: Path, target: Path, names: Iterable[str] = WRITTEN) -> None:
    """Copy folders of a project by hard links: writing in place would show in the source."""
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(
                source / name, target / name, copy_function=os.link,
                ignore=shutil.ignore_patterns("locks"),
            )  # fmt: skip


def fork_project(source: Path, target: Path) -> Path:
    """Make a second project with the same inputs and the same written files."""
    target.mkdir(parents=True)
    for name in ("data", "small", "profiles", "notebooks"):
        (target / name).symlink_to((source / name).resolve())
    shutil.copyfile(source / "params.yaml", target / "params.yaml")
    link_tree(source, target)
    return target


def written(folder: Path, names: Iterable[str] = ("artifacts", "reports")) -> dict[str, str]:
    """Hash every file that stages wrote."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in names
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    }


def outputs(stage: str) -> list[str]:
    """List what dvc.yaml declares as outputs of a stage; DVC deletes them before a run."""
    name, _, item = stage.partition("@")
    entry = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
    listed = [*entry.get("outs", []), *entry.get("metrics", []), *entry.get("plots", [])]
    plain = [next(iter(out)) if isinstance(out, dict) else out for out in listed]
    return [path.replace("${item.candidate}", item) for path in plain]


def delete_outputs(folder: Path, stage: str) -> None:
    """Remove a stage's outputs, as DVC does before it runs the stage."""
    for name in outputs(stage):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
