"""Tables for notebooks and the page, from the JSON, JSONL and CSV that stages wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from voxadapt.core import paths
from voxadapt.core.files import read_json, read_jsonl
from voxadapt.core.params import candidate_name
from voxadapt.core.paths import SPEAKER, Corpus
from voxadapt.core.records import Record, flatten

if TYPE_CHECKING:
    import pandas

NONE = "–"
CONSENT_NOTE = (
    "Speak only with voices whose owners agreed to it; a `consent` in each row of the manifest "
    "keeps that with the recordings."
)
MAX_STATEMENTS = 8


# --- numbers in words --------------------------------------------------------------------------


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as a percentage with a blank that does not break: 0.0345 becomes `3.5 %`."""
    return NONE if value is None else f"{number(100 * value, digits)}\u00a0%"


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Write a number with a fixed count of decimals and a true minus sign."""
    if value is None:
        return NONE
    written = f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")
    return written.lstrip("+−") if not float(f"{value:.{digits}f}") else written


def point(
    value: Record | None, share: bool = False, sign: bool = False, digits: int | None = None
) -> str:
    """Write the point of an interval: a share in per cent, a difference signed and in points.

    A share has one decimal and anything else three where `digits` does not say otherwise.
    """
    if not value or value["point"] is None:
        return NONE
    unit = "" if not share else " points" if sign else " %"
    return f"{_end(value['point'], share, sign, digits)}{unit}".replace(" ", "\u00a0")


def ends(
    value: Record | None, share: bool = False, sign: bool = False, digits: int | None = None
) -> str:
    """Write the ends of an interval, without a unit; nothing where they are unknown."""
    if not value or value["low"] is None:
        return ""
    low, high = (_end(value[key], share, sign, digits) for key in ("low", "high"))
    return f"{low} to {high}".replace(" ", "\u00a0")


def _end(value: float, share: bool, sign: bool, digits: int | None) -> str:
    decimals = digits if digits is not None else 1 if share else 3
    return number(100.0 * value if share else value, decimals, sign)


def interval(value: Record | None, share: bool = False, sign: bool = False) -> str:
    """Write `point (low to high)`, in per cent when it is a share, with a sign for differences."""
    known = ends(value, share, sign)
    written = point(value, share, sign)
    return f"{written}\u00a0({known})" if known and written != NONE else written


def title(candidate: str) -> str:
    """Name a candidate for readers: `Base`, `Epoch 3`, `Stage 2, epoch 1`, `Recording`."""
    fixed = {"base": "Base", "real": "Recording", "codec": "Recording, coded"}
    second = candidate.replace("stage2-epoch-", "Stage 2, epoch ")
    return fixed.get(candidate) or second.replace("epoch-", "Epoch ")


def named(text: str) -> str:
    """Write candidates' names in a sentence as words: `epoch-3` becomes `epoch 3`."""
    text = re.sub(r"\bstage2-epoch-(\d+)\b", r"epoch \1 of Stage 2", text)
    return re.sub(r"\bepoch-(\d+)\b", r"epoch \1", text)


def typeset(text: str) -> str:
    """Write a record's sentence as the pages write: names, minus signs, points, intervals, blanks.

    `epoch-6 …: WER -0.082 [-0.145, -0.019]` becomes `Epoch 6 …: WER −8.2 points (−14.5 to −1.9)`;
    what stands between backticks is to be copied, and stays.
    """
    parts = text.split("`")
    parts[::2] = map(_typeset, parts[::2])
    text = "`".join(parts)
    return text[:1].upper() + text[1:]


def _typeset(text: str) -> str:
    """Write what is not to be copied."""

    def points(found: re.Match[str]) -> str:
        shares = [number(100 * float(value), 1, sign=True) for value in found.groups()[1:]]
        return f"{found[1]} {shares[0]} points [{shares[1]}, {shares[2]}]"

    value = r"([+-]\d*\.\d+)"
    bounds = rf"{value} \[{value}, {value}\]"
    text = re.sub(rf"(\b(?:WER|CER) 0\.\d{{3}} [^:]*:) {bounds}", points, text)
    text = re.sub(r"\b(WER|CER) (0\.\d{3})\b", lambda m: f"{m[1]} {percent(float(m[2]))}", text)
    text = re.sub(rf"\b(WER|CER) {bounds}", points, named(text))
    text = re.sub(r"\[([+−-]?[\d.]+), ([+−-]?[\d.]+)\]", r"(\1 to \2)", text)
    text = re.sub(r"(?<![\w-])[+-](?=0(?:\.0+)?(?!\.?\d))", "", text)
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text.replace("SIM-resemblyzer", "similarity"))
    if re.search(r"difference of 0\.\d+ in (WER|CER)", text):
        text = re.sub(r"(?<=difference of )0\.\d+",
                      lambda found: f"{100 * float(found[0]):g} points", text)  # fmt: skip
    text = re.sub(r"(?<![\d.])1 points", "1 point", re.sub(r" x (?=\d)", " × ", text))
    return re.sub(r"(?<=\d) (%|points?\b|to [+−]?\d)", "\u00a0\\1", text)


# --- score rows --------------------------------------------------------------------------------


def error_of(row: Record, metric: str = "wer") -> float:
    """Return a clip's word or character error, capped at 1; a clip that failed counts as 1."""
    unit = "word" if metric == "wer" else "char"
    if row["status"] == "failed" or row.get(f"{unit}_deletions") is None:
        return 1.0
    edits = sum(row[f"{unit}_{kind}"] for kind in ("substitutions", "deletions", "insertions"))
    share: float = edits / max(1, row[f"ref_{unit}s"])
    return min(1.0, share)


def worst(rows: Iterable[Record], limit: int, metric: str = "wer") -> list[Record]:
    """Return the worst clips: failed first, then by error, flags and low similarity."""

    def badness(row: Record) -> tuple[object, ...]:
        sim = row.get("sim")
        return (
            row["status"] != "failed",
            -error_of(row, metric),
            -len(row.get("flags", [])),
            1.0 if sim is None else sim,
            row["text_id"],
            row["take"],
        )

    return sorted(rows, key=badness)[:limit]


# --- tables for notebooks ----------------------------------------------------------------------


def frame(rows: Sequence[Record], index: str | None = None) -> pandas.DataFrame:
    """Make a table for a notebook of rows, one column as the index."""
    import pandas

    pandas.set_option("display.max_colwidth", 120, "display.max_rows", 200)
    frame = pandas.DataFrame(list(rows))
    return frame.set_index(index).rename_axis(None) if index and len(frame) else frame


def record(path: str | Path) -> pandas.DataFrame:
    """Show a JSON record as a table of names and values, lists shortened."""
    rows = []
    for key, value in flatten(read_json(path)).items():
        if isinstance(value, float):
            value = number(value, 4)
        elif isinstance(value, list):
            value = ", ".join(map(str, value[:8])) + (" …" if len(value) > 8 else "")
        rows.append({"figure": key.replace("_", " "), "value": value})
    return frame(rows, "figure")


def findings_by_rule(clips: Iterable[Record]) -> list[Record]:
    """Count the audit's findings by rule, most common first: `clips`, and an `example` of each."""
    found: dict[tuple[str, str], list[str]] = {}
    for clip in clips:
        name = clip.get("id") or clip.get("audio") or clip.get("line", "?")
        for finding in clip.get("findings", []):
            key = (finding["severity"], finding["rule"].replace("_", " "))
            found.setdefault(key, []).append(f"{name}: {finding['message']}")
    rows = [
        {"severity": severity, "rule": rule, "clips": len(texts), "example": texts[0]}
        for (severity, rule), texts in found.items()
    ]
    return sorted(rows, key=lambda row: -row["clips"])


def findings(at: Corpus = SPEAKER) -> pandas.DataFrame:
    """Count the audit's findings by severity and rule, with an example of each."""
    rows = sorted(findings_by_rule(read_jsonl(at.clips)), key=lambda row: row["severity"])
    none = {"severity": "none", "rule": NONE, "clips": 0, "example": NONE}
    return frame(rows or [none], "severity")


def consent(at: Corpus = SPEAKER) -> pandas.DataFrame:
    """Count the clips by what their rows say of the speaker's consent."""
    given = read_json(at.audit_metrics)
    stated = given["consent"]["statements"]
    rows = [{"consent": text, "clips": count} for text, count in stated.items()]
    without = given["num_rows"] - given["consent"]["num_rows"]
    if without:
        rows.append({"consent": f"none stated. {CONSENT_NOTE}", "clips": without})
    return frame(rows, "consent")


def consent_sentence(given: Record | None, num_rows: int) -> str:
    """Say how many rows of the manifest state the speaker's consent, as the audit counted them."""
    stated = given["statements"] if given else {}
    if not stated:
        return f"No row states the speaker's consent. {CONSENT_NOTE}"
    usual = sorted(stated, key=lambda text: -stated[text])[:MAX_STATEMENTS]
    words = "; ".join(f"“{text}” ({stated[text]})" for text in usual)
    more = f"; {len(stated) - len(usual)} further wordings" if len(stated) > len(usual) else ""
    total = sum(stated.values())
    left = f" {num_rows - total} rows state none. {CONSENT_NOTE}" if total < num_rows else ""
    return f"Consent, as {total} of {num_rows} rows state it: {words}{more}.{left}"


def splits(at: Corpus = SPEAKER) -> pandas.DataFrame:
    """Count clips, texts and minutes of each split, and of each of several speakers' splits."""
    rows = read_jsonl(at.manifest)
    groups = {"": rows}
    for name in sorted({row["speaker"] for row in rows if "speaker" in row}):
        groups[f"{name}, "] = [row for row in rows if row.get("speaker") == name]
    table = []
    for whose, split in product(groups, ("train", "selection", "confirmation")):
        chosen = [row for row in groups[whose] if row["split"] == split]
        table.append(
            {
                "split": f"{whose}{split}",
                "clips": len(chosen),
                "texts": len({row["text"] for row in chosen}),
                "minutes": round(sum(row["duration_s"] for row in chosen) / 60, 1),
            }
        )
    return frame(table, "split")


def frames(at: Corpus = SPEAKER) -> pandas.DataFrame:
    """Describe the extracted codes of each split: clips, frames, frames per clip."""
    split_of = {row["id"]: row["split"] for row in read_jsonl(at.manifest)}
    codes = frame(read_jsonl(at.codes_index))
    by_split = codes.groupby(codes["id"].map(split_of).fillna("other"), sort=False)["num_frames"]
    described = {"clips": "size", "frames": "sum", "shortest": "min", "median": "median",
                 "longest": "max"}  # fmt: skip
    return by_split.agg(**described).rename_axis(None).astype(int)


def references(at: Corpus = SPEAKER) -> pandas.DataFrame:
    """Show what recordings and their codec round trip score: the ceiling of everything after."""
    rows = []
    for name in ("real", "codec"):
        path = at.reference / name / "summary.json"
        if path.is_file():
            rows.append({"clips": title(name), **_main_measures(read_json(path))})
    return frame(rows, "clips")


def similarity_scale(at: Corpus = SPEAKER) -> pandas.DataFrame:
    """Show the ends of the similarity scale with their intervals."""
    scale = read_json(at.scale)
    rows = [
        {"end of the scale": label, "similarity": interval(scale[key]), "clips": scale[key]["n"]}
        for key, label in (
            ("ceiling", "ceiling: the speaker's recordings against one another"),
            ("codec_ceiling", "codec ceiling: the same after the codec"),
            ("floor", "floor: other voices against the speaker"),
        )
    ]
    return frame(rows, "end of the scale")


def planning(at: Corpus = SPEAKER) -> pandas.DataFrame:
    """Show which differences the sentences can show, and how many would show finer ones."""
    splits, rows = read_json(at.planning)["splits"], []
    for split, compared in product(("selection", "confirmation"),
                                   ("between_epochs", "against_base")):  # fmt: skip
        found = splits.get(split, {})
        for measure, power in found.get(compared, {}).items():
            label, share = MEASURES[measure]
            seen, unit = power["detectable_difference"], " %" if share else ""
            needed = [
                f"{need['num_texts']} for {(100 if share else 1) * need['difference']:g}{unit}"
                for need in power["texts_needed"]
            ]
            rows.append(
                {
                    "split": split,
                    "sentences": found["num_texts"],
                    "compared": compared.replace("_", " "),
                    "measure": label,
                    "can be seen": percent(seen) if share else number(seen),
                    "sentences needed": "; ".join(needed),
                }
            )
    return frame(rows, "split")


COLUMNS = {"similarity": "sim", "WER": "wer", "CER": "cer", "duration": "duration_ratio",
           "failed": "failure_rate"}  # fmt: skip


def measured(record: Record, columns: Mapping[str, str] = COLUMNS) -> dict[str, str]:
    """Write measures of a record, given their keys by heading, with their intervals."""
    known = {"sim", "sim_norm", "duration_ratio"}  # all others are shares
    return {name: interval(record.get(key), key not in known) for name, key in columns.items()}


def _main_measures(summary: Record) -> dict[str, str]:
    columns = {"WER": "wer", "CER": "cer", "similarity": "sim",
               "spoken / expected duration": "duration_ratio", "failed clips": "failure_rate",
               "clips more than half wrong": "mostly_wrong_rate"}  # fmt: skip
    return measured(summary, columns) | {
        "measured": f"{summary['n_measured']} of {summary['n_expected']}"
    }


def summary(candidate: str, folder: Path | None = None, at: Corpus = SPEAKER) -> pandas.DataFrame:
    """Show a candidate's measures beside those of recordings and their codec round trip.

    Its scores are in `folder`, or with those of the speaker's candidates.
    """
    candidate = candidate_name(candidate)
    folders = {candidate: folder or paths.SCORES / candidate}
    folders |= {name: at.reference / name for name in ("codec", "real")}
    rows = []
    for name, place in folders.items():
        path = place / "summary.json"
        if name == candidate or path.is_file():
            rows.append({"candidate": title(name), **_main_measures(read_json(path))})
    return frame(rows, "candidate").T


def flags(candidate: str, folder: Path | None = None) -> pandas.DataFrame:
    """Count the flags of a candidate's clips; `folder` as in `summary`."""
    folder = folder or paths.SCORES / candidate_name(candidate)
    found = read_json(folder / "summary.json")
    rows = [
        {
            "flag": flag.replace("_", " "),
            "clips": count,
            "share": percent(count / max(1, found["n_expected"])),
        }
        for flag, count in found["flags"].items()
    ]
    return frame(rows, "flag")


def train_epochs(path: Path = paths.TRAIN_METRICS) -> pandas.DataFrame:
    """Show losses, updates lost to rounding and distance from the Base, per epoch."""
    return frame(train_rows(read_json(path)), "epoch")


def train_rows(metrics: Record) -> list[dict[str, str]]:
    """Return the training summary as rows of text, one per epoch."""
    return [
        {
            "epoch": str(epoch["epoch"]),
            "steps": str(epoch["step"]),
            "loss": number(epoch["train"]["loss"]),
            "held-out loss": number(epoch["heldout"].get("loss")),
            "updates lost": percent(epoch["lost_update_share"], 2),
        }
        | {
            f"moved: {module}": percent(drift["relative"], 2)
            for module, drift in epoch["drift"].items()
        }
        for epoch in metrics["epochs"]
    ]


def candidates(path: Path = paths.SELECTION) -> pandas.DataFrame:
    """Show what the selection ranked: every candidate with its measures and P(best)."""
    selection = read_json(path)
    rows = [
        {
            "candidate": title(c["name"])
            + (" (chosen)" if c["name"] == selection["chosen"] else ""),
            **measured(c),
            "eligible": "yes" if c["eligible"] else "no",
            "P(best)": percent(c["p_best"], 0),
        }
        for c in selection["candidates"]
    ]
    return frame(rows, "candidate")


def gates(path: Path = paths.SELECTION) -> pandas.DataFrame:
    """Show which gate each candidate passed."""
    selection = read_json(path)
    rows = [
        {"candidate": title(c["name"])}
        | {gate["name"].replace("_", " "): gate["state"] for gate in c["gates"]}
        for c in selection["candidates"]
    ]
    return frame(rows, "candidate").fillna(NONE)


def pairs(path: Path = paths.SELECTION) -> pandas.DataFrame:
    """Show paired differences: against the Base (or where the stage began), and the best."""
    selection = read_json(path)
    against, first = ("vs_start" if "start" in selection else "vs_base",
                      title(selection.get("start", "base")))  # fmt: skip
    rows = []
    for c in selection["candidates"]:
        start, best = c[against] or {}, c["vs_best"] or {}
        rows.append(
            {
                "candidate": title(c["name"]),
                f"similarity − {first}": interval(start.get("sim"), sign=True),
                f"error − {first}": interval(start.get("error"), share=True, sign=True),
                f"primary − {title(selection['best'])}": interval(
                    best.get("difference"), selection["rule"]["primary"] == "error", sign=True
                ),
                "ties with the best": yes_no(best.get("tied")),
            }
        )
    return frame(rows, "candidate")


def yes_no(value: bool | None) -> str:
    """Write a truth value; a dash when it is unknown."""
    return NONE if value is None else "yes" if value else "no"


MEASURES = {  # key in confirm.json: (label, is a share)
    "sim": ("similarity", False),
    "sim_norm": ("similarity, 0 = floor, 1 = ceiling", False),
    "wer": ("WER", True),
    "cer": ("CER", True),
    "failure_rate": ("failed clips", True),
    "duration_ratio": ("spoken / expected duration", False),
}


def confirmation(path: Path = paths.CONFIRM) -> pandas.DataFrame:
    """Show the chosen candidate and the Base on texts that no decision has seen."""
    measures = read_json(path)["measures"]
    rows = [
        {
            "measure": label,
            "Base": interval(found["base"], share),
            "chosen": interval(found["chosen"], share),
            "difference": interval(found["difference"], share, sign=True),
            "at selection": interval(found.get("selection_difference"), share, sign=True),
        }
        for key, (label, share) in MEASURES.items()
        if (found := measures.get(key)) is not None
    ]
    return frame(rows, "measure")
