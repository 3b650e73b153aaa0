"""Several voices in one model, and one more voice later: the miniature, measured.

    python -m benchmarks.speakers data

Three voices, the target voice with 500 clips and two others with six clips each, are learnt by
one model, once clip by clip and once with all of them heard equally often. Then a fourth is added
to the checkpoint that is chosen in the latter run, or to its last one where none is, and learnt
alone. The stages of the package do it; what they write is what stands in the results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import yaml
from benchmarks.results import processor, table, write_section

from voxadapt.core.params import Params, check_params
from voxadapt.pipeline import audit, codes, score, select, train

PROFILE = Path(__file__).parents[1] / "profiles" / "miniature.yaml"
TARGET, SECOND, THIRD, FOURTH = "Aria", "Awb", "Rms", "Kal"
VOICES = {SECOND: "flite_awb", THIRD: "flite_rms", FOURTH: "flite_kal16"}
REF_CLIPS = 2  # of another voice: its last ones, joined; they are no clips of the corpus


def build_corpus(data: Path, folder: Path, counts: Mapping[str, int]) -> Path:
    """Write a corpus of the target voice and of other voices of the miniature.

    Args:
        data: The miniature's data.
        folder: Receives clips, references, `train_raw.jsonl`, and `voices.jsonl` with the voices
            that are left.
        counts: Clips of each speaker; the target voice goes by `Aria`.

    Returns:
        The manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = (data / "voices" / "voices.jsonl").read_text("utf-8").splitlines()
    others = [json.loads(line) for line in lines]
    rows = []
    for name, count in counts.items():
        reference = folder / f"{name}.wav"
        if name == TARGET:
            source = data / "speaker"
            lines = (source / "train_raw.jsonl").read_text("utf-8").splitlines()
            listed = [json.loads(line) for line in lines[:count]]
            shutil.copyfile(source / "ref.wav", reference)
        else:
            source = data / "voices"
            own = [row for row in others if row["speaker"] == VOICES[name]]
            listed = own[: min(count, len(own) - REF_CLIPS)]
            sounds = [sf.read(source / row["audio"]) for row in own[-REF_CLIPS:]]
            sf.write(reference, np.concatenate([sound for sound, _ in sounds]), sounds[0][1])
        for row in listed:
            clip = folder / name / Path(row["audio"]).name
            clip.parent.mkdir(exist_ok=True)
            shutil.copyfile(source / row["audio"], clip)
            rows.append(
                {
                    "audio": f"{name}/{clip.name}",
                    "text": row["text"],
                    "ref_audio": reference.name,
                    "speaker": name,
                }
            )
    left = [row for row in others if row["speaker"] not in VOICES.values()]
    for row in left:
        (folder / row["audio"]).parent.mkdir(exist_ok=True)
        shutil.copyfile(data / "voices" / row["audio"], folder / row["audio"])
    for name, written in (("voices.jsonl", left), ("train_raw.jsonl", rows)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in written), "utf-8")
    return folder / "train_raw.jsonl"


def make_params(data: Path, manifest: Path, **changes: Any) -> Params:
    """Return the miniature's parameters for a corpus of `build_corpus`.

    Args:
        data: The miniature's data.
        manifest: The corpus.
        changes: Parameters given as section__key=value.
    """
    values = yaml.safe_load(PROFILE.read_text("utf-8"))
    given = {
        "model__base": str(data / "models" / "base"),
        "asr__model": str(data / "models" / "whisper" / "miniature.pt"),
        "data__manifest": str(manifest),
        "data__other_voices": str(manifest.with_name("voices.jsonl")),
        "audit__min_total_minutes": 0.15,
        "audit__recommended_total_minutes": [0.2, 30.0],
        "split__selection_share": 0.2,
        "split__confirmation_share": 0.2,
        "split__salt": "v12",  # of the six clips of each other voice it holds out three
        "train__balance": 1.0,
        "language": None,
        **changes,
    }
    for name, value in given.items():
        *sections, key = name.split("__")
        target = values
        for section in sections:
            target = target[section]
        target[key] = value
    return check_params(values, "params.yaml")


def run(folder: Path, params: Params) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run the stages up to the choice in a folder of its own.

    Returns:
        The decision, and the audit's table of speakers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    steps = [audit.run, codes.run, train.run]
    steps += [partial(score.run, candidate=name) for name in params.candidates]
    with contextlib.chdir(folder):
        for step in (*steps, select.run):
            print(step(params).sentence, flush=True)
        listed = json.loads(Path("reports/metrics/audit.json").read_text("utf-8"))["speakers"]
        return json.loads(Path("reports/selection.json").read_text("utf-8")), listed


def interval(value: Mapping[str, Any] | None, digits: int = 3, factor: float = 1.0) -> str:
    """Write a figure with its interval."""
    if value is None or value["point"] is None:
        return "-"
    point, low, high = (value[key] for key in ("point", "low", "high"))
    written = f"{factor * point:.{digits}f}"
    return written if low is None else (
        f"{written} [{factor * low:.{digits}f}, {factor * high:.{digits}f}]"
    )  # fmt: skip


def by_speaker(selection: Mapping[str, Any]) -> list[str]:
    """Tabulate every candidate's speakers."""
    rows = []
    for candidate in selection["candidates"]:
        for name, of in candidate["speakers"].items():
            rows.append(
                [
                    f"{candidate['name']}, {name}",
                    interval(of["sim"]),
                    interval(of["wer"], 1, 100.0),
                    interval((of["vs_base"] or {}).get("sim")),
                    str(of["n_measured"]),
                ]
            )
    header = ["candidate, speaker", "SIM", "WER, %", "SIM minus that of the start", "n"]
    return table(header, rows)


def matrix(title: str, found: Mapping[str, Any]) -> list[str]:
    """Tabulate who sounds like whom."""
    rows = [
        [
            f"{title}, {row['speaker']}",
            *(interval(value) for value in row["similarity"]),
            interval(row["right"], 2),
            str(row["n"]),
        ]
        for row in found["rows"]
    ]
    header = ["asked for", *(f"SIM to {name}" for name in found["speakers"]), "nearest right", "n"]
    return table(header, rows)


def describe(selection: Mapping[str, Any], matrices: Sequence[str]) -> list[str]:
    """Write what a run has decided, and from what.

    Args:
        selection: The decision.
        matrices: Of whom to show who sounds like whom; `real` and `codec` are the recordings.
    """
    tables = {c["name"]: c["confusion"] for c in selection["candidates"]} | selection["recordings"]
    titles = {"real": "recordings", "codec": "recordings, coded"}
    lines = [*by_speaker(selection), ""]
    for name in dict.fromkeys(matrices):
        lines += [*matrix(titles.get(name, name), tables[name]), ""]
    return [*lines, selection["reason"], ""]


def section(
    three: Mapping[float, Mapping[str, Any]], added: Mapping[str, Any], audit: Sequence[Any]
) -> list[str]:
    """Write the section.

    Args:
        three: Decision of the three voices by `train.balance`.
        added: Decision with the fourth voice.
        audit: Its table of speakers.
    """
    corpus = "; ".join(
        f"{one['speaker']}: {one['train']} clips to learn from, "
        f"{one['selection'] + one['confirmation']} held out"
        for one in audit
    )
    lines = [
        f"Measured on {processor()}, the miniature. {corpus}. SIM is to recordings; who sounds "
        "like whom is asked of coded ones, as all that a model says is coded. Intervals are 95 %, "
        "by sentences; n: clips. `select.error_margin: 0.05`.",
        "",
    ]
    for balance, found in three.items():
        last = found["candidates"][-1]["name"]
        shown = ["codec", "base"] if balance == 0.0 else []
        lines += [f"Three voices at once, `train.balance: {balance:g}`:", ""]
        lines += describe(found, [*shown, last])
    last = added["candidates"][-1]["name"]
    lines += [
        f"{FOURTH} added to a checkpoint of the latter, `train.speakers: [{FOURTH}]`; the start "
        "(`base`) speaks by name for the three voices that it has, and clones the fourth:",
        "",
        *describe(added, ["base", last]),
    ]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both runs and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the miniature's data folder")
    parser.add_argument("--work", type=Path, help="a folder to keep the runs in")
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args(arguments)
    data = given.data.resolve()
    counts = {TARGET: 500, SECOND: 6, THIRD: 6}
    common: dict[str, Any] = {
        "candidates": ["base", *(f"epoch-{n + 1}" for n in range(given.epochs))],
        "score__takes": 2,
        "score__max_sentences": 16,
        "select__error_margin": 0.05,
    }
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.work or Path(scratch)).resolve()
        manifest = build_corpus(data, work / "three", counts)
        decisions = {}
        for balance in (0.0, 1.0):
            params = make_params(data, manifest, **common, train__balance=balance)
            decisions[balance], _ = run(work / f"balance-{balance:g}", params)
        chosen = decisions[1.0]["chosen"]
        chosen = f"epoch-{given.epochs}" if chosen == "base" else chosen
        manifest = build_corpus(data, work / "four", {**counts, FOURTH: 6})
        base = work / "balance-1" / "artifacts" / "checkpoints" / chosen
        changed = {"model__base": str(base), "train__speakers": [FOURTH]}
        added, audit = run(work / "added", make_params(data, manifest, **common, **changed))
    write_section("Several speakers in one model", section(decisions, added, audit))


if __name__ == "__main__":
    main()
