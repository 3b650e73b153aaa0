"""Command line of the miniature: ``python -m miniature build``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from miniature.build import STEPS, build


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Command-line arguments; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m miniature")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="build the miniature world, or go on with it")
    command.add_argument("--out", type=Path, default=Path("data"))
    command.add_argument("--work", type=Path, default=Path(".work/miniature"))
    command.add_argument("--start", type=Path, help="models of an earlier build to start from")
    command.add_argument("--until", choices=STEPS, default=STEPS[-1], help="last step to take")
    command.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    build(options.out, options.work, options.start, options.until)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
