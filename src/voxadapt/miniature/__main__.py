"""Command line of the miniature: ``python -m voxadapt.miniature build``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from voxadapt.miniature.build import build


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Command-line arguments; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m voxadapt.miniature")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="build the miniature world from nothing")
    command.add_argument("--out", type=Path, default=Path("data"))
    command.add_argument("--work", type=Path, default=Path(".work/miniature"))
    command.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    build(options.out, options.work, options.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
