"""How much data does a language need? Error by lines of text, and by minutes of recordings.

    python -m benchmarks.data_size PROJECT [--lines 50 100 200 400] [--minutes 1 3 6]

PROJECT has been through `language data`. For each size, Stage 1 is trained and scored by the stages
themselves in a copy of the project whose texts, or whose training recordings, are the first of one
order, so that a smaller set is part of every larger one. What is held out stays as it is. Texts are
learnt with `stage1.objective: respelling`, recordings with `audio`; all other parameters are the
project's, so a smaller set is also fewer steps. A run that was stopped goes on at its next size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from benchmarks.results import processor, table, write_section

from voxadapt.core.paths import LANGUAGE, LANGUAGE_CHOICE1
from voxadapt.core.provenance import fingerprint

TITLE = "How much data a language needs"
SHARED = ("data", "profiles")
KEPT = (".work/codes", ".work/transcripts", ".work/hashes")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in an order that does not depend on how many there are."""
    return sorted(rows, key=lambda row: fingerprint(["data size", row["text"]]))


def fewer_texts(project: Path, params: dict[str, Any], count: int) -> int:
    """Let a project know only some of its texts; return how many there are."""
    language = params["language"]
    path = project / language["text"]
    kept = in_order(lines_of(path))[:count]
    write_rows(path, kept)
    language["stage1"]["objective"] = "respelling"
    return len(kept)


def fewer_recordings(
    project: Path, params: dict[str, Any], minutes: float, held_out: set[str]
) -> float:
    """Let a project know only some of its training recordings; return their minutes."""
    import soundfile

    language = params["language"]
    path = project / language["audio"]
    rows = lines_of(path)
    kept, total_s = [row for row in rows if row["text"] in held_out], 0.0
    for row in in_order([row for row in rows if row["text"] not in held_out]):
        duration_s = soundfile.info(path.parent / row["audio"]).duration
        if total_s + duration_s <= 60 * minutes:
            kept.append(row)
            total_s += duration_s
    write_rows(path, kept)
    language["stage1"]["objective"] = "audio"
    language["audit"]["min_total_minutes"] = 0.1
    return total_s / 60


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSONL file anew, so that what it is linked to stays as it is."""
    path.unlink()
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def measure(source: Path, scratch: Path, kind: str, size: float) -> list[str]:
    """Train and score Stage 1 with so much data; return a row of the table."""
    for name in SHARED:
        shutil.copytree(source / name, scratch / name, copy_function=os.link)
    params = yaml.safe_load((source / "params.yaml").read_text("utf-8"))
    if kind == "lines":
        had = f"{fewer_texts(scratch, params, int(size))} lines"
    else:
        manifest = lines_of(source / LANGUAGE.manifest)
        held_out = {row["text"] for row in manifest if row["split"] != "train"}
        had = f"{fewer_recordings(scratch, params, size, held_out):.1f} min"
    (scratch / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), "utf-8")
    for command in stages(params["language"]["candidates"]):
        done = subprocess.run(
            [sys.executable, "-m", "voxadapt", "language", *command],
            cwd=scratch, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    choice = json.loads((scratch / LANGUAGE_CHOICE1).read_text("utf-8"))
    epochs = {item["name"]: item for item in choice["candidates"]}
    best = choice["chosen"]
    if best == "base":  # shown by its best epoch, also when none is shown to beat the Base
        best = min((name for name in epochs if name != "base"),
                   key=lambda name: epochs[name]["cer"]["point"])  # fmt: skip
    source_cer = choice["forgetting"]["candidates"][best]["cer"]
    return [had, best, interval(epochs[best]["cer"]), interval(source_cer),
            "yes" if choice["chosen"] != "base" else "no"]  # fmt: skip


def stages(candidates: list[str]) -> Iterator[list[str]]:
    """Yield the commands from texts to choice."""
    yield from (["data"], ["readings"], ["stage1"])
    yield from (["score", name] for name in candidates)
    yield ["decide"]


def interval(value: dict[str, Any]) -> str:
    """Write an error rate with its interval."""
    return " ".join([f"{100 * value['point']:.1f}",
                     f"[{100 * value['low']:.1f}, {100 * value['high']:.1f}]"])  # fmt: skip


def main() -> None:
    """Measure every size, and write the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--lines", type=int, nargs="*", default=[50, 100, 200, 400])
    parser.add_argument("--minutes", type=float, nargs="*", default=[1, 3, 6])
    arguments = parser.parse_args()
    source = arguments.project.resolve()
    sizes = [("lines", n) for n in arguments.lines] + [("minutes", m) for m in arguments.minutes]
    params = yaml.safe_load((source / "params.yaml").read_text("utf-8"))
    same = fingerprint([params["language"], (source / LANGUAGE.made_by_codes).read_text("utf-8")])
    store = source / ".work" / f"data_size-{same}.json"
    known = json.loads(store.read_text("utf-8")) if store.exists() else {}
    for kind, size in sizes:
        if f"{kind} {size:g}" not in known:
            with tempfile.TemporaryDirectory(dir=source / ".work") as folder:
                for name in KEPT:
                    if (source / name).is_dir():
                        shutil.copytree(source / name, Path(folder) / name, copy_function=os.link)
                row = [kind, *measure(source, Path(folder), kind, size)]
            known[f"{kind} {size:g}"] = row
            store.write_text(json.dumps(known), "utf-8")
            print(row, file=sys.stderr, flush=True)
    rows = [known[f"{kind} {size:g}"] for kind, size in sizes]
    name, source_name = params["language"]["name"], params["language"]["source"]["language"]
    header = ["learnt from", "had", "best epoch", f"{name} CER, %", f"{source_name} CER, %",
              "beats the Base"]  # fmt: skip
    said = (
        f"Stage 1 of {name}, {processor()}: `python -m benchmarks.data_size PROJECT`. "
        "95 % intervals over sentences; held-out sentences are the same in every row."
    )
    write_section(TITLE, [said, "", *table(header, rows)])


if __name__ == "__main__":
    main()
