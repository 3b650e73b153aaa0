"""Write the counts of the last long run into docs/reliability.md.

python tests/faults/page.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.world import STAGES

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"


def counts(record: dict[str, Any]) -> str:
    """Describe a run in Markdown."""
    made = record["machine"]["versions"]
    missing = [name for name in STAGES if name not in record["stages"]]
    sources = {stage.get("source") for stage in record["stages"].values()}
    lines = [
        f"{record['kills']} kills in {len(record['stages'])} of {len(STAGES)} stages; "
        f"losses: {record['losses']}. "
        f"{record['seconds'] / 60:.0f} minutes on {record['machine']['system']}, Python "
        f"{made['python']}, torch {made['torch']}, seed "
        f"{', '.join(sorted({str(s['seed']) for s in record['stages'].values()}))}.",
        "",
        "| stage | kills | in the first, last 5 % | outputs deleted | units of work | done again |",
        "|---|---:|---:|---:|---|---|",
    ]
    for name, stage in record["stages"].items():
        work = ", ".join(f"{count} {kind}" for kind, count in stage["work"].items()) or "-"
        again = ", ".join(f"{count} {kind}" for kind, count in stage["done_again"].items()) or "-"
        edges = f"{stage['in the first twentieth']}, {stage['in the last twentieth']}"
        deleted = stage["kills after outputs were deleted"]
        lines.append(f"| {name} | {stage['kills']} | {edges} | {deleted} | {work} | {again} |")
    if missing:
        lines[:0] = [f"**Not yet run: {', '.join(missing)}.**", ""]
    if len(sources) > 1:
        lines[:0] = ["**The stages were run with different states of the code.**", ""]
    for name, real in record.get("real", {}).items():
        if "kills" in real:
            lines.append(f"| whole process tree, {name} | {real['kills']} | - | - | - | - |")
    if two := record.get("real", {}).get("two at once"):
        lines += ["", f"Two `dvc repro` of the same stages at once: {two['refused']} of "
                  f"{two['runs']} refused by DVC, losses: {two['losses']}."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Put the counts between their marks."""
    record = json.loads((DOCS / "reliability.json").read_text(encoding="utf-8"))
    page = DOCS / "reliability.md"
    text = page.read_text(encoding="utf-8")
    marked = f"{BEGIN}\n{counts(record)}\n{END}"
    page.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: marked, text, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()
