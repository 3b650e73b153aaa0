"""Sections of RESULTS.md, each written by the script that measured it."""

from __future__ import annotations

import platform
import re
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "# Benchmark results\n\nWritten by the scripts in this folder; nothing is typed by hand.\n"


def write_section(title: str, lines: list[str]) -> None:
    """Put a section into RESULTS.md in place of the one of that title; print it too."""
    body = f"## {title}\n\n" + "\n".join(lines).strip() + "\n"
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else TITLE
    head, *sections = re.split(r"^(?=## )", old, flags=re.MULTILINE)
    kept = [section for section in sections if not section.startswith(f"## {title}\n")]
    ordered = sorted([*kept, body])
    text = head.rstrip() + "\n\n" + "\n".join(section.rstrip() + "\n" for section in ordered)
    RESULTS.write_text(text, encoding="utf-8")
    print(body)


def processor() -> str:
    """Name the processor as the system does."""
    try:
        listed = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", listed, flags=re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Write a Markdown table; every column but the first is right-aligned."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return ["| " + " | ".join(row) + " |" for row in [header, rule, *rows]]
