"""Walk the two walkthroughs and write what their commands print into them.

The `bash` blocks of a page are run line by line, in an empty folder that sees the repository's
`data/`, `docs/` and `profiles/`; a `text` block that follows one is what it printed. A block that
begins with `cd` is not run: from there on it takes a model of full size, and hours.

    python docs/walk.py            # writes docs/your-voice.md and docs/your-language.md
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGES = ("your-voice.md", "your-language.md")
WIDTH = 120  # of the tables that are printed
STEP = re.compile(
    r"```bash\n(?P<commands>(?!cd ).*?)```\n(?P<printed>\n```text\n.*?```\n)?", re.DOTALL
)


def run(command: str) -> str:
    """Run one command; return what it printed on stdout.

    Raises:
        RuntimeError: When it fails.
    """
    words = shlex.split(command, comments=True)
    if words[0] == "voxadapt":  # here, because a second start takes longer than the command
        from typer.testing import CliRunner

        from voxadapt.cli.app import app

        done = CliRunner().invoke(app, words[1:])
        if done.exit_code:
            raise RuntimeError(f"{command}: {done.exception!r} {done.stderr}")
        return done.stdout
    if words[0] == "python":
        words[0] = sys.executable
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"{command}: {found.stderr}")
    return found.stdout.lstrip("\ufeff")


def walk(text: str) -> str:
    """Return a page with what its commands print, run in an empty folder."""

    def step(found: re.Match[str]) -> str:
        commands = textwrap.dedent(found["commands"]).replace("\\\n", " ").splitlines()
        printed = "".join(run(line) for line in commands if line.strip())
        if found["printed"] is None:
            return found[0]
        lines = [line.rstrip() for line in printed.strip().splitlines()]
        return f"```bash\n{found['commands']}```\n\n```text\n" + "\n".join(lines) + "\n```\n"

    before, os.environ["COLUMNS"] = os.getcwd(), str(WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("data", "docs", "profiles"):
            (Path(folder) / name).symlink_to(DOCS.parent / name)
        os.chdir(folder)
        try:
            return STEP.sub(step, text)
        finally:
            os.chdir(before)


if __name__ == "__main__":
    for name in PAGES:
        page = DOCS / name
        page.write_text(walk(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"docs/{name}")
